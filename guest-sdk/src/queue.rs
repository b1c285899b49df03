//! Queues: messages for later, handled at least once by a [`consumer`](macro@crate::consumer).
//!
//! ```no_run
//! use serde::Serialize;
//! use std::time::Duration;
//! use wrun_sdk::queue::{self, Message};
//!
//! #[derive(Serialize)]
//! struct Order {
//!     id: u64,
//! }
//!
//! # fn f() -> Result<(), queue::Error> {
//! queue::send("orders", &Order { id: 1 })?;
//!
//! let orders = queue::open("orders")?;
//! orders.send(
//!     Message::json(&Order { id: 2 })?
//!         .key("alice")
//!         .dedup_id("order-2")
//!         .delay(Duration::from_secs(60)),
//! )?;
//! # Ok(())
//! # }
//! ```
//!
//! A message that belongs to a change in a database is sent [in its transaction](Queue::send_in): then both happen, or
//! neither.

mod delivery;
mod error;
mod message;

pub use crate::bindings::exports::wrun::queue::consumer::Delivery;
pub use crate::bindings::wrun::queue::queue::Message;
pub use delivery::{IntoOutcome, Outcome};
pub use error::Error;

use crate::bindings::wrun::queue::queue as host;
use crate::db::Transaction;
use serde::Serialize;

pub(crate) use delivery::handle_all;

/// Sends a value, as JSON, to the queue with this label. Returns the message's id; by then it is durable.
pub fn send(label: &str, value: &impl Serialize) -> Result<String, Error> {
    open(label)?.send(Message::json(value)?)
}

/// Opens a queue that the manifest grants under this label in `[queues]`.
pub fn open(label: &str) -> Result<Queue, Error> {
    Ok(Queue(host::Queue::open(label)?))
}

/// A queue.
#[derive(Debug)]
pub struct Queue(host::Queue);

impl Queue {
    /// Sends a message and returns its id; by then it is durable.
    pub fn send(&self, message: Message) -> Result<String, Error> {
        only(self.0.send(&[message])?)
    }

    /// Sends messages, all or none, and returns their ids; by then they are durable.
    pub fn send_all(&self, messages: &[Message]) -> Result<Vec<String>, Error> {
        Ok(self.0.send(messages)?)
    }

    /// Sends a message as part of a transaction: it is there if and when that commits. The queue lives in the database of the
    /// transaction, or is bound to a server.
    ///
    /// ```no_run
    /// use wrun_sdk::{db, queue::{self, Message}};
    ///
    /// # fn f() -> anyhow::Result<()> {
    /// let orders = queue::open("orders")?;
    /// db::open("default")?.transaction(|tx| {
    ///     tx.execute("INSERT INTO orders (id, status) VALUES ($1, 'new')", ("42",))?;
    ///     orders.send_in(tx, Message::json(&"42")?)?;
    ///     anyhow::Ok(())
    /// })
    /// # }
    /// ```
    pub fn send_in(&self, tx: &Transaction, message: Message) -> Result<String, Error> {
        only(self.send_all_in(tx, &[message])?)
    }

    /// Sends messages as part of a transaction: they are there if and when it commits.
    pub fn send_all_in(
        &self,
        tx: &Transaction,
        messages: &[Message],
    ) -> Result<Vec<String>, Error> {
        let sent = self.0.send_in(&tx.raw, messages).map_err(Error::from);
        if matches!(sent, Err(Error::Unavailable(_))) {
            tx.retry_may_help();
        }
        sent
    }
}

fn only(ids: Vec<String>) -> Result<String, Error> {
    let missing = || Error::Other("the host returned no id".to_owned());
    ids.into_iter().next().ok_or_else(missing)
}
