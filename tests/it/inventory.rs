//! `examples/inventory`: a stock that cannot be oversold, in three ways, whoever is killed; and a fourth way that can.

use crate::wrun;
use wrun_tests::guests::example;
use wrun_tests::murder::Victims;
use wrun_tests::sale::{Report, Sale, Way};

fn hold(way: Way, victims: Victims) -> Report {
    let server = wrun().serve(example("inventory")).workers(4).start();
    let sale = Sale {
        way,
        stock: 150,
        buyers: 250,
        victims,
    };
    sale.hold(&server)
}

#[track_caller]
fn assert_sound(way: Way, victims: Victims) {
    let report = hold(way, victims);
    assert!(report.faults.is_empty(), "{report:#?}");
    assert!(
        victims == Victims::Nobody || report.kills > 0,
        "{report:#?}"
    );
}

#[test]
fn sale_in_transactions_does_not_oversell_while_workers_and_state_process_are_killed() {
    assert_sound(Way::Db, Victims::Both);
}

#[test]
fn sale_under_a_lock_does_not_oversell_while_workers_and_state_process_are_killed() {
    assert_sound(Way::Lock, Victims::Both);
}

#[test]
fn sale_through_a_queue_does_not_oversell_while_workers_and_state_process_are_killed() {
    assert_sound(Way::Queue, Victims::Both);
}

#[test]
fn sale_from_memory_oversells_and_the_check_notices() {
    let report = hold(Way::Memory, Victims::Nobody);
    assert!(!report.faults.is_empty(), "{report:#?}");
    assert!(report.stats.orders > report.stats.stock, "{report:#?}");
}
