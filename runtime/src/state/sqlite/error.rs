//! SQLite's errors as SQLSTATEs, and in the words of `wrun:db`.

use crate::state::db::{DbError, VALUE_MAX};
use crate::state::queue::QueueError;
use rusqlite::ffi;

/// Tells whether data that was written may never reach the disk: nobody knows what a further try would sync.
pub(super) fn is_lost_sync(error: &rusqlite::Error) -> bool {
    matches!(
        extended_code(error),
        Some(ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC)
    )
}

/// Tells whether SQLite says that the authorizer refused. Of functions it says so in words alone.
pub(super) fn is_refusal(error: &rusqlite::Error) -> bool {
    extended_code(error).is_some_and(|code| code & 0xff == ffi::SQLITE_AUTH)
        || message(error).starts_with("not authorized to use function")
}

/// Returns the error as a guest sees it.
pub(super) fn to_db_error(error: &rusqlite::Error) -> DbError {
    match error {
        rusqlite::Error::MultipleStatement => {
            return DbError::Invalid("there are several statements".to_owned());
        }
        rusqlite::Error::Empty => {
            return DbError::Invalid("there is no statement".to_owned());
        }
        _ => {}
    }
    let message = message(error);
    let Some(code) = extended_code(error) else {
        return DbError::Other(message);
    };
    match code & 0xff {
        ffi::SQLITE_TOOBIG => DbError::TooLarge(format!(
            "a text, blob, row or statement is over its limit: {VALUE_MAX} bytes for values"
        )),
        ffi::SQLITE_INTERRUPT => {
            DbError::Timeout("the statement took too long and was stopped".to_owned())
        }
        ffi::SQLITE_AUTH => DbError::Denied(message),
        ffi::SQLITE_ERROR if message.ends_with("may not be modified") => DbError::Denied(message),
        _ => DbError::Engine {
            code: sqlstate(code, &message).to_owned(),
            constraint: constraint(code, &message),
            retryable: matches!(code & 0xff, ffi::SQLITE_BUSY),
            message,
        },
    }
}

/// Returns the error of a queue that an error of its database is.
impl From<DbError> for QueueError {
    fn from(error: DbError) -> Self {
        match error {
            DbError::Denied(text) => Self::Denied(text),
            DbError::Invalid(text) => Self::Invalid(text),
            DbError::Engine { code, message, .. } => Self::Refused(code, message),
            DbError::Timeout(text) | DbError::Unavailable(text) => Self::Unavailable(text),
            DbError::Closed => Self::Closed,
            DbError::OutcomeUnknown => Self::OutcomeUnknown,
            DbError::TooLarge(text) => Self::TooLarge(text),
            DbError::LostFence | DbError::Other(_) => Self::Other(error.to_string()),
        }
    }
}

fn extended_code(error: &rusqlite::Error) -> Option<i32> {
    match error {
        rusqlite::Error::SqliteFailure(error, _) | rusqlite::Error::SqlInputError { error, .. } => {
            Some(error.extended_code)
        }
        _ => None,
    }
}

fn message(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqliteFailure(_, Some(message)) => message.clone(),
        rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
        _ => error.to_string(),
    }
}

fn sqlstate(code: i32, message: &str) -> &'static str {
    match code {
        ffi::SQLITE_CONSTRAINT_UNIQUE
        | ffi::SQLITE_CONSTRAINT_PRIMARYKEY
        | ffi::SQLITE_CONSTRAINT_ROWID => "23505",
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => "23503",
        ffi::SQLITE_CONSTRAINT_NOTNULL => "23502",
        ffi::SQLITE_CONSTRAINT_CHECK => "23514",
        // What RAISE in a trigger does.
        ffi::SQLITE_CONSTRAINT_TRIGGER => "P0001",
        ffi::SQLITE_CONSTRAINT_DATATYPE => "42804",
        _ => match code & 0xff {
            ffi::SQLITE_CONSTRAINT => "23000",
            ffi::SQLITE_ERROR => sqlstate_of_message(message),
            ffi::SQLITE_FULL => "53100",
            ffi::SQLITE_NOMEM => "53200",
            ffi::SQLITE_IOERR | ffi::SQLITE_CANTOPEN => "58030",
            ffi::SQLITE_BUSY => "40001",
            ffi::SQLITE_LOCKED => "55006",
            ffi::SQLITE_READONLY => "25006",
            ffi::SQLITE_MISMATCH => "42804",
            ffi::SQLITE_RANGE => "22003",
            ffi::SQLITE_CORRUPT | ffi::SQLITE_NOTADB => "XX001",
            _ => "XX000",
        },
    }
}

/// SQLite has one code for all that is wrong with a statement, and tells them apart in words.
fn sqlstate_of_message(message: &str) -> &'static str {
    const PATTERNS: [(&str, &str); 13] = [
        ("syntax error", "42601"),
        ("incomplete input", "42601"),
        ("unrecognized token", "42601"),
        ("no such table", "42P01"),
        ("no such view", "42P01"),
        ("no such column", "42703"),
        ("no column named", "42703"),
        ("no such function", "42883"),
        ("ambiguous column", "42702"),
        ("already exists", "42P07"),
        ("integer overflow", "22003"),
        ("malformed JSON", "22032"),
        ("foreign key mismatch", "42830"),
    ];
    PATTERNS
        .iter()
        .find(|(pattern, _)| message.contains(pattern))
        .map_or("42000", |(_, code)| code)
}

/// Returns what stands behind the colon of `UNIQUE constraint failed: t.a`.
fn constraint(code: i32, message: &str) -> Option<String> {
    if code & 0xff != ffi::SQLITE_CONSTRAINT {
        return None;
    }
    let (_, name) = message.split_once("constraint failed: ")?;
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::Connection;

    fn error_of(sql: &str) -> DbError {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(
                "PRAGMA foreign_keys = ON;
                 CREATE TABLE p (id INTEGER PRIMARY KEY);
                 CREATE TABLE t (a UNIQUE, b NOT NULL DEFAULT 1, c CONSTRAINT positive CHECK (c > 0),
                     d REFERENCES p (id), e TEXT);
                 CREATE TABLE s (a INT) STRICT;
                 CREATE TRIGGER no BEFORE DELETE ON t BEGIN SELECT raise(ABORT, 'kept'); END;
                 INSERT INTO p VALUES (1);
                 INSERT INTO t (a) VALUES (1);",
            )
            .unwrap();
        to_db_error(&connection.execute_batch(sql).unwrap_err())
    }

    #[test]
    fn errors_have_the_sqlstate_that_postgres_gives_them() {
        for (sql, code, constraint) in [
            ("INSERT INTO t (a) VALUES (1)", "23505", Some("t.a")),
            ("INSERT INTO p VALUES (1)", "23505", Some("p.id")),
            ("INSERT INTO t (d) VALUES (7)", "23503", None),
            ("INSERT INTO t (b) VALUES (NULL)", "23502", Some("t.b")),
            ("INSERT INTO t (c) VALUES (0)", "23514", Some("positive")),
            ("DELETE FROM t", "P0001", None),
            ("SELEC 1", "42601", None),
            ("SELECT", "42601", None),
            ("SELECT 'x", "42601", None),
            ("SELECT * FROM nowhere", "42P01", None),
            ("SELECT missing FROM t", "42703", None),
            ("INSERT INTO t (missing) VALUES (1)", "42703", None),
            ("SELECT missing()", "42883", None),
            ("CREATE TABLE t (a)", "42P07", None),
            ("SELECT abs(-9223372036854775808)", "22003", None),
            ("SELECT json('{')", "22032", None),
            ("INSERT INTO p VALUES ('x')", "42804", None),
            ("INSERT INTO s VALUES ('x')", "42804", Some("s.a")),
        ] {
            match error_of(sql) {
                DbError::Engine {
                    code: found,
                    constraint: named,
                    retryable,
                    message,
                } => {
                    assert_eq!(found, code, "{sql}: {message}");
                    if constraint.is_some_and(|name| name != "s.a") {
                        assert_eq!(named.as_deref(), constraint, "{sql}");
                    }
                    assert!(!retryable);
                }
                other => panic!("{sql}: {other:?}"),
            }
        }
    }

    #[test]
    fn busy_is_retryable_and_too_big_is_too_large() {
        let failure = |code| rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
        let busy = to_db_error(&failure(ffi::SQLITE_BUSY_SNAPSHOT));
        assert!(matches!(busy, DbError::Engine { code, retryable: true, .. } if code == "40001"));
        assert!(matches!(
            to_db_error(&failure(ffi::SQLITE_TOOBIG)),
            DbError::TooLarge(_)
        ));
        assert!(matches!(
            to_db_error(&failure(ffi::SQLITE_INTERRUPT)),
            DbError::Timeout(_)
        ));
        assert!(matches!(
            to_db_error(&failure(ffi::SQLITE_FULL)),
            DbError::Engine { code, .. } if code == "53100"
        ));
    }

    #[test]
    fn schema_table_is_denied() {
        assert!(matches!(
            error_of("DELETE FROM sqlite_schema"),
            DbError::Denied(_)
        ));
    }

    #[test]
    fn only_a_failed_sync_is_a_lost_sync() {
        let failure = |code| rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
        assert!(is_lost_sync(&failure(ffi::SQLITE_IOERR_FSYNC)));
        assert!(!is_lost_sync(&failure(ffi::SQLITE_IOERR_WRITE)));
        assert!(!is_lost_sync(&failure(ffi::SQLITE_FULL)));
    }
}
