//! Requests whose client stops in the middle and stays: each wait for it has an end.

use wrun_tests::http_table::{Case, case};

const HEAD: &str = "RFC 9112 §9.5";
const BODY: &str = "RFC 9110 §15.5.9";

const CHUNKED: &str = "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

#[rustfmt::skip]
pub(super) fn cases() -> Vec<Case> {
    let body = |rest: &str| format!("{CHUNKED}{rest}");
    vec![
        case("before the first byte", HEAD, "").stops().dropped(),
        case("in an empty line", HEAD, "\r").stops().refused(408),
        case("after an empty line", HEAD, "\r\n").stops().refused(408),
        case("in the method", HEAD, "GE").stops().refused(408),
        case("in the target", HEAD, "GET /a").stops().refused(408),
        case("in the version", HEAD, "GET /a HTT").stops().refused(408),
        case("after the request line", HEAD, "GET /a HTTP/1.1\r\n").stops().refused(408),
        case("in a name", HEAD, "GET /a HTTP/1.1\r\nHos").stops().refused(408),
        case("in a value", HEAD, "GET /a HTTP/1.1\r\nHost: a").stops().refused(408),
        case("before the empty line", HEAD, "GET /a HTTP/1.1\r\nHost: a\r\n").stops().refused(408),
        case("in the empty line", HEAD, "GET /a HTTP/1.1\r\nHost: a\r\n\r").stops().refused(408),
        case("in what could be HTTP/2", HEAD, "PRI * HTTP/2.0\r\n\r\nSM").stops().refused(408),
        case("in the first letter of HTTP/2", HEAD, "P").stops().refused(408),
        case("in a second head", HEAD, "GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b").stops().sees("GET /a a 0").then_refused(408),
        case("before the body", BODY, "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n").stops().refused(408),
        case("in the body", BODY, "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel").stops().refused(408),
        case("before the first chunk", BODY, body("")).stops().refused(408),
        case("in a size", BODY, body("5")).stops().refused(408),
        case("in an extension", BODY, body("5;a")).stops().refused(408),
        case("in a chunk", BODY, body("5\r\nhel")).stops().refused(408),
        case("after a chunk", BODY, body("5\r\nhello")).stops().refused(408),
        case("before the last chunk", BODY, body("5\r\nhello\r\n")).stops().refused(408),
        case("before the trailers", BODY, body("5\r\nhello\r\n0\r\n")).stops().refused(408),
        case("in a trailer", BODY, body("5\r\nhello\r\n0\r\nX: ")).stops().refused(408),
    ]
}
