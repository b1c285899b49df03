//! One connection: prepares each statement once, runs it, and gathers its rows within their limit.
//!
//! Does not know transactions: whoever calls has begun one.

use super::convert::{Field, Parameter, Raw};
use super::error::{is_broken, is_stale, to_db_error};
use super::tls::{Driver, Tls};
use super::tokens::{self, Parsed};
use crate::state::db::{Column, DbError, PARAMS_MAX, RESULT_MAX, Row, Statement, Value};
use crate::state::remote::{Connection as _, Fault, Then, VALUE_COST, too_large};
use futures_util::StreamExt as _;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::pin;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, RowStream};

/// Statements that a connection keeps prepared.
const KEPT_MAX: usize = 128;

/// Values that are turned into text at a time.
const TEXTS_MAX: usize = 256;

/// A connection.
pub(in crate::state) struct Connection {
    pub(super) client: Client,
    pub(super) tls: Tls,
    /// By their texts, the least recently used first.
    pub(super) kept: RefCell<VecDeque<(String, tokio_postgres::Statement)>>,
    _driver: Driver,
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let then = match &error {
            error if is_broken(error) => Then::ConnectionIsBroken,
            error if is_stale(error) => Then::PrepareAnew,
            _ => Then::GoesOn,
        };
        let told = to_db_error(&error);
        Self { told, then }
    }
}

impl Connection {
    pub(super) fn new(client: Client, driver: Driver, tls: Tls) -> Self {
        Self {
            client,
            tls,
            kept: RefCell::default(),
            _driver: driver,
        }
    }

    pub(super) async fn prepare(&self, sql: &str) -> Result<tokio_postgres::Statement, Error> {
        let found = self.kept.borrow().iter().position(|(text, _)| text == sql);
        if let Some(at) = found {
            let mut kept = self.kept.borrow_mut();
            if let Some(entry) = kept.remove(at) {
                let prepared = entry.1.clone();
                kept.push_back(entry);
                return Ok(prepared);
            }
        }
        let prepared = self.client.prepare(sql).await?;
        let mut kept = self.kept.borrow_mut();
        if kept.len() >= KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back((sql.to_owned(), prepared.clone()));
        Ok(prepared)
    }

    pub(super) async fn start(
        &self,
        prepared: &tokio_postgres::Statement,
        parameters: Vec<Parameter<'_>>,
    ) -> Result<RowStream, Fault> {
        let (expected, given) = (prepared.params().len(), parameters.len());
        if expected != given {
            return Err(Fault::from(DbError::Invalid(format!(
                "the statement has {expected} parameters, {given} were given"
            ))));
        }
        Ok(self.client.query_raw(prepared, parameters).await?)
    }

    /// Reads rows until their end; returns how many rows were affected.
    pub(super) async fn gather(
        &self,
        stream: RowStream,
        keeps: bool,
        room: &mut usize,
        gathered: &mut Gathered,
    ) -> Result<u64, Fault> {
        let mut stream = pin!(stream);
        while let Some(row) = stream.next().await {
            let row = row?;
            if !keeps {
                continue;
            }
            let size = row.raw_size_bytes() + VALUE_COST * row.len();
            let fits = room.checked_sub(size);
            let Some(rest) = fits.filter(|_| size <= RESULT_MAX) else {
                self.cancel().await;
                // The answer has to be read to its end, which is near.
                while let Some(Ok(_)) = stream.next().await {}
                return Err(too_large(size).into());
            };
            *room = rest;
            gathered.push(&row)?;
        }
        Ok(stream.rows_affected().unwrap_or(0))
    }

    /// Turns into text what is of types that `wrun:db` does not know.
    pub(super) async fn finish(
        &self,
        mut gathered: Gathered,
        prepared: &tokio_postgres::Statement,
    ) -> Result<Vec<Row>, Fault> {
        while !gathered.unknown.is_empty() {
            let rest = gathered.unknown.len().saturating_sub(TEXTS_MAX);
            let some = gathered.unknown.split_off(rest);
            let casts: Vec<_> = (1..=some.len()).map(|n| format!("${n}::text")).collect();
            let sql = format!("SELECT {}", casts.join(", "));
            let ty = |column: usize| prepared.columns()[column].type_().clone();
            let parameters: Vec<(Raw, Type)> = some
                .iter()
                .map(|(_, column, raw)| (Raw(raw.clone()), ty(*column)))
                .collect();
            let mut answer = pin!(self.client.query_typed_raw(&sql, parameters).await?);
            while let Some(texts) = answer.next().await {
                let texts = texts?;
                for (at, (row, column, _)) in some.iter().enumerate() {
                    let name = ty(*column).name().to_owned();
                    let text = texts.try_get::<_, Option<String>>(at)?.unwrap_or_default();
                    gathered.rows[*row][*column] = Value::Other(name, text);
                }
            }
        }
        Ok(gathered.rows)
    }
}

/// Rows of a result.
pub(super) struct Gathered {
    columns: usize,
    rows: Vec<Row>,
    /// Rows, columns and binary forms of the values that are not known yet.
    unknown: Vec<(usize, usize, Vec<u8>)>,
}

impl Gathered {
    pub(super) fn new(columns: usize) -> Self {
        Self {
            columns,
            rows: Vec::new(),
            unknown: Vec::new(),
        }
    }

    fn push(&mut self, row: &tokio_postgres::Row) -> Result<(), Error> {
        let mut values = Vec::with_capacity(self.columns);
        for column in 0..self.columns {
            values.push(match row.try_get::<_, Field>(column)? {
                Field::Known(value) => value,
                Field::Unknown(raw) => {
                    self.unknown.push((self.rows.len(), column, raw));
                    Value::Null
                }
            });
        }
        self.rows.push(values);
        Ok(())
    }
}

/// Reads a statement and its parameters as far as wrun has a say in them.
pub(super) fn read(statement: &Statement) -> Result<(Parsed<'_>, Vec<Parameter<'_>>), DbError> {
    let count = statement.params.len();
    if count > PARAMS_MAX {
        return Err(DbError::TooLarge(format!(
            "there are {count} parameters, at most {PARAMS_MAX} are allowed"
        )));
    }
    let parsed = tokens::parse(&statement.sql)?;
    let parameters = statement.params.iter().map(Parameter::new);
    Ok((parsed, parameters.collect::<Result<_, _>>()?))
}

pub(super) fn columns(prepared: &tokio_postgres::Statement) -> Vec<Column> {
    let column = |column: &tokio_postgres::Column| Column {
        name: column.name().to_owned(),
        type_name: column.type_().name().to_owned(),
    };
    prepared.columns().iter().map(column).collect()
}
