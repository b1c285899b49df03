//! What guests share, taken in the wrong order: case 49. The other cases of shared state are held by the tests of locks,
//! databases and queues.

use crate::serve;
use serde_json::{Value, json};
use std::thread;
use wrun_tests::Server;
use wrun_tests::state::{error, ok};

fn script(server: &Server, steps: &Value) -> Vec<Value> {
    server.script(steps)
}

#[test]
fn lock_and_transaction_taken_in_opposite_order_end_for_one_and_go_on_for_the_other() {
    let server = serve("state_db")
        .manifest("[locks.default]\n[databases.default]\n")
        .workers(2)
        .start();
    let create = json!([{ "op": "execute", "sql": "CREATE TABLE t (id INTEGER PRIMARY KEY)" }]);
    ok(&script(&server, &create)[0]);
    let insert =
        |id: u32| json!({ "op": "tx_execute", "sql": format!("INSERT INTO t VALUES ({id})") });
    let acquire = json!({ "op": "acquire", "keys": ["a"] });
    let said = |text: &str| json!({ "op": "log", "text": text });
    // One has the lock and wants to write, the other writes and wants the lock.
    let lock_first = json!([acquire, said("has the lock"), { "op": "sleep", "ms": 500 }, { "op": "begin" }, insert(1),
        { "op": "commit" }, { "op": "release" }]);
    let write_first = json!([{ "op": "begin" }, insert(2), said("writes"), acquire, insert(3), { "op": "commit" }]);
    thread::scope(|scope| {
        let first = scope.spawn(|| script(&server, &lock_first));
        server.log().line_with("has the lock");
        let second = scope.spawn(|| script(&server, &write_first));
        let (first, second) = (first.join().unwrap(), second.join().unwrap());
        for result in &first[3..6] {
            ok(result);
        }
        // It waited for the lock in the middle of its transaction for longer than that may be idle.
        ok(&second[3]);
        assert_eq!(error(&second[5]), "timeout", "{second:?}");
    });
    let rows = script(
        &server,
        &json!([{ "op": "query", "sql": "SELECT id FROM t" }]),
    );
    assert_eq!(ok(&rows[0])["rows"], json!([[1]]));
    server.when_nothing_is_held();
    assert!(server.workers().iter().all(|worker| worker.restarts == 0));
}
