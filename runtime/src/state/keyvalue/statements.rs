//! The statements by which a store is read and changed, and its values as rows.
//!
//! They are plain SQL, so that any engine behind [`Database`](crate::state::db::Database) can hold a store.

use super::{KEY_MAX, KEYS_MAX, KeyValueError, VALUE_MAX};
use crate::state::db::{Row, Statement, Value};

/// A whole number of 64 bits in its shortest notation is kept as `number`, so that one statement can count it up; anything
/// else as `value`. `version` is another with every change, also after a deletion: it is random.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS pair (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    value BLOB,
    number BIGINT,
    version BIGINT NOT NULL
)";
pub(super) const GET: &str = "SELECT value, number, version FROM pair WHERE key = $1";
pub(super) const VERSION: &str = "SELECT version FROM pair WHERE key = $1";
pub(super) const SET: &str =
    "INSERT INTO pair (key, value, number, version) VALUES ($1, $2, $3, $4) ON CONFLICT (key)
     DO UPDATE SET value = excluded.value, number = excluded.number, version = excluded.version";
pub(super) const ADD: &str =
    "INSERT INTO pair (key, value, number, version) VALUES ($1, $2, $3, $4) ON CONFLICT (key)
     DO NOTHING";
pub(super) const REPLACE: &str =
    "UPDATE pair SET value = $2, number = $3, version = $4 WHERE key = $1 AND version = $5";
pub(super) const DELETE: &str = "DELETE FROM pair WHERE key = $1";
pub(super) const INCREMENT: &str =
    "INSERT INTO pair (key, number, version) VALUES ($1, $2, $3) ON CONFLICT (key)
     DO UPDATE SET number = pair.number + $2, version = excluded.version
     WHERE pair.number BETWEEN $4 AND $5 RETURNING number";
pub(super) const LIST: &str = "SELECT id, key FROM pair WHERE id > $1 ORDER BY id LIMIT $2";
const SIZES: &str =
    "SELECT key, octet_length(value), number FROM pair WHERE key >= $1 ORDER BY key LIMIT $2";

/// Returns the statement that makes a database a store.
pub fn table() -> Statement {
    Statement {
        sql: TABLE.to_owned(),
        params: Vec::new(),
    }
}

/// Returns the statement that lists keys and the sizes of their values to operators, from a key onwards.
pub fn sizes(from: &str) -> Statement {
    page(SIZES, Value::Text(from.to_owned()))
}

/// Returns a key and the size of its value, as a row of that list has them.
pub fn sized(row: Row) -> Option<(String, usize)> {
    match <[Value; 3]>::try_from(row).ok()? {
        [Value::Text(key), Value::Integer(size), Value::Null] => {
            Some((key, usize::try_from(size).ok()?))
        }
        [Value::Text(key), Value::Null, Value::Integer(number)] => {
            Some((key, number.to_string().len()))
        }
        _ => None,
    }
}

/// Returns the statement that reads a key for operators.
pub fn reading(key: &str) -> Statement {
    Statement {
        sql: GET.to_owned(),
        params: vec![Value::Text(key.to_owned())],
    }
}

/// Returns the value that was read.
pub fn value(row: Row) -> Option<Vec<u8>> {
    value_and_version(row).map(|(value, _)| value)
}

pub(super) fn value_and_version(row: Row) -> Option<(Vec<u8>, i64)> {
    match <[Value; 3]>::try_from(row).ok()? {
        [Value::Blob(value), Value::Null, Value::Integer(version)] => Some((value, version)),
        [Value::Null, Value::Integer(number), Value::Integer(version)] => {
            Some((number.to_string().into_bytes(), version))
        }
        _ => None,
    }
}

/// Returns the whole number that a value is the shortest notation of.
fn whole_number(value: &[u8]) -> Option<i64> {
    let number: i64 = str::from_utf8(value).ok()?.parse().ok()?;
    (number.to_string().as_bytes() == value).then_some(number)
}

pub(super) fn page(sql: &str, from: Value) -> Statement {
    let limit = i64::try_from(KEYS_MAX).unwrap_or(i64::MAX);
    Statement {
        sql: sql.to_owned(),
        params: vec![from, Value::Integer(limit)],
    }
}

/// Returns a statement whose first parameter is a key.
pub(super) fn about(sql: &str, key: String) -> Result<Statement, KeyValueError> {
    let wrong = |why: String| Err(KeyValueError::Other(why));
    if key.is_empty() {
        return wrong("a key is empty".to_owned());
    }
    if key.len() > KEY_MAX {
        return wrong(format!("too large: a key is longer than {KEY_MAX} bytes"));
    }
    if key.contains('\0') {
        return wrong("a key contains NUL".to_owned());
    }
    Ok(Statement {
        sql: sql.to_owned(),
        params: vec![Value::Text(key)],
    })
}

/// Returns a statement whose next parameters are a value and a new version.
pub(super) fn write(sql: &str, key: String, value: Vec<u8>) -> Result<Statement, KeyValueError> {
    if value.len() > VALUE_MAX {
        let what = format!("too large: a value is larger than {VALUE_MAX} bytes");
        return Err(KeyValueError::Other(what));
    }
    let mut statement = about(sql, key)?;
    let kept = match whole_number(&value) {
        Some(number) => [Value::Null, Value::Integer(number)],
        None => [Value::Blob(value), Value::Null],
    };
    statement.params.extend(kept);
    statement.params.push(Value::Integer(new_version()?));
    Ok(statement)
}

pub(super) fn new_version() -> Result<i64, KeyValueError> {
    let random = getrandom::u64().map_err(|error| KeyValueError::Other(error.to_string()))?;
    Ok(random.cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_shortest_notation_of_64_bits_is_a_number() {
        for (value, number) in [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("", None),
            ("007", None),
            ("+1", None),
            ("-0", None),
            (" 1", None),
            ("1\n", None),
            ("1\0", None),
            ("1.0", None),
            ("\u{661}", None),
        ] {
            assert_eq!(whole_number(value.as_bytes()), number, "{value:?}");
        }
        assert_eq!(whole_number(b"\xff"), None);
    }

    #[test]
    fn value_comes_back_byte_for_byte() {
        for value in [&b"12"[..], b"-3", b"012", b"", b"\0\xff", b"text"] {
            let mut row = write(SET, "key".to_owned(), value.to_vec()).unwrap().params;
            row.remove(0);
            assert_eq!(super::value(row).as_deref(), Some(value));
        }
    }

    #[test]
    fn keys_and_values_have_limits() {
        let refused = |key: String, size| write(SET, key, vec![b'x'; size]).is_err();
        assert!(!refused("k".repeat(KEY_MAX), VALUE_MAX));
        assert!(refused("k".repeat(KEY_MAX + 1), 1));
        assert!(refused("k".to_owned(), VALUE_MAX + 1));
        assert!(refused(String::new(), 1));
        assert!(refused("a\0b".to_owned(), 1));
    }
}
