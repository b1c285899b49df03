//! Durations as the host takes them: whole milliseconds. Rounded up, because a short time must not become none.

use std::time::Duration;

pub(crate) fn whole(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// Returns what fits: a longer time is one that the host refuses.
pub(crate) fn short(duration: Duration) -> u32 {
    u32::try_from(whole(duration)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_time_does_not_become_none() {
        assert_eq!(whole(Duration::ZERO), 0);
        assert_eq!(whole(Duration::from_nanos(1)), 1);
        assert_eq!(whole(Duration::from_millis(2)), 2);
    }

    #[test]
    fn a_long_time_does_not_wrap() {
        assert_eq!(short(Duration::from_secs(u64::from(u32::MAX))), u32::MAX);
        assert_eq!(whole(Duration::MAX), u64::MAX);
    }
}
