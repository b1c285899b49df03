//! PostgreSQL as a contender: a cluster of its own with the defaults, which are durable, driven by pgbench over a unix
//! socket.

use super::clients::fairness;
use super::{Cell, Contender, Sample, Work};
use crate::bench::figures::quantile;
use crate::wait::{SOON, eventually};
use nix::sys::signal::Signal;
use nix::unistd::{Uid, User};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// What to do where it is missing.
const INSTALL: &str = "apt-get install postgresql";

/// Where Debian keeps the programs of each version.
const DEBIAN: &str = "/usr/lib/postgresql";

/// Whom it runs as if the run is root's: it refuses to be root.
const USER: &str = "postgres";

const SETUP: &str = "CREATE TABLE hot (id integer PRIMARY KEY, n bigint NOT NULL); \
    CREATE TABLE sales (id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, hot integer NOT NULL); \
    INSERT INTO hot VALUES (1, 0)";

const TRANSACTION: &str = "BEGIN;
SELECT n FROM hot WHERE id = 1 FOR UPDATE;
UPDATE hot SET n = n + 1 WHERE id = 1;
INSERT INTO sales (hot) VALUES (1);
COMMIT;
";

/// A running PostgreSQL.
pub struct Postgres {
    programs: PathBuf,
    process: Child,
    folder: PathBuf,
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
        let programs = programs().ok_or_else(|| format!("PostgreSQL is missing: {INSTALL}"))?;
        let user = Uid::effective().is_root().then(user);
        let folder = folder.join("postgres");
        fs::create_dir(&folder).expect("a folder can be made");
        if let Some((uid, gid)) = user {
            chown(&folder, Some(uid), Some(gid)).expect("root can give away a folder");
            let mut enter = Command::new("test");
            enter.arg("-x").arg(&folder).uid(uid).gid(gid);
            if !enter.status().is_ok_and(|status| status.success()) {
                return Err(format!(
                    "PostgreSQL is left out: {USER}, as whom it runs, may not enter {}; measure in a clone that others may enter",
                    folder.display()
                ));
            }
        }
        let command = |program: &str| {
            let mut command = Command::new(programs.join(program));
            command.current_dir(&folder).stdin(Stdio::null());
            if let Some((uid, gid)) = user {
                command.uid(uid).gid(gid);
            }
            command.arg("-D").arg(folder.join("data"));
            command
        };
        succeed(command("initdb").args(["--auth=trust", "--username=postgres", "--no-sync"]));
        let sockets = format!("unix_socket_directories={}", folder.display());
        let process = command("postgres")
            .args(["-c", "listen_addresses=", "-c", &sockets])
            .args(["-c", "fsync=on", "-c", "synchronous_commit=on"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("postgres starts");
        // From here on `Drop` ends the process whatever happens.
        let postgres = Self {
            script: folder.with_file_name("hot.sql"),
            programs,
            process,
            folder,
        };
        eventually("postgres serves", SOON, || {
            let ready = postgres.client("pg_isready").output().ok()?;
            ready.status.success().then_some(())
        });
        succeed(postgres.client("psql").args(["--command", SETUP]));
        fs::write(&postgres.script, TRANSACTION).expect("the folder takes files");
        Ok(postgres)
    }

    /// Returns what it says of itself.
    pub fn version(&self) -> String {
        succeed(Command::new(self.programs.join("postgres")).arg("--version"))
    }

    /// Returns a command that connects to it.
    fn client(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command
            .env("PGHOST", &self.folder)
            .env("PGUSER", "postgres")
            .env("PGDATABASE", "postgres");
        command
    }

    fn transactions(&self, clients: usize, time: Duration) -> Result<Sample, String> {
        let log = TempDir::new().map_err(|error| error.to_string())?;
        let threads = clients.min(std::thread::available_parallelism().map_or(1, usize::from));
        let output = self
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

impl Drop for Postgres {
    /// SIGQUIT ends it at once, together with its children.
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.process.id()) {
            crate::process::send(pid, Signal::SIGQUIT);
        }
        let _ = self.process.wait();
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

/// Returns the folder of its programs: that of the newest version of Debian's, or what the search path leads to.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir(DEBIAN).into_iter().flatten();
    let mut folders: Vec<PathBuf> = versions
        .filter_map(|version| Some(version.ok()?.path().join("bin")))
        .chain(std::env::split_paths(&std::env::var_os("PATH")?))
        .filter(|folder| folder.join("initdb").is_file() && folder.join("pgbench").is_file())
        .collect();
    folders.sort();
    folders.pop()
}

/// Returns the ids of the user that it runs as.
fn user() -> (u32, u32) {
    let user = User::from_name(USER).ok().flatten();
    let user = user.expect("a package that installs PostgreSQL adds its user");
    (user.uid.as_raw(), user.gid.as_raw())
}

/// Runs a command that has to succeed, and returns the first line that it prints.
fn succeed(command: &mut Command) -> String {
    let output = crate::guests::run(command);
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().next().unwrap_or_default().to_owned()
}
