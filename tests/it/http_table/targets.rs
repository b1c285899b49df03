//! Request targets and hosts: RFC 9112 §3.2, RFC 9110 §4.2 and §7.2. A target that is valid reaches the guest as it was
//! sent: nothing is decoded, merged or resolved on the way.

use wrun_tests::http_table::{Case, case};

const ORIGIN: &str = "RFC 9112 §3.2.1";
const ABSOLUTE: &str = "RFC 9112 §3.2.2";
const ASTERISK: &str = "RFC 9112 §3.2.4";
const HOST: &str = "RFC 9110 §7.2";

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")
}

/// Targets that the guest sees byte by byte.
const KEPT: [&str; 26] = [
    "/",
    "/a?b=c",
    "/?",
    "/a?",
    "/??",
    "//",
    "//a",
    "/a//b",
    "/.",
    "/..",
    "/a/../b",
    "/a/./b",
    "/%2e%2e/%2F",
    "/%2E%2e",
    "/%00",
    "/%0d%0aX:%20y",
    "/a%20b",
    "/a+b",
    "/a;b=c",
    "/~u/-._",
    "/a:b@c",
    "/a!$&'()*,=",
    "/?a=b&a=c&&",
    "/?/?:@",
    "/a%ff",
    "/a?b=%",
];

/// Targets that are none.
const NONE: [&str; 21] = [
    "a",
    "a/b",
    "?a",
    "a:80",
    "*",
    "\\a",
    "",
    "/a#b",
    "/a?b#c",
    "/#",
    "/a b",
    "/a\tb",
    "/a\u{1}b",
    "/a\u{7f}b",
    "/<a>",
    "/a`b",
    "http:",
    "http://",
    "http:///a",
    "http:/a",
    "ftp://a/",
];

pub(super) fn cases() -> Vec<Case> {
    let mut cases = written_out();
    for target in KEPT {
        cases.push(
            case(format!("the target {target}"), ORIGIN, get(target))
                .sees(format!("GET {target} a 0")),
        );
    }
    for target in NONE {
        cases.push(
            case(
                format!("the target {target:?}"),
                "RFC 9112 §3.2",
                get(target),
            )
            .refused(400),
        );
    }
    // The request line and the fields have 32 KiB together.
    for (length, status) in [(8192, 200), (8193, 414), (20_000, 414), (40_000, 431)] {
        let target = format!("/{}", "a".repeat(length - 1));
        let one = case(
            format!("a target of {length} bytes"),
            "RFC 9112 §3",
            get(&target),
        );
        cases.push(match status {
            200 => one.sees(format!("GET {}..{length} a 0", &target[..60])),
            _ => one.refused(status),
        });
    }
    cases
}

#[rustfmt::skip]
fn written_out() -> Vec<Case> {
    vec![
        case("a target beyond ASCII", ORIGIN, "GET /é HTTP/1.1\r\nHost: a\r\n\r\n").refused(400),
        case("a target that is no UTF-8", ORIGIN, b"GET /\xe9 HTTP/1.1\r\nHost: a\r\n\r\n").refused(400),
        case("an asterisk for the server", ASTERISK, "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").sees("OPTIONS * a 0"),
        case("two asterisks", ASTERISK, "OPTIONS ** HTTP/1.1\r\nHost: a\r\n\r\n").refused(400),
        case("an asterisk with a query", ASTERISK, "OPTIONS *?a HTTP/1.1\r\nHost: a\r\n\r\n").refused(400),
        case("an asterisk after POST", ASTERISK, "POST * HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").refused(400),
        case("an absolute target", ABSOLUTE, get("http://a/b?c")).sees("GET /b?c a 0"),
        case("an absolute target of another host", ABSOLUTE, get("http://b:81/c")).sees("GET /c b:81 0").without_field("host: a"),
        case("a scheme in capitals", "RFC 9110 §4.2.3", get("HTTP://a/b")).sees("GET /b a 0"),
        case("an absolute target of HTTPS", "RFC 9110 §4.2.2", get("https://a/b")).sees("GET /b a 0"),
        case("an absolute target without a path", ABSOLUTE, get("http://a")).sees("GET / a 0"),
        case("an absolute target with a query alone", ABSOLUTE, get("http://a?b")).sees("GET /?b a 0"),
        case("an absolute target with a fragment", ABSOLUTE, get("http://a/b#c")).refused(400),
        case("an absolute target with a user", "RFC 9110 §4.2.4", get("http://user@a/")).refused(400),
        case("an absolute target with a user and a password", "RFC 9110 §4.2.4", get("http://a:b@c/")).refused(400),
        case("an absolute target whose port is too large", "RFC 9110 §4.2", get("http://a:65536/")).refused(400),
        case("an absolute target whose port is a name", "RFC 9110 §4.2", get("http://a:http/")).refused(400),
        case("an absolute target without a host field", HOST, "GET http://a/ HTTP/1.1\r\n\r\n").refused(400),
        case("an absolute target and a broken host field", HOST, "GET http://a/ HTTP/1.1\r\nHost: b c\r\n\r\n").refused(400),
        case("an absolute target and two host fields", HOST, "GET http://a/ HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n").refused(400),
        case("an absolute target in HTTP/1.0", ABSOLUTE, "GET http://a/b HTTP/1.0\r\n\r\n").sees("GET /b a 0").closed(),
    ]
}

/// Hosts that the guest sees as they are.
const HOSTS: [&str; 16] = [
    "a",
    "a.example",
    "A.Example",
    "a:80",
    "a:080",
    "a:0",
    "a.example.",
    "127.0.0.1",
    "127.0.0.1:8080",
    "[::1]",
    "[::1]:80",
    "xn--bcher-kva.example",
    "under_score",
    "-a",
    "a~b",
    "a;b",
];

/// Hosts that are none.
const NO_HOSTS: [&str; 27] = [
    "", "user@a", "a:b@c", "a/b", "a\\b", "a?b", "a#b", "http://a", "a, b", "a,b", "a b", "a\tb",
    "a:http", "a:65536", "a:-1", "a:+1", "a:8 0", "a:b:c", "::1", "[::1", "::1]", "[::1]x", "[]",
    "a%41", "a<b", "\"a\"", ":80",
];

pub(super) fn hosts() -> Vec<Case> {
    let mut cases = other_hosts();
    for host in HOSTS {
        let bytes = format!("GET /b HTTP/1.1\r\nHost: {host}\r\n\r\n");
        cases.push(case(format!("the host {host}"), HOST, bytes).sees(format!("GET /b {host} 0")));
    }
    for host in NO_HOSTS {
        let bytes = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        cases.push(case(format!("the host {host:?}"), HOST, bytes).refused(400));
    }
    cases
}

#[rustfmt::skip]
fn other_hosts() -> Vec<Case> {
    vec![
        case("no host", HOST, "GET / HTTP/1.1\r\n\r\n").refused(400),
        case("two hosts", HOST, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").refused(400),
        case("the same host twice", HOST, "GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n").refused(400),
        case("two hosts in HTTP/1.0", HOST, "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n").refused(400),
        case("a host beyond ASCII", HOST, "GET / HTTP/1.1\r\nHost: é\r\n\r\n").refused(400),
        case("a host that is no UTF-8", HOST, b"GET / HTTP/1.1\r\nHost: \xe9\r\n\r\n").refused(400),
        case("a host in capitals", "RFC 9110 §5.1", "GET /b HTTP/1.1\r\nHOST: a\r\n\r\n").sees("GET /b a 0"),
        case("a host after other fields", "RFC 9110 §7.2", "GET /b HTTP/1.1\r\nA: b\r\nHost: a\r\n\r\n").sees("GET /b a 0"),
        case("spaces around the host", "RFC 9112 §5.1", "GET /b HTTP/1.1\r\nHost: \t a \t\r\n\r\n").sees("GET /b a 0"),
        case("no space before the host", "RFC 9112 §5.1", "GET /b HTTP/1.1\r\nHost:a\r\n\r\n").sees("GET /b a 0"),
        case("a host that is said to be hop-by-hop", "RFC 9110 §7.6.1", "GET /b HTTP/1.1\r\nHost: a\r\nConnection: host\r\n\r\n").sees("GET /b a 0"),
        case("a host in HTTP/1.0", HOST, "GET /b HTTP/1.0\r\nHost: a\r\n\r\n").sees("GET /b a 0").closed(),
    ]
}
