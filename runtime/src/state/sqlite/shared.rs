//! What the threads of one database have in common: figures, and whether the engine can go on.

use super::FatalFn;
use super::connection::Log;
use crate::state::db::DbError;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// One per open database.
pub(super) struct Shared {
    pub(super) label: String,
    pub(super) wal: PathBuf,
    /// What the writer has committed.
    pub(super) log: Arc<Log>,
    pub(super) syncs: AtomicU64,
    /// Interactive transactions that wait for the writer.
    pub(super) waiting: AtomicUsize,
    writer_held_max_ms: AtomicU64,
    /// Why the engine has stopped.
    broken: OnceLock<String>,
    fatal: FatalFn,
    /// Held for a checkpoint: SQLite does one at a time, and the second would fail.
    checkpoint: Mutex<()>,
}

impl Shared {
    pub(super) fn new(label: String, wal: PathBuf, log: Arc<Log>, fatal: FatalFn) -> Self {
        Self {
            label,
            wal,
            log,
            syncs: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            writer_held_max_ms: AtomicU64::new(0),
            broken: OnceLock::new(),
            fatal,
            checkpoint: Mutex::new(()),
        }
    }

    /// Stops the engine for good: nothing that was not acknowledged will be, and nothing more is taken.
    pub(super) fn fail(&self, reason: String) {
        let reason = format!("database {}: {reason}", self.label);
        if self.broken.set(reason.clone()).is_ok() {
            tracing::error!(reason, "the database engine cannot go on");
            (self.fatal)(reason);
        }
    }

    /// Stops the engine if this error says that a sync failed.
    pub(super) fn fail_if_sync_was_lost(&self, error: &rusqlite::Error) {
        if super::error::is_lost_sync(error) {
            self.fail(format!("a sync failed: {error}"));
        }
    }

    /// Tells whether the engine works, and why not.
    pub(super) fn check(&self) -> Result<(), DbError> {
        match self.broken.get() {
            None => Ok(()),
            Some(reason) => Err(DbError::Unavailable(reason.clone())),
        }
    }

    /// Waits until no other thread does a checkpoint.
    pub(super) fn lock_checkpoint(&self) -> MutexGuard<'_, ()> {
        self.checkpoint
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes how long a transaction held the writer.
    pub(super) fn held_writer(&self, time: Duration) {
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.writer_held_max_ms.fetch_max(ms, Ordering::Relaxed);
    }

    pub(super) fn writer_held_max_ms(&self) -> u64 {
        self.writer_held_max_ms.load(Ordering::Relaxed)
    }
}

/// Ends the engine when its thread panics.
pub(super) struct Watchdog(pub(super) Arc<Shared>);

impl Drop for Watchdog {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail("a thread of the engine panicked".to_owned());
        }
    }
}
