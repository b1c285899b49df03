//! Getting a lock in the ledger, keeping it, and giving it back.

use super::lease::Lease;
use super::ledger::{Answer, RETRY};
use super::{Held, LeasedLocks};
use crate::state::BoxFuture;
use crate::state::lock::{Acquire, GuardId, LockError, Locks as _};
use crate::state::presence::Connections;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

/// The shortest and the longest pause before it is looked whether a lock is free that nobody said was released.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// How long after a lease it is gone from the ledger for certain.
const GONE: Duration = Duration::from_secs(1);

/// A lock that was just got.
struct Taken {
    owner: String,
    token: u64,
    lease: Lease,
    said_on: Connections,
}

impl LeasedLocks {
    /// Waits for the turn in this process, and then for the locks in the ledger.
    pub(super) async fn contend(
        self,
        guard: GuardId,
        request: Acquire,
        turn: BoxFuture<'static, Result<u64, LockError>>,
        deadline: Instant,
    ) -> Result<u64, LockError> {
        turn.await?;
        let local = &self.0.local;
        // Its time in this process is not to run out meanwhile.
        let pinned = local.pin(&[guard])?;
        let unwanted = Rc::new(Notify::new());
        let contending = &self.0.contending;
        contending.borrow_mut().insert(guard, unwanted.clone());
        let taken = self.take(&request, &unwanted, deadline).await;
        let is_wanted = contending.borrow_mut().remove(&guard).is_some();
        let taken = match taken {
            Ok(taken) if is_wanted => taken,
            Ok(taken) => {
                // In this order: whoever is next here asks after it was released there.
                self.let_go(&held(guard, taken, request, &self));
                drop(pinned);
                return Err(LockError::Lost);
            }
            Err(error) => {
                local.drop_guard(guard);
                drop(pinned);
                return Err(error);
            }
        };
        let (token, ttl_ms) = (taken.token, request.ttl_ms);
        let held = held(guard, taken, request, &self);
        self.0.held.borrow_mut().insert(guard, held);
        let begun = local.extend(guard, ttl_ms).await;
        drop(pinned);
        begun.map(|()| token)
    }

    /// Takes the locks as soon as the ledger has them.
    async fn take(
        &self,
        request: &Acquire,
        unwanted: &Notify,
        deadline: Instant,
    ) -> Result<Taken, LockError> {
        let ledger = &self.0.ledger;
        let news = ledger.waiting().news(&request.keys);
        let ttl = Duration::from_millis(request.ttl_ms.into());
        loop {
            // One for each try: what is given back of one that failed is not to meet the next one.
            let owner = ledger.identity().owner()?;
            let sent = Instant::now();
            let gone = sent + ttl + GONE;
            let answer = ledger.take(&owner, request).await;
            let give_back = || drop(self.give_back(owner.clone(), request.keys.clone(), gone));
            let (left, is_partial) = match answer {
                Ok(Answer::Granted { token, said_on }) => {
                    let lease = Lease::new(ttl, request.renew, sent);
                    if lease.holds(Instant::now()) {
                        return Ok(Taken {
                            owner,
                            token,
                            lease,
                            said_on,
                        });
                    }
                    give_back();
                    (None, true)
                }
                Ok(Answer::Taken { left, is_partial }) => {
                    if is_partial {
                        give_back();
                    }
                    (left, is_partial)
                }
                Err(why) => {
                    // It may have been granted.
                    give_back();
                    return Err(self.unavailable(&why));
                }
            };
            let now = Instant::now();
            if now >= deadline {
                return Err(LockError::Timeout);
            }
            let pause = match left {
                Some(left) => pause().min(left + Duration::from_millis(1)),
                None => pause(),
            };
            tokio::select! {
                biased;
                () = unwanted.notified() => return Err(LockError::Lost),
                // Of what is given back here there are news, too; and those who met are not to meet again.
                () = news.come(), if !is_partial => {}
                () = sleep_until(deadline.min(now + pause)) => {}
            }
        }
    }

    /// Makes a guard's locks last for so long from now; says whether it still had them.
    pub(super) async fn prolong(&self, guard: GuardId, by: Duration) -> Result<bool, String> {
        let (owner, keys) = {
            let held = self.0.held.borrow();
            let Some(held) = held.get(&guard) else {
                return Ok(false);
            };
            (held.owner.clone(), held.keys.clone())
        };
        let sent = Instant::now();
        let Some(said_on) = self.0.ledger.extend(&owner, &keys, by).await? else {
            return Ok(false);
        };
        if let Some(held) = self.0.held.borrow_mut().get_mut(&guard) {
            held.lease.prolong(sent, by);
            held.said_on = said_on;
        }
        Ok(true)
    }

    /// Gives a guard's locks back; the answer is whether it had them all, or that nobody knows yet.
    pub(super) fn let_go(&self, held: &Held) -> oneshot::Receiver<Option<bool>> {
        let gone = held.lease.until() + GONE;
        self.give_back(held.owner.clone(), held.keys.clone(), gone)
    }

    /// Does so, again and again, until they are `gone` by themselves.
    fn give_back(
        &self,
        owner: String,
        keys: Vec<String>,
        gone: Instant,
    ) -> oneshot::Receiver<Option<bool>> {
        let (answer, answered) = oneshot::channel();
        let this = self.clone();
        this.0.leaving.set(this.0.leaving.get() + 1);
        tokio::task::spawn_local(async move {
            this.0.ledger.release(&owner, &keys, gone, answer).await;
            this.0.leaving.set(this.0.leaving.get().saturating_sub(1));
            this.0.fewer_leaving.notify_waiters();
        });
        answered
    }

    /// Renews a guard's lease, or says that it is lost. Asks at once when connections change: a server may have forgotten it.
    async fn keep(self, guard: GuardId) {
        let ledger = &self.0.ledger;
        let known = |locks: &Self| {
            let held = locks.0.held.borrow();
            held.get(&guard)
                .map(|held| (held.lease.clone(), ledger.confirms(&held.said_on)))
        };
        let Some((lease, is_confirmed)) = known(&self) else {
            return;
        };
        let mut looked_on = ledger.connections();
        let mut look_at = match is_confirmed {
            true => lease.look_at(Instant::now()),
            false => Instant::now(),
        };
        loop {
            tokio::select! {
                () = sleep_until(look_at) => {}
                () = ledger.changed_since(looked_on.clone()) => {}
            }
            let now = Instant::now();
            let Some((lease, is_confirmed)) = known(&self) else {
                return;
            };
            looked_on = ledger.connections();
            let by = match lease.renewed(now) {
                None if !is_confirmed => Some(lease.until().saturating_duration_since(now)),
                by => by,
            };
            let renewed = match by {
                _ if !lease.holds(now) => Ok(false),
                // An answer that comes when it is over is none.
                Some(by) => timeout_at(lease.until(), self.prolong(guard, by))
                    .await
                    .unwrap_or(Ok(false)),
                None => Ok(true),
            };
            let Some((lease, _)) = known(&self) else {
                return;
            };
            look_at = match renewed {
                Ok(true) => lease.look_at(now),
                // Not before the pause is over.
                Err(_) => {
                    looked_on = ledger.connections();
                    lease.until().min(Instant::now() + RETRY)
                }
                Ok(false) => {
                    self.0.local.lose(guard);
                    return;
                }
            };
        }
    }
}

/// Returns a lock that is held, and is kept from now on.
fn held(guard: GuardId, taken: Taken, request: Acquire, locks: &LeasedLocks) -> Held {
    let Taken {
        owner,
        token,
        lease,
        said_on,
    } = taken;
    let mut keeper = JoinSet::new();
    keeper.spawn_local(locks.clone().keep(guard));
    Held {
        owner,
        keys: request.keys,
        token,
        lease,
        said_on,
        pins: 0,
        is_leaving: false,
        _keeper: keeper,
    }
}

/// Returns a pause that is never the same for two who met.
fn pause() -> Duration {
    let chance = f64::from(getrandom::u32().unwrap_or(0)) / f64::from(u32::MAX);
    PAUSE_MIN + (PAUSE_MAX - PAUSE_MIN).mul_f64(chance)
}
