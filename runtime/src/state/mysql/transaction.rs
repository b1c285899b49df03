//! Transactions on a connection: how one begins, goes on and ends.
//!
//! A statement that fails is undone by the server, without its transaction.

use super::connection::Connection;
use super::cursor::Cursor;
use super::error::{is_taken, of_commit};
use super::statement::read;
use super::tokens::Parsed;
use super::{begin, fences};
use crate::state::db::{
    Column, DbError, Fence, Isolation, RESULT_MAX, Row, Statement, Step, TxOptions, Want,
};
use crate::state::remote::{self, Fault, Opening, Then};
use mysql_async::prelude::Queryable as _;

/// Notes that work is done.
const NOTE: &str = "INSERT INTO _wrun_processed (id) VALUES (?)";

/// Tells whether the transaction is still the one that was begun, by the savepoint that it has.
const STILL_THERE: &str = "RELEASE SAVEPOINT _wrun; SAVEPOINT _wrun";

/// Forgets work that was done long ago, and tokens that nobody can hold a lower one than: no lease is longer than a day.
/// Not serializable, so that it meets nobody.
const TIDY: [&str; 2] = [
    "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; \
     DELETE FROM _wrun_processed WHERE at < now() - INTERVAL 30 DAY",
    "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; \
     DELETE FROM _wrun_fences WHERE at < now() - INTERVAL 7 DAY",
];

impl Connection {
    async fn run_each(
        &self,
        statements: &[(Parsed, &Statement, Want)],
        options: TxOptions,
        fences: &[Fence],
    ) -> Result<Vec<Step>, Fault> {
        let mut room = RESULT_MAX;
        let mut steps = Vec::with_capacity(statements.len());
        remote::Connection::begin_within(self, options, fences).await?;
        for (parsed, statement, want) in statements {
            steps.push(self.perform(parsed, statement, *want, &mut room).await?);
            match parsed.commits {
                Some(_) => self.kinds.forget(),
                None => self.check_transaction().await?,
            }
        }
        Ok(steps)
    }

    async fn run_read(
        &self,
        statements: &[(Statement, Want)],
        options: TxOptions,
        fences: &[Fence],
    ) -> Result<Vec<Step>, Fault> {
        let parsed = statements.iter().map(|(statement, want)| {
            let parsed = read(statement)?;
            Ok((parsed, statement, *want))
        });
        let parsed = parsed.collect::<Result<Vec<_>, DbError>>()?;
        let is_alone = parsed.len() == 1 && fences.is_empty();
        if let Some(verb) = parsed
            .iter()
            .find_map(|(parsed, ..)| parsed.commits.as_ref())
            && !is_alone
        {
            return Err(committing(verb).into());
        }
        // Who only reads sees a snapshot, and waits for nobody. If there is more to a query than one can see, the server says
        // so: a function may write.
        let is_plain = fences.is_empty()
            && options.isolation == Isolation::Serializable
            && parsed.iter().all(|(parsed, ..)| parsed.is_plain);
        if is_plain && !options.read_only {
            let reading = TxOptions {
                read_only: true,
                ..options
            };
            match self.run_each(&parsed, reading, fences).await {
                Err(fault) if writes(&fault) => self.execute(self.rollback_statement()).await?,
                ran => return ran,
            }
        }
        self.run_each(&parsed, options, fences).await
    }
}

impl remote::Connection for Connection {
    const KNOWS_ITS_END: bool = false;

    fn is_closed(&self) -> bool {
        self.is_broken.get()
    }

    async fn ping(&self) -> bool {
        let pinged = self.conn.lock().await.ping().await;
        self.seen(pinged.map_err(Fault::from)).is_ok()
    }

    async fn clean(&self) -> bool {
        self.cursors.take();
        if self.execute(self.rollback_statement()).await.is_err() {
            return false;
        }
        match self.leaves_traces.take() {
            true => matches!(self.conn.lock().await.reset().await, Ok(true)),
            false => true,
        }
    }

    async fn cancel(&self) {
        self.is_broken.set(true);
        self.cursors.take();
        self.killer.kill("CONNECTION").await;
    }

    /// The client does.
    fn forget(&self) {
        self.kinds.forget();
    }

    async fn begin_within(&self, options: TxOptions, fences: &[Fence]) -> Result<(), Fault> {
        let begun = match fences.is_empty() || options.read_only {
            true => self.execute(&begin(options)).await,
            false => fences::begin_within(self, &begin(options), fences).await,
        };
        self.seen(begun)
    }

    async fn guarded<T>(
        &self,
        opening: Opening,
        work: impl AsyncFn(&Self) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        if let Opening::Begin(options) = opening
            && let Err(mut fault) = self.execute(&begin(options)).await
        {
            if fault.then == Then::GoesOn {
                fault.then = Then::TransactionIsOver;
            }
            return Err(fault);
        }
        let mut fault = match self.seen(work(self).await) {
            Ok(done) => return Ok(done),
            Err(fault) => fault,
        };
        let is_servers = matches!(fault.told, DbError::Engine { .. });
        if !is_servers || fault.then != Then::GoesOn {
            return Err(fault);
        }
        self.settle().await;
        if let Err(gone) = self.execute(STILL_THERE).await {
            fault.then = match gone.is_broken() {
                true => Then::ConnectionIsBroken,
                false => Then::TransactionIsOver,
            };
        }
        Err(fault)
    }

    async fn run_all(
        &self,
        statements: &[(Statement, Want)],
        options: TxOptions,
        fences: &[Fence],
    ) -> Result<Vec<Step>, Fault> {
        let ran = self.run_read(statements, options, fences).await;
        self.seen(ran)
    }

    async fn run(
        &self,
        statement: &Statement,
        want: Want,
        room: &mut usize,
    ) -> Result<Step, Fault> {
        let parsed = read(statement)?;
        if let Some(verb) = &parsed.commits {
            return Err(committing(verb).into());
        }
        let step = self.perform(&parsed, statement, want, room).await?;
        self.check_transaction().await?;
        Ok(step)
    }

    async fn note(&self, id: &str) -> Result<bool, Fault> {
        self.settle().await;
        let noted = self
            .conn
            .lock()
            .await
            .exec_drop(NOTE, (id.as_bytes(),))
            .await;
        match noted {
            Ok(()) => Ok(true),
            Err(error) if is_taken(&error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    async fn declare(&self, cursor: u64, statement: &Statement) -> Result<Vec<Column>, Fault> {
        let parsed = read(statement)?;
        if !parsed.is_query {
            return Err(DbError::Invalid("a cursor is for a query".to_owned()).into());
        }
        self.settle().await;
        let mut conn = self.conn.clone().lock_owned().await;
        let query = self.prepare(&mut conn, &parsed, statement).await?;
        let (opened, columns) = Cursor::open(conn, query, self.killer.clone()).await?;
        self.cursors.borrow_mut().insert(cursor, opened);
        Ok(columns)
    }

    async fn fetch(&self, cursor: u64, rows: usize) -> Result<Vec<Row>, Fault> {
        let open = self.cursors.borrow().get(&cursor).cloned();
        match open {
            Some(open) => open.fetch(rows).await,
            None => Err(DbError::Closed.into()),
        }
    }

    async fn close_cursor(&self, cursor: u64) -> Result<(), Fault> {
        self.cursors.borrow_mut().remove(&cursor);
        Ok(())
    }

    async fn commit(&self) -> Result<(), DbError> {
        self.cursors.take();
        let commit = self.commit_statement();
        let committed = self.conn.lock().await.query_drop(commit).await;
        committed.map_err(|error| of_commit(&error))
    }

    async fn rollback(&self) {
        self.cursors.take();
        // If it fails, the connection is not lent again.
        let _ = self.execute(self.rollback_statement()).await;
    }

    async fn tidy(&self) {
        for sql in TIDY {
            // If it fails there is a next time.
            let _ = self.execute(sql).await;
        }
    }
}

fn committing(verb: &str) -> DbError {
    DbError::Denied(format!(
        "{verb} commits what is before it: it is for a migration, or for a call of its own outside of transactions"
    ))
}

fn writes(fault: &Fault) -> bool {
    matches!(&fault.told, DbError::Engine { code, .. } if code == "25006")
}
