//! What a server is told: flags over `wrun.toml` over defaults, merged once and then never changed.
//!
//! Reads the manifest and nothing else: no sockets, no wasm.

mod bindings;
mod grant;
mod limits;
mod manifest;
pub mod sandbox;
pub mod shared;
mod units;

pub use bindings::{BindingArgs, Bindings, Secret, each_url};
pub use grant::{Grant, bare};
pub use limits::{LimitArgs, Limits};
pub use manifest::Manifest;
pub use sandbox::Sandbox;
pub use shared::{Shared, SharedArgs};
pub use units::{Size, Span, Workers};

use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::package::{self, Language};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where wrun listens unless told otherwise: loopback, because opening a server to the world is a decision.
pub const DEFAULT_ADDR: &str = "127.0.0.1:8080";

/// The name of the manifest in an application's folder.
pub const MANIFEST: &str = "wrun.toml";

/// A server's settings. Serializable, because the compile child reads them again for a reload and sends them back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    /// What to serve, as the user gave it.
    pub path: PathBuf,
    /// Where the component comes from.
    pub source: Source,
    /// The addresses to listen on.
    pub addrs: Vec<SocketAddr>,
    /// How many workers.
    pub workers: Workers,
    /// Where control socket, compiled code and data live.
    pub state: StateFolder,
    /// The folder of the manifest, if there is one.
    pub folder: Option<PathBuf>,
    /// How the processes that meet guests are confined.
    pub sandbox: Sandbox,
    /// The guest's environment; nothing of the host's is in it.
    pub env: BTreeMap<String, String>,
    /// What the guest reads as `wasi:config`.
    pub variables: BTreeMap<String, String>,
    /// Where guests may send HTTP requests.
    pub outbound: Vec<Grant>,
    /// What guests may share.
    pub shared: Shared,
    /// What one request, one connection and one worker may use.
    pub limits: Limits,
    /// When a worker is replaced by a fresh one.
    pub recycle: Recycle,
    /// How a worker ends.
    pub drain: Drain,
    /// Whether every request is logged.
    pub access_log: bool,
    /// The key that signs compiled code; `None` for the user's own.
    pub key: Option<PathBuf>,
    /// Whether `wrun dev` started this server and has it show what went wrong.
    pub dev: bool,
}

/// Where the component comes from.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Source {
    /// A `.wasm` component, or a `.cwasm` that `wrun compile` made.
    File(PathBuf),
    /// A folder with a package that builds a component.
    Package(PathBuf),
}

impl Source {
    /// Finds what `wrun serve PATH` would serve without any flags.
    pub fn at(path: &Path) -> Result<Self, Failure> {
        let args = ServeArgs {
            path: path.to_path_buf(),
            ..ServeArgs::default()
        };
        let (manifest, base) = find_manifest(&args)?;
        find_source(&args, &manifest, &base)
    }
}

/// The folder that belongs to one running server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StateFolder {
    /// The folder.
    pub path: PathBuf,
    /// Whether this folder is meant and no other: because the user named it, with `--state` or by having a manifest
    /// beside it, or because data is kept in it. If not, a second server in the same folder gets a temporary one.
    pub named: bool,
}

/// When a worker is replaced by a fresh one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Recycle {
    /// After this many requests, 0 for never.
    pub max_requests: u64,
    /// When its resident memory passes this many bytes, 0 for never.
    pub max_memory: u64,
}

/// How a worker ends: see `worker/drain.rs`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Drain {
    /// How long its keep-alive connections are still answered, each answer closing its connection.
    pub grace: Duration,
    /// When it is cut off.
    pub timeout: Duration,
}

/// What `wrun serve` was given on its command line.
#[derive(Clone, Debug, Default, clap::Args, Serialize, Deserialize)]
pub struct ServeArgs {
    /// What to serve: a component (.wasm), compiled code (.cwasm) from `wrun compile`, a wrun.toml, or a folder with a
    /// wrun.toml or a package that builds a component: in Rust (Cargo.toml), JavaScript or TypeScript (package.json), or
    /// Python (pyproject.toml)
    #[arg(default_value = ".")]
    pub path: PathBuf,
    /// Run this many worker processes: `auto` is one per available core
    #[arg(short, long, value_name = "auto|N")]
    pub workers: Option<Workers>,
    /// Listen on this address; repeatable, port 0 takes a free one [default: 127.0.0.1:8080]
    #[arg(short, long, value_name = "IP:PORT")]
    pub addr: Vec<SocketAddr>,
    /// Give the guest an environment variable; repeatable
    #[arg(short, long, value_name = "K=V", value_parser = key_value)]
    pub env: Vec<(String, String)>,
    /// Give the guest a variable of wasi:config; repeatable
    #[arg(long, value_name = "K=V", value_parser = key_value)]
    pub config_var: Vec<(String, String)>,
    /// Keep the control socket, compiled code and data in this folder [default: .wrun beside the manifest, or here]
    #[arg(short, long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Let guests send HTTP requests to scheme://host:port; repeatable
    #[arg(long, value_name = "URL")]
    pub allow_outbound: Vec<Grant>,
    /// Read settings from this manifest instead of the one found at PATH
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What guests may share
    #[command(flatten)]
    pub shared: SharedArgs,
    /// Where it is kept
    #[command(flatten)]
    pub bindings: BindingArgs,
    /// Log every request
    #[arg(long)]
    pub access_log: bool,
    /// Confine the processes that meet guests by what the kernel has for that [default: auto]
    #[arg(long, value_name = "MODE")]
    pub sandbox: Option<sandbox::Mode>,
    /// Run those processes as this user; the server is started as root: NAME, UID, NAME:GROUP or UID:GID
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
    /// Replace a worker after about this many requests, 0 for never [default: 0]
    #[arg(long, value_name = "N")]
    pub max_requests: Option<u64>,
    /// Replace a worker whose resident memory passes this, 0 for never [default: 0]
    #[arg(long, value_name = "SIZE")]
    pub max_worker_memory: Option<Size>,
    /// While a worker drains, answer its keep-alive connections for this long, closing each [default: 1s]
    #[arg(long, value_name = "TIME")]
    pub drain_grace: Option<Span>,
    /// Cut off what a draining worker has not finished after this long [default: 30s]
    #[arg(long, value_name = "TIME")]
    pub drain_timeout: Option<Span>,
    /// Sign and check compiled code with the key in this file, not the user's own
    #[arg(long, value_name = "FILE", env = "WRUN_KEY_FILE")]
    pub key_file: Option<PathBuf>,
    /// `wrun dev` started this server: stdin is the line to it
    #[arg(long, hide = true)]
    pub started_by_dev: bool,
    /// What a request may use
    #[command(flatten)]
    pub limits: LimitArgs,
}

impl Config {
    /// Merges `args` with the manifest that they lead to.
    pub fn load(args: &ServeArgs) -> Result<Self, Failure> {
        let (mut manifest, base) = find_manifest(args)?;
        let source = find_source(args, &manifest, &base)?;
        let shared = Shared::merge(&args.shared, manifest.shared(), &base.folder)?;
        let serve = manifest.serve;
        let addrs = if args.addr.is_empty() {
            serve.addr
        } else {
            args.addr.clone()
        };
        let addrs = if addrs.is_empty() {
            vec![DEFAULT_ADDR.parse().expect("a constant")]
        } else {
            addrs
        };
        let mut env = manifest.env;
        env.extend(args.env.iter().cloned());
        let mut variables = manifest.config;
        variables.extend(args.config_var.iter().cloned());
        let mut outbound = manifest.outbound.allow;
        outbound.extend(args.allow_outbound.iter().cloned());
        let state = args
            .state
            .clone()
            .or(serve.state.map(|dir| base.folder.join(dir)));
        let size =
            |flag: Option<Size>, key: Option<Size>| flag.or(key).map_or(0, |size| size.bytes());
        let span = |flag: Option<Span>, key: Option<Span>, default: u64| {
            flag.or(key)
                .map_or(Duration::from_secs(default), |span| span.duration())
        };
        Ok(Self {
            path: args.path.clone(),
            source,
            addrs,
            workers: args.workers.or(serve.workers).unwrap_or_default(),
            state: StateFolder {
                named: state.is_some() || base.has_manifest || !shared.is_empty(),
                path: state.unwrap_or_else(|| base.folder.join(".wrun")),
            },
            folder: base.has_manifest.then_some(base.folder),
            sandbox: Sandbox {
                mode: args.sandbox.or(serve.sandbox).unwrap_or_default(),
                user: args.user.clone().or(serve.user),
            },
            env,
            variables,
            outbound,
            shared,
            limits: Limits::merge(&args.limits, &manifest.limits)?,
            recycle: Recycle {
                max_requests: args.max_requests.or(serve.max_requests).unwrap_or(0),
                max_memory: size(args.max_worker_memory, serve.max_worker_memory),
            },
            drain: Drain {
                grace: span(args.drain_grace, serve.drain_grace, 1),
                timeout: span(args.drain_timeout, serve.drain_timeout, 30),
            },
            access_log: args.access_log || serve.access_log.unwrap_or(false),
            key: args.key_file.clone(),
            dev: args.started_by_dev,
        })
    }
}

impl Config {
    /// Returns the folders that the state process may have to read migrations from, after a reload, too: those that the
    /// settings name, and the one of the manifest, beneath which others usually are.
    pub fn reads(&self) -> Vec<PathBuf> {
        let databases = self.shared.databases.values();
        let named = databases.filter_map(|database| database.migrations.clone());
        named.chain(self.folder.clone()).collect()
    }
}

/// The folder that relative paths of the settings start from.
struct Base {
    folder: PathBuf,
    has_manifest: bool,
}

/// Returns the manifest that `args` lead to, or an empty one, and its folder.
fn find_manifest(args: &ServeArgs) -> Result<(Manifest, Base), Failure> {
    let path = &args.path;
    let beside = path.join(MANIFEST);
    let file = match &args.config {
        Some(file) => Some(file.clone()),
        None if path.extension().is_some_and(|ext| ext == "toml") => Some(path.clone()),
        None if beside.is_file() => Some(beside),
        None => None,
    };
    let Some(file) = file else {
        return Ok((
            Manifest::default(),
            Base {
                folder: PathBuf::from("."),
                has_manifest: false,
            },
        ));
    };
    let folder = match file.parent() {
        Some(folder) if folder != Path::new("") => folder.to_path_buf(),
        _ => PathBuf::from("."),
    };
    Ok((
        Manifest::read(&file)?,
        Base {
            folder,
            has_manifest: true,
        },
    ))
}

/// Returns where the component comes from: PATH itself, or what the manifest at PATH names.
fn find_source(args: &ServeArgs, manifest: &Manifest, base: &Base) -> Result<Source, Failure> {
    let path = &args.path;
    let is_manifest = path.extension().is_some_and(|ext| ext == "toml");
    let path = match &manifest.component {
        // Shown to people: `shop` reads better than `shop/.`.
        Some(component) if is_manifest || path.is_dir() => {
            base.folder.join(component).components().collect()
        }
        _ if is_manifest => base.folder.clone(),
        _ => path.clone(),
    };
    let shown = path.display();
    if path.is_dir() {
        return match Language::of(&path) {
            Some(_) => Ok(Source::Package(path)),
            None => Err(package::no_package(&path)),
        };
    }
    match path.try_exists() {
        Ok(true) => Ok(Source::File(path)),
        Ok(false) => Err(Failure::new(ExitCode::NoInput, format!("{shown} does not exist"))
            .hint("PATH is a component (.wasm), a .cwasm, a wrun.toml, or a folder with one of them or a package")),
        Err(error) => Err(Failure::new(ExitCode::NoInput, format!("cannot read {shown}: {error}"))
            .hint("check the permissions of the file and its folders")),
    }
}

/// Parses `K=V`.
pub fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}
