//! What a queue is to the rest of wrun: messages, deliveries, outcomes, and the seam behind which messages are kept.
//!
//! `lanes` is a pure state machine that says who handles what and when, and `desk` gives it a clock. `embedded` keeps the
//! messages in a database of this machine, `postgres::queue` in one of a server, `redis::queue` in Redis or Valkey,
//! `rabbitmq::queue` in RabbitMQ, `nats::queue` in NATS, `kafka::queue` in Kafka.

pub(super) mod content;
pub mod desk;
pub mod embedded;
pub mod lanes;
pub(super) mod letter;
pub(super) mod sharing;
pub mod stored;

use super::BoxFuture;
use super::lock::SessionId;
use desk::Desk;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A message to be sent; `wrun:queue` says what each field means.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Message {
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
    pub content_type: Option<String>,
    pub headers: Vec<(String, String)>,
    pub key: Option<String>,
    pub dedup_id: Option<String>,
    pub delay_ms: Option<u64>,
}

/// One try at handling a message.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Delivery {
    pub id: String,
    /// Tells this try from others of the same message.
    pub receipt: u64,
    pub queue: String,
    pub key: Option<String>,
    /// From 1.
    pub attempt: u32,
    pub max_attempts: u32,
    /// Milliseconds since 1970.
    pub sent_at_ms: u64,
    /// Milliseconds since 1970.
    pub deadline_ms: u64,
    pub content_type: Option<String>,
    pub headers: Vec<(String, String)>,
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
}

/// What became of a delivery.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    Ack,
    /// Again, after so many milliseconds or after the queue's backoff.
    Retry(Option<u64>),
    /// To the dead letters, with this reason.
    Dead(String),
    /// The call that handled it failed: again after the backoff, and then alone.
    Failed(String),
}

/// An outcome and the delivery that it is for.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Settled {
    pub id: String,
    pub receipt: u64,
    pub outcome: Outcome,
}

/// Messages that are sent together.
pub const SEND_MAX: usize = 1000;
/// The largest body in bytes.
pub const BODY_MAX: usize = 1 << 20;
/// The largest headers of one message in bytes, names and values.
pub const HEADERS_MAX: usize = 16 << 10;
/// The longest key, dedup id or content type in bytes.
pub const KEY_MAX: usize = 512;
/// How long a dedup id is remembered.
pub const DEDUP_WINDOW: Duration = Duration::from_secs(300);
/// The longest delay.
pub const DELAY_MAX: Duration = Duration::from_secs(30 * 86_400);
/// The longest extension of a delivery.
pub const EXTEND_MAX: Duration = Duration::from_secs(12 * 3600);
/// What is added to a queue's label for its dead letters. No label has a dot.
pub const DEAD_SUFFIX: &str = ".dead";

/// Why messages were not taken, or a delivery was not changed; `wrun:queue` says what each means.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize, thiserror::Error)]
pub enum QueueError {
    #[error("denied: {0}")]
    Denied(String),
    #[error("invalid: {0}")]
    Invalid(String),
    #[error("the queue is full")]
    Full,
    #[error("too large: {0}")]
    TooLarge(String),
    #[error("the transaction has ended")]
    Closed,
    #[error("the connection broke, the outcome is unknown")]
    OutcomeUnknown,
    #[error("the delivery is somebody else's, or over")]
    NotYours,
    /// The engine refused: SQLSTATE and message.
    #[error("{0}: {1}")]
    Refused(String, String),
    #[error("unavailable: {0}")]
    Unavailable(String),
    #[error("{0}")]
    Other(String),
}

/// A queue as `wrun queue ls` shows it.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct QueueStatus {
    pub queue: String,
    /// All that are kept: the next three, and those that wait behind their key.
    pub messages: u64,
    pub ready: u64,
    pub delayed: u64,
    pub in_flight: u64,
    /// Messages in its dead letters.
    pub dead: u64,
    /// Sessions that take messages from it.
    pub consumers: u64,
    /// How long its oldest message has been there, in milliseconds.
    pub oldest_ms: u64,
}

/// A message as `wrun queue peek` shows it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Peeked {
    pub id: String,
    pub key: Option<String>,
    pub attempts: u32,
    pub sent_at_ms: u64,
    pub content_type: Option<String>,
    /// For a dead letter, why and from where it came: `wrun-dead-reason`, `wrun-dead-queue`, `wrun-dead-attempts`.
    pub headers: Vec<(String, String)>,
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
}

/// Something that keeps the messages of one queue. Deliveries go to the sink that it was made with.
pub trait Queue {
    /// Takes messages, all or none. Ready when they are durable.
    fn send(&self, messages: Vec<Message>) -> BoxFuture<'static, Result<Vec<String>, QueueError>>;

    /// Returns the desk, at which its messages are handed out and settled.
    fn desk(&self) -> &Desk;

    /// A session can handle `batches` more batches of up to `batch` messages.
    fn credit(&self, session: SessionId, batch: u32, batches: u32) {
        self.desk().credit(session, batch, batches);
    }

    /// What became of deliveries; those that are not this session's, or not any more, are passed over.
    fn settle(&self, session: SessionId, settled: Vec<Settled>) {
        self.desk().settle(session, settled);
    }

    /// Gives a delivery `ms` from now.
    fn extend(&self, session: SessionId, id: &str, ms: u32) -> Result<(), QueueError> {
        self.desk().extend(session, id, ms)
    }

    /// A session ended, or takes no more: what it has not settled is given to others at once if `abort`.
    fn leave(&self, session: SessionId, abort: bool) {
        self.desk().leave(session, abort);
    }

    /// Returns how it stands.
    fn status(&self) -> BoxFuture<'static, Result<QueueStatus, QueueError>>;

    /// Returns the oldest messages, or dead letters, without taking them.
    fn peek(&self, dead: bool, count: u32) -> BoxFuture<'static, Result<Vec<Peeked>, QueueError>>;

    /// Sends dead letters back, their attempts counted anew; returns how many.
    fn redrive(&self, count: u32) -> BoxFuture<'static, Result<u64, QueueError>>;

    /// Deletes messages that nobody is handling, or dead letters; returns how many.
    fn purge(&self, dead: bool) -> BoxFuture<'static, Result<u64, QueueError>>;
}
