//! The only fork(2) of wrun, and what a child does before it turns to its own work.
//!
//! What the child is for, its caller says.

use super::process::Process;
use super::signal;
use crate::exit_code::ExitCode;
use crate::log;
use crate::sandbox::Privileges;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, getppid, setpgid};
use std::ffi::CString;
use std::io;
use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How much likelier than the supervisor a worker is picked when memory runs out.
const OOM_SCORE: i32 = 500;

/// A child about to be forked.
#[derive(Debug)]
pub(super) struct Child {
    /// The process name that `top` and `ps` show; the kernel keeps 15 bytes.
    pub(super) name: String,
    /// The descriptors that it needs besides 0, 1 and 2; every other one is closed in it.
    pub(super) keep: Vec<RawFd>,
    /// The core that it runs on.
    pub(super) cpu: Option<usize>,
    /// Whether it is to die before the supervisor does when memory runs out.
    pub(super) expendable: bool,
    /// What it gives up.
    pub(super) privileges: Privileges,
}

impl Child {
    /// Forks a process that does `work` and ends with the status it returns. The caller stays the only parent: `work`
    /// never returns into it, not even by a panic.
    pub(super) fn fork(self, work: impl FnOnce() -> ExitCode) -> io::Result<Process> {
        let supervisor = Pid::this();
        assert_eq!(thread_count()?, 1, "fork with other threads alive");
        // SAFETY: asserted above: there is one thread, so the child inherits no lock that another one holds.
        let forked = unsafe { fork() }?;
        let pid = match forked {
            ForkResult::Parent { child } => child,
            ForkResult::Child => self.run(supervisor, work),
        };
        // Both sides do this, so that it is done whichever comes first.
        let _ = setpgid(pid, pid);
        Process::adopt(pid).inspect_err(|_| {
            // Nobody could watch over it without a pidfd. It is unreaped, so the pid is still its own.
            let _ = kill(pid, Signal::SIGKILL);
            let _ = waitpid(pid, None);
        })
    }

    /// In the child: cuts every tie to the parent but the ones that are meant, then works.
    fn run(self, supervisor: Pid, work: impl FnOnce() -> ExitCode) -> ! {
        let life = || self.enter(supervisor).map(|()| work());
        let code = match catch_unwind(AssertUnwindSafe(life)) {
            Ok(Ok(code)) => code,
            Ok(Err(error)) => {
                tracing::error!(error = %error, "child could not be set up");
                ExitCode::System
            }
            // The panic hook has said what there is to say.
            Err(_) => ExitCode::Internal,
        };
        // SAFETY: ends this process here and now. Skipping destructors and exit handlers is the point: what they would
        // flush or remove was inherited and belongs to the parent.
        unsafe { libc::_exit(code.code()) }
    }

    fn enter(&self, supervisor: Pid) -> io::Result<()> {
        log::disown();
        // Ctrl-C in a terminal goes to the foreground group: to the supervisor, which drains, and not to its children.
        setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
        signal::reset()?;
        close_all_but(&self.keep)?;
        if let Ok(name) = CString::new(self.name.as_str()) {
            prctl::set_name(&name)?;
        }
        if self.expendable {
            raise_oom_score();
        }
        if let Some(cpu) = self.cpu {
            pin_to(cpu);
        }
        self.privileges.give_up()?;
        // After a change of uid, which would clear it.
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        if getppid() != supervisor {
            // It died before it could be watched, so its death will not be signalled.
            return Err(io::Error::other("the supervisor is gone"));
        }
        Ok(())
    }
}

/// Returns the CPUs that this process may run on, in order.
pub(super) fn usable_cpus() -> Vec<usize> {
    let Ok(set) = nix::sched::sched_getaffinity(Pid::from_raw(0)) else {
        return Vec::new();
    };
    (0..CpuSet::count())
        .filter(|&cpu| set.is_set(cpu).unwrap_or(false))
        .collect()
}

/// Closes every descriptor but 0, 1, 2 and `keep`: a worker that held a copy of its sibling's channel would hide the
/// sibling's end, and one that held the state folder's lock would keep it locked.
fn close_all_but(keep: &[RawFd]) -> io::Result<()> {
    let mut keep: Vec<u32> = keep
        .iter()
        .filter_map(|&fd| u32::try_from(fd).ok())
        .collect();
    keep.sort_unstable();
    let mut from = 3;
    for fd in keep.into_iter().filter(|&fd| fd >= 3) {
        if from < fd {
            close_range(from, fd - 1)?;
        }
        from = fd + 1;
    }
    close_range(from, u32::MAX)
}

fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: close_range(2) takes plain numbers. The owners of these descriptors in this copy of the process are never
    // dropped: it works on what it keeps and ends by _exit.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    nix::errno::Errno::result(result)?;
    Ok(())
}

/// Best effort: lowering the chance of others to be picked needs no privilege, but /proc may be read-only.
fn raise_oom_score() {
    const PATH: &str = "/proc/self/oom_score_adj";
    let own: i32 = std::fs::read_to_string(PATH)
        .ok()
        .and_then(|score| score.trim().parse().ok())
        .unwrap_or(0);
    let _ = std::fs::write(PATH, (own + OOM_SCORE).min(1000).to_string());
}

/// Best effort: the CPU may have gone offline since it was chosen.
fn pin_to(cpu: usize) {
    let mut set = CpuSet::new();
    let _ = set
        .set(cpu)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
}

fn thread_count() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}
