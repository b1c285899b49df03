//! What the guests of `wrun:lock`, `wrun:db` and `wrun:queue` share: reading what a test asks for, and saying how it went.
//!
//! They use the bindings as they are where a test wants to see exactly what the host answers.

pub mod answer;
pub mod handled;
pub mod query;
pub mod script;
pub mod value;

use std::time::SystemTime;

/// Returns nanoseconds since 1970. Only this clock is the same in all workers: an instance's monotonic clock begins with it.
///
/// # Panics
///
/// If it is earlier.
pub fn now_ns() -> u64 {
    let now = SystemTime::UNIX_EPOCH
        .elapsed()
        .expect("it is later than 1970");
    u64::try_from(now.as_nanos()).expect("it is earlier than 2554")
}
