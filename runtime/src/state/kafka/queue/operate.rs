//! What operators change.
//!
//! Nothing is deleted from Kafka: what is behind is committed.

use super::look::{Dead, lag};
use super::send::produce;
use super::{Store, changed, looked};
use crate::state::kafka::clients::standings;
use crate::state::kafka::line::{Failed, Live};
use crate::state::queue::QueueError;
use crate::state::queue::content::remove_dead_headers;
use crate::state::queue::desk::{Desk, PEEK_MAX};
use crate::state::queue::stored::Change;
use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;

impl Store {
    /// Sends dead letters back; returns how many. Not those that become dead letters again meanwhile.
    pub(super) async fn redrive(&self, most: u32) -> Result<u64, QueueError> {
        let live = self.line.live().map_err(looked)?;
        let there = self.dead(&live).await.map_err(looked)?;
        let mut left = there.min(u64::from(most));
        let mut moved = 0;
        while left > 0 {
            let some = u32::try_from(left).unwrap_or(PEEK_MAX).min(PEEK_MAX);
            match self.move_back(&live, some).await {
                Ok(0) => break,
                Ok(count) => {
                    moved += count;
                    left = left.saturating_sub(count);
                }
                Err(_) if moved > 0 => break,
                Err(failed) => return Err(changed(failed)),
            }
        }
        Ok(moved)
    }

    /// Sends some back, and commits then that they are gone: in a crash between the two they are there twice.
    async fn move_back(&self, live: &Live, most: u32) -> Result<u64, Failed> {
        let letters = self.dead_letters(live, most).await?;
        let clients = live.clients()?;
        let mut ends = BTreeMap::new();
        for Dead {
            partition,
            offset,
            mut letter,
        } in letters.iter().map(Dead::copy)
        {
            remove_dead_headers(&mut letter.headers);
            (letter.attempts, letter.alone, letter.ready_at_ms) = (0, false, 0);
            produce(&clients, &self.line.names().topic, &letter).await?;
            ends.insert(partition, offset + 1);
        }
        self.commit_dead(live, ends).await?;
        Ok(letters.len() as u64)
    }

    async fn commit_dead(&self, live: &Live, ends: BTreeMap<i32, i64>) -> Result<(), Failed> {
        let topic = self.line.names().dead.clone();
        if ends.is_empty() {
            return Ok(());
        }
        let asked = live.ask(move |clients| {
            let list = list(&topic, ends)?;
            clients.gravedigger.commit(&list, CommitMode::Sync)
        });
        asked.await
    }

    /// Counts the dead letters.
    async fn dead(&self, live: &Live) -> Result<u64, Failed> {
        let topic = self.line.names().dead.clone();
        let asked = live.ask(move |clients| standings(&clients.gravedigger, &topic));
        Ok(asked.await?.iter().map(lag).sum())
    }

    /// Deletes messages of this server's partitions that nobody is handling, or dead letters; returns how many. If no server takes
    /// messages, it deletes those of all partitions.
    pub(super) async fn purge(&self, dead: bool, desk: &Desk) -> Result<u64, QueueError> {
        let live = self.line.live().map_err(looked)?;
        let names = self.line.names().clone();
        if dead {
            let asked = live.ask(move |clients| standings(&clients.gravedigger, &names.dead));
            let all = asked.await.map_err(looked)?;
            let ends = all.iter().filter(|it| lag(it) > 0);
            let ends = ends.map(|it| (it.partition, it.end)).collect();
            self.commit_dead(&live, ends).await.map_err(changed)?;
            return Ok(all.iter().map(lag).sum());
        }
        let topic = names.topic.clone();
        let asked = live.ask(move |clients| standings(&clients.clerk, &topic));
        let all = asked.await.map_err(looked)?;
        if self.held.borrow().parts.is_empty() {
            let ends: BTreeMap<i32, i64> = all.iter().map(|it| (it.partition, it.end)).collect();
            let before = self.counts(&live).await.map_err(looked)?.messages;
            // The group refuses it if it has members.
            let asked = live.ask(move |clients| {
                let list = list(&names.topic, ends)?;
                clients.clerk.commit(&list, CommitMode::Sync)
            });
            let refused = |failed| {
                let why = format!(
                    "Kafka: the server that takes the messages has to delete them: {failed}"
                );
                QueueError::Unavailable(why)
            };
            asked.await.map_err(refused)?;
            return Ok(before);
        }
        let unread = all
            .iter()
            .map(|it| self.held.borrow_mut().skip(it.partition, it.end));
        let unread: u64 = unread.sum();
        let idle = desk.lanes.borrow_mut().purge();
        let gone = idle.iter().map(|entry| Change::Remove { id: entry.id });
        self.settle(gone.collect()).await.map_err(changed)?;
        desk.run();
        Ok(unread + idle.len() as u64)
    }
}

impl Dead {
    fn copy(&self) -> Self {
        Self {
            partition: self.partition,
            offset: self.offset,
            letter: self.letter.clone(),
        }
    }
}

/// Returns offsets to be committed.
fn list(topic: &str, ends: BTreeMap<i32, i64>) -> rdkafka::error::KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for (partition, end) in ends {
        list.add_partition_offset(topic, partition, Offset::Offset(end))?;
    }
    Ok(list)
}
