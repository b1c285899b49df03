//! A queue that is bound to Redis or Valkey, which several servers of wrun's may share: its desk, with the server's memory as
//! the shelf.
//!
//! As with PostgreSQL, the lanes here know no more than the messages that this server has claimed (`claim`), by the right of
//! a lease that it renews (`lease`), and a message that is to be handled again is given back for any server to claim. As
//! scripts run one after the other there, each change is whole, and whoever settles a message lets out the one behind it.
//!
//! Messages are in hashes and sorted sets, not in a stream with a consumer group. A group hands out entries in the order in
//! which they came to whoever asks: it cannot hold back the second message of a key while the first is handled by somebody
//! else, or one whose time has not come. It counts how often an entry was handed out, which is not how often it was tried,
//! and before Redis 8.8 an entry cannot be given back. And a stream takes entries at its end alone, so that a dead letter
//! could not come back with its id, by which `mark-processed` knows it, nor at its place among those of its key.

mod claim;
#[cfg(test)]
mod history;
mod lease;
mod look;
mod operate;
mod rounds;
mod scripts;
mod send;
mod settle;
#[cfg(test)]
mod tests;

use super::Address;
use super::line::{Failed, Line};
use crate::config::shared;
use crate::exit_code::ExitCode;
use crate::failure::{Failure, OrFail as _};
use crate::state::BoxFuture;
use crate::state::queue::desk::{Desk, Found, Shelf, Sink, to_the_end};
use crate::state::queue::lanes::{HandsBack, Lanes};
use crate::state::queue::sharing::{self, Bell};
use crate::state::queue::stored::Change;
use crate::state::queue::{Message, Peeked, Queue, QueueError, QueueStatus};
use redis::{Script, ScriptInvocation};
use scripts::{Names, Scripts};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// A queue. Clones are the same.
#[derive(Clone)]
pub struct RedisQueue {
    desk: Rc<Desk>,
    store: Rc<Store>,
    keeper: Rc<RefCell<Keeper>>,
    _tasks: Rc<JoinSet<()>>,
}

/// What keeps up the line, and what claims; both end with the last clone of the queue.
#[derive(Default)]
struct Keeper {
    line: JoinSet<()>,
    rounds: JoinSet<()>,
}

/// A queue's part of the server, and what is known of it here.
struct Store {
    label: String,
    /// What the holders of this server of wrun's begin with; the same after its state process was replaced.
    server: String,
    names: Names,
    scripts: Scripts,
    line: Line,
    /// Messages came to be ready elsewhere.
    news: Rc<Notify>,
    max_depth: Cell<u64>,
    /// By what name its messages are held here, once there is a lease.
    holder: RefCell<Option<String>>,
    /// By which claims they are.
    claims: RefCell<HashMap<i64, u64>>,
    last_claim: Cell<u64>,
    /// How many messages, and in how many batches, are wanted here.
    wanted: Cell<(u64, u64)>,
    bell: Bell,
}

impl RedisQueue {
    /// Takes a queue that is somewhere; nobody is asked yet whether it is there. `server` is the same for all state processes
    /// that follow each other in one server, and only for them. To be called within a `LocalSet`.
    pub fn new(
        label: &str,
        settings: &shared::Queue,
        address: Address,
        server: &str,
        sink: Sink,
    ) -> Self {
        let scripts = Scripts::default();
        let channel = Names::channel(label, address.login.db());
        let binding = format!("queue.{label}");
        let news = Rc::new(Notify::new());
        let heard = news.clone();
        let on_news = Box::new(move |_: &str| heard.notify_one());
        let store = Rc::new(Store {
            label: label.to_owned(),
            server: format!("{server}:"),
            names: Names::new(label),
            line: Line::new(binding, address, channel, scripts.all(), on_news),
            news,
            scripts,
            max_depth: Cell::new(settings.max_depth),
            holder: RefCell::default(),
            claims: RefCell::default(),
            last_claim: Cell::default(),
            wanted: Cell::default(),
            bell: Bell::default(),
        });
        let shelf = Rc::new(Kept(store.clone()));
        let (desk, tasks) = Desk::new(label.to_owned(), settings, shelf, sink, |lanes| {
            lanes.handing_back(HandsBack::All)
        });
        Self {
            desk,
            store,
            keeper: Rc::default(),
            _tasks: Rc::new(tasks),
        }
    }

    /// Connects for the first time, and begins the lease: a server that takes no writes is of no use. If it `is_again`, because
    /// the state process was replaced, the server may be away.
    pub async fn prepare(&self, is_again: bool) -> Result<(), Failure> {
        if !self.keeper.borrow().line.is_empty() {
            return Ok(());
        }
        let (line, label) = (&self.store.line, &self.store.label);
        let live = line.first(&format!("queue {label}"), is_again).await?;
        if live.is_some() && !is_again {
            let holder = self.store.hold().await.or_fail(ExitCode::Unavailable, || {
                format!("queue {label}: Redis: messages cannot be claimed")
            });
            let hint = format!("check what the server of the binding queue.{label} is and allows");
            let holder = holder.map_err(|failure| failure.hint(hint))?;
            self.store.holder.replace(Some(holder));
        }
        let mut keeper = self.keeper.borrow_mut();
        keeper.line.spawn_local(line.clone().keep(live));
        let rounds = rounds::keep(self.store.clone(), self.desk.clone());
        keeper.rounds.spawn_local(rounds);
        Ok(())
    }

    /// Works by other settings from now on.
    pub fn configure(&self, settings: &shared::Queue) {
        self.store.max_depth.set(settings.max_depth);
        self.desk.configure(settings);
    }

    /// Says why the server cannot be reached, if it cannot.
    pub fn why_away(&self) -> Option<String> {
        self.store.line.presence().why_away()
    }

    /// Writes down what was settled, gives back what is held here, and ends its connection.
    pub async fn close(&self) {
        // Nothing is claimed any more.
        self.keeper.borrow_mut().rounds.abort_all();
        self.desk.journal.flush().await;
        // If it fails, the lease runs out.
        let _ = self.store.release().await;
        self.keeper.borrow_mut().line.abort_all();
    }
}

impl Store {
    /// Returns a script with the names that every script is given.
    fn invoke<'a>(&self, script: &'a Script) -> ScriptInvocation<'a> {
        let mut invocation = script.prepare_invoke();
        invocation.key(self.names.all());
        invocation
    }

    /// Returns the id of a message that is known outside.
    fn outside(&self, id: i64) -> String {
        sharing::outside(&self.label, id)
    }
}

/// Returns why a change was not made, or that nobody knows whether it was.
fn changed(failed: Failed) -> QueueError {
    match failed {
        Failed::Unknown(_) => QueueError::OutcomeUnknown,
        Failed::Away(_) | Failed::Refused(_) => looked(failed),
    }
}

/// Returns why nothing was seen.
fn looked(failed: Failed) -> QueueError {
    QueueError::Unavailable(format!("Redis: {failed}"))
}

/// The server's memory as the desk knows it.
struct Kept(Rc<Store>);

impl Shelf for Kept {
    fn read(&self, ids: Vec<i64>) -> BoxFuture<'static, Result<Found, QueueError>> {
        let store = self.0.clone();
        Box::pin(async move { store.read(&ids).await.map_err(looked) })
    }

    fn write(&self, changes: Vec<Change>) -> BoxFuture<'static, Result<(), QueueError>> {
        let store = self.0.clone();
        Box::pin(async move { store.write(&changes).await.map_err(looked) })
    }

    fn outside(&self, id: i64) -> String {
        self.0.outside(id)
    }

    fn inside(&self, id: &str) -> Option<i64> {
        sharing::inside(&self.0.label, id)
    }

    fn dealt(&self, lanes: &mut Lanes) -> Vec<Change> {
        sharing::give_back(lanes, &self.0.wanted, &self.0.bell)
    }
}

impl Queue for RedisQueue {
    fn desk(&self) -> &Desk {
        &self.desk
    }

    fn send(&self, messages: Vec<Message>) -> BoxFuture<'static, Result<Vec<String>, QueueError>> {
        let store = self.store.clone();
        Box::pin(async move { store.send(&messages).await })
    }

    fn status(&self) -> BoxFuture<'static, Result<QueueStatus, QueueError>> {
        let (desk, store) = (self.desk.clone(), self.store.clone());
        Box::pin(async move {
            let consumers = desk.lanes.borrow().counts().consumers as u64;
            let status = store.status().await.map_err(looked)?;
            Ok(QueueStatus {
                consumers,
                ..status
            })
        })
    }

    fn peek(&self, dead: bool, count: u32) -> BoxFuture<'static, Result<Vec<Peeked>, QueueError>> {
        let (desk, store) = (self.desk.clone(), self.store.clone());
        Box::pin(async move {
            let found = store.peek(dead, count).await.map_err(looked)?;
            Ok(found.into_iter().map(|it| desk.peeked(it)).collect())
        })
    }

    fn redrive(&self, count: u32) -> BoxFuture<'static, Result<u64, QueueError>> {
        let store = self.store.clone();
        to_the_end(async move { store.redrive(count).await })
    }

    fn purge(&self, dead: bool) -> BoxFuture<'static, Result<u64, QueueError>> {
        let store = self.store.clone();
        to_the_end(async move { store.purge(dead).await })
    }
}
