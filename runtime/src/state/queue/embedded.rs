//! The embedded queue: its desk, with a database as the shelf.

#[cfg(test)]
mod tests;

use super::desk::{Desk, Found, PEEK_MAX, Shelf, Sink, fit, to_the_end};
use super::lanes::Entry;
use super::stored::{Change, Stored};
use super::{DEAD_SUFFIX, Message, Peeked, Queue, QueueError, QueueStatus};
use crate::config::shared;
use crate::state::sqlite::Sqlite;
use crate::state::{BoxFuture, wall_ms};
use std::future::ready;
use std::rc::Rc;
use tokio::task::JoinSet;

/// Dead letters that are sent back in one transaction.
const REDRIVE_STEP: u64 = 100;

/// A queue whose messages are rows of an embedded database. Clones are the same one.
#[derive(Clone)]
pub struct EmbeddedQueue {
    desk: Rc<Desk>,
    sqlite: Sqlite,
    /// They end with the last clone.
    _tasks: Rc<JoinSet<()>>,
}

/// A queue's rows of the database.
struct Rows {
    queue: String,
    sqlite: Sqlite,
}

impl Shelf for Rows {
    fn read(&self, ids: Vec<i64>) -> BoxFuture<'static, Result<Found, QueueError>> {
        let read = self.sqlite.read(ids.clone());
        Box::pin(async move {
            let mut found: Found = ids.into_iter().map(|id| (id, None)).collect();
            for message in read.await? {
                found.insert(message.stored.id, Some(message));
            }
            Ok(found)
        })
    }

    fn write(&self, changes: Vec<Change>) -> BoxFuture<'static, Result<(), QueueError>> {
        self.sqlite.settle(self.queue.clone(), changes)
    }

    fn outside(&self, id: i64) -> String {
        self.sqlite.external_id(id)
    }

    fn inside(&self, id: &str) -> Option<i64> {
        let row = id.strip_prefix(self.sqlite.label())?.strip_prefix('-')?;
        row.parse().ok()
    }
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
        let shelf = Rc::new(Rows {
            queue: label.clone(),
            sqlite: sqlite.clone(),
        });
        let (desk, tasks) = Desk::new(label, settings, shelf, sink, |lanes| lanes);
        let queue = Self {
            desk,
            sqlite,
            _tasks: Rc::new(tasks),
        };
        queue.arrived(stored);
        queue
    }

    /// Works by other settings from now on.
    pub fn configure(&self, settings: &shared::Queue) {
        self.desk.configure(settings);
    }

    /// Takes messages that the database has got. Those that are here already are passed over.
    pub fn arrived(&self, stored: Vec<Stored>) {
        let (messages, dead): (Vec<_>, Vec<_>) = stored
            .into_iter()
            .partition(|stored| stored.queue == self.desk.label);
        self.desk.journal.count_dead(dead.len() as i64);
        self.desk.add(messages.into_iter().map(|stored| Entry {
            id: stored.id,
            key: stored.key,
            attempts: stored.attempts,
            alone: stored.alone,
            ready_at: self.desk.of_wall(stored.ready_at_ms),
        }));
    }

    /// Waits until all that was settled so far is written: what is not is delivered again after a restart.
    pub async fn flush(&self) {
        self.desk.journal.flush().await;
    }

    /// Returns what the rows of this queue, or of its dead letters, are marked with.
    fn rows_of(&self, dead: bool) -> String {
        let suffix = if dead { DEAD_SUFFIX } else { "" };
        format!("{}{suffix}", self.desk.label)
    }
}

impl Queue for EmbeddedQueue {
    fn desk(&self) -> &Desk {
        &self.desk
    }

    fn send(&self, messages: Vec<Message>) -> BoxFuture<'static, Result<Vec<String>, QueueError>> {
        self.sqlite.send(self.desk.label.clone(), messages)
    }

    fn status(&self) -> BoxFuture<'static, Result<QueueStatus, QueueError>> {
        let desk = self.desk.clone();
        let oldest = self.sqlite.peek(desk.label.clone(), 1);
        Box::pin(async move {
            let sent_at = oldest.await?.first().map(|oldest| oldest.stored.sent_at_ms);
            desk.run();
            let counts = desk.lanes.borrow().counts();
            Ok(QueueStatus {
                queue: desk.label.clone(),
                messages: counts.messages as u64,
                ready: counts.ready as u64,
                delayed: counts.delayed as u64,
                in_flight: counts.in_flight as u64,
                dead: desk.journal.dead(),
                consumers: counts.consumers as u64,
                oldest_ms: sent_at.map_or(0, |sent_at| wall_ms().saturating_sub(sent_at)),
            })
        })
    }

    fn peek(&self, dead: bool, count: u32) -> BoxFuture<'static, Result<Vec<Peeked>, QueueError>> {
        let desk = self.desk.clone();
        let found = self.sqlite.peek(self.rows_of(dead), count.min(PEEK_MAX));
        Box::pin(async move {
            let mut taken = 0;
            let found = found.await?;
            let fitting = found
                .into_iter()
                .take_while(|message| fit(message, &mut taken));
            Ok(fitting.map(|message| desk.peeked(message)).collect())
        })
    }

    fn redrive(&self, count: u32) -> BoxFuture<'static, Result<u64, QueueError>> {
        let (desk, sqlite) = (self.desk.clone(), self.sqlite.clone());
        to_the_end(async move {
            // Not those that become dead letters again meanwhile.
            let count = desk.journal.dead().min(u64::from(count));
            let mut moved = 0;
            while moved < count {
                let step = (count - moved).min(REDRIVE_STEP) as u32;
                match sqlite.redrive(desk.label.clone(), step).await {
                    Ok(0) => break,
                    Ok(more) => {
                        moved += more;
                        desk.journal.count_dead(-more.cast_signed());
                    }
                    Err(_) if moved > 0 => break,
                    Err(error) => return Err(error),
                }
            }
            Ok(moved)
        })
    }

    fn purge(&self, dead: bool) -> BoxFuture<'static, Result<u64, QueueError>> {
        let (desk, sqlite) = (self.desk.clone(), self.sqlite.clone());
        let rows = self.rows_of(dead);
        if dead {
            return to_the_end(async move {
                let removed = sqlite.purge(rows, None).await?;
                desk.journal.count_dead(-removed.cast_signed());
                Ok(removed)
            });
        }
        let entries = desk.lanes.borrow_mut().purge();
        if entries.is_empty() {
            return Box::pin(ready(Ok(0)));
        }
        to_the_end(async move {
            let ids = entries.iter().map(|entry| entry.id).collect();
            let removed = sqlite.purge(rows, Some(ids)).await;
            if removed.is_err() {
                desk.add(entries);
            }
            removed
        })
    }
}
