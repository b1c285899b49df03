//! `wrun:db`: statements, transactions, cursors, and what guests may not do with them.

use crate::serve;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::thread;
use wrun_tests::state::{error, ok, rows};
use wrun_tests::{Connection, Launch, Server, process};

/// What `state_db` uses.
const GRANTS: &str = "[databases.default]\n[locks.default]\n[queues.jobs]\n";

/// A query that has no end.
const ENDLESS: &str =
    "WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT count(*) FROM c";

fn db_server() -> Launch {
    serve("state_db").manifest(GRANTS)
}

/// Returns a server whose database has a table `t` of numbers.
fn with_table() -> Server {
    with_table_on(db_server())
}

fn with_table_on(launch: Launch) -> Server {
    let server = launch.start();
    ok(&execute(&server, "CREATE TABLE t (id INTEGER PRIMARY KEY)"));
    server
}

#[track_caller]
fn execute(server: &Server, sql: &str) -> Value {
    server.step(json!({ "op": "execute", "sql": sql }))
}

#[track_caller]
fn query(server: &Server, sql: &str) -> Value {
    server.step(json!({ "op": "query", "sql": sql }))
}

/// Checks which numbers are in `t`.
#[track_caller]
fn assert_has(server: &Server, numbers: &[i64]) {
    let expected: Vec<_> = numbers.iter().map(|number| [number]).collect();
    let result = query(server, "SELECT id FROM t ORDER BY id");
    assert_eq!(rows(&result), &json!(expected));
}

/// Adds a number to `t`, in a transaction with this number or in one of its own.
fn insert(number: i64) -> Value {
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
fn run_until(server: &Server, script: &Value, text: &str) -> Connection {
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
fn endless_statements_end_with_their_clients() {
    // More than there are threads that read.
    const CLIENTS: usize = 10;
    let server = with_table();
    for (op, sql) in [
        ("query", ENDLESS.to_owned()),
        ("execute", format!("INSERT INTO t {ENDLESS}")),
    ] {
        let run = |client: usize| {
            let text = format!("{op} of client {client}");
            let script = json!([{ "op": "log", "text": text }, { "op": op, "sql": sql }]);
            run_until(&server, &script, &text)
        };
        drop((0..CLIENTS).map(run).collect::<Vec<_>>());
        assert_has(&server, &[]);
        ok(&execute(&server, "DELETE FROM t"));
    }
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
        { "op": "begin", "read_only": true }, { "op": "execute", "sql": "INSERT INTO t VALUES (1)" }, select, insert(2),
        { "op": "mark", "id": "a" }, { "op": "commit" },
    ]));
    ok(&results[1]);
    assert_eq!(rows(&results[2]), &json!([]));
    assert_eq!([error(&results[3]), error(&results[4])], ["25006", "25006"]);
    ok(&results[5]);
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
fn statement_that_guests_may_not_run_is_refused_by_its_name() {
    let server = with_table();
    let refused = [
        ("ATTACH DATABASE 'other.db' AS other", "denied"),
        ("DETACH DATABASE main", "denied"),
        ("PRAGMA journal_mode = DELETE", "denied"),
        ("PRAGMA writable_schema = 1", "denied"),
        ("SELECT * FROM pragma_database_list", "denied"),
        ("VACUUM", "denied"),
        ("VACUUM INTO 'other.db'", "denied"),
        ("SELECT load_extension('other')", "denied"),
        ("BEGIN", "denied"),
        ("COMMIT", "denied"),
        ("ROLLBACK", "denied"),
        ("SAVEPOINT a", "denied"),
        ("CREATE TEMP TABLE other (a)", "denied"),
        ("SELECT * FROM _wrun_message", "denied"),
        ("DROP TABLE _wrun_migration", "denied"),
        ("CREATE VIEW v AS SELECT * FROM _wrun_meta", "denied"),
        ("SELECT 1; SELECT 2", "invalid"),
        ("", "invalid"),
        ("SELECT 1\0", "invalid"),
        ("SELECT $1", "invalid"),
        ("SELECT ?32000", "invalid"),
        ("SELECT :name", "invalid"),
        ("SELECT zeroblob(1000000000)", "too-large"),
        ("SELECT length(randomblob(1000000000))", "too-large"),
        ("SELECT length(printf('%1000000000d', 1))", "too-large"),
        ("SELECT readfile('other')", "42883"),
        ("SELEKT 1", "42601"),
        ("SELECT 1 FROM other", "42P01"),
        ("SELECT other FROM t", "42703"),
    ];
    for (sql, name) in refused {
        for op in ["query", "execute"] {
            let results = server.script(&json!([{ "op": op, "sql": sql }, { "op": "begin" },
                { "op": format!("tx_{op}"), "sql": sql }, insert(1)]));
            assert_eq!(error(&results[0]), name, "{op} {sql}");
            assert_eq!(error(&results[2]), name, "{op} in a transaction: {sql}");
            ok(&results[3]);
        }
    }
    assert_has(&server, &[]);
}

#[test]
fn constraints_have_their_sqlstates() {
    let server = with_table();
    let sql =
        "CREATE TABLE c (a INTEGER NOT NULL, b INTEGER CHECK (b > 0), t INTEGER REFERENCES t (id))";
    ok(&execute(&server, sql));
    for (values, code) in [
        ("NULL, 1, NULL", "23502"),
        ("1, 0, NULL", "23514"),
        ("1, 1, 9", "23503"),
    ] {
        let result = execute(&server, &format!("INSERT INTO c VALUES ({values})"));
        assert_eq!(error(&result), code);
    }
}

#[test]
fn what_is_over_its_limit_is_too_large() {
    let server = with_table();
    let params = vec![json!(1); 32_000];
    let steps = [
        json!({ "op": "query", "sql": "SELECT 1", "params": params }),
        json!({ "op": "query", "sql": "SELECT 1", "spaces": 64 << 10 }),
        json!({ "op": "query", "sql": "SELECT length($1)", "params": [{ "zeros": (8 << 20) + 1 }] }),
        json!({ "op": "query", "sql": "SELECT length($1)", "params": [{ "text_of": (8 << 20) + 1 }] }),
        json!({ "op": "query", "sql": "SELECT zeroblob(5000000) UNION ALL SELECT zeroblob(5000000)" }),
    ];
    for step in steps {
        let shown: String = step.to_string().chars().take(100).collect();
        assert_eq!(error(&server.step(step)), "too-large", "{shown}");
    }
    let most =
        json!({ "op": "query", "sql": "SELECT length($1)", "params": [{ "zeros": 8_000_000 }] });
    assert_eq!(rows(&server.step(most)), &json!([[8_000_000]]));
}

#[test]
fn text_with_nul_and_a_wrong_number_of_parameters_are_invalid() {
    let server = with_table();
    for (sql, params) in [
        ("SELECT $1", json!(["a\0"])),
        ("SELECT 1", json!([1])),
        ("SELECT ?, ?", json!([1])),
    ] {
        let result = server.step(json!({ "op": "query", "sql": sql, "params": params }));
        assert_eq!(error(&result), "invalid", "{sql}");
    }
}

#[test]
fn endless_statement_ends_with_its_request_and_others_go_on() {
    let server = with_table_on(db_server().flag("--timeout", "4s"));
    let fill = format!("INSERT INTO t {ENDLESS}");
    let scripts = [
        json!([{ "op": "query", "sql": ENDLESS }]),
        json!([{ "op": "execute", "sql": fill }]),
        json!([{ "op": "acquire", "keys": ["a"] }, { "op": "batch", "fenced": true, "statements": [{ "sql": fill }] }]),
        json!([{ "op": "begin", "read_only": true }, { "op": "tx_query", "sql": ENDLESS }]),
        json!([{ "op": "begin" }, insert(9), { "op": "tx_execute", "sql": fill }]),
    ];
    for (number, script) in (1..).zip(&scripts) {
        thread::scope(|scope| {
            let body = script.to_string();
            let server = &server;
            let endless = scope.spawn(move || server.post("/", body.as_bytes()).status);
            // Reads never wait for the writer.
            while !endless.is_finished() {
                ok(&query(server, "SELECT count(*) FROM t"));
            }
            assert_eq!(endless.join().expect("it has an answer"), 504, "{script}");
        });
        let insert =
            json!({ "op": "execute", "sql": "INSERT INTO t VALUES ($1)", "params": [number] });
        ok(&server.step(insert));
    }
    assert_has(&server, &[1, 2, 3, 4, 5]);
}

#[test]
fn endless_statement_ends_with_the_time_of_its_transaction() {
    let server = with_table();
    for (op, sql) in [
        ("tx_query", ENDLESS.to_owned()),
        ("tx_execute", format!("INSERT INTO t {ENDLESS}")),
    ] {
        let results = server.script(&json!([
            { "op": "begin", "timeout_ms": 300 }, { "op": op, "sql": sql }, { "op": "commit" },
            { "op": "batch", "timeout_ms": 300, "statements": [{ "sql": "INSERT INTO t VALUES (1)" }, { "sql": sql }] },
        ]));
        assert_eq!(
            [1, 2, 3].map(|step| error(&results[step])),
            ["timeout"; 3],
            "{sql}"
        );
    }
    assert_has(&server, &[]);
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
    for path in ["/setup", "/lock", "/lock-hot", "/tx", "/batch", "/send"] {
        let figures = server.get_json(&format!("{path}?n=3"));
        assert!(figures["p99_ns"].as_u64().is_some(), "{path}: {figures}");
    }
    server.when_queue("all are handled", |queue| queue.messages == 0);
}
