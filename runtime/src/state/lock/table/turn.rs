//! Whose turn it is: how a guard comes into the table, gets its keys, and makes way for the next.
//!
//! Making way is apart from granting, so that several guards can go before anybody gets their keys.

use super::guard::{Guard, State};
use super::{Effect, LockTable, Next};
use crate::state::Millis;
use crate::state::lock::{GuardId, LockError, SessionId};
use std::collections::hash_map::Entry;

impl LockTable {
    /// Returns the fencing token for a grant, if one may be made now.
    pub(super) fn next_token(&mut self) -> Option<u64> {
        if self.suspended {
            return None;
        }
        self.tokens.next()
    }

    /// Keeps a guard; its keys know nothing of it yet.
    pub(super) fn insert(&mut self, id: GuardId, guard: Guard) {
        let session = self.sessions.entry(id.session).or_default();
        session.keys += guard.names.len();
        session.guards.insert((guard.owner, id.number));
        self.guards.insert(id, guard);
    }

    /// Makes a guard a lock: its keys are idle, or it is its turn.
    pub(super) fn grant(&mut self, id: GuardId, token: u64, now: Millis) {
        if let Some(guard) = self.guards.get_mut(&id) {
            self.keys.give(id, &guard.names);
            let end = guard.hold(token, now);
            guard.set_alarm(id, Some(end), &mut self.alarms);
        }
    }

    /// Grants a request if its turn has come.
    pub(super) fn settle(&mut self, id: GuardId, now: Millis) {
        let Some(guard) = self.guards.get(&id) else {
            return;
        };
        let Some(ticket) = guard.ticket() else {
            return;
        };
        if !self.keys.is_turn_of(ticket, &guard.names) {
            return;
        }
        let Some(token) = self.next_token() else {
            self.withheld.insert(ticket, id);
            return;
        };
        self.grant(id, token, now);
        self.effects.push_back(Effect::Granted { guard: id, token });
    }

    /// Grants those of the requests whose turn has come, in order.
    pub(super) fn settle_all(&mut self, mut next: Next, now: Millis) {
        next.sort_unstable();
        next.dedup();
        for (_, id) in next {
            self.settle(id, now);
        }
    }

    /// Grants what waited for nothing but a token, as far as the tokens go.
    pub(super) fn settle_withheld(&mut self, now: Millis) {
        let withheld = std::mem::take(&mut self.withheld);
        self.settle_all(withheld.into_iter().collect(), now);
    }

    /// Carries out that its owner wants a guard no more. Says whether it was held until now.
    pub(super) fn give_up(&mut self, id: GuardId, next: &mut Next) -> bool {
        let Some(guard) = self.guards.get_mut(&id) else {
            return false;
        };
        let held = matches!(guard.state, State::Held { .. });
        match guard.state {
            State::Held { token, since, .. } if guard.pins > 0 => {
                guard.state = State::Leaving { token, since };
                guard.set_alarm(id, None, &mut self.alarms);
            }
            State::Held { .. } | State::Lost => self.remove(id, next),
            State::Waiting { .. } => self.refuse(id, LockError::Lost, next),
            State::Leaving { .. } => {}
        }
        held
    }

    /// Ends a wait.
    pub(super) fn refuse(&mut self, id: GuardId, error: LockError, next: &mut Next) {
        self.effects.push_back(Effect::Refused { guard: id, error });
        self.remove(id, next);
    }

    /// Ends the lease of a held guard if that is due by `by`, or sees to it that it is looked at when it will be.
    pub(super) fn check_lease(&mut self, id: GuardId, by: Millis, next: &mut Next) {
        let heard = self.heard(id.session);
        let Some(guard) = self.guards.get_mut(&id) else {
            return;
        };
        let end = guard.lease_end(heard);
        if end > by {
            guard.set_alarm(id, Some(end), &mut self.alarms);
            return;
        }
        guard.state = State::Lost;
        guard.set_alarm(id, None, &mut self.alarms);
        self.keys.leave(id, guard, next);
        self.effects.push_back(Effect::Lost { guard: id });
    }

    /// Forgets a guard, and takes it away from its keys.
    pub(super) fn remove(&mut self, id: GuardId, next: &mut Next) {
        let Some(mut guard) = self.guards.remove(&id) else {
            return;
        };
        guard.set_alarm(id, None, &mut self.alarms);
        self.keys.leave(id, &guard, next);
        if let Some(ticket) = guard.ticket() {
            self.withheld.remove(&ticket);
        }
        let Entry::Occupied(mut session) = self.sessions.entry(id.session) else {
            return;
        };
        session.get_mut().keys -= guard.names.len();
        session.get_mut().guards.remove(&(guard.owner, id.number));
        // Nothing is lost with it: a sign of life from before a grant prolongs nothing.
        if session.get().guards.is_empty() {
            session.remove();
        }
    }

    /// Returns a session's last sign of life.
    pub(super) fn heard(&self, session: SessionId) -> Millis {
        self.sessions
            .get(&session)
            .map_or(0, |session| session.heard)
    }
}
