//! Who answers: native hyper, node:cluster, `wasmtime serve` and wrun, each with the settings that its own user would choose.

use super::guests::Guest;
use super::running::Running;
use crate::launch::Wrun;
use clap::ValueEnum;
use serde::Serialize;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The node:cluster contender.
const NODE_CLUSTER: &str = include_str!("node_cluster.mjs");

/// What is added to it, by which its versions differ.
const NODE_VERSION: &str = "\nconst version = ";

/// How `wasmtime serve` is told to be quick: a pool, whose tables are cleared in place.
const WASMTIME_FAST: [&str; 2] = ["pooling-allocator=y", "pooling-table-keep-resident=65536"];

/// The version of wasmtime that wrun is made with.
const WASMTIME: &str = "48.0.8";

/// Somebody who answers requests.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Contender {
    /// hyper in the shape of wrun: a process per core, one listening socket.
    Hyper,
    /// Node.js with its module cluster.
    Node,
    /// The server of the wasmtime command line.
    Wasmtime,
    /// The subject.
    Wrun,
}

impl Contender {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Hyper, Self::Node, Self::Wasmtime, Self::Wrun];
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Hyper => "native hyper",
            Self::Node => "node:cluster",
            Self::Wasmtime => "wasmtime serve",
            Self::Wrun => "wrun",
        })
    }
}

/// The programs of the contenders, and a folder for what they need.
#[derive(Debug)]
pub struct Programs {
    /// The subject.
    pub wrun: Wrun,
    /// The command line of wasmtime.
    pub wasmtime: PathBuf,
    /// Where code, data and scripts go.
    pub folder: PathBuf,
}

/// A server to start.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// Whose it is.
    pub contender: Contender,
    /// What wrun and wasmtime serve.
    pub guest: Guest,
    /// The guest's component.
    pub component: &'a Path,
    /// The number of workers, or of threads.
    pub workers: usize,
    /// The cores that it may use, if not all.
    pub cores: Option<&'a [usize]>,
}

impl Programs {
    /// Returns the version of a contender.
    ///
    /// # Errors
    ///
    /// How to get it, if it is missing.
    pub fn version(&self, contender: Contender) -> Result<String, String> {
        let (mut command, remedy) = match contender {
            Contender::Hyper => return Ok("hyper 1.12".to_owned()),
            Contender::Node => (Command::new("node"), "apt-get install nodejs".to_owned()),
            Contender::Wasmtime => (
                Command::new(&self.wasmtime),
                format!("cargo install wasmtime-cli --version {WASMTIME} --locked"),
            ),
            Contender::Wrun => (self.wrun.command(), "just build".to_owned()),
        };
        let output = command.arg("--version").output();
        let output = output.map_err(|_| format!("it is missing: `{remedy}`"))?;
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok(match contender {
            Contender::Node => format!("Node.js {version}"),
            _ => version,
        })
    }

    /// Starts a server and waits until it serves.
    ///
    /// # Errors
    ///
    /// Why it does not.
    pub fn start(&self, order: &Order<'_>) -> Result<Running, String> {
        let command = match order.contender {
            Contender::Hyper => self.hyper(order.workers),
            Contender::Node => self.node(order.workers, 1),
            Contender::Wasmtime => self.wasmtime(order)?,
            Contender::Wrun => self.wrun(order),
        };
        Running::start(on_cores(command, order.cores))
    }

    fn hyper(&self, workers: usize) -> Command {
        let this = std::env::current_exe().unwrap_or_default();
        let mut command = Command::new(this.with_file_name("bench_hyper"));
        command.arg(workers.to_string());
        command
    }

    /// Writes a version of the script, which a running one starts its next workers from.
    fn node(&self, workers: usize, version: usize) -> Command {
        let script = self.folder.join("node_cluster.mjs");
        self.write_node_cluster(version);
        let mut command = Command::new("node");
        command.arg(script).arg(workers.to_string());
        command
    }

    /// Puts a version of the node:cluster contender in the place of the last.
    ///
    /// # Panics
    ///
    /// If the folder cannot be written to.
    pub fn write_node_cluster(&self, version: usize) {
        let text = format!("{NODE_CLUSTER}{NODE_VERSION}{version};\n");
        let new = self.folder.join("node_cluster.new");
        fs::write(&new, text).expect("the folder takes files");
        fs::rename(new, self.folder.join("node_cluster.mjs")).expect("a file can be renamed");
    }

    /// Compiles ahead of time, as who wants to be quick does; it would compile at each start.
    fn wasmtime(&self, order: &Order<'_>) -> Result<Command, String> {
        let name = format!("{:?}.cwasm", order.guest);
        let compiled = self.folder.join(name);
        if !compiled.exists() {
            let mut compile = self.wasmtime_command("compile");
            compile.arg("-o").arg(&compiled).arg(order.component);
            let output = compile.output().map_err(|error| error.to_string())?;
            if !output.status.success() {
                return Err(String::from_utf8_lossy(&output.stderr).into_owned());
            }
        }
        let mut command = self.wasmtime_command("serve");
        command
            // Everything that a guest may import is there; what it imports and does not call costs nothing.
            .args(["-S", "cli", "-W", "unknown-imports-trap=y"])
            .args(["--allow-precompiled", "--addr", "127.0.0.1:0"])
            .arg(compiled)
            .env("TOKIO_WORKER_THREADS", order.workers.to_string());
        Ok(command)
    }

    fn wasmtime_command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(&self.wasmtime);
        command.arg(subcommand);
        for setting in WASMTIME_FAST {
            command.args(["-O", setting]);
        }
        command
    }

    fn wrun(&self, order: &Order<'_>) -> Command {
        let state = self.folder.join(format!("wrun-{:?}", order.guest));
        let mut command = self.wrun_in(&state, order.component, order.workers);
        if let Some(manifest) = order.guest.manifest() {
            let path = self.folder.join("wrun.toml");
            fs::write(&path, manifest).expect("the folder takes files");
            command.arg("--config").arg(path);
        }
        command
    }

    /// Returns a command that serves a component with its state in a folder, where compiled code is kept, too.
    pub fn wrun_in(&self, state: &Path, component: &Path, workers: usize) -> Command {
        let all = std::thread::available_parallelism().map_or(1, usize::from);
        // With a worker for each core wrun pins them.
        let workers = match workers == all {
            true => "auto".to_owned(),
            false => workers.to_string(),
        };
        let mut command = self.wrun.command();
        command
            .arg("serve")
            .arg(component)
            .args(["--workers", &workers, "--addr", "127.0.0.1:0", "--state"])
            .arg(state);
        command
    }
}

/// Has a command run on some cores alone.
pub fn on_cores(command: Command, cores: Option<&[usize]>) -> Command {
    let Some(cores) = cores else {
        return command;
    };
    let list: Vec<String> = cores.iter().map(ToString::to_string).collect();
    let mut pinned = Command::new("taskset");
    pinned
        .args(["--cpu-list", &list.join(",")])
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => pinned.env(name, value),
            None => pinned.env_remove(name),
        };
    }
    pinned
}
