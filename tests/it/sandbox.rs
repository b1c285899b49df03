//! The sandbox around the processes that meet guests: its modes, its user, and work that goes on within.
//!
//! What it keeps from an attacker is in `compromised.rs`.

use crate::{serve, wrun};
use nix::sys::signal::Signal;
use nix::unistd::Uid;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use wrun_tests::compromised::{Attack, EACCES, EPERM, WORKS, landlock_abi};
use wrun_tests::guests::guest;
use wrun_tests::upstream::Upstream;
use wrun_tests::{Connection, Launch, SOON, eventually, process};

/// A server whose workers can be told to attack.
fn taken_over() -> Launch {
    serve("http_hello").compromised()
}

/// The same, with a state process.
fn sharing() -> Launch {
    taken_over().flag("--db", "default").flag("--lock", "stock")
}

#[test]
fn worker_resolves_names_within_the_sandbox() {
    let upstream = Upstream::start();
    let url = format!("http://localhost:{}", upstream.port());
    let server = serve("http_fetch")
        .compromised()
        .flag("--allow-outbound", &url)
        .start();
    for round in 1..=3 {
        let answer = server.get(&format!("/?url={url}/{round}")).ok();
        assert_eq!(answer, format!("200 you asked for /{round}\n"));
    }
    // It may ask a resolver now, and yet not open whatever it wants.
    assert_eq!(server.attack("udp"), WORKS);
    if landlock_abi() > 0 {
        for name in ["open_a_file", "open_its_own_maps", "list_a_folder"] {
            assert_eq!(server.attack(name), EACCES, "{name}");
        }
    }
    assert_eq!(server.attack("make_a_file"), EPERM);
    assert_eq!(server.worker().restarts, 0);
}

#[test]
fn without_landlock_seccomp_alone_keeps_files_and_sockets_from_a_worker() {
    let server = taken_over().on_a_kernel_without("landlock").start();
    for name in [
        "open_a_file",
        "list_a_folder",
        "tcp",
        "unix_stream",
        "signal_the_supervisor",
    ] {
        assert_eq!(server.attack(name), EPERM, "{name}");
    }
}

#[test]
fn without_seccomp_landlock_alone_keeps_files_from_a_worker() {
    let server = taken_over().on_a_kernel_without("seccomp").start();
    if landlock_abi() > 0 {
        for name in ["open_a_file", "list_a_folder", "make_a_folder"] {
            assert_eq!(server.attack(name), EACCES, "{name}");
        }
    }
    // Without the one that forbids it, this works.
    assert_eq!(server.attack("map_code"), WORKS);
}

#[test]
fn every_child_is_under_a_filter() {
    let server = sharing().start();
    for pid in [server.worker().pid, server.state_pid()] {
        assert_eq!(process::status(pid, "NoNewPrivs"), "1");
        assert_eq!(process::status(pid, "Seccomp"), "2");
        assert_eq!(process::status(pid, "Umask"), "0077");
    }
    assert_eq!(process::status(server.pid(), "Seccomp"), "0");
}

#[test]
fn required_sandbox_that_is_not_to_be_had_is_refused_with_a_hint() {
    for layer in ["landlock", "seccomp"] {
        serve("http_hello")
            .flag("--sandbox", "require")
            .on_a_kernel_without(layer)
            .fail()
            .fails_after_its_log_with(77, &[layer, "wrun doctor", "--sandbox auto"]);
    }
}

#[test]
fn required_sandbox_that_is_there_serves() {
    if landlock_abi() < 4 {
        return;
    }
    let server = serve("http_hello").flag("--sandbox", "require").start();
    assert_eq!(server.get("/").ok(), "hello\n");
    assert!(
        !server.log().text().contains("confined by less"),
        "{}",
        server.log().text()
    );
}

#[test]
fn what_is_missing_is_said_in_one_line_and_the_server_serves() {
    for layer in ["landlock", "seccomp"] {
        let server = serve("http_hello").on_a_kernel_without(layer).start();
        assert_eq!(server.get("/").ok(), "hello\n");
        let line = server.log().line_with("confined by less");
        assert!(line.contains(layer), "{line}");
        let lines = server.log().lines();
        let said = lines.iter().filter(|line| line.contains(layer)).count();
        assert_eq!(said, 1, "{lines:?}");
    }
}

#[test]
fn sandbox_that_is_off_is_said() {
    let server = serve("http_hello").flag("--sandbox", "off").start();
    server.log().line_with("--sandbox off");
    assert_eq!(process::status(server.worker().pid, "Seccomp"), "0");
}

#[test]
fn log_in_a_file_is_written_from_within_the_sandbox() {
    let folder = wrun_tests::folder();
    let log = folder.path().join("log");
    // Its URL goes to the file as well, so the address has to be known.
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = free.local_addr().unwrap();
    drop(free);
    let mut server = wrun()
        .command()
        .args([
            "serve",
            "--workers",
            "1",
            "--access-log",
            "--addr",
            &addr.to_string(),
        ])
        .arg(guest("http_hello"))
        .arg("--state")
        .arg(folder.path().join("state"))
        .stderr(fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    eventually("the server answers, and its worker logs that", SOON, || {
        let mut connection = Connection::try_open(addr, SOON).ok()?;
        assert_eq!(connection.get("/").ok(), "hello\n");
        let text = fs::read_to_string(&log).unwrap();
        text.contains("\"status\":200").then_some(())
    });
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn worker_killed_by_the_sandbox_is_logged_as_such() {
    let server = taken_over().start();
    assert_eq!(server.attack("fork_a_process"), Attack::Killed);
    let line = server.log().line_with("worker ended unasked");
    assert!(line.contains("SIGSYS"), "{line}");
}

#[test]
fn processes_run_as_the_user_that_is_named() {
    if !Uid::effective().is_root() {
        wrun()
            .serve(guest("http_hello"))
            .flag("--user", "0:0")
            .fail()
            .fails_with(77, &["--user"]);
        return;
    }
    let folder = wrun_tests::folder();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let component = folder.path().join("hello.wasm");
    fs::copy(guest("http_hello"), &component).unwrap();
    let launch = wrun()
        .serve(&component)
        .compromised()
        .flag("--user", "4000000001:4000000002")
        .flag("--db", "default")
        .state(folder.path().join("state"));
    for round in 0..2 {
        let server = launch.clone().start();
        assert_eq!(server.get("/").ok(), "hello\n");
        for pid in [server.worker().pid, server.state_pid()] {
            let four = |id: &str| [id; 4].join("\t");
            assert_eq!(process::status(pid, "Uid"), four("4000000001"));
            assert_eq!(process::status(pid, "Gid"), four("4000000002"));
            assert_eq!(process::status(pid, "Groups"), "4000000002");
        }
        assert_eq!(process::status(server.pid(), "Uid"), ["0"; 4].join("\t"));
        assert_eq!(server.attack("say_who_it_is_once_more"), WORKS);
        let sql = match round {
            0 => "CREATE TABLE t (a INTEGER)",
            _ => "SELECT count(*) AS n FROM t",
        };
        server.control(["db", "query", "default", sql]).ok();
        let old = server.state_pid();
        process::send(old, Signal::SIGKILL);
        eventually("another state process", SOON, || {
            let state = server.ps()["state"].clone();
            (state["state"] == "ready" && state["pid"] != old).then_some(())
        });
        server.reload();
        assert_eq!(server.get("/").ok(), "hello\n");
    }
}

#[test]
fn user_that_there_is_not_is_refused_with_a_hint() {
    serve("http_hello")
        .flag("--user", "nobody-is-called-so")
        .fail()
        .fails_with(78, &["nobody-is-called-so", "--user"]);
}

#[test]
fn sandbox_and_user_come_from_the_manifest_too() {
    let server = serve("http_hello")
        .manifest("[serve]\nsandbox = \"off\"\n")
        .start();
    server.log().line_with("--sandbox off");
    serve("http_hello")
        .manifest("[serve]\nuser = \"nobody-is-called-so\"\n")
        .fail()
        .fails_with(78, &["nobody-is-called-so"]);
}

#[test]
fn migrations_that_come_with_a_reload_are_read_within_the_sandbox() {
    let folder = wrun_tests::folder();
    let manifest = |sections: &str| {
        let text = format!(
            "component = \"{}\"\n{sections}",
            guest("http_hello").display()
        );
        fs::write(folder.path().join("wrun.toml"), text).unwrap();
    };
    manifest("[locks]\nstock = {}\n");
    let server = wrun().serve(folder.path()).start();
    fs::create_dir(folder.path().join("sql")).unwrap();
    fs::write(
        folder.path().join("sql/1.sql"),
        "CREATE TABLE late (a INTEGER);",
    )
    .unwrap();
    manifest("[locks]\nstock = {}\n[databases.default]\nmigrations = \"sql\"\n");
    server.reload();
    server
        .control(["db", "query", "default", "SELECT a FROM late"])
        .ok();
}
