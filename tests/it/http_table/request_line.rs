//! Request lines: RFC 9112 §3, and what may stand before one.

use wrun_tests::http_table::{Case, case};

const LINE: &str = "RFC 9112 §3";
const METHOD: &str = "RFC 9110 §9.1";
const VERSION: &str = "RFC 9112 §2.3";
const PARSING: &str = "RFC 9112 §2.2";

/// Returns the head of a request with this first line.
fn head(line: &str) -> String {
    format!("{line}\r\nHost: a\r\n\r\n")
}

/// Methods of which the guest is the judge.
const METHODS: [&str; 12] = [
    "GET",
    "POST",
    "PUT",
    "DELETE",
    "OPTIONS",
    "PATCH",
    "PURGE",
    "M-SEARCH",
    "get",
    "trace",
    "!$%&*+-.^_`|~",
    "A",
];

/// Versions that are none, or that are not spoken in this form.
const VERSIONS: [&str; 18] = [
    "http/1.1",
    "Http/1.1",
    "HTTP/1.2",
    "HTTP/1.9",
    "HTTP/2.0",
    "HTTP/2",
    "HTTP/3.0",
    "HTTP/0.9",
    "HTTP/1.10",
    "HTTP/01.1",
    "HTTP/1.",
    "HTTP/1",
    "HTTP/1,1",
    "HTTP/ 1.1",
    "HTTPS/1.1",
    "HTTP/-1.1",
    "HTTP/1.1x",
    "FTP/1.1",
];

pub(super) fn cases() -> Vec<Case> {
    let mut cases = written_out();
    for method in METHODS {
        let bytes = head(&format!("{method} /a HTTP/1.1"));
        cases.push(
            case(format!("the method {method}"), METHOD, bytes).sees(format!("{method} /a a 0")),
        );
    }
    for version in VERSIONS {
        let bytes = head(&format!("GET / {version}"));
        cases.push(case(format!("the version {version}"), VERSION, bytes).refused(400));
    }
    for byte in [
        b'(', b')', b'<', b'@', b',', b';', b':', b'\\', b'"', b'/', b'[', b'?', b'=', b'{', b'#',
        1, 0x7f, 0xe9,
    ] {
        let bytes = [b"GE", &[byte][..], b"T / HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
        cases.push(case(format!("a method with the byte {byte:#x}"), METHOD, bytes).refused(400));
    }
    let long = "X".repeat(1000);
    cases.push(
        case(
            "a method of 1000 letters",
            METHOD,
            head(&format!("{long} /a HTTP/1.1")),
        )
        .sees(format!("{}..1000 /a a 0", &long[..60])),
    );
    cases
}

#[rustfmt::skip]
fn written_out() -> Vec<Case> {
    vec![
        case("a plain request", LINE, head("GET /a HTTP/1.1")).sees("GET /a a 0"),
        case("HEAD", "RFC 9110 §9.3.2", head("HEAD /a HTTP/1.1")).sees("HEAD /a a 0").bodiless(),
        case("HTTP/1.0", VERSION, head("GET /a HTTP/1.0")).sees("GET /a a 0").closed(),
        case("CONNECT", "RFC 9110 §9.3.6", "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n").refused(501),
        case("CONNECT without a port", "RFC 9110 §9.3.6", "CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n").refused(501),
        case("CONNECT to a path", "RFC 9112 §3.2.3", "CONNECT /a HTTP/1.1\r\nHost: a\r\n\r\n").refused(501),
        case("TRACE", "RFC 9110 §9.3.8", head("TRACE / HTTP/1.1")).refused(405),
        case("an empty line before it", PARSING, format!("\r\n{}", head("GET /a HTTP/1.1"))).sees("GET /a a 0"),
        case("two empty lines before it", PARSING, format!("\r\n\r\n{}", head("GET /a HTTP/1.1"))).sees("GET /a a 0"),
        case("a bare LF before it", PARSING, format!("\n{}", head("GET /a HTTP/1.1"))).refused(400),
        case("a bare CR before it", PARSING, format!("\r{}", head("GET /a HTTP/1.1"))).refused(400),
        case("a space before it", LINE, head(" GET / HTTP/1.1")).refused(400),
        case("a tab before it", LINE, head("\tGET / HTTP/1.1")).refused(400),
        case("two spaces after the method", LINE, head("GET  / HTTP/1.1")).refused(400),
        case("two spaces after the target", LINE, head("GET /  HTTP/1.1")).refused(400),
        case("a tab after the method", LINE, head("GET\t/ HTTP/1.1")).refused(400),
        case("a tab after the target", LINE, head("GET /\tHTTP/1.1")).refused(400),
        case("a form feed for a space", LINE, head("GET\x0c/ HTTP/1.1")).refused(400),
        case("a space at its end", LINE, head("GET / HTTP/1.1 ")).refused(400),
        case("a word at its end", LINE, head("GET / HTTP/1.1 x")).refused(400),
        case("no target", LINE, head("GET HTTP/1.1")).refused(400),
        case("no method", LINE, head("/ HTTP/1.1")).refused(400),
        case("an empty method", METHOD, head(" / HTTP/1.1")).refused(400),
        case("no version", VERSION, head("GET /")).refused(400),
        case("a version that is empty", VERSION, head("GET / ")).refused(400),
        case("the request of HTTP/0.9", VERSION, "GET /\r\n").refused(400),
        case("a bare LF after it", PARSING, "GET / HTTP/1.1\nHost: a\r\n\r\n").refused(400),
        case("a bare CR after it", PARSING, "GET / HTTP/1.1\rHost: a\r\n\r\n").refused(400),
        case("two CR after it", PARSING, "GET / HTTP/1.1\r\r\nHost: a\r\n\r\n").refused(400),
        case("a NUL in it", PARSING, head("GET /\0 HTTP/1.1")).refused(400),
        case("a greeting of TLS", LINE, b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n").refused(400),
        case("a line of letters", LINE, "hello\r\n\r\n").refused(400),
        case("the protocol of a proxy", LINE, format!("PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n{}", head("GET / HTTP/1.1"))).refused(400),
        case("half of the preface of HTTP/2", "RFC 9113 §3.4", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n").refused(400),
        case("the preface of HTTP/2 after a request", "RFC 9113 §3.4", format!("{}PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", head("GET /a HTTP/1.1"))).sees("GET /a a 0").then_refused(400),
    ]
}
