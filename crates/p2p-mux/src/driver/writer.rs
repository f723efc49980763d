//! The writing side: from the multiplexer to the pipe.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::{Buf, BufMut, BytesMut};
use p2p_core::{ConnectionError, Gather, Seal, SecurityError};
use tokio::io::AsyncWrite;

use super::{IDLE_AFTER, TURN_MAX};
use crate::shared::{Shared, Task};

/// Plain bytes that are taken from the multiplexer at once: two whole Noise records. The actual
/// amount exceeds it by less than one frame.
const TRANSMIT_LEN: usize = 2 * 65_519;
/// Pieces that are written at once where nothing is sealed.
const PIECES_MAX: usize = 64;
/// The connection ends when the peer has taken nothing for so long.
pub(super) const WRITE_STALL_MAX: Duration = Duration::from_secs(10);

pub(crate) struct Writer {
    shared: Arc<Shared>,
    pipe: Box<dyn AsyncWrite + Unpin + Send>,
    /// None where the pipe is used as it is.
    seal: Option<Box<dyn Seal>>,
    /// What is still to be sealed; or to be written as it is, once `out` is empty.
    frames: Gather,
    /// Sealed bytes on their way to the pipe.
    out: BytesMut,
    flushed: bool,
    /// Since when the pipe takes nothing.
    stalled_at: Option<Instant>,
    /// The last turn has written all that there was to write, or all that the pipe takes: what comes
    /// later wakes the task.
    pub(crate) resting: bool,
    /// All bytes that the pipe has taken.
    pub(crate) written: u64,
}

impl Writer {
    /// Begins with sealed bytes that go ahead of the multiplexer's.
    pub(super) fn new(
        shared: Arc<Shared>,
        pipe: Box<dyn AsyncWrite + Unpin + Send>,
        seal: Option<Box<dyn Seal>>,
        unsent: BytesMut,
    ) -> Self {
        Self {
            shared,
            pipe,
            seal,
            frames: Gather::new(),
            out: unsent,
            flushed: true,
            stalled_at: None,
            resting: false,
            written: 0,
        }
    }

    /// Some writes, by `task`. Gives the cause of the connection's end once the multiplexer has said
    /// its last word, which may still be in the buffers.
    pub(crate) fn poll_turn(
        &mut self,
        cx: &mut Context<'_>,
        task: Task,
        now: Instant,
    ) -> Result<Option<ConnectionError>, ConnectionError> {
        self.resting = false;
        for _ in 0..TURN_MAX {
            if self.is_empty()
                && let Some(cause) = self.fill(task, now)?
            {
                return Ok(Some(cause));
            }
            if self.is_empty() {
                self.resting = true;
                break;
            }
            if self.poll_write(cx, now)?.is_pending() {
                self.shared.with_task(task, |state| state.writer_is_blocked());
                self.resting = true;
                break;
            }
        }
        if self.is_empty() {
            self.poll_flush(cx, now)?;
        }
        Ok(None)
    }

    /// Takes frames from the multiplexer and seals them. Gives the cause of the connection's end
    /// once these are the last ones.
    fn fill(
        &mut self,
        task: Task,
        now: Instant,
    ) -> Result<Option<ConnectionError>, ConnectionError> {
        let frames = &mut self.frames;
        let ended = self.shared.with_task(task, |state| {
            state.writer_is_ready();
            if state.core.has_transmit() {
                state.core.poll_transmit(TRANSMIT_LEN, frames, now);
            }
            state.over().filter(|_| state.core.is_closed())
        });
        self.seal_frames().map_err(ConnectionError::Security)?;
        Ok(ended)
    }

    /// Takes the multiplexer's last word after it has failed.
    pub(super) fn fill_last_word(&mut self, now: Instant) -> Result<(), SecurityError> {
        let frames = &mut self.frames;
        self.shared.with_task(Task::Driver, |state| state.core.poll_transmit(0, frames, now));
        self.seal_frames()
    }

    /// Whether the peer has taken nothing for too long.
    pub(super) fn is_stalled(&self, now: Instant) -> bool {
        self.stalls_at().is_some_and(|at| at <= now)
    }

    /// Whether the pipe took nothing when it was last asked.
    pub(crate) fn is_blocked(&self) -> bool {
        self.stalled_at.is_some()
    }

    /// When it will be, if nothing is taken until then.
    pub(super) fn stalls_at(&self) -> Option<Instant> {
        self.stalled_at.map(|at| at + WRITE_STALL_MAX)
    }

    /// When the driver must look at it, having been in a turn at `now`.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        self.stalls_at().or_else(|| self.holds_buffers().then(|| now + IDLE_AFTER))
    }

    pub(super) fn holds_buffers(&self) -> bool {
        self.out.capacity() > 0 && self.out.is_empty()
    }

    /// Frees the buffers that are not in use.
    pub(super) fn release_buffers(&mut self) {
        if self.frames.is_empty() {
            self.frames = Gather::new();
        }
        if self.out.is_empty() {
            self.out = BytesMut::new();
        }
    }

    /// Whether there is nothing to write.
    fn is_empty(&self) -> bool {
        self.out.is_empty() && self.frames.is_empty()
    }

    /// Seals what was taken from the multiplexer. Without a secure channel it is copied only where
    /// the pipe does not take the pieces.
    fn seal_frames(&mut self) -> Result<(), SecurityError> {
        if self.frames.is_empty() {
            return Ok(());
        }
        match &mut self.seal {
            Some(seal) => seal.seal(&mut self.frames, &mut self.out),
            None if self.pipe.is_write_vectored() => Ok(()),
            None => {
                self.out.put(&mut self.frames);
                Ok(())
            }
        }
    }

    /// Writes once. Pending when the pipe takes nothing now.
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Result<Poll<()>, ConnectionError> {
        let pipe = Pin::new(&mut self.pipe);
        let (written, given) = if self.out.is_empty() {
            let mut pieces = [IoSlice::new(&[]); PIECES_MAX];
            let count = self.frames.chunks_vectored(&mut pieces);
            let pieces = pieces.get(..count).unwrap_or_default();
            let given = pieces.iter().map(|piece| piece.len()).sum();
            (pipe.poll_write_vectored(cx, pieces), given)
        } else {
            (pipe.poll_write(cx, &self.out), self.out.len())
        };
        match written {
            Poll::Ready(Ok(0)) => {
                Err(ConnectionError::Io(io::Error::from(io::ErrorKind::WriteZero).into()))
            }
            Poll::Ready(Ok(count)) if count > given => {
                let broken =
                    io::Error::other("the pipe claims to have written more than it was given");
                Err(ConnectionError::Io(broken.into()))
            }
            Poll::Ready(Ok(count)) => {
                tracing::trace!(len = count, "wrote");
                self.stalled_at = None;
                self.flushed = false;
                self.written += count as u64;
                if self.out.is_empty() {
                    self.frames.advance(count);
                } else {
                    self.out.advance(count);
                }
                Ok(Poll::Ready(()))
            }
            Poll::Ready(Err(error)) => Err(ConnectionError::Io(error.into())),
            Poll::Pending => {
                self.stalled_at.get_or_insert(now);
                Ok(Poll::Pending)
            }
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<(), ConnectionError> {
        if self.flushed {
            return Ok(());
        }
        match Pin::new(&mut self.pipe).poll_flush(cx) {
            Poll::Ready(result) => {
                result.map_err(|error| ConnectionError::Io(error.into()))?;
                self.flushed = true;
                self.stalled_at = None;
            }
            Poll::Pending => {
                self.stalled_at.get_or_insert(now);
            }
        }
        Ok(())
    }

    /// Writes all that is left and ends this side's half of the pipe.
    pub(super) fn poll_end(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Poll<Result<(), ConnectionError>> {
        while !self.is_empty() {
            ready!(self.poll_write(cx, now)?);
        }
        Pin::new(&mut self.pipe)
            .poll_shutdown(cx)
            .map_err(|error| ConnectionError::Io(error.into()))
    }
}
