//! What a process gives up for good once it needs it no more: first privileges, then files, ports and system calls.
//!
//! In two steps, because what a process has to open it opens in between. Which process is confined how is said here;
//! when, by those who call. Every step is best effort unless the user requires it: a kernel without Landlock, or a
//! container that forbids it, must not keep a server from starting.

mod access;
mod environment;
mod filter;
mod identity;
pub mod kernel;
mod names;
pub mod trial;

pub use identity::Identity;

use crate::config::sandbox::Mode;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode as Bits, umask};
use std::ffi::CString;
use std::io;
use std::os::fd::RawFd;
use std::path::PathBuf;

/// The oldest version of Landlock that `--sandbox require` accepts: the first that knows TCP ports.
pub const LANDLOCK_MIN: i32 = 4;

/// Which of wrun's processes is confined.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// Runs guests.
    Worker,
    /// Owns databases.
    State,
    /// Reads and compiles a component.
    Compile,
}

/// How the processes of one server are confined.
#[derive(Clone, Debug, Default)]
pub struct Sandbox {
    mode: Mode,
    identity: Option<Identity>,
}

impl Sandbox {
    /// Settles what the user said: finds the user that is named.
    pub fn new(settings: &crate::config::sandbox::Sandbox) -> Result<Self, Failure> {
        Ok(Self {
            mode: settings.mode,
            identity: match &settings.user {
                Some(user) => Identity::find(user)?,
                None => None,
            },
        })
    }

    /// Returns whether the kernel is asked to confine.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Returns the user that confined processes run as, if that is another one.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// Returns what a process gives up before it does anything.
    pub fn privileges(&self, role: Role) -> Privileges {
        Privileges {
            sandbox: self.clone(),
            role,
            variables: Vec::new(),
            limits: Vec::new(),
        }
    }
}

/// The first step: what a process gives up before it does anything.
#[derive(Clone, Debug)]
pub struct Privileges {
    sandbox: Sandbox,
    role: Role,
    variables: Vec<(CString, CString)>,
    limits: Vec<(Resource, u64)>,
}

impl Privileges {
    /// Leaves it this variable of the environment, of which nothing else is left.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &std::path::Path) -> Self {
        let value = CString::new(value.as_os_str().as_encoded_bytes());
        if let (Ok(name), Ok(value)) = (CString::new(name), value) {
            self.variables.push((name, value));
        }
        self
    }

    /// Limits what it may use of a resource.
    #[must_use]
    pub fn limit(mut self, resource: Resource, most: u64) -> Self {
        self.limits.push((resource, most));
        self
    }

    /// Gives it up, in this process. To be called right after a fork, when there is one thread.
    pub fn give_up(&self) -> io::Result<()> {
        let confined = self.sandbox.mode != Mode::Off;
        // The compile child builds packages: other programs, which need what its user gave them.
        if confined && self.role != Role::Compile {
            umask(Bits::S_IRWXG | Bits::S_IRWXO);
            environment::replace(&self.variables);
            for &(resource, most) in &self.limits {
                lower(resource, most)?;
            }
        }
        if confined && self.role == Role::Worker {
            std::env::set_current_dir("/")?;
        }
        if let Some(identity) = &self.sandbox.identity {
            identity.assume()?;
        }
        if confined && self.role != Role::Compile {
            lower(Resource::RLIMIT_CORE, 0)?;
            // Neither a core file nor a debugger of the same user sees what guests were told.
            prctl::set_dumpable(false)?;
        }
        Ok(())
    }
}

/// The second step: what a process still needs once it has opened what it works with.
#[derive(Clone, Debug)]
pub struct Needs {
    /// Which process it is.
    pub role: Role,
    /// Files and folders that it reads.
    pub read: Vec<PathBuf>,
    /// Folders that it makes and changes files in.
    pub write: Vec<PathBuf>,
    /// Ports that it connects to over TCP.
    pub ports: Vec<u16>,
    /// Whether it asks DNS for addresses.
    pub resolves: bool,
    /// Whether it sends and hears messages of several parts, and wakes its threads by pipes: a library of C does.
    pub scatters: bool,
    /// Folders of Unix sockets that it connects to.
    pub sockets: Vec<PathBuf>,
    /// Listening sockets that others have, too.
    pub listeners: Vec<RawFd>,
}

impl Needs {
    /// Returns the needs of a process that needs nothing but what it has.
    pub fn none(role: Role) -> Self {
        Self {
            role,
            read: Vec::new(),
            write: Vec::new(),
            ports: Vec::new(),
            resolves: false,
            scatters: false,
            sockets: Vec::new(),
            listeners: Vec::new(),
        }
    }

    /// Gives up everything else, in this process: from here on there is no way back. What is missing to confine it is an
    /// error only if the user requires it. To be called while there is one thread.
    pub fn lock_down(self, mode: Mode) -> Result<(), Failure> {
        if mode == Mode::Off {
            return Ok(());
        }
        let layers = self.apply();
        for layer in layers.iter().filter(|layer| !layer.is_on) {
            tracing::debug!(layer = layer.name, why = layer.detail, "not confined by");
        }
        match layers.iter().find(|layer| !layer.is_on) {
            Some(layer) if mode == Mode::Require => Err(missing(&layer.fault())),
            _ => Ok(()),
        }
    }

    /// Applies every layer that the kernel has.
    pub fn apply(mut self) -> Vec<Layer> {
        if self.resolves {
            self.read.extend(names::files());
            self.ports.push(names::PORT);
            names::preload();
        }
        if self.role == Role::Compile {
            environment::replace(&[]);
        }
        let kept = match self.role {
            Role::Worker => identity::Kept::Nothing,
            // What root was told to serve may belong to anybody.
            Role::State | Role::Compile => identity::Kept::Reading,
        };
        // A worker has no file to write from here on, unless its log is one.
        let limited = match self.role == Role::Worker && !logs_to_a_file() {
            true => lower(Resource::RLIMIT_FSIZE, 0),
            false => Ok(()),
        };
        vec![
            Layer::of("limits", limited.map(|()| "lowered".to_owned())),
            Layer::of(
                "capabilities",
                identity::drop_capabilities(kept).map(|()| "dropped".to_owned()),
            ),
            Layer::of(
                "no_new_privs",
                prctl::set_no_new_privs().map(|()| "set".to_owned()),
            ),
            Layer::of(
                "dumpable",
                prctl::set_dumpable(false).map(|()| "not".to_owned()),
            ),
            Layer::of("landlock", alone().and_then(|()| access::restrict(&self))),
            // Last: it forbids the calls of the others.
            Layer::of("seccomp", filter::install(&self)),
        ]
    }
}

/// One of the walls around a process.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Layer {
    /// Its name.
    pub name: String,
    /// Whether it stands.
    pub is_on: bool,
    /// How, or why not.
    pub detail: String,
}

impl Layer {
    /// Says that it is missing, and why.
    pub fn fault(&self) -> String {
        format!("no {}: {}", self.name, self.detail)
    }

    fn of<E: std::fmt::Display>(name: &str, result: Result<String, E>) -> Self {
        let (is_on, detail) = match result {
            Ok(detail) => (true, detail),
            Err(error) => (false, error.to_string()),
        };
        Self {
            name: name.to_owned(),
            is_on,
            detail,
        }
    }
}

/// Returns the failure of a server that has to have what it cannot have.
pub fn missing(what: &str) -> Failure {
    Failure::new(
        ExitCode::NoPermission,
        format!("the sandbox is required, and there is {what}"),
    )
    .hint(
        "`wrun doctor` shows every layer; use a kernel or container that has it, or --sandbox auto",
    )
}

/// Lowers a limit; one that is lower already stays.
fn lower(resource: Resource, most: u64) -> io::Result<()> {
    let (_, hard) = getrlimit(resource)?;
    let most = most.min(hard);
    Ok(setrlimit(resource, most, most)?)
}

/// Makes sure that there is one thread: what Landlock confines is a thread, and those that it starts.
fn alone() -> Result<(), String> {
    match std::fs::read_dir("/proc/self/task").map(Iterator::count) {
        Ok(1) => Ok(()),
        Ok(threads) => Err(format!("{threads} threads run already")),
        Err(error) => Err(format!("/proc: {error}")),
    }
}

/// Tells whether stdout or stderr is a file, whose writer must be allowed to write files.
fn logs_to_a_file() -> bool {
    use std::os::fd::AsFd as _;
    let (out, err) = (io::stdout(), io::stderr());
    [out.as_fd(), err.as_fd()].iter().any(|fd| {
        rustix::fs::fstat(fd).is_ok_and(|stat| {
            rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile
        })
    })
}
