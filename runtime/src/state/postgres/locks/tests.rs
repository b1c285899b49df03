//! What is PostgreSQL's own about locks, on a real one: the rest is `conformance`'s.

use super::*;
use crate::state::lock::leased::LeasedLocks;
use crate::state::lock::{GuardId, LockError, Locks as _, SessionId};
use std::process::Child;
use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tokio::time::timeout;
use wrun_tests::postgres::Postgres;

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
    ledger: Rc<PostgresLocks>,
    lost: mpsc::UnboundedReceiver<GuardId>,
}

impl Host {
    async fn new(postgres: &Postgres, identity: &str) -> Self {
        let (sender, lost) = mpsc::unbounded_channel();
        let on_lost = Box::new(move |guard| sender.send(guard).unwrap_or_default());
        let address = Address::parse(&postgres.url("locks")).unwrap();
        let ledger = PostgresLocks::new("default", address, Identity::new(identity).unwrap());
        let ledger = Rc::new(ledger);
        let locks = LeasedLocks::new("default", ledger.clone(), on_lost);
        locks.prepare(false).await.unwrap();
        Self {
            locks,
            ledger,
            lost,
        }
    }

    /// Waits until it has another connection than the first.
    async fn reconnects(&self) {
        while self.ledger.presence().number().is_none_or(|it| it < 2) {
            tokio::task::yield_now().await;
        }
    }

    async fn believes_in(&self, guard: GuardId) {
        while self.locks.pin(&[guard]).is_err() {
            tokio::task::yield_now().await;
        }
    }
}

/// Tests something on an empty server, if PostgreSQL is installed.
fn test(what: impl AsyncFnOnce(&mut Postgres)) {
    let Some(mut postgres) = Postgres::for_test() else {
        return;
    };
    postgres.create("locks");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, async {
        let tested = timeout(DEADLINE, what(&mut postgres));
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
    test(async |postgres| {
        let (one, other) = (
            Host::new(postgres, "one").await,
            Host::new(postgres, "other").await,
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
fn server_that_waits_is_served_though_another_one_wants_the_key_again_and_again() {
    test(async |postgres| {
        let (one, other) = (
            Host::new(postgres, "one").await,
            Host::new(postgres, "other").await,
        );
        let guard = |number| GuardId {
            session: SessionId(9),
            number,
        };
        one.locks.acquire(guard(0), want(30_000)).await.unwrap();
        let waiting = other.locks.acquire(B, want(30_000));
        other.locks.contends().await;
        let busy = async {
            for number in 0.. {
                // Another instance: one does not wait for itself.
                let owner = number + 1;
                let request = Acquire {
                    owner,
                    ..want(30_000)
                };
                let next = one.locks.acquire(guard(owner), request);
                one.locks.release(guard(number)).await.unwrap();
                next.await.unwrap();
            }
        };
        tokio::select! {
            () = busy => {}
            token = waiting => assert!(token.is_ok()),
        }
    });
}

#[test]
fn token_is_higher_also_when_its_row_was_tidied_away() {
    test(async |postgres| {
        let host = Host::new(postgres, "one").await;
        let first = host.locks.acquire(A, want(30_000)).await.unwrap();
        host.locks.release(A).await.unwrap();
        postgres.query("locks", "DELETE FROM wrun.locks");
        let second = host.locks.acquire(A, want(30_000)).await.unwrap();
        host.locks.release(A).await.unwrap();
        assert!(second > first);
        // And when the clock has not come as far.
        postgres.query("locks", "UPDATE wrun.locks SET token = 5000000000000000");
        let third = host.locks.acquire(A, want(30_000)).await;
        assert_eq!(third, Ok(5_000_000_000_000_001));
    });
}

#[test]
fn lock_that_is_gone_from_the_table_is_lost_when_it_is_to_be_renewed() {
    test(async |postgres| {
        let mut host = Host::new(postgres, "one").await;
        host.locks.acquire(A, want(600)).await.unwrap();
        postgres.query("locks", "DELETE FROM wrun.locks");
        host.locks.heartbeat(A.session);
        assert_eq!(host.lost.recv().await, Some(A));
        assert_eq!(host.locks.pin(&[A]).err(), Some(LockError::Lost));
        assert_eq!(host.locks.release(A).await, Err(LockError::Lost));
    });
}

#[test]
fn lease_is_renewed_for_as_long_as_its_session_lives() {
    test(async |postgres| {
        let (one, other) = (
            Host::new(postgres, "one").await,
            Host::new(postgres, "other").await,
        );
        one.locks.acquire(A, want(1_000)).await.unwrap();
        let waiting = other.locks.acquire(B, want(30_000));
        let end = Instant::now() + Duration::from_millis(2_500);
        while Instant::now() < end {
            one.locks.heartbeat(A.session);
            sleep(Duration::from_millis(20)).await;
        }
        assert!(one.locks.pin(&[A]).is_ok());
        one.locks.release(A).await.unwrap();
        waiting.await.unwrap();
    });
}

#[test]
fn lock_outlives_a_crash_of_the_server_and_is_believed_in_once_it_was_asked() {
    test(async |postgres| {
        let (one, other) = (
            Host::new(postgres, "one").await,
            Host::new(postgres, "other").await,
        );
        let first = one.locks.acquire(A, want(60_000)).await.unwrap();
        postgres.kill();
        while one.locks.why_away().is_none() {
            tokio::task::yield_now().await;
        }
        assert_eq!(one.locks.pin(&[A]).err(), Some(LockError::Lost));
        let refused = one.locks.acquire(B, want(30_000)).await;
        assert!(
            matches!(refused, Err(LockError::Unavailable(_))),
            "{refused:?}"
        );
        postgres.start_again();
        one.reconnects().await;
        other.reconnects().await;
        one.believes_in(A).await;
        let refused = other.locks.acquire(A, now(30_000)).await;
        assert_eq!(refused, Err(LockError::Timeout));
        one.locks.release(A).await.unwrap();
        assert!(other.locks.acquire(A, want(30_000)).await.unwrap() > first);
    });
}

#[test]
fn lock_is_not_believed_in_while_its_connection_is_cut_and_is_again_when_it_was_asked_for() {
    test(async |postgres| {
        let host = Host::new(postgres, "one").await;
        host.locks.acquire(A, want(30_000)).await.unwrap();
        let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'wrun'";
        postgres.query("locks", cut);
        while host.locks.why_away().is_none() {
            tokio::task::yield_now().await;
        }
        assert_eq!(host.locks.pin(&[A]).err(), Some(LockError::Lost));
        host.believes_in(A).await;
        host.locks.release(A).await.unwrap();
    });
}

#[test]
fn locks_of_a_state_process_before_are_released_and_those_of_now_are_not() {
    test(async |postgres| {
        let gone = Host::new(postgres, "one").await;
        gone.locks.acquire(A, want(30_000)).await.unwrap();
        let (now_here, other) = (
            Host::new(postgres, "one").await,
            Host::new(postgres, "other").await,
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

/// Has somebody else be alone with the key for so many seconds, who may also have another key of the same hash.
fn be_alone(postgres: &Postgres, seconds: u32) -> Child {
    let mut psql = postgres.client("psql");
    psql.env("PGDATABASE", "locks")
        .stdout(std::process::Stdio::null());
    let sql = format!(
        "SELECT pg_advisory_lock(hashtextextended('default/k', 2003989870)), pg_sleep({seconds})"
    );
    psql.args(["-X", "-c", &sql]).spawn().unwrap()
}

#[test]
fn key_of_the_same_hash_costs_waiting_and_nothing_else() {
    test(async |postgres| {
        let host = Host::new(postgres, "one").await;
        let mut alone = be_alone(postgres, 3);
        let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        while postgres.query("locks", sleeping) != "1" {
            tokio::task::yield_now().await;
        }
        assert_eq!(
            host.locks.acquire(A, now(30_000)).await,
            Err(LockError::Timeout)
        );
        assert!(host.locks.acquire(A, want(30_000)).await.is_ok());
        alone.wait().unwrap();
    });
}
