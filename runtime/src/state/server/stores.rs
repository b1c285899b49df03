//! What sessions work on: the locks, databases and queues that are open, and what each generation may use of them.
//!
//! Opens nothing itself. What only the embedded engines can do is for operators and for `configure`.

use super::bound::BoundDatabase;
use super::bound::queue::BoundQueue;
use super::relays::Relays;
use crate::config::shared::Shared;
use crate::ipc::Reach;
use crate::state::db::Database;
use crate::state::lock::spaces::Spaces;
use crate::state::queue::Queue;
use crate::state::queue::embedded::EmbeddedQueue;
use crate::state::sqlite::Sqlite;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::Notify;

/// What the names of copies begin with. No database's file can be called so: no label begins with a dot.
const COPY: &str = ".backup-";

/// How many characters of why a server cannot be reached are passed on.
const WHY_MAX: usize = 80;

/// Everything that is open, by label.
pub(super) struct Stores {
    data: PathBuf,
    pub(super) locks: Spaces,
    /// Those that are embedded; beside one that is bound there may be one, for queues.
    pub(super) databases: RefCell<BTreeMap<String, Sqlite>>,
    pub(super) bound: RefCell<BTreeMap<String, BoundDatabase>>,
    pub(super) queues: RefCell<BTreeMap<String, EmbeddedQueue>>,
    pub(super) bound_queues: RefCell<BTreeMap<String, BoundQueue>>,
    /// Those that lead to them.
    pub(super) relays: Relays,
    granted: RefCell<HashMap<u64, Arc<Shared>>>,
    /// There is a new generation.
    granting: Notify,
    /// There was one.
    ready: Cell<bool>,
}

impl Stores {
    /// Returns stores of which nothing is open; files are in `data`.
    pub(super) fn new(data: PathBuf) -> Self {
        Self {
            data,
            locks: Spaces::default(),
            databases: RefCell::default(),
            bound: RefCell::default(),
            queues: RefCell::default(),
            bound_queues: RefCell::default(),
            relays: Relays::default(),
            granted: RefCell::default(),
            granting: Notify::new(),
            ready: Cell::new(false),
        }
    }

    /// Returns the folder of the databases' files.
    pub(super) fn data(&self) -> &Path {
        &self.data
    }

    /// Returns a path for a copy of a database that nobody else can guess.
    pub(super) fn new_copy(&self) -> io::Result<PathBuf> {
        let random = getrandom::u64().map_err(io::Error::other)?;
        Ok(self.data.join(format!("{COPY}{random:016x}.db")))
    }

    /// Removes copies that nobody took: a state process before this one was killed while it made them.
    pub(super) fn remove_copies(&self) -> io::Result<()> {
        for entry in self.data.read_dir()? {
            let entry = entry?;
            if entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(COPY.as_bytes())
            {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Returns the database that guests know by this label.
    pub(super) fn database(&self, label: &str) -> Option<Rc<dyn Database>> {
        if let Some(bound) = self.bound.borrow().get(label) {
            return Some(bound.database());
        }
        let embedded = self.sqlite(label)?;
        Some(Rc::new(embedded))
    }

    /// Returns the names of what is bound to servers, and whether these can be reached.
    pub(super) fn bound_status(&self) -> BTreeMap<String, Reach> {
        let bound = self.bound.borrow();
        let databases = bound
            .iter()
            .map(|(label, bound)| (format!("db.{label}"), reach(bound.why_away())));
        let replicas = bound
            .iter()
            .filter_map(|(label, bound)| Some((format!("replica.{label}"), bound.replica()?)));
        let locks = self.locks.bound();
        let locks = locks
            .iter()
            .map(|(label, bound)| (format!("lock.{label}"), bound.reach()));
        let queues = self.bound_queues.borrow();
        let queues = queues
            .iter()
            .map(|(label, bound)| (format!("queue.{label}"), reach(bound.why_away())));
        // All of them have to fit into one message.
        let shorten = |why: String| why.chars().take(WHY_MAX).collect();
        let all = databases.chain(replicas).chain(locks).chain(queues);
        all.map(|(name, reach)| (name, reach.map(shorten)))
            .collect()
    }

    /// Returns the embedded database that guests know by this label, if that is not bound to a server.
    pub(super) fn embedded(&self, label: &str) -> Option<Sqlite> {
        if self.bound.borrow().contains_key(label) {
            return None;
        }
        self.sqlite(label)
    }

    pub(super) fn sqlite(&self, label: &str) -> Option<Sqlite> {
        self.databases.borrow().get(label).cloned()
    }

    pub(super) fn queue(&self, label: &str) -> Option<Rc<dyn Queue>> {
        if let Some(bound) = self.bound_queues.borrow().get(label) {
            return Some(bound.queue());
        }
        let embedded = self.queues.borrow().get(label)?.clone();
        Some(Rc::new(embedded))
    }

    /// Returns all queues by their labels.
    pub(super) fn all_queues(&self) -> BTreeMap<String, Rc<dyn Queue>> {
        let (embedded, bound) = (self.queues.borrow(), self.bound_queues.borrow());
        let labels = embedded.keys().chain(bound.keys());
        let open = |label: &String| Some((label.clone(), self.queue(label)?));
        labels.filter_map(open).collect()
    }

    /// Lets workers of a generation use what is granted to it.
    pub(super) fn grant(&self, generation: u64, shared: Shared) {
        self.granted
            .borrow_mut()
            .insert(generation, Arc::new(shared));
        self.ready.set(true);
        self.granting.notify_waiters();
    }

    /// Admits no more workers of a generation; those that are connected keep what they have.
    pub(super) fn forget(&self, generation: u64) {
        self.granted.borrow_mut().remove(&generation);
    }

    /// Waits until the first generation is known: before that, what there is may not be open.
    pub(super) async fn ready(&self) {
        loop {
            let granting = self.granting.notified();
            if self.ready.get() {
                return;
            }
            granting.await;
        }
    }

    /// Returns what is granted to a generation, once it is known.
    pub(super) async fn granted(&self, generation: u64) -> Arc<Shared> {
        loop {
            // Made before the look, so that no grant comes between.
            let granting = self.granting.notified();
            if let Some(shared) = self.granted.borrow().get(&generation) {
                return shared.clone();
            }
            granting.await;
        }
    }
}

/// Returns how it stands with one server that cannot be reached for a reason, or can.
fn reach(why_away: Option<String>) -> Reach {
    why_away.map_or(Reach::Here, Reach::Away)
}
