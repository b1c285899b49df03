//! What an outbox makes of a message, and that none leaves before its transaction is on the disk; the rest is in
//! `conformance`.

use super::*;
use crate::config::shared::Durability;
use crate::state::db::{Database as _, TxOptions};
use crate::state::sqlite::{Options, Sqlite};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

fn message(key: Option<&str>) -> Message {
    Message {
        key: key.map(str::to_owned),
        ..Message::default()
    }
}

#[test]
fn messages_get_ids_that_nobody_can_give_them() {
    let given = Message {
        headers: vec![(ID_HEADER.to_owned(), "of the one before".to_owned())],
        dedup_id: Some("mine".to_owned()),
        ..Message::default()
    };
    let (stamped, ids) = stamp(&[given, message(None)]).unwrap();
    assert_ne!(ids[0], ids[1]);
    for (message, id) in stamped.iter().zip(&ids) {
        assert_eq!(id.len(), ID_LEN);
        assert_eq!(message.headers, [(ID_HEADER.to_owned(), id.clone())]);
    }
    assert_eq!(stamped[0].dedup_id.as_deref(), Some("mine"));
    assert_eq!(stamped[1].dedup_id.as_ref(), Some(&ids[1]));
}

#[test]
fn lanes_are_those_of_keys_and_queues_each_once_and_in_order() {
    let some = [
        message(Some("b")),
        message(None),
        message(Some("a")),
        message(Some("b")),
    ];
    let both = lanes("jobs", &some);
    assert_eq!(both.len(), 2);
    assert!(both.is_sorted());
    assert_eq!(lanes("jobs", &some[1..2]), [0; 0]);
    assert_ne!(lanes("jobs", &some[..1]), lanes("mail", &some[..1]));
    assert_eq!(lanes("jobs", &some[..1]), lanes("jobs", &some[3..]));
}

#[test]
fn room_is_left_for_the_id() {
    let full = |bytes: usize| Message {
        headers: vec![("a".to_owned(), "b".repeat(bytes - 1))],
        ..Message::default()
    };
    let most = crate::state::queue::HEADERS_MAX - ID_HEADER.len() - ID_LEN;
    assert_eq!(check(&[full(most)]), Ok(()));
    let refused = check(&[full(most + 1)]);
    assert!(matches!(refused, Err(QueueError::TooLarge(_))));
    let (stamped, _) = stamp(&[full(most)]).unwrap();
    assert_eq!(crate::state::queue::content::validate(&stamped), Ok(()));
}

/// A reader sees a commit before it is on the disk: the content does not come before.
#[tokio::test]
async fn content_comes_when_the_transaction_is_on_the_disk_and_not_before() {
    let folder = tempfile::tempdir().unwrap();
    let (busy, free) = std::sync::mpsc::channel::<()>();
    let disk = Mutex::new(free);
    let options = Options {
        path: folder.path().join("default.db"),
        label: "default".to_owned(),
        max_size: 1 << 30,
        // Not even if the guest does not wait for it.
        durability: Durability::Relaxed,
        vfs: None,
        sync: Some(Arc::new(move |_| {
            // It is free when nobody keeps it busy any more.
            let _ = disk.lock().unwrap().recv();
            Ok(())
        })),
        fatal: Arc::new(|reason| panic!("{reason}")),
        queues: [].into(),
    };
    let (sender, _sent) = mpsc::unbounded_channel();
    let sqlite = Sqlite::open(options, sender).unwrap();
    sqlite.set_outgoing(["jobs".to_owned()].into());
    let tx = sqlite.begin(TxOptions::default()).await.unwrap();
    let sent = tx.send("jobs".to_owned(), vec![message(None)]);
    sent.await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(sqlite.waits("jobs").await, Ok(true));
    let lead = sqlite.lead("jobs").await.unwrap().unwrap();
    let rows = lead
        .look(10)
        .await
        .unwrap()
        .iter()
        .map(|it| it.row)
        .collect();
    let mut read = lead.read(rows);
    let while_busy = timeout(Duration::from_millis(200), &mut read).await;
    assert!(while_busy.is_err(), "{while_busy:?}");
    drop(busy);
    assert_eq!(read.await.unwrap().len(), 1);
    sqlite.close().await;
}
