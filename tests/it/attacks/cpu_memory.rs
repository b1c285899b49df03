//! Time, memory and stack of one instance: cases 1 to 13 and 30.

use super::Target;
use crate::serve;
use std::thread;
use std::time::Duration;
use wrun_tests::hostile::Hostile;
use wrun_tests::process;

/// What the worker may do before it answers somebody else, in the middle of all who ask: in its own time, because the
/// machine runs other tests, too.
const WAIT_MAX: Duration = Duration::from_millis(50);

/// Has others ask for something small while `attack` runs; returns how long the worker did something else first, in the
/// middle.
fn median_wait(target: &Target, attack: impl FnOnce() + Send) -> Duration {
    let pid = target.server.worker().pid;
    thread::scope(|scope| {
        let attack = scope.spawn(attack);
        target.server.when_in_flight(1);
        let mut waits = Vec::new();
        let mut connection = target.server.connect();
        while !attack.is_finished() && waits.len() < 200 {
            let before = process::on_cpu(pid);
            assert_eq!(connection.get("/").status, 200);
            waits.push(process::on_cpu(pid) - before);
        }
        attack.join().expect("the attack was answered as expected");
        waits.sort_unstable();
        println!("{} waited up to {:?}", waits.len(), waits.last());
        waits[waits.len() / 2]
    })
}

/// Attacks with GET `path` and lets others ask at the same time.
#[track_caller]
fn assert_others_go_on(path: &str, status: u16) {
    let launch = serve("attack_instance").flag("--cpu", "2s");
    let target = Target::start(launch);
    let wait = median_wait(&target, || {
        assert_eq!(target.server.get(path).status, status);
    });
    println!("{path}: {wait:?}");
    assert!(wait < WAIT_MAX, "others waited {wait:?}");
    target.is_unharmed();
}

#[test]
fn endless_loop_is_504_and_others_go_on() {
    assert_others_go_on("/loop", 504);
}

#[test]
fn endless_fill_and_copy_of_memory_is_504_and_others_go_on() {
    assert_others_go_on("/fill?mib=100", 504);
}

#[test]
fn fills_of_all_memory_end_soon_after_the_cpu_time_that_there_is() {
    // One instruction is never interrupted: how long it takes is bounded by the memory that there may be.
    let hostile = Hostile {
        on_post: "(drop (memory.grow (i32.const 2000)))
            (loop
                (memory.fill (i32.const 4096) (i32.const 7) (i32.const 130000000))
                (memory.copy (i32.const 4096) (i32.const 8192) (i32.const 130000000))
                (br 0))",
        ..Hostile::default()
    };
    let target = Target::of(&hostile, |launch| launch.flag("--cpu", "300ms"));
    let pid = target.server.worker().pid;
    let before = process::on_cpu(pid);
    target.answers("POST", "/", 504);
    let used = process::on_cpu(pid) - before;
    println!("used {used:?}");
    assert!(
        used < Duration::from_millis(1300),
        "it went on for {used:?}"
    );
}

#[test]
fn endless_recursion_is_500() {
    Target::guest("attack_instance").answers("GET", "/recurse", 500);
}

#[test]
fn call_back_into_the_host_is_500() {
    // The host calls `realloc` for the name of a method; that calls the host.
    let hostile = Hostile {
        realloc: "(drop (call $fields)) (i32.const 1024)",
        ..Hostile::default()
    };
    Target::of(&hostile, |launch| launch).answers("PURGE", "/", 500);
}

#[test]
fn endless_recursion_or_loop_on_behalf_of_the_host_is_ended() {
    let hostile = Hostile {
        realloc: "(call 1 (local.get 0) (local.get 1) (local.get 2) (local.get 3))",
        ..Hostile::default()
    };
    Target::of(&hostile, |launch| launch).answers("PURGE", "/", 500);
    let hostile = Hostile {
        realloc: "(loop (br 0)) (unreachable)",
        ..Hostile::default()
    };
    let flags = |launch: wrun_tests::Launch| launch.flag("--cpu", "300ms");
    Target::of(&hostile, flags).answers("PURGE", "/", 504);
}

#[test]
fn memory_grows_to_its_limit_and_no_further() {
    let target = Target::guest("attack_instance");
    let mib: usize = target.answers("GET", "/grow", 200).trim().parse().unwrap();
    assert!((100..=128).contains(&mib), "{mib} MiB");
    target.answers("GET", "/bomb", 500);
}

#[test]
fn table_grows_to_its_limit_and_no_further() {
    let hostile = Hostile {
        declarations: "(table $all 1 funcref)",
        // What is over 16 million elements would be over 128 MiB.
        on_post: "(loop $again
                (br_if $again (i32.ne (i32.const -1) (table.grow $all (ref.null func) (i32.const 1000)))))
            (if (i32.gt_u (table.size $all) (i32.const 16000000)) (then (unreachable)))",
        ..Hostile::default()
    };
    Target::of(&hostile, |launch| launch).answers("POST", "/", 200);
}

#[test]
fn memory_that_is_allocated_and_held_ends_with_its_time() {
    let target = Target::start(serve("attack_instance").flag("--timeout", "500ms"));
    target.answers("GET", "/hold", 504);
    target.answers("GET", "/sleep", 504);
}

#[test]
fn thousand_bombs_at_a_time_leave_the_worker_alive() {
    const BOMBS: usize = 1000;
    const CLIENTS: usize = 50;
    let launch = serve("attack_instance")
        .flag("--memory", "16MiB")
        .flag("--in-flight", "8");
    let target = Target::start(launch);
    let bomb = |_| {
        let statuses = (0..BOMBS / CLIENTS).map(|_| target.server.get("/hoard").status);
        statuses.collect::<Vec<_>>()
    };
    let statuses: Vec<u16> = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| scope.spawn(move || bomb(client)))
            .collect();
        let all = clients.into_iter().map(|client| client.join().unwrap());
        all.flatten().collect()
    });
    let count = |wanted| statuses.iter().filter(|status| **status == wanted).count();
    assert_eq!(count(200) + count(503), BOMBS, "{statuses:?}");
    // 50 clients are more than 8 places, and 16 to wait in.
    assert!(count(200) > 0 && count(503) > 0, "{statuses:?}");
    target.is_unharmed();
}

#[test]
fn every_sudden_end_of_a_guest_is_500_for_itself_alone() {
    let target = Target::guest("attack_instance");
    for path in ["/exit", "/exit-well", "/abort", "/unreachable", "/null"] {
        target.answers("GET", path, 500);
    }
}
