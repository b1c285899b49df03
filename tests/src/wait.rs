//! Waiting for what another process does: the only place of the tests that sleeps.

use std::thread;
use std::time::{Duration, Instant};

/// The deadline for what should happen at once: far above what it takes, also on a busy machine.
pub const SOON: Duration = Duration::from_secs(30);

/// How long to pause between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// How long to pause where the time until it happens is measured.
const SHORT_PAUSE: Duration = Duration::from_micros(200);

/// Calls `probe` until it finds something, and returns that.
///
/// # Panics
///
/// If nothing is found within the deadline; `what` says what was waited for.
#[track_caller]
pub fn eventually<T>(what: &str, within: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(start.elapsed() < within, "not within {within:?}: {what}");
        thread::sleep(PAUSE);
    }
}

/// Does the same for who measures how long it takes: looks more often, and returns `None` after the deadline.
pub fn watch<T>(within: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        let found = probe();
        if found.is_some() || start.elapsed() >= within {
            return found;
        }
        thread::sleep(SHORT_PAUSE);
    }
}
