//! Calls about locks.

use super::super::stores::Stores;
use super::{Answer, Session};
use crate::config::shared::Shared;
use crate::state::BoxFuture;
use crate::state::lock::{Acquire, GuardId, LockError, Locks, Pinned};
use crate::state::protocol::Reply;
use std::time::Instant;

impl Session {
    pub(super) fn acquire(&self, granted: &Shared, guard: u64, request: Acquire) -> Answer {
        let space = &request.space;
        if !granted.locks.contains_key(space) {
            let error = LockError::Denied(format!("no lock space is called {space}"));
            return Answer::Now(Reply::Lock(error));
        }
        let arrived = Instant::now();
        let acquired = self.stores.locks.acquire(self.guard(guard), request);
        Answer::Later(Box::pin(async move {
            match acquired.await {
                Ok(token) => Reply::Token {
                    token,
                    waited_ms: u64::try_from(arrived.elapsed().as_millis()).unwrap_or(u64::MAX),
                },
                Err(error) => Reply::Lock(error),
            }
        }))
    }

    pub(super) fn extend(&self, guard: u64, ttl_ms: u32) -> Answer {
        changed(self.stores.locks.extend(self.guard(guard), ttl_ms))
    }

    pub(super) fn release(&self, guard: u64) -> Answer {
        changed(self.stores.locks.release(self.guard(guard)))
    }

    pub(super) fn drop_guard(&self, guard: u64) -> Answer {
        self.stores.locks.drop_guard(self.guard(guard));
        Answer::Now(Reply::Done)
    }

    pub(super) fn heartbeat(&self) -> Answer {
        self.stores.locks.heartbeat(self.id);
        Answer::Now(Reply::Done)
    }

    /// Returns guards of this session by their numbers.
    pub(super) fn guards(&self, numbers: Vec<u64>) -> Vec<GuardId> {
        numbers
            .into_iter()
            .map(|number| self.guard(number))
            .collect()
    }

    fn guard(&self, number: u64) -> GuardId {
        GuardId {
            session: self.id,
            number,
        }
    }
}

/// Keeps guards as they are while the returned value exists.
pub(super) fn pin(stores: &Stores, guards: &[GuardId]) -> Result<Option<Pinned>, LockError> {
    if guards.is_empty() {
        return Ok(None);
    }
    stores.locks.pin(guards).map(Some)
}

fn changed(change: BoxFuture<'static, Result<(), LockError>>) -> Answer {
    Answer::Later(Box::pin(async {
        match change.await {
            Ok(()) => Reply::Done,
            Err(error) => Reply::Lock(error),
        }
    }))
}
