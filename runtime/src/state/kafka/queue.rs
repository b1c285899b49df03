//! A queue that is bound to Kafka, which several servers of wrun's may share: its desk, with what was read of this server's
//! partitions as the shelf.
//!
//! The servers are one group of consumers, which gives each partition to one of them (`member`, `take`). Messages of a partition are handled
//! in parallel, but for those of one key, and what became of them is committed as one offset with a note (`mark`): so a retry
//! stays where it is, and no topic of retries is written. `held` has what is here.

mod held;
mod letter;
mod look;
mod mark;
mod member;
mod operate;
mod send;
mod settle;
mod take;
#[cfg(test)]
mod tests;

use super::Address;
use super::line::{Failed, Line, Names};
use crate::config::shared;
use crate::failure::Failure;
use crate::state::BoxFuture;
use crate::state::queue::desk::{Desk, Found, Shelf, Sink, to_the_end};
use crate::state::queue::lanes::Lanes;
use crate::state::queue::sharing::{Bell, Room};
use crate::state::queue::stored::Change;
use crate::state::queue::{Message, Peeked, Queue, QueueError, QueueStatus};
use held::Holdings;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long a queue that is closed may take to tell what became of messages, and to leave its group.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// A queue. Clones are the same.
#[derive(Clone)]
pub struct KafkaQueue {
    desk: Rc<Desk>,
    store: Rc<Store>,
    keeper: Rc<RefCell<Keeper>>,
    _tasks: Rc<JoinSet<()>>,
}

/// What keeps up the line, and what takes; both end with the last clone of the queue.
#[derive(Default)]
struct Keeper {
    line: JoinSet<()>,
    taking: JoinSet<()>,
}

/// A queue's part of the cluster, and what is known of it here.
struct Store {
    label: String,
    line: Line,
    max_depth: Cell<u64>,
    room: RefCell<Room>,
    held: RefCell<Holdings>,
    /// What was committed has grown.
    saved: Notify,
    demand: Cell<Demand>,
    bell: Bell,
    is_closing: Cell<bool>,
}

/// What workers here can take.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Demand {
    /// Sessions that take messages.
    sessions: usize,
    /// Messages and batches that they have asked for.
    wanted: (u64, u64),
    in_flight: usize,
}

impl KafkaQueue {
    /// Takes a queue that is somewhere; nobody is asked yet whether it is there. To be called within a `LocalSet`.
    pub fn new(label: &str, settings: &shared::Queue, address: Address, sink: Sink) -> Self {
        let names = Names::new(&address, label);
        let store = Rc::new(Store {
            label: label.to_owned(),
            line: Line::new(format!("queue.{label}"), address, names),
            max_depth: Cell::new(settings.max_depth),
            room: RefCell::default(),
            held: RefCell::default(),
            saved: Notify::new(),
            demand: Cell::default(),
            bell: Bell::default(),
            is_closing: Cell::default(),
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

    /// Connects for the first time, and finds out whether the topics are there. If it `is_again`, because the state process was
    /// replaced, the cluster may be away.
    pub async fn prepare(&self, is_again: bool) -> Result<(), Failure> {
        if !self.keeper.borrow().line.is_empty() {
            return Ok(());
        }
        let (line, label) = (&self.store.line, &self.store.label);
        let live = line.first(&format!("queue {label}"), is_again).await?;
        let mut keeper = self.keeper.borrow_mut();
        keeper.line.spawn_local(line.clone().keep(live));
        let taking = take::keep(self.store.clone(), self.desk.clone());
        keeper.taking.spawn_local(taking);
        Ok(())
    }

    /// Works by other settings from now on.
    pub fn configure(&self, settings: &shared::Queue) {
        self.store.max_depth.set(settings.max_depth);
        self.desk.configure(settings);
    }

    /// Says why the cluster cannot be reached, if it cannot.
    pub fn why_away(&self) -> Option<String> {
        self.store.line.presence().why_away()
    }

    /// Tells what became of what was settled, and leaves the group: what is held here is read by others.
    pub async fn close(&self) {
        // If Kafka is away, it is not told.
        let _ = timeout(CLOSE_MAX, self.desk.journal.flush()).await;
        self.store.is_closing.set(true);
        self.store.bell.wake();
        let mut keeper = std::mem::take(&mut *self.keeper.borrow_mut());
        let left = async { while keeper.taking.join_next().await.is_some() {} };
        if timeout(CLOSE_MAX, left).await.is_err() {
            tracing::warn!(queue = self.store.label, "its group was not left in time");
        }
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
    QueueError::Unavailable(format!("Kafka: {failed}"))
}

/// What is held, as the desk knows it.
struct Kept(Rc<Store>);

impl Shelf for Kept {
    fn read(&self, ids: Vec<i64>) -> BoxFuture<'static, Result<Found, QueueError>> {
        let store = self.0.clone();
        Box::pin(async move { Ok(store.read(ids).await) })
    }

    fn write(&self, changes: Vec<Change>) -> BoxFuture<'static, Result<(), QueueError>> {
        let store = self.0.clone();
        Box::pin(async move { store.settle(changes).await.map_err(looked) })
    }

    fn outside(&self, id: i64) -> String {
        let held = self.0.held.borrow();
        held.get(id)
            .map_or_else(String::new, |it| it.letter.id.clone())
    }

    fn inside(&self, id: &str) -> Option<i64> {
        self.0.held.borrow().row(id)
    }

    fn dealt(&self, lanes: &mut Lanes) -> Vec<Change> {
        let counts = lanes.counts();
        let demand = Demand {
            sessions: counts.consumers,
            wanted: lanes.wanted(),
            in_flight: counts.in_flight,
        };
        let before = self.0.demand.replace(demand);
        if demand.sessions != before.sessions {
            self.0.bell.wake();
        }
        Vec::new()
    }
}

impl Queue for KafkaQueue {
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
        Box::pin(async move { store.peek(dead, count).await })
    }

    fn redrive(&self, count: u32) -> BoxFuture<'static, Result<u64, QueueError>> {
        let store = self.store.clone();
        to_the_end(async move { store.redrive(count).await })
    }

    fn purge(&self, dead: bool) -> BoxFuture<'static, Result<u64, QueueError>> {
        let (desk, store) = (self.desk.clone(), self.store.clone());
        to_the_end(async move { store.purge(dead, &desk).await })
    }
}
