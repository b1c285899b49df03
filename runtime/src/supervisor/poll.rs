//! What the loop waits for, and until when.

use super::Supervisor;
use super::deploy::Preparation;
use super::policy::{Ticket, WorkerId};
use crate::exit_code::ExitCode;
use crate::failure::{Failure, OrFail as _};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use std::os::fd::AsFd as _;
use std::time::Instant;

/// Something that can be attended to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source {
    /// A signal arrived.
    Signals,
    /// A client wants to connect.
    Control,
    /// A client sent something, or hung up.
    Client(Ticket),
    /// A worker said something, or closed its end.
    WorkerChannel(WorkerId),
    /// A worker ended.
    WorkerEnd(WorkerId),
    /// The state process said something, or closed its end.
    StateChannel,
    /// The state process ended.
    StateEnd,
    /// The compile child said something, or closed its end.
    PreparationAnswer,
    /// The compile child ended.
    PreparationEnd,
}

impl Supervisor<'_> {
    /// Returns when there is something to do, if nothing happens before.
    pub(super) fn next_deadline(&mut self, now: Instant) -> Instant {
        let preparation = self.preparation.as_ref().map(Preparation::deadline);
        let times = [self.policy.wake(), self.notify.keep_alive(now), preparation];
        let times = times.into_iter().flatten();
        times.fold(self.next_tick, Instant::min)
    }

    /// Waits until `wake` at the latest, and returns what can be attended to.
    pub(super) fn wait(&self, wake: Instant) -> Result<Vec<Source>, Failure> {
        let (sources, mut fds): (Vec<_>, Vec<_>) = self.watched().into_iter().unzip();
        let timeout = wake.saturating_duration_since(Instant::now());
        match ppoll(&mut fds, Some(timeout.into()), None) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(Vec::new()),
            Err(error) => return Err(error).or_fail(ExitCode::System, || "cannot poll".to_owned()),
        }
        let is_ready = |fd: &PollFd<'_>| fd.any().unwrap_or(true);
        let polled = sources.into_iter().zip(&fds);
        let ready = polled.filter(|(_, fd)| is_ready(fd));
        Ok(ready.map(|(source, _)| source).collect())
    }

    /// Returns what to wait for. The order is that in which it is attended to.
    fn watched(&self) -> Vec<(Source, PollFd<'_>)> {
        let read = |source, fd| (source, PollFd::new(fd, PollFlags::POLLIN));
        let mut watched = vec![read(Source::Signals, self.signals.as_fd())];
        for (&id, worker) in &self.workers {
            // The channel first: what a worker said before its end explains it.
            let channel = worker.channel();
            watched.extend(channel.map(|channel| read(Source::WorkerChannel(id), channel)));
            watched.push(read(Source::WorkerEnd(id), worker.process.as_fd()));
        }
        if let Some(state) = &self.state_process {
            let channel = state.channel();
            watched.extend(channel.map(|channel| read(Source::StateChannel, channel)));
            watched.push(read(Source::StateEnd, state.process.as_fd()));
        }
        if let Some(preparation) = &self.preparation {
            let pipe = preparation.pipe();
            watched.extend(pipe.map(|pipe| read(Source::PreparationAnswer, pipe)));
            watched.push(read(Source::PreparationEnd, preparation.process().as_fd()));
        }
        for (ticket, socket, is_read) in self.control.clients() {
            // That a client hung up is reported in any case.
            let flags = if is_read {
                PollFlags::POLLIN
            } else {
                PollFlags::empty()
            };
            watched.push((Source::Client(ticket), PollFd::new(socket, flags)));
        }
        let listener = self.control.listener();
        watched.extend(listener.map(|listener| read(Source::Control, listener)));
        watched
    }
}
