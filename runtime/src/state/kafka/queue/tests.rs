//! What is Kafka's own: partitions that go from server to server, notes of what was done, other programs, brokers that are away; on
//! the mock cluster of its library.

use super::*;
use crate::state::lock::SessionId;
use crate::state::queue::{Delivery, Outcome, Settled};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use std::collections::BTreeMap;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::task::LocalSet;
use wrun_tests::kafka::Kafka;

const FIRST: SessionId = SessionId(1);

/// Nothing in these tests takes longer.
const DEADLINE: Duration = Duration::from_secs(90);

/// Nothing comes for so long.
const QUIET: Duration = Duration::from_millis(800);

/// One server of wrun's.
struct Server {
    queue: KafkaQueue,
    delivered: UnboundedReceiver<(SessionId, Vec<Delivery>)>,
}

impl Server {
    async fn new(url: &str) -> Self {
        let (deliver, delivered) = mpsc::unbounded_channel();
        let sink = Rc::new(move |session, batch| drop(deliver.send((session, batch))));
        let address = Address::parse(url).unwrap();
        let queue = KafkaQueue::new("jobs", &settings(), address, sink);
        queue.prepare(false).await.unwrap();
        Self { queue, delivered }
    }

    /// Waits for the next message of a batch of one.
    async fn take(&mut self) -> Delivery {
        self.queue.credit(FIRST, 1, 1);
        self.next().await
    }

    async fn next(&mut self) -> Delivery {
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

    /// Waits until all that was settled is committed.
    async fn is_committed(&self) {
        self.queue.desk.journal.flush().await;
        while self.queue.store.held.borrow().has_changed() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until it has so many partitions.
    async fn has(&self, count: usize) {
        while self.queue.store.held.borrow().parts.len() != count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Has nothing come for a while.
    async fn is_quiet(&mut self) {
        let come = timeout(QUIET, self.delivered.recv()).await;
        assert!(come.is_err(), "{come:?}");
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
fn partitions_are_shared_and_given_to_who_is_left_and_no_message_is_handled_twice() {
    let kafka = Kafka::start();
    let url = kafka.with_jobs(4);
    run(async {
        let (mut one, mut other) = (Server::new(&url).await, Server::new(&url).await);
        let keys: Vec<String> = (0..12).map(|number| format!("k{number}")).collect();
        for round in ["0", "1", "2"] {
            one.send(keys.iter().map(|key| (Some(key.as_str()), round)))
                .await;
        }
        one.queue.credit(FIRST, 1, 1);
        one.has(4).await;
        let mut handled: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
        let mut note = |delivery: &Delivery| {
            let of_key = handled.entry(delivery.key.clone().unwrap()).or_default();
            of_key.push(delivery.body.clone());
        };
        let first = one.next().await;
        // It is brought to an end before its partition goes.
        other.queue.credit(FIRST, 1, 1);
        one.settle(&first, Outcome::Ack);
        note(&first);
        one.has(2).await;
        other.has(2).await;
        for _ in 0..6 {
            for server in [&mut one, &mut other] {
                server.queue.credit(FIRST, 1, 1);
                let delivery = server.next().await;
                server.settle(&delivery, Outcome::Ack);
                note(&delivery);
            }
        }
        one.queue.close().await;
        other.has(4).await;
        for _ in 0..36 - 13 {
            other.queue.credit(FIRST, 1, 1);
            let delivery = other.next().await;
            other.settle(&delivery, Outcome::Ack);
            note(&delivery);
        }
        other.stands(|it| it.messages == 0).await;
        other.queue.credit(FIRST, 1, 9);
        other.is_quiet().await;
        assert_eq!(handled.len(), 12);
        for (key, bodies) in handled {
            assert_eq!(bodies, [b"0", b"1", b"2"], "{key}");
        }
    });
}

#[test]
fn tries_are_counted_on_when_a_server_ends_without_a_word() {
    let kafka = Kafka::start();
    let url = kafka.with_jobs(1);
    run(async {
        let mut one = Server::new(&url).await;
        one.send([(Some("k"), "1"), (Some("k"), "2")]).await;
        let first = one.take().await;
        one.settle(&first, Outcome::Retry(Some(0)));
        // What is known of the first try is written down before there is a second one.
        let second = one.take().await;
        assert_eq!(second.attempt, 2);
        drop(one);
        let mut other = Server::new(&url).await;
        let again = other.take().await;
        assert_eq!((&again.id, again.attempt), (&first.id, 2));
        let due = crate::state::wall_ms() + 1500;
        other.settle(&again, Outcome::Retry(Some(1500)));
        other.is_committed().await;
        drop(other);
        let mut third = Server::new(&url).await;
        let last = third.take().await;
        assert_eq!((&last.id, last.attempt), (&first.id, 3));
        // It has waited for its time, as it would have there.
        assert!(crate::state::wall_ms() >= due);
        third.settle(&last, Outcome::Retry(Some(0)));
        third.stands(|it| it.dead == 1).await;
        assert_eq!(third.take().await.body, b"2");
    });
}

#[test]
fn what_was_done_behind_one_that_is_not_is_not_done_again() {
    let kafka = Kafka::start();
    let url = kafka.with_jobs(1);
    run(async {
        let mut one = Server::new(&url).await;
        one.send(["0", "1", "2", "3"].map(|body| (None, body)))
            .await;
        let mut taken = Vec::new();
        for _ in 0..3 {
            taken.push(one.take().await);
        }
        one.settle(&taken[1], Outcome::Ack);
        one.settle(&taken[2], Outcome::Dead("no".to_owned()));
        one.is_committed().await;
        drop(one);
        let mut other = Server::new(&url).await;
        let bodies = [other.take().await.body, other.take().await.body];
        assert_eq!(bodies, [b"0", b"3"]);
        other.queue.credit(FIRST, 1, 1);
        other.is_quiet().await;
        other.stands(|it| it.messages == 2 && it.dead == 1).await;
    });
}

/// The control: the offset alone would have them done again.
#[test]
fn without_its_note_an_offset_says_nothing_of_what_was_done_behind_it() {
    let mut mark = mark::Mark::read(0, "");
    for offset in 0..3 {
        mark.see(offset);
    }
    mark.finish(1);
    let mut with_note = mark::Mark::read(mark.low(), &mark.note());
    let mut without = mark::Mark::read(mark.low(), "");
    assert_eq!((with_note.left(3), without.left(3)), (2, 3));
    with_note.see(0);
    without.see(0);
    assert_eq!(with_note.see(1), mark::Seen::Before);
    assert_eq!(without.see(1), mark::Seen::New(None));
}

#[test]
fn messages_far_behind_one_that_waits_wait_too_and_others_do_not() {
    let kafka = Kafka::start();
    let url = kafka.with_jobs(1);
    run(async {
        let mut one = Server::new(&url).await;
        let late = Message {
            delay_ms: Some(4000),
            body: b"late".into(),
            ..Message::default()
        };
        one.queue.send(vec![late]).await.unwrap();
        let window = usize::try_from(mark::WINDOW).unwrap();
        one.send((0..window).map(|_| (None, "early"))).await;
        for _ in 0..window - 1 {
            let early = one.take().await;
            assert_eq!(early.body, b"early");
            one.settle(&early, Outcome::Ack);
        }
        let first = one.take().await;
        assert_eq!(first.body, b"late");
        assert!(crate::state::wall_ms() >= first.sent_at_ms + 4000);
        one.settle(&first, Outcome::Ack);
        let last = one.take().await;
        one.settle(&last, Outcome::Ack);
        one.stands(|it| it.messages == 0).await;
    });
}

#[test]
fn several_messages_of_one_id_are_handled_one_at_a_time_and_the_rest_go_with_the_first() {
    let kafka = Kafka::start();
    let url = kafka.with_jobs(1);
    run(async {
        let mut one = Server::new(&url).await;
        let once = || Message {
            dedup_id: Some("once".to_owned()),
            ..Message::default()
        };
        for _ in 0..3 {
            one.queue.send(vec![once()]).await.unwrap();
        }
        one.queue.credit(FIRST, 1, 3);
        let first = one.next().await;
        one.is_quiet().await;
        one.stands(|it| it.messages == 3 && it.in_flight == 1).await;
        one.settle(&first, Outcome::Ack);
        one.stands(|it| it.messages == 0).await;
    });
}

#[test]
fn other_programs_can_send_to_it_and_read_what_was_sent() {
    let kafka = Kafka::start();
    let url = kafka.with_jobs(3);
    let prefix = url.rsplit('/').next().unwrap();
    let (topic, dead) = (format!("{prefix}jobs"), format!("{prefix}jobs.dead"));
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.brokers());
    let producer: BaseProducer = config.create().unwrap();
    let header = Header {
        key: "a",
        value: Some("b"),
    };
    let record = BaseRecord::to(&topic).key("k").payload("theirs");
    let record = record.headers(OwnedHeaders::new().insert(header));
    producer.send(record).map_err(|(error, _)| error).unwrap();
    producer.flush(DEADLINE).unwrap();
    run(async {
        let mut one = Server::new(&url).await;
        let got = one.take().await;
        assert_eq!(
            (got.key.as_deref(), &*got.body),
            (Some("k"), &b"theirs"[..])
        );
        assert_eq!(got.headers, [("a".to_owned(), "b".to_owned())]);
        assert!(
            got.id.starts_with("jobs:") && got.id.ends_with("-0"),
            "{}",
            got.id
        );
        one.settle(&got, Outcome::Dead("no such order".to_owned()));
        one.stands(|it| it.dead == 1 && it.messages == 0).await;
    });
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", kafka.brokers())
        .set("group.id", "theirs")
        .set("auto.offset.reset", "earliest");
    let consumer: BaseConsumer = config.create().unwrap();
    consumer.subscribe(&[&dead]).unwrap();
    // It also returns when it has got its partitions.
    let message = std::iter::repeat_with(|| consumer.poll(DEADLINE))
        .flatten()
        .next();
    let message = message.unwrap().unwrap();
    assert_eq!(
        (message.key(), message.payload()),
        (Some(&b"k"[..]), Some(&b"theirs"[..]))
    );
    let headers = message.headers().unwrap();
    let mut reasons = headers.iter().filter(|it| it.key == "wrun-dead-reason");
    assert_eq!(reasons.next().unwrap().value, Some(&b"no such order"[..]));
}

#[test]
fn dead_letters_of_all_partitions_are_shown_sent_back_and_deleted() {
    let kafka = Kafka::start();
    let url = kafka.with_jobs(3);
    run(async {
        let mut one = Server::new(&url).await;
        let keys = ["a", "b", "c", "d", "e"];
        let ids = one.send(keys.map(|key| (Some(key), key))).await;
        for _ in keys {
            let delivery = one.take().await;
            one.settle(&delivery, Outcome::Dead("no".to_owned()));
        }
        one.stands(|it| it.dead == 5 && it.messages == 0).await;
        let shown = one.queue.peek(true, 10).await.unwrap();
        let mut shown: Vec<_> = shown.into_iter().map(|it| it.id).collect();
        let mut sent = ids.clone();
        shown.sort();
        sent.sort();
        assert_eq!(shown, sent);
        assert_eq!(one.queue.redrive(2).await, Ok(2));
        for _ in 0..2 {
            let again = one.take().await;
            assert!(ids.contains(&again.id) && again.attempt == 1);
            assert_eq!(again.headers, []);
            one.settle(&again, Outcome::Ack);
        }
        assert_eq!(one.queue.purge(true).await, Ok(3));
        one.stands(|it| it.dead == 0 && it.messages == 0).await;
    });
}

#[test]
fn nothing_is_lost_while_brokers_are_away_and_who_sends_is_told_at_once() {
    let kafka = Kafka::start();
    let url = kafka.with_jobs(2);
    run(async {
        let mut one = Server::new(&url).await;
        one.send([(Some("k"), "1"), (Some("k"), "2")]).await;
        let first = one.take().await;
        kafka.down();
        while one.queue.why_away().is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let refused = one.queue.send(vec![Message::default()]).await;
        assert!(
            matches!(&refused, Err(QueueError::Unavailable(why)) if why.contains("no broker")),
            "{refused:?}"
        );
        // What workers handle goes on, and so does what is here.
        one.settle(&first, Outcome::Ack);
        let second = one.take().await;
        assert_eq!(second.body, b"2");
        kafka.up();
        one.queue.store.line.presence().back().await;
        one.settle(&second, Outcome::Ack);
        one.send([(Some("k"), "3")]).await;
        let mut next = one.take().await;
        // The group may have taken it for dead meanwhile: then what was handled and not committed is handled again.
        while next.body != b"3" {
            one.settle(&next, Outcome::Ack);
            next = one.take().await;
        }
        one.settle(&next, Outcome::Ack);
        one.stands(|it| it.messages == 0).await;
    });
}

#[test]
fn topics_that_brokers_make_by_themselves_are_there_with_the_queue() {
    let kafka = Kafka::start();
    run(async {
        let url = format!("kafka://{}/nowhere.", kafka.brokers());
        let sink = Rc::new(|_, _| {});
        let address = Address::parse(&url).unwrap();
        let queue = KafkaQueue::new("jobs", &settings(), address, sink);
        queue.prepare(false).await.unwrap();
        assert_eq!(queue.status().await.unwrap().messages, 0);
    });
}
