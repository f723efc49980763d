use std::{collections::VecDeque, io::IoSlice};

use bytes::{Buf, Bytes};

/// Bytes on their way out, kept as the chunks they came in: a rope that is read once.
///
/// A multiplexer appends headers and payload by reference; a [`Seal`](crate::Seal) reads them
/// as one [`Buf`], which is where the one copy of the outgoing path happens.
#[derive(Debug, Default)]
pub struct Gather {
    chunks: VecDeque<Bytes>,
    len: usize,
}

impl Gather {
    /// Makes an empty rope.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends `chunk` without copying it.
    pub fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.len += chunk.len();
            self.chunks.push_back(chunk);
        }
    }

    /// How many bytes it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Buf for Gather {
    fn remaining(&self) -> usize {
        self.len
    }

    fn chunk(&self) -> &[u8] {
        self.chunks.front().map_or(&[], |chunk| chunk)
    }

    fn chunks_vectored<'a>(&'a self, dst: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slot, chunk) in dst.iter_mut().zip(&self.chunks) {
            *slot = IoSlice::new(chunk);
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.len, "advanced past the end of the rope");
        self.len -= count;
        while let Some(front) = self.chunks.front_mut() {
            if count < front.len() {
                front.advance(count);
                return;
            }
            count -= front.len();
            self.chunks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_read_back_in_order_across_their_bounds() {
        let mut rope = Gather::new();
        for chunk in ["ab", "", "cde", "f"] {
            rope.push(Bytes::from_static(chunk.as_bytes()));
        }
        assert_eq!(rope.len(), 6);
        rope.advance(1);
        assert_eq!(rope.copy_to_bytes(4), "bcde");
        assert_eq!(rope.copy_to_bytes(1), "f");
        assert!(rope.is_empty() && !rope.has_remaining());
    }
}
