//! What keeps locks with a lease: a server, or several. What is common to all of them is `leased`'s.

use super::waiting::Waiting;
use crate::failure::Failure;
use crate::ipc::Reach;
use crate::state::BoxFuture;
use crate::state::lock::{Acquire, LockError};
use crate::state::presence::Connections;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// The pause after a lease could not be renewed, or a lock not be given back.
pub(in crate::state) const RETRY: Duration = Duration::from_millis(100);

/// How long somebody who has found a lock taken is the next to get it, unless it comes no more.
pub(in crate::state) const NEXT: Duration = Duration::from_millis(200);

/// Where locks of one space are kept. An `Err` of a call says why nobody knows what became of it.
///
/// Calls are on their way when they are polled first, in that order.
pub(in crate::state) trait Ledger: 'static {
    /// What people call it.
    fn product(&self) -> &'static str;

    fn identity(&self) -> &Identity;

    /// Those who wait for keys here. It tells them what is released.
    fn waiting(&self) -> &Waiting;

    /// Connects for the first time, and keeps connected from then on. If it `is_again`, because the state process was
    /// replaced, the servers may be away.
    fn prepare(&self, is_again: bool) -> BoxFuture<'_, Result<(), Failure>>;

    /// Tells whether it can be reached.
    fn reach(&self) -> Reach;

    /// Returns the connections that there are.
    fn connections(&self) -> Connections;

    /// Tells whether what was said on these connections is to be relied on: a server that forgot has ended its connection.
    fn confirms(&self, said_on: &Connections) -> bool;

    /// Waits until the connections are not these any more.
    fn changed_since(&self, known: Connections) -> BoxFuture<'_, ()>;

    /// Takes all keys of a request for an owner that is new, or none.
    fn take<'a>(
        &'a self,
        owner: &'a str,
        request: &'a Acquire,
    ) -> BoxFuture<'a, Result<Answer, String>>;

    /// Makes locks last for so long from now; returns on which connections that was said, or nothing if some are not the
    /// owner's.
    fn extend<'a>(
        &'a self,
        owner: &'a str,
        keys: &'a [String],
        by: Duration,
    ) -> BoxFuture<'a, Result<Option<Connections>, String>>;

    /// Gives locks back, again and again, until they are `gone` by themselves. It is answered whether all were the
    /// owner's until then, or that nobody knows yet.
    fn release<'a>(
        &'a self,
        owner: &'a str,
        keys: &'a [String],
        gone: Instant,
        answer: oneshot::Sender<Option<bool>>,
    ) -> BoxFuture<'a, ()>;

    /// Gives back what a state process of this server of wrun's before this one held; waits for a server that is away.
    fn sweep(&self) -> BoxFuture<'_, ()>;
}

/// What a request comes to.
pub(in crate::state) enum Answer {
    Granted {
        token: u64,
        /// On which connections that was said.
        said_on: Connections,
    },
    Taken {
        /// How long that goes on, if nobody releases or prolongs it.
        left: Option<Duration>,
        /// Some servers may have granted it, where others have not.
        is_partial: bool,
    },
}

/// Who holds locks, as those know it who keep them.
pub(in crate::state) struct Identity {
    /// The same for all state processes that follow each other in one server of wrun's, and only for them.
    pub(in crate::state) server: String,
    /// What the owners begin with that are of this process.
    pub(in crate::state) process: String,
}

impl Identity {
    pub(in crate::state) fn new(server: &str) -> Result<Self, getrandom::Error> {
        let process = format!("{server}:{:016x}:", getrandom::u64()?);
        let server = server.to_owned();
        Ok(Self { server, process })
    }

    /// Returns what the owners begin with that are of any process of this server.
    pub(in crate::state) fn of_server(&self) -> String {
        format!("{}:", self.server)
    }

    /// Returns an owner that never was.
    pub(super) fn owner(&self) -> Result<String, LockError> {
        let failed = |error: getrandom::Error| LockError::Unavailable(error.to_string());
        let (high, low) = (
            getrandom::u64().map_err(failed)?,
            getrandom::u64().map_err(failed)?,
        );
        Ok(format!("{}{high:016x}{low:016x}", self.process))
    }
}
