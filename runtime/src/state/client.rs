//! A worker's end of the line to the state process: what host functions call to reach locks, databases and queues.
//!
//! Knows nothing of guests. Any future here may be dropped at any time: what would have come of it is undone.

mod deliveries;
mod guard;
mod lanes;
mod line;
mod link;
mod transaction;

#[cfg(test)]
mod tests;

pub use deliveries::{Consumer, Deliveries};
pub use guard::Guard;
pub use transaction::{Cursor, Transaction};

use super::db::{DbError, Statement, Step, TxOptions, Want};
use super::lock::{Acquire, LockError};
use super::protocol::{Call, Reply};
use super::queue::{Message, QueueError};
use crate::state_folder::Way;
use deliveries::Consuming;
use lanes::Lanes;
use link::{Link, Unanswered, Unsent};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long a call waits for a connection.
const CONNECT_MAX: Duration = Duration::from_secs(5);

const UNREACHABLE: &str = "the state process cannot be reached just now";
const UNEXPECTED: &str = "the state process gave an unexpected answer";

/// The way to the state process. Cloned, it is the same way.
#[derive(Clone, Debug)]
pub struct Client(Arc<Kept>);

/// The line, and the task that keeps it up for as long as there is a [`Client`].
#[derive(Debug)]
struct Kept {
    line: Arc<Line>,
    task: JoinHandle<()>,
}

/// What the task and those who call share.
#[derive(Debug)]
struct Line {
    way: Way,
    generation: u64,
    /// How long a call waits for a connection.
    patience: Duration,
    current: watch::Sender<Option<Arc<Link>>>,
    consuming: Arc<Consuming>,
    lanes: Arc<Lanes>,
    /// The last number that was given to an instance, a guard or a transaction.
    number: AtomicU64,
}

/// The guards that a transaction stands or falls with, and the one connection that knows them.
#[derive(Debug)]
struct Fences {
    link: Option<Arc<Link>>,
    numbers: Vec<u64>,
}

/// The answer to a batch is waited for. Dropped before it has come, the batch may stop.
#[derive(Debug)]
struct Wanted {
    link: Arc<Link>,
    /// The id of its request; `None` once it was answered.
    batch: Option<u64>,
}

impl Drop for Wanted {
    fn drop(&mut self) {
        if let Some(batch) = self.batch {
            self.link.tell(Call::GiveUp { batch });
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Client {
    /// Returns a client for a worker of `generation`, and starts the task that connects it. Calls wait for that.
    pub fn start(socket: &Path, generation: u64) -> io::Result<Self> {
        Self::start_patient(socket, generation, CONNECT_MAX)
    }

    /// Like [`Client::start`]; calls wait for `patience`.
    fn start_patient(socket: &Path, generation: u64, patience: Duration) -> io::Result<Self> {
        let line = Arc::new(Line {
            way: Way::to(socket)?,
            generation,
            patience,
            current: watch::Sender::new(None),
            consuming: Arc::default(),
            lanes: Arc::default(),
            number: AtomicU64::new(0),
        });
        let task = tokio::spawn(line::keep(line.clone()));
        Ok(Self(Arc::new(Kept { line, task })))
    }

    /// Returns a number that tells one instance's locks from another's.
    pub fn next_owner(&self) -> u64 {
        self.0.line.number()
    }

    /// Takes all of `keys` for the instance that is called `owner`; times that are `None` have their defaults.
    pub async fn acquire(
        &self,
        owner: u64,
        space: &str,
        keys: Vec<String>,
        wait_ms: Option<u32>,
        ttl_ms: Option<u32>,
        renew: Option<bool>,
    ) -> Result<Guard, LockError> {
        let mut request = Acquire::new(space.to_owned(), keys, owner);
        request.wait_ms = wait_ms.unwrap_or(request.wait_ms);
        request.ttl_ms = ttl_ms.unwrap_or(request.ttl_ms);
        request.renew = renew.unwrap_or(request.renew);
        request.check()?;
        Guard::acquire(&self.0.line, request).await
    }

    /// Runs statements in one transaction and one round trip.
    pub async fn batch(
        &self,
        db: &str,
        statements: Vec<(Statement, Want)>,
        options: TxOptions,
        fences: &[&Guard],
    ) -> Result<Vec<Step>, DbError> {
        let Fences { link, numbers } = Fences::new(fences)?;
        let call = Call::Batch {
            db: db.to_owned(),
            statements,
            options,
            fences: numbers,
        };
        let asked = self.0.line.on(link, call, Link::ask).await;
        let (link, pending) = asked.map_err(transaction::unchanged)?;
        let mut wanted = Wanted {
            link,
            batch: Some(pending.id),
        };
        let reply = pending.reply().await;
        wanted.batch = None;
        match reply {
            Ok(Reply::Steps(steps)) => Ok(steps),
            Ok(reply) => Err(transaction::refused(reply)),
            Err(Unanswered::Broken) if !options.read_only => Err(DbError::OutcomeUnknown),
            Err(error) => Err(transaction::unchanged(error)),
        }
    }

    /// Begins a transaction.
    pub async fn begin(
        &self,
        db: &str,
        options: TxOptions,
        fences: &[&Guard],
    ) -> Result<Transaction, DbError> {
        Transaction::begin(&self.0.line, db, options, Fences::new(fences)?).await
    }

    /// Sends messages, all or none, and returns their ids.
    pub async fn send(
        &self,
        queue: &str,
        messages: Vec<Message>,
    ) -> Result<Vec<String>, QueueError> {
        let queue = queue.to_owned();
        let call = Call::Send { queue, messages };
        match self.0.line.call(call).await {
            Ok(Reply::Ids(ids)) => Ok(ids),
            Ok(reply) => Err(queue_refused(reply)),
            Err(error) => Err(queue_unsent(error)),
        }
    }

    /// Gives a delivery `ms` milliseconds from now.
    pub async fn extend_delivery(
        &self,
        queue: &str,
        delivery: String,
        ms: u32,
    ) -> Result<(), QueueError> {
        let call = Call::ExtendDelivery {
            queue: queue.to_owned(),
            delivery,
            ms,
        };
        match self.0.line.call(call).await {
            Ok(Reply::Done) => Ok(()),
            Ok(reply) => Err(queue_refused(reply)),
            // With its connection, a delivery is over.
            Err(_) => Err(QueueError::NotYours),
        }
    }

    /// Takes messages of a queue from now on: up to `concurrency` batches of up to `batch` messages at a time.
    pub fn consume(&self, queue: &str, batch: u32, concurrency: u32) -> Consumer {
        self.0.line.consuming.consume(queue, batch, concurrency)
    }

    /// Takes no more messages: consumers end after the batches that were on the way to them.
    pub async fn stop_consuming(&self) {
        let consuming = &self.0.line.consuming;
        let current = self.0.line.current.borrow().clone();
        for queue in consuming.leave() {
            if let Some(link) = &current {
                // Once this is answered, every batch has arrived; without a connection none is on the way.
                if let Ok(left) = link.ask(Call::Leave { queue }) {
                    let _ = left.reply().await;
                }
            }
        }
        consuming.stop();
    }
}

impl Line {
    /// Returns a number that was not used before.
    fn number(&self) -> u64 {
        self.number.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Sends a call and waits for its answer.
    async fn call(&self, call: Call) -> Result<Reply, Unanswered> {
        self.on(None, call, Link::ask).await?.1.reply().await
    }

    /// Sends a call by `send` on this connection, or else on the first one that takes it; waits for one if need be.
    async fn on<T>(
        &self,
        link: Option<Arc<Link>>,
        mut call: Call,
        send: impl Fn(&Link, Call) -> Result<T, Unsent>,
    ) -> Result<(Arc<Link>, T), Unanswered> {
        if let Some(link) = link {
            let sent = send(&link, call)?;
            return Ok((link, sent));
        }
        loop {
            let link = match self.open_link() {
                Some(link) => link,
                None => self.next_link().await?,
            };
            match send(&link, call) {
                Ok(sent) => return Ok((link, sent)),
                // It broke, and this is the first to notice.
                Err(Unsent::Closed(unsent)) => call = *unsent,
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn open_link(&self) -> Option<Arc<Link>> {
        self.current.borrow().clone().filter(|link| link.is_open())
    }

    async fn next_link(&self) -> Result<Arc<Link>, Unanswered> {
        let mut changes = self.current.subscribe();
        let open = |link: &Option<Arc<Link>>| link.as_ref().is_some_and(|link| link.is_open());
        let link = tokio::time::timeout(self.patience, changes.wait_for(open)).await;
        let link = link.ok().and_then(Result::ok).and_then(|link| link.clone());
        link.ok_or(Unanswered::NotSent)
    }
}

impl Fences {
    /// Returns what is to be told about guards. It is an error if one is lost, or on another connection than the others.
    fn new(guards: &[&Guard]) -> Result<Self, DbError> {
        let mut link = None;
        for guard in guards {
            let kept_on = guard.kept_on().ok_or(DbError::LostFence)?;
            if !Arc::ptr_eq(link.get_or_insert_with(|| kept_on.clone()), kept_on) {
                return Err(DbError::LostFence);
            }
        }
        let numbers = guards.iter().map(|guard| guard.number()).collect();
        Ok(Self { link, numbers })
    }
}

fn queue_unsent(error: Unanswered) -> QueueError {
    match error {
        Unanswered::NotSent => QueueError::Unavailable(UNREACHABLE.to_owned()),
        Unanswered::TooLarge => QueueError::TooLarge("messages that are sent together".to_owned()),
        Unanswered::Broken => QueueError::OutcomeUnknown,
    }
}

fn queue_refused(reply: Reply) -> QueueError {
    match reply {
        Reply::Queue(error) => error,
        Reply::Refused(why) => QueueError::Other(why),
        _ => QueueError::Other(UNEXPECTED.to_owned()),
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing here panics while it holds one.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
