use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Writes below this many bytes are gathered into a common chunk.
const GATHER_LEN_MAX: usize = 4 << 10;
/// The largest chunk that small writes are gathered into, in bytes.
const CHUNK_LEN_MAX: usize = 64 << 10;
/// What one stream may have queued, in bytes.
pub(crate) const STREAM_MAX: usize = 128 << 10;
/// What all streams of a connection may have queued, in bytes, before each is held to
/// `STREAM_MIN`.
const CONNECTION_MAX: usize = 256 << 10;
/// What every stream may queue however much the others have queued, in bytes.
const STREAM_MIN: usize = 4 << 10;

/// How much a stream that has `queued` bytes may queue, given the `total` of all streams.
pub(crate) fn room(queued: usize, total: usize) -> usize {
    let others = total.saturating_sub(queued);
    let most = CONNECTION_MAX.saturating_sub(others).clamp(STREAM_MIN, STREAM_MAX);
    most.saturating_sub(queued)
}

/// What a stream was given to send: large chunks by reference, small ones gathered.
#[derive(Debug, Default)]
pub(crate) struct Unsent {
    chunks: VecDeque<Bytes>,
    tail: BytesMut,
    len: usize,
}

impl Unsent {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Queues `data`, by reference where that is worth it.
    pub(crate) fn push(&mut self, data: Bytes) {
        if data.len() < GATHER_LEN_MAX {
            self.push_slice(&data);
            return;
        }
        self.len = self.len.saturating_add(data.len());
        self.seal_tail();
        self.chunks.push_back(data);
    }

    /// Queues a copy of `data`.
    pub(crate) fn push_slice(&mut self, data: &[u8]) {
        if data.len() >= GATHER_LEN_MAX {
            // A chunk that grew with it would be copied again.
            self.push(Bytes::copy_from_slice(data));
            return;
        }
        self.len = self.len.saturating_add(data.len());
        if self.tail.len().saturating_add(data.len()) > CHUNK_LEN_MAX {
            self.seal_tail();
        }
        self.tail.extend_from_slice(data);
    }

    /// Takes at most `max` bytes, as the chunks they are in.
    pub(crate) fn take(&mut self, max: usize, mut each: impl FnMut(Bytes)) {
        let mut left = max.min(self.len);
        self.len = self.len.saturating_sub(left);
        while left > 0 {
            if self.chunks.is_empty() {
                self.seal_tail();
            }
            let Some(front) = self.chunks.front_mut() else { return };
            let chunk = front.split_to(front.len().min(left));
            if front.is_empty() {
                self.chunks.pop_front();
            }
            left = left.saturating_sub(chunk.len());
            each(chunk);
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    fn seal_tail(&mut self) {
        if !self.tail.is_empty() {
            self.chunks.push_back(std::mem::take(&mut self.tail).freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_writes_share_chunks_and_large_ones_stay_as_they_are() {
        let mut unsent = Unsent::default();
        for _ in 0..1000 {
            unsent.push_slice(b"0123456789");
        }
        let large = Bytes::from(vec![1; GATHER_LEN_MAX]);
        unsent.push(large.clone());
        assert_eq!(unsent.len(), 10_000 + GATHER_LEN_MAX);
        let mut chunks = Vec::new();
        unsent.take(usize::MAX, |chunk| chunks.push(chunk));
        assert_eq!(chunks.iter().map(Bytes::len).collect::<Vec<_>>(), [10_000, GATHER_LEN_MAX]);
        assert_eq!(chunks[1].as_ptr(), large.as_ptr(), "not copied");
        assert_eq!(unsent.len(), 0);
    }
}
