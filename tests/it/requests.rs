//! What a guest sees of a request, and that it sees nothing else.

use crate::serve;
use wrun_tests::{Http2, Server};

/// The two guests that describe their request, and where.
const DESCRIBERS: [(&str, &str); 2] = [("http_echo", "/request"), ("service_request", "/request")];

#[test]
fn both_kinds_of_component_see_the_request_as_it_was_sent() {
    for (guest, path) in DESCRIBERS {
        let server = serve(guest).start();
        let target = format!("{path}?a=%20b&c=d");
        let headers = [("x-twice", "1"), ("X-Twice", "2"), ("accept", "text/plain")];
        let seen = server
            .connect()
            .exchange("GET", &target, &headers, &[])
            .ok();
        let (facts, fields) = seen.split_at(seen.find("path-with-query").unwrap());
        assert_eq!(
            facts, "method GET\nscheme http\nauthority test.example\n",
            "{guest}"
        );
        assert!(
            fields.starts_with(&format!("path-with-query {target}\n")),
            "{guest}: {seen}"
        );
        for line in ["x-twice: 1\n", "x-twice: 2\n", "accept: text/plain\n"] {
            assert!(
                fields.contains(line),
                "{guest}: {line:?} is missing: {seen}"
            );
        }
    }
}

#[test]
fn every_method_reaches_both_kinds_of_component() {
    for (guest, path) in DESCRIBERS {
        let server = serve(guest).start();
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PURGE"] {
            let seen = server.connect().exchange(method, path, &[], &[]).ok();
            assert!(
                seen.starts_with(&format!("method {method}\n")),
                "{guest}: {seen}"
            );
        }
    }
}

#[test]
fn both_kinds_of_component_get_the_body_and_send_it_back() {
    let body: Vec<u8> = (0..1_000_000_u32)
        .map(|number| (number % 251) as u8)
        .collect();
    for (guest, target) in [
        ("http_echo", "/"),
        ("service_echo", "/"),
        ("service_echo", "/direct"),
    ] {
        let server = serve(guest).start();
        let response = server.post(target, &body);
        assert_eq!(response.status, 200, "{guest} {target}");
        assert!(
            response.body == body,
            "{guest} {target} sent back something else"
        );
        assert_eq!(server.get(target).body.len(), 0, "{guest} {target}");
    }
}

/// Sends several requests in each of the ways that could reach one instance twice.
fn assert_fresh(server: &Server, expected: &str) {
    for _ in 0..3 {
        assert_eq!(
            server.get("/").ok(),
            expected,
            "each on a connection of its own"
        );
    }
    let mut kept = server.connect();
    for _ in 0..3 {
        assert_eq!(kept.get("/").ok(), expected, "on one connection");
    }
    kept.send("GET / HTTP/1.1\r\nhost: a\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(
        (kept.response().ok(), kept.response().ok()),
        (expected.to_owned(), expected.to_owned()),
        "pipelined"
    );
    let mut http2 = Http2::connect(server.addr());
    let both = [
        http2.start("GET", "/", &[], &[]).unwrap(),
        http2.start("GET", "/", &[], &[]).unwrap(),
    ];
    for pending in both {
        assert_eq!(
            http2.finish(pending).unwrap().ok(),
            expected,
            "as streams of one connection"
        );
    }
}

#[test]
fn static_and_memory_of_a_0_2_guest_never_survive_into_the_next_request() {
    assert_fresh(&serve("http_static").start(), "calls 1\nkept 1\ndirty 0\n");
}

#[test]
fn static_of_a_0_3_guest_never_survives_into_the_next_request() {
    assert_fresh(&serve("service_static").start(), "calls 1\n");
}

#[test]
fn guest_sees_only_the_environment_that_it_was_given() {
    let launch = serve("http_env")
        .flag("--env", "GREETING=a=b c")
        .flag("--env", "EMPTY=");
    let facts = launch
        .env("WRUN_TEST_SECRET", "hidden")
        .start()
        .get("/")
        .ok();
    let mut env: Vec<&str> = facts
        .lines()
        .filter(|line| line.starts_with("env "))
        .collect();
    env.sort_unstable();
    assert_eq!(env, ["env EMPTY=", "env GREETING=a=b c"]);
}

#[test]
fn guest_has_no_files_and_no_sockets() {
    let facts = serve("http_env").start().get("/").ok();
    assert!(facts.contains("preopens 0\n"), "{facts}");
    for attempt in [
        "open /etc/passwd",
        "connect 127.0.0.1:1",
        "listen 127.0.0.1:0",
        "resolve localhost",
    ] {
        assert!(facts.contains(&format!("{attempt}: ")), "{facts}");
        assert!(!facts.contains(&format!("{attempt}: ok")), "{facts}");
    }
}

#[test]
fn request_id_is_passed_on_to_the_guest_and_back() {
    let server = serve("http_request_id").start();
    let response = server
        .connect()
        .exchange("GET", "/", &[("x-request-id", "Abc-123_x.y~z")], &[]);
    assert_eq!(response.header("x-request-id"), Some("Abc-123_x.y~z"));
    assert_eq!(response.ok(), "Abc-123_x.y~z\n");
}

#[test]
fn request_without_an_id_gets_one_of_its_own() {
    let server = serve("http_request_id").start();
    let mut connection = server.connect();
    let mut ids: Vec<String> = (0..20)
        .map(|_| {
            let response = connection.get("/");
            let id = response
                .header("x-request-id")
                .expect("the answer has the id")
                .to_owned();
            assert_eq!(response.ok(), format!("{id}\n"), "the guest saw the same");
            id
        })
        .collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 20);
}

#[test]
fn request_id_that_is_no_token_is_replaced() {
    let server = serve("http_request_id").start();
    let long = "x".repeat(129);
    for given in ["two words", "quote\"", "a,b", "", &long] {
        let response = server
            .connect()
            .exchange("GET", "/", &[("x-request-id", given)], &[]);
        let id = response
            .header("x-request-id")
            .expect("the answer has an id")
            .to_owned();
        assert_ne!(id, given);
        assert!(!id.is_empty());
        assert_eq!(response.ok(), format!("{id}\n"));
    }
    let longest = "x".repeat(128);
    let response = server
        .connect()
        .exchange("GET", "/", &[("x-request-id", &longest)], &[]);
    assert_eq!(response.header("x-request-id"), Some(longest.as_str()));
}

#[test]
fn work_after_the_answer_of_a_0_3_guest_goes_on() {
    let server = serve("service_after").start();
    let response = server.get("/");
    let id = response
        .header("x-request-id")
        .expect("the answer has an id")
        .to_owned();
    assert_eq!(response.ok(), "answered\n");
    let event = server.log().event("the line after the answer", |event| {
        event["message"] == "after the answer"
    });
    assert_eq!(event["request_id"], id.as_str());
}
