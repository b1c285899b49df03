//! The messages that this server holds: those that RabbitMQ has handed out to it, and what became of those that it takes for
//! handed out no more.
//!
//! When a connection breaks, RabbitMQ hands out again all that was held. What workers are handling then goes on and is adrift:
//! if it comes back here, it is not handled a second time.

use crate::state::queue::lanes::Entry;
use crate::state::queue::letter::Letter;
use crate::state::queue::stored::{Change, StoredMessage};
use lapin::Acker;
use std::collections::{HashMap, VecDeque};

/// How many fates of messages are remembered, for those that are handed out again.
const FATES_MAX: usize = 10_000;

/// A message that is here.
pub(super) struct Held {
    pub(super) letter: Letter,
    /// How its fate is told; nothing if it is adrift.
    pub(super) acker: Option<Acker>,
}

/// What is to be done with a message that has come.
pub(super) enum Arrival {
    /// It is to be handled.
    New(Entry),
    /// It is held, or waits for another one of its id.
    Known,
    /// It was handled, and that was not heard of.
    Handled(Acker),
    /// What is to become of it is known.
    Decided(Change),
}

/// All of them, by rows of this process.
#[derive(Default)]
pub(super) struct Holdings {
    held: HashMap<i64, Held>,
    rows: HashMap<String, i64>,
    /// Further ones of the same ids.
    twins: HashMap<String, Vec<Held>>,
    fates: Fates,
    last: i64,
}

impl Holdings {
    /// Takes what has come.
    pub(super) fn arrive(&mut self, mut held: Held, is_again: bool) -> Arrival {
        let id = held.letter.id.clone();
        if let Some(known) = self.rows.get(&id).and_then(|row| self.held.get_mut(row)) {
            match known.acker {
                None => known.acker = held.acker.take(),
                Some(_) => self.twins.entry(id).or_default().push(held),
            }
            return Arrival::Known;
        }
        let fate = is_again.then(|| self.fates.take(&id)).flatten();
        match (fate, held.acker.take()) {
            (Some(Change::Remove { .. }), Some(acker)) => Arrival::Handled(acker),
            (
                Some(Change::Dead {
                    attempts, reason, ..
                }),
                acker,
            ) => {
                held.acker = acker;
                let id = self.insert(held);
                Arrival::Decided(Change::Dead {
                    id,
                    attempts,
                    reason,
                })
            }
            (
                Some(Change::Retry {
                    attempts,
                    ready_at_ms,
                    alone,
                    ..
                }),
                acker,
            ) => {
                held.acker = acker;
                let letter = &mut held.letter;
                (letter.attempts, letter.ready_at_ms, letter.alone) =
                    (attempts, ready_at_ms, alone);
                Arrival::New(self.entry(held))
            }
            (_, acker) => {
                held.acker = acker;
                Arrival::New(self.entry(held))
            }
        }
    }

    fn insert(&mut self, held: Held) -> i64 {
        self.last += 1;
        self.rows.insert(held.letter.id.clone(), self.last);
        self.held.insert(self.last, held);
        self.last
    }

    /// Holds one; it is ready when its letter says, by the wall clock.
    fn entry(&mut self, held: Held) -> Entry {
        let letter = &held.letter;
        Entry {
            key: letter.key.clone(),
            attempts: letter.attempts,
            alone: letter.alone,
            ready_at: letter.ready_at_ms,
            id: self.insert(held),
        }
    }

    pub(super) fn get(&self, row: i64) -> Option<&Held> {
        self.held.get(&row)
    }

    pub(super) fn get_mut(&mut self, row: i64) -> Option<&mut Held> {
        self.held.get_mut(&row)
    }

    pub(super) fn row(&self, id: &str) -> Option<i64> {
        self.rows.get(id).copied()
    }

    /// Lets one go whose fate is told; returns those of the same id that waited for it.
    pub(super) fn remove(&mut self, row: i64) -> Vec<Held> {
        let Some(held) = self.held.remove(&row) else {
            return Vec::new();
        };
        self.rows.remove(&held.letter.id);
        self.twins.remove(&held.letter.id).unwrap_or_default()
    }

    /// Lets one go, and notes what is to become of it if it comes again.
    pub(super) fn decide(&mut self, change: Change) -> Vec<Held> {
        if let Some(held) = self.held.get(&change.id()) {
            self.fates.note(held.letter.id.clone(), change.clone());
        }
        self.remove(change.id())
    }

    /// What was handed out is handed out no more. Those that nobody handles are let go, those that somebody does are adrift.
    pub(super) fn lose(&mut self, idle: Vec<Entry>, ready_at_ms: impl Fn(&Entry) -> u64) {
        self.twins.clear();
        for entry in idle {
            let tried = |held: &Held| entry.attempts > held.letter.attempts;
            match self.held.get(&entry.id).is_some_and(tried) {
                true => self.decide(Change::Retry {
                    id: entry.id,
                    attempts: entry.attempts,
                    ready_at_ms: ready_at_ms(&entry),
                    alone: entry.alone,
                }),
                false => self.remove(entry.id),
            };
        }
        for held in self.held.values_mut() {
            held.acker = None;
        }
    }

    /// Tells whether one is handed out no more.
    pub(super) fn is_adrift(&self, row: i64) -> bool {
        self.held.get(&row).is_some_and(|held| held.acker.is_none())
    }

    pub(super) fn has_adrift(&self) -> bool {
        self.held.values().any(|held| held.acker.is_none())
    }

    /// Returns how many there are.
    pub(super) fn len(&self) -> usize {
        self.held.len() + self.twins.values().map(Vec::len).sum::<usize>()
    }

    /// Returns the oldest, in the order in which they came.
    pub(super) fn oldest(&self, queue: &str, count: usize) -> Vec<StoredMessage> {
        let mut rows: Vec<i64> = self.held.keys().copied().collect();
        rows.sort_unstable();
        let rows = rows.into_iter().take(count);
        rows.filter_map(|row| self.stored(row, queue)).collect()
    }

    /// Returns when the oldest was sent.
    pub(super) fn oldest_sent_ms(&self) -> Option<u64> {
        self.held.values().map(|held| held.letter.sent_at_ms).min()
    }

    /// Returns one as the desk knows messages.
    pub(super) fn stored(&self, row: i64, queue: &str) -> Option<StoredMessage> {
        let held = self.held.get(&row)?;
        Some(held.letter.clone().stored(row, queue))
    }
}

/// What became of messages, the last ones.
#[derive(Default)]
struct Fates {
    of: HashMap<String, Change>,
    order: VecDeque<String>,
}

impl Fates {
    fn note(&mut self, id: String, change: Change) {
        if self.of.insert(id.clone(), change).is_none() {
            self.order.push_back(id);
        }
        while self.order.len() > FATES_MAX {
            let oldest = self.order.pop_front();
            oldest.and_then(|oldest| self.of.remove(&oldest));
        }
    }

    /// Returns it. That a message was handled stays known.
    fn take(&mut self, id: &str) -> Option<Change> {
        match self.of.get(id)? {
            Change::Remove { id: row } => Some(Change::Remove { id: *row }),
            Change::Retry { .. } | Change::Dead { .. } => self.of.remove(id),
        }
    }
}
