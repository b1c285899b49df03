//! What queues that several servers of wrun's share have in common, wherever they are: ids, leases, how much is claimed and how
//! often it is looked, and what is given back at once.

use super::lanes::{Entry, Lanes};
use super::stored::Change;
use crate::state::wall_ms;
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How long a lease is good by which a server holds messages, and how often it is renewed.
pub(in crate::state) const LEASE: Duration = Duration::from_secs(10);
pub(in crate::state) const RENEW: Duration = Duration::from_secs(3);

/// How often it is looked whether there is something that nobody told of, and whether the server is there.
pub(in crate::state) const POLL: Duration = Duration::from_secs(1);

/// How often it is looked whether something was left behind.
pub(in crate::state) const SWEEP: Duration = Duration::from_secs(30);

/// How long to leave a server alone that failed.
pub(in crate::state) const PAUSE: Duration = Duration::from_millis(100);

/// Messages that a claim takes at most.
pub(in crate::state) const CLAIM_MAX: u64 = 500;

/// Messages that a claim looks at, beside those that it can take.
pub(in crate::state) const LOOK_MAX: u64 = 100;

/// Claims in a row, until something else is looked at.
pub(in crate::state) const CLAIMS_MAX: usize = 20;

/// Wakes up what claims.
#[derive(Default)]
pub(in crate::state) struct Bell {
    pub(in crate::state) work: Notify,
    /// Others are to be told, too.
    tells: AtomicBool,
}

impl Bell {
    pub(in crate::state) fn wake(&self) {
        self.work.notify_one();
    }

    /// There are messages, or there may be: those who wait here look, and if it is not all theirs, those elsewhere.
    pub(in crate::state) fn ring(&self) {
        self.tells.store(true, Ordering::Relaxed);
        self.wake();
    }

    /// Returns whether others are to be told, which is done then.
    pub(in crate::state) fn tells(&self) -> bool {
        self.tells.swap(false, Ordering::Relaxed)
    }
}

/// How long a count is good.
const GOOD: Duration = Duration::from_secs(1);

/// How many more messages a queue takes, as far as this server knows: what was counted now and then, and changed by this server
/// since.
#[derive(Default)]
pub(in crate::state) struct Room {
    left: u64,
    counted_at: Option<Instant>,
}

impl Room {
    /// There is room for so many.
    pub(in crate::state) fn count(&mut self, left: u64) {
        self.left = left;
        self.counted_at = Some(Instant::now());
    }

    /// Takes room; `None` if there may not be enough, or nobody knows.
    pub(in crate::state) fn take(&mut self, count: u64) -> Option<()> {
        self.counted_at.filter(|at| at.elapsed() < GOOD)?;
        self.left = self.left.checked_sub(count)?;
        Some(())
    }

    /// Messages are gone.
    pub(in crate::state) fn add(&mut self, count: u64) {
        self.left += count;
    }
}

/// Returns the id of a message that is known outside. No label has a colon, so none of an embedded queue is like it.
pub(in crate::state) fn outside(label: &str, id: i64) -> String {
    format!("{label}:{id}")
}

/// Returns the id of a message by the one that is known outside.
pub(in crate::state) fn inside(label: &str, id: &str) -> Option<i64> {
    let own = id.strip_prefix(label)?.strip_prefix(':')?;
    own.parse().ok()
}

/// Has what nobody here has room for given back, and the bell rung if more is wanted than before.
pub(in crate::state) fn give_back(
    lanes: &mut Lanes,
    wanted: &Cell<(u64, u64)>,
    bell: &Bell,
) -> Vec<Change> {
    let counts = lanes.counts();
    let left = match counts.messages > counts.in_flight {
        true => lanes.purge(),
        false => Vec::new(),
    };
    let now = lanes.wanted();
    if now.0 > wanted.replace(now).0 {
        bell.wake();
    }
    let give_back = |entry: Entry| Change::Retry {
        id: entry.id,
        attempts: entry.attempts,
        ready_at_ms: wall_ms(),
        alone: entry.alone,
    };
    left.into_iter().map(give_back).collect()
}

/// Tells whether a time has come; then it comes again after `every`.
pub(in crate::state) fn is_due(at: &Cell<Instant>, every: Duration) -> bool {
    let now = Instant::now();
    let is_due = now >= at.get();
    if is_due {
        at.set(now + every);
    }
    is_due
}
