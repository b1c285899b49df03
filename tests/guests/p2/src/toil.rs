//! Work for the CPU that no compiler can shorten. The native server that `just bench` compares with runs this very file.

/// Returns what so many rounds of mixing come to.
pub fn toil(rounds: u32) -> u32 {
    (0..rounds).fold(1, |state, round| {
        (state ^ round).wrapping_mul(0x9E37_79B1).rotate_left(13)
    })
}
