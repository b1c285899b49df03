//! Histories of a lock table, step for step against the [`Model`] and under the eyes of a [`Witness`]. That these notice
//! faults is shown by tables that are made faulty.

use super::model::{Answer, Model, Seen, Step};
use super::{Effect, LockTable};
use crate::state::Millis;
use crate::state::dice::Dice;
use crate::state::lock::{Acquire, GuardId, LockError, SessionId};
use std::collections::BTreeMap;
use std::task::Poll;

/// Plays a history of at most so many steps, and returns what was wrong.
pub(super) fn play(dice: Dice, fault: Fault, steps: usize) -> Result<(), String> {
    let mut history = History::new(dice, fault);
    for _ in 0..steps {
        if history.dice.is_over() {
            break;
        }
        history.go_on()?;
    }
    history.end()
}

/// Plays the history that a fuzzer chooses.
#[cfg(feature = "fuzz")]
pub(crate) fn fuzz(bytes: &[u8]) {
    let dice = Dice::Chosen(bytes.to_vec().into());
    if let Err(complaint) = play(dice, Fault::None, 1000) {
        panic!("{complaint}");
    }
}

impl LockTable {
    /// Tells whether nothing is kept of anybody.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
            && self.guards.is_empty()
            && self.sessions.is_empty()
            && self.alarms.is_empty()
            && self.withheld.is_empty()
    }
}

/// A fault of the tried table, put in by changing what it is told.
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "a fuzzer tries no faulty tables")
)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fault {
    None,
    /// It grants keys that others hold.
    GrantsHeldKeys,
    /// Pins keep nothing.
    IgnoresPins,
    /// A sign of life prolongs nothing.
    IgnoresHeartbeats,
    /// What a dead session held is kept.
    IgnoresDeath,
    /// It grants while others may still hold on from before.
    IgnoresSuspend,
    /// Its timer stands still.
    IgnoresTime,
}

impl Fault {
    /// Does a step the faulty way.
    fn step(self, table: &mut LockTable, step: &Step, now: Millis) -> Seen {
        match (self, step) {
            (Self::GrantsHeldKeys, Step::Acquire(id, asked)) => {
                let space = format!("{id:?}");
                let asked = Acquire {
                    space,
                    ..asked.clone()
                };
                table.step(&Step::Acquire(*id, asked), now)
            }
            (Self::IgnoresPins, Step::Pin(ids)) => {
                let seen = table.step(step, now);
                if seen.0 == Answer::Result(Ok(())) {
                    table.unpin(ids, now);
                }
                seen
            }
            (Self::IgnoresPins, Step::Unpin(_))
            | (Self::IgnoresHeartbeats, Step::Heartbeat(_))
            | (Self::IgnoresDeath, Step::End(_))
            | (Self::IgnoresSuspend, Step::Suspend) => table.step(&Step::Expire, now),
            (Self::IgnoresTime, _) => table.step(step, 0),
            _ => table.step(step, now),
        }
    }
}

/// What is true of any correct table, told from outside: no key has two holders, tokens grow, pins keep.
#[derive(Default)]
struct Witness {
    wanted: BTreeMap<GuardId, Vec<String>>,
    holders: BTreeMap<String, GuardId>,
    tokens: BTreeMap<String, u64>,
    pinned: Vec<GuardId>,
    given_up: Vec<GuardId>,
}

impl Witness {
    fn note(&mut self, step: &Step, (answer, effects): &Seen) -> Result<(), String> {
        match step {
            Step::Acquire(id, asked) if !is_invalid(answer) => {
                self.wanted.insert(*id, asked.keys.clone());
                self.given_up.retain(|given_up| given_up != id);
            }
            Step::Release(id) | Step::Drop(id) => self.given_up.push(*id),
            Step::End(session) => {
                let ended = self.wanted.keys().filter(|id| id.session == *session);
                self.given_up.extend(ended);
            }
            Step::Pin(ids) if *answer == Answer::Result(Ok(())) => self.pinned.extend(ids),
            Step::Unpin(ids) => {
                for id in ids {
                    let at = self.pinned.iter().position(|pinned| pinned == id);
                    at.map(|at| self.pinned.swap_remove(at));
                }
            }
            _ => {}
        }
        let (given_up, pinned) = (&self.given_up, &self.pinned);
        self.holders
            .retain(|_, id| !given_up.contains(id) || pinned.contains(id));
        if let (Step::Acquire(id, _), Answer::Acquired(Poll::Ready(Ok(token)))) = (step, answer) {
            self.grant(*id, *token)?;
        }
        for effect in effects {
            match effect {
                Effect::Granted { guard, token } => self.grant(*guard, *token)?,
                Effect::Lost { guard } if self.pinned.contains(guard) => {
                    return Err(format!("{guard:?} was lost while pinned"));
                }
                Effect::Lost { guard } => self.holders.retain(|_, id| id != guard),
                Effect::Refused { .. } => {}
            }
        }
        Ok(())
    }

    fn grant(&mut self, id: GuardId, token: u64) -> Result<(), String> {
        for key in &self.wanted[&id] {
            if let Some(holder) = self.holders.insert(key.clone(), id) {
                return Err(format!("{id:?} was granted {key}, which {holder:?} holds"));
            }
            let last = self.tokens.insert(key.clone(), token).unwrap_or(0);
            if token <= last {
                return Err(format!("token {token} came after {last}"));
            }
        }
        Ok(())
    }
}

fn is_invalid(answer: &Answer) -> bool {
    let Answer::Acquired(acquired) = answer else {
        return false;
    };
    matches!(acquired, Poll::Ready(Err(LockError::Invalid(_))))
}

/// A random history of a table, and those who watch it.
struct History {
    dice: Dice,
    now: Millis,
    table: LockTable,
    fault: Fault,
    model: Model,
    /// Knows what happens first within a step only if no time passes in it.
    witness: Option<Witness>,
    guards: Vec<GuardId>,
    pins: Vec<Vec<GuardId>>,
    ceiling: u64,
}

impl History {
    fn new(mut dice: Dice, fault: Fault) -> Self {
        let ceiling = dice.pick(&[1, 3, 10, 1000]).unwrap_or(1);
        Self {
            now: 0,
            table: LockTable::new(1..ceiling),
            fault,
            model: Model::new(1..ceiling),
            witness: (dice.below(2) == 0).then(Witness::default),
            guards: Vec::new(),
            pins: Vec::new(),
            ceiling,
            dice,
        }
    }

    /// Does a step on both tables, and compares them.
    fn step(&mut self, step: &Step) -> Result<(), String> {
        let seen = self.fault.step(&mut self.table, step, self.now);
        if let Some(witness) = &mut self.witness {
            witness.note(step, &seen)?;
        }
        let right = self.model.step(step, self.now);
        if seen != right {
            return Err(format!("{step:?} at {}: {seen:?}, not {right:?}", self.now));
        }
        if let (Step::Pin(ids), Answer::Result(Ok(()))) = (step, &seen.0) {
            self.pins.push(ids.clone());
        }
        Ok(())
    }

    fn random_step(&mut self) -> Step {
        let session = SessionId(self.dice.below(3));
        let last = self.guards.len().saturating_sub(8);
        let recent = &self.guards[last..];
        let none = GuardId { session, number: 0 };
        let id = self.dice.pick(recent).unwrap_or(none);
        match self.dice.below(20) {
            0..7 => self.random_acquire(session),
            7..10 => Step::Release(id),
            10 => Step::Drop(id),
            11 => Step::Extend(id, self.dice.pick(&[1, 100, 300]).unwrap_or(1)),
            12 | 13 => Step::Heartbeat(session),
            14 => self.random_pin(id),
            15 if !self.pins.is_empty() => {
                let at = self.dice.below(self.pins.len() as u64) as usize;
                Step::Unpin(self.pins.swap_remove(at))
            }
            16 => {
                self.ceiling += self.dice.below(4);
                Step::Raise(self.ceiling)
            }
            17 if self.dice.one_in(3) => Step::Suspend,
            18 if self.dice.one_in(3) => Step::End(session),
            18 => Step::Resume,
            _ => Step::Expire,
        }
    }

    fn random_acquire(&mut self, session: SessionId) -> Step {
        let count = self.dice.pick(&[1, 1, 1, 2, 3]).unwrap_or(1);
        let keys = (0..count)
            .filter_map(|_| self.dice.pick(&["a", "b", "c", "d"]))
            .map(str::to_owned)
            .collect();
        let request = Acquire::new("s".to_owned(), keys, self.dice.below(2));
        let request = Acquire {
            wait_ms: self.dice.pick(&[0, 30, 100, 400]).unwrap_or(0),
            ttl_ms: self.dice.pick(&[100, 200]).unwrap_or(100),
            renew: self.dice.below(2) == 0,
            ..request
        };
        let new = GuardId {
            session,
            number: self.guards.len() as u64,
        };
        let again = self.dice.one_in(40).then(|| self.dice.pick(&self.guards));
        let id = again.flatten().unwrap_or(new);
        self.guards.push(id);
        Step::Acquire(id, request)
    }

    fn random_pin(&mut self, id: GuardId) -> Step {
        let held = self.model.all_held();
        let mut ids = vec![self.dice.pick(&held).unwrap_or(id)];
        ids.extend(self.dice.pick(&held).filter(|second| *second != ids[0]));
        Step::Pin(ids)
    }

    /// Lets time pass and takes a random step.
    fn go_on(&mut self) -> Result<(), String> {
        let passes = self.dice.pick(&[0, 0, 0, 1, 10, 30, 100]);
        self.now += passes.unwrap_or(0);
        if self.witness.is_some() || self.dice.below(4) == 0 {
            self.step(&Step::Expire)?;
        }
        let step = self.random_step();
        self.step(&step)
    }

    /// Lets all that hold let go, until nobody waits; then nothing may be left.
    fn end(mut self) -> Result<(), String> {
        self.step(&Step::Expire)?;
        for ids in std::mem::take(&mut self.pins) {
            self.step(&Step::Unpin(ids))?;
        }
        self.step(&Step::Raise(self.ceiling + 1000))?;
        self.step(&Step::Resume)?;
        while self.model.waiting() > 0 {
            let held = self.model.all_held();
            if held.is_empty() {
                return Err("somebody waits for keys that nobody holds".to_owned());
            }
            for id in held {
                self.step(&Step::Release(id))?;
            }
        }
        for session in 0..3 {
            self.step(&Step::End(SessionId(session)))?;
        }
        if !self.table.is_empty() {
            return Err(format!("something is left: {:?}", self.table));
        }
        Ok(())
    }
}
