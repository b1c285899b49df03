//! `examples/payments`: an order and its message in one transaction, and a consumer that charges each order once.

use crate::wrun;
use wrun_tests::checkout;
use wrun_tests::guests::example;
use wrun_tests::murder::Victims;

#[test]
fn nobody_is_charged_twice_while_workers_and_state_process_are_killed() {
    let server = wrun().serve(example("payments")).workers(2).start();
    let report = checkout::run(&server, 90, Victims::Both);
    assert!(report.faults.is_empty(), "{report:#?}");
    assert!(report.kills > 0, "{report:#?}");
}
