//! How a queue stands, and what messages contain.
//!
//! RabbitMQ tells how many messages wait, and not how many it has handed out. What waits cannot be looked at: whatever it hands
//! out counts as handed out.

use super::letter::given_up;
use super::{Store, looked};
use crate::state::queue::content::{Headers, add_dead_headers};
use crate::state::queue::desk::{Desk, PEEK_MAX, fit};
use crate::state::queue::letter::Letter;
use crate::state::queue::stored::StoredMessage;
use crate::state::queue::{Peeked, QueueError, QueueStatus};
use crate::state::rabbitmq::line::{ANSWER_MAX, Failed, Live, count};
use crate::state::wall_ms;
use futures_util::StreamExt as _;
use futures_util::future::try_join_all;
use lapin::message::{BasicGetMessage, Delivery};
use lapin::options::{BasicConsumeOptions, BasicGetOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// How long a message may be on its way here, where it is neither there nor here; and how long to wait until none is.
const ON_ITS_WAY: Duration = Duration::from_millis(20);
const CALM_MAX: Duration = Duration::from_millis(100);

/// How long the next dead letter may take.
const HANDED_OUT: Duration = Duration::from_secs(2);

/// How long RabbitMQ may take to have letters back.
const BACK_MAX: Duration = Duration::from_secs(1);

/// How many messages there are, as far as this server knows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    ready: u64,
    delayed: u64,
    dead: u64,
    held: u64,
}

impl Counts {
    pub(super) fn messages(self) -> u64 {
        self.ready + self.delayed + self.held
    }
}

impl Store {
    /// Asks on a channel of its own: an error ends it.
    pub(super) async fn ask<T>(
        &self,
        live: &Live,
        what: impl AsyncFnOnce(&Channel) -> Result<T, Failed>,
    ) -> Result<T, Failed> {
        let asked = timeout(ANSWER_MAX, async {
            let channel = live.channel().await?;
            let answer = what(&channel).await;
            // What it has been handed out is there again.
            let _ = channel.close(200, "done".into()).await;
            answer
        });
        let silent = |_| Failed::Unknown("it does not answer".to_owned());
        asked.await.map_err(silent)?
    }

    /// Counts.
    pub(super) async fn counts(&self, live: &Live) -> Result<Counts, Failed> {
        let names = &self.names;
        let counted = self.ask(live, async |channel| {
            let ready = try_join_all(names.ready().map(|name| count(channel, name))).await?;
            let delayed = try_join_all(names.rungs().map(|name| count(channel, name))).await?;
            let dead = count(channel, names.dead()).await?;
            Ok((ready.iter().sum(), delayed.iter().sum(), dead))
        });
        let (ready, delayed, dead) = counted.await?;
        Ok(Counts {
            ready,
            delayed,
            dead,
            held: self.held.borrow().len() as u64,
        })
    }

    /// Returns how it stands.
    pub(super) async fn status(&self, desk: &Desk) -> Result<QueueStatus, Failed> {
        let live = self.line.live()?;
        let begin = Instant::now();
        while self.moved_at.get().elapsed() < ON_ITS_WAY && begin.elapsed() < CALM_MAX {
            sleep(ON_ITS_WAY).await;
        }
        let counts = self.counts(&live).await?;
        desk.run();
        let here = desk.lanes.borrow().counts();
        let oldest = self.held.borrow().oldest_sent_ms();
        Ok(QueueStatus {
            queue: self.label.clone(),
            messages: counts.messages(),
            ready: counts.ready + here.ready as u64,
            delayed: counts.delayed + here.delayed as u64,
            in_flight: here.in_flight as u64,
            dead: counts.dead,
            consumers: here.consumers as u64,
            oldest_ms: oldest.map_or(0, |sent_at| wall_ms().saturating_sub(sent_at)),
        })
    }

    /// Returns the oldest messages that are held here, or the oldest dead letters.
    pub(super) async fn peek(&self, dead: bool, most: u32) -> Result<Vec<Peeked>, QueueError> {
        let most = most.min(PEEK_MAX);
        if !dead {
            let held = self.held.borrow();
            let found = held.oldest(&self.label, most as usize);
            let ids =
                |it: &StoredMessage| held.get(it.stored.id).map(|held| held.letter.id.clone());
            let mut taken = 0;
            let fitting = found.into_iter().take_while(|it| fit(it, &mut taken));
            return Ok(fitting
                .filter_map(|it| Some(peeked(ids(&it)?, it)))
                .collect());
        }
        let live = self.line.live().map_err(looked)?;
        let found = self.ask(&live, async |channel| {
            let (mut found, mut taken) = (Vec::new(), 0);
            for got in self.dead_letters(channel, most).await? {
                let Ok(letter) = self.dead_letter(&got.properties, got.data) else {
                    continue;
                };
                let id = letter.id.clone();
                let stored = letter.stored(0, &self.label);
                if !fit(&stored, &mut taken) {
                    break;
                }
                found.push(peeked(id, stored));
            }
            Ok(found)
        });
        let found = found.await.map_err(looked)?;
        self.dead_are_back(&live, found.len() as u64).await;
        Ok(found)
    }

    /// Counts the dead letters.
    pub(super) async fn dead(&self, live: &Live) -> Result<u64, Failed> {
        let dead = self.names.dead();
        let counted = self.ask(live, async |channel| Ok(count(channel, dead).await?));
        counted.await
    }

    /// Waits until so many dead letters are there again after they were shown, so that whoever redrives next finds them.
    async fn dead_are_back(&self, live: &Live, shown: u64) {
        let begin = Instant::now();
        while begin.elapsed() < BACK_MAX && self.dead(live).await.is_ok_and(|there| there < shown) {
            sleep(ON_ITS_WAY).await;
        }
    }

    /// Has the oldest dead letters handed out together, which takes RabbitMQ one step and not one for each. They are there again
    /// a moment after the channel is closed.
    async fn dead_letters(&self, channel: &Channel, most: u32) -> Result<Vec<Delivery>, Failed> {
        let there = count(channel, self.names.dead()).await?.min(most.into());
        let most = u16::try_from(there).unwrap_or(u16::MAX);
        if most == 0 {
            return Ok(Vec::new());
        }
        channel.basic_qos(most, BasicQosOptions::default()).await?;
        let (options, nothing) = (BasicConsumeOptions::default(), FieldTable::default());
        let dead = self.names.dead().clone();
        let mut consumer = channel
            .basic_consume(dead, "".into(), options, nothing)
            .await?;
        let mut all = Vec::new();
        while all.len() < usize::from(most)
            // Somebody else may have some of them.
            && let Ok(Some(got)) = timeout(HANDED_OUT, consumer.next()).await
        {
            all.push(got?);
        }
        Ok(all)
    }

    /// Takes the next dead letter, which is there again when the channel is closed.
    pub(super) async fn next_dead(
        &self,
        channel: &Channel,
    ) -> Result<Option<BasicGetMessage>, Failed> {
        let got = channel.basic_get(self.names.dead().clone(), BasicGetOptions::default());
        Ok(got.await?)
    }

    /// Reads a dead letter. That of RabbitMQ's own doing gets what tells of it.
    pub(super) fn dead_letter(
        &self,
        properties: &BasicProperties,
        body: Vec<u8>,
    ) -> Result<Letter, QueueError> {
        let (mut letter, _) = Letter::read(&self.label, properties, body)?;
        if let Some((_, why)) = given_up(properties)
            && !tells_why(&letter.headers)
        {
            let reason = format!("RabbitMQ gave it up: {why}");
            let told = (
                reason.as_str(),
                self.label.as_str(),
                letter.attempts,
                wall_ms(),
            );
            add_dead_headers(&mut letter.headers, told);
        }
        Ok(letter)
    }
}

fn tells_why(headers: &Headers) -> bool {
    headers.iter().any(|(name, _)| name == "wrun-dead-reason")
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
