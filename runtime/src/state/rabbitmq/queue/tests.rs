//! What is RabbitMQ's own: servers that share a queue, other programs, and connections that break, on a real one.

use super::*;
use crate::state::lock::SessionId;
use crate::state::queue::{Delivery, Outcome, Settled};
use lapin::BasicProperties;
use lapin::options::{BasicGetOptions, BasicPublishOptions};
use lapin::types::{AMQPValue, FieldTable};
use std::time::Duration;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::task::LocalSet;
use tokio::time::timeout;
use wrun_tests::rabbitmq::Rabbit;

const FIRST: SessionId = SessionId(1);
const SECOND: SessionId = SessionId(2);

/// Nothing in these tests takes longer.
const DEADLINE: Duration = Duration::from_secs(120);

/// Nothing comes for so long.
const QUIET: Duration = Duration::from_millis(500);

/// One server of wrun's.
struct Server {
    queue: RabbitQueue,
    delivered: UnboundedReceiver<(SessionId, Vec<Delivery>)>,
}

impl Server {
    async fn new(rabbit: &Rabbit, label: &str) -> Self {
        let (deliver, delivered) = mpsc::unbounded_channel();
        let sink = Rc::new(move |session, batch| drop(deliver.send((session, batch))));
        let address = Address::parse(&rabbit.url("/")).unwrap();
        let queue = RabbitQueue::new(label, &settings(), address, sink);
        queue.prepare(false).await.unwrap();
        Self { queue, delivered }
    }

    /// Waits for the next message of a batch of one.
    async fn take(&mut self) -> Delivery {
        self.queue.credit(FIRST, 1, 1);
        let (_, mut batch) = self.delivered.recv().await.unwrap();
        assert_eq!(batch.len(), 1);
        batch.remove(0)
    }

    fn settle(&self, delivery: &Delivery, outcome: Outcome) {
        let settled = Settled {
            id: delivery.id.clone(),
            receipt: delivery.receipt,
            outcome,
        };
        self.queue.settle(FIRST, vec![settled]);
    }

    async fn send(&self, bodies: impl IntoIterator<Item = (Option<&str>, &str)>) -> Vec<String> {
        let message = |(key, body): (Option<&str>, &str)| Message {
            body: body.into(),
            key: key.map(str::to_owned),
            ..Message::default()
        };
        let messages = bodies.into_iter().map(message).collect();
        self.queue.send(messages).await.unwrap()
    }

    /// Waits until it stands like that.
    async fn stands(&self, so: impl Fn(&QueueStatus) -> bool) {
        while !self.queue.status().await.is_ok_and(|it| so(&it)) {
            tokio::task::yield_now().await;
        }
    }

    /// Has nothing come for a while.
    async fn is_quiet(&mut self) {
        let come = timeout(QUIET, self.delivered.recv()).await;
        assert!(come.is_err(), "{come:?}");
    }

    async fn channel(&self) -> lapin::Channel {
        let live = self.queue.store.line.live().unwrap();
        live.channel().await.unwrap()
    }
}

fn settings() -> shared::Queue {
    shared::Queue {
        database: "default".to_owned(),
        max_depth: 10_000,
        max_attempts: 3,
        visibility_timeout: Duration::from_secs(30),
        backoff: Duration::ZERO,
        backoff_max: Duration::ZERO,
        bound: None,
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, async {
        timeout(DEADLINE, test).await.expect("the test hangs");
    });
}

#[test]
fn key_keeps_its_order_over_servers_one_of_which_takes_at_a_time() {
    let Some(rabbit) = Rabbit::shared() else {
        return;
    };
    run(async {
        let mut one = Server::new(rabbit, "order").await;
        let mut other = Server::new(rabbit, "order").await;
        one.send([(Some("k"), "1"), (Some("k"), "2"), (Some("k"), "3")])
            .await;
        let first = one.take().await;
        other.queue.credit(FIRST, 1, 1);
        other.is_quiet().await;
        // It waits for its retry here, and the others of its key wait for it.
        one.settle(&first, Outcome::Retry(Some(50)));
        let again = one.take().await;
        assert_eq!((&*again.body, again.attempt), (&b"1"[..], 2));
        one.settle(&again, Outcome::Ack);
        let second = one.take().await;
        assert_eq!(second.body, b"2");
        // In good order or not: what it has not settled goes to the other one, in its order.
        one.queue.close().await;
        for body in [b"2", b"3"] {
            let (_, batch) = other.delivered.recv().await.unwrap();
            assert_eq!(batch[0].body, body);
            other.settle(&batch[0], Outcome::Ack);
            other.queue.credit(FIRST, 1, 1);
        }
    });
}

#[test]
fn messages_without_a_key_go_to_whoever_has_room() {
    let Some(rabbit) = Rabbit::shared() else {
        return;
    };
    run(async {
        let mut one = Server::new(rabbit, "room").await;
        let mut other = Server::new(rabbit, "room").await;
        one.send([(None, "1"), (None, "2")]).await;
        let mut bodies = [one.take().await.body, other.take().await.body];
        bodies.sort();
        assert_eq!(bodies, [b"1", b"2"]);
        one.is_quiet().await;
    });
}

#[test]
fn message_without_a_key_waits_for_its_retry_where_any_server_finds_it() {
    let Some(rabbit) = Rabbit::shared() else {
        return;
    };
    run(async {
        let mut one = Server::new(rabbit, "back").await;
        one.send([(None, "1")]).await;
        let first = one.take().await;
        let begin = std::time::Instant::now();
        one.settle(&first, Outcome::Retry(Some(2500)));
        one.stands(|it| it.delayed == 1 && it.in_flight == 0).await;
        one.queue.close().await;
        let mut other = Server::new(rabbit, "back").await;
        let again = other.take().await;
        assert_eq!((&again.id, again.attempt), (&first.id, 2));
        assert!(begin.elapsed() >= Duration::from_millis(2500));
    });
}

#[test]
fn delayed_message_with_a_key_takes_its_place_when_its_time_has_come() {
    let Some(rabbit) = Rabbit::shared() else {
        return;
    };
    run(async {
        let mut one = Server::new(rabbit, "place").await;
        let late = Message {
            key: Some("k".to_owned()),
            delay_ms: Some(1500),
            body: b"late".into(),
            ..Message::default()
        };
        one.queue.send(vec![late]).await.unwrap();
        one.send([(Some("k"), "early")]).await;
        let early = one.take().await;
        assert_eq!(early.body, b"early");
        one.settle(&early, Outcome::Ack);
        let late = one.take().await;
        assert_eq!(late.body, b"late");
        assert!(crate::state::wall_ms() >= late.sent_at_ms + 1500);
    });
}

#[test]
fn what_a_worker_handles_while_the_connection_breaks_is_not_handled_again() {
    let Some(rabbit) = Rabbit::shared() else {
        return;
    };
    run(async {
        let mut one = Server::new(rabbit, "adrift").await;
        one.send([(Some("k"), "1"), (Some("k"), "2"), (None, "3")])
            .await;
        let (first, third) = (one.take().await, one.take().await);
        let mut both = [&first, &third];
        both.sort_by_key(|it| it.body.clone());
        let number = one.queue.store.line.presence().number();
        one.queue.store.line.live().unwrap().close().await;
        one.queue.store.line.presence().is_other_than(number).await;
        // One is settled while there is no connection, and the other one after it has come again.
        one.settle(both[0], Outcome::Ack);
        one.queue.store.line.presence().back().await;
        let second = one.take().await;
        assert_eq!(second.body, b"2");
        one.settle(both[1], Outcome::Ack);
        one.settle(&second, Outcome::Ack);
        one.stands(|it| it.messages == 0).await;
        one.queue.credit(SECOND, 1, 1);
        one.is_quiet().await;
    });
}

#[test]
fn other_programs_can_send_to_it_and_read_what_was_sent() {
    let Some(rabbit) = Rabbit::shared() else {
        return;
    };
    run(async {
        let mut one = Server::new(rabbit, "others").await;
        let channel = one.channel().await;
        let mut headers = FieldTable::default();
        headers.insert("a".into(), AMQPValue::LongString("b".into()));
        let theirs = BasicProperties::default()
            .with_message_id("theirs-1".into())
            .with_content_type("text/plain".into())
            .with_headers(headers);
        let options = BasicPublishOptions::default();
        let sent = channel.basic_publish("".into(), "others".into(), options, b"theirs", theirs);
        sent.await.unwrap();
        let got = one.take().await;
        assert_eq!((&*got.id, &*got.body), ("theirs-1", &b"theirs"[..]));
        assert_eq!(got.content_type.as_deref(), Some("text/plain"));
        assert_eq!(got.headers, [("a".to_owned(), "b".to_owned())]);
        one.settle(&got, Outcome::Dead("no such order".to_owned()));
        one.stands(|it| it.dead == 1).await;
        let dead = channel.basic_get("others.dead".into(), BasicGetOptions::default());
        let dead = dead.await.unwrap().unwrap();
        assert_eq!(
            dead.properties.message_id().as_ref().unwrap().as_str(),
            "theirs-1"
        );
        let table = dead.properties.headers().as_ref().unwrap().inner();
        let reason = AMQPValue::LongString("no such order".into());
        assert_eq!(table.get("wrun-dead-reason"), Some(&reason));
    });
}

#[test]
fn message_whose_holders_go_away_again_and_again_is_a_dead_letter_in_the_end() {
    let Some(rabbit) = Rabbit::shared() else {
        return;
    };
    run(async {
        let one = Server::new(rabbit, "poison").await;
        one.send([(None, "1")]).await;
        for _ in 0..=50 {
            let channel = one.channel().await;
            let got = channel.basic_get("poison".into(), BasicGetOptions::default());
            got.await.unwrap().expect("it is handed out again");
            channel.close(200, "gone".into()).await.unwrap();
        }
        one.stands(|it| it.dead == 1 && it.messages == 0).await;
        let letters = one.queue.peek(true, 10).await.unwrap();
        let (name, reason) = &letters[0].headers[0];
        assert_eq!(name, "wrun-dead-reason");
        assert!(reason.contains("delivery_limit"), "{letters:?}");
        assert_eq!(one.queue.redrive(10).await, Ok(1));
        one.stands(|it| it.ready == 1).await;
    });
}

#[test]
fn several_messages_of_one_id_are_handled_one_at_a_time_and_the_rest_go_with_the_first() {
    let Some(rabbit) = Rabbit::shared() else {
        return;
    };
    run(async {
        let mut one = Server::new(rabbit, "twins").await;
        let once = || Message {
            dedup_id: Some("once".to_owned()),
            ..Message::default()
        };
        for _ in 0..3 {
            one.queue.send(vec![once()]).await.unwrap();
        }
        one.queue.credit(FIRST, 1, 3);
        let (_, batch) = one.delivered.recv().await.unwrap();
        one.stands(|it| it.messages == 3 && it.ready == 0).await;
        one.is_quiet().await;
        one.settle(&batch[0], Outcome::Ack);
        one.stands(|it| it.messages == 0).await;
    });
}

#[test]
fn messages_are_kept_and_the_queue_is_made_again_whatever_happens_to_the_server() {
    let Some(mut rabbit) = Rabbit::for_test() else {
        return;
    };
    run(async {
        let mut one = Server::new(&rabbit, "jobs").await;
        one.send([(Some("k"), "1"), (Some("k"), "2")]).await;
        let first = one.take().await;
        rabbit.kill();
        one.settle(&first, Outcome::Ack);
        let refused = one.queue.send(vec![Message::default()]).await;
        assert!(
            matches!(
                refused,
                Err(QueueError::Unavailable(_) | QueueError::OutcomeUnknown)
            ),
            "{refused:?}"
        );
        rabbit.start_again();
        one.queue.store.line.presence().back().await;
        let second = one.take().await;
        assert_eq!(second.body, b"2");
        one.settle(&second, Outcome::Ack);
        one.stands(|it| it.messages == 0).await;
        // Somebody deletes what it consists of.
        rabbit.control(&["delete_queue", "jobs"]);
        while one.queue.send(vec![Message::default()]).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(one.take().await.body.is_empty());
        // It is short of memory.
        rabbit.control(&["set_vm_memory_high_watermark", "0.000001"]);
        loop {
            match one.queue.send(vec![Message::default()]).await {
                Err(QueueError::Unavailable(why)) if why.contains("memory") => break,
                Ok(_) | Err(QueueError::OutcomeUnknown) => {}
                other => panic!("{other:?}"),
            }
        }
        rabbit.control(&["set_vm_memory_high_watermark", "0.6"]);
        while one.queue.send(vec![Message::default()]).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}
