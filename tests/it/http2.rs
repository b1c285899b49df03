//! Cleartext HTTP/2 with prior knowledge, on the port of HTTP/1.1. Limits and the gate are in the files of their own.

use crate::serve;
use nix::sys::signal::Signal;
use wrun_tests::{Http2, SOON};

#[test]
fn both_protocols_are_served_on_one_port() {
    for guest in ["http_hello", "service_hello"] {
        let server = serve(guest).start();
        assert_eq!(server.get("/").ok(), "hello\n");
        assert_eq!(Http2::connect(server.addr()).get("/").ok(), "hello\n");
    }
}

#[test]
fn guest_sees_the_same_request_over_both_protocols() {
    for (guest, path) in [("http_echo", "/request"), ("service_request", "/")] {
        let server = serve(guest).start();
        let headers = [("x-request-id", "one"), ("accept", "*/*")];
        let seen = Http2::connect(server.addr())
            .exchange("GET", path, &headers, &[])
            .unwrap()
            .ok();
        let facts =
            format!("method GET\nscheme http\nauthority test.example\npath-with-query {path}\n");
        assert!(seen.starts_with(&facts), "{guest}: {seen}");
        assert!(
            seen.contains("accept: */*\n") && seen.contains("x-request-id: one\n"),
            "{guest}: {seen}"
        );
    }
}

#[test]
fn streams_run_side_by_side() {
    let server = serve("http_sleep").start();
    let mut http2 = Http2::connect(server.addr());
    let slow = http2.start("GET", "/?ms=60000", &[], &[]).unwrap();
    for _ in 0..20 {
        assert_eq!(http2.get("/?ms=1").ok(), "slept 1 ms\n");
    }
    server.when_in_flight(1);
    http2.cancel(slow);
}

#[test]
fn bodies_larger_than_the_window_pass_both_ways() {
    let server = serve("http_echo").start();
    let body: Vec<u8> = (0..2_000_000_u32)
        .map(|index| (index % 251) as u8)
        .collect();
    let response = Http2::connect(server.addr())
        .exchange("POST", "/", &[], &body)
        .unwrap();
    assert_eq!(response.status, 200);
    assert!(response.body == body);
}

#[test]
fn request_id_is_made_for_each_stream() {
    let server = serve("http_request_id").start();
    let mut http2 = Http2::connect(server.addr());
    let (first, second) = (http2.get("/"), http2.get("/"));
    assert_ne!(first.header("x-request-id"), second.header("x-request-id"));
    assert_eq!(
        first.header("x-request-id").map(|id| format!("{id}\n")),
        Some(first.text())
    );
}

#[test]
fn stream_in_flight_is_finished_when_the_server_stops() {
    let mut server = serve("http_sleep").start();
    let mut http2 = Http2::connect(server.addr());
    let pending = http2.start("GET", "/?ms=2000", &[], &[]).unwrap();
    server.when_in_flight(1);
    server.signal(Signal::SIGTERM);
    assert_eq!(http2.finish(pending).unwrap().ok(), "slept 2000 ms\n");
    assert!(server.end(SOON).success());
}

#[test]
fn connection_outlives_many_resets_or_is_closed_and_harms_nobody() {
    let server = serve("http_sleep").flag("--timeout", "10min").start();
    let mut http2 = Http2::connect(server.addr());
    for _ in 0..2000 {
        let Ok(pending) = http2.start("GET", "/?ms=600000", &[], &[]) else {
            break;
        };
        http2.cancel(pending);
    }
    drop(http2);
    server.when_in_flight(0);
    assert_eq!(server.get("/?ms=0").ok(), "slept 0 ms\n");
    assert_eq!(server.worker().restarts, 0);
}

#[test]
fn garbage_after_the_preface_closes_the_connection() {
    let server = serve("http_hello").start();
    let mut connection = server.connect();
    connection.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    connection.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    let _ = connection.rest();
    assert!(connection.has_ended());
    assert_eq!(server.get("/").ok(), "hello\n");
}

#[test]
fn preface_with_an_error_is_answered_as_http_1() {
    let server = serve("http_hello").start();
    let mut connection = server.connect();
    connection.send(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n");
    if let Ok(response) = connection.try_response() {
        assert_eq!(response.status, 400);
    }
}
