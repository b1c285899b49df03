//! Fields: RFC 9112 §5, RFC 9110 §5 and §7.6.1, and how many and how long they may be.

use wrun_tests::http_table::{Case, case};

const SYNTAX: &str = "RFC 9112 §5";
const NAME: &str = "RFC 9110 §5.1";
const VALUE: &str = "RFC 9110 §5.5";
const LF: &str = "RFC 9112 §2.2";
const FOLDED: &str = "RFC 9112 §5.2";
const HOP: &str = "RFC 9110 §7.6.1";
const LARGE: &str = "RFC 6585 §5";

/// Returns a request with these fields.
fn with(fields: impl AsRef<[u8]>) -> Vec<u8> {
    [
        b"GET /a HTTP/1.1\r\nHost: a\r\n",
        fields.as_ref(),
        b"\r\n\r\n",
    ]
    .concat()
}

/// Bytes that no field name has, in the middle of one.
const NOT_IN_NAMES: &[u8] = b" \t()<>@,;\\\"/[]?={}\0\x01\x7f\x80\xff";

/// Bytes that no field value has.
const NOT_IN_VALUES: &[u8] = &[0, 1, 7, 8, 0x0b, 0x0c, 0x1b, 0x1f, 0x7f];

pub(super) fn cases() -> Vec<Case> {
    let mut cases = [kept(), broken(), of_the_connection()].concat();
    for byte in NOT_IN_NAMES {
        let fields = [b"X", &[*byte][..], b"Y: z"].concat();
        cases.push(
            case(
                format!("a name with the byte {byte:#04x}"),
                NAME,
                with(fields),
            )
            .refused(400),
        );
    }
    for byte in NOT_IN_VALUES {
        let fields = [b"X: y", &[*byte][..], b"z"].concat();
        cases.push(
            case(
                format!("a value with the byte {byte:#04x}"),
                VALUE,
                with(fields),
            )
            .refused(400),
        );
    }
    // With the host there are 100 and 101.
    cases.push(
        case(
            "as many fields as there may be",
            LARGE,
            with(vec!["X: y"; 99].join("\r\n")),
        )
        .sees("GET /a a 0"),
    );
    cases.push(
        case(
            "one field more",
            LARGE,
            with(vec!["X: y"; 100].join("\r\n")),
        )
        .refused(431),
    );
    cases.push(
        case(
            "a field of 16 KiB",
            LARGE,
            with(format!("X: {}", "y".repeat(16 << 10))),
        )
        .sees("GET /a a 0"),
    );
    cases.push(
        case(
            "a field of 33 KiB",
            LARGE,
            with(format!("X: {}", "y".repeat(33 << 10))),
        )
        .refused(431),
    );
    cases.push(
        case(
            "a name of 33 KiB",
            LARGE,
            with(format!("{}: y", "X".repeat(33 << 10))),
        )
        .refused(431),
    );
    cases
}

#[rustfmt::skip]
fn kept() -> Vec<Case> {
    vec![
        case("a field", SYNTAX, with("X: y")).sees("GET /a a 0").with_field("x: y"),
        case("a name in mixed case", NAME, with("X-Ab: Cd")).sees("GET /a a 0").with_field("x-ab: Cd"),
        case("a name of every kind of byte", NAME, with("X!#$%&'*+-.^_`|~09: y")).sees("GET /a a 0").with_field("x!#$%&'*+-.^_`|~09: y"),
        case("an empty value", VALUE, with("X:")).sees("GET /a a 0").with_field("x: "),
        case("a value of spaces", VALUE, with("X:  \t ")).sees("GET /a a 0").with_field("x: "),
        case("spaces around a value", SYNTAX, with("X: \t y \t")).sees("GET /a a 0").with_field("x: y"),
        case("a tab in a value", VALUE, with("X: y\tz")).sees("GET /a a 0").with_field("x: y\\tz"),
        case("spaces in a value", VALUE, with("X: y  z")).sees("GET /a a 0").with_field("x: y  z"),
        case("a colon in a value", VALUE, with("X: y: z")).sees("GET /a a 0").with_field("x: y: z"),
        case("bytes beyond ASCII in a value", VALUE, with(b"X: \x80\xe9\xff")).sees("GET /a a 0").with_field("x: \\x80\\xe9\\xff"),
        case("a field twice", "RFC 9110 §5.3", with("X: y\r\nX: z")).sees("GET /a a 0").with_field("x: y").with_field("x: z"),
        case("a cookie", "RFC 6265 §5.4", with("Cookie: a=b; c=d")).sees("GET /a a 0").with_field("cookie: a=b; c=d"),
        case("a length with an underscore", NAME, with("Content_Length: 7")).sees("GET /a a 0").with_field("content_length: 7"),
        case("a coding with an underscore", NAME, with("Transfer_Encoding: chunked")).sees("GET /a a 0"),
        case("a coding of another name", NAME, with("X-Transfer-Encoding: chunked")).sees("GET /a a 0"),
        case("a length of another name", NAME, with("Content-Lengthy: 7")).sees("GET /a a 0"),
        case("an address that a proxy adds", "RFC 7239", with("X-Forwarded-For: 1.2.3.4")).sees("GET /a a 0").with_field("x-forwarded-for: 1.2.3.4"),
        case("a field that looks like one of HTTP/2", NAME, with("X: y\r\n:method: DELETE")).refused(400),
    ]
}

#[rustfmt::skip]
fn broken() -> Vec<Case> {
    vec![
        case("a bare LF after a field", LF, with("X: y\nZ: z")).refused(400),
        case("a bare LF after the last field", LF, "GET / HTTP/1.1\r\nHost: a\n\r\n").refused(400),
        case("a bare LF for the empty line", LF, "GET / HTTP/1.1\r\nHost: a\r\n\n").refused(400),
        case("bare LFs alone", LF, "GET / HTTP/1.1\nHost: a\n\n").refused(400),
        case("LF and CR in the wrong order", LF, "GET / HTTP/1.1\r\nHost: a\n\r\n\r").refused(400),
        case("a bare CR in a value", LF, with("X: y\rz")).refused(400),
        case("a bare CR in a name", LF, with("X\rY: z")).refused(400),
        case("a bare CR before a field", LF, with("\rX: y")).refused(400),
        case("a bare CR after a field", LF, with("X: y\rZ: z")).refused(400),
        case("two CR after a field", LF, with("X: y\r")).refused(400),
        case("a field folded by a space", FOLDED, with("X: y\r\n z")).refused(400),
        case("a field folded by a tab", FOLDED, with("X: y\r\n\tz")).refused(400),
        case("a field folded to its name", FOLDED, with("X:\r\n y")).refused(400),
        case("a folded host", FOLDED, "GET / HTTP/1.1\r\nHost:\r\n a\r\n\r\n").refused(400),
        case("a line of spaces", FOLDED, with("X: y\r\n  ")).refused(400),
        case("a space before the first field", SYNTAX, "GET / HTTP/1.1\r\n X: y\r\nHost: a\r\n\r\n").refused(400),
        case("a tab before the first field", SYNTAX, "GET / HTTP/1.1\r\n\tHost: a\r\n\r\n").refused(400),
        case("a space before the colon", SYNTAX, with("X : y")).refused(400),
        case("a tab before the colon", SYNTAX, with("X\t: y")).refused(400),
        case("a space before the colon of the host", SYNTAX, "GET / HTTP/1.1\r\nHost : a\r\n\r\n").refused(400),
        case("no name", SYNTAX, with(": y")).refused(400),
        case("no colon", SYNTAX, with("X")).refused(400),
        case("a colon alone", SYNTAX, with(":")).refused(400),
        case("a second request line", SYNTAX, with("GET /b HTTP/1.1")).refused(400),
        case("a byte order mark", SYNTAX, with(b"\xef\xbb\xbfX: y")).refused(400),
    ]
}

#[rustfmt::skip]
fn of_the_connection() -> Vec<Case> {
    vec![
        case("Connection", HOP, with("Connection: keep-alive")).sees("GET /a a 0").without_field("connection"),
        case("Keep-Alive", HOP, with("Keep-Alive: timeout=5")).sees("GET /a a 0").without_field("keep-alive"),
        case("Proxy-Connection", HOP, with("Proxy-Connection: close")).sees("GET /a a 0").without_field("proxy-connection"),
        case("TE", "RFC 9110 §10.1.4", with("Connection: te\r\nTE: trailers")).sees("GET /a a 0").without_field("te"),
        case("Trailer", "RFC 9110 §6.6.2", with("Trailer: x")).sees("GET /a a 0").without_field("trailer"),
        case("Upgrade", "RFC 9110 §7.8", with("Connection: upgrade\r\nUpgrade: websocket")).sees("GET /a a 0").without_field("upgrade"),
        case("HTTP/2 by upgrade", "RFC 9113 §3.1", with("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__")).sees("GET /a a 0").without_field("upgrade").without_field("http2-settings"),
        case("a field named in Connection", HOP, with("Connection: x-one, X-Two\r\nX-One: 1\r\nX-Two: 2\r\nX-Three: 3")).sees("GET /a a 0").without_field("x-one").without_field("x-two").with_field("x-three: 3"),
        case("fields named in two Connection fields", HOP, with("Connection: x-one\r\nConnection: x-two\r\nX-One: 1\r\nX-Two: 2")).sees("GET /a a 0").without_field("x-one").without_field("x-two"),
        case("a Connection of commas", HOP, with("Connection: , ,,\r\nX: y")).sees("GET /a a 0").with_field("x: y"),
    ]
}
