//! `wrun compile`: a component in, a signed `.cwasm` out.

use crate::engine::{self, Key};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use std::path::PathBuf;

/// What to compile, and where to.
#[derive(Debug, clap::Args)]
pub(super) struct CompileArgs {
    /// The component
    input: PathBuf,
    /// Write the compiled code to this file
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Sign with the key in this file, not the user's own
    #[arg(long, value_name = "FILE", env = "WRUN_KEY_FILE")]
    key_file: Option<PathBuf>,
}

pub(super) fn run(args: &CompileArgs) -> Result<ExitCode, Failure> {
    let key = Key::open_default(args.key_file.as_deref())?;
    engine::compile_file(&args.input, &args.output, &key)?;
    Ok(ExitCode::Ok)
}
