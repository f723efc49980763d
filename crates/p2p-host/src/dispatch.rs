//! Protocol dispatch: from an inbound stream to its protocol's handler.

use std::{
    collections::HashMap,
    error::Error,
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, PoisonError, RwLock, Weak},
    task::{Context, Poll},
    time::Duration,
};

use p2p_core::{ErrorCode, PeerId, ProtocolId, ProtocolIdError, Role, Stream};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tracing::Span;

use crate::{
    Event, LimitReached,
    connection::{Conn, within},
    host::Inner,
    ledger::{Max, StreamPlace},
    push::Changes,
};

/// How long a peer may take to name its protocol on a stream.
const NEGOTIATION_MAX: Duration = Duration::from_secs(10);
/// Streams that wait in an [`AcceptedStreams`]; the next is reset.
const ACCEPTED_MAX: usize = 32;

pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// A handler's future, whatever its error is. Around it there is no other one, which would take its
/// size twice.
trait Serving: Send {
    fn poll_serving(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>>;
}

impl<F, E> Serving for F
where
    F: Future<Output = Result<(), E>> + Send,
    E: Into<BoxError>,
{
    fn poll_serving(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.poll(cx).map_err(Into::into)
    }
}

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
    Handler(Box<dyn Fn(Stream) -> Pin<Box<dyn Serving>> + Send + Sync>),
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
        let handler = move |stream| -> Pin<Box<dyn Serving>> { Box::pin(handler(stream)) };
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

/// The task of one inbound stream: negotiates its protocol and runs the handler.
pub(crate) fn serve(
    host: Arc<Inner>,
    conn: Arc<Conn>,
    stream: Stream,
    place: StreamPlace,
    permit: OwnedSemaphorePermit,
) -> impl Future<Output = ()> + Send {
    // Boxed, it takes no memory while the handler runs.
    let begun = Box::pin(begin(host, conn, stream, place, permit));
    async move {
        // The place is kept to the end: it is a task, with a stream or without.
        let Some((mut serving, place)) = begun.await else { return };
        let served = poll_fn(|cx| serving.as_mut().poll_serving(cx)).await;
        drop(serving);
        if let Err(error) = served {
            let protocol = place.protocol();
            tracing::debug!(protocol = protocol.map(tracing::field::display), %error, "handler");
        }
    }
}

/// Negotiates the protocol of one inbound stream, and begins to serve it where it has a handler.
async fn begin(
    host: Arc<Inner>,
    conn: Arc<Conn>,
    mut stream: Stream,
    place: StreamPlace,
    permit: OwnedSemaphorePermit,
) -> Option<(Pin<Box<dyn Serving>>, Arc<StreamPlace>)> {
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
        Service::Handler(handler) => Some((handler(stream), place)),
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
