//! A connection of SQLite as the engine uses it: settings, limits, the authorizer, and the clock that stops a statement.
//!
//! One thread uses a connection. Its settings are the ones that the argument in `sync` rests on.

use super::Options;
use super::authorizer::Gate;
use super::error;
use crate::state::db::{DbError, GivenUp, PARAMS_MAX, SQL_MAX, VALUE_MAX};
use crate::state::protocol::is_gone;
use rusqlite::OpenFlags;
use rusqlite::config::DbConfig;
use rusqlite::hooks::{Action, AuthContext, Wal};
use rusqlite::limits::Limit;
use std::cell::Cell;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes of a page.
pub(super) const PAGE_SIZE: u64 = 4096;
/// Memory that all connections of the process may use together; from three quarters of it on they cache no more pages.
const HEAP_MAX: i64 = 256 << 20;
/// What a large transaction leaves of the write-ahead log's file. Below it the file is written over, not made longer, which
/// syncs faster.
const WAL_KEPT: i64 = 64 << 20;
/// How long to wait for a lock that another process has taken, an operator's `sqlite3` for instance.
pub(super) const BUSY_WAIT: Duration = Duration::from_secs(2);
/// Instructions of SQLite's machine between two looks at the clock: some ten microseconds.
const WATCH_EVERY: i32 = 1000;
/// Microseconds between two looks whether somebody still waits for a statement.
const LOOK_EVERY: u64 = 1000;

/// What a connection is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Role {
    /// The only one that writes for guests.
    Writer,
    /// Reads snapshots.
    Reader,
    /// Checkpoints, backups and migrations: no guest waits behind it.
    Keeper,
}

/// An open connection.
pub(super) struct Connection {
    pub(super) sqlite: rusqlite::Connection,
    pub(super) gate: Arc<Gate>,
    pub(super) watch: Arc<Watch>,
    pub(super) log: Arc<Log>,
    /// A row was inserted since the flag was cleared.
    inserted: Arc<AtomicBool>,
    sync_lost: Cell<bool>,
}

impl Connection {
    /// Opens a connection; the first one of a database makes its file.
    pub(super) fn open(options: &Options, role: Role) -> rusqlite::Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let sqlite = match &options.vfs {
            Some(vfs) => {
                rusqlite::Connection::open_with_flags_and_vfs(&options.path, flags, vfs.as_str())
            }
            None => rusqlite::Connection::open_with_flags(&options.path, flags),
        }?;
        let mut connection = Self {
            sqlite,
            gate: Arc::default(),
            watch: Arc::new(Watch::new()),
            log: Arc::default(),
            inserted: Arc::default(),
            sync_lost: Cell::new(false),
        };
        connection.set_pragmas(role, options.max_size)?;
        connection.set_limits()?;
        connection.set_hooks()?;
        Ok(connection)
    }

    fn set_pragmas(&self, role: Role, max_size: u64) -> rusqlite::Result<()> {
        let sqlite = &self.sqlite;
        sqlite.busy_timeout(BUSY_WAIT)?;
        sqlite.pragma_update(None, "page_size", PAGE_SIZE.cast_signed())?;
        sqlite.pragma_update(None, "journal_mode", "wal")?;
        sqlite.pragma_update(None, "wal_autocheckpoint", 0)?;
        sqlite.pragma_update(None, "journal_size_limit", WAL_KEPT)?;
        sqlite.pragma_update(None, "synchronous", "normal")?;
        sqlite.pragma_update(None, "foreign_keys", role != Role::Keeper)?;
        sqlite.pragma_update(None, "mmap_size", 0)?;
        // What a guest's statement sorts stays in memory, whose limit it then meets, and fills no disk.
        let temp_store = if role == Role::Keeper {
            "file"
        } else {
            "memory"
        };
        sqlite.pragma_update(None, "temp_store", temp_store)?;
        sqlite.pragma_update(None, "hard_heap_limit", HEAP_MAX)?;
        sqlite.pragma_update(None, "soft_heap_limit", HEAP_MAX / 4 * 3)?;
        let pages = u32::try_from(max_size / PAGE_SIZE).unwrap_or(u32::MAX - 1);
        sqlite.pragma_update(None, "max_page_count", pages.max(1))?;
        let cache_kib = if role == Role::Writer {
            16 << 10
        } else {
            4 << 10
        };
        sqlite.pragma_update(None, "cache_size", -cache_kib)?;
        sqlite.pragma_update(None, "query_only", role == Role::Reader)?;
        sqlite.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        sqlite.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
        // A name in quotes that is no column is an error, not a text.
        sqlite.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
        sqlite.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DDL, false)?;
        sqlite.set_prepared_statement_cache_capacity(64);
        Ok(())
    }

    fn set_limits(&self) -> rusqlite::Result<()> {
        for (limit, value) in [
            (Limit::SQLITE_LIMIT_LENGTH, VALUE_MAX as i32),
            (Limit::SQLITE_LIMIT_SQL_LENGTH, SQL_MAX as i32),
            (Limit::SQLITE_LIMIT_VARIABLE_NUMBER, PARAMS_MAX as i32),
            (Limit::SQLITE_LIMIT_COLUMN, 100),
            (Limit::SQLITE_LIMIT_EXPR_DEPTH, 50),
            (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 10),
            (Limit::SQLITE_LIMIT_VDBE_OP, 250_000),
            (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 100),
            (Limit::SQLITE_LIMIT_TRIGGER_DEPTH, 10),
            (Limit::SQLITE_LIMIT_ATTACHED, 0),
            (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
        ] {
            self.sqlite.set_limit(limit, value)?;
        }
        Ok(())
    }

    fn set_hooks(&mut self) -> rusqlite::Result<()> {
        let gate = Arc::clone(&self.gate);
        self.sqlite
            .authorizer(Some(move |context: AuthContext<'_>| gate.decide(&context)))?;
        let watch = Arc::clone(&self.watch);
        self.sqlite
            .progress_handler(WATCH_EVERY, Some(move || watch.is_over()))?;
        let inserted = Arc::clone(&self.inserted);
        self.sqlite
            .update_hook(Some(move |action, _: &str, _: &str, _| {
                if action == Action::SQLITE_INSERT {
                    inserted.store(true, Ordering::Relaxed);
                }
            }))?;
        let log = Arc::clone(&self.log);
        self.sqlite.wal_hook(Some(move |_: &mut Wal, pages: i32| {
            log.pages
                .store(u64::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            log.commits.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }))
    }

    /// Forgets that rows were inserted.
    pub(super) fn clear_inserted(&self) {
        self.inserted.store(false, Ordering::Relaxed);
    }

    /// Returns the row id of the row that was inserted last, if any was.
    pub(super) fn last_inserted(&self) -> Option<i64> {
        self.inserted
            .load(Ordering::Relaxed)
            .then(|| self.sqlite.last_insert_rowid())
    }

    /// Tells whether a sync failed inside of SQLite, in which case nobody knows what is on the disk.
    pub(super) fn has_lost_sync(&self) -> bool {
        self.sync_lost.get()
    }

    /// Returns an error of this connection as a guest sees it.
    pub(super) fn db_error(&self, error: &rusqlite::Error) -> DbError {
        if error::is_lost_sync(error) {
            self.sync_lost.set(true);
        }
        if error::is_refusal(error)
            && let Some(reason) = self.gate.take_reason()
        {
            return DbError::Denied(reason);
        }
        error::to_db_error(error)
    }
}

/// How far the write-ahead log has come by commits of one connection.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// Pages in it.
    pub(super) pages: AtomicU64,
    /// Commits that wrote something.
    pub(super) commits: AtomicU64,
}

/// When a connection's statement must stop.
#[derive(Debug)]
pub(super) struct Watch {
    epoch: Instant,
    /// Microseconds since `epoch`.
    deadline: AtomicU64,
    /// The transaction that is served, and the last one that was dropped while it was served.
    serving: AtomicU64,
    dropped: AtomicU64,
    /// Whether the batch that is run was given up.
    given_up: Mutex<GivenUp>,
    /// The connection of the transaction that is served, if it is lent for that, and when its peer was looked for.
    peer: Mutex<Option<Arc<UnixStream>>>,
    looked: AtomicU64,
}

impl Watch {
    fn new() -> Self {
        Self {
            epoch: Instant::now(),
            deadline: AtomicU64::new(u64::MAX),
            serving: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            given_up: Mutex::default(),
            peer: Mutex::default(),
            looked: AtomicU64::new(0),
        }
    }

    /// Statements of guests stop when the other end of this connection is closed.
    pub(super) fn set_peer(&self, peer: Option<Arc<UnixStream>>) {
        *self.peer() = peer;
    }

    fn peer(&self) -> MutexGuard<'_, Option<Arc<UnixStream>>> {
        self.peer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection runs a batch that stops when it is given up.
    pub(super) fn set_given_up(&self, given_up: GivenUp) {
        *self.given_up() = given_up;
    }

    fn given_up(&self) -> MutexGuard<'_, GivenUp> {
        self.given_up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Statements stop at `deadline`, or never.
    pub(super) fn set_deadline(&self, deadline: Option<Instant>) {
        let micros = deadline.map_or(u64::MAX, |deadline| {
            u64::try_from(deadline.saturating_duration_since(self.epoch).as_micros())
                .unwrap_or(u64::MAX)
        });
        self.deadline.store(micros, Ordering::Relaxed);
    }

    /// The connection serves this transaction; 0 is none.
    pub(super) fn set_serving(&self, transaction: u64) {
        self.serving.store(transaction, Ordering::Relaxed);
    }

    /// Nobody waits for this transaction any more: what it runs stops. Called from any thread.
    pub(super) fn drop_transaction(&self, transaction: u64) {
        if self.serving.load(Ordering::Relaxed) == transaction {
            self.dropped.store(transaction, Ordering::Relaxed);
        }
    }

    fn is_over(&self) -> bool {
        let serving = self.serving.load(Ordering::Relaxed);
        if serving != 0 && serving == self.dropped.load(Ordering::Relaxed) {
            return true;
        }
        if self.given_up().is_given_up() {
            return true;
        }
        let deadline = self.deadline.load(Ordering::Relaxed);
        if deadline == u64::MAX {
            return false;
        }
        let now = u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX);
        now >= deadline || self.peer_is_gone(now)
    }

    /// Looks for the peer, but not all the time.
    fn peer_is_gone(&self, now: u64) -> bool {
        if now
            < self
                .looked
                .load(Ordering::Relaxed)
                .saturating_add(LOOK_EVERY)
        {
            return false;
        }
        self.looked.store(now, Ordering::Relaxed);
        self.peer().as_deref().is_some_and(is_gone)
    }
}
