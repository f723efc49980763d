//! Opening a stream: a connection, a stream of it, and its protocol.

use std::{
    fmt,
    future::{Future, IntoFuture, poll_fn},
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use p2p_core::{
    ConnectionError, ErrorCode, OpenStream, ProtocolId, RecvHalf, Role, Stream, StreamError,
};
use p2p_multistream::{Initiator, NegotiationError};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tracing::Instrument as _;

use crate::{
    Cause, Host, OpenError, Stage, Target,
    connection::{Conn, Hold, within},
    dispatch::kept,
    host::Inner,
    upgrade::Progress,
};

/// A stream about to be opened, from [`Host::open`]: await it.
///
/// # Cancel safety
/// Cancel safe: dropped at any point, it leaves no stream behind, and a dial that nobody else
/// waits for is given up.
#[must_use = "nothing is opened until it is awaited"]
pub struct Opening {
    host: Host,
    request: Result<(Target, ProtocolId), OpenError>,
    optimistic: bool,
    timeout: Duration,
}

impl Opening {
    pub(crate) fn new(host: Host, request: Result<(Target, ProtocolId), OpenError>) -> Self {
        let timeout = host.inner.config.open_timeout;
        Self { host, request, optimistic: false, timeout }
    }

    /// Gives the stream without waiting for the peer to accept the protocol, which saves a round
    /// trip. When the peer does not support it, the first read fails with
    /// [`StreamError::Unsupported`], and what was written is lost: for requests that may be
    /// repeated (MSS-20, MSS-24).
    pub fn optimistic(mut self) -> Self {
        self.optimistic = true;
        self
    }

    /// How long opening may take once there is a connection. Default:
    /// [`Builder::open_timeout`](crate::Builder::open_timeout).
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = limit;
        self
    }

    async fn run(self) -> Result<Stream, OpenError> {
        let (target, protocol) = self.request?;
        let inner = &self.host.inner;
        let conn = inner.connect(&target, None, false).await?;
        let first = open_on(inner, &conn, &protocol, self.optimistic, self.timeout).await;
        match first {
            // The connection had just ended, and the registry did not know yet.
            Err(OpenError::Stream {
                stage: Stage::Stream, cause: Cause::Connection(_), ..
            }) => {
                let conn = inner.connect(&target, Some(conn.id), false).await?;
                open_on(inner, &conn, &protocol, self.optimistic, self.timeout).await
            }
            other => other,
        }
    }
}

impl IntoFuture for Opening {
    type Output = Result<Stream, OpenError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl fmt::Debug for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opening").field("request", &self.request).finish_non_exhaustive()
    }
}

/// Opens a stream of a connection, or of another one to its peer while this one has no room, and
/// keeps that one alive for it.
async fn open_on(
    host: &Inner,
    conn: &Arc<Conn>,
    protocol: &ProtocolId,
    optimistic: bool,
    limit: Duration,
) -> Result<Stream, OpenError> {
    open(host, Candidates::of_peer(host, conn), protocol, optimistic, limit).await
}

/// Opens a stream of one connection, without keeping the connection alive for it.
pub(crate) async fn open_counted(
    host: &Inner,
    conn: &Arc<Conn>,
    protocol: &ProtocolId,
    optimistic: bool,
    limit: Duration,
) -> Result<Stream, OpenError> {
    open(host, Candidates::only(host, conn), protocol, optimistic, limit).await
}

async fn open(
    host: &Inner,
    mut conns: Candidates<'_>,
    protocol: &ProtocolId,
    optimistic: bool,
    limit: Duration,
) -> Result<Stream, OpenError> {
    let progress = Progress::default();
    progress.reach(Stage::Stream);
    let conn = conns.first;
    let (role, peer) = (Role::Initiator, conn.peer());
    let span = conn.stream_span(role);
    span.record("protocol", protocol.as_str());
    let opening = async {
        let (place, protocol) = conn.account.stream(role)?.outbound_of(protocol);
        let negotiation = async {
            let (stream, hold) = poll_fn(|cx| conns.poll_open(cx)).await?;
            progress.reach(Stage::Protocol);
            Ok::<_, Cause>((negotiate(stream, &protocol, optimistic).await?, hold))
        };
        let (stream, hold) = within(limit, negotiation).await??;
        let (stream, open) = host.metrics.meter(stream, &protocol, role);
        tracing::debug!("opened");
        Ok::<_, Cause>(stream.holding(Arc::new((place, hold, open, kept(span.clone())))))
    };
    opening.instrument(span.clone()).await.map_err(|cause| {
        tracing::debug!(parent: &span, %cause, "failed");
        let protocol = protocol.clone();
        if let Cause::Negotiation(NegotiationError::Unsupported { .. }) = cause {
            return OpenError::Unsupported { peer, protocol };
        }
        OpenError::Stream { peer, protocol, stage: progress.stage(), cause }
    })
}

/// The connections that a stream may be opened on.
struct Candidates<'a> {
    host: &'a Inner,
    first: &'a Arc<Conn>,
    /// The other connections to its peer are to be asked, too, once it has no room.
    others: bool,
    openers: Vec<(Box<dyn OpenStream>, Option<Hold>)>,
}

impl<'a> Candidates<'a> {
    fn only(host: &'a Inner, first: &'a Arc<Conn>) -> Self {
        Self { host, first, others: false, openers: vec![(first.connection.opener(), None)] }
    }

    /// The one that carries the stream is held for it.
    fn of_peer(host: &'a Inner, first: &'a Arc<Conn>) -> Self {
        let openers = vec![(first.connection.opener(), Some(first.hold()))];
        Self { host, first, others: true, openers }
    }

    /// Opens a stream of the first connection that has room, best first (CONN-17). It fails only
    /// when none of them is left.
    fn poll_open(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(Stream, Option<Hold>), ConnectionError>> {
        loop {
            let (mut opened, mut failed) = (None, None);
            self.openers.retain_mut(|(opener, held)| {
                if opened.is_some() {
                    return true;
                }
                match opener.poll_open(cx) {
                    Poll::Ready(Ok(stream)) => opened = Some((stream, held.take())),
                    Poll::Ready(Err(error)) => failed = Some(error),
                    Poll::Pending => return true,
                }
                false
            });
            if let Some(opened) = opened {
                self.openers.clear();
                return Poll::Ready(Ok(opened));
            }
            if let Some(error) = failed.filter(|_| self.openers.is_empty()) {
                return Poll::Ready(Err(error));
            }
            if !std::mem::take(&mut self.others) {
                return Poll::Pending;
            }
            let others = self.host.registry().usable_of(&self.first.peer());
            let others = others.iter().filter(|conn| conn.id != self.first.id);
            self.openers.extend(others.map(|conn| (conn.connection.opener(), Some(conn.hold()))));
        }
    }
}

async fn negotiate(
    mut stream: Stream,
    protocol: &ProtocolId,
    optimistic: bool,
) -> Result<Stream, Cause> {
    if optimistic {
        return propose(stream, protocol).await;
    }
    match p2p_multistream::initiate(&mut stream, [protocol.clone()]).await {
        Ok(agreed) => Ok(stream.with_protocol(agreed)),
        Err(error) => {
            stream.reset(error.stream_code());
            Err(stream_cause(error))
        }
    }
}

/// Says plainly what ended a negotiation on a stream.
fn stream_cause(error: NegotiationError) -> Cause {
    let NegotiationError::Io(io) = &error else { return error.into() };
    match io.stream_error() {
        Some(StreamError::Connection(cause)) => Cause::Connection(cause.clone()),
        Some(cause) => Cause::Stream(cause.clone()),
        None => error.into(),
    }
}

/// Sends the proposal and leaves its answer to the first read.
async fn propose(mut stream: Stream, protocol: &ProtocolId) -> Result<Stream, Cause> {
    let mut negotiation = Initiator::new([protocol.clone()])?;
    let (mut wire, mut out) = (BytesMut::new(), BytesMut::new());
    negotiation.advance(&mut wire, &mut out)?;
    stream.write_all(&out).await.map_err(|error| Cause::Io(error.into()))?;
    let confirm = |inner| -> Box<dyn RecvHalf> {
        Box::new(Confirm { inner, pending: Some(negotiation), wire, protocol: protocol.clone() })
    };
    Ok(stream.with_protocol(protocol.clone()).map_recv(confirm))
}

/// The receiving half of an optimistic stream: takes the answer to the proposal off its front.
struct Confirm {
    inner: Box<dyn RecvHalf>,
    pending: Option<Initiator>,
    wire: BytesMut,
    protocol: ProtocolId,
}

impl Confirm {
    fn poll_confirm(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        while let Some(pending) = &mut self.pending {
            let wanted = pending.wanted(&self.wire);
            let Some(chunk) = ready!(self.inner.poll_chunk(cx, wanted))? else {
                let text = "the peer ended the stream before it answered the proposal";
                return Poll::Ready(Err(StreamError::Negotiation(text.into())));
            };
            self.wire.extend_from_slice(&chunk);
            match pending.advance(&mut self.wire, &mut BytesMut::new()) {
                Ok(None) => {}
                Ok(Some(_)) => {
                    self.pending = None;
                    self.wire = BytesMut::new();
                }
                Err(NegotiationError::Unsupported { .. }) => {
                    self.inner.reset(ErrorCode::STREAM_NEGOTIATION_FAILED);
                    return Poll::Ready(Err(StreamError::Unsupported(self.protocol.clone())));
                }
                Err(error) => {
                    self.inner.reset(error.stream_code());
                    return Poll::Ready(Err(StreamError::Negotiation(error.to_string())));
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl RecvHalf for Confirm {
    fn poll_chunk(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
    ) -> Poll<Result<Option<Bytes>, StreamError>> {
        ready!(self.poll_confirm(cx))?;
        self.inner.poll_chunk(cx, max)
    }

    fn set_deadline(&mut self, at: Option<Instant>) {
        self.inner.set_deadline(at);
    }

    fn stop(&mut self, code: ErrorCode) {
        self.inner.stop(code);
    }

    fn reset(&mut self, code: ErrorCode) {
        self.inner.reset(code);
    }
}

impl AsyncRead for Confirm {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_confirm(cx))?;
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}
