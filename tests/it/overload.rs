//! Past capacity: a quick 503, never a queue without end.

use crate::serve;
use wrun_tests::{Http2, SOON, eventually};

#[test]
fn request_past_capacity_is_503_with_retry_after() {
    let server = serve("http_sleep").flag("--in-flight", "1").start();
    let mut busy = server.connect();
    busy.send_head("GET", "/?ms=60000", &[]);
    server.when_in_flight(1);
    let refused = server.get("/?ms=0");
    assert_eq!(
        (refused.status, refused.header("retry-after")),
        (503, Some("1"))
    );
    let refused = Http2::connect(server.addr()).get("/?ms=0");
    assert_eq!(
        (refused.status, refused.header("retry-after")),
        (503, Some("1"))
    );
    drop(busy);
    let served = || Some(server.get("/?ms=0")).filter(|response| response.status == 200);
    eventually("room for the next request", SOON, served);
}

#[test]
fn request_that_waits_only_briefly_is_served() {
    let server = serve("http_sleep").flag("--in-flight", "1").start();
    for _ in 0..5 {
        let mut first = server.connect();
        let mut second = server.connect();
        first.send_head("GET", "/?ms=10", &[]);
        second.send_head("GET", "/?ms=0", &[]);
        assert_eq!(
            (first.response().status, second.response().status),
            (200, 200)
        );
    }
}

#[test]
fn refusals_come_while_the_worker_is_full_and_harm_nobody() {
    let server = serve("http_sleep").flag("--in-flight", "4").start();
    let mut busy: Vec<_> = (0..4).map(|_| server.connect()).collect();
    for connection in &mut busy {
        connection.send_head("GET", "/?ms=3000", &[]);
    }
    server.when_in_flight(4);
    let mut connections: Vec<_> = (0..40).map(|_| server.connect()).collect();
    for connection in &mut connections {
        connection.send_head("GET", "/?ms=0", &[]);
    }
    let statuses: Vec<u16> = connections
        .iter_mut()
        .map(|connection| connection.response().status)
        .collect();
    assert!(statuses.contains(&503), "{statuses:?}");
    assert!(
        statuses.iter().all(|status| matches!(status, 200 | 503)),
        "{statuses:?}"
    );
    for connection in &mut busy {
        assert_eq!(connection.response().ok(), "slept 3000 ms\n");
    }
}

#[test]
fn streams_of_one_http2_connection_count_one_by_one() {
    let server = serve("http_sleep").flag("--in-flight", "2").start();
    let mut http2 = Http2::connect(server.addr());
    let pending: Vec<_> = (0..6)
        .map(|_| http2.start("GET", "/?ms=2000", &[], &[]).unwrap())
        .collect();
    let statuses: Vec<u16> = pending
        .into_iter()
        .map(|one| http2.finish(one).unwrap().status)
        .collect();
    assert_eq!(
        statuses.iter().filter(|status| **status == 200).count(),
        2,
        "{statuses:?}"
    );
    assert_eq!(
        statuses.iter().filter(|status| **status == 503).count(),
        4,
        "{statuses:?}"
    );
}

#[test]
fn clients_that_take_nothing_give_their_places_to_those_who_want_them() {
    let server = serve("http_stream")
        .flag("--in-flight", "2")
        .flag("--stall-timeout", "1h")
        .flag("--timeout", "1h")
        .start();
    let mut slow: Vec<_> = (0..6).map(|_| server.connect()).collect();
    for connection in &mut slow {
        connection.send_head("GET", "/?bytes=1000000000", &[]);
    }
    server.when_in_flight(2);
    for _ in 0..3 {
        let served = || Some(server.get("/?bytes=1")).filter(|response| response.status == 200);
        eventually("a place for the next request", SOON, served);
    }
}

#[test]
fn clients_of_http2_that_take_nothing_give_their_places_to_those_who_want_them() {
    let server = serve("http_stream")
        .flag("--in-flight", "2")
        .flag("--stall-timeout", "1h")
        .flag("--timeout", "1h")
        .start();
    // Its windows are full after 64 KiB, and never opened again.
    let mut slow = Http2::connect(server.addr());
    let _pending: Vec<_> = (0..2)
        .map(|_| slow.start("GET", "/?bytes=1000000000", &[], &[]).unwrap())
        .collect();
    server.when_in_flight(2);
    for _ in 0..3 {
        let served = || Some(server.get("/?bytes=1")).filter(|response| response.status == 200);
        eventually("a place for the next request", SOON, served);
    }
}

#[test]
fn client_that_is_slow_to_send_gives_its_place_to_who_wants_it() {
    let server = serve("http_sink")
        .flag("--in-flight", "1")
        .flag("--stall-timeout", "1h")
        .flag("--timeout", "1h")
        .start();
    let mut slow = server.connect();
    slow.send_head("POST", "/", &[("content-length", "1000")]);
    server.when_in_flight(1);
    let served = || Some(server.get("/")).filter(|response| response.status == 200);
    eventually("a place for the next request", SOON, served);
    assert_eq!(slow.response().status, 408);
}
