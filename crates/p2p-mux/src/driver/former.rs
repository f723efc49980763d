//! Former read buffers, whose bytes may still wait for their readers.

use bytes::BytesMut;

/// How many buffers, besides the one that is filled, there may be: those whose bytes are kept by
/// reference, and those that are kept to be used again. It bounds what unread bytes can hold beyond
/// their windows, however few of them lie in each buffer.
pub(super) const FORMER_MAX: usize = 2;

#[derive(Default)]
pub(super) struct FormerBuffers(Vec<Former>);

struct Former {
    buffer: BytesMut,
    /// Nobody refers to its bytes any more.
    free: bool,
}

impl FormerBuffers {
    /// Whether one more buffer may become a former one while its bytes are still referred to.
    pub(super) fn has_room(&mut self) -> bool {
        self.held() < FORMER_MAX
    }

    /// How many of them are still referred to.
    pub(super) fn held(&mut self) -> usize {
        self.look();
        self.0.iter().filter(|former| !former.free).count()
    }

    /// A buffer with room for `len` bytes: the last one that is free, which is the likeliest to be
    /// in the processor's cache, or a new one.
    pub(super) fn take(&mut self, len: usize) -> BytesMut {
        self.look();
        let fits = |former: &mut Former| former.free && former.buffer.try_reclaim(len);
        match self.0.iter_mut().rposition(fits) {
            Some(free) => self.0.remove(free).buffer,
            None => {
                // These are too small.
                self.0.retain(|former| !former.free);
                BytesMut::with_capacity(len)
            }
        }
    }

    /// Keeps `buffer`, for which there was room before any of its bytes were referred to.
    pub(super) fn push(&mut self, mut buffer: BytesMut) {
        debug_assert!(self.0.len() < FORMER_MAX, "room was made for it");
        // Without its spare end, which can be had while the rest is referred to.
        buffer.clear();
        drop(buffer.split_off(0));
        self.0.push(Former { buffer, free: false });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets them all. What is still referred to lives on.
    pub(super) fn clear(&mut self) {
        self.0 = Vec::new();
    }

    fn look(&mut self) {
        for former in self.0.iter_mut().filter(|former| !former.free) {
            former.free = former.buffer.try_reclaim(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    /// A buffer, and a byte of it that is referred to.
    fn referred(buffers: &mut FormerBuffers, len: usize) -> Bytes {
        let mut buffer = buffers.take(len);
        buffer.extend_from_slice(&vec![7; len - 1]);
        let byte = buffer.split_to(1).freeze();
        assert!(buffers.has_room());
        buffers.push(buffer);
        byte
    }

    #[test]
    fn a_buffer_is_used_again_once_nobody_refers_to_its_bytes() {
        let mut buffers = FormerBuffers::default();
        let bytes = [(); FORMER_MAX].map(|()| referred(&mut buffers, 100));
        assert!(!buffers.has_room(), "a byte holds a buffer");
        let [first, ..] = bytes;
        let at = first.as_ptr();
        drop(first);
        assert!(buffers.has_room());
        let again = buffers.take(100);
        assert_eq!((again.as_ptr(), again.len(), again.capacity()), (at, 0, 100));
        assert!(buffers.has_room());
    }

    #[test]
    fn free_buffers_that_are_too_small_take_no_place() {
        let mut buffers = FormerBuffers::default();
        for len in [10, 20, 30, 40, 50] {
            drop(referred(&mut buffers, len));
        }
        assert_eq!(buffers.0.len(), 1);
        drop(referred(&mut buffers, 50));
        assert_eq!(buffers.0.len(), 1, "the same again");
    }
}
