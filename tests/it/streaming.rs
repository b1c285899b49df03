//! Bodies larger than anybody would hold: passed on piece by piece, at the pace of the slower side.

use crate::serve;
use std::io::{ErrorKind, Read};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};
use wrun_tests::{Connection, Launch, SOON, Server, eventually, process};

const GIB: u64 = 1 << 30;

/// How much a worker may grow while bodies pass through it.
const GROWTH_MAX: u64 = 200 << 20;

/// A transfer of gigabytes on a busy machine.
const TRANSFER: Duration = Duration::from_secs(240);

fn unhurried(launch: Launch) -> Launch {
    let launch = launch.flag("--timeout", "10min").flag("--cpu", "10min");
    launch
        .flag("--request-body", "4GiB")
        .flag("--response-body", "4GiB")
}

/// Watches the worker's memory until `transfer` is done, and returns what it returned.
fn with_flat_memory<T>(server: &Server, before: u64, transfer: ScopedJoinHandle<'_, T>) -> T {
    eventually("the end of the transfer", TRANSFER, || {
        let grown = server.worker().rss_bytes.saturating_sub(before);
        assert!(grown < GROWTH_MAX, "the worker grew by {grown} bytes");
        transfer.is_finished().then_some(())
    });
    transfer.join().expect("the transfer went well")
}

/// Sends a body of `len` bytes.
fn send_body(connection: &mut Connection, len: u64) {
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..len / (1 << 20) {
        connection.send(&piece);
    }
}

/// Reads a body to its end and returns its length; byte `i` must be `expected(i)`.
fn read_body(connection: &mut Connection, expected: impl Fn(u64) -> u8) -> u64 {
    let head = connection.head().expect("a head");
    assert_eq!(head.status, 200);
    let mut body = connection.body(&head).expect("a body");
    let mut piece = vec![0; 64 << 10];
    let mut len = 0;
    loop {
        let got = body.read(&mut piece).expect("the body goes on");
        if got == 0 {
            return len;
        }
        assert_eq!(
            (piece[0], piece[got - 1]),
            (expected(len), expected(len + got as u64 - 1)),
            "at {len}"
        );
        len += got as u64;
    }
}

#[test]
fn request_body_of_2_gib_passes_in_flat_memory() {
    let server = unhurried(serve("http_sink")).start();
    let before = server.worker().rss_bytes;
    let answer = thread::scope(|scope| {
        let transfer = scope.spawn(|| {
            let mut connection = server.connect();
            connection.send_head("POST", "/", &[("content-length", &(2 * GIB).to_string())]);
            send_body(&mut connection, 2 * GIB);
            connection.response().ok()
        });
        with_flat_memory(&server, before, transfer)
    });
    assert_eq!(answer, format!("{}\n", 2 * GIB));
}

#[test]
fn response_body_of_2_gib_passes_in_flat_memory() {
    let server = unhurried(serve("http_stream")).start();
    let before = server.worker().rss_bytes;
    let len = thread::scope(|scope| {
        let transfer = scope.spawn(|| {
            let mut connection = server.connect();
            connection.send_head("GET", &format!("/?bytes={}", 2 * GIB), &[]);
            read_body(&mut connection, |index| (index % 251) as u8)
        });
        with_flat_memory(&server, before, transfer)
    });
    assert_eq!(len, 2 * GIB);
}

#[test]
fn both_bodies_pass_at_the_same_time_in_flat_memory() {
    const LEN: u64 = GIB / 2;
    for guest in ["http_echo", "service_echo"] {
        let server = unhurried(serve(guest)).start();
        let before = server.worker().rss_bytes;
        let len = thread::scope(|scope| {
            let transfer = scope.spawn(|| {
                let mut connection = server.connect();
                connection.send_head("POST", "/", &[("content-length", &LEN.to_string())]);
                let mut sender = connection.second_handle();
                thread::scope(|scope| {
                    scope.spawn(move || send_body(&mut sender, LEN));
                    read_body(&mut connection, |_| b'x')
                })
            });
            with_flat_memory(&server, before, transfer)
        });
        assert_eq!(len, LEN, "{guest}");
    }
}

#[test]
fn first_piece_comes_back_before_the_last_is_sent() {
    for guest in ["http_echo", "service_echo"] {
        let server = serve(guest).start();
        let mut connection = server.connect();
        connection.send_head("POST", "/", &[("transfer-encoding", "chunked")]);
        connection.send("5\r\nfirst\r\n");
        let mut sender = connection.second_handle();
        let head = connection.head().unwrap();
        let mut body = connection.body(&head).unwrap();
        let mut piece = [0; 5];
        body.read_exact(&mut piece).unwrap();
        assert_eq!(&piece, b"first", "{guest}");
        sender.send("4\r\nlast\r\n0\r\n\r\n");
        let mut rest = String::new();
        body.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "last", "{guest}");
    }
}

#[test]
fn client_that_is_slow_to_read_stops_its_guest() {
    let server = unhurried(serve("http_stream"))
        .flag("--stall-timeout", "10min")
        .start();
    let before = server.worker().rss_bytes;
    let mut connection = server.connect();
    connection.send_head("GET", "/?forever=1", &[]);
    assert_eq!(connection.head().unwrap().status, 200);
    // The socket's buffers fill, and then the guest uses no more CPU.
    let pid = server.worker().pid;
    let mut since = (Instant::now(), process::cpu_time(pid));
    eventually("a second in which the guest waits", SOON, || {
        if since.0.elapsed() < Duration::from_secs(1) {
            return None;
        }
        let used = process::cpu_time(pid) - since.1;
        since = (Instant::now(), process::cpu_time(pid));
        (used < Duration::from_millis(200)).then_some(())
    });
    let worker = server.worker();
    assert_eq!(worker.in_flight, 1);
    assert!(
        worker.rss_bytes < before + (64 << 20),
        "from {before} to {} bytes",
        worker.rss_bytes
    );
}

#[test]
fn guest_that_is_slow_to_read_stops_its_client() {
    let server = unhurried(serve("http_sink")).start();
    let before = server.worker().rss_bytes;
    let mut connection = Connection::try_open(server.addr(), Duration::from_millis(500)).unwrap();
    connection.send_head(
        "POST",
        "/?slow_ms=60000",
        &[("content-length", &GIB.to_string())],
    );
    let piece = vec![b'x'; 1 << 20];
    let taken = (0..1024)
        .take_while(|_| connection.try_send(&piece).is_ok())
        .count();
    assert!(
        taken < 64,
        "{taken} MiB were taken and the guest has read 64 KiB"
    );
    let worker = server.worker();
    assert!(
        worker.rss_bytes < before + (64 << 20),
        "from {before} to {} bytes",
        worker.rss_bytes
    );
}

#[test]
fn body_that_breaks_off_is_an_error_for_the_guest() {
    let server = serve("http_sink").start();
    let mut connection = server.connect();
    connection.send_head("POST", "/", &[("content-length", "100")]);
    connection.send("too short");
    connection.finish_sending();
    match connection.try_response() {
        Ok(response) => assert_eq!(response.status, 400, "{response:?}"),
        Err(error) => assert_ne!(error.kind(), ErrorKind::WouldBlock, "nobody answered"),
    }
    server.when_in_flight(0);
}

#[test]
fn body_that_the_guest_leaves_unread_is_not_taken_for_the_next_request() {
    let server = serve("http_sink").start();
    let mut connection = server.connect();
    let response = connection.exchange("POST", "/?ignore=1", &[], &vec![b'x'; 100_000]);
    assert_eq!(response.text(), "ignored\n");
    // The server may close a connection rather than read on.
    let _ = connection.try_send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\n12345");
    if let Ok(response) = connection.try_response() {
        assert_eq!(response.ok(), "5\n");
    }
    assert_eq!(server.post("/", b"12345").ok(), "5\n");
}

#[test]
fn client_that_expects_100_is_told_to_go_on() {
    let server = serve("http_sink").start();
    let mut connection = server.connect();
    connection.send_head(
        "POST",
        "/",
        &[("content-length", "4"), ("expect", "100-continue")],
    );
    assert_eq!(connection.head().unwrap().status, 100);
    connection.send("body");
    assert_eq!(connection.response().ok(), "4\n");
}
