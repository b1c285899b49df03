//! Clients that work side by side for a given time, and what they got done together.

use super::Sample;
use crate::bench::figures::quantile;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};

/// What a client's thread needs: it waits for bytes and counts.
const STACK: usize = 256 << 10;

/// What one client got done.
#[derive(Debug)]
pub struct Share {
    /// Its operations.
    pub operations: u64,
    /// From the common start to its last answer.
    pub took: Duration,
    /// How long its operations took.
    pub times: Times,
}

/// How long operations took.
#[derive(Debug)]
pub enum Times {
    /// Each of them.
    All(Vec<Duration>),
    /// What is known of pieces of work, each of so many operations.
    Pieces {
        /// Operations of a piece.
        size: u32,
        /// The median of each piece, and what 99 of 100 of its operations did not exceed.
        pieces: Vec<(Duration, Duration)>,
    },
}

/// Runs clients at once: each gets its number and the moment after which it begins nothing more.
///
/// # Errors
///
/// What the first client that failed says.
///
/// # Panics
///
/// If there are no threads left.
pub fn run<S: Send>(
    clients: usize,
    time: Duration,
    open: impl Fn(usize) -> Result<S, String> + Sync,
    work: impl Fn(S, Instant) -> Result<Share, String> + Sync,
) -> Result<Vec<Share>, String> {
    let ready = Barrier::new(clients);
    let client = |number| {
        let opened = open(number);
        ready.wait();
        work(opened?, Instant::now() + time)
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..clients)
            .map(|number| {
                thread::Builder::new()
                    .stack_size(STACK)
                    .spawn_scoped(scope, move || client(number))
                    .expect("a thread can be started")
            })
            .collect();
        let shares = threads.into_iter().map(|thread| match thread.join() {
            Ok(share) => share,
            Err(_) => Err("a client panicked".to_owned()),
        });
        shares.collect()
    })
}

/// Does something again and again until `end`, each time once the time before is done.
///
/// # Errors
///
/// What it fails with.
pub async fn repeat<E>(
    end: Instant,
    mut once: impl AsyncFnMut() -> Result<(), E>,
) -> Result<Share, E> {
    let begin = Instant::now();
    let mut times = Vec::new();
    loop {
        let start = Instant::now();
        if start >= end {
            break;
        }
        once().await?;
        times.push(start.elapsed());
    }
    Ok(Share {
        operations: times.len() as u64,
        took: begin.elapsed(),
        times: Times::All(times),
    })
}

/// Returns an event loop for one client.
///
/// # Errors
///
/// What the system says.
pub fn event_loop() -> Result<Runtime, String> {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| error.to_string())
}

/// Returns what clients got done together. Each one's pace counts up to its own last answer, so that the wait for the
/// slowest one is no loss.
pub fn sum(shares: &[Share]) -> Result<Sample, String> {
    let paces: Vec<f64> = shares
        .iter()
        .map(|share| share.operations as f64 / share.took.as_secs_f64())
        .collect();
    let (p50, p99) = latencies(shares).ok_or("no client got anything done")?;
    Ok(Sample {
        rate: paces.iter().sum(),
        p50,
        p99,
        fairness: fairness(paces.iter().copied()),
    })
}

/// Returns what the slowest client did in parts of what the fastest one did.
pub fn fairness(done: impl Iterator<Item = f64> + Clone) -> f64 {
    let least = done.clone().fold(f64::INFINITY, f64::min);
    let most = done.fold(0.0, f64::max);
    if most > 0.0 { least / most } else { 0.0 }
}

/// Returns p50 and p99 of all operations.
fn latencies(shares: &[Share]) -> Option<(Duration, Duration)> {
    let (mut medians, mut tails) = (Vec::new(), Vec::new());
    let mut tail = 0.99_f64;
    for share in shares {
        match &share.times {
            Times::All(times) => {
                medians.extend(times);
                tails.extend(times);
            }
            Times::Pieces { size, pieces } => {
                medians.extend(pieces.iter().map(|(median, _)| median));
                tails.extend(pieces.iter().map(|(_, tail)| tail));
                tail = tail_of_pieces(*size);
            }
        }
    }
    medians.sort_unstable();
    tails.sort_unstable();
    Some((quantile(&medians, 0.5)?, quantile(&tails, tail)?))
}

/// Returns which part of the pieces' tails does not exceed the p99 of all operations.
///
/// The tail of up to 100 operations is the slowest of them, which is over the p99 of all in all but 0.99ⁿ of the pieces, if
/// they take as long in each piece. That of more operations is the piece's own p99.
fn tail_of_pieces(size: u32) -> f64 {
    match size {
        0..=100 => 0.99_f64.powi(size.cast_signed()),
        _ => 0.5,
    }
}
