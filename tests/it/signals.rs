//! Signals to the supervisor.

use crate::serve;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::time::{Duration, Instant};
use wrun_tests::{SOON, Server, Worker};

/// Starts a server with one request that takes two seconds.
fn busy_server() -> (Server, wrun_tests::Connection) {
    let server = serve("http_sleep").start();
    let mut busy = server.connect();
    busy.send_head("GET", "/?ms=2000", &[]);
    server.when_in_flight(1);
    (server, busy)
}

#[test]
fn termination_finishes_what_is_in_flight_and_ends_with_0() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let (mut server, mut busy) = busy_server();
        server.signal(signal);
        assert_eq!(busy.response().ok(), "slept 2000 ms\n", "{signal}");
        assert_eq!(server.end(SOON).code(), Some(0), "{signal}");
    }
}

#[test]
fn interrupt_to_the_whole_group_as_a_terminal_sends_it_is_graceful_too() {
    let (mut server, mut busy) = busy_server();
    killpg(Pid::from_raw(server.pid()), Signal::SIGINT).unwrap();
    assert_eq!(busy.response().ok(), "slept 2000 ms\n");
    assert_eq!(server.end(SOON).code(), Some(0));
}

#[test]
fn second_termination_ends_at_once() {
    let mut server = serve("http_sleep")
        .flag("--timeout", "10min")
        .flag("--drain-timeout", "10min")
        .start();
    let mut busy = server.connect();
    busy.send_head("GET", "/?ms=600000", &[]);
    server.when_in_flight(1);
    server.signal(Signal::SIGTERM);
    wrun_tests::eventually("it drains", SOON, || {
        (server.ps()["supervisor"]["state"] == "stopping").then_some(())
    });
    assert!(server.is_running());
    server.signal(Signal::SIGTERM);
    server.end(Duration::from_secs(10));
    busy.try_response().expect_err("the request was cut off");
}

#[test]
fn termination_of_an_idle_server_does_not_take_its_timeouts() {
    let mut server = serve("http_hello")
        .workers(2)
        .flag("--drain-timeout", "10min")
        .start();
    let mut idle = server.connect();
    idle.get("/").ok();
    let start = Instant::now();
    assert!(server.stop().success());
    assert!(start.elapsed() < SOON);
}

#[test]
fn connection_made_while_draining_is_answered_or_refused_and_never_left_open() {
    let (mut server, mut busy) = busy_server();
    server.signal(Signal::SIGTERM);
    while server.is_running() {
        if let Ok(mut late) = wrun_tests::Connection::try_open(server.addr(), SOON) {
            let _ = late.try_send("GET /?ms=0 HTTP/1.1\r\nhost: a\r\n\r\n");
            if let Err(error) = late.try_response() {
                assert_ne!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock,
                    "nobody answered"
                );
            }
        }
    }
    assert_eq!(busy.response().ok(), "slept 2000 ms\n");
}

#[test]
fn ttin_and_ttou_run_one_worker_more_and_one_fewer() {
    let server = serve("http_hello").start();
    let ready = |count| {
        move |workers: &[Worker]| workers.len() == count && workers.iter().all(Worker::is_ready)
    };
    server.signal(Signal::SIGTTIN);
    server.when("two workers", SOON, ready(2));
    server.signal(Signal::SIGTTIN);
    server.when("three workers", SOON, ready(3));
    server.signal(Signal::SIGTTOU);
    server.when("two workers again", SOON, ready(2));
    server.signal(Signal::SIGTTOU);
    server.when("one worker again", SOON, ready(1));
    server.signal(Signal::SIGTTOU);
    assert_eq!(server.get("/").ok(), "hello\n");
    server.when("the last one stays", SOON, ready(1));
}

#[test]
fn signals_that_mean_nothing_to_a_server_do_not_end_it() {
    let mut server = serve("http_hello").start();
    for signal in [Signal::SIGPIPE, Signal::SIGWINCH, Signal::SIGCHLD] {
        server.signal(signal);
    }
    assert_eq!(server.get("/").ok(), "hello\n");
    assert!(server.is_running());
}

#[test]
fn state_folder_is_left_without_a_socket() {
    let folder = wrun_tests::folder();
    let state = folder.path().join("state");
    let mut server = serve("http_hello").state(&state).start();
    assert!(server.stop().success());
    assert!(!state.join("control.sock").exists());
}
