//! Messages that transactions send to a queue that is kept elsewhere: they wait in an outbox, which is a table of the
//! transactions' database, until a relay takes them on to the queue.
//!
//! Why none is lost, and none comes out of order: a message is a row of its transaction, and is removed only when the queue
//! has acknowledged it. Rows are taken on in the order of their numbers. Transactions that send messages of the same key to
//! the same queue wait for each other, from before the first number is drawn until the commit: so within a key the numbers
//! are in the order of the commits, and who sees a row sees those before it. (SQLite has one writer, so there it is so for
//! all of them.) One relay works at a time for each queue of a database, by a lock that ends with its connection. A message
//! of which nobody knows whether the queue took it is sent again, with the same dedup id.

pub(in crate::state) mod relay;
#[cfg(test)]
mod tests;

use super::BoxFuture;
use super::db::DbError;
use super::queue::content::{headers_to_text, validate_beside};
use super::queue::{Message, QueueError};
use sha2::{Digest as _, Sha256};

/// The header by which a consumer knows a message that came by an outbox again, however it came.
pub(in crate::state) const ID_HEADER: &str = "wrun-outbox-id";

/// What these ids begin with, and how long they are.
const ID_PREFIX: &str = "outbox-";
const ID_LEN: usize = ID_PREFIX.len() + 32;

/// What a message takes beside its texts, about.
const COST: usize = 64;

/// A message that waits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::state) struct Waiting {
    pub(in crate::state) row: i64,
    /// In bytes, about.
    pub(in crate::state) size: u64,
}

/// Its content.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::state) struct Letter {
    pub(in crate::state) row: i64,
    pub(in crate::state) message: Message,
    /// How long ago it was sent, in milliseconds.
    pub(in crate::state) age_ms: u64,
}

/// The outbox of a database.
pub(in crate::state) trait Outbox {
    /// Whether others put messages into it, too, who cannot wake a relay here.
    fn is_shared(&self) -> bool;

    /// Tells whether something seems to wait for a queue.
    fn waits(&self, queue: &str) -> BoxFuture<'static, Result<bool, DbError>>;

    /// Returns how many messages wait for a queue.
    fn count(&self, queue: &str) -> BoxFuture<'static, Result<u64, DbError>>;

    /// Becomes the one that takes messages on to a queue; `None` if somebody else is, on whichever server.
    fn lead(&self, queue: &str) -> BoxFuture<'static, Result<Option<Box<dyn Lead>>, DbError>>;
}

/// What only one has, for each queue of an outbox. Dropped, it is given back sooner or later.
pub(in crate::state) trait Lead {
    /// Returns the first messages in their order, without their content.
    fn look(&self, most: usize) -> BoxFuture<'_, Result<Vec<Waiting>, DbError>>;

    /// Returns those of these messages that are there, in their order. Their transactions are durable.
    fn read(&self, rows: Vec<i64>) -> BoxFuture<'_, Result<Vec<Letter>, DbError>>;

    /// Removes messages. Ready when that is durable.
    fn remove(&self, rows: Vec<i64>) -> BoxFuture<'_, Result<(), DbError>>;

    /// Gives it back, to be had by others at once.
    fn resign(self: Box<Self>) -> BoxFuture<'static, ()>;
}

/// Refuses messages that no queue would take.
pub(in crate::state) fn check(messages: &[Message]) -> Result<(), QueueError> {
    validate_beside(messages, ID_HEADER.len() + ID_LEN)
}

/// Returns messages as an outbox keeps them, each with an id of its own: in a header, and as its dedup id if it has none.
/// Returns the ids, too.
pub(in crate::state) fn stamp(
    messages: &[Message],
) -> Result<(Vec<Message>, Vec<String>), DbError> {
    let stamped = messages.iter().map(|message| {
        let id = new_id()?;
        let mut message = message.clone();
        message.headers.retain(|(name, _)| name != ID_HEADER);
        message.headers.push((ID_HEADER.to_owned(), id.clone()));
        message.dedup_id.get_or_insert_with(|| id.clone());
        Ok((message, id))
    });
    stamped.collect()
}

/// Random, and no number of a row: a database that is restored from a backup gives out numbers once more, and a queue that
/// has seen them would take the messages to be those that it has.
fn new_id() -> Result<String, DbError> {
    let random = || getrandom::u64().map_err(|error| DbError::Other(error.to_string()));
    Ok(format!("{ID_PREFIX}{:016x}{:016x}", random()?, random()?))
}

/// Returns about how large a message is.
pub(in crate::state) fn size(message: &Message) -> i64 {
    let headers = headers_to_text(&message.headers).map_or(0, |text| text.len());
    let size = message.body.len() + headers + COST;
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// Returns the numbers by which transactions that send messages of the same keys wait for each other, each once, in order.
/// Two keys of one number wait for each other, too.
pub(in crate::state) fn lanes(queue: &str, messages: &[Message]) -> Vec<u32> {
    let keys = messages.iter().filter_map(|message| message.key.as_deref());
    let lane = |key: &str| {
        // No label has NUL.
        let digest = Sha256::digest(format!("{queue}\0{key}"));
        let first = digest.first_chunk().copied().unwrap_or_default();
        u32::from_le_bytes(first)
    };
    let mut lanes: Vec<u32> = keys.map(lane).collect();
    lanes.sort_unstable();
    lanes.dedup();
    lanes
}
