use std::{
    any::Any,
    fmt,
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{ConnectionInfo, ErrorCode, PeerId, ProtocolId, StreamError};

/// The sending half of a stream, as a multiplexer implements it.
///
/// Of `AsyncWrite`, `flush` has nothing to do (what was written is on its way), and `shutdown`
/// ends this side's data without waiting. Dropped without `shutdown`, it resets the stream:
/// truncated data must never look complete.
pub trait SendHalf: AsyncWrite + Unpin + Send + 'static {
    /// Takes what the window allows, by reference, and leaves the rest in `data`.
    ///
    /// # Errors
    /// [`StreamError`] when nothing can be sent any more.
    ///
    /// # Cancel safety
    /// A caller that is dropped loses nothing: what was not taken is in `data`.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        data: &mut Bytes,
    ) -> Poll<Result<(), StreamError>>;

    /// Lets calls that write wait until `at` at most, and for ever with `None`, as at first.
    fn set_deadline(&mut self, at: Option<Instant>);

    /// Ends the stream at once and tells the peer why, where the protocol can.
    fn reset(&mut self, code: ErrorCode);

    /// Waits until the peer, or the end of the connection, makes sending pointless.
    ///
    /// # Cancel safety
    /// Cancel safe.
    fn poll_stopped(&mut self, cx: &mut Context<'_>) -> Poll<StreamError>;

    /// Says which protocol the stream is of, for [`Connection::buffered_by_protocol`]. A layer
    /// hands it on.
    ///
    /// [`Connection::buffered_by_protocol`]: crate::Connection::buffered_by_protocol
    fn set_protocol(&mut self, _protocol: &ProtocolId) {}
}

/// The receiving half of a stream, as a multiplexer implements it. Dropped before the end of the
/// data, it stops the peer as well as the protocol can say it.
pub trait RecvHalf: AsyncRead + Unpin + Send + 'static {
    /// Hands out at most `max` received bytes without copying them; `None` is the peer's end of
    /// data. The peer gets credit for them on this call.
    ///
    /// # Errors
    /// [`StreamError`] when the data end early.
    ///
    /// # Cancel safety
    /// Nothing is taken before `Ready`.
    fn poll_chunk(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
    ) -> Poll<Result<Option<Bytes>, StreamError>>;

    /// Lets calls that read wait until `at` at most, and for ever with `None`, as at first.
    fn set_deadline(&mut self, at: Option<Instant>);

    /// Gives up reading.
    fn stop(&mut self, code: ErrorCode);

    /// Ends the stream at once, in both directions where the protocol knows no better.
    fn reset(&mut self, code: ErrorCode);
}

/// What both halves of a stream know.
#[derive(Clone)]
struct Facts {
    connection: Arc<ConnectionInfo>,
    protocol: Option<ProtocolId>,
    /// Something that lives until both halves are at their end, such as a count of open streams.
    held: Option<Arc<dyn Any + Send + Sync>>,
}

/// A stream of a connection, to be read and written as any tokio stream.
///
/// `shutdown` ends this side's data, and the other side can still send. Dropping a stream before
/// its `shutdown` resets it. For the two directions in two tasks, see [`Stream::into_halves`].
///
/// ```no_run
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// async fn ask(stream: &mut p2p_core::Stream) -> std::io::Result<Vec<u8>> {
///     stream.write_all(b"question").await?;
///     stream.shutdown().await?;
///     let mut answer = Vec::new();
///     stream.take(4096).read_to_end(&mut answer).await?;
///     Ok(answer)
/// }
/// ```
pub struct Stream {
    // Boxed: a future that is given a stream mostly has it twice, as an argument and in its body.
    parts: Box<dyn Parts>,
}

/// The parts of a stream, in one piece of memory where the halves are a multiplexer's own.
trait Parts: Send {
    fn state(&self) -> &State;
    fn state_mut(&mut self) -> &mut State;
    fn send(&mut self) -> &mut dyn SendHalf;
    fn recv(&mut self) -> &mut dyn RecvHalf;
    fn apart(self: Box<Self>) -> Apart;
}

struct State {
    facts: Facts,
    /// The halves are not at their ends.
    sends: bool,
    receives: bool,
}

struct Together<S, R> {
    send: S,
    recv: R,
    state: State,
}

struct Apart {
    send: Box<dyn SendHalf>,
    recv: Box<dyn RecvHalf>,
    state: State,
}

impl<S: SendHalf, R: RecvHalf> Parts for Together<S, R> {
    fn state(&self) -> &State {
        &self.state
    }

    fn state_mut(&mut self) -> &mut State {
        &mut self.state
    }

    fn send(&mut self) -> &mut dyn SendHalf {
        &mut self.send
    }

    fn recv(&mut self) -> &mut dyn RecvHalf {
        &mut self.recv
    }

    fn apart(self: Box<Self>) -> Apart {
        Apart { send: Box::new(self.send), recv: Box::new(self.recv), state: self.state }
    }
}

impl Parts for Apart {
    fn state(&self) -> &State {
        &self.state
    }

    fn state_mut(&mut self) -> &mut State {
        &mut self.state
    }

    fn send(&mut self) -> &mut dyn SendHalf {
        self.send.as_mut()
    }

    fn recv(&mut self) -> &mut dyn RecvHalf {
        self.recv.as_mut()
    }

    fn apart(self: Box<Self>) -> Apart {
        *self
    }
}

/// The sending half of a [`Stream`].
pub struct SendStream {
    half: Box<dyn SendHalf>,
    facts: Facts,
}

/// The receiving half of a [`Stream`].
pub struct RecvStream {
    half: Box<dyn RecvHalf>,
    facts: Facts,
}

impl Stream {
    /// Makes a stream of its halves; for multiplexers.
    #[must_use]
    pub fn new(connection: Arc<ConnectionInfo>, send: impl SendHalf, recv: impl RecvHalf) -> Self {
        let facts = Facts { connection, protocol: None, held: None };
        let state = State { facts, sends: true, receives: true };
        Self { parts: Box::new(Together { send, recv, state }) }
    }

    /// Names the protocol that was negotiated; for hosts.
    #[must_use]
    pub fn with_protocol(mut self, protocol: ProtocolId) -> Self {
        self.parts.send().set_protocol(&protocol);
        self.parts.state_mut().facts.protocol = Some(protocol);
        self
    }

    /// Keeps `value` alive until both halves are at their end (shut down, read to the end, failed
    /// or dropped); for hosts.
    #[must_use]
    pub fn holding(mut self, value: Arc<dyn Any + Send + Sync>) -> Self {
        self.parts.state_mut().facts.held = Some(value);
        self
    }

    /// Puts a layer around the receiving half; for hosts.
    #[must_use]
    pub fn map_recv(self, layer: impl FnOnce(Box<dyn RecvHalf>) -> Box<dyn RecvHalf>) -> Self {
        let Apart { send, recv, state } = self.parts.apart();
        Self { parts: Box::new(Apart { send, recv: layer(recv), state }) }
    }

    /// Puts a layer around the sending half; for hosts.
    #[must_use]
    pub fn map_send(self, layer: impl FnOnce(Box<dyn SendHalf>) -> Box<dyn SendHalf>) -> Self {
        let Apart { send, recv, state } = self.parts.apart();
        Self { parts: Box::new(Apart { send: layer(send), recv, state }) }
    }

    /// The protocol that was negotiated; `None` before that.
    #[must_use]
    pub fn protocol(&self) -> Option<&ProtocolId> {
        self.parts.state().facts.protocol.as_ref()
    }

    /// The connection that carries the stream.
    #[must_use]
    pub fn connection(&self) -> &Arc<ConnectionInfo> {
        &self.parts.state().facts.connection
    }

    /// The peer at the other end, as the secure channel has verified it.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.connection().peer()
    }

    /// Sends `data` without copying it.
    ///
    /// # Errors
    /// [`StreamError`] when nothing can be sent any more.
    ///
    /// # Cancel safety
    /// What was not taken is in `data`.
    pub async fn send(&mut self, data: &mut Bytes) -> Result<(), StreamError> {
        send_all(self.parts.send(), data).await
    }

    /// Takes at most `max` received bytes without copying them; `None` is the peer's end.
    ///
    /// # Errors
    /// [`StreamError`] when the data end early.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn chunk(&mut self, max: usize) -> Result<Option<Bytes>, StreamError> {
        let result = poll_fn(|cx| self.parts.recv().poll_chunk(cx, max)).await;
        match &result {
            Ok(None) => self.parts.state_mut().end_recv(),
            Err(error) if is_final(error) => self.parts.state_mut().end(),
            Ok(Some(_)) | Err(_) => {}
        }
        result
    }

    /// Lets calls that read wait until `at` at most: then they fail with
    /// [`StreamError::DeadlinePassed`] (as `io::Error`: `TimedOut`). Nothing is lost by that: what
    /// comes in later can be read, once another deadline is set. `None`, as at first, waits for
    /// ever. What can be done without waiting is done after the deadline too.
    pub fn set_read_deadline(&mut self, at: Option<Instant>) {
        self.parts.recv().set_deadline(at);
    }

    /// The same for calls that write, which wait when the peer's window or the send buffer is
    /// full. `shutdown` and `reset` never wait.
    pub fn set_write_deadline(&mut self, at: Option<Instant>) {
        self.parts.send().set_deadline(at);
    }

    /// Ends the stream at once, in both directions, and tells the peer why where the protocol can.
    pub fn reset(&mut self, code: ErrorCode) {
        self.parts.send().reset(code);
        self.parts.state_mut().end();
    }

    /// Splits the stream for use in two tasks, without a lock between them.
    #[must_use]
    pub fn into_halves(self) -> (SendStream, RecvStream) {
        let Apart { send, recv, state: State { facts, sends, receives } } = self.parts.apart();
        let held = |open: bool| facts.held.clone().filter(|_| open);
        (
            SendStream { half: send, facts: Facts { held: held(sends), ..facts.clone() } },
            RecvStream { half: recv, facts: Facts { held: held(receives), ..facts } },
        )
    }
}

impl State {
    fn end_send(&mut self) {
        self.sends = false;
        if !self.receives {
            self.facts.held = None;
        }
    }

    fn end_recv(&mut self) {
        self.receives = false;
        if !self.sends {
            self.facts.held = None;
        }
    }

    /// Neither half is of use any more.
    fn end(&mut self) {
        self.end_send();
        self.end_recv();
    }
}

impl SendStream {
    /// Sends `data` without copying it.
    ///
    /// # Errors
    /// [`StreamError`] when nothing can be sent any more.
    ///
    /// # Cancel safety
    /// What was not taken is in `data`.
    pub async fn send(&mut self, data: &mut Bytes) -> Result<(), StreamError> {
        send_all(self.half.as_mut(), data).await
    }

    /// Lets calls that write wait until `at` at most; see [`Stream::set_write_deadline`]. Does not
    /// concern [`SendStream::stopped`].
    pub fn set_deadline(&mut self, at: Option<Instant>) {
        self.half.set_deadline(at);
    }

    /// Waits until the peer, or the end of the connection, makes sending pointless.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn stopped(&mut self) -> StreamError {
        poll_fn(|cx| self.half.poll_stopped(cx)).await
    }

    /// Ends the stream at once and tells the peer why, where the protocol can.
    pub fn reset(&mut self, code: ErrorCode) {
        self.half.reset(code);
        self.facts.held = None;
    }
}

impl RecvStream {
    /// Takes at most `max` received bytes without copying them; `None` is the peer's end.
    ///
    /// # Errors
    /// [`StreamError`] when the data end early.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn chunk(&mut self, max: usize) -> Result<Option<Bytes>, StreamError> {
        let result = poll_fn(|cx| self.half.poll_chunk(cx, max)).await;
        if matches!(result, Ok(None)) || result.as_ref().is_err_and(is_final) {
            self.facts.held = None;
        }
        result
    }

    /// Lets calls that read wait until `at` at most; see [`Stream::set_read_deadline`].
    pub fn set_deadline(&mut self, at: Option<Instant>) {
        self.half.set_deadline(at);
    }

    /// Gives up reading, and stops the peer as well as the protocol can say it.
    pub fn stop(&mut self, code: ErrorCode) {
        self.half.stop(code);
        self.facts.held = None;
    }
}

impl AsyncWrite for SendStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.half).poll_write(cx, buf));
        if result.as_ref().is_err_and(is_final_io) {
            self.facts.held = None;
        }
        Poll::Ready(result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.half).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = ready!(Pin::new(&mut self.half).poll_shutdown(cx));
        self.facts.held = None;
        Poll::Ready(result)
    }
}

impl AsyncRead for RecvStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = ready!(Pin::new(&mut self.half).poll_read(cx, buf));
        if is_end(&result, before, buf) || result.as_ref().is_err_and(is_final_io) {
            self.facts.held = None;
        }
        Poll::Ready(result)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(self.parts.send()).poll_write(cx, buf));
        if result.as_ref().is_err_and(is_final_io) {
            self.parts.state_mut().end_send();
        }
        Poll::Ready(result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.parts.send()).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = ready!(Pin::new(self.parts.send()).poll_shutdown(cx));
        self.parts.state_mut().end_send();
        Poll::Ready(result)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = ready!(Pin::new(self.parts.recv()).poll_read(cx, buf));
        if is_end(&result, before, buf) {
            self.parts.state_mut().end_recv();
        }
        if result.as_ref().is_err_and(is_final_io) {
            // A stream that was reset is of no use in either direction.
            self.parts.state_mut().end();
        }
        Poll::Ready(result)
    }
}

async fn send_all(half: &mut dyn SendHalf, data: &mut Bytes) -> Result<(), StreamError> {
    while !data.is_empty() {
        poll_fn(|cx| half.poll_send(cx, data)).await?;
    }
    Ok(())
}

/// Whether a read that began with `before` bytes in `buf` has found the end of the data.
fn is_end(result: &io::Result<()>, before: usize, buf: &ReadBuf<'_>) -> bool {
    result.is_ok() && buf.remaining() > 0 && buf.filled().len() == before
}

/// Whether a half is at its end with this error.
fn is_final(error: &StreamError) -> bool {
    !matches!(error, StreamError::DeadlinePassed)
}

fn is_final_io(error: &io::Error) -> bool {
    error.get_ref().and_then(|inner| inner.downcast_ref()).is_none_or(is_final)
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.state().facts.debug(f, "Stream")
    }
}

impl fmt::Debug for SendStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.facts.debug(f, "SendStream")
    }
}

impl fmt::Debug for RecvStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.facts.debug(f, "RecvStream")
    }
}

impl Facts {
    fn debug(&self, f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
        f.debug_struct(name)
            .field("protocol", &self.protocol)
            .field("peer", &self.connection.peer())
            .finish_non_exhaustive()
    }
}
