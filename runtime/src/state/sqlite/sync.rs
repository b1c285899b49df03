//! Makes commits durable: one thread syncs the write-ahead log, once for all commits before it, and then acknowledges them.
//!
//! SQLite at `synchronous = NORMAL` leaves out one sync of `FULL`: that of the log after a commit. This thread makes up for
//! it, later and for many at once. Why no acknowledged commit can be lost:
//!
//! 1. A commit that has returned has written all its frames to the log's file, the last one marked as its end. A sync that
//!    begins after that, through whichever descriptor, brings these frames and all before them to the disk.
//! 2. Recovery takes the frames of the log's generation (its salt is in the header and in each frame) from the first one on,
//!    as long as their running checksum is right, up to the last end of a commit. What was synced is a part of that, so an
//!    acknowledged commit is. What was not synced may be lost or torn: nobody was told that it is there.
//! 3. A checkpoint syncs the log before it copies the first page to the database's file (at `NORMAL`, too): the file is never
//!    ahead of the log on the disk.
//! 4. The log begins anew, from its first byte, only when a checkpoint has copied all of it and has synced the database's
//!    file. So a commit whose sync comes only after that is in that file already. The new header, with a new salt, is synced
//!    before the first frame (at `NORMAL`, too): either the old generation is read, all of which is in the file, or the new
//!    one.
//! 5. After a failed sync the kernel may count pages as clean that are not on the disk, so that the next sync succeeds and
//!    says nothing. Hence the first failure, here or inside of SQLite, ends the process, and opening a database first moves
//!    all of the log into the file and syncs that.
//! 6. The descriptor here is on the log alone. Closing one on the database's file would drop SQLite's locks on it. The log's
//!    file stays the same one as long as a connection is open.
//!
//! What a transaction reads may be committed and not durable yet; its own commit is then acknowledged after it. A mere read
//! can show what a power failure in the next milliseconds undoes.

use super::SyncFn;
use super::company::Company;
use super::shared::{Shared, Watchdog};
use crate::state::queue::stored::Stored;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::Instant;
use tokio::sync::mpsc::UnboundedSender;

/// What is called when a commit is durable.
pub(super) type Ack = Box<dyn FnOnce() + Send>;

/// A commit, or several that were one for SQLite.
pub(super) struct Commit {
    /// Whether it is acknowledged only when it is on the disk.
    pub(super) durable: bool,
    pub(super) acks: Vec<Ack>,
    /// The messages that are there by it.
    pub(super) stored: Vec<Stored>,
}

/// Returns what syncs the log at this path, which must be there.
pub(super) fn fdatasync(wal: &Path) -> io::Result<SyncFn> {
    let file = File::open(wal)?;
    Ok(Arc::new(move |_: &Path| Ok(rustix::fs::fdatasync(&file)?)))
}

/// Acknowledges commits in their order, until the writer ends or a sync fails.
pub(super) fn run(
    commits: &Receiver<Commit>,
    sync: &SyncFn,
    sent: &UnboundedSender<Vec<Stored>>,
    shared: Arc<Shared>,
) {
    let watchdog = Watchdog(shared);
    let shared = &watchdog.0;
    let mut synced = 0;
    let mut company = Company::new(thread::sleep);
    let waiting = || shared.waiting.load(Ordering::Relaxed);
    while let Some(group) = company.next(commits, waiting) {
        // Read before the sync: what is committed meanwhile needs another one.
        let written = shared.log.commits.load(Ordering::Acquire);
        if written != synced && group.iter().any(|commit| commit.durable) {
            let begin = Instant::now();
            if let Err(error) = sync(&shared.wal) {
                // The acknowledgements are dropped: those who wait learn that nobody knows.
                shared.fail(format!("the sync of the write-ahead log failed: {error}"));
                return;
            }
            synced = written;
            company.synced(begin.elapsed());
            shared.syncs.fetch_add(1, Ordering::Relaxed);
        }
        // Another thread may have seen a sync fail.
        if shared.check().is_err() {
            return;
        }
        company.acknowledged(&group);
        for commit in group {
            if !commit.stored.is_empty() {
                // Nobody may want to know.
                let _ = sent.send(commit.stored);
            }
            for ack in commit.acks {
                ack();
            }
        }
    }
}
