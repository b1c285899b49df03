//! Databases: SQL with transactions.
//!
//! ```no_run
//! use serde::Deserialize;
//! use wrun_sdk::db;
//!
//! #[derive(Deserialize)]
//! struct Item {
//!     id: i64,
//!     name: String,
//! }
//!
//! # fn f() -> Result<(), db::Error> {
//! let db = db::open("default")?;
//! db.execute("INSERT INTO items (name) VALUES ($1)", ("lamp",))?;
//! let items: Vec<Item> = db.query("SELECT id, name FROM items WHERE price < $1", (100,))?;
//! let count: i64 = db.query_one("SELECT count(*) FROM items", ())?;
//! let cheapest: Option<String> = db.query_opt("SELECT name FROM items ORDER BY price LIMIT 1", ())?;
//! # Ok(())
//! # }
//! ```
//!
//! A row becomes any type that serde can deserialize: a struct or a map takes columns by name, a tuple takes them by place,
//! and anything else is the value of the only column. Bytes go into `Vec<u8>`, or quicker into the types of `serde_bytes`;
//! decimals, dates and times into `String`; a timestamp into `i64`, in microseconds; a UUID into what reads it as text; a
//! JSON document into `String` or into what it holds.

mod error;
mod params;
mod row;
mod transaction;

pub use crate::bindings::wrun::db::db::{
    Column, DbError, Done, Isolation, Rows, Statement, Step, TxOptions, Value,
};
pub use error::Error;
pub use params::Params;
pub use transaction::{Cursor, Transaction};

use crate::bindings::wrun::db::db as host;
use crate::lock::Guard;
use serde::de::DeserializeOwned;

/// Opens a database that the manifest grants under this label in `[databases]`.
pub fn open(label: &str) -> Result<Database, Error> {
    Ok(Database(host::Database::open(label)?))
}

/// A database.
#[derive(Debug)]
pub struct Database(host::Database);

impl Database {
    /// Runs a query in a transaction of its own and returns its rows.
    pub fn query<T: DeserializeOwned>(
        &self,
        sql: &str,
        params: impl Params,
    ) -> Result<Vec<T>, Error> {
        self.0.query(sql, &params.into_values())?.all()
    }

    /// Runs a query that has exactly one row.
    pub fn query_one<T: DeserializeOwned>(
        &self,
        sql: &str,
        params: impl Params,
    ) -> Result<T, Error> {
        self.0.query(sql, &params.into_values())?.one()
    }

    /// Runs a query that has one row or none.
    pub fn query_opt<T: DeserializeOwned>(
        &self,
        sql: &str,
        params: impl Params,
    ) -> Result<Option<T>, Error> {
        self.0.query(sql, &params.into_values())?.optional()
    }

    /// Runs a statement for its effect, in a transaction of its own. When it returns the change is durable.
    pub fn execute(&self, sql: &str, params: impl Params) -> Result<Done, Error> {
        Ok(self.0.execute(sql, &params.into_values())?)
    }

    /// Runs statements in one transaction and one round trip: all of them take effect, or none.
    ///
    /// ```no_run
    /// use wrun_sdk::db::{self, Statement};
    ///
    /// # fn f() -> Result<(), db::Error> {
    /// let steps = db::open("default")?.batch(&[
    ///     Statement::new("UPDATE accounts SET balance = balance - $1 WHERE id = $2", (10, "alice")),
    ///     Statement::new("UPDATE accounts SET balance = balance + $1 WHERE id = $2", (10, "bob")),
    ///     Statement::new("SELECT sum(balance) FROM accounts", ()),
    /// ])?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn batch(&self, statements: &[Statement]) -> Result<Vec<Step>, Error> {
        self.batch_with(TxOptions::default(), &[], statements)
    }

    /// Like [`batch`](Self::batch), with options, and only if all of the `fences` are held at the commit.
    pub fn batch_with(
        &self,
        options: TxOptions,
        fences: &[&Guard],
        statements: &[Statement],
    ) -> Result<Vec<Step>, Error> {
        Ok(self.0.batch(statements, options, &raw(fences))?)
    }

    /// Runs `work` in a transaction and commits it. If `work` fails, nothing is changed.
    ///
    /// Where the host says that the same may succeed on another try, `work` is called again in a new transaction, up to 5
    /// times, each after a longer pause. So it should do nothing outside of the transaction that must not be done twice.
    /// [`Error::OutcomeUnknown`] is never tried again.
    ///
    /// ```no_run
    /// # fn f() -> Result<(), wrun_sdk::db::Error> {
    /// let left: i64 = wrun_sdk::db::open("default")?.transaction(|tx| {
    ///     let left: i64 = tx.query_one("SELECT n FROM stock WHERE id = $1 FOR UPDATE", (1,))?;
    ///     tx.execute("UPDATE stock SET n = $1 WHERE id = $2", (left - 1, 1))?;
    ///     Ok::<_, wrun_sdk::db::Error>(left - 1)
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn transaction<T, E: From<Error>>(
        &self,
        work: impl FnMut(&Transaction) -> Result<T, E>,
    ) -> Result<T, E> {
        self.transaction_with(TxOptions::default(), &[], work)
    }

    /// Like [`transaction`](Self::transaction), with options, and committed only if all of the `fences` are held then;
    /// [`Error::LostFence`] says that one was not.
    pub fn transaction_with<T, E: From<Error>>(
        &self,
        options: TxOptions,
        fences: &[&Guard],
        work: impl FnMut(&Transaction) -> Result<T, E>,
    ) -> Result<T, E> {
        transaction::run(|| self.begin(options, fences), work)
    }

    /// Begins a transaction that the caller ends: for what [`transaction`](Self::transaction) does not fit. Its first call
    /// waits for its turn, and says why if it could not begin.
    pub fn begin(&self, options: TxOptions, fences: &[&Guard]) -> Result<Transaction, Error> {
        let begun = self.0.begin(options, &raw(fences))?;
        Ok(Transaction::new(begun))
    }

    /// Names the language of its statements: `sqlite`, `postgres`, `mysql` or `mariadb`.
    pub fn dialect(&self) -> String {
        self.0.dialect()
    }
}

fn raw<'g>(fences: &[&'g Guard]) -> Vec<&'g host::Guard> {
    fences.iter().map(|guard| &guard.0).collect()
}

impl Statement {
    /// Returns a statement with its parameters.
    pub fn new(sql: impl Into<String>, params: impl Params) -> Self {
        Self {
            sql: sql.into(),
            params: params.into_values(),
        }
    }
}

#[expect(
    clippy::derivable_impls,
    reason = "the type is generated, a derive would go to all of them"
)]
impl Default for TxOptions {
    fn default() -> Self {
        Self {
            read_only: false,
            isolation: None,
            timeout_ms: None,
        }
    }
}

impl Rows {
    /// Returns every row.
    pub fn all<T: DeserializeOwned>(self) -> Result<Vec<T>, Error> {
        let columns = &self.columns;
        let rows = self.rows.into_iter();
        rows.map(|values| row::decode(columns, values)).collect()
    }

    /// Returns the only row.
    pub fn one<T: DeserializeOwned>(self) -> Result<T, Error> {
        self.optional()?.ok_or(Error::RowCount(0))
    }

    /// Returns the only row, if there is one.
    pub fn optional<T: DeserializeOwned>(mut self) -> Result<Option<T>, Error> {
        if self.rows.len() > 1 {
            return Err(Error::RowCount(self.rows.len()));
        }
        let only = self.rows.pop();
        only.map(|values| row::decode(&self.columns, values))
            .transpose()
    }
}

impl Step {
    /// Returns the rows of a statement that has some.
    pub fn rows<T: DeserializeOwned>(self) -> Result<Vec<T>, Error> {
        match self {
            Self::Rows(rows) => rows.all(),
            Self::Done(_) => Err(Error::RowCount(0)),
        }
    }
}
