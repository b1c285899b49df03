//! Tries the sandbox on children of its own, before any worker is in it.
//!
//! What they find is for people to read, and for `--sandbox require` to insist on. They run no guest.

use super::process::Ending;
use super::spawn::Child;
use crate::config::sandbox::Mode;
use crate::exit_code::ExitCode;
use crate::failure::{Failure, OrFail as _};
use crate::sandbox::{Layer, Needs, Role, Sandbox, missing, trial};
use nix::sys::signal::Signal;
use nix::unistd::{Uid, pipe2};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;

/// The largest report in bytes.
const REPORT_MAX: u64 = 64 << 10;

/// What a trial found.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Trial {
    /// Every layer of a worker that has no grants.
    pub layers: Vec<Layer>,
    /// What it could do all the same.
    pub not_refused: Vec<String>,
}

impl Trial {
    /// Confines a child as a worker is confined, and has it try what it must not be able to do.
    pub fn run(sandbox: &Sandbox) -> Result<Self, Failure> {
        let mut trial = Self::report(sandbox)
            .or_fail(ExitCode::System, || "cannot try the sandbox".to_owned())?;
        let ending = Self::run_a_program(sandbox)
            .or_fail(ExitCode::System, || "cannot try the sandbox".to_owned())?;
        if ending != Ending::Signaled(Signal::SIGSYS as i32) {
            trial.not_refused.push("running a program".to_owned());
        }
        Ok(trial)
    }

    /// Has a child try what is refused, and returns what it found.
    fn report(sandbox: &Sandbox) -> io::Result<Self> {
        let (read, write) = pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        let (shared, _peer) = UnixStream::pair()?;
        let child = child(sandbox, vec![write.as_raw_fd(), shared.as_raw_fd()]);
        let process = child.fork(|| {
            let mut needs = Needs::none(Role::Worker);
            needs.listeners = vec![shared.as_raw_fd()];
            let found = Self {
                layers: needs.apply(),
                not_refused: trial::what_is_not_refused(&shared),
            };
            match serde_json::to_writer(File::from(write), &found) {
                Ok(()) => ExitCode::Ok,
                Err(_) => ExitCode::Internal,
            }
        })?;
        // It ends with the child, which waits for nothing.
        let mut text = Vec::new();
        File::from(read).take(REPORT_MAX).read_to_end(&mut text)?;
        process.wait()?;
        if text.is_empty() {
            return Err(io::Error::other(
                "a process could not be set up, the log says why",
            ));
        }
        Ok(serde_json::from_slice(&text)?)
    }

    /// Has a child do what costs its life, and returns how it ended.
    fn run_a_program(sandbox: &Sandbox) -> io::Result<Ending> {
        let child = child(sandbox, Vec::new());
        let process = child.fork(|| {
            Needs::none(Role::Worker).apply();
            trial::run_a_program();
            ExitCode::Ok
        })?;
        process.wait_for_ending()
    }

    /// Returns what keeps the sandbox from being whole, in words.
    pub fn faults(&self) -> Vec<String> {
        let layers = self.layers.iter().filter(|layer| !layer.is_on);
        let not_refused = self.not_refused.iter();
        layers
            .map(Layer::fault)
            .chain(not_refused.map(|what| format!("no way to refuse {what}")))
            .collect()
    }
}

/// What there is to be said of the sandbox, once the server serves: before that, the reason why it does not comes first.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    is_root: bool,
    is_off: bool,
    faults: Vec<String>,
}

impl Verdict {
    /// Tries the sandbox that the user wants, and fails if the user insists on what is missing.
    pub(super) fn on(sandbox: &Sandbox) -> Result<Self, Failure> {
        let mut verdict = Self {
            is_root: sandbox.identity().is_none() && Uid::effective().is_root(),
            is_off: sandbox.mode() == Mode::Off,
            faults: Vec::new(),
        };
        if verdict.is_off {
            return Ok(verdict);
        }
        let trial = Trial::run(sandbox)?;
        verdict.faults = trial.faults();
        match (sandbox.mode(), verdict.faults.first()) {
            (Mode::Require, Some(fault)) => Err(missing(fault)),
            _ => Ok(verdict),
        }
    }

    /// Says it in the log, a line for each thing.
    pub(super) fn say(&self) {
        if self.is_root {
            tracing::warn!("workers run as root: name another user with --user");
        }
        if self.is_off {
            tracing::warn!("workers are not confined: --sandbox off");
        }
        if !self.faults.is_empty() {
            let missing = self.faults.join("; ");
            tracing::warn!(missing, "workers are confined by less than there is");
        }
    }
}

fn child(sandbox: &Sandbox, keep: Vec<i32>) -> Child {
    Child {
        name: "wrun: trial".to_owned(),
        keep,
        cpu: None,
        expendable: true,
        privileges: sandbox.privileges(Role::Worker),
    }
}
