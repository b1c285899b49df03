//! The state process: up before the first worker that needs it, told of every generation, down after the last worker.
//!
//! There is one at a time, and the next one starts only when the end of this one is certain: both would open the same
//! files. Workers are not restarted with it, they connect again.

use super::restart::{Backoff, Storm};
use super::worker::{ABORT_GRACE, BOOT_TIMEOUT, HEALTHY_AFTER, SILENCE_MAX};
use super::{Action, Generation, Policy};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::supervisor::deploy::Deployment;
use crate::supervisor::process::Ending;
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

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
pub(super) struct StateProcess {
    /// `None` while there is none.
    life: Option<Life>,
    /// The generations that use it, by number.
    users: BTreeMap<u64, User>,
    backoff: Backoff,
    storm: Storm,
    /// Unasked ends.
    restarts: u64,
}

/// One process, from its fork until it is reaped.
#[derive(Debug)]
struct Life {
    phase: Phase,
    /// When it counts as hung.
    silent_at: Instant,
    /// When it had opened all that was needed at its start.
    ready_at: Option<Instant>,
    /// Its end was asked for.
    is_asked: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// It works, or will.
    Running,
    /// Silent, and sent SIGABRT. Killed at the deadline.
    Hung { deadline: Instant },
    /// Asked to end. Killed at the deadline.
    Stopping { deadline: Instant },
    /// Sent SIGKILL; its end is all that can follow.
    Killed,
}

/// A generation that is wanted, or has workers yet, and uses shared state.
#[derive(Debug)]
struct User {
    deployment: Rc<Deployment>,
    /// Whether it was ever configured: from then on its workers may start, and wait for the state process themselves.
    is_admitted: bool,
    progress: Progress,
}

/// What the process that runs knows of a generation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Progress {
    /// Nothing.
    Unknown,
    /// It was told; given up at the deadline.
    Asked { deadline: Instant },
    /// It serves it.
    Configured,
    /// It could not; told again later.
    Refused { retry_at: Instant },
}

impl StateProcess {
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
            life.silent_at = (life.silent_at + missed)
                .min(now + SILENCE_MAX)
                .max(life.silent_at);
        }
    }

    fn user_mut(&mut self, generation: u64) -> Option<&mut User> {
        self.users.get_mut(&generation)
    }
}

impl Policy {
    /// Returns its state and how often it ended unasked, in the words of `wrun ps`; `None` if none was ever needed.
    pub(in super::super) fn state_process(&self) -> Option<(&'static str, u64)> {
        let StateProcess {
            life,
            users,
            restarts,
            ..
        } = &self.state_process;
        let word = match life {
            None if users.is_empty() && *restarts == 0 => return None,
            Some(Life {
                phase: Phase::Hung { .. } | Phase::Killed,
                ..
            }) => "hung",
            Some(Life {
                phase: Phase::Stopping { .. },
                ..
            }) => "stopping",
            Some(Life {
                ready_at: Some(_), ..
            }) => "ready",
            _ if *restarts > 0 => "restarting",
            _ => "starting",
        };
        Some((word, *restarts))
    }

    /// Tells whether its end would be no surprise.
    pub(in super::super) fn expects_end_of_state(&self) -> bool {
        self.state_process
            .life
            .as_ref()
            .is_some_and(|life| life.is_asked)
    }

    /// Takes in what happened to it.
    pub(super) fn note_state(&mut self, event: StateEvent, now: Instant) {
        match event {
            StateEvent::Heartbeat => {
                if let Some(life) = &mut self.state_process.life {
                    life.silent_at = now + SILENCE_MAX;
                }
            }
            StateEvent::Configured(generation) => self.state_configured(generation, now),
            StateEvent::Refused(generation, failure) => {
                self.state_refused(generation, failure, now)
            }
            StateEvent::Garbage => self.kill_state("it sent garbage"),
            StateEvent::Ended(ending) => self.state_ended(&ending, now),
        }
    }

    /// Decides all there is to decide about it.
    pub(super) fn tend_state(&mut self, now: Instant) {
        self.judge_state(now);
        self.take_up_users();
        self.give_up_users();
        if self.ending.is_some() && self.workers.is_empty() {
            return self.stop_state(now);
        }
        self.start_state(now);
        self.configure_users(now);
        self.weather_state_storm(now);
    }

    /// Tells whether workers of this generation may start.
    pub(super) fn is_admitted(&self, generation: &Generation) -> bool {
        let user = self.state_process.users.get(&generation.number);
        !generation.deployment.uses_state() || user.is_some_and(|user| user.is_admitted)
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
        let Some(Life {
            phase, silent_at, ..
        }) = self.state_process.life
        else {
            return;
        };
        match phase {
            Phase::Running if self.is_due(silent_at, now) => {
                let deadline = now + ABORT_GRACE;
                self.wake_by(deadline);
                // In a way that leaves a core file.
                let why = "it was silent for 5 s";
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

    /// Counts among its users every wanted generation that uses shared state.
    fn take_up_users(&mut self) {
        let using = self.wanted().filter(|it| it.deployment.uses_state());
        let using: Vec<_> = using
            .map(|it| (it.number, Rc::clone(&it.deployment)))
            .collect();
        for (number, deployment) in using {
            self.state_process.users.entry(number).or_insert(User {
                deployment,
                is_admitted: false,
                progress: Progress::Unknown,
            });
        }
    }

    /// Forgets generations that are not wanted and have no workers left.
    fn give_up_users(&mut self) {
        let is_wanted = |number| self.wanted().any(|generation| generation.number == number);
        let has_worker = |number| {
            let mut workers = self.workers.values();
            workers.any(|worker| worker.place.generation == number)
        };
        let numbers = self.state_process.users.keys().copied();
        let over: Vec<u64> = numbers
            .filter(|&number| !is_wanted(number) && !has_worker(number))
            .collect();
        for generation in over {
            let user = self.state_process.users.remove(&generation);
            if user.is_some_and(|user| user.progress != Progress::Unknown) {
                self.state_action(StateAction::Forget { generation });
            }
        }
    }

    /// Starts it, if it is needed and there is none. At the end, workers that finish their requests still need it.
    fn start_state(&mut self, now: Instant) {
        let StateProcess {
            life,
            users,
            backoff,
            storm,
            ..
        } = &self.state_process;
        let mut workers = self.workers.values();
        let goes_on = self.ending.is_none() || workers.any(|worker| !worker.is_killed());
        if life.is_some() || users.is_empty() || !goes_on {
            return;
        }
        let after_storm = storm.not_before().filter(|_| backoff.is_restart());
        if let Some(at) = backoff.not_before().max(after_storm)
            && !self.is_due(at, now)
        {
            return;
        }
        if self.state_process.backoff.is_restart() {
            self.state_process.storm.restarted(now);
        }
        let silent_at = now + BOOT_TIMEOUT;
        self.state_process.life = Some(Life {
            phase: Phase::Running,
            silent_at,
            ready_at: None,
            is_asked: false,
        });
        self.wake_by(silent_at);
        self.state_action(StateAction::Spawn);
    }

    /// Tells it of the generations that it does not know.
    fn configure_users(&mut self, now: Instant) {
        if !matches!(
            self.state_process.life,
            Some(Life {
                phase: Phase::Running,
                ..
            })
        ) {
            return;
        }
        let users: Vec<_> = self
            .state_process
            .users
            .iter()
            .map(|(&number, user)| (number, user.progress))
            .collect();
        for (generation, progress) in users {
            match progress {
                Progress::Configured => {}
                Progress::Asked { deadline } => {
                    if self.is_due(deadline, now) {
                        let minutes = CONFIGURE_MAX.as_secs() / 60;
                        let why = format!("the state process was not ready within {minutes} min");
                        let failure = Failure::new(ExitCode::Internal, why).hint(
                            "if it was migrations that took so long, make them smaller steps",
                        );
                        self.state_refused(generation, failure, now);
                    }
                }
                Progress::Refused { retry_at } if !self.is_due(retry_at, now) => {}
                Progress::Unknown | Progress::Refused { .. } => self.configure(generation, now),
            }
        }
    }

    fn configure(&mut self, generation: u64, now: Instant) {
        let Some(user) = self.state_process.user_mut(generation) else {
            return;
        };
        let deadline = now + CONFIGURE_MAX;
        user.progress = Progress::Asked { deadline };
        let deployment = Rc::clone(&user.deployment);
        self.wake_by(deadline);
        self.state_action(StateAction::Configure {
            generation,
            deployment,
        });
    }

    fn state_configured(&mut self, generation: u64, now: Instant) {
        if let Some(user) = self.state_process.user_mut(generation) {
            user.is_admitted = true;
            user.progress = Progress::Configured;
        }
        let is_ready = self
            .state_process
            .users
            .values()
            .all(|user| user.progress == Progress::Configured);
        if let Some(life) = self.state_process.life.as_mut().filter(|_| is_ready) {
            life.ready_at.get_or_insert(now);
        }
    }

    fn state_refused(&mut self, generation: u64, failure: Failure, now: Instant) {
        let Some(user) = self.state_process.user_mut(generation) else {
            return;
        };
        let retry_at = now + RETRY_AFTER;
        user.progress = Progress::Refused { retry_at };
        let is_admitted = user.is_admitted;
        self.wake_by(retry_at);
        if !is_admitted {
            self.state_boot_failed(generation, failure);
        }
    }

    fn state_ended(&mut self, ending: &Ending, now: Instant) {
        let Some(life) = self.state_process.life.take() else {
            return;
        };
        let mut booting = Vec::new();
        for (&number, user) in &mut self.state_process.users {
            user.progress = Progress::Unknown;
            booting.extend((!user.is_admitted).then_some(number));
        }
        if life.is_asked {
            return;
        }
        let jitter = (self.jitter)();
        let state = &mut self.state_process;
        state.restarts += 1;
        match ending.is_hopeless() {
            true => state.backoff.gave_up(jitter, now),
            false => {
                let served = life.ready_at.map(|at| now.saturating_duration_since(at));
                let is_healthy = served.is_some_and(|served| served >= HEALTHY_AFTER);
                state.backoff.failed(is_healthy, jitter, now);
            }
        }
        state.storm.record(now);
        for generation in booting {
            self.state_boot_crashed(generation, ending);
        }
    }

    /// Asks it to end, once nothing is left that could need it.
    fn stop_state(&mut self, now: Instant) {
        if let Some(life) = self
            .state_process
            .life
            .as_mut()
            .filter(|life| life.phase == Phase::Running)
        {
            let deadline = now + STOP_MAX;
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
