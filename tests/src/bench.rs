//! What `just bench` measures: the same requests answered by wrun and by who else answers HTTP, in turn, several times.
//!
//! What is measured is in `scenario`, who answers in `contender`, who asks in `closed_loop` and `fixed_rate`. `machine` and
//! `figures` serve `just bench-state`, too.

pub mod closed_loop;
pub mod contender;
pub mod deploys;
pub mod figures;
pub mod fixed_rate;
pub mod guests;
pub mod hogs;
pub mod machine;
pub mod report;
pub mod requests;
pub mod running;
pub mod scenario;
pub mod starts;
pub mod table;

use serde::Serialize;
use std::time::Duration;

/// What came of driving one server for a while. All of it is of single requests but for `rate` and memory.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Sample {
    /// Requests that were answered well, per second.
    pub rate: f64,
    /// How long half of the requests took at most.
    pub p50_ms: f64,
    /// How long 99 of 100 requests took at most.
    pub p99_ms: f64,
    /// How long 999 of 1000 requests took at most.
    pub p999_ms: f64,
    /// CPU time of the server's processes, if they did nothing else.
    pub cpu_us: Option<f64>,
    /// CPU time of who asked.
    pub load_cpu_us: f64,
    /// Resident memory of the server's processes, what they share counted for each.
    pub rss_mib: f64,
    /// The same with what they share counted once.
    pub pss_mib: f64,
    /// Requests that failed, or that were due and could not be sent.
    pub errors: u64,
}

/// What those who asked for a while say about it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Answers {
    /// Requests that were answered well.
    pub good: u64,
    /// Requests that failed, whatever the cause, or that were due and could not be sent.
    pub errors: u64,
    /// How long it took.
    pub took: Duration,
    /// How long half of the requests took at most.
    pub p50: Duration,
    /// How long 99 of 100 requests took at most.
    pub p99: Duration,
    /// How long 999 of 1000 requests took at most.
    pub p999: Duration,
    /// CPU time that asking took.
    pub cpu: Duration,
}
