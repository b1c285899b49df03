//! A real Redis, with a database of its own for each case.

use super::{Backend, HasLocks};
use crate::state::lock::Locks;
use crate::state::lock::spaces::Spaces;
use crate::state::redis::{Address, RedisLocks};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The server, while there is one.
static SERVER: Mutex<Option<wrun_tests::redis::Redis>> = Mutex::new(None);

/// Keeps the server up until it is dropped.
pub(super) struct Server;

impl Server {
    /// Starts it; `None`, which is said on stderr, if it is not installed.
    pub(super) fn start() -> Option<Self> {
        let server = wrun_tests::redis::Redis::for_test()?;
        *lock() = Some(server);
        Some(Self)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        lock().take();
    }
}

fn lock() -> MutexGuard<'static, Option<wrun_tests::redis::Redis>> {
    SERVER.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) struct Bound {
    database: usize,
    spaces: Spaces,
}

impl Bound {
    /// Binds two spaces; a wrun that is started again has another identity.
    async fn open_again(database: usize) -> Self {
        static SERVERS: AtomicUsize = AtomicUsize::new(0);
        let identity = format!("s{}", SERVERS.fetch_add(1, Ordering::Relaxed));
        let url = lock().as_ref().unwrap().url(database);
        let spaces = Spaces::default();
        for space in ["default", "other"] {
            let address = Address::parse(&url).unwrap();
            let locks = RedisLocks::new(space, address, &identity, Box::new(|_| {})).unwrap();
            locks.prepare(false).await.unwrap();
            spaces.bind(space, locks);
        }
        Self { database, spaces }
    }
}

impl Backend for Bound {
    const NAME: &'static str = "redis";

    async fn open() -> Self {
        static CASES: AtomicUsize = AtomicUsize::new(0);
        Self::open_again(CASES.fetch_add(1, Ordering::Relaxed)).await
    }

    async fn restart(self) -> Self {
        for locks in self.spaces.bound().values() {
            locks.flush().await;
        }
        // It forgets everything.
        if let Some(server) = lock().as_mut() {
            server.kill();
            server.start_again();
        }
        Self::open_again(self.database).await
    }
}

impl HasLocks for Bound {
    fn locks(&self) -> &dyn Locks {
        &self.spaces
    }
}
