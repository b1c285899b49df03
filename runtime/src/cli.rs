//! What a user can type. Doc comments here are the help text.
//!
//! Each command is a file in `cli/`; this one parses, dispatches and prints the error of the command that failed.

mod backup;
mod build;
mod compile;
mod control;
mod db;
mod dev;
mod doctor;
mod keyvalue;
mod lock;
mod new;
mod print;
mod queue;
mod serve;
mod state;
mod table;
mod value;

use crate::config::ServeArgs;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use clap::{CommandFactory as _, Parser, Subcommand};
use std::path::PathBuf;

/// Serve WebAssembly components on every core, a fresh sandboxed instance for every request
#[derive(Debug, Parser)]
#[command(name = "wrun", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a folder with an application that builds and runs as it is
    New(new::NewArgs),
    /// Build the component of an application's folder, and print its path
    Build(build::BuildArgs),
    /// Serve a component over HTTP
    Serve(Box<ServeArgs>),
    /// Serve a project while it is being written: build it again and reload it whenever a file changes
    ///
    /// A project is a folder with a wrun.toml or a Cargo package. While it does not build, browsers are shown the error
    /// and the last good version goes on for everything else. A component that something else builds is reloaded
    /// whenever its file changes. All flags are those of `wrun serve`.
    Dev(Box<ServeArgs>),
    /// Compile a component to machine code ahead of time
    Compile(compile::CompileArgs),
    /// List the processes of a running server
    Ps {
        #[command(flatten)]
        server: ServerArgs,
        #[command(flatten)]
        json: JsonArgs,
    },
    /// Load the component and the manifest again without losing a request
    Reload {
        #[command(flatten)]
        server: ServerArgs,
        #[command(flatten)]
        json: JsonArgs,
    },
    /// Run this many workers from now on
    Scale {
        /// How many
        #[arg(value_parser = clap::value_parser!(u16).range(1..=1024))]
        workers: u16,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Drain a running server and end it
    Stop {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Look into a running server's databases
    #[command(subcommand)]
    Db(db::DbCommand),
    /// Look into a running server's queues, and mend them
    #[command(subcommand)]
    Queue(queue::QueueCommand),
    /// Look into a running server's key-value stores
    #[command(subcommand)]
    Keyvalue(keyvalue::KeyvalueCommand),
    /// Look at a running server's locks
    #[command(subcommand)]
    Lock(lock::LockCommand),
    /// Copy a database of a running server to a file
    Backup(backup::BackupArgs),
    /// Show whether this machine has what wrun needs, how workers would be confined, and whether bindings work
    Doctor(doctor::DoctorArgs),
}

/// Which running server is meant.
#[derive(Debug, clap::Args)]
struct ServerArgs {
    /// The server's state folder
    #[arg(short, long, value_name = "DIR", default_value = ".wrun")]
    state: PathBuf,
}

/// Whether a program reads what is printed.
#[derive(Debug, clap::Args)]
struct JsonArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Returns all that can be typed, as clap knows it: what the documentation says is held against it.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the command line and returns the status to end with.
pub fn main() -> std::process::ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors and go to stdout; clap knows which is which.
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::Usage
            } else {
                ExitCode::Ok
            }
            .into();
        }
    };
    let result = match cli.command {
        Command::New(args) => new::run(&args),
        Command::Build(args) => build::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Dev(args) => dev::run(&args),
        Command::Compile(args) => compile::run(&args),
        Command::Ps { server, json } => control::ps(&server.state, json.json),
        Command::Reload { server, json } => control::reload(&server.state, json.json),
        Command::Scale { workers, server } => control::scale(&server.state, usize::from(workers)),
        Command::Stop { server } => control::stop(&server.state),
        Command::Db(command) => db::run(command),
        Command::Queue(command) => queue::run(command),
        Command::Keyvalue(command) => keyvalue::run(command),
        Command::Lock(command) => lock::run(command),
        Command::Backup(args) => backup::run(args),
        Command::Doctor(args) => doctor::run(&args),
    };
    match result {
        Ok(code) => code.into(),
        Err(failure) => {
            print_failure(&failure);
            failure.code.into()
        }
    }
}

/// Prints an error as `wrun: what` and, on a line of its own, the hint.
#[expect(
    clippy::print_stderr,
    reason = "the one place where a command reports its failure"
)]
fn print_failure(failure: &Failure) {
    eprintln!("wrun: {failure}");
    if let Some(hint) = &failure.hint {
        eprintln!("  hint: {hint}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Set to anything, it makes the test write the file instead.
    const WRITE: &str = "WRUN_WRITE_DOCS";

    #[test]
    fn docs_have_every_command_as_its_help_has_it() {
        let options = clap_markdown::MarkdownOptions::new()
            .title("Command line".to_owned())
            .show_footer(false);
        let text = clap_markdown::help_markdown_custom::<Cli>(&options);
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/cli.md");
        if std::env::var_os(WRITE).is_some() {
            std::fs::write(file, &text).unwrap();
        }
        assert!(
            std::fs::read_to_string(file).is_ok_and(|written| written == text),
            "docs/cli.md is not what the commands say: {WRITE}=1 cargo test --release -p wrun --lib docs_have"
        );
    }
}
