//! What wrun tells its user when it cannot go on: one line, a hint that names what to change, and the exit status.
//!
//! Serializable, because it travels: from the compile child and the workers to the supervisor, and from there to
//! `wrun reload`.

use crate::exit_code::ExitCode;
use serde::{Deserialize, Serialize};
use std::fmt;

/// An error in the user's words.
#[derive(Clone, Debug, Serialize, Deserialize, thiserror::Error)]
pub struct Failure {
    /// The exit status that it leads to.
    pub code: ExitCode,
    /// What is wrong: one line, lowercase, no full stop.
    pub message: String,
    /// What to change: names a flag, a key or a command.
    pub hint: Option<String>,
}

impl Failure {
    /// Returns a failure without a hint. Its message is one line, also where a library's is more.
    pub fn new(code: ExitCode, message: impl Into<String>) -> Self {
        let message: String = message.into();
        let lines: Vec<_> = message.lines().map(str::trim).collect();
        Self {
            code,
            message: lines.join(" "),
            hint: None,
        }
    }

    /// Adds the hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Returns the failure inside `error`, or wraps any other error as an internal one.
    pub fn from_error(error: anyhow::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(failure) => failure,
            Err(error) => Self::new(ExitCode::Internal, format!("{error:#}")),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Turns an I/O result into a failure that says what was being done.
pub trait OrFail<T> {
    /// Names what failed; `code` is the exit status that it leads to.
    fn or_fail(self, code: ExitCode, what: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T, E: fmt::Display> OrFail<T> for Result<T, E> {
    fn or_fail(self, code: ExitCode, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(code, format!("{}: {error}", what())))
    }
}
