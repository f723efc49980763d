//! The bytes of transfers: each one's can be told from every other's, at every place.

use crate::network::Random;

/// Bytes that stand for the contents of one direction of one transfer, at any offset.
#[derive(Clone, Copy, Debug)]
pub(super) struct Content(u64);

impl Content {
    pub(super) fn new(transfer: u64, is_answer: bool) -> Self {
        Self(Random::of(transfer, &[u64::from(is_answer)]).number())
    }

    fn word(self, index: u64) -> [u8; 8] {
        let mixed = (self.0 ^ index).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ (mixed >> 29)).to_le_bytes()
    }

    /// The bytes from an offset on.
    fn from(self, offset: u64) -> impl Iterator<Item = u8> {
        let words = (offset / 8..).flat_map(move |index| self.word(index));
        words.skip(usize::try_from(offset % 8).unwrap_or(0))
    }

    pub(super) fn fill(self, offset: u64, buf: &mut [u8]) {
        buf.iter_mut().zip(self.from(offset)).for_each(|(byte, sent)| *byte = sent);
    }

    /// Where `data`, received at `offset`, first differs.
    pub(super) fn differs(self, offset: u64, data: &[u8]) -> Option<u64> {
        let mut pairs = (offset..).zip(data.iter().zip(self.from(offset)));
        pairs.find(|(_, (received, sent))| **received != *sent).map(|(at, _)| at)
    }
}
