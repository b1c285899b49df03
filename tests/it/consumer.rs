//! `wrun:queue/consumer`: that every message is handled, how often, and in which order.

use crate::{serve, wrun};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::SystemTime;
use wrun_tests::guests::guest;
use wrun_tests::state::{Try, error, ok};
use wrun_tests::{Launch, SOON, Server, folder, process};

/// A backoff that no test waits for.
const LONG_BACKOFF: &str = "backoff = \"6h\"\nmax-backoff = \"12h\"\n";

/// A server that handles its own messages, one or more at a time.
fn consumer_server(queue: &str) -> Launch {
    with_settings(queue, "")
}

fn with_settings(queue: &str, consumer: &str) -> Launch {
    serve("state_queue").manifest(format!(
        "[databases.default]\n[queues.jobs]\n{queue}[consumers.jobs]\n{consumer}"
    ))
}

/// Sends messages with these bodies together, and returns their ids.
#[track_caller]
fn send(server: &Server, bodies: &[Value]) -> Vec<String> {
    let messages: Vec<_> = bodies.iter().map(|body| json!({ "body": body })).collect();
    ids(&server.send(&json!(messages)))
}

#[track_caller]
fn ids(sent: &Value) -> Vec<String> {
    serde_json::from_value(ok(sent).clone()).expect("ids are texts")
}

/// Waits until nothing is left to be handled, and returns every try.
#[track_caller]
fn when_done(server: &Server) -> Vec<Try> {
    server.when_queue("nothing is left", |queue| queue.messages == 0);
    server.tries()
}

fn attempts(tries: &[Try]) -> Vec<u32> {
    tries.iter().map(|one| one.attempt).collect()
}

#[test]
fn message_is_handled_once() {
    let server = consumer_server("").start();
    let ids = send(&server, &[json!({ "do": "ack", "a": "größe" })]);
    let tries = when_done(&server);
    assert_eq!(tries.len(), 1, "{tries:?}");
    let only = &tries[0];
    assert_eq!(
        (&only.id, only.queue.as_str(), only.attempt),
        (&ids[0], "jobs", 1)
    );
    assert_eq!(only.body, json!({ "do": "ack", "a": "größe" }));
}

#[test]
fn every_message_is_handled_by_some_worker() {
    let server = consumer_server("").workers(2).start();
    let bodies: Vec<_> = (0..200).map(|n| json!({ "do": "ack", "n": n })).collect();
    let mut sent = send(&server, &bodies);
    let tries = when_done(&server);
    let mut handled: Vec<_> = tries.into_iter().map(|one| one.id).collect();
    handled.sort();
    sent.sort();
    assert_eq!(handled, sent);
    server.when("both took part", SOON, |_| {
        server.queue("jobs").consumers == 2
    });
}

#[test]
fn message_that_is_retried_comes_again_with_its_attempts_counted() {
    let server = consumer_server("").start();
    send(
        &server,
        &[json!({ "do": "retry", "until": 2, "after_ms": 10 })],
    );
    let tries = when_done(&server);
    assert_eq!(attempts(&tries), [1, 2, 3]);
    let firsts: Vec<_> = tries.iter().map(|one| one.first).collect();
    assert_eq!(firsts, [true, false, false], "its id is the same each time");
}

#[test]
fn message_that_is_retried_waits_for_its_backoff() {
    let server = consumer_server(LONG_BACKOFF).start();
    send(&server, &[json!({ "do": "retry" })]);
    server.when_queue("it waits", |queue| queue.delayed == 1);
    assert_eq!(attempts(&server.tries()), [1]);
}

#[test]
fn delayed_message_is_handled_after_its_delay() {
    let server = consumer_server("").start();
    let before = SystemTime::UNIX_EPOCH
        .elapsed()
        .expect("it is later than 1970");
    let sent = server.send(&json!([{ "body": { "do": "ack" }, "delay_ms": 700 }]));
    ok(&sent);
    let started = when_done(&server)[0].start_ns;
    let waited = i128::from(started) - i128::try_from(before.as_nanos()).expect("a number");
    assert!(waited >= 700_000_000, "{waited} ns");
}

#[test]
fn message_goes_to_the_dead_letters_after_its_last_attempt_and_back_by_redrive() {
    let server = consumer_server("max-attempts = 3\n").start();
    let message =
        json!([{ "body": { "do": "retry", "after_ms": 0 }, "key": "k", "headers": { "a": "b" } }]);
    let sent = ids(&server.send(&message));
    server.when_queue("it is dead", |queue| queue.dead == 1 && queue.messages == 0);
    assert_eq!(attempts(&server.tries()), [1, 2, 3]);
    let dead: Value = server.command(&["queue", "peek", "jobs", "--dead"]);
    assert_eq!(
        (&dead[0]["id"], &dead[0]["key"]),
        (&json!(sent[0]), &json!("k"))
    );
    let headers = dead[0]["headers"].to_string();
    for text in [
        "\"a\"",
        "wrun-dead-reason",
        "wrun-dead-queue",
        "jobs",
        "wrun-dead-attempts",
        "3",
    ] {
        assert!(headers.contains(text), "{text}: {headers}");
    }
    let back: Value = server.command(&["queue", "redrive", "jobs"]);
    assert_eq!(back, json!({ "count": 1 }));
    server.when_tried("it is dead again", |tries| tries.len() == 6);
    server.when_queue("it is dead again", |queue| {
        queue.dead == 1 && queue.messages == 0
    });
    assert_eq!(attempts(&server.tries()), [1, 2, 3, 1, 2, 3]);
}

#[test]
fn message_that_can_never_be_handled_is_dead_at_once_with_the_reason() {
    let server = consumer_server("").start();
    send(&server, &[json!({ "do": "dead" })]);
    server.when_queue("it is dead", |queue| queue.dead == 1 && queue.messages == 0);
    assert_eq!(attempts(&server.tries()), [1]);
    let dead = server.control(["queue", "peek", "jobs", "--dead"]).ok();
    assert!(dead.contains("as told"), "{dead}");
}

#[test]
fn messages_of_one_key_are_handled_one_at_a_time_in_order() {
    let server = with_settings("", "batch = 4\nconcurrency = 4\n")
        .workers(2)
        .start();
    let message = |n: u32| {
        let body = match n {
            3 => json!({ "do": "retry", "until": 1, "after_ms": 100, "n": n }),
            4 => json!({ "do": "trap", "until": 1, "n": n }),
            _ => json!({ "do": "ack", "ms": 2, "n": n }),
        };
        json!({ "body": body, "key": format!("key-{}", n % 3) })
    };
    for n in 0..30 {
        ok(&server.send(&json!([message(2 * n), message(2 * n + 1)])));
    }
    let mut by_key: BTreeMap<_, Vec<Try>> = BTreeMap::new();
    for one in when_done(&server) {
        by_key.entry(one.key.clone()).or_default().push(one);
    }
    assert_eq!(by_key.len(), 3);
    for tries in by_key.values() {
        let numbers: Vec<_> = tries.iter().map(|one| one.body["n"].as_u64()).collect();
        assert!(numbers.is_sorted(), "{numbers:?}");
        for pair in tries.windows(2) {
            let end = pair[0].end_ns.unwrap_or(pair[0].start_ns);
            assert!(end <= pair[1].start_ns, "at the same time: {pair:?}");
        }
    }
}

#[test]
fn message_that_nobody_can_handle_does_not_take_others_with_it() {
    let server = with_settings(
        "max-attempts = 3\nbackoff = \"10ms\"\n",
        "batch = 10\nconcurrency = 1\n",
    )
    .start();
    let mut bodies = vec![json!({ "do": "ack" }); 6];
    bodies[3] = json!({ "do": "trap" });
    let ids = send(&server, &bodies);
    server.when_queue("only it is left", |queue| {
        queue.messages == 0 && queue.dead == 1
    });
    let tries = server.tries();
    for (id, body) in ids.iter().zip(&bodies) {
        let of_it: Vec<_> = tries.iter().filter(|one| one.id == *id).collect();
        let expected = if body["do"] == "trap" { 3 } else { 1 };
        assert!(of_it.len() >= expected, "{of_it:?}");
        for later in &of_it[1..] {
            assert_eq!(
                later.batch, 1,
                "after a failure each comes alone: {later:?}"
            );
        }
    }
    let dead: Value = server.command(&["queue", "peek", "jobs", "--dead"]);
    assert_eq!(dead[0]["id"], json!(ids[3]));
}

#[test]
fn call_that_fails_in_any_way_counts_as_a_retry() {
    let server = consumer_server("backoff = \"10ms\"\n")
        .flag("--cpu", "500ms")
        .start();
    for what in ["trap", "exit", "short", "long", "spin"] {
        let ids = send(&server, &[json!({ "do": what, "until": 1 })]);
        let tries = when_done(&server);
        let of_it: Vec<_> = tries.into_iter().filter(|one| one.id == ids[0]).collect();
        assert_eq!(attempts(&of_it), [1, 2], "{what}");
    }
    assert_eq!(server.worker().restarts, 0);
}

#[test]
fn messages_of_a_killed_worker_are_handled_by_another_at_once() {
    let settings = format!("{LONG_BACKOFF}visibility-timeout = \"1h\"\n");
    let server = consumer_server(&settings).start();
    send(&server, &[json!({ "do": "ack", "ms": 600_000 })]);
    server.when_tried("it is being handled", |tries| tries.len() == 1);
    process::send(server.worker().pid, Signal::SIGKILL);
    let is_ready = |workers: &[wrun_tests::Worker]| {
        workers.len() == 1 && workers[0].is_ready() && workers[0].restarts == 1
    };
    server.when("another worker", SOON, is_ready);
    let tries = server.when_tried("it is being handled again", |tries| tries.len() == 2);
    assert_eq!(attempts(&tries), [1, 2]);
}

#[test]
fn messages_that_were_being_handled_come_again_after_the_end_of_the_state_process() {
    let server = consumer_server("visibility-timeout = \"1h\"\n").start();
    send(&server, &[json!({ "do": "ack", "ms": 1000 })]);
    server.when_tried("it is being handled", |tries| tries.len() == 1);
    server.kill_state_process();
    let tries = when_done(&server);
    assert!(tries.len() >= 2, "{tries:?}");
}

#[test]
fn message_that_is_not_settled_in_time_comes_again() {
    let server =
        consumer_server("max-attempts = 2\nvisibility-timeout = \"1s\"\nbackoff = \"10ms\"\n")
            .start();
    send(&server, &[json!({ "do": "ack", "ms": 600_000 })]);
    server.when_queue("it is dead", |queue| queue.dead == 1 && queue.messages == 0);
    assert_eq!(attempts(&server.tries()), [1, 2]);
}

#[test]
fn delivery_that_is_extended_is_not_given_to_others() {
    let server = consumer_server("visibility-timeout = \"1s\"\n").start();
    send(
        &server,
        &[json!({ "do": "ack", "extend_ms": 600_000, "ms": 2500 })],
    );
    let tries = when_done(&server);
    assert_eq!(attempts(&tries), [1]);
    ok(tries[0].extended.as_ref().expect("it was noted"));
}

#[test]
fn delivery_of_somebody_else_cannot_be_extended() {
    let server = with_settings("", "batch = 1\nconcurrency = 2\n").start();
    let other = send(&server, &[json!({ "do": "ack", "ms": 1500 })]);
    server.when_tried("it is being handled", |tries| tries.len() == 1);
    let names = [other[0].as_str(), "default-999999", "", "../../1", "\0"];
    for id in names {
        send(
            &server,
            &[json!({ "do": "ack", "extend_ms": 1000, "id": id })],
        );
    }
    send(
        &server,
        &[json!({ "do": "ack", "extend_ms": 12 * 3_600_000 + 1 })],
    );
    let tries = when_done(&server);
    let extended: Vec<_> = tries
        .iter()
        .filter_map(|one| one.extended.as_ref())
        .map(error)
        .collect();
    let mut expected = vec!["not-yours"; names.len()];
    expected.push("invalid");
    assert_eq!(extended, expected);
}

#[test]
fn stop_waits_for_what_is_being_handled() {
    let folder = folder();
    let state = folder.path().join("state");
    let mut server = consumer_server("").state(&state).start();
    send(&server, &[json!({ "do": "ack", "ms": 1500 })]);
    server.when_tried("it is being handled", |tries| tries.len() == 1);
    server.control(["stop"]).ok();
    assert!(server.end(SOON).success());
    let server = consumer_server("").state(&state).start();
    assert_eq!(server.queue("jobs").messages, 0, "it was settled");
    let tries = server.tries();
    assert_eq!(attempts(&tries), [1]);
    assert!(tries[0].end_ns.is_some());
}

#[test]
fn reload_loses_no_message_and_handles_none_twice() {
    let server = with_settings("", "batch = 2\nconcurrency = 2\n")
        .workers(2)
        .start();
    let bodies = vec![json!({ "do": "ack", "ms": 20 }); 40];
    send(&server, &bodies);
    server.when_tried("some are handled", |tries| tries.len() > 3);
    server.reload();
    let tries = when_done(&server);
    assert_eq!(tries.len(), bodies.len());
}

#[test]
fn consumer_needs_no_requests_to_handle_messages() {
    let grants = "[databases.default]\n[queues.jobs]\n";
    let server = serve("state_worker")
        .manifest(format!("{grants}[consumers.jobs]\n"))
        .start();
    let line = server.log().first_line(SOON);
    assert_eq!(line.as_deref(), Some("wrun: handling messages (1 worker)"));
    assert_eq!(server.ps()["supervisor"]["urls"], json!([]));
    server
        .control(["queue", "send", "jobs", "{\"do\":\"ack\"}"])
        .ok();
    server.when_queue("it is handled", |queue| queue.messages == 0);
    let handled: Value = server.command(&[
        "db",
        "query",
        "default",
        "SELECT attempt, body FROM handled",
    ]);
    assert_eq!(handled, json!([{ "attempt": 1, "body": { "do": "ack" } }]));
    wrun()
        .serve(guest("state_worker"))
        .fail()
        .fails_with(65, &["[consumers.QUEUE]"]);
}

#[test]
fn consumers_section_for_a_component_that_handles_no_messages_is_refused() {
    let manifest = "[queues.jobs]\n[consumers.jobs]\n";
    let launch = serve("http_hello").manifest(manifest);
    launch
        .fail()
        .fails_with(65, &["[consumers.jobs]", "wrun:queue/consumer"]);
}
