//! How the processes that meet guests are confined, and as whom they run: what the user says of it.
//!
//! What follows from it is for `sandbox`.

use serde::{Deserialize, Serialize};

/// Whether the kernel is asked to confine them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// With every layer, or the server does not start
    Require,
    /// With what the kernel has; what is missing is logged
    #[default]
    Auto,
    /// Not at all
    Off,
}

/// `--sandbox` and `--user`, settled.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Sandbox {
    /// Whether the kernel is asked to confine them.
    pub mode: Mode,
    /// The user that they run as, if the supervisor is root: `NAME`, `UID`, `NAME:GROUP` or `UID:GID`.
    pub user: Option<String>,
}
