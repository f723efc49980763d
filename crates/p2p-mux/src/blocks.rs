//! Large buffers that are used again and again: memory that is fresh from the system costs more
//! than what is copied into it.

use bytes::BytesMut;

/// Buffers whose bytes others may still refer to; at most so many as it was made for.
#[derive(Debug)]
pub(crate) struct Blocks {
    retired: Vec<BytesMut>,
    max: usize,
}

impl Blocks {
    pub(crate) fn new(max: usize) -> Self {
        Self { retired: Vec::new(), max }
    }

    /// A buffer with room for `len` bytes: the last one that nobody refers to any more, which is
    /// the likeliest to be in the processor's cache, or a new one.
    pub(crate) fn take(&mut self, len: usize) -> BytesMut {
        match self.retired.iter_mut().rposition(|block| block.try_reclaim(len)) {
            Some(free) => self.retired.remove(free),
            None => BytesMut::with_capacity(len),
        }
    }

    /// Keeps `block` for later, instead of the oldest where there are enough. What was split off it
    /// may be in use still.
    pub(crate) fn retire(&mut self, mut block: BytesMut) {
        if self.retired.len() >= self.max {
            self.retired.remove(0);
        }
        block.clear();
        self.retired.push(block);
    }

    pub(crate) fn clear(&mut self) {
        self.retired = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_used_again_once_nobody_refers_to_its_bytes() {
        let mut blocks = Blocks::new(2);
        let mut block = blocks.take(100);
        let first = block.as_ptr();
        block.extend_from_slice(&[7; 100]);
        let bytes = block.split().freeze();
        blocks.retire(block);
        let other = blocks.take(100);
        assert_ne!(other.as_ptr(), first, "its bytes are in use");
        assert_eq!(bytes, [7; 100][..]);
        drop(bytes);
        let again = blocks.take(100);
        assert_eq!((again.as_ptr(), again.len(), again.capacity()), (first, 0, 100));
        assert!(blocks.retired.is_empty());
    }

    #[test]
    fn no_more_blocks_are_kept_than_were_asked_for_and_the_oldest_goes_first() {
        let mut blocks = Blocks::new(2);
        for len in [10, 20, 30] {
            blocks.retire(BytesMut::with_capacity(len));
        }
        assert_eq!([blocks.take(1).capacity(), blocks.take(1).capacity()], [30, 20]);
        assert!(blocks.retired.is_empty());
    }
}
