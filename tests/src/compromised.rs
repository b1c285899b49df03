//! Servers whose processes an attacker has taken over: `tests/native/compromised.c`, loaded into the real binary.
//!
//! What an attacker would do with it is in that file; here is how a test asks for it.

use crate::guests::guests_folder;
use crate::launch::Launch;
use crate::repository;
use crate::server::Server;
use crate::wait::SOON;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// What came of an attack.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Attack {
    /// It worked.
    Done,
    /// The call failed with this error.
    Errno(i32),
    /// The process did not live to tell.
    Killed,
}

/// It is no attack, or nothing keeps it off.
pub const WORKS: Attack = Attack::Done;

/// The kernel refuses a call that seccomp does not allow.
pub const EPERM: Attack = Attack::Errno(libc::EPERM);

/// The kernel refuses what Landlock does not allow.
pub const EACCES: Attack = Attack::Errno(libc::EACCES);

impl Launch {
    /// Lets the server's processes be told to attack.
    #[must_use]
    pub fn compromised(self) -> Self {
        self.env("LD_PRELOAD", library())
    }

    /// Has the kernel seem to lack `landlock` or `seccomp`.
    #[must_use]
    pub fn on_a_kernel_without(self, what: &str) -> Self {
        self.compromised()
            .env("WRUN_TEST_KERNEL", format!("without-{what}"))
    }
}

impl Server {
    /// Has one of its workers attack.
    ///
    /// # Panics
    ///
    /// If there is no such attack.
    #[track_caller]
    pub fn attack(&self, name: &str) -> Attack {
        let stream = TcpStream::connect(self.addr()).expect("the server listens");
        stream
            .set_read_timeout(Some(SOON))
            .expect("a socket takes a time limit");
        ask(stream, name)
    }

    /// Has its state process attack.
    ///
    /// # Panics
    ///
    /// If there is no such attack, or no state process.
    #[track_caller]
    pub fn attack_of_state(&self, name: &str) -> Attack {
        let socket = self.state().join("state.sock");
        let stream = UnixStream::connect(socket).expect("there is a state process");
        stream
            .set_read_timeout(Some(SOON))
            .expect("a socket takes a time limit");
        ask(stream, name)
    }
}

#[track_caller]
fn ask(mut stream: impl Read + Write, name: &str) -> Attack {
    // In one piece: what is not there yet is not waited for.
    let order = format!("ATTACK {name}");
    stream
        .write_all(order.as_bytes())
        .expect("the server reads");
    let mut answer = String::new();
    // One that is killed resets the connection.
    let _ = stream.read_to_string(&mut answer);
    match answer.trim().split_once(' ') {
        None if answer == "done\n" => Attack::Done,
        None if answer.is_empty() => Attack::Killed,
        Some(("errno", number)) => Attack::Errno(number.parse().expect("a number")),
        _ => panic!("{name}: {answer:?}"),
    }
}

/// Returns the version of the kernel's Landlock, 0 if it has none.
pub fn landlock_abi() -> i64 {
    let no_rules = std::ptr::null::<libc::c_void>();
    // SAFETY: with flag 1 the kernel returns a version, reads no rules and makes no descriptor.
    let abi = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, no_rules, 0_usize, 1_u32) };
    abi.max(0)
}

/// Builds the library, once per test process.
///
/// # Panics
///
/// If it cannot be built.
pub fn library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let source = repository().join("tests/native/compromised.c");
        let folder = guests_folder().join("target/native");
        fs::create_dir_all(&folder).expect("the target folder takes folders");
        let library = folder.join("compromised.so");
        let part = folder.join(format!("compromised.{}.so", std::process::id()));
        let mut compiler = Command::new("cc");
        compiler.args([
            "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o",
        ]);
        crate::guests::run(compiler.arg(&part).arg(&source).arg("-ldl"));
        // Another test process may use the one that is there.
        fs::rename(&part, &library).expect("a file can be renamed in its folder");
        library
    })
}
