//! Numbers that decide what happens in a history: random ones that a seed repeats, or those that a fuzzer chooses.

/// A source of numbers.
#[derive(Clone, Debug)]
pub(super) enum Dice {
    /// Repeats with its seed (splitmix64).
    #[cfg_attr(not(test), expect(dead_code, reason = "a fuzzer chooses"))]
    Seeded(u64),
    /// Bytes in their order; zeros after the last.
    #[cfg(feature = "fuzz")]
    Chosen(std::collections::VecDeque<u8>),
}

impl Dice {
    /// Returns a number below `end`.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        match self {
            Self::Seeded(state) => {
                *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut number = *state;
                number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                (number ^ (number >> 31)) % end
            }
            #[cfg(feature = "fuzz")]
            Self::Chosen(bytes) => {
                let mut number = 0;
                // No more bytes than the choice needs, so that a small change of the input is a small change of the history.
                for _ in (0..64 - end.leading_zeros()).step_by(8) {
                    number = number << 8 | u64::from(bytes.pop_front().unwrap_or(0));
                }
                number % end
            }
        }
    }

    /// Is true about once in `count` times.
    pub(super) fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    /// Returns one of them, if there are any.
    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        let count = from.len() as u64;
        (count > 0).then(|| from[self.below(count) as usize])
    }

    /// Tells whether there are numbers left.
    pub(super) fn is_over(&self) -> bool {
        match self {
            Self::Seeded(_) => false,
            #[cfg(feature = "fuzz")]
            Self::Chosen(bytes) => bytes.is_empty(),
        }
    }
}
