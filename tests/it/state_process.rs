//! The state process: up before the workers, replaced when it dies or hangs, gone after them, and nobody else's business.

use crate::{serve, wrun};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::time::Duration;
use wrun_tests::guests::guest;
use wrun_tests::{Launch, SOON, Server, eventually, folder, process};

/// A server of a guest that may share one of each kind.
fn sharing() -> Launch {
    serve("http_hello")
        .flag("--lock", "stock")
        .flag("--db", "default")
        .flag("--queue", "orders")
}

/// Returns the state process as `wrun ps --json` shows it.
fn state(server: &Server) -> Value {
    server.ps()["state"].clone()
}

fn pid(server: &Server) -> i32 {
    let pid = state(server)["pid"].as_i64().expect("there is one");
    i32::try_from(pid).expect("a process id")
}

/// Waits for a state process that is ready and not `old`.
fn replaced(server: &Server, old: i32) -> Value {
    eventually("another state process", Duration::from_secs(60), || {
        Some(state(server)).filter(|state| state["state"] == "ready" && state["pid"] != old)
    })
}

fn worker_pids(server: &Server) -> Vec<i32> {
    server.workers().iter().map(|worker| worker.pid).collect()
}

fn query(server: &Server, sql: &str) -> String {
    server.control(["db", "query", "default", sql]).ok()
}

/// Writes a manifest for a guest, with these sections.
fn manifest(folder: &Path, sections: &str) {
    let component = guest("http_hello");
    let text = format!("component = \"{}\"\n{sections}", component.display());
    fs::write(folder.join("wrun.toml"), text).unwrap();
}

fn migration(folder: &Path, name: &str, sql: &str) {
    let folder = folder.join("sql");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(name), sql).unwrap();
}

const MIGRATED: &str = "[databases.default]\nmigrations = \"sql\"\n";

#[test]
fn server_that_shares_nothing_has_no_state_process() {
    let server = serve("http_hello").start();
    assert_eq!(state(&server), Value::Null);
    assert_eq!(process::children(server.pid()).len(), 1);
    assert!(!server.state().join("state.sock").exists());
    for command in [
        &["db", "ls"][..],
        &["queue", "ls"],
        &["lock", "ls"],
        &["backup", "file"],
    ] {
        server
            .control(command)
            .fails_with(69, &["shares nothing", "wrun.toml"]);
    }
}

#[test]
fn ps_shows_the_state_process() {
    let server = sharing().start();
    let shown = state(&server);
    assert_eq!(
        (&shown["state"], &shown["restarts"]),
        (&"ready".into(), &0.into())
    );
    assert!(shown["rss_bytes"].as_u64().unwrap() > 1 << 20, "{shown}");
    let line = format!("state process {}, ready", pid(&server));
    assert!(server.control(["ps"]).ok().contains(&line));
}

#[test]
fn killed_state_process_is_replaced_keeps_what_it_had_and_workers_live_on() {
    let server = sharing().workers(2).start();
    query(&server, "CREATE TABLE t (a INTEGER)");
    query(&server, "INSERT INTO t VALUES (7)");
    let workers = worker_pids(&server);
    for death in 1..=3 {
        let old = pid(&server);
        process::send(old, Signal::SIGKILL);
        assert_eq!(replaced(&server, old)["restarts"], death);
        assert_eq!(query(&server, "SELECT a FROM t"), "a\n7\n");
        assert_eq!(server.get("/").ok(), "hello\n");
    }
    assert_eq!(worker_pids(&server), workers);
    assert_eq!(server.ps()["supervisor"]["state"], "serving");
}

#[test]
fn hung_state_process_is_replaced() {
    let server = sharing().start();
    let (old, workers) = (pid(&server), worker_pids(&server));
    process::send(old, Signal::SIGSTOP);
    assert_eq!(replaced(&server, old)["restarts"], 1);
    assert!(!process::alive(old));
    assert_eq!(worker_pids(&server), workers);
}

#[test]
fn state_process_is_the_last_to_go() {
    let mut server = serve("http_sleep").flag("--lock", "stock").start();
    let state = pid(&server);
    let mut busy = server.connect();
    busy.send_head("GET", "/?ms=2000", &[]);
    server.when_in_flight(1);
    server.signal(Signal::SIGTERM);
    server.log().line_with("worker drains");
    assert!(process::alive(state), "a guest may still need it");
    assert_eq!(busy.response().ok(), "slept 2000 ms\n");
    assert_eq!(server.end(SOON).code(), Some(0));
    let lines = server.log().lines();
    let at = |text: &str| lines.iter().position(|line| line.contains(text));
    assert!(at("worker ended").unwrap() < at("state process ended").unwrap());
    assert!(at("exit code 0").is_some());
    assert!(!server.state().join("state.sock").exists());
}

#[test]
fn state_process_that_dies_during_a_drain_is_replaced() {
    let mut server = serve("http_sleep").flag("--lock", "stock").start();
    let old = pid(&server);
    let mut busy = server.connect();
    busy.send_head("GET", "/?ms=3000", &[]);
    server.when_in_flight(1);
    server.signal(Signal::SIGTERM);
    server.log().line_with("worker drains");
    process::send(old, Signal::SIGKILL);
    replaced(&server, old);
    assert_eq!(busy.response().ok(), "slept 3000 ms\n");
    assert_eq!(server.end(SOON).code(), Some(0));
}

#[test]
fn second_signal_ends_the_state_process_at_once() {
    let mut server = serve("http_sleep").flag("--lock", "stock").start();
    let state = pid(&server);
    let mut busy = server.connect();
    busy.send_head("GET", "/?ms=20000", &[]);
    server.when_in_flight(1);
    server.signal(Signal::SIGTERM);
    server.log().line_with("worker drains");
    process::send(state, Signal::SIGSTOP);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.end(SOON).code(), Some(0));
    assert!(!process::alive(state));
}

#[test]
fn state_process_does_not_outlive_a_killed_supervisor() {
    let mut server = sharing().start();
    let state = pid(&server);
    server.signal(Signal::SIGKILL);
    server.end(SOON);
    eventually("the state process is gone", Duration::from_secs(3), || {
        (!process::alive(state)).then_some(())
    });
}

#[test]
fn workers_hold_neither_the_socket_nor_the_files_of_the_state_process() {
    let server = sharing().workers(2).start();
    server.reload();
    let path = server.state().join("state.sock");
    let table = fs::read_to_string("/proc/net/unix").unwrap();
    // The one that listens, not the connections to it, which bear its name as well.
    let listens = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_named = fields
            .get(7)
            .is_some_and(|name| Path::new(name).ends_with("state.sock"));
        is_named && fields[3] == "00010000"
    };
    let inodes: Vec<String> = table
        .lines()
        .filter(listens)
        .filter_map(|line| Some(format!("socket:[{}]", line.split_whitespace().nth(6)?)))
        .collect();
    assert!(path.exists() && !inodes.is_empty(), "{table}");
    let open = |pid: i32| {
        let entries = fs::read_dir(format!("/proc/{pid}/fd")).expect("the process is ours");
        let targets = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        let targets = targets.map(|target| target.display().to_string());
        targets.collect::<Vec<String>>()
    };
    let holds = |pid| open(pid).iter().any(|target| inodes.contains(target));
    assert!(holds(server.pid()) && holds(pid(&server)));
    for worker in server.workers() {
        let open = open(worker.pid);
        assert!(!holds(worker.pid), "{open:?}");
        assert!(
            !open.iter().any(|target| target.contains("default.db")),
            "{open:?}"
        );
    }
}

#[test]
fn failed_migration_ends_the_start_with_its_reason() {
    let folder = folder();
    manifest(folder.path(), MIGRATED);
    migration(folder.path(), "1.sql", "CREATE NONSENSE");
    let outcome = wrun().serve(folder.path()).fail();
    assert!(outcome.code.is_some_and(|code| code != 0), "{outcome:?}");
    assert!(outcome.stderr.contains("1.sql"), "{outcome:?}");
    assert!(outcome.stderr.contains("  hint: "), "{outcome:?}");
}

#[test]
fn failed_migration_fails_the_reload_and_nothing_changes() {
    let folder = folder();
    manifest(folder.path(), MIGRATED);
    migration(folder.path(), "1.sql", "CREATE TABLE one (a INTEGER)");
    let server = wrun().serve(folder.path()).start();
    let (state, workers) = (pid(&server), worker_pids(&server));
    migration(
        folder.path(),
        "2.sql",
        "CREATE TABLE two (a INTEGER); CREATE NONSENSE",
    );
    let outcome = server.control(["reload"]);
    assert!(outcome.stderr.contains("2.sql"), "{outcome:?}");
    assert_ne!(outcome.code, Some(0));
    assert_eq!((server.generation(), pid(&server)), (1, state));
    assert_eq!(worker_pids(&server), workers);
    query(&server, "SELECT a FROM one");
    let two = server.control(["db", "query", "default", "SELECT a FROM two"]);
    two.fails_with(64, &["two"]);
    migration(folder.path(), "2.sql", "CREATE TABLE two (a INTEGER)");
    assert_eq!(server.reload(), 3, "the second one failed");
    query(&server, "SELECT a FROM two");
}

#[test]
fn reload_may_begin_to_share_and_cease_to() {
    let folder = folder();
    manifest(folder.path(), "");
    let server = wrun().serve(folder.path()).start();
    assert_eq!(state(&server), Value::Null);
    manifest(folder.path(), "[locks]\nstock = {}\n");
    server.reload();
    assert_eq!(state(&server)["state"], "ready");
    server.control(["lock", "ls"]).ok();
    manifest(folder.path(), "");
    server.reload();
    assert_eq!(server.get("/").ok(), "hello\n");
}

#[test]
fn manifest_that_makes_no_sense_is_refused_with_the_key_to_change() {
    let folder = folder();
    for (sections, says) in [
        ("[locks.Stock]\n", "\"Stock\""),
        ("[databases.\"../x\"]\n", "../x"),
        ("[database.default]\n", "did you mean `databases`?"),
        (
            "[databases.default]\nmigration = \"sql\"\n",
            "did you mean `migrations`?",
        ),
        ("[databases.default]\ndurability = \"none\"\n", "`relaxed`"),
        ("[queues.orders]\nmax-attempts = 0\n", "max-attempts"),
        (
            "[queues.orders]\nvisibility-timeout = \"1ms\"\n",
            "visibility-timeout",
        ),
        ("[queues.orders]\ndatabase = \"shop\"\n", "[databases.shop]"),
        ("[consumers.orders]\n", "[queues.orders]"),
        (
            "[queues.orders]\n[consumers.orders]\nbatch = 1001\n",
            "batch",
        ),
    ] {
        manifest(folder.path(), sections);
        wrun().serve(folder.path()).fail().fails_with(78, &[says]);
    }
}

#[test]
fn data_is_never_kept_in_a_temporary_folder() {
    let folder = folder();
    let first = serve("http_hello").in_folder(folder.path()).start();
    let second = serve("http_hello").in_folder(folder.path());
    second
        .flag("--db", "default")
        .fail()
        .fails_with(69, &["--state"]);
    assert_eq!(first.get("/").ok(), "hello\n");
}

#[test]
fn state_folder_with_a_long_path_works() {
    let parent = folder();
    let state = parent.path().join("x".repeat(120)).join("state");
    let server = sharing().state(&state).start();
    assert_eq!(query(&server, "SELECT 1 AS a"), "a\n1\n");
    server.log().line_with("worker ready");
    assert!(!server.log().text().contains("cannot connect"));
}
