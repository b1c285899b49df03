//! One connection: prepares each statement once, runs it, and gathers its rows within their limit.
//!
//! Does not know transactions: whoever calls has begun one.

use super::convert::{Field, Parameter, Raw};
use super::error::{is_broken, is_stale, to_db_error};
use super::tls::{Driver, Tls};
use super::tokens::{self, Parsed};
use crate::state::db::{
    Column, DbError, Done, Fence, PARAMS_MAX, RESULT_MAX, Row, Rows, Statement, Step, Value, Want,
};
use futures_util::StreamExt as _;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::pin;
use std::time::Duration;
use tokio::time::timeout;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, RowStream};

/// Notes the tokens of keys, unless there are higher ones. Those that wait for a row here wait for a whole transaction.
const PASS: &str = "INSERT INTO wrun.fences AS known (key, token) \
    SELECT * FROM unnest($1::text[], $2::bigint[]) \
    ON CONFLICT (key) DO UPDATE SET token = excluded.token, at = now() WHERE known.token <= excluded.token RETURNING 1";

/// What a value costs in a result beside its bytes.
const VALUE_COST: usize = 16;

/// Statements that a connection keeps prepared.
const KEPT_MAX: usize = 128;

/// How long the server may take to stop what it was asked to stop.
const CANCEL_MAX: Duration = Duration::from_secs(2);

/// Values that are turned into text at a time.
const TEXTS_MAX: usize = 256;

/// Notes that work is done. Old notes go another way: to look for them here would make transactions meet.
const NOTE: &str = "INSERT INTO wrun.processed (id) VALUES ($1) ON CONFLICT DO NOTHING";

/// A connection.
pub(super) struct Connection {
    pub(super) client: Client,
    tls: Tls,
    /// By their texts, the least recently used first.
    kept: RefCell<VecDeque<(String, tokio_postgres::Statement)>>,
    _driver: Driver,
}

/// Why a statement failed.
#[derive(Debug)]
pub(super) enum Fault {
    /// Before it reached the server, or by a rule of wrun's.
    Refused(DbError),
    Failed(Error),
}

impl Fault {
    /// Returns the error as a guest sees it.
    pub(super) fn told(&self) -> DbError {
        match self {
            Self::Refused(error) => error.clone(),
            Self::Failed(error) => to_db_error(error),
        }
    }

    /// Tells whether the connection is of no more use.
    pub(super) fn is_broken(&self) -> bool {
        matches!(self, Self::Failed(error) if is_broken(error))
    }

    /// Tells whether the statement works once it is prepared anew.
    pub(super) fn is_stale(&self) -> bool {
        matches!(self, Self::Failed(error) if is_stale(error))
    }
}

impl From<DbError> for Fault {
    fn from(error: DbError) -> Self {
        Self::Refused(error)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Connection {
    /// Enters fences in the transaction: `LostFence` if there is a higher token, or if the transaction of an earlier holder
    /// ended only now, so that what was read under the lock may be old.
    pub(super) async fn pass(&self, fences: &[Fence]) -> Result<(), Fault> {
        let keys: Vec<&str> = fences.iter().map(|fence| &*fence.key).collect();
        let token = |fence: &Fence| i64::try_from(fence.token).unwrap_or(i64::MAX);
        let tokens: Vec<i64> = fences.iter().map(token).collect();
        let entered = self
            .client
            .query_typed(
                PASS,
                &[(&keys, Type::TEXT_ARRAY), (&tokens, Type::INT8_ARRAY)],
            )
            .await;
        match entered {
            Ok(rows) if rows.len() == fences.len() => Ok(()),
            Ok(_) => Err(DbError::LostFence.into()),
            Err(error) => match to_db_error(&error) {
                DbError::Engine {
                    retryable: true, ..
                } => Err(DbError::LostFence.into()),
                _ => Err(error.into()),
            },
        }
    }

    pub(super) fn new(client: Client, driver: Driver, tls: Tls) -> Self {
        Self {
            client,
            tls,
            kept: RefCell::default(),
            _driver: driver,
        }
    }

    /// Runs a guest's statement to its end. What it returns is taken off `room`.
    pub(super) async fn run(
        &self,
        statement: &Statement,
        want: Want,
        room: &mut usize,
    ) -> Result<Step, Fault> {
        let (parsed, parameters) = read(statement)?;
        let prepared = self.prepare(&parsed.sql).await?;
        let columns = columns(&prepared);
        let wants_rows = want == Want::Rows || want == Want::Either && !columns.is_empty();
        let stream = self.start(&prepared, parameters).await?;
        let mut gathered = Gathered::new(columns.len());
        let affected = self.gather(stream, wants_rows, room, &mut gathered).await?;
        if wants_rows {
            let rows = self.finish(gathered, &prepared).await?;
            return Ok(Step::Rows(Rows { columns, rows }));
        }
        let affected = if parsed.is_query() { 0 } else { affected };
        Ok(Step::Done(Done {
            affected,
            last_id: None,
        }))
    }

    /// Runs a statement of wrun's own whose rows are what a guest asked for: a cursor's.
    pub(super) async fn fetch(&self, sql: &str) -> Result<Vec<Row>, Fault> {
        // Whoever asks for a number of rows knows about how large they are.
        let mut room = usize::MAX;
        // Prepared each time: cursors of the same name have other columns.
        let prepared = self.client.prepare(sql).await?;
        let stream = self.start(&prepared, Vec::new()).await?;
        let mut gathered = Gathered::new(prepared.columns().len());
        self.gather(stream, true, &mut room, &mut gathered).await?;
        self.finish(gathered, &prepared).await
    }

    /// Opens a cursor of this name, and returns its columns.
    pub(super) async fn declare(
        &self,
        name: &str,
        statement: &Statement,
    ) -> Result<Vec<Column>, Fault> {
        let (parsed, parameters) = read(statement)?;
        let declare = format!("DECLARE {name} NO SCROLL CURSOR FOR {}", parsed.sql);
        let prepared = self.client.prepare(&declare).await?;
        let stream = self.start(&prepared, parameters).await?;
        let mut gathered = Gathered::new(0);
        self.gather(stream, false, &mut 0, &mut gathered).await?;
        let described = self.client.prepare(&format!("FETCH 0 FROM {name}")).await?;
        Ok(columns(&described))
    }

    /// Notes that the work called `id` is done; false if it was before.
    pub(super) async fn note(&self, id: &str) -> Result<bool, Fault> {
        let id = Value::Text(id.to_owned());
        let prepared = self.prepare(NOTE).await?;
        let stream = self.start(&prepared, vec![Parameter::new(&id)?]).await?;
        let noted = self
            .gather(stream, false, &mut 0, &mut Gathered::new(0))
            .await?;
        Ok(noted == 1)
    }

    /// Has the server stop what it does for this connection.
    pub(super) async fn cancel(&self) {
        // If it does not come to know, the statement ends by its own time limit.
        let _ = timeout(CANCEL_MAX, self.tls.cancel(&self.client)).await;
    }

    /// Forgets what is prepared.
    pub(super) fn forget(&self) {
        self.kept.take();
    }

    async fn prepare(&self, sql: &str) -> Result<tokio_postgres::Statement, Error> {
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

    async fn start(
        &self,
        prepared: &tokio_postgres::Statement,
        parameters: Vec<Parameter<'_>>,
    ) -> Result<RowStream, Fault> {
        let (expected, given) = (prepared.params().len(), parameters.len());
        if expected != given {
            return Err(Fault::Refused(DbError::Invalid(format!(
                "the statement has {expected} parameters, {given} were given"
            ))));
        }
        Ok(self.client.query_raw(prepared, parameters).await?)
    }

    /// Reads rows until their end; returns how many rows were affected.
    async fn gather(
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
                return Err(Fault::Refused(too_large(size)));
            };
            *room = rest;
            gathered.push(&row)?;
        }
        Ok(stream.rows_affected().unwrap_or(0))
    }

    /// Turns into text what is of types that `wrun:db` does not know.
    async fn finish(
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
struct Gathered {
    columns: usize,
    rows: Vec<Row>,
    /// Rows, columns and binary forms of the values that are not known yet.
    unknown: Vec<(usize, usize, Vec<u8>)>,
}

impl Gathered {
    fn new(columns: usize) -> Self {
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
fn read(statement: &Statement) -> Result<(Parsed<'_>, Vec<Parameter<'_>>), DbError> {
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

fn columns(prepared: &tokio_postgres::Statement) -> Vec<Column> {
    let column = |column: &tokio_postgres::Column| Column {
        name: column.name().to_owned(),
        type_name: column.type_().name().to_owned(),
    };
    prepared.columns().iter().map(column).collect()
}

fn too_large(row: usize) -> DbError {
    DbError::TooLarge(match row > RESULT_MAX {
        true => format!("a row is larger than {RESULT_MAX} bytes"),
        false => format!("the result is larger than {RESULT_MAX} bytes: read it by cursor"),
    })
}
