//! Cases of locks: who holds what, who waits, and what ends either.

use super::{Case, HasLocks, cases};
use crate::state::lock::{Acquire, GuardId, LockError, Locks, SessionId};

pub(super) fn cases<B: HasLocks>() -> Vec<Case<B>> {
    cases![
        lock_excludes_others,
        released_lock_goes_to_the_one_who_waits,
        those_who_wait_are_served_in_their_order,
        wait_ends_with_a_timeout,
        keys_are_taken_together_or_not_at_all,
        those_who_want_the_same_keys_do_not_block_each_other,
        spaces_are_apart,
        token_of_a_key_increases_with_every_grant,
        token_of_a_key_increases_over_a_restart,
        end_of_a_session_frees_what_it_held,
        end_of_a_session_gives_up_what_it_waited_for,
        dropped_guard_is_free,
        dropped_wait_is_given_up,
        lease_that_nobody_prolongs_runs_out,
        extended_lease_holds_longer_than_it_would_have,
        guard_is_released_only_once,
        instance_does_not_wait_for_itself,
        circle_of_waits_is_refused,
        pinned_guard_keeps_its_lock_until_it_is_unpinned,
        guard_that_is_not_held_cannot_be_pinned,
        list_tells_what_is_held_and_who_waits,
        request_that_makes_no_sense_is_invalid,
    ]
}

/// Guards of three sessions.
const A: GuardId = guard(1, 1);
const B1: GuardId = guard(2, 1);
const C: GuardId = guard(3, 1);

async fn lock_excludes_others<B: HasLocks>(on: B) {
    let locks = on.locks();
    locks.acquire(A, want(A, &["k"])).await.unwrap();
    assert_eq!(try_now(locks, B1, &["k"]).await, Err(LockError::Timeout));
    locks.release(A).await.unwrap();
    try_now(locks, B1, &["k"]).await.unwrap();
}

async fn released_lock_goes_to_the_one_who_waits<B: HasLocks>(on: B) {
    let locks = on.locks();
    locks.acquire(A, want(A, &["k"])).await.unwrap();
    let waiting = locks.acquire(B1, want(B1, &["k"]));
    locks.release(A).await.unwrap();
    waiting.await.unwrap();
    assert_eq!(try_now(locks, A, &["k"]).await, Err(LockError::Timeout));
}

async fn those_who_wait_are_served_in_their_order<B: HasLocks>(on: B) {
    let locks = on.locks();
    let guards: Vec<_> = (1..=10).map(|session| guard(session, 1)).collect();
    locks
        .acquire(guards[0], want(guards[0], &["k"]))
        .await
        .unwrap();
    let waits = guards[1..]
        .iter()
        .map(|&guard| locks.acquire(guard, want(guard, &["k"])));
    let waits: Vec<_> = waits.collect();
    for (&holder, next) in guards.iter().zip(waits) {
        locks.release(holder).await.unwrap();
        next.await.unwrap();
    }
}

async fn wait_ends_with_a_timeout<B: HasLocks>(on: B) {
    let locks = on.locks();
    locks.acquire(A, want(A, &["k"])).await.unwrap();
    let request = Acquire {
        wait_ms: 20,
        ..want(B1, &["k"])
    };
    assert_eq!(locks.acquire(B1, request).await, Err(LockError::Timeout));
    locks.release(A).await.unwrap();
    try_now(locks, C, &["k"]).await.unwrap();
}

async fn keys_are_taken_together_or_not_at_all<B: HasLocks>(on: B) {
    let locks = on.locks();
    locks.acquire(A, want(A, &["b"])).await.unwrap();
    let both = try_now(locks, B1, &["a", "b", "c"]).await;
    assert_eq!(both, Err(LockError::Timeout));
    try_now(locks, C, &["a", "c"]).await.unwrap();
}

async fn those_who_want_the_same_keys_do_not_block_each_other<B: HasLocks>(on: B) {
    let locks = on.locks();
    let orders = [["a", "b", "c"], ["c", "b", "a"], ["b", "c", "a"]];
    let wanted = |turn: u64| {
        let guard = guard(turn + 1, 1);
        let request = want(guard, &orders[turn as usize % 3]);
        (guard, locks.acquire(guard, request))
    };
    let wanted: Vec<_> = (0..30).map(wanted).collect();
    for (guard, acquired) in wanted {
        acquired.await.unwrap();
        locks.release(guard).await.unwrap();
    }
}

async fn spaces_are_apart<B: HasLocks>(on: B) {
    let locks = on.locks();
    locks.acquire(A, want(A, &["k"])).await.unwrap();
    let elsewhere = Acquire {
        space: "other".to_owned(),
        wait_ms: 0,
        ..want(B1, &["k"])
    };
    locks.acquire(B1, elsewhere).await.unwrap();
}

async fn token_of_a_key_increases_with_every_grant<B: HasLocks>(on: B) {
    let locks = on.locks();
    let mut last = 0;
    for turn in 0..20 {
        let guard = guard(1 + turn % 2, turn);
        let keys: &[_] = if turn % 3 == 0 { &["k"] } else { &["j", "k"] };
        let token = locks.acquire(guard, want(guard, keys)).await.unwrap();
        assert!(token > last, "{token} after {last}");
        last = token;
        locks.release(guard).await.unwrap();
    }
}

async fn token_of_a_key_increases_over_a_restart<B: HasLocks>(mut on: B) {
    let mut last = 0;
    for _ in 0..3 {
        let token = on.locks().acquire(A, want(A, &["k"])).await.unwrap();
        assert!(token > last, "{token} after {last}");
        last = token;
        on.locks().drop_guard(A);
        on = on.restart().await;
    }
}

async fn end_of_a_session_frees_what_it_held<B: HasLocks>(on: B) {
    let locks = on.locks();
    let second = GuardId { number: 2, ..A };
    locks.acquire(A, want(A, &["a", "b"])).await.unwrap();
    locks.acquire(second, want(second, &["c"])).await.unwrap();
    let waiting = locks.acquire(B1, want(B1, &["b", "c"]));
    locks.end_session(A.session);
    waiting.await.unwrap();
    try_now(locks, C, &["a"]).await.unwrap();
}

async fn end_of_a_session_gives_up_what_it_waited_for<B: HasLocks>(on: B) {
    let locks = on.locks();
    locks.acquire(A, want(A, &["k"])).await.unwrap();
    let given_up = locks.acquire(B1, want(B1, &["k"]));
    let waiting = locks.acquire(C, want(C, &["k"]));
    locks.end_session(B1.session);
    locks.release(A).await.unwrap();
    waiting.await.unwrap();
    drop(given_up);
}

async fn dropped_guard_is_free<B: HasLocks>(on: B) {
    let locks = on.locks();
    locks.acquire(A, want(A, &["k"])).await.unwrap();
    let waiting = locks.acquire(B1, want(B1, &["k"]));
    locks.drop_guard(A);
    waiting.await.unwrap();
    // Once more, and one that never was, do no harm.
    locks.drop_guard(A);
    locks.drop_guard(C);
    assert_eq!(try_now(locks, C, &["k"]).await, Err(LockError::Timeout));
}

async fn dropped_wait_is_given_up<B: HasLocks>(on: B) {
    let locks = on.locks();
    locks.acquire(A, want(A, &["k"])).await.unwrap();
    drop(locks.acquire(B1, want(B1, &["k"])));
    locks.drop_guard(B1);
    let waiting = locks.acquire(C, want(C, &["k"]));
    locks.release(A).await.unwrap();
    waiting.await.unwrap();
}

async fn lease_that_nobody_prolongs_runs_out<B: HasLocks>(on: B) {
    let locks = on.locks();
    locks.acquire(A, brief(A, &["k"])).await.unwrap();
    locks.acquire(B1, want(B1, &["k"])).await.unwrap();
    assert_eq!(locks.extend(A, 60_000).await, Err(LockError::Lost));
    assert_eq!(locks.release(A).await, Err(LockError::Lost));
    locks.release(B1).await.unwrap();
}

async fn extended_lease_holds_longer_than_it_would_have<B: HasLocks>(on: B) {
    let locks = on.locks();
    locks.acquire(A, brief(A, &["long"])).await.unwrap();
    locks.acquire(B1, brief(B1, &["short"])).await.unwrap();
    assert_eq!(locks.extend(A, 60_000).await, Ok(()));
    // That it gets this says that the other lease has run out, which began later.
    locks.acquire(C, want(C, &["short"])).await.unwrap();
    assert_eq!(locks.release(A).await, Ok(()));
}

async fn guard_is_released_only_once<B: HasLocks>(on: B) {
    let locks = on.locks();
    locks.acquire(A, want(A, &["k"])).await.unwrap();
    assert_eq!(locks.release(A).await, Ok(()));
    assert_eq!(locks.release(A).await, Err(LockError::Lost));
    assert_eq!(locks.release(B1).await, Err(LockError::Lost));
}

async fn instance_does_not_wait_for_itself<B: HasLocks>(on: B) {
    let locks = on.locks();
    let again = GuardId { number: 2, ..A };
    locks.acquire(A, want(A, &["k"])).await.unwrap();
    let refused = locks.acquire(again, want(again, &["j", "k"])).await;
    assert_eq!(refused, Err(LockError::WouldDeadlock));
    let other_instance = Acquire {
        owner: 7,
        ..want(again, &["k"])
    };
    let waiting = locks.acquire(again, other_instance);
    locks.release(A).await.unwrap();
    waiting.await.unwrap();
}

async fn circle_of_waits_is_refused<B: HasLocks>(on: B) {
    let locks = on.locks();
    let second = |guard: GuardId| GuardId { number: 2, ..guard };
    locks.acquire(A, want(A, &["a"])).await.unwrap();
    locks.acquire(B1, want(B1, &["b"])).await.unwrap();
    let waiting = locks.acquire(second(A), want(A, &["b"]));
    let refused = locks.acquire(second(B1), want(B1, &["a"])).await;
    assert_eq!(refused, Err(LockError::WouldDeadlock));
    locks.release(B1).await.unwrap();
    waiting.await.unwrap();
}

async fn pinned_guard_keeps_its_lock_until_it_is_unpinned<B: HasLocks>(on: B) {
    let locks = on.locks();
    locks.acquire(A, want(A, &["k"])).await.unwrap();
    let pinned = locks.pin(&[A]).unwrap();
    locks.end_session(A.session);
    assert_eq!(try_now(locks, B1, &["k"]).await, Err(LockError::Timeout));
    let waiting = locks.acquire(C, want(C, &["k"]));
    drop(pinned);
    waiting.await.unwrap();
}

async fn guard_that_is_not_held_cannot_be_pinned<B: HasLocks>(on: B) {
    let locks = on.locks();
    locks.acquire(A, want(A, &["k"])).await.unwrap();
    let _waiting = locks.acquire(B1, want(B1, &["k"]));
    for guards in [&[B1][..], &[A, B1], &[C]] {
        assert_eq!(locks.pin(guards).err(), Some(LockError::Lost));
    }
    locks.release(A).await.unwrap();
    assert_eq!(locks.pin(&[A]).err(), Some(LockError::Lost));
}

async fn list_tells_what_is_held_and_who_waits<B: HasLocks>(on: B) {
    let locks = on.locks();
    let token = locks.acquire(A, want(A, &["a", "b"])).await.unwrap();
    let _waiting = locks.acquire(B1, want(B1, &["b"]));
    let list = locks.list().await.unwrap();
    let mut seen: Vec<_> = list
        .iter()
        .map(|lock| (&*lock.space, &*lock.key, lock.token, lock.waiting))
        .collect();
    seen.sort_unstable();
    let expected = [("default", "a", token, 0), ("default", "b", token, 1)];
    assert_eq!(seen, expected);
    locks.end_session(B1.session);
    locks.end_session(A.session);
    assert_eq!(locks.list().await.unwrap(), []);
}

async fn request_that_makes_no_sense_is_invalid<B: HasLocks>(on: B) {
    let locks = on.locks();
    let good = want(A, &["k"]);
    for request in [
        want(A, &[]),
        want(A, &[""]),
        Acquire {
            ttl_ms: 0,
            ..good.clone()
        },
        Acquire {
            wait_ms: u32::MAX,
            ..good.clone()
        },
    ] {
        let answer = locks.acquire(A, request).await;
        assert!(matches!(answer, Err(LockError::Invalid(_))), "{answer:?}");
    }
    locks.acquire(A, good).await.unwrap();
    let answer = locks.extend(A, 0).await;
    assert!(matches!(answer, Err(LockError::Invalid(_))), "{answer:?}");
}

const fn guard(session: u64, number: u64) -> GuardId {
    GuardId {
        session: SessionId(session),
        number,
    }
}

/// Returns a request of the one instance that each session has.
fn want(guard: GuardId, keys: &[&str]) -> Acquire {
    let keys = keys.iter().map(|&key| key.to_owned()).collect();
    Acquire::new("default".to_owned(), keys, guard.session.0)
}

/// Returns a request for locks that are lost soon.
fn brief(guard: GuardId, keys: &[&str]) -> Acquire {
    Acquire {
        ttl_ms: 100,
        renew: false,
        ..want(guard, keys)
    }
}

/// Takes locks if nobody has them.
async fn try_now(locks: &dyn Locks, guard: GuardId, keys: &[&str]) -> Result<u64, LockError> {
    let request = Acquire {
        wait_ms: 0,
        ..want(guard, keys)
    };
    locks.acquire(guard, request).await
}
