//! Chunks: RFC 9112 §7.1.

use wrun_tests::http_table::{Case, case};

const CHUNK: &str = "RFC 9112 §7.1";
const EXTENSION: &str = "RFC 9112 §7.1.1";
const TRAILERS: &str = "RFC 9112 §7.1.2";

fn with(chunks: impl AsRef<[u8]>) -> Vec<u8> {
    let head = b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    [head, chunks.as_ref()].concat()
}

#[rustfmt::skip]
pub(super) fn good() -> Vec<Case> {
    vec![
        case("no chunk", CHUNK, with("0\r\n\r\n")).sees("POST /a a 0"),
        case("a chunk", CHUNK, with("5\r\nhello\r\n0\r\n\r\n")).sees("POST /a a 5 hello"),
        case("five chunks", CHUNK, with("1\r\nh\r\n1\r\ne\r\n1\r\nl\r\n1\r\nl\r\n1\r\no\r\n0\r\n\r\n")).sees("POST /a a 5 hello"),
        case("a size in capitals", CHUNK, with("A\r\n0123456789\r\n0\r\n\r\n")).sees("POST /a a 10 0123456789"),
        case("a size in small letters", CHUNK, with("a\r\n0123456789\r\n0\r\n\r\n")).sees("POST /a a 10 0123456789"),
        case("a size with zeros before it", CHUNK, with("0005\r\nhello\r\n0\r\n\r\n")).sees("POST /a a 5 hello"),
        case("a last chunk of zeros", CHUNK, with("5\r\nhello\r\n000\r\n\r\n")).sees("POST /a a 5 hello"),
        case("line ends in a chunk", CHUNK, with("4\r\n\r\n\r\n\r\n0\r\n\r\n")).sees("POST /a a 4"),
        case("a chunk that looks like the last", CHUNK, with("5\r\n0\r\n\r\n\r\n0\r\n\r\n")).sees("POST /a a 5 0"),
        case("an extension", EXTENSION, with("5;a\r\nhello\r\n0\r\n\r\n")).sees("POST /a a 5 hello"),
        case("an extension with a value", EXTENSION, with("5;a=b\r\nhello\r\n0\r\n\r\n")).sees("POST /a a 5 hello"),
        case("an extension with a quoted value", EXTENSION, with("5;a=\"b c;d\"\r\nhello\r\n0\r\n\r\n")).sees("POST /a a 5 hello"),
        case("two extensions", EXTENSION, with("5;a;b=c\r\nhello\r\n0\r\n\r\n")).sees("POST /a a 5 hello"),
        case("an extension of the last chunk", EXTENSION, with("5\r\nhello\r\n0;a=b\r\n\r\n")).sees("POST /a a 5 hello"),
        case("a trailer", TRAILERS, with("5\r\nhello\r\n0\r\nX: y\r\n\r\n")).sees("POST /a a 5 hello").without_field("x"),
        case("two trailers", TRAILERS, with("5\r\nhello\r\n0\r\nX: y\r\nZ: z\r\n\r\n")).sees("POST /a a 5 hello").without_field("z"),
        case("a host among the trailers", "RFC 9110 §6.5.1", with("5\r\nhello\r\n0\r\nHost: b\r\n\r\n")).sees("POST /a a 5 hello"),
        case("a length among the trailers", "RFC 9110 §6.5.1", with("5\r\nhello\r\n0\r\nContent-Length: 50\r\n\r\n")).sees("POST /a a 5 hello").without_field("content-length"),
        case("a coding among the trailers", "RFC 9110 §6.5.1", with("5\r\nhello\r\n0\r\nTransfer-Encoding: gzip\r\n\r\n")).sees("POST /a a 5 hello"),
        case("a right among the trailers", "RFC 9110 §6.5.1", with("5\r\nhello\r\n0\r\nAuthorization: a\r\n\r\n")).sees("POST /a a 5 hello").without_field("authorization"),
        case("as many bytes as there may be", "RFC 9110 §15.5.14", with(format!("3e8\r\n{}\r\n0\r\n\r\n", "x".repeat(1000)))).sees(format!("POST /a a 1000 {}", "x".repeat(60))),
    ]
}

/// Lines before a chunk that do not say how long it is.
const NO_SIZE: [&str; 27] = [
    "",
    "g",
    "x5",
    "-5",
    "+5",
    "0x5",
    "5h",
    "5.",
    "5,",
    "5 ",
    "5\t",
    " 5",
    "\t5",
    "5 5",
    "5\u{b}",
    "\"5\"",
    "5_0",
    "５",
    "fffffffffffffffff",
    "10000000000000005",
    "5;",
    "5;\u{1}",
    "5;a\u{7f}",
    "5 ;a",
    "5;a=\"b",
    "5; ",
    "5;;",
];

pub(super) fn broken() -> Vec<Case> {
    let mut cases = written_out();
    for line in NO_SIZE {
        let chunks = format!("{line}\r\nhello\r\n0\r\n\r\n");
        cases.push(case(format!("the size {line:?}"), CHUNK, with(chunks)).refused(400));
    }
    let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(1000));
    cases.push(case("an extension of 1000 bytes", EXTENSION, with(long)).refused(400));
    let many = format!("0\r\n{}\r\n", "X: y\r\n".repeat(2000));
    cases.push(case("2000 trailers", TRAILERS, with(many)).refused(400));
    let long = format!("0\r\nX: {}\r\n\r\n", "y".repeat(10_000));
    cases.push(case("a trailer of 10 000 bytes", TRAILERS, with(long)).refused(400));
    let large = format!("3e9\r\n{}\r\n0\r\n\r\n", "x".repeat(1001));
    cases.push(case("a chunk past the limit", "RFC 9110 §15.5.14", with(large)).refused(413));
    let many = format!("{}0\r\n\r\n", "1\r\nx\r\n".repeat(1001));
    cases.push(
        case(
            "chunks past the limit together",
            "RFC 9110 §15.5.14",
            with(many),
        )
        .refused(413),
    );
    cases
}

#[rustfmt::skip]
fn written_out() -> Vec<Case> {
    vec![
        case("a bare LF after the size", CHUNK, with("5\nhello\r\n0\r\n\r\n")).refused(400),
        case("a bare LF after the data", CHUNK, with("5\r\nhello\n0\r\n\r\n")).refused(400),
        case("a bare LF after the last size", CHUNK, with("5\r\nhello\r\n0\n\r\n")).refused(400),
        case("a bare LF at the end", CHUNK, with("5\r\nhello\r\n0\r\n\n")).refused(400),
        case("a bare LF after an extension", EXTENSION, with("5;a\nhello\r\n0\r\n\r\n")).refused(400),
        case("a bare CR after the size", CHUNK, with("5\rhello\r\n0\r\n\r\n")).refused(400),
        case("a bare CR in an extension", EXTENSION, with("5;a\rb\r\nhello\r\n0\r\n\r\n")).refused(400),
        case("two CR after the size", CHUNK, with("5\r\r\nhello\r\n0\r\n\r\n")).refused(400),
        case("a chunk that is longer than its size", CHUNK, with("4\r\nhello\r\n0\r\n\r\n")).refused(400),
        case("a chunk that is shorter than its size", CHUNK, with("6\r\nhello\r\n0\r\n\r\n")).refused(400),
        case("no line end after the data", CHUNK, with("5\r\nhello0\r\n\r\n")).refused(400),
        case("an empty line after the data", CHUNK, with("5\r\nhello\r\n\r\n0\r\n\r\n")).refused(400),
        case("an empty line before the size", CHUNK, with("\r\n5\r\nhello\r\n0\r\n\r\n")).refused(400),
        case("a bare LF among the trailers", TRAILERS, with("0\r\nX: y\nZ: z\r\n\r\n")).refused(400),
        case("a bare CR among the trailers", TRAILERS, with("0\r\nX: y\rZ: z\r\n\r\n")).refused(400),
        case("a NUL among the trailers", TRAILERS, with("0\r\nX: y\0\r\n\r\n")).refused(400),
        case("a trailer without a colon", TRAILERS, with("0\r\nX\r\n\r\n")).refused(400),
        case("a trailer without a name", TRAILERS, with("0\r\n: y\r\n\r\n")).refused(400),
        case("a trailer with a space before the colon", TRAILERS, with("0\r\nX : y\r\n\r\n")).refused(400),
        case("a folded trailer", TRAILERS, with("0\r\nX: y\r\n z\r\n\r\n")).refused(400),
        case("data after the last chunk", CHUNK, with("0\r\nhello\r\n\r\n")).refused(400),
    ]
}
