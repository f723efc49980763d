//! The pseudo-random bytes of an echo test.

/// A cheap deterministic byte sequence; equal seeds give equal sequences however they are cut.
#[derive(Debug, Clone)]
pub struct Pattern {
    state: u64,
    word: [u8; 8],
    used: usize,
}

impl Pattern {
    /// Starts the sequence of `seed`.
    pub fn new(seed: u64) -> Self {
        // An odd multiplier keeps different seeds apart, and the set low bit keeps the state
        // off zero, where xorshift would stay.
        let state = (seed.wrapping_mul(0xd6e8_feb8_6659_fd93) << 1) | 1;
        Self { state, word: [0; 8], used: 8 }
    }

    /// Writes the next bytes of the sequence over `buf`.
    pub fn fill(&mut self, buf: &mut [u8]) {
        for byte in buf {
            if self.used == self.word.len() {
                self.step();
            }
            *byte = self.word[self.used];
            self.used += 1;
        }
    }

    /// Advances the generator by one word.
    fn step(&mut self) {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.word = self.state.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
        self.used = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    #[test]
    fn cutting_does_not_change_the_sequence() {
        let mut whole = [0; 100];
        Pattern::new(7).fill(&mut whole);
        let mut cut = [0; 100];
        let mut pattern = Pattern::new(7);
        for piece in cut.chunks_mut(3) {
            pattern.fill(piece);
        }
        assert_eq!(whole, cut);
    }

    #[test]
    fn seeds_differ() {
        let [mut a, mut b] = [[0; 64]; 2];
        Pattern::new(0).fill(&mut a);
        Pattern::new(1).fill(&mut b);
        assert_ne!(a, b);
    }
}
