//! Projects for `wrun dev`: folders that a person would work in, and what it answers.

use crate::components::{put, read};
use crate::guests::guest;
use crate::wait::eventually;
use crate::{Connection, Response, Server, folder, repository};
use std::fs;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

/// How long a build may take, also the first one of the guests' dependencies.
pub const BUILD: Duration = Duration::from_secs(300);

/// Returns a folder whose manifest names a component beside it.
///
/// # Panics
///
/// If the folder cannot be written to.
pub fn project(component: &str) -> TempDir {
    let folder = folder();
    deploy(folder.path(), component);
    fs::write(
        folder.path().join("wrun.toml"),
        "component = \"component.wasm\"\n",
    )
    .unwrap();
    folder
}

/// Puts a guest in the place of the component.
///
/// # Panics
///
/// If the folder cannot be written to.
pub fn deploy(folder: &Path, name: &str) {
    put(folder, &read(&guest(name)));
}

/// Returns a folder with a Cargo package that answers `text`. It is built beside the other guests, whose dependencies
/// are its own: only the package itself is compiled, and must have a name of its own.
///
/// # Panics
///
/// If the folder cannot be written to.
pub fn package(name: &str, text: &str) -> TempDir {
    let folder = folder();
    let guests = repository().join("tests/guests");
    let manifest = format!(
        "[package]\nname = \"{name}\"\nedition = \"2024\"\n\
         [dependencies]\nwrun-test-guests = {{ path = '{}' }}\n\
         [profile.release]\nopt-level = 1\npanic = \"abort\"\nstrip = true\n",
        guests.join("p2").display()
    );
    let cargo = format!(
        "[build]\ntarget-dir = '{}'\n",
        guests.join("target").display()
    );
    fs::create_dir_all(folder.path().join("src")).unwrap();
    fs::create_dir_all(folder.path().join(".cargo")).unwrap();
    fs::write(folder.path().join("Cargo.toml"), manifest).unwrap();
    fs::write(folder.path().join(".cargo/config.toml"), cargo).unwrap();
    fs::copy(guests.join("Cargo.lock"), folder.path().join("Cargo.lock")).unwrap();
    write_source(folder.path(), text);
    folder
}

/// Writes the package's source as many editors do: a new file that takes the old one's place.
///
/// # Panics
///
/// If the folder cannot be written to.
pub fn write_source(folder: &Path, text: &str) {
    let source = format!(
        "use wrun_test_guests::{{IncomingRequest, ResponseOutparam, handler, response}};\n\
         handler!(handle);\n\
         fn handle(_: IncomingRequest, out: ResponseOutparam) {{\n    response::text(out, {text});\n}}\n"
    );
    fs::write(folder.join("src/main.rs.new"), source).unwrap();
    fs::rename(folder.join("src/main.rs.new"), folder.join("src/main.rs")).unwrap();
}

/// Waits until a program is answered with `text`.
///
/// # Panics
///
/// If it is not, or not within this time.
#[track_caller]
pub fn when_answers(server: &Server, text: &str, within: Duration) {
    eventually(text, within, || {
        (ask(server, &[]).text() == text).then_some(())
    });
}

/// Sends a GET, and waits for the answer as long as a build may take.
///
/// # Panics
///
/// If there is none.
#[track_caller]
pub fn ask(server: &Server, headers: &[(&str, &str)]) -> Response {
    let connection = Connection::try_open(server.addr(), BUILD);
    let mut connection = connection.expect("the address is there");
    connection.exchange("GET", "/", headers, &[])
}
