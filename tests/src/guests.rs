//! Builds the wasm guests that the tests serve: `tests/guests`, once per test process.
//!
//! Cargo decides whether there is anything to do, so a second process finds them in no time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use crate::repository;

const TARGET: &str = "wasm32-wasip2";

/// Set by the cargo that runs the tests, and meant for the host's code only.
const HOST_ONLY: [&str; 8] = [
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_BUILD_TARGET_DIR",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_TARGET_DIR",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTDOCFLAGS",
    "RUSTFLAGS",
];

/// Returns the component of a guest in `tests/guests/{drafts,p2,p3,state,wstd}/src/bin`.
///
/// # Panics
///
/// If there is no such guest, or the guests do not build.
pub fn guest(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let known = known_guests();
    assert!(
        known.iter().any(|guest| guest == name),
        "no guest is called {name}; there are: {}",
        known.join(", ")
    );
    BUILT
        .get_or_init(build_guests)
        .join(name)
        .with_extension("wasm")
}

/// Returns the folder of a Rust example, for `wrun serve <folder>` to build.
///
/// # Panics
///
/// If there is no such example.
pub fn example(name: &str) -> PathBuf {
    let folder = repository().join("examples").join(name);
    assert!(
        folder.join("Cargo.toml").is_file(),
        "no Rust example in {}",
        folder.display()
    );
    folder
}

/// Returns every guest's name, sorted.
pub fn known_guests() -> Vec<String> {
    let mut names: Vec<String> = ["drafts", "p2", "p3", "state", "wstd"]
        .iter()
        .flat_map(|member| rust_files(&guests_folder().join(member).join("src/bin")))
        .collect();
    names.sort();
    names
}

/// Returns a cargo command for wasm that does not inherit what a surrounding cargo set up for the host.
pub(crate) fn cargo() -> Command {
    ensure_target();
    let mut command = Command::new("cargo");
    for name in HOST_ONLY {
        command.env_remove(name);
    }
    command
}

/// Runs a build step and returns its output, which is shown only if it fails.
///
/// # Panics
///
/// If it does not start, or fails.
pub(crate) fn run(command: &mut Command) -> Output {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("failed to start {command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?} failed with {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

pub(crate) fn guests_folder() -> PathBuf {
    repository().join("tests/guests")
}

fn build_guests() -> PathBuf {
    let folder = guests_folder();
    let target_folder = folder.join("target");
    run(cargo()
        .args(["build", "--release", "--locked", "--target", TARGET])
        .arg("--target-dir")
        .arg(&target_folder)
        .current_dir(&folder));
    target_folder.join(TARGET).join("release")
}

/// Adds the wasm target to the toolchain if it lacks it.
fn ensure_target() {
    static ENSURED: OnceLock<()> = OnceLock::new();
    ENSURED.get_or_init(|| {
        if !has_target() {
            eprintln!("adding the Rust target {TARGET}: rustup target add {TARGET}");
            run(Command::new("rustup").args(["target", "add", TARGET]));
        }
    });
}

/// Asks the compiler and not rustup, because a distribution's Rust has no rustup.
fn has_target() -> bool {
    let output = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", TARGET])
        .current_dir(repository())
        .output()
        .expect("rustc runs");
    let folder = String::from_utf8_lossy(&output.stdout);
    output.status.success() && Path::new(folder.trim()).is_dir()
}

fn rust_files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("failed to list {}: {error}", folder.display()));
    entries
        .map(|entry| entry.expect("a folder's entry can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect()
}
