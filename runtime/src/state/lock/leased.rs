//! Locks that are kept elsewhere, with a lease, by servers that other servers of wrun's may share.
//!
//! Who waits here waits in the order of this process, and only the first contends there. What is held here is held there
//! with a lease, which is renewed for as long as it is held here. Where that is and how it is spoken to is a `ledger`'s.
//! It may forget a lock, and a process may be stopped for longer than a lease: docs/redis.md says what holds then, and that
//! a commit with a fence is safe.

mod contest;
mod lease;
pub(in crate::state) mod ledger;
pub(in crate::state) mod waiting;

use super::embedded::{EmbeddedLocks, Outside};
use super::{Acquire, GuardId, LockError, LockStatus, Locks, Pinned, SessionId, check_ttl};
use crate::failure::Failure;
use crate::ipc::Reach;
use crate::state::BoxFuture;
use crate::state::db::Fence;
use crate::state::presence::Connections;
use lease::Lease;
use ledger::Ledger;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::future::{pending, ready};
use std::rc::{Rc, Weak};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Locks of one space. Clones are the same.
#[derive(Clone)]
pub struct LeasedLocks(Rc<Inner>);

struct Inner {
    space: String,
    ledger: Rc<dyn Ledger>,
    /// Who holds and who waits in this process. What is held here, but not among `held`, is being asked for.
    local: EmbeddedLocks,
    held: RefCell<BTreeMap<GuardId, Held>>,
    /// Those who are asked for, to be told that nobody wants them any more.
    contending: RefCell<BTreeMap<GuardId, Rc<Notify>>>,
    /// Is told that a guard holds no more, though nobody released it.
    on_lost: Box<dyn Fn(GuardId)>,
    /// Locks that are on their way back.
    leaving: Cell<usize>,
    fewer_leaving: Notify,
}

/// A lock that is held in the ledger.
struct Held {
    owner: String,
    /// As the guest knows them, sorted.
    keys: Vec<String>,
    token: u64,
    lease: Lease,
    /// The connections on which that was said last.
    said_on: Connections,
    pins: u32,
    /// Given up while it was pinned.
    is_leaving: bool,
    /// What renews it; it ends with this.
    _keeper: JoinSet<()>,
}

impl LeasedLocks {
    /// Takes the locks of a space that a ledger keeps; nobody is asked yet whether it is there. To be called within a
    /// `LocalSet`.
    pub(in crate::state) fn new(
        space: &str,
        ledger: Rc<dyn Ledger>,
        on_lost: Box<dyn Fn(GuardId)>,
    ) -> Self {
        let inner = Rc::new_cyclic(|inner: &Weak<Inner>| {
            let lost = inner.clone();
            let outside = Outside {
                on_lost: Box::new(move |guard| {
                    if let Some(inner) = lost.upgrade() {
                        Self(inner).lost(guard);
                    }
                }),
                // Those of this process mean nothing outside, and there are enough.
                reserve: Box::new(|| Box::pin(pending())),
            };
            Inner {
                space: space.to_owned(),
                ledger,
                local: EmbeddedLocks::new(1..u64::MAX, outside),
                held: RefCell::default(),
                contending: RefCell::default(),
                on_lost,
                leaving: Cell::new(0),
                fewer_leaving: Notify::new(),
            }
        });
        Self(inner)
    }

    /// Connects for the first time. If it `is_again`, because the state process was replaced, the servers may be away.
    pub async fn prepare(&self, is_again: bool) -> Result<(), Failure> {
        self.0.ledger.prepare(is_again).await
    }

    /// Waits until somebody here asks for a lock elsewhere.
    #[cfg(test)]
    pub(in crate::state) async fn contends(&self) {
        while self.0.contending.borrow().is_empty() {
            tokio::task::yield_now().await;
        }
    }

    /// Tells whether these are the same.
    pub fn is(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    /// Tells whether the ledger can be reached.
    pub fn reach(&self) -> Reach {
        self.0.ledger.reach()
    }

    /// Says why it cannot, if it cannot.
    pub fn why_away(&self) -> Option<String> {
        match self.reach() {
            Reach::Away(why) => Some(why),
            Reach::Here | Reach::Partly(_) => None,
        }
    }

    /// Notes whose session this is, for [`Locks::list`].
    pub fn begin_session(&self, session: SessionId, pid: i32) {
        self.0.local.begin_session(session, pid);
    }

    /// Releases what a state process of this server before this one held: nobody believes in it any more.
    pub async fn sweep(&self) {
        self.0.ledger.sweep().await;
    }

    /// Waits until what was released is released in the ledger.
    pub async fn flush(&self) {
        while self.0.leaving.get() > 0 {
            self.0.fewer_leaving.notified().await;
        }
    }

    /// The process lost a guard that its owner has yet to give up.
    fn lost(&self, guard: GuardId) {
        let held = self.0.held.borrow_mut().remove(&guard);
        if let Some(held) = held {
            self.let_go(&held);
        }
        (self.0.on_lost)(guard);
    }

    /// Gives a guard up as far as it is the ledger's; the process's own part is to follow. What is pinned stays.
    fn give_up(&self, guard: GuardId) {
        if let Some(unwanted) = self.0.contending.borrow_mut().remove(&guard) {
            unwanted.notify_one();
        }
        let held = {
            let mut all = self.0.held.borrow_mut();
            match all.get_mut(&guard) {
                Some(held) if held.pins > 0 => {
                    held.is_leaving = true;
                    None
                }
                Some(_) => all.remove(&guard),
                None => None,
            }
        };
        if let Some(held) = held {
            self.let_go(&held);
        }
    }

    /// Takes a pin off.
    fn unpin(&self, guard: GuardId) {
        let gone = {
            let mut all = self.0.held.borrow_mut();
            let Some(held) = all.get_mut(&guard) else {
                return;
            };
            held.pins = held.pins.saturating_sub(1);
            match held.pins == 0 && held.is_leaving {
                true => all.remove(&guard),
                false => None,
            }
        };
        if let Some(held) = gone {
            self.let_go(&held);
        }
    }

    /// Tells whether a guard's lease goes on.
    fn is_leased(&self, guard: GuardId) -> bool {
        let (held, now) = (self.0.held.borrow(), Instant::now());
        held.get(&guard)
            .is_some_and(|held| !held.is_leaving && held.lease.holds(now))
    }

    /// Tells whether a guard is held for all that can be known: a server that was restarted may have forgotten it.
    fn holds(&self, guard: GuardId) -> bool {
        let is_known = |held: &Held| self.0.ledger.confirms(&held.said_on);
        self.is_leased(guard) && self.0.held.borrow().get(&guard).is_some_and(is_known)
    }

    /// Has its holder's wish carried out, for how long a guard is to last.
    async fn ask_for(self, guard: GuardId, ttl_ms: u32) -> Result<(), LockError> {
        let by = Duration::from_millis(ttl_ms.into());
        let sent = Instant::now();
        let wanted = {
            let held = self.0.held.borrow();
            let held = held.get(&guard).ok_or(LockError::Lost)?;
            held.lease.extended(by, sent)
        };
        match self.prolong(guard, wanted).await {
            Ok(true) => {}
            Ok(false) => {
                self.0.local.lose(guard);
                return Err(LockError::Lost);
            }
            Err(why) => return Err(self.unavailable(&why)),
        }
        if let Some(held) = self.0.held.borrow_mut().get_mut(&guard) {
            held.lease.ask(sent, by);
        }
        self.0.local.extend(guard, ttl_ms).await
    }

    fn unavailable(&self, why: &str) -> LockError {
        LockError::Unavailable(format!("{}: {why}", self.0.ledger.product()))
    }
}

impl Locks for LeasedLocks {
    fn acquire(
        &self,
        guard: GuardId,
        request: Acquire,
    ) -> BoxFuture<'static, Result<u64, LockError>> {
        if let Err(error) = request.check() {
            return Box::pin(ready(Err(error)));
        }
        if let Some(why) = self.why_away() {
            return Box::pin(ready(Err(self.unavailable(&why))));
        }
        let deadline = Instant::now() + Duration::from_millis(request.wait_ms.into());
        // Now, so that the order is that of the calls.
        let turn = self.0.local.acquire(guard, request.clone());
        let (answer, answered) = oneshot::channel();
        let contest = self.clone().contend(guard, request, turn, deadline);
        tokio::task::spawn_local(async {
            // Nobody listens if the one who asked is gone; then the guard is dropped, too.
            let _ = answer.send(contest.await);
        });
        Box::pin(async { answered.await.unwrap_or(Err(LockError::Lost)) })
    }

    fn extend(&self, guard: GuardId, ttl_ms: u32) -> BoxFuture<'static, Result<(), LockError>> {
        if let Err(error) = check_ttl(ttl_ms) {
            return Box::pin(ready(Err(error)));
        }
        if !self.is_leased(guard) {
            return Box::pin(ready(Err(LockError::Lost)));
        }
        Box::pin(self.clone().ask_for(guard, ttl_ms))
    }

    fn release(&self, guard: GuardId) -> BoxFuture<'static, Result<(), LockError>> {
        let is_certain = self.is_leased(guard);
        let held = {
            let mut all = self.0.held.borrow_mut();
            match all.get(&guard).is_some_and(|held| held.pins == 0) {
                true => all.remove(&guard),
                false => None,
            }
        };
        let Some(held) = held else {
            self.give_up(guard);
            return self.0.local.release(guard);
        };
        // In this order: whoever is next here asks after it was released there.
        let gone = self.let_go(&held);
        let released = self.0.local.release(guard);
        Box::pin(async move {
            let were_its_own = match gone.await {
                Ok(Some(were)) => were,
                // The ledger is away. Until now nobody else can have had it.
                Ok(None) | Err(_) => is_certain,
            };
            match were_its_own {
                true => released.await,
                false => Err(LockError::Lost),
            }
        })
    }

    fn drop_guard(&self, guard: GuardId) {
        self.give_up(guard);
        self.0.local.drop_guard(guard);
    }

    fn heartbeat(&self, session: SessionId) {
        self.0.local.heartbeat(session);
    }

    fn end_session(&self, session: SessionId) {
        let first = GuardId { session, number: 0 };
        let last = GuardId {
            session,
            number: u64::MAX,
        };
        let held = self.0.held.borrow();
        let mut guards: Vec<GuardId> = held.range(first..=last).map(|(&guard, _)| guard).collect();
        drop(held);
        let contending = self.0.contending.borrow();
        guards.extend(contending.range(first..=last).map(|(&guard, _)| guard));
        drop(contending);
        guards.into_iter().for_each(|guard| self.give_up(guard));
        self.0.local.end_session(session);
    }

    fn pin(&self, guards: &[GuardId]) -> Result<Pinned, LockError> {
        if !guards.iter().all(|&guard| self.holds(guard)) {
            return Err(LockError::Lost);
        }
        let pinned = self.0.local.pin(guards)?;
        for guard in guards {
            if let Some(held) = self.0.held.borrow_mut().get_mut(guard) {
                held.pins += 1;
            }
        }
        let (locks, guards) = (self.clone(), guards.to_vec());
        Ok(Pinned::new(move || {
            guards.into_iter().for_each(|guard| locks.unpin(guard));
            drop(pinned);
        }))
    }

    fn fences(&self, guards: &[GuardId]) -> Vec<Fence> {
        let (held, space) = (self.0.held.borrow(), &self.0.space);
        let held = guards.iter().filter_map(|guard| held.get(guard));
        let mut fences: Vec<Fence> = held
            .flat_map(|held| {
                held.keys.iter().map(|key| Fence {
                    key: format!("{space}/{key}"),
                    token: held.token,
                })
            })
            .collect();
        fences.sort_unstable();
        fences
    }

    fn list(&self) -> BoxFuture<'static, Result<Vec<LockStatus>, LockError>> {
        let locks = self.clone();
        Box::pin(async move {
            let rows = locks.0.local.list().await?;
            let held = locks.0.held.borrow();
            let tokens: HashMap<&str, u64> = held
                .values()
                .flat_map(|held| held.keys.iter().map(|key| (key.as_str(), held.token)))
                .collect();
            let with_token = |row: LockStatus| {
                let token = *tokens.get(row.key.as_str())?;
                Some(LockStatus { token, ..row })
            };
            Ok(rows.into_iter().filter_map(with_token).collect())
        })
    }
}
