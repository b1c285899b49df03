//! What a database is to the rest of wrun: values, statements, errors, and the seam behind which an engine works.
//!
//! Knows no engine. The embedded one is `sqlite`; `postgres` is a server's.

use super::BoxFuture;
use super::queue::{KEY_MAX, Message, QueueError};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A value of a parameter or a column; `wrun:db` says what each means.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Value {
    Null,
    Boolean(bool),
    Integer(i64),
    Real(f64),
    Text(String),
    Blob(#[serde(with = "serde_bytes")] Vec<u8>),
    Decimal(String),
    Date(String),
    Time(String),
    TimestampUs(i64),
    Uuid(u64, u64),
    Json(String),
    /// A type's name and the value as text.
    Other(String, String),
}

/// A column of a result.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Column {
    pub name: String,
    /// Its declared type; empty for an expression.
    pub type_name: String,
}

/// A row of a result: one value per column.
pub type Row = Vec<Value>;

/// The whole result of a query.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rows {
    pub columns: Vec<Column>,
    pub rows: Vec<Row>,
}

/// What a statement that returns no rows did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Done {
    pub affected: u64,
    pub last_id: Option<i64>,
}

/// A statement and its parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Statement {
    pub sql: String,
    pub params: Vec<Value>,
}

/// Whether the caller wants rows or an effect. `Execute` discards the rows of a statement that returns some.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Want {
    /// The answer is [`Step::Rows`].
    Rows,
    /// The answer is [`Step::Done`].
    Done,
    /// Whichever the statement has.
    Either,
}

/// The result of one statement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Step {
    Rows(Rows),
    Done(Done),
}

/// How far a transaction is kept apart from others.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub enum Isolation {
    ReadCommitted,
    RepeatableRead,
    #[default]
    Serializable,
}

/// How to run a transaction.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct TxOptions {
    pub read_only: bool,
    pub isolation: Isolation,
    /// How long it may take in all, waiting for the writer included.
    pub timeout: Duration,
}

impl Default for TxOptions {
    fn default() -> Self {
        Self {
            read_only: false,
            isolation: Isolation::default(),
            timeout: TX_TIME_MAX,
        }
    }
}

/// How long a transaction may wait for the writer.
pub const WRITER_WAIT_MAX: Duration = Duration::from_secs(5);
/// How long one statement may run.
pub const STATEMENT_TIME_MAX: Duration = Duration::from_secs(30);
/// How long a whole transaction may take.
pub const TX_TIME_MAX: Duration = Duration::from_secs(30);
/// How long a transaction of the embedded engine may hold the writer without doing anything.
pub const TX_IDLE_MAX: Duration = Duration::from_secs(1);
/// Cursors that one transaction may have open.
pub const CURSORS_MAX: usize = 8;
/// The largest result of one call, and the largest page of a cursor, in bytes.
pub const RESULT_MAX: usize = 8 << 20;
/// The longest statement in bytes.
pub const SQL_MAX: usize = 64 << 10;
/// Parameters of one statement.
pub const PARAMS_MAX: usize = 1000;
/// The largest text, blob or row, in bytes.
pub const VALUE_MAX: usize = 8 << 20;
/// Statements of one batch.
pub const BATCH_MAX: usize = 1000;

/// Why a call failed; `wrun:db` says what each means.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize, thiserror::Error)]
pub enum DbError {
    #[error("denied: {0}")]
    Denied(String),
    #[error("invalid: {0}")]
    Invalid(String),
    /// The engine refused a statement.
    #[error("{code}: {message}")]
    Engine {
        /// The SQLSTATE.
        code: String,
        message: String,
        constraint: Option<String>,
        retryable: bool,
    },
    #[error("timeout: {0}")]
    Timeout(String),
    #[error("the transaction has ended")]
    Closed,
    #[error("a lock of the transaction was lost")]
    LostFence,
    #[error("the connection broke, the outcome is unknown")]
    OutcomeUnknown,
    #[error("too large: {0}")]
    TooLarge(String),
    #[error("unavailable: {0}")]
    Unavailable(String),
    #[error("{0}")]
    Other(String),
}

/// Checks the id of work that is to be noted as done.
pub(super) fn check_work_id(id: &str) -> Result<(), DbError> {
    if id.is_empty() || id.as_bytes().contains(&0) {
        let what = "an id is empty or contains NUL";
        return Err(DbError::Invalid(what.to_owned()));
    }
    if id.len() > KEY_MAX {
        let what = format!("an id is longer than {KEY_MAX} bytes");
        return Err(DbError::TooLarge(what));
    }
    Ok(())
}

/// Refuses a batch of more statements than one may have.
pub(super) fn check_batch(statements: &[(Statement, Want)]) -> Result<(), DbError> {
    if statements.len() > BATCH_MAX {
        return Err(DbError::TooLarge(format!(
            "a batch has at most {BATCH_MAX} statements"
        )));
    }
    Ok(())
}

/// Tells an engine that nobody waits for a batch any more. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct GivenUp(Arc<AtomicBool>);

impl GivenUp {
    pub fn give_up(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub fn is_given_up(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The fencing token of a lock that servers share: a database that they share, too, refuses it once it has seen a higher
/// one of that key.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Fence {
    pub key: String,
    pub token: u64,
}

/// An engine that holds one database.
pub trait Database {
    /// Names the language of its statements.
    fn dialect(&self) -> &'static str;

    /// Runs statements in one transaction: all take effect, or none. Ready when the effect is durable.
    fn batch(
        &self,
        statements: Vec<(Statement, Want)>,
        options: TxOptions,
    ) -> BoxFuture<'_, Result<Vec<Step>, DbError>> {
        self.batch_unless(statements, options, Vec::new(), GivenUp::default())
    }

    /// Does the same, and stops if the batch is given up before its commit: others wait. Ready when it has stopped, too.
    /// Fences are sorted, each key once. `LostFence` if one was refused.
    fn batch_unless(
        &self,
        statements: Vec<(Statement, Want)>,
        options: TxOptions,
        fences: Vec<Fence>,
        given_up: GivenUp,
    ) -> BoxFuture<'_, Result<Vec<Step>, DbError>>;

    /// Begins a transaction. It may be ready before it has begun: then its calls wait, and say why it could not begin.
    /// Dropping the future, or the transaction, rolls it back.
    fn begin(&self, options: TxOptions) -> BoxFuture<'_, Result<Box<dyn Transaction>, DbError>> {
        self.begin_fenced(options, Vec::new())
    }

    /// Does the same; the transaction fails with `LostFence` if one of the fences, as above, is refused.
    fn begin_fenced(
        &self,
        options: TxOptions,
        fences: Vec<Fence>,
    ) -> BoxFuture<'_, Result<Box<dyn Transaction>, DbError>>;
}

/// An open transaction of a [`Database`]. Dropped, it is rolled back. Operations are run in the order in which they are
/// called, each to its end, whether or not its future is polled on.
pub trait Transaction {
    /// Runs a statement.
    fn run(&self, statement: Statement, want: Want) -> BoxFuture<'static, Result<Step, DbError>>;

    /// Opens a cursor under a number that the caller chooses, and returns its columns.
    fn open_cursor(
        &self,
        cursor: u64,
        statement: Statement,
    ) -> BoxFuture<'static, Result<Vec<Column>, DbError>>;

    /// Returns up to `max_rows` rows of a cursor; none at its end.
    fn next(&self, cursor: u64, max_rows: u32) -> BoxFuture<'static, Result<Vec<Row>, DbError>>;

    /// Closes a cursor, if it is open.
    fn close_cursor(&self, cursor: u64);

    /// Notes that the work called `id` is done; false if it was before.
    fn mark_processed(&self, id: String) -> BoxFuture<'static, Result<bool, DbError>>;

    /// Adds messages to a queue, or to the outbox if that is not kept in this database; they are there if and when the
    /// transaction commits. Returns their ids.
    fn send(
        &self,
        queue: String,
        messages: Vec<Message>,
    ) -> BoxFuture<'static, Result<Vec<String>, QueueError>>;

    /// Makes everything durable. Later calls answer [`DbError::Closed`].
    fn commit(&self) -> BoxFuture<'static, Result<(), DbError>>;

    /// Undoes everything. Later calls answer [`DbError::Closed`].
    fn rollback(&self) -> BoxFuture<'static, ()>;
}
