//! What databases of servers have in common: a pool of connections, transactions on them and what these send to queues,
//! their limits, and a watch.
//!
//! Knows no server. What one is, and how it is spoken to, is for `postgres` and `mysql`.

pub(super) mod batch;
pub(super) mod kept;
pub(super) mod outbox;
pub(super) mod pool;
pub(super) mod ready;
pub(super) mod route;
pub(super) mod transaction;
mod watch;

use super::db::{Column, DbError, Fence, Row, Statement, Step, TxOptions, Value, Want};
use std::time::Duration;

/// Connections to one database.
pub(super) const CONNECTIONS_MAX: usize = 16;

/// How long a transaction may hold a connection without doing anything.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(5);

/// How long after its own limits the server is to act, if wrun does not.
pub(super) const GRACE: Duration = Duration::from_secs(1);

/// What a value costs in a result beside its bytes.
pub(super) const VALUE_COST: usize = 16;

/// A kind of server, and where one is.
pub(super) trait Engine: Clone + 'static {
    /// What people call it.
    const PRODUCT: &'static str;
    type Connection: Connection;

    /// Makes a connection; the error is why there is none.
    async fn connect(&self) -> Result<Self::Connection, String>;
}

/// A connection to a server. One transaction takes place on it at a time.
pub(super) trait Connection: Sized + 'static {
    /// Whether `is_closed` tells, without asking, that the server has ended it.
    const KNOWS_ITS_END: bool;

    fn is_closed(&self) -> bool;

    /// Asks for a sign of life.
    async fn ping(&self) -> bool;

    /// Undoes what a user may have left behind, the transaction first; false if it may not be used again.
    async fn clean(&self) -> bool;

    /// Has the server stop what it does for this connection.
    async fn cancel(&self);

    /// Forgets what is prepared.
    fn forget(&self);

    /// Begins a transaction that holds its fences: who has a higher token waits for its end, or has been here before.
    async fn begin_within(&self, options: TxOptions, fences: &[Fence]) -> Result<(), Fault>;

    /// Does something in the transaction, after which that goes on whether or not it succeeded, if the fault says so.
    async fn guarded<T>(
        &self,
        opening: Opening,
        work: impl AsyncFn(&Self) -> Result<T, Fault>,
    ) -> Result<T, Fault>;

    /// Runs statements in a transaction that it begins, and leaves open.
    async fn run_all(
        &self,
        statements: &[(Statement, Want)],
        options: TxOptions,
        fences: &[Fence],
    ) -> Result<Vec<Step>, Fault>;

    /// Runs a guest's statement to its end. What it returns is taken off `room`.
    async fn run(&self, statement: &Statement, want: Want, room: &mut usize)
    -> Result<Step, Fault>;

    /// Notes that the work called `id` is done; false if it was before.
    async fn note(&self, id: &str) -> Result<bool, Fault>;

    /// Opens a cursor, and returns its columns.
    async fn declare(&self, cursor: u64, statement: &Statement) -> Result<Vec<Column>, Fault>;

    /// Reads so many rows of a cursor; fewer only at its end.
    async fn fetch(&self, cursor: u64, rows: usize) -> Result<Vec<Row>, Fault>;

    async fn close_cursor(&self, cursor: u64) -> Result<(), Fault>;

    /// Commits. `OutcomeUnknown` unless the server says what became of it.
    async fn commit(&self) -> Result<(), DbError>;

    /// If it fails, the connection does not get clean either.
    async fn rollback(&self);

    /// Forgets what is too old to be of use, in wrun's own tables.
    async fn tidy(&self);
}

/// What comes before something that is done in a transaction.
#[derive(Clone, Copy, Debug)]
pub(super) enum Opening {
    /// The transaction has to be begun.
    Begin(TxOptions),
    /// It was begun, and nothing was done in it yet.
    First,
    /// Something was.
    Next,
}

/// Why something on a connection failed.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    /// As a guest sees it.
    pub(super) told: DbError,
    pub(super) then: Then,
}

/// What a fault leaves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Then {
    /// The transaction goes on.
    GoesOn,
    /// So it does; and the statement works once it is prepared anew.
    PrepareAnew,
    /// The server has undone the transaction, or may have.
    TransactionIsOver,
    /// The connection is of no more use.
    ConnectionIsBroken,
}

impl From<DbError> for Fault {
    /// It did not get to the server, or a rule of wrun's refused it.
    fn from(told: DbError) -> Self {
        let then = Then::GoesOn;
        Self { told, then }
    }
}

impl Fault {
    pub(super) fn is_broken(&self) -> bool {
        self.then == Then::ConnectionIsBroken
    }
}

/// Returns about how large a row is.
pub(super) fn size(row: &Row) -> usize {
    let value = |value: &Value| match value {
        Value::Text(text)
        | Value::Decimal(text)
        | Value::Date(text)
        | Value::Time(text)
        | Value::Json(text)
        | Value::Other(_, text) => text.len(),
        Value::Blob(bytes) => bytes.len(),
        _ => 0,
    };
    row.iter().map(|it| VALUE_COST + value(it)).sum()
}

/// Says that a row, or a result, has no room.
pub(super) fn too_large(row: usize) -> DbError {
    use super::db::RESULT_MAX;
    DbError::TooLarge(match row > RESULT_MAX {
        true => format!("a row is larger than {RESULT_MAX} bytes"),
        false => format!("the result is larger than {RESULT_MAX} bytes: read it by cursor"),
    })
}
