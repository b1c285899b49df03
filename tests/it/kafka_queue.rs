//! Queues that are bound to Kafka: the same guests on the mock cluster of its library, several servers of wrun's that share a
//! queue, and what is left when their processes are killed, and when the brokers are away.

use crate::shared_queue::{
    ATTEMPTS_MAX, assert_away, assert_nothing_is_lost, assert_sound, becomes, handles_one_more,
    sender, server, when_tried,
};
use crate::{serve, wrun};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::time::Duration;
use wrun_tests::kafka::Kafka;
use wrun_tests::murder::Victims;
use wrun_tests::outcome::finding;
use wrun_tests::queue_history;
use wrun_tests::state::{error, ok};
use wrun_tests::{Outcome, SOON, eventually, folder, process};

#[test]
fn two_servers_share_a_queue_and_lose_nothing_while_workers_are_killed() {
    let kafka = Kafka::for_test();
    let url = kafka.with_jobs(4);
    let (one, other) = (server(&url).start(), server(&url).start());
    assert_nothing_is_lost(&[&one, &other], Victims::Workers);
}

#[test]
fn two_servers_lose_nothing_while_their_state_processes_are_killed() {
    let kafka = Kafka::for_test();
    let url = kafka.with_jobs(4);
    let (one, other) = (server(&url).start(), server(&url).start());
    assert_nothing_is_lost(&[&one, &other], Victims::State);
}

#[test]
fn check_notices_a_message_that_is_lost() {
    let kafka = Kafka::for_test();
    let url = kafka.with_jobs(2);
    let server = server(&url).start();
    let message = json!([{ "key": "k", "dedup_id": "lost", "body": { "do": "ack" } }]);
    let lost = ok(&server.send(&message))[0].clone();
    // The control: one message less than was acknowledged.
    server.when_tried("it is handled", |tries| tries.len() == 1);
    let mut history = queue_history::record(&server, 4, Victims::Nobody);
    assert_sound(&history);
    history.tries.retain(|one| json!(one.id) != lost);
    let id = lost.as_str().expect("ids are text").to_owned();
    history.sent.insert("k".to_owned(), vec![id]);
    assert_eq!(history.faults(ATTEMPTS_MAX).len(), 1);
}

#[test]
fn messages_of_a_killed_server_or_state_process_are_handled_by_another_one() {
    let kafka = Kafka::for_test();
    let url = kafka.with_jobs(2);
    let one = server(&url).start();
    let long = json!({ "do": "ack", "ms": 600_000 });
    ok(&one.send(&json!([{ "key": "k", "body": long }, { "key": "k", "body": { "do": "ack" } }])));
    let first = one.when_tried("it is handled", |tries| tries.len() == 1);
    one.kill_state_process();
    one.when_tried("it is handled again", |tries| tries.len() == 2);
    let other = server(&url).start();
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
fn nothing_is_lost_or_out_of_order_while_brokers_are_away_and_slow() {
    let kafka = Kafka::start();
    let url = kafka.with_jobs(4);
    let (one, other) = (server(&url).start(), server(&url).start());
    let both = [&one, &other];
    let history = std::thread::scope(|scope| {
        let recorded = scope.spawn(|| queue_history::record_at(&both, 30, Victims::Nobody));
        for count in [20, 60] {
            when_tried(&both, count);
            kafka.down();
            becomes(&one, false);
            kafka.up();
            becomes(&one, true);
        }
        when_tried(&both, 100);
        kafka.slow(Duration::from_millis(300));
        when_tried(&both, 110);
        kafka.slow(Duration::ZERO);
        recorded.join().expect("the clients go on")
    });
    assert_sound(&history);
}

#[test]
fn commands_work_on_what_is_there() {
    let kafka = Kafka::start();
    let url = kafka.with_jobs(2);
    let sending = sender(&url, "max-depth = 3\n").start();
    let message = json!([{ "body": { "do": "dead" }, "key": "k", "headers": { "a": "b" } }]);
    let sent = sending.send(&message);
    sending
        .control(["queue", "send", "jobs", "{\"do\": \"ack\"}"])
        .ok();
    ok(&sending.send(&message));
    assert_eq!(error(&sending.send(&message)), "full");
    assert_eq!(sending.queue("jobs").messages, 3);
    // What nobody has read is not to be seen.
    let peeked: Value = sending.command(&["queue", "peek", "jobs"]);
    assert_eq!(peeked, json!([]));
    let mut handling = server(&url).start();
    sending.when_queue("all are handled", |it| it.messages == 0 && it.dead == 2);
    handling.stop();
    let letters: Value = sending.command(&["queue", "peek", "jobs", "--dead"]);
    assert_eq!(
        (&letters[0]["id"], &letters[0]["key"]),
        (&ok(&sent)[0], &"k".into())
    );
    let headers = letters[0]["headers"].to_string();
    assert!(headers.contains("wrun-dead-reason"), "{headers}");
    let back: Value = sending.command(&["queue", "redrive", "jobs"]);
    assert_eq!(back, json!({ "count": 2 }));
    assert_eq!(sending.queue("jobs").messages, 2);
    assert_eq!(sending.queue("jobs").dead, 0);
    // Unlike Kafka, the mock cluster lets nobody commit for a group that has no members any more.
    let purge = ["queue", "purge", "jobs", "--yes"];
    sending
        .control(purge)
        .fails_with(69, &["the server that takes the messages"]);
    let fresh = sender(&kafka.with_jobs(2), "").start();
    ok(&fresh.send(&message));
    assert_eq!(fresh.queue("jobs").messages, 1);
    fresh.control(purge).ok();
    assert_eq!(fresh.queue("jobs").messages, 0);
}

#[test]
fn kafka_that_is_away_is_said_to_be_at_once_and_is_back_by_itself() {
    let kafka = Kafka::start();
    let url = kafka.with_jobs(1);
    let server = sender(&url, "[consumers.jobs]\n[queues.here]\n").start();
    becomes(&server, true);
    kafka.down();
    becomes(&server, false);
    assert_away(&server, "Kafka", SOON / 10);
    kafka.up();
    becomes(&server, true);
    handles_one_more(&server, 1);
}

#[test]
fn kafka_that_is_away_at_the_start_or_a_url_of_what_is_not_there_is_said_to_be() {
    let outcome = sender("kafka://127.0.0.1:1", "").fail();
    outcome.fails_after_its_log_with(69, &["queue jobs", "no broker answers", "queue.jobs"]);
    let outcome = sender("kafka://me:s3cret@127.0.0.1:1?sasl=GSSAPI", "").fail();
    outcome.fails_after_its_log_with(78, &["sasl", "PLAIN", "queue.jobs"]);
}

#[test]
fn messages_of_a_transaction_come_to_kafka_once_it_commits_also_if_it_was_away() {
    let kafka = Kafka::start();
    let url = kafka.with_jobs(2);
    let launch = serve("state_db").manifest("[databases.default]\n[queues.jobs]\n");
    let sending = launch.flag("--bind", format!("queue.jobs={url}")).start();
    let send = |end: &str| {
        let body = json!({ "do": "ack" });
        let one = json!({ "op": "send_in", "queue": "jobs", "key": "k", "body": body });
        let end = json!({ "op": end, "tx": 0 });
        let results = sending.script(&json!([{ "op": "begin" }, one, one, end]));
        assert!(results[3].get("error").is_none(), "{results:?}");
    };
    send("commit");
    sending.when_queue("both are there", |it| it.messages == 2 && it.outbox == 0);
    send("rollback");
    kafka.down();
    becomes(&sending, false);
    send("commit");
    kafka.up();
    becomes(&sending, true);
    sending.when_queue("all are there", |it| it.messages == 4 && it.outbox == 0);
    let handling = server(&url).start();
    let tries = handling.when_tried("they are handled", |tries| tries.len() == 4);
    assert!(
        tries
            .iter()
            .all(|one| one.key.as_deref() == Some("k") && one.attempt == 1)
    );
}

#[test]
fn doctor_says_what_is_there_and_what_is_not_promised() {
    let kafka = Kafka::start();
    let url = kafka.with_jobs(3);
    let here = folder();
    let mut command = wrun().command();
    command
        .args(["doctor", "--json", "--queue", "jobs"])
        .env("WRUN_BIND_QUEUE_JOBS", url)
        .current_dir(here.path());
    let outcome: Outcome = command.output().expect("wrun can be run").into();
    let report: Value = serde_json::from_str(&outcome.stdout).expect("it prints JSON");
    let server = finding(&report, "queue.jobs");
    assert_eq!(server["status"], "ok", "{report}");
    assert!(
        server["found"].to_string().contains("2 brokers"),
        "{server}"
    );
    let text = report.to_string();
    assert!(text.contains("3 partitions, 2 copies"), "{text}");
    assert_eq!(finding(&report, "queue.jobs dedup ids")["status"], "info");
}
