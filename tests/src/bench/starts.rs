//! How long it takes from a start to the first answer, and from the death of a worker to the next.

use super::contender::{Contender, Order, Programs};
use super::guests::Guest;
use super::running::Running;
use crate::http1::Connection;
use crate::process;
use crate::wait::watch;
use nix::sys::signal::Signal;
use serde::Serialize;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

const REQUEST: &str = "GET / HTTP/1.1\r\nhost: bench.example\r\n\r\n";

/// How long to wait for an answer in all.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long to wait for one answer. node:cluster accepts connections while it has no worker, and forgets them.
const ASK: Duration = Duration::from_millis(500);

/// What one start came to.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Start {
    /// From the start of its first process to the first answer.
    pub answer_ms: f64,
    /// The same where it has to compile the component first.
    pub compile_ms: Option<f64>,
    /// From the kill of its only worker to an answer on a new connection, if it has workers.
    pub replaced_ms: Option<f64>,
}

/// Measures one contender, once.
///
/// # Errors
///
/// What did not work.
pub fn measure(
    programs: &Programs,
    contender: Contender,
    component: &Path,
) -> Result<Start, String> {
    let order = Order {
        contender,
        guest: Guest::HelloRust,
        component,
        workers: 1,
        cores: None,
    };
    if contender == Contender::Wasmtime || contender == Contender::Wrun {
        // The first start may compile; from then on the code is there.
        drop(programs.start(&order)?);
    }
    let begin = Instant::now();
    let running = programs.start(&order)?;
    let answer = answered(running.addr(), begin)?;
    let replaced_ms = match contender {
        Contender::Wasmtime => None,
        Contender::Hyper | Contender::Node | Contender::Wrun => Some(replaced(&running)?),
    };
    let compile_ms = match contender {
        Contender::Wrun => Some(with_compilation(programs, component)?),
        Contender::Hyper | Contender::Node | Contender::Wasmtime => None,
    };
    Ok(Start {
        answer_ms: answer,
        compile_ms,
        replaced_ms,
    })
}

/// Starts wrun with nothing compiled.
fn with_compilation(programs: &Programs, component: &Path) -> Result<f64, String> {
    let folder = crate::folder();
    let command = programs.wrun_in(&folder.path().join("state"), component, 1);
    let begin = Instant::now();
    let running = Running::start(command)?;
    answered(running.addr(), begin)
}

/// Kills the only worker.
fn replaced(running: &Running) -> Result<f64, String> {
    let workers = process::children(running.pid());
    let [worker] = workers[..] else {
        return Err(format!("{} workers instead of one", workers.len()));
    };
    let begin = Instant::now();
    process::send(worker, Signal::SIGKILL);
    answered(running.addr(), begin)
}

/// Asks on new connections until there is an answer; returns the milliseconds since `begin`.
fn answered(addr: SocketAddr, begin: Instant) -> Result<f64, String> {
    let answer = watch(PATIENCE, || ask(addr).ok().filter(|status| *status == 200));
    answer.ok_or("there was no answer")?;
    Ok(begin.elapsed().as_secs_f64() * 1e3)
}

fn ask(addr: SocketAddr) -> io::Result<u16> {
    let mut connection = Connection::try_open(addr, ASK)?;
    connection.try_send(REQUEST)?;
    Ok(connection.try_response()?.status)
}
