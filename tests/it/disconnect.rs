//! Clients that go away: their guests go with them.

use crate::serve;
use wrun_tests::{Http2, Server};

/// Leaves requests to `target` alone, on both protocols, and waits until nothing of them is left.
fn assert_dropped(server: &Server, target: &str) {
    let mut connection = server.connect();
    connection.send_head("GET", target, &[]);
    server.when_in_flight(1);
    drop(connection);
    server.when_in_flight(0);
    let mut http2 = Http2::connect(server.addr());
    let _kept = http2.start("GET", target, &[], &[]).unwrap();
    server.when_in_flight(1);
    drop(http2);
    server.when_in_flight(0);
}

#[test]
fn sleeping_guest_is_dropped_with_its_client() {
    for guest in ["http_sleep", "service_sleep"] {
        assert_dropped(
            &serve(guest).flag("--timeout", "10min").start(),
            "/?ms=600000",
        );
    }
}

#[test]
fn spinning_guest_is_dropped_with_its_client() {
    for guest in ["http_spin", "service_spin"] {
        assert_dropped(
            &serve(guest)
                .flag("--timeout", "10min")
                .flag("--cpu", "10min")
                .start(),
            "/",
        );
    }
}

#[test]
fn streaming_guest_is_dropped_with_its_client() {
    let server = serve("http_stream")
        .flag("--timeout", "10min")
        .flag("--cpu", "10min")
        .start();
    assert_dropped(&server, "/?forever=1");
}

#[test]
fn guest_that_waits_for_a_body_is_dropped_with_its_client() {
    let server = serve("http_sink").flag("--timeout", "10min").start();
    let mut connection = server.connect();
    connection.send_head("POST", "/", &[("content-length", "1000")]);
    connection.send("some");
    server.when_in_flight(1);
    drop(connection);
    server.when_in_flight(0);
}

#[test]
fn cancelled_stream_drops_its_guest_and_not_its_neighbours() {
    let server = serve("http_sleep").flag("--timeout", "10min").start();
    let mut http2 = Http2::connect(server.addr());
    let cancelled = http2.start("GET", "/?ms=600000", &[], &[]).unwrap();
    let neighbour = http2.start("GET", "/?ms=3000", &[], &[]).unwrap();
    server.when_in_flight(2);
    http2.cancel(cancelled);
    server.when_in_flight(1);
    assert_eq!(http2.finish(neighbour).unwrap().ok(), "slept 3000 ms\n");
}

#[test]
fn many_clients_that_go_away_leave_nothing_behind() {
    let server = serve("http_sleep").flag("--timeout", "10min").start();
    for _ in 0..10 {
        let connections: Vec<_> = (0..50)
            .map(|_| {
                let mut connection = server.connect();
                connection.send_head("GET", "/?ms=600000", &[]);
                connection
            })
            .collect();
        drop(connections);
    }
    server.when("nothing is left", wrun_tests::SOON, |workers| {
        workers
            .iter()
            .all(|worker| worker.in_flight == 0 && worker.connections == 0)
    });
    assert_eq!(server.get("/?ms=0").ok(), "slept 0 ms\n");
}
