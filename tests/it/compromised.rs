//! Processes that an attacker has taken over, and what they can do: nothing but their work.
//!
//! Each attack is tried without the sandbox, too, where it has to work: otherwise nobody would know why it fails within. What
//! such a process may say to others is in `compromised_messages.rs`.

use crate::serve;
use nix::unistd::Uid;
use std::fs;
use wrun_tests::compromised::{Attack, EACCES, EPERM, WORKS, landlock_abi};
use wrun_tests::upstream::Upstream;
use wrun_tests::{Launch, SOON, Server, eventually, process};

/// A server whose workers can be told to attack.
fn taken_over() -> Launch {
    serve("http_hello").compromised()
}

/// The same, with a state process.
fn sharing() -> Launch {
    taken_over().flag("--db", "default").flag("--lock", "stock")
}

/// Tries attacks on a server that confines its workers, and on one that does not.
#[track_caller]
fn assert_held(launch: &Launch, attacks: &[(&str, Attack, Attack)]) {
    let server = launch.clone().start();
    for &(name, expected, _) in attacks {
        let worker = server.worker().pid;
        assert_eq!(server.attack(name), expected, "{name}");
        assert_eq!(server.get("/").ok(), "hello\n", "after {name}");
        if expected == Attack::Killed {
            server.log().line_with("that the sandbox forbids");
            assert_ne!(server.worker().pid, worker, "{name}");
        } else {
            assert_eq!(server.worker().pid, worker, "{name}");
        }
    }
    let control = launch.clone().flag("--sandbox", "off").start();
    for &(name, _, expected) in attacks {
        assert_eq!(control.attack(name), expected, "{name} without the sandbox");
    }
}

/// Tries an attack that does not end its worker.
#[track_caller]
fn assert_refused(server: &Server, name: &str) {
    let worker = server.worker().pid;
    let came_of_it = server.attack(name);
    assert!(
        matches!(came_of_it, Attack::Errno(_)),
        "{name}: {came_of_it:?}"
    );
    assert_eq!(server.worker().pid, worker, "{name}");
}

#[test]
fn worker_runs_no_program_and_starts_no_process() {
    assert_held(
        &taken_over(),
        &[
            (
                "run_a_program",
                Attack::Killed,
                Attack::Errno(libc::ENOTDIR),
            ),
            ("run_a_program_by_descriptor", Attack::Killed, EACCES),
            ("fork_a_process", Attack::Killed, WORKS),
            ("clone_a_process", Attack::Killed, WORKS),
        ],
    );
}

#[test]
fn worker_traces_and_reads_no_process() {
    let launch = taken_over();
    let server = launch.clone().start();
    for name in ["trace_a_process", "read_a_process"] {
        assert_eq!(server.attack(name), Attack::Killed, "{name}");
        assert_eq!(server.get("/").ok(), "hello\n");
    }
    let control = launch.flag("--sandbox", "off").start();
    assert_eq!(
        control.attack("trace_a_process"),
        Attack::Errno(libc::ESRCH)
    );
    // Whether this works depends on the user, too.
    assert_ne!(control.attack("read_a_process"), Attack::Killed);
}

#[test]
fn worker_signals_neither_supervisor_nor_sibling() {
    let launch = taken_over().workers(2);
    let pid = |server: &Server| server.workers()[0].pid;
    let server = launch.clone().start();
    let control = launch.flag("--sandbox", "off").start();
    for name in [
        "signal_the_supervisor",
        "signal_a_sibling",
        "signal_a_sibling_by_pidfd",
    ] {
        assert_eq!(
            server.attack(&format!("{name} {}", pid(&server))),
            EPERM,
            "{name}"
        );
        assert_eq!(
            control.attack(&format!("{name} {}", pid(&control))),
            WORKS,
            "{name}"
        );
    }
}

#[test]
fn no_memory_of_a_worker_becomes_code() {
    assert_held(
        &taken_over(),
        &[
            ("map_code", EPERM, WORKS),
            ("turn_data_into_code", EPERM, WORKS),
            ("change_personality", Attack::Killed, WORKS),
        ],
    );
}

#[test]
fn worker_without_grants_opens_no_socket() {
    let launch = taken_over();
    let server = launch.clone().start();
    let control = launch.flag("--sandbox", "off").start();
    for name in [
        "tcp",
        "mptcp",
        "udp",
        "raw",
        "packets",
        "netlink",
        "unix_stream",
        "unix_datagram",
        "pair_of_sockets",
        "reuse_a_connection",
    ] {
        assert_eq!(server.attack(name), EPERM, "{name}");
    }
    for name in [
        "tcp",
        "udp",
        "netlink",
        "unix_stream",
        "unix_datagram",
        "pair_of_sockets",
    ] {
        assert_eq!(control.attack(name), WORKS, "{name}");
    }
    assert_eq!(server.attack("io_uring"), Attack::Killed);
    assert_ne!(control.attack("io_uring"), Attack::Killed);
    assert_eq!(server.get("/").ok(), "hello\n");
}

#[test]
fn worker_connects_to_granted_ports_only_and_in_one_way_only() {
    let (granted, other) = (Upstream::start(), Upstream::start());
    let launch = taken_over().flag("--allow-outbound", granted.url());
    let at = |name: &str, upstream: &Upstream| format!("{name} {}", upstream.port());
    let server = launch.clone().start();
    assert_eq!(server.attack(&at("connect_tcp", &granted)), WORKS);
    if landlock_abi() >= 4 {
        assert_eq!(server.attack(&at("connect_tcp", &other)), EACCES);
    }
    for name in [
        "mptcp",
        "udp",
        "unix_stream",
        "bind_a_port",
        "fast_open_by_option",
    ] {
        assert_eq!(server.attack(name), EPERM, "{name}");
    }
    assert_eq!(server.attack(&at("fast_open", &other)), EPERM);
    let control = launch.flag("--sandbox", "off").start();
    for name in ["udp", "unix_stream", "bind_a_port", "fast_open_by_option"] {
        assert_eq!(control.attack(name), WORKS, "{name}");
    }
    for name in ["connect_tcp", "fast_open"] {
        let came_of_it = control.attack(&at(name, &other));
        // Fast open depends on the system's settings: what counts is who refuses it.
        assert!(
            ![EPERM, EACCES].contains(&came_of_it),
            "{name}: {came_of_it:?}"
        );
    }
    eventually("the control reaches it", SOON, || {
        (other.requests() > 0).then_some(())
    });
}

#[test]
fn worker_cannot_harm_the_listening_socket() {
    assert_held(
        &taken_over(),
        &[
            ("duplicate_it", EPERM, WORKS),
            ("duplicate_it_by_fcntl", EPERM, WORKS),
            ("set_its_flags", EPERM, WORKS),
            ("set_it_blocking_or_not", EPERM, WORKS),
            ("set_its_options", EPERM, WORKS),
            ("shorten_its_queue", EPERM, WORKS),
            ("shut_the_listener_down", EPERM, WORKS),
        ],
    );
}

#[test]
fn worker_opens_no_file() {
    assert_held(
        &taken_over(),
        &[
            ("open_a_file", EPERM, WORKS),
            ("open_its_own_maps", EPERM, WORKS),
            ("open_the_supervisor", EPERM, WORKS),
            ("list_a_folder", EPERM, WORKS),
            ("make_a_file", EPERM, WORKS),
            ("make_a_folder", EPERM, WORKS),
            ("look_at_a_file", EPERM, WORKS),
            ("file_in_memory", EPERM, WORKS),
        ],
    );
}

#[test]
fn sandbox_cannot_be_loosened_from_within() {
    let launch = taken_over();
    assert_held(
        &launch,
        &[
            ("be_dumpable", EPERM, WORKS),
            ("raise_a_limit", EPERM, WORKS),
            ("change_user", EPERM, WORKS),
            ("leave_namespaces", Attack::Killed, WORKS),
        ],
    );
}

#[test]
fn worker_has_nothing_of_the_environment_and_no_capability() {
    let launch = taken_over().env("WRUN_TEST_SECRET", "of the operator");
    let server = launch.clone().start();
    assert_refused(&server, "read_the_environment");
    // No call that a guest can cause is allowed to ask.
    assert_refused(&server, "use_a_capability");
    let worker = server.worker().pid;
    for key in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let is_root = Uid::effective().is_root();
        if is_root || key != "CapBnd" {
            assert_eq!(process::status(worker, key), "0000000000000000", "{key}");
        }
    }
    let environment = fs::read(format!("/proc/{worker}/environ")).unwrap_or_default();
    assert!(
        !environment
            .windows(15)
            .any(|text| text == b"of the operator")
    );
    let control = launch.flag("--sandbox", "off").start();
    assert_eq!(control.attack("read_the_environment"), WORKS);
}

#[test]
fn state_process_has_its_data_and_nothing_else() {
    let launch = sharing();
    let server = launch.clone().start();
    assert_eq!(server.attack_of_state("make_a_database"), WORKS);
    for name in [
        "tcp",
        "udp",
        "unix_stream",
        "map_code",
        "signal_the_supervisor",
    ] {
        assert_eq!(server.attack_of_state(name), EPERM, "{name}");
    }
    if landlock_abi() > 0 {
        for name in ["open_a_file", "list_a_folder", "make_a_file"] {
            assert_eq!(server.attack_of_state(name), EACCES, "{name}");
        }
    }
    let before = server.state_pid();
    assert_eq!(server.attack_of_state("run_a_program"), Attack::Killed);
    eventually("another state process", SOON, || {
        let state = server.ps()["state"].clone();
        (state["state"] == "ready" && state["pid"] != before).then_some(())
    });
    let control = launch.flag("--sandbox", "off").start();
    for name in ["open_a_file", "tcp", "map_code"] {
        assert_eq!(control.attack_of_state(name), WORKS, "{name}");
    }
}

#[test]
fn panic_of_the_host_in_a_call_is_500_for_that_request_alone() {
    // A generator of random numbers that the kernel gives no seed is what wasmtime's host functions cannot go on without.
    let server = serve("attack_calls").compromised().start();
    let worker = server.worker().pid;
    assert_eq!(server.attack("lose_random_numbers"), WORKS);
    assert_eq!(server.get("/random-within").status, 500);
    server.log().line_with("the host panicked in a call");
    assert_eq!(server.get("/").ok(), "harmless\n");
    assert_eq!(server.attack("find_random_numbers"), WORKS);
    assert_eq!(server.get("/random-within").status, 200);
    assert_eq!(server.worker().pid, worker);
}
