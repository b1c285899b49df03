//! What an operator sees of databases, queues and locks, and does about them, while a server runs.

use crate::serve;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use wrun_tests::{Launch, Server, folder};

fn sharing() -> Launch {
    serve("http_hello")
        .flag("--lock", "stock")
        .flag("--db", "default")
        .flag("--queue", "orders")
}

fn json(server: &Server, args: &[&str]) -> Value {
    let printed = server.control([args, &["--json"]].concat()).ok();
    serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed}"))
}

fn query(server: &Server, sql: &str) -> String {
    server.control(["db", "query", "default", sql]).ok()
}

#[test]
fn query_prints_a_table_or_objects() {
    let server = sharing().start();
    query(
        &server,
        "CREATE TABLE fruit (id INTEGER PRIMARY KEY, name TEXT, fresh BOOLEAN)",
    );
    let insert = "INSERT INTO fruit (name, fresh) VALUES (?, TRUE), (?, NULL)";
    let inserted = server.control(["db", "query", "default", insert, "apple", "-5"]);
    assert_eq!(inserted.ok(), "2 rows changed\n");
    assert_eq!(
        query(&server, "SELECT * FROM fruit ORDER BY id"),
        "id  name   fresh\n1   apple  t\n2   -5\n"
    );
    let by_id = "SELECT fresh, name FROM fruit WHERE id = ?";
    assert_eq!(
        json(&server, &["db", "query", "default", by_id, "1"]),
        json!([{ "fresh": true, "name": "apple" }])
    );
    assert_eq!(
        json(&server, &["db", "query", "default", "DELETE FROM fruit"])["affected"],
        2
    );
}

#[test]
fn statement_that_is_refused_is_an_error_with_a_hint() {
    let server = sharing().start();
    for (label, sql, says) in [
        ("default", "SELECT * FROM nowhere", "nowhere"),
        ("default", "SELECT 1; SELECT 2", "invalid"),
        ("default", "ATTACH 'x' AS x", "denied"),
        ("shop", "SELECT 1", "shop"),
    ] {
        server
            .control(["db", "query", label, sql])
            .fails_with(64, &[says]);
    }
}

#[test]
fn databases_are_listed() {
    let server = sharing().start();
    query(&server, "CREATE TABLE t (a INTEGER)");
    let databases = json(&server, &["db", "ls"]);
    assert_eq!(
        (&databases[0]["db"], &databases[0]["dialect"]),
        (&json!("default"), &json!("sqlite"))
    );
    assert!(server.control(["db", "ls"]).ok().contains("default"));
}

#[test]
fn message_is_sent_seen_and_deleted() {
    let server = sharing().start();
    let send = [
        "queue",
        "send",
        "orders",
        "{\"n\":1}",
        "--key",
        "a",
        "--header",
        "from=test",
        "--dedup-id",
        "once",
    ];
    let id = server.control(send).ok();
    assert_eq!(server.control(send).ok(), id, "the second one is the same");
    server
        .control(["queue", "send", "orders", "later", "--delay", "1h"])
        .ok();
    let queues = json(&server, &["queue", "ls"]);
    assert_eq!(
        (
            &queues[0]["queue"],
            &queues[0]["messages"],
            &queues[0]["delayed"]
        ),
        (&json!("orders"), &json!(2), &json!(1))
    );
    let messages = json(&server, &["queue", "peek", "orders", "--count", "1"]);
    assert_eq!(messages.as_array().unwrap().len(), 1);
    let message = &messages[0];
    assert_eq!(message["id"], id.trim());
    assert_eq!(
        (
            &message["body"],
            &message["key"],
            &message["headers"]["from"]
        ),
        (&json!("{\"n\":1}"), &json!("a"), &json!("test"))
    );
    server
        .control(["queue", "purge", "orders"])
        .fails_with(64, &["--yes"]);
    assert_eq!(
        json(&server, &["queue", "purge", "orders", "--yes"])["count"],
        2
    );
    assert_eq!(json(&server, &["queue", "peek", "orders"]), json!([]));
}

#[test]
fn queue_that_is_not_there_is_an_error() {
    let server = sharing().start();
    for command in [
        &["queue", "peek", "shop"][..],
        &["queue", "send", "shop", "x"],
        &["queue", "redrive", "shop"],
        &["queue", "purge", "shop", "--yes"],
    ] {
        server.control(command).fails_with(64, &["shop"]);
    }
}

#[test]
fn nothing_to_redrive_is_no_error() {
    let server = sharing().start();
    assert_eq!(
        server.control(["queue", "redrive", "orders"]).ok(),
        "0 messages sent back\n"
    );
}

#[test]
fn locks_are_listed() {
    let server = sharing().start();
    assert_eq!(json(&server, &["lock", "ls"]), json!([]));
    assert!(server.control(["lock", "ls"]).ok().starts_with("SPACE"));
}

#[test]
fn server_starts_on_a_backup_of_another() {
    let folder = folder();
    let copy = folder.path().join("copy.db");
    let file = copy.to_str().unwrap();
    let server = sharing().start();
    query(&server, "CREATE TABLE t (a INTEGER)");
    query(&server, "INSERT INTO t VALUES (7)");
    server.control(["queue", "send", "orders", "kept"]).ok();
    server.control(["backup", file]).ok();
    assert_eq!(
        fs::metadata(&copy).unwrap().permissions().mode() & 0o777,
        0o600
    );
    server
        .control(["backup", file])
        .fails_with(73, &["--force"]);
    query(&server, "INSERT INTO t VALUES (8)");
    server.control(["backup", file, "--force"]).ok();
    query(&server, "INSERT INTO t VALUES (9)");
    server
        .control(["backup", "--db", "shop", "never"])
        .fails_with(64, &["shop"]);
    let left: Vec<_> = fs::read_dir(server.state().join("data"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| !name.to_string_lossy().starts_with("default.db"))
        .collect();
    assert!(left.is_empty(), "{left:?}");

    let state = folder.path().join("state");
    fs::create_dir_all(state.join("data")).unwrap();
    fs::copy(&copy, state.join("data/default.db")).unwrap();
    let restored = sharing().state(&state).start();
    assert_eq!(query(&restored, "SELECT a FROM t ORDER BY a"), "a\n7\n8\n");
    assert_eq!(
        json(&restored, &["queue", "peek", "orders"])[0]["body"],
        "kept"
    );
}
