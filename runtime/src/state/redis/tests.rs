//! What is Redis' own, on a real one: the rest is `conformance`'s.

mod several;
mod tokens;

use super::Nodes;
use crate::state::lock::leased::LeasedLocks;
use crate::state::lock::leased::ledger::{Identity, Ledger as _};
use crate::state::lock::{Acquire, GuardId, LockError, Locks as _, SessionId};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tokio::time::{Instant, timeout};
use wrun_tests::redis::Redis;

/// Nothing in these tests takes longer.
const DEADLINE: Duration = Duration::from_secs(60);

const A: GuardId = GuardId {
    session: SessionId(1),
    number: 1,
};
const B: GuardId = GuardId {
    session: SessionId(2),
    number: 1,
};

/// Locks of one server of wrun's, and the guards that they lost.
struct Host {
    locks: LeasedLocks,
    nodes: Rc<Nodes>,
    lost: mpsc::UnboundedReceiver<GuardId>,
}

impl Host {
    async fn new(redis: &Redis, identity: &str) -> Self {
        Self::of(&[&redis.url(0)], identity).await
    }

    /// Returns one whose locks are in several servers.
    async fn of(urls: &[&str], identity: &str) -> Self {
        let (sender, lost) = mpsc::unbounded_channel();
        let on_lost = Box::new(move |guard| sender.send(guard).unwrap_or_default());
        let addresses = super::parse(urls).unwrap();
        let nodes = Nodes::new("default", addresses, Identity::new(identity).unwrap());
        let nodes = Rc::new(nodes);
        let locks = LeasedLocks::new("default", nodes.clone(), on_lost);
        locks.prepare(false).await.unwrap();
        Self { locks, nodes, lost }
    }
}

/// Tests something on an empty server, if Redis is installed.
fn test(what: impl AsyncFnOnce(&mut Redis)) {
    let Some(mut redis) = Redis::for_test() else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, async {
        let tested = timeout(DEADLINE, what(&mut redis));
        tested.await.expect("the test hangs");
    });
}

fn want(ttl_ms: u32) -> Acquire {
    let request = Acquire::new("default".to_owned(), vec!["k".to_owned()], 0);
    Acquire { ttl_ms, ..request }
}

fn now(ttl_ms: u32) -> Acquire {
    Acquire {
        wait_ms: 0,
        ..want(ttl_ms)
    }
}

#[test]
fn servers_exclude_each_other_and_one_goes_on_when_the_other_releases() {
    test(async |redis| {
        let (one, other) = (
            Host::new(redis, "one").await,
            Host::new(redis, "other").await,
        );
        let first = one.locks.acquire(A, want(30_000)).await.unwrap();
        let refused = other.locks.acquire(A, now(30_000)).await;
        assert_eq!(refused, Err(LockError::Timeout));
        let waiting = other.locks.acquire(B, want(30_000));
        one.locks.release(A).await.unwrap();
        assert!(waiting.await.unwrap() > first);
    });
}

#[test]
fn token_is_higher_also_when_the_server_has_forgotten_the_last_one() {
    test(async |redis| {
        let host = Host::new(redis, "one").await;
        let first = host.locks.acquire(A, want(30_000)).await.unwrap();
        host.locks.release(A).await.unwrap();
        redis.call(&["FLUSHALL"]);
        assert!(host.locks.acquire(A, want(30_000)).await.unwrap() > first);
    });
}

#[test]
fn lock_that_the_server_has_forgotten_is_lost_when_it_is_to_be_renewed() {
    test(async |redis| {
        let mut host = Host::new(redis, "one").await;
        host.locks.acquire(A, want(600)).await.unwrap();
        redis.call(&["FLUSHALL"]);
        host.locks.heartbeat(A.session);
        assert_eq!(host.lost.recv().await, Some(A));
        assert_eq!(host.locks.pin(&[A]).err(), Some(LockError::Lost));
        assert_eq!(host.locks.release(A).await, Err(LockError::Lost));
    });
}

#[test]
fn lease_is_renewed_for_as_long_as_its_session_lives() {
    test(async |redis| {
        let (one, other) = (
            Host::new(redis, "one").await,
            Host::new(redis, "other").await,
        );
        one.locks.acquire(A, want(1_000)).await.unwrap();
        let waiting = other.locks.acquire(B, want(30_000));
        let beats = async {
            let end = Instant::now() + Duration::from_millis(2_500);
            while Instant::now() < end {
                one.locks.heartbeat(A.session);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        beats.await;
        assert!(one.locks.pin(&[A]).is_ok());
        one.locks.release(A).await.unwrap();
        waiting.await.unwrap();
    });
}

#[test]
fn server_that_was_restarted_is_asked_before_a_guard_is_believed_in() {
    test(async |redis| {
        let mut host = Host::new(redis, "one").await;
        host.locks.acquire(A, want(30_000)).await.unwrap();
        assert!(host.locks.pin(&[A]).is_ok());
        redis.kill();
        while host.locks.why_away().is_none() {
            tokio::task::yield_now().await;
        }
        assert_eq!(host.locks.pin(&[A]).err(), Some(LockError::Lost));
        let refused = host.locks.acquire(B, want(30_000)).await;
        assert!(
            matches!(refused, Err(LockError::Unavailable(_))),
            "{refused:?}"
        );
        redis.start_again();
        // Long before its lease is over.
        assert_eq!(host.lost.recv().await, Some(A));
        host.locks.acquire(B, want(30_000)).await.unwrap();
    });
}

#[test]
fn guard_is_believed_in_again_when_the_server_still_has_it() {
    test(async |redis| {
        let host = Host::new(redis, "one").await;
        host.locks.acquire(A, want(30_000)).await.unwrap();
        redis.call(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        let known = async {
            while host.nodes.connections().0 != [Some(2)] || host.locks.pin(&[A]).is_err() {
                tokio::task::yield_now().await;
            }
        };
        known.await;
        host.locks.release(A).await.unwrap();
    });
}

#[test]
fn locks_of_a_state_process_before_are_released_and_those_of_now_are_not() {
    test(async |redis| {
        let gone = Host::new(redis, "one").await;
        gone.locks.acquire(A, want(30_000)).await.unwrap();
        let (now_here, other) = (
            Host::new(redis, "one").await,
            Host::new(redis, "other").await,
        );
        let keep = Acquire {
            keys: vec!["own".to_owned()],
            ..want(30_000)
        };
        now_here.locks.acquire(A, keep.clone()).await.unwrap();
        let waiting = other.locks.acquire(A, want(30_000));
        now_here.locks.sweep().await;
        waiting.await.unwrap();
        let wait_ms = 0;
        let refused = other.locks.acquire(B, Acquire { wait_ms, ..keep }).await;
        assert_eq!(refused, Err(LockError::Timeout));
    });
}

#[test]
fn server_whose_scripts_were_flushed_gets_them_again() {
    test(async |redis| {
        let host = Host::new(redis, "one").await;
        redis.call(&["SCRIPT", "FLUSH"]);
        host.locks.acquire(A, want(30_000)).await.unwrap();
        redis.call(&["SCRIPT", "FLUSH"]);
        host.locks.release(A).await.unwrap();
    });
}

#[test]
fn wait_in_another_server_ends_when_its_owner_gives_it_up() {
    test(async |redis| {
        let (one, other) = (
            Host::new(redis, "one").await,
            Host::new(redis, "other").await,
        );
        one.locks.acquire(A, want(30_000)).await.unwrap();
        let waiting = other.locks.acquire(A, want(30_000));
        let next = other.locks.acquire(B, want(30_000));
        // So that it contends.
        other.locks.contends().await;
        other.locks.end_session(A.session);
        assert_eq!(waiting.await, Err(LockError::Lost));
        one.locks.drop_guard(A);
        next.await.unwrap();
    });
}
