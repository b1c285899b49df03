//! Processes of a server that are killed at random moments while something else goes on.

use crate::process;
use crate::server::Server;
use nix::sys::signal::Signal;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Who is killed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Victims {
    /// Nobody.
    Nobody,
    /// Workers.
    Workers,
    /// The state process.
    State,
    /// Now one, now the other.
    Both,
}

impl Victims {
    fn kills_max(self) -> usize {
        match self {
            Self::Nobody => 0,
            Self::Workers => WORKER_KILLS_MAX,
            Self::State | Self::Both => STATE_KILLS_MAX,
        }
    }

    /// Returns who they are, for a table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Workers => "workers",
            Self::State => "state",
            Self::Both => "both",
        }
    }
}

/// The pauses between two kills, in milliseconds.
const PAUSE_MS: std::ops::Range<u64> = 50..200;

/// Kills of one server: below the number at which wrun calls it a crash storm and starts workers only now and then, and few
/// enough of the one state process that its restarts do not have to wait for seconds.
const WORKER_KILLS_MAX: usize = 10;
const STATE_KILLS_MAX: usize = 6;

/// A murderer at work.
#[derive(Debug)]
pub struct Murders {
    ending: Arc<AtomicBool>,
    murderer: JoinHandle<usize>,
}

impl Murders {
    /// Begins to kill `victims` among the children of the server's supervisor.
    pub fn begin(server: &Server, victims: Victims) -> Self {
        let ending = Arc::new(AtomicBool::new(false));
        let (supervisor, until) = (server.pid(), Arc::clone(&ending));
        let murderer = thread::spawn(move || {
            let mut kills = 0;
            let mut random = 0x9e37_79b9_7f4a_7c15_u64;
            while !until.load(Ordering::Relaxed) && kills < victims.kills_max() {
                thread::sleep(Duration::from_millis(
                    PAUSE_MS.start + next(&mut random) % (PAUSE_MS.end - PAUSE_MS.start),
                ));
                let wants_state = match victims {
                    Victims::State => true,
                    Victims::Both => next(&mut random).is_multiple_of(2),
                    Victims::Workers | Victims::Nobody => false,
                };
                let prefix = if wants_state {
                    "wrun: state"
                } else {
                    "wrun: worker"
                };
                let mut found: Vec<i32> = process::children(supervisor);
                found.retain(|pid| name(*pid).starts_with(prefix));
                if let Some(index) = usize::try_from(next(&mut random))
                    .ok()
                    .and_then(|number| number.checked_rem(found.len()))
                {
                    process::send(found[index], Signal::SIGKILL);
                    kills += 1;
                }
            }
            kills
        });
        Self { ending, murderer }
    }

    /// Stops killing, and returns how many it were.
    ///
    /// # Panics
    ///
    /// If the murderer panicked.
    pub fn end(self) -> usize {
        self.ending.store(true, Ordering::Relaxed);
        self.murderer.join().expect("the murderer does not panic")
    }
}

fn name(pid: i32) -> String {
    std::fs::read_to_string(PathBuf::from(format!("/proc/{pid}/comm"))).unwrap_or_default()
}

/// The next number of a sequence that is the same in every run (xorshift).
fn next(random: &mut u64) -> u64 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    *random
}
