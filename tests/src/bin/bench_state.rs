//! `just bench-state`: locks, databases and queues of the real binary embedded and on Redis, PostgreSQL, MariaDB, RabbitMQ, NATS and
//! a broker of Kafka's protocol, beside these servers' own clients, in one run on one disk.
//!
//! Usage: bench_state [--seconds N] [--rounds N] [--workers N] [--only TEXT] [--binary FILE]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use wrun_tests::bench::machine;
use wrun_tests::bench_state::engines::Engines;
use wrun_tests::bench_state::table::Table;
use wrun_tests::bench_state::{CELLS, Contender};
use wrun_tests::{TempDir, Wrun, repository};

struct Flags {
    /// How long a contender works in a cell.
    seconds: u64,
    rounds: usize,
    workers: usize,
    /// A part of the names of the cells that are measured.
    only: String,
    binary: PathBuf,
}

fn main() -> ExitCode {
    let flags = match Flags::parse(std::env::args().skip(1)) {
        Ok(flags) => flags,
        Err(flag) => {
            eprintln!("bench_state: {flag} is no flag, or its value is missing or wrong");
            return ExitCode::from(64);
        }
    };
    let folder = folder();
    let wrun = Wrun::new(&flags.binary);
    let version = wrun.run(["--version"]).ok();
    let engines = Engines::start(folder.path());
    let mut notes = vec![version.trim().to_owned()];
    notes.extend(engines.notes());
    let mut contenders = engines.contenders(&wrun, flags.workers, folder.path());
    let before = machine::load();
    let table = measure(&flags, &mut contenders);
    table.print();
    println!();
    println!(
        "{} rounds of {} s, {} workers; load average {before} before, {} after",
        flags.rounds,
        flags.seconds,
        flags.workers,
        machine::load()
    );
    println!("{}", machine::describe());
    match machine::describe_disk(folder.path()) {
        Ok(disk) => println!("disk: {disk}"),
        Err(error) => println!("disk: {error}"),
    }
    println!("{}", notes.join("; "));
    ExitCode::SUCCESS
}

/// Has everybody do everything, in turn, so that what changes on the machine changes for all.
fn measure(flags: &Flags, contenders: &mut [Box<dyn Contender + '_>]) -> Table {
    let mut table = Table::default();
    let time = Duration::from_secs(flags.seconds);
    for round in 1..=flags.rounds {
        for cell in CELLS
            .iter()
            .filter(|cell| cell.work.name().contains(&flags.only))
        {
            eprint!(
                "\rround {round} of {}: {:<24}",
                flags.rounds,
                cell.work.name()
            );
            for contender in &mut *contenders {
                if let Some(result) = contender.run(*cell, time) {
                    table.add(*cell, contender.name(), result);
                }
            }
        }
    }
    eprint!("\r{:<50}\r", "");
    table
}

/// Returns a folder on the repository's disk; the folder for temporary files may be in memory.
fn folder() -> TempDir {
    let target = repository().join("target");
    fs::create_dir_all(&target).expect("the folder of builds can be made");
    let folder = TempDir::with_prefix_in("bench-", target).expect("it takes folders");
    // For PostgreSQL, which may run as another user.
    let permissions = Permissions::from_mode(0o711);
    fs::set_permissions(folder.path(), permissions).expect("the folder is ours");
    folder
}

impl Flags {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut flags = Self {
            seconds: 2,
            rounds: 3,
            workers: 2,
            only: String::new(),
            binary: repository().join("target/release/wrun"),
        };
        while let Some(flag) = words.next() {
            let value = words.next().ok_or_else(|| flag.clone())?;
            let number = value.parse::<usize>().ok().filter(|number| *number > 0);
            match (flag.as_str(), number) {
                ("--seconds", Some(number)) => flags.seconds = number as u64,
                ("--rounds", Some(number)) => flags.rounds = number,
                ("--workers", Some(number)) => flags.workers = number,
                ("--only", _) => flags.only = value,
                ("--binary", _) => flags.binary = value.into(),
                _ => return Err(flag),
            }
        }
        Ok(flags)
    }
}
