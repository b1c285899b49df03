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
        let locks = match self.stores.locks() {
            Some(locks) if granted.locks.contains_key(space) => locks,
            _ => {
                let error = LockError::Denied(format!("no lock space is called {space}"));
                return Answer::Now(Reply::Lock(error));
            }
        };
        let arrived = Instant::now();
        let acquired = locks.acquire(self.guard(guard), request);
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
        self.change_guard(|locks| locks.extend(self.guard(guard), ttl_ms))
    }

    pub(super) fn release(&self, guard: u64) -> Answer {
        self.change_guard(|locks| locks.release(self.guard(guard)))
    }

    pub(super) fn drop_guard(&self, guard: u64) -> Answer {
        if let Some(locks) = self.stores.locks() {
            locks.drop_guard(self.guard(guard));
        }
        Answer::Now(Reply::Done)
    }

    pub(super) fn heartbeat(&self) -> Answer {
        if let Some(locks) = self.stores.locks() {
            locks.heartbeat(self.id);
        }
        Answer::Now(Reply::Done)
    }

    fn change_guard(
        &self,
        change: impl FnOnce(&dyn Locks) -> BoxFuture<'static, Result<(), LockError>>,
    ) -> Answer {
        // Where there are no locks, there is no guard.
        let Some(locks) = self.stores.locks() else {
            return Answer::Now(Reply::Lock(LockError::Lost));
        };
        let changed = change(locks);
        Answer::Later(Box::pin(async {
            match changed.await {
                Ok(()) => Reply::Done,
                Err(error) => Reply::Lock(error),
            }
        }))
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
    let locks = stores.locks().ok_or(LockError::Lost)?;
    locks.pin(guards).map(Some)
}
