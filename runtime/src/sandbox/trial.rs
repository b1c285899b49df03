//! The sandbox put to the test: calls that it has to refuse, made by a process that has just been locked down.
//!
//! That a layer was applied is what the kernel says; that it holds is seen here.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::kill;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use nix::sys::stat::Mode;
use nix::unistd::getppid;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

/// What an attacker would do, in words and in deeds. The socket stands in for one that workers share.
type Attempt = (&'static str, fn(&UnixStream) -> Result<(), Errno>);

/// One for each kind of thing that a worker never does.
const ATTEMPTS: [Attempt; 9] = [
    ("opening a file", |_| {
        open("/", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).map(drop)
    }),
    ("an internet socket", |_| {
        new_socket(AddressFamily::Inet, SockType::Stream)
    }),
    ("a UDP socket", |_| {
        new_socket(AddressFamily::Inet, SockType::Datagram)
    }),
    ("a Unix socket", |_| {
        new_socket(AddressFamily::Unix, SockType::Stream)
    }),
    ("executable memory", |_| executable_memory()),
    ("a signal to its parent", |_| kill(getppid(), None)),
    ("another descriptor of a shared socket", |shared| {
        fcntl(shared, FcntlArg::F_DUPFD_CLOEXEC(0)).map(drop)
    }),
    ("the end of a shared socket", |shared| {
        shared.shutdown(Shutdown::Both).map_err(|_| Errno::EPERM)
    }),
    ("a higher limit", |_| {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        prctl::set_dumpable(true)
    }),
];

/// Tries each, and returns what was not refused to a worker without grants that shares a socket.
pub fn what_is_not_refused(shared: &UnixStream) -> Vec<String> {
    let attempts = ATTEMPTS.iter();
    attempts
        .filter(|(_, attempt)| attempt(shared).is_ok())
        .map(|(name, _)| (*name).to_owned())
        .collect()
}

/// Does what ends a process that is locked down. Returns if nothing did.
pub fn run_a_program() {
    let none = [c""];
    // There is no such program, so without the sandbox this is an error and nothing more.
    let _ = nix::unistd::execve(c"/dev/null/program", &none, &none);
}

fn new_socket(family: AddressFamily, kind: SockType) -> Result<(), Errno> {
    socket(family, kind, SockFlag::SOCK_CLOEXEC, None::<SockProtocol>).map(drop)
}

fn executable_memory() -> Result<(), Errno> {
    use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
    let page = std::num::NonZeroUsize::new(4096).expect("a constant");
    let all = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE | ProtFlags::PROT_EXEC;
    // SAFETY: a new mapping at an address that the kernel chooses.
    let mapped = unsafe { mmap_anonymous(None, page, all, MapFlags::MAP_PRIVATE) }?;
    // SAFETY: the page that was just mapped, to which there is no other pointer.
    unsafe { munmap(mapped, page.get()) }
}
