//! `wasi:keyvalue` in both drafts: components made for other hosts find stores that last and that all workers share.

use crate::serve;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use wrun_tests::state::{error, ok};
use wrun_tests::{Launch, Server, folder};

pub(crate) const DRAFTS: [&str; 2] = ["keyvalue_draft", "keyvalue_draft2"];

/// The longest key.
pub(crate) const KEY_MAX: usize = 512;
/// The largest value, and the most keys of one call.
const VALUE_MAX: usize = 4 << 20;
const KEYS_MAX: usize = 1000;

pub(crate) fn store_server(guest: &str) -> Launch {
    serve(guest).flag("--keyvalue", "default")
}

#[track_caller]
pub(crate) fn get(server: &Server, key: &str) -> Value {
    ok(&server.step(json!({ "op": "get", "key": key }))).clone()
}

/// Returns all keys, page by page, and how many pages there are.
fn all_keys(server: &Server) -> (Vec<String>, usize) {
    let (mut keys, mut pages, mut cursor) = (Vec::new(), 0, Value::Null);
    loop {
        let page = server.step(json!({ "op": "list", "cursor": cursor }));
        let page = ok(&page).as_array().expect("keys and a cursor").clone();
        let listed = page[0].as_array().expect("keys");
        keys.extend(
            listed
                .iter()
                .map(|key| key.as_str().expect("a key").to_owned()),
        );
        pages += 1;
        cursor = page[1].clone();
        if cursor.is_null() {
            return (keys, pages);
        }
    }
}

fn numbered(prefix: &str, keys: std::ops::Range<usize>) -> Vec<(String, String)> {
    keys.map(|number| (format!("{prefix}{number:05}"), number.to_string()))
        .collect()
}

#[test]
fn what_was_set_is_there_until_it_is_deleted() {
    for guest in DRAFTS {
        let server = store_server(guest).workers(2).start();
        let results = server.script(&json!([
            { "op": "get", "key": "a" }, { "op": "exists", "key": "a" },
            { "op": "set", "key": "a", "value": "one" }, { "op": "set", "key": "a", "value": "two" },
            { "op": "set", "key": "bytes", "value": [0, 255, 10] }, { "op": "set", "key": "empty", "value": "" },
            { "op": "set", "key": "ä€ 😀\n%'\"", "value": "007" },
        ]));
        assert_eq!(
            (ok(&results[0]), ok(&results[1])),
            (&Value::Null, &json!(false))
        );
        results.iter().for_each(|result| drop(ok(result).clone()));
        let results = server.script(&json!([
            { "op": "get", "key": "a" }, { "op": "get", "key": "bytes" }, { "op": "get", "key": "empty" },
            { "op": "get", "key": "ä€ 😀\n%'\"" }, { "op": "exists", "key": "empty" }, { "op": "get", "key": "A" },
        ]));
        let values: Vec<_> = results.iter().map(ok).collect();
        assert_eq!(
            json!(values),
            json!(["two", [0, 255, 10], "", "007", true, null])
        );
        let results = server.script(&json!([
            { "op": "delete", "key": "a" }, { "op": "delete", "key": "a" }, { "op": "exists", "key": "a" },
            { "op": "get", "key": "a" },
        ]));
        let values: Vec<_> = results.iter().map(ok).collect();
        assert_eq!(json!(values), json!([null, null, false, null]));
    }
}

#[test]
fn both_drafts_and_the_store_without_a_name_are_the_same_store() {
    let folder = folder();
    let mut server = store_server(DRAFTS[0]).state(folder.path()).start();
    server.script(&json!([
        { "op": "open", "store": "" }, { "op": "increment", "key": "hits", "delta": 3 },
    ]));
    server.stop();
    let server = store_server(DRAFTS[1]).state(folder.path()).start();
    assert_eq!(get(&server, "hits"), "3");
}

#[test]
fn everything_survives_the_end_of_the_state_process_and_of_the_server() {
    for guest in DRAFTS {
        let folder = folder();
        let start = || store_server(guest).state(folder.path()).start();
        let mut server = start();
        let count = json!({ "op": "increment", "key": "hits", "delta": 1 });
        for hits in 1..=3 {
            assert_eq!(ok(&server.step(count.clone())), hits);
            server.kill_state_process();
        }
        server.signal(nix::sys::signal::Signal::SIGKILL);
        server.end(wrun_tests::SOON);
        assert_eq!(ok(&start().step(count)), 4);
    }
}

#[test]
fn keys_are_listed_page_by_page_each_once() {
    for guest in DRAFTS {
        let server = store_server(guest).start();
        assert_eq!(all_keys(&server), (Vec::new(), 1));
        let pairs = numbered("key", 0..2 * KEYS_MAX + 1);
        for some in pairs.chunks(KEYS_MAX) {
            ok(&server.step(json!({ "op": "set_many", "pairs": some })));
        }
        ok(&server.step(json!({ "op": "set", "key": "key00000", "value": "again" })));
        let (keys, pages) = all_keys(&server);
        assert_eq!((keys.len(), pages), (pairs.len(), 3));
        let listed: BTreeSet<_> = keys.into_iter().collect();
        assert_eq!(listed, pairs.into_iter().map(|(key, _)| key).collect());
    }
}

#[test]
fn cursor_that_no_page_came_with_is_no_trap() {
    let server = store_server("keyvalue_draft").start();
    ok(&server.step(json!({ "op": "set", "key": "k", "value": "" })));
    let past = server.step(json!({ "op": "list", "cursor": u64::MAX.to_string() }));
    assert_eq!(ok(&past), &json!([[], null]));
    let server = store_server("keyvalue_draft2").start();
    for cursor in ["", "x", "9223372036854775808"] {
        let result = server.step(json!({ "op": "list", "cursor": cursor }));
        assert_eq!(error(&result), "other", "{cursor}");
    }
}

#[test]
fn keys_and_values_past_their_limits_are_refused_by_name() {
    for guest in DRAFTS {
        let server = store_server(guest).start();
        for (key, says) in [
            (String::new(), "empty"),
            ("k".repeat(KEY_MAX + 1), "512"),
            ("k".repeat(64 << 10), "512"),
            ("a\0b".to_owned(), "NUL"),
        ] {
            for op in [
                json!({ "op": "get", "key": key }),
                json!({ "op": "set", "key": key, "value": "" }),
                json!({ "op": "delete", "key": key }),
                json!({ "op": "exists", "key": key }),
                json!({ "op": "increment", "key": key, "delta": 1 }),
                json!({ "op": "get_many", "keys": [key] }),
            ] {
                let result = server.step(op.clone());
                assert_eq!(error(&result), "other");
                assert!(
                    result["why"].as_str().expect("a text").contains(says),
                    "{result}"
                );
            }
        }
        let set =
            |key: &str, zeros| json!({ "op": "set", "key": key, "value": { "zeros": zeros } });
        let long = "k".repeat(KEY_MAX);
        let too_many = numbered("", 0..KEYS_MAX + 1);
        let keys: Vec<_> = too_many.iter().map(|(key, _)| key).collect();
        let together = json!({ "zeros": VALUE_MAX });
        let results = server.script(&json!([
            set(&long, VALUE_MAX), { "op": "get", "key": long }, set("k", VALUE_MAX + 1),
            { "op": "set_many", "pairs": too_many }, { "op": "get_many", "keys": keys }, { "op": "delete_many", "keys": keys },
            { "op": "set_many", "pairs": [["a", together], ["b", together], ["c", "1"]] },
            { "op": "set_many", "pairs": [["a", together], ["b", { "zeros": 100 }]] },
            { "op": "set_many", "pairs": [["c", together]] },
            { "op": "get_many", "keys": ["a", "b", "c", long] },
        ]));
        assert_eq!(ok(&results[1])["bytes"], VALUE_MAX);
        for at in [2, 3, 4, 5, 6, 9] {
            let why = results[at]["why"].as_str().expect("it is refused");
            assert!(why.starts_with("too large: "), "{why}");
        }
        ok(&results[7]);
        assert_eq!(server.worker().restarts, 0);
    }
}

#[test]
fn store_at_its_largest_size_says_so_and_takes_more_once_something_is_deleted() {
    let server = serve("keyvalue_draft2")
        .manifest("[keyvalue.default]\nmax-size = \"1MiB\"\ndurability = \"relaxed\"\n")
        .start();
    let set = json!({ "op": "set", "key": "k", "value": { "zeros": 700_000 } });
    let more = json!({ "op": "set", "key": "more", "value": { "zeros": 700_000 } });
    let results = server.script(&json!([set, more, { "op": "delete", "key": "k" }, more]));
    ok(&results[0]);
    assert!(
        results[1]["why"]
            .as_str()
            .expect("it is full")
            .contains("max-size")
    );
    ok(&results[3]);
}

#[test]
fn store_that_is_not_granted_is_not_there_and_the_log_says_how_to_grant_it() {
    let long = "a".repeat(64 << 10);
    for guest in DRAFTS {
        let server = serve(guest)
            .manifest("[keyvalue.default]\n[databases.shop]\n")
            .start();
        for label in [
            "shop",
            "other",
            "shop.db",
            "default.keyvalue",
            "../default",
            "default\0",
            "DEFAULT",
            &long,
        ] {
            let result = server.step(json!({ "op": "open", "store": label }));
            assert_eq!(error(&result), "no-such-store");
        }
        server.log().line_with("[keyvalue.shop]");
        let server = serve(guest).start();
        let result = server.step(json!({ "op": "get", "key": "k" }));
        assert_eq!(error(&result), "no-such-store");
        server.log().line_with("[keyvalue.default]");
        assert_eq!(server.ps()["state"], Value::Null, "nothing needs one");
    }
}

#[test]
fn sql_of_guests_does_not_reach_a_store() {
    let server = serve("state_db")
        .manifest("[keyvalue.default]\n[databases.default]\n")
        .start();
    let result = server.step(json!({ "op": "open", "db": "default.keyvalue" }));
    assert_eq!(error(&result), "denied");
    let result = server.step(json!({ "op": "query", "sql": "SELECT * FROM pair" }));
    assert_eq!(error(&result), "42P01");
}

#[test]
fn operators_see_keys_and_values() {
    let server = store_server("keyvalue_draft2").start();
    let mut pairs = numbered("user:", 0..KEYS_MAX);
    pairs.push(("order".to_owned(), "text\n".to_owned()));
    for some in pairs.chunks(KEYS_MAX) {
        ok(&server.step(json!({ "op": "set_many", "pairs": some })));
    }
    ok(&server.step(json!({ "op": "set", "key": "raw", "value": [0, 255] })));
    let ls = |args: &[&str]| -> Value {
        server.command(&[&["keyvalue", "ls", "default"], args].concat())
    };
    assert_eq!(ls(&[]).as_array().expect("keys").len(), KEYS_MAX + 2);
    assert_eq!(
        ls(&["--prefix", "user:0000"]),
        json!(
            (0..10)
                .map(|n| json!({ "key": format!("user:0000{n}"), "bytes": 1 }))
                .collect::<Vec<_>>()
        )
    );
    assert_eq!(
        server
            .control(["keyvalue", "ls", "default", "--prefix", "o"])
            .ok(),
        "KEY    SIZE\norder  5 B\n"
    );
    let get = |key: &str| server.control(["keyvalue", "get", "default", key]);
    assert_eq!(
        (get("order").ok(), get("user:00012").ok()),
        ("text\n".to_owned(), "12".to_owned())
    );
    let raw: Value = server.command(&["keyvalue", "get", "default", "raw"]);
    assert_eq!(raw, json!({ "key": "raw", "value": "\\x00ff" }));
    get("nothing").fails_with(66, &["nothing"]);
    server
        .control(["keyvalue", "ls", "other"])
        .fails_with(64, &["other"]);
}
