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

    /// Fills `buf` with the bytes from `offset` on, a multiple of 8.
    pub(super) fn fill(self, offset: u64, buf: &mut [u8]) {
        for (chunk, index) in buf.chunks_mut(8).zip(offset / 8..) {
            let word = self.word(index);
            chunk.iter_mut().zip(word).for_each(|(byte, sent)| *byte = sent);
        }
    }

    /// Where `data`, at most 16 KiB received at `offset`, first differs.
    pub(super) fn differs(self, offset: u64, data: &[u8]) -> Option<u64> {
        let mut expected = [0; (16 << 10) + 16];
        let before = usize::try_from(offset % 8).unwrap_or(0);
        let (words, _) = expected.split_at_mut((before + data.len()).next_multiple_of(8));
        self.fill(offset, words);
        let (_, sent) = words.split_at(before);
        if sent.starts_with(data) {
            return None;
        }
        let mut pairs = (offset..).zip(data.iter().zip(sent));
        pairs.find(|(_, (received, sent))| received != sent).map(|(at, _)| at)
    }
}
