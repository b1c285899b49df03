//! Batches: begun anew when they met another transaction, since all that they do is known.

use super::pool::Lent;
use super::route::Route;
use super::{Connection as _, Engine, Then};
use crate::state::db::{DbError, Fence, GivenUp, Statement, Step, Want};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// How long COMMIT may take, whatever the deadline: if it was given up, nobody could say what became of it.
const COMMIT_MAX: Duration = Duration::from_secs(10);

/// How often a batch is begun anew that met another transaction.
const TRIES_MAX: u32 = 20;

/// The longest pause before that.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// How often it is looked whether a batch was given up.
const LOOK: Duration = Duration::from_millis(50);

/// Runs statements in one transaction.
pub(in crate::state) async fn run<E: Engine>(
    mut route: Route<E>,
    statements: &[(Statement, Want)],
    fences: &[Fence],
    given_up: &GivenUp,
) -> Result<Vec<Step>, DbError> {
    let deadline = Instant::now() + route.options().timeout;
    let mut tries = 0;
    loop {
        let tried = try_once(&mut route, statements, deadline, fences, given_up).await;
        // It only reads: the primary can do all of it.
        if matches!(&tried, Err(DbError::Unavailable(_))) && route.leave_replica() {
            continue;
        }
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
}

async fn try_once<E: Engine>(
    route: &mut Route<E>,
    statements: &[(Statement, Want)],
    deadline: Instant,
    fences: &[Fence],
    given_up: &GivenUp,
) -> Result<Vec<Step>, DbError> {
    let lent = route.lend(deadline).await?;
    let options = route.options();
    let stopped = tokio::select! {
        biased;
        ran = lent.run_all(statements, options, fences) => match ran {
            Ok(steps) => return commit(lent, options.read_only).await.map(|()| steps),
            Err(fault) => {
                let told = match fault.then {
                    Then::PrepareAnew => again(&lent),
                    _ => fault.told.clone(),
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

/// Commits what a connection has open, and gives the connection back.
pub(super) async fn commit<E: Engine>(lent: Lent<E>, read_only: bool) -> Result<(), DbError> {
    let product = E::PRODUCT;
    if lent.is_closed() {
        // Nothing was sent.
        let what = format!("{product}: the connection broke, the transaction was rolled back");
        return Err(DbError::Unavailable(what));
    }
    let committed = timeout(COMMIT_MAX, lent.commit()).await;
    match committed.unwrap_or(Err(DbError::OutcomeUnknown)) {
        // There is nothing that could have become of it.
        Err(DbError::OutcomeUnknown) if read_only => Err(DbError::Unavailable(format!(
            "{product}: the connection broke"
        ))),
        Err(DbError::OutcomeUnknown) => Err(DbError::OutcomeUnknown),
        told => {
            lent.give_back();
            told
        }
    }
}

/// Has the statements of a batch prepared anew when it is tried again.
fn again<E: Engine>(lent: &Lent<E>) -> DbError {
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
