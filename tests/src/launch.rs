//! How a test starts the real binary: as a server, or as a command that ends by itself.

use crate::outcome::Outcome;
use crate::process;
use crate::server::Server;
use crate::terminal::Terminal;
use nix::fcntl::{FcntlArg, fcntl};
use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use tempfile::TempDir;

/// The first descriptor that a service manager passes on.
const LISTEN_FDS_START: RawFd = 3;

/// Descriptors from here on are not in anybody's way.
const FD_HIGH: RawFd = 100;

/// The binary under test.
#[derive(Clone, Debug)]
pub struct Wrun {
    binary: PathBuf,
}

impl Wrun {
    /// Names the binary.
    pub fn new(binary: impl Into<PathBuf>) -> Self {
        Self {
            binary: binary.into(),
        }
    }

    /// Returns a command that runs wrun with nothing in its environment that would change what it does.
    pub fn command(&self) -> Command {
        clean(&self.binary)
    }

    /// Runs a command to its end.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn run<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Outcome {
        let mut command = self.command();
        command.args(args).stdin(Stdio::null());
        command
            .output()
            .unwrap_or_else(|error| panic!("failed to run {command:?}: {error}"))
            .into()
    }

    /// Prepares a server of what `path` names.
    pub fn serve(&self, path: impl AsRef<Path>) -> Launch {
        Launch::new(self.clone(), "serve", path.as_ref())
    }

    /// Prepares a `wrun dev` of what `path` names. Its stdout is part of its log.
    pub fn dev(&self, path: impl AsRef<Path>) -> Launch {
        Launch::new(self.clone(), "dev", path.as_ref()).after_shell("exec 1>&2")
    }
}

/// Returns a command for `program` without the variables that wrun, systemd or the tests' own cargo may have set.
fn clean(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let is_ours = name
            .to_str()
            .is_some_and(|name| name.starts_with("WRUN_") || name.starts_with("LISTEN_"));
        if is_ours || name == "NOTIFY_SOCKET" {
            command.env_remove(name);
        }
    }
    command
}

/// A server that is about to be started: one worker, a free port and a state folder of its own unless told otherwise.
#[derive(Clone, Debug)]
pub struct Launch {
    wrun: Wrun,
    command: &'static str,
    path: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    workers: String,
    addr: Option<String>,
    state: Option<PathBuf>,
    folder: Option<PathBuf>,
    through: Vec<OsString>,
    manifest: Option<String>,
    listener: Option<Arc<TcpListener>>,
    terminal: bool,
}

/// A command, what it writes its log to, and what has to outlive it.
pub(crate) struct Prepared {
    pub(crate) wrun: Wrun,
    pub(crate) command: Command,
    pub(crate) state: PathBuf,
    pub(crate) scratch: Option<TempDir>,
    pub(crate) screen: Option<File>,
}

impl Launch {
    fn new(wrun: Wrun, command: &'static str, path: &Path) -> Self {
        Self {
            wrun,
            command,
            path: path.to_path_buf(),
            args: Vec::new(),
            env: Vec::new(),
            workers: "1".to_owned(),
            addr: Some("127.0.0.1:0".to_owned()),
            state: None,
            folder: None,
            through: Vec::new(),
            manifest: None,
            listener: None,
            terminal: false,
        }
    }

    /// Runs this many workers; `auto` is a number, too.
    #[must_use]
    pub fn workers(mut self, workers: impl Display) -> Self {
        self.workers = workers.to_string();
        self
    }

    /// Adds an argument, or a flag without a value.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds a flag with its value.
    #[must_use]
    pub fn flag(self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.arg(name).arg(value)
    }

    /// Sets a variable in the environment of wrun, which is not the guest's.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Gives wrun a `wrun.toml` with these lines, in a folder of its own.
    #[must_use]
    pub fn manifest(mut self, text: impl Into<String>) -> Self {
        self.manifest = Some(text.into());
        self
    }

    /// Listens on this address.
    #[must_use]
    pub fn addr(mut self, addr: impl Display) -> Self {
        self.addr = Some(addr.to_string());
        self
    }

    /// Leaves the address to the manifest or to wrun.
    #[must_use]
    pub fn without_addr(mut self) -> Self {
        self.addr = None;
        self
    }

    /// Uses this state folder, which stays when the server is gone.
    #[must_use]
    pub fn state(mut self, folder: impl AsRef<Path>) -> Self {
        self.state = Some(folder.as_ref().to_path_buf());
        self
    }

    /// Starts wrun in this folder and leaves the state folder to it.
    #[must_use]
    pub fn in_folder(mut self, folder: impl AsRef<Path>) -> Self {
        self.folder = Some(folder.as_ref().to_path_buf());
        self
    }

    /// Starts wrun through another program, which gets wrun's command line as its last arguments.
    #[must_use]
    pub fn through<A: AsRef<OsStr>>(mut self, program: impl IntoIterator<Item = A>) -> Self {
        self.through = program
            .into_iter()
            .map(|word| word.as_ref().to_owned())
            .collect();
        self
    }

    /// Starts wrun after this line of shell has run in its process.
    #[must_use]
    pub fn after_shell(self, line: &str) -> Self {
        self.through([
            "sh".to_owned(),
            "-c".to_owned(),
            format!("{line}; exec \"$0\" \"$@\""),
        ])
    }

    /// Hands an open socket to wrun as systemd's socket activation does.
    #[must_use]
    pub fn inherits(mut self, listener: TcpListener) -> Self {
        self.listener = Some(Arc::new(listener));
        // The id of the process is known only in it.
        self.env("LISTEN_FDS", "1")
            .after_shell("export LISTEN_PID=$$")
    }

    /// Gives wrun a terminal for its log.
    #[must_use]
    pub fn on_terminal(mut self) -> Self {
        self.terminal = true;
        self
    }

    /// Starts the server and waits for its URL.
    ///
    /// # Panics
    ///
    /// If it ends, or says something else first.
    #[track_caller]
    pub fn start(self) -> Server {
        Server::start(self.prepare())
    }

    /// Starts a server only to see whether it serves; if it does not, returns all that it said.
    ///
    /// # Errors
    ///
    /// If it ended before it served.
    pub fn serves(self) -> Result<(), String> {
        Server::try_start(self.prepare())
    }

    /// Starts a server that cannot serve, and waits for its end.
    ///
    /// # Panics
    ///
    /// If it cannot be started at all.
    pub fn fail(self) -> Outcome {
        let mut prepared = self.prepare();
        let command = &mut prepared.command;
        command
            .output()
            .unwrap_or_else(|error| panic!("failed to run {command:?}: {error}"))
            .into()
    }

    fn prepare(self) -> Prepared {
        let mut command = match self.through.split_first() {
            None => self.wrun.command(),
            Some((program, args)) => {
                let mut command = clean(Path::new(program));
                command.args(args).arg(&self.wrun.binary);
                command
            }
        };
        command
            .arg(self.command)
            .arg(&self.path)
            .args(["--workers", &self.workers]);
        if let Some(addr) = &self.addr {
            command.args(["--addr", addr]);
        }
        let mut scratch = None;
        let mut own = |name: &str| {
            let folder = scratch.get_or_insert_with(crate::folder);
            folder.path().join(name)
        };
        if let Some(text) = &self.manifest {
            let manifest = own("wrun.toml");
            fs::write(&manifest, text).expect("a temporary folder takes files");
            command.arg("--config").arg(manifest);
        }
        let state = match (&self.state, &self.folder) {
            (Some(state), _) => state.clone(),
            (None, Some(folder)) => folder.join(".wrun"),
            (None, None) => own("state"),
        };
        match &self.folder {
            Some(folder) if self.state.is_none() => command.current_dir(folder),
            _ => command.arg("--state").arg(&state),
        };
        command
            .args(&self.args)
            .envs(self.env.iter().map(|(name, value)| (name, value)));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0);
        let screen = self.terminal.then(|| {
            let terminal = Terminal::open().expect("the kernel has terminals");
            command.stderr(terminal.program);
            terminal.screen
        });
        if let Some(listener) = &self.listener {
            pass_on(&mut command, listener);
        }
        process::die_with_this_thread(&mut command);
        Prepared {
            wrun: self.wrun,
            command,
            state,
            scratch,
            screen,
        }
    }
}

/// Gives the command `listener` as the first of a service manager's descriptors.
fn pass_on(command: &mut Command, listener: &TcpListener) {
    // Were it that descriptor already, dup2 would leave it to be closed on exec.
    let high = fcntl(listener, FcntlArg::F_DUPFD_CLOEXEC(FD_HIGH)).expect("a descriptor");
    // SAFETY: fcntl has just made this descriptor, and nothing else owns it.
    let high = unsafe { OwnedFd::from_raw_fd(high) };
    let hand_over = move || {
        // SAFETY: dup2 is async-signal-safe and touches no memory; `high` is open, this closure owns it.
        match unsafe { libc::dup2(high.as_raw_fd(), LISTEN_FDS_START) } {
            LISTEN_FDS_START => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: the closure makes one system call and does not allocate.
    unsafe { command.pre_exec(hand_over) };
}
