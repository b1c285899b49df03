//! A folder with an application's sources: which language they are in, and the component that the language's own tools
//! make of them.
//!
//! Each language is a file in `package/`. What a tool has to say goes to stdout, because the first line on stderr is the
//! server's URL.

mod cargo;
mod fresh;
mod javascript;
mod python;

use crate::exit_code::ExitCode;
use crate::failure::{Failure, OrFail as _};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// The files that tell a language, in the order in which they are looked for.
pub const MARKERS: [(&str, Language); 3] = [
    ("Cargo.toml", Language::Rust),
    ("package.json", Language::JavaScript),
    ("pyproject.toml", Language::Python),
];

/// What a package is written in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Language {
    /// A Cargo package.
    Rust,
    /// An npm package, in JavaScript or TypeScript.
    JavaScript,
    /// A Python project.
    Python,
}

impl Language {
    /// Returns the language of the package in `folder`, if there is a package.
    pub fn of(folder: &Path) -> Option<Self> {
        let (_, language) = MARKERS
            .into_iter()
            .find(|(marker, _)| folder.join(marker).is_file())?;
        Some(language)
    }
}

/// Builds the package in `folder` and returns the component's file.
pub fn build(folder: &Path) -> Result<PathBuf, Failure> {
    let language = Language::of(folder).ok_or_else(|| no_package(folder))?;
    let _turn = turn(folder)?;
    match language {
        Language::Rust => cargo::build(folder),
        Language::JavaScript => javascript::build(folder),
        Language::Python => python::build(folder),
    }
}

/// Waits until nobody else builds in `folder`, for as long as the file lives: two that install or write at a time would
/// break each other's work.
fn turn(folder: &Path) -> Result<File, Failure> {
    let locked = || {
        let file = File::open(folder)?;
        file.lock()?;
        io::Result::Ok(file)
    };
    locked().or_fail(ExitCode::NoInput, || {
        format!("cannot lock {} to build in it", folder.display())
    })
}

/// Returns the error for a folder that holds nothing to build.
pub fn no_package(folder: &Path) -> Failure {
    let [rust, javascript, python] = MARKERS.map(|(marker, _)| marker);
    let message = format!(
        "nothing to serve in {}: no wrun.toml that names a component, no {rust}, {javascript} or {python}",
        folder.display()
    );
    Failure::new(ExitCode::NoInput, message)
        .hint("name a component or an application's folder; `wrun new` makes one")
}

/// Returns a copy of this process's stdout for a tool's messages.
fn stdout() -> Result<Stdio, Failure> {
    let fd = std::os::fd::AsFd::as_fd(&io::stdout()).try_clone_to_owned();
    fd.map(Stdio::from)
        .or_fail(ExitCode::System, || "cannot copy stdout".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_build_of_a_folder_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let other = || File::open(folder.path()).unwrap().try_lock();
        let turn = turn(folder.path()).unwrap();
        assert!(other().is_err());
        drop(turn);
        assert!(other().is_ok());
    }
}
