//! The processes of `wrun dev`: how they end, and what becomes of the others then.

use crate::wrun;
use nix::sys::signal::Signal;
use std::fs;
use std::net::TcpListener;
use wrun_tests::workbench::{BUILD, ask, package, project, when_answers};
use wrun_tests::{SOON, eventually, process};

/// Returns the ids of all processes below `parent`.
fn descendants(parent: i32) -> Vec<i32> {
    let children = process::children(parent);
    let below = children.iter().flat_map(|child| descendants(*child));
    below.chain(children.iter().copied()).collect()
}

#[track_caller]
fn when_gone(pids: &[i32]) {
    eventually("no process is left", SOON, || {
        pids.iter().all(|pid| !process::alive(*pid)).then_some(())
    });
}

#[test]
fn signal_drains_and_leaves_no_process() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let folder = project("http_sleep");
        let mut server = wrun().dev(folder.path()).start();
        when_answers(&server, "slept 0 ms\n", SOON);
        let mut slow = server.connect();
        slow.send_head("GET", "/?ms=2000", &[]);
        server.when_in_flight(1);
        let pids = descendants(server.pid());
        assert!(pids.len() >= 2, "a supervisor and a worker: {pids:?}");
        server.signal(signal);
        assert_eq!(slow.response().ok(), "slept 2000 ms\n");
        assert_eq!(server.end(SOON).code(), Some(0), "{signal}");
        when_gone(&pids);
    }
}

#[test]
fn second_signal_ends_at_once() {
    let folder = project("http_sleep");
    let mut server = wrun()
        .dev(folder.path())
        .flag("--timeout", "10min")
        .flag("--drain-timeout", "10min")
        .start();
    when_answers(&server, "slept 0 ms\n", SOON);
    let mut slow = server.connect();
    slow.send_head("GET", "/?ms=600000", &[]);
    server.when_in_flight(1);
    let pids = descendants(server.pid());
    server.signal(Signal::SIGTERM);
    eventually("it drains", SOON, || {
        (server.ps()["supervisor"]["state"] == "stopping").then_some(())
    });
    server.signal(Signal::SIGTERM);
    server.end(SOON);
    slow.try_response().expect_err("the request was cut off");
    when_gone(&pids);
}

#[test]
fn signal_ends_a_build() {
    let folder = package("dev_endless", "\"never\\n\"");
    let build = "fn main() { std::thread::sleep(std::time::Duration::from_secs(3600)); }\n";
    fs::write(folder.path().join("build.rs"), build).unwrap();
    let mut server = wrun().dev(folder.path()).start();
    let pids = eventually("the build runs", BUILD, || {
        let pids = descendants(server.pid());
        let name = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        pids.iter()
            .any(|pid| name(pid).starts_with("build-script"))
            .then_some(pids)
    });
    assert!(server.stop().success());
    when_gone(&pids);
}

#[test]
fn nothing_outlives_a_killed_dev() {
    let folder = project("http_hello");
    let mut server = wrun().dev(folder.path()).start();
    when_answers(&server, "hello\n", SOON);
    let pids = descendants(server.pid());
    server.signal(Signal::SIGKILL);
    server.end(SOON);
    when_gone(&pids);
}

#[test]
fn killed_server_is_started_again_behind_the_same_address() {
    let folder = project("http_hello");
    let server = wrun().dev(folder.path()).start();
    for restarts in 0..=3 {
        assert_eq!(ask(&server, &[]).ok(), "hello\n");
        // A worker may answer before its supervisor has said so; one that is killed until then has never served.
        eventually("it serves", SOON, || {
            let lines = server.log().lines();
            let served = lines.iter().filter(|line| line.ends_with(", serving"));
            (served.count() == restarts + 1).then_some(())
        });
        let supervisor = process::children(server.pid())[0];
        process::send(supervisor, Signal::SIGKILL);
        when_gone(&[supervisor]);
    }
}

#[test]
fn stop_ends_dev_too() {
    let folder = project("http_hello");
    let mut server = wrun().dev(folder.path()).start();
    when_answers(&server, "hello\n", SOON);
    server.control(["stop"]).ok();
    assert_eq!(server.end(SOON).code(), Some(0));
}

#[test]
fn port_in_use_is_an_error_at_once() {
    let folder = project("http_hello");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    wrun()
        .dev(folder.path())
        .addr(addr)
        .fail()
        .fails_with(69, &[&addr.to_string(), "address in use", "--addr"]);
}
