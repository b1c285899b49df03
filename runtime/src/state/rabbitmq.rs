//! Queues in RabbitMQ, which other servers of wrun's may share.
//!
//! docs/rabbitmq.md says what holds there; how others can send to such a queue and take from it, too.

mod address;
mod inspect;
mod line;
mod queue;
mod socket;

pub use address::Address;
pub use inspect::{Inspection, inspect};
pub use queue::RabbitQueue;
