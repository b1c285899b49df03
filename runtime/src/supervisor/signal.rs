//! Operating-system signals as something to poll: blocked for the whole process and read from a signalfd.
//!
//! No handler runs in the supervisor, so nothing it does can be interrupted half-way. Also works as PID 1, to which the
//! kernel delivers no signal that is neither handled nor blocked.

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// Every signal that the supervisor answers, or ignores on purpose (SIGUSR1 and SIGUSR2 are reserved).
const HANDLED: [Signal; 9] = [
    Signal::SIGHUP,
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGCHLD,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// Signals that stay ignored in every process: a write to a closed socket has to be an error and not an end, and a
/// terminal set to `tostop` must not stop a worker that logs.
const IGNORED: [Signal; 2] = [Signal::SIGPIPE, Signal::SIGTTOU];

/// The signals that arrived and were not read yet.
#[derive(Debug)]
pub(super) struct SignalQueue {
    fd: SignalFd,
}

impl SignalQueue {
    /// Blocks the signals that the supervisor handles and queues them from here on.
    pub(super) fn install() -> io::Result<Self> {
        // A parent that ignores SIGCHLD passes that on, and then the kernel would reap our children for us.
        set_handler(Signal::SIGCHLD, SigHandler::SigDfl)?;
        let mask: SigSet = HANDLED.into_iter().collect();
        mask.thread_block()?;
        let fd = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self { fd })
    }

    /// Returns the next signal, or `None` if there is none now.
    pub(super) fn next(&self) -> Option<Signal> {
        let info = self.fd.read_signal().ok().flatten()?;
        Signal::try_from(i32::try_from(info.ssi_signo).ok()?).ok()
    }
}

impl AsFd for SignalQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// In a forked child: undoes what its parent set up, so that signals mean to it what they mean to any process.
pub(super) fn reset() -> io::Result<()> {
    for signal in Signal::iterator() {
        match signal {
            // Nobody can change these.
            Signal::SIGKILL | Signal::SIGSTOP => {}
            signal if IGNORED.contains(&signal) => set_handler(signal, SigHandler::SigIgn)?,
            signal => set_handler(signal, SigHandler::SigDfl)?,
        }
    }
    SigSet::empty().thread_set_mask()?;
    Ok(())
}

fn set_handler(signal: Signal, handler: SigHandler) -> io::Result<()> {
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: callers pass SigDfl or SigIgn only, so no code of this process ever runs as a handler.
    unsafe { sigaction(signal, &action) }?;
    Ok(())
}
