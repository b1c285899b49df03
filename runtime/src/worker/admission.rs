//! How many requests a worker handles at a time: a fixed number run, a few more wait for a moment, the rest are turned
//! away. An overloaded server that says so is better than one that answers everybody too late.

use super::waits::Waits;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};

/// How long a request waits for its turn.
const WAIT: Duration = Duration::from_millis(100);

/// How long one is kept that does not even wait for it: clients that ask again at once would otherwise have the worker do
/// nothing but turn them away.
const PAUSE: Duration = Duration::from_millis(20);

/// The door to the guests.
pub(super) struct Admission {
    places: Arc<Semaphore>,
    max: usize,
    waiting: AtomicUsize,
    waits: Arc<Waits>,
}

impl Admission {
    /// Returns a door that lets `max` requests in.
    pub(super) fn new(max: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(max)),
            max,
            waiting: AtomicUsize::new(0),
            waits: Arc::default(),
        }
    }

    /// Returns the clients that are waited for while they have a place.
    pub(super) fn waits(&self) -> Arc<Waits> {
        self.waits.clone()
    }

    /// Waits for a place; `None` when there is none in time. The place is held until the permit is dropped.
    pub(super) async fn enter(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = self.places.clone().try_acquire_owned() {
            return Some(permit);
        }
        let Some(waiting) = Waiting::begin(&self.waiting, self.max * 2) else {
            sleep(PAUSE).await;
            return None;
        };
        self.waits.give_way(Instant::now());
        let permit = timeout(WAIT, self.places.clone().acquire_owned()).await;
        drop(waiting);
        permit.ok()?.ok()
    }

    /// Returns how many requests are inside.
    pub(super) fn in_flight(&self) -> usize {
        self.max - self.places.available_permits()
    }
}

/// A request that waits; counted until dropped, so also when its client goes away.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(count: &'a AtomicUsize, max: usize) -> Option<Self> {
        let before = count.fetch_add(1, Ordering::Relaxed);
        let waiting = Self(count);
        (before < max).then_some(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn request_beyond_the_last_place_is_turned_away_after_a_moment() {
        let admission = Admission::new(1);
        let first = admission.enter().await.unwrap();
        assert!(admission.enter().await.is_none());
        assert_eq!(admission.in_flight(), 1);
        drop(first);
        assert!(admission.enter().await.is_some());
    }

    #[tokio::test]
    async fn place_that_becomes_free_goes_to_the_one_that_waits() {
        let admission = Admission::new(1);
        let first = admission.enter().await;
        let (second, ()) = tokio::join!(admission.enter(), async { drop(first) });
        assert!(second.is_some());
    }
}
