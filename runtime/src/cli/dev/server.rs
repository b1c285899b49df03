//! The `wrun serve` that `wrun dev` has started: its process, and the line to it, which is that process's stdin.

use super::output::Output;
use crate::exit_code::ExitCode;
use crate::failure::{Failure, OrFail as _};
use crate::ipc::{Channel, ControlReply, ControlRequest};
use crate::listener::Listener;
use command_fds::{CommandFdExt as _, FdMapping};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{self, IsTerminal as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The first descriptor of socket activation.
const LISTEN_FDS_START: i32 = 3;

/// What the server logs unless WRUN_LOG says otherwise: how workers come and go is no news here.
const LOG: &str = "warn,guest=info,access=info";

/// A server. Whatever becomes of this process, it ends: its line does.
pub(super) struct Server {
    child: Child,
    line: AsyncFd<Channel>,
}

impl Server {
    /// Starts one that accepts on `listeners` and serves what this process's own command line names. What it loads first
    /// is its first [`Server::answer`].
    pub(super) fn start(listeners: &[Listener], output: &Output) -> Result<Self, Failure> {
        Self::spawn(listeners, output)
            .or_fail(ExitCode::System, || "cannot start the server".to_owned())
    }

    fn spawn(listeners: &[Listener], output: &Output) -> io::Result<Self> {
        let (ours, theirs) = Channel::pair()?;
        let sockets = (LISTEN_FDS_START..).zip(listeners);
        let sockets = sockets.map(|(child_fd, listener)| {
            let parent_fd = OwnedFd::from(listener.duplicate()?);
            Ok(FdMapping {
                parent_fd,
                child_fd,
            })
        });
        let sockets = sockets.collect::<io::Result<Vec<_>>>()?;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["serve", "--started-by-dev"])
            // The arguments of `wrun dev` are those of `wrun serve`.
            .args(std::env::args_os().skip(2))
            .env("LISTEN_FDS", listeners.len().to_string())
            .env_remove("LISTEN_PID")
            .env_remove("LISTEN_FDNAMES")
            .env_remove("LISTEN_FDS_FIRST_FD")
            .stdin(OwnedFd::from(theirs))
            .stdout(output.writer()?)
            // Ctrl-C is for this process, which drains it.
            .process_group(0)
            .fd_mappings(sockets)
            .map_err(io::Error::other)?;
        set_default(&mut command, "WRUN_LOG", LOG);
        if io::stdout().is_terminal() {
            // It cannot see that by itself, as there is a pipe in between.
            set_default(&mut command, "CARGO_TERM_COLOR", "always");
        }
        let child = command.spawn()?;
        // SAFETY: the channel owns its descriptor, and the `AsyncFd` owns the channel from here on.
        let line = unsafe { AsyncFd::register(ours) }?;
        Ok(Self { child, line })
    }

    /// Returns its next answer, or `None` if it has ended.
    pub(super) async fn answer(&self) -> Option<ControlReply> {
        let read = |line: &Channel| line.recv();
        self.line.async_io(Interest::READABLE, read).await.ok()?
    }

    /// Has it load everything again.
    pub(super) async fn reload(&self) -> Option<ControlReply> {
        self.ask(&ControlRequest::Reload).await
    }

    /// Has it show browsers a page until it has loaded something.
    pub(super) async fn show(&self, page: String) {
        // One that has ended will be noticed by its end.
        let _ = self.ask(&ControlRequest::ShowError(page)).await;
    }

    /// Tells whether its component handles requests, and not messages alone.
    pub(super) async fn listens(&self) -> bool {
        match self.ask(&ControlRequest::Ps).await {
            Some(ControlReply::Processes(processes)) => !processes.supervisor.urls.is_empty(),
            _ => true,
        }
    }

    async fn ask(&self, request: &ControlRequest) -> Option<ControlReply> {
        self.line.get_ref().send(request).ok()?;
        self.answer().await
    }

    /// Waits for its end.
    pub(super) async fn ended(&mut self) -> io::Result<ExitStatus> {
        while self.answer().await.is_some() {}
        // What has closed its end of the line has nothing left to do.
        self.child.wait()
    }

    /// Tells it to drain and end; the second time, to end at once.
    pub(super) fn terminate(&self) {
        // It was not waited for, so its id is nobody else's.
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
    }
}

/// Sets a variable that the user has not set.
fn set_default(command: &mut Command, name: &str, value: &str) {
    if std::env::var_os(name).is_none() {
        command.env(name, value);
    }
}
