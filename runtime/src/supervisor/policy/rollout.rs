//! How a new generation takes over: make before break.
//!
//! Prepare the component, have the state process open what it needs, start all new workers, wait until each is ready,
//! and only then drain the old ones. If anything fails on the way, the new workers go and nothing has changed. The first
//! start is a rollout with nothing before it.

use super::restart::Backoff;
use super::worker::{BOOT_TIMEOUT, Phase, Worker, WorkerId};
use super::{Action, Generation, Policy, Ticket};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::ipc::ControlReply;
use crate::supervisor::deploy::Deployment;
use crate::supervisor::process::Ending;
use std::rc::Rc;
use std::time::Instant;

/// How often processes of the first generation may die before they are ready. A reload has no second try: what serves,
/// serves.
const BOOT_CRASHES_MAX: u32 = 5;

/// A generation on its way. The tickets are those of the clients that wait for it.
#[derive(Debug)]
pub(super) enum Rollout {
    /// The compile child works.
    Preparing(Vec<Ticket>),
    /// The workers start.
    Booting(Booting),
}

#[derive(Debug)]
pub(super) struct Booting {
    tickets: Vec<Ticket>,
    pub(super) generation: Generation,
    crashes: u32,
    /// Why this generation will not serve.
    failure: Option<Failure>,
}

impl Rollout {
    pub(super) fn into_tickets(self) -> Vec<Ticket> {
        match self {
            Self::Preparing(tickets) | Self::Booting(Booting { tickets, .. }) => tickets,
        }
    }

    pub(super) fn booting(&self) -> Option<&Booting> {
        match self {
            Self::Preparing(_) => None,
            Self::Booting(booting) => Some(booting),
        }
    }

    pub(super) fn booting_mut(&mut self) -> Option<&mut Booting> {
        match self {
            Self::Preparing(_) => None,
            Self::Booting(booting) => Some(booting),
        }
    }
}

impl Policy {
    /// Somebody wants the component to be loaded again: after what is under way, together with all who wait for that.
    pub(super) fn reload(&mut self, ticket: Option<Ticket>) {
        match self.ending {
            None => self.waiting.get_or_insert_default().extend(ticket),
            Some(_) => self.answer(ticket, &Self::refusal()),
        }
    }

    /// Takes the rollout one step on, if its time has come.
    pub(super) fn advance_rollout(&mut self) {
        if let Some(booting) = self.take_booting() {
            match booting.failure.clone() {
                Some(failure) => self.abandon(booting, failure),
                None if self.is_complete(&booting.generation) => self.adopt(booting),
                None => self.rollout = Some(Rollout::Booting(booting)),
            }
        }
        if self.ending.is_none()
            && self.rollout.is_none()
            && let Some(tickets) = self.waiting.take()
        {
            let reload = self.serving.is_some();
            self.rollout = Some(Rollout::Preparing(tickets));
            self.actions.push(Action::Prepare { reload });
        }
    }

    /// The compile child is done: on with the workers, or not.
    pub(super) fn prepared(&mut self, result: Result<Rc<Deployment>, Failure>) {
        let preparing = self.rollout.take_if(|it| it.booting().is_none());
        // A child that was ended has nothing to say any more.
        let Some(tickets) = preparing.map(Rollout::into_tickets) else {
            return;
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
        self.generations += 1;
        let generation = Generation {
            number: self.generations,
            deployment,
            slots: vec![Backoff::default(); self.scaled.unwrap_or(self.configured)],
        };
        self.rollout = Some(Rollout::Booting(Booting {
            tickets,
            generation,
            crashes: 0,
            failure: None,
        }));
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
    pub(super) fn boot_failed(&mut self, id: WorkerId, failure: Failure) {
        if let Some(worker) = self.workers.get(&id).cloned()
            && let Some(booting) = self.booting_mut(worker.place.generation)
        {
            booting.failure = Some(failure);
        }
    }

    /// Counts the unasked end of a worker, if its generation boots.
    pub(super) fn boot_crashed(&mut self, worker: &Worker, ending: &Ending) {
        let what = match self.serving {
            None => "workers keep dying while starting",
            Some(_) => "a worker died while starting",
        };
        let failure = Failure::new(ExitCode::Internal, format!("{what}: {ending}"))
            .hint("the log says how each one ended; if memory ran out, run fewer with --workers");
        self.count_boot_crash(worker.place.generation, ending, failure);
    }

    /// Counts the unasked end of the state process before it was ready for a generation, if that boots.
    pub(super) fn state_boot_crashed(&mut self, generation: u64, ending: &Ending) {
        let what = match self.serving {
            None => "the state process keeps dying while starting",
            Some(_) => "the state process died while opening what the new generation needs",
        };
        let failure = Failure::new(ExitCode::Internal, format!("{what}: {ending}"))
            .hint("the log says how it ended");
        self.count_boot_crash(generation, ending, failure);
    }

    /// The state process cannot give a generation what it needs.
    pub(super) fn state_boot_failed(&mut self, generation: u64, failure: Failure) {
        if let Some(booting) = self.booting_mut(generation) {
            booting.failure.get_or_insert(failure);
        }
    }

    fn count_boot_crash(&mut self, generation: u64, ending: &Ending, failure: Failure) {
        let is_first = self.serving.is_none();
        if let Some(booting) = self.booting_mut(generation) {
            booting.crashes += 1;
            if ending.is_hopeless() || !is_first || booting.crashes >= BOOT_CRASHES_MAX {
                booting.failure.get_or_insert(failure);
            }
        }
    }

    /// A worker was not ready in time.
    pub(super) fn boot_timed_out(&mut self, worker: &Worker) {
        if let Some(booting) = self.booting_mut(worker.place.generation) {
            let seconds = BOOT_TIMEOUT.as_secs();
            let why = format!("a worker was not ready within {seconds} s");
            booting.failure.get_or_insert(
                Failure::new(ExitCode::Internal, why)
                    .hint("if the machine is overloaded, run fewer with --workers"),
            );
        }
    }

    /// Workers of the generation that serves are replaced by others with the same component: their sockets are dead.
    pub(super) fn renew(&mut self) {
        if let Some(booting) = self.take_booting() {
            // Its workers have the dead sockets, too: from the start again.
            let waiting = self.waiting.get_or_insert_default();
            waiting.extend(booting.tickets);
        }
        if let Some(serving) = &mut self.serving {
            self.generations += 1;
            serving.number = self.generations;
            serving.slots.fill(Backoff::default());
        }
    }

    /// The new generation serves. The workers of the old one are surplus from here on.
    fn adopt(&mut self, booting: Booting) {
        let generation = booting.generation.number;
        let workers = booting.generation.slots.len();
        let is_first = self.serving.is_none();
        let config = &booting.generation.deployment.prepared.config;
        self.drain = config.drain.clone();
        self.serving = Some(booting.generation);
        self.actions.push(Action::Serve {
            generation,
            workers,
            is_first,
        });
        // What died was the old one's.
        if std::mem::take(&mut self.storm).is_degraded() {
            self.actions.push(Action::Degraded(false));
        }
        self.answer(booting.tickets, &ControlReply::Reloaded { generation });
    }

    /// The new generation goes, the old one stays.
    fn abandon(&mut self, booting: Booting, failure: Failure) {
        let number = booting.generation.number;
        // Those that are ready accept connections already, and those must not be lost: they drain, being surplus.
        let starts = |it: &Worker| it.place.generation == number && it.ready_at.is_none();
        for id in self.ids(starts) {
            self.expect_end(id);
            self.kill(id, "its generation was given up");
        }
        self.give_up(booting.tickets, failure);
    }

    /// Says why there is no new generation; without an old one, that is the end.
    fn give_up(&mut self, tickets: Vec<Ticket>, failure: Failure) {
        self.answer(tickets, &ControlReply::Failed(failure.clone()));
        match self.serving {
            Some(_) => self.actions.push(Action::KeepServing { failure }),
            None => self.fail(failure),
        }
    }

    fn take_booting(&mut self) -> Option<Booting> {
        match self.rollout.take() {
            Some(Rollout::Booting(booting)) => Some(booting),
            other => {
                self.rollout = other;
                None
            }
        }
    }

    /// Returns the generation that boots, if it is this one.
    fn booting_mut(&mut self, generation: u64) -> Option<&mut Booting> {
        let booting = self.rollout.as_mut().and_then(Rollout::booting_mut);
        booting.filter(|booting| booting.generation.number == generation)
    }
}
