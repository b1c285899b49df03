//! Rust: a Cargo package.
//!
//! Calls cargo as its user would. Adds the wasm target where it is missing, and says so, because no file in a repository
//! can: rustup may be told not to.

use super::stdout;
use crate::exit_code::ExitCode;
use crate::failure::{Failure, OrFail as _};
use crate::log;
use cargo_metadata::camino::Utf8PathBuf;
use cargo_metadata::{Artifact, CrateType, Message, TargetKind};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The target that Rust guests are built for.
const TARGET: &str = "wasm32-wasip2";

/// What a surrounding cargo sets for its own build and must not reach this one.
const FOREIGN: [&str; 5] = [
    "CARGO_TARGET_DIR",
    "CARGO_BUILD_TARGET",
    "RUSTFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_MANIFEST_DIR",
];

/// Builds the package in `folder` and returns the component's file.
pub(super) fn build(folder: &Path) -> Result<PathBuf, Failure> {
    add_target()?;
    let files = run_cargo(folder)?;
    let shown = folder.display();
    match files.as_slice() {
        [file] => Ok(file.into()),
        [] => Err(Failure::new(
            ExitCode::BadComponent,
            format!("the package in {shown} builds no component"),
        )
        .hint("it needs a binary, or a library of crate-type cdylib")),
        several => {
            let names: Vec<_> = several.iter().filter_map(|file| file.file_name()).collect();
            let names = names.join(", ");
            Err(Failure::new(
                ExitCode::Usage,
                format!("the package in {shown} builds several: {names}"),
            )
            .hint(format!(
                "name one of the .wasm files under target/{TARGET}/release"
            )))
        }
    }
}

/// Runs cargo in `folder` and returns the components that it made, or found still good.
fn run_cargo(folder: &Path) -> Result<Vec<Utf8PathBuf>, Failure> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for variable in FOREIGN {
        cargo.env_remove(variable);
    }
    cargo
        .args(["build", "--release", "--target", TARGET])
        .args(["--message-format", "json-render-diagnostics"])
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(stdout()?);
    let mut child = cargo.spawn().map_err(|error| {
        Failure::new(ExitCode::Unavailable, format!("cannot run cargo: {error}"))
            .hint("install Rust, or serve a component that is built already")
    })?;
    let output = child.stdout.take().expect("piped above");
    let mut files = Vec::new();
    for message in Message::parse_stream(BufReader::new(output)) {
        let message = message.or_fail(ExitCode::Internal, || {
            "cannot read cargo's messages".to_owned()
        })?;
        if let Message::CompilerArtifact(artifact) = message {
            files.extend(component(artifact));
        }
    }
    let status = child
        .wait()
        .or_fail(ExitCode::System, || "cannot wait for cargo".to_owned())?;
    if status.success() {
        return Ok(files);
    }
    let message = format!("cargo could not build {}", folder.display());
    Err(Failure::new(ExitCode::BadComponent, message).hint(format!(
        "see its messages, or run `cargo build --target {TARGET}` there"
    )))
}

/// Returns the component among what cargo made of one target.
fn component(artifact: Artifact) -> Option<Utf8PathBuf> {
    let target = &artifact.target;
    let makes_one =
        target.kind.contains(&TargetKind::Bin) || target.crate_types.contains(&CrateType::CDyLib);
    artifact
        .filenames
        .into_iter()
        .find(|file| makes_one && file.extension() == Some("wasm"))
}

/// Adds the wasm target to the toolchain, where there is a rustup that lacks it. Without a rustup the distribution's
/// toolchain has it or cargo says that it has not.
fn add_target() -> Result<(), Failure> {
    let Ok(installed) = Command::new("rustup")
        .args(["target", "list", "--installed"])
        .output()
    else {
        return Ok(());
    };
    if String::from_utf8_lossy(&installed.stdout)
        .lines()
        .any(|line| line == TARGET)
    {
        return Ok(());
    }
    log::say(&format!(
        "wrun: adding the target {TARGET}: rustup target add {TARGET}"
    ));
    let added = Command::new("rustup")
        .args(["target", "add", TARGET])
        .stdout(stdout()?)
        .stderr(stdout()?)
        .status();
    if added.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    Err(Failure::new(
        ExitCode::Unavailable,
        format!("cannot add the target {TARGET}"),
    )
    .hint(format!("run `rustup target add {TARGET}`")))
}
