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
