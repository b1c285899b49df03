//! What a thread of another process does, counted with ptrace(2): its system calls, and its instructions one by one.
//!
//! Needs no counters of the CPU and no rights but those over one's own processes, so it works in containers and virtual
//! machines; where ptrace is forbidden, `attach` says so. A tracee is slow: some hundred thousand instructions a second.

use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::io;
use std::mem::{self, MaybeUninit};
use std::ptr;

/// Instructions between two looks at whether it is enough.
const LOOK_EVERY: u64 = 16;

/// A process whose first thread is stopped, and goes on only to be counted. It is let go when this is dropped.
#[derive(Debug)]
pub struct Tracee {
    pid: Pid,
}

impl Tracee {
    /// Stops a process's first thread.
    ///
    /// # Errors
    ///
    /// If ptrace is not allowed here.
    pub fn attach(pid: i32) -> io::Result<Self> {
        let pid = Pid::from_raw(pid);
        ptrace(libc::PTRACE_ATTACH, pid, 0, 0)?;
        let tracee = Self { pid };
        while !matches!(waitpid(pid, None)?, WaitStatus::Stopped(_, Signal::SIGSTOP)) {
            ptrace(libc::PTRACE_CONT, pid, 0, 0)?;
        }
        let options = libc::PTRACE_O_TRACESYSGOOD;
        ptrace(libc::PTRACE_SETOPTIONS, pid, 0, options as usize)?;
        Ok(tracee)
    }

    /// Counts system calls by name until `is_enough`, which is asked at each.
    ///
    /// # Errors
    ///
    /// If the process is gone.
    pub fn system_calls(
        &mut self,
        mut is_enough: impl FnMut() -> bool,
    ) -> io::Result<BTreeMap<String, u64>> {
        let mut counts = BTreeMap::new();
        while !is_enough() {
            if self.go_on(libc::PTRACE_SYSCALL)? == Stop::SystemCall
                && let Some(number) = self.entered()?
            {
                *counts.entry(name(number)).or_default() += 1;
            }
        }
        Ok(counts)
    }

    /// Counts instructions until `is_enough`, which is asked now and then. One that repeats itself counts once.
    ///
    /// # Errors
    ///
    /// If the process is gone.
    pub fn instructions(&mut self, mut is_enough: impl FnMut() -> bool) -> io::Result<u64> {
        let (mut count, mut at) = (0, 0);
        loop {
            if count % LOOK_EVERY == 0 && is_enough() {
                return Ok(count);
            }
            self.go_on(libc::PTRACE_SINGLESTEP)?;
            let now = self.info()?.instruction_pointer;
            count += u64::from(now != at);
            at = now;
        }
    }

    /// Lets it go on to its next stop. The worker's clock of preemption is kept from it: it counts CPU time, of which most
    /// is ours here.
    fn go_on(&self, how: libc::c_uint) -> io::Result<Stop> {
        let mut pass_on = 0;
        loop {
            ptrace(how, self.pid, 0, pass_on)?;
            match waitpid(self.pid, None)? {
                WaitStatus::PtraceSyscall(_) => return Ok(Stop::SystemCall),
                WaitStatus::Stopped(_, Signal::SIGTRAP) => return Ok(Stop::Instruction),
                WaitStatus::Stopped(_, Signal::SIGVTALRM) => pass_on = 0,
                WaitStatus::Stopped(_, signal) => pass_on = signal as usize,
                other => return Err(io::Error::other(format!("the process has gone: {other:?}"))),
            }
        }
    }

    /// Returns the system call that was entered, unless it was left.
    fn entered(&self) -> io::Result<Option<u64>> {
        let info = self.info()?;
        if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
            return Ok(None);
        }
        // SAFETY: `op` says that this is the variant.
        Ok(Some(unsafe { info.u.entry }.nr))
    }

    fn info(&self) -> io::Result<libc::ptrace_syscall_info> {
        let mut info = MaybeUninit::<libc::ptrace_syscall_info>::zeroed();
        let size = mem::size_of_val(&info);
        let at = info.as_mut_ptr().expose_provenance();
        ptrace(libc::PTRACE_GET_SYSCALL_INFO, self.pid, size, at)?;
        // SAFETY: integers and unions of integers, which are valid when zero, and of which the kernel wrote some.
        Ok(unsafe { info.assume_init() })
    }
}

impl Drop for Tracee {
    fn drop(&mut self) {
        let _ = ptrace(libc::PTRACE_DETACH, self.pid, 0, 0);
    }
}

/// Why it stopped.
#[derive(Debug, PartialEq)]
enum Stop {
    SystemCall,
    Instruction,
}

fn ptrace(request: libc::c_uint, pid: Pid, addr: usize, data: usize) -> io::Result<()> {
    let addr = ptr::without_provenance_mut::<libc::c_void>(addr);
    let data = ptr::with_exposed_provenance_mut::<libc::c_void>(data);
    // SAFETY: of the requests made here only PTRACE_GET_SYSCALL_INFO writes to our memory, to `data` and no more bytes than
    // `addr` says, which `info` has.
    match unsafe { libc::ptrace(request, pid.as_raw(), addr, data) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Returns the name of a system call that a worker is likely to make, or its number.
fn name(number: u64) -> String {
    const NAMES: [(libc::c_long, &str); 18] = [
        (libc::SYS_accept4, "accept4"),
        (libc::SYS_clock_gettime, "clock_gettime"),
        (libc::SYS_close, "close"),
        (libc::SYS_epoll_ctl, "epoll_ctl"),
        (libc::SYS_epoll_pwait, "epoll_pwait"),
        (libc::SYS_epoll_wait, "epoll_wait"),
        (libc::SYS_futex, "futex"),
        (libc::SYS_getrandom, "getrandom"),
        (libc::SYS_madvise, "madvise"),
        (libc::SYS_mmap, "mmap"),
        (libc::SYS_mprotect, "mprotect"),
        (libc::SYS_munmap, "munmap"),
        (libc::SYS_read, "read"),
        (libc::SYS_recvfrom, "recvfrom"),
        (libc::SYS_rt_sigreturn, "rt_sigreturn"),
        (libc::SYS_sendto, "sendto"),
        (libc::SYS_write, "write"),
        (libc::SYS_writev, "writev"),
    ];
    let known = NAMES
        .iter()
        .find(|(known, _)| known.unsigned_abs() == number);
    known.map_or_else(
        || format!("system call {number}"),
        |(_, name)| (*name).to_owned(),
    )
}
