//! Connections: RFC 9112 §9, and RFC 9110 §10.1.1 on expectations.

use wrun_tests::http_table::{Case, case};

const KEPT: &str = "RFC 9112 §9.3";
const PIPELINED: &str = "RFC 9112 §9.3.2";
const CLOSED: &str = "RFC 9112 §9.6";
const EXPECT: &str = "RFC 9110 §10.1.1";
const INCOMPLETE: &str = "RFC 9112 §8";

fn get(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

fn post(path: &str, fields: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n{fields}\r\nhello")
}

fn old(fields: &str) -> String {
    format!("GET /a HTTP/1.0\r\nHost: a\r\n{fields}\r\n")
}

#[rustfmt::skip]
pub(super) fn cases() -> Vec<Case> {
    vec![
        case("no word on the connection", KEPT, get("/a", "")).sees("GET /a a 0"),
        case("keep-alive", KEPT, get("/a", "Connection: keep-alive\r\n")).sees("GET /a a 0"),
        case("close", CLOSED, get("/a", "Connection: close\r\n")).sees("GET /a a 0").closed(),
        case("close in capitals", CLOSED, get("/a", "CONNECTION: CLOSE\r\n")).sees("GET /a a 0").closed(),
        case("close in a list", CLOSED, get("/a", "Connection: x, close\r\n")).sees("GET /a a 0").closed(),
        case("close in a second field", CLOSED, get("/a", "Connection: x\r\nConnection: close\r\n")).sees("GET /a a 0").closed(),
        case("close with a body", CLOSED, post("/a", "Connection: close\r\n")).sees("POST /a a 5 hello").closed(),
        case("a name that begins with close", CLOSED, get("/a", "Connection: closed\r\n")).sees("GET /a a 0"),
        case("HTTP/1.0 by itself", KEPT, old("")).sees("GET /a a 0").closed(),
        case("HTTP/1.0 and keep-alive", KEPT, old("Connection: keep-alive\r\n")).sees("GET /a a 0"),
        case("HTTP/1.0 and Keep-Alive in capitals", KEPT, old("Connection: Keep-Alive\r\n")).sees("GET /a a 0"),
        case("HTTP/1.0 and close", KEPT, old("Connection: close\r\n")).sees("GET /a a 0").closed(),
        case("two requests", PIPELINED, get("/a", "") + &get("/b", "")).seen(["GET /a a 0", "GET /b a 0"]),
        case("two requests with bodies", PIPELINED, post("/a", "") + &post("/b", "")).seen(["POST /a a 5 hello", "POST /b a 5 hello"]),
        case("a body with a length and one in chunks", PIPELINED, post("/a", "") + "POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n").seen(["POST /a a 5 hello", "POST /b a 5 hello"]),
        case("ten requests", PIPELINED, get("/a", "").repeat(10)).seen(["GET /a a 0"; 10]),
        case("an empty line between requests", "RFC 9112 §2.2", format!("{}\r\n{}", get("/a", ""), get("/b", ""))).seen(["GET /a a 0", "GET /b a 0"]),
        case("a request after close", CLOSED, get("/a", "Connection: close\r\n") + &get("/b", "")).sees("GET /a a 0").closed(),
        case("a request after HTTP/1.0", CLOSED, old("") + &get("/b", "")).sees("GET /a a 0").closed(),
        case("a request after one that is refused", CLOSED, get("/a", "X\r\n") + &get("/b", "")).refused(400),
        case("a request that is refused after one that is not", CLOSED, get("/a", "") + "GET /b HTTP/1.1\r\n\r\n").sees("GET /a a 0").then_refused(400),
        case("a bare LF after a good request", "RFC 9112 §2.2", get("/a", "") + "\n").sees("GET /a a 0").then_refused(400),
        case("HEAD and GET", "RFC 9110 §9.3.2", "HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n").sees("HEAD /a a 0").bodiless(),
        case("100-continue", EXPECT, post("/a", "Expect: 100-continue\r\n")).sees("POST /a a 5 hello").after_100(),
        case("100-continue in capitals", EXPECT, post("/a", "EXPECT: 100-Continue\r\n")).sees("POST /a a 5 hello").after_100(),
        case("100-continue without a body", EXPECT, get("/a", "Expect: 100-continue\r\n")).sees("GET /a a 0"),
        case("100-continue in HTTP/1.0", EXPECT, "POST /a HTTP/1.0\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello").sees("POST /a a 5 hello").closed(),
        case("a refused request that expects 100-continue", EXPECT, "TRACE / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello").refused(405),
        case("another expectation", EXPECT, post("/a", "Expect: 200-ok\r\n")).sees("POST /a a 5 hello"),
        case("nothing", INCOMPLETE, "").ends().dropped(),
        case("empty lines", INCOMPLETE, "\r\n\r\n").ends().dropped(),
        case("half a body", INCOMPLETE, "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel").ends().refused(400),
        case("half a chunk", INCOMPLETE, "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel").ends().refused(400),
        case("no last chunk", INCOMPLETE, "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").ends().refused(400),
        case("no end of the trailers", INCOMPLETE, "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n").ends().refused(400),
    ]
}
