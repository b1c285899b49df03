//! What happens to the files of a database and what its users are told, recorded in one order.

use super::known::Fact;
use rusqlite::ffi::SQLITE_OK;
use std::ffi::c_int;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// A file of a database.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum File {
    Database,
    /// The write-ahead log.
    Log,
    /// The rollback journal, which is there for a moment when a database is made.
    Journal,
}

impl File {
    pub(super) const ALL: [Self; 3] = [Self::Database, Self::Log, Self::Journal];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Database => "default.db",
            Self::Log => "default.db-wal",
            Self::Journal => "default.db-journal",
        }
    }
}

/// Something that has happened.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Created(File),
    Wrote {
        file: File,
        offset: usize,
        bytes: Arc<[u8]>,
    },
    Truncated {
        file: File,
        size: usize,
    },
    /// A sync has ended: what was done to the file before the event number `from`, when it began, is on the disk. With
    /// `names`, so is which files there are.
    Synced {
        file: File,
        names: bool,
        from: usize,
    },
    Deleted {
        file: File,
        durable: bool,
    },
    /// A user was told, or is about to undo, something.
    Told(Fact),
}

/// The record.
#[derive(Debug, Default)]
pub(super) struct Tape(Mutex<Vec<Event>>);

impl Tape {
    pub(super) fn tell(&self, fact: Fact) {
        self.events().push(Event::Told(fact));
    }

    /// Changes a file, and records that if it succeeds, so that the order of the record is the one of the changes.
    pub(super) fn change(&self, event: Event, change: impl FnOnce() -> c_int) -> c_int {
        let mut events = self.events();
        let code = change();
        if code == SQLITE_OK {
            events.push(event);
        }
        code
    }

    /// Opens a file, and records if that makes it.
    pub(super) fn open(&self, file: File, path: &Path, open: impl FnOnce() -> c_int) -> c_int {
        let mut events = self.events();
        let is_new = !path.exists();
        let code = open();
        if code == SQLITE_OK && is_new {
            events.push(Event::Created(file));
        }
        code
    }

    /// Syncs a file, which takes some time: what happens meanwhile is not covered.
    pub(super) fn sync(&self, file: File, names: bool) {
        let from = self.events().len();
        thread::sleep(Duration::from_micros(from as u64 % 4 * 50));
        self.events().push(Event::Synced { file, names, from });
    }

    /// Returns all that was recorded.
    pub(super) fn take(&self) -> Vec<Event> {
        std::mem::take(&mut *self.events())
    }

    fn events(&self) -> MutexGuard<'_, Vec<Event>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
