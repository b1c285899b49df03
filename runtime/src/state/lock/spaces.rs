//! All lock spaces: embedded ones, and those that are bound to a server. Says whose a guard is, and leaves it to them.

use super::embedded::EmbeddedLocks;
use super::leased::LeasedLocks;
use super::{Acquire, GuardId, LockError, LockStatus, Locks, Pinned, SessionId};
use crate::state::BoxFuture;
use crate::state::db::Fence;
use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::future::ready;
use std::rc::Rc;

/// The spaces.
#[derive(Default)]
pub struct Spaces {
    embedded: OnceCell<EmbeddedLocks>,
    bound: RefCell<BTreeMap<String, LeasedLocks>>,
    /// The guards of those that are bound: all others are embedded.
    whose: Rc<RefCell<BTreeMap<GuardId, LeasedLocks>>>,
}

impl Spaces {
    /// Returns the locks of all spaces that are not bound, once they are there.
    pub fn embedded(&self) -> Option<&EmbeddedLocks> {
        self.embedded.get()
    }

    /// Takes them, unless they are there.
    pub fn embed(&self, locks: EmbeddedLocks) {
        // Nobody else sets it: generations are configured one after the other.
        let _ = self.embedded.set(locks);
    }

    /// Returns the spaces that are bound.
    pub fn bound(&self) -> BTreeMap<String, LeasedLocks> {
        self.bound.borrow().clone()
    }

    /// Takes a space that is bound.
    pub fn bind(&self, space: &str, locks: LeasedLocks) {
        self.bound.borrow_mut().insert(space.to_owned(), locks);
    }

    /// Notes whose session this is.
    pub fn begin_session(&self, session: SessionId, pid: i32) {
        if let Some(embedded) = self.embedded() {
            embedded.begin_session(session, pid);
        }
        for bound in self.bound.borrow().values() {
            bound.begin_session(session, pid);
        }
    }

    /// Returns where a guard is kept.
    fn of(&self, guard: GuardId) -> Option<Rc<dyn Locks>> {
        if let Some(bound) = self.whose.borrow().get(&guard) {
            return Some(Rc::new(bound.clone()));
        }
        let embedded = self.embedded()?.clone();
        Some(Rc::new(embedded))
    }

    /// Returns the guards that are kept in each place.
    fn apart(&self, guards: &[GuardId]) -> (Vec<GuardId>, Vec<(LeasedLocks, Vec<GuardId>)>) {
        let whose = self.whose.borrow();
        let (mut embedded, mut bound) = (Vec::new(), Vec::<(LeasedLocks, Vec<GuardId>)>::new());
        for guard in guards {
            let Some(locks) = whose.get(guard) else {
                embedded.push(*guard);
                continue;
            };
            match bound.iter_mut().find(|(known, _)| known.is(locks)) {
                Some((_, guards)) => guards.push(*guard),
                None => bound.push((locks.clone(), vec![*guard])),
            }
        }
        (embedded, bound)
    }
}

impl Locks for Spaces {
    fn acquire(
        &self,
        guard: GuardId,
        request: Acquire,
    ) -> BoxFuture<'static, Result<u64, LockError>> {
        let bound = self.bound.borrow().get(&request.space).cloned();
        let Some(bound) = bound else {
            return match self.embedded() {
                Some(embedded) => embedded.acquire(guard, request),
                None => {
                    let error =
                        LockError::Denied(format!("no lock space is called {}", request.space));
                    Box::pin(ready(Err(error)))
                }
            };
        };
        let acquired = bound.acquire(guard, request);
        self.whose.borrow_mut().insert(guard, bound);
        let whose = self.whose.clone();
        Box::pin(async move {
            let acquired = acquired.await;
            if acquired.is_err() {
                // Its owner forgets it, too.
                whose.borrow_mut().remove(&guard);
            }
            acquired
        })
    }

    fn extend(&self, guard: GuardId, ttl_ms: u32) -> BoxFuture<'static, Result<(), LockError>> {
        match self.of(guard) {
            Some(locks) => locks.extend(guard, ttl_ms),
            None => Box::pin(ready(Err(LockError::Lost))),
        }
    }

    fn release(&self, guard: GuardId) -> BoxFuture<'static, Result<(), LockError>> {
        let locks = self.of(guard);
        self.whose.borrow_mut().remove(&guard);
        match locks {
            Some(locks) => locks.release(guard),
            None => Box::pin(ready(Err(LockError::Lost))),
        }
    }

    fn drop_guard(&self, guard: GuardId) {
        let locks = self.of(guard);
        self.whose.borrow_mut().remove(&guard);
        if let Some(locks) = locks {
            locks.drop_guard(guard);
        }
    }

    fn heartbeat(&self, session: SessionId) {
        if let Some(embedded) = self.embedded() {
            embedded.heartbeat(session);
        }
        for bound in self.bound.borrow().values() {
            bound.heartbeat(session);
        }
    }

    fn end_session(&self, session: SessionId) {
        if let Some(embedded) = self.embedded() {
            embedded.end_session(session);
        }
        for bound in self.bound().values() {
            bound.end_session(session);
        }
        self.whose
            .borrow_mut()
            .retain(|guard, _| guard.session != session);
    }

    fn pin(&self, guards: &[GuardId]) -> Result<Pinned, LockError> {
        let (embedded, bound) = self.apart(guards);
        let mut pins = Vec::new();
        if !embedded.is_empty() {
            pins.push(self.embedded().ok_or(LockError::Lost)?.pin(&embedded)?);
        }
        for (locks, guards) in bound {
            pins.push(locks.pin(&guards)?);
        }
        Ok(Pinned::new(move || drop(pins)))
    }

    fn fences(&self, guards: &[GuardId]) -> Vec<Fence> {
        let (_, bound) = self.apart(guards);
        let fences = bound
            .iter()
            .flat_map(|(locks, guards)| locks.fences(guards));
        let mut fences: Vec<Fence> = fences.collect();
        fences.sort_unstable();
        fences.dedup_by(|a, b| a.key == b.key);
        fences
    }

    fn list(&self) -> BoxFuture<'static, Result<Vec<LockStatus>, LockError>> {
        let embedded = self.embedded().map(Locks::list);
        let bound: Vec<_> = self.bound.borrow().values().map(Locks::list).collect();
        Box::pin(async move {
            let mut all = Vec::new();
            for list in embedded.into_iter().chain(bound) {
                all.extend(list.await?);
            }
            Ok(all)
        })
    }
}
