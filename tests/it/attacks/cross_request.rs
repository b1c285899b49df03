//! What one request leaves behind for the next, which is nothing: case 64.
//!
//! Pairs of requests: the first leaves marks in all of its memory, its table and its global, and grows both; the second
//! looks at every byte, element and size of its own. `WRUN_CANARY_PAIRS` says how many pairs there are.

use super::Target;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use wrun_tests::Connection;
use wrun_tests::hostile::Hostile;

/// Enough to reuse every slot many times; 100 000 by hand.
const PAIRS: usize = 2000;

const CLIENTS: usize = 4;

const DECLARATIONS: &str = r#"
    (global $mark (mut i64) (i64.const 1))
    (table $table 16 funcref)
    (func $marked)
    (elem declare func $marked)
    (func $leave
        (drop (memory.grow (i32.const 32)))
        (memory.fill (i32.const 32) (i32.const 0xa5)
            (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 32)))
        (global.set $mark (i64.const 0xa5a5a5a5))
        (drop (table.grow $table (ref.func $marked) (i32.const 16)))
        (table.fill $table (i32.const 0) (ref.func $marked) (table.size $table)))
    (func $check-memory (param $at i32) (param $end i32)
        (loop $next
            (if (i64.ne (i64.load (local.get $at))
                    (select (i64.const 0x6c616e696769726f) (i64.const 0) (i32.eq (local.get $at) (i32.const 4096))))
                (then (unreachable)))
            (local.set $at (i32.add (local.get $at) (i32.const 8)))
            (br_if $next (i32.lt_u (local.get $at) (local.get $end)))))
    (func $check (param $pages i32)
        (local $at i32)
        (if (i64.ne (global.get $mark) (i64.const 1)) (then (unreachable)))
        (if (i32.ne (memory.size) (local.get $pages)) (then (unreachable)))
        (if (i32.ne (table.size $table) (i32.const 16)) (then (unreachable)))
        (loop $next
            (if (i32.eqz (ref.is_null (table.get $table (local.get $at)))) (then (unreachable)))
            (local.set $at (i32.add (local.get $at) (i32.const 1)))
            (br_if $next (i32.lt_u (local.get $at) (i32.const 16))))
        (drop (memory.grow (i32.const 32)))
        (call $check-memory (i32.const 32) (i32.mul (memory.size) (i32.const 65536))))
"#;

/// Sends this many pairs, in turn on several connections, and returns how many second requests found something.
fn leaks(target: &Target, pairs: usize, leave_status: u16) -> usize {
    let left = AtomicUsize::new(pairs);
    let next = || {
        left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            left.checked_sub(1)
        })
    };
    let client = || {
        let mut leaks = 0;
        let mut connection = target.server.connect();
        while next().is_ok() {
            let left = exchange(target, &mut connection, "POST");
            assert_eq!(left, leave_status);
            let looked = exchange(target, &mut connection, "GET");
            leaks += usize::from(looked != 200);
        }
        leaks
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        clients
            .into_iter()
            .map(|client| client.join().expect("every request is answered"))
            .sum()
    })
}

fn exchange(target: &Target, connection: &mut Connection, method: &str) -> u16 {
    let response = connection.exchange(method, "/", &[], &[]);
    if response.closes() {
        *connection = target.server.connect();
    }
    response.status
}

/// Tries both ways in which a worker cleans a memory, which depends on its size, and both ways in which a guest can end.
fn each(try_one: impl Fn(&Hostile, bool)) {
    for pages in [2, 16] {
        let memory =
            format!("(memory (export \"memory\") {pages}) (data (i32.const 4096) \"original\")");
        let check = format!("(call $check (i32.const {pages}))");
        for traps in [false, true] {
            let hostile = Hostile {
                memory: &memory,
                declarations: DECLARATIONS,
                on_post: if traps {
                    "(call $leave) (unreachable)"
                } else {
                    "(call $leave)"
                },
                on_put: &format!("(call $leave) {check}"),
                on_get: &check,
                ..Hostile::default()
            };
            try_one(&hostile, traps);
        }
    }
}

#[test]
fn nothing_that_a_request_leaves_in_memory_table_or_globals_is_there_in_the_next() {
    let pairs = std::env::var("WRUN_CANARY_PAIRS").map_or(PAIRS, |pairs| {
        pairs.parse().expect("WRUN_CANARY_PAIRS is a number")
    });
    each(|hostile, traps| {
        let target = Target::of(hostile, |launch| launch.flag("--in-flight", "2"));
        let leaks = leaks(&target, pairs / 4, if traps { 500 } else { 200 });
        assert_eq!(leaks, 0, "of {pairs} pairs");
        target.is_unharmed();
    });
    println!("{pairs} pairs");
}

#[test]
fn check_for_what_was_left_notices_it() {
    // The same marks and the same look at them, in one request.
    each(|hostile, _| {
        let target = Target::of(hostile, |launch| launch);
        target.answers("PUT", "/", 500);
    });
    // And each kind of mark by itself.
    for mark in [
        "(i32.store8 (i32.const 131000) (i32.const 1))",
        "(i32.store8 (i32.const 4096) (i32.const 0))",
        "(global.set $mark (i64.const 2))",
        "(table.set $table (i32.const 15) (ref.func $marked))",
        "(drop (table.grow $table (ref.null func) (i32.const 1)))",
        "(drop (memory.grow (i32.const 1)))",
    ] {
        let hostile = Hostile {
            memory: "(memory (export \"memory\") 2) (data (i32.const 4096) \"original\")",
            declarations: DECLARATIONS,
            on_put: &format!("{mark} (call $check (i32.const 2))"),
            ..Hostile::default()
        };
        Target::of(&hostile, |launch| launch).answers("PUT", "/", 500);
    }
    let hostile = Hostile {
        memory: "(memory (export \"memory\") 2) (data (i32.const 4096) \"original\")",
        declarations: DECLARATIONS,
        on_put: "(call $check (i32.const 2))",
        ..Hostile::default()
    };
    Target::of(&hostile, |launch| launch).answers("PUT", "/", 200);
}
