//! The state process as the supervisor holds it: its socket, its process, its channel, and what is done with them.
//!
//! Decides nothing, and never reads what workers and the state process say to each other.

use super::Supervisor;
use super::policy::{Event, StateAction, StateEvent};
use super::process::{Ending, Process};
use super::spawn::Child;
use super::worker_handle::{Heard, hear};
use crate::config::{Secret, Shared};
use crate::exit_code::ExitCode;
use crate::failure::{Failure, OrFail as _};
use crate::ipc::{Channel, StateReport, StateVitals, ToState};
use crate::sandbox::{Role, Sandbox};
use crate::state::server::{self, Boot};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// A state process that has not been reaped.
#[derive(Debug)]
pub(super) struct StateHandle {
    pub(super) process: Process,
    /// `None` once it has closed its end.
    channel: Option<Channel>,
    pub(super) started: Instant,
    /// What it last said of itself.
    pub(super) vitals: StateVitals,
    /// The workers that were alive at its start and had used another one before it.
    live: Vec<i32>,
}

impl StateHandle {
    /// Forks a state process that serves those who connect to `listener`, which stays open here: connections wait in it
    /// from the end of one state process until the next.
    fn spawn(
        data: PathBuf,
        reads: Vec<PathBuf>,
        (servers, identity): (BTreeMap<String, Secret>, String),
        listener: &UnixListener,
        live: Vec<i32>,
        sandbox: &Sandbox,
        now: Instant,
    ) -> io::Result<Self> {
        let (ours, theirs) = Channel::pair()?;
        let listener = listener.try_clone()?;
        let child = Child {
            name: "wrun: state".to_owned(),
            keep: vec![theirs.as_raw_fd(), listener.as_raw_fd()],
            cpu: None,
            expendable: false,
            // What SQLite sorts in a file, in a migration for one, it puts beside the data.
            privileges: sandbox
                .privileges(Role::State)
                .variable("SQLITE_TMPDIR", &data)
                // The client of NATS reads the certificates of the system, whatever it is told to trust, and fails if it
                // may not. In this file, which the state process may read, there are none.
                .variable("SSL_CERT_FILE", Path::new("/proc/version")),
        };
        let sandbox = sandbox.mode();
        let process = child.fork(|| {
            server::run(Boot {
                data,
                listener,
                channel: theirs,
                reads,
                servers,
                identity,
                sandbox,
            })
        })?;
        Ok(Self {
            process,
            channel: Some(ours),
            started: now,
            vitals: StateVitals::default(),
            live,
        })
    }

    /// Returns its channel, to poll.
    pub(super) fn channel(&self) -> Option<BorrowedFd<'_>> {
        self.channel.as_ref().map(|channel| channel.as_fd())
    }

    fn tell(&self, message: &ToState) -> io::Result<()> {
        match &self.channel {
            Some(channel) => channel.send(message),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

impl Supervisor<'_> {
    pub(super) fn carry_out_for_state(&mut self, action: StateAction, now: Instant) {
        match action {
            StateAction::Spawn => self.spawn_state(now),
            StateAction::Configure {
                generation,
                deployment,
            } => {
                let shared = deployment.prepared.config.shared.clone();
                self.configure_state(generation, shared, now);
            }
            StateAction::Forget { generation } => self.tell_state(&ToState::Forget { generation }),
            StateAction::Stop => self.tell_state(&ToState::Stop),
            StateAction::Kill { signal, why } => {
                if let Some(handle) = &mut self.state_process {
                    let pid = handle.process.pid().as_raw();
                    tracing::warn!(pid, %signal, why, "state process is killed");
                    handle.process.signal(signal);
                }
            }
            StateAction::Degraded(true) => {
                tracing::error!("the state process keeps dying, restarts are slowed down");
                self.notify
                    .status("degraded: the state process keeps dying");
            }
            StateAction::Degraded(false) => {
                tracing::info!("the state process has stopped dying");
                self.notify.status("serving");
            }
        }
    }

    /// Takes in what the state process says, at most `messages` of it.
    pub(super) fn listen_to_state(&mut self, messages: usize, now: Instant) {
        for _ in 0..messages {
            let Some(handle) = &mut self.state_process else {
                return;
            };
            let pid = handle.process.pid().as_raw();
            let event = match hear(&mut handle.channel) {
                Heard::Silence => return,
                Heard::Garbage => StateEvent::Garbage,
                Heard::Message(StateReport::Heartbeat(vitals)) => {
                    handle.vitals = vitals;
                    StateEvent::Heartbeat
                }
                Heard::Message(StateReport::Configured { generation }) => {
                    tracing::info!(pid, generation, "state process ready");
                    StateEvent::Configured(generation)
                }
                Heard::Message(StateReport::Failed {
                    generation,
                    failure,
                }) => StateEvent::Refused(generation, failure),
            };
            self.policy.note(Event::State(event), now);
        }
    }

    pub(super) fn reap_state(&mut self, now: Instant) {
        // Its last words may have come since the poll, and they say more than its status.
        self.listen_to_state(super::LAST_WORDS_MAX, now);
        let Some(handle) = &self.state_process else {
            return;
        };
        let ending = match handle.process.try_wait() {
            Ok(Some(ending)) => ending,
            Ok(None) => return,
            Err(error) => Ending::NotStarted(error.to_string()),
        };
        let pid = handle.process.pid().as_raw();
        if self.policy.state_process().is_asked_to_end() {
            tracing::info!(pid, %ending, "state process ended");
        } else {
            tracing::warn!(pid, %ending, "state process ended unasked");
        }
        self.state_process = None;
        let event = StateEvent::Ended(ending);
        self.policy.note(Event::State(event), now);
    }

    /// Forks the state process. In the child this never returns.
    fn spawn_state(&mut self, now: Instant) {
        let users = self.workers.values().filter(|worker| worker.uses_state);
        let live = users.map(|worker| worker.process.pid().as_raw()).collect();
        match self.fork_state(live, now) {
            Ok(handle) => {
                let pid = handle.process.pid().as_raw();
                tracing::info!(pid, "state process started");
                self.state_process = Some(handle);
            }
            Err(failure) => {
                tracing::error!(error = %failure, "state process could not be started");
                let event = StateEvent::Ended(Ending::NotStarted(failure.to_string()));
                self.policy.note(Event::State(event), now);
            }
        }
    }

    fn fork_state(&mut self, live: Vec<i32>, now: Instant) -> Result<StateHandle, Failure> {
        let listener = match self.state_listener.take() {
            Some(listener) => listener,
            None => self.folder.listen_for_state()?,
        };
        let listener = self.state_listener.insert(listener);
        let reads = self.config.reads();
        // Secrets: they are wiped here once the child has its copy.
        let servers = self.bindings.resolve()?;
        StateHandle::spawn(
            self.folder.data(),
            reads,
            (servers, self.identity.clone()),
            listener,
            live,
            &self.sandbox,
            now,
        )
        .or_fail(ExitCode::System, || "cannot fork".to_owned())
    }

    fn configure_state(&mut self, generation: u64, shared: Shared, now: Instant) {
        let Some(handle) = &self.state_process else {
            return;
        };
        let live = handle.live.clone();
        let told = handle.tell(&ToState::Configure {
            generation,
            shared,
            live,
        });
        // One that cannot be told because it is gone or hangs is replaced, and then told.
        if let Err(error) = told
            && error.kind() == io::ErrorKind::InvalidInput
        {
            let failure = Failure::new(ExitCode::Config, "too much is shared to be told at once")
                .hint("use fewer labels, or shorter paths of migrations, in wrun.toml");
            let event = StateEvent::Refused(generation, failure);
            self.policy.note(Event::State(event), now);
        }
    }

    fn tell_state(&self, message: &ToState) {
        if let Some(handle) = &self.state_process {
            // One that cannot be told to stop is killed at its deadline.
            let _ = handle.tell(message);
        }
    }
}
