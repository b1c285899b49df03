//! A long run of requests, of which some trap and some are given up by their client: afterwards the workers hold as much as
//! before.

use crate::process;
use crate::server::Server;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Clients at a time.
const CLIENTS: u64 = 8;

/// Of so many requests one traps, and another one is given up.
const FAULT_EVERY: u64 = 200;

/// How often the workers are looked at.
const SAMPLES: u64 = 40;

/// The first part of a run, in which workers come to their size: one in so many samples.
const WARM_UP: usize = 4;

/// Neighbouring samples of which the lowest counts: a request that is being answered, and the 32 MiB that one given up may hold
/// at that moment, are no drift, while what stays is in every one of them.
const WINDOW: usize = 5;

/// What may be gained or lost from there to the end: of memory in proportion, and of descriptors.
const MEMORY_DRIFT_MAX: f64 = 0.02;
const MEMORY_DRIFT_MIN: f64 = (4 << 20) as f64;
const DESCRIPTOR_DRIFT_MAX: f64 = 3.0;

/// What the workers held at one time.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Requests until then.
    pub requests: u64,
    /// Their descriptors.
    pub descriptors: u64,
    /// Their memory, without what they share with files.
    pub rss_bytes: u64,
}

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Requests, and those of them that trapped or were given up.
    pub requests: u64,
    pub traps: u64,
    pub aborts: u64,
    /// Answers that were not the expected ones.
    pub wrong: u64,
    /// Workers that were replaced.
    pub restarts: u64,
    /// How long it took.
    pub took: Duration,
    /// What was seen on the way.
    pub samples: Vec<Sample>,
}

/// Sends so many requests to a server of the guest `attack_instance`.
///
/// # Panics
///
/// If the server refuses a connection.
pub fn run(server: &Server, requests: u64) -> Report {
    let pids: Vec<i32> = server.workers().iter().map(|worker| worker.pid).collect();
    let (sent, wrong) = (AtomicU64::new(0), AtomicU64::new(0));
    let start = Instant::now();
    let samples = thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| client(server, requests, &sent, &wrong));
        }
        sample(&pids, requests, &sent)
    });
    let after = server.workers();
    let replaced = after.iter().filter(|worker| !pids.contains(&worker.pid));
    Report {
        requests,
        traps: requests / FAULT_EVERY,
        aborts: requests / FAULT_EVERY,
        wrong: wrong.into_inner(),
        restarts: replaced.count() as u64,
        took: start.elapsed(),
        samples,
    }
}

fn client(server: &Server, requests: u64, sent: &AtomicU64, wrong: &AtomicU64) {
    let mut connection = server.connect();
    loop {
        let number = sent.fetch_add(1, Ordering::Relaxed);
        if number >= requests {
            return;
        }
        match number % FAULT_EVERY {
            1 => {
                connection.send_head("GET", "/hold", &[]);
                connection = server.connect();
                continue;
            }
            2 => connection.send_head("GET", "/unreachable", &[]),
            _ => connection.send_head("GET", "/", &[]),
        }
        let expected = if number % FAULT_EVERY == 2 { 500 } else { 200 };
        match connection.try_response() {
            Ok(response) if response.status == expected => {
                if response.closes() {
                    connection = server.connect();
                }
            }
            _ => {
                wrong.fetch_add(1, Ordering::Relaxed);
                connection = server.connect();
            }
        }
    }
}

/// Looks at the workers in regular steps until all requests are sent.
fn sample(pids: &[i32], requests: u64, sent: &AtomicU64) -> Vec<Sample> {
    let mut samples = Vec::new();
    for step in 1..=SAMPLES {
        let until = requests * step / SAMPLES;
        let sent = || sent.load(Ordering::Relaxed);
        while sent() < until {
            thread::sleep(Duration::from_millis(1));
        }
        let alive = pids.iter().filter(|pid| process::alive(**pid));
        let (mut descriptors, mut rss_bytes) = (0, 0);
        for pid in alive {
            descriptors += process::descriptors(*pid) as u64;
            rss_bytes += process::rss_bytes(*pid);
        }
        samples.push(Sample {
            requests: sent(),
            descriptors,
            rss_bytes,
        });
    }
    samples
}

impl Report {
    /// Returns what the workers gained from the end of the warm-up to the end, by the line that fits best what they never fell
    /// below.
    fn drift(&self, of: impl Fn(&Sample) -> u64) -> f64 {
        let samples = &self.samples[self.samples.len() / WARM_UP..];
        let (xs, ys): (Vec<f64>, Vec<f64>) = samples
            .chunks(WINDOW)
            .filter_map(|window| window.iter().min_by_key(|sample| of(sample)))
            .map(|sample| (sample.requests as f64, of(sample) as f64))
            .unzip();
        let count = xs.len() as f64;
        let (x, y) = (
            xs.iter().sum::<f64>() / count,
            ys.iter().sum::<f64>() / count,
        );
        let covariance: f64 = xs.iter().zip(&ys).map(|(a, b)| (a - x) * (b - y)).sum();
        let variance: f64 = xs.iter().map(|a| (a - x) * (a - x)).sum();
        let length = xs.last().unwrap_or(&0.0) - xs.first().unwrap_or(&0.0);
        covariance / variance * length
    }

    /// Returns what did not hold.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.wrong + self.restarts > 0 {
            faults.push(format!(
                "{} wrong answers, {} workers replaced",
                self.wrong, self.restarts
            ));
        }
        let descriptors = self.drift(|sample| sample.descriptors);
        if descriptors.abs() > DESCRIPTOR_DRIFT_MAX {
            faults.push(format!("descriptors changed by {descriptors:.1}"));
        }
        let memory = self.drift(|sample| sample.rss_bytes);
        let last = self.samples.last().map_or(0, |sample| sample.rss_bytes);
        if memory > (last as f64 * MEMORY_DRIFT_MAX).max(MEMORY_DRIFT_MIN) {
            faults.push(format!("memory grew by {memory:.0} bytes"));
        }
        faults
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for sample in &self.samples {
            let (requests, descriptors) = (sample.requests, sample.descriptors);
            let mib = sample.rss_bytes as f64 / f64::from(1 << 20);
            writeln!(
                f,
                "{requests:>12} requests {descriptors:>6} descriptors {mib:>9.1} MiB"
            )?;
        }
        let million = 1e6 / self.requests.max(1) as f64;
        writeln!(
            f,
            "{} requests in {:.0} s, {} of them trapped, {} were given up",
            self.requests,
            self.took.as_secs_f64(),
            self.traps,
            self.aborts
        )?;
        write!(
            f,
            "drift after the first quarter: {:+.1} descriptors, {:+.2} MiB; a million requests: {:+.2} descriptors, {:+.3} MiB",
            self.drift(|sample| sample.descriptors),
            self.drift(|sample| sample.rss_bytes) / f64::from(1 << 20),
            self.drift(|sample| sample.descriptors) * million / 0.75,
            self.drift(|sample| sample.rss_bytes) * million / 0.75 / f64::from(1 << 20),
        )
    }
}
