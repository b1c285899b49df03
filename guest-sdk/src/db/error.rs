//! Why a call to a database failed.

use super::DbError;
use crate::bindings::wrun::db::db as host;

/// Why a call failed. Unless it says otherwise, nothing was changed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The manifest does not grant this database, or guests may not run such a statement.
    #[error("denied: {0}")]
    Denied(String),
    /// The request makes no sense: several statements, a wrong number of parameters.
    #[error("invalid: {0}")]
    Invalid(String),
    /// The engine refused the statement.
    #[error("{}: {}", .0.code, .0.message)]
    Db(DbError),
    /// A time limit was reached, and the transaction was rolled back.
    #[error("timed out: {0}")]
    Timeout(String),
    /// The transaction or cursor has ended.
    #[error("the transaction has ended")]
    Closed,
    /// A lock that the transaction was begun with was lost, and the transaction was rolled back.
    #[error("a lock of the transaction was lost")]
    LostFence,
    /// The connection broke during the commit: it happened wholly or not at all, and nobody can tell which. To repeat the
    /// work is safe only if [`mark_processed`](super::Transaction::mark_processed), or a key of the caller's own, makes it
    /// so.
    #[error("the connection broke during the commit, its outcome is unknown")]
    OutcomeUnknown,
    /// A statement, parameter, row or result is over its limit.
    #[error("too large: {0}")]
    TooLarge(String),
    /// The database cannot be reached just now. Nothing was changed.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
    /// A row is not what the caller wants it to be. In a transaction of its own the statement took effect all the same.
    #[error("unexpected row: {0}")]
    Decode(String),
    /// One row was wanted; there were so many.
    #[error("expected one row, got {0}")]
    RowCount(usize),
}

impl Error {
    /// Tells whether the same transaction, run again from its beginning, may succeed.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Db(error) => error.retryable,
            Self::Unavailable(_) => true,
            _ => false,
        }
    }

    /// Returns the SQLSTATE, if the engine refused a statement: `23505` for a unique key that is there already.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Db(error) => Some(&error.code),
            _ => None,
        }
    }
}

impl From<host::Error> for Error {
    fn from(error: host::Error) -> Self {
        match error {
            host::Error::Denied(what) => Self::Denied(what),
            host::Error::Invalid(what) => Self::Invalid(what),
            host::Error::Db(error) => Self::Db(error),
            host::Error::Timeout(what) => Self::Timeout(what),
            host::Error::Closed => Self::Closed,
            host::Error::LostFence => Self::LostFence,
            host::Error::OutcomeUnknown => Self::OutcomeUnknown,
            host::Error::TooLarge(what) => Self::TooLarge(what),
            host::Error::Unavailable(what) => Self::Unavailable(what),
            host::Error::Other(what) => Self::Other(what),
        }
    }
}

impl serde::de::Error for Error {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self::Decode(message.to_string())
    }
}
