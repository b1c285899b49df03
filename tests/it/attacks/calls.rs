//! Calls to the host that ask for too much or are not what they should be: cases 18 to 29 and 31.

use super::Target;
use crate::serve;
use wrun_tests::hostile::Hostile;

/// Attacks in each of these ways; each must end as a trap, which is 500.
#[track_caller]
fn assert_traps(paths: &[&str]) {
    let target = Target::guest("attack_calls");
    for path in paths {
        target.answers("GET", path, 500);
    }
}

#[test]
fn handles_without_end_are_a_trap() {
    assert_traps(&[
        "/many-fields",
        "/many-pollables",
        "/many-timers",
        "/many-streams",
        "/many-requests",
    ]);
}

#[test]
fn handle_that_is_gone_forged_or_of_another_kind_is_a_trap() {
    assert_traps(&[
        "/use-after-drop",
        "/double-drop",
        "/forged",
        "/forged-zero",
        "/forged-largest",
        "/forged-kind",
    ]);
}

#[test]
fn argument_that_is_too_long_or_not_in_memory_is_a_trap() {
    assert_traps(&["/huge-value", "/outside", "/outside-all", "/result-outside"]);
}

#[test]
fn list_whose_items_overlap_is_counted_in_full_and_a_trap() {
    assert_traps(&["/quadratic"]);
}

#[test]
fn text_that_is_no_text_and_pointers_that_are_not_aligned_are_a_trap() {
    assert_traps(&["/no-utf8", "/half-utf8", "/surrogate", "/misaligned"]);
}

#[test]
fn text_in_utf_16_that_is_none_is_a_trap() {
    // `fields.append(name, value)`: a lone surrogate, an odd address, and a length beyond the memory.
    for (what, name, len) in [
        ("a lone surrogate", 64, 1),
        ("an odd address", 65, 1),
        ("a length past the end", 64, 0x7fff_ffff),
    ] {
        let call = format!(
            "(i32.store (i32.const 64) (i32.const 0xd800))
            (call $append (call $fields) (i32.const {name}) (i32.const {len}) (i32.const 64) (i32.const 0) (i32.const 128))"
        );
        let hostile = Hostile {
            on_post: &call,
            ..Hostile::default()
        };
        println!("{what}");
        Target::of(&hostile, |launch| launch).answers("POST", "/", 500);
    }
}

#[test]
fn case_that_a_variant_does_not_have_is_a_trap() {
    assert_traps(&["/no-method", "/no-scheme", "/no-option"]);
}

#[test]
fn calls_without_end_are_cpu_time_and_504() {
    let target = Target::start(serve("attack_calls").flag("--cpu", "500ms"));
    target.answers("GET", "/flood", 504);
    target.answers("GET", "/flood-log", 504);
}

#[test]
fn random_bytes_are_given_in_small_amounts_only() {
    let target = Target::guest("attack_calls");
    target.answers("GET", "/random-within?bytes=65536", 200);
    target.answers("GET", "/random-within?bytes=65537", 500);
    target.answers("GET", "/random", 500);
}

#[test]
fn wait_for_very_many_or_very_long_ends_with_its_time() {
    let target = Target::start(
        serve("attack_calls")
            .flag("--timeout", "1s")
            .flag("--cpu", "1s"),
    );
    for path in ["/sleep-for-ever", "/sleep-until-ever"] {
        target.answers("GET", path, 504);
    }
    // A million times the same timer: too much for one call, or for the time that there is.
    let response = target.server.get("/poll-many");
    assert!(matches!(response.status, 500 | 504), "{response:?}");
    target.is_unharmed();
}
