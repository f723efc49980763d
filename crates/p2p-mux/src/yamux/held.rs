//! The bytes that a half of a stream holds. What they are held in is the session's, and a half has it
//! only while it holds some: most streams are idle most of the time.

use std::collections::VecDeque;

use bytes::BytesMut;

/// So many are kept for the next halves that hold something, as long as the connection has streams and
/// is not idle.
const SPARES_MAX: usize = 16;
/// One that is kept has room for up to this many chunks.
const CHUNKS_KEPT: usize = 32;
/// And a block of up to this many bytes.
const BLOCK_LEN_KEPT: usize = 256;

/// Chunks, the oldest first, and behind them a block in which small pieces are gathered.
#[derive(Debug)]
pub(super) struct Held<T> {
    pub(super) chunks: VecDeque<T>,
    pub(super) tail: BytesMut,
}

impl<T> Default for Held<T> {
    fn default() -> Self {
        Self { chunks: VecDeque::new(), tail: BytesMut::new() }
    }
}

/// Those that halves have given back, empty.
#[derive(Debug)]
#[expect(clippy::vec_box, reason = "halves have them in boxes, which are to be used again")]
pub(super) struct Spares<T>(Vec<Box<Held<T>>>);

impl<T> Spares<T> {
    /// What `half` holds bytes in: where it holds none, one that was given back, or a new one.
    pub(super) fn lend<'a>(&mut self, half: &'a mut Option<Box<Held<T>>>) -> &'a mut Held<T> {
        half.get_or_insert_with(|| self.0.pop().unwrap_or_default())
    }

    /// Takes back what `half` holds nothing in any more.
    pub(super) fn take_back(&mut self, half: &mut Option<Box<Held<T>>>) {
        let Some(mut held) = half.take().filter(|_| self.0.len() < SPARES_MAX) else { return };
        debug_assert!(held.chunks.is_empty() && held.tail.is_empty(), "nothing is lost");
        if held.chunks.capacity() > CHUNKS_KEPT {
            held.chunks = VecDeque::new();
        }
        if held.tail.try_reclaim(BLOCK_LEN_KEPT + 1) {
            held.tail = BytesMut::new();
        }
        self.0.push(held);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn clear(&mut self) {
        self.0 = Vec::new();
    }
}

impl<T> Default for Spares<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_half_holds_bytes_in_is_used_again_by_the_next() {
        let (mut spares, mut half) = (Spares::<u8>::default(), None);
        spares.lend(&mut half).tail.extend_from_slice(&[7; 100]);
        let block = half.as_mut().map(|held| {
            held.tail.clear();
            held.tail.as_ptr()
        });
        spares.take_back(&mut half);
        assert!(half.is_none());
        let again = spares.lend(&mut half);
        assert_eq!(Some(again.tail.as_ptr()), block);
        assert!(spares.0.is_empty());
    }

    #[test]
    fn no_more_is_kept_for_later_than_it_says() {
        let (mut spares, mut halves) = (Spares::default(), Vec::new());
        for _ in 0..=SPARES_MAX {
            let mut half = None;
            let held = spares.lend(&mut half);
            held.chunks.extend(0..=CHUNKS_KEPT);
            held.chunks.clear();
            held.tail.reserve(BLOCK_LEN_KEPT + 1);
            halves.push(half);
        }
        for half in &mut halves {
            spares.take_back(half);
        }
        assert_eq!(spares.0.len(), SPARES_MAX);
        let kept = |held: &Held<usize>| (held.chunks.capacity(), held.tail.capacity());
        assert!(spares.0.iter().all(|held| kept(held) == (0, 0)));
        spares.clear();
        assert_eq!(spares.0.capacity(), 0);
    }
}
