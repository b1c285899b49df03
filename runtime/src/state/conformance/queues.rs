//! Cases of queues.

use super::{Case, HasDatabase, HasQueue, cases};
use crate::state::db::{Statement, TxOptions, Want};
use crate::state::lock::SessionId;
use crate::state::queue::{BODY_MAX, Delivery, Message, Outcome, QueueError, SEND_MAX, Settled};
use std::time::{SystemTime, UNIX_EPOCH};

pub(super) fn cases<B: HasQueue>() -> Vec<Case<B>> {
    cases![
        message_is_delivered_as_it_was_sent,
        batch_has_no_more_messages_than_asked_for,
        handled_message_never_comes_again,
        message_that_was_not_settled_comes_again_after_a_restart,
        messages_with_a_key_come_one_at_a_time_in_their_order,
        messages_with_a_key_keep_their_order_over_a_retry,
        messages_with_other_keys_do_not_wait,
        delayed_message_comes_when_its_time_has_come,
        message_with_a_dedup_id_is_taken_once,
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
        full_queue_takes_nothing,
        purge_deletes_what_nobody_handles,
        status_tells_how_it_stands,
        messages_that_make_no_sense_are_refused,
    ]
}

pub(super) fn cases_with_database<B: HasQueue + HasDatabase>() -> Vec<Case<B>> {
    cases![
        message_of_a_transaction_is_there_when_it_commits,
        message_of_a_transaction_that_is_rolled_back_never_was,
        transaction_goes_on_after_messages_that_are_refused,
    ]
}

const FIRST: SessionId = SessionId(1);
const SECOND: SessionId = SessionId(2);

async fn message_is_delivered_as_it_was_sent<B: HasQueue>(mut on: B) {
    let sent = Message {
        body: (0..=255).collect(),
        content_type: Some("application/octet-stream".to_owned()),
        headers: ["a", "b", "a"]
            .map(|name| (name.to_owned(), "ü".to_owned()))
            .into(),
        key: Some("order-1".to_owned()),
        dedup_id: Some("once".to_owned()),
        delay_ms: None,
    };
    let before = wall_ms();
    let ids = on.queue().send(vec![sent.clone()]).await.unwrap();
    let got = take_one(&mut on, FIRST).await;
    let after = wall_ms();
    assert_eq!(ids, [&*got.id]);
    assert_eq!((got.body, got.headers), (sent.body, sent.headers));
    assert_eq!((got.content_type, got.key), (sent.content_type, sent.key));
    assert_eq!(got.queue, B::QUEUE);
    assert_eq!((got.attempt, got.max_attempts), (1, B::ATTEMPTS_MAX));
    assert!((before..=after).contains(&got.sent_at_ms));
    assert!(got.deadline_ms > got.sent_at_ms);
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

async fn delayed_message_comes_when_its_time_has_come<B: HasQueue>(mut on: B) {
    let late = Message {
        delay_ms: Some(50),
        ..message("late")
    };
    on.queue().send(vec![late, message("early")]).await.unwrap();
    on.queue().credit(FIRST, 1, 2);
    let (_, early) = on.next_batch().await;
    let (_, late) = on.next_batch().await;
    assert_eq!(
        (&*early[0].body, &*late[0].body),
        (&b"early"[..], &b"late"[..])
    );
    assert!(wall_ms() >= late[0].sent_at_ms + 50);
}

async fn message_with_a_dedup_id_is_taken_once<B: HasQueue>(on: B) {
    let once = |id: &str| Message {
        dedup_id: Some(id.to_owned()),
        ..message("once")
    };
    let first = on.queue().send(vec![once("a")]).await.unwrap();
    let on = on.restart().await;
    let sent = vec![once("b"), once("a"), once("b"), message("more")];
    let ids = on.queue().send(sent).await.unwrap();
    assert_eq!((&ids[1], &ids[2]), (&first[0], &ids[0]));
    assert_ne!(ids[0], ids[1]);
    holds(&on, 3).await;
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
    assert_eq!(on.queue().status().await.unwrap().messages, 0);
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

async fn full_queue_takes_nothing<B: HasQueue>(mut on: B) {
    let most = B::DEPTH_MAX as usize;
    send(&on, most - 1).await;
    let two = vec![message("a"), message("b")];
    assert_eq!(on.queue().send(two).await, Err(QueueError::Full));
    send(&on, 1).await;
    let one = || on.queue().send(vec![message("a")]);
    assert_eq!(one().await, Err(QueueError::Full));
    holds(&on, B::DEPTH_MAX).await;
    let delivery = take_one(&mut on, FIRST).await;
    settle(&on, FIRST, &delivery, Outcome::Ack);
    let on = on.restart().await;
    send(&on, 1).await;
    holds(&on, B::DEPTH_MAX).await;
}

async fn purge_deletes_what_nobody_handles<B: HasQueue>(mut on: B) {
    send(&on, 3).await;
    holds(&on, 3).await;
    let delivery = take_one(&mut on, FIRST).await;
    assert_eq!(on.queue().purge(false).await, Ok(2));
    holds(&on, 1).await;
    settle(&on, FIRST, &delivery, Outcome::Retry(Some(0)));
    assert_eq!(take_one(&mut on, FIRST).await.id, delivery.id);
}

async fn status_tells_how_it_stands<B: HasQueue>(mut on: B) {
    send(&on, 2).await;
    send_keyed(&on, &["k"]).await;
    let delayed = Message {
        delay_ms: Some(60_000),
        ..message("late")
    };
    on.queue().send(vec![delayed]).await.unwrap();
    holds(&on, 4).await;
    take_one(&mut on, FIRST).await;
    let status = on.queue().status().await.unwrap();
    assert_eq!(status.queue, B::QUEUE);
    assert_eq!((status.messages, status.ready), (4, 2));
    assert_eq!((status.delayed, status.in_flight), (1, 1));
    assert_eq!((status.dead, status.consumers), (0, 1));
}

async fn messages_that_make_no_sense_are_refused<B: HasQueue>(on: B) {
    let large = Message {
        body: vec![0; BODY_MAX + 1],
        ..Message::default()
    };
    let refused = on.queue().send(vec![message("a"), large]).await;
    assert!(
        matches!(refused, Err(QueueError::TooLarge(_))),
        "{refused:?}"
    );
    for messages in [vec![], vec![message("a"); SEND_MAX + 1]] {
        let refused = on.queue().send(messages).await;
        assert!(
            matches!(refused, Err(QueueError::Invalid(_))),
            "{refused:?}"
        );
    }
    assert_eq!(on.queue().status().await.unwrap().messages, 0);
}

async fn message_of_a_transaction_is_there_when_it_commits<B: HasQueue + HasDatabase>(mut on: B) {
    let tx = on.database().begin(TxOptions::default()).await.unwrap();
    let sent = tx.send(B::QUEUE.to_owned(), vec![message("a"), message("b")]);
    let ids = sent.await.unwrap();
    assert_eq!(on.queue().status().await.unwrap().messages, 0);
    tx.commit().await.unwrap();
    for id in ids {
        assert_eq!(take_one(&mut on, FIRST).await.id, id);
    }
}

async fn message_of_a_transaction_that_is_rolled_back_never_was<B: HasQueue + HasDatabase>(
    mut on: B,
) {
    let tx = on.database().begin(TxOptions::default()).await.unwrap();
    let sent = tx.send(B::QUEUE.to_owned(), vec![message("never")]);
    sent.await.unwrap();
    tx.rollback().await;
    send(&on, 1).await;
    assert_eq!(take_one(&mut on, FIRST).await.body, b"0");
    holds(&on, 1).await;
}

async fn transaction_goes_on_after_messages_that_are_refused<B: HasQueue + HasDatabase>(mut on: B) {
    let db = on.database();
    let tx = db.begin(TxOptions::default()).await.unwrap();
    let create = Statement {
        sql: "CREATE TABLE t (i INTEGER)".to_owned(),
        params: Vec::new(),
    };
    tx.run(create, Want::Done).await.unwrap();
    let many = vec![message("many"); B::DEPTH_MAX as usize + 1];
    assert_eq!(
        tx.send(B::QUEUE.to_owned(), many).await,
        Err(QueueError::Full)
    );
    let nowhere = tx.send("nowhere".to_owned(), vec![message("a")]).await;
    assert!(
        matches!(nowhere, Err(QueueError::Invalid(_))),
        "{nowhere:?}"
    );
    let one = tx.send(B::QUEUE.to_owned(), vec![message("one")]);
    one.await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(bodies(&take(&mut on, FIRST, 10).await), ["one"]);
    holds(&on, 1).await;
}

/// Sends so many messages: "0", "1" and so on.
async fn send<B: HasQueue>(on: &B, count: usize) {
    let messages = (0..count).map(|number| message(&number.to_string()));
    on.queue().send(messages.collect()).await.unwrap();
}

/// Sends messages with these keys: "0", "1" and so on.
async fn send_keyed<B: HasQueue>(on: &B, keys: &[&str]) {
    let keyed = |(number, &key): (usize, &&str)| Message {
        key: Some(key.to_owned()),
        ..message(&number.to_string())
    };
    let messages = keys.iter().enumerate().map(keyed);
    on.queue().send(messages.collect()).await.unwrap();
}

async fn take<B: HasQueue>(on: &mut B, session: SessionId, most: u32) -> Vec<Delivery> {
    on.queue().credit(session, most, 1);
    let (to, batch) = on.next_batch().await;
    assert_eq!(to, session);
    batch
}

async fn take_one<B: HasQueue>(on: &mut B, session: SessionId) -> Delivery {
    let mut batch = take(on, session, 1).await;
    assert_eq!(batch.len(), 1);
    batch.remove(0)
}

fn settle<B: HasQueue>(on: &B, session: SessionId, delivery: &Delivery, outcome: Outcome) {
    let settled = Settled {
        id: delivery.id.clone(),
        receipt: delivery.receipt,
        outcome,
    };
    on.queue().settle(session, vec![settled]);
}

/// Waits until as many messages are kept.
async fn holds<B: HasQueue>(on: &B, count: u64) {
    while on.queue().status().await.unwrap().messages != count {
        tokio::task::yield_now().await;
    }
}

/// Waits until there are as many dead letters.
async fn is_dead<B: HasQueue>(on: &B, count: u64) {
    while on.queue().status().await.unwrap().dead != count {
        tokio::task::yield_now().await;
    }
}

fn message(body: &str) -> Message {
    Message {
        body: body.into(),
        ..Message::default()
    }
}

fn bodies(batch: &[Delivery]) -> Vec<&str> {
    let bodies = batch.iter().map(|delivery| delivery.body.as_slice());
    bodies.map(|body| str::from_utf8(body).unwrap()).collect()
}

fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_millis() as u64
}
