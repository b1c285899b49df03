//! `wrun new`: a name in, an application's folder out.
//!
//! What is in the folder is for `new/template.rs`.

mod template;

use super::print::print;
use crate::exit_code::ExitCode;
use crate::failure::{Failure, OrFail as _};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use template::{Language, Template};

/// What to make.
#[derive(Debug, clap::Args)]
pub(super) struct NewArgs {
    /// The folder to make; its last part is the application's name
    #[arg(value_name = "NAME")]
    folder: PathBuf,
    /// The language to write it in
    #[arg(short, long)]
    lang: Language,
    /// What to begin with
    #[arg(short, long, default_value = "http")]
    template: Template,
}

pub(super) fn run(args: &NewArgs) -> Result<ExitCode, Failure> {
    let folder = args.folder.as_path();
    let name = name(folder)?;
    check_free(folder)?;
    for (path, content) in template::files(args.lang, args.template, name) {
        let path = folder.join(path);
        write(&path, &content).or_fail(ExitCode::CannotCreate, || {
            format!("cannot write {}", path.display())
        })?;
    }
    let next = format!(
        "{name} is there. What to do next:\n\n  \
         cd {folder}\n  \
         wrun dev      # or `wrun serve .`, which does not watch for changes\n  \
         {curl}\n\n\
         {folder}/README.md says more.\n",
        folder = folder.display(),
        curl = args.template.curl(),
    );
    print(next.as_bytes())
}

/// Names of other things in an application's folder, which cargo would mistake it for.
const TAKEN: [&str; 6] = [
    "build",
    "deps",
    "examples",
    "incremental",
    "wrun-sdk",
    "wrun_sdk",
];

/// Returns the application's name, if it can be a package's name in every language.
fn name(folder: &Path) -> Result<&str, Failure> {
    let refuse = |hint: &str| {
        let message = format!("{} cannot be the name of an application", folder.display());
        Failure::new(ExitCode::Usage, message).hint(hint)
    };
    let name = folder.file_name().and_then(|name| name.to_str());
    let name = name.unwrap_or_default();
    let is_word = |char: char| char.is_ascii_alphanumeric() || char == '-' || char == '_';
    if TAKEN.contains(&name) {
        return Err(refuse("choose another NAME, its tools use this one"));
    }
    if name.starts_with(|char: char| char.is_ascii_alphabetic())
        && name.ends_with(|char: char| char.is_ascii_alphanumeric())
        && name.chars().all(is_word)
    {
        return Ok(name);
    }
    Err(refuse(
        "NAME has letters, digits, - and _, begins with a letter and does not end with - or _",
    ))
}

/// Refuses to write where there is something.
fn check_free(folder: &Path) -> Result<(), Failure> {
    let shown = folder.display();
    let taken = |what| {
        Failure::new(ExitCode::CannotCreate, format!("{shown} {what}"))
            .hint("choose another NAME, or remove what is there")
    };
    match fs::read_dir(folder).map(Iterator::count) {
        Ok(0) => Ok(()),
        Ok(_) => Err(taken("exists and is not empty")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            Err(taken("exists and is not a folder"))
        }
        Err(error) => Err(Failure::new(
            ExitCode::NoPermission,
            format!("cannot read {shown}: {error}"),
        )
        .hint("choose another place for NAME")),
    }
}

fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, content)
}
