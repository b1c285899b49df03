//! What is Redis' own: servers that share a queue, on a real one.

use super::*;
use crate::state::lock::SessionId;
use crate::state::queue::sharing::LEASE;
use crate::state::queue::{Delivery, Outcome, Settled};
use std::time::Duration;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::task::LocalSet;
use tokio::time::timeout;
use wrun_tests::redis::Redis;

const FIRST: SessionId = SessionId(1);

/// Nothing in these tests takes longer.
const DEADLINE: Duration = Duration::from_secs(60);

/// One server of wrun's.
struct Server {
    queue: RedisQueue,
    delivered: UnboundedReceiver<(SessionId, Vec<Delivery>)>,
}

impl Server {
    async fn new(redis: &Redis, identity: &str) -> Self {
        let (deliver, delivered) = mpsc::unbounded_channel();
        let sink = Rc::new(move |session, batch| drop(deliver.send((session, batch))));
        let address = Address::parse(&redis.url(0)).unwrap();
        let queue = RedisQueue::new("jobs", &settings(), address, identity, sink);
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

    async fn send(&self, bodies: impl IntoIterator<Item = (Option<&str>, String)>) {
        let message = |(key, body): (Option<&str>, String)| Message {
            body: body.into_bytes(),
            key: key.map(str::to_owned),
            ..Message::default()
        };
        let messages = bodies.into_iter().map(message).collect();
        self.queue.send(messages).await.unwrap();
    }

    /// Waits until it stands like that.
    async fn stands(&self, so: impl Fn(&QueueStatus) -> bool) {
        while !so(&self.queue.status().await.unwrap()) {
            tokio::task::yield_now().await;
        }
    }

    fn holder(&self) -> String {
        let holder = self.queue.store.holder.borrow().clone();
        holder.unwrap()
    }
}

pub(super) fn settings() -> shared::Queue {
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

/// Returns what a part of the queue is called.
pub(super) fn part(name: &str) -> String {
    format!("wrun:{{jobs}}:queue:{name}")
}

fn run(redis: Option<Redis>, test: impl AsyncFnOnce(&mut Redis)) {
    let Some(mut redis) = redis else { return };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, async {
        let test = timeout(DEADLINE, test(&mut redis));
        test.await.expect("the test hangs");
    });
}

/// Tests something on an empty server, if Redis is installed.
pub(super) fn test(what: impl AsyncFnOnce(&mut Redis)) {
    run(Redis::for_test(), what);
}

#[test]
fn key_keeps_its_order_over_two_servers() {
    test(async |redis| {
        let mut servers = [Server::new(redis, "a").await, Server::new(redis, "b").await];
        let bodies = (0..20).map(|n| (Some("k"), n.to_string()));
        servers[0].send(bodies).await;
        for n in 0..20 {
            let server = &mut servers[n % 2];
            let delivery = server.take().await;
            assert_eq!(delivery.body, n.to_string().into_bytes());
            // The other one gets nothing meanwhile, and has its credit.
            server.settle(&delivery, Outcome::Ack);
        }
    });
}

#[test]
fn message_behind_its_key_is_not_handed_out_by_another_server() {
    test(async |redis| {
        let mut one = Server::new(redis, "a").await;
        let mut other = Server::new(redis, "b").await;
        one.send([(Some("k"), "1".to_owned()), (Some("k"), "2".to_owned())])
            .await;
        let first = one.take().await;
        other.send([(None, "free".to_owned())]).await;
        assert_eq!(other.take().await.body, b"free");
        // It waits for the retry of the first, too.
        one.settle(&first, Outcome::Retry(Some(100)));
        let again = other.take().await;
        assert_eq!((&*again.body, again.attempt), (&b"1"[..], 2));
        other.settle(&again, Outcome::Ack);
        assert_eq!(other.take().await.body, b"2");
    });
}

#[test]
fn keys_that_begin_alike_or_are_empty_are_different_ones() {
    test(async |redis| {
        let mut one = Server::new(redis, "a").await;
        let keys = ["", " ", "k", "k\u{1}", "k\n", "kk", "ü"];
        for turn in ["1", "2"] {
            let bodies = keys.iter().map(|key| (Some(*key), turn.to_owned()));
            one.send(bodies).await;
        }
        let mut first = Vec::new();
        for _ in keys {
            first.push(one.take().await);
        }
        assert!(first.iter().all(|it| it.body == b"1"), "{first:?}");
        one.stands(|it| it.ready == 0).await;
        let of_empty = first.iter().find(|it| it.key.as_deref() == Some(""));
        one.settle(of_empty.unwrap(), Outcome::Ack);
        let next = one.take().await;
        assert_eq!((next.key.as_deref(), &*next.body), (Some(""), &b"2"[..]));
    });
}

#[test]
fn messages_of_a_server_that_is_gone_come_to_another_once_its_lease_is_over() {
    test(async |redis| {
        let mut one = Server::new(redis, "a").await;
        let mut other = Server::new(redis, "b").await;
        one.send([(Some("k"), "1".to_owned()), (Some("k"), "2".to_owned())])
            .await;
        let first = one.take().await;
        // It ends without a word.
        drop(one);
        let again = other.take().await;
        assert_eq!((&again.id, again.attempt), (&first.id, 2));
        other.settle(&again, Outcome::Ack);
        assert_eq!(other.take().await.body, b"2");
    });
}

#[test]
fn lease_that_is_renewed_holds_for_longer_than_it_is() {
    test(async |redis| {
        let mut one = Server::new(redis, "a").await;
        let mut other = Server::new(redis, "b").await;
        one.send([(None, "1".to_owned())]).await;
        let first = one.take().await;
        other.queue.credit(FIRST, 1, 1);
        let longer = LEASE + Duration::from_secs(3);
        assert!(timeout(longer, other.delivered.recv()).await.is_err());
        one.settle(&first, Outcome::Ack);
        one.stands(|it| it.messages == 0).await;
    });
}

#[test]
fn state_process_that_is_replaced_hands_out_at_once_what_the_one_before_it_held() {
    test(async |redis| {
        let mut one = Server::new(redis, "a").await;
        one.send([(None, "1".to_owned())]).await;
        let first = one.take().await;
        drop(one);
        let mut again = Server::new(redis, "a").await;
        let second = timeout(LEASE / 2, again.take()).await.unwrap();
        assert_eq!((second.id, second.attempt), (first.id, 1));
    });
}

#[test]
fn server_whose_lease_ran_out_settles_nothing_any_more() {
    test(async |redis| {
        let mut one = Server::new(redis, "a").await;
        let other = Server::new(redis, "b").await;
        one.send([(None, "1".to_owned())]).await;
        let first = one.take().await;
        // As if it had stood still, and another one had given back what it held.
        redis.call(&["ZADD", &part("leases"), "1", &one.holder()]);
        assert!(other.queue.store.reap().await.unwrap());
        let again = one.take().await;
        assert_eq!((&again.id, again.attempt), (&first.id, 2));
        one.settle(&first, Outcome::Ack);
        assert_eq!(one.queue.extend(FIRST, &again.id, 1000), Ok(()));
        one.settle(&again, Outcome::Dead("it is the second".to_owned()));
        one.stands(|it| it.dead == 1).await;
    });
}

#[test]
fn claim_whose_answer_was_lost_is_given_up() {
    test(async |redis| {
        let mut one = Server::new(redis, "a").await;
        one.send([(None, "1".to_owned())]).await;
        let first = one.take().await;
        one.settle(&first, Outcome::Retry(Some(0)));
        one.stands(|it| it.ready == 1).await;
        // Held by this server, which does not know.
        let id = one.queue.desk.shelf.inside(&first.id).unwrap().to_string();
        redis.call(&["ZREM", &part("due"), &id]);
        redis.call(&["HSET", &part("held"), &id, &format!("{} 99", one.holder())]);
        redis.call(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        assert_eq!(one.take().await.attempt, 2);
    });
}

#[test]
fn outcome_that_comes_late_changes_nothing_in_a_claim_after_it() {
    test(async |redis| {
        let mut one = Server::new(redis, "a").await;
        one.send([(None, "1".to_owned())]).await;
        let first = one.take().await;
        let store = &one.queue.store;
        let id = one.queue.desk.shelf.inside(&first.id).unwrap();
        let number = store.claims.borrow()[&id];
        let outcome = Change::Retry {
            id,
            attempts: 1,
            ready_at_ms: 0,
            alone: false,
        };
        for (number, held) in [(number - 1, 1), (number, 0)] {
            store.claims.borrow_mut().insert(id, number);
            store.write(std::slice::from_ref(&outcome)).await.unwrap();
            assert_eq!(store.status().await.unwrap().in_flight, held);
        }
    });
}

#[test]
fn claim_looks_at_the_first_of_a_key_alone() {
    test(async |redis| {
        let mut one = Server::new(redis, "a").await;
        for _ in 0..5 {
            one.send((0..1000).map(|n| (Some("k"), n.to_string())))
                .await;
        }
        let due = part("due");
        assert_eq!(redis.call(&["ZCARD", &due]), ":1");
        let first = one.take().await;
        assert_eq!(redis.call(&["ZCARD", &due]), ":0");
        one.settle(&first, Outcome::Ack);
        assert_eq!(one.take().await.body, b"1");
    });
}

#[test]
fn dead_letter_that_is_sent_back_is_before_those_of_its_key_that_came_after_it() {
    test(async |redis| {
        let mut one = Server::new(redis, "a").await;
        let bodies = (0..3).map(|n| (Some("k"), n.to_string()));
        one.send(bodies).await;
        let first = one.take().await;
        one.settle(&first, Outcome::Dead(String::new()));
        one.stands(|it| it.dead == 1 && it.ready == 1).await;
        assert_eq!(one.queue.redrive(10).await, Ok(1));
        let again = one.take().await;
        assert_eq!((&again.id, again.attempt), (&first.id, 1));
        one.stands(|it| it.ready == 0 && it.messages == 3).await;
    });
}

#[test]
fn servers_share_dedup_ids_and_the_limit_of_messages() {
    test(async |redis| {
        let one = Server::new(redis, "a").await;
        let other = Server::new(redis, "b").await;
        let once = Message {
            dedup_id: Some("once".to_owned()),
            ..Message::default()
        };
        let first = one.queue.send(vec![once.clone()]).await.unwrap();
        one.queue.store.max_depth.set(2);
        other.queue.store.max_depth.set(2);
        let two = vec![once.clone(), Message::default()];
        let ids = other.queue.send(two.clone()).await.unwrap();
        assert_eq!(ids[0], first[0]);
        assert_eq!(one.queue.send(two).await, Err(QueueError::Full));
        // It takes no room.
        assert_eq!(one.queue.send(vec![once]).await, Ok(first));
    });
}

#[test]
fn messages_are_handled_though_memory_is_too_short_for_more() {
    test(async |redis| {
        let mut one = Server::new(redis, "a").await;
        one.send((0..3).map(|n| (Some("k"), n.to_string()))).await;
        redis.call(&["CONFIG", "SET", "maxmemory", "1"]);
        let refused = one.queue.send(vec![Message::default()]).await;
        assert!(
            matches!(&refused, Err(QueueError::Unavailable(why)) if why.contains("OOM")),
            "{refused:?}"
        );
        for outcome in [
            Outcome::Retry(Some(0)),
            Outcome::Ack,
            Outcome::Dead(String::new()),
        ] {
            let delivery = one.take().await;
            one.settle(&delivery, outcome);
        }
        one.stands(|it| it.dead == 1 && it.messages == 1).await;
        assert!(one.queue.store.renew(&one.holder()).await.unwrap());
    });
}

#[test]
fn messages_are_all_there_after_the_server_was_killed() {
    run(Redis::durable(), async |redis| {
        let mut one = Server::new(redis, "a").await;
        one.send((0..3).map(|n| (None, n.to_string()))).await;
        let first = one.take().await;
        redis.kill();
        one.settle(&first, Outcome::Ack);
        let lost = one.queue.send(vec![Message::default()]).await;
        assert!(
            matches!(
                lost,
                Err(QueueError::Unavailable(_) | QueueError::OutcomeUnknown)
            ),
            "{lost:?}"
        );
        redis.start_again();
        let mut others = vec![one.take().await.body, one.take().await.body];
        others.sort();
        assert_eq!(others, [b"1", b"2"]);
    });
}

#[test]
fn server_that_has_forgotten_all_goes_on_with_what_comes() {
    test(async |redis| {
        let mut one = Server::new(redis, "a").await;
        one.send([(Some("k"), "1".to_owned())]).await;
        let first = one.take().await;
        redis.call(&["FLUSHALL"]);
        one.settle(&first, Outcome::Ack);
        one.send([(Some("k"), "2".to_owned())]).await;
        let next = one.take().await;
        assert_eq!(next.body, b"2");
        // No message has the id of one that is forgotten.
        assert_ne!(next.id, first.id);
        redis.call(&["SCRIPT", "FLUSH"]);
        one.settle(&next, Outcome::Ack);
        one.stands(|it| it.messages == 0).await;
    });
}
