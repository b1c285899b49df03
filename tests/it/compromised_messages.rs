//! What a worker that an attacker has taken over says to the supervisor, the state process and the log: claims, and no more.

use crate::serve;
use std::fs;
use std::time::Duration;
use wrun_tests::compromised::{Attack, EACCES, EPERM, WORKS};
use wrun_tests::{Launch, SOON, eventually, process};

/// A server whose workers can be told to attack.
fn taken_over() -> Launch {
    serve("http_hello").compromised()
}

/// The same, with a state process.
fn sharing() -> Launch {
    taken_over().flag("--db", "default").flag("--lock", "stock")
}

#[test]
fn worker_that_sends_garbage_is_replaced_and_the_supervisor_lives() {
    let server = taken_over().start();
    for name in [
        "garbage_to_the_supervisor",
        "oversized_to_the_supervisor",
        "say_ready_for_another_generation",
    ] {
        let worker = server.worker().pid;
        // It may be killed before it can tell that it sent that.
        let came_of_it = server.attack(name);
        assert!(
            [WORKS, Attack::Killed].contains(&came_of_it),
            "{name}: {came_of_it:?}"
        );
        server.when("another worker", SOON, |workers| {
            workers
                .iter()
                .any(|other| other.pid != worker && other.is_ready())
        });
        assert_eq!(server.get("/").ok(), "hello\n", "after {name}");
    }
    server.log().line_with("it sent garbage");
}

#[test]
fn flood_of_messages_costs_the_supervisor_nothing_but_time() {
    let server = taken_over().start();
    let worker = server.worker().pid;
    assert_eq!(server.attack("flood_of_the_supervisor"), WORKS);
    assert_eq!(server.attack("say_ready_twice"), WORKS);
    assert_eq!(server.get("/").ok(), "hello\n");
    assert_eq!(server.worker().pid, worker);
    assert_eq!(server.ps()["supervisor"]["generation"], 1);
}

#[test]
fn worker_that_sends_garbage_to_the_state_process_loses_its_connection_alone() {
    let server = sharing().start();
    let (worker, state) = (server.worker().pid, server.state_pid());
    for name in [
        "garbage_to_the_state_process",
        "oversized_to_the_state_process",
    ] {
        assert_eq!(server.attack(name), WORKS, "{name}");
        server
            .log()
            .line_with("the connection to the state process ended");
        // It connects anew.
        eventually("the attack reaches the state process again", SOON, || {
            (server.attack("say_who_it_is_once_more") == WORKS).then_some(())
        });
        assert_eq!(
            server
                .control(["db", "query", "default", "SELECT 1 AS a"])
                .ok(),
            "a\n1\n"
        );
    }
    assert_eq!((server.worker().pid, server.state_pid()), (worker, state));
}

#[test]
fn worker_passes_no_descriptor_on() {
    let launch = sharing();
    let server = launch.clone().start();
    let control = launch.flag("--sandbox", "off").start();
    for name in [
        "pass_a_descriptor_to_the_state_process",
        "pass_a_descriptor_to_the_supervisor",
    ] {
        assert_eq!(server.attack(name), EPERM, "{name}");
        // What arrives is dropped there.
        let (supervisor, state) = (control.pid(), control.state_pid());
        let descriptors = |pid: i32| fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        let before = descriptors(state);
        // To the supervisor it is garbage besides.
        let came_of_it = control.attack(name);
        assert!(
            [WORKS, Attack::Killed].contains(&came_of_it),
            "{name}: {came_of_it:?}"
        );
        assert!(process::alive(supervisor));
        assert!(
            descriptors(state) <= before + 2,
            "the state process kept it"
        );
    }
}

#[test]
fn worker_cannot_be_another_or_an_operator() {
    let server = sharing().start();
    assert_eq!(server.attack("say_who_it_is_once_more"), WORKS);
    assert_eq!(server.attack("claim_to_be_an_operator"), EACCES);
    assert_eq!(server.attack("claim_another_generation"), EACCES);
}

#[test]
fn worker_that_falls_silent_is_replaced_within_the_sandbox() {
    let server = taken_over().start();
    let worker = server.worker().pid;
    // SIGABRT, which it may not keep from coming, ends it.
    assert_eq!(server.attack("stop_giving_signs_of_life"), Attack::Killed);
    server.when("another worker", Duration::from_secs(30), |workers| {
        workers
            .iter()
            .any(|other| other.pid != worker && other.is_ready())
    });
    assert_eq!(server.get("/").ok(), "hello\n");
}

#[test]
fn worker_that_floods_the_log_harms_nobody() {
    let server = taken_over().start();
    assert_eq!(server.attack("fill_the_log"), WORKS);
    assert_eq!(server.get("/").ok(), "hello\n");
    assert_eq!(server.worker().restarts, 0);
}
