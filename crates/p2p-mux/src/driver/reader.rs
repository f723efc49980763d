//! The reading side: from the pipe to opened records.

use std::{
    future::Future,
    io,
    pin::pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use p2p_core::{ConnectionError, Open, Opened};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::{Prelude, TURNS_MAX};
use crate::blocks::Blocks;

/// What is received at once when little comes in, in bytes.
const READ_LEN_MIN: usize = 4 << 10;
/// What is received at once under load: two records of Noise's largest size, so that a sender
/// that fills its records leaves no part of one at the end of the buffer.
pub(super) const READ_LEN_MAX: usize = 2 * 65_537;
/// Received buffers that are kept to be used again, besides the one that is filled.
const READ_BLOCKS_MAX: usize = 3;

pub(super) struct Reader {
    pipe: Box<dyn AsyncRead + Unpin + Send>,
    open: Box<dyn Open>,
    /// The one read buffer of the connection's life.
    wire: BytesMut,
    /// Former read buffers, whose bytes may still wait for their readers.
    blocks: Blocks,
    /// Opened bytes of a negotiation that is not complete.
    pub(super) plain: BytesMut,
    pub(super) prelude: Option<Prelude>,
    read_len: usize,
    /// How many bytes the record at the front of `wire` still needs.
    missing: usize,
    pub(super) records: Vec<Bytes>,
    ended: bool,
}

impl Reader {
    /// Begins with what has been received already: `wire` as it came, `plain` opened.
    pub(super) fn new(
        pipe: Box<dyn AsyncRead + Unpin + Send>,
        open: Box<dyn Open>,
        wire: BytesMut,
        plain: BytesMut,
        prelude: Option<Prelude>,
    ) -> Self {
        Self {
            pipe,
            open,
            wire,
            blocks: Blocks::new(READ_BLOCKS_MAX),
            plain,
            prelude,
            read_len: READ_LEN_MIN,
            missing: 1,
            records: Vec::new(),
            ended: false,
        }
    }

    /// Whether something has come in that means nothing without what is still to come.
    pub(super) fn is_amid(&self) -> bool {
        !self.wire.is_empty() || self.prelude.is_some()
    }

    pub(super) fn holds_buffers(&self) -> bool {
        self.wire.capacity() > 0 && self.wire.is_empty() || !self.blocks.is_empty()
    }

    /// Frees the buffers that are not in use.
    pub(super) fn release_buffers(&mut self) {
        self.blocks.clear();
        self.records = Vec::new();
        if self.wire.is_empty() {
            self.wire = BytesMut::new();
            self.read_len = READ_LEN_MIN;
            self.missing = 1;
        }
    }

    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.make_room();
        let spare = self.wire.capacity() - self.wire.len();
        let count = ready!(pin!(self.pipe.read_buf(&mut self.wire)).poll(cx))?;
        if count == spare {
            self.read_len = (self.read_len * 4).min(READ_LEN_MAX);
        }
        Poll::Ready(Ok(count))
    }

    /// Makes room for what the next record needs, in another buffer where this one's bytes are
    /// still referred to.
    fn make_room(&mut self) {
        let wanted = self.read_len.max(self.missing);
        let spare = self.wire.capacity() - self.wire.len();
        if spare >= self.missing || self.wire.try_reclaim(wanted) {
            return;
        }
        let mut block = self.blocks.take(self.wire.len() + wanted);
        block.extend_from_slice(&self.wire);
        self.blocks.retire(std::mem::replace(&mut self.wire, block));
    }

    /// Opens every whole record that has come in.
    pub(super) fn open_records(&mut self) -> Result<(), ConnectionError> {
        loop {
            match self.open.open(&mut self.wire).map_err(ConnectionError::Security)? {
                Opened::Record(record) if record.is_empty() => {}
                Opened::Record(record) => self.records.push(record),
                Opened::Incomplete(missing) => {
                    self.missing = missing.max(1);
                    return Ok(());
                }
                _ => return Ok(()),
            }
        }
    }

    /// Reads and forgets until the peer's end.
    pub(super) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..TURNS_MAX {
            if self.ended {
                return Poll::Ready(());
            }
            self.wire.clear();
            self.wire.reserve(READ_LEN_MIN);
            let count = ready!(pin!(self.pipe.read_buf(&mut self.wire)).poll(cx));
            self.ended = !matches!(count, Ok(1..));
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
