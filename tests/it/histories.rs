//! Histories of locks and messages under random kills, checked as a whole; and the same checks on histories that are
//! wrong, which must be noticed.

use crate::serve;
use wrun_tests::murder::Victims;
use wrun_tests::{lock_history, queue_history};

#[test]
fn locks_are_exclusive_and_tokens_grow_while_workers_and_state_process_are_killed() {
    let server = serve("state_lock")
        .manifest("[locks.default]\n")
        .workers(4)
        .start();
    let (mut holdings, kills) = lock_history::record(&server, 600, Victims::Both);
    assert!(kills > 0);
    let faults = lock_history::faults(&holdings);
    assert!(faults.is_empty(), "{faults:#?}");
    // Three keys as if they were one: the check must notice.
    for holding in &mut holdings {
        holding.key = "one".to_owned();
    }
    assert!(!lock_history::faults(&holdings).is_empty());
}

#[test]
fn messages_are_handled_in_order_and_none_is_lost_while_workers_and_state_process_are_killed() {
    let sections = "[databases.default]\n[queues.jobs]\nmax-attempts = 20\nbackoff = \"10ms\"\n[consumers.jobs]";
    let server = serve("state_queue").manifest(sections).workers(2).start();
    let mut history = queue_history::record(&server, 40, Victims::Both);
    assert!(history.kills > 0);
    let faults = history.faults(20);
    assert!(faults.is_empty(), "{faults:#?}");
    // A message that was never handled, and one that overtook another: the check must notice both.
    let lost = history
        .tries
        .iter()
        .position(|one| one.first && one.body["do"] == "ack");
    let lost = history.tries.remove(lost.expect("messages were handled"));
    assert!(!history.faults(20).is_empty());
    history.tries.push(lost);
    assert!(!history.faults(20).is_empty());
}
