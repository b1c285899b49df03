//! `wrun:db`: statements, transactions, cursors, and what guests may not do with them.

use crate::serve;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use wrun_tests::state::{error, ok, rows};
use wrun_tests::{Connection, Launch, Server, process};

/// What `state_db` uses.
const GRANTS: &str = "[databases.default]\n[locks.default]\n[queues.jobs]\n";

/// A query that has no end.
pub(super) const ENDLESS: &str =
    "WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT count(*) FROM c";

pub(super) fn db_server() -> Launch {
    serve("state_db").manifest(GRANTS)
}

/// Returns a server whose database has a table `t` of numbers.
pub(super) fn with_table() -> Server {
    with_table_on(db_server())
}

pub(super) fn with_table_on(launch: Launch) -> Server {
    let server = launch.start();
    ok(&execute(&server, "CREATE TABLE t (id INTEGER PRIMARY KEY)"));
    server
}

#[track_caller]
pub(super) fn execute(server: &Server, sql: &str) -> Value {
    server.step(json!({ "op": "execute", "sql": sql }))
}

#[track_caller]
pub(super) fn query(server: &Server, sql: &str) -> Value {
    server.step(json!({ "op": "query", "sql": sql }))
}

/// Checks which numbers are in `t`.
#[track_caller]
pub(super) fn assert_has(server: &Server, numbers: &[i64]) {
    let expected: Vec<_> = numbers.iter().map(|number| [number]).collect();
    let result = query(server, "SELECT id FROM t ORDER BY id");
    assert_eq!(rows(&result), &json!(expected));
}

/// Adds a number to `t`, in a transaction with this number or in one of its own.
pub(super) fn insert(number: i64) -> Value {
    json!({ "op": "tx_execute", "sql": "INSERT INTO t VALUES ($1)", "params": [number] })
}

/// Begins to run a script.
fn begin(server: &Server, script: &Value) -> Connection {
    let body = script.to_string();
    let mut connection = server.connect();
    let length = body.len().to_string();
    connection.send_head("POST", "/", &[("content-length", &length)]);
    connection.send(body);
    connection
}

/// Begins to run a script, and waits until it has logged `text`.
pub(super) fn run_until(server: &Server, script: &Value, text: &str) -> Connection {
    let connection = begin(server, script);
    server.log().line_with(text);
    connection
}

fn end(mut connection: Connection) -> Vec<Value> {
    serde_json::from_str(&connection.response().ok()).expect("the guest answers JSON")
}

#[test]
fn every_type_comes_back_as_it_was_stored() {
    let server = db_server().start();
    let columns = [
        ("b", "BOOLEAN"),
        ("i", "INTEGER"),
        ("r", "REAL"),
        ("x", "TEXT"),
        ("bl", "BLOB"),
        ("de", "DECIMAL TEXT"),
        ("d", "DATE"),
        ("ti", "TIME"),
        ("ts", "TIMESTAMP"),
        ("u", "UUID"),
        ("j", "JSON"),
    ];
    let declared = columns.map(|(name, kind)| format!("{name} {kind}"));
    ok(&execute(
        &server,
        &format!("CREATE TABLE v ({})", declared.join(", ")),
    ));
    let stored = json!([
        [true, i64::MAX, 0.1, "größe", { "blob": [0, 255] }, { "decimal": "-12.50" }, { "date": "2024-02-29" },
            { "time": "23:59:59.5" }, { "timestamp_us": -1 }, { "uuid": [1, u64::MAX] }, { "json": "{\"a\":[1]}" }],
        [false, i64::MIN, { "real": "inf" }, "", { "blob": [] }, { "decimal": "123456789012345678901234567890.1" },
            { "date": "1970-01-01" }, { "time": "00:00:00" }, { "timestamp_us": 1_i64 << 50 }, { "uuid": [0, 0] }, { "json": "null" }],
        [null, null, null, null, null, null, null, null, null, null, null],
    ]);
    for params in stored.as_array().expect("a list") {
        let sql = "INSERT INTO v VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
        let result = server.step(json!({ "op": "execute", "sql": sql, "params": params }));
        assert_eq!(ok(&result)["affected"], 1);
    }
    let result = query(&server, "SELECT * FROM v ORDER BY rowid");
    assert_eq!(rows(&result), &stored);
    assert_eq!(ok(&result)["columns"], json!(columns));
}

#[test]
fn statement_tells_what_it_did() {
    let server = with_table();
    let result = execute(&server, "INSERT INTO t VALUES (7), (8)");
    assert_eq!(ok(&result), &json!({ "affected": 2, "last_id": 8 }));
    let result = execute(&server, "UPDATE t SET id = id + 10");
    assert_eq!(ok(&result), &json!({ "affected": 2, "last_id": null }));
    assert_eq!(ok(&server.step(json!({ "op": "dialect" }))), "sqlite");
}

#[test]
fn transaction_is_seen_by_others_once_it_is_committed() {
    let server = with_table();
    let select = json!({ "op": "query", "sql": "SELECT id FROM t" });
    let select_in = json!({ "op": "tx_query", "sql": "SELECT id FROM t" });
    let results = server.script(&json!([
        { "op": "begin" }, insert(1), select_in, select, { "op": "commit" }, select,
    ]));
    let seen: Vec<_> = [2, 3, 5]
        .iter()
        .map(|&step| rows(&results[step]).clone())
        .collect();
    assert_eq!(json!(seen), json!([[[1]], [], [[1]]]));
    ok(&results[4]);
}

#[test]
fn transaction_that_is_not_committed_leaves_nothing() {
    let server = with_table();
    for last in ["rollback", "drop_tx"] {
        server.script(&json!([{ "op": "begin" }, insert(1), { "op": last }]));
        assert_has(&server, &[]);
    }
    ok(&server.script(&json!([{ "op": "begin" }, insert(1)]))[1]);
    assert_has(&server, &[]);
    let trap = json!([{ "op": "begin" }, insert(1), { "op": "trap" }]);
    assert_eq!(server.post("/", trap.to_string().as_bytes()).status, 500);
    assert_has(&server, &[]);
    ok(&execute(&server, "INSERT INTO t VALUES (1)"));
}

#[test]
fn transaction_that_has_ended_is_closed() {
    let server = with_table();
    for last in ["rollback", "commit"] {
        let results = server.script(&json!([
            { "op": "begin" }, { "op": last }, { "op": "commit" }, insert(1), { "op": "tx_query", "sql": "SELECT 1" },
            { "op": "mark", "id": "a" }, { "op": "send_in", "queue": "jobs", "body": 1 },
        ]));
        for result in &results[2..] {
            assert_eq!(error(result), "closed", "{last}");
        }
    }
    assert_has(&server, &[]);
}

#[test]
fn statement_that_fails_does_not_end_its_transaction() {
    let server = with_table();
    let results = server.script(&json!([
        { "op": "begin" }, insert(1), insert(1), insert(2), { "op": "commit" },
    ]));
    assert_eq!(error(&results[2]), "23505");
    assert_eq!(results[2]["constraint"], "t.id");
    assert_eq!(results[2]["retryable"], false);
    assert_has(&server, &[1, 2]);
}

#[test]
fn transaction_that_stalls_holds_the_writer_for_a_second_and_no_longer() {
    let server = with_table();
    let stalled = run_until(
        &server,
        &json!([
            { "op": "begin" }, insert(1), { "op": "log", "text": "stalls" }, { "op": "sleep", "ms": 3000 },
            insert(2), { "op": "commit" },
        ]),
        "stalls",
    );
    ok(&execute(&server, "INSERT INTO t VALUES (3)"));
    let results = end(stalled);
    assert_eq!(error(&results[4]), "timeout");
    assert_eq!(error(&results[5]), "timeout", "that is why");
    assert_has(&server, &[3]);
}

#[test]
fn writer_is_free_at_once_when_its_client_goes_away_or_its_worker_is_killed() {
    let server = with_table_on(db_server().workers(2));
    // Busy all the time, so never idle. The lock tells which worker it is.
    let busy = json!([{ "op": "acquire", "keys": ["a"] }, { "op": "begin" }, insert(1),
        { "op": "log", "text": "busy" }, { "op": "tx_query", "sql": ENDLESS }]);
    drop(run_until(&server, &busy, "busy"));
    ok(&execute(&server, "INSERT INTO t VALUES (2)"));
    let _busy = begin(&server, &busy);
    let busy = server.when_held("a", 0);
    process::send(busy.pid, Signal::SIGKILL);
    ok(&execute(&server, "INSERT INTO t VALUES (3)"));
    assert_has(&server, &[2, 3]);
}

#[test]
fn rows_are_locked_as_far_as_that_makes_sense() {
    let server = with_table();
    let select = json!({ "op": "tx_query", "sql": "SELECT id FROM t FOR UPDATE" });
    let results = server.script(&json!([{ "op": "begin" }, insert(1), select]));
    assert_eq!(rows(&results[2]), &json!([[1]]));
    let results = server.script(&json!([{ "op": "begin", "read_only": true }, select]));
    assert_eq!(error(&results[1]), "invalid");
}

#[test]
fn transaction_that_only_reads_writes_nothing_and_sees_one_snapshot() {
    let server = with_table();
    let select = json!({ "op": "tx_query", "sql": "SELECT id FROM t" });
    let results = server.script(&json!([
        { "op": "begin", "read_only": true }, select, { "op": "execute", "sql": "INSERT INTO t VALUES (1)" }, select,
        insert(2), { "op": "mark", "id": "a" }, { "op": "commit" },
    ]));
    ok(&results[2]);
    assert_eq!([rows(&results[1]), rows(&results[3])], [&json!([]); 2]);
    assert_eq!([error(&results[4]), error(&results[5])], ["25006", "25006"]);
    ok(&results[6]);
    assert_has(&server, &[1]);
}

#[test]
fn batch_takes_effect_wholly_or_not_at_all() {
    let server = with_table();
    let batch = |numbers: [i64; 2]| {
        let insert =
            |number: i64| json!({ "sql": "INSERT INTO t VALUES ($1)", "params": [number] });
        let statements = numbers.map(insert).to_vec();
        server.step(json!({ "op": "batch", "statements": statements }))
    };
    assert_eq!(ok(&batch([1, 2]))[1]["affected"], 1);
    assert_eq!(error(&batch([3, 2])), "23505");
    assert_has(&server, &[1, 2]);
}

#[test]
fn work_is_marked_as_processed_once() {
    let server = with_table();
    let mark = json!({ "op": "mark", "id": "order-1" });
    let undone = server.script(&json!([{ "op": "begin" }, mark, { "op": "rollback" }]));
    let done = server.script(&json!([{ "op": "begin" }, mark, mark, { "op": "commit" }]));
    let again = server.script(&json!([{ "op": "begin" }, mark]));
    let firsts = [&undone[1], &done[1], &done[2], &again[1]].map(ok);
    assert_eq!(firsts, [true, true, false, false]);
}

#[test]
fn change_under_a_lock_that_was_lost_does_not_happen() {
    let server = with_table();
    let acquire = json!({ "op": "acquire", "keys": ["a"], "ttl_ms": 100, "renew": false });
    let results = server.script(&json!([
        acquire, { "op": "begin", "fenced": true }, insert(1), { "op": "lose" }, { "op": "commit" },
        { "op": "begin", "fenced": true },
        { "op": "batch", "fenced": true, "statements": [{ "sql": "INSERT INTO t VALUES (2)" }] },
    ]));
    let names: Vec<_> = results[4..].iter().map(error).collect();
    assert_eq!(names, ["lost-fence"; 3]);
    assert_has(&server, &[]);
}

#[test]
fn change_under_a_lock_that_is_held_happens() {
    let server = with_table();
    let results = server.script(&json!([
        { "op": "acquire", "keys": ["a", "b"] }, { "op": "begin", "fenced": true }, insert(1), { "op": "commit" },
        { "op": "batch", "fenced": true, "statements": [{ "sql": "INSERT INTO t VALUES (2)" }] }, { "op": "release" },
    ]));
    for result in &results[3..5] {
        ok(result);
    }
    assert_has(&server, &[1, 2]);
}

#[test]
fn large_result_is_read_by_cursor() {
    let server = with_table();
    let sql = "WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 100000)
        INSERT INTO t SELECT n FROM c";
    assert_eq!(ok(&execute(&server, sql))["affected"], 100_000);
    let mut script = vec![
        json!({ "op": "begin", "read_only": true }),
        json!({ "op": "cursor", "sql": "SELECT id FROM t ORDER BY id" }),
        json!({ "op": "columns" }),
    ];
    script.extend(vec![json!({ "op": "next", "rows": 30_000 }); 5]);
    let results = server.script(&json!(script));
    assert_eq!(ok(&results[2]), &json!([["id", "INTEGER"]]));
    let pages = results[3..]
        .iter()
        .map(|page| ok(page).as_array().expect("rows"));
    let numbers: Vec<_> = pages.flatten().map(|row| row[0].as_i64()).collect();
    assert!(numbers.iter().copied().eq((1..=100_000).map(Some)));
    assert_eq!(results.last().map(ok), Some(&json!([])), "none at the end");
}

#[test]
fn cursors_are_open_until_they_or_their_transaction_end() {
    let server = with_table();
    let open = json!({ "op": "cursor", "sql": "SELECT 1" });
    let mut script = vec![json!({ "op": "begin" })];
    script.extend(vec![open.clone(); 9]);
    script.extend([
        json!({ "op": "drop_cursor" }),
        open,
        json!({ "op": "rollback" }),
        json!({ "op": "next", "cursor": 1, "rows": 1 }),
    ]);
    let results = server.script(&json!(script));
    assert_eq!(
        error(&results[9]),
        "invalid",
        "at most 8 are open at a time"
    );
    ok(&results[11]);
    assert_eq!(error(&results[13]), "closed");
}

#[test]
fn transaction_of_a_killed_state_process_fails_and_the_next_one_works() {
    let server = with_table();
    let script = json!([
        { "op": "acquire", "keys": ["a"] }, { "op": "begin" }, insert(1), { "op": "log", "text": "begun" },
        { "op": "lose" }, insert(2), { "op": "commit" },
        { "op": "batch", "fenced": true, "statements": [{ "sql": "INSERT INTO t VALUES (2)" }] },
        { "op": "begin" }, { "op": "tx_execute", "tx": 1, "sql": "INSERT INTO t VALUES (3)" }, { "op": "commit", "tx": 1 },
    ]);
    let begun = run_until(&server, &script, "begun");
    server.kill_state_process();
    let results = end(begun);
    assert_eq!(error(&results[5]), "unavailable");
    assert_eq!(error(&results[6]), "closed");
    assert_eq!(error(&results[7]), "lost-fence");
    for result in &results[8..] {
        ok(result);
    }
    assert_has(&server, &[3]);
}

#[test]
fn messages_are_sent_with_their_transaction() {
    let manifest = format!("{GRANTS}[databases.other]\n[queues.elsewhere]\ndatabase = \"other\"\n");
    let server = with_table_on(serve("state_db").manifest(manifest));
    let send = |queue: &str| json!({ "op": "send_in", "queue": queue, "body": { "do": "ack" } });
    let undone = server.script(&json!([{ "op": "begin" }, send("jobs"), { "op": "rollback" }]));
    assert_eq!(ok(&undone[1]).as_array().map(Vec::len), Some(1));
    assert_eq!(server.queue("jobs").messages, 0);
    let results = server.script(&json!([
        { "op": "begin" }, send("elsewhere"), send("jobs"), send("jobs"), { "op": "commit" },
    ]));
    assert_eq!(
        error(&results[1]),
        "invalid",
        "it lives in another database"
    );
    ok(&results[4]);
    assert_eq!(server.queue("jobs").messages, 2);
    let results = server.script(&json!([
        { "op": "open", "db": "other" }, { "op": "begin" }, send("elsewhere"), { "op": "commit" },
    ]));
    ok(&results[3]);
    assert_eq!(server.queue("elsewhere").messages, 1);
}

#[test]
fn figures_of_the_benchmark_can_be_taken() {
    let server = serve("bench_state")
        .manifest(format!("{GRANTS}[consumers.jobs]\n"))
        .start();
    for path in [
        "/setup",
        "/read",
        "/lock",
        "/lock-hot",
        "/tx",
        "/batch",
        "/send",
    ] {
        let figures = server.get_json(&format!("{path}?n=3"));
        assert!(figures["p99_ns"].as_u64().is_some(), "{path}: {figures}");
    }
    server.when_queue("all are handled", |queue| queue.messages == 0);
}
