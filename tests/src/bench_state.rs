//! What `just bench-state` measures: the same work done by wrun and by who else does it, in turn, several times.
//!
//! Says what is done and what came of it. How it is done is in the files of the contenders.

pub mod clients;
pub mod engines;
pub mod kafka;
pub mod mariadb;
pub mod nats;
pub mod postgres;
pub mod rabbitmq;
pub mod redis;
pub mod redis_queue;
pub mod subject;
pub mod table;

use std::time::Duration;

/// What is done again and again.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Work {
    /// Acquire and release a lock that nobody else wants.
    Lock,
    /// Acquire and release one lock that every client wants.
    HotLock,
    /// An interactive transaction on a row that every client wants, acknowledged when it is on the disk.
    Transaction,
    /// The same effect in one call.
    Batch,
    /// Send messages that nobody handles.
    Send,
    /// Send messages and wait until all are handled and acknowledged.
    Handle,
}

/// A piece of the table: some work, by so many clients at once.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Cell {
    /// What they do.
    pub work: Work,
    /// How many do it.
    pub clients: usize,
}

/// What is hoped for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// So many times what the peer does.
    TimesPeer(f64),
    /// So many per second.
    PerSecond(f64),
}

/// What one run of a cell came to.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Operations per second; of messages, messages.
    pub rate: f64,
    /// How long half of the operations took at most.
    pub p50: Duration,
    /// How long 99 of 100 operations took at most.
    pub p99: Duration,
    /// The pace of the slowest client in parts of that of the fastest.
    pub fairness: f64,
}

impl Sample {
    /// Returns that of messages, if this is that of calls which each sent [`MESSAGES`].
    fn in_messages(self) -> Self {
        Self {
            rate: self.rate * MESSAGES as f64,
            ..self
        }
    }
}

/// Someone who does the work.
pub trait Contender {
    /// Returns its name, for the table.
    fn name(&self) -> &'static str;

    /// Does the work of a cell for about `time`; `None` if it is not for this contender.
    fn run(&mut self, cell: Cell, time: Duration) -> Option<Result<Sample, String>>;
}

/// Messages that are sent in one call.
pub const MESSAGES: usize = 100;

/// The cells in the order of the table.
pub const CELLS: [Cell; 9] = [
    Cell::new(Work::Lock, 1),
    Cell::new(Work::Lock, 8),
    Cell::new(Work::HotLock, 8),
    Cell::new(Work::Transaction, 1),
    Cell::new(Work::Transaction, 8),
    Cell::new(Work::Transaction, 32),
    Cell::new(Work::Batch, 8 * 16),
    Cell::new(Work::Send, 8),
    Cell::new(Work::Handle, 8),
];

impl Work {
    /// All of it.
    pub const ALL: [Self; 6] = [
        Self::Lock,
        Self::HotLock,
        Self::Transaction,
        Self::Batch,
        Self::Send,
        Self::Handle,
    ];

    /// Says what is done.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lock => "lock, own key",
            Self::HotLock => "lock, one key",
            Self::Transaction => "hot-row transaction",
            Self::Batch => "hot-row batch",
            Self::Send => "queue: send",
            Self::Handle => "queue: send+handle+ack",
        }
    }
}

impl Cell {
    const fn new(work: Work, clients: usize) -> Self {
        Self { work, clients }
    }

    /// Returns what is hoped for, if anything is.
    pub fn goal(self) -> Option<Goal> {
        match self.work {
            Work::Lock if self.clients == 1 => Some(Goal::TimesPeer(1.2)),
            Work::Transaction => Some(Goal::TimesPeer(4.0)),
            Work::Batch => Some(Goal::PerSecond(40_000.0)),
            Work::Handle => Some(Goal::PerSecond(10_000.0)),
            Work::Lock | Work::HotLock | Work::Send => None,
        }
    }
}
