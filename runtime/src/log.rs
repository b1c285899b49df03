//! The log: `tracing` events as lines on stderr, text on a terminal and JSON otherwise.
//!
//! A reader that is slow or stopped must not stop the server, so a line that does not fit into the pipe is dropped and
//! counted. Lines are held back until [`announce`] has printed the URL, which is the first line by contract.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// The longest line in bytes: a pipe takes up to this much in one piece or not at all (PIPE_BUF).
const LINE_MAX: usize = 4096;

/// Lines that are held back before [`announce`], at most; more are dropped.
const HELD_MAX: usize = 1000;

static HELD: Mutex<Option<Vec<Vec<u8>>>> = Mutex::new(None);
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Starts the log of this process and its children. `WRUN_LOG` filters it: a level, or targets with levels such as
/// `info,wrun::worker=debug`; the default is `info`.
pub fn init() {
    let given = std::env::var("WRUN_LOG")
        .ok()
        .and_then(|filter| filter.parse().ok());
    // What the clients of RabbitMQ and NATS say of a connection that ended, wrun says, too.
    let usual = || {
        Targets::new()
            .with_default(Level::INFO)
            .with_target("lapin", LevelFilter::OFF)
            .with_target("async_nats", LevelFilter::OFF)
    };
    let filter = given.unwrap_or_else(usual);
    let log = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(Stderr);
    // Only a test that starts two servers in one process could have set it before.
    let _ = if io::stderr().is_terminal() {
        log.with(lines.with_target(false)).try_init()
    } else {
        let lines = lines.json().flatten_event(true);
        log.with(lines.with_current_span(false).with_span_list(false))
            .try_init()
    };
}

/// Holds lines back until [`announce`] or [`release`].
pub fn hold() {
    *held() = Some(Vec::new());
}

/// Prints `line` as it is, then what was held back.
pub fn announce(line: &str) {
    write_line(format!("{line}\n").as_bytes());
    release();
}

/// Prints what was held back.
pub fn release() {
    let lines = held().take();
    for line in lines.into_iter().flatten() {
        write_line(&line);
    }
}

/// Forgets what was held back: in a forked child, the lines are its parent's to print.
pub fn disown() {
    *held() = None;
}

/// Tells a person what takes its time, on stdout: the first line on stderr is the URL.
pub fn say(line: &str) {
    // Nobody needs it badly enough to fail without a reader.
    let _ = writeln!(io::stdout(), "{line}");
}

fn held() -> std::sync::MutexGuard<'static, Option<Vec<Vec<u8>>>> {
    HELD.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Writes one line unless the reader is behind; says later how many were lost.
fn write_line(line: &[u8]) {
    let stderr = io::stderr();
    let mut ready = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    let writable = poll(&mut ready, PollTimeout::ZERO).is_ok_and(|count| count > 0);
    if !writable {
        DROPPED.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let dropped = DROPPED.swap(0, Ordering::Relaxed);
    let mut out = stderr.lock();
    // Nobody is left to tell when stderr itself fails.
    let _ = match line.len().checked_sub(LINE_MAX) {
        None | Some(0) => out.write_all(line),
        Some(_) => out
            .write_all(&line[..LINE_MAX - 1])
            .and_then(|()| out.write_all(b"\n")),
    };
    if dropped > 0 {
        tracing::warn!(
            dropped,
            "log lines were dropped: the reader of stderr is too slow"
        );
    }
}

/// The writer of [`init`]: one event, one line.
struct Stderr;

struct Line(Vec<u8>);

impl MakeWriter<'_> for Stderr {
    type Writer = Line;

    fn make_writer(&self) -> Line {
        Line(Vec::with_capacity(256))
    }
}

impl io::Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let line = std::mem::take(&mut self.0);
        if let Some(lines) = &mut *held() {
            if lines.len() < HELD_MAX {
                lines.push(line);
            }
            return;
        }
        write_line(&line);
    }
}
