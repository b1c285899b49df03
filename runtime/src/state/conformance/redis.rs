//! Real Redis servers, one or several, with a database of its own for each case.

use super::{Backend, HasLocks};
use crate::state::lock::Locks;
use crate::state::lock::leased::LeasedLocks;
use crate::state::lock::leased::ledger::Identity;
use crate::state::lock::spaces::Spaces;
use crate::state::redis::{Nodes, parse};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use wrun_tests::redis::Redis;

/// The servers, while there are any.
static SERVERS: Mutex<Vec<Redis>> = Mutex::new(Vec::new());

/// Keeps the servers up until it is dropped.
pub(super) struct Server;

impl Server {
    /// Starts so many; `None`, which is said on stderr, if it is not installed.
    pub(super) fn start(count: usize) -> Option<Self> {
        let servers: Option<Vec<_>> = (0..count).map(|_| Redis::for_test()).collect();
        *lock() = servers?;
        Some(Self)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        lock().clear();
    }
}

fn lock() -> MutexGuard<'static, Vec<Redis>> {
    SERVERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Locks in all of the servers, which are so many.
pub(super) struct Bound<const NODES: usize> {
    database: usize,
    spaces: Spaces,
}

impl<const NODES: usize> Bound<NODES> {
    /// Binds two spaces; a wrun that is started again has another identity.
    async fn open_again(database: usize) -> Self {
        static NUMBERS: AtomicUsize = AtomicUsize::new(0);
        let identity = format!("s{}", NUMBERS.fetch_add(1, Ordering::Relaxed));
        let urls: Vec<String> = lock().iter().map(|it| it.url(database)).collect();
        assert_eq!(urls.len(), NODES);
        let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
        let spaces = Spaces::default();
        for space in ["default", "other"] {
            let identity = Identity::new(&identity).unwrap();
            let nodes = Nodes::new(space, parse(&urls).unwrap(), identity);
            let locks = LeasedLocks::new(space, Rc::new(nodes), Box::new(|_| {}));
            locks.prepare(false).await.unwrap();
            spaces.bind(space, locks);
        }
        Self { database, spaces }
    }
}

impl<const NODES: usize> Backend for Bound<NODES> {
    const NAME: &'static str = if NODES == 1 {
        "redis"
    } else {
        "redis-majority"
    };

    async fn open() -> Self {
        static CASES: AtomicUsize = AtomicUsize::new(0);
        // There are 64.
        Self::open_again(CASES.fetch_add(1, Ordering::Relaxed) % 64).await
    }

    async fn restart(self) -> Self {
        for locks in self.spaces.bound().values() {
            locks.flush().await;
        }
        // They forget everything.
        for server in &mut *lock() {
            server.kill();
            server.start_again();
        }
        Self::open_again(self.database).await
    }
}

impl<const NODES: usize> HasLocks for Bound<NODES> {
    fn locks(&self) -> &dyn Locks {
        &self.spaces
    }
}
