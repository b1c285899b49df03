//! What happens to workers while a generation serves: they are judged, replaced, added and taken away.

use super::restart::Backoff;
use super::rollout::Rollout;
use super::worker::{ABORT_GRACE, BOOT_TIMEOUT, Phase};
use super::{Action, Generation, Place, Policy, Ticket, WORKERS_MAX, Worker, WorkerId};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::ipc::ControlReply;
use crate::supervisor::process::Ending;
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

/// How long a worker serves at least before its memory is held against it: a limit below what a fresh one needs must not
/// turn the server into a fork loop.
const MEMORY_GRACE: Duration = Duration::from_secs(3);

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
            let Some(worker) = self.workers.get(&id).cloned() else { continue };
            match worker.phase {
                Phase::Starting { deadline } => {
                    if self.is_due(deadline, now) {
                        self.boot_timed_out(&worker);
                        self.write_off(id, &Ending::Exited(ExitCode::Internal.code()), now);
                        self.kill(id, "it did not start in time");
                    }
                }
                Phase::Draining { deadline } | Phase::Hung { deadline } if self.is_due(deadline, now) => {
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
        self.actions.push(Action::Kill { worker: id, signal: Signal::SIGABRT, why: "it was silent for 5 s" });
        self.is_due(deadline, now);
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
        let (number, memory_max) = (serving.number, serving.deployment.prepared.config.recycle.max_memory);
        let is_spent = |id: &WorkerId| {
            self.workers.get(id).is_some_and(|worker| {
                let requests = worker.requests_max > 0 && worker.requests >= worker.requests_max;
                let memory = memory_max > 0 && worker.resident > memory_max && worker.served_for(now) >= MEMORY_GRACE;
                worker.place.generation == number && worker.is_ready() && (requests || memory)
            })
        };
        // A slot whose last replacement died waits like any other.
        let rests = |slot: usize| serving.slots.get(slot).is_none_or(|slot| slot.not_before().is_some_and(|at| now < at));
        let spent = self.workers.keys().copied().filter(is_spent).map(|id| (id, self.workers[&id].place.slot));
        let Some((old, slot)) = spent.into_iter().find(|&(_, slot)| !rests(slot)) else { return };
        self.recycling = self.spawn(Place { slot, generation: number }, now).map(|new| Recycling { old, new });
    }

    /// Starts a worker in every slot that has none, if its backoff and the storm permit.
    pub(super) fn spawn_missing(&mut self, now: Instant) {
        let mut places = Vec::new();
        let booting = self.rollout.as_mut().and_then(Rollout::generation_mut);
        for Generation { number, slots, .. } in self.serving.iter().chain(booting.as_deref()) {
            let place = |(slot, backoff): (usize, &Backoff)| (Place { slot, generation: *number }, backoff.clone());
            places.extend(slots.iter().enumerate().map(place));
        }
        for (place, backoff) in places {
            let is_filled = self.workers.values().any(|worker| worker.place == place && worker.fills_slot());
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
            let Some(worker) = self.workers.get(&id) else { continue };
            let Place { slot, generation } = worker.place;
            let slots = self.generation_mut(generation).map(|generation| generation.slots.len());
            match slots {
                _ if self.ending.is_some() => self.drain(id, "the server stops", now),
                None => self.drain(id, "its generation does not serve", now),
                Some(slots) if slot >= slots => self.drain(id, "there are fewer workers now", now),
                Some(_) => {}
            }
        }
    }

    /// Takes in how many workers there should be.
    pub(super) fn scale(&mut self, workers: usize, ticket: Option<Ticket>, now: Instant) {
        let refusal = if self.ending.is_some() {
            Some(Failure::new(ExitCode::Unavailable, "the server is stopping"))
        } else if !(1..=WORKERS_MAX).contains(&workers) {
            Some(Failure::new(ExitCode::Usage, format!("there can be 1 to {WORKERS_MAX} workers")))
        } else {
            None
        };
        if let Some(failure) = refusal {
            return self.refuse(ticket, &failure);
        }
        self.scaled = Some(workers);
        let booting = self.rollout.as_mut().and_then(Rollout::generation_mut);
        for generation in self.serving.iter_mut().chain(booting) {
            generation.slots.resize(workers, Backoff::default());
        }
        self.scaling.extend(ticket.map(|ticket| Scaling { ticket, deadline: now + BOOT_TIMEOUT }));
    }

    /// Answers those who wait for workers.
    pub(super) fn answer_scaling(&mut self, now: Instant) {
        let Some(serving) = self.serving.as_ref().filter(|_| !self.scaling.is_empty()) else { return };
        let done = self.all_ready(serving.number, serving.slots.len());
        for scaling in std::mem::take(&mut self.scaling) {
            let reply = if done {
                ControlReply::Done
            } else if self.is_due(scaling.deadline, now) {
                ControlReply::Failed(Failure::new(ExitCode::Unavailable, "not all workers are ready yet"))
            } else {
                self.scaling.push(scaling);
                continue;
            };
            self.actions.push(Action::Reply { ticket: scaling.ticket, reply });
        }
    }
}
