//! How busy the event loop is, from heartbeat to heartbeat.
//!
//! By the clock and not by CPU time: a loop that waits for a core has something to do as well.

use crate::ipc::Vitals;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// How things stood at the last heartbeat.
pub(super) struct Occupation {
    at: Instant,
    busy: Duration,
    requests: u64,
}

impl Occupation {
    /// Begins to look at the event loop that this is called in.
    pub(super) fn start() -> Self {
        Self::at(0)
    }

    fn at(requests: u64) -> Self {
        Self {
            at: Instant::now(),
            // The runtime has one thread, number 0.
            busy: Handle::current().metrics().worker_total_busy_duration(0),
            requests,
        }
    }

    /// Adds what happened since the last heartbeat to what a worker counts about itself.
    pub(super) fn complete(&mut self, vitals: Vitals) -> Vitals {
        let last = std::mem::replace(self, Self::at(vitals.requests));
        let share = (self.busy - last.busy).div_duration_f64(self.at - last.at);
        Vitals {
            busy: (share * 100.0) as u8,
            recent: vitals.requests - last.requests,
            ..vitals
        }
    }
}
