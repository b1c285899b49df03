//! Takes locks as it is asked to, and says how that went. Every way to go wrong is in `bad`.

use serde_json::{Value, json};
use std::{thread, time::Duration};
use wrun_sdk::bindings::wrun::lock::lock::{Error, Guard, Options, Space};
use wrun_sdk::http::{Request, Response};
use wrun_test_state::{answer, now_ns, query};

#[wrun_sdk::http]
fn main(request: Request) -> Response {
    let guard = || acquire(&request, &query::all(&request, "key"));
    let result = match request.uri().path() {
        "/acquire" | "/hold" => answer::of(guard().map(|guard| hold(&request, &guard))),
        "/again" => answer::of(guard().and_then(|_guard| guard().map(drop))),
        "/trap" => answer::of(guard().map(trap)),
        "/forever" => answer::of(guard().map(forever)),
        "/bad" => answer::of(bad(&query::text(&request, "kind").expect("?kind=…"))),
        path => panic!("no such path: {path}"),
    };
    answer::respond(&result)
}

/// Takes locks: `?space=&key=&key=&wait=MS&ttl=MS&renew=false`.
fn acquire(request: &Request, keys: &[String]) -> Result<Guard, Error> {
    let space = query::text(request, "space");
    let options = Options {
        wait_ms: query::number(request, "wait"),
        ttl_ms: query::number(request, "ttl"),
        renew: query::number(request, "renew"),
    };
    Space::open(space.as_deref().unwrap_or("default"))?.acquire(keys, options)
}

/// Holds a lock for `?ms=`, then extends it by `?extend=MS`, then also takes `?then=KEY`; tells when it was held.
fn hold(request: &Request, guard: &Guard) -> Value {
    let start_ns = now_ns();
    sleep(query::number(request, "ms").unwrap_or(0));
    let extend = query::number(request, "extend");
    let extended = extend.map(|ms| answer::of(guard.extend(ms)));
    let then = query::all(request, "then");
    let then =
        (!then.is_empty()).then(|| answer::of(acquire(request, &then).map(|then| then.token())));
    let held = guard.is_held();
    let end_ns = now_ns();
    json!({
        "token": guard.token(),
        "start_ns": start_ns,
        "end_ns": end_ns,
        "extended": extended,
        "then": then,
        "held": held,
        "released": answer::of(guard.release()),
    })
}

fn trap(_guard: Guard) {
    panic!("as told")
}

fn forever(_guard: Guard) {
    loop {
        sleep(1000);
    }
}

fn bad(kind: &str) -> Result<(), Error> {
    let key = |key: &str| take(&[key.to_owned()], DEFAULT);
    let options = |options| take(&["a".to_owned()], options);
    let numbered = |n| (0..n).map(|n: u32| n.to_string()).collect::<Vec<_>>();
    match kind {
        "space-not-granted" => Space::open("not-granted").map(drop),
        "space-empty" => Space::open("").map(drop),
        "space-long" => Space::open(&"a".repeat(64 << 10)).map(drop),
        "space-nul" => Space::open("default\0").map(drop),
        "space-path" => Space::open("../default").map(drop),
        "no-key" => take(&[], DEFAULT),
        "key-empty" => key(""),
        "key-longest" => key(&"a".repeat(512)),
        "key-long" => key(&"a".repeat(513)),
        "key-huge" => key(&"a".repeat(64 << 10)),
        "key-nul" => key("a\0"),
        "key-newline" => key("a\n"),
        "key-path" => key("../a"),
        "key-twice" => take(&["a".to_owned(), "a".to_owned()], DEFAULT),
        "keys-most" => take(&numbered(64), DEFAULT),
        "keys-many" => take(&numbered(65), DEFAULT),
        "wait-long" => options(Options {
            wait_ms: Some(600_001),
            ..DEFAULT
        }),
        "ttl-zero" => options(Options {
            ttl_ms: Some(0),
            ..DEFAULT
        }),
        "ttl-short" => options(Options {
            ttl_ms: Some(99),
            ..DEFAULT
        }),
        "ttl-long" => options(Options {
            ttl_ms: Some(86_400_001),
            ..DEFAULT
        }),
        "extend-zero" => taken()?.extend(0),
        "extend-long" => taken()?.extend(86_400_001),
        "extend-released" => after_release(|guard| guard.extend(1000)),
        "release-twice" => after_release(Guard::release),
        "held-released" => after_release(|guard| guard.is_held().then_some(()).ok_or(Error::Lost)),
        kind => panic!("no such kind: {kind}"),
    }
}

const DEFAULT: Options = Options {
    wait_ms: None,
    ttl_ms: None,
    renew: None,
};

fn take(keys: &[String], options: Options) -> Result<(), Error> {
    Space::open("default")?.acquire(keys, options).map(drop)
}

fn taken() -> Result<Guard, Error> {
    Space::open("default")?.acquire(&["bad".to_owned()], DEFAULT)
}

fn after_release(then: impl FnOnce(&Guard) -> Result<(), Error>) -> Result<(), Error> {
    let guard = taken()?;
    guard.release()?;
    then(&guard)
}

fn sleep(ms: u64) {
    thread::sleep(Duration::from_millis(ms));
}
