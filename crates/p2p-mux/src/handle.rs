//! The application's side: connections, streams and their halves.

use std::{
    fmt,
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::Bytes;
use p2p_core::{
    AcceptStream, Connection, ConnectionError, ConnectionInfo, ErrorCode, Muxed, Muxer, OpenStream,
    Pipe, ProtocolId, RecvHalf, Role, SendHalf, Stream, StreamError, StreamId,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    deadline::Deadline,
    desk::BULK_LEN,
    driver::{Driver, Setup},
    shared::{Interest, Shared},
};

/// Multiplexes `io`, as the client (the initiator) or the server. The driver must be spawned or
/// polled; it ends when the connection does.
///
/// `io` is used as it is: secure it first.
#[must_use]
pub fn connect<S>(io: S, muxer: &dyn Muxer, role: Role) -> (Mux, Driver)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (read, write) = tokio::io::split(io);
    let now = tokio::time::Instant::now().into_std();
    Setup::new(Pipe::new(read, write), muxer.start(role, now)).start()
}

/// A multiplexed connection: opens and accepts streams. Dropping it ends the connection once the
/// last of its streams is gone.
pub struct Mux {
    shared: Arc<Shared>,
}

impl Mux {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        shared.with(|state| state.add_handle());
        Self { shared }
    }

    /// Opens a stream, as soon as the peer allows one more.
    ///
    /// # Errors
    /// [`ConnectionError`] when the connection has ended or has no stream ids left.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is opened before it returns.
    pub async fn open(&self) -> Result<MuxStream, ConnectionError> {
        let mut opener = Opener::new(&self.shared);
        poll_fn(|cx| opener.poll_open(cx)).await
    }

    /// Takes the next stream that the peer opens.
    ///
    /// # Errors
    /// Why the connection has ended.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn accept(&mut self) -> Result<MuxStream, ConnectionError> {
        poll_fn(|cx| poll_accept(&self.shared, cx)).await
    }

    /// Ends the connection: what was written to streams that are shut down is still sent, then
    /// the goodbye; everything else is reset.
    pub fn close(&self, code: ErrorCode, reason: &str) {
        self.shared.with(|state| state.close(code, reason));
    }

    /// The connection in the form that hosts use.
    #[must_use]
    pub fn into_muxed(self, info: ConnectionInfo) -> Muxed {
        let info = Arc::new(info);
        let connection =
            MuxConnection { mux: Self::new(Arc::clone(&self.shared)), info: Arc::clone(&info) };
        Muxed::new(Arc::new(connection), Box::new(Acceptor { mux: self, info }))
    }
}

impl Drop for Mux {
    fn drop(&mut self) {
        self.shared.with(|state| state.remove_handle());
    }
}

impl fmt::Debug for Mux {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mux").finish_non_exhaustive()
    }
}

fn poll_accept(
    shared: &Arc<Shared>,
    cx: &mut Context<'_>,
) -> Poll<Result<MuxStream, ConnectionError>> {
    let id = ready!(shared.with(|state| state.poll_accept(cx)))?;
    Poll::Ready(Ok(MuxStream::new(shared, id)))
}

struct Opener {
    shared: Arc<Shared>,
    key: u64,
}

impl Opener {
    fn new(shared: &Arc<Shared>) -> Self {
        let key = shared.with(|state| state.new_opener());
        Self { shared: Arc::clone(shared), key }
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Result<MuxStream, ConnectionError>> {
        let id = ready!(self.shared.with(|state| state.poll_open(cx, self.key)))?;
        Poll::Ready(Ok(MuxStream::new(&self.shared, id)))
    }
}

impl Drop for Opener {
    fn drop(&mut self) {
        self.shared.with(|state| state.drop_opener(self.key));
    }
}

/// A [`Mux`] with what is known of its peer.
struct MuxConnection {
    mux: Mux,
    info: Arc<ConnectionInfo>,
}

impl Connection for MuxConnection {
    fn info(&self) -> &Arc<ConnectionInfo> {
        &self.info
    }

    fn opener(&self) -> Box<dyn OpenStream> {
        Box::new(ConnectionOpener {
            opener: Opener::new(&self.mux.shared),
            info: Arc::clone(&self.info),
        })
    }

    fn close(&self, code: ErrorCode, reason: &str) {
        self.mux.close(code, reason);
    }

    fn buffered(&self) -> usize {
        self.mux.shared.with(|state| state.core.buffered())
    }

    fn buffered_by_protocol(&self, each: &mut dyn FnMut(Option<&ProtocolId>, usize)) {
        self.mux.shared.with(|state| state.core.buffered_by_protocol(each));
    }
}

impl fmt::Debug for MuxConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MuxConnection").field("info", &self.info).finish_non_exhaustive()
    }
}

struct ConnectionOpener {
    opener: Opener,
    info: Arc<ConnectionInfo>,
}

impl OpenStream for ConnectionOpener {
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Result<Stream, ConnectionError>> {
        let stream = ready!(self.opener.poll_open(cx))?;
        Poll::Ready(Ok(stream.into_stream(Arc::clone(&self.info))))
    }
}

struct Acceptor {
    mux: Mux,
    info: Arc<ConnectionInfo>,
}

impl AcceptStream for Acceptor {
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<Stream, ConnectionError>> {
        let stream = ready!(poll_accept(&self.mux.shared, cx))?;
        Poll::Ready(Ok(stream.into_stream(Arc::clone(&self.info))))
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.mux.shared.with(|state| state.core.refuse_inbound());
    }
}

/// A stream of a [`Mux`]. Dropped before its `shutdown`, it is reset.
#[derive(Debug)]
pub struct MuxStream {
    send: MuxSend,
    recv: MuxRecv,
}

impl MuxStream {
    fn new(shared: &Arc<Shared>, id: StreamId) -> Self {
        Self {
            send: MuxSend { shared: Arc::clone(shared), id, deadline: Deadline::default() },
            recv: MuxRecv { shared: Arc::clone(shared), id, deadline: Deadline::default() },
        }
    }

    fn into_stream(self, info: Arc<ConnectionInfo>) -> Stream {
        Stream::new(info, self.send, self.recv)
    }

    /// Lets calls that read wait until `at` at most: then they fail with
    /// [`StreamError::DeadlinePassed`] (as `io::Error`: `TimedOut`), and nothing is lost. `None`,
    /// as at first, waits for ever.
    pub fn set_read_deadline(&mut self, at: Option<Instant>) {
        self.recv.set_deadline(at);
    }

    /// The same for calls that write. `shutdown` never waits.
    pub fn set_write_deadline(&mut self, at: Option<Instant>) {
        self.send.set_deadline(at);
    }

    /// Splits the stream for use in two tasks.
    #[must_use]
    pub fn into_halves(self) -> (MuxSend, MuxRecv) {
        (self.send, self.recv)
    }
}

/// The sending half of a [`MuxStream`].
pub struct MuxSend {
    shared: Arc<Shared>,
    id: StreamId,
    deadline: Deadline,
}

impl SendHalf for MuxSend {
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        data: &mut Bytes,
    ) -> Poll<Result<(), StreamError>> {
        let len = data.len();
        let sent = self.shared.poll_write(cx, self.id, |core| {
            let sent = core.write(self.id, data);
            let much = matches!(sent, Poll::Ready(Ok(()))) && is_bulk(len, data.len());
            (sent, much)
        });
        self.deadline.limit(cx, sent)
    }

    fn set_deadline(&mut self, at: Option<Instant>) {
        self.deadline.set(at);
    }

    fn reset(&mut self, code: ErrorCode) {
        self.shared.with(|state| state.core.reset(self.id, code));
    }

    fn poll_stopped(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        self.shared.poll(cx, self.id, Interest::Stopped, |core| core.stopped(self.id))
    }

    fn set_protocol(&mut self, protocol: &ProtocolId) {
        self.shared.with(|state| state.core.set_protocol(self.id, protocol));
    }
}

/// Whether one that has written all but `left` of `len` bytes is likely to go on.
fn is_bulk(len: usize, left: usize) -> bool {
    left > 0 || len >= BULK_LEN
}

impl AsyncWrite for MuxSend {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let id = self.id;
        let sent = self.shared.poll_write(cx, id, |core| {
            let sent = core.write_slice(id, buf);
            let left = |count| buf.len().saturating_sub(count);
            let much = matches!(sent, Poll::Ready(Ok(count)) if is_bulk(buf.len(), left(count)));
            (sent, much)
        });
        self.deadline.limit(cx, sent).map_err(io::Error::from)
    }

    /// Nothing to do: what was written is on its way.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let finished = self.shared.with(|state| state.core.finish(self.id));
        Poll::Ready(finished.map_err(io::Error::from))
    }
}

impl Drop for MuxSend {
    fn drop(&mut self) {
        self.shared.with(|state| state.release_send(self.id));
    }
}

impl fmt::Debug for MuxSend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MuxSend").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The receiving half of a [`MuxStream`].
pub struct MuxRecv {
    shared: Arc<Shared>,
    id: StreamId,
    deadline: Deadline,
}

impl RecvHalf for MuxRecv {
    fn poll_chunk(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
    ) -> Poll<Result<Option<Bytes>, StreamError>> {
        let read = self.shared.poll(cx, self.id, Interest::Read, |core| core.read(self.id, max));
        self.deadline.limit(cx, read)
    }

    fn set_deadline(&mut self, at: Option<Instant>) {
        self.deadline.set(at);
    }

    fn stop(&mut self, code: ErrorCode) {
        self.shared.with(|state| state.core.stop(self.id, code));
    }

    fn reset(&mut self, code: ErrorCode) {
        self.shared.with(|state| state.core.reset(self.id, code));
    }
}

impl AsyncRead for MuxRecv {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let id = self.id;
        let read = self.shared.poll(cx, id, Interest::Read, |core| core.read_buf(id, buf));
        self.deadline.limit(cx, read).map(|read| read.map(drop).map_err(io::Error::from))
    }
}

impl Drop for MuxRecv {
    fn drop(&mut self) {
        self.shared.with(|state| state.release_recv(self.id));
    }
}

impl fmt::Debug for MuxRecv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MuxRecv").field("id", &self.id).finish_non_exhaustive()
    }
}

impl AsyncRead for MuxStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.recv).poll_read(cx, buf)
    }
}

impl AsyncWrite for MuxStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.send).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.send).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.send).poll_shutdown(cx)
    }
}
