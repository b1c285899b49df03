//! From settings and a component to something that workers can run: the compile child, and what comes out of it.
//!
//! Reading a stranger's component and compiling it may take all memory, all time, or crash, so none of it happens in
//! the supervisor: a child does it, and all that comes back is one bounded message.

use super::Supervisor;
use super::policy::Event;
use super::process::{Ending, Process};
use super::spawn::{Child, usable_cpus};
use crate::config::{Bindings, ServeArgs, Workers};
use crate::engine::{self, Prepared};
use crate::exit_code::ExitCode;
use crate::failure::{Failure, OrFail as _};
use crate::sandbox::{Role, Sandbox};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::Signal;
use nix::unistd::pipe2;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long building and compiling may take.
const TIME_MAX: Duration = Duration::from_secs(600);

/// The largest answer of the compile child in bytes.
const ANSWER_MAX: usize = 1 << 20;

/// What a generation of workers runs.
#[derive(Debug)]
pub(super) struct Deployment {
    pub(super) prepared: Prepared,
    /// How many workers its settings ask for.
    pub(super) workers: usize,
    /// The core for each slot; empty if workers are not pinned.
    cpus: Vec<usize>,
}

impl Deployment {
    fn new(prepared: Prepared) -> Self {
        let workers = prepared.config.workers.count();
        let cpus = match prepared.config.workers {
            Workers::Auto => usable_cpus(),
            Workers::Count(_) => Vec::new(),
        };
        // Where a cgroup grants less than the cores that are visible, which ones to leave to others is not ours to say.
        let cpus = if cpus.len() == workers {
            cpus
        } else {
            Vec::new()
        };
        Self {
            prepared,
            workers,
            cpus,
        }
    }

    /// Returns a deployment that nothing was compiled for.
    #[cfg(test)]
    pub(super) fn stub(config: crate::config::Config) -> Self {
        Self::new(Prepared {
            config,
            code: "code".into(),
            handles_http: true,
        })
    }

    /// Tells whether its workers need the state process.
    pub(super) fn uses_state(&self) -> bool {
        !self.prepared.config.shared.is_empty()
    }

    /// Returns the core that the worker in `slot` runs on, `None` for any.
    pub(super) fn cpu(&self, slot: usize) -> Option<usize> {
        self.cpus.get(slot).copied()
    }
}

/// The compile child at work. Dropped, it and all that it started are killed.
#[derive(Debug)]
pub(super) struct Preparation {
    process: Process,
    /// Where its answer comes from, until that is complete.
    pipe: Option<File>,
    answer: Vec<u8>,
    deadline: Instant,
    reaped: bool,
}

impl Preparation {
    /// Starts to prepare what `args` name, with `cache` as the folder for compiled code.
    pub(super) fn start(
        args: &ServeArgs,
        cache: &Path,
        sandbox: &Sandbox,
        now: Instant,
    ) -> io::Result<Self> {
        let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
        fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let child = Child {
            name: "wrun: compile".to_owned(),
            keep: vec![write.as_raw_fd()],
            cpu: None,
            expendable: true,
            privileges: sandbox.privileges(Role::Compile),
        };
        let process = child.fork(|| {
            let result = engine::prepare(args, cache, sandbox.mode());
            match serde_json::to_writer(File::from(write), &result) {
                Ok(()) => ExitCode::Ok,
                Err(_) => ExitCode::Internal,
            }
        })?;
        let pipe = Some(File::from(read));
        Ok(Self {
            process,
            pipe,
            answer: Vec::new(),
            deadline: now + TIME_MAX,
            reaped: false,
        })
    }

    /// Returns its process.
    pub(super) fn process(&self) -> &Process {
        &self.process
    }

    /// Returns where its answer comes from.
    pub(super) fn pipe(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(|pipe| pipe.as_fd())
    }

    /// Returns when it is to be given up.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Takes in what there is of the answer.
    pub(super) fn read(&mut self) {
        let Some(pipe) = &mut self.pipe else { return };
        let room = (ANSWER_MAX + 1 - self.answer.len()) as u64;
        let error = pipe.take(room).read_to_end(&mut self.answer).err();
        let is_more_to_come = error.is_some_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        if !is_more_to_come || self.answer.len() > ANSWER_MAX {
            self.pipe = None;
        }
    }

    /// Returns the outcome. To be asked when the child has ended, or at its deadline.
    pub(super) fn finish(&mut self, now: Instant) -> Option<Result<Deployment, Failure>> {
        if now >= self.deadline {
            let minutes = TIME_MAX.as_secs() / 60;
            return Some(Err(Failure::new(
                ExitCode::BadComponent,
                format!("building and compiling took more than {minutes} min"),
            )
            .hint("compile it ahead of time with `wrun compile`")));
        }
        // What it started, a cargo for one, must not outlive it.
        self.process.kill_group();
        let ending = self
            .process
            .try_wait()
            .unwrap_or(Some(Ending::Exited(ExitCode::System.code())))?;
        self.reaped = true;
        self.read();
        if self.answer.len() > ANSWER_MAX {
            return Some(Err(Failure::new(
                ExitCode::Internal,
                "the compile process said too much",
            )));
        }
        Some(match ending {
            Ending::Exited(0) => serde_json::from_slice::<Result<Prepared, Failure>>(&self.answer)
                .or_fail(ExitCode::Internal, || {
                    "cannot understand the compile process".to_owned()
                })
                .flatten()
                .map(Deployment::new),
            ending => Err(died(&ending)),
        })
    }
}

impl Drop for Preparation {
    fn drop(&mut self) {
        // Once it is reaped, its pid and group may be somebody else's.
        if !self.reaped {
            self.process.kill_group();
            let _ = self.process.wait();
        }
    }
}

impl Supervisor<'_> {
    pub(super) fn prepare(&mut self, reload: bool, now: Instant) {
        if reload {
            tracing::info!("reloading");
            self.notify.reloading();
        }
        match Preparation::start(self.args, &self.folder.cache(), &self.sandbox, now) {
            Ok(preparation) => self.preparation = Some(preparation),
            Err(error) => {
                let why = format!("cannot start the compile process: {error}");
                let failure = Failure::new(ExitCode::System, why);
                self.policy.note(Event::Prepared(Err(failure)), now);
            }
        }
    }

    pub(super) fn finish_preparation(&mut self, now: Instant) {
        let preparation = self.preparation.as_mut();
        let Some(result) = preparation.and_then(|preparation| preparation.finish(now)) else {
            return;
        };
        self.preparation = None;
        let result = result
            .and_then(|deployment| self.check_sockets(deployment))
            .and_then(|deployment| self.bind(deployment));
        if let Ok(deployment) = &result {
            self.warn_of_ignored_changes(deployment);
        }
        self.policy.note(Event::Prepared(result.map(Rc::new)), now);
    }

    /// Gives up the sockets if the first component has no use for them, and refuses a later one that has another mind.
    fn check_sockets(&mut self, deployment: Deployment) -> Result<Deployment, Failure> {
        let handles_http = deployment.prepared.handles_http;
        if self.policy.generation() == 0 && !handles_http {
            // Otherwise clients would wait in them for an answer that never comes.
            self.listeners.clear();
            self.urls.clear();
        }
        let what = match (handles_http, self.listeners.is_empty()) {
            (true, false) | (false, true) => return Ok(deployment),
            (true, true) => {
                "the new component handles requests, and the server does not listen for any"
            }
            (false, false) => {
                "the new component handles no requests, and the server listens for them"
            }
        };
        Err(Failure::new(ExitCode::Config, what)
            .hint("stop the server and start it with the new component"))
    }
}

impl Supervisor<'_> {
    /// Notes what is bound. While the server runs that stays as it is: data would be left behind otherwise.
    fn bind(&self, mut deployment: Deployment) -> Result<Deployment, Failure> {
        let shared = &mut deployment.prepared.config.shared;
        if Bindings::load(&self.args.bindings, shared)? != self.bindings {
            let what = "the bindings are not those with which the server was started";
            return Err(Failure::new(ExitCode::Config, what).hint(
                "restart the server, or change what --bind, WRUN_BIND_DB_… or --bindings say back",
            ));
        }
        self.bindings.apply(shared);
        Ok(deployment)
    }
}

/// Says why there is no answer.
fn died(ending: &Ending) -> Failure {
    // SIGABRT is how Rust ends when an allocation fails.
    const BY_LIMIT: [Signal; 4] = [
        Signal::SIGXCPU,
        Signal::SIGXFSZ,
        Signal::SIGKILL,
        Signal::SIGABRT,
    ];
    let by_limit = match ending {
        Ending::KilledByOther => true,
        Ending::Signaled(number) => BY_LIMIT.iter().any(|&signal| signal as i32 == *number),
        Ending::Exited(_) | Ending::NotStarted(_) => false,
    };
    if by_limit {
        return Failure::new(
            ExitCode::BadComponent,
            format!("compiling took more than its limits allow ({ending})"),
        )
        .hint("compile it with `wrun compile` on a larger machine, and serve the .cwasm");
    }
    Failure::new(
        ExitCode::Internal,
        format!("the compile process ended without a result: {ending}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn death_by_a_limit_is_the_fault_of_the_component() {
        for signal in [Signal::SIGXCPU, Signal::SIGKILL, Signal::SIGABRT] {
            assert_eq!(
                died(&Ending::Signaled(signal as i32)).code,
                ExitCode::BadComponent
            );
        }
        assert_eq!(died(&Ending::KilledByOther).code, ExitCode::BadComponent);
    }

    #[test]
    fn any_other_death_is_the_fault_of_wrun() {
        assert_eq!(
            died(&Ending::Signaled(Signal::SIGSEGV as i32)).code,
            ExitCode::Internal
        );
        assert_eq!(died(&Ending::Exited(70)).code, ExitCode::Internal);
    }
}
