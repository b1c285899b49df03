//! PostgreSQL as a contender: a cluster of its own with the defaults, which are durable, driven by pgbench over a unix
//! socket.

use super::clients::fairness;
use super::{Cell, Contender, Sample, Work};
use crate::bench::figures::quantile;
use crate::postgres;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

const SETUP: &str = "CREATE TABLE hot (id integer PRIMARY KEY, n bigint NOT NULL); \
    CREATE TABLE sales (id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, hot integer NOT NULL); \
    INSERT INTO hot VALUES (1, 0)";

const TRANSACTION: &str = "BEGIN;
SELECT n FROM hot WHERE id = 1 FOR UPDATE;
UPDATE hot SET n = n + 1 WHERE id = 1;
INSERT INTO sales (hot) VALUES (1);
COMMIT;
";

/// A running PostgreSQL, and what pgbench has it do.
pub struct Postgres {
    server: postgres::Postgres,
    script: PathBuf,
}

impl Postgres {
    /// Starts it with its data in `folder`.
    ///
    /// # Errors
    ///
    /// Why there is none: it is not installed, or its user may not enter the folder.
    ///
    /// # Panics
    ///
    /// If it is installed and does not serve.
    pub fn start(folder: &Path) -> Result<Self, String> {
        let server = postgres::Postgres::start(folder, &["fsync=on", "synchronous_commit=on"])?;
        server.query("postgres", SETUP);
        let script = folder.join("hot.sql");
        fs::write(&script, TRANSACTION).expect("the folder takes files");
        Ok(Self { server, script })
    }

    /// Returns what it says of itself.
    pub fn version(&self) -> String {
        self.server.version()
    }

    fn transactions(&self, clients: usize, time: Duration) -> Result<Sample, String> {
        let log = TempDir::new().map_err(|error| error.to_string())?;
        let threads = clients.min(std::thread::available_parallelism().map_or(1, usize::from));
        let output = self
            .server
            .client("pgbench")
            .args(["-n", "-M", "prepared", "-l", "-f"])
            .arg(&self.script)
            .args(["-c", &clients.to_string(), "-j", &threads.to_string()])
            .args(["-T", &time.as_secs().max(1).to_string()])
            .current_dir(log.path())
            .output()
            .map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let says = String::from_utf8_lossy(&output.stdout);
        let rate = says
            .lines()
            .find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok())
            .ok_or_else(|| format!("pgbench says {says}"))?;
        let mut log = Log::read(log.path()).map_err(|error| error.to_string())?;
        log.times.sort_unstable();
        let time = |part| quantile(&log.times, part).ok_or("pgbench did nothing");
        let idle = clients.saturating_sub(log.counts.len());
        let counts = log.counts.values().map(|count| *count as f64);
        Ok(Sample {
            rate,
            p50: time(0.5)?,
            p99: time(0.99)?,
            fairness: fairness(counts.chain(std::iter::repeat_n(0.0, idle))),
        })
    }
}

impl Contender for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn run(&mut self, cell: Cell, time: Duration) -> Option<Result<Sample, String>> {
        (cell.work == Work::Transaction).then(|| self.transactions(cell.clients, time))
    }
}

/// What pgbench noted of each transaction: `client_id transaction_no time script_no time_epoch time_us`.
#[derive(Default)]
struct Log {
    times: Vec<Duration>,
    /// Transactions by client.
    counts: BTreeMap<u32, u64>,
}

impl Log {
    fn read(folder: &Path) -> std::io::Result<Self> {
        let mut log = Self::default();
        for file in fs::read_dir(folder)? {
            for line in fs::read_to_string(file?.path())?.lines() {
                let mut fields = line.split(' ').map(str::parse::<u64>);
                if let (Some(Ok(client)), _, Some(Ok(micros))) =
                    (fields.next(), fields.next(), fields.next())
                {
                    let client = u32::try_from(client).unwrap_or(u32::MAX);
                    *log.counts.entry(client).or_default() += 1;
                    log.times.push(Duration::from_micros(micros));
                }
            }
        }
        Ok(log)
    }
}
