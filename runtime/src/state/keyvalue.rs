//! What a key-value store is: a table in a database of its own, and the statements by which a worker reads and changes it.
//!
//! Every operation is one round trip and one transaction. The statements are plain SQL, so that any engine behind
//! [`Database`](super::db::Database) can hold a store. Who may use it is for `server` to say.

use super::client::Client;
use super::db::{DbError, Done, RESULT_MAX, Row, Statement, Step, TxOptions, Value, Want};

/// The longest key in bytes.
pub const KEY_MAX: usize = 512;
/// The largest value in bytes.
pub const VALUE_MAX: usize = 4 << 20;
/// Keys of one call, and of one page of a list.
pub const KEYS_MAX: usize = 1000;
/// The largest values of one call together, in bytes.
pub const VALUES_MAX: usize = RESULT_MAX;

/// What follows a store's label in the name of its database. No database that a guest can name has a dot in its label.
const SUFFIX: &str = ".keyvalue";

/// The SQLSTATE of a full disk, and of a database at its largest size.
const NO_ROOM: &str = "53100";

/// A whole number of 64 bits in its shortest notation is kept as `number`, so that one statement can count it up; anything
/// else as `value`. `version` is another with every change, also after a deletion: it is random.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS pair (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    value BLOB,
    number INTEGER,
    version INTEGER NOT NULL
)";
const GET: &str = "SELECT value, number, version FROM pair WHERE key = $1";
const VERSION: &str = "SELECT version FROM pair WHERE key = $1";
const SET: &str =
    "INSERT INTO pair (key, value, number, version) VALUES ($1, $2, $3, $4) ON CONFLICT (key)
     DO UPDATE SET value = excluded.value, number = excluded.number, version = excluded.version";
const ADD: &str = "INSERT INTO pair (key, value, number, version) VALUES ($1, $2, $3, $4) ON CONFLICT (key) DO NOTHING";
const REPLACE: &str =
    "UPDATE pair SET value = $2, number = $3, version = $4 WHERE key = $1 AND version = $5";
const DELETE: &str = "DELETE FROM pair WHERE key = $1";
const INCREMENT: &str =
    "INSERT INTO pair (key, number, version) VALUES ($1, $2, $3) ON CONFLICT (key)
     DO UPDATE SET number = pair.number + $2, version = excluded.version
     WHERE pair.number BETWEEN $4 AND $5 RETURNING number";
const LIST: &str = "SELECT id, key FROM pair WHERE id > $1 ORDER BY id LIMIT $2";
const SIZES: &str =
    "SELECT key, octet_length(value), number FROM pair WHERE key >= $1 ORDER BY key LIMIT $2";

/// Why a call failed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum KeyValueError {
    /// Nothing is granted by that label.
    #[error("there is no such store")]
    NoSuchStore,
    /// `increment` cannot carry on from the value.
    #[error("the value is not a whole number, or would not stay one of 64 bits")]
    NotCountable,
    #[error("{0}")]
    Other(String),
}

/// A key-value store, as a worker reaches it.
#[derive(Clone, Debug)]
pub struct Bucket {
    client: Client,
    db: String,
}

/// A key that was looked at, to be changed only if nobody else has changed it since.
#[derive(Debug)]
pub struct Seen {
    bucket: Bucket,
    key: String,
    /// `None` if there was no such key.
    version: Option<i64>,
}

/// A page of a list of keys.
#[derive(Debug)]
pub struct Page {
    pub keys: Vec<String>,
    /// Where the next page begins, if there is one.
    pub next: Option<i64>,
}

impl Bucket {
    /// Returns the store with this label.
    pub fn new(client: Client, label: &str) -> Self {
        let db = database(label);
        Self { client, db }
    }

    pub async fn get(&self, key: String) -> Result<Option<Vec<u8>>, KeyValueError> {
        Ok(self.look_up(key).await?.map(|(value, _)| value))
    }

    pub async fn set(&self, key: String, value: Vec<u8>) -> Result<(), KeyValueError> {
        self.set_many(vec![(key, value)]).await
    }

    pub async fn delete(&self, key: String) -> Result<(), KeyValueError> {
        self.delete_many(vec![key]).await
    }

    pub async fn exists(&self, key: String) -> Result<bool, KeyValueError> {
        Ok(self.version(key).await?.is_some())
    }

    /// Returns the values of these keys as they are at one moment.
    pub async fn get_many(&self, keys: Vec<String>) -> Result<Vec<Option<Vec<u8>>>, KeyValueError> {
        check_count(keys.len())?;
        let statements = keys.into_iter().map(|key| about(GET, key));
        let steps = self.read(statements.collect::<Result<_, _>>()?).await?;
        let value = |step| Ok(pair(step)?.map(|(value, _)| value));
        steps.into_iter().map(value).collect()
    }

    /// Sets all of these keys, or none.
    pub async fn set_many(&self, pairs: Vec<(String, Vec<u8>)>) -> Result<(), KeyValueError> {
        check_count(pairs.len())?;
        let size: usize = pairs.iter().map(|(_, value)| value.len()).sum();
        if size > VALUES_MAX {
            return Err(too_large_together());
        }
        let statements = pairs.into_iter().map(|(key, value)| write(SET, key, value));
        self.write(statements.collect::<Result<_, _>>()?).await?;
        Ok(())
    }

    /// Deletes all of these keys, or none.
    pub async fn delete_many(&self, keys: Vec<String>) -> Result<(), KeyValueError> {
        check_count(keys.len())?;
        let statements = keys.into_iter().map(|key| about(DELETE, key));
        self.write(statements.collect::<Result<_, _>>()?).await?;
        Ok(())
    }

    /// Returns keys in the order in which they came to be, from the first or from where a page ended. A key that is there
    /// all the while is on one page.
    pub async fn list_keys(&self, from: Option<i64>) -> Result<Page, KeyValueError> {
        let list = page(LIST, Value::Integer(from.unwrap_or(0)));
        let mut keys = Vec::new();
        let mut last = None;
        for row in rows(self.read_one(list).await?)? {
            match <[Value; 2]>::try_from(row) {
                Ok([Value::Integer(id), Value::Text(key)]) => {
                    last = Some(id);
                    keys.push(key);
                }
                _ => return Err(unfit()),
            }
        }
        let next = last.filter(|_| keys.len() == KEYS_MAX);
        Ok(Page { keys, next })
    }

    /// Adds to a whole number that is at least `least` afterwards; a key that is not there counts as 0.
    pub async fn increment(
        &self,
        key: String,
        delta: i64,
        least: i64,
    ) -> Result<i64, KeyValueError> {
        let mut statement = about(INCREMENT, key)?;
        statement.params.extend(
            [
                delta,
                new_version()?,
                least.saturating_sub(delta),
                i64::MAX.saturating_sub(delta),
            ]
            .map(Value::Integer),
        );
        let steps = self.run(vec![(statement, Want::Rows)], false).await?;
        number(only(steps)?)?.ok_or(KeyValueError::NotCountable)
    }

    /// Looks at a key.
    pub async fn see(&self, key: String) -> Result<Seen, KeyValueError> {
        Ok(Seen {
            bucket: self.clone(),
            version: self.version(key.clone()).await?,
            key,
        })
    }

    async fn version(&self, key: String) -> Result<Option<i64>, KeyValueError> {
        number(self.read_one(about(VERSION, key)?).await?)
    }

    /// Returns value and version of a key.
    async fn look_up(&self, key: String) -> Result<Option<(Vec<u8>, i64)>, KeyValueError> {
        pair(self.read_one(about(GET, key)?).await?)
    }

    async fn read_one(&self, statement: Statement) -> Result<Step, KeyValueError> {
        only(self.read(vec![statement]).await?)
    }

    async fn read(&self, statements: Vec<Statement>) -> Result<Vec<Step>, KeyValueError> {
        let wanted = statements
            .into_iter()
            .map(|statement| (statement, Want::Rows));
        self.run(wanted.collect(), true).await
    }

    async fn write(&self, statements: Vec<Statement>) -> Result<Vec<Step>, KeyValueError> {
        let wanted = statements
            .into_iter()
            .map(|statement| (statement, Want::Done));
        self.run(wanted.collect(), false).await
    }

    async fn run(
        &self,
        statements: Vec<(Statement, Want)>,
        read_only: bool,
    ) -> Result<Vec<Step>, KeyValueError> {
        if statements.is_empty() {
            return Ok(Vec::new());
        }
        let options = TxOptions {
            read_only,
            ..TxOptions::default()
        };
        Ok(self
            .client
            .batch(&self.db, statements, options, &[])
            .await?)
    }
}

impl Seen {
    /// Returns the value, and from now on means what it returned.
    pub async fn current(&mut self) -> Result<Option<Vec<u8>>, KeyValueError> {
        let found = self.bucket.look_up(self.key.clone()).await?;
        self.version = found.as_ref().map(|(_, version)| *version);
        Ok(found.map(|(value, _)| value))
    }

    /// Replaces what was seen; if that is not there any more, returns what is instead.
    pub async fn swap(self, value: Vec<u8>) -> Result<Option<Self>, KeyValueError> {
        let Self {
            bucket,
            key,
            version,
        } = self;
        let mut statement = write(
            if version.is_some() { REPLACE } else { ADD },
            key.clone(),
            value,
        )?;
        statement.params.extend(version.map(Value::Integer));
        match only(bucket.write(vec![statement]).await?)? {
            Step::Done(Done { affected: 0, .. }) => Ok(Some(bucket.see(key).await?)),
            Step::Done(_) => Ok(None),
            Step::Rows(_) => Err(unfit()),
        }
    }
}

impl From<DbError> for KeyValueError {
    fn from(error: DbError) -> Self {
        Self::Other(match error {
            DbError::Engine { code, .. } if code == NO_ROOM => {
                "no room: the store is at its `max-size`, or the disk is full".to_owned()
            }
            DbError::TooLarge(_) => return too_large_together(),
            error => error.to_string(),
        })
    }
}

/// Returns the name of the database that holds a store.
pub fn database(label: &str) -> String {
    format!("{label}{SUFFIX}")
}

/// Returns the label of the store that a database holds, if it holds one.
pub fn label(database: &str) -> Option<&str> {
    database.strip_suffix(SUFFIX)
}

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

fn value_and_version(row: Row) -> Option<(Vec<u8>, i64)> {
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

fn page(sql: &str, from: Value) -> Statement {
    let limit = i64::try_from(KEYS_MAX).unwrap_or(i64::MAX);
    Statement {
        sql: sql.to_owned(),
        params: vec![from, Value::Integer(limit)],
    }
}

/// Returns a statement whose first parameter is a key.
fn about(sql: &str, key: String) -> Result<Statement, KeyValueError> {
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
fn write(sql: &str, key: String, value: Vec<u8>) -> Result<Statement, KeyValueError> {
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

fn new_version() -> Result<i64, KeyValueError> {
    let random = getrandom::u64().map_err(|error| KeyValueError::Other(error.to_string()))?;
    Ok(random.cast_signed())
}

fn check_count(keys: usize) -> Result<(), KeyValueError> {
    if keys > KEYS_MAX {
        let what = format!("too large: one call has at most {KEYS_MAX} keys");
        return Err(KeyValueError::Other(what));
    }
    Ok(())
}

fn only(steps: Vec<Step>) -> Result<Step, KeyValueError> {
    steps.into_iter().next().ok_or_else(unfit)
}

fn rows(step: Step) -> Result<Vec<Row>, KeyValueError> {
    match step {
        Step::Rows(rows) => Ok(rows.rows),
        Step::Done(_) => Err(unfit()),
    }
}

/// Returns the number that a step returned, if it returned a row.
fn number(step: Step) -> Result<Option<i64>, KeyValueError> {
    match rows(step)?.pop().as_deref() {
        None => Ok(None),
        Some([Value::Integer(number)]) => Ok(Some(*number)),
        Some(_) => Err(unfit()),
    }
}

/// Returns the value and the version that a step returned, if it returned a row.
fn pair(step: Step) -> Result<Option<(Vec<u8>, i64)>, KeyValueError> {
    let row = rows(step)?.pop();
    row.map(|row| value_and_version(row).ok_or_else(unfit))
        .transpose()
}

fn too_large_together() -> KeyValueError {
    KeyValueError::Other(format!(
        "too large: the values of one call are larger than {VALUES_MAX} bytes together"
    ))
}

/// The state process answered something else than it was asked.
fn unfit() -> KeyValueError {
    KeyValueError::Other("the answer does not fit the call".to_owned())
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
        assert!(check_count(KEYS_MAX).is_ok() && check_count(KEYS_MAX + 1).is_err());
    }

    #[test]
    fn no_label_is_the_name_of_a_stores_database() {
        assert_eq!(label(&database("default")), Some("default"));
        assert_eq!(label("default"), None);
        assert!(database("default").contains('.'), "labels have no dots");
    }
}
