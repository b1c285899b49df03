//! Locks in a Redis or Valkey server, which other servers of wrun's may share.
//!
//! Who waits here waits in the order of this process, and only the first contends in the server. What is held here is held
//! there with a lease, which is renewed for as long as it is held here. The server may forget a lock, and a process may be
//! stopped for longer than a lease: docs/redis.md says what holds then, and that a commit with a fence is safe.

mod address;
mod contest;
mod inspect;
mod lease;
mod line;
mod scripts;

#[cfg(test)]
mod tests;

pub use address::Address;
pub use inspect::{Inspection, inspect};

use super::BoxFuture;
use super::db::Fence;
use super::lock::embedded::{EmbeddedLocks, Outside};
use super::lock::{Acquire, GuardId, LockError, LockStatus, Locks, Pinned, SessionId, check_ttl};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use lease::Lease;
use line::Line;
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
pub struct RedisLocks(Rc<Inner>);

struct Inner {
    names: Names,
    line: Line,
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
    /// What keeps the line up; it ends with this.
    keeper: RefCell<JoinSet<()>>,
}

/// A lock that is held in the server.
struct Held {
    owner: String,
    /// As the guest knows them, sorted.
    keys: Vec<String>,
    token: u64,
    lease: Lease,
    /// The number of the connection on which the server said so last.
    connection: Option<u64>,
    pins: u32,
    /// Given up while it was pinned.
    is_leaving: bool,
    /// What renews it; it ends with this.
    _keeper: JoinSet<()>,
}

/// What things are called in the server.
struct Names {
    space: String,
    /// What the owners begin with that belong to this server, and to this process.
    server: String,
    process: String,
}

impl Names {
    fn locks(&self, keys: &[String]) -> Vec<String> {
        let name = |key: &String| format!("wrun:{{{}}}:lock:{key}", self.space);
        keys.iter().map(name).collect()
    }

    fn fence(&self) -> String {
        format!("wrun:{{{}}}:fence", self.space)
    }

    /// Returns who is next to get a key, of those who wait in other servers.
    fn next(&self, keys: &[String]) -> String {
        let first = keys.first().map_or("", String::as_str);
        format!("wrun:{{{}}}:next:{first}", self.space)
    }

    /// Returns the locks that this server holds.
    fn own(&self) -> String {
        format!("wrun:{{{}}}:server:{}", self.space, self.server)
    }

    /// Returns where released locks are told. Channels are shared by all databases of a server.
    fn channel(space: &str, database: i64) -> String {
        format!("wrun:{{{space}}}:released:{database}")
    }
}

impl RedisLocks {
    /// Takes the locks of a space that are somewhere; nobody is asked yet whether it is there. `server` is the same for all
    /// state processes that follow each other in one server, and only for them. To be called within a `LocalSet`.
    pub fn new(
        space: &str,
        address: Address,
        server: &str,
        on_lost: Box<dyn Fn(GuardId)>,
    ) -> Result<Self, getrandom::Error> {
        let channel = Names::channel(space, address.login.db());
        let process = format!("{server}:{:016x}:", getrandom::u64()?);
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
                names: Names {
                    space: space.to_owned(),
                    server: server.to_owned(),
                    process,
                },
                line: Line::new(space.to_owned(), address, channel),
                local: EmbeddedLocks::new(1..u64::MAX, outside),
                held: RefCell::default(),
                contending: RefCell::default(),
                on_lost,
                leaving: Cell::new(0),
                fewer_leaving: Notify::new(),
                keeper: RefCell::default(),
            }
        });
        Ok(Self(inner))
    }

    /// Connects for the first time. If it `is_again`, because the state process was replaced, the server may be away.
    pub async fn prepare(&self, is_again: bool) -> Result<(), Failure> {
        if !self.0.keeper.borrow().is_empty() {
            return Ok(());
        }
        let (line, space) = (&self.0.line, self.0.line.label());
        let live = match line.connect().await {
            Ok(live) => Some(live),
            Err(why) if is_again => {
                tracing::warn!(lock = space, why, "goes on without its server");
                None
            }
            Err(why) => {
                let what = format!("lock space {space}: Redis: {why}");
                return Err(Failure::new(ExitCode::Unavailable, what).hint(format!(
                    "check the binding lock.{space}, and that Redis or Valkey runs there"
                )));
            }
        };
        if let Some(live) = &live {
            line.is_here(live);
        }
        let keep = line.clone().keep(live);
        self.0.keeper.borrow_mut().spawn_local(keep);
        Ok(())
    }

    /// Tells whether these are the same.
    pub fn is(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    /// Says why the server cannot be reached, if it cannot.
    pub fn why_away(&self) -> Option<String> {
        self.0.line.why_away()
    }

    /// Notes whose session this is, for [`Locks::list`].
    pub fn begin_session(&self, session: SessionId, pid: i32) {
        self.0.local.begin_session(session, pid);
    }

    /// Releases what a state process of this server before this one held: nobody believes in it any more.
    pub async fn sweep(&self) {
        let Inner { names, line, .. } = &*self.0;
        loop {
            line.back().await;
            let script = &line.scripts().sweep;
            let mut sweep = script.prepare_invoke();
            sweep.key(names.own()).arg(format!("{}:", names.server));
            sweep.arg(&names.process).arg(line.channel());
            match line.run::<u64>(&sweep).await {
                Ok(0) => return,
                Ok(locks) => {
                    tracing::info!(lock = names.space, locks, "locks of before are released");
                    return;
                }
                Err(_) => tokio::time::sleep(SWEEP_PAUSE).await,
            }
        }
    }

    /// Waits until what was released is released in the server.
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

    /// Gives a guard up as far as it is the server's; the process's own part is to follow. What is pinned stays.
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
        let number = self.0.line.number();
        let is_known = |held: &Held| number.is_some() && held.connection == number;
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
            Err(why) => return Err(unavailable(&why)),
        }
        if let Some(held) = self.0.held.borrow_mut().get_mut(&guard) {
            held.lease.ask(sent, by);
        }
        self.0.local.extend(guard, ttl_ms).await
    }
}

/// The pause before it is tried again to release what was left behind.
const SWEEP_PAUSE: Duration = Duration::from_millis(500);

impl Locks for RedisLocks {
    fn acquire(
        &self,
        guard: GuardId,
        request: Acquire,
    ) -> BoxFuture<'static, Result<u64, LockError>> {
        if let Err(error) = request.check() {
            return Box::pin(ready(Err(error)));
        }
        if let Some(why) = self.why_away() {
            return Box::pin(ready(Err(unavailable(&why))));
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
        let count = held.keys.len();
        // In this order: whoever is next here asks after it was released there.
        let gone = self.let_go(&held);
        let released = self.0.local.release(guard);
        Box::pin(async move {
            let were_its_own = match gone.await {
                Ok(Some(own)) => own == count,
                // The server is away. Until now nobody else can have had it.
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
        let (held, space) = (self.0.held.borrow(), &self.0.names.space);
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

fn unavailable(why: &str) -> LockError {
    LockError::Unavailable(format!("Redis: {why}"))
}
