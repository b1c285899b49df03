//! Other processes by their id, as `/proc` shows them.

use crate::wait::{SOON, eventually};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

/// Tells whether there is such a process; one that is dead and not yet reaped does not count.
pub fn alive(pid: i32) -> bool {
    stat(pid).is_some_and(|stat| stat.state != "Z" && stat.state != "X")
}

/// Returns the ids of the processes that `parent` started and that are alive.
pub fn children(parent: i32) -> Vec<i32> {
    let mut children = children_and_zombies(parent);
    children.retain(|pid| alive(*pid));
    children
}

/// Returns the ids of the processes that `parent` started and has not reaped.
///
/// # Panics
///
/// If there is no `/proc`.
pub fn children_and_zombies(parent: i32) -> Vec<i32> {
    let entries = fs::read_dir("/proc").expect("/proc can be listed");
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| stat(*pid).is_some_and(|stat| stat.parent == parent))
        .collect()
}

/// Returns the ids of a process and of its descendants that are alive.
///
/// # Panics
///
/// If there is no `/proc`.
pub fn family(pid: i32) -> Vec<i32> {
    let mut family = vec![pid];
    let mut asked = 0;
    while let Some(pid) = family.get(asked).copied() {
        family.extend(children(pid));
        asked += 1;
    }
    family
}

/// Sends a signal; a process that is gone needs none.
pub fn send(pid: i32, signal: Signal) {
    let _ = signal::kill(Pid::from_raw(pid), signal);
}

/// Has a process stand still, and waits until all of its threads do.
///
/// # Panics
///
/// If one of them goes on.
pub fn stop(pid: i32) {
    send(pid, Signal::SIGSTOP);
    eventually("it stands still", SOON, || {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).ok();
        let mut threads = threads.into_iter().flatten().flatten();
        let is_still = |it: fs::DirEntry| {
            let stat = stat(it.file_name().to_str()?.parse().ok()?)?;
            Some(matches!(&*stat.state, "T" | "t" | "Z" | "X"))
        };
        // A thread that ended meanwhile is no more.
        threads.all(|it| is_still(it).unwrap_or(true)).then_some(())
    });
}

/// Returns the cores that the process may run on.
///
/// # Panics
///
/// If there is no such process.
pub fn cores(pid: i32) -> Vec<usize> {
    let set = sched_getaffinity(Pid::from_raw(pid)).expect("the process exists");
    (0..CpuSet::count())
        .filter(|core| set.is_set(*core).unwrap_or(false))
        .collect()
}

/// Returns the CPU time that the process has used; zero if it is gone.
pub fn cpu_time(pid: i32) -> Duration {
    stat(pid).map_or(Duration::ZERO, |stat| {
        Duration::from_millis(stat.cpu_ticks * 10)
    })
}

/// Ends the command when the test's thread ends, even if the whole test run is killed.
pub(crate) fn die_with_this_thread(command: &mut Command) {
    let ask = || {
        // SAFETY: prctl with these arguments is async-signal-safe and touches no memory.
        match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: the closure makes one system call and does not allocate.
    unsafe { command.pre_exec(ask) };
}

/// Returns what `/proc/PID/status` says of `key`; nothing if it does not mention it.
///
/// # Panics
///
/// If there is no such process.
pub fn status(pid: i32, key: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process exists");
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let mut said = lines.filter(|(name, _)| *name == key);
    said.next()
        .map(|(_, value)| value.trim().to_owned())
        .unwrap_or_default()
}

/// Returns how many pages the process has been given without reading a disk; zero if it is gone.
pub fn page_faults(pid: i32) -> u64 {
    stat(pid).map_or(0, |stat| stat.page_faults)
}

/// Returns how long the main thread of the process has run, to the nanosecond.
///
/// # Panics
///
/// If there is no such process.
pub fn on_cpu(pid: i32) -> Duration {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).expect("the process exists");
    let ns = text.split(' ').next().and_then(|ns| ns.parse().ok());
    Duration::from_nanos(ns.expect("the kernel counts"))
}

/// Returns how many descriptors the process has open.
///
/// # Panics
///
/// If there is no such process, or it is somebody else's.
pub fn descriptors(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("the process exists")
        .count()
}

/// Returns the memory of the process that is not shared with a file: what it allocated or changed.
///
/// # Panics
///
/// If there is no such process.
pub fn rss_bytes(pid: i32) -> u64 {
    let rss = status(pid, "RssAnon");
    let kib = rss.strip_suffix(" kB").expect("a process has memory");
    kib.trim().parse::<u64>().expect("a number") << 10
}

/// What the tests need of `/proc/PID/stat`.
struct Stat {
    state: String,
    parent: i32,
    page_faults: u64,
    cpu_ticks: u64,
}

fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may hold anything, so the fields are counted from its end.
    let (_, rest) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    Some(Stat {
        state: (*fields.first()?).to_owned(),
        parent: fields.get(1)?.parse().ok()?,
        page_faults: fields.get(7)?.parse().ok()?,
        cpu_ticks: fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?,
    })
}
