//! New versions put in the place of the old while requests are answered: what that takes, and what it costs the clients.

use super::contender::{Contender, Order, Programs};
use super::guests::{Guest, Guests};
use super::running::Running;
use crate::components::{put, read};
use crate::http1::Connection;
use crate::load::Load;
use crate::process;
use crate::wait::watch;
use nix::sys::signal::Signal;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often a new version comes in a round.
const DEPLOYS: usize = 5;

/// Clients that keep their connections, and clients that open one for each request.
const KEPT: usize = 8;
const FRESH: usize = 4;

/// How long a deploy may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What one round came to.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Deploys {
    /// New versions that were put in place.
    pub deploys: usize,
    /// Requests meanwhile.
    pub requests: u64,
    /// Those of them that failed.
    pub failed: u64,
    /// Kept connections that were closed while they were idle, without a warning.
    pub idle_closed: u64,
    /// The longest that a client went without an answer.
    pub worst_gap_ms: f64,
    /// How long a deploy took.
    pub deploy_ms: f64,
}

/// Measures one contender, once.
///
/// # Errors
///
/// What did not work.
pub fn measure(
    programs: &Programs,
    guests: &mut Guests,
    contender: Contender,
    workers: usize,
) -> Result<Deploys, String> {
    let versions = [
        guests.component(Guest::HelloBindings)?,
        guests.component(Guest::HelloRust)?,
    ];
    let folder = crate::folder();
    let state = folder.path().join("state");
    let component = put(folder.path(), &read(&versions[0]));
    let running = match contender {
        Contender::Wrun => Running::start(programs.wrun_in(&state, &component, workers)),
        _ => programs.start(&Order {
            contender,
            guest: Guest::HelloBindings,
            component: &component,
            workers,
            cores: None,
        }),
    }?;
    let load = Load::start(running.addr(), "/", KEPT, FRESH);
    let begin = Instant::now();
    let mut last = version(&running)?;
    let deployed = (1..=DEPLOYS).try_for_each(|deploy| {
        match contender {
            Contender::Wrun => reload(programs, &versions, folder.path(), deploy)?,
            _ => replace(programs, &running, deploy)?,
        }
        // What an old worker has accepted just before it was told to go, it still answers.
        let is_new = || version(&running).ok().filter(|now| *now != last);
        last = watch(PATIENCE, is_new).ok_or("the old version still answers")?;
        Ok::<(), String>(())
    });
    let took = begin.elapsed();
    let tally = load.end();
    deployed?;
    Ok(Deploys {
        deploys: DEPLOYS,
        requests: tally.requests,
        failed: tally.failed(),
        idle_closed: tally.idle_closed,
        worst_gap_ms: tally.worst_gap.as_secs_f64() * 1e3,
        deploy_ms: took.as_secs_f64() * 1e3 / DEPLOYS as f64,
    })
}

/// Puts the other component in place and has wrun take it.
fn reload(
    programs: &Programs,
    versions: &[PathBuf; 2],
    folder: &Path,
    deploy: usize,
) -> Result<(), String> {
    put(folder, &read(&versions[deploy % 2]));
    let state = folder.join("state");
    let outcome = programs
        .wrun
        .run(["reload".as_ref(), "--state".as_ref(), state.as_os_str()]);
    match outcome.code {
        Some(0) => Ok(()),
        _ => Err(format!("wrun reload failed: {}", outcome.stderr)),
    }
}

/// Puts a new version of the script in place and has node:cluster replace its workers.
fn replace(programs: &Programs, running: &Running, deploy: usize) -> Result<(), String> {
    programs.write_node_cluster(deploy + 1);
    process::send(running.pid(), Signal::SIGHUP);
    let deployed = || {
        let lines = running.log().lines();
        lines.iter().filter(|line| *line == "deployed").count()
    };
    watch(PATIENCE, || (deployed() >= deploy).then_some(()))
        .ok_or_else(|| format!("no new workers: {}", running.last_words()))
}

/// Returns what a new connection is answered, which tells the version.
fn version(running: &Running) -> Result<String, String> {
    let broken = |error| format!("no answer between deploys: {error}");
    let mut connection = Connection::try_open(running.addr(), PATIENCE).map_err(broken)?;
    connection
        .try_send("GET / HTTP/1.1\r\nhost: bench.example\r\n\r\n")
        .map_err(broken)?;
    Ok(connection.try_response().map_err(broken)?.text())
}
