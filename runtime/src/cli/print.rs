//! How commands print what they were asked for: text, or JSON.

use crate::exit_code::ExitCode;
use crate::failure::{Failure, OrFail as _};
use serde::Serialize;
use std::io::{self, Write as _};

/// Prints `value` as JSON for programs, or what `text` makes of it for people.
pub(super) fn print_as<T: Serialize>(
    json: bool,
    value: &T,
    text: impl FnOnce(&T) -> String,
) -> Result<ExitCode, Failure> {
    if !json {
        return print(text(value).as_bytes());
    }
    let text = serde_json::to_string_pretty(value)
        .or_fail(ExitCode::Internal, || "cannot write JSON".to_owned())?;
    print(format!("{text}\n").as_bytes())
}

/// Prints bytes as they are.
pub(super) fn print(bytes: &[u8]) -> Result<ExitCode, Failure> {
    match io::stdout().write_all(bytes) {
        // `wrun ps | head` has seen enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::new(
            ExitCode::System,
            format!("cannot write to stdout: {error}"),
        )
        .hint("is the disk full?")),
        _ => Ok(ExitCode::Ok),
    }
}
