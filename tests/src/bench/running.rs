//! A server of some contender's: its address, its processes and what they cost. Ended when it is dropped.

use crate::log::Log;
use crate::process;
use crate::wait::watch;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a start may take: one of them compiles.
const START: Duration = Duration::from_secs(120);

/// A server that serves.
#[derive(Debug)]
pub struct Running {
    child: Child,
    addr: SocketAddr,
    log: Log,
}

/// What processes take up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Memory {
    /// Resident, what they share counted for each.
    pub rss_mib: f64,
    /// What they share counted once.
    pub pss_mib: f64,
}

impl Running {
    /// Starts a server and waits until it says its URL, on stdout or stderr.
    ///
    /// # Errors
    ///
    /// Why it does not serve.
    pub fn start(mut command: Command) -> Result<Self, String> {
        let failed = |error: io::Error| format!("failed to start {command:?}: {error}");
        let (says, hears) = io::pipe().map_err(failed)?;
        let second = hears.try_clone().map_err(failed)?;
        command
            .stdin(Stdio::null())
            .stdout(second)
            .stderr(hears)
            .process_group(0);
        process::die_with_this_thread(&mut command);
        let child = command
            .spawn()
            .map_err(|error| format!("failed to start {command:?}: {error}"))?;
        // The command holds the pipe's other end, which would keep the log open.
        drop(command);
        // From here on `Drop` ends the process whatever happens.
        let mut running = Self {
            child,
            addr: SocketAddr::from(([0, 0, 0, 0], 0)),
            log: Log::read(says),
        };
        let url = watch(START, || {
            let lines = running.log.lines();
            match lines.iter().find_map(|line| url(line)) {
                Some(addr) => Some(Some(addr)),
                None => running.log.ended().then_some(None),
            }
        });
        match url.flatten() {
            Some(addr) => running.addr = addr,
            None => return Err(format!("it did not serve: {}", running.last_words())),
        }
        Ok(running)
    }

    /// Returns where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the id of the process that was started.
    ///
    /// # Panics
    ///
    /// Never: process ids are small.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a process id")
    }

    /// Returns all that it said.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Returns the last that it said.
    pub fn last_words(&self) -> String {
        let lines = self.log.lines();
        lines[lines.len().saturating_sub(3)..].join(" / ")
    }

    /// Returns the CPU time that its processes have used.
    pub fn cpu_time(&self) -> Duration {
        let family = process::family(self.pid());
        family.into_iter().map(process::cpu_time).sum()
    }

    /// Returns what its processes take up.
    pub fn memory(&self) -> Memory {
        let mut sum = Memory::default();
        for pid in process::family(self.pid()) {
            let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"));
            let memory = parse_rollup(&rollup.unwrap_or_default());
            sum.rss_mib += memory.rss_mib;
            sum.pss_mib += memory.pss_mib;
        }
        sum
    }

    /// Returns which of its workers, the processes that it started, use the CPU, looking on for `time`.
    pub fn busy(&self, time: Duration) -> Vec<i32> {
        let workers = process::children(self.pid());
        let before: Vec<_> = workers.iter().map(|pid| process::cpu_time(*pid)).collect();
        let begin = Instant::now();
        watch(time * 2, || (begin.elapsed() >= time).then_some(()));
        let used = workers.iter().zip(before);
        used.filter(|(pid, before)| process::cpu_time(**pid).saturating_sub(*before) > time / 8)
            .map(|(pid, _)| *pid)
            .collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = killpg(Pid::from_raw(self.pid()), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

/// Returns the address in a line with a URL.
pub fn url(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("http://")?;
    rest.split(['/', ' ']).next()?.parse().ok()
}

/// Reads a process's `smaps_rollup`.
pub fn parse_rollup(text: &str) -> Memory {
    let mib = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok());
        kib.unwrap_or(0.0) / 1024.0
    };
    Memory {
        rss_mib: mib("Rss:"),
        pss_mib: mib("Pss:"),
    }
}
