//! How long a body is: RFC 9110 §8.6 and RFC 9112 §6. Two answers to that question are one too many, and so is none.

use wrun_tests::http_table::{Case, case};

const LENGTH: &str = "RFC 9110 §8.6";
const FRAMING: &str = "RFC 9112 §6.3";
const CODING: &str = "RFC 9112 §6.1";

/// Returns a request with these fields and the body `hello`.
fn hello(fields: &str) -> String {
    format!("POST /a HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\nhello")
}

/// Returns a request with these fields and `hello` in a chunk.
fn chunked(fields: &str) -> String {
    format!("POST /a HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
}

/// Values that say 5.
const FIVE: [&str; 5] = ["5", "05", "000000000000000000000000000005", "5 ", "\t5\t"];

/// Values that say nothing.
const NOT_A_LENGTH: [&str; 24] = [
    "",
    " ",
    "+5",
    "-5",
    "-0",
    "0x5",
    "5h",
    "a",
    "5.0",
    "5e0",
    "5,",
    ",5",
    "5,5",
    "5, 5",
    "5, 6",
    "5;5",
    "5 5",
    "\"5\"",
    "5\t5",
    "5_0",
    "５",
    "18446744073709551616",
    "99999999999999999999999",
    "NaN",
];

pub(super) fn cases() -> Vec<Case> {
    let mut cases = written_out();
    for value in FIVE {
        let bytes = hello(&format!("Content-Length: {value}"));
        cases.push(case(format!("the length {value:?}"), LENGTH, bytes).sees("POST /a a 5 hello"));
    }
    for value in NOT_A_LENGTH {
        let bytes = hello(&format!("Content-Length: {value}"));
        cases.push(case(format!("the length {value:?}"), LENGTH, bytes).refused(400));
    }
    cases
}

#[rustfmt::skip]
fn written_out() -> Vec<Case> {
    vec![
        case("no length", FRAMING, "POST /a HTTP/1.1\r\nHost: a\r\n\r\n").sees("POST /a a 0"),
        case("the length 0", LENGTH, "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").sees("POST /a a 0"),
        case("no space before the length", LENGTH, hello("Content-Length:5")).sees("POST /a a 5 hello"),
        case("a length in capitals", LENGTH, hello("CONTENT-LENGTH: 5")).sees("POST /a a 5 hello"),
        case("a length that is said to be hop-by-hop", "RFC 9110 §7.6.1", hello("Content-Length: 5\r\nConnection: content-length")).sees("POST /a a 5 hello"),
        case("two lengths", FRAMING, hello("Content-Length: 5\r\nContent-Length: 6")).refused(400),
        case("two lengths, the second 0", FRAMING, hello("Content-Length: 5\r\nContent-Length: 0")).refused(400),
        case("the same length twice", FRAMING, hello("Content-Length: 5\r\nContent-Length: 5")).refused(400),
        case("the same length apart", FRAMING, hello("Content-Length: 5\r\nA: b\r\ncontent-length: 5")).refused(400),
        case("a length and one that is none", FRAMING, hello("Content-Length: 5\r\nContent-Length: x")).refused(400),
        case("a space before the colon", "RFC 9112 §5.1", hello("Content-Length : 5")).refused(400),
        case("a folded length", "RFC 9112 §5.2", hello("Content-Length:\r\n 5")).refused(400),
        case("a length after a NUL", LENGTH, hello("Content-Length: \x005")).refused(400),
        case("a length of 63 bits", LENGTH, hello("Content-Length: 9223372036854775807")).refused(413),
        // hyper's answer, and as good as another one.
        case("a length of 64 bits", LENGTH, hello("Content-Length: 18446744073709551615")).refused(431),
        case("a length past the limit", "RFC 9110 §15.5.14", hello("Content-Length: 1001")).refused(413),
        case("a length past the limit, and an expectation", "RFC 9110 §10.1.1", hello("Content-Length: 1001\r\nExpect: 100-continue")).refused(413),
        case("GET with a body", "RFC 9110 §9.3.1", "GET /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").sees("GET /a a 5 hello"),
        case("HEAD with a body", "RFC 9110 §9.3.2", "HEAD /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").sees("HEAD /a a 5 hello").bodiless(),
        case("DELETE with a body", "RFC 9110 §9.3.5", "DELETE /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").sees("DELETE /a a 5 hello"),
        case("OPTIONS with a body", "RFC 9110 §9.3.7", "OPTIONS /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").sees("OPTIONS /a a 5 hello"),
        case("a length in HTTP/1.0", FRAMING, "POST /a HTTP/1.0\r\nContent-Length: 5\r\nHost: a\r\n\r\nhello").sees("POST /a a 5 hello").closed(),
    ]
}

/// Codings that are not `chunked` and nothing else.
const NOT_CHUNKED: [&str; 24] = [
    "",
    "gzip",
    "identity",
    "gzip, chunked",
    "chunked, gzip",
    "chunked, identity",
    "identity, chunked",
    "chunked, chunked",
    "chunked,",
    ",chunked",
    ", chunked",
    "chunked;q=1",
    "chunked;",
    "\"chunked\"",
    "'chunked'",
    "xchunked",
    "chunkedx",
    "chunke",
    "chunked chunked",
    "chunked\tx",
    "ｃhunked",
    "chun\tked",
    "br",
    "trailers",
];

pub(super) fn codings() -> Vec<Case> {
    let mut cases = other_codings();
    for value in NOT_CHUNKED {
        let bytes = chunked(&format!("Transfer-Encoding: {value}"));
        cases.push(case(format!("the coding {value:?}"), CODING, bytes).refused(400));
    }
    cases
}

#[rustfmt::skip]
fn other_codings() -> Vec<Case> {
    vec![
        case("chunked", CODING, chunked("Transfer-Encoding: chunked")).sees("POST /a a 5 hello").without_field("transfer-encoding"),
        case("chunked in capitals", "RFC 9112 §7", chunked("TRANSFER-ENCODING: CHUNKED")).sees("POST /a a 5 hello"),
        case("chunked with spaces around it", CODING, chunked("Transfer-Encoding: \t chunked \t")).sees("POST /a a 5 hello"),
        case("GET with chunks", CODING, "GET /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n").sees("GET /a a 5 hello"),
        case("chunked twice", CODING, chunked("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked")).refused(400),
        case("chunked, and a second coding", CODING, chunked("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity")).refused(400),
        case("another coding, and chunked", CODING, chunked("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked")).refused(400),
        case("a space before the colon", "RFC 9112 §5.1", chunked("Transfer-Encoding : chunked")).refused(400),
        case("a tab before the colon", "RFC 9112 §5.1", chunked("Transfer-Encoding\t: chunked")).refused(400),
        case("a folded coding", "RFC 9112 §5.2", chunked("Transfer-Encoding:\r\n chunked")).refused(400),
        case("a coding folded to the field before", "RFC 9112 §5.2", chunked("A: b\r\n Transfer-Encoding: chunked")).refused(400),
        case("a coding after a bare LF", "RFC 9112 §2.2", chunked("A: b\nTransfer-Encoding: chunked")).refused(400),
        case("a coding after a bare CR", "RFC 9112 §2.2", chunked("A: b\rTransfer-Encoding: chunked")).refused(400),
        case("a coding with a NUL", CODING, chunked("Transfer-Encoding: chunked\0")).refused(400),
        case("a coding with a vertical tab", CODING, chunked("Transfer-Encoding: \x0bchunked")).refused(400),
        case("a coding with a byte beyond ASCII", CODING, [b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \xff\r\n\r\n".as_slice(), b"0\r\n\r\n"].concat()).refused(400),
        case("chunks and a length", FRAMING, chunked("Transfer-Encoding: chunked\r\nContent-Length: 5")).refused(400),
        case("a length and chunks", FRAMING, chunked("Content-Length: 5\r\nTransfer-Encoding: chunked")).refused(400),
        case("chunks and the length 0", FRAMING, chunked("Transfer-Encoding: chunked\r\nContent-Length: 0")).refused(400),
        case("chunks and a length far apart", FRAMING, chunked("Content-Length: 15\r\nA: b\r\nC: d\r\nTransfer-Encoding: chunked")).refused(400),
        case("another coding and a length", FRAMING, hello("Transfer-Encoding: identity\r\nContent-Length: 5")).refused(400),
        case("a coding that is none and a length", FRAMING, hello("Transfer-Encoding: xchunked\r\nContent-Length: 5")).refused(400),
        case("chunks that are said to be hop-by-hop", "RFC 9110 §7.6.1", chunked("Transfer-Encoding: chunked\r\nConnection: transfer-encoding")).sees("POST /a a 5 hello"),
        case("chunks in HTTP/1.0", CODING, "POST /a HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n").refused(400),
        case("chunks in HTTP/1.0 on a kept connection", CODING, "POST /a HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n").refused(400),
    ]
}
