//! What happens to workers while a generation serves: they are judged, replaced, added and taken away.

use super::restart::Backoff;
use super::worker::{ABORT_GRACE, BOOT_TIMEOUT, Phase};
use super::{Action, Place, Policy, Ticket, WORKERS_MAX, Worker, WorkerId};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::ipc::ControlReply;
use crate::supervisor::process::Ending;
use nix::sys::signal::Signal;
use std::time::Instant;

/// A worker that is being replaced by a fresh one: one at a time.
#[derive(Debug)]
pub(super) struct Recycling {
    old: WorkerId,
    new: WorkerId,
}

/// Somebody who waits until as many workers serve as should.
#[derive(Debug)]
pub(super) struct Scaling {
    pub(super) ticket: Ticket,
    deadline: Instant,
}

impl Policy {
    /// Kills what is overdue: workers that do not start, do not answer, or do not end.
    pub(super) fn judge_workers(&mut self, now: Instant) {
        for id in self.ids(|_| true) {
            let Some(worker) = self.workers.get(&id).cloned() else {
                continue;
            };
            match worker.phase {
                Phase::Starting { deadline } => {
                    if self.is_due(deadline, now) {
                        self.boot_timed_out(&worker);
                        self.write_off(id, &Ending::Exited(ExitCode::Internal.code()), now);
                        self.kill(id, "it did not start in time");
                    }
                }
                Phase::Draining { deadline } | Phase::Hung { deadline }
                    if self.is_due(deadline, now) =>
                {
                    self.kill(id, "its time was up");
                }
                Phase::Ready | Phase::Draining { .. } => {
                    if let Some(silent_at) = worker.silent_at()
                        && self.is_due(silent_at, now)
                    {
                        self.abort(id, now);
                    }
                }
                Phase::Hung { .. } | Phase::Killed => {}
            }
        }
    }

    /// Ends a worker that hangs, in a way that leaves a core file. Its replacement need not wait for that.
    fn abort(&mut self, id: WorkerId, now: Instant) {
        self.write_off(id, &Ending::Signaled(Signal::SIGABRT as i32), now);
        let deadline = now + ABORT_GRACE;
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.phase = Phase::Hung { deadline };
        }
        self.actions.push(Action::Kill {
            worker: id,
            signal: Signal::SIGABRT,
            why: "it was silent for 5 s",
        });
        self.wake_by(deadline);
    }

    /// Says once when workers keep dying, and once when they do no longer.
    pub(super) fn weather_storm(&mut self, now: Instant) {
        if let Some(degraded) = self.storm.judge(self.target(), now) {
            self.actions.push(Action::Degraded(degraded));
        }
        if let Some(clears_at) = self.storm.clears_at() {
            self.is_due(clears_at, now);
        }
    }

    /// Replaces workers that have served enough requests or have grown too large, one after the other: first the
    /// replacement, then, once that is ready, the end of the old one.
    pub(super) fn recycle(&mut self, now: Instant) {
        if let Some(Recycling { old, new }) = self.recycling {
            let lives = self.workers.contains_key(&old);
            match self.workers.get(&new) {
                Some(new) if lives && new.is_ready() => return self.drain(old, "recycled", now),
                Some(new) if lives && new.fills_slot() => return,
                // Either is gone: the slot is as any other again.
                _ => self.recycling = None,
            }
        }
        if self.rollout.is_some() || self.storm.is_degraded() {
            return;
        }
        let Some(serving) = &self.serving else { return };
        let memory_max = serving.deployment.prepared.config.recycle.max_memory;
        let is_next = |worker: &Worker| {
            let Place { slot, generation } = worker.place;
            generation == serving.number
                && worker.is_spent(memory_max, now)
                // A slot whose last replacement died waits like any other.
                && serving.slots.get(slot).is_some_and(|backoff| backoff.is_over(now))
        };
        let next = self.workers.iter().find(|(_, worker)| is_next(worker));
        if let Some((old, place)) = next.map(|(&id, worker)| (id, worker.place)) {
            let new = self.spawn(place, now);
            self.recycling = new.map(|new| Recycling { old, new });
        }
    }

    /// Starts a worker in every slot that has none, if its backoff and the storm permit.
    pub(super) fn spawn_missing(&mut self, now: Instant) {
        let mut places = Vec::new();
        for generation in self.wanted().filter(|it| self.is_admitted(it)) {
            for (slot, backoff) in generation.slots.iter().enumerate() {
                places.push((Place::new(slot, generation.number), backoff.clone()));
            }
        }
        for (place, backoff) in places {
            let mut workers = self.workers.values();
            let is_filled = workers.any(|worker| worker.place == place && worker.fills_slot());
            if is_filled || !self.may_start(&backoff, now) {
                continue;
            }
            if backoff.is_restart() {
                self.storm.restarted(now);
            }
            self.spawn(place, now);
        }
    }

    fn may_start(&mut self, backoff: &Backoff, now: Instant) -> bool {
        let storm = self.storm.not_before().filter(|_| backoff.is_restart());
        match backoff.not_before().max(storm) {
            None => true,
            Some(at) => self.is_due(at, now),
        }
    }

    /// Drains what should not be there: workers in slots that were taken away, and workers of generations that neither
    /// serve nor boot, and at the end every worker.
    pub(super) fn drain_surplus(&mut self, now: Instant) {
        for id in self.ids(Worker::fills_slot) {
            let Some(worker) = self.workers.get(&id) else {
                continue;
            };
            let Place { slot, generation } = worker.place;
            let wanted = self.generation_mut(generation);
            match wanted.map(|generation| generation.slots.len()) {
                _ if self.ending.is_some() => self.drain(id, "the server stops", now),
                None => self.drain(id, "its generation does not serve", now),
                Some(slots) if slot >= slots => self.drain(id, "there are fewer workers now", now),
                Some(_) => {}
            }
        }
    }

    /// Takes in how many workers there should be.
    pub(super) fn scale(&mut self, workers: usize, ticket: Option<Ticket>, now: Instant) {
        if self.ending.is_some() {
            return self.answer(ticket, &Self::refusal());
        }
        if !(1..=WORKERS_MAX).contains(&workers) {
            let why = format!("there can be 1 to {WORKERS_MAX} workers");
            let failure = Failure::new(ExitCode::Usage, why);
            return self.answer(ticket, &ControlReply::Failed(failure));
        }
        self.scaled = Some(workers);
        for generation in self.wanted_mut() {
            generation.slots.resize(workers, Backoff::default());
        }
        let deadline = now + BOOT_TIMEOUT;
        let scaling = ticket.map(|ticket| Scaling { ticket, deadline });
        self.scaling.extend(scaling);
    }

    /// Answers those who wait for workers.
    pub(super) fn answer_scaling(&mut self, now: Instant) {
        let Some(serving) = &self.serving else { return };
        let is_done = self.is_complete(serving);
        for scaling in std::mem::take(&mut self.scaling) {
            if is_done {
                self.answer([scaling.ticket], &ControlReply::Done);
            } else if self.is_due(scaling.deadline, now) {
                let failure = Failure::new(ExitCode::Unavailable, "not all workers are ready yet");
                self.answer([scaling.ticket], &ControlReply::Failed(failure));
            } else {
                self.scaling.push(scaling);
            }
        }
    }
}
