//! Clients that are slow on purpose: each wait for a client has an end.

use crate::serve;
use std::time::Duration;
use wrun_tests::{Connection, SOON, Server, eventually};

/// Far below the defaults of the timeouts that are not under test.
const CLOSED_WITHIN: Duration = Duration::from_secs(8);

/// The first 24 bytes of every HTTP/2 connection.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn assert_closed(server: &Server, connection: &mut Connection, what: &str) {
    eventually(what, CLOSED_WITHIN, || connection.has_ended().then_some(()));
    assert_eq!(server.get("/").status, 200, "{what}");
}

#[test]
fn connection_whose_first_byte_never_comes_is_closed() {
    let server = serve("http_hello").flag("--header-timeout", "1s").start();
    let mut connection = server.connect();
    assert_closed(&server, &mut connection, "closed without a byte");
}

#[test]
fn connection_that_could_still_be_either_http_is_closed() {
    let server = serve("http_hello").flag("--header-timeout", "1s").start();
    for len in [1, 3, 10, PREFACE.len() - 1] {
        let mut connection = server.connect();
        connection.send(&PREFACE[..len]);
        assert_closed(
            &server,
            &mut connection,
            &format!("closed after {len} bytes of the preface"),
        );
    }
}

#[test]
fn http2_connection_without_a_request_is_closed() {
    let server = serve("http_hello")
        .flag("--header-timeout", "1s")
        .flag("--idle-timeout", "1s")
        .start();
    let mut connection = server.connect();
    connection.send(PREFACE);
    assert_closed(&server, &mut connection, "closed after the preface alone");
    let mut connection = server.connect();
    connection.send(PREFACE);
    // An empty SETTINGS frame: a client that shook hands and then says nothing.
    connection.send([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    assert_closed(&server, &mut connection, "closed when idle");
}

#[test]
fn head_that_does_not_end_is_408_and_closed() {
    let server = serve("http_hello").flag("--header-timeout", "1s").start();
    let mut connection = server.connect();
    connection.send("GET / HTTP/1.1\r\nhost: a\r\nx-slow: ");
    assert_eq!(connection.response().status, 408);
    assert!(connection.rest().unwrap().is_empty());
}

#[test]
fn head_that_drips_does_not_get_more_time() {
    let server = serve("http_hello").flag("--header-timeout", "1s").start();
    let mut connection = server.connect();
    connection.send("GET / HTTP/1.1\r\nhost: a\r\nx-slow: ");
    eventually(
        "closed although a byte comes every 10 ms",
        CLOSED_WITHIN,
        || (connection.try_send("x").is_err() || connection.has_ended()).then_some(()),
    );
}

#[test]
fn second_head_on_a_connection_has_the_same_time() {
    let server = serve("http_hello").flag("--header-timeout", "1s").start();
    let mut connection = server.connect();
    connection.get("/").ok();
    connection.send("GET / HTTP/1.1\r\nhost:");
    assert_eq!(connection.response().status, 408);
    assert!(connection.rest().unwrap().is_empty());
}

#[test]
fn idle_connection_is_closed_and_a_busy_one_is_not() {
    let server = serve("http_sleep")
        .flag("--idle-timeout", "1s")
        .flag("--header-timeout", "30s")
        .start();
    let mut idle = server.connect();
    idle.get("/").ok();
    let mut busy = server.connect();
    busy.send_head("GET", "/?ms=3000", &[]);
    assert_closed(&server, &mut idle, "the idle connection is closed");
    assert_eq!(busy.response().ok(), "slept 3000 ms\n");
}

#[test]
fn body_that_stalls_is_408() {
    let server = serve("http_sink").flag("--stall-timeout", "1s").start();
    let mut connection = server.connect();
    connection.send_head("POST", "/", &[("content-length", "100000")]);
    connection.send("a few bytes");
    assert_eq!(connection.response().status, 408);
    assert!(connection.rest().is_ok_and(|rest| rest.is_empty()));
    server.when_in_flight(0);
}

#[test]
fn body_that_drips_is_408() {
    let server = serve("http_sink").flag("--stall-timeout", "1s").start();
    let mut connection = server.connect();
    connection.send_head("POST", "/", &[("content-length", "100000")]);
    // About 100 bytes a second, where 1 KiB is wanted.
    eventually("no more bytes are taken", CLOSED_WITHIN, || {
        (connection.try_send("x").is_err() || connection.has_ended()).then_some(())
    });
    server.when_in_flight(0);
}

#[test]
fn body_that_is_slow_but_comes_is_taken() {
    let server = serve("http_sink").flag("--stall-timeout", "2s").start();
    let mut connection = server.connect();
    connection.send_head("POST", "/", &[("content-length", "200000")]);
    let mut sent = 0;
    // At least as long as a client may stall, and never near the lowest rate, be the machine ever so busy.
    eventually("all pieces are sent", SOON, || {
        connection.send([b'x'; 500]);
        sent += 1;
        (sent == 400).then_some(())
    });
    assert_eq!(connection.response().ok(), "200000\n");
}

#[test]
fn client_that_does_not_take_its_answer_is_cut_off() {
    let server = serve("http_stream")
        .flag("--stall-timeout", "1s")
        .flag("--timeout", "10min")
        .start();
    let mut connection = server.connect();
    connection.send_head("GET", "/?forever=1", &[]);
    server.when_in_flight(1);
    server.when_in_flight(0);
    let head = connection.head().unwrap();
    let mut taken = Vec::new();
    let mut body = connection.body(&head).unwrap();
    std::io::Read::read_to_end(&mut body, &mut taken).expect_err("the body has no end");
}

#[test]
fn guest_that_is_slow_is_not_taken_for_a_slow_client() {
    let server = serve("http_sink").flag("--stall-timeout", "500ms").start();
    assert_eq!(
        server.post("/?slow_ms=1000", &vec![b'x'; 150_000]).ok(),
        "150000\n"
    );
}
