//! Looking again for what is about to come, instead of sleeping until it has.
//!
//! To sleep and to be woken on another core costs tens of microseconds: more than most of what is waited for here. So in
//! a quick exchange one looks again for a short time, but not where somebody else wants the core.

use std::thread;
use std::time::{Duration, Instant};

/// How long to look again: longer than a peer that is awake takes to answer, or a quick disk to sync.
const TIME_MAX: Duration = Duration::from_micros(100);

/// A wait that was no longer than this is taken for a part of a quick exchange: the peer may have had to wake up.
const QUICK: Duration = Duration::from_micros(200);

/// Waits of a quick exchange that may be long in a row: a transaction waits for the disk once.
const LONG_WAITS: u8 = 2;

/// To yield the core takes no longer than this, unless it went to somebody who has much to do.
const YIELD_MAX: Duration = Duration::from_micros(700);

/// How long to leave the core to others once somebody wanted it.
const PAUSE: Duration = Duration::from_millis(100);

/// Decides for one who waits again and again.
#[derive(Debug, Default)]
pub struct Spin {
    /// Since when it waits.
    since: Option<Instant>,
    /// Long waits until this counts as no quick exchange.
    patience: u8,
    /// Others want the core, or did so until just before then.
    crowded_until: Option<Instant>,
}

impl Spin {
    /// It has not come yet. True says to look again now, after others had a chance to run; false, to sleep.
    pub fn again(&mut self) -> bool {
        let now = Instant::now();
        let since = *self.since.get_or_insert(now);
        if self.patience == 0 || now - since > TIME_MAX {
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
        let since = self.since.take();
        self.patience = match since.is_none_or(|since| since.elapsed() <= QUICK) {
            true => LONG_WAITS,
            false => self.patience.saturating_sub(1),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_looks_again_only_in_a_quick_exchange_and_not_for_long() {
        let long = || Some(Instant::now() - QUICK);
        let mut spin = Spin::default();
        assert!(!spin.again());
        spin.since = None;
        spin.came();
        for _ in 0..LONG_WAITS {
            spin.crowded_until = Some(Instant::now() + PAUSE);
            assert!(!spin.again());
            spin.crowded_until = None;
            spin.since = Some(Instant::now() - TIME_MAX);
            assert!(!spin.again());
            assert!(spin.patience > 0);
            spin.since = long();
            spin.came();
        }
        assert!(!spin.again());
        assert_eq!(spin.patience, 0);
    }
}
