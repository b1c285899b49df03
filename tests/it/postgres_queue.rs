//! Queues that are bound to PostgreSQL: the same guests on a real one, several servers of wrun's that share a queue, and what
//! is left when one of them, or PostgreSQL, is killed.

use crate::shared_queue::{ATTEMPTS_MAX, assert_nothing_is_lost, assert_sound, sender, server};
use crate::wrun;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::time::Instant;
use wrun_tests::guests::example;
use wrun_tests::murder::Victims;
use wrun_tests::outcome::finding;
use wrun_tests::postgres::Postgres;
use wrun_tests::queue_history;
use wrun_tests::sale::{Sale, Way};
use wrun_tests::state::{error, ok};
use wrun_tests::{Outcome, SOON, checkout, eventually, folder, process};

/// Starts a PostgreSQL with an empty database `jobs`.
fn postgres() -> Option<Postgres> {
    let postgres = Postgres::for_test()?;
    postgres.create("jobs");
    Some(postgres)
}

fn url(postgres: &Postgres) -> String {
    postgres.url("jobs")
}

#[test]
fn two_servers_share_a_queue_and_lose_nothing_while_workers_are_killed() {
    let Some(postgres) = postgres() else { return };
    let (one, other) = (
        server(&url(&postgres)).start(),
        server(&url(&postgres)).start(),
    );
    assert_nothing_is_lost(&[&one, &other], Victims::Workers);
    for server in [&one, &other] {
        assert!(!server.tries().is_empty(), "both took part");
    }
    let left = "SELECT count(*) FROM wrun.messages WHERE queue = 'jobs'";
    assert_eq!(postgres.query("jobs", left), "0");
}

#[test]
fn check_notices_a_message_that_is_lost() {
    let Some(postgres) = postgres() else { return };
    let server = server(&url(&postgres)).start();
    let mut history = queue_history::record(&server, 4, Victims::Nobody);
    assert_sound(&history);
    // The control: a try that never was, and an order that was another.
    let lost = history.tries.remove(0);
    history.tries.retain(|one| one.id != lost.id);
    history.dead.remove(&lost.id);
    assert!(!history.faults(ATTEMPTS_MAX).is_empty());
}

#[test]
fn messages_of_a_killed_server_or_state_process_are_handled_by_another_one() {
    let Some(postgres) = postgres() else { return };
    let one = server(&url(&postgres)).start();
    let long = json!({ "do": "ack", "ms": 600_000 });
    ok(&one.send(&json!([{ "key": "k", "body": long }, { "key": "k", "body": { "do": "ack" } }])));
    let first = one.when_tried("it is handled", |tries| tries.len() == 1);
    one.kill_state_process();
    // At once, and not when the lease is over.
    one.when_tried("it is handled again", |tries| tries.len() == 2);
    let other = server(&url(&postgres)).start();
    for pid in process::family(one.pid()) {
        process::send(pid, Signal::SIGKILL);
    }
    let tries = eventually("the other one has it", SOON, || {
        Some(other.tries()).filter(|tries| !tries.is_empty())
    });
    assert_eq!(tries[0].id, first[0].id);
    // The one behind it has to wait.
    assert_eq!(tries.len(), 1);
}

#[test]
fn nothing_that_was_acknowledged_is_lost_when_postgres_is_killed() {
    let Some(mut postgres) = postgres() else {
        return;
    };
    let (one, other) = (
        server(&url(&postgres)).start(),
        server(&url(&postgres)).start(),
    );
    let history = std::thread::scope(|scope| {
        let recorded =
            scope.spawn(|| queue_history::record_at(&[&one, &other], 20, Victims::Nobody));
        let some = "SELECT count(*) FROM wrun.dedup";
        for count in [20, 60] {
            eventually("some are sent", SOON, || {
                let sent: u32 = postgres.query("jobs", some).parse().ok()?;
                (sent > count).then_some(())
            });
            postgres.kill();
            postgres.start_again();
        }
        recorded.join().expect("the clients go on")
    });
    assert_sound(&history);
}

#[test]
fn order_and_its_message_are_one_transaction_at_two_servers() {
    let Some(postgres) = postgres() else { return };
    let start = || {
        let launch = wrun().serve(example("inventory")).workers(2);
        let url = postgres.url("jobs");
        let launch = launch.flag("--bind", format!("db.default={url}"));
        launch.flag("--bind", format!("queue.orders={url}")).start()
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
fn payments_at_two_servers_are_exact_while_their_processes_and_postgres_are_killed() {
    let Some(mut postgres) = postgres() else {
        return;
    };
    let start = || {
        let launch = wrun().serve(example("payments")).workers(2);
        let url = postgres.url("jobs");
        let launch = launch.flag("--bind", format!("db.default={url}"));
        launch
            .flag("--bind", format!("queue.payments={url}"))
            .start()
    };
    let (one, other) = (start(), start());
    let report = std::thread::scope(|scope| {
        let paying = scope.spawn(|| checkout::run_at(&[&one, &other], 120, Victims::Both));
        let charges = "SELECT count(*) FROM charge_log";
        eventually("some are charged", SOON, || {
            let charged: u32 = postgres.query("jobs", charges).parse().ok()?;
            (charged > 5).then_some(())
        });
        postgres.kill();
        postgres.start_again();
        paying.join().expect("customers go on")
    });
    assert!(report.faults.is_empty() && report.kills > 0, "{report:#?}");
}

#[test]
fn order_in_another_database_reaches_the_queue_by_an_outbox() {
    let Some(postgres) = postgres() else { return };
    let launch = wrun().serve(example("inventory")).workers(2);
    let server = launch
        .flag("--bind", format!("queue.orders={}", postgres.url("jobs")))
        .start();
    let sale = Sale {
        way: Way::Queue,
        stock: 20,
        buyers: 30,
        victims: Victims::Both,
    };
    let report = sale.hold(&server);
    assert!(report.faults.is_empty() && report.kills > 0, "{report:#?}");
    assert_eq!(server.queue("orders").outbox, 0);
}

#[test]
fn commands_work_on_what_is_there() {
    let Some(postgres) = postgres() else { return };
    let server = sender(&url(&postgres), "max-depth = 3\n").start();
    let message = json!([{ "body": 1, "key": "k", "headers": { "a": "b" } }]);
    let sent = server.send(&message);
    server.control(["queue", "send", "jobs", "two"]).ok();
    let peeked: Value = server.command(&["queue", "peek", "jobs"]);
    assert_eq!(
        (&peeked[0]["id"], &peeked[0]["key"]),
        (&ok(&sent)[0], &"k".into())
    );
    ok(&server.send(&message));
    assert_eq!(error(&server.send(&message)), "full");
    assert_eq!(server.queue("jobs").messages, 3);
    let dead = "UPDATE wrun.messages SET queue = 'jobs.dead', dead_reason = 'why', dead_at = now() WHERE key IS NOT NULL";
    postgres.query("jobs", dead);
    let letters: Value = server.command(&["queue", "peek", "jobs", "--dead"]);
    assert!(
        letters[0]["headers"]
            .to_string()
            .contains("wrun-dead-reason")
    );
    let back: Value = server.command(&["queue", "redrive", "jobs"]);
    assert_eq!(back, json!({ "count": 2 }));
    server.control(["queue", "purge", "jobs", "--yes"]).ok();
    assert_eq!(server.queue("jobs").messages, 0);
}

#[test]
fn server_that_is_away_is_said_to_be_at_once_and_is_back_by_itself() {
    let Some(mut postgres) = postgres() else {
        return;
    };
    let server = sender(&url(&postgres), "[consumers.jobs]\n[queues.here]\n").start();
    let becomes = |reachable: bool| {
        eventually("ps knows", SOON, || {
            let binding = &server.ps()["bindings"][0];
            (binding["reachable"] == reachable && binding["name"] == "queue.jobs").then_some(())
        });
    };
    becomes(true);
    postgres.kill();
    becomes(false);
    let listed = server.control(["queue", "ls", "--json"]);
    let queues: Value = serde_json::from_str(&listed.stdout).expect("it prints JSON");
    assert_eq!(
        (&queues[0]["queue"], &queues[0]["messages"]),
        (&"here".into(), &json!(0))
    );
    assert_eq!(
        (&queues[1]["queue"], &queues[1]["messages"]),
        (&"jobs".into(), &json!(null))
    );
    listed.fails_with(69, &["queue jobs: unavailable: PostgreSQL", "wrun ps"]);
    let begin = Instant::now();
    let refused = server.send(&json!([{ "body": { "do": "ack" } }]));
    assert_eq!(error(&refused), "unavailable");
    assert!(begin.elapsed() < SOON / 2, "{:?}", begin.elapsed());
    postgres.start_again();
    becomes(true);
    ok(&server.send(&json!([{ "body": { "do": "ack" } }])));
    server.when_tried("it is handled", |tries| tries.len() == 1);
}

#[test]
fn doctor_tries_the_binding() {
    let Some(postgres) = postgres() else { return };
    let here = folder();
    let mut command = wrun().command();
    command
        .args(["doctor", "--json", "--queue", "jobs"])
        .env("WRUN_BIND_QUEUE_JOBS", postgres.url("jobs"))
        .current_dir(here.path());
    let outcome: Outcome = command.output().expect("wrun can be run").into();
    let report: Value = serde_json::from_str(&outcome.stdout).expect("it prints JSON");
    assert_eq!(finding(&report, "queue.jobs")["status"], "ok", "{report}");
    assert_eq!(finding(&report, "queue.jobs durability")["status"], "ok");
}
