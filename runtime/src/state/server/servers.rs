//! The servers that labels are bound to: where they are, and what reaching them takes.

use super::bound::{Place, locks, queue};
use crate::config::Secret;
use std::collections::BTreeMap;
use std::mem::discriminant;
use std::path::PathBuf;

/// What is known of them, by the labels of what is bound.
#[derive(Default)]
pub(super) struct Servers {
    databases: BTreeMap<String, Result<Place, String>>,
    replicas: BTreeMap<String, Result<Place, String>>,
    locks: BTreeMap<String, Result<locks::Place, String>>,
    queues: BTreeMap<String, Result<queue::Place, String>>,
    /// What this server of wrun's is known by to them.
    pub(super) identity: String,
}

impl Servers {
    /// Reads the URLs, which are wiped.
    pub(super) fn read(urls: BTreeMap<String, Secret>, identity: String) -> Self {
        let (mut databases, mut replicas) = (BTreeMap::new(), BTreeMap::new());
        let (mut locks, mut queues) = (BTreeMap::new(), BTreeMap::new());
        for (name, url) in urls {
            if let Some(label) = name.strip_prefix("db.") {
                databases.insert(label.to_owned(), Place::parse(&url));
            } else if let Some(label) = name.strip_prefix("replica.") {
                replicas.insert(label.to_owned(), Place::parse(&url));
            } else if let Some(label) = name.strip_prefix("lock.") {
                locks.insert(label.to_owned(), locks::Place::parse(&url));
            } else if let Some(label) = name.strip_prefix("queue.") {
                queues.insert(label.to_owned(), queue::Place::parse(&url));
            }
        }
        for (label, replica) in &mut replicas {
            let primary = databases.get(label);
            if let (Ok(place), Some(Ok(primary))) = (&replica, primary)
                && discriminant(place) != discriminant(primary)
            {
                *replica = Err(format!("db.{label} is of another kind"));
            }
        }
        Self {
            databases,
            replicas,
            locks,
            queues,
            identity,
        }
    }

    /// Returns where a database is, or why nobody can tell.
    pub(super) fn database(&self, label: &str) -> Result<Place, String> {
        let found = self.databases.get(label).cloned();
        found.unwrap_or_else(|| Err(MISSING.to_owned()))
    }

    /// Returns where the replica of a database is, or why nobody can tell.
    pub(super) fn replica(&self, label: &str) -> Result<Place, String> {
        let found = self.replicas.get(label).cloned();
        found.unwrap_or_else(|| Err(MISSING.to_owned()))
    }

    /// Returns where a space of locks is, or why nobody can tell.
    pub(super) fn locks(&self, label: &str) -> Result<locks::Place, String> {
        let found = self.locks.get(label).cloned();
        found.unwrap_or_else(|| Err(MISSING.to_owned()))
    }

    /// Returns where a queue is, or why nobody can tell.
    pub(super) fn queue(&self, label: &str) -> Result<queue::Place, String> {
        let found = self.queues.get(label).cloned();
        found.unwrap_or_else(|| Err(MISSING.to_owned()))
    }

    /// Returns the TCP ports that are connected to.
    pub(super) fn ports(&self) -> Vec<u16> {
        let databases = self.reached_databases().flat_map(Place::ports);
        let queues = self.reached_queues().flat_map(queue::Place::ports);
        databases
            .chain(queues)
            .chain(self.reached_locks().flat_map(locks::Place::ports))
            .collect()
    }

    /// Returns the folders of the Unix sockets that are connected to.
    pub(super) fn sockets(&self) -> Vec<PathBuf> {
        let databases = self.reached_databases().flat_map(Place::sockets);
        let queues = self.reached_queues().flat_map(queue::Place::sockets);
        databases
            .chain(queues)
            .chain(self.reached_locks().flat_map(locks::Place::sockets))
            .collect()
    }

    /// Tells whether a name has to be resolved.
    pub(super) fn resolves(&self) -> bool {
        self.reached_databases().any(Place::resolves)
            || self.reached_queues().any(queue::Place::resolves)
            || self.reached_locks().any(locks::Place::resolves)
    }

    /// Tells whether one of their clients takes calls that the others do without.
    pub(super) fn scatters(&self) -> bool {
        self.reached_queues().any(queue::Place::scatters)
    }

    fn reached_databases(&self) -> impl Iterator<Item = &Place> {
        let all = self.databases.values().chain(self.replicas.values());
        all.filter_map(|it| it.as_ref().ok())
    }

    fn reached_queues(&self) -> impl Iterator<Item = &queue::Place> {
        self.queues.values().filter_map(|it| it.as_ref().ok())
    }

    fn reached_locks(&self) -> impl Iterator<Item = &locks::Place> {
        self.locks.values().filter_map(|it| it.as_ref().ok())
    }
}

const MISSING: &str = "it was not there when the server was started";
