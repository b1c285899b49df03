//! Moves the write-ahead log into the database's file, so that the log stays short.
//!
//! A thread with a connection of its own does it beside the writer. When the writer is faster, it begins the log anew itself
//! between two transactions, for which the last of it must be moved: that is what slows it down.

use super::Options;
use super::connection::{BUSY_WAIT, Connection, PAGE_SIZE, Role};
use super::shared::{Shared, Watchdog};
use rusqlite::wal::CheckpointMode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Duration;

/// Pages that the log grows by between two checkpoints.
const CHECKPOINT_PAGES: u64 = (4 << 20) / PAGE_SIZE;
/// Pages of the log beyond which the writer begins it anew.
const RESTART_PAGES: u64 = (16 << 20) / PAGE_SIZE;

/// Does a checkpoint for every request.
pub(super) fn run(requests: &Receiver<()>, options: &Options, shared: Arc<Shared>) {
    let watchdog = Watchdog(shared);
    let shared = &watchdog.0;
    let mut connection = None;
    while requests.recv().is_ok() {
        if connection.is_none() {
            connection = Connection::open(options, Role::Keeper)
                .inspect_err(|error| tracing::warn!(%error, "no connection for checkpoints"))
                .ok();
        }
        if let Some(connection) = &connection {
            checkpoint(connection, CheckpointMode::PASSIVE, shared);
        }
    }
}

/// Says when a checkpoint is due. The writer asks after every transaction.
pub(super) struct Pace {
    requests: SyncSender<()>,
    /// At how many pages the next checkpoint, and the next try to begin the log anew, is due.
    checkpoint_at: u64,
    restart_at: u64,
}

impl Pace {
    pub(super) fn new(requests: SyncSender<()>) -> Self {
        Self {
            requests,
            checkpoint_at: CHECKPOINT_PAGES,
            restart_at: RESTART_PAGES,
        }
    }

    /// Keeps the log short, with the writer's connection, which is in no transaction.
    pub(super) fn after_transaction(&mut self, connection: &Connection, shared: &Shared) {
        let pages = shared.log.pages.load(Ordering::Relaxed);
        // It has begun anew.
        if pages + CHECKPOINT_PAGES < self.checkpoint_at {
            self.checkpoint_at = CHECKPOINT_PAGES;
            self.restart_at = RESTART_PAGES;
        }
        if pages >= self.restart_at {
            restart(connection, shared);
            // A reader may hold on to it; then only once in a while.
            self.restart_at = pages + CHECKPOINT_PAGES;
        } else if pages >= self.checkpoint_at {
            self.checkpoint_at = pages + CHECKPOINT_PAGES;
            // One that waits is enough.
            let _ = self.requests.try_send(());
        }
    }
}

fn restart(connection: &Connection, shared: &Shared) {
    let wait = |time| connection.sqlite.busy_timeout(time);
    if wait(Duration::ZERO).is_ok() {
        checkpoint(connection, CheckpointMode::RESTART, shared);
    }
    if let Err(error) = wait(BUSY_WAIT) {
        tracing::warn!(%error, "the wait for locks could not be set");
    }
}

/// Moves all of the log and cuts it off; to be called while nothing else goes on.
pub(super) fn truncate(connection: &Connection, shared: &Shared) {
    checkpoint(connection, CheckpointMode::TRUNCATE, shared);
}

fn checkpoint(connection: &Connection, mode: CheckpointMode, shared: &Shared) {
    let _one_at_a_time = shared.lock_checkpoint();
    match connection
        .sqlite
        .wal_checkpoint_v2(Some(rusqlite::MAIN_DB), mode)
    {
        Ok(_) => {}
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => {
            tracing::debug!("a reader keeps the write-ahead log");
        }
        Err(error) => {
            shared.fail_if_sync_was_lost(&error);
            tracing::warn!(%error, "the checkpoint failed");
        }
    }
}
