//! Locks in a real PostgreSQL, with a database of its own for each case.

use super::postgres::lock;
use super::{Backend, HasLocks};
use crate::state::lock::Locks;
use crate::state::lock::leased::LeasedLocks;
use crate::state::lock::leased::ledger::Identity;
use crate::state::lock::spaces::Spaces;
use crate::state::postgres::{Address, PostgresLocks};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};

pub(super) struct BoundLocks {
    database: String,
    spaces: Spaces,
}

impl BoundLocks {
    /// Binds two spaces; a wrun that is started again has another identity.
    async fn open_again(database: String) -> Self {
        static NUMBERS: AtomicUsize = AtomicUsize::new(0);
        let identity = format!("s{}", NUMBERS.fetch_add(1, Ordering::Relaxed));
        let url = lock().as_ref().unwrap().url(&database);
        let spaces = Spaces::default();
        for space in ["default", "other"] {
            let (address, identity) = (Address::parse(&url), Identity::new(&identity));
            let ledger = PostgresLocks::new(space, address.unwrap(), identity.unwrap());
            let locks = LeasedLocks::new(space, Rc::new(ledger), Box::new(|_| {}));
            locks.prepare(false).await.unwrap();
            spaces.bind(space, locks);
        }
        Self { database, spaces }
    }
}

impl Backend for BoundLocks {
    const NAME: &'static str = "postgres";

    async fn open() -> Self {
        static CASES: AtomicUsize = AtomicUsize::new(0);
        let database = format!("locks_{}", CASES.fetch_add(1, Ordering::Relaxed));
        lock().as_ref().unwrap().create(&database);
        Self::open_again(database).await
    }

    async fn restart(self) -> Self {
        for locks in self.spaces.bound().values() {
            locks.flush().await;
        }
        if let Some(server) = lock().as_mut() {
            server.stop();
            server.start_again();
        }
        Self::open_again(self.database).await
    }
}

impl HasLocks for BoundLocks {
    fn locks(&self) -> &dyn Locks {
        &self.spaces
    }
}
