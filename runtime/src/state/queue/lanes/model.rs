//! Many short histories of lanes, and a plain model that says of every effect whether it was due.
//!
//! The model looks at every message each time, so it is slow and easy to believe. That it notices faults is shown by
//! lanes that are made faulty.

use super::*;
use crate::state::dice::Dice;
use std::collections::{BTreeMap, BTreeSet};

/// Plays the history that a fuzzer chooses.
#[cfg(feature = "fuzz")]
pub(crate) fn fuzz(bytes: &[u8]) {
    let dice = Dice::Chosen(bytes.to_vec().into());
    if let Err(fault) = History::new(dice, Fault::None).run(1000) {
        panic!("{fault}");
    }
}

/// What is wrong with the lanes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    KeysIgnored,
    MessageLost,
    CreditDoubled,
    ReceiptIgnored,
    DeliveredTwice,
    TriedOnceMore,
    AckIgnored,
    WokenLate,
    NeverAlone,
}

/// One history: lanes, the model, and what happens to both.
struct History {
    dice: Dice,
    lanes: Lanes,
    fault: Fault,
    model: Model,
    now: Millis,
    next_id: i64,
    /// Receipts of tries that are over.
    stale: Vec<(i64, u64)>,
}

impl History {
    fn new(mut dice: Dice, fault: Fault) -> Self {
        let policy = Policy {
            max_attempts: 1 + dice.below(4) as u32,
            visibility_ms: 1 + dice.below(30),
            backoff_ms: dice.below(8),
            backoff_max_ms: dice.below(30),
        };
        let mut jitter = dice.clone();
        let lanes = Lanes::new(faulty_policy(&policy, fault), move |max| {
            jitter.below(max.saturating_add(1))
        });
        Self {
            dice,
            lanes,
            fault,
            model: Model::new(policy),
            now: 0,
            next_id: 1,
            stale: Vec::new(),
        }
    }

    /// Has so many events happen at most, and returns what was wrong.
    fn run(mut self, events: usize) -> Result<(), String> {
        for _ in 0..events {
            if self.dice.is_over() {
                break;
            }
            self.event()?;
            if !self.dice.one_in(4) {
                self.step()?;
            }
        }
        self.finish()
    }

    fn event(&mut self) -> Result<(), String> {
        match self.dice.below(32) {
            0..6 => self.add(),
            6..12 => self.credit(),
            12..20 => self.settle()?,
            20..25 => self.pass_time(),
            25 => self.extend()?,
            26 | 27 => self.leave(),
            28 => self.take_back(),
            29 if self.dice.one_in(3) => self.purge()?,
            30 if self.dice.one_in(3) => self.forget()?,
            31 if self.dice.one_in(3) => self.set_policy()?,
            _ => {}
        }
        Ok(())
    }

    fn add(&mut self) {
        for _ in 0..=self.dice.below(3) {
            let key = self
                .dice
                .pick(&[None, None, Some("a"), Some("b"), Some("c")]);
            let delay = if self.dice.one_in(4) {
                self.dice.below(30)
            } else {
                0
            };
            let entry = Entry {
                id: self.next_id,
                key: key.flatten().map(str::to_owned),
                attempts: self.dice.pick(&[0, 0, 0, 0, 1, 2]).unwrap_or(0),
                alone: self.dice.one_in(8),
                ready_at: self.now + delay,
            };
            self.next_id += 1;
            self.model.add(entry.clone());
            let key = entry
                .key
                .clone()
                .filter(|_| self.fault != Fault::KeysIgnored);
            let alone = entry.alone && self.fault != Fault::NeverAlone;
            self.lanes.add([Entry {
                key,
                alone,
                ..entry
            }]);
        }
    }

    fn session(&mut self) -> SessionId {
        SessionId(1 + self.dice.below(3))
    }

    fn credit(&mut self) {
        let session = self.session();
        let (batch, batches) = (1 + self.dice.below(4) as u32, self.dice.below(4) as u32);
        self.model.credit(session, batch, batches);
        let doubled = if self.fault == Fault::CreditDoubled {
            2
        } else {
            1
        };
        self.lanes.credit(session, batch, batches * doubled);
    }

    fn settle(&mut self) -> Result<(), String> {
        let in_flight = self.model.in_flight();
        let Some((id, session, receipt)) = self.dice.pick(&in_flight) else {
            return Ok(());
        };
        let (mut by, mut with) = (session, receipt);
        match self.dice.below(8) {
            0 => by = self.session(),
            1 => with = self.dice.pick(&self.stale).map_or(with, |(_, stale)| stale),
            _ => {}
        }
        let outcome = match self.dice.below(8) {
            0..4 => Outcome::Ack,
            4 => Outcome::Retry(None),
            5 => Outcome::Retry(Some(self.dice.below(20))),
            6 => Outcome::Dead("dead".to_owned()),
            _ => Outcome::Failed("failed".to_owned()),
        };
        let due = self.model.settle(by, (id, with), &outcome, self.now);
        let with = if self.fault == Fault::ReceiptIgnored {
            receipt
        } else {
            with
        };
        let outcome = match outcome {
            Outcome::Ack if self.fault == Fault::AckIgnored => Outcome::Retry(Some(0)),
            outcome => outcome,
        };
        let taken = self.lanes.settle(by, (id, with), outcome, self.now);
        self.stale.push((id, receipt));
        same("whether an outcome counts", &taken, &due)
    }

    fn extend(&mut self) -> Result<(), String> {
        let in_flight = self.model.in_flight();
        let Some((id, holder, _)) = self.dice.pick(&in_flight) else {
            return Ok(());
        };
        let session = if self.dice.one_in(4) {
            self.session()
        } else {
            holder
        };
        let ms = self.dice.below(60);
        let taken = self.lanes.extend(session, id, ms, self.now);
        let due = self.model.extend(session, id, self.now + ms);
        same("whether an extension counts", &taken, &due)
    }

    fn leave(&mut self) {
        let (session, ended) = (self.session(), self.dice.one_in(2));
        self.model.leave(session, ended, self.now);
        self.lanes.leave(session, ended, self.now);
    }

    fn take_back(&mut self) {
        let in_flight = self.model.in_flight();
        if let Some((id, session, receipt)) = self.dice.pick(&in_flight) {
            let handed = Handed {
                id,
                receipt,
                attempt: self.model.known(id).entry.attempts + 1,
            };
            self.model.take_back(id);
            self.lanes.take_back(session, &[handed]);
            self.model.refund(session);
            self.lanes.refund(session);
        }
    }

    fn purge(&mut self) -> Result<(), String> {
        self.step()?;
        let gone: Vec<_> = self.lanes.purge().iter().map(|entry| entry.id).collect();
        same("what is purged", &gone, &self.model.purge())
    }

    fn forget(&mut self) -> Result<(), String> {
        self.step()?;
        let id = 1 + self.dice.below(self.next_id as u64) as i64;
        self.model.forget(id);
        self.lanes.forget(id);
        Ok(())
    }

    fn set_policy(&mut self) -> Result<(), String> {
        self.step()?;
        let policy = Policy {
            max_attempts: 1 + self.dice.below(4) as u32,
            ..self.model.policy.clone()
        };
        self.lanes.set_policy(faulty_policy(&policy, self.fault));
        self.model.set_policy(policy);
        Ok(())
    }

    fn pass_time(&mut self) {
        self.now = match self.lanes.next_deadline() {
            Some(next) if self.dice.one_in(3) => self.now.max(next),
            _ => self.now + self.dice.below(15),
        };
    }

    fn step(&mut self) -> Result<(), String> {
        if self.fault == Fault::MessageLost && self.dice.one_in(10) {
            self.lanes.forget(self.next_id - 1);
        }
        let mut effects = self.lanes.step(self.now);
        if self.fault == Fault::DeliveredTwice
            && let Some(last @ Effect::Deliver { .. }) = effects.last().cloned()
        {
            effects.push(last);
        }
        self.model.begin_step(self.now);
        for effect in effects {
            self.model.check(effect, self.now)?;
        }
        self.model.end_step(self.now)?;
        let late = u64::from(self.fault == Fault::WokenLate);
        let next = self.lanes.next_deadline().map(|next| next + late);
        same(
            "when to wake up",
            &next,
            &self.model.next_deadline(self.now),
        )?;
        same(
            "the counts",
            &self.lanes.counts(),
            &self.model.counts(self.now),
        )
    }

    /// Acknowledges everything until nothing is left.
    fn finish(mut self) -> Result<(), String> {
        const LAST: SessionId = SessionId(99);
        let mut rounds = 0;
        loop {
            self.lanes.credit(LAST, 3, 2);
            self.model.credit(LAST, 3, 2);
            self.step()?;
            for (id, session, receipt) in self.model.in_flight() {
                self.model
                    .settle(session, (id, receipt), &Outcome::Ack, self.now);
                self.lanes
                    .settle(session, (id, receipt), Outcome::Ack, self.now);
            }
            self.step()?;
            if self.model.counts(self.now).messages == 0 {
                return self.model.account(self.next_id - 1);
            }
            self.now = self.lanes.next_deadline().unwrap_or(self.now).max(self.now);
            rounds += 1;
            if rounds > 1000 {
                return Err("messages are left that nobody gets".to_owned());
            }
        }
    }
}

fn faulty_policy(policy: &Policy, fault: Fault) -> Policy {
    Policy {
        max_attempts: policy.max_attempts + u32::from(fault == Fault::TriedOnceMore),
        ..policy.clone()
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, is: &T, due: &T) -> Result<(), String> {
    if is == due {
        return Ok(());
    }
    Err(format!("{what}: {is:?} instead of {due:?}"))
}

fn check(holds: bool, rule: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(rule.to_owned()) }
}

/// What lanes must do.
struct Model {
    policy: Policy,
    /// Those that have not come to their end.
    messages: BTreeMap<i64, Known>,
    sessions: BTreeMap<SessionId, Client>,
    /// The last receipt that was given.
    receipt: u64,
    /// Messages that were handled, given up, purged or forgotten.
    gone: i64,
}

struct Known {
    entry: Entry,
    at: At,
}

#[derive(Debug, PartialEq)]
enum At {
    Waiting,
    Held {
        session: SessionId,
        receipt: u64,
        deadline: Millis,
    },
    /// The next step has to have this effect.
    Due(Due),
}

#[derive(Debug, PartialEq)]
enum Due {
    Remove,
    /// The reason, if it is not that it was given up.
    Dead(Option<String>),
    /// Between these times.
    Again(Millis, Millis),
}

#[derive(Default)]
struct Client {
    takes: bool,
    batch: u32,
    credit: u32,
    /// Those who were served while this one had credit.
    passed: BTreeSet<SessionId>,
}

impl Model {
    fn new(policy: Policy) -> Self {
        Self {
            policy,
            messages: BTreeMap::new(),
            sessions: BTreeMap::new(),
            receipt: 0,
            gone: 0,
        }
    }

    fn add(&mut self, entry: Entry) {
        let is_spent = entry.attempts >= self.policy.max_attempts;
        let at = if is_spent {
            At::Due(Due::Dead(None))
        } else {
            At::Waiting
        };
        self.messages.insert(entry.id, Known { entry, at });
    }

    fn credit(&mut self, session: SessionId, batch: u32, batches: u32) {
        let client = self.sessions.entry(session).or_default();
        client.takes = true;
        client.batch = batch;
        if client.credit == 0 {
            client.passed.clear();
        }
        client.credit += batches;
    }

    fn refund(&mut self, session: SessionId) {
        if let Some(client) = self.sessions.get(&session)
            && client.takes
        {
            self.credit(session, client.batch, 1);
        }
    }

    /// Returns message, session and receipt of every try.
    fn in_flight(&self) -> Vec<(i64, SessionId, u64)> {
        let messages = self.messages.iter();
        let held = messages.filter_map(|(id, known)| match known.at {
            At::Held {
                session, receipt, ..
            } => Some((*id, session, receipt)),
            _ => None,
        });
        held.collect()
    }

    fn settle(
        &mut self,
        by: SessionId,
        (id, with): (i64, u64),
        outcome: &Outcome,
        now: Millis,
    ) -> bool {
        if !self.in_flight().contains(&(id, by, with)) {
            return false;
        }
        match outcome {
            Outcome::Ack => self.due(id, Due::Remove),
            Outcome::Dead(reason) => {
                self.known(id).entry.attempts += 1;
                self.due(id, Due::Dead(Some(reason.clone())));
            }
            Outcome::Retry(pause) => self.again(id, *pause, None, now),
            Outcome::Failed(reason) => self.again(id, None, Some(reason), now),
        }
        true
    }

    fn again(&mut self, id: i64, pause: Option<Millis>, failure: Option<&str>, now: Millis) {
        let policy = self.policy.clone();
        let entry = &mut self.known(id).entry;
        entry.attempts += 1;
        let attempts = entry.attempts;
        entry.alone |= failure.is_some();
        if attempts >= policy.max_attempts {
            self.due(id, Due::Dead(failure.map(str::to_owned)));
            return;
        }
        let longest = (policy.backoff_ms << (attempts - 1)).min(policy.backoff_max_ms);
        let (least, most) = pause.map_or((0, longest), |pause| (pause, pause));
        self.due(id, Due::Again(now + least, now + most));
    }

    fn extend(&mut self, by: SessionId, id: i64, until: Millis) -> bool {
        match &mut self.known(id).at {
            At::Held {
                session, deadline, ..
            } if *session == by => {
                *deadline = until;
                true
            }
            _ => false,
        }
    }

    fn leave(&mut self, session: SessionId, ended: bool, now: Millis) {
        let Some(client) = self.sessions.get_mut(&session) else {
            return;
        };
        (client.takes, client.credit) = (false, 0);
        for (id, holder, _) in self.in_flight() {
            if ended && holder == session {
                self.again(id, Some(0), Some(SESSION_ENDED), now);
            }
        }
    }

    fn take_back(&mut self, id: i64) {
        let max_attempts = self.policy.max_attempts;
        let known = self.known(id);
        known.at = if known.entry.attempts >= max_attempts {
            At::Due(Due::Dead(None))
        } else {
            At::Waiting
        };
    }

    fn purge(&mut self) -> Vec<i64> {
        let messages = self.messages.iter();
        let idle = messages.filter(|(_, known)| known.at == At::Waiting);
        let idle: Vec<_> = idle.map(|(id, _)| *id).collect();
        for id in &idle {
            self.forget(*id);
        }
        idle
    }

    fn forget(&mut self, id: i64) {
        if self.messages.remove(&id).is_some() {
            self.gone += 1;
        }
    }

    fn set_policy(&mut self, policy: Policy) {
        for known in self.messages.values_mut() {
            if known.at == At::Waiting && known.entry.attempts >= policy.max_attempts {
                known.at = At::Due(Due::Dead(None));
            }
        }
        self.policy = policy;
    }

    fn begin_step(&mut self, now: Millis) {
        for (id, ..) in self.in_flight() {
            if matches!(self.known(id).at, At::Held { deadline, .. } if deadline <= now) {
                self.again(id, None, Some(NOT_SETTLED), now);
            }
        }
    }

    /// Checks one effect, and carries it out.
    fn check(&mut self, effect: Effect, now: Millis) -> Result<(), String> {
        match effect {
            Effect::Deliver {
                session,
                batch,
                deadline,
            } => {
                same(
                    "the deadline",
                    &deadline,
                    &(now + self.policy.visibility_ms),
                )?;
                self.check_turn(session, batch.len())?;
                self.check_batch(&batch, now)?;
                for handed in batch {
                    self.check_handed(handed)?;
                    self.known(handed.id).at = At::Held {
                        session,
                        receipt: handed.receipt,
                        deadline,
                    };
                }
                Ok(())
            }
            Effect::Remove { id } => {
                check(self.is_due(id, |due| *due == Due::Remove), "removed")?;
                self.forget(id);
                Ok(())
            }
            Effect::Retry {
                id,
                attempts,
                ready_at,
                alone,
            } => {
                let in_range = |due: &Due| match due {
                    Due::Again(least, most) => (*least..=*most).contains(&ready_at),
                    _ => false,
                };
                check(self.is_due(id, in_range), "to be tried again then")?;
                let known = self.known(id);
                same("tries", &attempts, &known.entry.attempts)?;
                same("alone", &alone, &known.entry.alone)?;
                known.entry.ready_at = ready_at;
                known.at = At::Waiting;
                Ok(())
            }
            Effect::Dead {
                id,
                attempts,
                reason,
            } => {
                let gave_up = format!("gave up after {attempts} attempt");
                let is_right = |due: &Due| match due {
                    Due::Dead(Some(due)) => *due == reason,
                    Due::Dead(None) => reason.starts_with(&gave_up),
                    _ => false,
                };
                check(self.is_due(id, is_right), "a dead letter for that reason")?;
                same("tries", &attempts, &self.known(id).entry.attempts)?;
                self.forget(id);
                Ok(())
            }
        }
    }

    /// A session has credit for its batch, and nobody with credit is passed twice.
    fn check_turn(&mut self, session: SessionId, len: usize) -> Result<(), String> {
        let client = self.sessions.entry(session).or_default();
        check(
            client.takes && client.credit > 0,
            "delivered only with credit",
        )?;
        check(
            len <= client.batch as usize,
            "no batch larger than asked for",
        )?;
        client.credit -= 1;
        client.passed.clear();
        for (other, client) in &mut self.sessions {
            if *other != session && client.credit > 0 {
                check(client.passed.insert(session), "each in its turn")?;
            }
        }
        Ok(())
    }

    /// The messages can be delivered now, and together.
    fn check_batch(&self, batch: &[Handed], now: Millis) -> Result<(), String> {
        let deliverable = self.deliverable(now);
        let oldest = batch.first().map(|handed| handed.id);
        same("the oldest message", &oldest, &deliverable.first().copied())?;
        let ids: BTreeSet<_> = batch.iter().map(|handed| handed.id).collect();
        check(ids.len() == batch.len(), "each once in a batch")?;
        check(ids.iter().all(|id| deliverable.contains(id)), "deliverable")?;
        let is_alone = |id| self.messages[id].entry.alone;
        check(
            ids.len() == 1 || !ids.iter().any(is_alone),
            "alone after a failure",
        )
    }

    fn check_handed(&mut self, handed: Handed) -> Result<(), String> {
        check(handed.receipt > self.receipt, "no receipt twice")?;
        self.receipt = handed.receipt;
        let attempts = self.known(handed.id).entry.attempts;
        same("the attempt", &handed.attempt, &(attempts + 1))?;
        check(
            handed.attempt <= self.policy.max_attempts,
            "no more attempts than allowed",
        )
    }

    /// Returns the messages that are waiting, ready, and first of their key.
    fn deliverable(&self, now: Millis) -> Vec<i64> {
        let is_deliverable = |known: &&Known| {
            known.at == At::Waiting && known.entry.ready_at <= now && self.is_first(&known.entry)
        };
        let messages = self.messages.values().filter(is_deliverable);
        messages.map(|known| known.entry.id).collect()
    }

    fn is_first(&self, entry: &Entry) -> bool {
        let mut before = self.messages.range(..entry.id);
        entry.key.is_none() || before.all(|(_, known)| known.entry.key != entry.key)
    }

    /// All that was due is done, and nobody waits in vain.
    fn end_step(&self, now: Millis) -> Result<(), String> {
        for (id, known) in &self.messages {
            check(
                !matches!(known.at, At::Due(_)),
                &format!("{id} is overdue: {:?}", known.at),
            )?;
        }
        let has_taker = self.sessions.values().any(|client| client.credit > 0);
        check(
            !has_taker || self.deliverable(now).is_empty(),
            "delivered at once",
        )
    }

    /// Returns when a try is over or a message is ready that is not ready now.
    fn next_deadline(&self, now: Millis) -> Option<Millis> {
        let deadlines = self.messages.values().filter_map(|known| match known.at {
            At::Held { deadline, .. } => Some(deadline),
            _ => None,
        });
        deadlines.chain(self.delays(now)).min()
    }

    /// Returns when messages are ready that are not ready now.
    fn delays(&self, now: Millis) -> impl Iterator<Item = Millis> {
        let waiting = self
            .messages
            .values()
            .filter(|known| known.at == At::Waiting);
        let first = waiting.filter(|known| self.is_first(&known.entry));
        first
            .map(|known| known.entry.ready_at)
            .filter(move |time| *time > now)
    }

    fn counts(&self, now: Millis) -> Counts {
        Counts {
            messages: self.messages.len(),
            ready: self.deliverable(now).len(),
            delayed: self.delays(now).count(),
            in_flight: self.in_flight().len(),
            consumers: self.sessions.values().filter(|client| client.takes).count(),
        }
    }

    /// All that were added are accounted for.
    fn account(&self, added: i64) -> Result<(), String> {
        same("messages that came to their end", &self.gone, &added)
    }

    fn is_due(&self, id: i64, is_it: impl Fn(&Due) -> bool) -> bool {
        match self.messages.get(&id).map(|known| &known.at) {
            Some(At::Due(due)) => is_it(due),
            _ => false,
        }
    }

    fn due(&mut self, id: i64, due: Due) {
        self.known(id).at = At::Due(due);
    }

    fn known(&mut self, id: i64) -> &mut Known {
        self.messages.get_mut(&id).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Histories of an ordinary test run.
    const HISTORIES: u64 = 100_000;
    /// In how many histories a fault has to show.
    const CONTROL_HISTORIES: u64 = 500;
    const EVENTS: usize = 40;

    #[test]
    fn every_effect_is_due_and_none_is_missing() {
        for seed in 0..HISTORIES {
            if let Err(fault) = History::new(Dice::Seeded(seed), Fault::None).run(EVENTS) {
                panic!("history {seed}: {fault}");
            }
        }
    }

    #[test]
    fn model_notices_faulty_lanes() {
        let faults = [
            Fault::KeysIgnored,
            Fault::MessageLost,
            Fault::CreditDoubled,
            Fault::ReceiptIgnored,
            Fault::DeliveredTwice,
            Fault::TriedOnceMore,
            Fault::AckIgnored,
            Fault::WokenLate,
            Fault::NeverAlone,
        ];
        for fault in faults {
            let mut histories =
                (0..CONTROL_HISTORIES).map(|seed| History::new(Dice::Seeded(seed), fault));
            assert!(
                histories.any(|history| history.run(EVENTS).is_err()),
                "{fault:?}"
            );
        }
    }
}
