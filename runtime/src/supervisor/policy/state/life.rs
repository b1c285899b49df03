//! One state process as the policy sees it, and how far it has come.

use super::super::worker::{BOOT_TIMEOUT, HEALTHY_AFTER};
use std::time::Instant;

/// One process, from its fork until it is reaped.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) phase: Phase,
    /// When it counts as hung.
    pub(super) silent_at: Instant,
    /// When it had opened all that was needed at its start.
    pub(super) ready_at: Option<Instant>,
    /// Its end was asked for.
    pub(super) is_asked: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Phase {
    /// It works, or will.
    Running,
    /// Silent, and sent SIGABRT. Killed at the deadline.
    Hung { deadline: Instant },
    /// Asked to end. Killed at the deadline.
    Stopping { deadline: Instant },
    /// Sent SIGKILL; its end is all that can follow.
    Killed,
}

impl Life {
    /// Returns one that was just forked.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            phase: Phase::Running,
            silent_at: now + BOOT_TIMEOUT,
            ready_at: None,
            is_asked: false,
        }
    }

    /// Its state in the words of `wrun ps`, if they are not about the time before it was ready.
    pub(super) fn word(&self) -> Option<&'static str> {
        match self.phase {
            Phase::Hung { .. } | Phase::Killed => Some("hung"),
            Phase::Stopping { .. } => Some("stopping"),
            Phase::Running => self.ready_at.map(|_| "ready"),
        }
    }

    pub(super) fn was_healthy(&self, now: Instant) -> bool {
        let served = self.ready_at.map(|at| now.saturating_duration_since(at));
        served.is_some_and(|served| served >= HEALTHY_AFTER)
    }
}
