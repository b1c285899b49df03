//! What the tests have in common of queues that several servers of wrun's share: the guest, and what has to hold. Where a
//! queue is kept, and how that fails, is in their own files.

use crate::serve;
use serde_json::json;
use std::time::{Duration, Instant};
use wrun_tests::murder::Victims;
use wrun_tests::queue_history::{self, History};
use wrun_tests::state::{error, ok};
use wrun_tests::{Launch, SOON, Server, eventually};

/// Tries of the histories' messages, at most.
pub(crate) const ATTEMPTS_MAX: u32 = 40;

/// Binds the queue. A URL with a password is not for the command line.
fn bound(launch: Launch, url: &str) -> Launch {
    launch.env("WRUN_BIND_QUEUE_JOBS", url)
}

/// A server that sends and handles.
pub(crate) fn server(url: &str) -> Launch {
    let manifest = format!(
        "[databases.default]\n[queues.jobs]\nmax-attempts = {ATTEMPTS_MAX}\nbackoff = \"20ms\"\n\
         max-backoff = \"100ms\"\n[consumers.jobs]\nbatch = 4\n"
    );
    bound(serve("state_queue").manifest(manifest).workers(2), url)
}

/// A server that only sends, unless its settings say more.
pub(crate) fn sender(url: &str, settings: &str) -> Launch {
    let manifest = format!("[databases.default]\n[queues.jobs]\n{settings}");
    bound(serve("state_queue").manifest(manifest), url)
}

#[track_caller]
pub(crate) fn assert_sound(history: &History) {
    assert_eq!(history.faults(ATTEMPTS_MAX), [""; 0]);
}

/// Has servers share a queue while processes of theirs are killed.
#[track_caller]
pub(crate) fn assert_nothing_is_lost(servers: &[&Server], victims: Victims) {
    let history = queue_history::record_at(servers, 12, victims);
    assert_sound(&history);
    assert!(history.kills > 0);
}

/// Waits until `wrun ps` says that the queue's server can be reached, or cannot.
pub(crate) fn becomes(server: &Server, reachable: bool) {
    eventually("ps knows", SOON, || {
        let binding = &server.ps()["bindings"][0];
        (binding["reachable"] == reachable && binding["name"] == "queue.jobs").then_some(())
    });
}

/// Waits until more messages than so many have been tried at one of these.
pub(crate) fn when_tried(servers: &[&Server], count: usize) {
    eventually("some are tried", SOON, || {
        let tries: usize = servers.iter().map(|it| it.tries().len()).sum();
        (tries > count).then_some(())
    });
}

/// Asserts what is said while the queue's server is known to be away; a send is refused within `limit`.
#[track_caller]
pub(crate) fn assert_away(server: &Server, engine: &str, limit: Duration) {
    let listed = server.control(["queue", "ls", "--json"]);
    listed.fails_with(
        69,
        &[&format!("queue jobs: unavailable: {engine}"), "wrun ps"],
    );
    let begin = Instant::now();
    let refused = server.send(&json!([{ "body": { "do": "ack" } }]));
    assert_eq!(error(&refused), "unavailable");
    assert!(begin.elapsed() < limit, "{:?}", begin.elapsed());
}

/// Sends one more message, and waits until so many were handled in all.
#[track_caller]
pub(crate) fn handles_one_more(server: &Server, count: usize) {
    ok(&server.send(&json!([{ "body": { "do": "ack" } }])));
    server.when_tried("it is handled", |tries| tries.len() == count);
}
