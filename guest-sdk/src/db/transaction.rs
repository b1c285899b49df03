//! A transaction, and how one is run again where that may help.

use super::{Column, Done, Error, Params, Value, host, row};
use serde::de::DeserializeOwned;
use std::cell::Cell;
use std::marker::PhantomData;
use std::thread;
use std::time::Duration;

/// How often a transaction is run again.
const RETRIES_MAX: u32 = 5;
/// The longest pause before the first retry; each further one may be twice as long.
const PAUSE_MAX_MS: u64 = 20;
/// Rows that a cursor fetches at a time.
const PAGE_ROWS: u32 = 500;

/// An open transaction. Dropping it rolls it back.
#[derive(Debug)]
pub struct Transaction {
    pub(crate) raw: host::Transaction,
    /// Whether a call failed in a way that another try may not: `work` may return the error as one of its own type.
    failed_retryably: Cell<bool>,
}

impl Transaction {
    pub(super) fn new(raw: host::Transaction) -> Self {
        Self {
            raw,
            failed_retryably: Cell::new(false),
        }
    }

    /// Runs a query and returns its rows.
    pub fn query<T: DeserializeOwned>(
        &self,
        sql: &str,
        params: impl Params,
    ) -> Result<Vec<T>, Error> {
        self.rows_of(sql, params)?.all()
    }

    /// Runs a query that has exactly one row.
    pub fn query_one<T: DeserializeOwned>(
        &self,
        sql: &str,
        params: impl Params,
    ) -> Result<T, Error> {
        self.rows_of(sql, params)?.one()
    }

    /// Runs a query that has one row or none.
    pub fn query_opt<T: DeserializeOwned>(
        &self,
        sql: &str,
        params: impl Params,
    ) -> Result<Option<T>, Error> {
        self.rows_of(sql, params)?.optional()
    }

    /// Runs a statement for its effect.
    pub fn execute(&self, sql: &str, params: impl Params) -> Result<Done, Error> {
        self.note(self.raw.execute(sql, &params.into_values()))
    }

    /// Runs a query whose rows are fetched as they are asked for: for more of them than fit into memory. At most 8 such are
    /// open at a time.
    ///
    /// ```no_run
    /// # fn f() -> Result<(), wrun_sdk::db::Error> {
    /// let total = wrun_sdk::db::open("default")?.transaction(|tx| {
    ///     let mut total = 0;
    ///     for price in tx.rows::<i64>("SELECT price FROM items", ())? {
    ///         total += price?;
    ///     }
    ///     Ok::<_, wrun_sdk::db::Error>(total)
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn rows<T: DeserializeOwned>(
        &self,
        sql: &str,
        params: impl Params,
    ) -> Result<Cursor<'_, T>, Error> {
        let cursor = self.note(self.raw.open_cursor(sql, &params.into_values()))?;
        Ok(Cursor {
            columns: cursor.columns(),
            cursor: Some(cursor),
            page: Vec::new().into_iter(),
            tx: self,
            row: PhantomData,
        })
    }

    /// Notes that the work called `id` is done, as part of this transaction. False says that it was done before, and then
    /// there is nothing to do: this makes an effect happen once where a message may come twice.
    pub fn mark_processed(&self, id: &str) -> Result<bool, Error> {
        self.note(self.raw.mark_processed(id))
    }

    /// Makes everything durable, or says exactly what it did not do.
    pub fn commit(self) -> Result<(), Error> {
        Ok(self.raw.commit()?)
    }

    /// Undoes everything.
    pub fn rollback(self) {
        self.raw.rollback();
    }

    /// Remembers that another try may succeed where this one failed.
    pub(crate) fn retry_may_help(&self) {
        self.failed_retryably.set(true);
    }

    fn rows_of(&self, sql: &str, params: impl Params) -> Result<host::Rows, Error> {
        self.note(self.raw.query(sql, &params.into_values()))
    }

    fn note<T>(&self, result: Result<T, host::Error>) -> Result<T, Error> {
        let result = result.map_err(Error::from);
        if result.as_ref().is_err_and(Error::is_retryable) {
            self.retry_may_help();
        }
        result
    }
}

/// The rows of a query, fetched as they are asked for. Dropping it closes it.
#[derive(Debug)]
pub struct Cursor<'tx, T> {
    /// None once there are no more rows, or an error came instead.
    cursor: Option<host::Cursor>,
    columns: Vec<Column>,
    page: std::vec::IntoIter<Vec<Value>>,
    tx: &'tx Transaction,
    row: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Iterator for Cursor<'_, T> {
    type Item = Result<T, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.page.len() == 0 {
            let cursor = self.cursor.take()?;
            match self.tx.note(cursor.next(PAGE_ROWS)) {
                Ok(page) if page.is_empty() => return None,
                Ok(page) => self.page = page.into_iter(),
                Err(error) => return Some(Err(error)),
            }
            self.cursor = Some(cursor);
        }
        let values = self.page.next()?;
        Some(row::decode(&self.columns, values))
    }
}

/// Runs `work` in transactions that `begin` begins, until one is committed or another try would not help.
pub(super) fn run<T, E: From<Error>>(
    begin: impl Fn() -> Result<Transaction, Error>,
    mut work: impl FnMut(&Transaction) -> Result<T, E>,
) -> Result<T, E> {
    let mut retries = 0;
    loop {
        match attempt(&begin, &mut work) {
            Ok(value) => return Ok(value),
            Err(failed) if !failed.retry_may_help || retries == RETRIES_MAX => {
                return Err(failed.error);
            }
            Err(_) => pause(PAUSE_MAX_MS << retries),
        }
        retries += 1;
    }
}

struct Failed<E> {
    error: E,
    retry_may_help: bool,
}

impl<E: From<Error>> From<Error> for Failed<E> {
    fn from(error: Error) -> Self {
        Self {
            retry_may_help: error.is_retryable(),
            error: error.into(),
        }
    }
}

fn attempt<T, E: From<Error>>(
    begin: impl Fn() -> Result<Transaction, Error>,
    work: &mut impl FnMut(&Transaction) -> Result<T, E>,
) -> Result<T, Failed<E>> {
    let tx = begin()?;
    let value = work(&tx).map_err(|error| Failed {
        error,
        retry_may_help: tx.failed_retryably.get(),
    })?;
    tx.commit()?;
    Ok(value)
}

/// Waits for a random time, so that those who were in each other's way are not again.
fn pause(ms_max: u64) {
    let ms = wasip2::random::insecure::get_insecure_random_u64() % ms_max;
    thread::sleep(Duration::from_millis(ms));
}
