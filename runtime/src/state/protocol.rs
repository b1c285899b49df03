//! What goes over a connection to the state process: frames, and what is in them.
//!
//! A frame is a length (u32, little endian) and a message in postcard's encoding, at most [`FRAME_MAX`] bytes. Guards,
//! transactions and cursors have numbers that the connecting side chooses, never twice on one connection: so they can be
//! dropped before anybody knows whether they came to be. Messages of one connection are taken in order; answers come in
//! any order.

use super::db::{Column, DbError, Row, Statement, Step, TxOptions, Want};
use super::lock::{Acquire, LockError, LockStatus};
use super::queue::{Delivery, Message, Peeked, QueueError, QueueStatus, Settled};
use serde::{Deserialize, Serialize};

mod exchange;
mod frame;
mod stream;

pub use exchange::{Exchange, Hold, is_gone};
pub use frame::{Incoming, Outgoing, Oversized};
pub use stream::Stream;

/// The largest frame in bytes. A larger one costs its sender the connection.
pub const FRAME_MAX: usize = 16 << 20;

/// Transactions that one connection may have open or wait for. Who begins more than that loses the connection.
pub const TRANSACTIONS_MAX: usize = 1024;

/// How often a worker gives a sign of life, which prolongs its locks.
pub const HEARTBEAT_MS: u64 = 1000;

/// A message to the state process.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    /// Comes back in the answer; 0 if none is wanted.
    pub id: u64,
    pub call: Call,
}

/// What is asked for.
#[derive(Debug, Serialize, Deserialize)]
pub enum Call {
    /// The first message: which of them speaks, for a worker its generation of settings.
    Hello {
        role: Role,
    },
    /// A sign of life.
    Heartbeat,
    Acquire {
        guard: u64,
        request: Acquire,
    },
    Extend {
        guard: u64,
        ttl_ms: u32,
    },
    Release {
        guard: u64,
    },
    DropGuard {
        guard: u64,
    },
    Batch {
        db: String,
        statements: Vec<(Statement, Want)>,
        options: TxOptions,
        fences: Vec<u64>,
    },
    /// Nobody waits for the answer to a `Batch`, named by the id of its request, any more: it may stop.
    GiveUp {
        batch: u64,
    },
    /// The transaction can be used, and given up, at once: its first call waits for its turn, and is told why if it could
    /// not begin. So nobody waits for the answer to this.
    Begin {
        tx: u64,
        db: String,
        options: TxOptions,
        fences: Vec<u64>,
    },
    Run {
        tx: u64,
        statement: Statement,
        want: Want,
    },
    OpenCursor {
        tx: u64,
        cursor: u64,
        statement: Statement,
    },
    Next {
        tx: u64,
        cursor: u64,
        max_rows: u32,
    },
    CloseCursor {
        tx: u64,
        cursor: u64,
    },
    MarkProcessed {
        tx: u64,
        id: String,
    },
    SendIn {
        tx: u64,
        queue: String,
        messages: Vec<Message>,
    },
    Commit {
        tx: u64,
    },
    /// Also what dropping a transaction sends, then with id 0.
    Rollback {
        tx: u64,
    },
    Send {
        queue: String,
        messages: Vec<Message>,
    },
    /// The worker can handle `batches` more batches of up to `batch` messages.
    Credit {
        queue: String,
        batch: u32,
        batches: u32,
    },
    /// The worker wants no more deliveries: it drains.
    Leave {
        queue: String,
    },
    Settle {
        queue: String,
        settled: Vec<Settled>,
    },
    ExtendDelivery {
        queue: String,
        delivery: String,
        ms: u32,
    },
    /// For operators alone.
    Operator(OperatorCall),
}

/// Who connects.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Role {
    /// A worker of this generation: what it may use is what that generation's manifest grants.
    Worker { generation: u64 },
    /// One of these workers, whose connection is for one transaction after the other, and for nothing else. So the engine can
    /// have it to itself.
    Lane { generation: u64 },
    /// A `wrun` command of the server's user. Refused to children of the supervisor.
    Operator,
}

/// What the `wrun` commands ask for.
#[derive(Debug, Serialize, Deserialize)]
pub enum OperatorCall {
    Locks,
    Databases,
    /// Runs one statement in a transaction of its own.
    Query {
        db: String,
        statement: Statement,
    },
    Queues,
    Peek {
        queue: String,
        dead: bool,
        count: u32,
    },
    Redrive {
        queue: String,
        count: u32,
    },
    Purge {
        queue: String,
        dead: bool,
    },
    Send {
        queue: String,
        messages: Vec<Message>,
    },
    /// Copies a database while it is used; the answer is the path of the copy, the asker's to move or remove.
    Backup {
        db: String,
    },
}

/// A message from the state process.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromState {
    /// The answer to the request with this id.
    Reply { id: u64, reply: Reply },
    /// A guard that was granted holds no more.
    Lost { guard: u64 },
    /// Messages to handle, all of one queue.
    Deliver { queue: String, batch: Vec<Delivery> },
}

/// An answer.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    Done,
    /// To `Acquire`: the fencing token, and how long the request had waited when it was granted, rounded down. So its
    /// sender knows when the lease began, however late it reads this.
    Token {
        token: u64,
        waited_ms: u64,
    },
    /// To `Batch`, `Run` and `Query`.
    Steps(Vec<Step>),
    /// To `OpenCursor`.
    Columns(Vec<Column>),
    /// To `Next`.
    Page(Vec<Row>),
    /// To `MarkProcessed`.
    First(bool),
    /// To `Send` and `SendIn`.
    Ids(Vec<String>),
    Lock(LockError),
    Db(DbError),
    Queue(QueueError),
    /// Answers to operators.
    Locks(Vec<LockStatus>),
    Databases(Vec<DatabaseStatus>),
    Queues(Vec<ListedQueue>),
    Messages(Vec<Peeked>),
    Count(u64),
    Path(String),
    /// The peer may not ask for that, or asked out of turn.
    Refused(String),
}

/// A queue as `wrun queue ls` is told of it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct ListedQueue {
    pub queue: String,
    /// Or why nobody can tell how it stands.
    pub status: Result<QueueStatus, QueueError>,
    /// How many messages wait for it in outboxes; `None` if nobody can tell.
    pub outbox: Option<u64>,
}

/// A database as `wrun db ls` shows it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct DatabaseStatus {
    pub db: String,
    pub dialect: String,
    pub bytes: u64,
    /// Bytes of the write-ahead log.
    pub wal_bytes: u64,
    /// Committed write transactions since the state process started.
    pub commits: u64,
    /// Syncs of the write-ahead log since then: several commits share one.
    pub syncs: u64,
    /// The longest time that a transaction held the writer since then, in milliseconds.
    pub writer_held_max_ms: u64,
}
