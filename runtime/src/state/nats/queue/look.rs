//! What the queue looks like: how it stands, and what messages contain.

use super::Store;
use super::envelope::{Exact, unpack};
use super::settle::Tries;
use super::watch::{COUNTS, Counts};
use crate::state::nats::feed::{self, Item};
use crate::state::nats::line::Failed;
use crate::state::queue::content::{Headers, add_dead_headers};
use crate::state::queue::desk::{BATCH_BYTES_MAX, Desk, Found, PEEK_MAX};
use crate::state::queue::stored::{Stored, StoredMessage};
use crate::state::queue::{Peeked, QueueStatus};
use crate::state::wall_ms;
use std::time::{Duration, UNIX_EPOCH};
use tokio::time::sleep;

/// How often it is looked again for messages that no server knows of yet, and the pause between.
const LOOKS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(25);

impl Store {
    /// Reads messages with what they contain. Those of a shard that others may have by now are not handed out.
    pub(super) async fn read(&self, ids: &[i64]) -> Result<Found, Failed> {
        if !self.tenure.borrow().is_good() {
            return Err(Failed::Refused(0, "the lease is not renewed".to_owned()));
        }
        let read = ids.iter().map(|&id| async move {
            let found = self
                .line
                .get(&self.names.messages, id.cast_unsigned())
                .await?;
            let row = self.index.borrow().get(id).cloned();
            let (Some(message), Some(row)) = (found, row) else {
                self.index.borrow_mut().remove(id);
                return Ok((id, None));
            };
            let Exact {
                content_type,
                headers,
                ..
            } = unpack(&message.headers.unwrap_or_default()).exact;
            let stored = Stored {
                id,
                queue: self.label.clone(),
                key: row.key,
                attempts: 0,
                alone: false,
                ready_at_ms: 0,
                sent_at_ms: row.sent_at_ms,
            };
            Ok((
                id,
                Some(StoredMessage {
                    stored,
                    content_type,
                    headers,
                    body: message.payload.into(),
                }),
            ))
        });
        let read = futures_util::future::join_all(read).await;
        read.into_iter().collect()
    }

    pub(super) async fn status(&self, desk: &Desk) -> Result<QueueStatus, Failed> {
        let mut looks = 0;
        loop {
            let kept = self.line.stream(&self.names.messages).await?;
            let (kept, first) = kept.map_or_else(Default::default, |it| {
                (it.state.messages, it.state.first_ts)
            });
            let counts = self.counts(desk).await;
            looks += 1;
            // A message that was just sent may be on its way to who has its shard.
            let unknown = kept.saturating_sub(counts.messages + counts.settled);
            if unknown > 0 && looks < LOOKS && self.is_all_held() {
                sleep(PAUSE).await;
                continue;
            }
            let dead = self.line.stream(&self.names.dead).await?;
            return Ok(QueueStatus {
                queue: self.label.clone(),
                messages: kept,
                ready: counts.ready + unknown,
                delayed: counts.delayed,
                in_flight: counts.in_flight,
                dead: dead.map_or(0, |it| it.state.messages),
                consumers: desk.lanes.borrow().counts().consumers as u64,
                oldest_ms: if kept == 0 { 0 } else { age_ms(&first) },
            });
        }
    }

    /// Returns how it stands with the messages that servers know of.
    async fn counts(&self, desk: &Desk) -> Counts {
        let others = self.ask_others::<Counts>(COUNTS).await;
        let mut counts = self.own_counts(desk);
        for other in others.into_iter().flatten() {
            counts += other;
        }
        counts
    }

    /// Returns the oldest messages, or dead letters, as many as an answer has room for.
    pub(super) async fn peek(&self, dead: bool, count: u32) -> Result<Vec<Peeked>, Failed> {
        let most = (count.min(PEEK_MAX) as usize, BATCH_BYTES_MAX / 2);
        let items = match dead {
            true => {
                feed::read(
                    &self.line,
                    &self.names.dead,
                    &self.names.subject("dead"),
                    most,
                )
                .await?
            }
            false => {
                feed::read(
                    &self.line,
                    &self.names.messages,
                    &self.names.shard("*"),
                    most,
                )
                .await?
            }
        };
        let peeked = items.into_iter().map(|item| self.peeked(item));
        futures_util::future::join_all(peeked)
            .await
            .into_iter()
            .collect()
    }

    async fn peeked(&self, item: Item) -> Result<Peeked, Failed> {
        let envelope = unpack(&item.headers);
        let mut headers: Headers = envelope.exact.headers;
        let attempts = match (&envelope.dead, self.names.shard_of(&item.subject)) {
            (Some(dead), _) => {
                let told = (&*dead.reason, &*self.label, dead.attempts, dead.at_ms);
                add_dead_headers(&mut headers, told);
                dead.attempts
            }
            (None, Some(shard)) => {
                let tries = self.names.tries(shard, item.sequence);
                let tries = self.line.value(&self.names.state, &tries).await?;
                let tries = tries.and_then(|it| serde_json::from_slice::<Tries>(&it).ok());
                tries.map_or(0, |it| it.attempts)
            }
            (None, None) => 0,
        };
        Ok(Peeked {
            id: self.outside(envelope.id.unwrap_or(item.sequence.cast_signed())),
            key: envelope.exact.key,
            attempts,
            sent_at_ms: envelope.sent_at_ms.unwrap_or(item.at_ns / 1_000_000),
            content_type: envelope.exact.content_type,
            headers,
            body: item.payload.into(),
        })
    }
}

/// Returns how long ago a time was.
fn age_ms(time: &str) -> u64 {
    let since = humantime::parse_rfc3339(time).ok();
    let since = since.and_then(|it| it.duration_since(UNIX_EPOCH).ok());
    since.map_or(0, |it| wall_ms().saturating_sub(it.as_millis() as u64))
}
