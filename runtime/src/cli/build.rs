//! `wrun build`: an application's sources in, the path of its component out.

use super::JsonArgs;
use super::print::print_as;
use crate::config::Source;
use crate::exit_code::ExitCode;
use crate::failure::{Failure, OrFail as _};
use crate::package;
use nix::unistd::{dup, dup2_stdout};
use serde::Serialize;
use std::io;
use std::path::PathBuf;

/// What to build.
#[derive(Debug, clap::Args)]
pub(super) struct BuildArgs {
    /// The application's folder, or its wrun.toml
    #[arg(default_value = ".")]
    folder: PathBuf,
    #[command(flatten)]
    json: JsonArgs,
}

/// What was built.
#[derive(Serialize)]
struct Built {
    component: PathBuf,
}

pub(super) fn run(args: &BuildArgs) -> Result<ExitCode, Failure> {
    let folder = match Source::at(&args.folder)? {
        Source::Package(folder) => folder,
        Source::File(file) => {
            let message = format!("{} is a file: there is nothing to build", file.display());
            return Err(Failure::new(ExitCode::Usage, message)
                .hint("name a folder, or set `component` in wrun.toml to one"));
        }
    };
    let component = with_stdout_on_stderr(|| package::build(&folder))?;
    print_as(args.json.json, &Built { component }, |built| {
        format!("{}\n", built.component.display())
    })
}

/// Runs `build` with stderr in place of stdout, which is for the path alone.
fn with_stdout_on_stderr<T>(build: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let swap = || -> nix::Result<_> {
        let stdout = dup(io::stdout())?;
        dup2_stdout(io::stderr())?;
        Ok(stdout)
    };
    let failed = || "cannot redirect stdout".to_owned();
    let stdout = swap().or_fail(ExitCode::System, failed)?;
    let built = build();
    dup2_stdout(stdout).or_fail(ExitCode::System, failed)?;
    built
}
