//! Every status that wrun and its processes end with, after sysexits(3).
//!
//! Scripts, systemd (`RestartPreventExitStatus=64 65 66 77 78`) and the supervisor tell cases apart by them.

use serde::{Deserialize, Serialize};

/// Why a wrun process ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[repr(u8)]
pub enum ExitCode {
    /// Done, or drained on request.
    Ok = 0,
    /// The command line is wrong.
    Usage = 64,
    /// The component is broken, or is not one that wrun can serve.
    BadComponent = 65,
    /// A file that was named does not exist or cannot be read.
    NoInput = 66,
    /// Something that is needed is not available: a port is in use, no server answers.
    Unavailable = 69,
    /// A fault of wrun itself.
    Internal = 70,
    /// The system refused a call that should work: fork, socket, memory.
    System = 71,
    /// An output file or folder cannot be made.
    CannotCreate = 73,
    /// A worker ended so that a fresh one takes its place.
    Recycle = 75,
    /// A permission is missing.
    NoPermission = 77,
    /// The configuration is wrong. A worker that ends so is not started again.
    Config = 78,
}

impl ExitCode {
    /// Returns the number that the process ends with.
    pub fn code(self) -> i32 {
        i32::from(self as u8)
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}
