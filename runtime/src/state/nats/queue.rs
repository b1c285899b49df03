//! A queue that is bound to NATS JetStream, which several servers of wrun's may share: its desk, with a stream as the shelf.
//!
//! Messages are spread over shards, those of one key in the same. Each shard has one server of wrun's at a time (`seats`),
//! by a lease that it renews (`rounds`); it reads what is in the shard (`load`), and its lanes decide as they do for an
//! embedded queue: so a key waits for its own messages alone, and no wait holds up more than that. What was handled is
//! deleted from the stream, which is a question and an answer; until then it is there for whoever has the shard next.
//!
//! No consumer of JetStream's that several servers ask would do. It hands out a shard's messages to whoever comes; to keep
//! those of a key apart it could be made to hand out one at a time, and then a delayed message, or a retry, of one key would
//! hold up every other key beside it. It counts how often a message was handed out, which is not how often it was tried.
//! And a message that is not due would have to be taken and given back until it is.

mod envelope;
mod index;
mod load;
mod look;
mod names;
mod operate;
mod rounds;
mod seats;
mod send;
mod settle;
#[cfg(test)]
mod tests;
mod watch;

use super::Address;
use super::line::{Failed, Line};
use crate::config::shared;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::state::BoxFuture;
use crate::state::queue::desk::{Desk, Found, Shelf, Sink, to_the_end};
use crate::state::queue::lanes::Lanes;
use crate::state::queue::sharing::{self, Bell};
use crate::state::queue::stored::Change;
use crate::state::queue::{Message, Peeked, Queue, QueueError, QueueStatus};
use index::Index;
use names::Names;
use rounds::Tenure;
use seats::View;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// A queue. Clones are the same.
#[derive(Clone)]
pub struct NatsQueue {
    desk: Rc<Desk>,
    store: Rc<Store>,
    keeper: Rc<RefCell<Keeper>>,
    _tasks: Rc<JoinSet<()>>,
}

/// What keeps up the line, and what works on it; both end with the last clone of the queue.
#[derive(Default)]
struct Keeper {
    line: JoinSet<()>,
    work: JoinSet<()>,
}

/// A queue's part of the server, and what is known of it here.
struct Store {
    label: String,
    /// What the holders of this server of wrun's begin with; the same after its state process was replaced.
    server: String,
    names: Names,
    line: Line,
    max_depth: Cell<u64>,
    /// The stream takes more than that, so that it has to be looked.
    is_lax: Cell<bool>,
    /// The streams are as they have to be.
    is_made: Cell<bool>,
    /// Who has which shard, as far as it is known; and whether all that there was has been seen.
    view: RefCell<View>,
    has_view: Cell<bool>,
    /// Where other servers ask this one.
    inbox: RefCell<String>,
    tenure: RefCell<Tenure>,
    index: RefCell<Index>,
    /// Somebody here takes messages.
    is_taking: Cell<bool>,
    bell: Bell,
    /// Other shards are to be read than before.
    reload: Notify,
    last_shard: Cell<u8>,
}

impl NatsQueue {
    /// Takes a queue that is somewhere; nobody is asked yet whether it is there. `server` is the same for all state processes
    /// that follow each other in one server, and only for them. To be called within a `LocalSet`.
    pub fn new(
        label: &str,
        settings: &shared::Queue,
        address: Address,
        server: &str,
        sink: Sink,
    ) -> Self {
        let store = Rc::new(Store {
            label: label.to_owned(),
            server: format!("{server}-"),
            names: Names::new(label),
            line: Line::new(format!("queue.{label}"), address),
            max_depth: Cell::new(settings.max_depth),
            is_lax: Cell::default(),
            is_made: Cell::default(),
            view: RefCell::default(),
            has_view: Cell::default(),
            inbox: RefCell::default(),
            tenure: RefCell::default(),
            index: RefCell::default(),
            is_taking: Cell::default(),
            bell: Bell::default(),
            reload: Notify::new(),
            last_shard: Cell::default(),
        });
        let shelf = Rc::new(Kept(store.clone()));
        let (desk, tasks) = Desk::new(label.to_owned(), settings, shelf, sink, |lanes| lanes);
        Self {
            desk,
            store,
            keeper: Rc::default(),
            _tasks: Rc::new(tasks),
        }
    }

    /// Connects for the first time, and makes the streams: a server that keeps none is of no use. If it `is_again`, because the
    /// state process was replaced, the server may be away.
    pub async fn prepare(&self, is_again: bool) -> Result<(), Failure> {
        if !self.keeper.borrow().line.is_empty() {
            return Ok(());
        }
        let line = &self.store.line;
        let live = match line.connect().await {
            Ok(live) => {
                line.is_here(&live);
                Some(live)
            }
            Err(why) if is_again => {
                let bound = line.name();
                tracing::warn!(bound, why, "goes on without its server");
                None
            }
            Err(why) => return Err(self.unusable(&why)),
        };
        if live.is_some() && !is_again {
            let made = self.store.make_streams().await;
            made.map_err(|failed| self.unusable(&failed.to_string()))?;
        }
        let (store, desk) = (&self.store, &self.desk);
        let mut keeper = self.keeper.borrow_mut();
        keeper.line.spawn_local(line.clone().keep(live));
        let work = &mut keeper.work;
        work.spawn_local(watch::keep(store.clone(), desk.clone()));
        work.spawn_local(rounds::keep(store.clone(), desk.clone()));
        work.spawn_local(load::keep(store.clone(), desk.clone()));
        Ok(())
    }

    fn unusable(&self, why: &str) -> Failure {
        let (label, name) = (&self.store.label, self.store.line.name());
        let what = format!("queue {label}: NATS: {why}");
        Failure::new(ExitCode::Unavailable, what).hint(format!(
            "check the binding {name}, and that nats-server runs there with JetStream"
        ))
    }

    /// Works by other settings from now on.
    pub fn configure(&self, settings: &shared::Queue) {
        self.store.max_depth.set(settings.max_depth);
        self.store.is_made.set(false);
        self.store.bell.wake();
        self.desk.configure(settings);
    }

    /// Says why the server cannot be reached, if it cannot.
    pub fn why_away(&self) -> Option<String> {
        self.store.line.presence().why_away()
    }

    /// Writes down what was settled, gives back what is held here, and ends its connection.
    pub async fn close(&self) {
        // Nothing is taken any more.
        self.keeper.borrow_mut().work.abort_all();
        self.desk.journal.flush().await;
        // If it fails, the lease runs out.
        let _ = self.store.step_down().await;
        self.keeper.borrow_mut().line.abort_all();
    }
}

impl Store {
    /// Returns the id of a message that is known outside.
    fn outside(&self, id: i64) -> String {
        sharing::outside(&self.label, id)
    }
}

/// Returns why a change was not made, or that nobody knows whether it was.
fn changed(failed: Failed) -> QueueError {
    match failed {
        Failed::Unknown(_) => QueueError::OutcomeUnknown,
        Failed::Away(_) | Failed::Refused(..) => looked(failed),
    }
}

/// Returns why nothing was seen.
fn looked(failed: Failed) -> QueueError {
    QueueError::Unavailable(format!("NATS: {failed}"))
}

/// The streams as the desk knows them.
struct Kept(Rc<Store>);

impl Shelf for Kept {
    fn read(&self, ids: Vec<i64>) -> BoxFuture<'static, Result<Found, QueueError>> {
        let store = self.0.clone();
        Box::pin(async move { store.read(&ids).await.map_err(looked) })
    }

    fn write(&self, changes: Vec<Change>) -> BoxFuture<'static, Result<(), QueueError>> {
        let store = self.0.clone();
        Box::pin(async move { store.write(changes).await.map_err(looked) })
    }

    fn outside(&self, id: i64) -> String {
        self.0.outside(self.0.index.borrow().outside(id))
    }

    fn inside(&self, id: &str) -> Option<i64> {
        let id = sharing::inside(&self.0.label, id)?;
        self.0.index.borrow().inside(id)
    }

    fn dealt(&self, lanes: &mut Lanes) -> Vec<Change> {
        let is_taking = lanes.counts().consumers > 0;
        if self.0.is_taking.replace(is_taking) != is_taking {
            self.0.bell.wake();
        }
        Vec::new()
    }
}

impl Queue for NatsQueue {
    fn desk(&self) -> &Desk {
        &self.desk
    }

    fn send(&self, messages: Vec<Message>) -> BoxFuture<'static, Result<Vec<String>, QueueError>> {
        let store = self.store.clone();
        Box::pin(async move { store.send(messages).await })
    }

    fn status(&self) -> BoxFuture<'static, Result<QueueStatus, QueueError>> {
        let (desk, store) = (self.desk.clone(), self.store.clone());
        Box::pin(async move { store.status(&desk).await.map_err(looked) })
    }

    fn peek(&self, dead: bool, count: u32) -> BoxFuture<'static, Result<Vec<Peeked>, QueueError>> {
        let store = self.store.clone();
        Box::pin(async move { store.peek(dead, count).await.map_err(looked) })
    }

    fn redrive(&self, count: u32) -> BoxFuture<'static, Result<u64, QueueError>> {
        let store = self.store.clone();
        to_the_end(async move { store.redrive(count).await })
    }

    fn purge(&self, dead: bool) -> BoxFuture<'static, Result<u64, QueueError>> {
        let (desk, store) = (self.desk.clone(), self.store.clone());
        to_the_end(async move { store.purge(&desk, dead).await.map_err(changed) })
    }
}
