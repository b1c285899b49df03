//! What a key-value store is: a table in a database of its own, and a worker's way to it.
//!
//! Every operation is one round trip and one transaction, but for a swap that fails. Who may use a store is for `server` to
//! say.

mod statements;

pub use statements::{reading, sized, sizes, table, value};

use super::client::Client;
use super::db::{DbError, Done, RESULT_MAX, Row, Statement, Step, TxOptions, Value, Want};
use statements::{ADD, DELETE, GET, INCREMENT, LIST, REPLACE, SET, VERSION};
use statements::{about, new_version, page, value_and_version, write};

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
    fn no_label_is_the_name_of_a_stores_database() {
        assert_eq!(label(&database("default")), Some("default"));
        assert_eq!(label("default"), None);
        assert!(database("default").contains('.'), "labels have no dots");
    }
}
