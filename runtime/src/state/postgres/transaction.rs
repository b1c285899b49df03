//! Transactions on a connection: how one begins, goes on and ends.
//!
//! Each statement has a savepoint before it, sent along with it, so that one that fails does not take the transaction with it.

use super::begin;
use super::connection::{Connection, Gathered, columns, read};
use super::convert::Parameter;
use super::error::{of_commit, to_db_error};
use crate::state::db::{
    Column, DbError, Done, Fence, RESULT_MAX, Row, Rows, Statement, Step, TxOptions, Value, Want,
};
use crate::state::remote::{self, Fault, Opening, Then};
use futures_util::future::join;
use std::time::Duration;
use tokio::time::timeout;
use tokio_postgres::types::Type;

/// Notes the tokens of keys, unless there are higher ones. Those that wait for a row here wait for a whole transaction.
const PASS: &str = "INSERT INTO wrun.fences AS known (key, token) \
    SELECT * FROM unnest($1::text[], $2::bigint[]) \
    ON CONFLICT (key) DO UPDATE SET token = excluded.token, at = now() WHERE known.token <= excluded.token RETURNING 1";

/// How long the server may take to stop what it was asked to stop.
const CANCEL_MAX: Duration = Duration::from_secs(2);

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

/// Guests cannot name it: their cursors are numbers.
fn name(cursor: u64) -> String {
    format!("wrun_{cursor}")
}
