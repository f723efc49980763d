//! The reading side: from the pipe to opened records.

use std::{
    future::Future,
    io,
    pin::pin,
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::{Bytes, BytesMut};
use p2p_core::{ConnectionError, Open, Opened, PipeRead};
use tokio::io::AsyncReadExt;

use super::{
    Prelude, TURNS_MAX,
    former::{FORMER_MAX, FormerBuffers},
};

/// What is received at once when little comes in, in bytes.
const READ_LEN_MIN: usize = 1 << 10;
/// Under load the end of a buffer is worth a read when it has room for so many bytes.
const WORTH_LEN: usize = 4 << 10;
/// What is received at once under load: two records of Noise's largest size, each with a little one
/// behind it. That is what becomes of 64 KiB that are written at once, with a header: no part of a
/// record is left at the end of the buffer, to be moved to the next. No buffer is larger.
pub(super) const READ_LEN_MAX: usize = 2 * 65_601;

/// What is taken of an answer that a pipe was asked for, in bytes; the rest is read as ever.
const ANSWER_LEN: usize = 1 << 10;

pub(super) struct Reader {
    pipe: Box<dyn PipeRead>,
    open: Box<dyn Open>,
    /// The one read buffer of the connection's life.
    wire: BytesMut,
    /// Bytes of `wire` may be referred to.
    referred: bool,
    former: FormerBuffers,
    /// Opened bytes of a negotiation that is not complete.
    pub(super) plain: BytesMut,
    pub(super) prelude: Option<Prelude>,
    read_len: usize,
    /// How many bytes the record at the front of `wire` still needs.
    missing: usize,
    /// The last read has filled the buffer: there is more to read.
    filled: bool,
    pub(super) records: Vec<Bytes>,
    ended: bool,
}

impl Reader {
    /// Begins with what has been received already: `wire` as it came, `plain` opened.
    pub(super) fn new(
        pipe: Box<dyn PipeRead>,
        open: Box<dyn Open>,
        wire: BytesMut,
        plain: BytesMut,
        prelude: Option<Prelude>,
    ) -> Self {
        Self {
            pipe,
            open,
            wire,
            referred: false,
            former: FormerBuffers::default(),
            plain,
            prelude,
            read_len: READ_LEN_MIN,
            missing: 1,
            filled: false,
            records: Vec::new(),
            ended: false,
        }
    }

    /// Whether something has come in that means nothing without what is still to come.
    pub(super) fn is_amid(&self) -> bool {
        !self.wire.is_empty() || self.prelude.is_some()
    }

    pub(super) fn holds_buffers(&self) -> bool {
        self.wire.capacity() > 0 && self.wire.is_empty() || !self.former.is_empty()
    }

    /// Frees the buffers that are not in use.
    pub(super) fn release_buffers(&mut self) {
        self.former.clear();
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
        self.filled = count == spare;
        // The rest of a buffer is filled by little.
        if self.filled && spare >= self.read_len / 2 {
            self.read_len = (self.read_len * 4).min(READ_LEN_MAX);
        }
        Poll::Ready(Ok(count))
    }

    /// Asks the pipe itself until then, or until `gives_up` says so; after [`Self::poll_read`], which has
    /// made room. `None` where it cannot be asked.
    pub(super) fn ask(
        &mut self,
        until: Instant,
        gives_up: impl Fn() -> bool,
    ) -> Option<Poll<io::Result<usize>>> {
        let mut answer = [0; ANSWER_LEN];
        let room = ANSWER_LEN.min(self.wire.capacity() - self.wire.len());
        let answer = answer.get_mut(..room).unwrap_or_default();
        loop {
            match self.pipe.try_read(answer)? {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Some(Poll::Ready(Err(error))),
                Ok(count) => {
                    let Some(answer) = answer.get(..count) else {
                        let broken = "the pipe claims to have read more than there was room for";
                        return Some(Poll::Ready(Err(io::Error::other(broken))));
                    };
                    self.wire.extend_from_slice(answer);
                    self.filled = count == room;
                    return Some(Poll::Ready(Ok(count)));
                }
            }
            if Instant::now() >= until || gives_up() {
                return Some(Poll::Pending);
            }
        }
    }

    /// Makes room for what the next record needs, where this buffer has it or nobody refers to its bytes.
    fn finds_room(&mut self) -> bool {
        let len = self.wire.len();
        let loaded = self.read_len > READ_LEN_MIN;
        // From the front again where all of it has been taken: what comes next fills fewer buffers.
        if len == 0 && loaded && self.wire.try_reclaim(self.read_len) {
            self.referred = false;
        }
        // Between two records the end of a buffer is not worth a read, but for a connection that
        // rests: it would keep a larger one.
        let worth = if len == 0 && loaded { WORTH_LEN } else { 0 };
        if self.wire.capacity() - len >= self.missing.max(worth) {
            return true;
        }
        let reclaimed = self.wire.try_reclaim(self.wanted() - len);
        self.referred &= !reclaimed;
        reclaimed
    }

    /// How large a buffer is to be for the part of a record that is there already, and what follows: a
    /// whole one fits any buffer.
    fn wanted(&self) -> usize {
        self.read_len.max(self.wire.len() + self.missing)
    }

    /// Makes room for what the next record needs, in another buffer where this one's bytes are
    /// still referred to.
    fn make_room(&mut self) {
        if self.finds_room() {
            return;
        }
        let mut buffer = self.former.take(self.wanted());
        buffer.extend_from_slice(&self.wire);
        let former = std::mem::replace(&mut self.wire, buffer);
        if std::mem::take(&mut self.referred) {
            self.former.push(former);
        }
    }

    /// Whether the bytes that were opened may be kept by reference: there is room for the buffer
    /// that they would hold.
    pub(super) fn may_be_kept(&mut self) -> bool {
        self.referred = self.referred || !self.records.is_empty() && self.former.has_room();
        self.referred
    }

    /// Whether there is more to read that would have to be copied: those who have been given the bytes of
    /// former buffers still hold them all.
    pub(super) fn must_copy(&mut self) -> bool {
        if !self.filled || self.read_len < READ_LEN_MAX || self.finds_room() && self.referred {
            return false;
        }
        self.former.held() + usize::from(self.referred) >= FORMER_MAX
    }

    /// Whether nobody holds a former buffer.
    pub(super) fn all_let_go(&mut self) -> bool {
        self.former.held() == 0
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
