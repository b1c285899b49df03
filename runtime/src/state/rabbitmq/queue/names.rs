//! What a queue consists of on the server, and what that is called.
//!
//! Messages without a key are in a queue of the label's name. Those with one are in a lane, of which one server takes at a time
//! and which others can find, too: it is told by the first byte of the key's SHA-256. Those that have to wait step down a ladder
//! of queues that each let a message out after its time, at first into the one that takes most of the wait.

use futures_util::future::try_join_all;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, ExchangeKind};
use sha2::{Digest as _, Sha256};

/// In how many lanes messages with a key are.
const LANES: u8 = 8;

/// The steps of the ladder. What is less than the first one is waited for by the server of wrun's that took the message.
const RUNGS: [(&str, u64); 8] = [
    ("1s", 1_000),
    ("5s", 5_000),
    ("30s", 30_000),
    ("2m", 120_000),
    ("10m", 600_000),
    ("1h", 3_600_000),
    ("6h", 21_600_000),
    ("1d", 86_400_000),
];

/// How often the server hands out a message whose holders go away, until it is a dead letter.
const RETURNS_MAX: i64 = 50;

/// As good as no limit; before version 4 there is no other way to say so that all versions know.
const NO_LIMIT: i64 = 1_000_000_000;

/// The names of one queue's parts.
pub(in crate::state::rabbitmq) struct Names {
    main: ShortString,
    lanes: Vec<ShortString>,
    dead: ShortString,
    rungs: Vec<(u64, ShortString)>,
}

impl Names {
    pub(super) fn new(label: &str) -> Self {
        // Labels are short.
        let name = |suffix: &str| ShortString::from(format!("{label}{suffix}"));
        let rung = |(step, ms): (&str, u64)| (ms, name(&format!(".delay.{step}")));
        Self {
            main: name(""),
            lanes: (0..LANES).map(|it| name(&format!(".key.{it}"))).collect(),
            dead: name(super::DEAD_SUFFIX),
            rungs: RUNGS.map(rung).into(),
        }
    }

    pub(in crate::state::rabbitmq) fn main(&self) -> &ShortString {
        &self.main
    }

    pub(super) fn dead(&self) -> &ShortString {
        &self.dead
    }

    pub(super) fn lanes(&self) -> &[ShortString] {
        &self.lanes
    }

    /// Returns the queues from which messages are taken.
    pub(super) fn ready(&self) -> impl Iterator<Item = &ShortString> {
        std::iter::once(&self.main).chain(&self.lanes)
    }

    /// Returns the queues in which messages wait for their time.
    pub(super) fn rungs(&self) -> impl Iterator<Item = &ShortString> {
        self.rungs.iter().map(|(_, name)| name)
    }

    /// Returns the queue of messages with this key.
    pub(super) fn of(&self, key: Option<&str>) -> &ShortString {
        let Some(key) = key else {
            return &self.main;
        };
        let lane = Sha256::digest(key)[0] % LANES;
        self.lanes.get(usize::from(lane)).unwrap_or(&self.main)
    }

    /// Returns the exchange by which a message takes the longest step of a wait, if it is not too short.
    pub(super) fn step(&self, wait_ms: u64) -> Option<&ShortString> {
        let fitting = self.rungs.iter().rev().find(|(ms, _)| *ms <= wait_ms);
        fitting.map(|(_, name)| name)
    }

    /// Sees to it that all is there.
    pub(in crate::state::rabbitmq) async fn declare(&self, channel: &Channel) -> lapin::Result<()> {
        let durable = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        let queue =
            |name: &ShortString, arguments| channel.queue_declare(name.clone(), durable, arguments);
        queue(&self.dead, quorum(NO_LIMIT, &[])).await?;
        queue(&self.main, self.given_up(&[])).await?;
        let lane = [("x-single-active-consumer", AMQPValue::Boolean(true))];
        try_join_all(self.lanes.iter().map(|it| queue(it, self.given_up(&lane)))).await?;
        for (ms, name) in &self.rungs {
            let step = [
                ("x-message-ttl", AMQPValue::LongLongInt(ms.cast_signed())),
                // By the routing key that the message came with.
                ("x-dead-letter-exchange", text("")),
                ("x-dead-letter-strategy", text("at-least-once")),
            ];
            queue(name, quorum(NO_LIMIT, &step)).await?;
            let lasting = ExchangeDeclareOptions {
                durable: true,
                ..ExchangeDeclareOptions::default()
            };
            let nothing = FieldTable::default;
            let exchange =
                channel.exchange_declare(name.clone(), ExchangeKind::Fanout, lasting, nothing());
            exchange.await?;
            let (to, from, options) = (name.clone(), name.clone(), QueueBindOptions::default());
            channel
                .queue_bind(to, from, "".into(), options, nothing())
                .await?;
        }
        Ok(())
    }

    /// Deletes all that is there.
    #[cfg(test)]
    pub(super) async fn delete(&self, channel: &Channel) -> lapin::Result<()> {
        let all = self.ready().chain(self.rungs()).chain([&self.dead]);
        for name in all {
            let options = lapin::options::QueueDeleteOptions::default();
            channel.queue_delete(name.clone(), options).await?;
        }
        Ok(())
    }

    /// Returns the arguments of a queue whose messages the server gives up if their holders go away again and again.
    fn given_up(&self, more: &[(&str, AMQPValue)]) -> FieldTable {
        let mut all = vec![
            ("x-dead-letter-exchange", text("")),
            ("x-dead-letter-routing-key", text(self.dead.as_str())),
            ("x-dead-letter-strategy", text("at-least-once")),
        ];
        all.extend_from_slice(more);
        quorum(RETURNS_MAX, &all)
    }
}

/// Returns the arguments of a queue that is on several nodes if there are several, and on the disk.
fn quorum(returns_max: i64, more: &[(&str, AMQPValue)]) -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text("quorum"));
    // Without it no dead letter is sent at least once; nothing limits the queue.
    arguments.insert("x-overflow".into(), text("reject-publish"));
    arguments.insert(
        "x-delivery-limit".into(),
        AMQPValue::LongLongInt(returns_max),
    );
    for (name, value) in more {
        arguments.insert((*name).into(), value.clone());
    }
    arguments
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lane_of_a_key_is_found_as_the_docs_say() {
        let names = Names::new("orders");
        // echo -n KEY | sha256sum: its first byte, modulo 8.
        for (key, lane) in [
            ("", "orders.key.3"),
            ("a", "orders.key.2"),
            ("abc", "orders.key.2"),
        ] {
            assert_eq!(names.of(Some(key)).as_str(), lane, "{key}");
        }
        assert_eq!(names.of(None).as_str(), "orders");
    }

    #[test]
    fn wait_begins_with_the_longest_step_that_is_not_too_long() {
        let names = Names::new("q");
        for (ms, step) in [
            (999, None),
            (1_000, Some("q.delay.1s")),
            (29_999, Some("q.delay.5s")),
            (2_592_000_000, Some("q.delay.1d")),
        ] {
            assert_eq!(names.step(ms).map(ShortString::as_str), step, "{ms}");
        }
    }
}
