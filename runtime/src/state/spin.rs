//! Looking again for what is about to come, instead of sleeping until it has.
//!
//! To sleep and to be woken on another core costs tens of microseconds: more than most of what is waited for here. So in
//! a quick exchange one looks again for a short time, but not where somebody else wants the core.

use std::thread;
use std::time::{Duration, Instant};

/// How long to look again: longer than a peer that is awake takes to answer.
const TIME_MAX: Duration = Duration::from_micros(60);

/// A wait that was no longer than this is taken for a part of a quick exchange: the peer may have had to wake up.
const QUICK: Duration = Duration::from_micros(200);

/// To yield the core takes no longer than this, unless it went to somebody who has much to do.
const YIELD_MAX: Duration = Duration::from_micros(200);

/// How long to leave the core to others once somebody wanted it.
const PAUSE: Duration = Duration::from_millis(100);

/// Decides for one who waits again and again.
#[derive(Debug, Default)]
pub struct Spin {
    /// Since when it waits.
    since: Option<Instant>,
    /// The last wait was short.
    is_quick: bool,
    /// Others want the core, or did so until just before then.
    crowded_until: Option<Instant>,
}

impl Spin {
    /// It has not come yet. True says to look again now, after others had a chance to run; false, to sleep.
    pub fn again(&mut self) -> bool {
        let now = Instant::now();
        let since = *self.since.get_or_insert(now);
        if !self.is_quick || now - since > TIME_MAX {
            return false;
        }
        if self.crowded_until.is_some_and(|until| now < until) {
            return false;
        }
        thread::yield_now();
        let after = Instant::now();
        if after - now > YIELD_MAX {
            self.crowded_until = Some(after + PAUSE);
        }
        true
    }

    /// It has come.
    pub fn came(&mut self) {
        self.is_quick = self
            .since
            .take()
            .is_none_or(|since| since.elapsed() <= QUICK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_looks_again_only_in_a_quick_exchange_and_not_for_long() {
        let mut spin = Spin::default();
        assert!(!spin.again());
        spin.since = Some(Instant::now() - 2 * QUICK);
        spin.came();
        assert!(!spin.again());
        spin.since = Some(Instant::now());
        spin.came();
        spin.crowded_until = Some(Instant::now() + PAUSE);
        assert!(!spin.again());
        spin.crowded_until = None;
        spin.since = Some(Instant::now() - TIME_MAX);
        assert!(!spin.again());
    }
}
