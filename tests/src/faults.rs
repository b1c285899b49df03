//! The fault run: 16 clients ask for more while workers are replaced, killed, stopped and starved, and every request is
//! accounted for. What must hold is written down phase by phase.

use crate::launch::Launch;
use crate::load::{Load, Tally};
use crate::process;
use crate::server::{Server, Worker};
use crate::wait::{SOON, eventually};
use nix::sys::signal::Signal;
use std::net::TcpStream;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Clients of each kind: half keep their connection, half open one for each request.
const KEPT: usize = 8;
const FRESH: usize = 8;
const CLIENTS: u64 = (KEPT + FRESH) as u64;

/// Requests between two faults, so that each meets a server that is busy.
const BETWEEN: u64 = 200;

/// Kills of one server: below the number at which wrun calls it a crash storm and starts workers only now and then.
const KILLS_PER_SERVER: usize = 10;

/// Rounds for one SIGSTOP: each takes the 5 s that a hang takes to be noticed.
const ROUNDS_PER_STOP: usize = 10;

/// Descriptors of a starved process, and idle connections that want them.
const DESCRIPTORS: usize = 64;
const IDLE: usize = 200;

/// A hung worker is to be replaced within 7 s; a client may have waited for a turn before.
const GAP_MAX: Duration = Duration::from_secs(12);

/// How long a worker may outlive its supervisor.
const ORPHAN_MAX: Duration = Duration::from_secs(1);

/// What is done to the server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Phase {
    /// `wrun reload`.
    Reload,
    /// SIGKILL to a worker.
    Kill,
    /// SIGSTOP to a worker.
    Stop,
    /// More connections than a worker has descriptors for.
    Descriptors,
    /// SIGKILL to the supervisor.
    Orphans,
    /// Workers are killed where [`Phase::Reload`] reloads, and held to what it promises: this must fail.
    Control,
}

impl Phase {
    /// Every phase that must keep its promises.
    pub const ALL: [Self; 5] = [
        Self::Reload,
        Self::Kill,
        Self::Stop,
        Self::Descriptors,
        Self::Orphans,
    ];

    /// Returns what is done, for a table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reload => "reload",
            Self::Kill => "kill -9 worker",
            Self::Stop => "SIGSTOP worker",
            Self::Descriptors => "no descriptors",
            Self::Orphans => "kill -9 supervisor",
            Self::Control => "control: kill as reload",
        }
    }
}

/// What came of a phase.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// How often it was done.
    pub times: usize,
    /// What became of the requests.
    pub tally: Tally,
    /// What did not hold.
    pub broken_promises: Vec<String>,
    /// Something to say beside the figures.
    pub remark: String,
}

impl Report {
    fn must(&mut self, holds: bool, promise: &str) {
        if !holds {
            self.broken_promises.push(promise.to_owned());
        }
    }
}

/// A server to be faulted, and how often.
#[derive(Debug)]
pub struct Faults {
    launch: Launch,
    rounds: usize,
    // Kept from one server to the next, so that the component is compiled once.
    _state: TempDir,
}

impl Faults {
    /// Prepares the run of a server with at least two workers.
    pub fn new(launch: Launch, rounds: usize) -> Self {
        let state = crate::folder();
        Self {
            launch: launch.state(state.path().join("state")),
            rounds,
            _state: state,
        }
    }

    /// Runs one phase on a server of its own.
    pub fn run(&self, phase: Phase) -> Report {
        match phase {
            Phase::Reload => self.reload(),
            Phase::Kill => self.kill(),
            Phase::Stop => self.stop(),
            Phase::Descriptors => self.descriptors(),
            Phase::Orphans => self.orphans(),
            Phase::Control => self.control(),
        }
    }

    fn reload(&self) -> Report {
        let server = self.launch.clone().start();
        let load = start_load(&server);
        for _ in 0..self.rounds {
            server.reload();
            between(&load);
        }
        graceful(self.rounds, load.end())
    }

    fn control(&self) -> Report {
        let times = self.rounds.min(KILLS_PER_SERVER);
        graceful(times, self.kill_workers(times))
    }

    fn kill(&self) -> Report {
        let mut report = Report {
            times: self.rounds,
            ..Report::default()
        };
        let mut left = self.rounds;
        while left > 0 {
            let times = left.min(KILLS_PER_SERVER);
            report.tally.add(self.kill_workers(times));
            left -= times;
        }
        let Tally {
            refused,
            wrong,
            late,
            broken,
            ..
        } = report.tally;
        report.must(refused == 0, "nobody is refused");
        report.must(
            wrong + late == 0,
            "every answer is the right one, and in time",
        );
        report.must(
            broken <= self.rounds as u64 * CLIENTS,
            "a kill costs each client at most one request",
        );
        report.remark = format!(
            "{:.2} requests lost per kill",
            broken as f64 / self.rounds as f64
        );
        report
    }

    /// Kills workers of one server, in turn, each when all are ready.
    fn kill_workers(&self, times: usize) -> Tally {
        let server = self.launch.clone().start();
        let count = server.workers().len();
        let load = start_load(&server);
        for number in 0..times {
            let workers = server.when("all workers are ready", SOON, |workers| {
                all_ready(workers, count)
            });
            between(&load);
            process::send(workers[number % count].pid, Signal::SIGKILL);
            let gone = |workers: &[Worker], pid| workers.iter().all(|worker| worker.pid != pid);
            server.when("it was reaped", SOON, |now| {
                gone(now, workers[number % count].pid)
            });
        }
        server.when("all workers are ready", SOON, |workers| {
            all_ready(workers, count)
        });
        between(&load);
        load.end()
    }

    fn stop(&self) -> Report {
        let times = self.rounds.div_ceil(ROUNDS_PER_STOP);
        let server = self.launch.clone().start();
        let count = server.workers().len();
        let load = start_load(&server);
        for number in 0..times {
            let workers = server.when("all workers are ready", SOON, |workers| {
                all_ready(workers, count)
            });
            between(&load);
            let pid = workers[number % count].pid;
            process::send(pid, Signal::SIGSTOP);
            // The other workers serve while this one does not.
            between(&load);
            eventually("the stopped worker is gone", SOON, || {
                (!process::alive(pid)).then_some(())
            });
        }
        server.when("all workers are ready", SOON, |workers| {
            all_ready(workers, count)
        });
        between(&load);
        let mut report = Report {
            times,
            tally: load.end(),
            ..Report::default()
        };
        let Tally {
            refused,
            wrong,
            late,
            broken,
            worst_gap,
            ..
        } = report.tally;
        report.must(refused == 0, "nobody is refused");
        report.must(
            wrong + late == 0,
            "every answer is the right one, and in time",
        );
        report.must(
            broken <= times as u64 * CLIENTS,
            "a stop costs each client at most one request",
        );
        report.must(worst_gap < GAP_MAX, "a stopped worker is replaced in time");
        report
    }

    fn descriptors(&self) -> Report {
        let server = self
            .launch
            .clone()
            .after_shell(&format!("ulimit -n {DESCRIPTORS}"))
            .start();
        let before: Vec<i32> = server.workers().iter().map(|worker| worker.pid).collect();
        let load = start_load(&server);
        between(&load);
        let idle: Vec<_> = (0..IDLE)
            .filter_map(|_| TcpStream::connect(server.addr()).ok())
            .collect();
        server.log().line_with("out of descriptors");
        // Those who were connected before go on.
        between(&load);
        drop(idle);
        let tally = load.end();
        // Whatever the flood cost, it is over: from here on nothing may fail.
        let load = start_load(&server);
        between(&load);
        let after_flood = load.end();
        let mut report = Report {
            times: 1,
            tally,
            ..Report::default()
        };
        let refused = report.tally.refused;
        report.must(refused == 0, "nobody is refused");
        report.must(
            after_flood.failed() == 0,
            "after the flood every request is answered",
        );
        let after: Vec<i32> = server.workers().iter().map(|worker| worker.pid).collect();
        report.must(before == after, "no worker dies of it");
        report.remark = format!("{IDLE} idle connections, {DESCRIPTORS} descriptors");
        report
    }

    fn orphans(&self) -> Report {
        let mut server = self.launch.clone().start();
        let pids: Vec<i32> = server.workers().iter().map(|worker| worker.pid).collect();
        let load = start_load(&server);
        between(&load);
        server.signal(Signal::SIGKILL);
        let killed = Instant::now();
        server.end(SOON);
        eventually("the workers are gone", SOON, || {
            pids.iter().all(|pid| !process::alive(*pid)).then_some(())
        });
        let gone = killed.elapsed();
        let mut report = Report {
            times: 1,
            tally: load.end(),
            ..Report::default()
        };
        report.must(gone <= ORPHAN_MAX, "no worker is left after 1 s");
        report.remark = format!("workers gone after {} ms", gone.as_millis());
        report
    }
}

fn start_load(server: &Server) -> Load {
    Load::start(server.addr(), "/", KEPT, FRESH)
}

fn all_ready(workers: &[Worker], count: usize) -> bool {
    workers.len() == count && workers.iter().all(Worker::is_ready)
}

/// Waits for some requests to be answered.
fn between(load: &Load) {
    let before = load.answered();
    eventually("requests are answered", SOON, || {
        (load.answered() >= before + BETWEEN).then_some(())
    });
}

/// Holds a phase to what a reload promises.
fn graceful(times: usize, tally: Tally) -> Report {
    let (failed, idle_closed) = (tally.failed(), tally.idle_closed);
    let mut report = Report {
        times,
        tally,
        ..Report::default()
    };
    report.must(failed == 0, "no request fails");
    report.must(
        idle_closed == 0,
        "no connection is closed without a warning",
    );
    report
}
