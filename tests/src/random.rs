//! Numbers that look random and are the same in every run (xorshift), for the harness's choices.

/// Returns the next number after `random`, which must not begin as 0.
pub(crate) fn next(random: &mut u64) -> u64 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    *random
}
