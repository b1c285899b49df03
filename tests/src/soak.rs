//! A long run of requests, of which some trap and some are given up by their client: afterwards the workers hold as much as
//! before.

use crate::http1::Connection;
use crate::process;
use crate::server::{Server, Worker};
use crate::wait::SOON;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Clients at a time.
const CLIENTS: u64 = 8;

/// Of so many requests one traps, and another one is given up.
const FAULT_EVERY: u64 = 200;

/// How often the workers are looked at.
const LOOKS: u64 = 20;

/// The first part of a run, in which workers come to their size: one in so many looks.
const WARM_UP: usize = 4;

/// What may be gained or lost from there to the end: of memory in proportion, and of descriptors.
const MEMORY_DRIFT_MAX: f64 = 0.02;
const MEMORY_DRIFT_MIN: f64 = (4 << 20) as f64;
const DESCRIPTOR_DRIFT_MAX: f64 = 3.0;

/// What the workers held while they had nothing to do.
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
    let load = Load {
        server,
        sent: AtomicU64::new(0),
        answered: AtomicU64::new(0),
        wrong: AtomicU64::new(0),
    };
    let start = Instant::now();
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| server.connect()).collect();
    let mut samples = Vec::new();
    for look in 1..=LOOKS {
        let until = requests * look / LOOKS;
        thread::scope(|scope| {
            for client in &mut clients {
                scope.spawn(|| load.send(client, until));
            }
        });
        load.wait_until_idle();
        samples.push(look_at(&pids, until));
    }
    let after = server.workers();
    let replaced = after.iter().filter(|worker| !pids.contains(&worker.pid));
    Report {
        requests,
        traps: requests / FAULT_EVERY,
        aborts: requests / FAULT_EVERY,
        wrong: load.wrong.into_inner(),
        restarts: replaced.count() as u64,
        took: start.elapsed(),
        samples,
    }
}

/// What all clients send together.
struct Load<'a> {
    server: &'a Server,
    sent: AtomicU64,
    answered: AtomicU64,
    wrong: AtomicU64,
}

impl Load<'_> {
    /// Sends requests until all clients together have sent so many.
    fn send(&self, connection: &mut Connection, until: u64) {
        let next = |sent: u64| (sent < until).then_some(sent + 1);
        while let Ok(number) = self
            .sent
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
        {
            let (path, expected) = match number % FAULT_EVERY {
                1 => {
                    connection.send_head("GET", "/hold", &[]);
                    *connection = self.server.connect();
                    continue;
                }
                2 => ("/unreachable", 500),
                _ => ("/", 200),
            };
            connection.send_head("GET", path, &[]);
            let response = connection.try_response();
            let right = matches!(&response, Ok(response) if response.status == expected);
            let counted = if right { &self.answered } else { &self.wrong };
            counted.fetch_add(1, Ordering::Relaxed);
            let open = response.is_ok_and(|response| !response.closes());
            if !open {
                *connection = self.server.connect();
            }
        }
    }

    /// Waits until the workers say that they have answered everything, and have given up what nobody waits for: such a request
    /// may hold 32 MiB and a descriptor, which are no drift. Wrong answers are a fault anyway, and need no exact count.
    fn wait_until_idle(&self) {
        let answered = self.answered.load(Ordering::Relaxed);
        let what = format!("{answered} requests answered, and nothing left to do");
        self.server.when(&what, SOON, |workers| {
            let sum = |of: fn(&Worker) -> u64| workers.iter().map(of).sum::<u64>();
            sum(|worker| worker.in_flight) == 0
                && sum(|worker| worker.connections) == CLIENTS
                && (sum(|worker| worker.requests) >= answered)
        });
    }
}

fn look_at(pids: &[i32], requests: u64) -> Sample {
    let alive = || pids.iter().copied().filter(|pid| process::alive(*pid));
    Sample {
        requests,
        descriptors: alive().map(|pid| process::descriptors(pid) as u64).sum(),
        rss_bytes: alive().map(process::rss_bytes).sum(),
    }
}

impl Report {
    /// Returns what the workers gained from the end of the warm-up to the end, by the line that fits best.
    fn drift(&self, of: impl Fn(&Sample) -> u64) -> f64 {
        let samples = &self.samples[self.samples.len() / WARM_UP..];
        let (xs, ys): (Vec<f64>, Vec<f64>) = samples
            .iter()
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
