//! The queues of a database as its writer knows them: how many messages each holds and may hold, and what is done to them.

use super::messages::{self, count};
use super::statement::Statements;
use crate::state::db::DbError;
use crate::state::queue::content::{Headers, add_dead_headers, remove_dead_headers, validate};
use crate::state::queue::stored::{Change, Stored};
use crate::state::queue::{DEAD_SUFFIX, Message, QueueError};
use crate::state::wall_ms;
use std::collections::{BTreeMap, HashMap};

/// How many messages each queue holds, those of the open transaction included.
#[derive(Debug, Default)]
pub(super) struct Depths {
    by_queue: HashMap<String, i64>,
    /// What the open transaction added.
    open: Vec<(String, i64)>,
}

impl Depths {
    pub(super) fn add(&mut self, queue: &str, count: i64) {
        if count == 0 {
            return;
        }
        match self.by_queue.get_mut(queue) {
            Some(depth) => *depth += count,
            None => {
                self.by_queue.insert(queue.to_owned(), count);
            }
        }
        self.open.push((queue.to_owned(), count));
    }

    fn of(&self, queue: &str) -> u64 {
        let depth = self.by_queue.get(queue).copied().unwrap_or(0);
        u64::try_from(depth).unwrap_or(0)
    }

    /// Returns how far the open transaction has come.
    pub(super) fn mark(&self) -> usize {
        self.open.len()
    }

    /// Undoes what the open transaction did since then.
    pub(super) fn undo_to(&mut self, mark: usize) {
        for (queue, count) in self.open.drain(mark..) {
            if let Some(depth) = self.by_queue.get_mut(&queue) {
                *depth -= count;
            }
        }
    }

    /// What the open transaction did stays.
    pub(super) fn commit(&mut self) {
        self.open.clear();
    }
}

/// The queues of one database, as its writer knows them.
#[derive(Debug, Default)]
pub(super) struct Queues {
    /// How many messages each may hold.
    pub(super) max_depths: BTreeMap<String, u64>,
    pub(super) depths: Depths,
}

impl Queues {
    /// Inserts messages, or leaves some of them inserted with an error: the caller undoes them. Returns the ids, those of
    /// the first ones where a dedup id has been used before, and notes the new ones in `stored`.
    pub(super) fn insert(
        &mut self,
        statements: &Statements<'_>,
        queue: &str,
        messages: &[Message],
        stored: &mut Vec<Stored>,
    ) -> Result<Vec<i64>, QueueError> {
        let Some(max_depth) = self.max_depths.get(queue).copied() else {
            return Err(QueueError::Invalid(format!(
                "the queue {queue} does not live in this database"
            )));
        };
        validate(messages)?;
        let now = wall_ms();
        let mut ids = Vec::with_capacity(messages.len());
        for message in messages {
            if let Some(first) = messages::find_duplicate(statements, queue, message, now)? {
                ids.push(first);
                continue;
            }
            if self.depths.of(queue) >= max_depth {
                return Err(QueueError::Full);
            }
            let new = messages::insert(statements, queue, message, now)?;
            self.depths.add(queue, 1);
            ids.push(new.id);
            stored.push(new);
        }
        Ok(ids)
    }

    /// Applies what became of a queue's messages; those that are gone are passed over.
    pub(super) fn settle(
        &mut self,
        statements: &Statements<'_>,
        queue: &str,
        changes: &[Change],
    ) -> Result<(), DbError> {
        for change in changes {
            match change {
                Change::Remove { id } => {
                    let removed = messages::delete(statements, queue, *id)?;
                    self.depths.add(queue, -removed);
                }
                Change::Retry {
                    id,
                    attempts,
                    ready_at_ms,
                    alone,
                } => messages::retry(statements, queue, *id, (*attempts, *ready_at_ms, *alone))?,
                Change::Dead {
                    id,
                    attempts,
                    reason,
                } => {
                    if let Some((stored, headers)) = messages::find(statements, queue, *id)? {
                        let dead = Stored {
                            attempts: *attempts,
                            ..stored
                        };
                        self.bury(statements, dead, headers, reason)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn bury(
        &mut self,
        statements: &Statements<'_>,
        mut dead: Stored,
        mut headers: Headers,
        reason: &str,
    ) -> Result<(), DbError> {
        let queue = std::mem::take(&mut dead.queue);
        dead.queue = format!("{queue}{DEAD_SUFFIX}");
        dead.alone = false;
        add_dead_headers(&mut headers, (reason, &queue, dead.attempts, wall_ms()));
        messages::update(statements, &dead, &headers)?;
        self.depths.add(&queue, -1);
        self.depths.add(&dead.queue, 1);
        Ok(())
    }

    /// Sends up to `limit` dead letters of a queue back to it, as many as it has room for.
    pub(super) fn redrive(
        &mut self,
        statements: &Statements<'_>,
        queue: &str,
        limit: u32,
        stored: &mut Vec<Stored>,
    ) -> Result<u64, QueueError> {
        let dead = format!("{queue}{DEAD_SUFFIX}");
        let max_depth = self.max_depths.get(queue).copied().unwrap_or(u64::MAX);
        let room = max_depth.saturating_sub(self.depths.of(queue));
        if room == 0 && limit > 0 && self.depths.of(&dead) > 0 {
            return Err(QueueError::Full);
        }
        let letters = messages::first(statements, &dead, u64::from(limit).min(room))?;
        let moved = count(letters.len());
        let now = wall_ms();
        for (letter, mut headers) in letters {
            let back = Stored {
                queue: queue.to_owned(),
                attempts: 0,
                alone: false,
                ready_at_ms: now,
                ..letter
            };
            remove_dead_headers(&mut headers);
            messages::update(statements, &back, &headers)?;
            stored.push(back);
        }
        self.depths.add(&dead, -moved);
        self.depths.add(queue, moved);
        Ok(moved.cast_unsigned())
    }

    /// Deletes messages of a queue, these or all.
    pub(super) fn purge(
        &mut self,
        statements: &Statements<'_>,
        queue: &str,
        ids: Option<&[i64]>,
    ) -> Result<u64, DbError> {
        let removed = match ids {
            None => messages::delete_all(statements, queue)?,
            Some(ids) => {
                let mut removed = 0;
                for id in ids {
                    removed += messages::delete(statements, queue, *id)?;
                }
                removed
            }
        };
        self.depths.add(queue, -removed);
        Ok(removed.cast_unsigned())
    }
}
