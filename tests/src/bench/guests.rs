//! The components that are measured, built as `wrun build` does, with a stack of 64 KiB.
//!
//! The tests' own guests are built quickly rather than well, so they are built here once more.

use crate::guests::{cargo, example, guests_folder, run};
use crate::launch::Wrun;
use crate::{npm, repository, third_party};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The stack and the profile of a package that says nothing of them, as `wrun build` builds it.
const STACK: &str = "-C link-arg=-zstack-size=65536";
const PROFILE: [&str; 4] = ["opt-level=3", "lto=true", "codegen-units=1", "strip=true"];

/// Packages of `tests/guests`, and which of their guests are measured.
const PACKAGES: [(&str, &[&str]); 3] = [
    (
        "wrun-test-guests",
        &[
            "http_hello",
            "http_echo",
            "http_stream",
            "http_toil",
            "http_spin",
        ],
    ),
    ("wrun-test-services", &["service_hello"]),
    ("wrun-test-state", &["bench_state"]),
];

/// What is served.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Guest {
    /// `examples/hello`, with the crate wstd.
    HelloRust,
    /// `http_hello`, with nothing but the bindings of WASI.
    HelloBindings,
    /// `service_hello`, for wasi:http 0.3.
    HelloRust03,
    /// `tests/guests/plain/app.js`, because `wasmtime serve` has nothing of what the SDK is for.
    HelloJs,
    /// `tests/guests/plain/app.py`.
    HelloPython,
    /// `http_echo`.
    Echo,
    /// `http_stream`.
    Stream,
    /// `http_toil`.
    Toil,
    /// `http_spin`.
    Spin,
    /// `bench_state`.
    State,
}

/// The guests that were built so far.
#[derive(Debug)]
pub struct Guests {
    wrun: Wrun,
    built: HashMap<Guest, Result<PathBuf, String>>,
}

impl Guests {
    /// Has built none yet.
    pub fn new(wrun: &Wrun) -> Self {
        Self {
            wrun: wrun.clone(),
            built: HashMap::new(),
        }
    }

    /// Returns the component of a guest.
    ///
    /// # Errors
    ///
    /// What is missing, and how to get it.
    ///
    /// # Panics
    ///
    /// If it does not build.
    pub fn component(&mut self, guest: Guest) -> Result<PathBuf, String> {
        let wrun = &self.wrun;
        let built = self.built.entry(guest).or_insert_with(|| guest.build(wrun));
        built.clone()
    }
}

impl Guest {
    fn build(self, wrun: &Wrun) -> Result<PathBuf, String> {
        match self {
            Self::HelloRust => Ok(wrun_build(wrun, &example("hello"))),
            Self::HelloBindings => Ok(guest("http_hello")),
            Self::HelloRust03 => Ok(guest("service_hello")),
            Self::HelloJs => npm::plain()
                .ok_or_else(|| needs("npm with Node.js 20 or later", "apt install nodejs npm")),
            Self::HelloPython => third_party::python_plain()
                .ok_or_else(|| needs("python3 with venv", "apt install python3-venv")),
            Self::Echo => Ok(guest("http_echo")),
            Self::Stream => Ok(guest("http_stream")),
            Self::Toil => Ok(guest("http_toil")),
            Self::Spin => Ok(guest("http_spin")),
            Self::State => Ok(guest("bench_state")),
        }
    }

    /// Returns the manifest that wrun needs for it.
    pub fn manifest(self) -> Option<&'static str> {
        (self == Self::State).then_some("[locks.default]\n[databases.default]\n")
    }

    /// Returns what has to be asked before anything else.
    pub fn setup(self) -> Option<&'static str> {
        (self == Self::State).then_some("/setup")
    }
}

fn needs(what: &str, remedy: &str) -> String {
    format!("its guest needs {what}, which `{remedy}` adds")
}

/// Has wrun build a project and returns the component.
fn wrun_build(wrun: &Wrun, folder: &Path) -> PathBuf {
    let printed = wrun.run(["build".as_ref(), folder.as_os_str()]).ok();
    PathBuf::from(printed.lines().last().unwrap_or_default())
}

/// Builds those of the tests' guests that are measured, and returns one. Cargo decides whether there is anything to do.
fn guest(name: &str) -> PathBuf {
    let target = repository().join("target/bench-guests");
    let mut build = cargo();
    build
        .args(["build", "--release", "--locked"])
        .args(["--target", "wasm32-wasip2"])
        .arg("--target-dir")
        .arg(&target)
        .env("RUSTFLAGS", STACK)
        .current_dir(guests_folder());
    for setting in PROFILE {
        build.args(["--config", &format!("profile.release.{setting}")]);
    }
    for (package, guests) in PACKAGES {
        build.args(["--package", package]);
        for guest in guests {
            build.args(["--bin", guest]);
        }
    }
    run(&mut build);
    target
        .join("wasm32-wasip2/release")
        .join(name)
        .with_extension("wasm")
}
