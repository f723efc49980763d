//! The bytes that are sent: a pattern whose period divides no buffer, so that bytes that are lost,
//! doubled or moved are seen.

use std::sync::LazyLock;

/// After so many bytes the pattern begins anew: a prime.
const PERIOD: usize = 65_521;
/// The most that is sent at once, in bytes.
pub const PIECE_LEN: usize = 128 << 10;

static PATTERN: LazyLock<Box<[u8]>> = LazyLock::new(|| {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let period: Vec<u8> = (0..PERIOD)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .collect();
    period.iter().cycle().take(PERIOD + PIECE_LEN).copied().collect()
});

/// Gives out the pattern piece by piece, or compares what came with it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pattern {
    at: u64,
}

impl Pattern {
    /// How many bytes it has given out or compared.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// The next bytes, `PIECE_LEN` at most.
    pub fn next(&mut self, len: u64) -> &'static [u8] {
        let len = usize::try_from(len).unwrap_or(PIECE_LEN).min(PIECE_LEN);
        let phase = (self.at % PERIOD as u64) as usize;
        self.at += len as u64;
        &PATTERN[phase..phase + len]
    }

    /// Whether `bytes` are those that come next.
    #[must_use]
    pub fn check(&mut self, bytes: &[u8]) -> bool {
        bytes.chunks(PIECE_LEN).all(|chunk| self.next(chunk.len() as u64) == chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_that_is_changed_lost_or_doubled_is_seen() {
        let mut all = Vec::new();
        let mut source = Pattern::default();
        while all.len() < 300_000 {
            all.extend_from_slice(source.next(9_999));
        }
        assert!(Pattern::default().check(&all));
        let mut changed = all.clone();
        changed[200_000] ^= 1;
        assert!(!Pattern::default().check(&changed));
        let mut lost = all.clone();
        lost.remove(100);
        assert!(!Pattern::default().check(&lost));
        let mut moved = all.clone();
        moved.drain(64 << 10..128 << 10);
        assert!(!Pattern::default().check(&moved));
    }
}
