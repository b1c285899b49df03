//! Random numbers, straight from the system: a generator's state would be copied by fork.

use crate::exit_code::ExitCode;
use crate::failure::{Failure, OrFail as _};

/// Returns a random number between -1 and 1.
pub(super) fn jitter() -> f64 {
    getrandom::u32().map_or(0.0, |number| {
        f64::from(number) / f64::from(u32::MAX) * 2.0 - 1.0
    })
}

/// Returns what no other server is known by.
pub(super) fn identity() -> Result<String, Failure> {
    let number = getrandom::u64().or_fail(ExitCode::System, || {
        "the system has no random numbers".to_owned()
    })?;
    Ok(format!("{number:016x}"))
}
