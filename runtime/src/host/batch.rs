//! The deliveries that an instance is handling, and how long it may take over them.
//!
//! The state process has the last word on when a try is over; this keeps the worker's own limit in step with it.

use crate::state::queue::Delivery;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// The deliveries of one call.
pub(crate) struct Batch {
    queue: String,
    /// Each delivery's id, and when its try should be over.
    deliveries: Mutex<Vec<(String, Instant)>>,
}

/// Of the time that a try has, the last tenth is left for its outcome to arrive, and not more than this.
const MARGIN_MAX: Duration = Duration::from_secs(1);

impl Batch {
    /// Returns the batch of `deliveries` from `queue`, whose time is running.
    pub(crate) fn new(queue: &str, deliveries: &[Delivery]) -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH);
        let wall_ms = wall.map_or(0, |wall| u64::try_from(wall.as_millis()).unwrap_or(0));
        Self::at(queue, deliveries, wall_ms, Instant::now())
    }

    fn at(queue: &str, deliveries: &[Delivery], wall_ms: u64, now: Instant) -> Self {
        let deliveries = deliveries
            .iter()
            .map(|delivery| {
                let left = delivery.deadline_ms.saturating_sub(wall_ms);
                (delivery.id.clone(), over_at(now, left))
            })
            .collect();
        Self {
            queue: queue.to_owned(),
            deliveries: Mutex::new(deliveries),
        }
    }

    /// Returns the label of the queue that all deliveries are from.
    pub(super) fn queue(&self) -> &str {
        &self.queue
    }

    /// Tells whether the delivery is one of these.
    pub(super) fn has(&self, id: &str) -> bool {
        self.deliveries().iter().any(|(known, _)| known == id)
    }

    /// The delivery has `ms` from `now` on.
    pub(super) fn extend(&self, id: &str, ms: u32, now: Instant) {
        for (known, until) in self.deliveries().iter_mut() {
            if known == id {
                *until = over_at(now, ms.into());
            }
        }
    }

    /// Returns when there is nothing left to handle: the time of the last delivery is over.
    pub(crate) fn deadline(&self) -> Instant {
        let last = self.deliveries().iter().map(|(_, until)| *until).max();
        last.unwrap_or_else(Instant::now)
    }

    fn deliveries(&self) -> std::sync::MutexGuard<'_, Vec<(String, Instant)>> {
        self.deliveries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns when a try should be over that has `ms` from `now` on.
fn over_at(now: Instant, ms: u64) -> Instant {
    let left = Duration::from_millis(ms);
    now.checked_add(left - MARGIN_MAX.min(left / 10))
        .unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Returns a batch of two deliveries that have 30 s from `now` on.
    fn batch(now: Instant) -> Batch {
        let delivery = |id: &str| Delivery {
            id: id.to_owned(),
            receipt: 1,
            queue: "orders".to_owned(),
            key: None,
            attempt: 1,
            max_attempts: 5,
            sent_at_ms: 0,
            deadline_ms: 50_000,
            content_type: None,
            headers: Vec::new(),
            body: Vec::new(),
        };
        Batch::at("orders", &[delivery("a"), delivery("b")], 20_000, now)
    }

    #[test]
    fn batch_is_over_a_moment_before_the_time_of_its_deliveries() {
        let now = Instant::now();
        assert_eq!(batch(now).deadline(), now + 29 * SECOND);
    }

    #[test]
    fn extending_any_delivery_extends_the_batch() {
        let now = Instant::now();
        let batch = batch(now);
        batch.extend("b", 60_000, now + SECOND);
        assert_eq!(batch.deadline(), now + 60 * SECOND);
    }

    #[test]
    fn batch_is_over_early_only_if_all_its_deliveries_are() {
        let now = Instant::now();
        let batch = batch(now);
        batch.extend("a", 1000, now);
        assert_eq!(batch.deadline(), now + 29 * SECOND);
        batch.extend("b", 1000, now);
        assert_eq!(batch.deadline(), now + 9 * SECOND / 10);
    }

    #[test]
    fn deliveries_of_others_are_not_in_the_batch() {
        let batch = batch(Instant::now());
        assert!(batch.has("a"));
        assert!(!batch.has("c"));
    }
}
