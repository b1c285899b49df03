//! What a statement of a guest may be: what is refused, what is too large, and what has no end.

use crate::db::{
    ENDLESS, assert_has, db_server, execute, insert, query, run_until, with_table, with_table_on,
};
use serde_json::json;
use std::thread;
use wrun_tests::state::{error, ok, rows};

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
