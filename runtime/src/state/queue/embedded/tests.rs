//! The embedded queue with a database of its own.

use super::*;
use crate::config::shared::Durability;
use crate::state::lock::SessionId;
use crate::state::queue::{BODY_MAX, Delivery, EXTEND_MAX, Outcome, Settled};
use crate::state::sqlite::Options;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::task::{AbortHandle, LocalSet};
use tokio::time::timeout;

const FIRST: SessionId = SessionId(1);
const SECOND: SessionId = SessionId(2);

/// Nothing in these tests takes longer.
const DEADLINE: Duration = Duration::from_secs(20);

/// The queue `jobs` in the database `default`.
struct Fixture {
    queue: EmbeddedQueue,
    sqlite: Sqlite,
    delivered: UnboundedReceiver<(SessionId, Vec<Delivery>)>,
    passing_on: AbortHandle,
    folder: TempDir,
}

impl Fixture {
    async fn open() -> Self {
        Self::open_with(|_| {}).await
    }

    async fn open_with(adjust: impl FnOnce(&mut shared::Queue)) -> Self {
        Self::open_in(tempfile::tempdir().unwrap(), adjust).await
    }

    async fn open_in(folder: TempDir, adjust: impl FnOnce(&mut shared::Queue)) -> Self {
        let mut settings = shared::Queue {
            database: "default".to_owned(),
            max_depth: 1000,
            max_attempts: 2,
            visibility_timeout: Duration::from_secs(30),
            backoff: Duration::ZERO,
            backoff_max: Duration::ZERO,
            bound: None,
        };
        adjust(&mut settings);
        let (sender, mut sent) = mpsc::unbounded_channel();
        let options = Options {
            path: file(&folder),
            label: "default".to_owned(),
            max_size: 1 << 30,
            durability: Durability::Relaxed,
            vfs: None,
            sync: None,
            fatal: Arc::new(|_| {}),
            queues: [("jobs".to_owned(), settings.max_depth)].into(),
        };
        let sqlite = Sqlite::open(options, sender).unwrap();
        let (deliver, delivered) = mpsc::unbounded_channel();
        let queue = EmbeddedQueue::new(
            "jobs".to_owned(),
            &settings,
            sqlite.clone(),
            Rc::new(move |session, batch| deliver.send((session, batch)).unwrap()),
            sqlite.load().await.unwrap(),
        );
        let passing = queue.clone();
        let passing_on = tokio::task::spawn_local(async move {
            while let Some(stored) = sent.recv().await {
                passing.arrived(stored);
            }
        });
        Self {
            queue,
            sqlite,
            delivered,
            passing_on: passing_on.abort_handle(),
            folder,
        }
    }

    /// Starts again with what is in the file.
    async fn reopen(self) -> Self {
        self.queue.flush().await;
        self.passing_on.abort();
        self.sqlite.close().await;
        Self::open_in(self.folder, |_| {}).await
    }

    /// Sends messages with these bodies.
    async fn send(&self, bodies: &[&str]) {
        let messages = bodies.iter().map(|body| message(body)).collect();
        self.queue.send(messages).await.unwrap();
    }

    /// Waits until as many messages are kept.
    async fn holds(&self, count: u64) {
        while self.status().await.messages != count {
            tokio::task::yield_now().await;
        }
    }

    async fn status(&self) -> QueueStatus {
        self.queue.status().await.unwrap()
    }

    /// Takes a batch of up to `most` messages.
    async fn take(&mut self, session: SessionId, most: u32) -> Vec<Delivery> {
        self.queue.credit(session, most, 1);
        let (to, batch) = self.next().await;
        assert_eq!(to, session);
        batch
    }

    async fn take_one(&mut self, session: SessionId) -> Delivery {
        self.take(session, 1).await.remove(0)
    }

    async fn next(&mut self) -> (SessionId, Vec<Delivery>) {
        self.delivered.recv().await.unwrap()
    }

    fn settle(&self, session: SessionId, delivery: &Delivery, outcome: Outcome) {
        let settled = Settled {
            id: delivery.id.clone(),
            receipt: delivery.receipt,
            outcome,
        };
        self.queue.settle(session, vec![settled]);
    }

    async fn rows(&self) -> Vec<Stored> {
        self.queue.flush().await;
        self.sqlite.load().await.unwrap()
    }

    /// Runs statements beside the engine.
    fn meddle(&self, sql: &str) {
        let other = rusqlite::Connection::open(file(&self.folder)).unwrap();
        other.busy_timeout(DEADLINE).unwrap();
        other.execute_batch(sql).unwrap();
    }

    fn break_database(&self) {
        self.meddle("ALTER TABLE _wrun_message RENAME TO hidden");
    }

    fn mend_database(&self) {
        self.meddle("ALTER TABLE hidden RENAME TO _wrun_message");
    }
}

fn file(folder: &TempDir) -> PathBuf {
    folder.path().join("default.db")
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

/// Runs a test as the state process would, and ends it if it takes too long.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, async {
        timeout(DEADLINE, test).await.expect("the test hangs");
    });
}

#[test]
fn message_is_delivered_as_it_was_sent() {
    run(async {
        let mut on = Fixture::open().await;
        let sent = Message {
            body: b"{}".to_vec(),
            content_type: Some("application/json".to_owned()),
            headers: vec![("a".to_owned(), "b".to_owned())],
            key: Some("order-1".to_owned()),
            dedup_id: None,
            delay_ms: None,
        };
        let ids = on.queue.send(vec![sent]).await.unwrap();
        let delivery = on.take_one(FIRST).await;
        assert_eq!(ids, ["default-1"]);
        let expected = Delivery {
            id: "default-1".to_owned(),
            receipt: delivery.receipt,
            queue: "jobs".to_owned(),
            key: Some("order-1".to_owned()),
            attempt: 1,
            max_attempts: 2,
            sent_at_ms: delivery.sent_at_ms,
            deadline_ms: delivery.deadline_ms,
            content_type: Some("application/json".to_owned()),
            headers: vec![("a".to_owned(), "b".to_owned())],
            body: b"{}".to_vec(),
        };
        assert_eq!(delivery, expected);
        assert!(delivery.sent_at_ms < delivery.deadline_ms);
    });
}

#[test]
fn acknowledged_message_is_deleted() {
    run(async {
        let mut on = Fixture::open().await;
        on.send(&["one", "two"]).await;
        let delivery = on.take_one(FIRST).await;
        on.settle(FIRST, &delivery, Outcome::Ack);
        assert_eq!(on.rows().await.len(), 1);
    });
}

#[test]
fn tries_are_remembered_over_a_restart() {
    run(async {
        let mut on = Fixture::open().await;
        on.send(&["one", "two"]).await;
        for delivery in on.take(FIRST, 2).await {
            on.settle(FIRST, &delivery, Outcome::Failed("it trapped".to_owned()));
        }
        let mut on = on.reopen().await;
        let again = on.take(FIRST, 2).await;
        assert_eq!(bodies(&again), ["one"], "it comes alone");
        assert_eq!(again[0].attempt, 2);
    });
}

#[test]
fn delivery_that_was_not_settled_comes_again_after_a_restart() {
    run(async {
        let mut on = Fixture::open().await;
        on.send(&["one"]).await;
        let before = on.take_one(FIRST).await;
        let mut on = on.reopen().await;
        let again = on.take_one(FIRST).await;
        assert_eq!((&again.id, again.attempt), (&before.id, 1));
        assert_ne!(again.receipt, before.receipt);
    });
}

#[test]
fn delayed_message_comes_when_its_time_has_come() {
    run(async {
        let mut on = Fixture::open().await;
        let delayed = Message {
            delay_ms: Some(40),
            ..message("later")
        };
        on.queue.send(vec![delayed]).await.unwrap();
        on.holds(1).await;
        let delivery = on.take_one(FIRST).await;
        assert!(wall_ms() >= delivery.sent_at_ms + 40);
    });
}

#[test]
fn delivery_that_is_not_settled_in_time_comes_again() {
    run(async {
        let short = |settings: &mut shared::Queue| {
            settings.visibility_timeout = Duration::from_millis(20);
            settings.max_attempts = 1000;
        };
        let mut on = Fixture::open_with(short).await;
        on.send(&["one"]).await;
        on.take_one(FIRST).await;
        let again = on.take_one(SECOND).await;
        assert!(again.attempt > 1);
    });
}

#[test]
fn messages_of_a_session_that_ended_go_to_others_at_once() {
    run(async {
        let mut on = Fixture::open().await;
        on.send(&["one", "two"]).await;
        on.take(FIRST, 2).await;
        on.queue.leave(FIRST, true);
        assert_eq!(bodies(&on.take(SECOND, 2).await), ["one"]);
        assert_eq!(bodies(&on.take(SECOND, 2).await), ["two"]);
    });
}

#[test]
fn batch_whose_session_leaves_before_it_is_read_was_no_try() {
    run(async {
        let mut on = Fixture::open().await;
        on.send(&["one", "two"]).await;
        on.holds(2).await;
        for abort in [true, false] {
            on.queue.credit(FIRST, 2, 1);
            on.queue.leave(FIRST, abort);
        }
        let batch = on.take(SECOND, 2).await;
        assert_eq!(bodies(&batch), ["one", "two"]);
        assert_eq!(batch[0].attempt, 1);
    });
}

#[test]
fn batch_has_no_more_bytes_than_a_frame_has_room_for() {
    run(async {
        let mut on = Fixture::open().await;
        let body = "x".repeat(BODY_MAX);
        on.send(&[body.as_str(); 10]).await;
        on.holds(10).await;
        assert_eq!(on.take(FIRST, 10).await.len(), 8);
        let rest = on.take(FIRST, 10).await;
        assert_eq!(rest.len(), 2);
        assert_eq!(rest[0].attempt, 1);
        assert_eq!(on.queue.peek(false, 10).await.unwrap().len(), 8);
    });
}

#[test]
fn batch_can_have_more_messages_than_are_read_at_a_time() {
    run(async {
        let mut on = Fixture::open().await;
        on.send(&["x"; 150]).await;
        on.holds(150).await;
        assert_eq!(on.take(FIRST, 150).await.len(), 150);
    });
}

#[test]
fn messages_that_are_not_even_read_for_a_large_batch_have_not_been_tried() {
    run(async {
        let mut on = Fixture::open().await;
        let large = "x".repeat(BODY_MAX);
        on.send(&[large.as_str(); 80]).await;
        on.holds(80).await;
        assert_eq!(on.take(FIRST, 80).await.len(), 8);
        let rest = on.take(FIRST, 80).await;
        assert_eq!((rest[0].id.as_str(), rest[0].attempt), ("default-9", 1));
    });
}

#[test]
fn batch_of_messages_that_are_gone_costs_no_credit() {
    run(async {
        let mut on = Fixture::open().await;
        on.send(&["one"]).await;
        on.holds(1).await;
        on.meddle("DELETE FROM _wrun_message");
        on.queue.credit(FIRST, 1, 1);
        on.holds(0).await;
        on.send(&["two"]).await;
        assert_eq!(bodies(&on.next().await.1), ["two"]);
    });
}

#[test]
fn messages_that_cannot_be_read_are_delivered_once_they_can() {
    run(async {
        let mut on = Fixture::open().await;
        on.send(&["one"]).await;
        on.holds(1).await;
        on.break_database();
        on.queue.credit(FIRST, 1, 1);
        // Until the batch is taken back.
        while on.queue.desk.lanes.borrow().counts().in_flight > 0 {
            tokio::task::yield_now().await;
        }
        on.mend_database();
        assert_eq!(on.next().await.1[0].attempt, 1);
    });
}

#[test]
fn outcomes_that_cannot_be_written_are_written_once_they_can() {
    run(async {
        let mut on = Fixture::open().await;
        on.send(&["one", "two"]).await;
        let batch = on.take(FIRST, 2).await;
        on.break_database();
        on.settle(FIRST, &batch[0], Outcome::Ack);
        let failing = on
            .sqlite
            .settle("jobs".to_owned(), vec![Change::Remove { id: 1 }]);
        failing.await.unwrap_err();
        on.settle(FIRST, &batch[1], Outcome::Dead("no".to_owned()));
        on.mend_database();
        let rows = on.rows().await;
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].queue, "jobs.dead");
        assert_eq!(on.status().await.dead, 1);
    });
}

#[test]
fn dead_letters_tell_why_and_can_be_sent_back() {
    run(async {
        let mut on = Fixture::open().await;
        on.send(&["one", "two"]).await;
        for delivery in on.take(FIRST, 2).await {
            on.settle(FIRST, &delivery, Outcome::Dead("no such order".to_owned()));
        }
        let on = &mut on.reopen().await;
        assert_eq!(on.status().await.dead, 2);
        let letters = on.queue.peek(true, 10).await.unwrap();
        let reason = ("wrun-dead-reason".to_owned(), "no such order".to_owned());
        assert!(letters[0].headers.contains(&reason));
        assert_eq!(letters[0].attempts, 1);

        assert_eq!(on.queue.redrive(1).await, Ok(1));
        let again = on.take_one(FIRST).await;
        assert_eq!((again.id.as_str(), again.attempt), ("default-1", 1));
        assert_eq!(on.status().await.dead, 1);
        assert_eq!(on.queue.redrive(10).await, Ok(1));
        assert_eq!(on.queue.redrive(10).await, Ok(0));
    });
}

#[test]
fn dead_letters_can_be_deleted() {
    run(async {
        let mut on = Fixture::open().await;
        on.send(&["one", "two"]).await;
        let delivery = on.take_one(FIRST).await;
        on.settle(FIRST, &delivery, Outcome::Dead(String::new()));
        on.queue.flush().await;
        assert_eq!(on.queue.purge(true).await, Ok(1));
        let status = on.status().await;
        assert_eq!((status.messages, status.dead), (1, 0));
    });
}

#[test]
fn purge_deletes_what_nobody_is_handling() {
    run(async {
        let mut on = Fixture::open().await;
        on.send(&["one", "two", "three"]).await;
        on.holds(3).await;
        let delivery = on.take_one(FIRST).await;
        assert_eq!(on.queue.purge(false).await, Ok(2));
        assert_eq!(on.queue.purge(false).await, Ok(0));
        on.settle(FIRST, &delivery, Outcome::Retry(None));
        assert_eq!(on.take_one(FIRST).await.id, delivery.id);
        assert_eq!(on.rows().await.len(), 1);
    });
}

#[test]
fn purge_that_fails_deletes_nothing() {
    run(async {
        let mut on = Fixture::open().await;
        on.send(&["one", "two"]).await;
        on.holds(2).await;
        on.break_database();
        on.queue.purge(false).await.unwrap_err();
        on.mend_database();
        assert_eq!(bodies(&on.take(FIRST, 2).await), ["one", "two"]);
    });
}

#[test]
fn outcome_for_what_is_no_delivery_is_passed_over() {
    run(async {
        let mut on = Fixture::open().await;
        on.send(&["one"]).await;
        let delivery = on.take_one(FIRST).await;
        for id in [
            "",
            "default",
            "default-",
            "other-1",
            "default-x",
            "default-2",
        ] {
            let delivery = Delivery {
                id: id.to_owned(),
                ..delivery.clone()
            };
            on.settle(FIRST, &delivery, Outcome::Ack);
        }
        on.settle(SECOND, &delivery, Outcome::Ack);
        assert_eq!(on.rows().await.len(), 1);
    });
}

#[test]
fn delivery_is_extended_only_by_its_session_and_within_the_limit() {
    run(async {
        let mut on = Fixture::open().await;
        on.send(&["one"]).await;
        let id = on.take_one(FIRST).await.id;
        let most = EXTEND_MAX.as_millis() as u32;
        assert_eq!(on.queue.extend(FIRST, &id, most), Ok(()));
        assert_eq!(on.queue.extend(SECOND, &id, 1), Err(QueueError::NotYours));
        assert_eq!(
            on.queue.extend(FIRST, "default-", 1),
            Err(QueueError::NotYours)
        );
        let too_long = on.queue.extend(FIRST, &id, most + 1);
        assert!(matches!(too_long, Err(QueueError::Invalid(_))));
    });
}

#[test]
fn status_tells_how_the_queue_stands() {
    run(async {
        let mut on = Fixture::open().await;
        on.send(&["one", "two"]).await;
        on.holds(2).await;
        on.take_one(FIRST).await;
        let status = on.status().await;
        let expected = QueueStatus {
            queue: "jobs".to_owned(),
            messages: 2,
            ready: 1,
            delayed: 0,
            in_flight: 1,
            dead: 0,
            consumers: 1,
            oldest_ms: status.oldest_ms,
        };
        assert_eq!(status, expected);
    });
}

#[test]
fn new_settings_hold_from_then_on() {
    run(async {
        let mut on = Fixture::open().await;
        on.send(&["one"]).await;
        let settings = shared::Queue {
            database: "default".to_owned(),
            max_depth: 1000,
            max_attempts: 1,
            visibility_timeout: Duration::from_secs(30),
            backoff: Duration::ZERO,
            backoff_max: Duration::ZERO,
            bound: None,
        };
        on.queue.configure(&settings);
        let delivery = on.take_one(FIRST).await;
        assert_eq!(delivery.max_attempts, 1);
        on.settle(FIRST, &delivery, Outcome::Retry(None));
        assert_eq!(on.rows().await[0].queue, "jobs.dead");
    });
}

#[test]
fn tasks_end_with_the_queue() {
    run(async {
        let on = Fixture::open().await;
        let inner = Rc::downgrade(&on.queue.desk);
        on.passing_on.abort();
        drop(on);
        while inner.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    });
}
