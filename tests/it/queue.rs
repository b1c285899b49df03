//! `wrun:queue`: sending. What becomes of messages that are handled is in `consumer`.

use crate::serve;
use serde_json::{Value, json};
use wrun_tests::state::{error, ok};
use wrun_tests::{Launch, Server};

/// A server whose messages nobody handles.
fn queue_server(settings: &str) -> Launch {
    serve("state_queue").manifest(format!("[databases.default]\n[queues.jobs]\n{settings}"))
}

#[track_caller]
fn send(server: &Server, message: Value) -> Value {
    server.send(&Value::from(vec![message]))
}

fn ids(result: &Value) -> &Vec<Value> {
    ok(result).as_array().expect("a list of ids")
}

#[test]
fn message_that_was_sent_is_there_until_it_is_handled() {
    let server = queue_server("").start();
    let message = json!({ "body": 1, "key": "k", "content_type": "application/json", "headers": { "a": "b" } });
    let sent = send(&server, message);
    let peeked: Value = server.command(&["queue", "peek", "jobs"]);
    assert_eq!(peeked[0]["id"], ids(&sent)[0]);
    assert_eq!(peeked[0]["key"], "k");
    assert_eq!(peeked[0]["content_type"], "application/json");
    assert_eq!(peeked[0]["attempts"], 0);
    server.kill_state_process();
    assert_eq!(server.queue("jobs").messages, 1);
}

#[test]
fn messages_that_are_sent_together_are_taken_together_or_not_at_all() {
    let server = queue_server("").start();
    let sent = server.send(&json!([{ "body": 1 }, { "body": 2 }, { "body": 3 }]));
    let mut distinct = ids(&sent).clone();
    distinct.dedup();
    assert_eq!(distinct.len(), 3);
    let refused = server.send(&json!([{ "body": 4 }, { "body": 5, "spaces": 1 << 20 }]));
    assert_eq!(error(&refused), "too-large");
    assert_eq!(server.queue("jobs").messages, 3);
}

#[test]
fn message_that_was_sent_before_is_not_taken_again() {
    let server = queue_server("").start();
    let first = send(&server, json!({ "body": 1, "dedup_id": "order-1" }));
    let again = send(&server, json!({ "body": 2, "dedup_id": "order-1" }));
    let other = send(&server, json!({ "body": 3, "dedup_id": "order-2" }));
    assert_eq!(ids(&first), ids(&again));
    assert_ne!(ids(&first), ids(&other));
    let together = server
        .send(&json!([{ "body": 4, "dedup_id": "order-3" }, { "body": 5, "dedup_id": "order-3" }]));
    assert_eq!(ids(&together)[0], ids(&together)[1]);
    assert_eq!(server.queue("jobs").messages, 3);
    server.kill_state_process();
    let again = send(&server, json!({ "body": 6, "dedup_id": "order-1" }));
    assert_eq!(ids(&first), ids(&again));
}

#[test]
fn queue_takes_no_more_than_it_may_hold() {
    let server = queue_server("max-depth = 3\n").start();
    ok(&server.send(&json!([{ "body": 1 }, { "body": 2 }])));
    let refused = server.send(&json!([{ "body": 3 }, { "body": 4 }]));
    assert_eq!(error(&refused), "full");
    ok(&send(&server, json!({ "body": 5 })));
    assert_eq!(error(&send(&server, json!({ "body": 6 }))), "full");
    server.control(["queue", "purge", "jobs", "--yes"]).ok();
    ok(&send(&server, json!({ "body": 7 })));
}

#[test]
fn message_that_is_over_a_limit_or_makes_no_sense_is_refused() {
    let server = queue_server("").start();
    let text = |length| "x".repeat(length);
    let messages = [
        (json!({ "body": 1, "spaces": 1 << 20 }), "too-large"),
        (
            json!({ "body": 1, "headers": { "a": text(16 << 10) } }),
            "too-large",
        ),
        (json!({ "body": 1, "key": text(513) }), "too-large"),
        (json!({ "body": 1, "dedup_id": text(513) }), "too-large"),
        (json!({ "body": 1, "content_type": text(513) }), "too-large"),
        (json!({ "body": 1, "key": "a\0" }), "invalid"),
        (
            json!({ "body": 1, "delay_ms": 30 * 86_400_000_u64 + 1 }),
            "invalid",
        ),
    ];
    for (message, name) in messages {
        let shown: String = message.to_string().chars().take(60).collect();
        assert_eq!(error(&send(&server, message)), name, "{shown}");
    }
    assert_eq!(error(&server.send(&json!([]))), "invalid");
    let many = vec![json!({ "body": 1 }); 1001];
    assert_eq!(error(&server.send(&json!(many))), "invalid");
    assert_eq!(server.queue("jobs").messages, 0);
    ok(&server.send(&json!(many[1..])));
    ok(&send(
        &server,
        json!({ "body": 1, "spaces": (1 << 20) - 1, "key": text(512), "delay_ms": 30 * 86_400_000_u64 }),
    ));
}

#[test]
fn messages_that_are_too_large_together_are_refused() {
    let server = queue_server("").flag("--host-call", "64MiB").start();
    let many = vec![json!({ "body": 1, "spaces": 1_000_000 }); 17];
    assert_eq!(error(&server.send(&json!(many))), "too-large");
    assert_eq!(server.queue("jobs").messages, 0);
}

#[test]
fn delayed_message_is_not_ready() {
    let server = queue_server("").start();
    ok(&server.send(&json!([{ "body": 1, "delay_ms": 3_600_000 }, { "body": 2 }])));
    let queue = server.queue("jobs");
    assert_eq!((queue.messages, queue.delayed, queue.ready), (2, 1, 1));
}

#[test]
fn messages_past_the_limit_of_a_request_are_refused_and_those_of_others_are_not() {
    let server = queue_server("").flag("--request-messages", "2").start();
    let refused = server.send(&json!([{ "body": 1 }, { "body": 2 }, { "body": 3 }]));
    assert_eq!(error(&refused), "too-large");
    assert_eq!(server.queue("jobs").messages, 0);
    for _ in 0..2 {
        ok(&server.send(&json!([{ "body": 1 }, { "body": 2 }])));
    }
    assert_eq!(server.queue("jobs").messages, 4);
}
