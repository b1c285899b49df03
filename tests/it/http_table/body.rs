//! Bodies that hold requests: a body is a body, whatever it looks like.

use wrun_tests::http_table::{Case, case};

const FRAMING: &str = "RFC 9112 §6.3";

/// A request that must never be taken for one.
const INNER: &str = "GET /inner HTTP/1.1\r\nHost: inner\r\n\r\n";

fn with_length(method: &str, body: &str) -> String {
    let length = body.len();
    format!("{method} /a HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// Returns what the guest sees of a body.
fn sees(method: &str, body: &str) -> String {
    let shown: String = body.chars().take(60).collect();
    let line = format!("{method} /a a {} {shown}", body.len());
    line.trim_end().escape_default().to_string()
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = written_out();
    for method in ["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PURGE"] {
        let bytes = with_length(method, INNER);
        cases.push(
            case(format!("a request in the body of {method}"), FRAMING, bytes)
                .sees(sees(method, INNER)),
        );
    }
    for body in [
        "\r\n\r\n",
        "\n\n",
        "0\r\n\r\n",
        "\0\0\0",
        "\r",
        "HTTP/1.1 200 OK\r\n\r\n",
    ] {
        cases.push(
            case(
                format!("the body {body:?}"),
                FRAMING,
                with_length("POST", body),
            )
            .sees(sees("POST", body)),
        );
    }
    cases
}

#[rustfmt::skip]
fn written_out() -> Vec<Case> {
    let chunk = format!("{:x}\r\n{INNER}\r\n0\r\n\r\n", INNER.len());
    let head = "POST /a HTTP/1.1\r\nHost: a\r\n";
    vec![
        case("a request in a chunk", "RFC 9112 §7.1", format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunk}")).sees(sees("POST", INNER)),
        case("a request in the trailers", "RFC 9112 §7.1.2", format!("{head}Transfer-Encoding: chunked\r\n\r\n0\r\n{INNER}")).refused(400),
        case("CL.TE", FRAMING, format!("{head}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{INNER}")).refused(400),
        case("TE.CL", FRAMING, format!("{head}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n{chunk}")).refused(400),
        case("TE.TE", "RFC 9112 §6.1", format!("{head}Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n{chunk}")).refused(400),
        case("TE.TE with a space", "RFC 9112 §6.1", format!("{head}Transfer-Encoding: chunked\r\nTransfer-Encoding : x\r\n\r\n{chunk}")).refused(400),
        case("CL.CL", FRAMING, format!("{head}Content-Length: 0\r\nContent-Length: {}\r\n\r\n{INNER}", INNER.len())).refused(400),
        case("CL.0 on an asterisk", FRAMING, with_length("OPTIONS", INNER).replace("/a", "*")).sees(sees("OPTIONS", INNER).replace("/a", "*")),
        case("a chunk after a body with a length", FRAMING, format!("{}0\r\n\r\n", with_length("POST", "hello"))).sees("POST /a a 5 hello").then_refused(400),
        case("a byte after a body with a length", FRAMING, format!("{}\0", with_length("POST", "hello"))).sees("POST /a a 5 hello").then_refused(400),
        case("an empty line after a body with a length", "RFC 9112 §2.2", format!("{}\r\n", with_length("POST", "hello"))).sees("POST /a a 5 hello"),
        case("a refused request with a body that is one", FRAMING, format!("TRACE / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{INNER}", INNER.len())).refused(405),
    ]
}
