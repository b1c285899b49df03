//! Where a request ends and the next begins: in one place only, whoever reads it.

use crate::serve;
use wrun_tests::Connection;

/// Fields that say two things, or nothing, about the length of a body.
#[rustfmt::skip]
const LENGTHS: [(&str, &str); 23] = [
    ("a length and chunks", "Content-Length: 5\r\nTransfer-Encoding: chunked"),
    ("chunks and a length", "Transfer-Encoding: chunked\r\nContent-Length: 5"),
    ("another coding", "Transfer-Encoding: gzip"),
    ("two codings", "Transfer-Encoding: gzip, chunked"),
    ("chunks inside out", "Transfer-Encoding: chunked, gzip"),
    ("no coding", "Transfer-Encoding: identity"),
    ("chunks twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
    ("almost chunked", "Transfer-Encoding: xchunked"),
    ("an empty coding", "Transfer-Encoding:"),
    ("two lengths", "Content-Length: 5\r\nContent-Length: 6"),
    ("the same length twice", "Content-Length: 5\r\nContent-Length: 5"),
    ("a list of lengths", "Content-Length: 5, 5"),
    ("a space before the colon", "Content-Length : 5"),
    ("a sign", "Content-Length: +5"),
    ("a negative length", "Content-Length: -5"),
    ("another base", "Content-Length: 0x5"),
    ("a fraction", "Content-Length: 5.0"),
    ("two numbers", "Content-Length: 5 5"),
    ("a letter", "Content-Length: a"),
    ("no number", "Content-Length:"),
    ("more than 64 bits", "Content-Length: 99999999999999999999"),
    ("a parameter", "Content-Length: 5;5"),
    ("chunks in HTTP/1.0", "HTTP/1.0"),
];

/// Bodies that are not chunked as they should be.
const CHUNKS: [&str; 11] = [
    "zz\r\nabc\r\n0\r\n\r\n",
    "-1\r\nabc\r\n0\r\n\r\n",
    "+3\r\nabc\r\n0\r\n\r\n",
    "0x3\r\nabc\r\n0\r\n\r\n",
    "3 \r\nabc\r\n0\r\n\r\n",
    "3\nabc\r\n0\r\n\r\n",
    "\r\nabc\r\n0\r\n\r\n",
    "3\r\nabcd\r\n0\r\n\r\n",
    "3\r\nabc0\r\n\r\n",
    "3;ext\nabc\r\n0\r\n\r\n",
    "fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
];

/// A request that must not be read, because it may be part of the body before it.
const SMUGGLED: &str = "GET /request HTTP/1.1\r\nHost: smuggled.example\r\n\r\n";

#[test]
fn length_of_a_request_can_be_read_in_one_way_only() {
    let server = serve("http_echo").start();
    let mut faults = Vec::new();
    for (what, fields) in LENGTHS {
        let mut connection = server.connect();
        let (version, fields) = match fields {
            "HTTP/1.0" => ("1.0", "Transfer-Encoding: chunked"),
            fields => ("1.1", fields),
        };
        let head = format!("POST / HTTP/{version}\r\nHost: a\r\n{fields}\r\n\r\n");
        connection.send(head + "0\r\n\r\n");
        let _ = connection.try_send(SMUGGLED);
        match connection.try_response() {
            Ok(response) if response.status == 400 => {}
            other => faults.push(format!("{what}: {other:?}")),
        }
        if !connection.rest().unwrap_or_default().is_empty() {
            faults.push(format!("{what}: a second request was read"));
        }
    }
    assert_eq!(faults, [""; 0]);
}

#[test]
fn chunks_are_as_long_as_they_say() {
    let server = serve("http_sink").start();
    for chunks in CHUNKS {
        let mut connection = server.connect();
        connection.send_head("POST", "/", &[("transfer-encoding", "chunked")]);
        connection.send(chunks);
        let _ = connection.try_send(SMUGGLED);
        if let Ok(response) = connection.try_response() {
            assert!(
                matches!(response.status, 400 | 413),
                "{chunks:?}: {response:?}"
            );
        }
        assert!(
            connection.rest().unwrap_or_default().is_empty(),
            "{chunks:?}: a second request was read"
        );
    }
    let mut connection = server.connect();
    connection.send_head("POST", "/", &[("transfer-encoding", "chunked")]);
    connection.send("A;name=value\r\n0123456789\r\n0\r\n\r\n");
    assert_eq!(connection.response().ok(), "10\n");
}

#[test]
fn trailers_of_a_request_never_become_headers() {
    let server = serve("http_echo").start();
    let mut connection = server.connect();
    connection.send_head(
        "POST",
        "/request",
        &[("transfer-encoding", "chunked"), ("trailer", "x-role")],
    );
    connection
        .send("3\r\nabc\r\n0\r\nx-role: admin\r\nhost: evil.example\r\ncontent-length: 7\r\n\r\n");
    let seen = connection.response().ok();
    for text in ["admin", "evil.example", "content-length"] {
        assert!(!seen.contains(text), "{seen}");
    }
}

#[test]
fn answer_to_http_1_0_is_never_chunked() {
    let server = serve("http_stream").start();
    let mut connection = server.connect();
    connection.send("GET /?bytes=100000 HTTP/1.0\r\n\r\n");
    let response = connection.response();
    assert_eq!(response.header("transfer-encoding"), None);
    assert_eq!(response.body.len(), 100_000);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = serve("http_sleep").start();
    let mut connection = server.connect();
    let request = |ms| format!("GET /?ms={ms} HTTP/1.1\r\nHost: a\r\n\r\n");
    connection.send([request(300), request(0), request(100)].concat());
    let answers = [300, 0, 100].map(|ms| format!("slept {ms} ms\n"));
    assert_eq!([0; 3].map(|_| connection.response().ok()), answers);
}

#[test]
fn request_may_come_byte_by_byte() {
    let server = serve("http_echo").start();
    let mut connection: Connection = server.connect();
    for byte in b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody" {
        connection.send([*byte]);
    }
    assert_eq!(connection.response().ok(), "body");
}
