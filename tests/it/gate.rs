//! The request gate: what could be read in two ways is refused before a guest sees it.
//!
//! The cases are written from RFC 9110 and RFC 9112; every request is in full view. Bodies are in `framing.rs`.

use crate::serve;
use wrun_tests::{Http2, Server};

/// A request that is refused: what is wrong with it, its bytes, the status.
type Refused = (&'static str, &'static str, u16);

#[rustfmt::skip]
const HOSTS: [Refused; 14] = [
    ("no host", "GET / HTTP/1.1\r\n\r\n", 400),
    ("two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    ("the same host twice", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
    ("an empty host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
    ("a user in the host", "GET / HTTP/1.1\r\nHost: user@a\r\n\r\n", 400),
    ("a path in the host", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    ("a list of hosts", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
    ("a space in the host", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    ("a port that is no number", "GET / HTTP/1.1\r\nHost: a:http\r\n\r\n", 400),
    ("a port that is too large", "GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", 400),
    ("a scheme in the host", "GET / HTTP/1.1\r\nHost: http://a\r\n\r\n", 400),
    ("a query in the host", "GET / HTTP/1.1\r\nHost: a?b\r\n\r\n", 400),
    ("a bracket that does not end", "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
    ("an absolute target without a host", "GET http://a/ HTTP/1.1\r\n\r\n", 400),
];

#[rustfmt::skip]
const METHODS: [Refused; 4] = [
    ("a tunnel", "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 501),
    ("a trace", "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
    ("no method", " / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("a method that is no token", "GE(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
];

#[rustfmt::skip]
const TARGETS: [Refused; 9] = [
    ("an asterisk without OPTIONS", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("a fragment", "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("a fragment after a query", "GET /a?b#c HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("a path without a slash", "GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("no target", "GET  HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("a space in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("a tab in the target", "GET /a\tb HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("a control byte in the target", "GET /a\u{1}b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("a user in the target", "GET http://user@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
];

#[rustfmt::skip]
const HEADS: [Refused; 21] = [
    ("bare line feeds", "GET / HTTP/1.1\nHost: a\n\n", 400),
    ("a bare line feed after a field", "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400),
    ("a bare line feed at the end", "GET / HTTP/1.1\r\nHost: a\r\n\n", 400),
    ("a bare line feed after the request line", "GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
    ("a bare carriage return", "GET / HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n", 400),
    ("a NUL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n\r\n", 400),
    ("a control byte in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: b\u{1}c\r\n\r\n", 400),
    ("a DEL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: b\u{7f}c\r\n\r\n", 400),
    ("a folded field", "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", 400),
    ("a space before the first field", "GET / HTTP/1.1\r\n X: b\r\nHost: a\r\n\r\n", 400),
    ("a space before the colon", "GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
    ("no name", "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", 400),
    ("no colon", "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", 400),
    ("a name that is no token", "GET / HTTP/1.1\r\nHost: a\r\nX(): b\r\n\r\n", 400),
    ("a NUL in a name", "GET / HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n", 400),
    ("another protocol", "GET / FTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("a version in lower case", "GET / http/1.1\r\nHost: a\r\n\r\n", 400),
    ("no version", "GET /\r\nHost: a\r\n\r\n", 400),
    ("a version that does not exist", "GET / HTTP/1.9\r\nHost: a\r\n\r\n", 400),
    ("HTTP/2 in the form of HTTP/1", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", 400),
    ("a greeting of TLS", "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\r\n\r\n", 400),
];

/// Sends each request and, right behind it, one that would be answered: a refused request must not leave the connection
/// in a state where its rest is taken for a second one.
fn assert_refused(cases: &[Refused]) {
    let server = serve("http_echo").start();
    let faults = cases.iter().filter_map(|case| fault(&server, case));
    assert_eq!(faults.collect::<Vec<_>>(), [""; 0]);
    assert_eq!(server.get("/request").status, 200);
    assert_eq!(server.worker().restarts, 0);
}

/// Returns what is wrong with how the server takes a request.
fn fault(server: &Server, (what, bytes, status): &Refused) -> Option<String> {
    let mut connection = server.connect();
    connection.send(bytes);
    let _ = connection.try_send("GET /request HTTP/1.1\r\nhost: smuggled.example\r\n\r\n");
    match connection.try_response() {
        Ok(response) if response.status != *status => {
            return Some(format!("{what} is {}", response.status));
        }
        Err(error) => return Some(format!("{what}: {error}")),
        Ok(_) => {}
    }
    // A reset says the same as a clean end: the rest was not read.
    let is_over = *status != 400 || connection.rest().unwrap_or_default().is_empty();
    (!is_over).then(|| format!("{what}: a second request was read"))
}

#[test]
fn request_has_exactly_one_valid_host() {
    assert_refused(&HOSTS);
}

#[test]
fn methods_that_are_not_for_guests_are_refused() {
    assert_refused(&METHODS);
}

#[test]
fn target_has_one_of_the_forms_of_the_rfc() {
    assert_refused(&TARGETS);
}

#[test]
fn head_is_lines_of_plain_fields() {
    assert_refused(&HEADS);
}

#[test]
fn every_form_of_a_valid_host_reaches_the_guest() {
    let server = serve("http_echo").start();
    for host in [
        "a",
        "a.example:8080",
        "127.0.0.1",
        "[::1]:80",
        "xn--bcher-kva.example",
        "under_score",
    ] {
        let mut connection = server.connect();
        connection.send(format!("GET /request HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        let seen = connection.response().ok();
        assert!(seen.contains(&format!("\nauthority {host}\n")), "{seen}");
    }
}

#[test]
fn options_asterisk_reaches_the_guest() {
    let server = serve("service_request").start();
    let mut connection = server.connect();
    connection.send("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
    let seen = connection.response().ok();
    assert!(seen.starts_with("method OPTIONS\n"), "{seen}");
}

#[test]
fn authority_of_an_absolute_target_wins_over_host() {
    let server = serve("http_echo").start();
    let mut connection = server.connect();
    connection
        .send("GET http://inner.example:81/request?q=1 HTTP/1.1\r\nHost: outer.example\r\n\r\n");
    let seen = connection.response().ok();
    assert!(
        seen.contains("\nauthority inner.example:81\npath-with-query /request?q=1\n"),
        "{seen}"
    );
    assert!(!seen.contains("outer.example"), "{seen}");
}

#[test]
fn path_is_passed_on_as_it_was_sent() {
    let server = serve("service_request").start();
    for path in [
        "/a/../b",
        "//a//b/",
        "/%2e%2e/%2F",
        "/a;b=c",
        "/a%00b",
        "/?",
        "/a?b?c&&=",
        "/~!$'()*+,:@",
    ] {
        let mut connection = server.connect();
        connection.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let seen = connection.response().ok();
        assert!(
            seen.contains(&format!("\npath-with-query {path}\n")),
            "{path}: {seen}"
        );
    }
}

#[test]
fn headers_of_the_connection_do_not_reach_the_guest() {
    for (guest, path) in [("http_echo", "/request"), ("service_request", "/")] {
        let server = serve(guest).start();
        let headers = [
            ("connection", "keep-alive, X-Private"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("te", "trailers"),
            ("upgrade", "websocket"),
            ("x-private", "1"),
            ("x-public", "1"),
        ];
        let seen = server.connect().exchange("GET", path, &headers, &[]).ok();
        assert!(seen.contains("x-public: 1\n"), "{guest}: {seen}");
        for name in [
            "connection",
            "keep-alive",
            "proxy-connection",
            "te",
            "upgrade",
            "x-private",
        ] {
            assert!(
                !seen.contains(&format!("\n{name}: ")),
                "{guest}: {name} came through: {seen}"
            );
        }
    }
}

#[test]
fn http_1_0_without_a_host_is_served_under_the_local_address() {
    let server = serve("http_echo").start();
    let mut connection = server.connect();
    connection.send("GET /request HTTP/1.0\r\n\r\n");
    let response = connection.response();
    assert!(
        response
            .clone()
            .ok()
            .contains(&format!("\nauthority {}\n", server.addr())),
        "{response:?}"
    );
    assert!(
        connection.rest().unwrap().is_empty(),
        "HTTP/1.0 keeps no connection unless asked to"
    );
}

#[test]
fn gate_holds_for_http2_too() {
    let server = serve("http_echo").start();
    let status = |method, target, headers: &[(&str, &str)]| {
        let mut http2 = Http2::connect(server.addr());
        http2
            .exchange(method, target, headers, &[])
            .map(|response| response.status)
    };
    assert_eq!(status("TRACE", "/", &[]).unwrap(), 405);
    assert_eq!(
        status("GET", "/request", &[("host", "other.example")]).unwrap(),
        400
    );
    assert_eq!(
        status("GET", "/request", &[("host", "test.example")]).unwrap(),
        200
    );
}
