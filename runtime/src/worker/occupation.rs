//! How busy the event loop is.
//!
//! By the clock and not by CPU time: a loop that waits for a core has something to do as well.

use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// What the event loop did until the last look.
pub(super) struct Occupation {
    at: Instant,
    busy: Duration,
}

impl Occupation {
    /// Begins to look at the event loop that this is called in.
    pub(super) fn start() -> Self {
        Self {
            at: Instant::now(),
            busy: busy(),
        }
    }

    /// Returns for how much of the time since the last look the loop did not wait for anything, in percent.
    pub(super) fn percent(&mut self) -> u8 {
        let last = std::mem::replace(self, Self::start());
        let share = (self.busy - last.busy).div_duration_f64(self.at - last.at);
        (share * 100.0) as u8
    }
}

/// The runtime has one thread, number 0.
fn busy() -> Duration {
    Handle::current().metrics().worker_total_busy_duration(0)
}
