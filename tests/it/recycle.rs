//! Workers that are replaced because they have served long enough or grown too large.

use crate::serve;
use std::collections::BTreeSet;
use std::time::Duration;
use wrun_tests::load::Load;
use wrun_tests::{Server, eventually};

/// A few recyclings with their drains on a busy machine.
const RECYCLED_WITHIN: Duration = Duration::from_secs(90);

/// Watches two workers under load until there were `count` processes, and checks that one at least was always ready.
fn assert_recycled(server: &Server, count: usize) {
    let load = Load::start(server.addr(), "/", 4, 4);
    let mut pids = BTreeSet::new();
    eventually("fresh workers", RECYCLED_WITHIN, || {
        let workers = server.workers();
        let ready: Vec<_> = workers.iter().filter(|worker| worker.is_ready()).collect();
        assert!(!ready.is_empty(), "nobody serves: {workers:?}");
        assert!(
            workers.iter().all(|worker| worker.restarts == 0),
            "an end that was asked for is no restart"
        );
        pids.extend(ready.iter().map(|worker| worker.pid));
        (pids.len() >= count).then_some(())
    });
    let tally = load.end();
    assert_eq!((tally.failed(), tally.idle_closed), (0, 0), "{tally:?}");
}

#[test]
fn worker_is_replaced_after_its_requests_and_none_is_lost() {
    assert_recycled(
        &serve("http_hello")
            .workers(2)
            .flag("--max-requests", "500")
            .start(),
        5,
    );
}

#[test]
fn worker_is_replaced_when_it_has_grown_and_none_is_lost() {
    // Every worker is over the limit at once: they must go one after the other.
    assert_recycled(
        &serve("http_hello")
            .workers(2)
            .flag("--max-worker-memory", "1MiB")
            .start(),
        4,
    );
}

#[test]
fn two_workers_never_drain_at_the_same_time() {
    let server = serve("http_hello")
        .workers(3)
        .flag("--max-worker-memory", "1MiB")
        .start();
    let mut pids = BTreeSet::new();
    eventually("fresh workers", RECYCLED_WITHIN, || {
        let workers = server.workers();
        let draining = workers
            .iter()
            .filter(|worker| worker.state == "draining")
            .count();
        assert!(draining <= 1, "{workers:?}");
        pids.extend(workers.iter().map(|worker| worker.pid));
        (pids.len() >= 6).then_some(())
    });
}

#[test]
fn worker_under_its_limits_is_kept() {
    let server = serve("http_hello")
        .flag("--max-requests", "1000")
        .flag("--max-worker-memory", "2GiB")
        .start();
    let pid = server.worker().pid;
    for _ in 0..100 {
        server.get("/").ok();
    }
    let workers = server.when("the heartbeat", wrun_tests::SOON, |workers| {
        workers[0].requests >= 100
    });
    assert_eq!(workers[0].pid, pid);
}
