//! Who handles which message of a queue, and when.
//!
//! A state machine for one queue, without I/O and without a clock: the caller says what happened and what time it is, and
//! [`Lanes::step`] says what is to be done. Knows a message's key and its tries, not what is in it or where it is kept.
//!
//! Messages with the same key form a lane: its first message is delivered, delayed or waiting for a retry, and the others
//! wait until that one is gone. So order is kept at the price that a delayed or failing message holds up its lane.
//! Messages without a key wait for nobody.

#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod model;
mod places;
mod takers;
#[cfg(test)]
mod tests;

use super::{DELAY_MAX, Outcome};
use crate::state::Millis;
use crate::state::lock::SessionId;
use places::{Flight, Places};
use takers::Takers;

/// How often and how soon a message is tried.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Policy {
    /// Tries before a message goes to the dead letters; at least 1.
    pub max_attempts: u32,
    /// How long a try may take.
    pub visibility_ms: Millis,
    /// The longest pause before the second try; it doubles with each further one.
    pub backoff_ms: Millis,
    /// What the pause does not grow beyond.
    pub backoff_max_ms: Millis,
}

/// A message that waits to be handled.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// Counts up in the order of sending.
    pub id: i64,
    pub key: Option<String>,
    /// Tries that are over.
    pub attempts: u32,
    /// Whether a call that handled it failed: then it comes in a batch of its own.
    pub alone: bool,
    /// Before that it is not delivered.
    pub ready_at: Millis,
}

/// A message of a delivered batch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Handed {
    pub id: i64,
    pub receipt: u64,
    /// Which try this is, from 1.
    pub attempt: u32,
}

/// What the caller has to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Effect {
    /// Give these messages to this session; they come back if it has not settled them at the deadline.
    Deliver {
        session: SessionId,
        batch: Vec<Handed>,
        deadline: Millis,
    },
    /// A message was handled: delete it.
    Remove { id: i64 },
    /// A try failed: keep this with the message.
    Retry {
        id: i64,
        attempts: u32,
        ready_at: Millis,
        alone: bool,
    },
    /// A message was given up: move it to the dead letters.
    Dead {
        id: i64,
        attempts: u32,
        reason: String,
    },
}

/// How a queue stands.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// All that there are: the next three, and those that wait behind their key.
    pub messages: usize,
    pub ready: usize,
    pub delayed: usize,
    pub in_flight: usize,
    /// Sessions that take messages.
    pub consumers: usize,
}

/// The messages of one queue, and the sessions that handle them. Every operation takes O(log n) per message.
pub struct Lanes {
    policy: Policy,
    /// Returns a random number from 0 to its argument.
    random: Box<dyn FnMut(u64) -> u64>,
    places: Places,
    takers: Takers,
    /// The receipt that was given last.
    receipt: u64,
    /// Which messages that are to be handled again are the caller's to add again.
    hands_back: HandsBack,
    effects: Vec<Effect>,
}

/// Which messages that are to be handled again others may handle.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HandsBack {
    Nothing,
    /// Those with a key wait here: of others of their key none may overtake them.
    WithoutKey,
    All,
}

/// The highest receipt that a process may begin with: far from where counting on would end.
const RECEIPT_FIRST_MAX: u64 = u64::MAX >> 1;

/// Why messages come back when their session is gone.
const SESSION_ENDED: &str = "the worker that handled it ended";

/// Why messages come back when time is up.
const NOT_SETTLED: &str = "not settled in time";

impl Lanes {
    /// Returns a queue without messages; `random` returns a number from 0 to its argument.
    ///
    /// Its receipts begin at a random number, so that one from before a restart is not taken for another.
    pub fn new(policy: Policy, mut random: impl FnMut(u64) -> u64 + 'static) -> Self {
        let receipt = random(RECEIPT_FIRST_MAX);
        Self {
            policy,
            random: Box::new(random),
            places: Places::default(),
            takers: Takers::default(),
            receipt,
            hands_back: HandsBack::Nothing,
            effects: Vec::new(),
        }
    }

    /// Has messages that are to be handled again taken out: others may handle them.
    pub fn handing_back(self, hands_back: HandsBack) -> Self {
        Self { hands_back, ..self }
    }

    /// Replaces the policy. Messages that have had too many tries by the new one are given up now.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
        for (id, attempts) in self.places.tried(self.policy.max_attempts) {
            self.give_up(id, attempts);
        }
    }

    /// Adds messages. One that is here already is passed over; one that was sent before others of its key is put before
    /// them, unless the first of them is being handled.
    pub fn add(&mut self, entries: impl IntoIterator<Item = Entry>) {
        for entry in entries {
            if self.places.has(entry.id) {
                continue;
            }
            if entry.attempts < self.policy.max_attempts {
                self.places.insert(entry);
            } else {
                self.give_up(entry.id, entry.attempts);
            }
        }
    }

    /// Notes that a session can take `batches` more batches, each of up to `batch` messages.
    pub fn credit(&mut self, session: SessionId, batch: u32, batches: u32) {
        self.takers.credit(session, batch, batches);
    }

    /// Gives a session back the credit of a batch that did not reach it.
    pub fn refund(&mut self, session: SessionId) {
        self.takers.refund(session);
    }

    /// Tells whether a session is handling this delivery.
    pub fn holds(&self, session: SessionId, id: i64, receipt: u64) -> bool {
        let flight = self.places.flight(id);
        flight.is_some_and(|flight| flight.session == session && flight.receipt == receipt)
    }

    /// Notes what became of a delivery, a message's id and a receipt; false if it is not this session's, or not any more.
    pub fn settle(
        &mut self,
        session: SessionId,
        (id, receipt): (i64, u64),
        outcome: Outcome,
        now: Millis,
    ) -> bool {
        if !self.holds(session, id, receipt) {
            return false;
        }
        match outcome {
            Outcome::Ack => {
                self.places.remove(id);
                self.effects.push(Effect::Remove { id });
            }
            Outcome::Retry(pause) => self.repeat(id, pause, None, now),
            Outcome::Failed(reason) => self.repeat(id, None, Some(&reason), now),
            Outcome::Dead(reason) => {
                let attempts = self
                    .places
                    .get_mut(id)
                    .map_or(0, |message| message.attempts);
                self.bury(id, attempts + 1, reason);
            }
        }
        true
    }

    /// Moves the deadline of a delivery to `ms` from now; false if the session is not handling it.
    pub fn extend(&mut self, session: SessionId, id: i64, ms: Millis, now: Millis) -> bool {
        let flight = self.places.flight(id);
        if flight.is_none_or(|flight| flight.session != session) {
            return false;
        }
        self.places.set_deadline(id, now.saturating_add(ms));
        true
    }

    /// Takes back messages that did not reach their session: that was no try.
    pub fn take_back(&mut self, session: SessionId, batch: &[Handed]) {
        for handed in batch {
            if !self.holds(session, handed.id, handed.receipt) {
                continue;
            }
            let attempts = handed.attempt - 1;
            if attempts < self.policy.max_attempts {
                self.places.land(handed.id);
            } else {
                // The policy was replaced meanwhile.
                self.give_up(handed.id, attempts);
            }
        }
    }

    /// Notes that a session takes no more messages. If it ended, what it was handling comes back at once, each message
    /// alone: one of them may be what ended it.
    pub fn leave(&mut self, session: SessionId, ended: bool, now: Millis) {
        self.takers.leave(session);
        if ended {
            for id in self.places.held_by(session) {
                self.repeat(id, Some(0), Some(SESSION_ENDED), now);
            }
        }
    }

    /// Takes out a message that does not exist any more, wherever it is.
    pub fn forget(&mut self, id: i64) {
        self.places.remove(id);
    }

    /// Takes out all messages that nobody is handling, and returns them.
    pub fn purge(&mut self) -> Vec<Entry> {
        self.places.purge()
    }

    /// Takes out all messages, whoever is handling them.
    pub fn lose(&mut self) {
        self.places = Places::default();
        self.effects.clear();
    }

    /// Returns all messages that are here.
    pub fn ids(&self) -> Vec<i64> {
        self.places.ids()
    }

    /// Returns how many messages, and in how many batches, sessions can take.
    pub fn wanted(&self) -> (u64, u64) {
        self.takers.wanted()
    }

    /// Returns what is to be done at this time, after all that was noted before.
    pub fn step(&mut self, now: Millis) -> Vec<Effect> {
        while let Some(id) = self.places.take_overdue(now) {
            self.repeat(id, None, Some(NOT_SETTLED), now);
        }
        self.places.ripen(now);
        self.deal(now);
        std::mem::take(&mut self.effects)
    }

    /// Returns when [`Lanes::step`] has something to do if nothing happens before.
    pub fn next_deadline(&self) -> Option<Millis> {
        self.places.next_time()
    }

    /// Returns how it stood at the last step.
    pub fn counts(&self) -> Counts {
        Counts {
            consumers: self.takers.len(),
            ..self.places.counts()
        }
    }

    /// Gives out what is ready, one batch to each session that has credit, in turns.
    fn deal(&mut self, now: Millis) {
        let deadline = now.saturating_add(self.policy.visibility_ms.max(1));
        while let Some((session, limit)) = self.takers.next() {
            let ids = self.places.take_ready(limit);
            if ids.is_empty() {
                return;
            }
            let hand = |id| {
                self.receipt += 1;
                let flight = Flight {
                    session,
                    receipt: self.receipt,
                    deadline,
                };
                Handed {
                    id,
                    receipt: self.receipt,
                    attempt: self.places.fly(id, flight) + 1,
                }
            };
            let batch = ids.into_iter().map(hand).collect();
            self.takers.served();
            self.effects.push(Effect::Deliver {
                session,
                batch,
                deadline,
            });
        }
    }

    /// Ends a try that did not succeed. A `failure` is one of the call, not the message's own.
    fn repeat(&mut self, id: i64, pause: Option<Millis>, failure: Option<&str>, now: Millis) {
        let Some(message) = self.places.get_mut(id) else {
            return;
        };
        message.attempts += 1;
        let attempts = message.attempts;
        if attempts >= self.policy.max_attempts {
            match failure {
                Some(reason) => self.bury(id, attempts, reason.to_owned()),
                None => self.give_up(id, attempts),
            }
            return;
        }
        let pause = match pause {
            Some(pause) => pause.min(DELAY_MAX.as_millis() as Millis),
            None => (self.random)(self.policy.backoff(attempts)),
        };
        message.alone |= failure.is_some();
        message.ready_at = now.saturating_add(pause);
        self.effects.push(Effect::Retry {
            id,
            attempts,
            ready_at: message.ready_at,
            alone: message.alone,
        });
        let is_handed_back = match self.hands_back {
            HandsBack::Nothing => false,
            HandsBack::WithoutKey => !message.has_key(),
            HandsBack::All => true,
        };
        match is_handed_back {
            true => self.places.remove(id),
            false => self.places.land(id),
        }
    }

    fn give_up(&mut self, id: i64, attempts: u32) {
        let s = if attempts == 1 { "" } else { "s" };
        self.bury(id, attempts, format!("gave up after {attempts} attempt{s}"));
    }

    fn bury(&mut self, id: i64, attempts: u32, reason: String) {
        self.places.remove(id);
        self.effects.push(Effect::Dead {
            id,
            attempts,
            reason,
        });
    }
}

impl Policy {
    /// Returns the longest pause after so many tries. The pause itself is a random part of it: "full jitter", which keeps
    /// messages that failed together from coming back together (Brooker, "Exponential Backoff And Jitter", AWS
    /// Architecture Blog, 2015).
    fn backoff(&self, attempts: u32) -> Millis {
        let factor = 2_u64.saturating_pow(attempts.saturating_sub(1));
        self.backoff_ms
            .saturating_mul(factor)
            .min(self.backoff_max_ms)
    }
}
