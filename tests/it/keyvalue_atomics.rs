//! What is atomic in `wasi:keyvalue`: counts, swaps, and many keys at once, whichever worker a request is in.

use crate::keyvalue::{DRAFTS, KEY_MAX, get, store_server};
use serde_json::{Value, json};
use std::thread;
use wrun_tests::Server;
use wrun_tests::state::{error, ok};

/// Has eight clients send this step so often each, all at the same time.
fn send_from_eight(server: &Server, times: usize, step: &Value) {
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..times {
                    ok(&server.step(step.clone()));
                }
            });
        }
    });
}

#[test]
fn hits_of_concurrent_requests_on_four_workers_are_counted_exactly() {
    for guest in DRAFTS {
        let server = store_server(guest).workers(4).start();
        send_from_eight(
            &server,
            50,
            &json!({ "op": "increment", "key": "hits", "delta": 1 }),
        );
        assert_eq!(get(&server, "hits"), "400");
        send_from_eight(
            &server,
            10,
            &json!({ "op": "add_in_two_steps", "key": "lost" }),
        );
        let counted = get(&server, "lost");
        let counted: u32 = counted.as_str().expect("text").parse().expect("a number");
        assert!(counted < 80, "get and set lose counts: {counted}");
    }
}

#[test]
fn what_is_swapped_by_concurrent_requests_is_counted_exactly() {
    let server = store_server("keyvalue_draft2").workers(4).start();
    send_from_eight(&server, 20, &json!({ "op": "add_by_swap", "key": "n" }));
    assert_eq!(get(&server, "n"), "160");
}

#[test]
fn swap_fails_if_anything_was_done_to_the_key_since() {
    let server = store_server("keyvalue_draft2").start();
    let swap = json!({ "op": "swap", "value": "swapped" });
    for (before, between, is_seen) in [
        (
            json!({ "op": "delete", "key": "k" }),
            json!({ "op": "set", "key": "k", "value": "x" }),
            json!("x"),
        ),
        (
            json!({ "op": "set", "key": "k", "value": "x" }),
            json!({ "op": "set", "key": "k", "value": "x" }),
            json!("x"),
        ),
        (
            json!({ "op": "set", "key": "k", "value": "x" }),
            json!({ "op": "delete", "key": "k" }),
            Value::Null,
        ),
        (
            json!({ "op": "set", "key": "k", "value": "1" }),
            json!({ "op": "increment", "key": "k", "delta": 0 }),
            json!("1"),
        ),
    ] {
        let results = server.script(&json!([
            before, { "op": "see", "key": "k" }, between, swap, { "op": "current" }, swap, { "op": "get", "key": "k" },
        ]));
        let values: Vec<_> = results[3..].iter().map(ok).collect();
        assert_eq!(
            json!(values),
            json!(["failed", is_seen, "swapped", "swapped"])
        );
    }
    let results = server.script(&json!([
        { "op": "set", "key": "k", "value": "x" }, { "op": "see", "key": "k" }, { "op": "set", "key": "k", "value": "y" },
        { "op": "current" }, swap,
    ]));
    assert_eq!(
        ok(&results[4]),
        "swapped",
        "`current` means what it returned"
    );
}

#[test]
fn increment_refuses_what_is_no_number_and_what_would_not_stay_one() {
    for guest in DRAFTS {
        let server = store_server(guest).start();
        for value in ["", "x", "1.5", "007", "9223372036854775807"] {
            let results = server.script(&json!([
                { "op": "set", "key": "k", "value": value }, { "op": "increment", "key": "k", "delta": 1 },
                { "op": "get", "key": "k" },
            ]));
            assert_eq!(error(&results[1]), "other", "{value}");
            assert_eq!(ok(&results[2]), value, "it is as it was");
        }
    }
    let server = store_server("keyvalue_draft").start();
    let results = server.script(&json!([
        { "op": "increment", "key": "k", "delta": u64::MAX }, { "op": "exists", "key": "k" },
        { "op": "set", "key": "k", "value": "-3" }, { "op": "increment", "key": "k", "delta": 2 },
        { "op": "increment", "key": "k", "delta": 5 },
    ]));
    assert_eq!(
        (error(&results[0]), ok(&results[1])),
        ("other", &json!(false))
    );
    assert_eq!((error(&results[3]), ok(&results[4])), ("other", &json!(2)));
    let server = store_server("keyvalue_draft2").start();
    let results = server.script(&json!([
        { "op": "increment", "key": "k", "delta": i64::MIN }, { "op": "increment", "key": "k", "delta": -1 },
        { "op": "increment", "key": "k", "delta": i64::MAX }, { "op": "get", "key": "k" },
    ]));
    assert_eq!(ok(&results[0]), i64::MIN);
    assert_eq!(error(&results[1]), "other");
    assert_eq!(
        (ok(&results[2]), ok(&results[3])),
        (&json!(-1), &json!("-1"))
    );
}

#[test]
fn many_keys_are_set_and_deleted_together_or_not_at_all() {
    for guest in DRAFTS {
        let server = store_server(guest).start();
        let bad_key = "k".repeat(KEY_MAX + 1);
        let results = server.script(&json!([
            { "op": "set_many", "pairs": [["a", "1"], ["b", "2"], ["a", "3"]] },
            { "op": "set_many", "pairs": [["a", "4"], ["c", "5"], [bad_key, "6"]] },
            { "op": "delete_many", "keys": ["a", bad_key] },
            { "op": "get_many", "keys": ["a", "b", "c", "a"] },
            { "op": "delete_many", "keys": ["a", "c"] },
            { "op": "get_many", "keys": ["a", "b"] },
            { "op": "get_many", "keys": [] }, { "op": "set_many", "pairs": [] }, { "op": "delete_many", "keys": [] },
        ]));
        assert_eq!([error(&results[1]), error(&results[2])], ["other"; 2]);
        assert_eq!(ok(&results[3]), &json!(["3", "2", null, "3"]));
        assert_eq!(ok(&results[5]), &json!([null, "2"]));
        assert_eq!(ok(&results[6]), &json!([]));
        ok(&results[7]);
        ok(&results[8]);
    }
}

#[test]
fn many_keys_are_read_as_they_are_at_one_moment() {
    let server = store_server("keyvalue_draft2").workers(2).start();
    let both = |value: usize| json!({ "op": "set_many", "pairs": [["a", value.to_string()], ["b", value.to_string()]] });
    ok(&server.step(both(0)));
    thread::scope(|scope| {
        let writer =
            scope.spawn(|| (1..200).for_each(|value| drop(ok(&server.step(both(value))).clone())));
        while !writer.is_finished() {
            let read = server.step(json!({ "op": "get_many", "keys": ["a", "b"] }));
            assert_eq!(ok(&read)[0], ok(&read)[1]);
        }
    });
}
