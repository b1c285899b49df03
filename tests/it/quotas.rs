//! How much of what is shared one request may hold.

use crate::db::db_server;
use serde_json::json;
use wrun_tests::state::{error, ok};

#[test]
fn transactions_past_the_limit_of_a_request_are_refused_until_one_has_ended() {
    let server = db_server().flag("--request-transactions", "1").start();
    let refused = server.script(&json!([{ "op": "begin" }, { "op": "begin" }]));
    ok(&refused[0]);
    assert_eq!(error(&refused[1]), "unavailable");
    for end in ["commit", "rollback", "drop_tx"] {
        let results = server.script(&json!([
            { "op": "begin" },
            { "op": end, "tx": 0 },
            { "op": "begin" }
        ]));
        ok(&results[2]);
    }
}
