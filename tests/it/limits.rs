//! What one request may use: memory, CPU, bodies, heads, and the answer past each.

use crate::serve;
use std::thread;
use wrun_tests::{Connection, Http2};

#[test]
fn guest_past_its_memory_is_refused_more_and_harms_nobody() {
    let server = serve("http_memory").flag("--memory", "32MiB").start();
    assert_eq!(server.get("/?mib=8").ok(), "8\n");
    let answer = server.get("/?mib=100").ok();
    let got: u32 = answer
        .trim_start_matches("refused at ")
        .trim_end()
        .parse()
        .expect("it was refused");
    assert!((8..32).contains(&got), "{answer}");
    assert_eq!(server.get("/?mib=8").ok(), "8\n");
    assert_eq!(server.worker().restarts, 0);
}

#[test]
fn memory_of_one_request_does_not_stay_with_the_worker() {
    let server = serve("http_memory")
        .flag("--timeout", "120s")
        .flag("--cpu", "120s")
        .start();
    server.get("/?mib=100").ok();
    let before = server.worker().rss_bytes;
    for _ in 0..20 {
        server.get("/?mib=100").ok();
    }
    let after = server.when("the heartbeat", wrun_tests::SOON, |workers| {
        workers[0].requests >= 21
    });
    assert!(
        after[0].rss_bytes < before + (64 << 20),
        "from {before} to {} bytes",
        after[0].rss_bytes
    );
}

#[test]
fn endless_recursion_is_500_and_harms_nobody() {
    let server = serve("http_recurse").start();
    assert_eq!(server.get("/").status, 500);
    assert_eq!(server.get("/").status, 500);
    assert_eq!(server.worker().restarts, 0);
}

#[test]
fn guest_past_its_cpu_time_is_504() {
    for guest in ["http_spin", "service_spin"] {
        let server = serve(guest).flag("--cpu", "300ms").start();
        let response = server.get("/");
        assert_eq!(response.status, 504, "{guest}");
        let id = response.header("x-request-id").unwrap().to_owned();
        server
            .log()
            .event("the reason", |event| event["request_id"] == id.as_str());
        assert_eq!(server.get("/?ms=1").ok(), "spun 1 ms\n");
        assert_eq!(server.worker().restarts, 0);
    }
}

#[test]
fn waiting_is_not_cpu_time() {
    let server = serve("http_sleep").flag("--cpu", "100ms").start();
    assert_eq!(server.get("/?ms=500").ok(), "slept 500 ms\n");
}

#[test]
fn guest_past_its_time_is_504() {
    for guest in ["http_sleep", "service_sleep"] {
        let server = serve(guest).flag("--timeout", "300ms").start();
        assert_eq!(server.get("/?ms=600000").status, 504, "{guest}");
        let response = Http2::connect(server.addr()).get("/?ms=600000");
        assert_eq!(response.status, 504, "{guest}");
        assert_eq!(server.get("/?ms=1").ok(), "slept 1 ms\n");
    }
}

#[test]
fn answer_past_its_time_is_broken_off() {
    let server = serve("http_response").flag("--timeout", "300ms").start();
    let mut connection = server.connect();
    connection.send_head("GET", "/late?ms=600000", &[]);
    connection
        .try_response()
        .expect_err("the body never ends well");
    server.when_in_flight(0);
}

#[test]
fn cpu_hog_does_not_keep_others_on_its_worker_waiting() {
    for guest in ["http_spin", "service_spin"] {
        let server = serve(guest).flag("--cpu", "6s").start();
        let mut hog = server.connect();
        hog.send_head("GET", "/", &[]);
        server.when_in_flight(1);
        for _ in 0..20 {
            assert_eq!(server.get("/?ms=0").ok(), "spun 0 ms\n");
        }
        assert_eq!(
            server.worker().in_flight,
            1,
            "{guest}: the hog is still at it"
        );
        assert_eq!(hog.response().status, 504);
    }
}

#[test]
fn several_hogs_share_a_worker_with_others() {
    let server = serve("http_spin").flag("--cpu", "2s").start();
    thread::scope(|scope| {
        let hogs: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| server.get("/").status))
            .collect();
        server.when("the hogs run", wrun_tests::SOON, |workers| {
            workers[0].in_flight >= 4
        });
        for _ in 0..10 {
            assert_eq!(server.get("/?ms=0").ok(), "spun 0 ms\n");
        }
        assert!(hogs.into_iter().all(|hog| hog.join().unwrap() == 504));
    });
}

#[test]
fn request_body_past_its_limit_is_413_before_the_guest_runs() {
    let server = serve("http_sink").flag("--request-body", "1000B").start();
    assert_eq!(server.post("/", &[b'x'; 1000]).ok(), "1000\n");
    let mut connection = server.connect();
    // None of the body is sent, so only the declared length can be the reason.
    connection.send_head("POST", "/", &[("content-length", "1001")]);
    assert_eq!(connection.response().status, 413);
    let mut connection = server.connect();
    connection.send_head(
        "POST",
        "/",
        &[("content-length", "1001"), ("expect", "100-continue")],
    );
    assert_eq!(
        connection.response().status,
        413,
        "and nobody was told to go on"
    );
}

#[test]
fn request_body_without_a_length_is_413_when_it_passes_the_limit() {
    let server = serve("http_sink").flag("--request-body", "1000B").start();
    let mut connection = server.connect();
    connection.send_head("POST", "/", &[("transfer-encoding", "chunked")]);
    let chunk = format!("1f4\r\n{}\r\n", "x".repeat(500));
    for _ in 0..3 {
        let _ = connection.try_send(&chunk);
    }
    assert_eq!(connection.response().status, 413);
    let response = Http2::connect(server.addr())
        .exchange("POST", "/", &[], &[b'x'; 2000])
        .unwrap();
    assert_eq!(response.status, 413);
    assert_eq!(server.post("/", &[b'x'; 1000]).ok(), "1000\n");
}

#[test]
fn response_body_past_its_limit_is_broken_off() {
    let server = serve("http_stream").flag("--response-body", "1MiB").start();
    assert_eq!(server.get("/?bytes=1048576").body.len(), 1 << 20);
    let mut connection = server.connect();
    connection.send_head("GET", "/?bytes=1048577", &[]);
    connection.try_response().expect_err("the body has no end");
    let mut http2 = Http2::connect(server.addr());
    http2
        .exchange("GET", "/?bytes=1048577", &[], &[])
        .expect_err("the stream is reset");
}

#[test]
fn head_past_its_bytes_or_fields_is_431() {
    let server = serve("http_hello")
        .flag("--header-bytes", "8KiB")
        .flag("--headers", "20")
        .start();
    let long = "v".repeat(9000);
    assert_eq!(
        server
            .connect()
            .exchange("GET", "/", &[("x-long", &long)], &[])
            .status,
        431
    );
    let many: Vec<(&str, &str)> = vec![("x-field", "1"); 30];
    assert_eq!(
        server.connect().exchange("GET", "/", &many, &[]).status,
        431
    );
    let few: Vec<(&str, &str)> = vec![("x-field", "1"); 15];
    assert_eq!(
        server.connect().exchange("GET", "/", &few, &[]).ok(),
        "hello\n"
    );
}

#[test]
fn head_past_its_bytes_or_fields_is_refused_on_http2_too() {
    let server = serve("http_hello")
        .flag("--header-bytes", "8KiB")
        .flag("--headers", "20")
        .start();
    let mut http2 = Http2::connect(server.addr());
    let long = "v".repeat(9000);
    if let Ok(response) = http2.exchange("GET", "/", &[("x-long", &long)], &[]) {
        assert_eq!(response.status, 431);
    }
    let mut http2 = Http2::connect(server.addr());
    let many: Vec<(&str, &str)> = vec![("x-field", "1"); 30];
    if let Ok(response) = http2.exchange("GET", "/", &many, &[]) {
        assert_eq!(response.status, 431);
    }
    assert_eq!(Http2::connect(server.addr()).get("/").ok(), "hello\n");
}

#[test]
fn target_past_8_kib_is_414() {
    let server = serve("http_hello").start();
    assert_eq!(server.get(&format!("/{}", "a".repeat(9000))).status, 414);
    assert_eq!(
        server.get(&format!("/{}", "a".repeat(8000))).ok(),
        "hello\n"
    );
    assert_eq!(
        Http2::connect(server.addr())
            .get(&format!("/{}", "a".repeat(9000)))
            .status,
        414
    );
}

#[test]
fn connection_is_closed_after_its_number_of_requests() {
    let server = serve("http_hello")
        .flag("--connection-requests", "3")
        .start();
    let mut connection = server.connect();
    let closes: Vec<bool> = (0..3).map(|_| connection.get("/").closes()).collect();
    assert_eq!(closes, [false, false, true]);
    assert!(connection.rest().unwrap().is_empty());
}

#[test]
fn connection_is_closed_at_its_age() {
    let server = serve("http_hello")
        .flag("--connection-age", "300ms")
        .start();
    let mut connection = server.connect();
    let closing = || Some(connection.get("/")).filter(wrun_tests::Response::closes);
    wrun_tests::eventually("an answer that closes", wrun_tests::SOON, closing);
    assert!(connection.rest().unwrap().is_empty());
}

#[test]
fn connections_past_the_limit_wait_to_be_accepted() {
    let server = serve("http_hello").flag("--connections", "2").start();
    let mut first: Vec<Connection> = (0..2).map(|_| server.connect()).collect();
    for connection in &mut first {
        connection.get("/").ok();
    }
    let mut third = server.connect();
    third.send_head("GET", "/", &[]);
    for connection in &mut first {
        assert_eq!(connection.get("/").ok(), "hello\n");
    }
    assert!(!third.has_ended());
    first.pop();
    assert_eq!(third.response().ok(), "hello\n");
}
