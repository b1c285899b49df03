//! Cases of what is sent: when and as what it comes, and what is refused.

use super::super::{DedupIds, cases};
use super::*;
use crate::state::db::{Statement, TxOptions, Want};
use crate::state::queue::{BODY_MAX, SEND_MAX};

pub(super) fn cases<B: HasQueue>() -> Vec<Case<B>> {
    cases![
        message_is_delivered_as_it_was_sent,
        delayed_message_comes_when_its_time_has_come,
        message_with_a_dedup_id_is_taken_once_or_has_the_id_of_the_first,
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

async fn delayed_message_comes_when_its_time_has_come<B: HasQueue>(mut on: B) {
    let late = Message {
        delay_ms: Some(300),
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
    assert!(wall_ms() >= late[0].sent_at_ms + 300);
}

async fn message_with_a_dedup_id_is_taken_once_or_has_the_id_of_the_first<B: HasQueue>(on: B) {
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
    let kept = match B::DEDUP_IDS {
        DedupIds::AreRemembered => 3,
        // By nature: RabbitMQ and Kafka remember no ids. Those that are sent together are sent once.
        DedupIds::AreIds => 4,
    };
    holds(&on, kept).await;
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
    // Who gets messages one after the other from a server may have the first one before the last.
    while on.queue().status().await.unwrap().delayed == 0 {
        tokio::task::yield_now().await;
    }
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
