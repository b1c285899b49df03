//! `wrun lock`: who holds which lock.

use super::print::print_as;
use super::state::{ask, unexpected};
use super::table::{millis, table};
use super::{JsonArgs, ServerArgs};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::state::lock::LockStatus;
use crate::state::protocol::{OperatorCall, Reply};
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(super) enum LockCommand {
    /// List the locks that are held
    Ls {
        #[command(flatten)]
        server: ServerArgs,
        #[command(flatten)]
        json: JsonArgs,
    },
}

pub(super) fn run(command: LockCommand) -> Result<ExitCode, Failure> {
    let LockCommand::Ls { server, json } = command;
    match ask(&server.state, OperatorCall::Locks)? {
        Reply::Locks(locks) => print_as(json.json, &locks, |locks| overview(locks)),
        reply => Err(unexpected(&reply)),
    }
}

fn overview(locks: &[LockStatus]) -> String {
    let header = [
        "SPACE",
        "KEY",
        "TOKEN",
        "PID",
        "HELD",
        "EXPIRES-IN",
        "WAITING",
    ];
    let row = |lock: &LockStatus| {
        vec![
            lock.space.clone(),
            lock.key.clone(),
            lock.token.to_string(),
            lock.pid.to_string(),
            millis(lock.held_ms),
            millis(lock.expires_in_ms),
            lock.waiting.to_string(),
        ]
    };
    table(&header, locks.iter().map(row))
}
