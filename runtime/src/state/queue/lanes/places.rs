//! Where each message is: behind others of its key, waiting for its time, ready, or in flight.
//!
//! Keeps the order of every key. Knows neither tries nor credit: what to do with a message is for the lanes to say.

use super::{Counts, Entry};
use crate::state::Millis;
use crate::state::lock::SessionId;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

/// The messages of a queue.
#[derive(Default)]
pub(super) struct Places {
    messages: BTreeMap<i64, Message>,
    lanes: HashMap<Rc<str>, Lane>,
    /// Messages that are ready once their time has come, by that time.
    delayed: BTreeSet<(Millis, i64)>,
    /// Messages that can be delivered now, and go out in batches.
    ready: BTreeSet<i64>,
    /// Those that go out alone.
    ready_alone: BTreeSet<i64>,
    /// Messages that are being handled, by their deadline.
    deadlines: BTreeSet<(Millis, i64)>,
}

pub(super) struct Message {
    key: Option<Rc<str>>,
    pub(super) attempts: u32,
    pub(super) alone: bool,
    pub(super) ready_at: Millis,
    place: Place,
}

/// All but those that are behind are first in their lane, or have no key.
#[derive(Clone, Copy)]
enum Place {
    Behind,
    Delayed,
    Ready,
    InFlight(Flight),
}

/// Who is handling a message.
#[derive(Clone, Copy)]
pub(super) struct Flight {
    pub(super) session: SessionId,
    pub(super) receipt: u64,
    pub(super) deadline: Millis,
}

/// The messages of one key.
struct Lane {
    first: i64,
    behind: BTreeSet<i64>,
}

impl Places {
    pub(super) fn get_mut(&mut self, id: i64) -> Option<&mut Message> {
        self.messages.get_mut(&id)
    }

    pub(super) fn ids(&self) -> Vec<i64> {
        self.messages.keys().copied().collect()
    }

    /// Returns who is handling a message, if anybody is.
    pub(super) fn flight(&self, id: i64) -> Option<Flight> {
        match self.messages.get(&id)?.place {
            Place::InFlight(flight) => Some(flight),
            _ => None,
        }
    }

    /// Returns the messages that a session is handling.
    pub(super) fn held_by(&self, session: SessionId) -> Vec<i64> {
        let in_flight = self.deadlines.iter().map(|(_, id)| *id);
        let is_held = |id: &i64| {
            self.flight(*id)
                .is_some_and(|flight| flight.session == session)
        };
        in_flight.filter(is_held).collect()
    }

    /// Returns the messages that nobody is handling and that had at least so many tries, with these.
    pub(super) fn tried(&self, attempts: u32) -> Vec<(i64, u32)> {
        let tried = self
            .messages
            .iter()
            .filter(|(_, message)| !message.is_in_flight() && message.attempts >= attempts);
        tried.map(|(id, message)| (*id, message.attempts)).collect()
    }

    /// Adds a message that is not here. It goes before those of its key that were sent later, unless the first of them is
    /// in flight.
    pub(super) fn insert(&mut self, entry: Entry) {
        let id = entry.id;
        let key: Option<Rc<str>> = entry.key.map(Rc::from);
        let message = Message {
            key: key.clone(),
            attempts: entry.attempts,
            alone: entry.alone,
            ready_at: entry.ready_at,
            place: Place::Behind,
        };
        self.messages.insert(id, message);
        let Some(key) = key else {
            self.schedule(id);
            return;
        };
        let Some(lane) = self.lanes.get_mut(&key) else {
            let behind = BTreeSet::new();
            self.lanes.insert(key, Lane { first: id, behind });
            self.schedule(id);
            return;
        };
        let first = self.messages.get(&lane.first);
        if id > lane.first || first.is_some_and(Message::is_in_flight) {
            lane.behind.insert(id);
        } else {
            let later = std::mem::replace(&mut lane.first, id);
            lane.behind.insert(later);
            self.unplace(later);
            self.schedule(id);
        }
    }

    /// Takes a message out, wherever it is: the next one of its key takes its place.
    pub(super) fn remove(&mut self, id: i64) {
        self.unplace(id);
        let Some(key) = self.messages.remove(&id).and_then(|message| message.key) else {
            return;
        };
        let Some(lane) = self.lanes.get_mut(&key) else {
            return;
        };
        if lane.first != id {
            lane.behind.remove(&id);
        } else if let Some(next) = lane.behind.pop_first() {
            lane.first = next;
            self.schedule(next);
        } else {
            self.lanes.remove(&key);
        }
    }

    /// Takes out all messages that are not in flight.
    pub(super) fn purge(&mut self) -> Vec<Entry> {
        self.delayed.clear();
        self.ready.clear();
        self.ready_alone.clear();
        let idle = self
            .messages
            .extract_if(.., |_, message| !message.is_in_flight());
        let gone = idle.map(|(id, message)| Entry {
            id,
            key: message.key.map(|key| key.to_string()),
            attempts: message.attempts,
            alone: message.alone,
            ready_at: message.ready_at,
        });
        let gone = gone.collect();
        self.lanes.retain(|_, lane| {
            lane.behind.clear();
            self.messages.contains_key(&lane.first)
        });
        gone
    }

    /// Makes ready what has waited for this time.
    pub(super) fn ripen(&mut self, now: Millis) {
        while let Some(&(ready_at, id)) = self.delayed.first()
            && ready_at <= now
        {
            self.delayed.pop_first();
            if let Some(message) = self.messages.get_mut(&id) {
                message.place = Place::Ready;
                match message.alone {
                    true => self.ready_alone.insert(id),
                    false => self.ready.insert(id),
                };
            }
        }
    }

    /// Takes the oldest ready messages, up to `limit`, to put each in flight. One that goes alone is a batch.
    pub(super) fn take_ready(&mut self, limit: u32) -> Vec<i64> {
        let is_alone = match (self.ready.first(), self.ready_alone.first()) {
            (Some(first), Some(lone)) => lone < first,
            (first, _) => first.is_none(),
        };
        if is_alone {
            return self.ready_alone.pop_first().into_iter().collect();
        }
        std::iter::from_fn(|| self.ready.pop_first())
            .take(limit as usize)
            .collect()
    }

    /// Puts a message that was taken in flight; returns its tries that are over.
    pub(super) fn fly(&mut self, id: i64, flight: Flight) -> u32 {
        let Some(message) = self.messages.get_mut(&id) else {
            return 0;
        };
        message.place = Place::InFlight(flight);
        self.deadlines.insert((flight.deadline, id));
        message.attempts
    }

    /// Moves the deadline of a message in flight.
    pub(super) fn set_deadline(&mut self, id: i64, deadline: Millis) {
        if let Some(message) = self.messages.get_mut(&id)
            && let Place::InFlight(flight) = &mut message.place
        {
            self.deadlines.remove(&(flight.deadline, id));
            flight.deadline = deadline;
            self.deadlines.insert((deadline, id));
        }
    }

    /// Takes a message whose deadline has come out of the deadlines.
    pub(super) fn take_overdue(&mut self, now: Millis) -> Option<i64> {
        let (deadline, id) = *self.deadlines.first()?;
        if deadline > now {
            return None;
        }
        self.deadlines.pop_first();
        Some(id)
    }

    /// Makes a message that is in flight wait for its time again.
    pub(super) fn land(&mut self, id: i64) {
        self.unplace(id);
        self.schedule(id);
    }

    /// Returns the next time at which a message is ready or overdue.
    pub(super) fn next_time(&self) -> Option<Millis> {
        let times = [self.deadlines.first(), self.delayed.first()];
        times.into_iter().flatten().map(|&(time, _)| time).min()
    }

    pub(super) fn has(&self, id: i64) -> bool {
        self.messages.contains_key(&id)
    }

    /// Returns where messages are.
    pub(super) fn counts(&self) -> Counts {
        Counts {
            messages: self.messages.len(),
            ready: self.ready.len() + self.ready_alone.len(),
            delayed: self.delayed.len(),
            in_flight: self.deadlines.len(),
            consumers: 0,
        }
    }

    fn schedule(&mut self, id: i64) {
        if let Some(message) = self.messages.get_mut(&id) {
            message.place = Place::Delayed;
            self.delayed.insert((message.ready_at, id));
        }
    }

    fn unplace(&mut self, id: i64) {
        let Some(message) = self.messages.get_mut(&id) else {
            return;
        };
        match std::mem::replace(&mut message.place, Place::Behind) {
            Place::Behind => {}
            Place::Delayed => {
                self.delayed.remove(&(message.ready_at, id));
            }
            Place::Ready => {
                self.ready.remove(&id);
                self.ready_alone.remove(&id);
            }
            Place::InFlight(flight) => {
                self.deadlines.remove(&(flight.deadline, id));
            }
        }
    }
}

impl Message {
    pub(super) fn has_key(&self) -> bool {
        self.key.is_some()
    }

    fn is_in_flight(&self) -> bool {
        matches!(self.place, Place::InFlight(_))
    }
}
