//! A worker process as the supervisor holds it: its process, its channel, and what it last said of itself.
//!
//! Decides nothing. A worker runs guests, so what it says is taken as a claim and never as an instruction.

use super::deploy::Deployment;
use super::policy::Place;
use super::process::Process;
use super::spawn::Child;
use crate::config::{Config, Drain};
use crate::engine::instances;
use crate::host::http::IDLE_PER_HOST;
use crate::ipc::{Channel, ToSupervisor, ToWorker, Vitals};
use crate::listener::Listener;
use crate::sandbox::{Privileges, Role, Sandbox};
use crate::worker::{self, Boot};
use nix::sys::resource::Resource;
use serde::de::DeserializeOwned;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Memory that a worker may have besides its guests': code's data, connections, buffers.
const OWN_MEMORY: u64 = 4 << 30;

/// Descriptors that a worker may have besides connections.
const OWN_DESCRIPTORS: u64 = 1024;

/// A worker that has not been reaped.
#[derive(Debug)]
pub(super) struct WorkerHandle {
    pub(super) process: Process,
    /// `None` once the worker has closed its end.
    channel: Option<Channel>,
    pub(super) vitals: Vitals,
    pub(super) started: Instant,
    /// Whether it was told where the state process is.
    pub(super) uses_state: bool,
}

/// What came out of a child's channel.
#[derive(Debug)]
pub(super) enum Heard<T> {
    Message(T),
    Garbage,
    /// Nothing yet, or nothing ever again.
    Silence,
}

impl WorkerHandle {
    /// Forks the worker for `place`; `state` is the path of the state process's socket.
    pub(super) fn spawn(
        place: Place,
        deployment: &Deployment,
        listeners: &[Listener],
        state: PathBuf,
        sandbox: &Sandbox,
        now: Instant,
    ) -> io::Result<Self> {
        let Place { slot, generation } = place;
        let (ours, theirs) = Channel::pair()?;
        // Copies for the child: whatever becomes of them there, the supervisor's own stay open.
        let listeners = listeners
            .iter()
            .map(Listener::duplicate)
            .collect::<io::Result<Vec<_>>>()?;
        let mut keep = vec![theirs.as_raw_fd()];
        keep.extend(listeners.iter().map(|listener| listener.as_raw_fd()));
        let cpu = deployment.cpu(slot);
        let uses_state = deployment.uses_state();
        let child = Child {
            name: format!("wrun: worker {slot}"),
            keep,
            cpu,
            expendable: true,
            privileges: privileges(sandbox, &deployment.prepared.config),
        };
        let sandbox = sandbox.mode();
        let process = child.fork(|| {
            let config = deployment.prepared.config.clone();
            let code = deployment.prepared.code.clone();
            worker::run(Boot {
                slot,
                generation,
                cpu,
                config,
                code,
                listeners,
                channel: theirs,
                state: uses_state.then_some(state),
                sandbox,
            })
        })?;
        Ok(Self {
            process,
            channel: Some(ours),
            vitals: Vitals::default(),
            started: now,
            uses_state,
        })
    }

    /// Returns its channel, to poll.
    pub(super) fn channel(&self) -> Option<BorrowedFd<'_>> {
        self.channel.as_ref().map(|channel| channel.as_fd())
    }

    /// Returns the next thing it said.
    pub(super) fn listen(&mut self) -> Heard<ToSupervisor> {
        let heard = hear(&mut self.channel);
        if let Heard::Message(ToSupervisor::Heartbeat(vitals)) = &heard {
            self.vitals = *vitals;
        }
        heard
    }

    /// Tells it to finish and exit.
    pub(super) fn drain(&self, drain: &Drain) {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let message = ToWorker::Drain {
            grace_ms: millis(drain.grace),
            deadline_ms: millis(drain.timeout),
        };
        // One that cannot be told is killed at its deadline.
        self.tell(&message);
    }

    /// Tells it something; nothing happens if it does not listen.
    pub(super) fn tell(&self, message: &ToWorker) {
        let _ = self.channel.as_ref().map(|channel| channel.send(message));
    }
}

/// Returns the next thing that a child said. At the end of its channel that is closed here, too.
pub(super) fn hear<T: DeserializeOwned>(channel: &mut Option<Channel>) -> Heard<T> {
    let Some(open) = channel else {
        return Heard::Silence;
    };
    match open.recv() {
        Ok(Some(message)) => Heard::Message(message),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Heard::Silence,
        Err(error) if is_garbage(&error) => Heard::Garbage,
        Ok(None) | Err(_) => {
            // Its end is for the pidfd to report; one that lives on without a channel falls silent and hangs.
            *channel = None;
            Heard::Silence
        }
    }
}

/// Returns what a worker gives up, which depends on what its guests may use.
fn privileges(sandbox: &Sandbox, config: &Config) -> Privileges {
    let limits = &config.limits;
    let instances = u64::from(instances(config));
    let memory = instances
        .saturating_mul(limits.memory)
        .saturating_add(OWN_MEMORY);
    let outbound = match config.outbound.len() as u64 {
        0 => 0,
        places => u64::from(limits.outbound_parallel)
            .saturating_add(places.saturating_mul(IDLE_PER_HOST as u64)),
    };
    let descriptors = u64::from(limits.connections)
        .saturating_add(outbound)
        .saturating_add(OWN_DESCRIPTORS);
    sandbox
        .privileges(Role::Worker)
        // Not RLIMIT_AS: what guests' memories reserve is never used.
        .limit(Resource::RLIMIT_DATA, memory)
        .limit(Resource::RLIMIT_NOFILE, descriptors)
        .limit(Resource::RLIMIT_MEMLOCK, 0)
}

/// Tells whether an error is about a packet and not about the socket.
fn is_garbage(error: &io::Error) -> bool {
    // serde_json reports a packet that ends too early as the end of a file.
    matches!(
        error.kind(),
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
    )
}
