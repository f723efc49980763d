//! Protocol dispatch: from an inbound stream to its protocol's handler.

use std::{
    collections::HashMap,
    error::Error,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, PoisonError, RwLock, Weak},
    task::{Context, Poll, ready},
    time::Duration,
};

use p2p_core::{ErrorCode, PeerId, ProtocolId, ProtocolIdError, Role, Stream};
use pin_project_lite::pin_project;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tracing::{Instrument as _, Span};

use crate::{
    Event, LimitReached,
    connection::{Conn, within},
    host::Inner,
    ledger::{Max, StreamPlace},
    push::Changes,
    tasks::Running,
};

/// How long a peer may take to name its protocol on a stream.
const NEGOTIATION_MAX: Duration = Duration::from_secs(10);
/// Streams that wait in an [`AcceptedStreams`]; the next is reset.
const ACCEPTED_MAX: usize = 32;

pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// Why a protocol cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandleError {
    /// The name is not valid.
    #[error(transparent)]
    Protocol(#[from] ProtocolIdError),
    /// Another handler serves it.
    #[error("{0} is served already")]
    Taken(ProtocolId),
}

/// The protocols that a host serves.
#[derive(Default)]
pub(crate) struct Protocols {
    served: RwLock<HashMap<ProtocolId, Arc<Served>>>,
    changes: Changes,
}

/// One protocol that is served.
struct Served {
    service: Service,
    limits: Limits,
}

enum Service {
    Handler(Box<dyn Fn(Stream, Kept) -> Serving + Send + Sync>),
    Queue(mpsc::Sender<Stream>),
}

/// How many streams of a protocol are served at once (`None`: as many as the host's settings
/// say), and whether they keep a connection alive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) streams_max: Option<Max>,
    pub(crate) streams_of_peer_max: Option<Max>,
    pub(crate) keeps_alive: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { streams_max: None, streams_of_peer_max: None, keeps_alive: true }
    }
}

impl Protocols {
    pub(crate) fn new(changes: Changes) -> Self {
        Self { changes, ..Self::default() }
    }

    pub(crate) fn handle<F, Fut, E>(&self, id: ProtocolId, handler: F) -> Result<(), HandleError>
    where
        F: Fn(Stream) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.handle_within(id, Limits::default(), handler)
    }

    pub(crate) fn handle_within<F, Fut, E>(
        &self,
        id: ProtocolId,
        limits: Limits,
        handler: F,
    ) -> Result<(), HandleError>
    where
        F: Fn(Stream) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let handler =
            move |stream, kept| Serving(Box::pin(Handling { handler: handler(stream), kept }));
        self.insert(id, Served { service: Service::Handler(Box::new(handler)), limits })?;
        Ok(())
    }

    fn insert(&self, id: ProtocolId, new: Served) -> Result<Arc<Served>, HandleError> {
        let mut served = self.served.write().unwrap_or_else(PoisonError::into_inner);
        if served.contains_key(&id) {
            return Err(HandleError::Taken(id));
        }
        let new = Arc::new(new);
        served.insert(id, Arc::clone(&new));
        self.changes.mark();
        Ok(new)
    }

    pub(crate) fn remove(&self, id: &str) -> bool {
        // What a handler holds is dropped without the lock: it may come back here.
        let removed = self.served.write().unwrap_or_else(PoisonError::into_inner).remove(id);
        self.changes.mark();
        removed.is_some()
    }

    /// Removes what is served under `id` if it is still `own`.
    fn remove_own(&self, id: &str, own: &Weak<Served>) {
        let mut served = self.served.write().unwrap_or_else(PoisonError::into_inner);
        let still = |found: &Arc<Served>| std::ptr::eq(Arc::as_ptr(found), own.as_ptr());
        let removed = if served.get(id).is_some_and(still) { served.remove(id) } else { None };
        drop(served);
        self.changes.mark();
        drop(removed);
    }

    pub(crate) fn clear(&self) {
        let all = std::mem::take(&mut *self.served.write().unwrap_or_else(PoisonError::into_inner));
        drop(all);
    }

    fn get(&self, id: &str) -> Option<Arc<Served>> {
        self.served.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// The names, sorted.
    pub(crate) fn names(&self) -> Vec<ProtocolId> {
        let served = self.served.read().unwrap_or_else(PoisonError::into_inner);
        let mut names: Vec<ProtocolId> = served.keys().cloned().collect();
        names.sort_unstable();
        names
    }
}

impl Inner {
    /// Tells of a stream that a limit has refused.
    pub(crate) fn refused_stream(
        &self,
        peer: PeerId,
        protocol: Option<ProtocolId>,
        limit: LimitReached,
    ) {
        tracing::debug!(%peer, ?protocol, %limit, "stream refused");
        self.emit_refusal(Event::StreamRefused { peer, protocol, limit });
    }
}

/// Starts the task of one inbound stream, which negotiates its protocol and runs the handler.
pub(crate) fn serve(
    host: Arc<Inner>,
    conn: Arc<Conn>,
    stream: Stream,
    place: StreamPlace,
    permit: OwnedSemaphorePermit,
) {
    let (tasks, runtime) = (host.tasks.clone(), host.runtime.clone());
    let span = conn.stream_span(Role::Responder);
    let begin = |running| Serving(Box::pin(begin(host, conn, stream, place, permit, running)));
    // A span that is disabled takes no memory.
    if span.is_disabled() {
        tasks.spawn(&runtime, begin);
    } else {
        tasks.spawn(&runtime, |running| begin(running).instrument(span));
    }
}

/// What an inbound stream's task is at: the negotiation, which is followed by the handler. Each has its
/// memory while it runs; the task itself has two words.
struct Serving(Pin<Box<dyn Future<Output = Option<Serving>> + Send>>);

impl Future for Serving {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(next) = ready!(self.0.as_mut().poll(cx)) {
            *self = next;
        }
        Poll::Ready(())
    }
}

/// What a handler's task keeps to its end, with its stream or without.
struct Kept {
    place: Arc<StreamPlace>,
    _running: Running,
}

pin_project! {
    /// A handler that runs. Around its future there is no other one, which would take its size twice.
    struct Handling<F> {
        #[pin]
        handler: F,
        kept: Kept,
    }
}

impl<F, E> Future for Handling<F>
where
    F: Future<Output = Result<(), E>>,
    E: Into<BoxError>,
{
    type Output = Option<Serving>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Err(error) = ready!(this.handler.poll(cx)) {
            let protocol = this.kept.place.protocol().map(tracing::field::display);
            tracing::debug!(protocol, error = %error.into(), "handler");
        }
        Poll::Ready(None)
    }
}

/// Negotiates the protocol of one inbound stream, and begins to serve it where it has a handler.
async fn begin(
    host: Arc<Inner>,
    conn: Arc<Conn>,
    mut stream: Stream,
    place: StreamPlace,
    permit: OwnedSemaphorePermit,
    running: Running,
) -> Option<Serving> {
    let mut found = None;
    let supports = |name: &str| {
        found = host.protocols.get(name);
        found.is_some()
    };
    let negotiation = p2p_multistream::respond(&mut stream, supports);
    let protocol = match within(NEGOTIATION_MAX, negotiation).await {
        Ok(Ok(protocol)) => protocol,
        Ok(Err(error)) => {
            tracing::debug!(%error, "inbound stream");
            stream.reset(error.stream_code());
            return None;
        }
        Err(cause) => {
            tracing::debug!(%cause, "inbound stream");
            stream.reset(ErrorCode::STREAM_NEGOTIATION_FAILED);
            return None;
        }
    };
    drop(permit);
    let Some(served) = found else {
        stream.reset(ErrorCode::STREAM_NEGOTIATION_FAILED);
        return None;
    };
    let Limits { streams_max, streams_of_peer_max, .. } = served.limits;
    let (place, protocol) = match place.inbound_of(&protocol, streams_max, streams_of_peer_max) {
        Ok((place, protocol)) => (Arc::new(place), protocol),
        Err(limit) => {
            stream.reset(ErrorCode::STREAM_RESOURCE_LIMIT);
            host.refused_stream(conn.peer(), Some(protocol), limit);
            return None;
        }
    };
    let span = Span::current();
    span.record("protocol", protocol.as_str());
    tracing::debug!("opened");
    let hold = served.limits.keeps_alive.then(|| conn.hold());
    let (stream, open) = host.metrics.meter(stream, &protocol, Role::Responder);
    let held = Arc::new((Arc::clone(&place), hold, open, kept(span)));
    let stream = stream.with_protocol(protocol).holding(held);
    match &served.service {
        Service::Handler(handler) => Some(handler(stream, Kept { place, _running: running })),
        Service::Queue(queue) => {
            if let Err(refused) = queue.try_send(stream) {
                refused.into_inner().reset(ErrorCode::STREAM_RESOURCE_LIMIT);
            }
            None
        }
    }
}

/// What a stream holds of its span, so that it lasts as long: mostly there is none.
pub(crate) fn kept(span: Span) -> Option<Box<Span>> {
    (!span.is_disabled()).then(|| Box::new(span))
}

/// The inbound streams of one protocol, from [`Host::accept`](crate::Host::accept). Dropping it
/// ends the service.
pub struct AcceptedStreams {
    streams: mpsc::Receiver<Stream>,
    host: Weak<Inner>,
    served: Weak<Served>,
    protocol: ProtocolId,
}

impl AcceptedStreams {
    pub(crate) fn register(host: &Arc<Inner>, protocol: ProtocolId) -> Result<Self, HandleError> {
        let (queue, streams) = mpsc::channel(ACCEPTED_MAX);
        let served = Served { service: Service::Queue(queue), limits: Limits::default() };
        let served = Arc::downgrade(&host.protocols.insert(protocol.clone(), served)?);
        Ok(Self { streams, host: Arc::downgrade(host), served, protocol })
    }

    /// Waits for the next stream; `None` once the protocol is not served any more.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn next(&mut self) -> Option<Stream> {
        self.streams.recv().await
    }
}

impl Drop for AcceptedStreams {
    fn drop(&mut self) {
        if let Some(host) = self.host.upgrade() {
            host.protocols.remove_own(self.protocol.as_str(), &self.served);
        }
    }
}

impl fmt::Debug for AcceptedStreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcceptedStreams").field("protocol", &self.protocol).finish_non_exhaustive()
    }
}
