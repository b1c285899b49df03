//! Runs statements on a connection: prepares each once, binds its parameters, and gathers its rows within their limit.
//!
//! Does not know transactions: whoever calls has begun one, or wants none.

use super::connection::Connection;
use super::convert::{self, Kind};
use super::prepared::{Kept, Prepared, Shape};
use super::tokens;
use crate::state::db::{
    Column, DbError, Done, PARAMS_MAX, RESULT_MAX, Row, Rows, STATEMENT_TIME_MAX, Statement, Step,
    Want,
};
use rusqlite::CachedStatement;
use rusqlite::types::ValueRef;
use std::cell::RefCell;
use std::time::Instant;

/// What a value costs in a result beside its bytes.
const VALUE_COST: usize = 16;

/// The statements of one connection.
pub(super) struct Statements<'c> {
    pub(super) connection: &'c Connection,
    kept: RefCell<Kept<'c>>,
}

/// What a statement may be, and may use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// It must not write, and takes no row locks.
    pub(super) read_only: bool,
    /// When the transaction that it belongs to is over.
    pub(super) deadline: Instant,
}

impl<'c> Statements<'c> {
    pub(super) fn new(connection: &'c Connection) -> Self {
        Self {
            connection,
            kept: RefCell::default(),
        }
    }

    /// Returns a statement of the engine's own, ready to be run, out of reach of the authorizer and the clock.
    pub(super) fn own(&self, sql: &'static str) -> Result<CachedStatement<'c>, DbError> {
        self.connection.gate.set_guest(false);
        self.connection.watch.set_deadline(None);
        self.connection
            .sqlite
            .prepare_cached(sql)
            .map_err(|error| self.error(&error))
    }

    /// Runs a statement of the engine's own; returns how many rows it changed.
    pub(super) fn execute(
        &self,
        sql: &'static str,
        params: impl rusqlite::Params,
    ) -> Result<usize, DbError> {
        self.own(sql)?
            .execute(params)
            .map_err(|error| self.error(&error))
    }

    /// Returns an error of the connection as a guest sees it.
    pub(super) fn error(&self, error: &rusqlite::Error) -> DbError {
        self.connection.db_error(error)
    }

    /// Tells whether a guest's statement only reads.
    pub(super) fn is_read(&self, sql: &str, deadline: Instant) -> Result<bool, DbError> {
        self.arm(deadline)?;
        let prepared = self.take(sql)?;
        let reads = prepared.sqlite.readonly() && !prepared.locks;
        self.keep(prepared);
        Ok(reads)
    }

    /// Runs a guest's statement to its end. What it returns is taken off `room`.
    pub(super) fn run(
        &self,
        statement: &Statement,
        want: Want,
        rules: Rules,
        room: &mut usize,
    ) -> Result<Step, DbError> {
        let mut prepared = self.ready(statement, rules)?;
        let step = self.step_through(&mut prepared, want, room);
        prepared.sqlite.clear_bindings();
        self.keep(prepared);
        step
    }

    /// Begins a guest's query whose rows are fetched piece by piece.
    pub(super) fn open(&self, statement: &Statement, rules: Rules) -> Result<Cursor<'c>, DbError> {
        let mut prepared = self.ready(statement, rules)?;
        // The first step may find that the schema has changed, and with it the columns.
        let ahead = self.fetch(&mut prepared)?;
        Ok(Cursor { prepared, ahead })
    }

    /// Returns the next rows of a cursor; none at its end.
    pub(super) fn next(
        &self,
        cursor: &mut Cursor<'c>,
        max_rows: u32,
        deadline: Instant,
    ) -> Result<Vec<Row>, DbError> {
        self.arm(deadline)?;
        let mut page = Vec::new();
        let mut room = RESULT_MAX;
        while page.len() < max_rows as usize {
            match cursor.ahead.take() {
                None => break,
                Some((row, size)) if size > room => {
                    cursor.ahead = Some((row, size));
                    break;
                }
                Some((row, size)) => {
                    room -= size;
                    page.push(row);
                }
            }
            cursor.ahead = self.fetch(&mut cursor.prepared)?;
        }
        Ok(page)
    }

    /// Steps to the next row and returns it with its size, none at the end or after an error.
    fn fetch(&self, prepared: &mut Prepared<'c>) -> Result<Option<(Row, usize)>, DbError> {
        let Prepared { sqlite, shape, .. } = prepared;
        let mut rows = sqlite.raw_query();
        let Some(row) = rows.next().map_err(|error| self.error(&error))? else {
            return Ok(None);
        };
        shape.refresh(row.as_ref());
        let size = size_of_row(row, shape.kinds.len())?;
        let fetched = read_row(row, &shape.kinds)?;
        // Dropping them would set the statement back to its beginning.
        std::mem::forget(rows);
        Ok(Some((fetched, size)))
    }

    /// Ends a cursor.
    pub(super) fn close(&self, mut cursor: Cursor<'c>) {
        drop(cursor.prepared.sqlite.raw_query());
        cursor.prepared.sqlite.clear_bindings();
        self.keep(cursor.prepared);
    }

    /// It is a guest that speaks from now on, for as long as a statement may take.
    fn arm(&self, deadline: Instant) -> Result<(), DbError> {
        let now = Instant::now();
        if now >= deadline {
            return Err(DbError::Timeout("the transaction took too long".to_owned()));
        }
        self.connection.gate.set_guest(true);
        self.connection
            .watch
            .set_deadline(Some(deadline.min(now + STATEMENT_TIME_MAX)));
        Ok(())
    }

    /// Returns a guest's statement, prepared and bound.
    fn ready(&self, statement: &Statement, rules: Rules) -> Result<Prepared<'c>, DbError> {
        let count = statement.params.len();
        if count > PARAMS_MAX {
            return Err(DbError::TooLarge(format!(
                "there are {count} parameters, at most {PARAMS_MAX} are allowed"
            )));
        }
        self.arm(rules.deadline)?;
        let mut prepared = self.take(&statement.sql)?;
        if let Err(error) = self.bind(&mut prepared, statement, rules) {
            prepared.sqlite.clear_bindings();
            self.keep(prepared);
            return Err(error);
        }
        Ok(prepared)
    }

    fn bind(
        &self,
        prepared: &mut Prepared<'c>,
        statement: &Statement,
        rules: Rules,
    ) -> Result<(), DbError> {
        if rules.read_only && prepared.locks {
            return Err(DbError::Invalid(
                "a read-only transaction takes no locks: leave out FOR UPDATE, or begin one that writes".to_owned(),
            ));
        }
        if rules.read_only && !prepared.sqlite.readonly() {
            return Err(read_only());
        }
        let (expected, given) = (prepared.sqlite.parameter_count(), statement.params.len());
        if expected != given {
            return Err(DbError::Invalid(format!(
                "the statement has {expected} parameters, {given} were given"
            )));
        }
        for (at, value) in statement.params.iter().enumerate() {
            prepared
                .sqlite
                .raw_bind_parameter(at + 1, convert::to_sqlite(value)?)
                .map_err(|error| self.error(&error))?;
        }
        Ok(())
    }

    fn step_through(
        &self,
        prepared: &mut Prepared<'c>,
        want: Want,
        room: &mut usize,
    ) -> Result<Step, DbError> {
        let connection = self.connection;
        connection.clear_inserted();
        let changes_before = connection.sqlite.total_changes();
        let returns_rows = !prepared.shape.columns.is_empty();
        let wants_rows = want == Want::Rows || want == Want::Either && returns_rows;
        let Prepared { sqlite, shape, .. } = prepared;
        let mut gathered = Vec::new();
        let mut rows = sqlite.raw_query();
        let mut first = true;
        while let Some(row) = rows.next().map_err(|error| self.error(&error))? {
            if first {
                shape.refresh(row.as_ref());
                first = false;
            }
            if wants_rows {
                let size = size_of_row(row, shape.kinds.len())?;
                *room = room.checked_sub(size).ok_or_else(result_too_large)?;
                gathered.push(read_row(row, &shape.kinds)?);
            }
        }
        drop(rows);
        if wants_rows {
            if first {
                shape.refresh(sqlite);
            }
            return Ok(Step::Rows(Rows {
                columns: shape.columns.clone(),
                rows: gathered,
            }));
        }
        // The count of a statement that changes nothing is that of the one before.
        let changed = connection.sqlite.total_changes() != changes_before;
        Ok(Step::Done(Done {
            affected: if changed {
                connection.sqlite.changes()
            } else {
                0
            },
            last_id: connection.last_inserted(),
        }))
    }

    fn take(&self, sql: &str) -> Result<Prepared<'c>, DbError> {
        if let Some(prepared) = self.kept.borrow_mut().take(sql) {
            return Ok(prepared);
        }
        let parsed = tokens::parse(sql)?;
        let sqlite = self
            .connection
            .sqlite
            .prepare(&parsed.sql)
            .map_err(|error| self.error(&error))?;
        Ok(Prepared {
            text: sql.into(),
            locks: parsed.locks,
            shape: Shape::of(&sqlite),
            sqlite,
        })
    }

    fn keep(&self, prepared: Prepared<'c>) {
        self.kept.borrow_mut().put(prepared);
    }
}

/// A query whose rows are fetched piece by piece.
pub(super) struct Cursor<'c> {
    prepared: Prepared<'c>,
    /// The row that comes next, and its size. It is fetched ahead, so that none says that the query is at its end: a step
    /// further would begin it anew.
    ahead: Option<(Row, usize)>,
}

impl Cursor<'_> {
    pub(super) fn columns(&self) -> Vec<Column> {
        self.prepared.shape.columns.clone()
    }
}

/// What a read-only transaction answers to what would write.
pub(super) fn read_only() -> DbError {
    DbError::Engine {
        code: "25006".to_owned(),
        message: "the transaction is read-only".to_owned(),
        constraint: None,
        retryable: false,
    }
}

fn size_of_row(row: &rusqlite::Row<'_>, columns: usize) -> Result<usize, DbError> {
    let mut size = 0;
    for at in 0..columns {
        size += VALUE_COST
            + match value_at(row, at)? {
                ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.len(),
                _ => 0,
            };
    }
    if size > RESULT_MAX {
        return Err(DbError::TooLarge(format!(
            "a row is larger than {RESULT_MAX} bytes"
        )));
    }
    Ok(size)
}

fn read_row(row: &rusqlite::Row<'_>, kinds: &[Kind]) -> Result<Row, DbError> {
    kinds
        .iter()
        .enumerate()
        .map(|(at, kind)| Ok(convert::from_sqlite(value_at(row, at)?, *kind)))
        .collect()
}

fn value_at<'r>(row: &'r rusqlite::Row<'_>, at: usize) -> Result<ValueRef<'r>, DbError> {
    row.get_ref(at)
        .map_err(|error| super::error::to_db_error(&error))
}

fn result_too_large() -> DbError {
    DbError::TooLarge(format!(
        "the result is larger than {RESULT_MAX} bytes: read it by cursor"
    ))
}
