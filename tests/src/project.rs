//! Folders with applications in Rust, as users have them, in a place where cargo keeps what their dependencies compile to.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::guests::{cargo, run};
use crate::repository;

/// Returns the path of a project that is not there. Its name must be one test's own.
///
/// # Panics
///
/// If what an earlier run left cannot be removed.
pub fn vacant(name: &str) -> PathBuf {
    let projects = repository().join("target/projects");
    write(
        &projects.join(".cargo/config.toml"),
        "[build]\ntarget-dir = \"built\"\n",
    );
    let folder = projects.join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder).expect("a project can be removed");
    }
    folder
}

/// Makes a Cargo package with these files, a `Cargo.toml` that is given without the name and version, and `wrun-sdk`.
///
/// # Panics
///
/// If it cannot be written.
pub fn package(name: &str, manifest: &str, files: &[(&str, &str)]) -> PathBuf {
    let folder = vacant(name);
    let sdk = repository().join("guest-sdk");
    let manifest = format!(
        "[package]\nname = \"{name}\"\nedition = \"2024\"\n{manifest}\n[workspace]\n\
         [dependencies]\nwrun-sdk = {{ path = \"{}\" }}\n",
        sdk.display()
    );
    write(&folder.join("Cargo.toml"), &manifest);
    for (path, text) in files {
        write(&folder.join(path), text);
    }
    folder
}

/// Runs a cargo command in a project and returns what it printed.
///
/// # Panics
///
/// If it fails.
pub fn cargo_in(folder: &Path, args: &[&str]) -> String {
    let output = run(cargo().args(args).current_dir(folder));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// Writes an executable file with this script of `sh`.
///
/// # Panics
///
/// If it cannot be written.
pub fn tool(folder: &Path, name: &str, script: &str) {
    let path = folder.join(name);
    write(&path, &format!("#!/bin/sh\n{script}\n"));
    run(Command::new("chmod").arg("+x").arg(path));
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("it lies in a folder")).expect("a folder can be made");
    fs::write(path, text)
        .unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
}
