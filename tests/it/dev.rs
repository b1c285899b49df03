//! `wrun dev`: what is saved is served, what is wrong is shown, and the address is always there.

use crate::{serve, wrun};
use nix::sys::signal::Signal;
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr};
use std::fs;
use std::os::fd::AsRawFd as _;
use std::time::Duration;
use wrun_tests::load::Load;
use wrun_tests::workbench::{BUILD, ask, deploy, package, project, when_answers, write_source};
use wrun_tests::{Response, SOON, Server, eventually, folder, process};

const BROWSER: (&str, &str) = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");

/// Goes to the page as a browser does.
#[track_caller]
fn browse(server: &Server) -> Response {
    ask(server, &[BROWSER])
}

/// Waits until a browser is shown an error that contains `text`.
#[track_caller]
fn when_shown(server: &Server, text: &str, within: Duration) -> Response {
    eventually(text, within, || {
        let page = browse(server);
        (page.status == 500 && page.text().contains(text)).then_some(page)
    })
}

/// Waits until a browser is shown what it asks for.
#[track_caller]
fn when_page_is_gone(server: &Server, within: Duration) {
    eventually("the page is gone", within, || {
        (browse(server).status == 200).then_some(())
    });
}

/// Counts the lines of the log that begin with `text`.
fn count(server: &Server, text: &str) -> usize {
    let lines = server.log().lines();
    lines.iter().filter(|line| line.starts_with(text)).count()
}

#[test]
fn package_is_built_and_served_and_built_again_when_it_is_edited() {
    let folder = package("dev_edit", "\"one\\n\"");
    let server = wrun().dev(folder.path()).start();
    when_answers(&server, "one\n", BUILD);
    let load = Load::start(server.addr(), "/", 4, 4);
    write_source(folder.path(), "\"two\\n\"");
    when_answers(&server, "two\n", BUILD);
    let tally = load.end();
    assert_eq!((tally.failed(), tally.idle_closed), (0, 0), "{tally:?}");
    let lines = server.log().lines();
    assert!(
        lines[0].starts_with("wrun: listening on http://"),
        "{lines:?}"
    );
    assert_eq!(count(&server, "wrun: listening"), 1, "{lines:?}");
    for text in ["wrun: building", "wrun: built in "] {
        assert_eq!(count(&server, text), 2, "{lines:?}");
    }
    server.log().line_with(" s, reloaded");
}

#[test]
fn compile_error_is_shown_to_browsers_and_the_last_good_version_goes_on() {
    let folder = package("dev_error", "\"good\\n\"");
    let server = wrun().dev(folder.path()).start();
    when_answers(&server, "good\n", BUILD);
    assert_eq!(browse(&server).ok(), "good\n");

    write_source(folder.path(), "no_such_name::<u8>");
    let page = when_shown(&server, "no_such_name::&lt;u8&gt;", BUILD);
    assert!(page.text().contains("cargo could not build"), "{page:?}");
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    server.log().line_with("cannot find");
    server
        .log()
        .line_with("wrun: build failed, the last good version goes on");
    assert_eq!(server.get("/").ok(), "good\n");
    let fetch = [BROWSER, ("sec-fetch-dest", "empty")];
    let mut browser = server.connect();
    assert_eq!(browser.exchange("GET", "/", &fetch, &[]).ok(), "good\n");
    assert_eq!(
        browser.exchange("POST", "/", &[BROWSER], &[]).ok(),
        "good\n"
    );

    write_source(folder.path(), "\"better\\n\"");
    when_page_is_gone(&server, BUILD);
    assert_eq!(browse(&server).ok(), "better\n");
    assert_eq!(server.get("/").ok(), "better\n");
}

#[test]
fn package_that_never_built_is_an_answer_until_it_does() {
    let folder = package("dev_broken", "no_such_name");
    let server = wrun().dev(folder.path()).start();
    let answer = ask(&server, &[]);
    assert_eq!(answer.status, 500);
    assert_eq!(
        answer.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    assert!(
        answer.text().starts_with("wrun: cargo could not build"),
        "{answer:?}"
    );
    assert!(
        answer.text().contains("cannot find value `no_such_name`"),
        "{answer:?}"
    );
    let page = when_shown(&server, "cannot find value `no_such_name`", SOON);
    assert!(page.text().starts_with("<!doctype html>"), "{page:?}");
    server
        .log()
        .line_with("wrun: build failed, waiting for a change");

    write_source(folder.path(), "\"fixed\\n\"");
    when_answers(&server, "fixed\n", BUILD);
    assert_eq!(browse(&server).ok(), "fixed\n");
}

#[test]
fn component_that_something_else_builds_is_reloaded_without_a_lost_request() {
    let folder = project("http_hello");
    let server = wrun().dev(folder.path()).workers(2).start();
    when_answers(&server, "hello\n", SOON);
    let load = Load::start(server.addr(), "/", 8, 8);
    for _ in 0..3 {
        deploy(folder.path(), "http_sleep");
        when_answers(&server, "slept 0 ms\n", SOON);
        deploy(folder.path(), "http_hello");
        when_answers(&server, "hello\n", SOON);
    }
    let tally = load.end();
    assert_eq!((tally.failed(), tally.idle_closed), (0, 0), "{tally:?}");
}

#[test]
fn component_alone_is_enough() {
    let folder = folder();
    deploy(folder.path(), "http_hello");
    let server = wrun().dev(folder.path().join("component.wasm")).start();
    when_answers(&server, "hello\n", SOON);
    deploy(folder.path(), "http_sleep");
    when_answers(&server, "slept 0 ms\n", SOON);
}

#[test]
fn component_that_is_not_there_yet_is_served_once_it_is() {
    let folder = folder();
    let manifest = "component = \"made/by/component.wasm\"\n";
    fs::write(folder.path().join("wrun.toml"), manifest).unwrap();
    let server = wrun().dev(folder.path()).start();
    let answer = server.get("/");
    assert_eq!(answer.status, 500);
    assert!(
        answer.text().contains("component.wasm does not exist"),
        "{answer:?}"
    );
    fs::create_dir_all(folder.path().join("made/by")).unwrap();
    deploy(&folder.path().join("made/by"), "http_hello");
    when_answers(&server, "hello\n", SOON);
}

#[test]
fn files_that_are_written_together_are_one_change() {
    let folder = project("http_hello");
    let server = wrun().dev(folder.path()).start();
    when_answers(&server, "hello\n", SOON);
    for file in 0..200 {
        let inner = folder.path().join(format!("src/{}", file % 10));
        fs::create_dir_all(&inner).unwrap();
        fs::write(inner.join(format!("{file}.txt")), "text").unwrap();
    }
    eventually("a reload", SOON, || {
        (server.generation() == 2).then_some(())
    });
    deploy(folder.path(), "http_sleep");
    when_answers(&server, "slept 0 ms\n", SOON);
    assert_eq!(server.generation(), 3, "{}", server.log().text());
}

#[test]
fn broken_manifest_is_shown_from_the_start_and_later() {
    let folder = project("http_hello");
    let manifest = folder.path().join("wrun.toml");
    fs::write(&manifest, "componemt = \"component.wasm\"\n").unwrap();
    let server = wrun().dev(folder.path()).start();
    when_shown(&server, "unknown field `componemt`", SOON);
    assert!(browse(&server).text().contains("did you mean `component`?"));
    fs::write(&manifest, "component = \"component.wasm\"\n").unwrap();
    when_answers(&server, "hello\n", SOON);
    assert_eq!(browse(&server).ok(), "hello\n");
    fs::write(&manifest, "component = \"component.wasm\"\n[serv]\n").unwrap();
    when_shown(&server, "unknown field `serv`", SOON);
    assert_eq!(server.get("/").ok(), "hello\n");
}

#[test]
fn migration_that_fails_is_shown_and_the_last_good_version_goes_on() {
    let folder = project("http_hello");
    let manifest = "component = \"component.wasm\"\n[databases.default]\nmigrations = \"sql\"\n";
    fs::write(folder.path().join("wrun.toml"), manifest).unwrap();
    fs::create_dir(folder.path().join("sql")).unwrap();
    fs::write(folder.path().join("sql/1.sql"), "CREATE TABLE a (b TEXT)").unwrap();
    let server = wrun().dev(folder.path()).start();
    when_answers(&server, "hello\n", SOON);
    fs::write(folder.path().join("sql/2.sql"), "CREATE TABEL c (d TEXT)").unwrap();
    when_shown(&server, "2.sql", SOON);
    assert_eq!(server.get("/").ok(), "hello\n");
    fs::write(folder.path().join("sql/2.sql"), "CREATE TABLE c (d TEXT)").unwrap();
    when_page_is_gone(&server, SOON);
}

#[test]
fn worker_that_is_started_later_shows_the_error_too() {
    let folder = project("http_hello");
    let server = wrun().dev(folder.path()).start();
    when_answers(&server, "hello\n", SOON);
    fs::write(folder.path().join("component.wasm"), "no component").unwrap();
    when_shown(&server, "component.wasm", SOON);
    let old = server.worker().pid;
    process::send(old, Signal::SIGKILL);
    server.when("another worker", SOON, |workers| {
        workers
            .iter()
            .all(|worker| worker.pid != old && worker.is_ready())
    });
    assert_eq!(browse(&server).status, 500);
    assert_eq!(server.get("/").ok(), "hello\n");
}

#[test]
fn component_that_handles_messages_alone_is_served_and_says_so() {
    let folder = project("state_worker");
    let manifest =
        "component = \"component.wasm\"\n[databases.default]\n[queues.jobs]\n[consumers.jobs]\n";
    fs::write(folder.path().join("wrun.toml"), manifest).unwrap();
    let server = wrun().dev(folder.path()).start();
    let answer = ask(&server, &[]);
    assert_eq!(answer.status, 500);
    assert!(
        answer.text().contains("handles messages alone"),
        "{answer:?}"
    );
    let job = "{\"do\":\"ack\"}";
    server.control(["queue", "send", "jobs", job]).ok();
    server.when_queue("it is handled", |queue| queue.messages == 0);
}

#[test]
fn only_dev_can_show_errors() {
    let server = serve("http_hello").start();
    let flags = SockFlag::empty();
    let socket = socket::socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).unwrap();
    let path = server.state().join("control.sock");
    socket::connect(socket.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
    let request = br#"{"ShowError":"<h1>no</h1>"}"#;
    socket::send(socket.as_raw_fd(), request, MsgFlags::empty()).unwrap();
    let mut reply = [0; 4096];
    let len = socket::recv(socket.as_raw_fd(), &mut reply, MsgFlags::empty()).unwrap();
    let reply = String::from_utf8_lossy(&reply[..len]).into_owned();
    assert!(reply.contains("Failed"), "{reply}");
    assert_eq!(browse(&server).ok(), "hello\n");
}

#[test]
fn folder_in_use_by_another_server_is_shown() {
    let folder = project("http_hello");
    let first = wrun().dev(folder.path()).start();
    when_answers(&first, "hello\n", SOON);
    let second = wrun().dev(folder.path()).state(first.state()).start();
    let answer = second.get("/");
    assert_eq!(answer.status, 500);
    assert!(answer.text().contains("is used by wrun (pid"), "{answer:?}");
}

#[test]
fn what_it_writes_itself_is_no_change() {
    let folder = project("http_hello");
    let output = folder.path().join("output.txt");
    let server = wrun()
        .dev(folder.path())
        .after_shell(&format!("exec 1>'{}'", output.display()))
        .start();
    when_answers(&server, "hello\n", SOON);
    assert!(
        fs::read_to_string(output)
            .unwrap()
            .contains("wrun: compiling")
    );
    deploy(folder.path(), "http_sleep");
    when_answers(&server, "slept 0 ms\n", SOON);
    assert_eq!(server.generation(), 2, "{}", server.log().text());
}
