//! Reloads: the new generation serves before the old one goes, and no request is lost.

use crate::{serve, wrun};
use nix::sys::signal::Signal;
use std::fs;
use std::path::Path;
use std::time::Duration;
use wrun_tests::components::{put, read};
use wrun_tests::guests::guest;
use wrun_tests::load::Load;
use wrun_tests::{SOON, eventually, folder};

/// Puts a guest in the place of the component that is served.
fn deploy(folder: &Path, name: &str) -> std::path::PathBuf {
    put(folder, &read(&guest(name)))
}

#[test]
fn reload_serves_the_new_component() {
    let folder = folder();
    let server = wrun()
        .serve(deploy(folder.path(), "http_hello"))
        .workers(2)
        .start();
    assert_eq!(
        (server.generation(), server.get("/").ok().as_str()),
        (1, "hello\n")
    );
    deploy(folder.path(), "http_sleep");
    assert_eq!(
        server.get("/").ok(),
        "hello\n",
        "nothing changes before the reload"
    );
    assert_eq!(server.reload(), 2);
    for _ in 0..10 {
        assert_eq!(
            server.get("/").ok(),
            "slept 0 ms\n",
            "when the command is back, every answer is new"
        );
    }
}

#[test]
fn reload_can_change_the_kind_of_component() {
    let folder = folder();
    let server = wrun().serve(deploy(folder.path(), "http_static")).start();
    assert!(server.get("/").ok().contains("kept 1"));
    deploy(folder.path(), "service_static");
    server.reload();
    assert_eq!(server.get("/").ok(), "calls 1\n");
}

#[test]
fn reload_reads_the_manifest_again() {
    let folder = folder();
    let write = |env: &str, workers: u32| {
        let component = guest("http_env");
        let text = format!(
            "component = \"{}\"\n[serve]\nworkers = {workers}\n[env]\nWHEN = \"{env}\"\n",
            component.display()
        );
        fs::write(folder.path().join("wrun.toml"), text).unwrap();
    };
    write("before", 1);
    let server = wrun().serve(folder.path()).workers("auto").start();
    assert!(server.get("/").ok().contains("env WHEN=before\n"));
    write("after", 1);
    server.reload();
    assert!(server.get("/").ok().contains("env WHEN=after\n"));
}

#[test]
fn hangup_reloads() {
    let folder = folder();
    let server = wrun().serve(deploy(folder.path(), "http_hello")).start();
    deploy(folder.path(), "http_sleep");
    server.signal(Signal::SIGHUP);
    eventually("the new generation", SOON, || {
        (server.generation() == 2).then_some(())
    });
    assert_eq!(server.get("/").ok(), "slept 0 ms\n");
}

#[test]
fn no_request_is_lost_by_reloads() {
    let server = serve("http_hello").workers(2).start();
    let load = Load::start(server.addr(), "/", 8, 8);
    for _ in 0..10 {
        server.reload();
    }
    let tally = load.end();
    assert_eq!((tally.failed(), tally.idle_closed), (0, 0), "{tally:?}");
    assert_eq!(server.generation(), 11);
}

#[test]
fn request_in_flight_is_answered_by_the_generation_that_began_it() {
    let folder = folder();
    let server = wrun().serve(deploy(folder.path(), "http_sleep")).start();
    let mut slow = server.connect();
    slow.send_head("GET", "/?ms=4000", &[]);
    server.when_in_flight(1);
    deploy(folder.path(), "http_hello");
    server.reload();
    assert_eq!(server.get("/").ok(), "hello\n");
    assert_eq!(slow.response().ok(), "slept 4000 ms\n");
    let alone = |workers: &[wrun_tests::Worker]| workers.len() == 1 && workers[0].generation == 2;
    server.when("the old worker is gone", SOON, alone);
}

#[test]
fn kept_connection_is_told_to_close_and_not_cut() {
    let server = serve("http_hello").flag("--drain-grace", "5s").start();
    let mut kept = server.connect();
    kept.get("/").ok();
    server.reload();
    let last = kept.get("/");
    assert!(last.closes(), "{last:?}");
    assert_eq!(last.ok(), "hello\n");
    assert!(kept.rest().unwrap().is_empty());
}

#[test]
fn request_that_does_not_end_is_cut_off_at_the_drain_timeout() {
    let server = serve("http_sleep")
        .flag("--timeout", "10min")
        .flag("--drain-timeout", "2s")
        .start();
    let mut endless = server.connect();
    endless.send_head("GET", "/?ms=600000", &[]);
    server.when_in_flight(1);
    server.reload();
    endless.try_response().expect_err("the request was cut off");
    server.when("the old worker is gone", SOON, |workers| workers.len() == 1);
}

#[test]
fn reloads_at_the_same_time_all_end_well() {
    let server = serve("http_hello").workers(2).start();
    std::thread::scope(|scope| {
        let reloads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| server.control(["reload"])))
            .collect();
        for reload in reloads {
            reload.join().unwrap().ok();
        }
    });
    server.when("one generation is left", SOON, |workers| workers.len() == 2);
    assert_eq!(server.get("/").ok(), "hello\n");
}

#[test]
fn reload_prints_the_generation_as_json() {
    let server = serve("http_hello").start();
    let printed = server.control(["reload", "--json"]).ok();
    let value: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(value["generation"], 2);
}

#[test]
fn reload_of_a_missing_file_fails_and_changes_nothing() {
    let folder = folder();
    let path = deploy(folder.path(), "http_hello");
    let server = wrun().serve(&path).start();
    let pid = server.worker().pid;
    fs::remove_file(&path).unwrap();
    server
        .control(["reload"])
        .fails_with(66, &["component.wasm"]);
    assert_eq!((server.generation(), server.worker().pid), (1, pid));
    assert_eq!(server.get("/").ok(), "hello\n");
    deploy(folder.path(), "http_hello");
    assert_eq!(server.reload(), 2, "the next one is none the worse for it");
}

#[test]
fn component_that_needs_more_than_its_limits_does_not_replace_one_that_serves() {
    let folder = folder();
    let manifest = |memory: &str| {
        let text = format!(
            "component = \"{}\"\n[limits]\nmemory = \"{memory}\"\n",
            guest("http_hello").display()
        );
        fs::write(folder.path().join("wrun.toml"), text).unwrap();
    };
    manifest("64MiB");
    let server = wrun().serve(folder.path()).start();
    manifest("64KiB");
    server.control(["reload"]).fails_with(65, &["memory"]);
    assert_eq!(server.get("/").ok(), "hello\n");
}

#[test]
fn worker_killed_during_a_reload_does_not_spoil_it() {
    let server = serve("http_hello").workers(2).start();
    for _ in 0..3 {
        std::thread::scope(|scope| {
            let reload = scope.spawn(|| server.control(["reload"]));
            let old = server.workers().remove(0);
            wrun_tests::process::send(old.pid, Signal::SIGKILL);
            reload.join().unwrap().ok();
        });
    }
    let two = |workers: &[wrun_tests::Worker]| {
        workers.len() == 2 && workers.iter().all(|worker| worker.generation == 4)
    };
    server.when(
        "two workers of the newest generation",
        Duration::from_secs(60),
        two,
    );
}
