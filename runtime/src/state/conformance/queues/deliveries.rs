//! Cases of what becomes of deliveries: order, outcomes, dead letters, sessions that end.

use super::super::cases;
use super::*;

pub(super) fn cases<B: HasQueue>() -> Vec<Case<B>> {
    cases![
        batch_has_no_more_messages_than_asked_for,
        handled_message_never_comes_again,
        message_that_was_not_settled_comes_again_after_a_restart,
        messages_with_a_key_come_one_at_a_time_in_their_order,
        messages_with_a_key_keep_their_order_over_a_retry,
        messages_with_other_keys_do_not_wait,
        retried_message_comes_again_as_the_next_try,
        retry_without_a_time_waits_for_the_backoff,
        last_try_goes_to_the_dead_letters,
        dead_letter_tells_why,
        dead_letters_can_be_sent_back,
        dead_letters_can_be_deleted,
        messages_of_a_failed_call_come_alone,
        messages_of_an_aborted_session_go_to_others,
        session_that_leaves_may_still_settle,
        outcome_of_a_stranger_is_passed_over,
        delivery_is_extended_only_by_its_session,
    ]
}

async fn batch_has_no_more_messages_than_asked_for<B: HasQueue>(mut on: B) {
    send(&on, 7).await;
    on.queue().credit(FIRST, 3, 9);
    let mut bodies = Vec::new();
    while bodies.len() < 7 {
        let (_, batch) = on.next_batch().await;
        assert!((1..=3).contains(&batch.len()));
        bodies.extend(batch.into_iter().map(|delivery| delivery.body));
    }
    assert_eq!(bodies, ["0", "1", "2", "3", "4", "5", "6"].map(Vec::from));
}

async fn handled_message_never_comes_again<B: HasQueue>(mut on: B) {
    send(&on, 2).await;
    let first = take_one(&mut on, FIRST).await;
    settle(&on, FIRST, &first, Outcome::Ack);
    let mut on = on.restart().await;
    let second = take_one(&mut on, FIRST).await;
    assert_ne!(first.id, second.id);
    settle(&on, FIRST, &second, Outcome::Ack);
    let on = on.restart().await;
    assert_eq!(on.queue().status().await.unwrap().messages, 0);
}

async fn message_that_was_not_settled_comes_again_after_a_restart<B: HasQueue>(mut on: B) {
    send(&on, 1).await;
    let first = take_one(&mut on, FIRST).await;
    let mut on = on.restart().await;
    let again = take_one(&mut on, SECOND).await;
    assert_eq!((first.id, first.body), (again.id, again.body));
}

async fn messages_with_a_key_come_one_at_a_time_in_their_order<B: HasQueue>(mut on: B) {
    send_keyed(&on, &["k"; 5]).await;
    for turn in 0..5 {
        let session = [FIRST, SECOND][turn % 2];
        let batch = take(&mut on, session, 10).await;
        assert_eq!(bodies(&batch), [turn.to_string()]);
        settle(&on, session, &batch[0], Outcome::Ack);
    }
}

async fn messages_with_a_key_keep_their_order_over_a_retry<B: HasQueue>(mut on: B) {
    send_keyed(&on, &["k", "k"]).await;
    let first = take_one(&mut on, FIRST).await;
    settle(&on, FIRST, &first, Outcome::Retry(Some(30)));
    let again = take_one(&mut on, SECOND).await;
    assert_eq!((first.id, again.attempt), (again.id.clone(), 2));
    settle(&on, SECOND, &again, Outcome::Ack);
    assert_eq!(take_one(&mut on, FIRST).await.body, b"1");
}

async fn messages_with_other_keys_do_not_wait<B: HasQueue>(mut on: B) {
    send_keyed(&on, &["a", "a", "b", "a", "b"]).await;
    send(&on, 1).await;
    on.queue().credit(FIRST, 1, 9);
    let mut keys = Vec::new();
    for _ in 0..3 {
        keys.extend(on.next_batch().await.1.remove(0).key);
    }
    keys.sort_unstable();
    assert_eq!(keys, ["a", "b"]);
    assert_eq!(on.queue().status().await.unwrap().in_flight, 3);
}

async fn retried_message_comes_again_as_the_next_try<B: HasQueue>(mut on: B) {
    send(&on, 1).await;
    let first = take_one(&mut on, FIRST).await;
    settle(&on, FIRST, &first, Outcome::Retry(Some(0)));
    let again = take_one(&mut on, FIRST).await;
    assert_eq!((first.attempt, again.attempt), (1, 2));
    assert_eq!(first.id, again.id);
    assert_ne!(first.receipt, again.receipt);
    // What was said of the first try is not meant for the second.
    settle(&on, FIRST, &first, Outcome::Ack);
    settle(&on, FIRST, &again, Outcome::Dead("no".to_owned()));
    is_dead(&on, 1).await;
}

async fn retry_without_a_time_waits_for_the_backoff<B: HasQueue>(mut on: B) {
    send(&on, 1).await;
    let first = take_one(&mut on, FIRST).await;
    settle(&on, FIRST, &first, Outcome::Retry(None));
    let again = take_one(&mut on, FIRST).await;
    assert_eq!((first.id, again.attempt), (again.id, 2));
}

async fn last_try_goes_to_the_dead_letters<B: HasQueue>(mut on: B) {
    send(&on, 1).await;
    for attempt in 1..=B::ATTEMPTS_MAX {
        let delivery = take_one(&mut on, FIRST).await;
        assert_eq!(delivery.attempt, attempt);
        settle(&on, FIRST, &delivery, Outcome::Retry(Some(0)));
    }
    is_dead(&on, 1).await;
    // Where the two are not one step, the letter is there first.
    holds(&on, 0).await;
    let letters = on.queue().peek(true, 10).await.unwrap();
    assert_eq!((&*letters[0].body, letters[0].attempts), (&b"0"[..], 2));
}

async fn dead_letter_tells_why<B: HasQueue>(mut on: B) {
    send(&on, 1).await;
    let delivery = take_one(&mut on, FIRST).await;
    settle(
        &on,
        FIRST,
        &delivery,
        Outcome::Dead("no such order".to_owned()),
    );
    is_dead(&on, 1).await;
    let on = on.restart().await;
    let letters = on.queue().peek(true, 10).await.unwrap();
    for (name, value) in [
        ("wrun-dead-reason", "no such order"),
        ("wrun-dead-queue", B::QUEUE),
        ("wrun-dead-attempts", "1"),
    ] {
        let header = (name.to_owned(), value.to_owned());
        assert!(letters[0].headers.contains(&header), "{letters:?}");
    }
    assert_eq!(letters[0].id, delivery.id);
}

async fn dead_letters_can_be_sent_back<B: HasQueue>(mut on: B) {
    send(&on, 3).await;
    for delivery in take(&mut on, FIRST, 3).await {
        settle(&on, FIRST, &delivery, Outcome::Dead(String::new()));
    }
    is_dead(&on, 3).await;
    assert_eq!(on.queue().redrive(2).await, Ok(2));
    for _ in 0..2 {
        assert_eq!(take_one(&mut on, SECOND).await.attempt, 1);
    }
    is_dead(&on, 1).await;
    assert_eq!(on.queue().redrive(10).await, Ok(1));
    assert_eq!(on.queue().redrive(10).await, Ok(0));
}

async fn dead_letters_can_be_deleted<B: HasQueue>(mut on: B) {
    send(&on, 3).await;
    for delivery in take(&mut on, FIRST, 2).await {
        settle(&on, FIRST, &delivery, Outcome::Dead(String::new()));
    }
    is_dead(&on, 2).await;
    assert_eq!(on.queue().purge(true).await, Ok(2));
    is_dead(&on, 0).await;
    holds(&on, 1).await;
}

async fn messages_of_a_failed_call_come_alone<B: HasQueue>(mut on: B) {
    send(&on, 3).await;
    for delivery in take(&mut on, FIRST, 3).await {
        settle(&on, FIRST, &delivery, Outcome::Failed("trap".to_owned()));
    }
    for _ in 0..3 {
        let batch = take(&mut on, FIRST, 3).await;
        assert_eq!((batch.len(), batch[0].attempt), (1, 2));
    }
}

async fn messages_of_an_aborted_session_go_to_others<B: HasQueue>(mut on: B) {
    send(&on, 2).await;
    let lost = take(&mut on, FIRST, 2).await;
    on.queue().leave(FIRST, true);
    on.queue().credit(SECOND, 2, 2);
    let mut again = Vec::new();
    while again.len() < 2 {
        let (session, batch) = on.next_batch().await;
        assert_eq!(session, SECOND);
        again.extend(batch);
    }
    again.sort_by(|a, b| a.body.cmp(&b.body));
    assert_eq!(bodies(&again), bodies(&lost));
    assert!(again.iter().all(|delivery| delivery.attempt == 2));
}

async fn session_that_leaves_may_still_settle<B: HasQueue>(mut on: B) {
    send(&on, 2).await;
    let delivery = take_one(&mut on, FIRST).await;
    on.queue().leave(FIRST, false);
    settle(&on, FIRST, &delivery, Outcome::Ack);
    let other = take_one(&mut on, SECOND).await;
    assert_ne!(other.id, delivery.id);
    holds(&on, 1).await;
}

async fn outcome_of_a_stranger_is_passed_over<B: HasQueue>(mut on: B) {
    send(&on, 1).await;
    let delivery = take_one(&mut on, FIRST).await;
    settle(&on, SECOND, &delivery, Outcome::Ack);
    let wrong = Delivery {
        receipt: delivery.receipt.wrapping_add(1),
        ..delivery.clone()
    };
    settle(&on, FIRST, &wrong, Outcome::Ack);
    let unknown = Delivery {
        id: "nowhere-1".to_owned(),
        ..delivery.clone()
    };
    settle(&on, FIRST, &unknown, Outcome::Ack);
    settle(&on, FIRST, &delivery, Outcome::Retry(Some(0)));
    assert_eq!(take_one(&mut on, SECOND).await.attempt, 2);
}

async fn delivery_is_extended_only_by_its_session<B: HasQueue>(mut on: B) {
    send(&on, 1).await;
    let delivery = take_one(&mut on, FIRST).await;
    let extend = |session| on.queue().extend(session, &delivery.id, 1000);
    assert_eq!(extend(FIRST), Ok(()));
    assert_eq!(extend(SECOND), Err(QueueError::NotYours));
    settle(&on, FIRST, &delivery, Outcome::Ack);
    assert_eq!(extend(FIRST), Err(QueueError::NotYours));
}
