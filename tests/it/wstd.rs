//! Guests that get their requests through another crate, `wstd` or axum on it, and keep their state through `wrun-sdk`.

use crate::serve;
use std::collections::BTreeSet;
use std::thread;

const GRANTS: &str = "[locks.default]\n[databases.default]\n[queues.counted]\n";

/// Has several clients count at once, and checks that no number was given twice or left out.
fn count_together(guest: &str) {
    const CLIENTS: usize = 4;
    const EACH: usize = 10;
    let server = serve(guest).workers(2).manifest(GRANTS).start();
    let counted: BTreeSet<usize> = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| {
                    let answers = (0..EACH).map(|_| server.post("/count", b"").ok());
                    let numbers = answers.map(|text| text.trim_end().parse().expect("a number"));
                    numbers.collect::<Vec<_>>()
                })
            })
            .collect();
        let clients = clients.into_iter();
        clients
            .flat_map(|client| client.join().expect("a client"))
            .collect()
    });
    assert_eq!(counted, (1..=CLIENTS * EACH).collect());
    assert_eq!(server.queue("counted").messages, (CLIENTS * EACH) as u64);
}

#[test]
fn wstd_handler_uses_lock_database_and_queue() {
    count_together("wstd_count");
}

#[test]
fn axum_application_uses_lock_database_and_queue() {
    count_together("axum_count");
}
