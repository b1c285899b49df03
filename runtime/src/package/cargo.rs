//! Rust: a Cargo package, built for `wasm32-wasip2` so that its instances are small.
//!
//! Calls cargo as its user would, and adds what the package leaves open: a release profile, a stack size. Adds the wasm
//! target where it is missing, and says so, because no file in a repository can: rustup may be told not to.

use super::stdout;
use crate::config::Size;
use crate::exit_code::ExitCode;
use crate::failure::{Failure, OrFail as _};
use crate::log;
use cargo_metadata::camino::Utf8Path;
use cargo_metadata::{Artifact, CrateType, Message, Metadata, MetadataCommand, Package, Target};
use serde::Deserialize;
use std::io::{self, BufReader};
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

/// The release profile, key by key, where the package does not set its own: what makes a guest both small and fast. How
/// much to optimize is left to cargo, which has speed count for more: the code of all instances is there once.
const PROFILE: [(&str, &str); 3] = [("lto", "true"), ("codegen-units", "1"), ("strip", "true")];

/// The stack in bytes, where the package does not set its own. It is part of the memory that every instance starts with;
/// the linker's default is sixteen times as much.
const STACK: u64 = 64 << 10;

/// Where to get cargo and its targets.
const RUSTUP: &str = "https://rustup.rs";

/// Builds the package in `folder` and returns the component's file.
pub(super) fn build(folder: &Path) -> Result<PathBuf, Failure> {
    let metadata = read_metadata(folder)?;
    let (package, target) = find_component(&metadata, folder)?;
    let stack = stack(package)?;
    let profile = open_profile(&metadata.workspace_root)?;
    add_target(folder)?;
    let mut cargo = cargo(folder);
    cargo
        .args(["rustc", "--release", "--target", TARGET])
        .args(["--package", &package.id.repr])
        .args(["--message-format", "json-render-diagnostics"]);
    match target.is_bin() {
        true => cargo.args(["--bin", &target.name]),
        false => cargo.arg("--lib"),
    };
    for (key, value) in profile {
        cargo.arg("--config");
        cargo.arg(format!("profile.release.{key}={value}"));
    }
    // For the component alone, and before the user's own flags, of which the linker takes the last.
    cargo.args(["--", "-C", &format!("link-arg=-zstack-size={stack}")]);
    run(cargo, folder, target)
}

/// Returns a command for cargo in `folder`.
fn cargo(folder: &Path) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for variable in FOREIGN {
        cargo.env_remove(variable);
    }
    cargo.current_dir(folder).stdin(Stdio::null());
    cargo
}

/// Asks cargo what it knows of the package in `folder` and its workspace.
fn read_metadata(folder: &Path) -> Result<Metadata, Failure> {
    let output = cargo(folder)
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .stderr(stdout()?)
        .output()
        .map_err(not_started)?;
    if !output.status.success() {
        return Err(not_built(folder));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    MetadataCommand::parse(text).or_fail(ExitCode::Internal, || {
        "cannot read cargo's metadata".to_owned()
    })
}

/// Returns the one target that makes a component: of the package in `folder`, or of its workspace if it holds no package.
fn find_component<'a>(
    metadata: &'a Metadata,
    folder: &Path,
) -> Result<(&'a Package, &'a Target), Failure> {
    let shown = folder.display();
    let real = std::fs::canonicalize(folder)
        .or_fail(ExitCode::NoInput, || format!("cannot read {shown}"))?;
    let manifest = real.join("Cargo.toml");
    let own = metadata
        .packages
        .iter()
        .find(|it| it.manifest_path == manifest);
    let packages = own.map_or_else(|| metadata.workspace_default_packages(), |own| vec![own]);
    let components: Vec<_> = packages
        .iter()
        .flat_map(|package| package.targets.iter().map(|target| (*package, target)))
        .filter(|(_, target)| makes_component(target))
        .collect();
    match components.as_slice() {
        [only] => Ok(*only),
        [] => Err(Failure::new(
            ExitCode::BadComponent,
            format!("the package in {shown} builds no component"),
        )
        .hint("it needs a binary, or a library of crate-type cdylib")),
        several => {
            let default = several.iter().find(|(package, target)| {
                target.is_bin() && package.default_run.as_ref() == Some(&target.name)
            });
            default.copied().ok_or_else(|| ambiguous(folder, several))
        }
    }
}

fn ambiguous(folder: &Path, components: &[(&Package, &Target)]) -> Failure {
    let names = components.iter().map(|(_, target)| target.name.as_str());
    let names: Vec<_> = names.collect();
    let message = format!(
        "the package in {} builds several components: {}",
        folder.display(),
        names.join(", ")
    );
    Failure::new(ExitCode::Usage, message).hint(
        "set `default-run` in Cargo.toml to the one to serve, or name the folder of its package",
    )
}

fn makes_component(target: &Target) -> bool {
    target.is_bin() || target.crate_types.contains(&CrateType::CDyLib)
}

/// What a package tells wrun in `[package.metadata.wrun]`.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    stack: Option<Size>,
}

/// Returns the stack size for `package`; the linker takes multiples of 16.
fn stack(package: &Package) -> Result<u64, Failure> {
    let settings = match package.metadata.get("wrun") {
        None => Settings::default(),
        Some(settings) => Settings::deserialize(settings).map_err(|error| {
            let message = format!(
                "[package.metadata.wrun] in {}: {error}",
                package.manifest_path
            );
            Failure::new(ExitCode::Config, message)
                .hint("its one key is `stack`, a size such as \"256KiB\"")
        })?,
    };
    let stack = settings.stack.map_or(STACK, Size::bytes);
    Ok(stack.next_multiple_of(16))
}

/// Returns those settings of [`PROFILE`] that the workspace at `root` does not make. Cargo ranks what its command line
/// says above Cargo.toml, so they cannot be given as mere defaults.
fn open_profile(root: &Utf8Path) -> Result<Vec<(&'static str, &'static str)>, Failure> {
    let manifest = root.join("Cargo.toml");
    let text = std::fs::read_to_string(&manifest)
        .or_fail(ExitCode::NoInput, || format!("cannot read {manifest}"))?;
    let text: toml::Table = text
        .parse()
        .or_fail(ExitCode::BadComponent, || format!("cannot read {manifest}"))?;
    let release = text.get("profile").and_then(|it| it.get("release"));
    let is_open = |key: &str| release.and_then(|release| release.get(key)).is_none();
    Ok(PROFILE
        .into_iter()
        .filter(|(key, _)| is_open(key))
        .collect())
}

/// Runs cargo and returns the component that it made of `target`, or found still good.
fn run(mut cargo: Command, folder: &Path, target: &Target) -> Result<PathBuf, Failure> {
    let mut child = cargo
        .stdout(Stdio::piped())
        .stderr(stdout()?)
        .spawn()
        .map_err(not_started)?;
    let output = child.stdout.take().expect("piped above");
    let mut file = None;
    for message in Message::parse_stream(BufReader::new(output)) {
        let message = message.or_fail(ExitCode::Internal, || {
            "cannot read cargo's messages".to_owned()
        })?;
        if let Message::CompilerArtifact(artifact) = message {
            file = file.or(component(artifact, target));
        }
    }
    let status = child
        .wait()
        .or_fail(ExitCode::System, || "cannot wait for cargo".to_owned())?;
    if !status.success() {
        return Err(not_built(folder));
    }
    file.ok_or_else(|| {
        Failure::new(
            ExitCode::Internal,
            format!("cargo has built {} and names no file", target.name),
        )
    })
}

/// Returns the component's file if `artifact` is what cargo made of `target`.
fn component(artifact: Artifact, target: &Target) -> Option<PathBuf> {
    if artifact.target.name != target.name || artifact.target.kind != target.kind {
        return None;
    }
    let mut files = artifact.filenames.into_iter();
    let file = files.find(|file| file.extension() == Some("wasm"))?;
    Some(file.into())
}

/// Adds the wasm target to the toolchain of `folder` if it lacks it.
fn add_target(folder: &Path) -> Result<(), Failure> {
    if has_target(folder) {
        return Ok(());
    }
    let mut rustup = Command::new("rustup");
    rustup
        .args(["target", "add", TARGET])
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(stdout()?)
        .stderr(stdout()?);
    let mut child = rustup.spawn().map_err(|_| {
        Failure::new(
            ExitCode::Unavailable,
            format!(
                "the Rust toolchain lacks the target {TARGET}, and there is no rustup to add it"
            ),
        )
        .hint(format!(
            "install Rust from {RUSTUP}, or the target with what Rust was installed with"
        ))
    })?;
    log::say(&format!(
        "wrun: adding the target {TARGET}: rustup target add {TARGET}"
    ));
    if child.wait().is_ok_and(|status| status.success()) {
        return Ok(());
    }
    Err(Failure::new(
        ExitCode::Unavailable,
        format!("cannot add the target {TARGET}"),
    )
    .hint(format!("run `rustup target add {TARGET}`")))
}

/// Tells whether the toolchain has the wasm target. Asks the compiler, because a distribution's Rust has no rustup; if
/// that cannot be asked, cargo says why.
fn has_target(folder: &Path) -> bool {
    let libraries = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--print", "target-libdir", "--target", TARGET])
        .current_dir(folder)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    libraries.map_or(true, |output| {
        let path = String::from_utf8_lossy(&output.stdout);
        output.status.success() && Path::new(path.trim()).is_dir()
    })
}

fn not_started(error: io::Error) -> Failure {
    let message = match error.kind() {
        io::ErrorKind::NotFound => "cargo is not installed, or not in PATH".to_owned(),
        _ => format!("cannot run cargo: {error}"),
    };
    Failure::new(ExitCode::Unavailable, message).hint(format!(
        "install Rust from {RUSTUP}, or name a component that is built already"
    ))
}

fn not_built(folder: &Path) -> Failure {
    let message = format!("cargo could not build {}", folder.display());
    Failure::new(ExitCode::BadComponent, message).hint(format!(
        "see its messages, or run `cargo build --target {TARGET}` there"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the keys that are given where Cargo.toml says this.
    fn given(manifest: &str) -> Vec<&'static str> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("Cargo.toml"), manifest).unwrap();
        let root = Utf8Path::from_path(folder.path()).unwrap();
        let profile = open_profile(root).unwrap();
        profile.into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn profile_is_given_key_by_key_where_the_package_leaves_it_open() {
        let all = ["lto", "codegen-units", "strip"];
        assert_eq!(given(""), all);
        assert_eq!(given("[profile.dev]\nlto = false\n"), all);
        assert_eq!(
            given("[profile.release]\nopt-level = \"s\"\nlto = false\n"),
            all[1..]
        );
    }
}
