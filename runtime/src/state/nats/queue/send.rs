//! How messages come into the queue: those of a key one after the other, each when the one before it is taken, and others
//! without waiting for answers in between.
//!
//! JetStream takes each message for itself. So several that are sent together are all or none only as far as it could be
//! seen before that there is room for them; if some were taken and others not, nobody is told that none were.

use super::Store;
use super::envelope::{pack, unpack};
use super::names::{SHARDS, shard_of_key};
use crate::state::nats::api::{FULL, TOO_LARGE, Taken};
use crate::state::nats::line::Failed;
use crate::state::queue::content::validate;
use crate::state::queue::{Message, QueueError};
use futures_util::future::join_all;
use std::collections::HashMap;

impl Store {
    /// Takes messages; they are in the stream then, and as durable as it is.
    pub(super) async fn send(&self, messages: Vec<Message>) -> Result<Vec<String>, QueueError> {
        validate(&messages)?;
        if messages.len() > 1 || self.is_lax.get() {
            self.look_for_room(&messages).await?;
        }
        let mut ids = Vec::with_capacity(messages.len());
        for _ in &messages {
            ids.push(new_id()?);
        }
        let rows = by_key(&messages).into_iter();
        let sent = join_all(rows.map(|row| self.send_row(row, &messages, &ids))).await;
        let mut sent: Vec<(usize, Result<Taken, Failed>)> = sent.into_iter().flatten().collect();
        sent.sort_by_key(|(at, _)| *at);
        let taken = all_taken(sent.into_iter().map(|(_, it)| it).collect())?;
        let known: HashMap<u64, i64> = taken
            .iter()
            .zip(&ids)
            .filter(|(taken, _)| !taken.duplicate)
            .map(|(taken, id)| (taken.seq, *id))
            .collect();
        let mut all = Vec::with_capacity(ids.len());
        for taken in taken {
            all.push(match known.get(&taken.seq) {
                Some(id) => self.outside(*id),
                None => self.id_of(taken.seq).await?,
            });
        }
        Ok(all)
    }

    /// Sends messages of one key in their order, none after one that was not taken: sent again, that one would be behind it.
    async fn send_row(
        &self,
        row: Vec<usize>,
        messages: &[Message],
        ids: &[i64],
    ) -> Vec<(usize, Result<Taken, Failed>)> {
        let mut sent = Vec::with_capacity(row.len());
        let mut failed = None;
        for at in row {
            if let Some(failed) = &failed {
                sent.push((at, Err(Failed::clone(failed))));
                continue;
            }
            let message = &messages[at];
            let subject = self.names.shard(self.shard(message));
            let headers = pack(message, ids[at]);
            let body = message.body.clone().into();
            let taken = self.line.publish(&subject, headers, body).await;
            failed = taken.as_ref().err().cloned();
            sent.push((at, taken));
        }
        sent
    }

    /// Refuses messages for which there is no room now. Those with a dedup id may be there already, and are left to the stream
    /// if it knows the limit.
    async fn look_for_room(&self, messages: &[Message]) -> Result<(), QueueError> {
        let is_lax = self.is_lax.get();
        let is_new = |it: &&Message| is_lax || it.dedup_id.is_none();
        let new = messages.iter().filter(is_new).count() as u64;
        let stream = self.line.stream(&self.names.messages).await;
        let kept = stream
            .map_err(super::looked)?
            .map_or(0, |it| it.state.messages);
        match new > 0 && kept + new > self.max_depth.get() {
            true => Err(QueueError::Full),
            false => Ok(()),
        }
    }

    /// Messages without a key are spread evenly.
    fn shard(&self, message: &Message) -> u8 {
        match &message.key {
            Some(key) => shard_of_key(key),
            None => {
                let shard = (self.last_shard.get() + 1) % SHARDS;
                self.last_shard.set(shard);
                shard
            }
        }
    }

    /// Returns the id of a message that was sent before; of one that is gone, its number, by which it was never known.
    async fn id_of(&self, sequence: u64) -> Result<String, QueueError> {
        let found = self.line.get(&self.names.messages, sequence).await;
        // It was taken, whatever its id is.
        let found = found.map_err(|_| QueueError::OutcomeUnknown)?;
        let headers = found.and_then(|it| it.headers).unwrap_or_default();
        Ok(match unpack(&headers).id {
            Some(id) => self.outside(id),
            None => self.outside(sequence.cast_signed()),
        })
    }
}

/// Returns the places of messages, those of one key together.
fn by_key(messages: &[Message]) -> Vec<Vec<usize>> {
    let mut rows: Vec<Vec<usize>> = Vec::new();
    let mut of_key = HashMap::new();
    for (at, message) in messages.iter().enumerate() {
        let next = rows.len();
        let row = match message.key.as_deref() {
            Some(key) => *of_key.entry(key).or_insert(next),
            None => next,
        };
        if row == next {
            rows.push(Vec::new());
        }
        rows[row].push(at);
    }
    rows
}

/// Returns an id that no other message has.
fn new_id() -> Result<i64, QueueError> {
    let random = getrandom::u64().map_err(|error| QueueError::Other(error.to_string()))?;
    Ok((random >> 1).cast_signed())
}

/// Returns what became of all of them if all were taken. If only some were, or nobody knows, that is said.
fn all_taken(sent: Vec<Result<Taken, Failed>>) -> Result<Vec<Taken>, QueueError> {
    let mut taken = Vec::with_capacity(sent.len());
    let mut refused = None;
    let count = sent.len();
    for one in sent {
        match one {
            Ok(one) => taken.push(one),
            Err(Failed::Unknown(_)) => return Err(QueueError::OutcomeUnknown),
            Err(failed) => refused = refused.or(Some(failed)),
        }
    }
    match refused {
        None => Ok(taken),
        Some(_) if !taken.is_empty() => {
            tracing::debug!(count, taken = taken.len(), "only some messages were taken");
            Err(QueueError::OutcomeUnknown)
        }
        Some(Failed::Refused(FULL, _)) => Err(QueueError::Full),
        Some(Failed::Refused(TOO_LARGE, why)) => Err(QueueError::TooLarge(why)),
        Some(failed) => Err(super::changed(failed)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_a_key_are_sent_one_after_the_other_and_others_beside_them() {
        let keys = [Some("a"), None, Some("b"), Some("a"), None, Some("a")];
        let messages = keys.map(|key| Message {
            key: key.map(str::to_owned),
            ..Message::default()
        });
        let rows = [vec![0, 3, 5], vec![1], vec![2], vec![4]];
        assert_eq!(by_key(&messages), rows);
    }

    #[test]
    fn none_were_taken_only_if_that_is_certain() {
        let taken = || {
            Ok(Taken {
                seq: 1,
                duplicate: false,
            })
        };
        let full = || Err(Failed::Refused(FULL, "full".to_owned()));
        let away = || Err(Failed::Away("away".to_owned()));
        let unknown = || Err(Failed::Unknown("silent".to_owned()));
        assert_eq!(all_taken(vec![taken(), taken()]).unwrap().len(), 2);
        let refused = |sent| all_taken(sent).unwrap_err();
        assert_eq!(refused(vec![full(), full()]), QueueError::Full);
        assert_eq!(refused(vec![taken(), full()]), QueueError::OutcomeUnknown);
        assert_eq!(refused(vec![full(), unknown()]), QueueError::OutcomeUnknown);
        assert_eq!(refused(vec![taken(), away()]), QueueError::OutcomeUnknown);
        let one = refused(vec![away(), away()]);
        assert!(matches!(one, QueueError::Unavailable(_)), "{one}");
    }
}
