//! What is NATS' own: servers that share a queue, on a real one.

use super::*;
use crate::state::lock::SessionId;
use crate::state::queue::sharing::LEASE;
use crate::state::queue::{Delivery, Outcome, Settled};
use serde_json::json;
use std::time::Duration;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::task::LocalSet;
use tokio::time::timeout;
use wrun_tests::nats::Nats;

const FIRST: SessionId = SessionId(1);

/// Nothing in these tests takes longer.
const DEADLINE: Duration = Duration::from_secs(90);

/// One server of wrun's.
struct Server {
    queue: NatsQueue,
    delivered: UnboundedReceiver<(SessionId, Vec<Delivery>)>,
}

impl Server {
    async fn new(nats: &Nats, identity: &str) -> Self {
        Self::with(nats, identity, &settings()).await
    }

    async fn with(nats: &Nats, identity: &str, settings: &shared::Queue) -> Self {
        let (deliver, delivered) = mpsc::unbounded_channel();
        let sink = Rc::new(move |session, batch| drop(deliver.send((session, batch))));
        let address = Address::parse(&nats.url()).unwrap();
        let queue = NatsQueue::new("jobs", settings, address, identity, sink);
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

    async fn send(&self, bodies: impl IntoIterator<Item = (Option<&str>, String)>) -> Vec<String> {
        let message = |(key, body): (Option<&str>, String)| Message {
            body: body.into_bytes(),
            key: key.map(str::to_owned),
            ..Message::default()
        };
        let messages = bodies.into_iter().map(message).collect();
        self.queue.send(messages).await.unwrap()
    }

    /// Waits until it stands like that.
    async fn stands(&self, so: impl Fn(&QueueStatus) -> bool) {
        while !so(&self.queue.status().await.unwrap()) {
            tokio::task::yield_now().await;
        }
    }

    /// Waits until it has as many shards.
    async fn has_shards(&self, count: usize) {
        while self.queue.store.shards().len() != count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
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

/// Tests something on an empty server, if NATS is installed.
fn test(what: impl AsyncFnOnce(&mut Nats)) {
    let Some(mut nats) = Nats::for_test() else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, async {
        let test = timeout(DEADLINE, what(&mut nats));
        test.await.expect("the test hangs");
    });
}

/// Has two servers take messages, each of half of the shards.
async fn pair(nats: &Nats) -> [Server; 2] {
    let servers = [Server::new(nats, "a").await, Server::new(nats, "b").await];
    for server in &servers {
        server.queue.credit(FIRST, 1, 1);
    }
    for server in &servers {
        server.has_shards(8).await;
    }
    servers
}

/// Waits for a message that either of them gets, and tells who.
async fn either(servers: &mut [Server; 2]) -> (usize, Delivery) {
    let [one, other] = servers;
    tokio::select! {
        delivery = one.next() => (0, delivery),
        delivery = other.next() => (1, delivery),
    }
}

#[test]
fn servers_share_the_messages_and_each_key_stays_in_order() {
    test(async |nats| {
        let mut servers = pair(nats).await;
        let keys: Vec<String> = (0..8).map(|it| format!("k{it}")).collect();
        for n in 0..5 {
            let bodies = keys.iter().map(|key| (Some(&**key), n.to_string()));
            servers[n % 2].send(bodies).await;
        }
        let mut next = std::collections::HashMap::new();
        let mut handled = [0, 0];
        for _ in 0..40 {
            let (at, delivery) = either(&mut servers).await;
            let turn = next.entry(delivery.key.clone()).or_insert(0);
            assert_eq!(delivery.body, turn.to_string().into_bytes());
            *turn += 1;
            handled[at] += 1;
            servers[at].settle(&delivery, Outcome::Ack);
            servers[at].queue.credit(FIRST, 1, 1);
        }
        assert!(handled.iter().all(|&count| count > 0), "{handled:?}");
        servers[0].stands(|it| it.messages == 0).await;
    });
}

#[test]
fn shard_changes_hands_only_when_nothing_of_it_is_being_handled() {
    test(async |nats| {
        let mut one = Server::new(nats, "a").await;
        let keys: Vec<String> = (0..40).map(|it| format!("k{it}")).collect();
        for n in 0..2 {
            one.send(keys.iter().map(|key| (Some(&**key), n.to_string())))
                .await;
        }
        one.queue.credit(FIRST, 1, 40);
        let mut held = Vec::new();
        while held.len() < 40 {
            held.push(one.next().await);
        }
        let mut other = Server::new(nats, "b").await;
        other.queue.credit(FIRST, 1, 80);
        // Every shard has a message that is being handled.
        let waits = timeout(Duration::from_secs(2), other.delivered.recv());
        assert!(waits.await.is_err());
        assert_eq!(one.queue.status().await.unwrap().in_flight, 40);
        for delivery in &held {
            one.settle(delivery, Outcome::Ack);
        }
        other.has_shards(8).await;
        assert_eq!(other.next().await.body, b"1");
    });
}

#[test]
fn tries_are_known_to_the_server_that_has_the_message_next() {
    test(async |nats| {
        let mut one = Server::new(nats, "a").await;
        one.send([(Some("k"), "1".to_owned()), (Some("k"), "2".to_owned())])
            .await;
        let first = one.take().await;
        one.settle(&first, Outcome::Failed("a trap".to_owned()));
        one.queue.close().await;
        let mut other = Server::new(nats, "b").await;
        let again = timeout(LEASE / 2, other.take()).await.unwrap();
        assert_eq!((&again.id, again.attempt), (&first.id, 2));
        other.settle(&again, Outcome::Ack);
        assert_eq!(other.take().await.body, b"2");
        // What was written of its tries is gone with it.
        while nats.call(
            "$JS.API.STREAM.INFO.wrun-state_jobs",
            &json!({ "subjects_filter": "wrun.queue.jobs.tries.>" }),
        )["state"]["subjects"]
            .is_object()
        {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn messages_of_a_server_that_is_gone_come_to_another_once_its_lease_is_over() {
    test(async |nats| {
        let mut one = Server::new(nats, "a").await;
        one.send([(Some("k"), "1".to_owned()), (Some("k"), "2".to_owned())])
            .await;
        let first = one.take().await;
        // It ends without a word.
        drop(one);
        let mut other = Server::new(nats, "b").await;
        other.queue.credit(FIRST, 1, 1);
        let early = timeout(LEASE / 2, other.delivered.recv()).await;
        assert!(early.is_err());
        let again = other.next().await;
        assert_eq!((&again.id, again.attempt), (&first.id, 1));
        other.settle(&again, Outcome::Ack);
        assert_eq!(other.take().await.body, b"2");
    });
}

#[test]
fn lease_that_is_renewed_holds_for_longer_than_it_is() {
    test(async |nats| {
        let mut one = Server::new(nats, "a").await;
        one.send([(None, "1".to_owned())]).await;
        let first = one.take().await;
        let mut other = Server::new(nats, "b").await;
        other.queue.credit(FIRST, 1, 1);
        let longer = LEASE + Duration::from_secs(3);
        assert!(timeout(longer, other.delivered.recv()).await.is_err());
        one.settle(&first, Outcome::Ack);
        one.stands(|it| it.messages == 0).await;
    });
}

#[test]
fn state_process_that_is_replaced_hands_out_at_once_what_the_one_before_it_held() {
    test(async |nats| {
        let mut one = Server::new(nats, "a").await;
        one.send([(None, "1".to_owned())]).await;
        let first = one.take().await;
        drop(one);
        let mut again = Server::new(nats, "a").await;
        let second = timeout(LEASE / 2, again.take()).await.unwrap();
        assert_eq!((second.id, second.attempt), (first.id, 1));
    });
}

#[test]
fn server_whose_lease_was_taken_hands_out_nothing_and_begins_anew() {
    test(async |nats| {
        let mut one = Server::new(nats, "a").await;
        one.send([(None, "1".to_owned())]).await;
        let first = one.take().await;
        let holder = one.queue.store.tenure.borrow().holder.clone().unwrap();
        // As if it had stood still, and another one had found it gone.
        let found = nats.call(
            "$JS.API.STREAM.MSG.GET.wrun-state_jobs",
            &json!({ "last_by_subj": one.queue.store.names.holder(&holder) }),
        );
        let sequence = found["message"]["seq"].clone();
        let gone = nats.call(
            "$JS.API.STREAM.MSG.DELETE.wrun-state_jobs",
            &json!({ "seq": sequence }),
        );
        assert_eq!(gone["success"], true);
        // What it still handles is not its own any more.
        let again = one.take().await;
        assert_eq!(again.id, first.id);
        assert_ne!(again.receipt, first.receipt);
        one.settle(&first, Outcome::Dead("late".to_owned()));
        one.settle(&again, Outcome::Ack);
        one.stands(|it| it.messages == 0).await;
        assert_eq!(one.queue.status().await.unwrap().dead, 0);
    });
}

#[test]
fn delay_and_retry_of_one_key_hold_up_no_other_key_of_its_shard() {
    test(async |nats| {
        let mut one = Server::new(nats, "a").await;
        let shard = names::shard_of_key("k");
        let mut keys = (0..).map(|it| format!("other-{it}"));
        let beside = keys.find(|key| names::shard_of_key(key) == shard).unwrap();
        let late = Message {
            key: Some("k".to_owned()),
            delay_ms: Some(60_000),
            ..Message::default()
        };
        one.queue.send(vec![late]).await.unwrap();
        one.send([
            (Some("k"), "behind".to_owned()),
            (Some(&*beside), "1".to_owned()),
            (Some(&*beside), "2".to_owned()),
        ])
        .await;
        let first = one.take().await;
        assert_eq!(first.body, b"1");
        one.settle(&first, Outcome::Retry(Some(60_000)));
        one.send([(None, "free".to_owned())]).await;
        assert_eq!(one.take().await.body, b"free");
        one.stands(|it| it.delayed == 2 && it.ready == 0 && it.messages == 5)
            .await;
    });
}

#[test]
fn dead_letter_that_is_sent_back_keeps_its_id_and_is_behind_those_of_its_key() {
    test(async |nats| {
        let mut one = Server::new(nats, "a").await;
        let ids = one.send((0..2).map(|n| (Some("k"), n.to_string()))).await;
        let first = one.take().await;
        assert_eq!(first.id, ids[0]);
        one.settle(&first, Outcome::Dead(String::new()));
        one.stands(|it| it.dead == 1 && it.ready == 1).await;
        assert_eq!(one.queue.redrive(10).await, Ok(1));
        let second = one.take().await;
        assert_eq!(second.id, ids[1]);
        one.settle(&second, Outcome::Ack);
        let again = one.take().await;
        assert_eq!((&again.id, again.attempt), (&first.id, 1));
        assert_eq!(again.sent_at_ms, first.sent_at_ms);
        // And once more, within the time in which dedup ids are known.
        one.settle(&again, Outcome::Dead(String::new()));
        one.stands(|it| it.dead == 1 && it.messages == 0).await;
        assert_eq!(one.queue.redrive(10).await, Ok(1));
        assert_eq!(one.take().await.id, first.id);
    });
}

#[test]
fn message_that_is_deleted_once_more_is_found_to_be_gone_wherever_it_was() {
    test(async |nats| {
        let one = Server::new(nats, "a").await;
        one.send((0..4).map(|n| (None, n.to_string()))).await;
        let Store { line, names, .. } = &*one.queue.store;
        // In the middle, in front, at the end.
        for sequence in [2, 1, 4] {
            assert!(line.delete(&names.messages, sequence).await.unwrap());
            assert!(!line.delete(&names.messages, sequence).await.unwrap());
        }
        assert_eq!(nats.messages(&names.messages), 1);
    });
}

#[test]
fn dead_letter_is_there_once_however_often_it_is_written() {
    test(async |nats| {
        let mut one = Server::new(nats, "a").await;
        one.send([(None, "1".to_owned())]).await;
        let first = one.take().await;
        let store = &one.queue.store;
        let id = one.queue.desk.shelf.inside(&first.id).unwrap();
        let row = store.index.borrow().get(id).cloned().unwrap();
        let found = store.line.get(&store.names.messages, id.cast_unsigned());
        let headers = found.await.unwrap().unwrap().headers.unwrap();
        // As if the answer had been lost before.
        let dead = envelope::Dead {
            reason: "no".to_owned(),
            attempts: 1,
            at_ms: 1,
        };
        let once = format!("dead-{id}-{}", row.at_ns);
        let letter = envelope::sent_on(&headers, Some(&dead), (id, 1), &once);
        let subject = store.names.subject("dead");
        store
            .line
            .publish(&subject, letter, "1".into())
            .await
            .unwrap();
        one.settle(&first, Outcome::Dead("no".to_owned()));
        one.stands(|it| it.messages == 0).await;
        assert_eq!(one.queue.status().await.unwrap().dead, 1);
    });
}

#[test]
fn servers_share_dedup_ids_and_the_limit_of_messages() {
    test(async |nats| {
        let two = shared::Queue {
            max_depth: 2,
            ..settings()
        };
        let one = Server::with(nats, "a", &two).await;
        let other = Server::with(nats, "b", &two).await;
        let once = Message {
            dedup_id: Some("once".to_owned()),
            ..Message::default()
        };
        let first = one.queue.send(vec![once.clone()]).await.unwrap();
        let ids = other
            .queue
            .send(vec![once.clone(), Message::default()])
            .await
            .unwrap();
        assert_eq!(ids[0], first[0]);
        let full = one.queue.send(vec![Message::default()]).await;
        assert_eq!(full, Err(QueueError::Full));
        // It takes no room.
        assert_eq!(one.queue.send(vec![once]).await, Ok(first));
    });
}

#[test]
fn limit_that_is_lowered_deletes_nothing_and_holds() {
    test(async |nats| {
        let one = Server::new(nats, "a").await;
        one.send((0..5).map(|n| (None, n.to_string()))).await;
        let two = shared::Queue {
            max_depth: 2,
            ..settings()
        };
        let other = Server::with(nats, "b", &two).await;
        let once = Message {
            dedup_id: Some("once".to_owned()),
            ..Message::default()
        };
        for message in [Message::default(), once] {
            let full = other.queue.send(vec![message]).await;
            assert_eq!(full, Err(QueueError::Full));
        }
        assert_eq!(other.queue.status().await.unwrap().messages, 5);
    });
}

#[test]
fn purge_deletes_the_messages_of_all_servers_and_of_none() {
    test(async |nats| {
        let mut servers = pair(nats).await;
        servers[0]
            .send((0..40).map(|n| (None, n.to_string())))
            .await;
        // Each has one in its hands.
        servers[0].next().await;
        servers[1].next().await;
        servers[0]
            .stands(|it| it.in_flight == 2 && it.ready == 38)
            .await;
        assert_eq!(servers[1].queue.purge(false).await, Ok(38));
        servers[0]
            .stands(|it| it.messages == 2 && it.ready == 0)
            .await;
        for server in &servers {
            server.queue.close().await;
        }
        let idle = Server::new(nats, "c").await;
        idle.stands(|it| it.messages == 2 && it.ready == 2).await;
        assert_eq!(idle.queue.purge(false).await, Ok(2));
    });
}

#[test]
fn message_of_another_program_is_handled_and_what_wrun_sends_can_be_read() {
    test(async |nats| {
        let mut one = Server::new(nats, "a").await;
        let shard = names::shard_of_key("order-1");
        let subject = format!("wrun.queue.jobs.messages.{shard}");
        let headers = [
            ("Wrun-Key", "order-1"),
            ("Content-Type", "text/plain"),
            ("trace", "x"),
        ];
        let taken = nats.publish(&subject, &headers, "from elsewhere");
        let delivery = one.take().await;
        assert_eq!(delivery.id, format!("jobs:{}", taken["seq"]));
        assert_eq!(
            (&*delivery.body, delivery.key.as_deref()),
            (&b"from elsewhere"[..], Some("order-1"))
        );
        assert_eq!(delivery.content_type.as_deref(), Some("text/plain"));
        assert_eq!(delivery.headers, [("trace".to_owned(), "x".to_owned())]);
        one.settle(&delivery, Outcome::Ack);
        one.stands(|it| it.messages == 0).await;
        one.queue.close().await;
        let sender = Server::new(nats, "b").await;
        sender
            .send([(Some("order-2"), "from wrun".to_owned())])
            .await;
        let found = nats.call(
            "$JS.API.STREAM.MSG.GET.wrun_jobs",
            &json!({ "last_by_subj": format!("wrun.queue.jobs.messages.{}", names::shard_of_key("order-2")) }),
        );
        assert_eq!(found["message"]["data"], "ZnJvbSB3cnVu");
    });
}

#[test]
fn message_that_is_larger_than_the_server_takes_is_refused() {
    test(async |nats| {
        let one = Server::new(nats, "a").await;
        let largest = Message {
            body: vec![0; 1 << 20],
            headers: vec![("a".to_owned(), "b".repeat(16_000))],
            ..Message::default()
        };
        one.queue.send(vec![largest.clone()]).await.unwrap();
        nats.set("max_payload: 1MB");
        while one.queue.why_away().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        while one.queue.why_away().is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let refused = one.queue.send(vec![largest]).await;
        assert!(
            matches!(refused, Err(QueueError::TooLarge(_))),
            "{refused:?}"
        );
        one.send([(None, "smaller".to_owned())]).await;
        assert_eq!(one.queue.status().await.unwrap().messages, 2);
    });
}

#[test]
fn nothing_is_sent_later_that_was_given_to_a_server_that_is_away() {
    test(async |nats| {
        let one = Server::new(nats, "a").await;
        nats.pause();
        // It is on its way, and nobody knows how far it came.
        let sent = one.queue.send(vec![Message::default()]).await;
        assert_eq!(sent, Err(QueueError::OutcomeUnknown));
        while one.queue.why_away().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for _ in 0..3 {
            let refused = one.queue.send(vec![Message::default()]).await;
            assert!(
                matches!(refused, Err(QueueError::Unavailable(_))),
                "{refused:?}"
            );
        }
        nats.resume();
        while one.queue.why_away().is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let messages = one.queue.status().await.unwrap().messages;
        assert!(messages <= 1, "{messages}");
    });
}

#[test]
fn messages_are_handled_after_nats_was_killed_in_between() {
    test(async |nats| {
        let mut one = Server::new(nats, "a").await;
        let ids = one.send((0..3).map(|n| (Some("k"), n.to_string()))).await;
        let first = one.take().await;
        nats.kill();
        one.settle(&first, Outcome::Ack);
        nats.start_again();
        let mut seen = Vec::new();
        while seen.last() != ids.last() {
            let delivery = one.take().await;
            one.settle(&delivery, Outcome::Ack);
            seen.push(delivery.id);
        }
        assert_eq!(seen, ids[1..]);
    });
}

#[test]
fn server_without_jetstream_is_of_no_use() {
    let Some(nats) = Nats::without_jetstream() else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, async {
        let address = Address::parse(&nats.url()).unwrap();
        let sink = Rc::new(|_, _| ());
        let queue = NatsQueue::new("jobs", &settings(), address, "a", sink);
        let failure = queue.prepare(false).await.unwrap_err();
        assert!(failure.message.contains("JetStream"), "{}", failure.message);
    });
}

/// What came of the messages of each key, which are numbered.
#[derive(Default)]
struct Log {
    /// How many of each key, from the first on, were handled.
    handled: std::collections::HashMap<String, usize>,
    faults: Vec<String>,
}

impl Log {
    /// A message may come again, but none before the one in front of it was handled.
    fn comes(&mut self, delivery: &Delivery) {
        let handled = self.handled.get(&key(delivery)).copied().unwrap_or(0);
        if number(delivery) > handled {
            let text = format!("{} comes after {handled}", number(delivery));
            self.faults.push(text);
        }
    }

    fn is_handled(&mut self, delivery: &Delivery) {
        let handled = self.handled.entry(key(delivery)).or_default();
        *handled = (*handled).max(number(delivery) + 1);
    }
}

fn key(delivery: &Delivery) -> String {
    delivery.key.clone().unwrap()
}

fn number(delivery: &Delivery) -> usize {
    str::from_utf8(&delivery.body).unwrap().parse().unwrap()
}

#[test]
fn keys_keep_their_order_whoever_ends_and_whatever_fails() {
    const KEYS: usize = 6;
    const EACH: usize = 15;
    test(async |nats| {
        let mut servers = pair(nats).await;
        let keys: Vec<String> = (0..KEYS).map(|it| format!("k{it}")).collect();
        for n in 0..EACH {
            let bodies = keys.iter().map(|key| (Some(&**key), n.to_string()));
            servers[0].send(bodies).await;
        }
        let mut log = Log::default();
        for turn in 0.. {
            if log.handled.values().sum::<usize>() == KEYS * EACH {
                break;
            }
            match turn {
                // Its state process is replaced, what it was handling with it.
                20 | 60 => servers[1] = Server::new(nats, "b").await,
                40 => {
                    nats.kill();
                    nats.start_again();
                }
                // It ends in good order, and another one comes.
                80 => {
                    servers[0].queue.close().await;
                    servers[0] = Server::new(nats, "c").await;
                }
                _ => {}
            }
            for server in &servers {
                server.queue.credit(FIRST, 1, 1);
            }
            let (at, delivery) = either(&mut servers).await;
            log.comes(&delivery);
            let outcome = match (delivery.attempt, turn % 3) {
                (1, 0) => Outcome::Retry(Some(0)),
                (1, 1) => Outcome::Failed("a trap".to_owned()),
                _ => {
                    log.is_handled(&delivery);
                    Outcome::Ack
                }
            };
            servers[at].settle(&delivery, outcome);
        }
        assert_eq!(log.faults, [""; 0]);
        servers[0]
            .stands(|it| it.messages == 0 && it.dead == 0)
            .await;
        // The control: an order that was another is noticed.
        let mut delivery = Delivery {
            id: String::new(),
            receipt: 0,
            queue: String::new(),
            key: Some("k0".to_owned()),
            attempt: 1,
            max_attempts: 1,
            sent_at_ms: 0,
            deadline_ms: 0,
            content_type: None,
            headers: Vec::new(),
            body: EACH.to_string().into_bytes(),
        };
        log.comes(&delivery);
        assert_eq!(log.faults.len(), 0);
        delivery.body = (EACH + 1).to_string().into_bytes();
        log.comes(&delivery);
        assert_eq!(log.faults.len(), 1);
    });
}
