//! Facts about lanes, one each. `model` checks them all at once, on many histories.

use super::*;

const FIRST: SessionId = SessionId(1);
const SECOND: SessionId = SessionId(2);

const POLICY: Policy = Policy {
    max_attempts: 3,
    visibility_ms: 100,
    backoff_ms: 10,
    backoff_max_ms: 1000,
};

/// A batch as it was delivered.
type Batch = (SessionId, Vec<Handed>);

/// Returns a queue with these messages whose pauses are as long as they can be.
fn lanes(entries: impl IntoIterator<Item = Entry>) -> Lanes {
    let mut lanes = Lanes::new(POLICY, |max| max);
    lanes.add(entries);
    lanes
}

fn message(id: i64) -> Entry {
    Entry {
        id,
        key: None,
        attempts: 0,
        alone: false,
        ready_at: 0,
    }
}

fn keyed(id: i64, key: &str) -> Entry {
    Entry {
        key: Some(key.to_owned()),
        ..message(id)
    }
}

fn delayed(entry: Entry, ready_at: Millis) -> Entry {
    Entry { ready_at, ..entry }
}

impl Lanes {
    /// Steps and returns the deliveries.
    fn deliveries(&mut self, now: Millis) -> Vec<Batch> {
        let effects = self.step(now).into_iter();
        let deliveries = effects.filter_map(|effect| match effect {
            Effect::Deliver { session, batch, .. } => Some((session, batch)),
            _ => None,
        });
        deliveries.collect()
    }

    /// Steps, with credit for one more batch of one, and returns the message that is delivered.
    fn take_one(&mut self, session: SessionId, now: Millis) -> Option<Handed> {
        if self.takers.next().is_none_or(|(next, _)| next != session) {
            self.credit(session, 1, 1);
        }
        let batch = self.deliveries(now).pop();
        batch.and_then(|(_, batch)| batch.into_iter().next())
    }

    /// Steps with credit for one more batch, and returns the ids of the messages that are delivered.
    fn take_ids(&mut self, session: SessionId, now: Millis) -> Vec<i64> {
        self.credit(session, 100, 1);
        self.deliveries(now).iter().flat_map(ids).collect()
    }

    /// Settles a delivery that must be there.
    fn end(&mut self, session: SessionId, handed: Handed, outcome: Outcome, now: Millis) {
        assert!(self.settle(session, (handed.id, handed.receipt), outcome, now));
    }
}

fn ids((_, batch): &Batch) -> Vec<i64> {
    batch.iter().map(|handed| handed.id).collect()
}

fn failed() -> Outcome {
    Outcome::Failed("it trapped".to_owned())
}

#[test]
fn messages_are_delivered_oldest_first_in_batches_of_the_size_asked_for() {
    let mut lanes = lanes([message(1), message(2), message(3)]);
    lanes.credit(FIRST, 2, 5);
    let batches = lanes.deliveries(0);
    assert_eq!(
        batches.iter().map(ids).collect::<Vec<_>>(),
        [vec![1, 2], vec![3]]
    );
}

#[test]
fn nothing_is_delivered_without_credit() {
    let mut lanes = lanes([message(1), message(2)]);
    assert_eq!(lanes.deliveries(0), []);
    lanes.credit(FIRST, 1, 0);
    assert_eq!(lanes.deliveries(0), []);
    lanes.credit(FIRST, 1, 1);
    assert_eq!(lanes.deliveries(0).len(), 1);
    assert_eq!(lanes.counts().ready, 1);
}

#[test]
fn sessions_with_credit_take_turns() {
    let mut lanes = lanes((1..=5).map(message));
    lanes.credit(FIRST, 1, 10);
    lanes.credit(SECOND, 1, 2);
    let sessions: Vec<_> = lanes
        .deliveries(0)
        .iter()
        .map(|(session, _)| session.0)
        .collect();
    assert_eq!(sessions, [1, 2, 1, 2, 1]);
}

#[test]
fn message_of_a_key_waits_for_the_one_before_it() {
    let mut lanes = lanes([keyed(1, "a"), keyed(2, "a"), keyed(3, "b"), message(4)]);
    lanes.credit(FIRST, 10, 10);
    let batches = lanes.deliveries(0);
    assert_eq!(batches.iter().map(ids).collect::<Vec<_>>(), [vec![1, 3, 4]]);
    lanes.end(FIRST, batches[0].1[0], Outcome::Ack, 0);
    assert_eq!(
        lanes.deliveries(0).iter().map(ids).collect::<Vec<_>>(),
        [vec![2]]
    );
}

#[test]
fn failing_message_holds_up_its_key_and_no_other() {
    let mut lanes = lanes([keyed(1, "a"), keyed(2, "a"), keyed(3, "b")]);
    let first = lanes.take_one(FIRST, 0).unwrap();
    lanes.end(FIRST, first, Outcome::Retry(Some(50)), 0);
    assert_eq!(lanes.take_ids(FIRST, 0), [3]);
    assert!(lanes.take_ids(FIRST, 49).is_empty());
    assert_eq!(lanes.take_ids(FIRST, 50), [1]);
}

#[test]
fn delayed_message_holds_up_its_key() {
    let mut lanes = lanes([delayed(keyed(1, "a"), 30), keyed(2, "a")]);
    assert!(lanes.take_ids(FIRST, 0).is_empty());
    assert_eq!(lanes.next_deadline(), Some(30));
    assert_eq!(lanes.take_ids(FIRST, 30), [1]);
}

#[test]
fn message_behind_its_key_waits_for_its_own_delay_too() {
    let mut lanes = lanes([keyed(1, "a"), delayed(keyed(2, "a"), 30)]);
    let first = lanes.take_one(FIRST, 0).unwrap();
    lanes.end(FIRST, first, Outcome::Ack, 10);
    assert!(lanes.take_ids(FIRST, 10).is_empty());
    assert_eq!(lanes.take_ids(FIRST, 30), [2]);
}

#[test]
fn message_that_comes_back_goes_before_those_that_were_sent_after_it() {
    let mut lanes = lanes([keyed(5, "a"), keyed(6, "a")]);
    lanes.add([keyed(2, "a")]);
    assert_eq!(lanes.take_ids(FIRST, 0), [2]);
    lanes.add([keyed(1, "a")]);
    assert!(lanes.take_ids(FIRST, 0).is_empty());
    lanes.forget(2);
    assert_eq!(
        lanes.deliveries(0).iter().map(ids).collect::<Vec<_>>(),
        [[1]]
    );
}

#[test]
fn message_that_is_here_already_is_passed_over() {
    let mut lanes = lanes([message(1)]);
    assert_eq!(lanes.take_ids(FIRST, 0), [1]);
    lanes.add([message(1)]);
    assert!(lanes.take_ids(FIRST, 0).is_empty());
    assert_eq!(lanes.counts().messages, 1);
}

#[test]
fn messages_of_a_failed_call_come_back_alone_after_a_pause() {
    let mut lanes = lanes([message(1), message(2), message(3)]);
    lanes.credit(FIRST, 2, 1);
    let (_, batch) = lanes.deliveries(0).remove(0);
    for handed in batch {
        lanes.end(FIRST, handed, failed(), 0);
    }
    lanes.credit(FIRST, 10, 10);
    assert_eq!(
        lanes.deliveries(9).iter().map(ids).collect::<Vec<_>>(),
        [[3]]
    );
    assert_eq!(
        lanes.deliveries(10).iter().map(ids).collect::<Vec<_>>(),
        [[1], [2]]
    );
}

#[test]
fn message_that_asks_for_a_retry_does_not_come_alone() {
    let mut lanes = lanes([message(1), message(2)]);
    let first = lanes.take_one(FIRST, 0).unwrap();
    lanes.end(FIRST, first, Outcome::Retry(Some(0)), 0);
    assert_eq!(lanes.take_ids(FIRST, 0), [1, 2]);
}

#[test]
fn last_try_sends_a_message_to_the_dead_letters() {
    let outcomes = [
        (Outcome::Retry(None), "gave up after 3 attempts"),
        (failed(), "it trapped"),
    ];
    for (outcome, reason) in outcomes {
        let mut lanes = lanes([message(1)]);
        for attempt in 1..=3 {
            let handed = lanes.take_one(FIRST, attempt * 1000).unwrap();
            assert_eq!(u64::from(handed.attempt), attempt);
            lanes.end(FIRST, handed, outcome.clone(), attempt * 1000);
        }
        let dead = Effect::Dead {
            id: 1,
            attempts: 3,
            reason: reason.to_owned(),
        };
        assert_eq!(lanes.step(4000), [dead]);
        assert_eq!(lanes.counts().messages, 0);
    }
}

#[test]
fn dead_message_makes_room_for_the_next_of_its_key() {
    let mut lanes = lanes([keyed(1, "a"), keyed(2, "a")]);
    let first = lanes.take_one(FIRST, 0).unwrap();
    lanes.end(FIRST, first, Outcome::Dead("no such order".to_owned()), 0);
    lanes.credit(FIRST, 1, 1);
    let effects = lanes.step(0);
    let dead = Effect::Dead {
        id: 1,
        attempts: 1,
        reason: "no such order".to_owned(),
    };
    assert_eq!(effects[0], dead);
    assert!(matches!(&effects[1], Effect::Deliver { batch, .. } if batch[0].id == 2));
}

#[test]
fn outcome_from_another_session_or_for_an_earlier_try_is_passed_over() {
    let mut lanes = lanes([message(1)]);
    let first = lanes.take_one(FIRST, 0).unwrap();
    let handed = (1, first.receipt);
    assert!(!lanes.settle(SECOND, handed, Outcome::Ack, 0));
    assert!(lanes.settle(FIRST, handed, Outcome::Retry(Some(0)), 0));
    assert!(!lanes.settle(FIRST, handed, Outcome::Ack, 0));
    let second = lanes.take_one(FIRST, 0).unwrap();
    assert!(second.receipt > first.receipt);
    assert!(!lanes.settle(FIRST, handed, Outcome::Ack, 0));
    assert!(lanes.settle(FIRST, (1, second.receipt), Outcome::Ack, 0));
    assert_eq!(lanes.step(0), [Effect::Remove { id: 1 }]);
}

#[test]
fn delivery_that_is_not_settled_in_time_has_failed() {
    let mut lanes = lanes([message(1)]);
    let handed = lanes.take_one(FIRST, 0).unwrap();
    assert_eq!(lanes.next_deadline(), Some(100));
    assert_eq!(lanes.step(99), []);
    let again = Effect::Retry {
        id: 1,
        attempts: 1,
        ready_at: 110,
        alone: true,
    };
    assert_eq!(lanes.step(100), [again]);
    assert!(!lanes.settle(FIRST, (1, handed.receipt), Outcome::Ack, 100));
}

#[test]
fn extended_delivery_lasts_that_long_from_then_on() {
    let mut lanes = lanes([message(1)]);
    let handed = lanes.take_one(FIRST, 0).unwrap();
    assert!(!lanes.extend(SECOND, 1, 500, 50));
    assert!(!lanes.extend(FIRST, 2, 500, 50));
    assert!(lanes.extend(FIRST, 1, 500, 50));
    assert_eq!(lanes.next_deadline(), Some(550));
    lanes.end(FIRST, handed, Outcome::Ack, 549);
    assert!(!lanes.extend(FIRST, 1, 500, 549));
}

#[test]
fn messages_of_a_session_that_ended_come_back_at_once_and_alone() {
    let mut lanes = lanes([message(1), message(2)]);
    assert_eq!(lanes.take_ids(FIRST, 0), [1, 2]);
    lanes.leave(FIRST, true, 7);
    lanes.credit(SECOND, 10, 10);
    let batches = lanes.deliveries(7);
    assert_eq!(batches.iter().map(ids).collect::<Vec<_>>(), [[1], [2]]);
    assert_eq!(batches[0].1[0].attempt, 2);
    assert_eq!(lanes.counts().consumers, 1);
}

#[test]
fn message_that_kills_every_worker_ends_in_the_dead_letters() {
    let mut lanes = lanes([message(1)]);
    for session in [FIRST, SECOND, FIRST] {
        assert_eq!(lanes.take_ids(session, 0), [1]);
        lanes.leave(session, true, 0);
    }
    let effects = lanes.step(0);
    assert!(matches!(&effects[..], [Effect::Dead { reason, .. }] if reason == SESSION_ENDED));
}

#[test]
fn leaving_session_gets_no_more_and_can_settle_what_it_has() {
    let mut lanes = lanes([message(1), message(2)]);
    lanes.credit(FIRST, 1, 5);
    let handed = lanes.take_one(FIRST, 0).unwrap();
    lanes.add([message(3)]);
    lanes.leave(FIRST, false, 0);
    assert_eq!(lanes.deliveries(0), []);
    lanes.end(FIRST, handed, Outcome::Ack, 0);
    assert_eq!(lanes.counts().consumers, 0);
}

#[test]
fn message_that_is_taken_back_has_not_been_tried() {
    let mut lanes = lanes([keyed(1, "a"), keyed(2, "a")]);
    let first = lanes.take_one(FIRST, 0).unwrap();
    lanes.take_back(FIRST, &[first]);
    let second = lanes.take_one(FIRST, 0).unwrap();
    assert_eq!((second.id, second.attempt), (1, 1));
    // It is not the delivery that it was.
    lanes.take_back(FIRST, &[first]);
    assert!(lanes.holds(FIRST, 1, second.receipt));
}

#[test]
fn refunded_batch_can_be_delivered_again_but_not_to_a_session_that_left() {
    let mut lanes = lanes([message(1)]);
    lanes.credit(FIRST, 1, 1);
    let (_, batch) = lanes.deliveries(0).remove(0);
    lanes.take_back(FIRST, &batch);
    lanes.refund(FIRST);
    let (_, batch) = lanes.deliveries(0).remove(0);
    lanes.leave(FIRST, false, 0);
    lanes.take_back(FIRST, &batch);
    lanes.refund(FIRST);
    assert_eq!(lanes.deliveries(0), []);
}

#[test]
fn purge_takes_all_that_nobody_is_handling() {
    let mut lanes = lanes([
        keyed(1, "a"),
        keyed(2, "a"),
        message(3),
        delayed(message(4), 50),
    ]);
    let handed = lanes.take_one(FIRST, 0).unwrap();
    let gone = lanes.purge();
    assert_eq!(gone, [keyed(2, "a"), message(3), delayed(message(4), 50)]);
    lanes.end(FIRST, handed, Outcome::Ack, 0);
    assert!(lanes.take_ids(FIRST, 100).is_empty());
    assert_eq!(lanes.counts().messages, 0);
    lanes.add(gone);
    assert_eq!(lanes.take_ids(FIRST, 100), [2, 3, 4]);
}

#[test]
fn pause_doubles_with_each_try_up_to_its_limit() {
    let pauses: Vec<_> = (1..=9).map(|attempts| POLICY.backoff(attempts)).collect();
    assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
    assert_eq!(POLICY.backoff(u32::MAX), 1000);
}

#[test]
fn pause_is_a_random_part_of_the_longest_one() {
    let mut lanes = Lanes::new(POLICY, |max| max / 2);
    lanes.add([message(1)]);
    let handed = lanes.take_one(FIRST, 0).unwrap();
    lanes.end(FIRST, handed, Outcome::Retry(None), 0);
    assert!(matches!(
        lanes.step(0)[..],
        [Effect::Retry { ready_at: 5, .. }]
    ));
}

#[test]
fn no_retry_is_later_than_the_longest_delay() {
    let mut lanes = lanes([message(1)]);
    let handed = lanes.take_one(FIRST, 0).unwrap();
    lanes.end(FIRST, handed, Outcome::Retry(Some(u64::MAX)), 0);
    lanes.step(0);
    assert_eq!(lanes.next_deadline(), Some(DELAY_MAX.as_millis() as Millis));
}

#[test]
fn message_that_had_its_tries_is_given_up_instead_of_delivered() {
    let mut lanes = lanes([
        Entry {
            attempts: 3,
            ..message(1)
        },
        Entry {
            attempts: 2,
            ..message(2)
        },
    ]);
    assert!(matches!(
        lanes.step(0)[..],
        [Effect::Dead {
            id: 1,
            attempts: 3,
            ..
        }]
    ));
    lanes.set_policy(Policy {
        max_attempts: 2,
        ..POLICY
    });
    assert!(matches!(
        lanes.step(0)[..],
        [Effect::Dead {
            id: 2,
            attempts: 2,
            ..
        }]
    ));
}

#[test]
fn counts_tell_where_messages_are() {
    let entries = [
        keyed(1, "a"),
        keyed(2, "a"),
        message(3),
        delayed(message(4), 50),
    ];
    let mut lanes = lanes(entries);
    lanes.take_one(FIRST, 0).unwrap();
    let counts = Counts {
        messages: 4,
        ready: 1,
        delayed: 1,
        in_flight: 1,
        consumers: 1,
    };
    assert_eq!(lanes.counts(), counts);
}

#[test]
fn long_queue_is_handled_to_its_end() {
    const COUNT: i64 = 200_000;
    let mut lanes = lanes((0..COUNT).map(|id| match id % 3 {
        0 => message(id),
        1 => keyed(id, "one"),
        _ => keyed(id, &id.to_string()),
    }));
    lanes.credit(FIRST, 100, u32::MAX);
    let mut acked = 0;
    while acked < COUNT {
        for (_, batch) in lanes.deliveries(0) {
            for handed in batch {
                lanes.end(FIRST, handed, Outcome::Ack, 0);
                acked += 1;
            }
        }
    }
    assert_eq!(
        lanes.counts(),
        Counts {
            consumers: 1,
            ..Counts::default()
        }
    );
}
