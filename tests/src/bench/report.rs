//! Samples of a scenario as a table, and whether what was hoped for came true.

use super::Sample;
use super::contender::Contender;
use super::deploys::Deploys;
use super::figures::{median, range};
use super::scenario::Goal;
use super::starts::Start;
use super::table::Table;
use serde::Serialize;

/// What one contender did in a scenario, by rounds.
#[derive(Debug, Serialize)]
pub struct Entry<T> {
    /// Who.
    pub contender: Contender,
    /// What came of each round.
    pub rounds: Vec<Result<T, String>>,
}

impl<T> Entry<T> {
    /// Has done nothing yet.
    pub fn new(contender: Contender) -> Self {
        Self {
            contender,
            rounds: Vec::new(),
        }
    }

    fn samples(&self) -> impl Iterator<Item = &T> {
        self.rounds.iter().flatten()
    }

    /// Returns the median of a figure.
    fn middle(&self, figure: impl Fn(&T) -> f64) -> Option<f64> {
        median(self.samples().map(figure))
    }

    /// Returns what went wrong first.
    fn error(&self) -> Option<&str> {
        let mut errors = self.rounds.iter().filter_map(|round| round.as_ref().err());
        errors.next().map(String::as_str)
    }

    /// Returns the first cells of a row, of which those without a sample are all.
    fn name(&self) -> Vec<String> {
        match self.samples().next() {
            Some(_) => vec![self.contender.to_string()],
            None => vec![self.contender.to_string(), "none".to_owned()],
        }
    }
}

/// A table, and lines below it.
#[derive(Debug)]
pub struct Report {
    /// The table.
    pub table: Table,
    /// What is missing, what went wrong, and what was hoped for.
    pub lines: Vec<String>,
}

/// Returns what requests came to.
pub fn requests(entries: &[Entry<Sample>], goals: &[Goal]) -> Report {
    let mut table = Table::new(&[
        "",
        "req/s",
        "min – max",
        "× hyper",
        "× wasmtime",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "CPU µs",
        "load µs",
        "RSS MiB",
        "PSS MiB",
        "errors",
    ]);
    for entry in entries {
        let mut row = entry.name();
        if let Some((least, most)) = range(entry.samples().map(|it| it.rate)) {
            let figure = |figure: fn(&Sample) -> f64| entry.middle(figure).unwrap_or(0.0);
            let times = |peer| match peer == entry.contender {
                true => String::new(),
                false => ratio(entries, entry, peer).map_or_else(String::new, short),
            };
            row.extend([
                whole(figure(|it| it.rate)),
                format!("{} – {}", whole(least), whole(most)),
                times(Contender::Hyper),
                times(Contender::Wasmtime),
                format!("{:.2}", figure(|it| it.p50_ms)),
                format!("{:.2}", figure(|it| it.p99_ms)),
                format!("{:.2}", figure(|it| it.p999_ms)),
                cpu(entry),
                whole(figure(|it| it.load_cpu_us)),
                whole(figure(|it| it.rss_mib)),
                whole(figure(|it| it.pss_mib)),
                entry.samples().map(|it| it.errors).sum::<u64>().to_string(),
            ]);
        }
        table.row(row);
    }
    let wrun = wrun(entries);
    let verdict = |goal: &Goal| match goal {
        Goal::Times(peer, times) => {
            let reached = wrun.and_then(|wrun| ratio(entries, wrun, *peer));
            verdict(
                &format!("at least {times} × {peer}"),
                reached.map(|it| (it >= *times, short(it))),
            )
        }
        Goal::P99Ms(ms) => {
            let reached = wrun.and_then(|wrun| wrun.middle(|it| it.p99_ms));
            verdict(
                &format!("p99 below {ms} ms"),
                reached.map(|it| (it < *ms, short(it))),
            )
        }
        Goal::ReplacedMs(_) | Goal::NoneFails => String::new(),
    };
    report(table, entries, goals.iter().map(verdict))
}

/// Returns what starts came to.
pub fn starts(entries: &[Entry<Start>], goals: &[Goal]) -> Report {
    let mut table = Table::new(&[
        "",
        "first answer ms",
        "min – max",
        "with compilation ms",
        "after `kill -9` ms",
        "min – max",
    ]);
    for entry in entries {
        let mut row = entry.name();
        let replaced = |start: &Start| start.replaced_ms.unwrap_or(f64::NAN);
        if let (Some(answer), Some(first)) =
            (entry.middle(|it| it.answer_ms), entry.samples().next())
        {
            row.extend([
                short(answer),
                spread(entry.samples().map(|it| it.answer_ms)),
                first
                    .compile_ms
                    .and(entry.middle(|it| it.compile_ms.unwrap_or(f64::NAN)))
                    .map_or_else(String::new, short),
                first
                    .replaced_ms
                    .and(entry.middle(replaced))
                    .map_or_else(|| "no workers".to_owned(), short),
                first
                    .replaced_ms
                    .map_or_else(String::new, |_| spread(entry.samples().map(replaced))),
            ]);
        }
        table.row(row);
    }
    let wrun = wrun(entries);
    let verdict = |goal: &Goal| match goal {
        Goal::ReplacedMs(ms) => {
            let reached =
                wrun.and_then(|wrun| wrun.middle(|it| it.replaced_ms.unwrap_or(f64::NAN)));
            verdict(
                &format!("a killed worker replaced in {ms} ms"),
                reached.map(|it| (it <= *ms, short(it))),
            )
        }
        Goal::Times(..) | Goal::P99Ms(_) | Goal::NoneFails => String::new(),
    };
    report(table, entries, goals.iter().map(verdict))
}

/// Returns what deploys came to.
pub fn deploys(entries: &[Entry<Deploys>], goals: &[Goal]) -> Report {
    let mut table = Table::new(&[
        "",
        "deploys",
        "ms each",
        "requests",
        "failed",
        "idle connections closed",
        "longest gap ms",
    ]);
    for entry in entries {
        let mut row = entry.name();
        if let Some(ms) = entry.middle(|it| it.deploy_ms) {
            let sum =
                |count: fn(&Deploys) -> u64| entry.samples().map(count).sum::<u64>().to_string();
            let gap = entry
                .samples()
                .map(|it| it.worst_gap_ms)
                .fold(0.0, f64::max);
            row.extend([
                sum(|it| it.deploys as u64),
                whole(ms),
                sum(|it| it.requests),
                sum(|it| it.failed),
                sum(|it| it.idle_closed),
                whole(gap),
            ]);
        }
        table.row(row);
    }
    let failed = wrun(entries)
        .filter(|wrun| wrun.samples().next().is_some())
        .map(|wrun| wrun.samples().map(|it| it.failed).sum::<u64>());
    let verdict = |goal: &Goal| match goal {
        Goal::NoneFails => verdict(
            "no request fails",
            failed.map(|failed| (failed == 0, failed.to_string())),
        ),
        Goal::Times(..) | Goal::P99Ms(_) | Goal::ReplacedMs(_) => String::new(),
    };
    report(table, entries, goals.iter().map(verdict))
}

fn report<T>(table: Table, entries: &[Entry<T>], verdicts: impl Iterator<Item = String>) -> Report {
    let errors = entries.iter().filter_map(|entry| {
        let failed = entry.rounds.iter().filter(|round| round.is_err()).count();
        let error = entry.error()?;
        let rounds = entry.rounds.len();
        Some(match failed == rounds {
            true => format!("{}: {error}", entry.contender),
            false => format!("{}, {failed} of {rounds} rounds: {error}", entry.contender),
        })
    });
    Report {
        lines: errors
            .chain(verdicts)
            .filter(|line| !line.is_empty())
            .collect(),
        table: table.without_empty_columns(),
    }
}

fn wrun<T>(entries: &[Entry<T>]) -> Option<&Entry<T>> {
    entries
        .iter()
        .find(|entry| entry.contender == Contender::Wrun)
}

/// Returns the median, over the rounds that both have, of one's rate in parts of a peer's.
pub fn ratio(entries: &[Entry<Sample>], one: &Entry<Sample>, peer: Contender) -> Option<f64> {
    let peer = entries.iter().find(|entry| entry.contender == peer)?;
    let pairs = one.rounds.iter().zip(&peer.rounds);
    median(pairs.filter_map(|(one, peer)| match (one, peer) {
        (Ok(one), Ok(peer)) => Some(one.rate / peer.rate),
        _ => None,
    }))
}

/// Says what was hoped for, and whether it came true.
fn verdict(goal: &str, reached: Option<(bool, String)>) -> String {
    match reached {
        Some((true, figure)) => format!("goal, {goal}: {figure}, reached"),
        Some((false, figure)) => format!("goal, {goal}: {figure}, not reached"),
        None => format!("goal, {goal}: not measured"),
    }
}

/// Returns the CPU time of a request, where it could be told.
fn cpu(entry: &Entry<Sample>) -> String {
    median(entry.samples().filter_map(|it| it.cpu_us)).map_or_else(String::new, whole)
}

fn spread(values: impl Iterator<Item = f64>) -> String {
    range(values).map_or_else(String::new, |(least, most)| {
        format!("{} – {}", short(least), short(most))
    })
}

fn whole(value: f64) -> String {
    format!("{value:.0}")
}

/// Writes small figures with more digits than large ones.
pub fn short(value: f64) -> String {
    match value {
        10.0.. => format!("{value:.1}"),
        1.0.. => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
