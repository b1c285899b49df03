//! Locks that are bound to PostgreSQL, which several servers of wrun's may share: a row for each key, with a lease by the
//! server's clock, and the token that was given out last.
//!
//! Who waits for them here is `lock::leased`'s. Whatever takes or prolongs locks is alone among those who want these keys,
//! by an advisory lock on the hash of each: two keys of one hash wait for each other, for the time of a transaction, and
//! nothing else comes of it. A lock itself is no advisory lock: it outlives a broken connection, and ends with its lease
//! though a connection lives.

mod calls;
mod line;
mod statements;
#[cfg(test)]
mod tests;

use super::address::Address;
use super::migrate::make_ready;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::ipc::Reach;
use crate::state::BoxFuture;
use crate::state::db::DbError;
use crate::state::lock::Acquire;
use crate::state::lock::leased::ledger::{Answer, Identity, Ledger, RETRY};
use crate::state::lock::leased::waiting::Waiting;
use crate::state::presence::{Connections, Presence};
use crate::state::remote::pool::Pool;
use line::Live;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

/// What a session begins with: each statement sees what was committed before it, and none waits long for others. There is no
/// other limit: it would cut short the wait of a COMMIT for a standby, which PostgreSQL tells as a success.
const SETTINGS: &str = "-c default_transaction_isolation=read\\ committed -c statement_timeout=0 -c lock_timeout=1s \
    -c idle_in_transaction_session_timeout=3s";

const SILENT: &str = "it does not answer";

/// Locks of a space.
pub(in crate::state) struct PostgresLocks {
    space: Rc<Space>,
    /// What keeps the connection up; it ends with this.
    keeper: RefCell<JoinSet<()>>,
}

/// What they are in, and the connection to that.
struct Space {
    label: String,
    identity: Identity,
    /// Makes connections, and remembers whether the server is away. None is lent.
    pool: Pool<Address>,
    presence: Presence<Rc<Live>>,
    waiting: Waiting,
    /// What was released so recently that a crash of the server may undo it.
    released: RefCell<VecDeque<Released>>,
}

/// A lock that was released.
struct Released {
    at: Instant,
    owner: String,
    keys: Vec<String>,
}

impl PostgresLocks {
    /// Takes the locks of a space that are somewhere; nobody is asked yet whether they are there.
    pub(in crate::state) fn new(label: &str, address: Address, identity: Identity) -> Self {
        let name = format!("lock.{label}");
        let space = Space {
            label: label.to_owned(),
            identity,
            pool: Pool::new(name, address.with_settings(SETTINGS), 0),
            presence: Presence::new(),
            waiting: Waiting::default(),
            released: RefCell::default(),
        };
        Self {
            space: Rc::new(space),
            keeper: RefCell::default(),
        }
    }

    #[cfg(test)]
    fn presence(&self) -> &Presence<Rc<Live>> {
        &self.space.presence
    }

    async fn connect(&self, is_again: bool) -> Result<(), Failure> {
        let space = &self.space;
        if !self.keeper.borrow().is_empty() {
            return Ok(());
        }
        let failed = |error: DbError| {
            let what = format!("lock space {}: {error}", space.label);
            Failure::new(ExitCode::Unavailable, what).hint(format!(
                "check the binding lock.{}, and that PostgreSQL runs there",
                space.label
            ))
        };
        let ready = async {
            make_ready(&space.pool, "lock space").await?;
            space.open().await.map_err(failed)
        };
        let opened = match ready.await {
            Ok(opened) => Some(opened),
            Err(failure) if is_again && failure.code == ExitCode::Unavailable => {
                tracing::warn!(lock = space.label, error = %failure, "goes on without its server");
                None
            }
            Err(failure) => return Err(failure),
        };
        if let Some((live, _)) = &opened {
            space.presence.is_here(live.clone());
        }
        let keep = line::keep(space.clone(), opened);
        self.keeper.borrow_mut().spawn_local(keep);
        Ok(())
    }
}

impl Ledger for PostgresLocks {
    fn product(&self) -> &'static str {
        "PostgreSQL"
    }

    fn identity(&self) -> &Identity {
        &self.space.identity
    }

    fn waiting(&self) -> &Waiting {
        &self.space.waiting
    }

    fn prepare(&self, is_again: bool) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(self.connect(is_again))
    }

    fn reach(&self) -> Reach {
        let why = self.space.presence.why_away();
        why.map_or(Reach::Here, Reach::Away)
    }

    fn connections(&self) -> Connections {
        Connections(vec![self.space.presence.number()])
    }

    fn confirms(&self, said_on: &Connections) -> bool {
        said_on.alive(&self.connections()) == 1
    }

    fn changed_since(&self, known: Connections) -> BoxFuture<'_, ()> {
        let known = known.0.first().copied().flatten();
        Box::pin(self.space.presence.is_other_than(known))
    }

    fn take<'a>(
        &'a self,
        owner: &'a str,
        request: &'a Acquire,
    ) -> BoxFuture<'a, Result<Answer, String>> {
        Box::pin(self.space.take(owner, request))
    }

    fn extend<'a>(
        &'a self,
        owner: &'a str,
        keys: &'a [String],
        by: Duration,
    ) -> BoxFuture<'a, Result<Option<Connections>, String>> {
        Box::pin(self.space.extend(owner, keys, by))
    }

    fn release<'a>(
        &'a self,
        owner: &'a str,
        keys: &'a [String],
        gone: Instant,
        answer: oneshot::Sender<Option<bool>>,
    ) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let mut released = self.space.release(owner, keys).await;
            let _ = answer.send(released.as_ref().ok().copied());
            while released.is_err() && Instant::now() < gone {
                sleep(RETRY).await;
                tokio::select! {
                    () = self.space.presence.back() => {}
                    () = sleep_until(gone) => {}
                }
                released = self.space.release(owner, keys).await;
            }
        })
    }

    fn sweep(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            loop {
                self.space.presence.back().await;
                match self.space.sweep().await {
                    Ok(0) => return,
                    Ok(locks) => {
                        let space = &self.space.label;
                        tracing::info!(lock = space, locks, "locks of before are released");
                        return;
                    }
                    Err(_) => sleep(RETRY).await,
                }
            }
        })
    }
}
