//! One connection: prepares each statement once, runs it, and gathers its rows within their limit.
//!
//! Each statement of a transaction has a savepoint before it, sent along with it, so that one that fails does not take the
//! transaction with it.

use super::begin;
use super::convert::{Field, Parameter, Raw};
use super::error::{is_broken, is_stale, of_commit, to_db_error};
use super::tls::{Driver, Tls};
use super::tokens::{self, Parsed};
use crate::state::db::{
    Column, DbError, Done, Fence, PARAMS_MAX, RESULT_MAX, Row, Rows, Statement, Step, TxOptions,
    Value, Want,
};
use crate::state::remote::{self, Connection as _, Fault, Opening, Then, VALUE_COST, too_large};
use futures_util::StreamExt as _;
use futures_util::future::join;
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

/// Statements that a connection keeps prepared.
const KEPT_MAX: usize = 128;

/// How long the server may take to stop what it was asked to stop.
const CANCEL_MAX: Duration = Duration::from_secs(2);

/// Values that are turned into text at a time.
const TEXTS_MAX: usize = 256;

/// Notes that work is done. Old notes go another way: to look for them here would make transactions meet.
const NOTE: &str = "INSERT INTO wrun.processed (id) VALUES ($1) ON CONFLICT DO NOTHING";

/// What a guest may have left behind. Its transaction comes first: in it nothing else would be done.
const CLEAN: &str = "ROLLBACK; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; CLOSE ALL; UNLISTEN *; \
    SELECT pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES";

/// Forgets work that was done long ago, and tokens that nobody can hold a lower one than: no lease is longer than a day.
/// Not serializable, so that it meets nobody.
const TIDY: &str = "DELETE FROM wrun.processed WHERE at < now() - interval '30 days'; \
    DELETE FROM wrun.fences WHERE at < now() - interval '7 days'";

/// The savepoint before each statement, the first one and those to come, and the way back to it.
const SAVE: &str = "SAVEPOINT wrun";
const SAVE_AGAIN: &str = "RELEASE SAVEPOINT wrun; SAVEPOINT wrun";
const GO_BACK: &str = "ROLLBACK TO SAVEPOINT wrun";

/// A connection.
pub(in crate::state) struct Connection {
    pub(super) client: Client,
    tls: Tls,
    /// By their texts, the least recently used first.
    kept: RefCell<VecDeque<(String, tokio_postgres::Statement)>>,
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
    /// Enters fences in the transaction: `LostFence` if there is a higher token, or if the transaction of an earlier holder
    /// ended only now, so that what was read under the lock may be old.
    async fn pass(&self, fences: &[Fence]) -> Result<(), Fault> {
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
            return Err(Fault::from(DbError::Invalid(format!(
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
                return Err(too_large(size).into());
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

impl remote::Connection for Connection {
    const KNOWS_ITS_END: bool = true;

    fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    async fn ping(&self) -> bool {
        self.client.batch_execute("").await.is_ok()
    }

    async fn clean(&self) -> bool {
        self.client.batch_execute(CLEAN).await.is_ok()
    }

    async fn tidy(&self) {
        // If it fails there is a next time.
        let _ = self.client.batch_execute(TIDY).await;
    }

    async fn begin_within(&self, options: TxOptions, fences: &[Fence]) -> Result<(), Fault> {
        let opening = begin(options);
        // In this order on their way, and together.
        let begun = self.client.batch_execute(&opening);
        let (begun, passed) = join(begun, self.pass(fences)).await;
        begun?;
        passed
    }

    async fn guarded<T>(
        &self,
        opening: Opening,
        work: impl AsyncFn(&Self) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let opening = match opening {
            Opening::Begin(options) => format!("{}; {SAVE}", begin(options)),
            Opening::First => SAVE.to_owned(),
            Opening::Next => SAVE_AGAIN.to_owned(),
        };
        // In this order on their way, and together.
        let (saved, done) = join(self.client.batch_execute(&opening), work(self)).await;
        let mut fault = match (saved, done) {
            (Ok(()), Ok(done)) => return Ok(done),
            (Ok(()), Err(fault)) => fault,
            (Err(error), _) => {
                let mut fault = Fault::from(error);
                fault.then = Then::ConnectionIsBroken;
                return Err(fault);
            }
        };
        if !fault.is_broken() && self.client.batch_execute(GO_BACK).await.is_err() {
            fault.then = Then::ConnectionIsBroken;
        }
        Err(fault)
    }

    async fn run_all(
        &self,
        statements: &[(Statement, Want)],
        options: TxOptions,
        fences: &[Fence],
    ) -> Result<Vec<Step>, Fault> {
        let mut room = RESULT_MAX;
        let mut steps = Vec::with_capacity(statements.len());
        let mut statements = statements.iter();
        if !fences.is_empty() && !options.read_only {
            self.begin_within(options, fences).await?;
        } else if let Some((first, want)) = statements.next() {
            let opening = begin(options);
            let first = self.run(first, *want, &mut room);
            // In this order on their way, and together.
            let (begun, step) = join(self.client.batch_execute(&opening), first).await;
            begun?;
            steps.push(step?);
        }
        for (statement, want) in statements {
            steps.push(self.run(statement, *want, &mut room).await?);
        }
        Ok(steps)
    }

    async fn run(
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

    async fn fetch(&self, cursor: u64, rows: usize) -> Result<Vec<Row>, Fault> {
        let sql = format!("FETCH FORWARD {rows} FROM {}", name(cursor));
        // Whoever asks for a number of rows knows about how large they are.
        let mut room = usize::MAX;
        // Prepared each time: cursors of the same name have other columns.
        let prepared = self.client.prepare(&sql).await?;
        let stream = self.start(&prepared, Vec::new()).await?;
        let mut gathered = Gathered::new(prepared.columns().len());
        self.gather(stream, true, &mut room, &mut gathered).await?;
        self.finish(gathered, &prepared).await
    }

    async fn declare(&self, cursor: u64, statement: &Statement) -> Result<Vec<Column>, Fault> {
        let (parsed, parameters) = read(statement)?;
        let name = name(cursor);
        let declare = format!("DECLARE {name} NO SCROLL CURSOR FOR {}", parsed.sql);
        let prepared = self.client.prepare(&declare).await?;
        let stream = self.start(&prepared, parameters).await?;
        let mut gathered = Gathered::new(0);
        self.gather(stream, false, &mut 0, &mut gathered).await?;
        let described = self.client.prepare(&format!("FETCH 0 FROM {name}")).await?;
        Ok(columns(&described))
    }

    async fn note(&self, id: &str) -> Result<bool, Fault> {
        let id = Value::Text(id.to_owned());
        let prepared = self.prepare(NOTE).await?;
        let stream = self.start(&prepared, vec![Parameter::new(&id)?]).await?;
        let noted = self
            .gather(stream, false, &mut 0, &mut Gathered::new(0))
            .await?;
        Ok(noted == 1)
    }

    async fn cancel(&self) {
        // If it does not come to know, the statement ends by its own time limit.
        let _ = timeout(CANCEL_MAX, self.tls.cancel(&self.client)).await;
    }

    fn forget(&self) {
        self.kept.take();
    }

    async fn close_cursor(&self, cursor: u64) -> Result<(), Fault> {
        let close = format!("CLOSE {}", name(cursor));
        Ok(self.client.batch_execute(&close).await?)
    }

    async fn commit(&self) -> Result<(), DbError> {
        let committed = self.client.batch_execute("COMMIT").await;
        committed.map_err(|error| of_commit(&error))
    }

    async fn rollback(&self) {
        let _ = self.client.batch_execute("ROLLBACK").await;
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

/// Guests cannot name it: their cursors are numbers.
fn name(cursor: u64) -> String {
    format!("wrun_{cursor}")
}
