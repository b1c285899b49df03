//! What every backend does, in cases that know the traits [`Database`], [`Locks`] and [`Queue`] alone.
//!
//! A backend says in one file how a fresh one comes to be, as `embedded` does, and has a test at the end of this file for
//! each trait that it has. Every case gets a fresh one.

mod database;
mod embedded;
mod locks;
mod queues;

use super::BoxFuture;
use super::db::{Database, Value};
use super::lock::{Locks, SessionId};
use super::queue::{Delivery, Queue};
use embedded::Embedded;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;
use tokio::task::LocalSet;
use tokio::time::timeout;

/// No case takes longer.
const DEADLINE: Duration = Duration::from_secs(60);

/// A backend of some kind.
trait Backend: Sized + 'static {
    const NAME: &'static str;

    /// Returns a fresh one.
    async fn open() -> Self;

    /// Ends it in good order and starts it again.
    async fn restart(self) -> Self;
}

/// A backend with an empty database.
trait HasDatabase: Backend {
    fn database(&self) -> &dyn Database;

    /// Returns how a column is declared whose values come back as this one.
    fn declare(value: &Value) -> &'static str;
}

/// A backend that keeps locks in any space.
trait HasLocks: Backend {
    fn locks(&self) -> &dyn Locks;
}

/// A backend with an empty queue, whose settings are the constants here.
trait HasQueue: Backend {
    /// The label.
    const QUEUE: &'static str = "jobs";
    const DEPTH_MAX: u64 = 20;
    const ATTEMPTS_MAX: u32 = 2;
    const BACKOFF: Duration = Duration::from_millis(20);

    fn queue(&self) -> &dyn Queue;

    /// Waits for the next batch, and returns whose it is.
    async fn next_batch(&mut self) -> (SessionId, Vec<Delivery>);
}

/// A case by its name.
struct Case<B> {
    name: &'static str,
    run: fn(B) -> BoxFuture<'static, ()>,
}

macro_rules! cases {
    ($($case:ident),* $(,)?) => {
        vec![$(Case { name: stringify!($case), run: |on| Box::pin($case(on)) }),*]
    };
}
use cases;

/// Runs every case, prints how each went, and fails with the names of those that failed.
fn run_all<B: Backend>(cases: Vec<Case<B>>) {
    let mut failed = Vec::new();
    for Case { name, run } in cases {
        // What a case leaves behind goes with its backend.
        let passed = catch_unwind(AssertUnwindSafe(|| run_one(run))).is_ok();
        let verdict = if passed { "ok" } else { "FAILED" };
        println!("{:<10} {name:<70} {verdict}", B::NAME);
        if !passed {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "{}: {}", B::NAME, failed.join(", "));
}

/// Runs a case as the state process would.
fn run_one<B: Backend>(run: fn(B) -> BoxFuture<'static, ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, async {
        let case = async { run(B::open().await).await };
        timeout(DEADLINE, case).await.expect("the case hangs");
    });
}

#[test]
fn embedded_database_conforms() {
    run_all::<Embedded>(database::cases());
}

#[test]
fn embedded_locks_conform() {
    run_all::<Embedded>(locks::cases());
}

#[test]
fn embedded_queue_conforms() {
    run_all::<Embedded>(queues::cases());
}

#[test]
fn embedded_queue_conforms_with_its_database() {
    run_all::<Embedded>(queues::cases_with_database());
}
