//! Workers that die or hang, and a supervisor that dies: what is lost and what is not.

use crate::serve;
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};
use wrun_tests::load::Load;
use wrun_tests::{SOON, Server, Worker, eventually, process};

/// How long a hung worker may be in place: silence is noticed after 5 s, and the promise is 7 s.
const HANG_MAX: Duration = Duration::from_secs(15);

/// Waits until the worker in `slot` is another process than `pid`, and ready.
fn replaced(server: &Server, slot: usize, pid: i32, within: Duration) -> Worker {
    let fresh = |worker: &Worker| worker.slot == slot && worker.pid != pid && worker.is_ready();
    eventually("a replacement", within, || {
        server.workers().into_iter().find(fresh)
    })
}

#[test]
fn worker_killed_is_replaced_and_others_go_on() {
    let server = serve("http_hello").workers(2).start();
    let [first, second] = server.workers().try_into().expect("two workers");
    let mut kept: Vec<_> = (0..8).map(|_| server.connect()).collect();
    for connection in &mut kept {
        connection.get("/").ok();
    }
    process::send(first.pid, Signal::SIGKILL);
    let replacement = replaced(&server, first.slot, first.pid, SOON);
    assert_eq!(replacement.restarts, 1);
    assert_eq!(replacement.generation, first.generation);
    // Connections of the other worker are as they were.
    kept.retain_mut(|connection| !connection.has_ended());
    for connection in &mut kept {
        connection.get("/").ok();
    }
    let is_the_same = |worker: &Worker| {
        (worker.pid, worker.restarts, worker.connections) == (second.pid, 0, kept.len() as u64)
    };
    server.when("the other worker is as it was", SOON, |workers| {
        workers.iter().any(is_the_same)
    });
}

#[test]
fn worker_is_replaced_whatever_ends_it() {
    let server = serve("http_hello").start();
    for (number, signal) in [
        Signal::SIGABRT,
        Signal::SIGTERM,
        Signal::SIGQUIT,
        Signal::SIGKILL,
    ]
    .into_iter()
    .enumerate()
    {
        let worker = server.worker();
        process::send(worker.pid, signal);
        let replacement = replaced(&server, worker.slot, worker.pid, SOON);
        assert_eq!(replacement.restarts, number as u64 + 1, "{signal}");
        assert_eq!(server.get("/").ok(), "hello\n");
    }
}

#[test]
fn nobody_is_refused_while_the_only_worker_is_replaced() {
    let server = serve("http_hello").start();
    let load = Load::start(server.addr(), "/", 2, 2);
    for _ in 0..3 {
        let worker = server.worker();
        process::send(worker.pid, Signal::SIGKILL);
        replaced(&server, worker.slot, worker.pid, SOON);
    }
    let tally = load.end();
    assert_eq!(
        (tally.refused, tally.wrong, tally.late),
        (0, 0, 0),
        "{tally:?}"
    );
    assert!(
        tally.broken <= 3 * 4,
        "each kill costs each client at most one request: {tally:?}"
    );
}

#[test]
fn hung_worker_is_replaced_and_others_go_on() {
    let server = serve("http_hello").workers(2).start();
    let first = server.workers().remove(0);
    process::send(first.pid, Signal::SIGSTOP);
    let stopped = Instant::now();
    while process::alive(first.pid) {
        assert_eq!(server.get("/").ok(), "hello\n");
        assert!(
            stopped.elapsed() < HANG_MAX,
            "the hung worker is still there"
        );
    }
    replaced(&server, first.slot, first.pid, SOON);
}

#[test]
fn worker_that_was_stopped_for_a_moment_is_kept() {
    let server = serve("http_hello").start();
    let worker = server.worker();
    process::send(worker.pid, Signal::SIGSTOP);
    let stopped = Instant::now();
    eventually("two seconds", SOON, || {
        (stopped.elapsed() > Duration::from_secs(2)).then_some(())
    });
    process::send(worker.pid, Signal::SIGCONT);
    assert_eq!(server.get("/").ok(), "hello\n");
    assert_eq!(server.worker().pid, worker.pid);
}

#[test]
fn supervisor_that_was_stopped_does_not_take_its_workers_for_hung() {
    let server = serve("http_hello").workers(2).start();
    let pids: Vec<i32> = server.workers().iter().map(|worker| worker.pid).collect();
    server.signal(Signal::SIGSTOP);
    let stopped = Instant::now();
    while stopped.elapsed() < Duration::from_secs(8) {
        assert_eq!(server.get("/").ok(), "hello\n");
    }
    server.signal(Signal::SIGCONT);
    let after: Vec<i32> = server.workers().iter().map(|worker| worker.pid).collect();
    assert_eq!(after, pids);
}

#[test]
fn no_worker_outlives_a_killed_supervisor() {
    let mut server = serve("http_sleep").workers(2).start();
    let pids: Vec<i32> = server.workers().iter().map(|worker| worker.pid).collect();
    let mut busy = server.connect();
    busy.send_head("GET", "/?ms=20000", &[]);
    server.when_in_flight(1);
    server.signal(Signal::SIGKILL);
    server.end(SOON);
    eventually("the workers are gone", Duration::from_secs(3), || {
        pids.iter().all(|pid| !process::alive(*pid)).then_some(())
    });
}

#[test]
fn no_compiler_outlives_a_killed_supervisor() {
    let folder = wrun_tests::folder();
    let path =
        wrun_tests::components::put(folder.path(), &wrun_tests::components::silent_handler());
    let mut server = crate::wrun().serve(&path).start();
    wrun_tests::components::put(folder.path(), &wrun_tests::components::compile_bomb());
    server.signal(Signal::SIGHUP);
    let children = eventually("the compile child", SOON, || {
        Some(process::children(server.pid())).filter(|children| children.len() == 2)
    });
    server.signal(Signal::SIGKILL);
    server.end(SOON);
    eventually("the children are gone", Duration::from_secs(3), || {
        children
            .iter()
            .all(|pid| !process::alive(*pid))
            .then_some(())
    });
}

#[test]
fn crash_storm_degrades_the_server_and_it_goes_on_serving() {
    let server = serve("http_hello").workers(2).start();
    let state = || server.ps()["supervisor"]["state"].clone();
    assert_eq!(state(), "serving");
    eventually(
        "the server calls itself degraded",
        Duration::from_secs(60),
        || {
            // One at a time, so that the other serves.
            if let Some(worker) = server.workers().iter().find(|worker| worker.is_ready()) {
                process::send(worker.pid, Signal::SIGKILL);
            }
            (state() == "degraded").then_some(())
        },
    );
    server.log().line_with("keep dying");
    assert_eq!(server.get("/").ok(), "hello\n");
    server.when("both workers are back", SOON, |workers| {
        workers.iter().filter(|worker| worker.is_ready()).count() == 2
    });
}

#[test]
fn workers_hold_nothing_of_each_other_or_of_the_control_socket() {
    let server = serve("http_hello").workers(3).start();
    for worker in server.workers() {
        let folder = format!("/proc/{}/fd", worker.pid);
        let targets: Vec<String> = std::fs::read_dir(folder)
            .expect("the worker is ours")
            .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
            .map(|target| target.display().to_string())
            .collect();
        // The listener and its end of the channel to the supervisor.
        let sockets = targets
            .iter()
            .filter(|target| target.starts_with("socket:"))
            .count();
        assert!(sockets <= 3, "{targets:?}");
        assert!(
            !targets
                .iter()
                .any(|target| target.contains("pidfd") || target.contains("signalfd")),
            "{targets:?}"
        );
    }
}

#[test]
fn supervisor_has_one_thread() {
    let server = serve("http_hello").workers(2).start();
    server.reload();
    let threads = std::fs::read_dir(format!("/proc/{}/task", server.pid()))
        .unwrap()
        .count();
    assert_eq!(threads, 1);
}
