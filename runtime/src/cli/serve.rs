//! `wrun serve`: settings, sockets, state folder, and then the supervisor has the word.

use crate::config::{Config, ServeArgs};
use crate::exit_code::ExitCode;
use crate::failure::{Failure, OrFail as _};
use crate::ipc::{Channel, ControlReply};
use crate::listener::Listener;
use crate::log;
use crate::sandbox::Sandbox;
use crate::state_folder::StateFolder;
use crate::supervisor;
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;

/// Serves until told to stop.
pub(super) fn run(args: &ServeArgs) -> Result<ExitCode, Failure> {
    let config = Config::load(args)?;
    log::init();
    // The URL is the first line on stderr.
    log::hold();
    let result = match args.started_by_dev {
        true => serve_for_dev(args, config),
        false => open(&config).and_then(|(listeners, folder, sandbox)| {
            supervisor::run(args, config, listeners, folder, sandbox, None)
        }),
    };
    // If there was no URL to announce, the lines that say why are still held back.
    log::release();
    result
}

fn open(config: &Config) -> Result<(Vec<Listener>, StateFolder, Sandbox), Failure> {
    let sandbox = Sandbox::new(&config.sandbox)?;
    let listeners = Listener::open(&config.addrs)?;
    let folder = StateFolder::open(&config.state, sandbox.identity())?;
    Ok((listeners, folder, sandbox))
}

/// Serves for the `wrun dev` at the other end of stdin, which is told what goes wrong and prints it.
fn serve_for_dev(args: &ServeArgs, config: Config) -> Result<ExitCode, Failure> {
    let dev = take_stdin().or_fail(ExitCode::System, || "cannot take over stdin".to_owned())?;
    let result = match open(&config) {
        Ok((listeners, folder, sandbox)) => {
            supervisor::run(args, config, listeners, folder, sandbox, Some(dev))
        }
        Err(failure) => {
            // It sees the end of the channel if it does not see this.
            let _ = dev.send(&ControlReply::Failed(failure.clone()));
            Err(failure)
        }
    };
    Ok(result.unwrap_or_else(|failure| failure.code))
}

/// Returns the channel that stdin is, and leaves nothing in its place: as stdin every worker would have a copy.
fn take_stdin() -> io::Result<Channel> {
    let channel = io::stdin().as_fd().try_clone_to_owned()?;
    nix::unistd::dup2_stdin(File::open("/dev/null")?)?;
    Ok(channel.into())
}
