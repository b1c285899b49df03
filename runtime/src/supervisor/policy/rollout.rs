//! How a new generation takes over: make before break.
//!
//! Prepare the component, start all new workers, wait until each is ready, and only then drain the old ones. If anything
//! fails on the way, the new workers go and nothing has changed. The first start is a rollout with nothing before it.

use super::restart::Backoff;
use super::worker::{Phase, Worker};
use super::{Action, Generation, Policy, Ticket, WorkerId};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::ipc::ControlReply;
use crate::supervisor::deploy::Deployment;
use crate::supervisor::process::Ending;
use std::rc::Rc;
use std::time::Instant;

/// How often workers of the first generation may die before they are ready. A reload has no second try: what serves,
/// serves.
const BOOT_CRASHES_MAX: u32 = 5;

/// A generation on its way.
#[derive(Debug)]
pub(super) enum Rollout {
    /// The compile child works.
    Preparing { tickets: Vec<Ticket> },
    /// The workers start.
    Booting { tickets: Vec<Ticket>, generation: Generation, crashes: u32, failure: Option<Failure> },
}

impl Rollout {
    pub(super) fn into_tickets(self) -> Vec<Ticket> {
        match self {
            Self::Preparing { tickets } | Self::Booting { tickets, .. } => tickets,
        }
    }

    pub(super) fn generation_mut(&mut self) -> Option<&mut Generation> {
        match self {
            Self::Preparing { .. } => None,
            Self::Booting { generation, .. } => Some(generation),
        }
    }
}

impl Policy {
    /// Somebody wants the component to be loaded again: after what is under way, together with all who wait for that.
    pub(super) fn reload(&mut self, ticket: Option<Ticket>) {
        match self.ending {
            None => self.waiting.get_or_insert_default().extend(ticket),
            Some(_) => self.refuse(ticket, &Failure::new(ExitCode::Unavailable, "the server is stopping")),
        }
    }

    /// Takes the rollout one step on, if its time has come.
    pub(super) fn advance_rollout(&mut self) {
        if let Some(Rollout::Booting { generation, failure, .. }) = &self.rollout {
            if let Some(failure) = failure.clone() {
                self.abandon_rollout(failure);
            } else if self.all_ready(generation.number, generation.slots.len()) {
                self.finish_rollout();
            }
        }
        if self.ending.is_none()
            && self.rollout.is_none()
            && let Some(tickets) = self.waiting.take()
        {
            self.rollout = Some(Rollout::Preparing { tickets });
            self.actions.push(Action::Prepare { reload: self.serving.is_some() });
        }
    }

    /// The compile child is done: on with the workers, or not.
    pub(super) fn prepared(&mut self, result: Result<Rc<Deployment>, Failure>) {
        // One that was ended, or whose generation is not wanted any more, has nothing to say.
        let tickets = match self.rollout.take() {
            Some(Rollout::Preparing { tickets }) => tickets,
            other => {
                self.rollout = other;
                return;
            }
        };
        let deployment = match result {
            Ok(deployment) => deployment,
            Err(failure) => return self.give_up(tickets, failure),
        };
        if deployment.workers != self.configured {
            // The settings changed their mind, which outdates what somebody asked for before.
            self.scaled = None;
            self.configured = deployment.workers;
        }
        let slots = vec![Backoff::default(); self.scaled.unwrap_or(self.configured)];
        self.generations += 1;
        let generation = Generation { number: self.generations, deployment, slots };
        self.rollout = Some(Rollout::Booting { tickets, generation, crashes: 0, failure: None });
    }

    /// A worker serves.
    pub(super) fn ready(&mut self, id: WorkerId, now: Instant) {
        if let Some(worker) = self.workers.get_mut(&id)
            && worker.ready_at.is_none()
        {
            worker.ready_at = Some(now);
            worker.heard = now;
            if matches!(worker.phase, Phase::Starting { .. }) {
                worker.phase = Phase::Ready;
            }
        }
    }

    /// A worker says that it cannot serve this component: nor can the others of its generation.
    pub(super) fn boot_failed(&mut self, id: WorkerId, reason: Failure) {
        let Some(number) = self.workers.get(&id).map(|worker| worker.place.generation) else { return };
        if let Some(Rollout::Booting { generation, failure, .. }) = &mut self.rollout
            && generation.number == number
        {
            *failure = Some(reason);
        }
    }

    /// Counts the unasked end of a worker, if its generation boots.
    pub(super) fn boot_crashed(&mut self, worker: &Worker, ending: &Ending) {
        let is_first = self.serving.is_none();
        if let Some(Rollout::Booting { generation, crashes, failure, .. }) = &mut self.rollout
            && generation.number == worker.place.generation
        {
            *crashes += 1;
            let is_hopeless = *ending == Ending::Exited(ExitCode::Config.code());
            if is_hopeless || !is_first || *crashes >= BOOT_CRASHES_MAX {
                let what = if is_first { "workers keep dying" } else { "a worker died" };
                let why = || Failure::new(ExitCode::Internal, format!("{what} while starting: {ending}"));
                failure.get_or_insert_with(why);
            }
        }
    }

    /// A worker was not ready in time.
    pub(super) fn boot_timed_out(&mut self, worker: &Worker) {
        if let Some(Rollout::Booting { generation, failure, .. }) = &mut self.rollout
            && generation.number == worker.place.generation
        {
            let seconds = super::worker::BOOT_TIMEOUT.as_secs();
            let why = || Failure::new(ExitCode::Internal, format!("a worker did not start within {seconds} s"));
            failure.get_or_insert_with(why);
        }
    }

    /// Workers of the generation that serves are replaced by others with the same component: their sockets are dead.
    pub(super) fn renew(&mut self) {
        let booting = self.rollout.take_if(|rollout| matches!(rollout, Rollout::Booting { .. }));
        if let Some(Rollout::Booting { tickets, .. }) = booting {
            // Its workers have the dead sockets, too: from the start again.
            self.waiting.get_or_insert_default().extend(tickets);
        }
        if let Some(serving) = &mut self.serving {
            self.generations += 1;
            serving.number = self.generations;
            serving.slots.fill(Backoff::default());
        }
    }

    /// The new generation serves, the old one drains.
    fn finish_rollout(&mut self) {
        let Some(Rollout::Booting { tickets, generation, .. }) = self.rollout.take() else { return };
        let number = generation.number;
        self.drain = generation.deployment.prepared.config.drain.clone();
        let (workers, is_first) = (generation.slots.len(), self.serving.is_none());
        // The workers of the old one are surplus from here on.
        self.serving = Some(generation);
        self.actions.push(Action::Serve { generation: number, workers, is_first });
        if std::mem::take(&mut self.storm).is_degraded() {
            self.actions.push(Action::Degraded(false));
        }
        let reply = |ticket| Action::Reply { ticket, reply: ControlReply::Reloaded { generation: number } };
        self.actions.extend(tickets.into_iter().map(reply));
    }

    /// The new generation goes, the old one stays.
    fn abandon_rollout(&mut self, failure: Failure) {
        let Some(Rollout::Booting { tickets, generation, .. }) = self.rollout.take() else { return };
        // Those that are ready accept connections already, and those must not be lost: they drain, being surplus.
        let number = generation.number;
        for id in self.ids(|worker| worker.place.generation == number && worker.ready_at.is_none()) {
            self.expect_end(id);
            self.kill(id, "its generation was given up");
        }
        self.give_up(tickets, failure);
    }

    /// Says why there is no new generation; without an old one, that is the end.
    fn give_up(&mut self, tickets: Vec<Ticket>, failure: Failure) {
        self.refuse(tickets, &failure);
        match self.serving {
            Some(_) => self.actions.push(Action::KeepServing { failure }),
            None => self.fail(failure),
        }
    }
}
