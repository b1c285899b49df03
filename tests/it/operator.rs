//! The operator's commands for what guests share: `wrun db`, `queue`, `lock` and `backup`.

use crate::serve;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use wrun_tests::state::{ok, rows};
use wrun_tests::{Launch, Server, folder};

const GRANTS: &str = "[locks.default]\n[databases.default]\n[databases.other]\n[queues.jobs]\n";

fn db_server() -> Launch {
    serve("state_db").manifest(GRANTS)
}

#[track_caller]
fn query(server: &Server, sql: &str) -> Value {
    server.command(&["db", "query", "default", sql])
}

/// Makes a state folder in `parent` to put data into, and returns it and its folder for that.
fn state_folder(parent: &Path) -> (PathBuf, PathBuf) {
    let state = parent.join("state");
    let data = state.join("data");
    fs::create_dir_all(&data).expect("a folder");
    for folder in [&state, &data] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).expect("it is ours");
    }
    (state, data)
}

#[test]
fn databases_are_listed() {
    let server = db_server().start();
    query(&server, "CREATE TABLE t (id INTEGER)");
    let listed: Value = server.command(&["db", "ls"]);
    let labels: Vec<_> = listed
        .as_array()
        .expect("a list")
        .iter()
        .map(|entry| &entry["db"])
        .collect();
    assert_eq!(labels, ["default", "other"]);
    assert_eq!(listed[0]["dialect"], "sqlite");
    assert!(listed[0]["commits"].as_u64() >= Some(1), "{listed}");
    let table = server.control(["db", "ls"]).ok();
    for text in ["DATABASE", "default", "other", "sqlite"] {
        assert!(table.contains(text), "{table}");
    }
}

#[test]
fn query_prints_rows_and_effects() {
    let server = db_server().start();
    query(
        &server,
        "CREATE TABLE t (id INTEGER PRIMARY KEY, at TIMESTAMP, doc JSON)",
    );
    let done = query(
        &server,
        "INSERT INTO t VALUES (1, 0, '{\"a\": [1]}'), (2, NULL, NULL)",
    );
    assert_eq!(done, json!({ "affected": 2, "last_id": 2 }));
    let expected = json!([
        { "id": 1, "at": "1970-01-01T00:00:00+00:00", "doc": { "a": [1] } }, { "id": 2, "at": null, "doc": null },
    ]);
    assert_eq!(query(&server, "SELECT * FROM t ORDER BY id"), expected);
    let text = server
        .control([
            "db",
            "query",
            "default",
            "SELECT id, doc FROM t WHERE id = ?",
            "1",
        ])
        .ok();
    assert_eq!(text, "id  doc\n1   {\"a\": [1]}\n");
    let text = server
        .control(["db", "query", "default", "DELETE FROM t WHERE id = 1"])
        .ok();
    assert_eq!(text, "1 row changed\n");
    assert_eq!(
        query(&server, "SELECT count(*) AS n FROM t"),
        json!([{ "n": 1 }])
    );
    let other: Value = server.command(&[
        "db",
        "query",
        "other",
        "SELECT count(*) AS n FROM sqlite_schema WHERE name = 't'",
    ]);
    assert_eq!(other, json!([{ "n": 0 }]));
}

#[test]
fn query_that_is_refused_says_why() {
    let server = db_server().start();
    let refused = |label, sql| server.control(["db", "query", label, sql]);
    refused("nothing", "SELECT 1").fails_with(64, &["nothing", "wrun db ls"]);
    refused("default", "SELEKT").fails_with(64, &["42601"]);
    refused("default", "SELECT 1; SELECT 2").fails_with(64, &["several statements"]);
    refused("default", "ATTACH 'x' AS x").fails_with(64, &["ATTACH"]);
    refused("default", "SELECT * FROM _wrun_message").fails_with(64, &["_wrun_message"]);
}

#[test]
fn locks_are_listed_with_who_holds_them() {
    let server = serve("state_lock").manifest(GRANTS).start();
    assert_eq!(server.locks().len(), 0);
    let mut holder = server.connect();
    holder.send_head("GET", "/forever?key=stock:1", &[]);
    let lock = server.when_held("stock:1", 0);
    assert_eq!(
        (lock.space.as_str(), lock.pid),
        ("default", server.worker().pid)
    );
    let table = server.control(["lock", "ls"]).ok();
    for text in [
        "SPACE",
        "stock:1",
        &lock.token.to_string(),
        &lock.pid.to_string(),
    ] {
        assert!(table.contains(text), "{table}");
    }
}

#[test]
fn message_can_be_sent_seen_and_deleted() {
    let server = serve("state_queue").manifest(GRANTS).start();
    let sent: Value = server.command(&[
        "queue",
        "send",
        "jobs",
        "{\"a\":1}",
        "--key",
        "k",
        "-H",
        "from=operator",
        "--content-type",
        "application/json",
        "--dedup-id",
        "once",
    ]);
    let again = server
        .control(["queue", "send", "jobs", "again", "--dedup-id", "once"])
        .ok();
    assert_eq!(sent["id"], again.trim_end());
    server
        .control(["queue", "send", "jobs", "later", "--delay", "1h"])
        .ok();
    let peeked: Value = server.command(&["queue", "peek", "jobs", "-n", "1"]);
    assert_eq!(peeked.as_array().map(Vec::len), Some(1));
    assert_eq!(
        (&peeked[0]["id"], &peeked[0]["key"]),
        (&sent["id"], &json!("k"))
    );
    let table = server.control(["queue", "peek", "jobs"]).ok();
    for text in ["BODY", "from=operator", "{\"a\":1}", "later"] {
        assert!(table.contains(text), "{table}");
    }
    let table = server.control(["queue", "ls"]).ok();
    assert!(
        table.contains("DELAYED") && table.contains("jobs"),
        "{table}"
    );
    let queue = server.queue("jobs");
    assert_eq!((queue.messages, queue.ready, queue.delayed), (2, 1, 1));
    server
        .control(["queue", "purge", "jobs"])
        .fails_with(64, &["--yes"]);
    assert_eq!(
        server.control(["queue", "purge", "jobs", "--yes"]).ok(),
        "2 messages deleted\n"
    );
    assert_eq!(server.queue("jobs").messages, 0);
    assert_eq!(
        server.control(["queue", "redrive", "jobs"]).ok(),
        "0 messages sent back\n"
    );
}

#[test]
fn message_body_comes_from_stdin_too() {
    let server = serve("state_queue").manifest(GRANTS).start();
    let folder = folder();
    let send = |body: &[u8]| {
        let file = folder.path().join("body");
        fs::write(&file, body).expect("a file");
        let mut command: Command = crate::wrun().command();
        command
            .args(["queue", "send", "jobs", "--state"])
            .arg(server.state());
        command.stdin(Stdio::from(fs::File::open(&file).expect("it is there")));
        wrun_tests::Outcome::from(command.output().expect("wrun starts"))
    };
    send(b"from a file").ok();
    assert!(
        server
            .control(["queue", "peek", "jobs"])
            .ok()
            .contains("from a file")
    );
    send(&vec![b'x'; (1 << 20) + 1]).fails_with(64, &["larger than"]);
}

#[test]
fn queue_that_is_not_there_is_refused_by_every_command() {
    let server = serve("state_queue").manifest(GRANTS).start();
    for args in [
        &["queue", "peek", "nothing"][..],
        &["queue", "send", "nothing", "body"],
        &["queue", "redrive", "nothing"],
        &["queue", "purge", "nothing", "--yes"],
        &["queue", "peek", "jobs.dead"],
        &["queue", "peek", "../jobs"],
    ] {
        server.control(args).fails_with(64, &["wrun queue ls"]);
    }
}

#[test]
fn server_that_shares_nothing_says_so() {
    let server = serve("http_hello").start();
    let folder = folder();
    let copy = folder.path().join("copy.db");
    for args in [
        &["db", "ls"][..],
        &["queue", "ls"],
        &["lock", "ls"],
        &["backup", copy.to_str().expect("UTF-8")],
    ] {
        server.control(args).fails_with(69, &["shares nothing"]);
    }
    assert!(!copy.exists());
}

#[test]
fn backup_is_a_whole_copy_while_others_write_and_a_server_can_start_on_it() {
    let server = db_server().start();
    query(&server, "CREATE TABLE t (a INTEGER, b INTEGER)");
    let folder = folder();
    let copy = folder.path().join("copy.db");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            // Two rows in each transaction: a copy with one of them is no copy.
            while !stop.load(Ordering::Relaxed) {
                let insert = json!({ "sql": "INSERT INTO t VALUES (1, 1)" });
                ok(&server.step(json!({ "op": "batch", "statements": [insert, insert] })));
            }
        });
        wrun_tests::eventually("many rows", wrun_tests::SOON, || {
            (query(&server, "SELECT count(*) AS n FROM t")[0]["n"].as_u64() > Some(50))
                .then_some(())
        });
        server.control(["backup".as_ref(), copy.as_os_str()]).ok();
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(
        fs::metadata(&copy)
            .expect("it is there")
            .permissions()
            .mode()
            & 0o777,
        0o600
    );
    assert_eq!(
        fs::read_dir(folder.path()).expect("a folder").count(),
        1,
        "nothing is left beside it"
    );
    let again = server.control(["backup".as_ref(), copy.as_os_str()]);
    again.fails_with(73, &["is there already", "--force"]);
    server
        .control(["backup".as_ref(), copy.as_os_str(), "--force".as_ref()])
        .ok();
    let after = query(&server, "SELECT count(*) AS n FROM t")[0]["n"].as_i64();

    let (state, data) = state_folder(folder.path());
    fs::rename(&copy, data.join("default.db")).expect("one disk");
    let restored = db_server().state(&state).start();
    let result = restored.step(json!({ "op": "query", "sql": "SELECT count(*) FROM t" }));
    let kept = rows(&result)[0][0].as_i64();
    assert_eq!(kept, after);
    assert_eq!(kept.map(|rows| rows % 2), Some(0));
}

#[test]
fn messages_are_part_of_a_backup() {
    let server = serve("state_queue").manifest(GRANTS).start();
    server.control(["queue", "send", "jobs", "kept"]).ok();
    let folder = folder();
    let (state, data) = state_folder(folder.path());
    let copy = data.join("default.db");
    server
        .control([
            "backup".as_ref(),
            copy.as_os_str(),
            "--db".as_ref(),
            "default".as_ref(),
        ])
        .ok();
    let restored = serve("state_queue").manifest(GRANTS).state(&state).start();
    assert!(
        restored
            .control(["queue", "peek", "jobs"])
            .ok()
            .contains("kept")
    );
    let missing = server.control([
        "backup".as_ref(),
        folder.path().join("x").as_os_str(),
        "--db".as_ref(),
        "nothing".as_ref(),
    ]);
    missing.fails_with(64, &["nothing"]);
}
