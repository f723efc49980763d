use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Received bytes are copied into blocks of up to this many bytes, unless they are kept by
/// reference. It bounds the memory of a stream whose peer sends tiny frames.
pub(crate) const BLOCK_LEN_MAX: usize = 16 << 10;
/// The first block of a stream, in bytes.
const BLOCK_LEN_MIN: usize = 64;

/// What a stream has received and nobody has read yet. It knows the memory that it holds, which
/// is more than its bytes.
#[derive(Debug, Default)]
pub(crate) struct Received {
    chunks: VecDeque<Chunk>,
    tail: BytesMut,
    /// What `chunks` occupy, in bytes.
    sealed: usize,
}

#[derive(Debug)]
struct Chunk {
    data: Bytes,
    /// The memory that it occupies until it was read to its end, in bytes.
    cost: usize,
    /// It holds the buffer it was received in.
    referenced: bool,
}

impl Received {
    /// Keeps `data` by reference: it holds the buffer it came in, which is not counted here.
    pub(crate) fn push_referenced(&mut self, data: Bytes) {
        self.seal_tail();
        let cost = data.len();
        self.push(data, cost, true);
    }

    /// Keeps a copy of `data` in blocks that waste at most half of their size, and at most
    /// `BLOCK_LEN_MAX` bytes in all.
    pub(crate) fn push_copied(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            if self.tail.len() >= BLOCK_LEN_MAX {
                self.seal_tail();
            }
            let room = BLOCK_LEN_MAX.saturating_sub(self.tail.len());
            let (now, later) = data.split_at(data.len().min(room));
            let wanted = self.tail.len().saturating_add(now.len());
            if self.tail.capacity() < wanted {
                let wanted = wanted.next_power_of_two().clamp(BLOCK_LEN_MIN, BLOCK_LEN_MAX);
                let mut block = BytesMut::with_capacity(wanted);
                block.extend_from_slice(&self.tail);
                self.tail = block;
            }
            self.tail.extend_from_slice(now);
            data = later;
        }
    }

    /// Copies what is kept by reference, so that no buffer is held for it any more.
    pub(crate) fn copy_referenced(&mut self) {
        if !self.chunks.iter().any(|chunk| chunk.referenced) {
            return;
        }
        for chunk in std::mem::take(&mut self.chunks) {
            if !chunk.referenced {
                self.chunks.push_back(chunk);
                continue;
            }
            self.sealed = self.sealed.saturating_sub(chunk.cost);
            for block in chunk.data.chunks(BLOCK_LEN_MAX) {
                self.push(Bytes::copy_from_slice(block), block.len(), false);
            }
        }
    }

    /// Takes at most `max` bytes.
    pub(crate) fn take(&mut self, max: usize) -> Option<Bytes> {
        if self.chunks.is_empty() {
            self.seal_tail();
        }
        let front = self.chunks.front_mut()?;
        let data = front.data.split_to(front.data.len().min(max));
        if !front.data.is_empty() {
            return Some(data);
        }
        let whole = self.chunks.pop_front()?;
        self.sealed = self.sealed.saturating_sub(whole.cost);
        Some(data)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.tail.is_empty()
    }

    /// The memory that it holds, in bytes.
    pub(crate) fn held(&self) -> usize {
        self.sealed.saturating_add(self.tail.capacity())
    }

    fn seal_tail(&mut self) {
        if !self.tail.is_empty() {
            let cost = self.tail.capacity();
            let block = std::mem::take(&mut self.tail).freeze();
            self.push(block, cost, false);
        }
    }

    fn push(&mut self, data: Bytes, cost: usize, referenced: bool) {
        let cost = cost.saturating_add(size_of::<Chunk>());
        self.sealed = self.sealed.saturating_add(cost);
        self.chunks.push_back(Chunk { data, cost, referenced });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Received {
        /// The capacities of all blocks, and of the queue that holds them, as they are.
        pub(crate) fn weigh(&mut self) -> usize {
            let chunks = std::mem::take(&mut self.chunks);
            let queue = chunks.capacity() * size_of::<Chunk>();
            let mut blocks = self.tail.capacity();
            for mut chunk in chunks {
                let block = chunk.data.try_into_mut().expect("the only reference to its buffer");
                blocks += block.capacity();
                chunk.data = block.freeze();
                self.chunks.push_back(chunk);
            }
            queue + blocks
        }
    }

    #[test]
    fn what_it_says_to_hold_is_what_it_holds() {
        let mut received = Received::default();
        let mut size = 1;
        for _ in 0..2000 {
            received.push_copied(&vec![0; size]);
            size = size * 7 % 503;
            let (said, real) = (received.held(), received.weigh());
            // The queue doubles.
            assert!(said <= real && real <= said + 4096, "{said} is said, {real} is held");
        }
        while received.take(100).is_some() {}
        assert_eq!(received.held(), 0);
        received.push_copied(&[0; 65]);
        received.take(64);
        assert!(received.held() >= 128, "the block is held until its last byte was read");
        received.take(1);
        assert!(received.is_empty());
        assert_eq!(received.held(), 0);
    }

    #[test]
    fn referenced_and_copied_bytes_come_out_in_order() {
        let mut received = Received::default();
        received.push_copied(b"ab");
        received.push_referenced(Bytes::from_static(b"cdef"));
        received.push_copied(b"gh");
        let mut all = Vec::new();
        while let Some(chunk) = received.take(3) {
            all.extend_from_slice(&chunk);
        }
        assert_eq!(all, b"abcdefgh");
    }

    #[test]
    fn what_was_referenced_is_held_no_more_once_it_was_copied() {
        let mut received = Received::default();
        let buffer = Bytes::from(vec![7; 3 * BLOCK_LEN_MAX]);
        received.push_copied(b"ab");
        received.push_referenced(buffer.slice(10..2 * BLOCK_LEN_MAX));
        received.push_copied(b"cd");
        received.copy_referenced();
        assert!(buffer.is_unique());
        let (said, real) = (received.held(), received.weigh());
        assert!(said <= real && real <= said + 4096, "{said} is said, {real} is held");
        assert_eq!(received.take(2), Some(Bytes::from_static(b"ab")));
        let mut all = Vec::new();
        while let Some(chunk) = received.take(usize::MAX) {
            all.extend_from_slice(&chunk);
        }
        assert_eq!(all, [&buffer[10..2 * BLOCK_LEN_MAX], b"cd"].concat());
        assert_eq!(received.held(), 0);
    }
}
