//! The embedded queue: the lanes with a clock, and with a database that keeps their messages.
//!
//! Decides nothing about who gets what: `lanes` does. What a message contains stays in the database until the message is
//! delivered, and what became of it is written there behind the back of those who settled it: a message whose fate was not
//! written when the process ended is delivered again.

mod journal;
mod outgoing;
#[cfg(test)]
mod tests;

use super::lanes::{Effect, Entry, Lanes, Policy};
use super::{
    DEAD_SUFFIX, Delivery, EXTEND_MAX, Message, Peeked, Queue, QueueError, QueueStatus, Settled,
};
use crate::config::shared;
use crate::state::lock::SessionId;
use crate::state::sqlite::Sqlite;
use crate::state::sqlite::messages::{Change, Stored, StoredMessage};
use crate::state::{BoxFuture, Millis, wall_ms};
use journal::Journal;
use outgoing::{Batch, Outgoing, fit};
use std::cell::{Cell, RefCell};
use std::future::ready;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// Takes deliveries, all of one batch, to their session.
pub type Sink = Rc<dyn Fn(SessionId, Vec<Delivery>)>;

/// Messages that `peek` returns.
const PEEK_MAX: u32 = 100;
/// Dead letters that are sent back in one transaction.
const REDRIVE_STEP: u64 = 100;
/// How long to leave the database alone after it has failed.
const PAUSE: Duration = Duration::from_millis(500);
/// The longest time that the timer is set for.
const TIMER_MAX: Millis = 3_600_000;

/// A queue whose messages are rows of an embedded database. Clones are the same one.
#[derive(Clone)]
pub struct EmbeddedQueue {
    inner: Rc<Inner>,
    /// The timer, the reader and the writer; they end with the last clone.
    _tasks: Rc<JoinSet<()>>,
}

struct Inner {
    label: String,
    sqlite: Sqlite,
    sink: Sink,
    lanes: RefCell<Lanes>,
    max_attempts: Cell<u32>,
    start: Instant,
    /// When the timer wakes up, if it does.
    alarm: Cell<Option<Millis>>,
    /// The timer has to wake up earlier.
    earlier: Notify,
    outgoing: Outgoing,
    journal: Rc<Journal>,
}

impl EmbeddedQueue {
    /// Returns the queue with the messages and dead letters that are there already. To be called within a `LocalSet`.
    pub fn new(
        label: String,
        settings: &shared::Queue,
        sqlite: Sqlite,
        sink: Sink,
        stored: Vec<Stored>,
    ) -> Self {
        let journal = Rc::new(Journal::new(label.clone(), sqlite.clone()));
        let inner = Rc::new(Inner {
            label,
            sqlite,
            sink,
            lanes: RefCell::new(Lanes::new(policy(settings), random)),
            max_attempts: Cell::new(settings.max_attempts),
            start: Instant::now(),
            alarm: Cell::default(),
            earlier: Notify::new(),
            outgoing: Outgoing::default(),
            journal: journal.clone(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn_local(keep_time(inner.clone()));
        tasks.spawn_local(outgoing::hand_out(inner.clone()));
        tasks.spawn_local(journal.write());
        let queue = Self {
            inner,
            _tasks: Rc::new(tasks),
        };
        queue.arrived(stored);
        queue
    }

    /// Works by other settings from now on.
    pub fn configure(&self, settings: &shared::Queue) {
        self.inner.max_attempts.set(settings.max_attempts);
        self.inner.lanes.borrow_mut().set_policy(policy(settings));
        self.inner.run();
    }

    /// Takes messages that the database has got. Those that are here already are passed over.
    pub fn arrived(&self, stored: Vec<Stored>) {
        let (now, wall) = (self.inner.now(), wall_ms());
        let (messages, dead): (Vec<_>, Vec<_>) = stored
            .into_iter()
            .partition(|stored| stored.queue == self.inner.label);
        self.inner.journal.count_dead(dead.len() as i64);
        let entries = messages.into_iter().map(|stored| Entry {
            id: stored.id,
            key: stored.key,
            attempts: stored.attempts,
            alone: stored.alone,
            ready_at: match stored.ready_at_ms.saturating_sub(wall) {
                0 => now,
                // Both clocks are read in whole milliseconds: without one more it could come early by a part of one.
                left => now.saturating_add(left).saturating_add(1),
            },
        });
        self.inner.lanes.borrow_mut().add(entries);
        self.inner.run();
    }

    /// Waits until all that was settled so far is written: what is not is delivered again after a restart.
    pub async fn flush(&self) {
        self.inner.journal.flush().await;
    }
}

impl Queue for EmbeddedQueue {
    fn send(&self, messages: Vec<Message>) -> BoxFuture<'static, Result<Vec<String>, QueueError>> {
        let inner = &self.inner;
        inner.sqlite.send(inner.label.clone(), messages)
    }

    fn credit(&self, session: SessionId, batch: u32, batches: u32) {
        let mut lanes = self.inner.lanes.borrow_mut();
        lanes.credit(session, batch, batches);
        drop(lanes);
        self.inner.run();
    }

    fn settle(&self, session: SessionId, settled: Vec<Settled>) {
        let now = self.inner.now();
        let mut lanes = self.inner.lanes.borrow_mut();
        for Settled {
            id,
            receipt,
            outcome,
        } in settled
        {
            if let Some(id) = self.inner.row(&id) {
                lanes.settle(session, (id, receipt), outcome, now);
            }
        }
        drop(lanes);
        self.inner.run();
    }

    fn extend(&self, session: SessionId, id: &str, ms: u32) -> Result<(), QueueError> {
        let ms = Millis::from(ms);
        if u128::from(ms) > EXTEND_MAX.as_millis() {
            let most = EXTEND_MAX.as_millis();
            let message = format!("a delivery can be extended by at most {most} ms");
            return Err(QueueError::Invalid(message));
        }
        let id = self.inner.row(id).ok_or(QueueError::NotYours)?;
        let now = self.inner.now();
        if !self.inner.lanes.borrow_mut().extend(session, id, ms, now) {
            return Err(QueueError::NotYours);
        }
        self.inner.run();
        Ok(())
    }

    fn leave(&self, session: SessionId, abort: bool) {
        let now = self.inner.now();
        let mut lanes = self.inner.lanes.borrow_mut();
        self.inner.outgoing.take_back(session, &mut lanes);
        lanes.leave(session, abort, now);
        drop(lanes);
        self.inner.run();
    }

    fn status(&self) -> BoxFuture<'static, Result<QueueStatus, QueueError>> {
        let inner = self.inner.clone();
        let oldest = inner.sqlite.peek(inner.label.clone(), 1);
        Box::pin(async move {
            let sent_at = oldest.await?.first().map(|oldest| oldest.stored.sent_at_ms);
            inner.run();
            let counts = inner.lanes.borrow().counts();
            Ok(QueueStatus {
                queue: inner.label.clone(),
                messages: counts.messages as u64,
                ready: counts.ready as u64,
                delayed: counts.delayed as u64,
                in_flight: counts.in_flight as u64,
                dead: inner.journal.dead(),
                consumers: counts.consumers as u64,
                oldest_ms: sent_at.map_or(0, |sent_at| wall_ms().saturating_sub(sent_at)),
            })
        })
    }

    fn peek(&self, dead: bool, count: u32) -> BoxFuture<'static, Result<Vec<Peeked>, QueueError>> {
        let inner = self.inner.clone();
        let found = inner.sqlite.peek(inner.rows_of(dead), count.min(PEEK_MAX));
        Box::pin(async move {
            let mut taken = 0;
            let found = found.await?;
            let fitting = found
                .into_iter()
                .take_while(|message| fit(message, &mut taken));
            Ok(fitting.map(|message| inner.peeked(message)).collect())
        })
    }

    fn redrive(&self, count: u32) -> BoxFuture<'static, Result<u64, QueueError>> {
        let inner = self.inner.clone();
        to_the_end(async move {
            // Not those that become dead letters again meanwhile.
            let count = inner.journal.dead().min(u64::from(count));
            let mut moved = 0;
            while moved < count {
                let step = (count - moved).min(REDRIVE_STEP) as u32;
                match inner.sqlite.redrive(inner.label.clone(), step).await {
                    Ok(0) => break,
                    Ok(more) => {
                        moved += more;
                        inner.journal.count_dead(-more.cast_signed());
                    }
                    Err(_) if moved > 0 => break,
                    Err(error) => return Err(error),
                }
            }
            Ok(moved)
        })
    }

    fn purge(&self, dead: bool) -> BoxFuture<'static, Result<u64, QueueError>> {
        let inner = self.inner.clone();
        if dead {
            return to_the_end(async move {
                let removed = inner.sqlite.purge(inner.rows_of(true), None).await?;
                inner.journal.count_dead(-removed.cast_signed());
                Ok(removed)
            });
        }
        let entries = inner.lanes.borrow_mut().purge();
        if entries.is_empty() {
            return Box::pin(ready(Ok(0)));
        }
        to_the_end(async move {
            let ids = entries.iter().map(|entry| entry.id).collect();
            let removed = inner.sqlite.purge(inner.label.clone(), Some(ids)).await;
            if removed.is_err() {
                inner.lanes.borrow_mut().add(entries);
                inner.run();
            }
            removed
        })
    }
}

impl Inner {
    /// Has the lanes say what is to be done, and sees to it.
    fn run(&self) {
        let effects = self.lanes.borrow_mut().step(self.now());
        for effect in effects {
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
        let next = self.lanes.borrow().next_deadline();
        if next.is_some_and(|next| self.alarm.get().is_none_or(|alarm| next < alarm)) {
            self.earlier.notify_one();
        }
    }

    fn peeked(&self, message: StoredMessage) -> Peeked {
        Peeked {
            id: self.sqlite.external_id(message.stored.id),
            key: message.stored.key,
            attempts: message.stored.attempts,
            sent_at_ms: message.stored.sent_at_ms,
            content_type: message.content_type,
            headers: message.headers,
            body: message.body,
        }
    }

    /// Returns the row of a message by the id that is known outside.
    fn row(&self, id: &str) -> Option<i64> {
        let row = id.strip_prefix(self.sqlite.label())?.strip_prefix('-')?;
        row.parse().ok()
    }

    /// Returns what the rows of this queue, or of its dead letters, are marked with.
    fn rows_of(&self, dead: bool) -> String {
        let suffix = if dead { DEAD_SUFFIX } else { "" };
        format!("{}{suffix}", self.label)
    }

    fn now(&self) -> Millis {
        self.start.elapsed().as_millis() as Millis
    }

    /// Returns a time in milliseconds since 1970.
    fn to_wall(&self, time: Millis) -> u64 {
        wall_ms().saturating_add(time.saturating_sub(self.now()))
    }
}

/// Runs the lanes whenever a time has come.
async fn keep_time(queue: Rc<Inner>) {
    loop {
        let next = queue.lanes.borrow().next_deadline();
        queue.alarm.set(next);
        let wait = next.map_or(TIMER_MAX, |next| {
            next.saturating_sub(queue.now()).min(TIMER_MAX)
        });
        // Both ways there is something to look at.
        let _ = timeout(Duration::from_millis(wait), queue.earlier.notified()).await;
        queue.run();
    }
}

/// Runs to its end what must not be left half done by somebody who does not wait for it.
fn to_the_end<T: 'static>(
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
