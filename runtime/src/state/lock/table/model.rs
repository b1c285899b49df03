//! The lock table once more, as simple as possible and as slow as it likes, to compare the real one with.
//!
//! It is one list of requests in the order of their arrival, searched from the start for everything. It has no limits.

use super::{Effect, LockTable};
use crate::state::Millis;
use crate::state::lock::{Acquire, GuardId, LockError, SessionId};
use std::collections::HashMap;
use std::ops::Range;
use std::task::Poll;

/// What can be done with a table.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Acquire(GuardId, Acquire),
    Extend(GuardId, Millis),
    Release(GuardId),
    Drop(GuardId),
    End(SessionId),
    Heartbeat(SessionId),
    Pin(Vec<GuardId>),
    Unpin(Vec<GuardId>),
    Suspend,
    Resume,
    Raise(u64),
    Expire,
}

/// What an operation returns.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Answer {
    Acquired(Poll<Result<u64, LockError>>),
    Result(Result<(), LockError>),
    Nothing,
}

/// What can be seen of a step from outside.
pub(super) type Seen = (Answer, Vec<Effect>);

/// The simple table.
pub(super) struct Model {
    requests: Vec<Request>,
    heard: HashMap<SessionId, Millis>,
    tokens: Range<u64>,
    suspended: bool,
    effects: Vec<Effect>,
}

#[derive(Clone)]
struct Request {
    id: GuardId,
    asked: Acquire,
    pins: u32,
    phase: Phase,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Phase {
    Waiting { until: Millis },
    Held { until: Millis },
    Leaving,
    Lost,
}

impl LockTable {
    /// Does a step.
    pub(super) fn step(&mut self, step: &Step, now: Millis) -> Seen {
        let mut answer = Answer::Nothing;
        match step {
            Step::Acquire(id, asked) => {
                answer = Answer::Acquired(self.acquire(*id, asked.clone(), now));
            }
            Step::Extend(id, ttl) => answer = Answer::Result(self.extend(*id, *ttl, now)),
            Step::Release(id) => answer = Answer::Result(self.release(*id, now)),
            Step::Drop(id) => self.drop_guard(*id, now),
            Step::End(session) => self.end_session(*session, now),
            Step::Heartbeat(session) => self.heartbeat(*session, now),
            Step::Pin(ids) => answer = Answer::Result(self.pin(ids, now)),
            Step::Unpin(ids) => self.unpin(ids, now),
            Step::Suspend => self.suspend(),
            Step::Resume => self.resume(now),
            Step::Raise(ceiling) => self.raise_ceiling(*ceiling, now),
            Step::Expire => self.expire(now),
        }
        (answer, std::iter::from_fn(|| self.next_effect()).collect())
    }
}

impl Model {
    pub(super) fn new(tokens: Range<u64>) -> Self {
        Self {
            requests: Vec::new(),
            heard: HashMap::new(),
            tokens,
            suspended: false,
            effects: Vec::new(),
        }
    }

    /// Does a step.
    pub(super) fn step(&mut self, step: &Step, now: Millis) -> Seen {
        if !matches!(step, Step::Suspend) {
            self.expire(now);
        }
        let mut answer = Answer::Nothing;
        match step {
            Step::Acquire(id, asked) => answer = Answer::Acquired(self.acquire(*id, asked, now)),
            Step::Extend(id, ttl) => {
                let extend = |request: &mut Request| {
                    let until = match request.phase {
                        Phase::Held { until } if request.asked.renew => until.max(now + ttl),
                        _ => now + ttl,
                    };
                    request.phase = Phase::Held { until };
                };
                let held = self.held(*id).map(extend);
                answer = Answer::Result(held.ok_or(LockError::Lost));
            }
            Step::Release(id) => {
                let held = self.held(*id).map(|_| ()).ok_or(LockError::Lost);
                answer = Answer::Result(held);
                self.give_up(|request| request.id == *id);
            }
            Step::Drop(id) => self.give_up(|request| request.id == *id),
            Step::End(session) => self.give_up(|request| request.id.session == *session),
            Step::Heartbeat(session) => drop(self.heard.insert(*session, now)),
            Step::Pin(ids) => answer = Answer::Result(self.pin(ids)),
            Step::Unpin(ids) => self.unpin(ids, now),
            Step::Suspend => self.suspended = true,
            Step::Resume => self.suspended = false,
            Step::Raise(ceiling) => self.tokens.end = self.tokens.end.max(*ceiling),
            Step::Expire => {}
        }
        self.settle(now);
        (answer, std::mem::take(&mut self.effects))
    }

    /// Returns the guards that are held and may be released.
    pub(super) fn all_held(&self) -> Vec<GuardId> {
        let held = |request: &&Request| matches!(request.phase, Phase::Held { .. });
        self.requests
            .iter()
            .filter(held)
            .map(|request| request.id)
            .collect()
    }

    /// Returns how many requests wait.
    pub(super) fn waiting(&self) -> usize {
        let waits = |request: &&Request| matches!(request.phase, Phase::Waiting { .. });
        self.requests.iter().filter(waits).count()
    }

    fn held(&mut self, id: GuardId) -> Option<&mut Request> {
        let held = |request: &&mut Request| {
            request.id == id && matches!(request.phase, Phase::Held { .. })
        };
        self.requests.iter_mut().find(held)
    }

    fn acquire(
        &mut self,
        id: GuardId,
        asked: &Acquire,
        now: Millis,
    ) -> Poll<Result<u64, LockError>> {
        if self.requests.iter().any(|request| request.id == id) {
            let error = LockError::Invalid("a guard has this number already".to_owned());
            return Poll::Ready(Err(error));
        }
        let until = now + Millis::from(asked.wait_ms);
        let phase = Phase::Waiting { until };
        self.requests.push(Request {
            id,
            asked: asked.clone(),
            pins: 0,
            phase,
        });
        let new = self.requests.len() - 1;
        if self.is_ready(new)
            && !self.suspended
            && let Some(token) = self.tokens.next()
        {
            self.hold(new, now);
            return Poll::Ready(Ok(token));
        }
        let owner = self.requests[new].owner();
        let error = if self.reaches(owner, owner, &mut Vec::new()) {
            LockError::WouldDeadlock
        } else if asked.wait_ms == 0 {
            self.no_grant(new)
        } else {
            return Poll::Pending;
        };
        self.requests.pop();
        Poll::Ready(Err(error))
    }

    fn hold(&mut self, index: usize, now: Millis) {
        let request = &mut self.requests[index];
        let until = now + Millis::from(request.asked.ttl_ms);
        request.phase = Phase::Held { until };
    }

    fn no_grant(&self, index: usize) -> LockError {
        if self.is_ready(index) && !self.suspended {
            return LockError::Unavailable("no fencing token is left".to_owned());
        }
        LockError::Timeout
    }

    /// Says whether nobody holds a key of this request or waited for it before.
    fn is_ready(&self, index: usize) -> bool {
        self.ahead(index).next().is_none()
    }

    /// Returns those that this request waits for.
    fn ahead(&self, index: usize) -> impl Iterator<Item = &Request> {
        let request = &self.requests[index];
        let others = self.requests.iter().enumerate();
        others.filter_map(move |(other, before)| match before.phase {
            Phase::Lost => None,
            Phase::Waiting { .. } if other >= index => None,
            _ => before.wants_same(request).then_some(before),
        })
    }

    /// Says whether one owner waits for another, over others or not.
    fn reaches(
        &self,
        from: (SessionId, u64),
        to: (SessionId, u64),
        asked: &mut Vec<(SessionId, u64)>,
    ) -> bool {
        if asked.contains(&from) {
            return false;
        }
        asked.push(from);
        let mine = |&index: &usize| {
            let request = &self.requests[index];
            request.owner() == from && matches!(request.phase, Phase::Waiting { .. })
        };
        let mut ahead = (0..self.requests.len())
            .filter(mine)
            .flat_map(|index| self.ahead(index));
        ahead.any(|before| {
            before.phase != Phase::Leaving
                && (before.owner() == to || self.reaches(before.owner(), to, asked))
        })
    }

    fn give_up(&mut self, whose: impl Fn(&Request) -> bool) {
        let mut given_up: Vec<_> = self.requests.iter().filter(|r| whose(r)).cloned().collect();
        given_up.sort_by_key(|request| (request.owner(), request.id));
        for request in given_up {
            if matches!(request.phase, Phase::Waiting { .. }) {
                let error = LockError::Lost;
                self.effects.push(Effect::Refused {
                    guard: request.id,
                    error,
                });
            }
        }
        for request in self.requests.iter_mut().filter(|request| whose(request)) {
            if request.pins > 0 {
                request.phase = Phase::Leaving;
            }
        }
        self.requests
            .retain(|request| request.pins > 0 || !whose(request));
    }

    fn pin(&mut self, ids: &[GuardId]) -> Result<(), LockError> {
        if ids.iter().any(|id| self.held(*id).is_none()) {
            return Err(LockError::Lost);
        }
        for id in ids {
            self.held(*id).ok_or(LockError::Lost)?.pins += 1;
        }
        Ok(())
    }

    fn unpin(&mut self, ids: &[GuardId], now: Millis) {
        for request in &mut self.requests {
            request.pins -= ids.contains(&request.id) as u32;
        }
        self.requests
            .retain(|request| request.pins > 0 || request.phase != Phase::Leaving);
        for id in ids {
            let mut ended = self
                .requests
                .iter()
                .enumerate()
                .filter(|(_, request)| request.id == *id);
            if let Some((index, _)) = ended.next()
                && self.end_of(index).is_some_and(|end| end <= now)
            {
                self.end(index);
            }
        }
    }

    /// Returns when a wait or a lease ends.
    fn end_of(&self, index: usize) -> Option<Millis> {
        let request = &self.requests[index];
        match request.phase {
            Phase::Waiting { until } => Some(until),
            Phase::Held { until } if request.pins == 0 => {
                let heard = self.heard.get(&request.id.session).copied().unwrap_or(0);
                let renewed = heard + Millis::from(request.asked.ttl_ms);
                Some(if request.asked.renew {
                    until.max(renewed)
                } else {
                    until
                })
            }
            _ => None,
        }
    }

    fn expire(&mut self, now: Millis) {
        loop {
            let ends = (0..self.requests.len())
                .filter_map(|index| Some((self.end_of(index)?, self.requests[index].id, index)));
            match ends.min() {
                Some((end, _, index)) if end <= now => self.end(index),
                _ => return,
            }
            self.settle(now);
        }
    }

    /// Ends a wait or a lease.
    fn end(&mut self, index: usize) {
        let guard = self.requests[index].id;
        if matches!(self.requests[index].phase, Phase::Waiting { .. }) {
            let error = self.no_grant(index);
            self.effects.push(Effect::Refused { guard, error });
            self.requests.remove(index);
        } else {
            self.effects.push(Effect::Lost { guard });
            self.requests[index].phase = Phase::Lost;
        }
    }

    /// Grants all requests whose turn has come.
    fn settle(&mut self, now: Millis) {
        for index in 0..self.requests.len() {
            let waits = matches!(self.requests[index].phase, Phase::Waiting { .. });
            if waits
                && !self.suspended
                && self.is_ready(index)
                && let Some(token) = self.tokens.next()
            {
                self.hold(index, now);
                let guard = self.requests[index].id;
                self.effects.push(Effect::Granted { guard, token });
            }
        }
    }
}

impl Request {
    fn owner(&self) -> (SessionId, u64) {
        (self.id.session, self.asked.owner)
    }

    fn wants_same(&self, other: &Self) -> bool {
        let same_space = self.asked.space == other.asked.space;
        same_space
            && self
                .asked
                .keys
                .iter()
                .any(|key| other.asked.keys.contains(key))
    }
}
