//! What the supervisor decides: which processes to start, drain and kill, and when.
//!
//! A state machine without processes, sockets or a clock: the loop tells it what happened ([`Policy::note`]), asks what
//! to do ([`Policy::decide`]) and passes the time to both. Every rule about restarts, reloads, hangs and the end is
//! here or in `policy/`, and is tested here.

mod end;
mod event;
mod restart;
mod rollout;
mod state;
#[cfg(test)]
mod tests;
mod upkeep;
mod worker;

pub(super) use event::{Action, Event, Ticket};
pub(super) use state::{StateAction, StateEvent};
pub(super) use worker::{Place, Worker, WorkerId};

use super::deploy::Deployment;
use super::process::Ending;
use crate::config::Drain;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::ipc::ControlReply;
use nix::sys::signal::Signal;
use restart::{Backoff, Storm};
use rollout::Rollout;
use state::StateProcess;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Instant;
use upkeep::{Recycling, Scaling};
use worker::{BOOT_TIMEOUT, DRAIN_MARGIN, Phase};

/// The most workers that a server may be scaled to.
pub(super) const WORKERS_MAX: usize = 1024;

/// How far the workers' limits on requests are spread, so that they are not reached together.
const REQUESTS_SPREAD: f64 = 0.1;

/// The workers of one generation as they should be.
#[derive(Debug)]
struct Generation {
    number: u64,
    deployment: Rc<Deployment>,
    /// By slot; as many as there should be workers.
    slots: Vec<Backoff>,
}

/// The state that decisions are made from.
#[derive(Debug)]
pub(super) struct Policy {
    /// Returns a random number between -1 and 1.
    jitter: fn() -> f64,
    /// How workers drain, by the settings that serve.
    drain: Drain,
    /// The number of workers by the settings that were loaded last.
    configured: usize,
    /// The number of workers that somebody asked for since.
    scaled: Option<usize>,
    /// `None` until the first generation is ready.
    serving: Option<Generation>,
    rollout: Option<Rollout>,
    /// Who waits for the reload after this one; `None` if nobody asked for one.
    waiting: Option<Vec<Ticket>>,
    scaling: Vec<Scaling>,
    workers: BTreeMap<WorkerId, Worker>,
    /// Unasked ends, by slot.
    restarts: Vec<u64>,
    storm: Storm,
    recycling: Option<Recycling>,
    state_process: StateProcess,
    /// The result to end with; while it is set, no worker is started.
    ending: Option<Result<(), Failure>>,
    /// Whether a signal asked for the end already.
    terminated: bool,
    /// The number of the newest generation.
    generations: u64,
    /// The id of the newest worker.
    spawned: u64,
    /// When [`Policy::decide`] has something to do, if nothing happens before.
    wake: Option<Instant>,
    /// Decided, not yet returned.
    actions: Vec<Action>,
}

impl Policy {
    /// Returns the state of a server that has not started; the first decision is to prepare its component.
    pub(super) fn new(drain: Drain, workers: usize, jitter: fn() -> f64) -> Self {
        Self {
            jitter,
            drain,
            configured: workers,
            scaled: None,
            serving: None,
            rollout: None,
            waiting: Some(Vec::new()),
            scaling: Vec::new(),
            workers: BTreeMap::new(),
            restarts: Vec::new(),
            storm: Storm::default(),
            recycling: None,
            state_process: StateProcess::default(),
            ending: None,
            terminated: false,
            generations: 0,
            spawned: 0,
            wake: None,
            actions: Vec::new(),
        }
    }

    /// Takes in what happened. What follows from it, [`Policy::decide`] says once everything is in.
    pub(super) fn note(&mut self, event: Event, now: Instant) {
        self.wake = Some(now);
        match event {
            Event::Prepared(result) => self.prepared(result),
            Event::Ready(id) => self.ready(id, now),
            Event::Heartbeat(id, requests) => {
                if let Some(worker) = self.workers.get_mut(&id) {
                    worker.heard = now;
                    worker.requests = requests;
                }
            }
            Event::Failed(id, failure) => self.boot_failed(id, failure),
            Event::Garbage(id) => {
                self.write_off(id, &Ending::Exited(ExitCode::Internal.code()), now);
                self.kill(id, "it sent garbage");
            }
            Event::Resident(id, bytes) => {
                if let Some(worker) = self.workers.get_mut(&id) {
                    worker.resident = bytes;
                }
            }
            Event::Ended(id, ending) => {
                self.write_off(id, &ending, now);
                self.workers.remove(&id);
            }
            Event::Reload(ticket) => self.reload(ticket),
            Event::Scale(workers, ticket) => self.scale(workers, Some(ticket), now),
            Event::Grow => self.scale(self.target() + 1, None, now),
            Event::Shrink => self.scale(self.target() - 1, None, now),
            Event::Stop => self.stop(),
            Event::Terminate => self.terminate(),
            Event::ListenerReplaced => self.renew(),
            Event::Overslept(missed) => {
                // Not forgotten, or a supervisor that is often late would never notice a hang.
                for worker in self.workers.values_mut() {
                    worker.heard = now.min(worker.heard + missed);
                }
                self.state_process.overslept(missed, now);
            }
            Event::State(event) => self.note_state(event, now),
        }
    }

    /// Returns what is to be done now, in order.
    pub(super) fn decide(&mut self, now: Instant) -> Vec<Action> {
        self.wake = None;
        self.judge_workers(now);
        self.advance_rollout();
        // At the end every worker is surplus.
        self.drain_surplus(now);
        self.tend_state(now);
        if self.ending.is_none() {
            self.weather_storm(now);
            self.recycle(now);
            self.spawn_missing(now);
            self.answer_scaling(now);
        }
        std::mem::take(&mut self.actions)
    }

    /// Returns when to ask [`Policy::decide`] again, if nothing happens before.
    pub(super) fn wake(&self) -> Option<Instant> {
        self.wake
    }

    /// Returns what the server ends with, once that is decided and every process is gone.
    pub(super) fn outcome(&self) -> Option<Result<(), Failure>> {
        let is_alone = self.workers.is_empty() && self.state_process.is_gone();
        self.ending.clone().filter(|_| is_alone)
    }

    /// Returns the server's state in the words of `wrun ps`.
    pub(super) fn state(&self) -> &'static str {
        match (&self.ending, &self.serving, &self.rollout) {
            (Some(_), ..) => "stopping",
            (_, None, _) => "starting",
            (_, _, Some(_)) => "reloading",
            _ if self.storm.is_degraded() || self.state_process.is_degraded() => "degraded",
            _ => "serving",
        }
    }

    /// Returns the number of the generation that serves, 0 before the first.
    pub(super) fn generation(&self) -> u64 {
        self.serving.as_ref().map_or(0, |serving| serving.number)
    }

    /// Returns how many workers there should be.
    pub(super) fn target(&self) -> usize {
        match &self.serving {
            Some(serving) => serving.slots.len(),
            None => self.scaled.unwrap_or(self.configured),
        }
    }

    /// Returns a worker that has not ended.
    pub(super) fn worker(&self, id: WorkerId) -> Option<&Worker> {
        self.workers.get(&id)
    }

    /// Returns how often the worker in `slot` ended without being asked to.
    pub(super) fn restarts(&self, slot: usize) -> u64 {
        self.restarts.get(slot).copied().unwrap_or(0)
    }

    /// Answers every one of `tickets` with `reply`.
    fn answer(&mut self, tickets: impl IntoIterator<Item = Ticket>, reply: &ControlReply) {
        let answer = |ticket| Action::Reply {
            ticket,
            reply: reply.clone(),
        };
        self.actions.extend(tickets.into_iter().map(answer));
    }

    /// Starts a worker for `place`, if its generation is wanted.
    fn spawn(&mut self, place: Place, now: Instant) -> Option<WorkerId> {
        let deployment = Rc::clone(&self.generation_mut(place.generation)?.deployment);
        let requests = deployment.prepared.config.recycle.max_requests as f64;
        self.spawned += 1;
        let worker = WorkerId(self.spawned);
        let requests_max = (requests * (1.0 + REQUESTS_SPREAD * (self.jitter)())).ceil() as u64;
        let deadline = now + BOOT_TIMEOUT;
        self.workers
            .insert(worker, Worker::new(place, deadline, requests_max, now));
        self.wake_by(deadline);
        self.actions.push(Action::Spawn {
            worker,
            place,
            deployment,
        });
        Some(worker)
    }

    /// Asks a worker to end, unless it is ending already.
    fn drain(&mut self, id: WorkerId, why: &'static str, now: Instant) {
        let Some(worker) = self
            .workers
            .get_mut(&id)
            .filter(|worker| worker.fills_slot())
        else {
            return;
        };
        let deadline = now + self.drain.timeout + DRAIN_MARGIN;
        worker.phase = Phase::Draining { deadline };
        worker.written_off = true;
        self.wake_by(deadline);
        self.actions.push(Action::Drain {
            worker: id,
            drain: self.drain.clone(),
            why,
        });
    }

    fn kill(&mut self, id: WorkerId, why: &'static str) {
        let Some(worker) = self
            .workers
            .get_mut(&id)
            .filter(|worker| worker.phase != Phase::Killed)
        else {
            return;
        };
        worker.phase = Phase::Killed;
        self.actions.push(Action::Kill {
            worker: id,
            signal: Signal::SIGKILL,
            why,
        });
    }

    /// Whatever ends this worker is not to be counted.
    fn expect_end(&mut self, id: WorkerId) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.written_off = true;
        }
    }

    /// Counts the end of a worker that nobody asked for: once, even if it is judged before it ends.
    fn write_off(&mut self, id: WorkerId, ending: &Ending, now: Instant) {
        let jitter = (self.jitter)();
        let Some(worker) = self
            .workers
            .get_mut(&id)
            .filter(|worker| !worker.written_off)
        else {
            return;
        };
        worker.written_off = true;
        let worker = worker.clone();
        if self.restarts.len() <= worker.place.slot {
            self.restarts.resize(worker.place.slot + 1, 0);
        }
        self.restarts[worker.place.slot] += 1;
        let is_recycled = *ending == Ending::Exited(ExitCode::Recycle.code());
        if is_recycled && worker.ready_at.is_some() {
            return;
        }
        if let Some(generation) = self.generation_mut(worker.place.generation)
            && let Some(slot) = generation.slots.get_mut(worker.place.slot)
        {
            match ending.is_hopeless() {
                true => slot.gave_up(jitter, now),
                false => slot.failed(worker.was_healthy(now), jitter, now),
            }
        }
        if worker.place.generation == self.generation() {
            self.storm.record(now);
        }
        self.boot_crashed(&worker, ending);
    }

    /// Returns the generation that serves or boots under `number`.
    fn generation_mut(&mut self, number: u64) -> Option<&mut Generation> {
        let mut wanted = self.wanted_mut();
        wanted.find(|generation| generation.number == number)
    }

    /// Returns the generations that should have workers: the one that serves and the one that boots.
    fn wanted(&self) -> impl Iterator<Item = &Generation> {
        let booting = self.rollout.as_ref().and_then(Rollout::booting);
        let booting = booting.map(|booting| &booting.generation);
        self.serving.iter().chain(booting)
    }

    fn wanted_mut(&mut self) -> impl Iterator<Item = &mut Generation> {
        let booting = self.rollout.as_mut().and_then(Rollout::booting_mut);
        let booting = booting.map(|booting| &mut booting.generation);
        self.serving.iter_mut().chain(booting)
    }

    fn ids(&self, which: impl Fn(&Worker) -> bool) -> Vec<WorkerId> {
        self.workers
            .iter()
            .filter(|(_, worker)| which(worker))
            .map(|(&id, _)| id)
            .collect()
    }

    /// Tells whether every slot of a generation has a worker that serves.
    fn is_complete(&self, generation: &Generation) -> bool {
        let is_ready = |slot| {
            let place = Place::new(slot, generation.number);
            let mut workers = self.workers.values();
            workers.any(|worker| worker.place == place && worker.is_ready())
        };
        (0..generation.slots.len()).all(is_ready)
    }

    /// Tells whether it is time, and remembers the time if it is not.
    fn is_due(&mut self, at: Instant, now: Instant) -> bool {
        if now < at {
            self.wake_by(at);
        }
        now >= at
    }

    fn wake_by(&mut self, at: Instant) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }
}
