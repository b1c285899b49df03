//! What is PostgreSQL's own: servers that share a queue, on a real one.

use super::*;
use crate::state::db::{Database as _, Statement, TxOptions, Want};
use crate::state::lock::SessionId;
use crate::state::queue::{Delivery, Outcome, Settled};
use std::fmt::Write as _;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::task::LocalSet;
use tokio::time::sleep;
use wrun_tests::postgres::Postgres;

const FIRST: SessionId = SessionId(1);

/// Nothing in these tests takes longer.
const DEADLINE: Duration = Duration::from_secs(60);

/// One server of wrun's.
struct Server {
    queue: PostgresQueue,
    delivered: UnboundedReceiver<(SessionId, Vec<Delivery>)>,
}

impl Server {
    async fn new(postgres: &Postgres, identity: &str) -> Self {
        let address = Address::parse(&postgres.url("jobs")).unwrap();
        let (deliver, delivered) = mpsc::unbounded_channel();
        let settings = shared::Queue {
            database: "default".to_owned(),
            max_depth: 100_000,
            max_attempts: 3,
            visibility_timeout: Duration::from_secs(30),
            backoff: Duration::ZERO,
            backoff_max: Duration::ZERO,
            bound: None,
        };
        let sink = Rc::new(move |session, batch| drop(deliver.send((session, batch))));
        let queue = PostgresQueue::new("jobs", &settings, address, identity, sink);
        queue.prepare().await.unwrap();
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
}

fn run<T>(test: impl AsyncFnOnce(&mut Postgres) -> T) {
    let Some(mut postgres) = Postgres::for_test() else {
        return;
    };
    postgres.create("jobs");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, async {
        let test = timeout(DEADLINE, test(&mut postgres));
        test.await.expect("the test hangs");
    });
}

#[test]
fn key_keeps_its_order_over_two_servers() {
    run(async |postgres| {
        let mut servers = [
            Server::new(postgres, "a").await,
            Server::new(postgres, "b").await,
        ];
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
    run(async |postgres| {
        let mut one = Server::new(postgres, "a").await;
        let mut other = Server::new(postgres, "b").await;
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
fn messages_of_a_server_that_is_gone_come_to_another_once_its_lease_is_over() {
    run(async |postgres| {
        let mut one = Server::new(postgres, "a").await;
        let mut other = Server::new(postgres, "b").await;
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
    run(async |postgres| {
        let mut one = Server::new(postgres, "a").await;
        let mut other = Server::new(postgres, "b").await;
        one.send([(None, "1".to_owned())]).await;
        let first = one.take().await;
        other.queue.credit(FIRST, 1, 1);
        let longer = sharing::LEASE + Duration::from_secs(3);
        assert!(timeout(longer, other.delivered.recv()).await.is_err());
        one.settle(&first, Outcome::Ack);
        while one.queue.status().await.unwrap().messages > 0 {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn state_process_that_is_replaced_hands_out_at_once_what_the_one_before_it_held() {
    run(async |postgres| {
        let mut one = Server::new(postgres, "a").await;
        one.send([(None, "1".to_owned())]).await;
        let first = one.take().await;
        drop(one);
        let mut again = Server::new(postgres, "a").await;
        let second = timeout(sharing::LEASE / 2, again.take()).await.unwrap();
        assert_eq!((second.id, second.attempt), (first.id, 1));
    });
}

#[test]
fn server_whose_lease_ran_out_settles_nothing_any_more() {
    run(async |postgres| {
        let mut one = Server::new(postgres, "a").await;
        one.send([(None, "1".to_owned())]).await;
        let first = one.take().await;
        // As if it had stood still, and another one had given back what it held.
        postgres.query(
            "jobs",
            "DELETE FROM wrun.holders; UPDATE wrun.messages SET holder = NULL",
        );
        let again = one.take().await;
        assert_eq!(again.id, first.id);
        one.settle(&first, Outcome::Ack);
        assert_eq!(one.queue.extend(FIRST, &again.id, 1000), Ok(()));
        one.settle(&again, Outcome::Dead("it is the second".to_owned()));
        while one.queue.status().await.unwrap().dead == 0 {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn claim_whose_answer_was_lost_is_given_up() {
    run(async |postgres| {
        let mut one = Server::new(postgres, "a").await;
        one.send([(None, "1".to_owned())]).await;
        let first = one.take().await;
        one.settle(&first, Outcome::Retry(Some(0)));
        // Held by this server, which does not know.
        let hold = "UPDATE wrun.messages SET holder = (SELECT holder FROM wrun.holders)";
        while postgres.query("jobs", &format!("{hold} RETURNING attempts")) != "1" {
            sleep(Duration::from_millis(10)).await;
        }
        let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
            WHERE pid <> pg_backend_pid() AND datname = 'jobs'";
        postgres.query("jobs", end);
        assert_eq!(one.take().await.attempt, 2);
    });
}

#[test]
fn long_line_behind_one_key_costs_a_claim_no_more_than_a_short_one() {
    run(async |postgres| {
        let mut one = Server::new(postgres, "a").await;
        let mut sql = String::from(
            "INSERT INTO wrun.messages (id, queue, key, body, sent_at, due_at) \
             SELECT nextval('wrun.message_ids'), 'jobs', 'k', '', now(), now() FROM generate_series(1, 20000);",
        );
        let _ = write!(sql, "ANALYZE wrun.messages");
        postgres.query("jobs", &sql);
        let first = one.take().await;
        one.send([(None, "free".to_owned())]).await;
        let free = one.take().await;
        assert_eq!(free.body, b"free");
        // All that wait have been looked at, once.
        let looked = "SELECT count(*) FILTER (WHERE parked), count(*) FILTER (WHERE NOT parked AND holder IS NULL) \
            FROM wrun.messages";
        assert_eq!(postgres.query("jobs", looked), "19999|0");
        one.settle(&first, Outcome::Ack);
        let second = one.take().await;
        assert_ne!(first.id, second.id);
    });
}

#[test]
fn messages_are_all_there_after_the_server_was_killed() {
    run(async |postgres| {
        let mut one = Server::new(postgres, "a").await;
        one.send((0..3).map(|n| (None, n.to_string()))).await;
        let first = one.take().await;
        postgres.kill();
        one.settle(&first, Outcome::Ack);
        let lost = one.queue.send(vec![Message::default()]).await;
        assert!(
            matches!(
                lost,
                Err(QueueError::Unavailable(_) | QueueError::OutcomeUnknown)
            ),
            "{lost:?}"
        );
        postgres.start_again();
        let mut others = vec![one.take().await.body, one.take().await.body];
        others.sort();
        assert_eq!(others, [b"1", b"2"]);
    });
}

#[test]
fn message_sent_beside_a_transaction_stays_without_it_and_one_sent_in_it_does_not() {
    run(async |postgres| {
        let one = Server::new(postgres, "a").await;
        let address = Address::parse(&postgres.url("jobs")).unwrap();
        let db = super::super::Postgres::new("default", address);
        db.know("jobs", &one.queue);
        for (is_within, left) in [(true, 0), (false, 1)] {
            let tx = db.begin(TxOptions::default()).await.unwrap();
            let order = Statement {
                sql: "CREATE TABLE orders (id int)".to_owned(),
                params: Vec::new(),
            };
            tx.run(order, Want::Done).await.unwrap();
            match is_within {
                true => tx.send("jobs".to_owned(), vec![Message::default()]).await,
                // The control: a message without its order.
                false => one.queue.send(vec![Message::default()]).await,
            }
            .unwrap();
            tx.rollback().await;
            assert_eq!(one.queue.status().await.unwrap().messages, left);
        }
    });
}
