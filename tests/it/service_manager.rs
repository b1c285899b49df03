//! What wrun tells systemd, and what a container's first process has to do.

use crate::serve;
use nix::sys::signal::Signal;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;
use wrun_tests::{SOON, TempDir, eventually, folder, process};

/// A service manager's end of the notification socket.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
    _folder: TempDir,
}

impl Manager {
    fn new() -> Self {
        let folder = folder();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        Self {
            socket,
            path,
            _folder: folder,
        }
    }

    /// Waits for a message with this line and returns all of it.
    fn hears(&self, line: &str) -> String {
        let mut bytes = [0; 4096];
        loop {
            let len = self
                .socket
                .recv(&mut bytes)
                .unwrap_or_else(|error| panic!("waiting for {line}: {error}"));
            let message = String::from_utf8_lossy(&bytes[..len]).into_owned();
            if message.lines().any(|has| has.starts_with(line)) {
                return message;
            }
        }
    }
}

#[test]
fn service_manager_is_told_of_start_reload_and_stop() {
    let manager = Manager::new();
    let mut server = serve("http_hello")
        .env("NOTIFY_SOCKET", &manager.path)
        .start();
    manager.hears("READY=1");
    assert_eq!(server.get("/").ok(), "hello\n");
    server.signal(Signal::SIGHUP);
    let reloading = manager.hears("RELOADING=1");
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    manager.hears("READY=1");
    assert_eq!(server.generation(), 2);
    server.signal(Signal::SIGTERM);
    manager.hears("STOPPING=1");
    assert!(server.end(SOON).success());
}

#[test]
fn service_manager_is_told_ready_again_after_a_reload_that_failed() {
    let manager = Manager::new();
    let folder = folder();
    let path = folder.path().join("component.wasm");
    fs::copy(wrun_tests::guests::guest("http_hello"), &path).unwrap();
    let server = crate::wrun()
        .serve(&path)
        .env("NOTIFY_SOCKET", &manager.path)
        .start();
    manager.hears("READY=1");
    fs::write(&path, "broken").unwrap();
    server.signal(Signal::SIGHUP);
    manager.hears("RELOADING=1");
    manager.hears("READY=1");
    assert_eq!(server.get("/").ok(), "hello\n");
}

#[test]
fn watchdog_is_fed() {
    let manager = Manager::new();
    let launch = serve("http_hello")
        .env("NOTIFY_SOCKET", &manager.path)
        .env("WATCHDOG_USEC", "1000000");
    let _server = launch.start();
    manager.hears("WATCHDOG=1");
    manager.hears("WATCHDOG=1");
}

#[test]
fn first_process_of_a_container_serves_reaps_and_stops() {
    const CONTAINER: [&str; 5] = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];
    let possible = Command::new(CONTAINER[0])
        .args(&CONTAINER[1..])
        .arg("true")
        .status();
    if !possible.is_ok_and(|status| status.success()) {
        eprintln!("left out: this user may not make process namespaces");
        return;
    }
    // The orphan becomes a child of the first process, and stays a zombie if that does not care.
    let shell = ["sh", "-c", "(sleep 0.1 &); exec \"$0\" \"$@\""];
    let mut server = serve("http_hello")
        .through(CONTAINER.iter().chain(&shell))
        .start();
    assert_eq!(server.ps()["supervisor"]["pid"], 1);
    assert_eq!(server.get("/").ok(), "hello\n");
    let supervisor = process::children(server.pid())[0];
    eventually("only the worker is left", SOON, || {
        (process::children_and_zombies(supervisor).len() == 1).then_some(())
    });
    let worker = process::children(supervisor)[0];
    process::send(worker, Signal::SIGKILL);
    server.when("a replacement", SOON, |workers| {
        workers.iter().all(|w| w.is_ready() && w.restarts == 1)
    });
    assert_eq!(server.get("/").ok(), "hello\n");
    process::send(supervisor, Signal::SIGTERM);
    assert!(server.end(SOON).success());
}
