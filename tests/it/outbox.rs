//! Outboxes: transactions of a database that send to a queue which is kept elsewhere, while workers, state processes and both
//! engines are killed, and the way to the queue is cut.

use crate::{serve, wrun};
use serde_json::{Value, json};
use std::thread;
use std::time::Duration;
use wrun_tests::checkout;
use wrun_tests::guests::example;
use wrun_tests::mariadb::MariaDb;
use wrun_tests::murder::Victims;
use wrun_tests::postgres::Postgres;
use wrun_tests::proxy::{Proxy, Weather};
use wrun_tests::redis::Redis;
use wrun_tests::sale::{Sale, Way};
use wrun_tests::state::ok;
use wrun_tests::{Launch, SOON, Server, eventually, repository};

/// A database that a label may be bound to, or not.
enum Database {
    Embedded,
    Postgres(Postgres),
    MariaDb(MariaDb),
}

impl Database {
    /// Returns those that can be had, each with an empty database `shop`.
    fn all() -> Vec<Self> {
        let mut all = vec![Self::Embedded];
        if let Some(postgres) = Postgres::for_test() {
            postgres.create("shop");
            all.push(Self::Postgres(postgres));
        }
        if let Some(mariadb) = MariaDb::for_test() {
            mariadb.create("shop");
            all.push(Self::MariaDb(mariadb));
        }
        all
    }

    fn bind(&self, launch: Launch) -> Launch {
        let url = match self {
            Self::Embedded => return launch,
            Self::Postgres(postgres) => postgres.url("shop"),
            Self::MariaDb(mariadb) => mariadb.url("shop"),
        };
        launch.flag("--bind", format!("db.default={url}"))
    }
}

fn bound(launch: Launch, queue: &str, url: &str) -> Launch {
    launch.flag("--bind", format!("queue.{queue}={url}"))
}

/// A server that sends in transactions, and handles nothing.
fn sender(database: &Database, url: &str) -> Launch {
    let launch = serve("state_db").manifest("[databases.default]\n[queues.jobs]\n");
    database.bind(bound(launch, "jobs", url))
}

/// Sends messages in one transaction, which commits.
fn send(server: &Server, bodies: std::ops::Range<u32>) -> Vec<Value> {
    let mut script = vec![json!({ "op": "begin" })];
    let one = |body| json!({ "op": "send_in", "queue": "jobs", "key": "k", "body": body });
    script.extend(bodies.map(one));
    script.push(json!({ "op": "commit" }));
    let results = server.script(&Value::Array(script));
    let sent = &results[1..results.len() - 1];
    ok(&results[results.len() - 1]);
    sent.iter().map(|it| ok(it)[0].clone()).collect()
}

/// Returns the messages of the queue as `wrun queue peek` shows them.
fn peek(server: &Server) -> Vec<Value> {
    server.command(&["queue", "peek", "jobs", "--count", "100"])
}

/// A server of `examples/payments` that never gives up what can be paid.
fn till(postgres: &Postgres, redis: &str) -> Launch {
    let migrations = repository().join("examples/payments/migrations");
    let manifest = format!(
        "[databases.default]\nmigrations = \"{}\"\n[queues.payments]\nmax-attempts = 1000\nbackoff = \"20ms\"\n\
         max-backoff = \"200ms\"\n[consumers.payments]\n",
        migrations.display()
    );
    let launch = wrun()
        .serve(example("payments"))
        .workers(2)
        .manifest(manifest);
    let launch = launch.flag("--bind", format!("db.default={}", postgres.url("till")));
    bound(launch, "payments", redis)
}

#[test]
fn every_order_is_charged_once_while_servers_and_engines_are_killed() {
    let (Some(mut postgres), Some(mut redis)) = (Postgres::for_test(), Redis::durable()) else {
        return;
    };
    postgres.create("till");
    let start = || till(&postgres, &redis.url(0)).start();
    let (one, other) = (start(), start());
    let report = thread::scope(|scope| {
        let placed = scope.spawn(|| checkout::run_at(&[&one, &other], 120, Victims::Both));
        for orders in [20, 60] {
            eventually("orders are placed", SOON * 4, || {
                let placed = postgres.query("till", "SELECT count(*) FROM orders");
                (placed.trim().parse::<u32>().ok()? > orders).then_some(())
            });
            redis.kill();
            // Some wait for it meanwhile.
            eventually("an order waits", SOON, || {
                let waiting = postgres.query("till", "SELECT count(*) FROM wrun.outbox");
                (waiting.trim() != "0").then_some(())
            });
            redis.start_again();
            postgres.kill();
            postgres.start_again();
        }
        placed.join().expect("the customers go on")
    });
    assert!(report.faults.is_empty() && report.kills > 0, "{report:#?}");
    assert_eq!(report.stats.paid, 80);
    let left = postgres.query("till", "SELECT count(*) FROM wrun.outbox");
    assert_eq!(left.trim(), "0");
    assert_eq!(one.queue("payments").messages, 0);
}

#[test]
fn every_order_is_charged_once_with_an_embedded_database_and_a_redis_that_is_killed() {
    let Some(mut redis) = Redis::durable() else {
        return;
    };
    let launch = wrun().serve(example("payments")).workers(2);
    let server = bound(launch, "payments", &redis.url(0)).start();
    let report = thread::scope(|scope| {
        let placed = scope.spawn(|| checkout::run(&server, 90, Victims::Both));
        for _ in 0..3 {
            thread::sleep(Duration::from_millis(200));
            redis.kill();
            redis.start_again();
        }
        placed.join().expect("the customers go on")
    });
    assert!(report.faults.is_empty() && report.kills > 0, "{report:#?}");
    assert_eq!(server.queue("payments").outbox, 0);
}

#[test]
fn nothing_is_sold_twice_when_orders_reach_the_queue_by_the_outbox_of_mariadb() {
    let (Some(mariadb), Some(redis)) = (MariaDb::for_test(), Redis::durable()) else {
        return;
    };
    mariadb.create("shop");
    let start = || {
        let launch = wrun().serve(example("inventory")).workers(2);
        let launch = launch.flag("--bind", format!("db.default={}", mariadb.url("shop")));
        bound(launch, "orders", &redis.url(0)).start()
    };
    let (one, other) = (start(), start());
    let sale = Sale {
        way: Way::Queue,
        stock: 40,
        buyers: 60,
        victims: Victims::Both,
    };
    let report = sale.hold_at(&[&one, &other]);
    assert!(report.faults.is_empty() && report.kills > 0, "{report:#?}");
}

#[test]
fn message_of_a_transaction_comes_to_the_queue_if_it_commits_and_not_otherwise() {
    for database in Database::all() {
        let Some(redis) = Redis::for_test() else {
            return;
        };
        let server = sender(&database, &redis.url(0)).start();
        let never = json!({ "op": "send_in", "queue": "jobs", "body": "never" });
        for end in ["rollback", "drop_tx"] {
            let results = server.script(&json!([{ "op": "begin" }, never, { "op": end, "tx": 0 }]));
            ok(&results[1]);
        }
        let ids = send(&server, 0..3);
        // What the queue has taken is removed a moment later.
        server.when_queue("they are there alone", |it| {
            it.messages == 3 && it.outbox == 0
        });
        let headers = |message: &Value| message["headers"]["wrun-outbox-id"].clone();
        let found: Vec<Value> = peek(&server).iter().map(headers).collect();
        assert_eq!(found, ids);
    }
}

#[test]
fn guests_go_on_while_the_queue_is_away_and_order_is_kept() {
    for database in Database::all() {
        let Some(mut redis) = Redis::durable() else {
            return;
        };
        let server = sender(&database, &redis.url(0)).start();
        send(&server, 0..1);
        server.when_queue("it is there", |it| it.messages == 1);
        redis.kill();
        for body in 1..6 {
            send(&server, body..body + 1);
        }
        let listed = server.control(["queue", "ls", "--json"]);
        let known: Value = serde_json::from_str(&listed.stdout).expect("it prints JSON");
        assert_eq!(known[0]["outbox"], 5, "{known}");
        listed.fails_with(69, &["queue jobs"]);
        server.log().line_with("messages wait in the outbox");
        // What waits is in the database.
        server.kill_state_process();
        redis.start_again();
        // It may still be loading what it has.
        eventually("they are there", SOON, || {
            let listed = server.control(["queue", "ls", "--json"]);
            let known: Value = serde_json::from_str(&listed.stdout).ok()?;
            (known[0]["messages"] == 6 && known[0]["outbox"] == 0).then_some(())
        });
        let bodies: Vec<Value> = peek(&server)
            .iter()
            .map(|message| message["body"].clone())
            .collect();
        assert_eq!(bodies, ["0", "1", "2", "3", "4", "5"]);
    }
}

#[test]
fn server_that_cannot_reach_the_queue_leaves_its_messages_to_another_one() {
    let (Some(postgres), Some(redis)) = (Postgres::for_test(), Redis::for_test()) else {
        return;
    };
    postgres.create("shop");
    let proxy = Proxy::to(redis.port());
    let database = Database::Postgres(postgres);
    let near = sender(&database, &redis.url(0)).start();
    let far = sender(&database, &format!("redis://127.0.0.1:{}/0", proxy.port())).start();
    for (sent, weather) in [(3, Weather::Cut), (6, Weather::Silent)] {
        proxy.be(weather);
        send(&far, 0..3);
        near.when_queue("they are there", |it| it.messages == sent && it.outbox == 0);
        proxy.be(Weather::Fair);
    }
}

/// Returns how many messages are left that came by the outbox to a Redis which is killed then.
fn left_after_a_kill(mut redis: Redis) -> u64 {
    let server = sender(&Database::Embedded, &redis.url(0)).start();
    send(&server, 0..3);
    server.when_queue("they are there", |it| it.messages == 3 && it.outbox == 0);
    redis.kill();
    redis.start_again();
    eventually("it is back", SOON, || {
        let listed = server.control(["queue", "ls", "--json"]);
        let known: Value = serde_json::from_str(&listed.stdout).ok()?;
        known[0]["messages"].as_u64()
    })
}

#[test]
fn what_a_queue_has_acknowledged_is_the_queues_to_keep() {
    let (Some(durable), Some(other)) = (Redis::durable(), Redis::for_test()) else {
        return;
    };
    assert_eq!(left_after_a_kill(durable), 3);
    // The control: such a loss is seen.
    assert_eq!(left_after_a_kill(other), 0);
}
