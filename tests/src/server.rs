//! A running server: asked through its URL and its control socket, ended with the test.

use crate::http1::Connection;
use crate::launch::{Prepared, Wrun};
use crate::log::Log;
use crate::outcome::Outcome;
use crate::process;
use crate::response::Response;
use crate::wait::{SOON, eventually};
use nix::sys::signal::Signal;
use serde::Deserialize;
use serde_json::Value;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

/// How long a start may take: a Python component is 18 MB to compile, on cores that other tests use too.
const START: Duration = Duration::from_secs(120);

/// How the first line of a server begins that has no URL.
const MESSAGES_ONLY: &str = "wrun: handling messages";

/// A `wrun serve` that has said its URL.
#[derive(Debug)]
pub struct Server {
    wrun: Wrun,
    child: Child,
    addr: SocketAddr,
    log: Log,
    state: PathBuf,
    // Removed after the processes that use it.
    _scratch: Option<TempDir>,
}

/// A worker as `wrun ps --json` shows it.
#[derive(Clone, Debug, Deserialize)]
pub struct Worker {
    /// Its place.
    pub slot: usize,
    /// Its process id.
    pub pid: i32,
    /// The generation that it serves.
    pub generation: u64,
    /// `ready` when it serves.
    pub state: String,
    /// Requests that it has answered.
    pub requests: u64,
    /// Requests that it is handling.
    pub in_flight: u64,
    /// Its open connections.
    pub connections: u64,
    /// How often the worker in this slot ended unasked.
    pub restarts: u64,
    /// Its resident memory.
    pub rss_bytes: u64,
}

impl Worker {
    /// Tells whether it serves.
    pub fn is_ready(&self) -> bool {
        self.state == "ready"
    }
}

impl Server {
    #[track_caller]
    pub(crate) fn start(prepared: Prepared) -> Self {
        let mut server = Self::spawn(prepared);
        let line = server
            .log
            .first_line(START)
            .expect("the server says its URL before it ends");
        if line.starts_with(MESSAGES_ONLY) {
            return server;
        }
        let addr = line
            .split_once("http://")
            .and_then(|(_, rest)| rest.split('/').next()?.parse().ok());
        server.addr = addr.unwrap_or_else(|| panic!("no URL in the first line: {line}"));
        server
    }

    /// Starts a server to see whether it serves, and ends it; if it does not, returns all that it said.
    pub(crate) fn try_start(prepared: Prepared) -> Result<(), String> {
        let server = Self::spawn(prepared);
        let line = server.log.first_line(START).unwrap_or_default();
        if line.starts_with(MESSAGES_ONLY) || line.starts_with("wrun: listening") {
            return Ok(());
        }
        eventually("its last words", SOON, || server.log.ended().then_some(()));
        Err(server.log.text())
    }

    #[track_caller]
    fn spawn(prepared: Prepared) -> Self {
        let Prepared {
            wrun,
            mut command,
            state,
            scratch,
            screen,
        } = prepared;
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("failed to start {command:?}: {error}"));
        // The command holds our copy of the terminal's other end, which would keep the log open.
        drop(command);
        let log = match screen {
            Some(screen) => Log::read(screen),
            None => Log::read(child.stderr.take().expect("stderr is a pipe")),
        };
        // From here on `Drop` ends the process whatever happens.
        Self {
            wrun,
            child,
            addr: SocketAddr::from(([0, 0, 0, 0], 0)),
            log,
            state,
            _scratch: scratch,
        }
    }

    /// Returns the first address that it listens on; it has none if it handles messages alone.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the id of the process that was started: the supervisor, unless it was started through a program that
    /// stays.
    ///
    /// # Panics
    ///
    /// Never: process ids are small.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a process id")
    }

    /// Returns its log.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Returns its state folder.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Opens a connection to it.
    #[track_caller]
    pub fn connect(&self) -> Connection {
        Connection::open(self.addr)
    }

    /// Sends one GET on a connection of its own.
    #[track_caller]
    pub fn get(&self, target: &str) -> Response {
        self.connect().get(target)
    }

    /// Sends one request with a body on a connection of its own.
    #[track_caller]
    pub fn post(&self, target: &str, body: &[u8]) -> Response {
        self.connect().exchange("POST", target, &[], body)
    }

    /// Runs a `wrun` command against this server.
    pub fn control<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Outcome {
        let args: Vec<_> = args.into_iter().collect();
        let words = args.iter().map(AsRef::as_ref);
        self.wrun
            .run(words.chain([OsStr::new("--state"), self.state.as_os_str()]))
    }

    /// Returns what `wrun ps --json` prints.
    ///
    /// # Panics
    ///
    /// If it fails, or prints something else.
    #[track_caller]
    pub fn ps(&self) -> Value {
        serde_json::from_str(&self.control(["ps", "--json"]).ok()).expect("ps prints JSON")
    }

    /// Returns all its workers, also those that start or drain.
    ///
    /// # Panics
    ///
    /// If `wrun ps --json` lacks a field.
    #[track_caller]
    pub fn workers(&self) -> Vec<Worker> {
        serde_json::from_value(self.ps()["workers"].clone())
            .expect("ps lists the workers with every field")
    }

    /// Returns its only worker.
    ///
    /// # Panics
    ///
    /// If there is none, or more than one.
    #[track_caller]
    pub fn worker(&self) -> Worker {
        let mut workers = self.workers();
        assert_eq!(workers.len(), 1, "{workers:?}");
        workers.remove(0)
    }

    /// Returns the process id of its state process.
    ///
    /// # Panics
    ///
    /// If there is none at the moment.
    #[track_caller]
    pub fn state_pid(&self) -> i32 {
        let pid = self.ps()["state"]["pid"].as_i64();
        let pid = pid.and_then(|pid| i32::try_from(pid).ok());
        pid.expect("there is a state process")
    }

    /// Waits until its workers are as `are_so` wants them, and returns them.
    #[track_caller]
    pub fn when(
        &self,
        what: &str,
        within: Duration,
        are_so: impl Fn(&[Worker]) -> bool,
    ) -> Vec<Worker> {
        eventually(what, within, || {
            Some(self.workers()).filter(|workers| are_so(workers))
        })
    }

    /// Waits until its only worker handles this many requests.
    #[track_caller]
    pub fn when_in_flight(&self, count: u64) {
        let what = format!("{count} requests in flight");
        self.when(&what, SOON, |workers| {
            workers.iter().map(|worker| worker.in_flight).sum::<u64>() == count
        });
    }

    /// Waits until its workers handle no request and hold no connection.
    #[track_caller]
    pub fn when_idle(&self) {
        self.when("no connections", SOON, |workers| {
            let idle = |worker: &Worker| worker.in_flight == 0 && worker.connections == 0;
            workers.iter().all(idle)
        });
    }

    /// Sends the supervisor a signal.
    pub fn signal(&self, signal: Signal) {
        process::send(self.pid(), signal);
    }

    /// Runs `wrun reload` and returns the generation that serves then.
    ///
    /// # Panics
    ///
    /// If the reload fails.
    #[track_caller]
    pub fn reload(&self) -> u64 {
        self.control(["reload"]).ok();
        self.generation()
    }

    /// Returns the generation that serves.
    #[track_caller]
    pub fn generation(&self) -> u64 {
        self.ps()["supervisor"]["generation"]
            .as_u64()
            .expect("a number")
    }

    /// Drains it with SIGTERM and returns the status that it ended with.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.end(SOON)
    }

    /// Waits for its end.
    #[track_caller]
    pub fn end(&mut self, within: Duration) -> ExitStatus {
        eventually("the end of the server", within, || {
            self.child.try_wait().expect("a child can be waited for")
        })
    }

    /// Tells whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_none())
    }
}

impl Drop for Server {
    /// Kills the supervisor, which ends the workers: wrun promises that, so every test checks it.
    fn drop(&mut self) {
        let workers = process::children(self.pid());
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!(
                "--- log of the server ---\n{}\n--- end of the log ---",
                self.log.text()
            );
            workers
                .iter()
                .for_each(|pid| process::send(*pid, Signal::SIGKILL));
            return;
        }
        eventually("no worker outlives its supervisor", SOON, || {
            workers
                .iter()
                .all(|pid| !process::alive(*pid))
                .then_some(())
        });
    }
}
