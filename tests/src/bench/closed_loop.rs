//! Load by wrk: each connection sends its next request when it has the last answer.
//!
//! wrk, because it takes less of the CPU for itself than others do, and because it is not ours.

use super::Answers;
use super::contender::on_cores;
use super::scenario::Request;
use nix::sys::resource::{UsageWho, getrusage};
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// What to do where it is missing.
const INSTALL: &str = "wrk is missing: `apt-get install wrk`";

const SCRIPT: &str = include_str!("wrk.lua");

/// wrk, and its script.
#[derive(Debug)]
pub struct Wrk {
    script: PathBuf,
}

/// What the script prints at the end.
#[derive(Deserialize)]
struct Summary {
    /// Answers of any status.
    requests: u64,
    duration_us: u64,
    p50_us: u64,
    p99_us: u64,
    p999_us: u64,
    /// Answers whose status is no success; they are among `requests`.
    status: u64,
    connect: u64,
    read: u64,
    write: u64,
    timeout: u64,
}

impl Wrk {
    /// Writes its script into a folder.
    ///
    /// # Panics
    ///
    /// If the folder cannot be written to.
    pub fn new(folder: &std::path::Path) -> Self {
        let script = folder.join("wrk.lua");
        std::fs::write(&script, SCRIPT).expect("the folder takes files");
        Self { script }
    }

    /// Returns its version.
    ///
    /// # Errors
    ///
    /// How to get it, if it is missing.
    pub fn version(&self) -> Result<String, String> {
        let output = Command::new("wrk").arg("--version").output();
        let output = output.map_err(|_| INSTALL.to_owned())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let words: Vec<&str> = text.split(' ').take(2).collect();
        Ok(words.join(" "))
    }

    /// Has so many connections ask for about `time`, which is rounded up to seconds.
    ///
    /// # Errors
    ///
    /// Why that was not possible.
    pub fn run(
        &self,
        addr: SocketAddr,
        request: &Request,
        connections: usize,
        time: Duration,
        cores: Option<&[usize]>,
    ) -> Result<Answers, String> {
        let seconds = time.as_secs_f64().ceil();
        let mut command = Command::new("wrk");
        command
            .args(["-t", "1", "-c", &connections.to_string()])
            .args(["-d", &format!("{seconds}s"), "--timeout", "10s", "-s"])
            .arg(&self.script)
            .arg(format!("http://{addr}{}", request.target))
            .env("BENCH_METHOD", request.method)
            .env("BENCH_BODY_LEN", request.body_len.to_string());
        let before = children_cpu();
        let output = on_cores(command, cores)
            .output()
            .map_err(|_| INSTALL.to_owned())?;
        let cpu = children_cpu().saturating_sub(before);
        let text = String::from_utf8_lossy(&output.stdout);
        parse(&text, cpu).ok_or_else(|| {
            let error = String::from_utf8_lossy(&output.stderr);
            format!("wrk says {text}{error}")
        })
    }
}

/// Reads what wrk has printed.
pub fn parse(text: &str, cpu: Duration) -> Option<Answers> {
    let line = text.lines().rfind(|line| line.starts_with('{'))?;
    let summary: Summary = serde_json::from_str(line).ok()?;
    let broken = summary.connect + summary.read + summary.write + summary.timeout;
    Some(Answers {
        good: summary.requests.saturating_sub(summary.status),
        errors: summary.status + broken,
        took: Duration::from_micros(summary.duration_us),
        p50: Duration::from_micros(summary.p50_us),
        p99: Duration::from_micros(summary.p99_us),
        p999: Duration::from_micros(summary.p999_us),
        cpu,
    })
}

/// Returns the CPU time of all processes that this one has started and waited for.
fn children_cpu() -> Duration {
    getrusage(UsageWho::RUSAGE_CHILDREN).map_or(Duration::ZERO, |usage| {
        super::fixed_rate::sum(usage.user_time(), usage.system_time())
    })
}
