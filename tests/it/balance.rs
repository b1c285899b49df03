//! Connections that come at once are shared out; those that came to one worker are evened out while it is busy, and only then.

use crate::serve;
use nix::sys::signal::Signal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use wrun_tests::http1::Connection;
use wrun_tests::process;
use wrun_tests::server::{Server, Worker};
use wrun_tests::wait::{SOON, watch};

/// Starts a server of two workers, of which one has all of so many connections, because the other one was asleep.
fn lopsided(connections: u64) -> (Server, Vec<Connection>) {
    let server = serve("http_hello").workers(2).start();
    let asleep = server.workers().remove(1).pid;
    process::send(asleep, Signal::SIGSTOP);
    let opened = (0..connections).map(|_| {
        let mut connection = server.connect();
        connection.get("/").ok();
        connection
    });
    let opened = opened.collect();
    process::send(asleep, Signal::SIGCONT);
    server.when("all connections at one worker", SOON, |workers| {
        counts(workers) == [0, connections]
    });
    (server, opened)
}

/// Returns how many connections each worker has, the fewest first.
fn counts(workers: &[Worker]) -> Vec<u64> {
    let mut counts: Vec<_> = workers.iter().map(|worker| worker.connections).collect();
    counts.sort_unstable();
    counts
}

/// Asks on a connection again and again, or on a new one when it is closed after an answer.
fn ask(server: &Server, mut connection: Connection, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        let response = connection.get("/");
        if response.closes() {
            connection = server.connect();
        }
        response.ok();
    }
}

#[test]
fn connections_that_come_at_once_are_taken_by_all_workers() {
    let server = serve("http_hello").workers(2).start();
    let opened: Vec<_> = (0..200).map(|_| server.connect()).collect();
    let all = |workers: &[Worker]| counts(workers).iter().sum::<u64>() == opened.len() as u64;
    server.when("all connections taken", SOON, all);
    let counts = counts(&server.workers());
    assert!(counts[0] >= 20, "{counts:?}");
}

#[test]
fn busy_worker_parts_with_connections_until_another_one_has_its_share() {
    let (server, connections) = lopsided(16);
    let over = AtomicBool::new(false);
    let spread = thread::scope(|scope| {
        let (server, over) = (&server, &over);
        for connection in connections {
            scope.spawn(move || ask(server, connection, over));
        }
        let spread = watch(SOON, || {
            let counts = counts(&server.workers());
            (counts.iter().sum::<u64>() == 16 && counts[0] >= 4).then_some(())
        });
        over.store(true, Ordering::Relaxed);
        spread
    });
    assert!(spread.is_some(), "{:?}", counts(&server.workers()));
}

#[test]
fn worker_that_is_not_busy_keeps_its_connections() {
    let (server, mut connections) = lopsided(4);
    for round in 2..=3 {
        for connection in &mut connections {
            let response = connection.get("/");
            assert!(!response.closes(), "{response:?}");
            response.ok();
        }
        let what = format!("{} answers counted", 4 * round);
        server.when(&what, SOON, |workers| {
            workers.iter().map(|worker| worker.requests).sum::<u64>() == 4 * round
        });
    }
    assert_eq!(counts(&server.workers()), [0, 4]);
}
