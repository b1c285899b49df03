//! Errors of MariaDB and MySQL in the words of `wrun:db`.
//!
//! Their own SQLSTATEs tell little: 23000 is a broken key as well as a NULL where none may be. So that guests need not know
//! which engine they are on, the numbers of what they look for become the SQLSTATEs that others have for it.

use crate::state::db::DbError;
use crate::state::remote::{Fault, Then};
use mysql_async::{DriverError, Error, ServerError};

/// Numbers of errors, and the SQLSTATEs for them.
const STATES: [(&[u16], &str); 16] = [
    (&[1062, 1169, 1586], "23505"),
    (&[1048, 1263, 1364], "23502"),
    (&[1216, 1217, 1451, 1452], "23503"),
    (&[3819, 4025], "23514"),
    (&[1064, 1149], "42601"),
    (&[1051, 1146], "42P01"),
    (&[1054], "42703"),
    (&[1050], "42P07"),
    (&[1305], "42883"),
    (&[1044, 1142, 1143, 1227, 1370], "42501"),
    (&[1290, 1792, 1836], "25006"),
    (&[1020, 1213], "40001"),
    (&[1205, 3572], "55P03"),
    (&[1021, 1114], "53100"),
    (&[1037, 1038, 1041], "53200"),
    (&[1406], "22001"),
];

/// SQLSTATEs that say: the same transaction, run again, may succeed.
const RETRYABLE: [&str; 2] = ["40001", "55P03"];

/// After these the server has undone the transaction, or part of it, as its settings say: none of it may be kept.
const ENDS: [u16; 6] = [1020, 1180, 1205, 1206, 1213, 1614];

/// The statement reached its time limit, or was stopped.
const TIME_OUT: [u16; 3] = [1317, 1969, 3024];

/// The server takes no work just now: it shuts down, or has no connection left.
const AWAY: [u16; 9] = [1040, 1053, 1129, 1203, 1226, 1927, 4031, 1152, 1184];

/// Of these errors, a connection is of no more use.
const BROKEN: [u16; 5] = [1053, 1927, 4031, 1152, 1184];

/// The statement has to be prepared again.
const STALE: [u16; 2] = [1243, 1615];

/// A COMMIT that ends with one of these has had no effect.
const NOT_COMMITTED: [u16; 3] = [1020, 1205, 1213];

/// NOWAIT found a row locked: MariaDB says it as of one that waited, MySQL has a number for it.
pub(super) fn is_locked(error: &Error) -> bool {
    matches!(error, Error::Server(told) if [1205, 3572].contains(&told.code))
}

/// Tells whether a key is there already.
pub(super) fn is_taken(error: &Error) -> bool {
    matches!(error, Error::Server(told) if told.code == 1062)
}

/// Returns the error as a guest sees it.
pub(super) fn to_db_error(error: &Error) -> DbError {
    match error {
        Error::Server(told) => of_server(told),
        Error::Driver(DriverError::StmtParamsMismatch { required, supplied }) => DbError::Invalid(
            format!("the statement has {required} parameters, {supplied} were given"),
        ),
        Error::Driver(DriverError::MixedParams | DriverError::Params(_)) => {
            DbError::Invalid("parameters are $1, $2, … or ?".to_owned())
        }
        Error::Driver(DriverError::PacketTooLarge) => {
            DbError::TooLarge("a statement with its parameters".to_owned())
        }
        _ => DbError::Unavailable(format!("MariaDB or MySQL: {}", whole(error))),
    }
}

fn of_server(told: &ServerError) -> DbError {
    let ServerError {
        code,
        message,
        state,
    } = told;
    if TIME_OUT.contains(code) {
        return DbError::Timeout("the statement took too long and was stopped".to_owned());
    }
    if AWAY.contains(code) || state.starts_with("08") {
        return DbError::Unavailable(format!("MariaDB or MySQL: {message}"));
    }
    if *code == 1153 {
        let what = "a statement with its parameters: max_allowed_packet of the server is less";
        return DbError::TooLarge(what.to_owned());
    }
    let known = STATES.iter().find(|(numbers, _)| numbers.contains(code));
    let state = known.map_or(state.as_str(), |(_, state)| state);
    DbError::Engine {
        code: state.to_owned(),
        constraint: constraint(*code, message),
        retryable: RETRYABLE.contains(&state),
        message: message.clone(),
    }
}

/// Finds the name of a constraint where the server says it: in the message.
fn constraint(code: u16, message: &str) -> Option<String> {
    let between = |from: &str, to: char| {
        let (_, rest) = message.split_once(from)?;
        Some(rest.split_once(to)?.0.to_owned())
    };
    match code {
        1062 => {
            let (_, rest) = message.rsplit_once("for key '")?;
            let key = rest.trim_end_matches('\'');
            // MySQL puts the table before it.
            Some(key.rsplit_once('.').map_or(key, |(_, key)| key).to_owned())
        }
        1451 | 1452 | 4025 => between("CONSTRAINT `", '`'),
        3819 => between("constraint '", '\''),
        _ => None,
    }
}

/// Returns what became of a transaction whose COMMIT met an error: unless the server says that it refused, nobody knows.
pub(super) fn of_commit(error: &Error) -> DbError {
    match error {
        Error::Server(told) if NOT_COMMITTED.contains(&told.code) => to_db_error(error),
        _ => DbError::OutcomeUnknown,
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let then = match &error {
            Error::Server(told) if ENDS.contains(&told.code) => Then::TransactionIsOver,
            Error::Server(told) if BROKEN.contains(&told.code) => Then::ConnectionIsBroken,
            Error::Server(told) if STALE.contains(&told.code) => Then::PrepareAnew,
            Error::Server(_) => Then::GoesOn,
            Error::Driver(
                DriverError::StmtParamsMismatch { .. }
                | DriverError::MixedParams
                | DriverError::Params(_),
            ) => Then::GoesOn,
            _ => Then::ConnectionIsBroken,
        };
        let told = to_db_error(&error);
        Self { told, then }
    }
}

/// Returns an error with what it stems from.
pub(super) fn whole(error: &Error) -> String {
    match error {
        Error::Server(told) => told.message.clone(),
        Error::Io(error) => error.to_string(),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(code: u16, state: &str, message: &str) -> DbError {
        to_db_error(&Error::Server(ServerError {
            code,
            message: message.to_owned(),
            state: state.to_owned(),
        }))
    }

    #[test]
    fn constraint_is_found_in_the_message() {
        for (code, message, name) in [
            (1062, "Duplicate entry 'a' for key 'PRIMARY'", "PRIMARY"),
            (
                1062,
                "Duplicate entry 'for key ' for key 'stock.by_item'",
                "by_item",
            ),
            (
                4025,
                "CONSTRAINT `positive` failed for `shop`.`stock`",
                "positive",
            ),
            (3819, "Check constraint 'positive' is violated.", "positive"),
            (
                1452,
                "Cannot add or update a child row: a foreign key constraint fails (`s`.`sale`, CONSTRAINT `sale_ibfk_1` FOREIGN",
                "sale_ibfk_1",
            ),
        ] {
            match server(code, "23000", message) {
                DbError::Engine { constraint, .. } => assert_eq!(constraint.as_deref(), Some(name)),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn what_has_no_better_sqlstate_keeps_its_own() {
        for (number, state, expected) in [
            (1365, "22012", "22012"),
            (1644, "45000", "45000"),
            (1062, "23000", "23505"),
        ] {
            match server(number, state, "") {
                DbError::Engine {
                    code, retryable, ..
                } => assert_eq!((&*code, retryable), (expected, false)),
                other => panic!("{other:?}"),
            }
        }
        assert!(matches!(server(1969, "70100", ""), DbError::Timeout(_)));
        assert!(matches!(server(1040, "08004", ""), DbError::Unavailable(_)));
    }

    #[test]
    fn only_a_commit_that_the_server_refused_is_known_to_have_failed() {
        let error = |code| {
            Error::Server(ServerError {
                code,
                message: String::new(),
                state: "HY000".to_owned(),
            })
        };
        assert!(matches!(
            of_commit(&error(1213)),
            DbError::Engine {
                retryable: true,
                ..
            }
        ));
        for code in [1053, 1180, 1317, 1927] {
            assert_eq!(of_commit(&error(code)), DbError::OutcomeUnknown);
        }
        let closed = Error::Driver(DriverError::ConnectionClosed);
        assert_eq!(of_commit(&closed), DbError::OutcomeUnknown);
    }
}
