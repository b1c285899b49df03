//! The lock table: who holds which key, who waits for it, and until when.
//!
//! A state machine without a clock, sockets or processes: callers pass `now`, and carry out the [`Effect`]s that an
//! operation leaves behind. What a session is, and where fencing tokens are kept, is theirs to know.
//!
//! A request stands in the queues of all its keys at once, under one ticket, and gets all of them when it is the first in
//! each queue and nobody holds any. So nobody holds one key while waiting for another of the same request, and nobody
//! overtakes. A key has an entry only while somebody holds it or waits for it.

mod deadlock;
mod guard;
mod keys;
mod turn;

use super::{Acquire, GuardId, LockError, LockStatus, SESSION_KEYS_MAX, SessionId, WAITERS_MAX};
use crate::state::Millis;
use guard::{Guard, State};
use keys::{Key, Keys, Name};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Range;
use std::task::Poll;

/// What somebody has to be told. Each request that was left waiting is answered once, by one of the first two.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Effect {
    /// A request that waited has got its keys.
    Granted { guard: GuardId, token: u64 },
    /// A request that waited gets nothing. The error is `Lost` if its own side gave it up.
    Refused { guard: GuardId, error: LockError },
    /// A guard that was granted holds no more, though nobody released it.
    Lost { guard: GuardId },
}

/// Who holds what, and who waits for it.
#[derive(Debug)]
pub struct LockTable {
    keys: Keys,
    guards: HashMap<GuardId, Guard>,
    sessions: HashMap<SessionId, Session>,
    /// When to look at a guard: never later than its wait or its lease ends.
    alarms: Alarms,
    /// Requests whose turn has come, but for whom there is no token: see [`LockTable::next_token`].
    withheld: BTreeMap<Ticket, GuardId>,
    effects: VecDeque<Effect>,
    /// The last ticket that was given out.
    ticket: Ticket,
    /// The fencing tokens that may be given out.
    tokens: Range<u64>,
    suspended: bool,
}

/// A request's place in all queues: lower is earlier.
type Ticket = u64;

/// Times, and the guards to look at then.
type Alarms = BTreeSet<(Millis, GuardId)>;

/// Requests whose turn may have come.
type Next = Vec<(Ticket, GuardId)>;

#[derive(Debug, Default)]
struct Session {
    /// Its last sign of life.
    heard: Millis,
    /// Keys of all its guards, lost ones included, so that forgotten guards cannot pile up.
    keys: usize,
    /// Owners and numbers of its guards.
    guards: BTreeSet<(u64, u64)>,
}

impl LockTable {
    /// Returns an empty table that may give out these fencing tokens.
    pub fn new(tokens: Range<u64>) -> Self {
        Self {
            keys: Keys::default(),
            guards: HashMap::new(),
            sessions: HashMap::new(),
            alarms: Alarms::new(),
            withheld: BTreeMap::new(),
            effects: VecDeque::new(),
            ticket: 0,
            tokens,
            suspended: false,
        }
    }

    /// Takes the keys of a request, which are sorted and each once, under a guard that the caller chose. Returns the
    /// fencing token; or `Pending` if it has to wait, which ends with an effect.
    pub fn acquire(
        &mut self,
        id: GuardId,
        request: Acquire,
        now: Millis,
    ) -> Poll<Result<u64, LockError>> {
        self.expire(now);
        if self.guards.contains_key(&id) {
            let error = LockError::Invalid("a guard has this number already".to_owned());
            return Poll::Ready(Err(error));
        }
        let held = self.sessions.get(&id.session).map_or(0, |s| s.keys);
        if held + request.keys.len() > SESSION_KEYS_MAX {
            let error = LockError::Limit(format!("{SESSION_KEYS_MAX} locks of one worker"));
            return Poll::Ready(Err(error));
        }
        let wait = Millis::from(request.wait_ms);
        self.ticket += 1;
        let mut guard = Guard::new(request, self.ticket);
        if self.keys.are_idle(&guard.names)
            && let Some(token) = self.next_token()
        {
            self.insert(id, guard);
            self.grant(id, token, now);
            return Poll::Ready(Ok(token));
        }
        if let Some(error) = self.refusal(id.session, &guard, wait) {
            return Poll::Ready(Err(error));
        }
        guard.set_alarm(id, Some(now.saturating_add(wait)), &mut self.alarms);
        self.keys.enqueue(id, self.ticket, &guard.names);
        self.insert(id, guard);
        // If nothing but a token is missing, this notes it.
        self.settle(id, now);
        Poll::Pending
    }

    /// Makes a guard hold for `ttl` from now; a renewing one at least for that long.
    pub fn extend(&mut self, id: GuardId, ttl: Millis, now: Millis) -> Result<(), LockError> {
        self.expire(now);
        let heard = self.heard(id.session);
        let guard = self.guards.get_mut(&id).ok_or(LockError::Lost)?;
        guard.extend(now.saturating_add(ttl))?;
        let end = guard.lease_end(heard);
        guard.set_alarm(id, Some(end), &mut self.alarms);
        Ok(())
    }

    /// Gives up a guard; `Lost` says that it did not hold until now. A pinned guard counts as released at once, but its keys
    /// are free only when the pin is off.
    pub fn release(&mut self, id: GuardId, now: Millis) -> Result<(), LockError> {
        self.expire(now);
        let mut next = Next::new();
        let held = self.give_up(id, &mut next);
        self.settle_all(next, now);
        if held { Ok(()) } else { Err(LockError::Lost) }
    }

    /// Gives up a guard whatever its state: a wait ends at once.
    pub fn drop_guard(&mut self, id: GuardId, now: Millis) {
        // What it says is of no interest here.
        _ = self.release(id, now);
    }

    /// Gives up all guards of a session.
    pub fn end_session(&mut self, session: SessionId, now: Millis) {
        self.expire(now);
        let Some(ended) = self.sessions.get(&session) else {
            return;
        };
        let mut next = Next::new();
        for (_, number) in ended.guards.clone() {
            self.give_up(GuardId { session, number }, &mut next);
        }
        self.settle_all(next, now);
    }

    /// Notes a sign of life, which prolongs the renewing guards of a session.
    pub fn heartbeat(&mut self, session: SessionId, now: Millis) {
        self.expire(now);
        if let Some(session) = self.sessions.get_mut(&session) {
            session.heard = now;
        }
    }

    /// Ends the lease of a guard: it is no longer held where others see it. A pinned one is lost when the pin is off.
    pub fn lose(&mut self, id: GuardId, now: Millis) {
        self.expire(now);
        let Some(guard) = self.guards.get_mut(&id) else {
            return;
        };
        guard.cut(now);
        let mut next = Next::new();
        if matches!(guard.state, State::Held { .. }) && guard.pins == 0 {
            self.check_lease(id, now, &mut next);
        }
        self.settle_all(next, now);
    }

    /// Keeps guards as they are until [`LockTable::unpin`]: all of them, or none if one of them is not held.
    pub fn pin(&mut self, ids: &[GuardId], now: Millis) -> Result<(), LockError> {
        self.expire(now);
        let held = |id| {
            self.guards
                .get(id)
                .is_some_and(|guard| matches!(guard.state, State::Held { .. }))
        };
        if !ids.iter().all(held) {
            return Err(LockError::Lost);
        }
        for id in ids {
            if let Some(guard) = self.guards.get_mut(id) {
                guard.pins += 1;
            }
        }
        Ok(())
    }

    /// Takes a pin off. What was put off because of it is done now.
    pub fn unpin(&mut self, ids: &[GuardId], now: Millis) {
        self.expire(now);
        let mut next = Next::new();
        for &id in ids {
            let Some(guard) = self.guards.get_mut(&id) else {
                continue;
            };
            guard.pins = guard.pins.saturating_sub(1);
            if guard.pins > 0 {
                continue;
            }
            match guard.state {
                State::Leaving { .. } => self.remove(id, &mut next),
                State::Held { .. } => self.check_lease(id, now, &mut next),
                State::Waiting { .. } | State::Lost => {}
            }
        }
        self.settle_all(next, now);
    }

    /// Grants nothing until [`LockTable::resume`]: requests queue up, and their time runs.
    pub fn suspend(&mut self) {
        self.suspended = true;
    }

    /// Grants again, in the order of the requests.
    pub fn resume(&mut self, now: Millis) {
        self.expire(now);
        self.suspended = false;
        self.settle_withheld(now);
    }

    /// Allows tokens below `ceiling` to be given out.
    pub fn raise_ceiling(&mut self, ceiling: u64, now: Millis) {
        self.expire(now);
        self.tokens.end = self.tokens.end.max(ceiling);
        self.settle_withheld(now);
    }

    /// Returns how many locks can be granted before [`LockTable::raise_ceiling`] is needed.
    pub fn tokens_left(&self) -> u64 {
        self.tokens.end.saturating_sub(self.tokens.start)
    }

    /// Returns when to call [`LockTable::expire`] at the latest.
    pub fn next_deadline(&self) -> Option<Millis> {
        self.alarms.first().map(|&(at, _)| at)
    }

    /// Ends the waits and leases whose time is over, in the order of their ends. Every operation does this first, so what it
    /// sees and does is as of `now`, however late the caller's timer is.
    pub fn expire(&mut self, now: Millis) {
        while let Some(&(due, id)) = self.alarms.first()
            && due <= now
        {
            self.alarms.pop_first();
            let Some(guard) = self.guards.get_mut(&id) else {
                continue;
            };
            guard.set_alarm(id, None, &mut self.alarms);
            let mut next = Next::new();
            match guard.state {
                State::Waiting { ticket } => {
                    let error = self.no_grant(self.withheld.contains_key(&ticket));
                    self.refuse(id, error, &mut next);
                }
                // Unpinning looks at it again.
                State::Held { .. } if guard.pins > 0 => {}
                // Signs of life do not move the alarm: this is where they count.
                State::Held { .. } => self.check_lease(id, due, &mut next),
                State::Leaving { .. } | State::Lost => {}
            }
            self.settle_all(next, now);
        }
    }

    /// Returns the next effect of what was done, oldest first.
    pub fn next_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Lists the locks that are held, by space and key, each with the session that holds it; the pid is left at 0.
    pub fn status(&self, now: Millis) -> Vec<(SessionId, LockStatus)> {
        let row = |(name, key, id): (&Name, &Key, GuardId)| {
            let guard = self.guards.get(&id)?;
            let (token, since) = guard.grant()?;
            let end = guard.lease_end(self.heard(id.session));
            let status = LockStatus {
                space: name.space.clone(),
                key: name.key.clone(),
                token,
                pid: 0,
                held_ms: now.saturating_sub(since),
                expires_in_ms: end.saturating_sub(now),
                waiting: key.waiting.len() as u64,
            };
            Some((id.session, status))
        };
        self.keys.held().into_iter().filter_map(row).collect()
    }

    /// Returns what to answer to a request that can wait no longer; `ready` if nothing was missing but a token.
    fn no_grant(&self, ready: bool) -> LockError {
        if ready && !self.suspended {
            return LockError::Unavailable("no fencing token is left".to_owned());
        }
        LockError::Timeout
    }

    /// Returns why a request that cannot be granted at once must not wait either.
    fn refusal(&self, session: SessionId, guard: &Guard, wait: Millis) -> Option<LockError> {
        if self.would_deadlock(session, guard) {
            return Some(LockError::WouldDeadlock);
        }
        if wait == 0 {
            return Some(self.no_grant(self.keys.are_idle(&guard.names)));
        }
        let full = self.keys.longest_queue(&guard.names) >= WAITERS_MAX;
        full.then(|| LockError::Limit(format!("{WAITERS_MAX} waiters of one key")))
    }
}

#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod history;
#[cfg(any(test, feature = "fuzz"))]
mod model;
#[cfg(test)]
mod tests;
