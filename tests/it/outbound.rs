//! Requests that guests send: none unless granted, and then only to the place that was.

use crate::serve;
use std::net::TcpListener;
use wrun_tests::upstream::Upstream;
use wrun_tests::{Launch, Response};

fn fetch(launch: Launch, url: &str) -> Response {
    launch.start().get(&format!("/?url={url}"))
}

#[test]
fn outbound_request_is_denied_unless_granted() {
    let upstream = Upstream::start();
    let answer = fetch(serve("http_fetch"), &upstream.url()).ok();
    assert!(
        answer.starts_with("error ErrorCode::HttpRequestDenied"),
        "{answer}"
    );
    assert_eq!(upstream.requests(), 0);
}

#[test]
fn granted_outbound_request_is_sent() {
    let upstream = Upstream::start();
    let launch = serve("http_fetch").flag("--allow-outbound", upstream.url());
    assert_eq!(
        fetch(launch, &format!("{}/a/path", upstream.url())).ok(),
        "200 you asked for /a/path\n"
    );
}

#[test]
fn grant_holds_for_its_scheme_host_and_port_only() {
    let (granted, other) = (Upstream::start(), Upstream::start());
    let server = serve("http_fetch")
        .flag("--allow-outbound", granted.url())
        .start();
    let port = granted.port();
    for url in [
        other.url(),
        format!("https://127.0.0.1:{port}"),
        format!("http://localhost:{port}"),
        format!("http://127.0.0.2:{port}"),
        format!("http://0.0.0.0:{port}"),
        format!("http://[::ffff:127.0.0.1]:{port}"),
        format!("http://2130706433:{port}"),
        format!("http://0x7f.1:{port}"),
    ] {
        let answer = server.get(&format!("/?url={url}")).ok();
        assert!(answer.starts_with("error ErrorCode::"), "{url}: {answer}");
    }
    assert_eq!((granted.requests(), other.requests()), (0, 0));
    assert!(
        server
            .get(&format!("/?url={}", granted.url()))
            .ok()
            .starts_with("200 ")
    );
}

#[test]
fn redirect_is_not_followed() {
    let upstream = Upstream::start();
    let launch = serve("http_fetch").flag("--allow-outbound", upstream.url());
    let answer = fetch(launch, &format!("{}/elsewhere", upstream.url())).ok();
    assert_eq!(answer, "302 you asked for /elsewhere\n");
    assert_eq!(upstream.requests(), 1);
}

#[test]
fn server_that_is_not_there_is_an_error_for_the_guest() {
    let launch = serve("http_fetch").flag("--allow-outbound", "http://127.0.0.1:1");
    let answer = fetch(launch, "http://127.0.0.1:1/").ok();
    assert!(answer.starts_with("error ErrorCode::"), "{answer}");
    assert!(!answer.contains("Denied"), "{answer}");
}

#[test]
fn outbound_requests_past_their_number_are_denied() {
    let upstream = Upstream::start();
    let launch = serve("http_fetch")
        .flag("--allow-outbound", upstream.url())
        .flag("--outbound-requests", "0");
    let answer = fetch(launch, &upstream.url()).ok();
    assert!(answer.starts_with("error ErrorCode::"), "{answer}");
    assert_eq!(upstream.requests(), 0);
}

#[test]
fn grant_in_the_manifest_counts() {
    let upstream = Upstream::start();
    let folder = wrun_tests::folder();
    let path = folder.path().join("wrun.toml");
    let guest = wrun_tests::guests::guest("http_fetch");
    let text = format!(
        "component = \"{}\"\n[outbound]\nallow = [\"{}\"]\n",
        guest.display(),
        upstream.url()
    );
    std::fs::write(&path, text).unwrap();
    assert!(
        fetch(crate::wrun().serve(&path), &upstream.url())
            .ok()
            .starts_with("200 ")
    );
}

#[test]
fn guest_may_ask_its_own_server_if_granted() {
    // There is one worker, and its event loop must not wait for itself.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let launch = serve("http_fetch")
        .without_addr()
        .inherits(listener)
        .flag("--allow-outbound", &url);
    // The inner guest is not told what to fetch, so it traps.
    let answer = fetch(launch, &url).ok();
    assert!(answer.starts_with("500 "), "{answer}");
}

/// Has a guest of a server with these flags send a request to `upstream`, and returns what it was told. The server goes on
/// with the same worker.
#[track_caller]
fn told(upstream: &Upstream, flags: &[(&str, &str)], request: &str) -> String {
    let mut launch = serve("attack_outbound").flag("--allow-outbound", upstream.url());
    for (flag, value) in flags {
        launch = launch.flag(flag, value);
    }
    let server = launch.start();
    let worker = server.worker().pid;
    let to = format!("127.0.0.1:{}", upstream.port());
    let answer = server.get(&format!("/send?authority={to}&{request}")).ok();
    let next = server.get(&format!("/send?authority={to}&path=/next")).ok();
    assert!(next.starts_with("answer 200 "), "after {request}: {next}");
    assert_eq!(server.worker().pid, worker, "{request}");
    answer
}

#[test]
fn fields_of_a_request_past_their_limits_are_an_error_and_nothing_is_sent() {
    for (flag, value, request) in [
        ("--outbound-header-bytes", "8KiB", "fields=9&size=1000"),
        ("--outbound-headers", "8", "fields=9&size=1"),
    ] {
        let upstream = Upstream::start();
        let answer = told(&upstream, &[(flag, value)], request);
        assert!(
            answer.contains("HttpRequestHeaderSectionSize"),
            "{flag}: {answer}"
        );
        assert_eq!(upstream.requests(), 1, "{flag}: the next one only");
        let answer = told(&upstream, &[], request);
        assert!(
            answer.starts_with("answer 200 "),
            "without {flag}: {answer}"
        );
    }
}

#[test]
fn fields_of_an_answer_past_their_limits_are_an_error() {
    let upstream = Upstream::start();
    for path in ["/many-fields", "/long-field"] {
        let answer = told(&upstream, &[], &format!("path={path}"));
        assert!(
            answer.contains("HttpResponseHeaderSectionSize"),
            "{path}: {answer}"
        );
    }
}

#[test]
fn bodies_past_their_limits_are_an_error_of_their_own() {
    let upstream = Upstream::start();
    let flags = [
        ("--outbound-request-body", "64KiB"),
        ("--outbound-response-body", "64KiB"),
    ];
    let answer = told(&upstream, &flags, "path=/take&upload=65536");
    assert!(answer.starts_with("answer 200 "), "{answer}");
    let answer = told(&upstream, &flags, "path=/take&upload=65537");
    assert!(answer.contains("HttpRequestBodySize"), "{answer}");
    let answer = told(&upstream, &flags, "path=/forever");
    assert!(answer.contains("HTTP response body size"), "{answer}");
}

#[test]
fn server_that_is_slow_in_any_way_is_an_error_of_its_own() {
    let upstream = Upstream::start();
    // While a guest of 0.2 reads a body, it is told the text of an error alone.
    for (flag, path, error) in [
        ("--outbound-first-byte", "/silent", "HttpResponseTimeout"),
        ("--outbound-timeout", "/silent", "HttpResponseTimeout"),
        (
            "--outbound-between-bytes",
            "/stall",
            "connection read timeout",
        ),
        ("--outbound-timeout", "/stall", "HTTP response timeout"),
        ("--outbound-timeout", "/drip", "HTTP response timeout"),
        ("--outbound-timeout", "/forever", "HTTP response timeout"),
    ] {
        let answer = told(&upstream, &[(flag, "300ms")], &format!("path={path}"));
        assert!(answer.contains(error), "{flag} {path}: {answer}");
    }
}

#[test]
fn server_that_takes_connections_and_says_nothing_is_a_connection_that_took_too_long() {
    // The kernel takes connections for it; TLS never begins.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let server = serve("attack_outbound")
        .flag("--allow-outbound", format!("https://{to}"))
        .flag("--outbound-connect", "300ms")
        .start();
    let answer = server
        .get(&format!("/send?scheme=https&authority={to}"))
        .ok();
    assert!(answer.contains("ConnectionTimeout"), "{answer}");
}

#[test]
fn requests_past_those_that_a_worker_may_have_under_way_fail_and_a_place_is_free_again() {
    let upstream = Upstream::start();
    let server = serve("attack_outbound")
        .flag("--allow-outbound", upstream.url())
        .flag("--outbound-parallel", "5")
        .start();
    let path = format!("/many?count=20&authority=127.0.0.1:{}", upstream.port());
    for _ in 0..2 {
        assert_eq!(server.get(&path).ok(), "answered 5 of 20\n");
    }
    assert_eq!(upstream.requests(), 10);
}
