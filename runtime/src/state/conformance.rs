//! What every backend does, in cases that know the traits [`Database`], [`Locks`] and [`Queue`] alone.
//!
//! A backend says in one file how a fresh one comes to be, as `embedded` does, and has a column in the tests at the end of
//! this file for each trait that it has. Every case gets a fresh one. A case that does not hold somewhere is not left out
//! there: it is a case of its own, with the reason.

mod database;
mod embedded;
#[cfg(feature = "kafka")]
mod kafka;
mod locks;
mod mysql;
mod nats_queue;
mod outbox;
mod postgres;
mod postgres_locks;
mod queues;
mod rabbitmq;
mod redis;
mod redis_queue;

use super::BoxFuture;
use super::db::{Database, Value};
use super::lock::{Locks, SessionId};
use super::outbox::Outbox;
use super::queue::{Delivery, Queue};
use embedded::Embedded;
use postgres::Bound;
use postgres_locks::BoundLocks;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;
use tokio::task::LocalSet;
use tokio::time::timeout;

/// No case takes longer.
const DEADLINE: Duration = Duration::from_secs(60);

/// A backend of some kind.
trait Backend: Sized + 'static {
    const NAME: &'static str;

    /// Returns what it is called in the table.
    fn name() -> &'static str {
        Self::NAME
    }

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

    /// Returns what a value comes back as: itself, but where an engine has no such type.
    fn comes_back(value: Value) -> Value {
        value
    }
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
    const DEDUP_IDS: DedupIds = DedupIds::AreRemembered;

    fn queue(&self) -> &dyn Queue;

    /// Waits for the next batch, and returns whose it is.
    async fn next_batch(&mut self) -> (SessionId, Vec<Delivery>);
}

/// A backend with a database whose transactions send to a queue that is not kept in it.
trait HasOutbox: HasDatabase {
    /// The label of that queue.
    const ELSEWHERE: &str = "elsewhere";

    fn outbox(&self) -> Rc<dyn Outbox>;
}

/// One that several servers of wrun's may use.
trait HasSharedOutbox: HasOutbox {
    /// Returns the same outbox as another server has it.
    fn elsewhere(&self) -> Rc<dyn Outbox>;
}

/// What a dedup id is good for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum DedupIds {
    /// A second message with one is not taken.
    AreRemembered,
    /// A second message with one has the id of the first, and comes, too: there is nowhere to remember them.
    AreIds,
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

/// How each case went on each backend.
#[derive(Default)]
struct Table {
    backends: Vec<&'static str>,
    cases: Vec<(&'static str, Vec<bool>)>,
}

impl Table {
    /// Runs every case.
    fn run<B: Backend>(&mut self, cases: Vec<Case<B>>) {
        for (at, Case { name, run }) in cases.into_iter().enumerate() {
            if self.backends.is_empty() {
                self.cases.push((name, Vec::new()));
            }
            assert_eq!(self.cases[at].0, name, "every backend has the same cases");
            // What a case leaves behind goes with its backend.
            let passed = catch_unwind(AssertUnwindSafe(|| run_one(run))).is_ok();
            self.cases[at].1.push(passed);
        }
        self.backends.push(B::name());
    }

    /// Prints a line for each case, and fails with the names of those that failed.
    fn finish(self) {
        let mut failed = Vec::new();
        println!("{:<70} {}", "", self.backends.join("  "));
        for (name, passed) in &self.cases {
            let mut line = format!("{name:<70}");
            for (backend, passed) in self.backends.iter().zip(passed) {
                let verdict = if *passed { "ok" } else { "FAILED" };
                line += &format!(" {verdict:<width$} ", width = backend.len());
                if !passed {
                    failed.push(format!("{backend}: {name}"));
                }
            }
            println!("{}", line.trim_end());
        }
        assert!(failed.is_empty(), "{}", failed.join(", "));
    }
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
fn databases_conform() {
    let mut table = Table::default();
    table.run::<Embedded>(database::cases());
    if let Some(server) = postgres::Server::start() {
        table.run::<Bound>(database::cases());
        drop(server);
    }
    if let Some(server) = mysql::Server::start() {
        table.run::<mysql::Bound>(database::cases());
        drop(server);
    }
    table.finish();
}

#[test]
fn locks_conform() {
    let mut table = Table::default();
    table.run::<Embedded>(locks::cases());
    if let Some(servers) = redis::Server::start(1) {
        table.run::<redis::Bound<1>>(locks::cases());
        drop(servers);
    }
    if let Some(servers) = redis::Server::start(3) {
        table.run::<redis::Bound<3>>(locks::cases());
        drop(servers);
    }
    if let Some(server) = postgres::Server::start() {
        table.run::<BoundLocks>(locks::cases());
        drop(server);
    }
    table.finish();
}

#[test]
fn queues_conform() {
    let mut table = Table::default();
    table.run::<Embedded>(queues::cases());
    if let Some(server) = postgres::Server::start() {
        table.run::<Bound>(queues::cases());
        drop(server);
    }
    if let Some(server) = redis_queue::Server::start() {
        table.run::<redis_queue::Bound>(queues::cases());
        drop(server);
    }
    if let Some(server) = rabbitmq::Server::start() {
        table.run::<rabbitmq::Bound>(queues::cases());
        drop(server);
    }
    if let Some(server) = nats_queue::Server::start() {
        table.run::<nats_queue::Bound>(queues::cases());
        drop(server);
    }
    #[cfg(feature = "kafka")]
    {
        let server = kafka::Server::start();
        table.run::<kafka::Bound>(queues::cases());
        drop(server);
    }
    table.finish();
}

#[test]
fn queues_conform_with_their_databases() {
    let mut table = Table::default();
    table.run::<Embedded>(queues::cases_with_database());
    if let Some(server) = postgres::Server::start() {
        table.run::<Bound>(queues::cases_with_database());
        drop(server);
    }
    table.finish();
}

#[test]
fn outboxes_conform() {
    let mut table = Table::default();
    table.run::<Embedded>(outbox::cases());
    if let Some(server) = postgres::Server::start() {
        table.run::<Bound>(outbox::cases());
        drop(server);
    }
    if let Some(server) = mysql::Server::start() {
        table.run::<mysql::Bound>(outbox::cases());
        drop(server);
    }
    table.finish();
}

/// Nobody shares the file of an embedded one.
#[test]
fn outboxes_that_servers_share_conform() {
    let mut table = Table::default();
    if let Some(server) = postgres::Server::start() {
        table.run::<Bound>(outbox::shared_cases());
        drop(server);
    }
    if let Some(server) = mysql::Server::start() {
        table.run::<mysql::Bound>(outbox::shared_cases());
        drop(server);
    }
    table.finish();
}
