//! What the lanes need to work: a clock, the way of messages to their sessions, and that of their fates to where they are
//! kept.
//!
//! Decides nothing about who gets what: `lanes` does. What a message contains stays on the shelf until the message is
//! delivered, and what became of it is written there behind the back of those who settled it: a message whose fate was not
//! written when the process ended is delivered again.

mod journal;
mod outgoing;

pub(in crate::state) use outgoing::{BATCH_BYTES_MAX, Found, fit};

use super::lanes::{Effect, Entry, Lanes, Policy};
use super::stored::{Change, StoredMessage};
use super::{Delivery, EXTEND_MAX, Peeked, QueueError, Settled};
use crate::config::shared;
use crate::state::lock::SessionId;
use crate::state::{BoxFuture, Millis, wall_ms};
use journal::Journal;
use outgoing::{Batch, Outgoing};
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// Takes deliveries, all of one batch, to their session.
pub type Sink = Rc<dyn Fn(SessionId, Vec<Delivery>)>;

/// Messages that `peek` returns.
pub(in crate::state) const PEEK_MAX: u32 = 100;
/// How long to leave a shelf alone after it has failed.
pub(in crate::state) const PAUSE: Duration = Duration::from_millis(500);
/// The longest time that the timer is set for.
const TIMER_MAX: Millis = 3_600_000;

/// Where messages are kept.
pub(in crate::state) trait Shelf {
    /// Reads messages with what they contain.
    fn read(&self, ids: Vec<i64>) -> BoxFuture<'static, Result<Found, QueueError>>;

    /// Writes down what became of messages; those that are gone are passed over.
    fn write(&self, changes: Vec<Change>) -> BoxFuture<'static, Result<(), QueueError>>;

    /// Returns the id of a message that is known outside.
    fn outside(&self, id: i64) -> String;

    /// Returns the row of a message by the id that is known outside.
    fn inside(&self, id: &str) -> Option<i64>;

    /// The lanes have dealt what they have. Returns what becomes of what is left.
    fn dealt(&self, _: &mut Lanes) -> Vec<Change> {
        Vec::new()
    }
}

/// One queue's lanes at work.
pub struct Desk {
    pub(in crate::state) label: String,
    pub(in crate::state) shelf: Rc<dyn Shelf>,
    pub(in crate::state) lanes: RefCell<Lanes>,
    pub(in crate::state) journal: Rc<Journal>,
    sink: Sink,
    max_attempts: Cell<u32>,
    start: Instant,
    /// When the timer wakes up, if it does.
    alarm: Cell<Option<Millis>>,
    /// The timer has to wake up earlier.
    earlier: Notify,
    outgoing: Outgoing,
}

impl Desk {
    /// Returns one with nothing on it; `lanes` makes the lanes of a policy. It works within the tasks.
    pub(in crate::state) fn new(
        label: String,
        settings: &shared::Queue,
        shelf: Rc<dyn Shelf>,
        sink: Sink,
        lanes: impl FnOnce(Lanes) -> Lanes,
    ) -> (Rc<Self>, JoinSet<()>) {
        let desk = Rc::new(Self {
            journal: Rc::new(Journal::new(label.clone(), shelf.clone())),
            label,
            shelf,
            lanes: RefCell::new(lanes(Lanes::new(policy(settings), random))),
            sink,
            max_attempts: Cell::new(settings.max_attempts),
            start: Instant::now(),
            alarm: Cell::default(),
            earlier: Notify::new(),
            outgoing: Outgoing::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn_local(keep_time(desk.clone()));
        tasks.spawn_local(outgoing::hand_out(desk.clone()));
        tasks.spawn_local(desk.journal.clone().write());
        (desk, tasks)
    }

    /// Works by other settings from now on.
    pub(in crate::state) fn configure(&self, settings: &shared::Queue) {
        self.max_attempts.set(settings.max_attempts);
        self.lanes.borrow_mut().set_policy(policy(settings));
        self.run();
    }

    /// Takes messages. Those that are here already are passed over.
    pub(in crate::state) fn add(&self, entries: impl IntoIterator<Item = Entry>) {
        self.lanes.borrow_mut().add(entries);
        self.run();
    }

    /// Takes messages that were claimed of a shelf that others use, too, but for those of which it is not written here what became
    /// of them before, and returns these: either that is written for the new claim, or nobody here knows that they are held.
    pub(in crate::state) fn add_claimed(&self, entries: Vec<Entry>) -> Vec<i64> {
        let settled: HashSet<i64> = self.journal.ids().into_iter().collect();
        let is_late = |entry: &Entry| settled.contains(&entry.id);
        let (late, entries): (Vec<_>, Vec<_>) = entries.into_iter().partition(is_late);
        self.add(entries);
        late.into_iter().map(|entry| entry.id).collect()
    }

    pub(in crate::state) fn credit(&self, session: SessionId, batch: u32, batches: u32) {
        self.lanes.borrow_mut().credit(session, batch, batches);
        self.run();
    }

    pub(in crate::state) fn settle(&self, session: SessionId, settled: Vec<Settled>) {
        let now = self.now();
        let mut lanes = self.lanes.borrow_mut();
        for Settled {
            id,
            receipt,
            outcome,
        } in settled
        {
            if let Some(id) = self.shelf.inside(&id) {
                lanes.settle(session, (id, receipt), outcome, now);
            }
        }
        drop(lanes);
        self.run();
    }

    pub(in crate::state) fn extend(
        &self,
        session: SessionId,
        id: &str,
        ms: u32,
    ) -> Result<(), QueueError> {
        let ms = Millis::from(ms);
        if u128::from(ms) > EXTEND_MAX.as_millis() {
            let most = EXTEND_MAX.as_millis();
            let message = format!("a delivery can be extended by at most {most} ms");
            return Err(QueueError::Invalid(message));
        }
        let id = self.shelf.inside(id).ok_or(QueueError::NotYours)?;
        let now = self.now();
        if !self.lanes.borrow_mut().extend(session, id, ms, now) {
            return Err(QueueError::NotYours);
        }
        self.run();
        Ok(())
    }

    pub(in crate::state) fn leave(&self, session: SessionId, abort: bool) {
        let now = self.now();
        let mut lanes = self.lanes.borrow_mut();
        self.outgoing.take_back(session, &mut lanes);
        lanes.leave(session, abort, now);
        drop(lanes);
        self.run();
    }

    /// Returns the messages that are here, or whose fate is on its way.
    pub(in crate::state) fn known(&self) -> Vec<i64> {
        let mut known = self.lanes.borrow().ids();
        known.extend(self.journal.ids());
        known
    }

    /// Nothing that is here is this process's any more.
    pub(in crate::state) fn lose(&self) {
        self.lanes.borrow_mut().lose();
        self.journal.clear();
    }

    /// Has the lanes say what is to be done, and sees to it.
    pub(in crate::state) fn run(&self) {
        let mut lanes = self.lanes.borrow_mut();
        let effects = lanes.step(self.now());
        let left = self.shelf.dealt(&mut lanes);
        let next = lanes.next_deadline();
        drop(lanes);
        for effect in effects {
            self.see_to(effect);
        }
        for change in left {
            self.journal.note(change);
        }
        if next.is_some_and(|next| self.alarm.get().is_none_or(|alarm| next < alarm)) {
            self.earlier.notify_one();
        }
    }

    fn see_to(&self, effect: Effect) {
        match effect {
            Effect::Deliver {
                session,
                batch,
                deadline,
            } => self.outgoing.push(Batch {
                session,
                messages: batch,
                deadline,
            }),
            Effect::Remove { id } => self.journal.note(Change::Remove { id }),
            Effect::Retry {
                id,
                attempts,
                ready_at,
                alone,
            } => self.journal.note(Change::Retry {
                id,
                attempts,
                ready_at_ms: self.to_wall(ready_at),
                alone,
            }),
            Effect::Dead {
                id,
                attempts,
                reason,
            } => self.journal.note(Change::Dead {
                id,
                attempts,
                reason,
            }),
        }
    }

    /// Returns a message as `peek` shows it.
    pub(in crate::state) fn peeked(&self, message: StoredMessage) -> Peeked {
        Peeked {
            id: self.shelf.outside(message.stored.id),
            key: message.stored.key,
            attempts: message.stored.attempts,
            sent_at_ms: message.stored.sent_at_ms,
            content_type: message.content_type,
            headers: message.headers,
            body: message.body,
        }
    }

    pub(in crate::state) fn now(&self) -> Millis {
        self.start.elapsed().as_millis() as Millis
    }

    /// Returns a time in milliseconds since 1970.
    pub(in crate::state) fn to_wall(&self, time: Millis) -> u64 {
        wall_ms().saturating_add(time.saturating_sub(self.now()))
    }

    /// Returns a time that is in milliseconds since 1970.
    pub(in crate::state) fn of_wall(&self, ms: u64) -> Millis {
        let now = self.now();
        match ms.saturating_sub(wall_ms()) {
            0 => now,
            // Both clocks are read in whole milliseconds: without one more it could come early by a part of one.
            left => now.saturating_add(left).saturating_add(1),
        }
    }
}

/// Runs the lanes whenever a time has come.
async fn keep_time(desk: Rc<Desk>) {
    loop {
        let next = desk.lanes.borrow().next_deadline();
        desk.alarm.set(next);
        let wait = next.map_or(TIMER_MAX, |next| {
            next.saturating_sub(desk.now()).min(TIMER_MAX)
        });
        // Both ways there is something to look at.
        let _ = timeout(Duration::from_millis(wait), desk.earlier.notified()).await;
        desk.run();
    }
}

/// Runs to its end what must not be left half done by somebody who does not wait for it.
pub(in crate::state) fn to_the_end<T: 'static>(
    work: impl Future<Output = Result<T, QueueError>> + 'static,
) -> BoxFuture<'static, Result<T, QueueError>> {
    let task = tokio::task::spawn_local(work);
    Box::pin(async {
        let gone = |_| Err(QueueError::Unavailable("the queue was closed".to_owned()));
        task.await.unwrap_or_else(gone)
    })
}

fn policy(settings: &shared::Queue) -> Policy {
    Policy {
        max_attempts: settings.max_attempts,
        visibility_ms: settings.visibility_timeout.as_millis() as Millis,
        backoff_ms: settings.backoff.as_millis() as Millis,
        backoff_max_ms: settings.backoff_max.as_millis() as Millis,
    }
}

/// Returns a random number from 0 to `max`; without randomness, `max`.
fn random(max: u64) -> u64 {
    let Ok(number) = getrandom::u64() else {
        return max;
    };
    max.checked_add(1).map_or(number, |count| number % count)
}
