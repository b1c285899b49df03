//! What all runs came to, printed as one table.

use super::{CELLS, Cell, Goal, Sample};
use crate::bench::figures::median;

/// How much longer an operation is to take through wrun than with a server's own client.
const OVERHEAD_MAX: f64 = 1.5;

/// The samples of a run, in the order in which they were taken.
#[derive(Debug, Default)]
pub struct Table {
    entries: Vec<Entry>,
}

/// What a contender did in a cell.
#[derive(Debug)]
struct Entry {
    cell: Cell,
    name: &'static str,
    samples: Vec<Sample>,
    /// Why there are fewer samples than rounds.
    error: Option<String>,
}

impl Table {
    /// Notes what a run came to.
    pub fn add(&mut self, cell: Cell, name: &'static str, result: Result<Sample, String>) {
        let known = |entry: &&mut Entry| entry.cell == cell && entry.name == name;
        let entry = match self.entries.iter_mut().find(known) {
            Some(entry) => entry,
            None => self.entries.push_mut(Entry {
                cell,
                name,
                samples: Vec::new(),
                error: None,
            }),
        };
        match result {
            Ok(sample) => entry.samples.push(sample),
            Err(error) => entry.error = Some(error),
        }
    }

    /// Prints all of it.
    pub fn print(&self) {
        println!(
            "{:<22} {:>7}  {:<13} {:>8} {:>17} {:>8} {:>8} {:>5} {:>7}  goal",
            "what", "clients", "by", "per s", "min – max", "p50 ms", "p99 ms", "fair", "× peer"
        );
        for cell in CELLS {
            let mut of_cell = self.entries.iter().filter(|entry| entry.cell == cell);
            let Some(first) = of_cell.next() else {
                continue;
            };
            let peers: Vec<_> = of_cell.collect();
            let label = format!("{:<22} {:>7}", cell.work.name(), cell.clients);
            let peer = peers.iter().find(|peer| !peer.is_wrun());
            let ratio = peer.map(|peer| first.rate() / peer.rate());
            println!("{label}  {}{}", first.figures(ratio), verdict(first, ratio));
            for peer in &peers {
                let native = peers.iter().find(|it| peer.goes_through(it));
                let overhead = native.map(|native| peer.p50() / native.p50());
                println!("{:<30}  {}{}", "", peer.figures(None), cost(overhead));
            }
        }
    }
}

impl Entry {
    fn is_wrun(&self) -> bool {
        self.name.starts_with("wrun")
    }

    /// Tells whether this is wrun on a server, and the other one the server's own client.
    fn goes_through(&self, other: &Self) -> bool {
        self.name.strip_prefix("wrun/") == Some(other.name)
    }

    /// Returns the median of the rounds' p50, in milliseconds.
    fn p50(&self) -> f64 {
        let times = self.samples.iter().map(|it| it.p50.as_secs_f64() * 1e3);
        median(times).unwrap_or(0.0)
    }

    /// Returns the operations per second of the median round.
    fn rate(&self) -> f64 {
        median(self.samples.iter().map(|sample| sample.rate)).unwrap_or(0.0)
    }

    fn figures(&self, ratio: Option<f64>) -> String {
        if let Some(error) = &self.error {
            return format!("{:<13} failed: {error}", self.name);
        }
        let rates = || self.samples.iter().map(|sample| sample.rate);
        let least = rates().fold(f64::INFINITY, f64::min);
        let most = rates().fold(0.0, f64::max);
        let fair = self.samples.iter().map(|sample| sample.fairness);
        let p99 = self.samples.iter().map(|it| it.p99.as_secs_f64() * 1e3);
        format!(
            "{:<13} {:>8.0} {:>17} {:>8.3} {:>8.3} {:>5.2} {:>7}",
            self.name,
            self.rate(),
            format!("{least:.0} – {most:.0}"),
            self.p50(),
            median(p99).unwrap_or(0.0),
            fair.fold(f64::INFINITY, f64::min),
            ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}")),
        )
    }
}

/// Says what going through wrun costs, and whether it is more than was hoped for.
fn cost(overhead: Option<f64>) -> String {
    let Some(overhead) = overhead else {
        return String::new();
    };
    let reached = match overhead <= OVERHEAD_MAX {
        true => "reached",
        false => "not reached",
    };
    format!("  {overhead:.2} × its p50; ≤ {OVERHEAD_MAX}: {reached}")
}

/// Says what was hoped for, and whether it came true.
fn verdict(entry: &Entry, ratio: Option<f64>) -> String {
    let (goal, reached) = match entry.cell.goal() {
        None => return String::new(),
        Some(Goal::TimesPeer(times)) => (
            format!("≥ {times} × peer"),
            ratio.map(|ratio| ratio >= times),
        ),
        Some(Goal::PerSecond(rate)) => (format!("≥ {rate}/s"), Some(entry.rate() >= rate)),
    };
    let reached = match reached {
        Some(true) => "reached",
        Some(false) => "not reached",
        None => "no peer",
    };
    format!("  {goal}: {reached}")
}
