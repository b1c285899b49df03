//! PostgreSQL as a [`Database`]: a database of a server that others run, and may share.
//!
//! All of it is in the state process and on its one thread. The language is PostgreSQL's own; what differs from the
//! embedded engine is in docs/postgresql.md.

mod address;
mod connection;
mod convert;
mod error;
mod inspect;
mod migrate;
mod pool;
mod tls;
mod tokens;
mod transaction;
mod watch;

#[cfg(test)]
mod tests;

pub use address::Address;
pub use inspect::{Inspection, inspect};

use super::BoxFuture;
use super::db::{
    Database, DbError, Fence, GivenUp, Isolation, RESULT_MAX, STATEMENT_TIME_MAX, Statement, Step,
    Transaction, TxOptions, Want, check_batch,
};
use connection::{Connection, Fault};
use futures_util::future::join;
use pool::{Lent, Pool};
use std::future::ready;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// How long a transaction may hold a connection without doing anything.
const IDLE_MAX: Duration = Duration::from_secs(5);

/// How long after its own limits the server is to act, if wrun does not.
const GRACE: Duration = Duration::from_secs(1);

/// How long COMMIT may take, whatever the deadline: if it was given up, nobody could say what became of it.
const COMMIT_MAX: Duration = Duration::from_secs(10);

/// How often a batch is begun anew that met another transaction.
const TRIES_MAX: u32 = 20;

/// The longest pause before that.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// How often it is looked whether a batch was given up.
const LOOK: Duration = Duration::from_millis(50);

/// A database. Clones are the same.
#[derive(Clone)]
pub struct Postgres {
    pool: Pool,
}

impl Postgres {
    /// Takes a database that is somewhere; nobody is asked yet whether it is there.
    pub fn new(label: &str, address: Address) -> Self {
        Self {
            pool: Pool::new(label.to_owned(), address),
        }
    }

    /// Says why the server cannot be reached, if it cannot.
    pub fn why_away(&self) -> Option<String> {
        self.pool.why_away()
    }

    /// Ends its connections. What is under way is rolled back by the server.
    pub fn close(&self) {
        self.pool.close();
    }

    /// Runs statements once.
    async fn try_batch(
        &self,
        statements: &[(Statement, Want)],
        options: TxOptions,
        deadline: Instant,
        fences: &[Fence],
        given_up: &GivenUp,
    ) -> Result<Vec<Step>, DbError> {
        let lent = self.pool.get(deadline).await?;
        let stopped = tokio::select! {
            biased;
            ran = run_all(&lent, statements, options, fences) => match ran {
                Ok(steps) => return commit(lent, options.read_only).await.map(|()| steps),
                Err(fault) => {
                    let told = match fault.is_stale() {
                        true => again(&lent),
                        false => fault.told(),
                    };
                    if !fault.is_broken() {
                        lent.give_back();
                    }
                    return Err(told);
                }
            },
            () = sleep_until(deadline) => "the batch took too long and was stopped",
            () = until(given_up) => "the batch was given up",
        };
        lent.cancel().await;
        lent.give_back();
        Err(DbError::Timeout(stopped.to_owned()))
    }
}

impl Database for Postgres {
    fn dialect(&self) -> &'static str {
        "postgres"
    }

    fn batch_unless(
        &self,
        statements: Vec<(Statement, Want)>,
        options: TxOptions,
        fences: Vec<Fence>,
        given_up: GivenUp,
    ) -> BoxFuture<'_, Result<Vec<Step>, DbError>> {
        if let Err(error) = check_batch(&statements) {
            return Box::pin(ready(Err(error)));
        }
        let deadline = Instant::now() + options.timeout;
        Box::pin(async move {
            let mut tries = 0;
            loop {
                let tried = self.try_batch(&statements, options, deadline, &fences, &given_up);
                let tried = tried.await;
                tries += 1;
                // All that it does is known, so it need not be the guest who begins anew.
                let meets_others = matches!(
                    &tried,
                    Err(DbError::Engine {
                        retryable: true,
                        ..
                    })
                );
                if !meets_others || tries >= TRIES_MAX || given_up.is_given_up() {
                    return tried;
                }
                sleep(pause(tries)).await;
                if Instant::now() >= deadline {
                    return tried;
                }
            }
        })
    }

    fn begin_fenced(
        &self,
        options: TxOptions,
        fences: Vec<Fence>,
    ) -> BoxFuture<'_, Result<Box<dyn Transaction>, DbError>> {
        let transaction = transaction::new(self.pool.clone(), options, fences);
        Box::pin(ready(Ok(Box::new(transaction) as Box<dyn Transaction>)))
    }
}

/// Returns what begins a transaction, with its limits.
fn begin(options: TxOptions) -> String {
    let isolation = match options.isolation {
        Isolation::ReadCommitted => "READ COMMITTED",
        Isolation::RepeatableRead => "REPEATABLE READ",
        Isolation::Serializable => "SERIALIZABLE",
    };
    let access = if options.read_only {
        "READ ONLY"
    } else {
        "READ WRITE"
    };
    let statement = options.timeout.min(STATEMENT_TIME_MAX).as_millis().max(1);
    let idle = (IDLE_MAX + GRACE).as_millis();
    format!(
        "BEGIN ISOLATION LEVEL {isolation} {access}; SET LOCAL statement_timeout = {statement}; \
         SET LOCAL idle_in_transaction_session_timeout = {idle}"
    )
}

/// Begins a transaction that holds its fences: who has a higher token waits for its end, or has been here before.
async fn begin_within(
    connection: &Connection,
    options: TxOptions,
    fences: &[Fence],
) -> Result<(), Fault> {
    let opening = begin(options);
    // In this order on their way, and together.
    let begun = connection.client.batch_execute(&opening);
    let (begun, passed) = join(begun, connection.pass(fences)).await;
    begun?;
    passed
}

/// Runs statements in a transaction that it begins, and leaves open.
async fn run_all(
    lent: &Lent,
    statements: &[(Statement, Want)],
    options: TxOptions,
    fences: &[Fence],
) -> Result<Vec<Step>, Fault> {
    let mut room = RESULT_MAX;
    let mut steps = Vec::with_capacity(statements.len());
    let mut statements = statements.iter();
    if !fences.is_empty() && !options.read_only {
        begin_within(lent, options, fences).await?;
    } else if let Some((first, want)) = statements.next() {
        let opening = begin(options);
        let first = lent.run(first, *want, &mut room);
        // In this order on their way, and together.
        let (begun, step) = join(lent.client.batch_execute(&opening), first).await;
        begun?;
        steps.push(step?);
    }
    for (statement, want) in statements {
        steps.push(lent.run(statement, *want, &mut room).await?);
    }
    Ok(steps)
}

/// Commits what a connection has open, and gives the connection back.
async fn commit(lent: Lent, read_only: bool) -> Result<(), DbError> {
    if lent.client.is_closed() {
        // Nothing was sent.
        let what = "PostgreSQL: the connection broke, the transaction was rolled back";
        return Err(DbError::Unavailable(what.to_owned()));
    }
    let committed = timeout(COMMIT_MAX, lent.client.batch_execute("COMMIT")).await;
    let told = match committed {
        Ok(Ok(())) => {
            lent.give_back();
            return Ok(());
        }
        Ok(Err(error)) => error::of_commit(&error),
        Err(_) => DbError::OutcomeUnknown,
    };
    match told {
        // There is nothing that could have become of it.
        DbError::OutcomeUnknown if read_only => Err(DbError::Unavailable(
            "PostgreSQL: the connection broke".to_owned(),
        )),
        DbError::OutcomeUnknown => Err(DbError::OutcomeUnknown),
        told => {
            lent.give_back();
            Err(told)
        }
    }
}

/// Has the statements of a batch prepared anew when it is tried again.
fn again(lent: &Lent) -> DbError {
    lent.forget();
    DbError::Engine {
        code: "40001".to_owned(),
        message: "a table was changed meanwhile".to_owned(),
        constraint: None,
        retryable: true,
    }
}

/// Waits until a batch is given up.
async fn until(given_up: &GivenUp) {
    while !given_up.is_given_up() {
        sleep(LOOK).await;
    }
}

/// Returns a pause that is longer the more often it was tried, and never the same for two that met.
fn pause(tries: u32) -> Duration {
    let most = PAUSE_MAX.min(Duration::from_millis(1 << tries.min(10)));
    let chance = f64::from(getrandom::u32().unwrap_or(0)) / f64::from(u32::MAX);
    most.mul_f64(chance)
}
