//! What operators change in the queue.

use super::Store;
use super::envelope::{sent_on, unpack};
use super::names::{SHARDS, shard_of_key};
use super::watch::PURGE;
use crate::state::nats::api::FULL;
use crate::state::nats::feed::{self, Item};
use crate::state::nats::line::Failed;
use crate::state::queue::QueueError;
use crate::state::queue::desk::Desk;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Dead letters that are read at a time, and their bytes.
const STEP: usize = 100;
const STEP_BYTES: usize = 8 << 20;

/// How long messages may be on their way to who has their shard, and how often it is looked.
const LOOKS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(25);

impl Store {
    /// Sends dead letters back, each behind those that are there.
    pub(super) async fn redrive(&self, count: u32) -> Result<u64, QueueError> {
        let (count, mut moved) = (u64::from(count), 0);
        let subject = self.names.subject("dead");
        let kept = self.line.stream(&self.names.dead).await;
        let kept = kept
            .map_err(super::looked)?
            .map_or(0, |it| it.state.messages);
        // Not those that become dead letters again meanwhile.
        let count = count.min(kept);
        while moved < count {
            let most = ((count - moved).min(STEP as u64) as usize, STEP_BYTES);
            let read = feed::read(&self.line, &self.names.dead, &subject, most).await;
            let letters = read.map_err(super::looked)?;
            if letters.is_empty() {
                break;
            }
            for letter in letters {
                match self.send_back(letter).await {
                    Ok(()) => moved += 1,
                    Err(_) if moved > 0 => return Ok(moved),
                    Err(Failed::Refused(FULL, _)) => return Err(QueueError::Full),
                    Err(failed) => return Err(super::changed(failed)),
                }
            }
        }
        Ok(moved)
    }

    /// By its dedup id it is sent once, however often this is done.
    async fn send_back(&self, letter: Item) -> Result<(), Failed> {
        let envelope = unpack(&letter.headers);
        let shard = match &envelope.exact.key {
            Some(key) => shard_of_key(key),
            None => (letter.sequence % u64::from(SHARDS)) as u8,
        };
        let own = (
            envelope.id.unwrap_or(letter.sequence.cast_signed()),
            envelope.sent_at_ms.unwrap_or(letter.at_ns / 1_000_000),
        );
        let once = format!("back-{}-{}", letter.sequence, letter.at_ns);
        let headers = sent_on(&letter.headers, None, own, &once);
        let subject = self.names.shard(shard);
        self.line.publish(&subject, headers, letter.payload).await?;
        self.line
            .delete(&self.names.dead, letter.sequence)
            .await
            .map(drop)
    }

    /// Deletes messages that nobody is handling, or dead letters; each server those of its shards.
    pub(super) async fn purge(&self, desk: &Desk, dead: bool) -> Result<u64, Failed> {
        if dead {
            return self
                .line
                .purge(&self.names.dead, &self.names.subject("dead"))
                .await;
        }
        let mut removed = self.purge_own(desk).await?;
        for other in self.ask_others::<u64>(PURGE).await {
            removed += other?;
        }
        let free = self.view.borrow().free(Instant::now());
        for shard in free {
            removed += self
                .line
                .purge(&self.names.messages, &self.names.shard(shard))
                .await?;
            self.line
                .purge(&self.names.state, &self.names.tries(shard, "*"))
                .await?;
        }
        Ok(removed)
    }

    /// Deletes the messages of the shards that are held here.
    pub(super) async fn purge_own(&self, desk: &Desk) -> Result<u64, Failed> {
        if self.shards().is_empty() {
            return Ok(0);
        }
        for _ in 0..LOOKS {
            let kept = self.line.stream(&self.names.messages).await?;
            let known = self.own_counts(desk);
            if kept.is_none_or(|it| it.state.messages <= known.messages + known.settled) {
                break;
            }
            sleep(PAUSE).await;
        }
        let entries = desk.lanes.borrow_mut().purge();
        let ids: Vec<i64> = entries.iter().map(|entry| entry.id).collect();
        let count = ids.len() as u64;
        if let Err(failed) = self.remove_all(ids).await {
            // Those that are gone already are found to be when they are to be handed out.
            desk.add(entries);
            return Err(failed);
        }
        Ok(count)
    }
}
