//! Clients that are waited for, for a piece of their request or until they take a piece of their answer, while a guest keeps
//! its place. When a place is wanted and there is none, the one that was waited for longest gives way.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::time::Instant;

/// How long a client is waited for before it may have to give way.
const PATIENCE: Duration = Duration::from_secs(1);

/// All clients of a worker that are waited for.
#[derive(Debug, Default)]
pub(super) struct Waits(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    /// Those waited for longest come first.
    clients: BTreeMap<Key, Arc<Client>>,
    next: u64,
}

/// Since when, and a number.
type Key = (Instant, u64);

#[derive(Debug)]
struct Client {
    /// How many places the requests of its connection have.
    places: Arc<AtomicU32>,
    gives_way: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Waits {
    /// A client has been waited for since then, and is until what is returned is dropped.
    pub(super) fn begin(self: &Arc<Self>, places: &Arc<AtomicU32>, since: Instant) -> Wait {
        let mut waiting = lock(&self.0);
        waiting.next += 1;
        let key = (since, waiting.next);
        let client = Arc::new(Client {
            places: places.clone(),
            gives_way: AtomicBool::new(false),
            waker: Mutex::new(None),
        });
        waiting.clients.insert(key, client.clone());
        Wait {
            waits: self.clone(),
            key,
            client,
        }
    }

    /// A place is wanted: has a client give way, if one was waited for long enough.
    pub(super) fn give_way(&self, now: Instant) -> bool {
        let mut waiting = lock(&self.0);
        while let Some(longest) = waiting.clients.first_entry() {
            let (since, _) = *longest.key();
            if now.saturating_duration_since(since) < PATIENCE {
                return false;
            }
            let client = longest.remove();
            // What is left of an answer whose guest is over takes nobody's place.
            if client.places.load(Ordering::Relaxed) > 0 {
                client.gives_way.store(true, Ordering::Relaxed);
                if let Some(waker) = lock(&client.waker).take() {
                    waker.wake();
                }
                return true;
            }
        }
        false
    }
}

/// One client that is waited for.
#[derive(Debug)]
pub(super) struct Wait {
    waits: Arc<Waits>,
    key: Key,
    client: Arc<Client>,
}

impl Wait {
    /// Returns since when.
    pub(super) fn since(&self) -> Instant {
        self.key.0
    }

    /// `Ready` when the client has to give way.
    pub(super) fn poll_gives_way(&self, cx: &Context<'_>) -> Poll<()> {
        if self.client.gives_way.load(Ordering::Relaxed) {
            return Poll::Ready(());
        }
        *lock(&self.client.waker) = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        lock(&self.waits.0).clients.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(waits: &Arc<Waits>, places: u32) -> Wait {
        waits.begin(&Arc::new(AtomicU32::new(places)), Instant::now())
    }

    fn gives_way(wait: &Wait) -> bool {
        wait.poll_gives_way(&Context::from_waker(Waker::noop()))
            .is_ready()
    }

    fn later() -> Instant {
        Instant::now() + 2 * PATIENCE
    }

    #[test]
    fn client_that_is_waited_for_longest_gives_way_first_and_not_at_once() {
        let waits = Arc::new(Waits::default());
        let (first, second) = (begin(&waits, 1), begin(&waits, 1));
        assert!(!waits.give_way(Instant::now()));
        assert!(waits.give_way(later()));
        assert!(gives_way(&first) && !gives_way(&second));
        assert!(waits.give_way(later()));
        assert!(gives_way(&second));
        assert!(!waits.give_way(later()));
    }

    #[test]
    fn client_whose_guest_is_over_has_no_place_to_give() {
        let waits = Arc::new(Waits::default());
        let (over, other) = (begin(&waits, 0), begin(&waits, 1));
        assert!(waits.give_way(later()));
        assert!(!gives_way(&over) && gives_way(&other));
    }

    #[test]
    fn client_that_is_not_waited_for_any_more_is_forgotten() {
        let waits = Arc::new(Waits::default());
        drop(begin(&waits, 1));
        assert!(!waits.give_way(later()));
        assert!(lock(&waits.0).clients.is_empty());
    }
}
