//! Queues in NATS JetStream, which several servers of wrun's may share.
//!
//! What JetStream has acknowledged it may lose with its machine: docs/nats.md says what holds then.

mod address;
mod api;
mod feed;
mod inspect;
mod line;
mod queue;

pub use address::Address;
pub use inspect::{Inspection, inspect};
pub use queue::NatsQueue;
