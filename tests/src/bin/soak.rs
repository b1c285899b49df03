//! `just soak [REQUESTS]`: a long run of requests, traps and clients that go away. Fails if descriptors or memory grow.
//!
//! Usage: soak [REQUESTS [BINARY]]

use std::process::ExitCode;
use wrun_tests::guests::guest;
use wrun_tests::{Wrun, repository, soak};

/// Enough to see, short enough to wait for.
const REQUESTS: u64 = 200_000;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let requests = args.next().map_or(REQUESTS, |requests| {
        requests
            .replace('_', "")
            .parse()
            .expect("REQUESTS is a number")
    });
    let binary = args
        .next()
        .map_or_else(|| repository().join("target/release/wrun"), Into::into);
    let server = Wrun::new(binary)
        .serve(guest("attack_instance"))
        .workers(2)
        .start();
    let report = soak::run(&server, requests);
    println!("{report}");
    let faults = report.faults();
    for fault in &faults {
        println!("{fault}");
    }
    if faults.is_empty() {
        println!("level");
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
