//! The lock table: one fact per test, and random histories.

use super::history::{Fault, play};
use super::*;
use crate::state::dice::Dice;

const A: SessionId = SessionId(1);
const B: SessionId = SessionId(2);
const C: SessionId = SessionId(3);

/// More than any test needs.
const TOKENS: Range<u64> = 1..1_000_000;

fn guard(session: SessionId, number: u64) -> GuardId {
    GuardId { session, number }
}

fn table() -> LockTable {
    LockTable::new(TOKENS)
}

/// A request that waits 1 s and holds for 10 s, by an owner with no other guards.
fn want(keys: &[&str]) -> Acquire {
    let keys = keys.iter().map(|&key| key.to_owned()).collect();
    Acquire {
        wait_ms: 1000,
        ttl_ms: 10_000,
        renew: false,
        ..Acquire::new("default".to_owned(), keys, 0)
    }
}

fn by(owner: u64, request: Acquire) -> Acquire {
    Acquire { owner, ..request }
}

#[track_caller]
fn take(table: &mut LockTable, id: GuardId, request: Acquire, now: Millis) -> u64 {
    match table.acquire(id, request, now) {
        Poll::Ready(Ok(token)) => token,
        other => panic!("not granted at once: {other:?}"),
    }
}

#[track_caller]
fn queue(table: &mut LockTable, id: GuardId, request: Acquire, now: Millis) {
    assert_eq!(table.acquire(id, request, now), Poll::Pending);
}

fn effects(table: &mut LockTable) -> Vec<Effect> {
    std::iter::from_fn(|| table.next_effect()).collect()
}

fn granted(table: &mut LockTable) -> Vec<GuardId> {
    let granted = |effect| match effect {
        Effect::Granted { guard, .. } => Some(guard),
        _ => None,
    };
    effects(table).into_iter().filter_map(granted).collect()
}

fn lost(guard: GuardId) -> Effect {
    Effect::Lost { guard }
}

fn refused(guard: GuardId, error: LockError) -> Effect {
    Effect::Refused { guard, error }
}

fn refusal(error: LockError) -> Poll<Result<u64, LockError>> {
    Poll::Ready(Err(error))
}

#[track_caller]
fn assert_empty(table: &LockTable) {
    assert!(table.is_empty(), "{table:?}");
}

#[test]
fn free_key_is_granted_at_once() {
    assert_eq!(take(&mut table(), guard(A, 1), want(&["k"]), 0), 1);
}

#[test]
fn held_key_is_waited_for_and_granted_on_release() {
    let mut table = table();
    take(&mut table, guard(A, 1), want(&["k"]), 0);
    queue(&mut table, guard(B, 1), want(&["k"]), 0);
    assert_eq!(effects(&mut table), []);
    assert_eq!(table.release(guard(A, 1), 5), Ok(()));
    let (guard, token) = (guard(B, 1), 2);
    assert_eq!(effects(&mut table), [Effect::Granted { guard, token }]);
}

#[test]
fn same_key_in_another_space_is_another_lock() {
    let mut table = table();
    take(&mut table, guard(A, 1), want(&["k"]), 0);
    let space = "other".to_owned();
    take(
        &mut table,
        guard(B, 1),
        Acquire {
            space,
            ..want(&["k"])
        },
        0,
    );
}

#[test]
fn waiters_are_served_in_order() {
    let mut table = table();
    take(&mut table, guard(A, 0), want(&["k"]), 0);
    for number in 1..=3 {
        queue(&mut table, guard(B, number), by(number, want(&["k"])), 0);
    }
    table.drop_guard(guard(A, 0), 0);
    for number in 1..=3 {
        assert_eq!(granted(&mut table), [guard(B, number)]);
        table.drop_guard(guard(B, number), 0);
    }
    assert_empty(&table);
}

#[test]
fn several_keys_are_granted_together_or_not_at_all() {
    let mut table = table();
    take(&mut table, guard(A, 1), want(&["a"]), 0);
    take(&mut table, guard(B, 1), want(&["b"]), 0);
    queue(&mut table, guard(C, 1), want(&["a", "b"]), 0);
    table.drop_guard(guard(A, 1), 0);
    assert_eq!(granted(&mut table), []);
    table.drop_guard(guard(B, 1), 0);
    assert_eq!(granted(&mut table), [guard(C, 1)]);
}

#[test]
fn later_request_does_not_overtake_one_that_waits_for_more_keys() {
    let mut table = table();
    take(&mut table, guard(A, 1), want(&["a"]), 0);
    queue(&mut table, guard(B, 1), want(&["a", "b"]), 0);
    queue(&mut table, guard(C, 1), want(&["b"]), 0);
    table.drop_guard(guard(A, 1), 0);
    assert_eq!(granted(&mut table), [guard(B, 1)]);
}

#[test]
fn request_without_a_wait_is_answered_at_once() {
    let mut table = table();
    take(&mut table, guard(A, 1), want(&["k"]), 0);
    let once = Acquire {
        wait_ms: 0,
        ..want(&["k"])
    };
    let answer = table.acquire(guard(B, 1), once, 0);
    assert_eq!(answer, refusal(LockError::Timeout));
}

#[test]
fn wait_ends_at_its_deadline() {
    let mut table = table();
    take(&mut table, guard(A, 1), want(&["k"]), 0);
    queue(&mut table, guard(B, 1), want(&["k"]), 5);
    assert_eq!(table.next_deadline(), Some(1005));
    table.expire(1004);
    assert_eq!(effects(&mut table), []);
    table.expire(1005);
    let error = LockError::Timeout;
    assert_eq!(effects(&mut table), [refused(guard(B, 1), error)]);
}

#[test]
fn waiter_that_times_out_makes_way_for_the_next() {
    let mut table = table();
    take(&mut table, guard(A, 1), want(&["a"]), 0);
    let short = Acquire {
        wait_ms: 10,
        ..want(&["a", "b"])
    };
    queue(&mut table, guard(B, 1), short, 0);
    queue(&mut table, guard(C, 1), want(&["b"]), 0);
    table.expire(10);
    assert_eq!(granted(&mut table), [guard(C, 1)]);
}

#[test]
fn dropped_waiter_is_passed_at_once() {
    let mut table = table();
    take(&mut table, guard(A, 1), want(&["k"]), 0);
    queue(&mut table, guard(B, 1), want(&["k"]), 0);
    queue(&mut table, guard(C, 1), want(&["k"]), 0);
    table.drop_guard(guard(B, 1), 0);
    assert_eq!(effects(&mut table), [refused(guard(B, 1), LockError::Lost)]);
    table.drop_guard(guard(A, 1), 0);
    assert_eq!(granted(&mut table), [guard(C, 1)]);
}

#[test]
fn ended_session_frees_what_it_held_and_gets_nothing_more() {
    let mut table = table();
    take(&mut table, guard(A, 1), want(&["a", "b"]), 0);
    queue(&mut table, guard(A, 2), by(2, want(&["a"])), 0);
    queue(&mut table, guard(B, 1), want(&["a"]), 0);
    queue(&mut table, guard(C, 1), want(&["b"]), 0);
    table.end_session(A, 0);
    assert_eq!(granted(&mut table), [guard(B, 1), guard(C, 1)]);
}

#[test]
fn number_of_a_guard_that_exists_is_invalid() {
    let mut table = table();
    take(&mut table, guard(A, 1), want(&["a"]), 0);
    let answer = table.acquire(guard(A, 1), want(&["b"]), 0);
    assert!(matches!(answer, Poll::Ready(Err(LockError::Invalid(_)))));
    assert_eq!(table.release(guard(A, 1), 0), Ok(()));
    assert_empty(&table);
}

#[test]
fn releasing_a_guard_that_never_was_says_lost() {
    assert_eq!(table().release(guard(A, 1), 0), Err(LockError::Lost));
}

#[test]
fn key_that_the_same_owner_holds_would_deadlock() {
    let mut table = table();
    take(&mut table, guard(A, 1), want(&["k"]), 0);
    let answer = table.acquire(guard(A, 2), want(&["j", "k"]), 0);
    assert_eq!(answer, refusal(LockError::WouldDeadlock));
    queue(&mut table, guard(A, 3), by(1, want(&["k"])), 0);
}

#[test]
fn key_that_the_same_owner_waits_for_would_deadlock() {
    let mut table = table();
    take(&mut table, guard(A, 1), want(&["k"]), 0);
    queue(&mut table, guard(B, 1), want(&["k"]), 0);
    let answer = table.acquire(guard(B, 2), want(&["k"]), 0);
    assert_eq!(answer, refusal(LockError::WouldDeadlock));
}

#[test]
fn circle_of_holders_would_deadlock() {
    let mut table = table();
    take(&mut table, guard(A, 1), want(&["a"]), 0);
    take(&mut table, guard(B, 1), want(&["b"]), 0);
    take(&mut table, guard(C, 1), want(&["c"]), 0);
    queue(&mut table, guard(A, 2), want(&["b"]), 0);
    queue(&mut table, guard(B, 2), want(&["c"]), 0);
    let answer = table.acquire(guard(C, 2), want(&["a"]), 0);
    assert_eq!(answer, refusal(LockError::WouldDeadlock));
}

#[test]
fn circle_over_a_place_in_a_queue_would_deadlock() {
    let mut table = table();
    take(&mut table, guard(A, 1), want(&["a"]), 0);
    take(&mut table, guard(B, 1), want(&["b"]), 0);
    // C waits for A, and stands before B in the queue for c, which nobody holds.
    queue(&mut table, guard(C, 1), want(&["a", "c"]), 0);
    queue(&mut table, guard(B, 2), want(&["c"]), 0);
    let answer = table.acquire(guard(A, 2), want(&["b"]), 0);
    assert_eq!(answer, refusal(LockError::WouldDeadlock));
}

#[test]
fn waiting_behind_each_other_for_one_key_is_no_deadlock() {
    let mut table = table();
    take(&mut table, guard(A, 1), want(&["k"]), 0);
    take(&mut table, guard(B, 1), want(&["j"]), 0);
    queue(&mut table, guard(C, 1), want(&["k"]), 0);
    queue(&mut table, guard(B, 2), want(&["k"]), 0);
}

#[test]
fn locks_of_one_session_are_limited() {
    let mut table = table();
    for number in 0..SESSION_KEYS_MAX as u64 {
        let key = number.to_string();
        take(&mut table, guard(A, number), want(&[&key]), 0);
    }
    let answer = table.acquire(guard(A, 99_999), want(&["more"]), 0);
    assert!(matches!(answer, Poll::Ready(Err(LockError::Limit(_)))));
    take(&mut table, guard(B, 0), want(&["more"]), 0);
    table.end_session(A, 0);
    table.end_session(B, 0);
    assert_empty(&table);
}

#[test]
fn lost_guard_counts_until_it_is_dropped() {
    let mut table = table();
    let keys: Vec<_> = (1..SESSION_KEYS_MAX).map(|n| n.to_string()).collect();
    take(&mut table, guard(A, 1), Acquire { keys, ..want(&[]) }, 0);
    take(&mut table, guard(A, 0), want(&["kept"]), 5_000);
    table.expire(10_000);
    let answer = table.acquire(guard(A, 2), want(&["k"]), 10_000);
    assert!(matches!(answer, Poll::Ready(Err(LockError::Limit(_)))));
    table.drop_guard(guard(A, 1), 10_000);
    take(&mut table, guard(A, 2), want(&["k"]), 10_000);
}

#[test]
fn waiters_of_one_key_are_limited() {
    let mut table = table();
    take(&mut table, guard(A, 0), want(&["k"]), 0);
    for number in 0..WAITERS_MAX as u64 {
        queue(&mut table, guard(B, number), by(number, want(&["k"])), 0);
    }
    let answer = table.acquire(guard(C, 1), want(&["k"]), 0);
    assert!(matches!(answer, Poll::Ready(Err(LockError::Limit(_)))));
    take(&mut table, guard(C, 2), want(&["j"]), 0);
    table.end_session(B, 0);
    queue(&mut table, guard(C, 3), by(1, want(&["k"])), 0);
}

#[test]
fn lease_ends_without_a_sign_of_life() {
    let mut table = table();
    let renewing = Acquire {
        renew: true,
        ..want(&["k"])
    };
    take(&mut table, guard(A, 1), renewing, 0);
    queue(&mut table, guard(B, 1), want(&["k"]), 9_500);
    table.expire(9_999);
    assert_eq!(effects(&mut table), []);
    table.expire(10_000);
    let (next, token) = (guard(B, 1), 2);
    let granted = Effect::Granted { guard: next, token };
    assert_eq!(effects(&mut table), [lost(guard(A, 1)), granted]);
    assert_eq!(table.release(guard(A, 1), 10_001), Err(LockError::Lost));
    assert_eq!(table.release(next, 10_001), Ok(()));
    assert_empty(&table);
}

#[test]
fn sign_of_life_prolongs_a_renewing_lease_and_no_other() {
    let mut table = table();
    let renewing = Acquire {
        renew: true,
        ..want(&["a"])
    };
    take(&mut table, guard(A, 1), renewing, 0);
    take(&mut table, guard(A, 2), want(&["b"]), 0);
    table.heartbeat(A, 8_000);
    table.expire(17_999);
    assert_eq!(effects(&mut table), [lost(guard(A, 2))]);
    table.expire(18_000);
    assert_eq!(effects(&mut table), [lost(guard(A, 1))]);
}

#[test]
fn sign_of_life_that_comes_too_late_revives_nothing() {
    let mut table = table();
    let renewing = Acquire {
        renew: true,
        ..want(&["k"])
    };
    take(&mut table, guard(A, 1), renewing, 0);
    table.heartbeat(A, 10_000);
    assert_eq!(effects(&mut table), [lost(guard(A, 1))]);
    assert_eq!(table.extend(guard(A, 1), 1, 10_000), Err(LockError::Lost));
}

#[test]
fn extended_lease_ends_later() {
    let mut table = table();
    take(&mut table, guard(A, 1), want(&["k"]), 0);
    assert_eq!(table.extend(guard(A, 1), 20_000, 9_000), Ok(()));
    table.expire(28_999);
    assert_eq!(effects(&mut table), []);
    table.expire(29_000);
    assert_eq!(effects(&mut table), [lost(guard(A, 1))]);
}

#[test]
fn release_after_the_lease_says_lost_even_if_the_timer_is_late() {
    let mut table = table();
    take(&mut table, guard(A, 1), want(&["k"]), 0);
    assert_eq!(table.release(guard(A, 1), 10_000), Err(LockError::Lost));
}

#[test]
fn late_timer_ends_what_was_due_in_order() {
    let mut table = table();
    take(&mut table, guard(A, 1), want(&["k"]), 0);
    queue(&mut table, guard(B, 1), want(&["k"]), 9_500);
    // The lease ended before the wait: so the waiter got the key.
    table.expire(20_000);
    assert_eq!(granted(&mut table), [guard(B, 1)]);
}

#[test]
fn pinned_guard_is_not_lost_until_it_is_unpinned() {
    let mut table = table();
    take(&mut table, guard(A, 1), want(&["k"]), 0);
    queue(
        &mut table,
        guard(B, 1),
        Acquire {
            wait_ms: 60_000,
            ..want(&["k"])
        },
        0,
    );
    assert_eq!(table.pin(&[guard(A, 1)], 9_999), Ok(()));
    table.expire(10_001);
    assert_eq!(effects(&mut table), []);
    table.unpin(&[guard(A, 1)], 10_002);
    let (next, token) = (guard(B, 1), 2);
    let granted = Effect::Granted { guard: next, token };
    assert_eq!(effects(&mut table), [lost(guard(A, 1)), granted]);
}

#[test]
fn released_guard_keeps_its_keys_while_it_is_pinned() {
    let mut table = table();
    take(&mut table, guard(A, 1), want(&["k"]), 0);
    queue(&mut table, guard(B, 1), want(&["k"]), 0);
    assert_eq!(table.pin(&[guard(A, 1)], 0), Ok(()));
    assert_eq!(table.release(guard(A, 1), 0), Ok(()));
    assert_eq!(table.release(guard(A, 1), 0), Err(LockError::Lost));
    assert_eq!(table.pin(&[guard(A, 1)], 0), Err(LockError::Lost));
    assert_eq!(effects(&mut table), []);
    table.unpin(&[guard(A, 1)], 0);
    assert_eq!(granted(&mut table), [guard(B, 1)]);
}

#[test]
fn ended_session_keeps_its_pinned_guards_until_the_last_pin_is_off() {
    let mut table = table();
    take(&mut table, guard(A, 1), want(&["k"]), 0);
    assert_eq!(table.pin(&[guard(A, 1)], 0), Ok(()));
    assert_eq!(table.pin(&[guard(A, 1)], 0), Ok(()));
    table.end_session(A, 0);
    queue(&mut table, guard(B, 1), want(&["k"]), 0);
    table.unpin(&[guard(A, 1)], 0);
    assert_eq!(granted(&mut table), []);
    table.unpin(&[guard(A, 1)], 0);
    assert_eq!(granted(&mut table), [guard(B, 1)]);
}

#[test]
fn own_key_that_only_a_pin_keeps_can_be_waited_for() {
    let mut table = table();
    take(&mut table, guard(A, 1), want(&["k"]), 0);
    assert_eq!(table.pin(&[guard(A, 1)], 0), Ok(()));
    table.drop_guard(guard(A, 1), 0);
    queue(&mut table, guard(A, 2), want(&["k"]), 0);
    table.unpin(&[guard(A, 1)], 0);
    assert_eq!(granted(&mut table), [guard(A, 2)]);
}

#[test]
fn guards_are_pinned_all_or_none() {
    let mut table = table();
    take(&mut table, guard(A, 1), want(&["a"]), 0);
    queue(&mut table, guard(B, 1), want(&["a"]), 0);
    let both = [guard(A, 1), guard(B, 1)];
    assert_eq!(table.pin(&both, 0), Err(LockError::Lost));
    table.drop_guard(guard(A, 1), 0);
    assert_eq!(granted(&mut table), [guard(B, 1)]);
}

#[test]
fn suspended_table_grants_nothing_until_it_resumes() {
    let mut table = table();
    table.suspend();
    queue(&mut table, guard(A, 1), want(&["k"]), 0);
    queue(&mut table, guard(B, 1), want(&["k"]), 1);
    queue(&mut table, guard(C, 1), want(&["j"]), 2);
    let short = Acquire {
        wait_ms: 5,
        ..want(&["i"])
    };
    queue(&mut table, guard(C, 2), by(1, short), 2);
    table.expire(7);
    let error = LockError::Timeout;
    assert_eq!(effects(&mut table), [refused(guard(C, 2), error)]);
    table.resume(8);
    assert_eq!(granted(&mut table), [guard(A, 1), guard(C, 1)]);
}

#[test]
fn tokens_grow_from_grant_to_grant() {
    let mut table = LockTable::new(70..80);
    let tokens = [1, 2, 3].map(|n| {
        let token = take(&mut table, guard(A, n), want(&["k"]), 0);
        table.drop_guard(guard(A, n), 0);
        token
    });
    assert_eq!(tokens, [70, 71, 72]);
    assert_eq!(table.tokens_left(), 7);
}

#[test]
fn without_tokens_nothing_is_granted_until_there_are_more() {
    let mut table = LockTable::new(1..2);
    take(&mut table, guard(A, 1), want(&["a"]), 0);
    queue(&mut table, guard(B, 1), want(&["b"]), 0);
    queue(&mut table, guard(C, 1), want(&["c"]), 0);
    table.raise_ceiling(3, 1);
    assert_eq!(granted(&mut table), [guard(B, 1)]);
    table.raise_ceiling(4, 1);
    assert_eq!(granted(&mut table), [guard(C, 1)]);
}

#[test]
fn lack_of_tokens_is_told_from_a_key_that_is_taken() {
    let mut table = LockTable::new(1..1);
    let once = Acquire {
        wait_ms: 0,
        ..want(&["a"])
    };
    let answer = table.acquire(guard(A, 1), once, 0);
    assert!(matches!(
        answer,
        Poll::Ready(Err(LockError::Unavailable(_)))
    ));
    queue(&mut table, guard(A, 2), want(&["a"]), 0);
    queue(&mut table, guard(B, 1), want(&["a"]), 0);
    table.expire(1000);
    assert!(effects(&mut table).iter().all(|effect| matches!(
        effect,
        Effect::Refused {
            error: LockError::Unavailable(_),
            ..
        }
    )));
    assert_empty(&table);
}

#[test]
fn status_lists_held_locks_by_name() {
    let mut table = table();
    take(&mut table, guard(A, 1), want(&["b"]), 100);
    take(&mut table, guard(B, 1), want(&["a"]), 300);
    queue(&mut table, guard(C, 1), want(&["b"]), 300);
    let held = |session, key: &str, token, held_ms, waiting| {
        let status = LockStatus {
            space: "default".to_owned(),
            key: key.to_owned(),
            token,
            pid: 0,
            held_ms,
            expires_in_ms: 10_000 - held_ms,
            waiting,
        };
        (session, status)
    };
    let expected = [held(B, "a", 2, 200, 0), held(A, "b", 1, 400, 1)];
    assert_eq!(table.status(500), expected);
}

/// Plays a random history.
fn random(seed: u64, fault: Fault) -> Result<(), String> {
    play(Dice::Seeded(seed), fault, 40)
}

#[test]
fn a_hundred_thousand_random_histories_are_correct() {
    for seed in 0..100_000 {
        if let Err(complaint) = random(seed, Fault::None) {
            panic!("history {seed}: {complaint}");
        }
    }
}

#[test]
fn faulty_tables_are_noticed() {
    let faults = [
        Fault::GrantsHeldKeys,
        Fault::IgnoresPins,
        Fault::IgnoresHeartbeats,
        Fault::IgnoresDeath,
        Fault::IgnoresSuspend,
        Fault::IgnoresTime,
    ];
    for fault in faults {
        assert!(
            (0..100).any(|seed| random(seed, fault).is_err()),
            "{fault:?} was not noticed"
        );
    }
}

#[test]
fn witness_alone_notices_two_holders_and_lost_pins() {
    for (fault, expected) in [
        (Fault::GrantsHeldKeys, "holds"),
        (Fault::IgnoresPins, "while pinned"),
    ] {
        let mut complaints = (0..1000).filter_map(|seed| random(seed, fault).err());
        assert!(
            complaints.any(|complaint| complaint.contains(expected)),
            "{fault:?}"
        );
    }
}
