//! What the loop tells the policy, and what the policy tells the loop.

use super::state::{StateAction, StateEvent};
use super::worker::{Place, WorkerId};
use crate::config::Drain;
use crate::failure::Failure;
use crate::ipc::ControlReply;
use crate::supervisor::deploy::Deployment;
use crate::supervisor::process::Ending;
use nix::sys::signal::Signal;
use std::rc::Rc;
use std::time::Duration;

/// Who asked for something over the control socket and waits for the answer.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(in super::super) struct Ticket(pub(in super::super) u64);

/// What happened.
#[derive(Debug)]
pub(in super::super) enum Event {
    /// The compile child is done.
    Prepared(Result<Rc<Deployment>, Failure>),
    /// The worker serves.
    Ready(WorkerId),
    /// The worker gave a sign of life and has answered this many requests.
    Heartbeat(WorkerId, u64),
    /// The worker cannot serve this component.
    Failed(WorkerId, Failure),
    /// The worker said what no worker says.
    Garbage(WorkerId),
    /// The worker has this many bytes of resident memory.
    Resident(WorkerId, u64),
    /// The worker has ended and was reaped.
    Ended(WorkerId, Ending),
    /// Load the component again.
    Reload(Option<Ticket>),
    /// Run this many workers.
    Scale(usize, Ticket),
    /// One worker more.
    Grow,
    /// One worker fewer, but at least one.
    Shrink,
    /// Drain and end.
    Stop,
    /// SIGTERM or SIGINT: drain and end, and the second time at once.
    Terminate,
    /// A listening socket was replaced: no worker has the new one.
    ListenerReplaced,
    /// Something about the state process.
    State(StateEvent),
    /// The supervisor did not run for this long, and workers may not have either.
    Overslept(Duration),
}

/// What to do.
#[derive(Debug)]
pub(in super::super) enum Action {
    /// Start the compile child; `reload` tells whether something serves meanwhile.
    Prepare { reload: bool },
    /// End the compile child.
    EndPreparation,
    /// Fork a worker.
    Spawn {
        worker: WorkerId,
        place: Place,
        deployment: Rc<Deployment>,
    },
    /// Ask the worker to finish and exit.
    Drain {
        worker: WorkerId,
        drain: Drain,
        why: &'static str,
    },
    /// Send the worker a signal.
    Kill {
        worker: WorkerId,
        signal: Signal,
        why: &'static str,
    },
    /// Every worker of this generation is ready, and now it is the one that serves.
    Serve {
        generation: u64,
        workers: usize,
        is_first: bool,
    },
    /// The reload was given up, the old generation goes on.
    KeepServing { failure: Failure },
    /// Workers keep dying, or do no longer.
    Degraded(bool),
    /// Something about the state process.
    State(StateAction),
    /// The end has begun.
    Stopping,
    /// Answer a `wrun` command.
    Reply { ticket: Ticket, reply: ControlReply },
}
