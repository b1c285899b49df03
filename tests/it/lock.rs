//! `wrun:lock`: who holds a lock, and everything that ends that.

use crate::serve;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::thread;
use std::time::Duration;
use wrun_tests::lock_history::{self, Holding};
use wrun_tests::state::{error, ok};
use wrun_tests::{Connection, Launch, Server, eventually, folder, process};

/// A lease that no test waits for.
const HOUR: &str = "ttl=3600000";

/// Long enough for several restarts of a process.
const LONG: Duration = Duration::from_secs(90);

fn lock_server() -> Launch {
    serve("state_lock")
        .manifest("[locks.default]\n")
        .flag("--timeout", "10min")
}

/// Has a guest take `key` and keep it, and returns the connection that the guest lives on.
#[track_caller]
fn keep(server: &Server, key: &str) -> Connection {
    let connection = begin(server, &format!("/forever?key={key}&{HOUR}"));
    server.when_held(key, 0);
    connection
}

fn begin(server: &Server, target: &str) -> Connection {
    let mut connection = server.connect();
    connection.send_head("GET", target, &[]);
    connection
}

fn end(mut connection: Connection) -> Value {
    serde_json::from_str(&connection.response().ok()).expect("the guest answers JSON")
}

fn number(result: &Value, name: &str) -> u64 {
    ok(result)[name].as_u64().expect("a number")
}

/// Checks that a guest can take `key` long before a lease would be over.
#[track_caller]
fn assert_is_free(server: &Server, key: &str) {
    let result = server.get_json(&format!("/acquire?key={key}&wait=30000"));
    assert_eq!(ok(&result)["held"], true);
}

#[test]
fn lock_is_held_by_one_guest_at_a_time_across_workers() {
    let server = lock_server().workers(2).start();
    let both_served = || server.workers().iter().all(|worker| worker.requests > 0);
    let hold = || {
        let mut held = Vec::new();
        while held.len() < 5 || !both_served() {
            held.push(server.get_json("/hold?key=a&ms=3&wait=60000"));
        }
        held
    };
    let held = thread::scope(|scope| {
        let holders: Vec<_> = (0..8).map(|_| scope.spawn(hold)).collect();
        holders
            .into_iter()
            .flat_map(|holder| holder.join().expect("no holder fails"))
            .collect::<Vec<_>>()
    });
    let holding = |result: &Value| Holding::of("a", ok(result)).expect("the numbers of a holding");
    let holdings: Vec<_> = held.iter().map(holding).collect();
    assert_eq!(lock_history::faults(&holdings), [""; 0]);
}

#[test]
fn waiters_are_served_first_come_first_served() {
    let server = lock_server().workers(2).start();
    let holder = keep(&server, "a");
    let waiters: Vec<_> = (1..=6)
        .map(|waiting| {
            let waiter = begin(&server, "/acquire?key=a&wait=60000");
            server.when_held("a", waiting);
            waiter
        })
        .collect();
    drop(holder);
    let tokens: Vec<_> = waiters
        .into_iter()
        .map(|waiter| number(&end(waiter), "token"))
        .collect();
    assert!(tokens.is_sorted(), "{tokens:?}");
}

#[test]
fn taken_lock_is_a_timeout_after_the_wait() {
    let server = lock_server().start();
    let _holder = keep(&server, "a");
    for wait in [0, 100] {
        let result = server.get_json(&format!("/acquire?key=a&wait={wait}"));
        assert_eq!(error(&result), "timeout");
    }
    assert_eq!(server.when_held("a", 0).waiting, 0, "nobody waits any more");
    assert_is_free(&server, "b");
}

#[test]
fn several_keys_are_taken_in_any_order_without_a_deadlock() {
    let server = lock_server().workers(2).start();
    let orders = ["key=a&key=b&key=c", "key=c&key=b&key=a", "key=b&key=c"];
    thread::scope(|scope| {
        for order in orders.iter().cycle().take(6) {
            let server = &server;
            scope.spawn(move || {
                for _ in 0..10 {
                    let result = server.get_json(&format!("/hold?{order}&ms=1&wait=60000"));
                    assert_eq!(ok(&result)["held"], true);
                }
            });
        }
    });
    server.when_nothing_is_held();
}

#[test]
fn several_keys_are_taken_together_or_not_at_all() {
    let server = lock_server().start();
    let _holder = keep(&server, "b");
    let result = server.get_json("/acquire?key=a&key=b&key=c&wait=100");
    assert_eq!(error(&result), "timeout");
    assert_eq!(server.locks().len(), 1);
}

#[test]
fn lock_is_not_reentrant() {
    let server = lock_server().start();
    let result = server.get_json("/again?key=a&wait=60000");
    assert_eq!(error(&result), "would-deadlock");
    let result = server.get_json("/hold?key=a&key=b&then=b&then=c&wait=60000");
    assert_eq!(error(&ok(&result)["then"]), "would-deadlock");
    server.when_nothing_is_held();
}

#[test]
fn waiting_in_a_circle_is_refused_to_the_one_who_closes_it() {
    let server = lock_server().start();
    let shared = &server;
    let results = thread::scope(|scope| {
        let take = |target| scope.spawn(move || shared.get_json(target));
        let first = take("/hold?key=a&ms=300&then=b&wait=60000");
        let second = take("/hold?key=b&ms=300&then=a&wait=60000");
        [first, second].map(|taker| taker.join().expect("no taker fails"))
    });
    let refused = results.iter().filter(|result| {
        let then = &ok(result)["then"];
        then.get("ok").is_none() && error(then) == "would-deadlock"
    });
    assert_eq!(refused.count(), 1, "{results:?}");
    server.when_nothing_is_held();
}

#[test]
fn lock_is_released_when_its_guest_returns() {
    let server = lock_server().start();
    ok(&server.get_json(&format!("/acquire?key=a&{HOUR}")));
    server.when_nothing_is_held();
}

#[test]
fn lock_is_released_when_its_guest_traps() {
    let server = lock_server().start();
    assert_eq!(server.get(&format!("/trap?key=a&{HOUR}")).status, 500);
    assert_is_free(&server, "a");
}

#[test]
fn lock_is_released_when_its_guest_is_past_its_deadline() {
    let server = serve("state_lock")
        .manifest("[locks.default]\n")
        .flag("--timeout", "500ms")
        .start();
    assert_eq!(server.get(&format!("/forever?key=a&{HOUR}")).status, 504);
    assert_eq!(ok(&server.get_json("/acquire?key=a"))["held"], true);
}

#[test]
fn lock_is_released_when_the_client_goes_away() {
    let server = lock_server().start();
    let holder = keep(&server, "a");
    let waiter = begin(&server, "/acquire?key=a&wait=60000");
    server.when_held("a", 1);
    drop(holder);
    ok(&end(waiter));
}

#[test]
fn wait_is_given_up_when_the_client_goes_away() {
    let server = lock_server().start();
    let holder = keep(&server, "a");
    let waiter = begin(&server, "/acquire?key=a&wait=600000");
    server.when_held("a", 1);
    drop(waiter);
    server.when_held("a", 0);
    drop(holder);
    server.when_nothing_is_held();
}

#[test]
fn lock_is_released_when_its_worker_is_killed() {
    let server = lock_server().workers(2).start();
    let _holder = keep(&server, "a");
    let worker = server.when_held("a", 0).pid;
    // So that the other one takes the next connection.
    process::send(worker, Signal::SIGSTOP);
    let waiter = begin(&server, "/acquire?key=a&wait=600000");
    server.when_held("a", 1);
    process::send(worker, Signal::SIGKILL);
    ok(&end(waiter));
}

#[test]
fn lock_is_kept_far_beyond_its_lease_while_its_guest_lives() {
    let server = lock_server().start();
    let holder = begin(&server, "/hold?key=a&ttl=200&ms=1500");
    server.when_held("a", 0);
    let result = server.get_json("/acquire?key=a&wait=600");
    assert_eq!(error(&result), "timeout");
    let result = end(holder);
    assert_eq!(ok(&result)["held"], true);
    ok(&ok(&result)["released"]);
}

#[test]
fn lock_that_is_not_renewed_is_lost_after_its_lease() {
    let server = lock_server().start();
    let result = server.get_json("/hold?key=a&ttl=200&renew=false&ms=1000");
    assert_eq!(ok(&result)["held"], false);
    assert_eq!(error(&ok(&result)["released"]), "lost");
    server.when_nothing_is_held();
}

#[test]
fn lock_that_was_lost_goes_to_who_waits_with_a_greater_token() {
    let server = lock_server().start();
    let holder = begin(&server, "/hold?key=a&ttl=1000&renew=false&ms=3000");
    let before = server.when_held("a", 0).token;
    let result = server.get_json("/hold?key=a&wait=60000&ms=10");
    assert!(number(&result, "token") > before);
    assert_eq!(ok(&result)["held"], true);
    assert_eq!(ok(&end(holder))["held"], false);
}

#[test]
fn lock_that_is_not_renewed_holds_as_long_as_it_is_extended() {
    let server = lock_server().start();
    let result = server.get_json("/hold?key=a&ttl=3000&renew=false&ms=10&extend=600000");
    ok(&ok(&result)["extended"]);
    ok(&ok(&result)["released"]);
    let result = server.get_json("/hold?key=a&ttl=100&renew=false&ms=500&extend=600000");
    assert_eq!(error(&ok(&result)["extended"]), "lost");
}

#[test]
fn guard_is_lost_when_the_state_process_is_killed() {
    let server = lock_server().start();
    let holder = begin(&server, &format!("/hold?key=a&{HOUR}&ms=4000"));
    let before = server.when_held("a", 0).token;
    server.kill_state_process();
    let result = end(holder);
    assert_eq!(ok(&result)["held"], false);
    assert_eq!(error(&ok(&result)["released"]), "lost");
    let result = server.get_json("/hold?key=a");
    assert!(number(&result, "token") > before);
    assert_eq!(ok(&result)["held"], true);
}

#[test]
fn waiter_is_told_when_the_state_process_is_killed_or_gets_the_lock_after_it() {
    let server = lock_server().start();
    let _holder = keep(&server, "a");
    let waiter = begin(&server, "/acquire?key=a&wait=600000");
    server.when_held("a", 1);
    server.kill_state_process();
    let result = end(waiter);
    assert!(
        result.get("ok").is_some() || error(&result) == "unavailable",
        "{result}"
    );
}

#[test]
fn tokens_increase_over_the_ends_of_all_processes() {
    let folder = folder();
    let mut tokens = Vec::new();
    for _ in 0..2 {
        let mut server = lock_server().state(folder.path().join("state")).start();
        let mut take = || tokens.push(number(&server.get_json("/acquire?key=a"), "token"));
        take();
        server.kill_state_process();
        take();
        server.signal(Signal::SIGKILL);
        server.end(LONG);
    }
    assert!(tokens.is_sorted_by(|a, b| a < b), "{tokens:?}");
}

#[test]
fn what_makes_no_sense_is_refused_by_its_name() {
    let server = lock_server().start();
    let kinds = [
        ("space-not-granted", "denied"),
        ("space-empty", "denied"),
        ("space-long", "denied"),
        ("space-nul", "denied"),
        ("space-path", "denied"),
        ("no-key", "invalid"),
        ("key-empty", "invalid"),
        ("key-long", "invalid"),
        ("key-huge", "invalid"),
        ("key-nul", "invalid"),
        ("key-newline", "invalid"),
        ("keys-many", "invalid"),
        ("wait-long", "invalid"),
        ("ttl-zero", "invalid"),
        ("ttl-short", "invalid"),
        ("ttl-long", "invalid"),
        ("extend-zero", "invalid"),
        ("extend-long", "invalid"),
        ("extend-released", "lost"),
        ("release-twice", "lost"),
        ("held-released", "lost"),
    ];
    for (kind, name) in kinds {
        let result = server.get_json(&format!("/bad?kind={kind}"));
        assert_eq!(error(&result), name, "{kind}");
    }
    for kind in ["key-longest", "key-path", "key-twice", "keys-most"] {
        ok(&server.get_json(&format!("/bad?kind={kind}")));
    }
    server.when_nothing_is_held();
    assert_eq!(server.worker().restarts, 0);
}

#[test]
fn locks_past_the_limit_of_a_worker_are_refused_and_the_rest_held() {
    // 156 times 64 are the most that fit into 10,000.
    const REQUESTS: usize = 156;
    let server = lock_server()
        .flag("--in-flight", "200")
        .flag("--memory", "16MiB")
        .start();
    let keys =
        |request: usize| -> String { (0..64).map(|n| format!("key={request}-{n}&")).collect() };
    let _holders: Vec<_> = (0..REQUESTS)
        .map(|request| begin(&server, &format!("/forever?{}{HOUR}", keys(request))))
        .collect();
    eventually("all locks are held", LONG, || {
        (server.locks().len() == REQUESTS * 64).then_some(())
    });
    let result = server.get_json(&format!("/acquire?{}", keys(REQUESTS)));
    assert_eq!(error(&result), "limit");
    ok(&server.get_json("/acquire?key=a"));
}

#[test]
fn locks_past_the_limit_of_a_request_are_refused_and_those_of_others_are_not() {
    let server = lock_server().flag("--request-locks", "2").start();
    let result = server.get_json("/acquire?key=a&key=b&key=c");
    assert_eq!(error(&result), "limit");
    let _holder = begin(&server, &format!("/forever?key=a&key=b&{HOUR}"));
    eventually("its locks are held", LONG, || {
        (server.locks().len() == 2).then_some(())
    });
    ok(&server.get_json("/acquire?key=c&key=d"));
}
