//! A short form of the fault run (`just faults`), so that `cargo test` alone would notice.

use crate::serve;
use wrun_tests::faults::{Faults, Phase};

#[test]
fn fault_run_keeps_its_promises() {
    let faults = Faults::new(serve("http_hello").workers(2), 5);
    for phase in Phase::ALL {
        let report = faults.run(phase);
        assert!(report.broken_promises.is_empty(), "{phase:?}: {report:?}");
    }
}

#[test]
fn fault_run_notices_a_reload_that_drops_requests() {
    let faults = Faults::new(serve("http_hello").workers(2), 5);
    let report = faults.run(Phase::Control);
    assert!(!report.broken_promises.is_empty(), "{report:?}");
}
