//! A child process as its parent holds it: by pidfd, so that no signal ever reaches a process that took over a pid.
//!
//! Knows nothing of workers; what an ending means is for `policy.rs` to say.

use crate::exit_code::ExitCode;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, SysconfVar, sysconf};
use rustix::io::Errno;
use rustix::process::{self, PidfdFlags, WaitId, WaitIdOptions};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// A child that has not been waited for yet.
#[derive(Debug)]
pub(super) struct Process {
    pid: Pid,
    pidfd: OwnedFd,
    /// Whether this process sent it SIGKILL: if not, somebody else did.
    killed: bool,
}

/// How a process ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Ending {
    /// With this status.
    Exited(i32),
    /// By this signal.
    Signaled(i32),
    /// By a SIGKILL that this process did not send.
    KilledByOther,
    /// It never ran: the system refused to fork.
    NotStarted(String),
}

impl Process {
    /// Takes charge of the child `pid`, which must not have been waited for.
    pub(super) fn adopt(pid: Pid) -> io::Result<Self> {
        let raw = process::Pid::from_raw(pid.as_raw()).ok_or(io::ErrorKind::InvalidInput)?;
        let pidfd = process::pidfd_open(raw, PidfdFlags::empty())?;
        Ok(Self {
            pid,
            pidfd,
            killed: false,
        })
    }

    /// Returns its process id.
    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// Sends it a signal. That it has ended already is no error.
    pub(super) fn signal(&mut self, signal: Signal) {
        self.killed |= signal == Signal::SIGKILL;
        // The one other error, EPERM, is a child that changed its uid to one that we may not signal: its channel and
        // its parent-death signal are what is left.
        let raw = process::Signal::from_named_raw(signal as i32);
        let _ = raw.map(|raw| process::pidfd_send_signal(&self.pidfd, raw));
    }

    /// Sends SIGKILL to its process group: to it, if it still runs, and to what it started. Not to be asked once it was
    /// waited for.
    pub(super) fn kill_group(&self) {
        // Until it is waited for, its pid, and with it the group's number, belongs to nobody else.
        let _ = nix::sys::signal::killpg(self.pid, Signal::SIGKILL);
    }

    /// Returns how it ended, or `None` if it runs. To be asked no more after that.
    pub(super) fn try_wait(&self) -> io::Result<Option<Ending>> {
        self.wait_with(WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
    }

    /// Waits until it has ended: only after a SIGKILL, or the loop stands still.
    pub(super) fn wait(&self) -> io::Result<()> {
        self.wait_with(WaitIdOptions::EXITED).map(drop)
    }

    /// Waits until it has ended, and returns how: only for a child that waits for nothing.
    pub(super) fn wait_for_ending(&self) -> io::Result<Ending> {
        let ending = self.wait_with(WaitIdOptions::EXITED)?;
        ending.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn wait_with(&self, options: WaitIdOptions) -> io::Result<Option<Ending>> {
        let status = loop {
            match process::waitid(WaitId::PidFd(self.pidfd.as_fd()), options) {
                Err(Errno::INTR) => {}
                other => break other?,
            }
        };
        Ok(status.map(
            |status| match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Ending::Exited(code),
                (None, Some(signal)) if signal == Signal::SIGKILL as i32 && !self.killed => {
                    Ending::KilledByOther
                }
                (None, signal) => Ending::Signaled(signal.unwrap_or_default()),
            },
        ))
    }

    /// Returns its resident memory in bytes, 0 if it has ended.
    pub(super) fn resident(&self) -> u64 {
        let path = PathBuf::from(format!("/proc/{}/statm", self.pid));
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let pages: u64 = text
            .split(' ')
            .nth(1)
            .and_then(|pages| pages.parse().ok())
            .unwrap_or(0);
        pages * page_size()
    }
}

impl AsFd for Process {
    /// Readable once the process has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Ending {
    /// Tells whether another process would end in the same way: it said so by its status.
    pub(super) fn is_hopeless(&self) -> bool {
        let codes = [ExitCode::Config, ExitCode::BadComponent];
        codes.iter().any(|code| *self == Self::Exited(code.code()))
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exit code {code}"),
            Self::Signaled(signal) => match Signal::try_from(*signal) {
                // Workers meet it in the sandbox alone.
                Ok(Signal::SIGSYS) => {
                    f.write_str("killed by SIGSYS, for a system call that the sandbox forbids")
                }
                Ok(signal) => write!(f, "killed by {signal}"),
                Err(_) => write!(f, "killed by signal {signal}"),
            },
            Self::KilledByOther => f.write_str("killed by SIGKILL, perhaps by the OOM killer"),
            Self::NotStarted(why) => write!(f, "not started: {why}"),
        }
    }
}

/// Waits for the children of this process that have ended and that `is_own` does not know: orphans that were handed to
/// it as PID 1 or as a subreaper. Those that it knows are left to their pidfd.
pub(super) fn reap_orphans(is_own: impl Fn(Pid) -> bool) {
    // The one thread of this process is its first; a kernel without this file leaves zombies, and no more.
    let path = format!("/proc/self/task/{}/children", Pid::this());
    let children = std::fs::read_to_string(path).unwrap_or_default();
    for pid in children
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
    {
        if !is_own(Pid::from_raw(pid)) {
            let _ = process::waitpid(process::Pid::from_raw(pid), process::WaitOptions::NOHANG);
        }
    }
}

fn page_size() -> u64 {
    let size = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    size.and_then(|size| u64::try_from(size).ok())
        .unwrap_or(4096)
}
