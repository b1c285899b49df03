//! PostgreSQL's errors in the words of `wrun:db`.

use crate::state::db::DbError;
use tokio_postgres::Error;
use tokio_postgres::error::Severity;

/// SQLSTATEs that say: the same transaction, run again, may succeed.
const RETRYABLE: [&str; 3] = ["40001", "40P01", "55P03"];

/// SQLSTATEs that say: a time limit was reached.
const TIME_OUT: [&str; 3] = ["57014", "25P03", "25P04"];

/// SQLSTATEs of a server that takes no work just now: it shuts down, starts, or has no connection left.
const AWAY: [&str; 5] = ["57P01", "57P02", "57P03", "57P05", "53300"];

/// SQLSTATEs of plans that no longer fit, because a table was changed: prepared again, the statement works.
const STALE: [&str; 2] = ["0A000", "26000"];

/// Returns the error as a guest sees it.
pub(super) fn to_db_error(error: &Error) -> DbError {
    let Some(told) = error.as_db_error() else {
        return match is_broken(error) {
            true => DbError::Unavailable(format!("PostgreSQL: {}", whole(error))),
            false => DbError::Invalid(whole(error)),
        };
    };
    let code = told.code().code();
    let message = told.message().to_owned();
    match code {
        _ if TIME_OUT.contains(&code) => {
            DbError::Timeout("the statement took too long and was stopped".to_owned())
        }
        _ if AWAY.contains(&code) || code.starts_with("08") => {
            DbError::Unavailable(format!("PostgreSQL: {message}"))
        }
        // The only way to tell this from other syntax errors.
        "42601" if message.starts_with("cannot insert multiple commands") => {
            DbError::Invalid("there are several statements".to_owned())
        }
        _ => DbError::Engine {
            code: code.to_owned(),
            constraint: told.constraint().map(str::to_owned),
            retryable: RETRYABLE.contains(&code),
            message,
        },
    }
}

/// Returns what became of a transaction whose COMMIT met an error: unless the server says that it refused, nobody knows.
pub(super) fn of_commit(error: &Error) -> DbError {
    match (is_broken(error), to_db_error(error)) {
        (true, _) | (_, DbError::Unavailable(_)) => DbError::OutcomeUnknown,
        (false, told) => told,
    }
}

/// Tells whether the connection is of no more use.
pub(super) fn is_broken(error: &Error) -> bool {
    match error.as_db_error() {
        Some(told) => matches!(
            told.parsed_severity(),
            Some(Severity::Fatal | Severity::Panic)
        ),
        None => {
            let source = std::error::Error::source(error);
            error.is_closed() || source.is_some_and(|source| source.is::<std::io::Error>())
        }
    }
}

/// Tells whether a statement that was prepared before has to be prepared again.
pub(super) fn is_stale(error: &Error) -> bool {
    error
        .code()
        .is_some_and(|code| STALE.contains(&code.code()))
}

/// Returns an error with what it stems from.
pub(super) fn whole(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
