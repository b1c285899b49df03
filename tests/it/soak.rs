//! A short form of the soak (`just soak`), so that `cargo test` alone would notice what adds up quickly.

use crate::serve;
use wrun_tests::soak::{self, Report, Sample};

#[test]
fn descriptors_and_memory_are_level_after_thousands_of_requests_traps_and_aborts() {
    let server = serve("attack_instance").workers(2).start();
    let report = soak::run(&server, 8000);
    println!("{report}");
    assert_eq!(report.faults(), [""; 0]);
}

#[test]
fn soak_notices_what_grows() {
    let samples = |descriptors: u64, bytes: u64| Report {
        samples: (0..40)
            .map(|step| Sample {
                requests: step * 1000,
                descriptors: 40 + descriptors * step / 40,
                rss_bytes: (100 << 20) + bytes * step / 40,
            })
            .collect(),
        ..Report::default()
    };
    assert_eq!(samples(0, 0).faults(), [""; 0]);
    assert_eq!(samples(20, 0).faults().len(), 1);
    assert_eq!(samples(0, 20 << 20).faults().len(), 1);
    let wrong = Report {
        wrong: 1,
        ..samples(0, 0)
    };
    assert_eq!(wrong.faults().len(), 1);
}
