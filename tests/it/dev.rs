//! `wrun dev`: what is saved is served, what is wrong is shown, and the address is always there.

use crate::{serve, wrun};
use nix::sys::signal::Signal;
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr};
use std::fs;
use std::net::TcpListener;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::time::Duration;
use wrun_tests::components::{put, read};
use wrun_tests::guests::guest;
use wrun_tests::load::Load;
use wrun_tests::{
    Connection, Response, SOON, Server, TempDir, eventually, folder, process, repository,
};

/// How long a build may take, also the first one of the guests' dependencies.
const BUILD: Duration = Duration::from_secs(300);

const BROWSER: (&str, &str) = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");

/// Returns a folder whose manifest names a component beside it.
fn project(component: &str) -> TempDir {
    let folder = folder();
    deploy(folder.path(), component);
    fs::write(
        folder.path().join("wrun.toml"),
        "component = \"component.wasm\"\n",
    )
    .unwrap();
    folder
}

/// Puts a guest in the place of the component.
fn deploy(folder: &Path, name: &str) {
    put(folder, &read(&guest(name)));
}

/// Returns a folder with a Cargo package that answers `text`. It is built beside the other guests, whose dependencies
/// are its own: only the package itself is compiled, and must have a name of its own.
fn package(name: &str, text: &str) -> TempDir {
    let folder = folder();
    let guests = repository().join("tests/guests");
    let manifest = format!(
        "[package]\nname = \"{name}\"\nedition = \"2024\"\n\
         [dependencies]\nwrun-test-guests = {{ path = '{}' }}\n\
         [profile.release]\nopt-level = 1\npanic = \"abort\"\nstrip = true\n",
        guests.join("p2").display()
    );
    let cargo = format!(
        "[build]\ntarget-dir = '{}'\n",
        guests.join("target").display()
    );
    fs::create_dir_all(folder.path().join("src")).unwrap();
    fs::create_dir_all(folder.path().join(".cargo")).unwrap();
    fs::write(folder.path().join("Cargo.toml"), manifest).unwrap();
    fs::write(folder.path().join(".cargo/config.toml"), cargo).unwrap();
    fs::copy(guests.join("Cargo.lock"), folder.path().join("Cargo.lock")).unwrap();
    write_source(folder.path(), text);
    folder
}

/// Writes the package's source as many editors do: a new file that takes the old one's place.
fn write_source(folder: &Path, text: &str) {
    let source = format!(
        "use wrun_test_guests::{{IncomingRequest, ResponseOutparam, handler, response}};\n\
         handler!(handle);\n\
         fn handle(_: IncomingRequest, out: ResponseOutparam) {{\n    response::text(out, {text});\n}}\n"
    );
    fs::write(folder.join("src/main.rs.new"), source).unwrap();
    fs::rename(folder.join("src/main.rs.new"), folder.join("src/main.rs")).unwrap();
}

/// Waits until a program is answered with `text`.
#[track_caller]
fn when_answers(server: &Server, text: &str, within: Duration) {
    eventually(text, within, || {
        (ask(server, &[]).text() == text).then_some(())
    });
}

/// Sends a GET, and waits for the answer as long as a build may take.
#[track_caller]
fn ask(server: &Server, headers: &[(&str, &str)]) -> Response {
    let connection = Connection::try_open(server.addr(), BUILD);
    let mut connection = connection.expect("the address is there");
    connection.exchange("GET", "/", headers, &[])
}

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

/// Counts the lines of the log that begin with `text`.
fn count(server: &Server, text: &str) -> usize {
    let lines = server.log().lines();
    lines.iter().filter(|line| line.starts_with(text)).count()
}

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
    when_answers(&server, "better\n", BUILD);
    assert_eq!(browse(&server).ok(), "better\n");
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
    eventually("the page is gone", SOON, || {
        (browse(&server).status == 200).then_some(())
    });
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
    when_answers(&server, "hello\n", SOON);
    for _ in 0..3 {
        let supervisor = process::children(server.pid())[0];
        process::send(supervisor, Signal::SIGKILL);
        when_gone(&[supervisor]);
        assert_eq!(ask(&server, &[]).ok(), "hello\n");
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
