//! Whether a client keeps moving a body: it may be slow, but not below a rate, and not while others want its place.
//!
//! Looks only while the client is waited for, and then at what moved since the last look. Does not know which way the
//! bytes go.

use super::waits::Wait;
use super::wire::Activity;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// The slowest that a client may send or take a body, in bytes per second.
const RATE_MIN: u64 = 1024;

/// The pace of one body, or of one connection's answers.
pub(super) struct Pace {
    activity: Arc<Activity>,
    stall: Duration,
    /// Runs from the first wait on: most bodies need none.
    timer: Option<Pin<Box<Sleep>>>,
    moved: u64,
    /// Set while the client is waited for.
    wait: Option<Wait>,
    slowness: Slowness,
}

impl Pace {
    /// Returns a pace that is looked at every `stall`.
    pub(super) fn new(stall: Duration, activity: Arc<Activity>) -> Self {
        Self {
            activity,
            stall,
            timer: None,
            moved: 0,
            wait: None,
            slowness: Slowness::default(),
        }
    }

    /// Counts bytes that the client sent or took.
    pub(super) fn moved(&mut self, len: usize) {
        self.moved += len as u64;
        if let Some(wait) = self.wait.take() {
            self.slowness.waited = wait.since().elapsed();
        }
        self.slowness.moved(len);
    }

    /// The client is waited for; `Ready` when it has been too slow.
    pub(super) fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = Instant::now();
        let since = now.checked_sub(self.slowness.waited).unwrap_or(now);
        let wait = self.wait.get_or_insert_with(|| self.activity.wait(since));
        if wait.poll_gives_way(cx).is_ready() {
            return Poll::Ready(());
        }
        let stall = self.stall;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep_until(now + stall)));
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

/// How long a client was waited for in vain: what it moves in small pieces does not make it quick.
#[derive(Debug, Default)]
struct Slowness {
    waited: Duration,
    moved: u64,
}

impl Slowness {
    fn moved(&mut self, len: usize) {
        self.moved += len as u64;
        if self.moved >= RATE_MIN * self.waited.as_secs().max(1) {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_pieces_do_not_make_a_client_quick() {
        let mut slowness = Slowness {
            waited: Duration::from_secs(3),
            moved: 0,
        };
        slowness.moved(1000);
        assert_eq!(slowness.waited, Duration::from_secs(3));
        slowness.moved(2072);
        assert_eq!((slowness.waited, slowness.moved), (Duration::ZERO, 0));
    }
}
