//! System calls: seccomp, which refuses calls by their number and by arguments that are numbers.
//!
//! Three programs, of which the strictest answer counts: what only an attacker does ends the process, what a role does not
//! need fails with EPERM, and one call fails as if the kernel were too old for it, because the C library then takes
//! another. Paths and addresses are behind pointers, which seccomp does not see: they are for `access`.

mod calls;
mod numbers;

use super::Needs;
use nix::errno::Errno;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use std::io;

pub(super) use calls::Rules;

/// The last argument of seccomp(2).
#[repr(C)]
struct Program {
    len: libc::c_ushort,
    first: *const seccompiler::sock_filter,
}

/// Filters the calls of every thread of this process. Returns how.
pub(super) fn install(needs: &Needs) -> Result<String, String> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)
        .map_err(|_| format!("wrun has no list of calls for {}", std::env::consts::ARCH))?;
    let (fatal, allowed, unknown) = (calls::fatal(), calls::allowed(needs), calls::unknown());
    let count = allowed.len();
    let errno = |errno: Errno| SeccompAction::Errno(errno as u32);
    let programs = [
        compile(
            fatal,
            SeccompAction::KillProcess,
            SeccompAction::Allow,
            arch,
        ),
        compile(unknown, errno(Errno::ENOSYS), SeccompAction::Allow, arch),
        // Last, because it does not allow to load another.
        compile(allowed, SeccompAction::Allow, errno(Errno::EPERM), arch),
    ];
    for program in programs {
        load(&program?).map_err(|error| match error.raw_os_error() {
            Some(libc::ENOSYS | libc::EINVAL) => "the kernel was built without it".to_owned(),
            _ => error.to_string(),
        })?;
    }
    Ok(format!("{count} system calls"))
}

fn compile(
    rules: Rules,
    matched: SeccompAction,
    other: SeccompAction,
    arch: TargetArch,
) -> Result<BpfProgram, String> {
    SeccompFilter::new(rules, other, matched, arch)
        .and_then(BpfProgram::try_from)
        .map_err(|error| error.to_string())
}

/// Loads a program into every thread. Without SPEC_ALLOW, kernels before 5.16 would slow each memory access of the
/// process down for a reason of their own.
fn load(program: &BpfProgram) -> io::Result<()> {
    const ALL_THREADS: libc::c_ulong = libc::SECCOMP_FILTER_FLAG_TSYNC;
    const LEAVE_SPECULATION: libc::c_ulong = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    let program = Program {
        len: libc::c_ushort::try_from(program.len()).unwrap_or(libc::c_ushort::MAX),
        first: program.as_ptr(),
    };
    let mut result = Err(Errno::EINVAL);
    // A kernel that does not know a flag says EINVAL.
    for flags in [ALL_THREADS | LEAVE_SPECULATION, ALL_THREADS] {
        // SAFETY: `program` holds the address and the number of instructions of a vector that outlives the call; the
        // kernel copies and checks them.
        let loaded = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                flags,
                &raw const program,
            )
        };
        result = Errno::result(loaded);
        if result != Err(Errno::EINVAL) {
            break;
        }
    }
    match result? {
        0 => Ok(()),
        thread => Err(io::Error::other(format!(
            "thread {thread} cannot be confined"
        ))),
    }
}
