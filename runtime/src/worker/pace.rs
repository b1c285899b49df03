//! Whether a client keeps moving a body: it may be slow, but not below a rate.
//!
//! Looks only while the client is waited for, and then at what moved since the last look. Does not know which way the
//! bytes go.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// The slowest that a client may send or take a body, in bytes per second.
const RATE_MIN: u64 = 1024;

/// The pace of one body, or of one connection's answers.
pub(super) struct Pace {
    stall: Duration,
    /// Runs from the first wait on: most bodies need none.
    timer: Option<Pin<Box<Sleep>>>,
    moved: u64,
}

impl Pace {
    /// Returns a pace that is looked at every `stall`.
    pub(super) fn new(stall: Duration) -> Self {
        Self {
            stall,
            timer: None,
            moved: 0,
        }
    }

    /// Counts bytes that the client sent or took.
    pub(super) fn moved(&mut self, len: usize) {
        self.moved += len as u64;
    }

    /// The client is waited for; `Ready` when it has been too slow.
    pub(super) fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let stall = self.stall;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + stall)));
        while timer.as_mut().poll(cx).is_ready() {
            if self.moved < RATE_MIN * stall.as_secs().max(1) {
                return Poll::Ready(());
            }
            self.moved = 0;
            timer.as_mut().reset(Instant::now() + stall);
        }
        Poll::Pending
    }
}
