//! The listening sockets: bound once, shared, inherited, given back.

use crate::serve;
use std::net::TcpListener;

#[test]
fn port_in_use_is_refused_with_a_hint_at_addr() {
    let first = serve("http_hello").start();
    let second = serve("http_hello").addr(first.addr()).fail();
    second.fails_with(69, &[&first.addr().to_string(), "--addr"]);
    assert_eq!(first.get("/").ok(), "hello\n");
}

#[test]
fn port_of_a_stopped_server_can_be_bound_again_at_once() {
    let mut first = serve("http_hello").start();
    let addr = first.addr();
    // The server closes this connection, so that its side of the port waits in TIME_WAIT.
    let mut kept = first.connect();
    kept.get("/").ok();
    assert!(first.stop().success());
    let second = serve("http_hello").addr(addr).start();
    assert_eq!(second.addr(), addr);
    assert_eq!(second.get("/").ok(), "hello\n");
}

#[test]
fn port_of_a_killed_server_can_be_bound_again_at_once() {
    let first = serve("http_hello").start();
    let addr = first.addr();
    let mut kept = first.connect();
    kept.get("/").ok();
    drop(first);
    assert_eq!(
        serve("http_hello").addr(addr).start().get("/").ok(),
        "hello\n"
    );
}

#[test]
fn inherited_socket_is_served() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let server = serve("http_hello")
        .without_addr()
        .inherits(listener)
        .start();
    assert_eq!(server.addr(), addr);
    assert_eq!(server.get("/").ok(), "hello\n");
}

#[test]
fn inherited_socket_outlives_the_server() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let inherit = || {
        serve("http_hello")
            .without_addr()
            .inherits(listener.try_clone().unwrap())
    };
    let mut first = inherit().start();
    assert!(first.stop().success());
    // Nobody accepts now, and yet nobody is refused: the connection waits for the next server.
    let mut waiting = wrun_tests::Connection::open(addr);
    let _second = inherit().start();
    assert_eq!(waiting.get("/").ok(), "hello\n");
}

#[test]
fn ipv6_is_served() {
    let server = serve("http_echo").addr("[::1]:0").start();
    assert!(server.addr().is_ipv6());
    assert!(
        server
            .get("/request")
            .ok()
            .contains("authority test.example\n")
    );
}
