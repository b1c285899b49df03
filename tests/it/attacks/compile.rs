//! Components that are an attack by themselves: cases 6, 8, 10, 11, 14, 15 and 17.

use crate::wrun;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::time::{Duration, Instant};
use wrun_tests::components::{put, read, silent_handler};
use wrun_tests::guests::guest;
use wrun_tests::hostile::Hostile;
use wrun_tests::{Baseline, Launch, folder};

/// The largest part of compiling that a test waits for.
const CPU: &str = "2s";

/// Reloads a server that serves well to `component`, which must be refused or, with `may_pass`, may turn out harmless;
/// and checks that the old one went on meanwhile.
#[track_caller]
fn assert_refused_by_a_reload(what: &str, component: &[u8], flags: impl FnOnce(Launch) -> Launch) {
    let folder = folder();
    let path = put(folder.path(), &read(&guest("http_hello")));
    let server = flags(wrun().serve(&path))
        .flag("--compile-cpu", CPU)
        .start();
    let baseline = Baseline::of(&server);
    put(folder.path(), component);
    let start = Instant::now();
    let outcome = server.control(["reload"]);
    println!("{what}, after {:?}: {}", start.elapsed(), outcome.stderr);
    outcome.fails_with(65, &[]);
    assert_eq!(server.generation(), 1, "{what}");
    baseline.holds(&server);
}

/// Returns a component with this core module in it.
fn beside(module: &str) -> Vec<u8> {
    let beside = format!("(core module $beside {module}) (core instance (instantiate $beside))");
    Hostile {
        beside: &beside,
        ..Hostile::default()
    }
    .component()
}

fn as_it_is(launch: Launch) -> Launch {
    launch
}

#[test]
fn component_of_many_memories_or_instances_is_refused() {
    let memories = "(memory 1)".repeat(2000);
    assert_refused_by_a_reload("2000 memories", &beside(&memories), as_it_is);
    let mut instances = "(core module $one (memory 1))".to_owned();
    for number in 0..2000 {
        let _ = write!(instances, "(core instance $i{number} (instantiate $one))");
    }
    let hostile = Hostile {
        beside: &instances,
        ..Hostile::default()
    };
    assert_refused_by_a_reload("2000 instances", &hostile.component(), as_it_is);
}

#[test]
fn component_that_begins_with_more_memory_than_it_may_have_is_refused() {
    for (what, module) in [
        ("4 GiB", "(memory 65536)"),
        ("129 MiB", "(memory 2064)"),
        ("two memories of 65 MiB", "(memory 1040) (memory 1040)"),
        ("a table of 800 MB", "(table 100000000 funcref)"),
        (
            "data past the end",
            "(memory 1) (data (i32.const 0x7fffffff) \"x\")",
        ),
    ] {
        assert_refused_by_a_reload(what, &beside(module), as_it_is);
    }
}

#[test]
fn component_whose_start_never_ends_or_traps_is_refused() {
    let flags = |launch: Launch| launch.flag("--timeout", "1s").flag("--cpu", "1s");
    let module = "(func $start (loop (br 0))) (start $start)";
    assert_refused_by_a_reload("an endless start", &beside(module), flags);
    let module = "(func $start (unreachable)) (start $start)";
    assert_refused_by_a_reload("a start that traps", &beside(module), flags);
    let module = "(func $start (call $start)) (start $start)";
    assert_refused_by_a_reload("a start that recurses", &beside(module), flags);
}

#[test]
fn component_that_uses_what_is_switched_off_is_refused() {
    for (what, module) in [
        ("64-bit memory", "(memory i64 1)"),
        ("shared memory", "(memory 1 1 shared)"),
        (
            "atomics",
            "(memory 1) (func (drop (i32.atomic.load (i32.const 0))))",
        ),
        (
            "garbage collection",
            "(type $s (struct (field i32))) (func (drop (struct.new $s (i32.const 0))))",
        ),
        ("exceptions", "(tag $t) (func (throw $t))"),
        (
            "stack switching",
            "(type $f (func)) (type $c (cont $f)) (func (param (ref $c)) (resume $c (local.get 0)))",
        ),
        ("64-bit tables", "(table i64 1 funcref)"),
    ] {
        assert_refused_by_a_reload(what, &beside(module), as_it_is);
    }
}

#[test]
fn component_that_is_too_much_to_compile_is_refused() {
    let functions = "(func (result i64) (i64.const 7))".repeat(300_000);
    assert_refused_by_a_reload("300 000 functions", &beside(&functions), as_it_is);
    let blocks = format!(
        "(func {} {})",
        "block ".repeat(50_000),
        "end ".repeat(50_000)
    );
    let targets = "0 ".repeat(1_000_000);
    let tables = format!(
        "(func (param i32) (block {}))",
        format!("(br_table {targets} (local.get 0))").repeat(4)
    );
    for (what, module) in [
        ("50 000 blocks in each other", blocks),
        ("tables of a million branches", tables),
    ] {
        // Harmless or too much: what counts is that it comes to an end.
        let folder = folder();
        let path = put(folder.path(), &beside(&module));
        let start = Instant::now();
        let outcome = wrun().run([
            "compile".as_ref(),
            path.as_os_str(),
            "-o".as_ref(),
            folder.path().join("out.cwasm").as_os_str(),
        ]);
        println!("{what}, after {:?}: {outcome:?}", start.elapsed());
        assert!(matches!(outcome.code, Some(0 | 65)), "{what}: {outcome:?}");
        assert!(start.elapsed() < Duration::from_secs(120), "{what}");
    }
}

#[test]
fn damaged_component_is_refused_with_one_line_wherever_it_is_damaged() {
    const DAMAGES: usize = 60;
    let whole = silent_handler();
    let folder = folder();
    let output = folder.path().join("out.cwasm");
    let mut refused = 0;
    for number in 0..DAMAGES {
        let mut damaged = whole.clone();
        let at = 8 + number * (whole.len() - 8) / DAMAGES;
        match number % 3 {
            0 => damaged.truncate(at),
            1 => damaged[at] ^= 0x80,
            _ => damaged[at] = 0xff,
        }
        let path = put(folder.path(), &damaged);
        let outcome = wrun().run([
            "compile".as_ref(),
            path.as_os_str(),
            "-o".as_ref(),
            output.as_os_str(),
        ]);
        match outcome.code {
            // A byte of a name, say.
            Some(0) => {}
            _ => {
                outcome.fails_with(65, &[]);
                refused += 1;
            }
        }
    }
    assert!(refused > DAMAGES / 2, "{refused} of {DAMAGES} were noticed");
}

#[test]
fn component_of_a_gibibyte_is_refused_without_reading_it_into_memory() {
    let folder = folder();
    let path = folder.path().join("large.wasm");
    let mut file = File::create(&path).unwrap();
    // A section of a name and zeros, which take no room on the disk.
    file.write_all(b"\0asm\x0d\0\x01\0").unwrap();
    file.write_all(&[0, 0x80, 0x80, 0x80, 0x80, 0x04, 1, b'x'])
        .unwrap();
    file.set_len((1 << 30) + 14).unwrap();
    drop(file);
    let start = Instant::now();
    wrun().serve(&path).fail().fails_with(65, &[]);
    println!("after {:?}", start.elapsed());
}
