//! Getting a lock in the server, keeping it, and giving it back.

use super::lease::Lease;
use super::{Held, RedisLocks, unavailable};
use crate::state::BoxFuture;
use crate::state::lock::{Acquire, GuardId, LockError, Locks as _};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

/// The shortest and the longest pause before it is looked whether a lock is free that nobody said was released.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// The pause after a lease could not be renewed, or a lock not be given back.
const RETRY: Duration = Duration::from_millis(100);

/// How long after a lease it is gone from the server for certain.
const GONE: Duration = Duration::from_secs(1);

/// A lock that was just got.
struct Taken {
    owner: String,
    token: u64,
    lease: Lease,
    connection: Option<u64>,
}

impl RedisLocks {
    /// Waits for the turn in this process, and then for the locks in the server.
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

    /// Takes the locks as soon as the server has them.
    async fn take(
        &self,
        request: &Acquire,
        unwanted: &Notify,
        deadline: Instant,
    ) -> Result<Taken, LockError> {
        let (names, line) = (&self.0.names, &self.0.line);
        let locks = names.locks(&request.keys);
        let random = random()?;
        let owner = format!("{}{random:032x}", names.process);
        let news = line.news(&locks);
        let ttl = Duration::from_millis(request.ttl_ms.into());
        let mut acquire = line.scripts().acquire.prepare_invoke();
        acquire.key(names.fence()).key(names.next(&request.keys));
        acquire.key(names.own()).key(&locks);
        acquire.arg(&owner).arg(request.ttl_ms).arg(&names.server);
        acquire.arg(u8::from(request.wait_ms > 0));
        loop {
            let (sent, connection) = (Instant::now(), line.number());
            let (token, left) = match line.run::<(u64, i64)>(&acquire).await {
                Ok(answer) => answer,
                Err(why) => {
                    // It may have been granted.
                    let gone = sent + ttl + GONE;
                    drop(self.give_back(owner, locks, gone));
                    return Err(unavailable(&why));
                }
            };
            if token > 0 {
                let lease = Lease::new(ttl, request.renew, sent);
                let (owner, token) = (owner.clone(), token);
                return Ok(Taken {
                    owner,
                    token,
                    lease,
                    connection,
                });
            }
            let now = Instant::now();
            if now >= deadline {
                return Err(LockError::Timeout);
            }
            let pause = match u64::try_from(left) {
                Ok(left) => pause().min(Duration::from_millis(left + 1)),
                Err(_) => pause(),
            };
            tokio::select! {
                biased;
                () = unwanted.notified() => return Err(LockError::Lost),
                () = news.come() => {}
                () = sleep_until(deadline.min(now + pause)) => {}
            }
        }
    }

    /// Makes a guard's locks last for so long from now; says whether it still had them.
    pub(super) async fn prolong(&self, guard: GuardId, by: Duration) -> Result<bool, String> {
        let (owner, locks) = {
            let held = self.0.held.borrow();
            let Some(held) = held.get(&guard) else {
                return Ok(false);
            };
            (held.owner.clone(), self.0.names.locks(&held.keys))
        };
        let ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        let mut extend = self.0.line.scripts().extend.prepare_invoke();
        extend.key(&locks).arg(&owner).arg(ms);
        let (sent, connection) = (Instant::now(), self.0.line.number());
        let had_them = self.0.line.run::<bool>(&extend).await?;
        if let Some(held) = self.0.held.borrow_mut().get_mut(&guard)
            && had_them
        {
            held.lease.prolong(sent, by);
            held.connection = connection;
        }
        Ok(had_them)
    }

    /// Gives a guard's locks back; the answer is how many it had, or that nobody knows yet.
    pub(super) fn let_go(&self, held: &Held) -> oneshot::Receiver<Option<usize>> {
        let locks = self.0.names.locks(&held.keys);
        let gone = held.lease.until() + GONE;
        self.give_back(held.owner.clone(), locks, gone)
    }

    /// Does so, again and again, until they are `gone` by themselves.
    fn give_back(
        &self,
        owner: String,
        locks: Vec<String>,
        gone: Instant,
    ) -> oneshot::Receiver<Option<usize>> {
        let (answer, answered) = oneshot::channel();
        let this = self.clone();
        this.0.leaving.set(this.0.leaving.get() + 1);
        tokio::task::spawn_local(async move {
            let line = &this.0.line;
            let mut release = line.scripts().release.prepare_invoke();
            release.key(this.0.names.own()).key(&locks);
            release.arg(&owner).arg(line.channel());
            let mut released = line.run::<usize>(&release).await;
            let _ = answer.send(released.as_ref().ok().copied());
            while released.is_err() && Instant::now() < gone {
                sleep(RETRY).await;
                tokio::select! {
                    () = line.back() => {}
                    () = sleep_until(gone) => {}
                }
                released = line.run::<usize>(&release).await;
            }
            this.0.leaving.set(this.0.leaving.get().saturating_sub(1));
            this.0.fewer_leaving.notify_waiters();
        });
        answered
    }

    /// Renews a guard's lease, or says that it is lost. Asks at once on a new connection: the server may have forgotten it.
    async fn keep(self, guard: GuardId) {
        let line = &self.0.line;
        let known = |locks: &Self| {
            let held = locks.0.held.borrow();
            held.get(&guard)
                .map(|held| (held.lease.clone(), held.connection))
        };
        let Some((lease, mut connection)) = known(&self) else {
            return;
        };
        let mut look_at = lease.look_at(Instant::now());
        loop {
            tokio::select! {
                () = sleep_until(look_at) => {}
                () = line.is_other_than(connection) => {}
            }
            let now = Instant::now();
            let Some((lease, last)) = known(&self) else {
                return;
            };
            let by = match lease.renewed(now) {
                None if last != line.number() => Some(lease.until().saturating_duration_since(now)),
                by => by,
            };
            let renewed = match by {
                _ if !lease.holds(now) => Ok(false),
                Some(by) => self.prolong(guard, by).await,
                None => Ok(true),
            };
            let Some((lease, last)) = known(&self) else {
                return;
            };
            (look_at, connection) = match renewed {
                Ok(true) => (lease.look_at(now), last),
                // Not before the pause is over.
                Err(_) => {
                    let again = lease.until().min(Instant::now() + RETRY);
                    (again, line.number().or(last))
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
fn held(guard: GuardId, taken: Taken, request: Acquire, locks: &RedisLocks) -> Held {
    let Taken {
        owner,
        token,
        lease,
        connection,
    } = taken;
    let mut keeper = JoinSet::new();
    keeper.spawn_local(locks.clone().keep(guard));
    Held {
        owner,
        keys: request.keys,
        token,
        lease,
        connection,
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

fn random() -> Result<u128, LockError> {
    let failed = |error: getrandom::Error| LockError::Unavailable(error.to_string());
    let (high, low) = (
        getrandom::u64().map_err(failed)?,
        getrandom::u64().map_err(failed)?,
    );
    Ok(u128::from(high) << 64 | u128::from(low))
}
