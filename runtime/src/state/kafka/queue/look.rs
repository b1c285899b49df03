//! How it stands, and what messages contain: what Kafka says of offsets, and what is known here of this server's partitions.

use super::mark::done_in;
use super::{Store, looked};
use crate::state::kafka::clients::{self, ANSWER_MAX, Standing, standings};
use crate::state::kafka::line::{Failed, Live};
use crate::state::queue::desk::{Desk, PEEK_MAX, fit};
use crate::state::queue::letter::Letter;
use crate::state::queue::stored::StoredMessage;
use crate::state::queue::{Peeked, QueueError, QueueStatus};
use crate::state::wall_ms;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{Message as _, Offset, TopicPartitionList};
use std::collections::BTreeSet;
use std::time::Instant;

/// How many messages there are, as far as this server knows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) messages: u64,
    /// Those of them that are not here.
    elsewhere: u64,
    dead: u64,
}

/// A dead letter, and where it is.
pub(super) struct Dead {
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) letter: Letter,
}

impl Store {
    /// Counts.
    pub(super) async fn counts(&self, live: &Live) -> Result<Counts, Failed> {
        let names = self.line.names().clone();
        let asked = live.ask(move |clients| {
            let main = standings(&clients.clerk, &names.topic)?;
            let dead = standings(&clients.gravedigger, &names.dead)?;
            Ok((main, dead))
        });
        let (main, dead) = asked.await?;
        let held = self.held.borrow();
        let mut counts = Counts {
            dead: dead.iter().map(lag).sum(),
            ..Counts::default()
        };
        for standing in &main {
            let (all, elsewhere) = match held.parts.get(&standing.partition) {
                Some(part) => {
                    let here = held.load(standing.partition).0 as u64;
                    let left = part.mark.left(standing.end).max(here);
                    (left, left - here)
                }
                None => {
                    let left = lag(standing).saturating_sub(done_in(&standing.note));
                    (left, left)
                }
            };
            counts.messages += all;
            counts.elsewhere += elsewhere;
        }
        Ok(counts)
    }

    /// Returns how it stands.
    pub(super) async fn status(&self, desk: &Desk) -> Result<QueueStatus, Failed> {
        let live = self.line.live()?;
        let counts = self.counts(&live).await?;
        desk.run();
        let here = desk.lanes.borrow().counts();
        let oldest = self.held.borrow().oldest_sent_ms();
        Ok(QueueStatus {
            queue: self.label.clone(),
            messages: counts.messages,
            ready: counts.elsewhere + here.ready as u64,
            delayed: here.delayed as u64,
            in_flight: here.in_flight as u64,
            dead: counts.dead,
            consumers: here.consumers as u64,
            oldest_ms: oldest.map_or(0, |sent_at| wall_ms().saturating_sub(sent_at)),
        })
    }

    /// Returns the oldest messages that are held here, or dead letters.
    pub(super) async fn peek(&self, dead: bool, most: u32) -> Result<Vec<Peeked>, QueueError> {
        let most = most.min(PEEK_MAX);
        let mut taken = 0;
        if dead {
            let live = self.line.live().map_err(looked)?;
            let letters = self.dead_letters(&live, most).await.map_err(looked)?;
            let shown = letters.into_iter().map(|dead| {
                let id = dead.letter.id.clone();
                (id, dead.letter.stored(0, &self.label))
            });
            let fitting = shown.take_while(|(_, it)| fit(it, &mut taken));
            return Ok(fitting.map(|(id, it)| peeked(id, it)).collect());
        }
        let held = self.held.borrow();
        let found = held.oldest(&self.label, most as usize);
        let id = |it: &StoredMessage| held.get(it.stored.id).map(|held| held.letter.id.clone());
        let fitting = found.into_iter().take_while(|it| fit(it, &mut taken));
        Ok(fitting
            .filter_map(|it| Some(peeked(id(&it)?, it)))
            .collect())
    }

    /// Reads dead letters, of each partition the oldest.
    pub(super) async fn dead_letters(&self, live: &Live, most: u32) -> Result<Vec<Dead>, Failed> {
        let (address, names) = (self.line.address().clone(), self.line.names().clone());
        let label = self.label.clone();
        let asked = live.ask(move |clients| {
            let all = standings(&clients.gravedigger, &names.dead)?;
            let reader = clients::reader(&address, &names.dead_group)?;
            read(&reader, &names.dead, &label, (&all, most as usize))
        });
        asked.await
    }
}

/// Returns how many messages are behind the offset that was committed.
pub(super) fn lag(standing: &Standing) -> u64 {
    u64::try_from(standing.end - standing.begin).unwrap_or(0)
}

/// Reads what is behind the offsets that were committed: of each partition so many in a row, if there are. Blocks.
///
/// Where a partition ends is what those say who hand it out: not all brokers count right what came together.
fn read(
    reader: &clients::Clerk,
    topic: &str,
    label: &str,
    (all, most): (&[Standing], usize),
) -> KafkaResult<Vec<Dead>> {
    let mut open: BTreeSet<i32> = BTreeSet::new();
    let mut list = TopicPartitionList::new();
    for standing in all.iter().filter(|it| lag(it) > 0) {
        let from = Offset::Offset(standing.begin);
        list.add_partition_offset(topic, standing.partition, from)?;
        open.insert(standing.partition);
    }
    reader.assign(&list)?;
    let mut found = Vec::new();
    let mut heard = Instant::now();
    while found.len() < most && !open.is_empty() && heard.elapsed() < ANSWER_MAX {
        match reader.poll(ANSWER_MAX / 10) {
            Some(Ok(message)) => found.push(Dead {
                partition: message.partition(),
                offset: message.offset(),
                letter: super::member::read(label, &message),
            }),
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                open.remove(&partition);
            }
            _ => continue,
        }
        heard = Instant::now();
    }
    Ok(found)
}

fn peeked(id: String, message: StoredMessage) -> Peeked {
    Peeked {
        id,
        key: message.stored.key,
        attempts: message.stored.attempts,
        sent_at_ms: message.stored.sent_at_ms,
        content_type: message.content_type,
        headers: message.headers,
        body: message.body,
    }
}
