//! `just bench`: the same requests answered by wrun, native hyper, node:cluster and `wasmtime serve`, in turn in one run.

use clap::Parser;
use clap::builder::PossibleValuesParser;
use serde::Serialize;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use wrun_tests::bench::closed_loop::Wrk;
use wrun_tests::bench::contender::{Contender, Programs};
use wrun_tests::bench::guests::{Guest, Guests};
use wrun_tests::bench::report::{self, Entry, Report};
use wrun_tests::bench::requests::Setup;
use wrun_tests::bench::scenario::{SCENARIOS, Scenario, Work};
use wrun_tests::bench::{deploys, machine, starts};
use wrun_tests::{Wrun, repository};

/// Measures wrun beside its peers, on loopback, and prints Markdown
#[derive(Parser)]
#[command(name = "bench")]
struct Flags {
    /// How often everybody is measured
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// How long everybody is driven in a round, in seconds
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Measure these scenarios alone
    #[arg(long, value_name = "NAME", num_args = 1.., value_delimiter = ',', value_parser = PossibleValuesParser::new(SCENARIOS.each_ref().map(|it| it.name)))]
    only: Vec<String>,
    /// Measure these contenders alone
    #[arg(long, value_name = "NAME", num_args = 1.., value_delimiter = ',')]
    contenders: Vec<Contender>,
    /// Workers of each contender; `auto` is the number of cores
    #[arg(long, value_name = "auto|N", default_value = "auto", value_parser = workers)]
    workers: usize,
    /// Write every figure of every round to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The wrun to measure
    #[arg(long, value_name = "FILE", default_value_os_t = repository().join("target/release/wrun"))]
    binary: PathBuf,
    /// The wasmtime to measure
    #[arg(
        long,
        value_name = "FILE",
        env = "WASMTIME",
        default_value = "wasmtime"
    )]
    wasmtime: PathBuf,
}

fn main() -> std::io::Result<()> {
    let flags = Flags::parse();
    let folder = tempfile::tempdir()?;
    let wrun = Wrun::new(&flags.binary);
    let mut bench = Bench {
        guests: Guests::new(&wrun),
        setup: Setup {
            programs: Programs {
                wrun,
                wasmtime: flags.wasmtime.clone(),
                folder: folder.path().to_owned(),
            },
            wrk: Wrk::new(folder.path()),
            workers: flags.workers,
            time: Duration::from_secs(flags.seconds),
        },
        flags,
        json: serde_json::Map::new(),
    };
    let before = machine::load();
    for scenario in &SCENARIOS {
        if bench.flags.only.is_empty() || bench.flags.only.iter().any(|it| it == scenario.name) {
            bench.run(scenario);
        }
    }
    bench.end(&before)
}

/// One run.
struct Bench {
    flags: Flags,
    guests: Guests,
    setup: Setup,
    json: serde_json::Map<String, serde_json::Value>,
}

impl Bench {
    /// Measures one scenario and prints its table.
    fn run(&mut self, scenario: &Scenario) {
        let goals = scenario.goals;
        let report = match scenario.work {
            Work::Requests(requests) => {
                let entries = self.rounds(scenario, |bench, contender| {
                    let component = bench.component(contender, requests.guest)?;
                    bench.setup.measure(contender, &component, &requests)
                });
                report::requests(&entries, goals)
            }
            Work::Starts => {
                let entries = self.rounds(scenario, |bench, contender| {
                    let component = bench.component(contender, Guest::HelloRust)?;
                    starts::measure(&bench.setup.programs, contender, &component)
                });
                report::starts(&entries, goals)
            }
            Work::Deploys => {
                let entries = self.rounds(scenario, |bench, contender| {
                    let (programs, workers) = (&bench.setup.programs, bench.setup.workers);
                    deploys::measure(programs, &mut bench.guests, contender, workers)
                });
                report::deploys(&entries, goals)
            }
        };
        print(scenario.title, scenario.name, &report);
    }

    /// Measures everybody, in turn, so that what changes on the machine changes for all.
    fn rounds<T: Serialize>(
        &mut self,
        scenario: &Scenario,
        mut measure: impl FnMut(&mut Self, Contender) -> Result<T, String>,
    ) -> Vec<Entry<T>> {
        let asked = &self.flags.contenders;
        let mut entries: Vec<Entry<T>> = scenario
            .contenders
            .iter()
            .filter(|contender| asked.is_empty() || asked.contains(contender))
            .map(|contender| Entry::new(*contender))
            .collect();
        for round in 1..=self.flags.rounds {
            for entry in &mut entries {
                let rounds = self.flags.rounds;
                eprint!(
                    "\r{:<16} round {round} of {rounds}: {:<16}",
                    scenario.name, entry.contender
                );
                let sample = self.setup.programs.version(entry.contender);
                let sample = sample.and_then(|_| measure(self, entry.contender));
                entry.rounds.push(sample);
            }
        }
        eprint!("\r{:<60}\r", "");
        let json = serde_json::to_value(&entries).unwrap_or_default();
        self.json.insert(scenario.name.to_owned(), json);
        entries
    }

    /// Returns what a contender serves; the natives need nothing to be built.
    fn component(&mut self, contender: Contender, guest: Guest) -> Result<PathBuf, String> {
        match contender {
            Contender::Hyper | Contender::Node => Ok(PathBuf::new()),
            Contender::Wasmtime | Contender::Wrun => self.guests.component(guest),
        }
    }

    /// Prints what the figures depend on, and writes the file that was asked for.
    fn end(self, load_before: &str) -> std::io::Result<()> {
        let Flags {
            rounds,
            seconds,
            workers,
            ..
        } = self.flags;
        let programs = &self.setup.programs;
        let versions: Vec<String> = Contender::ALL
            .iter()
            .map(|contender| {
                programs
                    .version(*contender)
                    .unwrap_or_else(|why| format!("{contender}: {why}"))
            })
            .chain([self.setup.wrk.version().unwrap_or_else(|why| why)])
            .collect();
        println!(
            "{rounds} rounds of {seconds} s, {workers} workers; load average {load_before} before, {} after  ",
            machine::load()
        );
        println!("{}, {}  ", machine::describe(), machine::memory());
        println!("{}", versions.join("; "));
        if let Some(path) = &self.flags.json {
            fs::write(path, serde_json::to_string_pretty(&self.json)?)?;
        }
        Ok(())
    }
}

fn print(title: &str, name: &str, report: &Report) {
    println!("### {title} (`{name}`)\n\n{}", report.table);
    for line in &report.lines {
        println!("- {line}");
    }
    if !report.lines.is_empty() {
        println!();
    }
}

/// Reads a number of workers.
fn workers(text: &str) -> Result<usize, String> {
    let number = match text {
        "auto" => std::thread::available_parallelism().ok().map(usize::from),
        number => number.parse().ok().filter(|number| *number > 0),
    };
    number.ok_or_else(|| "it is neither `auto` nor a number above 0".to_owned())
}
