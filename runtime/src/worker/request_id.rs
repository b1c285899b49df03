//! Ids for requests that come without one: unlike any other's of this or another worker.

use std::sync::atomic::{AtomicU64, Ordering};

/// Hands out ids.
pub(super) struct RequestIds {
    /// 16 hexadecimal digits from getrandom(2), after the fork: no other worker has the same.
    prefix: String,
    next: AtomicU64,
}

impl RequestIds {
    pub(super) fn new() -> Result<Self, getrandom::Error> {
        Ok(Self {
            prefix: format!("{:016x}", getrandom::u64()?),
            next: AtomicU64::new(1),
        })
    }

    /// Returns the next id: 16 hexadecimal digits that tell the worker, a hyphen, the request's number.
    pub(super) fn next(&self) -> String {
        format!(
            "{}-{:x}",
            self.prefix,
            self.next.fetch_add(1, Ordering::Relaxed)
        )
    }
}
