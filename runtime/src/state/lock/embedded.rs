//! The embedded locks: the table with a clock, a timer, and those who wait for its answers.
//!
//! Decides nothing about locks. Who a session is, and where the fencing tokens are kept, is told from outside.

use super::table::{Effect, LockTable};
use super::{Acquire, GuardId, LockError, LockStatus, Locks, Pinned, SessionId, check_ttl};
use crate::state::{BoxFuture, Millis};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::ready;
use std::ops::Range;
use std::rc::{Rc, Weak};
use std::task::Poll;
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How many fencing tokens to reserve at a time: reserving is a write to disk, granting is not.
pub const TOKEN_BLOCK: u64 = 1_000_000;

/// How few may be left before more are reserved.
const TOKENS_LOW: u64 = TOKEN_BLOCK / 2;

/// How long to wait after tokens could not be reserved.
const RESERVE_PAUSE: Duration = Duration::from_secs(1);

/// What the locks need from outside.
pub struct Outside {
    /// Is told that a guard holds no more, though nobody released it.
    pub on_lost: Box<dyn Fn(GuardId)>,
    /// Durably reserves the next [`TOKEN_BLOCK`] fencing tokens, and returns the first one after them.
    pub reserve: Box<dyn Fn() -> BoxFuture<'static, Result<u64, String>>>,
}

/// Locks in the memory of this process.
#[derive(Clone)]
pub struct EmbeddedLocks(Rc<Inner>);

struct Inner {
    table: RefCell<LockTable>,
    /// Those whose requests wait.
    waiting: RefCell<HashMap<GuardId, oneshot::Sender<Result<u64, LockError>>>>,
    pids: RefCell<HashMap<SessionId, i32>>,
    outside: Outside,
    start: Instant,
    /// When the timer wakes up, if it does.
    alarm: Cell<Option<Millis>>,
    /// The timer has to wake up earlier. Shared, because those who listen must not keep the locks alive.
    earlier: Rc<Notify>,
    /// Tokens run low. Shared for the same reason.
    low: Rc<Notify>,
    /// The timer and the one that reserves tokens; they end with this.
    _tasks: JoinSet<()>,
}

impl EmbeddedLocks {
    /// Returns locks that may give out these fencing tokens, reserved before. To be called within a `LocalSet`.
    pub fn new(tokens: Range<u64>, outside: Outside) -> Self {
        let inner = Rc::new_cyclic(|inner: &Weak<Inner>| {
            let (earlier, low) = (Rc::new(Notify::new()), Rc::new(Notify::new()));
            let mut tasks = JoinSet::new();
            tasks.spawn_local(keep_time(inner.clone(), Rc::clone(&earlier)));
            tasks.spawn_local(keep_tokens(inner.clone(), Rc::clone(&low)));
            Inner {
                table: RefCell::new(LockTable::new(tokens)),
                waiting: RefCell::default(),
                pids: RefCell::default(),
                outside,
                start: Instant::now(),
                alarm: Cell::new(None),
                earlier,
                low,
                _tasks: tasks,
            }
        });
        Self(inner)
    }

    /// Notes whose session this is, for [`Locks::list`].
    pub fn begin_session(&self, session: SessionId, pid: i32) {
        self.0.pids.borrow_mut().insert(session, pid);
    }

    /// Ends the lease of a guard that somebody else keeps, too, and has lost.
    pub fn lose(&self, guard: GuardId) {
        self.0.run(|table, now| table.lose(guard, now));
    }

    /// Grants nothing until [`EmbeddedLocks::resume`]: others may still hold what they held before this process started.
    pub fn suspend(&self) {
        self.0.run(|table, _| table.suspend());
    }

    /// Grants again.
    pub fn resume(&self) {
        self.0.run(LockTable::resume);
    }
}

impl Locks for EmbeddedLocks {
    fn acquire(
        &self,
        guard: GuardId,
        request: Acquire,
    ) -> BoxFuture<'static, Result<u64, LockError>> {
        if let Err(error) = request.check() {
            return Box::pin(ready(Err(error)));
        }
        match self.0.run(|table, now| table.acquire(guard, request, now)) {
            Poll::Ready(result) => Box::pin(ready(result)),
            Poll::Pending => {
                let (sender, receiver) = oneshot::channel();
                self.0.waiting.borrow_mut().insert(guard, sender);
                // It is answered, unless the locks as such are gone.
                Box::pin(async { receiver.await.unwrap_or(Err(LockError::Lost)) })
            }
        }
    }

    fn extend(&self, guard: GuardId, ttl_ms: u32) -> BoxFuture<'static, Result<(), LockError>> {
        let extended = check_ttl(ttl_ms).and_then(|()| {
            let ttl = Millis::from(ttl_ms);
            self.0.run(|table, now| table.extend(guard, ttl, now))
        });
        Box::pin(ready(extended))
    }

    fn release(&self, guard: GuardId) -> BoxFuture<'static, Result<(), LockError>> {
        Box::pin(ready(self.0.run(|table, now| table.release(guard, now))))
    }

    fn drop_guard(&self, guard: GuardId) {
        self.0.run(|table, now| table.drop_guard(guard, now));
    }

    fn heartbeat(&self, session: SessionId) {
        self.0.run(|table, now| table.heartbeat(session, now));
    }

    fn end_session(&self, session: SessionId) {
        self.0.run(|table, now| table.end_session(session, now));
        self.0.pids.borrow_mut().remove(&session);
    }

    fn pin(&self, guards: &[GuardId]) -> Result<Pinned, LockError> {
        self.0.run(|table, now| table.pin(guards, now))?;
        let (inner, guards) = (Rc::clone(&self.0), guards.to_vec());
        Ok(Pinned::new(move || {
            inner.run(|table, now| table.unpin(&guards, now));
        }))
    }

    fn list(&self) -> BoxFuture<'static, Result<Vec<LockStatus>, LockError>> {
        let held = self.0.run(|table, now| table.status(now));
        let pids = self.0.pids.borrow();
        let with_pid = |(session, status)| {
            let pid = pids.get(&session).copied().unwrap_or(0);
            LockStatus { pid, ..status }
        };
        Box::pin(ready(Ok(held.into_iter().map(with_pid).collect())))
    }
}

impl Inner {
    /// Does something with the table, and sees to what follows from it.
    fn run<T>(&self, act: impl FnOnce(&mut LockTable, Millis) -> T) -> T {
        let done = act(&mut self.table.borrow_mut(), self.now());
        self.carry_out_effects();
        let table = self.table.borrow();
        let next = table.next_deadline();
        if next.is_some_and(|next| self.alarm.get().is_none_or(|alarm| next < alarm)) {
            self.alarm.set(next);
            self.earlier.notify_one();
        }
        if table.tokens_left() < TOKENS_LOW {
            self.low.notify_one();
        }
        done
    }

    fn carry_out_effects(&self) {
        loop {
            // Not in the head of a `while let`, which would keep the table borrowed while others are called.
            let effect = self.table.borrow_mut().next_effect();
            match effect {
                Some(Effect::Granted { guard, token }) => self.answer(guard, Ok(token)),
                Some(Effect::Refused { guard, error }) => self.answer(guard, Err(error)),
                Some(Effect::Lost { guard }) => (self.outside.on_lost)(guard),
                None => return,
            }
        }
    }

    fn answer(&self, guard: GuardId, result: Result<u64, LockError>) {
        if let Some(sender) = self.waiting.borrow_mut().remove(&guard) {
            // Nobody listens if the one who asked is gone; then the guard is dropped, too.
            _ = sender.send(result);
        }
    }

    fn now(&self) -> Millis {
        Millis::try_from(self.start.elapsed().as_millis()).unwrap_or(Millis::MAX)
    }
}

/// Ends waits and leases in time.
async fn keep_time(inner: Weak<Inner>, earlier: Rc<Notify>) {
    loop {
        let alarm = {
            let Some(inner) = inner.upgrade() else {
                return;
            };
            inner.run(LockTable::expire);
            let next = inner.table.borrow().next_deadline();
            inner.alarm.set(next);
            next.map(|next| inner.start + Duration::from_millis(next))
        };
        let Some(alarm) = alarm else {
            earlier.notified().await;
            continue;
        };
        tokio::select! {
            () = tokio::time::sleep_until(alarm) => {}
            () = earlier.notified() => {}
        }
    }
}

/// Reserves fencing tokens before they run out.
async fn keep_tokens(inner: Weak<Inner>, low: Rc<Notify>) {
    loop {
        low.notified().await;
        let reserving = {
            let Some(inner) = inner.upgrade() else {
                return;
            };
            // It may have been told once more while it reserved.
            if inner.table.borrow().tokens_left() >= TOKENS_LOW {
                continue;
            }
            (inner.outside.reserve)()
        };
        let reserved = reserving.await;
        let Some(inner) = inner.upgrade() else {
            return;
        };
        match reserved {
            Ok(ceiling) => inner.run(|table, now| table.raise_ceiling(ceiling, now)),
            Err(error) => {
                drop(inner);
                tracing::warn!(error, "fencing tokens could not be reserved, trying again");
                tokio::time::sleep(RESERVE_PAUSE).await;
                low.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc;
    use tokio::task::LocalSet;

    const A: GuardId = GuardId {
        session: SessionId(1),
        number: 1,
    };
    const B: GuardId = GuardId {
        session: SessionId(2),
        number: 1,
    };

    /// Runs a test the way the state process runs, and not for ever.
    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let test = async { tokio::time::timeout(Duration::from_secs(30), test).await };
        LocalSet::new().block_on(&runtime, test).unwrap();
    }

    /// Returns locks, and the guards that were lost.
    fn locks() -> (EmbeddedLocks, mpsc::UnboundedReceiver<GuardId>) {
        let (sender, lost) = mpsc::unbounded_channel();
        let outside = Outside {
            on_lost: Box::new(move |guard| sender.send(guard).unwrap()),
            reserve: Box::new(|| Box::pin(std::future::pending())),
        };
        (EmbeddedLocks::new(1..1_000, outside), lost)
    }

    fn want(key: &str) -> Acquire {
        Acquire::new("default".to_owned(), vec![key.to_owned()], 0)
    }

    #[test]
    fn waiter_is_woken_by_a_release() {
        run(async {
            let (locks, _lost) = locks();
            assert_eq!(locks.acquire(A, want("k")).await, Ok(1));
            let waiting = locks.acquire(B, want("k"));
            assert_eq!(locks.release(A).await, Ok(()));
            assert_eq!(waiting.await, Ok(2));
        });
    }

    #[test]
    fn waiter_is_woken_by_the_end_of_a_session() {
        run(async {
            let (locks, _lost) = locks();
            assert_eq!(locks.acquire(A, want("k")).await, Ok(1));
            let waiting = locks.acquire(B, want("k"));
            locks.end_session(A.session);
            assert_eq!(waiting.await, Ok(2));
        });
    }

    #[test]
    fn wait_ends_by_itself() {
        run(async {
            let (locks, _lost) = locks();
            assert_eq!(locks.acquire(A, want("k")).await, Ok(1));
            // The timer is set for the lease already, and has to be set earlier.
            tokio::task::yield_now().await;
            let wait_ms = 1;
            let waiting = locks.acquire(
                B,
                Acquire {
                    wait_ms,
                    ..want("k")
                },
            );
            assert_eq!(waiting.await, Err(LockError::Timeout));
        });
    }

    #[test]
    fn loss_is_told() {
        run(async {
            let (locks, mut lost) = locks();
            let (ttl_ms, renew) = (100, false);
            let request = Acquire {
                ttl_ms,
                renew,
                ..want("k")
            };
            assert_eq!(locks.acquire(A, request).await, Ok(1));
            assert_eq!(lost.recv().await, Some(A));
            assert_eq!(locks.extend(A, 100).await, Err(LockError::Lost));
            assert_eq!(locks.release(A).await, Err(LockError::Lost));
        });
    }

    #[test]
    fn dropped_guard_waits_no_more() {
        run(async {
            let (locks, _lost) = locks();
            assert_eq!(locks.acquire(A, want("k")).await, Ok(1));
            let waiting = locks.acquire(B, want("k"));
            locks.drop_guard(B);
            assert_eq!(waiting.await, Err(LockError::Lost));
            assert!(locks.0.waiting.borrow().is_empty());
        });
    }

    #[test]
    fn request_outlives_its_future() {
        run(async {
            let (locks, _lost) = locks();
            assert_eq!(locks.acquire(A, want("k")).await, Ok(1));
            drop(locks.acquire(B, want("k")));
            assert_eq!(locks.release(A).await, Ok(()));
            assert_eq!(locks.release(B).await, Ok(()));
        });
    }

    #[test]
    fn request_that_makes_no_sense_is_invalid() {
        run(async {
            let (locks, _lost) = locks();
            let answer = locks.acquire(A, want("")).await;
            assert!(matches!(answer, Err(LockError::Invalid(_))));
            assert_eq!(locks.acquire(A, want("k")).await, Ok(1));
            let answer = locks.extend(A, 0).await;
            assert!(matches!(answer, Err(LockError::Invalid(_))));
        });
    }

    #[test]
    fn pin_keeps_a_released_lock_until_it_is_dropped() {
        run(async {
            let (locks, _lost) = locks();
            assert_eq!(locks.acquire(A, want("k")).await, Ok(1));
            let pinned = locks.pin(&[A]).unwrap();
            assert_eq!(locks.release(A).await, Ok(()));
            let wait_ms = 0;
            let answer = locks
                .acquire(
                    B,
                    Acquire {
                        wait_ms,
                        ..want("k")
                    },
                )
                .await;
            assert_eq!(answer, Err(LockError::Timeout));
            let waiting = locks.acquire(B, want("k"));
            drop(pinned);
            assert_eq!(waiting.await, Ok(2));
            assert_eq!(locks.pin(&[A]).err(), Some(LockError::Lost));
        });
    }

    #[test]
    fn suspended_locks_are_granted_on_resume() {
        run(async {
            let (locks, _lost) = locks();
            locks.suspend();
            let waiting = locks.acquire(A, want("k"));
            locks.resume();
            assert_eq!(waiting.await, Ok(1));
        });
    }

    #[test]
    fn list_tells_the_pid_of_a_holder() {
        run(async {
            let (locks, _lost) = locks();
            locks.begin_session(A.session, 4711);
            assert_eq!(locks.acquire(A, want("a")).await, Ok(1));
            assert_eq!(locks.acquire(B, want("b")).await, Ok(2));
            let list = locks.list().await.unwrap();
            let seen: Vec<_> = list
                .iter()
                .map(|lock| (lock.key.as_str(), lock.pid))
                .collect();
            assert_eq!(seen, [("a", 4711), ("b", 0)]);
        });
    }

    #[test]
    fn tokens_are_reserved_when_they_run_low_also_after_a_failure() {
        run(async {
            let failed = Cell::new(false);
            let outside = Outside {
                on_lost: Box::new(|_| {}),
                reserve: Box::new(move || {
                    let result = if failed.replace(true) {
                        Ok(TOKEN_BLOCK)
                    } else {
                        Err("full".to_owned())
                    };
                    Box::pin(ready(result))
                }),
            };
            let locks = EmbeddedLocks::new(7..8, outside);
            assert_eq!(locks.acquire(A, want("a")).await, Ok(7));
            assert_eq!(locks.acquire(B, want("b")).await, Ok(8));
        });
    }

    #[test]
    fn tasks_end_with_the_locks() {
        run(async {
            let (locks, _lost) = locks();
            tokio::task::yield_now().await;
            let earlier = Rc::downgrade(&locks.0.earlier);
            drop(locks);
            while earlier.strong_count() > 0 {
                tokio::task::yield_now().await;
            }
        });
    }
}
