//! A connection's life at the host: its place in the registry, its task, its end.

use std::{
    fmt,
    future::{Future, poll_fn},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use p2p_core::{
    AcceptStream, Connection, ConnectionError, ConnectionInfo, ErrorCode, Multiaddr, Muxed, PeerId,
    ProtocolId, Role,
};
use p2p_mux::Driver;
use tokio::{
    sync::Semaphore,
    time::{Instant, error::Elapsed, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span};

use crate::{
    Cause, DialError, Event, LimitReached, dispatch,
    gate::GatePoint,
    host::Inner,
    identify::{self, Identification},
    ledger::{Account, Place},
    metrics::ConnectionOpen,
    push,
    watched::Watched,
};

/// Inbound streams of one connection whose protocol is being negotiated; further ones wait in
/// the multiplexer, which refuses them beyond its own limit.
const NEGOTIATING_MAX: usize = 128;

/// A connection in the host's registry.
pub(crate) struct Conn {
    pub(crate) id: u64,
    pub(crate) connection: Arc<dyn Connection>,
    pub(crate) account: Arc<Account>,
    pub(crate) begun: Instant,
    /// What keeps the connection alive.
    active: Watched<Active>,
    /// What the peer has said of itself.
    pub(crate) identification: Watched<Identification>,
    pub(crate) push: push::Queue,
    /// This side is closing it.
    closing: AtomicBool,
    /// The address that was dialed, where it has a name and no peer id.
    pub(crate) names: OnceLock<Vec<Multiaddr>>,
    /// What is logged of it and its streams is inside of this.
    pub(crate) span: Span,
    /// The connection's task has ended.
    pub(crate) ended: CancellationToken,
}

/// How many streams and guards keep a connection alive, and since when it is so.
#[derive(Clone, Copy, Debug)]
struct Active {
    streams: usize,
    guards: usize,
    since: Instant,
}

impl Active {
    fn count(&self) -> usize {
        self.streams.saturating_add(self.guards)
    }
}

impl Conn {
    pub(crate) fn info(&self) -> &Arc<ConnectionInfo> {
        self.connection.info()
    }

    pub(crate) fn peer(&self) -> PeerId {
        self.info().peer()
    }

    /// Closes the connection, and has nobody use it from here on.
    pub(crate) fn close(&self, code: ErrorCode, reason: &str) {
        self.closing.store(true, Ordering::Relaxed);
        self.connection.close(code, reason);
    }

    /// The span of one stream, which is to be told its protocol.
    pub(crate) fn stream_span(&self, role: Role) -> Span {
        let (connection, direction) = (self.id, direction(role));
        let protocol = tracing::field::Empty;
        let peer = self.peer();
        tracing::debug_span!(parent: &self.span, "stream", connection, direction, %peer, protocol)
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Counts one more stream of the connection, until what is returned is dropped.
    pub(crate) fn hold(self: &Arc<Self>) -> Hold {
        self.change_use(|active| active.streams += 1);
        Hold(Arc::clone(self))
    }

    fn change_use(&self, change: impl FnOnce(&mut Active)) {
        self.active.change(|active| {
            change(active);
            active.since = Instant::now();
        });
    }

    /// Waits until nothing keeps the connection alive.
    pub(crate) async fn wait_unused(&self) {
        tokio::select! {
            biased;
            () = self.active.wait(|active| (active.count() == 0).then_some(())) => {}
            () = self.ended.cancelled() => {}
        }
    }

    /// Waits until the connection's task has ended.
    pub(crate) async fn wait_ended(&self, until: Instant) -> Result<(), Elapsed> {
        timeout_at(until, self.ended.cancelled()).await
    }

    pub(crate) fn in_use(&self) -> usize {
        self.active.look(Active::count)
    }

    /// Whether a guard keeps it.
    pub(crate) fn is_kept(&self) -> bool {
        self.active.look(|active| active.guards > 0)
    }

    /// How many streams use it, and since when as many.
    pub(crate) fn use_of(&self) -> (usize, Instant) {
        self.active.look(|active| (active.streams, active.since))
    }
}

/// What a role is called where people read it.
pub(crate) fn direction(role: Role) -> &'static str {
    match role {
        Role::Initiator => "outbound",
        Role::Responder => "inbound",
    }
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn")
            .field("id", &self.id)
            .field("info", self.info())
            .finish_non_exhaustive()
    }
}

/// One more stream that uses a connection.
pub(crate) struct Hold(Arc<Conn>);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.change_use(|active| active.streams -= 1);
    }
}

/// Keeps a connection from being closed as idle, or to make room, until it is dropped.
#[must_use = "dropping the guard ends its effect"]
pub struct KeepAlive(Arc<Conn>);

impl KeepAlive {
    pub(crate) fn new(conn: &Arc<Conn>) -> Self {
        conn.change_use(|active| active.guards += 1);
        Self(Arc::clone(conn))
    }
}

impl Drop for KeepAlive {
    fn drop(&mut self) {
        self.0.change_use(|active| active.guards -= 1);
    }
}

impl fmt::Debug for KeepAlive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KeepAlive").field(&self.0.peer()).finish()
    }
}

impl Inner {
    /// Registers a new connection and starts its task. One that is refused keeps its place among
    /// the pending ones until it has ended.
    pub(crate) fn adopt(
        self: &Arc<Self>,
        muxed: Muxed,
        driver: Option<Driver>,
        mut place: Place,
    ) -> Result<Arc<Conn>, Cause> {
        let Muxed { connection, accept, .. } = muxed;
        let now = Instant::now();
        let id = self.next_id();
        let info = connection.info();
        let direction = direction(info.role());
        let span =
            tracing::debug_span!(parent: None, "connection", id, direction, peer = %info.peer());
        let conn = Arc::new(Conn {
            id,
            account: Account::new(&self.ledger, info.peer(), info.remote()),
            connection,
            begun: now,
            active: Watched::new(Active { streams: 0, guards: 0, since: now }),
            identification: Watched::new(Identification::Pending),
            push: push::Queue::default(),
            closing: AtomicBool::new(false),
            names: OnceLock::new(),
            span,
            ended: CancellationToken::new(),
        });
        if let Err(cause) = self.register(&conn, &mut place) {
            #[expect(clippy::wildcard_enum_match_arm, reason = "registering fails of three")]
            let code = match cause {
                Cause::Limit(_) => ErrorCode::CONNECTION_RESOURCE_LIMIT,
                Cause::Denied(_) => ErrorCode::CONNECTION_GATED,
                _ => ErrorCode::CONNECTION_SHUTDOWN,
            };
            conn.close(code, &cause.to_string());
            if let Some(driver) = driver {
                self.spawn(async move {
                    driver.await;
                    drop(place);
                });
            }
            return Err(cause);
        }
        let registered = Registered {
            host: Arc::clone(self),
            conn: Arc::clone(&conn),
            cause: None,
            place: Some(place),
            _open: ConnectionOpen::new(conn.info()),
        };
        let info = conn.info();
        self.peerstore.connected(info);
        self.backoff().succeeded(conn.peer(), info.remote());
        tracing::debug!(
            parent: &conn.span,
            remote = %info.remote(),
            security = info.security().map(ProtocolId::as_str),
            muxer = info.muxer().map(ProtocolId::as_str),
            "connected"
        );
        self.emit(Event::Connected { peer: conn.peer(), connection: Arc::clone(info) });
        self.spawn(run(registered, accept, driver.map(Box::new)).instrument(conn.span.clone()));
        self.trim_if_needed();
        self.buffers.notify_one();
        Ok(conn)
    }

    fn register(&self, conn: &Arc<Conn>, place: &mut Place) -> Result<(), Cause> {
        let info = conn.info();
        self.gate(GatePoint::Upgraded, Some(&conn.peer()), Some(info.remote()), |gater| {
            gater.upgraded(info)
        })?;
        place.settle(conn.peer())?;
        self.registry().add(conn)
    }
}

/// The task of a connection: drives it, takes its inbound streams, closes it when idle. Another one
/// writes while both directions are saturated.
async fn run(
    mut registered: Registered,
    accept: Box<dyn AcceptStream>,
    driver: Option<Box<Driver>>,
) {
    let (host, conn) = (Arc::clone(&registered.host), Arc::clone(&registered.conn));
    let identify = identify::ask(Arc::clone(&host), Arc::clone(&conn));
    host.spawn(identify.instrument(conn.span.clone()));
    let cause = {
        let streams = accept_streams(&host, &conn, accept);
        let idle = close_when_idle(&conn, host.config.idle_timeout);
        tokio::pin!(streams, idle);
        match driver {
            Some(mut driver) => {
                let both = async { tokio::join!(&mut streams, &mut idle) };
                tokio::select! {
                    biased;
                    cause = &mut driver => cause,
                    _ = both => driver.await,
                }
            }
            None => {
                tokio::select! {
                    biased;
                    cause = &mut streams => cause,
                    () = &mut idle => streams.await,
                }
            }
        }
    };
    registered.cause = Some(cause);
}

/// Takes the connection out of the registry, however its task ends: also when it never ran.
struct Registered {
    host: Arc<Inner>,
    conn: Arc<Conn>,
    cause: Option<ConnectionError>,
    place: Option<Place>,
    _open: ConnectionOpen,
}

impl Drop for Registered {
    fn drop(&mut self) {
        let peer = self.conn.peer();
        let cause = self.cause.take().unwrap_or(ConnectionError::Dropped);
        tracing::debug!(parent: &self.conn.span, %cause, "disconnected");
        self.conn.ended.cancel();
        self.conn.identification.change(|state| state.fail(&cause));
        self.host.sights.end(self.conn.id);
        self.host.peerstore.disconnected(peer);
        self.host.changes.mark();
        let left = self.host.registry().remove(&self.conn);
        // It is free before anybody is told.
        drop(self.place.take());
        self.host.emit(Event::Disconnected {
            peer,
            connection: Arc::clone(self.conn.info()),
            cause,
            left,
        });
    }
}

async fn accept_streams(
    host: &Arc<Inner>,
    conn: &Arc<Conn>,
    mut accept: Box<dyn AcceptStream>,
) -> ConnectionError {
    let negotiating = Arc::new(Semaphore::new(NEGOTIATING_MAX));
    loop {
        let permit = Arc::clone(&negotiating).acquire_owned().await;
        let permit = permit.expect("nobody closes this semaphore");
        match poll_fn(|cx| accept.poll_accept(cx)).await {
            // A host that is being closed takes nothing new.
            Ok(mut stream) if host.quiet.is_cancelled() => stream.reset(ErrorCode::NONE),
            Ok(mut stream) => match conn.account.stream(Role::Responder) {
                Ok(place) => {
                    dispatch::serve(Arc::clone(host), Arc::clone(conn), stream, place, permit);
                }
                Err(limit) => {
                    stream.reset(ErrorCode::STREAM_RESOURCE_LIMIT);
                    host.refused_stream(conn.peer(), None, limit);
                }
            },
            Err(cause) => return cause,
        }
    }
}

/// Closes the connection once nothing has used it for `limit`.
async fn close_when_idle(conn: &Conn, limit: Duration) {
    loop {
        conn.active.wait(|active| (active.count() == 0).then_some(())).await;
        tokio::select! {
            // One that is taken into use as its time runs out is in use.
            biased;
            () = conn.active.wait(|active| (active.count() > 0).then_some(())) => {}
            () = tokio::time::sleep(limit) => {
                conn.close(ErrorCode::NONE, "idle");
                return;
            }
        }
    }
}

/// Runs `work` under a time limit.
pub(crate) async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Result<T, Cause> {
    tokio::time::timeout(limit, work).await.map_err(|_| Cause::TimedOut(limit))
}

impl From<LimitReached> for DialError {
    fn from(limit: LimitReached) -> Self {
        Self::Limit(limit)
    }
}
