//! The state process: up before the first worker that needs it, told of every generation, down after the last worker.
//!
//! There is one at a time, and the next one starts only when the end of this one is certain: both would open the same
//! files. Workers are not restarted with it, they connect again.

mod life;
mod users;

use super::restart::{Backoff, Storm};
use super::worker::{ABORT_GRACE, SILENCE_MAX};
use super::{Action, Generation, Policy};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::supervisor::deploy::Deployment;
use crate::supervisor::process::Ending;
use life::{Life, Phase};
use nix::sys::signal::Signal;
use std::rc::Rc;
use std::time::{Duration, Instant};
use users::{Progress, Users};

/// How long it may take to open what a generation needs, migrations of large tables included.
const CONFIGURE_MAX: Duration = Duration::from_secs(600);

/// How long a generation waits that serves, but whose databases could not be opened again: a full disk may have room
/// later.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// How long it may take to end.
const STOP_MAX: Duration = Duration::from_secs(10);

/// What happened to it, or what it said.
#[derive(Debug)]
pub(in super::super) enum StateEvent {
    /// It gave a sign of life.
    Heartbeat,
    /// This generation can use it.
    Configured(u64),
    /// This generation cannot.
    Refused(u64, Failure),
    /// It said what no state process says.
    Garbage,
    /// It has ended and was reaped.
    Ended(Ending),
}

/// What to do with it.
#[derive(Debug)]
pub(in super::super) enum StateAction {
    /// Fork it.
    Spawn,
    /// Tell it what a generation may use.
    Configure {
        generation: u64,
        deployment: Rc<Deployment>,
    },
    /// Tell it that no worker of this generation is left.
    Forget { generation: u64 },
    /// Ask it to finish and exit.
    Stop,
    /// Send it a signal.
    Kill { signal: Signal, why: &'static str },
    /// It keeps dying, or does no longer.
    Degraded(bool),
}

/// All that is decided about it from.
#[derive(Debug, Default)]
pub(in super::super) struct StateProcess {
    /// `None` while there is none.
    life: Option<Life>,
    users: Users,
    backoff: Backoff,
    storm: Storm,
    /// Unasked ends.
    restarts: u64,
}

impl StateProcess {
    /// Returns its state and how often it ended unasked, in the words of `wrun ps`; `None` if none was ever needed.
    pub(in super::super) fn status(&self) -> Option<(&'static str, u64)> {
        if self.life.is_none() && self.users.is_empty() && self.restarts == 0 {
            return None;
        }
        let word = self.life.as_ref().and_then(Life::word);
        let word = word.unwrap_or(match self.restarts {
            0 => "starting",
            _ => "restarting",
        });
        Some((word, self.restarts))
    }

    /// Tells whether its end would be no surprise.
    pub(in super::super) fn is_asked_to_end(&self) -> bool {
        self.life.as_ref().is_some_and(|life| life.is_asked)
    }

    /// Tells whether it keeps dying.
    pub(super) fn is_degraded(&self) -> bool {
        self.storm.is_degraded()
    }

    /// Tells whether there is none to wait for at the end.
    pub(super) fn is_gone(&self) -> bool {
        self.life.is_none()
    }

    /// Takes in that the supervisor, and perhaps the state process, did not run for `missed`.
    pub(super) fn overslept(&mut self, missed: Duration, now: Instant) {
        if let Some(life) = &mut self.life {
            let later = (now + SILENCE_MAX).min(life.silent_at + missed);
            life.silent_at = later.max(life.silent_at);
        }
    }

    fn is_running(&self) -> bool {
        let life = self.life.as_ref();
        life.is_some_and(|life| life.phase == Phase::Running)
    }

    /// Returns when the next one may start, `None` for any time.
    fn not_before(&self) -> Option<Instant> {
        let storm = self.storm.not_before();
        let storm = storm.filter(|_| self.backoff.is_restart());
        self.backoff.not_before().max(storm)
    }

    /// Counts an end that nobody asked for.
    fn failed(&mut self, life: &Life, ending: &Ending, jitter: f64, now: Instant) {
        self.restarts += 1;
        self.storm.record(now);
        match ending.is_hopeless() {
            true => self.backoff.gave_up(jitter, now),
            false => self.backoff.failed(life.was_healthy(now), jitter, now),
        }
    }
}

impl Policy {
    /// Returns the state process.
    pub(in super::super) fn state_process(&self) -> &StateProcess {
        &self.state_process
    }

    /// Tells whether workers of this generation may start.
    pub(super) fn is_admitted(&self, generation: &Generation) -> bool {
        let users = &self.state_process.users;
        !generation.deployment.uses_state() || users.is_admitted(generation.number)
    }

    /// Takes in what happened to it.
    pub(super) fn note_state(&mut self, event: StateEvent, now: Instant) {
        let state = &mut self.state_process;
        match event {
            StateEvent::Heartbeat => {
                if let Some(life) = &mut state.life {
                    life.silent_at = now + SILENCE_MAX;
                }
            }
            StateEvent::Configured(generation) => {
                state.users.configured(generation);
                let is_ready = state.users.are_all_configured();
                if let Some(life) = state.life.as_mut().filter(|_| is_ready) {
                    life.ready_at.get_or_insert(now);
                }
            }
            StateEvent::Refused(generation, failure) => self.refused(generation, failure, now),
            StateEvent::Garbage => self.kill_state("it sent garbage"),
            StateEvent::Ended(ending) => self.state_ended(&ending, now),
        }
    }

    /// Decides all there is to decide about it.
    pub(super) fn tend_state(&mut self, now: Instant) {
        self.judge_state(now);
        self.review_users();
        if self.ending.is_some() && self.workers.is_empty() {
            return self.stop_state(now);
        }
        self.start_state(now);
        self.configure_users(now);
        self.weather_state_storm(now);
    }

    /// Ends it with all others.
    pub(super) fn kill_state_for_good(&mut self, why: &'static str) {
        if let Some(life) = &mut self.state_process.life {
            life.is_asked = true;
        }
        self.kill_state(why);
    }

    /// Kills it if it is silent, or does not end.
    fn judge_state(&mut self, now: Instant) {
        let Some(life) = &self.state_process.life else {
            return;
        };
        let (phase, silent_at) = (life.phase, life.silent_at);
        match phase {
            Phase::Running if self.is_due(silent_at, now) => {
                let deadline = now + ABORT_GRACE;
                self.wake_by(deadline);
                // In a way that leaves a core file.
                let why = "it was silent for too long";
                self.signal_state(Signal::SIGABRT, Phase::Hung { deadline }, why);
            }
            Phase::Hung { deadline } | Phase::Stopping { deadline }
                if self.is_due(deadline, now) =>
            {
                self.kill_state("its time was up");
            }
            _ => {}
        }
    }

    /// Counts as users the wanted generations that share something, and forgets those that are not wanted and have no
    /// workers left.
    fn review_users(&mut self) {
        let mut users = std::mem::take(&mut self.state_process.users);
        for generation in self.wanted().filter(|it| it.deployment.uses_state()) {
            users.enter(generation.number, &generation.deployment);
        }
        let over = users.retain(|number| {
            let mut workers = self.workers.values();
            self.wanted().any(|generation| generation.number == number)
                || workers.any(|worker| worker.place.generation == number)
        });
        self.state_process.users = users;
        for generation in over {
            self.state_action(StateAction::Forget { generation });
        }
    }

    /// Starts it, if it is needed and there is none. At the end, workers that finish their requests still need it.
    fn start_state(&mut self, now: Instant) {
        let mut workers = self.workers.values();
        let goes_on = self.ending.is_none() || workers.any(|worker| !worker.is_killed());
        let state = &self.state_process;
        if state.life.is_some() || state.users.is_empty() || !goes_on {
            return;
        }
        if let Some(at) = state.not_before()
            && !self.is_due(at, now)
        {
            return;
        }
        if self.state_process.backoff.is_restart() {
            self.state_process.storm.restarted(now);
        }
        let life = Life::new(now);
        self.wake_by(life.silent_at);
        self.state_process.life = Some(life);
        self.state_action(StateAction::Spawn);
    }

    /// Tells it of the generations that it does not know.
    fn configure_users(&mut self, now: Instant) {
        if !self.state_process.is_running() {
            return;
        }
        for (generation, progress) in self.state_process.users.progress() {
            match progress {
                Progress::Configured => {}
                Progress::Asked { deadline } => {
                    if self.is_due(deadline, now) {
                        self.refused(generation, too_slow(), now);
                    }
                }
                Progress::Refused { retry_at } if !self.is_due(retry_at, now) => {}
                Progress::Unknown | Progress::Refused { .. } => self.configure(generation, now),
            }
        }
    }

    fn configure(&mut self, generation: u64, now: Instant) {
        let deadline = now + CONFIGURE_MAX;
        self.wake_by(deadline);
        if let Some(deployment) = self.state_process.users.ask(generation, deadline) {
            self.state_action(StateAction::Configure {
                generation,
                deployment,
            });
        }
    }

    /// A generation cannot have what it shares: one that boots is given up, any other one waits.
    fn refused(&mut self, generation: u64, failure: Failure, now: Instant) {
        let retry_at = now + RETRY_AFTER;
        self.wake_by(retry_at);
        self.state_process.users.refused(generation, retry_at);
        if !self.state_process.users.is_admitted(generation) {
            self.state_boot_failed(generation, failure);
        }
    }

    fn state_ended(&mut self, ending: &Ending, now: Instant) {
        let jitter = (self.jitter)();
        let state = &mut self.state_process;
        let booting = state.users.start_over();
        let Some(life) = state.life.take().filter(|life| !life.is_asked) else {
            return;
        };
        state.failed(&life, ending, jitter, now);
        for generation in booting {
            self.state_boot_crashed(generation, ending);
        }
    }

    /// Asks it to end, once nothing is left that could need it.
    fn stop_state(&mut self, now: Instant) {
        let deadline = now + STOP_MAX;
        let life = self.state_process.life.as_mut();
        if let Some(life) = life.filter(|life| life.phase == Phase::Running) {
            life.phase = Phase::Stopping { deadline };
            life.is_asked = true;
            self.wake_by(deadline);
            self.state_action(StateAction::Stop);
        }
    }

    fn kill_state(&mut self, why: &'static str) {
        self.signal_state(Signal::SIGKILL, Phase::Killed, why);
    }

    fn signal_state(&mut self, signal: Signal, phase: Phase, why: &'static str) {
        let life = self.state_process.life.as_mut();
        if let Some(life) = life.filter(|life| life.phase != Phase::Killed) {
            life.phase = phase;
            self.state_action(StateAction::Kill { signal, why });
        }
    }

    /// Says once when it keeps dying, and once when it does no longer.
    fn weather_state_storm(&mut self, now: Instant) {
        if let Some(degraded) = self.state_process.storm.judge(1, now) {
            self.state_action(StateAction::Degraded(degraded));
        }
        if let Some(clears_at) = self.state_process.storm.clears_at() {
            self.is_due(clears_at, now);
        }
    }

    fn state_action(&mut self, action: StateAction) {
        self.actions.push(Action::State(action));
    }
}

fn too_slow() -> Failure {
    let minutes = CONFIGURE_MAX.as_secs() / 60;
    Failure::new(
        ExitCode::Internal,
        format!("the state process was not ready within {minutes} min"),
    )
    .hint("if it was migrations that took so long, make them smaller steps")
}
