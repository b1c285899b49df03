//! What becomes of a guest's answer, be it right, wrong, or never given.

use crate::serve;
use wrun_tests::{Http2, Response, Server};

/// Checks that the server's only worker is the one that it was, and that it answers.
fn assert_unharmed(server: &Server, pid: i32) {
    let worker = server.worker();
    assert_eq!((worker.pid, worker.restarts), (pid, 0));
    assert_eq!(server.get("/no-fault").status, 404);
}

#[test]
fn guest_that_ends_without_an_answer_is_500_and_harms_nobody() {
    let server = serve("http_trap").start();
    let pid = server.worker().pid;
    for target in ["/before", "/exit", "/silent", "/panic"] {
        let response = server.get(target);
        assert_eq!(response.status, 500, "{target}");
        assert!(response.header("x-request-id").is_some(), "{target}");
        assert_unharmed(&server, pid);
    }
}

#[test]
fn guest_of_0_3_that_ends_without_an_answer_is_500_and_harms_nobody() {
    let server = serve("service_trap").start();
    for target in ["/before", "/panic", "/error"] {
        assert_eq!(server.get(target).status, 500, "{target}");
        assert_eq!(server.get("/no-fault").status, 200);
    }
    assert_eq!(server.worker().restarts, 0);
}

#[test]
fn log_says_why_there_was_no_answer() {
    let server = serve("http_trap").start();
    for (target, why) in [
        ("/before", "guest trapped"),
        ("/silent", "guest never set a response"),
    ] {
        let response = server.get(target);
        let id = response.header("x-request-id").unwrap().to_owned();
        let event = server.log().event(why, |event| {
            event["request_id"] == id.as_str() && event.to_string().contains(why)
        });
        assert!(
            matches!(event["level"].as_str(), Some("WARN" | "ERROR")),
            "{event}"
        );
    }
}

#[test]
fn connection_is_kept_after_a_500() {
    let server = serve("http_trap").start();
    let mut connection = server.connect();
    assert_eq!(connection.get("/before").status, 500);
    assert_eq!(connection.get("/no-fault").status, 404);
}

#[test]
fn trap_after_the_headers_breaks_the_answer_off() {
    for (guest, target) in [
        ("http_trap", "/headers"),
        ("service_trap", "/body"),
        ("service_trap", "/body-error"),
    ] {
        let server = serve(guest).start();
        let mut connection = server.connect();
        connection.send_head("GET", target, &[]);
        assert_broken_off(connection.try_response(), &format!("{guest} {target}"));
        let mut http2 = Http2::connect(server.addr());
        assert_broken_off(
            http2.exchange("GET", target, &[], &[]),
            &format!("{guest} {target} over HTTP/2"),
        );
        assert_ne!(
            http2.get("/no-fault").status,
            500,
            "other streams of the connection go on"
        );
        assert_eq!(server.worker().restarts, 0);
    }
}

/// Checks that an answer does not look whole, unless its head was still held back: then it can be an error.
fn assert_broken_off<E: std::fmt::Debug>(answer: Result<Response, E>, what: &str) {
    if let Ok(response) = answer {
        assert_eq!(response.status, 500, "{what}: {response:?}");
    }
}

#[test]
fn body_that_is_not_as_long_as_it_said_never_looks_whole() {
    let server = serve("http_response").start();
    for target in ["/content-length-short", "/content-length-long"] {
        let mut connection = server.connect();
        connection.send_head("GET", target, &[]);
        // Too late for a 502 only if the head was already sent.
        if let Ok(response) = connection.try_response() {
            assert_eq!(response.status, 502, "{target}: {response:?}");
            if !response.closes() {
                assert_eq!(
                    connection.get("/cookies").ok(),
                    "cookies\n",
                    "{target}: the connection is in step"
                );
            }
        }
    }
    assert_eq!(server.worker().restarts, 0);
}

#[test]
fn head_has_the_headers_and_no_body() {
    let server = serve("http_response").start();
    let mut connection = server.connect();
    let response = connection.exchange("HEAD", "/content-length-wrong-on-head", &[], &[]);
    assert_eq!(
        (response.status, response.header("content-length")),
        (200, Some("10"))
    );
    let response = connection.exchange("HEAD", "/trailers", &[], &[]);
    assert_eq!(response.status, 200);
    assert_eq!(
        connection.get("/cookies").ok(),
        "cookies\n",
        "the connection is in step"
    );
}

#[test]
fn header_of_the_connection_cannot_be_set_by_a_guest() {
    let server = serve("http_response").start();
    let verdicts = server.get("/hop").ok();
    assert!(!verdicts.contains("accepted"), "{verdicts}");
}

#[test]
fn status_without_a_body_has_none() {
    let server = serve("http_response").start();
    let mut connection = server.connect();
    let response = connection.get("/204-with-body");
    if response.status == 204 {
        assert_eq!(
            (
                response.header("content-length"),
                response.header("transfer-encoding")
            ),
            (None, None)
        );
        assert_eq!(
            connection.get("/cookies").ok(),
            "cookies\n",
            "the connection is in step"
        );
    } else {
        assert_eq!(response.status, 502, "{response:?}");
    }
}

#[test]
fn informational_status_is_not_an_answer() {
    let server = serve("http_response").start();
    for code in [100, 101, 199] {
        let response = server.get(&format!("/status?code={code}"));
        let refused = response.status == 200 && response.text() == format!("refused {code}\n");
        assert!(refused || response.status == 502, "{response:?}");
    }
}

#[test]
fn every_final_status_reaches_the_client() {
    let server = serve("http_response").start();
    for code in [200, 201, 299, 301, 404, 418, 451, 500, 503, 599] {
        let response = server.get(&format!("/status?code={code}"));
        assert_eq!(
            (response.status, response.text()),
            (code, format!("status {code}\n"))
        );
    }
}

#[test]
fn trailers_reach_the_client() {
    let server = serve("http_response").start();
    let expected = [("x-trailer".to_owned(), "yes".to_owned())];
    let response = server
        .connect()
        .exchange("GET", "/trailers", &[("te", "trailers")], &[]);
    assert_eq!(
        (response.text(), response.trailers.as_slice()),
        ("body\n".to_owned(), &expected[..])
    );
    let response = Http2::connect(server.addr()).get("/trailers");
    assert_eq!(
        (response.text(), response.trailers.as_slice()),
        ("body\n".to_owned(), &expected[..])
    );
}

#[test]
fn every_cookie_is_a_header_of_its_own() {
    let response = serve("http_response").start().get("/cookies");
    assert_eq!(
        response.all("set-cookie").collect::<Vec<_>>(),
        ["a=1; Path=/", "b=2; Path=/"]
    );
}

#[test]
fn head_of_an_answer_is_sent_before_the_body_is_there() {
    let server = serve("http_response").start();
    let mut connection = server.connect();
    connection.send_head("GET", "/late?ms=500", &[]);
    let head = connection.head().unwrap();
    assert_eq!(head.header("x-early"), Some("yes"));
    server.when_in_flight(1);
    let mut body = String::new();
    std::io::Read::read_to_string(&mut connection.body(&head).unwrap(), &mut body).unwrap();
    assert_eq!(body, "late\n");
}

#[test]
fn headers_without_measure_are_refused_and_harm_nobody() {
    let server = serve("http_response").start();
    for query in ["count=100000&size=100", "count=1&size=2000000"] {
        let response = server.get(&format!("/big-headers?{query}"));
        let refused = response.status == 200 && response.text().starts_with("refused");
        assert!(
            refused || matches!(response.status, 500 | 502),
            "{}",
            response.status
        );
    }
    let response = server.get("/big-headers?count=50&size=100");
    assert_eq!(
        response
            .headers
            .iter()
            .filter(|field| field.0.starts_with("x-big-"))
            .count(),
        50
    );
    assert_eq!(server.worker().restarts, 0);
}

#[test]
fn answer_has_a_date() {
    assert!(
        serve("http_hello")
            .start()
            .get("/")
            .header("date")
            .is_some()
    );
}
