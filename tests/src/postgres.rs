//! A PostgreSQL of the tests' own: from Debian's package, with its data in a folder of its own and a port of its own, as a
//! user who is not root. Ended with its handle, and with the thread that started it.

use crate::engine::{certify, free_port};
use crate::process;
use crate::third_party::leave_out;
use crate::wait::{SOON, eventually};
use nix::sys::signal::Signal;
use nix::unistd::{Uid, User};
use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// What to do where it is missing.
const INSTALL: &str = "apt-get install postgresql";

/// Where Debian keeps the programs of each version.
const DEBIAN: &str = "/usr/lib/postgresql";

/// Whom it runs as if the run is root's: it refuses to be root.
const USER: &str = "postgres";

/// A running PostgreSQL. Its user `postgres` needs no password.
#[derive(Debug)]
pub struct Postgres {
    programs: PathBuf,
    process: Child,
    folder: PathBuf,
    settings: Vec<String>,
    port: u16,
    // Removed after the process that uses it.
    _scratch: Option<TempDir>,
}

impl Postgres {
    /// Starts one for a test, which goes without if it is not installed: that is told on stderr, unless
    /// `WRUN_TEST_ALL=1` makes it an error.
    ///
    /// # Panics
    ///
    /// If it is installed and does not serve.
    pub fn for_test() -> Option<Self> {
        let scratch = crate::folder();
        // Its user has to get through.
        if let Some((uid, gid)) = user() {
            chown(scratch.path(), Some(uid), Some(gid)).expect("root can give away a folder");
        }
        if programs().is_none() {
            return leave_out("what is kept in PostgreSQL", "PostgreSQL", INSTALL);
        }
        let started = Self::start(scratch.path(), &[]);
        let mut postgres = started.unwrap_or_else(|why| panic!("{why}"));
        postgres._scratch = Some(scratch);
        Some(postgres)
    }

    /// Starts one with its data in a new folder in `folder`, and with these settings.
    ///
    /// # Errors
    ///
    /// Why there is none: it is not installed, or its user may not enter the folder.
    ///
    /// # Panics
    ///
    /// If it is installed and does not serve.
    pub fn start(folder: &Path, settings: &[&str]) -> Result<Self, String> {
        let programs = programs().ok_or_else(|| format!("PostgreSQL is missing: {INSTALL}"))?;
        let folder = folder.join("postgres");
        fs::create_dir(&folder).expect("a folder can be made");
        if let Some((uid, gid)) = user() {
            chown(&folder, Some(uid), Some(gid)).expect("root can give away a folder");
            let mut enter = Command::new("test");
            enter.arg("-x").arg(&folder).uid(uid).gid(gid);
            if !enter.status().is_ok_and(|status| status.success()) {
                return Err(format!(
                    "PostgreSQL is left out: {USER}, as whom it runs, may not enter {}; use a folder that others may enter",
                    folder.display()
                ));
            }
        }
        let mut initdb = command(&programs, &folder, "initdb");
        succeed(initdb.args(["--auth=trust", "--username=postgres", "--no-sync"]));
        let port = free_port();
        let settings: Vec<String> = settings.iter().map(|&setting| setting.to_owned()).collect();
        let process = spawn(&programs, &folder, port, &settings);
        // From here on `Drop` ends the process whatever happens.
        let mut postgres = Self {
            programs,
            process,
            folder,
            settings,
            port,
            _scratch: None,
        };
        postgres.wait();
        Ok(postgres)
    }

    /// Starts a standby that follows it: a copy, on a port of its own, to which all that is committed is streamed.
    ///
    /// # Panics
    ///
    /// If there is none that serves.
    pub fn standby(&self) -> Self {
        let scratch = crate::folder();
        let folder = scratch.path().join("postgres");
        fs::create_dir(&folder).expect("a folder can be made");
        if let Some((uid, gid)) = user() {
            for path in [scratch.path(), &folder] {
                chown(path, Some(uid), Some(gid)).expect("root can give away a folder");
            }
        }
        // The slot keeps what the standby has missed while it was away.
        let mut copy = command(&self.programs, &folder, "pg_basebackup");
        copy.args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync"])
            .args(["--create-slot", "--slot=standby"])
            .arg(format!("--dbname={}", self.local_url("postgres")));
        succeed(&mut copy);
        let port = free_port();
        let process = spawn(&self.programs, &folder, port, &[]);
        let mut standby = Self {
            programs: self.programs.clone(),
            process,
            folder,
            settings: Vec::new(),
            port,
            _scratch: Some(scratch),
        };
        standby.wait();
        standby
    }

    /// Waits until a standby shows what was committed here so far.
    pub fn wait_for(&self, standby: &Self) {
        let written = self.query("postgres", "SELECT pg_current_wal_flush_lsn()");
        let shown = format!("SELECT pg_last_wal_replay_lsn() >= '{written}'");
        eventually("the standby has caught up", SOON, || {
            (standby.query("postgres", &shown) == "t").then_some(())
        });
    }

    /// Has it take encrypted connections, too, as `localhost`; returns the file with its certificate.
    ///
    /// # Panics
    ///
    /// If that cannot be made.
    pub fn encrypt(&mut self) -> PathBuf {
        let data = self.folder.join("data");
        let (key, certificate) = (data.join("server.key"), self.folder.join("server.crt"));
        let mut openssl = certify(&key, &certificate);
        if let Some((uid, gid)) = user() {
            openssl.uid(uid).gid(gid);
        }
        succeed(openssl.current_dir(&self.folder));
        self.settings.push("ssl=on".to_owned());
        let setting = format!("ssl_cert_file={}", certificate.display());
        self.settings.push(setting);
        self.stop();
        self.start_again();
        certificate
    }

    /// Has it take connections from a network, too, without a password.
    ///
    /// # Panics
    ///
    /// If that cannot be written down.
    pub fn serve_to(&mut self, network: &str) {
        let rules = self.folder.join("data/pg_hba.conf");
        let mut text = fs::read_to_string(&rules).expect("initdb made rules");
        text += &format!("host all all {network} trust\n");
        fs::write(&rules, text).expect("rules can be written");
        self.settings.push("listen_addresses=*".to_owned());
        self.stop();
        self.start_again();
    }

    /// Returns the URL of one of its databases.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// Returns the URL of one of its databases over its Unix socket.
    pub fn local_url(&self, database: &str) -> String {
        let folder = self.folder.display().to_string().replace('/', "%2F");
        format!("postgres://postgres@{folder}:{}/{database}", self.port)
    }

    /// Returns its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns what it says of itself.
    pub fn version(&self) -> String {
        succeed(Command::new(self.programs.join("postgres")).arg("--version"))
    }

    /// Returns a command that connects to it.
    pub fn client(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command
            .env("PGHOST", &self.folder)
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", "postgres")
            .env("PGDATABASE", "postgres");
        command
    }

    /// Runs a statement in one of its databases, and returns what it prints.
    pub fn query(&self, database: &str, sql: &str) -> String {
        let mut psql = self.client("psql");
        psql.env("PGDATABASE", database);
        succeed(psql.args(["-X", "-At", "-v", "ON_ERROR_STOP=1", "-c", sql]))
    }

    /// Makes an empty database.
    pub fn create(&self, database: &str) {
        self.query("postgres", &format!("CREATE DATABASE {database}"));
    }

    /// Ends it without a warning, as a power cut would.
    pub fn kill(&mut self) {
        // One that it started after the look would be left behind, and keep the next postgres from starting.
        process::stop(self.pid());
        let family = process::family(self.pid());
        for &pid in &family {
            process::send(pid, Signal::SIGKILL);
        }
        let _ = self.process.wait();
        eventually("its processes are gone", SOON, || {
            (!family.iter().any(|&pid| process::alive(pid))).then_some(())
        });
    }

    /// Ends it in good order.
    pub fn stop(&mut self) {
        process::send(self.pid(), Signal::SIGINT);
        let _ = self.process.wait();
    }

    /// Starts it again, after it ended.
    pub fn start_again(&mut self) {
        self.process = spawn(&self.programs, &self.folder, self.port, &self.settings);
        self.wait();
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.process.id()).expect("ids of processes are small")
    }

    fn wait(&mut self) {
        eventually("postgres serves", SOON, || {
            let ended = self.process.try_wait().ok().flatten();
            assert!(ended.is_none(), "postgres ended: {}", self.log());
            let ready = self.client("pg_isready").output().ok()?;
            ready.status.success().then_some(())
        });
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for Postgres {
    /// SIGQUIT ends it at once, together with its children.
    fn drop(&mut self) {
        process::send(self.pid(), Signal::SIGQUIT);
        let _ = self.process.wait();
    }
}

fn spawn(programs: &Path, folder: &Path, port: u16, settings: &[String]) -> Child {
    let sockets = format!("unix_socket_directories={}", folder.display());
    let log = fs::File::create(folder.join("log")).expect("the folder takes files");
    let mut postgres = command(programs, folder, "postgres");
    postgres
        .args(["-c", "listen_addresses=127.0.0.1", "-c", &sockets])
        .args(["-p", &port.to_string()])
        .stdout(Stdio::null())
        .stderr(log);
    for setting in settings {
        postgres.args(["-c", setting]);
    }
    process::die_with_this_thread(&mut postgres);
    postgres.spawn().expect("postgres starts")
}

/// Returns a command that works on the data.
fn command(programs: &Path, folder: &Path, program: &str) -> Command {
    let mut command = Command::new(programs.join(program));
    command.current_dir(folder).stdin(Stdio::null());
    if let Some((uid, gid)) = user() {
        command.uid(uid).gid(gid);
    }
    command.arg("-D").arg(folder.join("data"));
    command
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

/// Returns the ids of the user that it runs as, if that is another one.
fn user() -> Option<(u32, u32)> {
    if !Uid::effective().is_root() {
        return None;
    }
    let user = User::from_name(USER).ok().flatten()?;
    Some((user.uid.as_raw(), user.gid.as_raw()))
}

/// Runs a command that has to succeed, and returns the first line that it prints.
fn succeed(command: &mut Command) -> String {
    let output = crate::guests::run(command);
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().next().unwrap_or_default().to_owned()
}
