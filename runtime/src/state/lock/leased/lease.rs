//! A lock as it stands in the ledger, and until when that is certain.

use std::time::Duration;
use tokio::time::Instant;

/// What clocks may differ by, as a part of a lease: one hundredth, and some more.
const DRIFT: u32 = 100;
const DRIFT_MIN: Duration = Duration::from_millis(2);

/// A lock's lease.
#[derive(Clone, Debug)]
pub(super) struct Lease {
    ttl: Duration,
    renew: bool,
    /// What was asked for by name: renewing does not make it shorter.
    asked: Instant,
    /// It holds until then, whatever the server does.
    until: Instant,
}

impl Lease {
    /// Returns the lease of a request that was sent at `sent`.
    pub(super) fn new(ttl: Duration, renew: bool, sent: Instant) -> Self {
        Self {
            ttl,
            renew,
            asked: sent,
            until: certain(sent, ttl),
        }
    }

    pub(super) fn until(&self) -> Instant {
        self.until
    }

    /// Tells whether it is certain to hold.
    pub(super) fn holds(&self, now: Instant) -> bool {
        now < self.until
    }

    /// Returns when to look at it: to renew it, or because it is over.
    pub(super) fn look_at(&self, now: Instant) -> Instant {
        match self.renew {
            true => self.until.min(now + self.ttl / 3),
            false => self.until,
        }
    }

    /// Returns how long it is to last from `now` if it is renewed.
    pub(super) fn renewed(&self, now: Instant) -> Option<Duration> {
        let rest = self.asked.saturating_duration_since(now);
        self.renew.then(|| self.ttl.max(rest))
    }

    /// Returns how long it is to last from `now` if its holder asks for so much.
    pub(super) fn extended(&self, by: Duration, now: Instant) -> Duration {
        match self.renewed(now) {
            Some(renewed) => renewed.max(by),
            None => by,
        }
    }

    /// It was made to last for so long from `sent`.
    pub(super) fn prolong(&mut self, sent: Instant, by: Duration) {
        self.until = certain(sent, by);
    }

    /// Its holder asked for so much, and got it.
    pub(super) fn ask(&mut self, sent: Instant, by: Duration) {
        self.asked = sent + by;
    }
}

fn certain(sent: Instant, ttl: Duration) -> Instant {
    let drift = ttl / DRIFT + DRIFT_MIN;
    sent + ttl.saturating_sub(drift)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn it_is_certain_for_a_little_less_than_the_server_keeps_it() {
        let now = Instant::now();
        let lease = Lease::new(10 * SECOND, true, now);
        assert!(lease.holds(now + Duration::from_millis(9_890)));
        assert!(!lease.holds(now + Duration::from_millis(9_900)));
    }

    #[test]
    fn it_is_renewed_after_a_third_and_never_to_less_than_was_asked_for() {
        let now = Instant::now();
        let mut lease = Lease::new(3 * SECOND, true, now);
        assert_eq!(lease.look_at(now), now + SECOND);
        assert_eq!(lease.renewed(now + SECOND), Some(3 * SECOND));
        assert_eq!(lease.extended(60 * SECOND, now), 60 * SECOND);
        lease.prolong(now, 60 * SECOND);
        lease.ask(now, 60 * SECOND);
        assert_eq!(lease.renewed(now + SECOND), Some(59 * SECOND));
        assert_eq!(lease.extended(SECOND, now), 60 * SECOND);
    }

    #[test]
    fn one_that_does_not_renew_itself_is_as_long_as_was_asked_for_last() {
        let now = Instant::now();
        let lease = Lease::new(3 * SECOND, false, now);
        assert_eq!(lease.renewed(now), None);
        assert_eq!(lease.extended(SECOND, now), SECOND);
        assert_eq!(lease.look_at(now), lease.until());
    }
}
