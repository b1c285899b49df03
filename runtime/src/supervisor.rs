//! The supervisor: keeps workers and state process running, replaces them without losing a request, passes orders on.
//!
//! Single-threaded on purpose: `fork` is safe only while no other thread exists. It waits for one thing after the other
//! in a poll loop, starts no runtime, never reads a component or a request, and leaves every decision to `policy.rs`.

mod balance;
mod chance;
mod control;
mod deploy;
mod dev;
mod notify;
mod policy;
mod poll;
mod process;
mod report;
mod signal;
mod spawn;
mod state_process;
mod trial;
mod worker_handle;

pub use trial::Trial;

use crate::config::{Bindings, Config, ServeArgs};
use crate::exit_code::ExitCode;
use crate::failure::{Failure, OrFail as _};
use crate::ipc::{Channel, ControlReply, ControlRequest, ToSupervisor};
use crate::listener::Listener;
use crate::sandbox::Sandbox;
use crate::state_folder::StateFolder;
use chance::{identity, jitter};
use control::Control;
use deploy::{Deployment, Preparation};
use dev::Dev;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use notify::Notify;
use policy::{Action, Event, Place, Policy, Ticket, WorkerId};
use poll::Source;
use process::Ending;
use signal::SignalQueue;
use state_process::StateHandle;
use std::collections::BTreeMap;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};
use trial::Verdict;
use worker_handle::{Heard, WorkerHandle};

/// How often memory, listeners and idle clients are looked at.
const TICK: Duration = Duration::from_secs(1);

/// Waking up this much too late means that this process did not run, and that others may not have either.
const OVERSLEPT: Duration = Duration::from_secs(1);

/// Messages that are read from one child before the others get their turn.
const MESSAGES_AT_ONCE: usize = 32;

/// Messages that are read from a child that has ended: more than a socket holds.
const LAST_WORDS_MAX: usize = 4096;

/// Serves until told to stop, and returns once every process that it started is gone. `dev` is the line to `wrun dev`, if
/// that started this server.
pub fn run(
    args: &ServeArgs,
    config: Config,
    listeners: Vec<Listener>,
    folder: StateFolder,
    sandbox: Sandbox,
    dev: Option<Channel>,
) -> Result<ExitCode, Failure> {
    let mut supervisor = Supervisor::new(args, config, listeners, folder, sandbox)?;
    supervisor.dev = dev.map(|channel| Dev::new(supervisor.control.adopt(channel)));
    supervisor.promise_dev_an_answer();
    supervisor.join()
}

struct Supervisor<'a> {
    args: &'a ServeArgs,
    /// As loaded at the start: what a reload does not change is taken from here.
    config: Config,
    bindings: Bindings,
    /// What this server is known by to those that labels are bound to, whichever state process speaks for it.
    identity: String,
    started: Instant,
    signals: SignalQueue,
    notify: Notify,
    policy: Policy,
    workers: BTreeMap<WorkerId, WorkerHandle>,
    preparation: Option<Preparation>,
    state_process: Option<StateHandle>,
    /// Kept open once it was needed.
    state_listener: Option<UnixListener>,
    /// None if the component handles messages alone.
    listeners: Vec<Listener>,
    urls: Vec<String>,
    next_tick: Instant,
    /// Given back before `control` tells the last client, by closing its connection, that all is over.
    folder: StateFolder,
    control: Control,
    /// How children are confined.
    sandbox: Sandbox,
    verdict: Verdict,
    /// `None` unless `wrun dev` started this server.
    dev: Option<Dev>,
}

impl<'a> Supervisor<'a> {
    fn new(
        args: &'a ServeArgs,
        config: Config,
        listeners: Vec<Listener>,
        folder: StateFolder,
        sandbox: Sandbox,
    ) -> Result<Self, Failure> {
        let now = Instant::now();
        raise_descriptor_limit();
        // Orphans, such as what a killed compile child leaves behind, come to us and not to init.
        let _ = nix::sys::prctl::set_child_subreaper(true);
        let signals = SignalQueue::install().or_fail(ExitCode::System, || {
            "cannot take charge of signals".to_owned()
        })?;
        let verdict = Verdict::on(&sandbox)?;
        Ok(Self {
            args,
            identity: identity()?,
            bindings: Bindings::load(&args.bindings, &config.shared)?,
            started: now,
            signals,
            notify: Notify::new(now),
            policy: Policy::new(config.drain.clone(), config.workers.count(), jitter),
            workers: BTreeMap::new(),
            preparation: None,
            state_process: None,
            state_listener: None,
            urls: listeners.iter().map(Listener::url).collect(),
            listeners,
            next_tick: now + TICK,
            control: Control::new(folder.listen()?),
            folder,
            sandbox,
            verdict,
            dev: None,
            config,
        })
    }

    /// The loop. In a forked child none of this goes on: `spawn.rs` ends it there.
    fn join(mut self) -> Result<ExitCode, Failure> {
        let mut now = Instant::now();
        loop {
            for action in self.policy.decide(now) {
                self.carry_out(action, now);
            }
            if let Some(result) = self.policy.outcome() {
                return result.map(|()| ExitCode::Ok);
            }
            let wake = self.next_deadline(now);
            let sources = self.wait(wake)?;
            now = Instant::now();
            let overslept = now.saturating_duration_since(wake);
            if overslept > OVERSLEPT {
                self.policy.note(Event::Overslept(overslept), now);
            }
            for source in sources {
                self.attend(source, now);
            }
            self.tick(now);
        }
    }

    fn attend(&mut self, source: Source, now: Instant) {
        match source {
            Source::Signals => {
                while let Some(signal) = self.signals.next() {
                    self.take_signal(signal, now);
                }
            }
            Source::WorkerChannel(id) => {
                self.listen_to(id, MESSAGES_AT_ONCE, now);
                self.even_out(id);
            }
            Source::WorkerEnd(id) => self.reap(id, now),
            Source::StateChannel => self.listen_to_state(MESSAGES_AT_ONCE, now),
            Source::StateEnd => self.reap_state(now),
            Source::PreparationAnswer => self.preparation.iter_mut().for_each(Preparation::read),
            Source::PreparationEnd => self.finish_preparation(now),
            Source::Control => self.control.accept(now),
            Source::Client(ticket) => match self.control.read(ticket) {
                Some(request) => self.take_request(ticket, request, now),
                None => self.follow_dev(now),
            },
        }
    }

    fn take_signal(&mut self, signal: Signal, now: Instant) {
        tracing::debug!(%signal, "signal");
        let event = match signal {
            Signal::SIGHUP => Event::Reload(None),
            Signal::SIGTERM | Signal::SIGINT => Event::Terminate,
            Signal::SIGQUIT => Event::Stop,
            Signal::SIGTTIN => Event::Grow,
            Signal::SIGTTOU => Event::Shrink,
            Signal::SIGCHLD => return self.reap_orphans(),
            _ => return,
        };
        self.policy.note(event, now);
    }

    fn take_request(&mut self, ticket: Ticket, request: ControlRequest, now: Instant) {
        match request {
            ControlRequest::Ps => {
                let reply = ControlReply::Processes(self.processes(now));
                self.control.reply(ticket, &reply, now);
            }
            ControlRequest::Reload => self.policy.note(Event::Reload(Some(ticket)), now),
            ControlRequest::Scale { workers } => {
                self.policy.note(Event::Scale(workers, ticket), now)
            }
            ControlRequest::Stop => {
                self.control.reply(ticket, &ControlReply::Done, now);
                self.control.keep(ticket);
                self.policy.note(Event::Stop, now);
            }
            ControlRequest::ShowError(page) => self.show_error(ticket, page, now),
        }
    }

    /// Takes in what a worker says, at most `messages` of it.
    fn listen_to(&mut self, id: WorkerId, messages: usize, now: Instant) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        let pid = worker.process.pid().as_raw();
        for _ in 0..messages {
            let event = match worker.listen() {
                Heard::Silence => return,
                Heard::Garbage => Event::Garbage(id),
                Heard::Message(ToSupervisor::Ready) => {
                    let took_ms = (now - worker.started).as_millis() as u64;
                    tracing::info!(pid, took_ms, "worker ready");
                    Event::Ready(id)
                }
                Heard::Message(ToSupervisor::Heartbeat(vitals)) => {
                    Event::Heartbeat(id, vitals.requests)
                }
                Heard::Message(ToSupervisor::Failed(failure)) => {
                    tracing::error!(pid, error = %failure, "worker cannot serve the component");
                    Event::Failed(id, failure)
                }
            };
            self.policy.note(event, now);
        }
    }

    fn reap(&mut self, id: WorkerId, now: Instant) {
        // Its last words may have come since the poll, and they say more than its status.
        self.listen_to(id, LAST_WORDS_MAX, now);
        let Some(worker) = self.workers.get(&id) else {
            return;
        };
        let ending = match worker.process.try_wait() {
            Ok(Some(ending)) => ending,
            Ok(None) => return,
            Err(error) => Ending::NotStarted(error.to_string()),
        };
        self.log_ending(id, &ending);
        self.workers.remove(&id);
        self.policy.note(Event::Ended(id, ending), now);
        // An orphan may have ended behind it.
        self.reap_orphans();
    }

    fn reap_orphans(&self) {
        process::reap_orphans(|pid| {
            let preparation = self.preparation.as_ref().map(Preparation::process);
            let state_process = self.state_process.as_ref().map(|handle| &handle.process);
            let workers = self.workers.values().map(|worker| &worker.process);
            workers
                .chain(preparation)
                .chain(state_process)
                .any(|process| process.pid() == pid)
        });
    }

    /// Does what is to be done from time to time.
    fn tick(&mut self, now: Instant) {
        let deadline = self.preparation.as_ref().map(Preparation::deadline);
        if deadline.is_some_and(|deadline| now >= deadline) {
            self.finish_preparation(now);
        }
        if now < self.next_tick {
            return;
        }
        self.next_tick = now + TICK;
        self.control.tidy(now);
        for (&id, worker) in &self.workers {
            let resident = worker.process.resident();
            self.policy.note(Event::Resident(id, resident), now);
        }
        self.check_listeners(now);
    }

    /// Replaces sockets that no longer listen, and with them the workers, which have the old ones.
    fn check_listeners(&mut self, now: Instant) {
        let listeners = self.listeners.iter_mut();
        for listener in listeners.filter(|listener| !listener.is_listening()) {
            let url = listener.url();
            match listener.rebuild() {
                Ok(()) => {
                    tracing::error!(url, "socket was shut down by a worker, replaced it");
                    self.policy.note(Event::ListenerReplaced, now);
                }
                Err(failure) => tracing::error!(url, error = %failure, "socket cannot be replaced"),
            }
        }
    }

    fn carry_out(&mut self, action: Action, now: Instant) {
        match action {
            Action::Prepare { reload } => self.prepare(reload, now),
            Action::EndPreparation => self.preparation = None,
            Action::Spawn {
                worker,
                place,
                deployment,
            } => self.spawn(worker, place, &deployment, now),
            Action::Drain { worker, drain, why } => {
                if let Some(handle) = self.workers.get(&worker) {
                    tracing::info!(pid = handle.process.pid().as_raw(), why, "worker drains");
                    handle.drain(&drain);
                }
            }
            Action::Kill {
                worker,
                signal,
                why,
            } => {
                if let Some(handle) = self.workers.get_mut(&worker) {
                    tracing::warn!(pid = handle.process.pid().as_raw(), %signal, why, "worker is killed");
                    handle.process.signal(signal);
                }
            }
            Action::Serve {
                generation,
                workers,
                is_first,
            } => {
                self.clear_error();
                self.announce(generation, workers, is_first);
            }
            Action::KeepServing { failure } => {
                if self.dev.is_none() {
                    tracing::error!(error = %failure, hint = failure.hint, "reload failed, nothing changed");
                }
                self.notify.ready("serving, the last reload failed");
            }
            Action::Degraded(degraded) => self.announce_degraded(degraded),
            Action::Stopping => {
                tracing::info!("stopping");
                self.notify.stopping();
                // The workers have theirs; once they are gone, connecting fails and does not just wait.
                self.listeners.clear();
            }
            Action::State(action) => self.carry_out_for_state(action, now),
            Action::Reply { ticket, reply } => self.control.reply(ticket, &reply, now),
        }
    }

    /// Forks a worker. In the child this never returns.
    fn spawn(&mut self, id: WorkerId, place: Place, deployment: &Deployment, now: Instant) {
        let Place { slot, generation } = place;
        let state = self.folder.state_socket();
        let (listeners, sandbox) = (&self.listeners, &self.sandbox);
        match WorkerHandle::spawn(place, deployment, listeners, state, sandbox, now) {
            Ok(handle) => {
                let pid = handle.process.pid().as_raw();
                tracing::info!(slot, pid, generation, "worker started");
                self.pass_error_on(&handle, generation);
                self.workers.insert(id, handle);
            }
            Err(error) => {
                tracing::error!(slot, generation, error = %error, "worker could not be started");
                let ending = Ending::NotStarted(error.to_string());
                self.policy.note(Event::Ended(id, ending), now);
            }
        }
    }
}

/// Makes room for connections: the soft limit that shells set is far below what the system permits.
fn raise_descriptor_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
