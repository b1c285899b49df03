//! When a worker that ended is started again: backoff for its slot, and a brake for all of them when they keep dying.
//!
//! Plain arithmetic on times that callers pass in.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The delay before the second restart in a row; the first is at once, and each one after doubles it.
const FIRST_DELAY: Duration = Duration::from_millis(100);

/// The longest delay.
const LAST_DELAY: Duration = Duration::from_secs(10);

/// How far delays are spread, so that slots that failed together do not come back together.
const SPREAD: f64 = 0.2;

/// The time over which abnormal ends are counted.
const STORM_WINDOW: Duration = Duration::from_secs(60);

/// How far restarts are apart, over all slots, while the storm lasts.
const STORM_PAUSE: Duration = Duration::from_secs(5);

/// How eagerly one slot of one generation is filled again.
#[derive(Clone, Debug, Default)]
pub(super) struct Backoff {
    /// Abnormal ends in a row.
    failures: u32,
    not_before: Option<Instant>,
}

impl Backoff {
    /// Counts an abnormal end. `healthy` says that the worker had served long enough to start afresh; `jitter` is
    /// between -1 and 1.
    pub(super) fn failed(&mut self, healthy: bool, jitter: f64, now: Instant) {
        self.failures = if healthy {
            1
        } else {
            self.failures.saturating_add(1)
        };
        let delay = match self.failures {
            1 => Duration::ZERO,
            n => FIRST_DELAY
                .saturating_mul(1 << (n - 2).min(16))
                .min(LAST_DELAY),
        };
        self.wait(delay, jitter, now);
    }

    /// Counts an end that the next worker will most likely share.
    pub(super) fn gave_up(&mut self, jitter: f64, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        self.wait(LAST_DELAY, jitter, now);
    }

    /// Returns when the next worker may start, `None` for any time.
    pub(super) fn not_before(&self) -> Option<Instant> {
        self.not_before
    }

    /// Tells whether a worker may start now.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|at| now >= at)
    }

    /// Tells whether the next start is one after an abnormal end.
    pub(super) fn is_restart(&self) -> bool {
        self.failures > 0
    }

    fn wait(&mut self, delay: Duration, jitter: f64, now: Instant) {
        self.not_before = Some(now + delay.mul_f64(1.0 + SPREAD * jitter));
    }
}

/// The abnormal ends of the last minute. Too many, and the server is degraded: restarts become rare, because a crash
/// loop at full speed takes the processor from the workers that still serve, and fills disks with logs.
#[derive(Debug, Default)]
pub(super) struct Storm {
    ends: VecDeque<Instant>,
    degraded: bool,
    last_restart: Option<Instant>,
}

impl Storm {
    /// Counts an abnormal end.
    pub(super) fn record(&mut self, now: Instant) {
        self.ends.push_back(now);
    }

    /// Judges the last minute and returns the new state if it changed. It ends only when a whole minute was quiet.
    pub(super) fn judge(&mut self, workers: usize, now: Instant) -> Option<bool> {
        while self
            .ends
            .front()
            .is_some_and(|&end| now >= end + STORM_WINDOW)
        {
            self.ends.pop_front();
        }
        let degraded = match self.degraded {
            false => self.ends.len() > 10.max(5 * workers),
            true => !self.ends.is_empty(),
        };
        (self.degraded != degraded).then(|| {
            self.degraded = degraded;
            degraded
        })
    }

    /// Tells whether the storm lasts.
    pub(super) fn is_degraded(&self) -> bool {
        self.degraded
    }

    /// Returns when the storm will be over if nothing else happens.
    pub(super) fn clears_at(&self) -> Option<Instant> {
        let last = self.ends.back().filter(|_| self.degraded)?;
        Some(*last + STORM_WINDOW)
    }

    /// Notes that a worker was started again.
    pub(super) fn restarted(&mut self, now: Instant) {
        self.last_restart = Some(now);
    }

    /// Returns when the next worker may be started again, `None` for any time.
    pub(super) fn not_before(&self) -> Option<Instant> {
        self.last_restart
            .filter(|_| self.degraded)
            .map(|last| last + STORM_PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delays(backoff: &mut Backoff, count: usize, jitter: f64) -> Vec<u128> {
        let now = Instant::now();
        let mut delay = || {
            backoff.failed(false, jitter, now);
            backoff
                .not_before()
                .unwrap()
                .duration_since(now)
                .as_millis()
        };
        (0..count).map(|_| delay()).collect()
    }

    #[test]
    fn delay_starts_at_nothing_doubles_and_ends_at_ten_seconds() {
        let seen = delays(&mut Backoff::default(), 11, 0.0);
        assert_eq!(
            seen,
            [
                0, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000, 10_000
            ]
        );
    }

    #[test]
    fn delay_is_spread_by_a_fifth_to_either_side() {
        assert_eq!(delays(&mut Backoff::default(), 2, 1.0)[1], 120);
        assert_eq!(delays(&mut Backoff::default(), 2, -1.0)[1], 80);
    }

    #[test]
    fn delay_starts_over_after_a_healthy_worker() {
        let mut backoff = Backoff::default();
        delays(&mut backoff, 7, 0.0);
        let now = Instant::now();
        backoff.failed(true, 0.0, now);
        assert_eq!(backoff.not_before(), Some(now));
    }

    #[test]
    fn storm_begins_past_ten_ends_and_is_over_after_a_quiet_minute() {
        let start = Instant::now();
        let mut storm = Storm::default();
        for _ in 0..10 {
            storm.record(start);
        }
        assert_eq!(storm.judge(2, start), None);
        storm.record(start + Duration::from_secs(1));
        assert_eq!(storm.judge(2, start + Duration::from_secs(1)), Some(true));
        assert_eq!(
            storm.judge(2, start + Duration::from_secs(60)),
            None,
            "one end is still in the window"
        );
        assert_eq!(storm.clears_at(), Some(start + Duration::from_secs(61)));
        assert_eq!(storm.judge(2, start + Duration::from_secs(61)), Some(false));
    }

    #[test]
    fn many_workers_may_end_more_often() {
        let start = Instant::now();
        let mut storm = Storm::default();
        for _ in 0..40 {
            storm.record(start);
        }
        assert_eq!(storm.judge(8, start), None);
        assert_eq!(storm.judge(7, start), Some(true));
    }

    #[test]
    fn restarts_are_five_seconds_apart_in_a_storm_only() {
        let start = Instant::now();
        let mut storm = Storm::default();
        storm.restarted(start);
        assert_eq!(storm.not_before(), None);
        for _ in 0..11 {
            storm.record(start);
        }
        storm.judge(1, start);
        assert_eq!(storm.not_before(), Some(start + Duration::from_secs(5)));
    }
}
