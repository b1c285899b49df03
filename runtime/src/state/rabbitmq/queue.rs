//! A queue that is bound to RabbitMQ, which several servers of wrun's may share: its desk, with what RabbitMQ has handed out to
//! this server as the shelf.
//!
//! A message is held, not acknowledged, until its fate is told (`held`, `settle`); of those without a key RabbitMQ hands out no
//! more than workers here have asked for (`take`). Keys keep their order because of a lane of keys one server takes at a time
//! (`names`), so a message with a key waits for its retry here, and one without goes back. When a server or its connection is
//! gone, RabbitMQ hands out again what it held.

mod held;
mod letter;
mod look;
pub(super) mod names;
mod operate;
mod send;
mod settle;
mod take;
#[cfg(test)]
mod tests;

use super::Address;
use super::line::{Failed, Line};
use crate::config::shared;
use crate::failure::Failure;
use crate::state::BoxFuture;
use crate::state::queue::desk::{Desk, Found, Shelf, Sink, to_the_end};
use crate::state::queue::lanes::{HandsBack, Lanes};
use crate::state::queue::sharing::{Bell, Room};
use crate::state::queue::stored::Change;
use crate::state::queue::{DEAD_SUFFIX, Message, Peeked, Queue, QueueError, QueueStatus};
use held::{Held, Holdings};
use names::Names;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// A queue. Clones are the same.
#[derive(Clone)]
pub struct RabbitQueue {
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

/// A queue's part of the server, and what is known of it here.
struct Store {
    label: String,
    names: Rc<Names>,
    line: Line,
    max_depth: Cell<u64>,
    room: RefCell<Room>,
    held: RefCell<Holdings>,
    /// Those that waited for another one of their id.
    again: RefCell<Vec<Held>>,
    /// When something came here, or left.
    moved_at: Cell<Instant>,
    demand: Cell<Demand>,
    bell: Bell,
}

/// What workers here can take.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Demand {
    /// Sessions that take messages.
    sessions: usize,
    /// Messages, with those that they have.
    messages: u64,
    /// Messages and batches that they have asked for.
    wanted: (u64, u64),
    in_flight: usize,
}

impl RabbitQueue {
    /// Takes a queue that is somewhere; nobody is asked yet whether it is there. To be called within a `LocalSet`.
    pub fn new(label: &str, settings: &shared::Queue, address: Address, sink: Sink) -> Self {
        let names = Rc::new(Names::new(label));
        let store = Rc::new(Store {
            label: label.to_owned(),
            line: Line::new(format!("queue.{label}"), address, names.clone()),
            names,
            max_depth: Cell::new(settings.max_depth),
            room: RefCell::default(),
            held: RefCell::default(),
            again: RefCell::default(),
            moved_at: Cell::new(Instant::now()),
            demand: Cell::default(),
            bell: Bell::default(),
        });
        let shelf = Rc::new(Kept(store.clone()));
        let (desk, tasks) = Desk::new(label.to_owned(), settings, shelf, sink, |lanes| {
            lanes.handing_back(HandsBack::WithoutKey)
        });
        Self {
            desk,
            store,
            keeper: Rc::default(),
            _tasks: Rc::new(tasks),
        }
    }

    /// Connects for the first time, and makes what the queue consists of. If it `is_again`, because the state process was
    /// replaced, the server may be away.
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

    /// Says why the server cannot be reached, if it cannot.
    pub fn why_away(&self) -> Option<String> {
        self.store.line.presence().why_away()
    }

    /// Deletes all that it consists of.
    #[cfg(test)]
    pub async fn delete(&self) {
        let live = self
            .store
            .line
            .first("queue", false)
            .await
            .unwrap()
            .unwrap();
        let channel = live.channel().await.unwrap();
        self.store.names.delete(&channel).await.unwrap();
        live.close().await;
        self.store.line.end();
    }

    /// Tells what became of what was settled, and ends the connections: what is held here is handed out again.
    pub async fn close(&self) {
        self.desk.journal.flush().await;
        let live = self.store.line.live();
        {
            let mut keeper = self.keeper.borrow_mut();
            keeper.taking.abort_all();
            keeper.line.abort_all();
        }
        if let Ok(live) = live {
            live.close().await;
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
    QueueError::Unavailable(format!("RabbitMQ: {failed}"))
}

/// What is held, as the desk knows it.
struct Kept(Rc<Store>);

impl Shelf for Kept {
    fn read(&self, ids: Vec<i64>) -> BoxFuture<'static, Result<Found, QueueError>> {
        let held = self.0.held.borrow();
        let found = ids
            .into_iter()
            .map(|id| (id, held.stored(id, &self.0.label)));
        let found: Found = found.collect();
        Box::pin(std::future::ready(Ok(found)))
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
        let (counts, wanted) = (lanes.counts(), lanes.wanted());
        let demand = Demand {
            sessions: counts.consumers,
            messages: wanted.0 + counts.in_flight as u64,
            wanted,
            in_flight: counts.in_flight,
        };
        let before = self.0.demand.replace(demand);
        if demand.messages > before.messages || demand.sessions != before.sessions {
            self.0.bell.wake();
        }
        Vec::new()
    }
}

impl Queue for RabbitQueue {
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
