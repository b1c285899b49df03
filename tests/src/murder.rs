//! Processes of a server that are killed at random moments while something else goes on.

use crate::process;
use crate::random::next;
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
                let pause = PAUSE_MS.start + next(&mut random) % (PAUSE_MS.end - PAUSE_MS.start);
                thread::sleep(Duration::from_millis(pause));
                if let Some(pid) = choose(supervisor, victims, &mut random) {
                    process::send(pid, Signal::SIGKILL);
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

/// Returns one of the victims, if there is one at the moment.
fn choose(supervisor: i32, victims: Victims, random: &mut u64) -> Option<i32> {
    let prefix = match victims {
        Victims::State => "wrun: state",
        Victims::Both if next(random).is_multiple_of(2) => "wrun: state",
        Victims::Both | Victims::Workers | Victims::Nobody => "wrun: worker",
    };
    let mut found = process::children(supervisor);
    found.retain(|pid| name(*pid).starts_with(prefix));
    let number = usize::try_from(next(random)).ok()?;
    Some(found[number.checked_rem(found.len())?])
}

fn name(pid: i32) -> String {
    std::fs::read_to_string(PathBuf::from(format!("/proc/{pid}/comm"))).unwrap_or_default()
}
