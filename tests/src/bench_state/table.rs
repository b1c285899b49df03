//! What all runs came to, printed as one table.

use super::{CELLS, Cell, Goal, Sample};
use crate::bench::figures::median;
use std::time::Duration;

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
            "{:<22} {:>7}  {:<8} {:>8} {:>17} {:>8} {:>8} {:>5} {:>7}  goal",
            "what", "clients", "by", "per s", "min – max", "p50 ms", "p99 ms", "fair", "× peer"
        );
        for cell in CELLS {
            let mut of_cell = self.entries.iter().filter(|entry| entry.cell == cell);
            let Some(first) = of_cell.next() else {
                continue;
            };
            let peers: Vec<_> = of_cell.collect();
            let label = format!("{:<22} {:>7}", cell.work.name(), cell.clients);
            let ratio = peers.first().map(|peer| first.rate() / peer.rate());
            println!("{label}  {}{}", first.figures(ratio), verdict(first, ratio));
            for peer in peers {
                println!("{:<30}  {}", "", peer.figures(None));
            }
        }
    }
}

impl Entry {
    /// Returns the operations per second of the median round.
    fn rate(&self) -> f64 {
        median(self.samples.iter().map(|sample| sample.rate)).unwrap_or(0.0)
    }

    fn figures(&self, ratio: Option<f64>) -> String {
        if let Some(error) = &self.error {
            return format!("{:<8} failed: {error}", self.name);
        }
        let rates = || self.samples.iter().map(|sample| sample.rate);
        let least = rates().fold(f64::INFINITY, f64::min);
        let most = rates().fold(0.0, f64::max);
        let fair = self.samples.iter().map(|sample| sample.fairness);
        let ms = |time: fn(&Sample) -> Duration| {
            let times = self
                .samples
                .iter()
                .map(|sample| time(sample).as_secs_f64() * 1e3);
            median(times).unwrap_or(0.0)
        };
        format!(
            "{:<8} {:>8.0} {:>17} {:>8.3} {:>8.3} {:>5.2} {:>7}",
            self.name,
            self.rate(),
            format!("{least:.0} – {most:.0}"),
            ms(|sample| sample.p50),
            ms(|sample| sample.p99),
            fair.fold(f64::INFINITY, f64::min),
            ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}")),
        )
    }
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
