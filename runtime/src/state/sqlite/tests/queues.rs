//! Messages as rows: sending, settling, dead letters, and what else is kept for exactly-once effects.

use super::*;
use crate::state::queue::stored::Change;
use crate::state::queue::{BODY_MAX, DELAY_MAX, HEADERS_MAX, KEY_MAX, SEND_MAX};

fn message(body: &str) -> Message {
    Message {
        body: body.into(),
        ..Message::default()
    }
}

async fn send(db: &Sqlite, queue: &str, messages: Vec<Message>) -> Result<Vec<String>, QueueError> {
    db.send(queue.to_owned(), messages).await
}

async fn bodies(db: &Sqlite, queue: &str) -> Vec<String> {
    let found = db.peek(queue.to_owned(), 100).await.unwrap();
    found
        .into_iter()
        .map(|found| String::from_utf8(found.body).unwrap())
        .collect()
}

#[tokio::test]
async fn sent_message_is_kept_with_all_that_it_has() {
    let mut opened = open();
    let full = Message {
        body: b"\x00\xff".to_vec(),
        content_type: Some("application/x".into()),
        headers: vec![("a".into(), "1".into()), ("a".into(), "\"2\"".into())],
        key: Some("k".into()),
        dedup_id: None,
        delay_ms: Some(5000),
    };
    let ids = send(&opened.db, "mail", vec![full.clone(), message("b")]).await;
    assert_eq!(ids.unwrap(), ["default-1", "default-2"]);
    let stored = opened.sent.recv().await.unwrap();
    assert_eq!(stored.iter().map(|row| row.id).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(stored[0].queue, "mail");
    assert_eq!(stored[0].key.as_deref(), Some("k"));
    assert_eq!(stored[0].ready_at_ms, stored[0].sent_at_ms + 5000);
    assert_eq!(stored[1].ready_at_ms, stored[1].sent_at_ms);

    assert_eq!(opened.db.load().await.unwrap(), stored);
    let read = opened.db.read(vec![2, 99, 1]).await.unwrap();
    assert_eq!(read.len(), 2);
    assert_eq!(read[0].body, b"b");
    assert_eq!(read[1].stored, stored[0]);
    assert_eq!(read[1].body, full.body);
    assert_eq!(read[1].headers, full.headers);
    assert_eq!(read[1].content_type, full.content_type);
}

#[tokio::test]
async fn messages_over_their_limits_are_refused_all_together() {
    let opened = open();
    let long = "x".repeat(KEY_MAX + 1);
    let too_large = [
        Message {
            body: vec![0; BODY_MAX + 1],
            ..Message::default()
        },
        Message {
            headers: vec![("h".into(), "x".repeat(HEADERS_MAX))],
            ..Message::default()
        },
        Message {
            key: Some(long.clone()),
            ..Message::default()
        },
        Message {
            dedup_id: Some(long.clone()),
            ..Message::default()
        },
        Message {
            content_type: Some(long),
            ..Message::default()
        },
    ];
    for bad in too_large {
        let answer = send(&opened.db, "mail", vec![message("a"), bad]).await;
        assert!(matches!(answer, Err(QueueError::TooLarge(_))), "{answer:?}");
    }
    let late = Message {
        delay_ms: Some(DELAY_MAX.as_millis() as u64 + 1),
        ..Message::default()
    };
    for bad in [
        vec![],
        vec![message("a"); SEND_MAX + 1],
        vec![message("a"), late],
    ] {
        let answer = send(&opened.db, "mail", bad).await;
        assert!(matches!(answer, Err(QueueError::Invalid(_))), "{answer:?}");
    }
    let elsewhere = send(&opened.db, "elsewhere", vec![message("a")]).await;
    assert!(matches!(elsewhere, Err(QueueError::Invalid(_))));
    assert_eq!(opened.db.load().await, Ok(Vec::new()));
}

#[tokio::test]
async fn full_queue_takes_all_or_none() {
    let opened = open();
    let db = &opened.db;
    send(db, "jobs", vec![message("1"), message("2")])
        .await
        .unwrap();
    let three = vec![message("3"), message("4"), message("5")];
    assert_eq!(send(db, "jobs", three.clone()).await, Err(QueueError::Full));
    // What an open transaction has sent counts, until it is rolled back.
    let tx = db.begin(TxOptions::default()).await.unwrap();
    tx.send("jobs".into(), vec![message("3")]).await.unwrap();
    let more = tx
        .send("jobs".into(), vec![message("4"), message("5")])
        .await;
    assert_eq!(more, Err(QueueError::Full));
    tx.send("jobs".into(), vec![message("4")]).await.unwrap();
    tx.rollback().await;
    send(db, "jobs", vec![message("3"), message("4")])
        .await
        .unwrap();
    assert_eq!(
        send(db, "jobs", vec![message("5")]).await,
        Err(QueueError::Full)
    );
    db.settle("jobs".into(), vec![Change::Remove { id: 1 }])
        .await
        .unwrap();
    send(db, "jobs", vec![message("5")]).await.unwrap();
    let opened = opened.reopen().await;
    assert_eq!(
        send(&opened.db, "jobs", vec![message("6")]).await,
        Err(QueueError::Full)
    );
    opened.db.set_queues([("jobs".to_owned(), 5)].into());
    send(&opened.db, "jobs", vec![message("6")]).await.unwrap();
}

#[tokio::test]
async fn same_dedup_id_gets_the_id_of_the_first() {
    let mut opened = open();
    let db = &opened.db;
    let once = |body: &str| Message {
        dedup_id: Some("d".into()),
        ..message(body)
    };
    let ids = send(db, "mail", vec![once("1"), once("2"), message("3")]).await;
    assert_eq!(ids.unwrap(), ["default-1", "default-1", "default-2"]);
    assert_eq!(opened.sent.recv().await.unwrap().len(), 2);
    db.settle("mail".into(), vec![Change::Remove { id: 1 }])
        .await
        .unwrap();
    assert_eq!(
        send(db, "mail", vec![once("4")]).await.unwrap(),
        ["default-1"]
    );
    // Another queue has ids of its own, and a rolled-back one was never used.
    assert_eq!(
        send(db, "jobs", vec![once("5")]).await.unwrap(),
        ["default-3"]
    );
    let tx = db.begin(TxOptions::default()).await.unwrap();
    let other = || Message {
        dedup_id: Some("e".into()),
        ..message("6")
    };
    let first = tx.send("mail".into(), vec![other()]).await.unwrap();
    assert_eq!(tx.send("mail".into(), vec![other()]).await.unwrap(), first);
    tx.rollback().await;
    send(db, "mail", vec![other()]).await.unwrap();
    assert_eq!(bodies(db, "mail").await, ["3", "6"]);
}

/// Runs a statement as nobody but the engine can.
fn meddle(opened: &Opened, sql: &str) -> usize {
    let plain = rusqlite::Connection::open(opened.folder.path().join("default.db")).unwrap();
    plain.execute(sql, []).unwrap()
}

#[tokio::test]
async fn dedup_ids_and_processed_work_are_forgotten_after_their_time() {
    let opened = open();
    let db = &opened.db;
    let once = |id: &str| Message {
        dedup_id: Some(id.into()),
        ..message("")
    };
    for id in ["a", "b", "c"] {
        send(db, "mail", vec![once(id)]).await.unwrap();
    }
    let tx = db.begin(TxOptions::default()).await.unwrap();
    assert_eq!(tx.mark_processed("a".into()).await, Ok(true));
    tx.commit().await.unwrap();
    meddle(
        &opened,
        "UPDATE _wrun_dedup SET at = at - 300001 WHERE dedup_id < 'c'",
    );
    meddle(&opened, "UPDATE _wrun_processed SET at = at - 2592000001");

    let ids = send(db, "mail", vec![once("c"), once("b")]).await.unwrap();
    assert_eq!(ids, ["default-3", "default-4"]);
    assert_eq!(meddle(&opened, "DELETE FROM _wrun_dedup"), 2);
    let tx = db.begin(TxOptions::default()).await.unwrap();
    assert_eq!(tx.mark_processed("b".into()).await, Ok(true));
    assert_eq!(tx.mark_processed("a".into()).await, Ok(true));
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn message_of_a_transaction_is_there_if_and_when_it_commits() {
    let mut opened = open();
    let db = opened.db.clone();
    execute(&db, "CREATE TABLE orders (id INTEGER PRIMARY KEY)").await;
    for commit in [false, true] {
        let tx = db.begin(TxOptions::default()).await.unwrap();
        run_in(&*tx, "INSERT INTO orders DEFAULT VALUES")
            .await
            .unwrap();
        tx.send("mail".into(), vec![message("order")])
            .await
            .unwrap();
        assert_eq!(db.load().await, Ok(Vec::new()));
        if commit {
            tx.commit().await.unwrap();
        } else {
            tx.rollback().await;
        }
    }
    assert_eq!(opened.sent.recv().await.unwrap().len(), 1);
    assert!(opened.sent.try_recv().is_err());
    assert_eq!(bodies(&db, "mail").await, ["order"]);
    assert_eq!(query(&db, "SELECT count(*) FROM orders").await, [[int(1)]]);
}

#[tokio::test]
async fn ids_are_never_used_again() {
    let opened = open();
    send(&opened.db, "mail", vec![message("1")]).await.unwrap();
    opened.db.purge("mail".into(), None).await.unwrap();
    let opened = opened.reopen().await;
    let ids = send(&opened.db, "mail", vec![message("2")]).await.unwrap();
    assert_eq!(ids, ["default-2"]);
}

#[tokio::test]
async fn settled_messages_go_or_come_again() {
    let opened = open();
    let db = &opened.db;
    send(db, "mail", vec![message("1"), message("2"), message("3")])
        .await
        .unwrap();
    let changes = vec![
        Change::Remove { id: 1 },
        Change::Retry {
            id: 2,
            attempts: 3,
            ready_at_ms: 77,
            alone: true,
        },
        Change::Remove { id: 99 },
    ];
    db.settle("mail".into(), changes).await.unwrap();
    // Not this queue's.
    db.settle("jobs".into(), vec![Change::Remove { id: 3 }])
        .await
        .unwrap();
    let left = db.load().await.unwrap();
    assert_eq!(left.len(), 2);
    assert_eq!(
        (left[0].attempts, left[0].ready_at_ms, left[0].alone),
        (3, 77, true)
    );
}

#[tokio::test]
async fn dead_letters_say_why_and_can_be_sent_back() {
    let mut opened = open();
    let db = opened.db.clone();
    let with_header = Message {
        headers: vec![("own".into(), "1".into())],
        key: Some("k".into()),
        ..message("1")
    };
    send(&db, "mail", vec![with_header, message("2")])
        .await
        .unwrap();
    let sent_at = opened.sent.recv().await.unwrap()[0].sent_at_ms;
    let dead = |id| Change::Dead {
        id,
        attempts: 5,
        reason: "ä".repeat(2000),
    };
    db.settle("mail".into(), vec![dead(1), dead(2), dead(99)])
        .await
        .unwrap();
    let letters = db.peek("mail.dead".into(), 10).await.unwrap();
    assert_eq!(letters.len(), 2);
    assert_eq!(letters[0].stored.attempts, 5);
    let header = |name: &str| {
        let found = letters[0].headers.iter().find(|(key, _)| key == name);
        found.unwrap().1.clone()
    };
    assert_eq!(header("own"), "1");
    assert_eq!(header("wrun-dead-queue"), "mail");
    assert_eq!(header("wrun-dead-attempts"), "5");
    assert_eq!(header("wrun-dead-reason"), "ä".repeat(512));
    assert!(header("wrun-dead-at").parse::<u64>().unwrap() >= sent_at);

    assert_eq!(db.redrive("mail".into(), 1).await, Ok(1));
    let back = opened.sent.recv().await.unwrap();
    assert_eq!(back.len(), 1);
    assert_eq!(
        (back[0].id, back[0].attempts, &*back[0].queue),
        (1, 0, "mail")
    );
    assert_eq!(back[0].key.as_deref(), Some("k"));
    assert_eq!(back[0].sent_at_ms, sent_at);
    let read = db.read(vec![1]).await.unwrap();
    assert_eq!(read[0].headers, [("own".to_owned(), "1".to_owned())]);
    assert_eq!(read[0].stored, back[0]);
    assert_eq!(db.redrive("mail".into(), 10).await, Ok(1));
    assert_eq!(db.redrive("mail".into(), 10).await, Ok(0));
}

#[tokio::test]
async fn redrive_sends_back_what_there_is_room_for() {
    let opened = open();
    let db = &opened.db;
    let four = || (1..=4).map(|n| message(&n.to_string())).collect::<Vec<_>>();
    send(db, "jobs", four()).await.unwrap();
    let dead = |id| Change::Dead {
        id,
        attempts: 1,
        reason: "no".into(),
    };
    db.settle("jobs".into(), vec![dead(1), dead(2), dead(3)])
        .await
        .unwrap();
    send(db, "jobs", vec![message("5")]).await.unwrap();
    assert_eq!(db.redrive("jobs".into(), 100).await, Ok(2));
    assert_eq!(db.redrive("jobs".into(), 100).await, Err(QueueError::Full));
    assert_eq!(bodies(db, "jobs").await, ["1", "2", "4", "5"]);
    assert_eq!(bodies(db, "jobs.dead").await, ["3"]);
}

#[tokio::test]
async fn purge_deletes_these_or_all() {
    let opened = open();
    let db = &opened.db;
    let three = vec![message("1"), message("2"), message("3")];
    send(db, "jobs", three).await.unwrap();
    send(db, "mail", vec![message("4")]).await.unwrap();
    assert_eq!(db.purge("jobs".into(), Some(vec![1, 4, 99])).await, Ok(1));
    assert_eq!(db.purge("jobs".into(), None).await, Ok(2));
    assert_eq!(db.purge("jobs.dead".into(), None).await, Ok(0));
    assert_eq!(bodies(db, "mail").await, ["4"]);
    send(db, "jobs", vec![message("5"); 4]).await.unwrap();
}

#[tokio::test]
async fn work_is_marked_as_processed_once() {
    let opened = open();
    let tx = opened.db.begin(TxOptions::default()).await.unwrap();
    assert_eq!(tx.mark_processed("a".into()).await, Ok(true));
    assert_eq!(tx.mark_processed("a".into()).await, Ok(false));
    tx.rollback().await;
    let tx = opened.db.begin(TxOptions::default()).await.unwrap();
    assert_eq!(tx.mark_processed("a".into()).await, Ok(true));
    tx.commit().await.unwrap();
    let tx = opened.db.begin(TxOptions::default()).await.unwrap();
    assert_eq!(tx.mark_processed("a".into()).await, Ok(false));
    assert_eq!(tx.mark_processed("b".into()).await, Ok(true));
    for (bad, large) in [
        (String::new(), false),
        ("\0".into(), false),
        ("x".repeat(513), true),
    ] {
        match tx.mark_processed(bad).await {
            Err(DbError::TooLarge(_)) => assert!(large),
            other => assert!(matches!(other, Err(DbError::Invalid(_))) && !large),
        }
    }
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn tokens_are_never_reserved_twice() {
    let opened = open_with(|options| options.durability = Durability::Relaxed);
    assert_eq!(opened.db.reserve_tokens(1000).await, Ok(1000));
    assert_eq!(opened.db.reserve_tokens(10).await, Ok(1010));
    assert_eq!(opened.db.status().syncs, 2);
    let opened = opened.reopen().await;
    assert_eq!(opened.db.reserve_tokens(1).await, Ok(1011));
}
