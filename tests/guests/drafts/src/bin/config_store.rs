//! Answers what `wasi:config` says: the variable `?key=…`, or all of them, a line each.

use wasi::config::store;
use wrun_test_guests::{IncomingRequest, ResponseOutparam, handler, query, response};

wit_bindgen::generate!({
    path: "../../../runtime/wit/deps/config",
    world: "imports",
});

handler!(handle);

fn handle(request: IncomingRequest, out: ResponseOutparam) {
    let text = match query::text(&request, "key") {
        Some(key) => format!("{:?}", store::get(&key).expect("nothing is upstream")),
        None => {
            let mut all = store::get_all().expect("nothing is upstream");
            all.sort();
            all.iter()
                .map(|(key, value)| format!("{key}={value}\n"))
                .collect()
        }
    };
    response::text(out, &text);
}
