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
    CREATE TABLE sales (hot integer NOT NULL); INSERT INTO hot VALUES (1, 0); \
    CREATE TABLE jobs (id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, body bytea NOT NULL)";

const TRANSACTION: &str = "BEGIN;
SELECT n FROM hot WHERE id = 1 FOR UPDATE;
UPDATE hot SET n = n + 1 WHERE id = 1;
INSERT INTO sales (hot) VALUES (1);
COMMIT;
";

/// As many messages as wrun's guest sends in one call.
const SEND: &str = "INSERT INTO jobs (body) SELECT convert_to(repeat('x', 100), 'UTF8') FROM generate_series(1, 100);\n";

/// A running PostgreSQL, and what pgbench has it do.
pub struct Postgres {
    server: postgres::Postgres,
    transaction: PathBuf,
    send: PathBuf,
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
        let script = |name: &str, text: &str| {
            let file = folder.join(name);
            fs::write(&file, text).expect("the folder takes files");
            file
        };
        Ok(Self {
            server,
            transaction: script("hot.sql", TRANSACTION),
            send: script("send.sql", SEND),
        })
    }

    /// Returns what it says of itself.
    pub fn version(&self) -> String {
        self.server.version()
    }

    /// Makes a database for wrun, and returns its URL.
    pub fn database(&self, number: usize) -> String {
        let name = format!("wrun{number}");
        self.server.create(&name);
        self.server.local_url(&name)
    }

    /// Has pgbench repeat a script.
    fn repeat(&self, script: &Path, clients: usize, time: Duration) -> Result<Sample, String> {
        let log = TempDir::new().map_err(|error| error.to_string())?;
        let threads = clients.min(std::thread::available_parallelism().map_or(1, usize::from));
        let output = self
            .server
            .client("pgbench")
            .args(["-n", "-M", "prepared", "-l", "-f"])
            .arg(script)
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

impl Postgres {
    fn send(&self, clients: usize, time: Duration) -> Result<Sample, String> {
        let calls = self.repeat(&self.send, clients, time)?;
        self.server.query("postgres", "TRUNCATE jobs");
        Ok(calls.in_messages())
    }
}

impl Contender for &Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn run(&mut self, cell: Cell, time: Duration) -> Option<Result<Sample, String>> {
        match cell.work {
            Work::Transaction => Some(self.repeat(&self.transaction, cell.clients, time)),
            Work::Send => Some(self.send(cell.clients, time)),
            _ => None,
        }
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
