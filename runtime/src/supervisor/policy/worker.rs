//! One worker as the policy sees it: where it stands, and what was heard of it.

use crate::ipc::HEARTBEAT_MS;
use std::time::{Duration, Instant};

/// How long a worker may take until it serves.
pub(super) const BOOT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a worker may be silent: twenty heartbeats.
pub(super) const SILENCE_MAX: Duration = Duration::from_millis(20 * HEARTBEAT_MS);

/// What SIGABRT has to write its core file, before SIGKILL.
pub(super) const ABORT_GRACE: Duration = Duration::from_secs(1);

/// What a worker has to notice its own drain deadline, before SIGKILL.
pub(super) const DRAIN_MARGIN: Duration = Duration::from_secs(1);

/// After this long in service, the next abnormal end counts as the first.
pub(super) const HEALTHY_AFTER: Duration = Duration::from_secs(30);

/// How long a worker serves at least before its memory is held against it: a limit below what a fresh one needs must
/// not turn the server into a fork loop.
const MEMORY_GRACE: Duration = Duration::from_secs(3);

/// Which worker: counted up, never used twice.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(in super::super) struct WorkerId(pub(super) u64);

/// Where a worker belongs: a replacement takes the same place, the next generation another one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in super::super) struct Place {
    /// From 0 up to the number of workers.
    pub(in super::super) slot: usize,
    pub(in super::super) generation: u64,
}

impl Place {
    pub(super) fn new(slot: usize, generation: u64) -> Self {
        Self { slot, generation }
    }
}

/// How far a worker has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Phase {
    /// Forked. Killed if it does not serve at the deadline.
    Starting { deadline: Instant },
    /// It serves.
    Ready,
    /// Asked to end. Killed at the deadline.
    Draining { deadline: Instant },
    /// Silent, and sent SIGABRT. Killed at the deadline.
    Hung { deadline: Instant },
    /// Sent SIGKILL; its end is all that can follow.
    Killed,
}

/// A worker that has not been reaped.
#[derive(Clone, Debug)]
pub(in super::super) struct Worker {
    pub(super) place: Place,
    pub(super) phase: Phase,
    /// When it began to serve.
    pub(super) ready_at: Option<Instant>,
    /// When it last gave a sign of life; counts from when it is ready.
    pub(super) heard: Instant,
    /// Requests that it has answered, by its own account.
    pub(super) requests: u64,
    /// Its resident memory in bytes.
    pub(super) resident: u64,
    /// Replaced when it has answered this many requests, 0 for never.
    pub(super) requests_max: u64,
    /// Its end was asked for, or has been counted already.
    pub(super) written_off: bool,
}

impl Worker {
    /// Returns a worker that was just forked.
    pub(super) fn new(place: Place, deadline: Instant, requests_max: u64, now: Instant) -> Self {
        Self {
            place,
            phase: Phase::Starting { deadline },
            ready_at: None,
            heard: now,
            requests: 0,
            resident: 0,
            requests_max,
            written_off: false,
        }
    }

    /// Returns where it belongs.
    pub(in super::super) fn place(&self) -> Place {
        self.place
    }

    /// Tells whether its end would be no surprise.
    pub(in super::super) fn is_written_off(&self) -> bool {
        self.written_off
    }

    /// Its state in the words of `wrun ps`.
    pub(in super::super) fn state(&self) -> &'static str {
        match self.phase {
            Phase::Starting { .. } => "starting",
            Phase::Ready => "ready",
            Phase::Draining { .. } => "draining",
            // One that is still to be seen after SIGKILL hangs in the kernel.
            Phase::Hung { .. } | Phase::Killed => "hung",
        }
    }

    /// Tells whether it serves, or will.
    pub(super) fn fills_slot(&self) -> bool {
        matches!(self.phase, Phase::Starting { .. } | Phase::Ready)
    }

    pub(in super::super) fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    pub(super) fn is_killed(&self) -> bool {
        self.phase == Phase::Killed
    }

    /// Returns when it counts as hung; a worker that never served has no event loop that could be.
    pub(super) fn silent_at(&self) -> Option<Instant> {
        self.ready_at.map(|_| self.heard + SILENCE_MAX)
    }

    /// Tells whether it has served enough, or has grown past `memory_max` (0 for any size).
    pub(super) fn is_spent(&self, memory_max: u64, now: Instant) -> bool {
        let by_requests = self.requests_max > 0 && self.requests >= self.requests_max;
        let by_memory = memory_max > 0 && self.resident > memory_max;
        self.is_ready() && (by_requests || by_memory && self.served_for(now) >= MEMORY_GRACE)
    }

    /// Tells whether it served long enough to show that the component can.
    pub(super) fn was_healthy(&self, now: Instant) -> bool {
        self.served_for(now) >= HEALTHY_AFTER
    }

    fn served_for(&self, now: Instant) -> Duration {
        self.ready_at
            .map_or(Duration::ZERO, |ready| now.saturating_duration_since(ready))
    }
}
