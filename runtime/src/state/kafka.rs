//! Queues in Kafka, which several servers of wrun's may share.
//!
//! docs/kafka.md says what holds there; how other programs can send to such a queue and read it, too.

mod address;
mod clients;
mod inspect;
mod line;
mod queue;
mod security;

pub use address::Address;
pub use inspect::{Inspection, Topic, inspect};
pub use queue::KafkaQueue;
