use std::{fmt, task::Poll, time::Instant};

use bytes::{BufMut, Bytes};

use crate::{ErrorCode, Gather, MuxError, ProtocolId, Role, StreamError};

/// A multiplexing protocol, as a value that a host is configured with.
pub trait Muxer: Send + Sync + 'static {
    /// The name that is negotiated for it, such as `/yamux/1.0.0`.
    fn protocol(&self) -> ProtocolId;

    /// Begins a session. The initiator of the secure channel is the client.
    fn start(&self, role: Role, now: Instant) -> Box<dyn MuxCore>;
}

/// A stream of one multiplexed connection. Never given twice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(u64);

impl StreamId {
    /// Makes an id of the number that the multiplexer uses.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number that the multiplexer uses.
    #[must_use]
    pub const fn value(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamId({})", self.0)
    }
}

/// What a multiplexer wants its driver to tell those who wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MuxEvent {
    /// A `read` that was `Pending` can be tried again.
    Readable(StreamId),
    /// A `write` that was `Pending` can be tried again.
    Writable(StreamId),
    /// The stream was reset: every call on it gives its error now.
    Ended(StreamId),
    /// `accept` has a stream.
    Acceptable,
    /// An `open` that was `Pending` can be tried again.
    Openable,
}

/// A multiplexer's state machine: no socket, clock, task or lock.
///
/// `handle_*` takes input from the world, `poll_*` gives output to act on, the other verbs are
/// the application's commands. A driver calls `poll_event` until it is `None` after every
/// `handle_*`, and `poll_transmit` when [`MuxCore::has_transmit`] says so.
///
/// A stream lives until both its halves were released and the peer needs to hear nothing more
/// of it. Commands on streams that are gone do nothing, or give [`StreamError::ResetLocally`].
pub trait MuxCore: Send + 'static {
    /// Takes plaintext from the peer, cut anywhere.
    ///
    /// # Errors
    /// [`MuxError`] when the peer broke the rules: the connection must end, with the frames that
    /// `poll_transmit` still gives as the last word.
    fn handle_data(&mut self, plain: Bytes, now: Instant) -> Result<(), MuxError>;

    /// The same, but keeps no reference to `plain`: what was kept of earlier data holds as many
    /// receive buffers as may be held, each of them whole.
    ///
    /// # Errors
    /// As `handle_data`.
    fn handle_lent(&mut self, plain: Bytes, now: Instant) -> Result<(), MuxError> {
        self.handle_data(Bytes::copy_from_slice(&plain), now)
    }

    /// Does what is due at `now`.
    ///
    /// # Errors
    /// [`MuxError::KeepAlive`] when the peer is gone.
    fn handle_timeout(&mut self, now: Instant) -> Result<(), MuxError>;

    /// Ends every stream with `error`; what has been received stays readable.
    fn handle_end(&mut self, error: &StreamError);

    /// Gives back memory that is kept for later, and what is kept by reference: nothing has moved
    /// for a while.
    fn handle_idle(&mut self) {}

    /// Whether there is something to send.
    fn has_transmit(&self) -> bool;

    /// Appends frames to `frames`, about `budget` bytes of them, control frames first.
    fn poll_transmit(&mut self, budget: usize, frames: &mut Gather, now: Instant);

    /// The next thing that those who wait must be told.
    fn poll_event(&mut self) -> Option<MuxEvent>;

    /// When `handle_timeout` must be called next.
    fn poll_timeout(&self) -> Option<Instant>;

    /// Opens a stream. `Pending` while the peer has too many to acknowledge, or too many are
    /// open; an event follows.
    ///
    /// # Errors
    /// [`MuxError::IdsExhausted`].
    fn open(&mut self) -> Poll<Result<StreamId, MuxError>>;

    /// Takes a stream that the peer has opened.
    fn accept(&mut self) -> Option<StreamId>;

    /// Refuses all streams that the peer opens from now on.
    fn refuse_inbound(&mut self);

    /// Queues as much of `data` as the window and the send buffer allow, by reference, and
    /// leaves the rest in `data`. `Pending` when that is nothing.
    ///
    /// # Errors
    /// [`StreamError`] when nothing can be sent any more.
    fn write(&mut self, id: StreamId, data: &mut Bytes) -> Poll<Result<(), StreamError>>;

    /// The same for a slice, which is copied: gives the number of bytes taken.
    ///
    /// # Errors
    /// [`StreamError`] when nothing can be sent any more.
    fn write_slice(&mut self, id: StreamId, data: &[u8]) -> Poll<Result<usize, StreamError>>;

    /// Hands out at most `max` received bytes, and gives the peer credit for them. `None` is the
    /// end of the peer's data.
    ///
    /// # Errors
    /// [`StreamError`] when the data end early.
    fn read(&mut self, id: StreamId, max: usize) -> Poll<Result<Option<Bytes>, StreamError>>;

    /// The same, copied to `out` as far as that has room: gives the number of bytes, 0 at the end
    /// of the peer's data. `out` has room for at least one.
    ///
    /// # Errors
    /// [`StreamError`] when the data end early.
    fn read_buf(&mut self, id: StreamId, out: &mut dyn BufMut) -> Poll<Result<usize, StreamError>> {
        let chunk = std::task::ready!(self.read(id, out.remaining_mut()))?.unwrap_or_default();
        out.put_slice(&chunk);
        Poll::Ready(Ok(chunk.len()))
    }

    /// Ends this side's data, behind what is queued. Nothing to do where that was done before.
    ///
    /// # Errors
    /// [`StreamError`] when the stream was reset before.
    fn finish(&mut self, id: StreamId) -> Result<(), StreamError>;

    /// Ends the stream at once, in both directions where the protocol knows no better.
    fn reset(&mut self, id: StreamId, code: ErrorCode);

    /// Gives up reading: tells the peer as well as the protocol can.
    fn stop(&mut self, id: StreamId, code: ErrorCode);

    /// Why nothing can be sent any more; `Pending` while it can.
    fn stopped(&mut self, id: StreamId) -> Poll<StreamError>;

    /// The sending half is gone; a stream that it has not finished is reset.
    fn release_send(&mut self, id: StreamId);

    /// The receiving half is gone; the same as `stop` when data may still come.
    fn release_recv(&mut self, id: StreamId);

    /// Begins the end: streams that are not finished are reset, what is queued on the others is
    /// sent as far as the peer's windows go, then the goodbye.
    fn close(&mut self, code: ErrorCode);

    /// Whether a goodbye was given out or has come in, so that nothing will follow.
    fn is_closed(&self) -> bool;

    /// The code of the peer's goodbye, once it has come in.
    fn goodbye(&self) -> Option<ErrorCode>;

    /// The number of live streams.
    fn stream_count(&self) -> usize;

    /// How many bytes the streams hold: received and not read, written and not sent. 0 where that
    /// is not known.
    fn buffered(&self) -> usize {
        0
    }

    /// Says which protocol a stream is of, for `buffered_by_protocol`.
    fn set_protocol(&mut self, _id: StreamId, _protocol: &ProtocolId) {}

    /// The same bytes as `buffered`, in parts: each with the protocol of a stream, where that was
    /// said.
    fn buffered_by_protocol(&self, each: &mut dyn FnMut(Option<&ProtocolId>, usize)) {
        each(None, self.buffered());
    }
}
