//! `wrun serve`: settings, sockets, state folder, and then the supervisor has the word.

use crate::config::{Config, ServeArgs};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::listener::Listener;
use crate::log;
use crate::state_folder::StateFolder;
use crate::supervisor;

/// Serves until told to stop.
pub(super) fn run(args: &ServeArgs) -> Result<ExitCode, Failure> {
    let config = Config::load(args)?;
    log::init();
    // The URL is the first line on stderr.
    log::hold();
    let result = serve(args, config);
    // If there was no URL to announce, the lines that say why are still held back.
    log::release();
    result
}

fn serve(args: &ServeArgs, config: Config) -> Result<ExitCode, Failure> {
    let listeners = Listener::open(&config.addrs)?;
    let folder = StateFolder::open(&config.state)?;
    supervisor::run(args, config, listeners, folder)
}
