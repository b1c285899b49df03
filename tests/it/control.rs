//! The control socket and the commands that use it.

use crate::{serve, wrun};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, send, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;
use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::thread;
use wrun_tests::{SOON, Server, Worker, folder};

fn control_socket(server: &Server) -> OwnedFd {
    let client = socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .unwrap();
    connect(
        client.as_raw_fd(),
        &UnixAddr::new(&server.state().join("control.sock")).unwrap(),
    )
    .unwrap();
    setsockopt(&client, sockopt::ReceiveTimeout, &TimeVal::new(30, 0)).unwrap();
    client
}

/// Returns what the server says to this client, or nothing if it hung up.
fn answer(client: &OwnedFd) -> Option<String> {
    let mut bytes = vec![0; 65536];
    let len =
        nix::sys::socket::recv(client.as_raw_fd(), &mut bytes, MsgFlags::empty()).unwrap_or(0);
    (len > 0).then(|| String::from_utf8_lossy(&bytes[..len]).into_owned())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn ps_lists_supervisor_and_workers() {
    let server = serve("http_hello").workers(2).start();
    server.get("/").ok();
    let ps = server.ps();
    assert_eq!(ps["supervisor"]["pid"], server.pid());
    assert_eq!(ps["supervisor"]["state"], "serving");
    assert_eq!(
        ps["supervisor"]["urls"][0],
        format!("http://{}/", server.addr())
    );
    let workers = server.workers();
    assert_eq!(
        workers.iter().map(|worker| worker.slot).collect::<Vec<_>>(),
        [0, 1]
    );
    for worker in &workers {
        assert_eq!(
            (worker.generation, worker.restarts, worker.state.as_str()),
            (1, 0, "ready")
        );
        assert!(worker.rss_bytes > 1 << 20, "{worker:?}");
    }
    server.when("the request is counted", SOON, |workers| {
        workers.iter().map(|worker| worker.requests).sum::<u64>() == 1
    });
}

#[test]
fn ps_without_json_is_a_table_for_people() {
    let server = serve("http_hello").workers(2).start();
    let table = server.control(["ps"]).ok();
    for pid in server
        .workers()
        .iter()
        .map(|worker| worker.pid)
        .chain([server.pid()])
    {
        assert!(table.contains(&pid.to_string()), "{table}");
    }
    assert!(table.contains(&server.addr().to_string()), "{table}");
}

#[test]
fn scale_runs_that_many_workers() {
    let server = serve("http_hello").start();
    let ready = |count| {
        move |workers: &[Worker]| workers.len() == count && workers.iter().all(Worker::is_ready)
    };
    server.control(["scale", "3"]).ok();
    server.when("three workers", SOON, ready(3));
    server.control(["scale", "1"]).ok();
    server.when("one worker", SOON, ready(1));
    server.reload();
    server.when("still one worker", SOON, ready(1));
    assert_eq!(server.get("/").ok(), "hello\n");
}

#[test]
fn scale_to_nothing_is_refused() {
    let server = serve("http_hello").start();
    for workers in ["0", "-1", "many"] {
        assert_eq!(
            server.control(["scale", workers]).code,
            Some(64),
            "{workers}"
        );
    }
    assert_eq!(server.workers().len(), 1);
}

#[test]
fn stop_drains_and_returns_when_the_server_is_gone() {
    let mut server = serve("http_sleep").start();
    let mut busy = server.connect();
    busy.send_head("GET", "/?ms=1000", &[]);
    server.when_in_flight(1);
    server.control(["stop"]).ok();
    assert_eq!(busy.response().ok(), "slept 1000 ms\n");
    assert_eq!(server.end(SOON).code(), Some(0));
    assert!(wrun_tests::Connection::try_open(server.addr(), SOON).is_err());
}

#[test]
fn command_without_a_server_says_so() {
    let nowhere = folder();
    for command in [vec!["ps"], vec!["reload"], vec!["scale", "2"], vec!["stop"]] {
        let args = command.iter().map(std::convert::AsRef::as_ref);
        let outcome = wrun().run(args.chain(["--state".as_ref(), nowhere.path().as_os_str()]));
        outcome.fails_with(69, &["--state"]);
    }
}

#[test]
fn state_folder_and_socket_are_only_for_their_owner() {
    let server = serve("http_hello").start();
    assert_eq!(mode(server.state()), 0o700);
    assert_eq!(mode(&server.state().join("control.sock")), 0o600);
}

#[test]
fn garbage_costs_only_the_client_that_sent_it() {
    let server = serve("http_hello").start();
    let large = vec![b'['; 60_000];
    for garbage in [
        &b"\0\xff\xfe"[..],
        b"{}",
        b"null",
        b"{\"Scale\":{\"workers\":-1}}",
        b"{\"Explode\":1}",
        &large,
    ] {
        let client = control_socket(&server);
        send(client.as_raw_fd(), garbage, MsgFlags::MSG_NOSIGNAL).unwrap();
        let said = answer(&client);
        assert!(
            said.as_ref().is_none_or(|said| said.contains("Failed")),
            "{said:?}"
        );
    }
    assert_eq!(server.workers().len(), 1);
    assert_eq!(server.get("/").ok(), "hello\n");
}

#[test]
fn order_out_of_bounds_is_refused_by_the_server_too() {
    let server = serve("http_hello").start();
    for workers in ["0", "1000000"] {
        let client = control_socket(&server);
        let order = format!("{{\"Scale\":{{\"workers\":{workers}}}}}");
        send(client.as_raw_fd(), order.as_bytes(), MsgFlags::MSG_NOSIGNAL).unwrap();
        let said = answer(&client);
        assert!(
            said.as_ref().is_none_or(|said| said.contains("Failed")),
            "{said:?}"
        );
    }
    assert_eq!(server.workers().len(), 1);
}

#[test]
fn silent_clients_do_not_keep_others_out() {
    let server = serve("http_hello").start();
    let silent: Vec<OwnedFd> = (0..40).map(|_| control_socket(&server)).collect();
    assert_eq!(server.workers().len(), 1);
    drop(silent);
}

#[test]
fn commands_at_the_same_time_are_all_answered() {
    let server = serve("http_hello").start();
    thread::scope(|scope| {
        let all: Vec<_> = (0..20)
            .map(|_| scope.spawn(|| server.control(["ps", "--json"])))
            .collect();
        for one in all {
            one.join().unwrap().ok();
        }
    });
}

#[test]
fn second_server_in_one_named_state_folder_is_refused() {
    let first = serve("http_hello").start();
    let second = serve("http_hello").state(first.state()).fail();
    second.fails_with(69, &["--state"]);
    assert_eq!(first.workers().len(), 1);
    assert_eq!(first.get("/").ok(), "hello\n");
}

#[test]
fn second_server_in_a_folder_that_nobody_named_gets_a_state_folder_of_its_own() {
    let folder = folder();
    let first = serve("http_hello").in_folder(folder.path()).start();
    // Its temporary folder goes with ours, since nobody cleans up after a killed server.
    let second = serve("http_hello")
        .in_folder(folder.path())
        .env("TMPDIR", folder.path())
        .start();
    assert_eq!(
        (first.get("/").ok(), second.get("/").ok()),
        ("hello\n".to_owned(), "hello\n".to_owned())
    );
    assert_eq!(
        first.ps()["supervisor"]["pid"],
        first.pid(),
        "the folder is still the first one's"
    );
}

#[test]
fn state_folder_of_a_killed_server_can_be_used_again() {
    let folder = folder();
    let state = folder.path().join("state");
    drop(serve("http_hello").state(&state).start());
    let server = serve("http_hello").state(&state).start();
    assert_eq!(server.worker().requests, 0);
    assert_eq!(server.get("/").ok(), "hello\n");
}
