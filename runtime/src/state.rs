//! Shared state: locks, databases, queues and key-value stores, owned by one process and used by all workers.
//!
//! The state process (`server`) and the workers' end of the line to it (`client`) are here, and so is everything behind
//! the line: the pure cores `lock` and `queue`, the embedded engine `sqlite`,
//! and the servers that labels can be bound to. Knows nothing of wasm or HTTP.

pub mod client;
pub mod db;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod keyvalue;
pub mod lock;
mod migrations;
pub mod mysql;
pub mod nats;
pub mod operator;
mod outbox;
pub mod postgres;
mod presence;
pub mod protocol;
pub mod queue;
pub mod rabbitmq;
pub mod redis;
mod remote;
pub mod replica;
pub mod server;
mod spin;
pub mod sqlite;
pub(crate) mod text;
mod tls;

use std::pin::Pin;
use std::time::{SystemTime, UNIX_EPOCH};

/// A future of the state process: it has one thread, so nothing in it needs to be `Send`.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// A time in milliseconds since the process started, on a clock that never jumps. The cores have no other.
pub type Millis = u64;

/// Why a URL of Kafka is refused.
#[cfg(not(feature = "kafka"))]
pub const WITHOUT_KAFKA: &str =
    "this wrun was built without its feature kafka, which is part of the default";

/// Returns milliseconds since 1970, which is what outlives a process. No core asks for it.
fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

#[cfg(test)]
mod conformance;
#[cfg(any(test, feature = "fuzz"))]
mod dice;
