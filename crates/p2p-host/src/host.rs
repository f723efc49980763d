use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    fmt,
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use p2p_core::{
    AddrExt, ConnectionError, ConnectionInfo, ErrorCode, Keypair, Multiaddr, PeerId, ProtocolId,
    Role, Stream, Transport,
};
use tokio::{
    runtime::Handle,
    sync::{Notify, Semaphore, broadcast},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    AcceptedStreams, Cause, DialError, Event, Events, HandleError, IntoTarget, KeepAlive,
    ListenError, OpenError, Opening, Target, Usage, UsageReport,
    backoff::Backoff,
    connection::Conn,
    dial::{Dial, DialKey},
    dispatch::{BoxError, Protocols},
    gate::{Access, GatePoint, Gater},
    identify::{OwnRecord, PeerInfo},
    ip::is_relayed,
    ledger::{HostLimits, Ledger},
    listen::Addresses,
    metrics::Metrics,
    observed::Sights,
    peerstore::Peerstore,
    ping::{PingError, Pinger},
    push::Changes,
    resolve::Resolver,
    tasks::Tasks,
    trim::{Marks, Watermarks},
    upgrade::Upgrader,
    world::World,
};

/// How long the tasks of a host that is being closed may take once their connections are told.
const END_MAX: Duration = Duration::from_secs(6);

/// The settings of a host; see [`Builder`](crate::Builder).
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) agent: String,
    pub(crate) idle_timeout: Duration,
    pub(crate) busy_poll: Duration,
    pub(crate) drain_timeout: Duration,
    pub(crate) inbound_timeout: Duration,
    pub(crate) address_timeout: Duration,
    pub(crate) dial_timeout: Duration,
    pub(crate) open_timeout: Duration,
    pub(crate) limits: HostLimits,
    pub(crate) watermarks: Watermarks,
    pub(crate) tagged_peers_max: usize,
    pub(crate) resolver: Resolver,
}

/// A libp2p node. Cheap to clone; every clone is the same host. When the last clone is dropped
/// the host ends at once; [`Host::close`] ends it gracefully.
#[derive(Clone)]
pub struct Host {
    pub(crate) inner: Arc<Inner>,
    _owner: Arc<Owner>,
}

/// Ends the host's tasks when the last handle is gone.
struct Owner(Arc<Inner>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// What the host's tasks share.
pub(crate) struct Inner {
    pub(crate) identity: Keypair,
    pub(crate) world: World,
    pub(crate) own: PeerId,
    pub(crate) config: Config,
    pub(crate) transports: Vec<Box<dyn Transport>>,
    pub(crate) upgrader: Upgrader,
    pub(crate) protocols: Protocols,
    gater: Mutex<Option<Arc<dyn Gater>>>,
    pub(crate) changes: Changes,
    pub(crate) sights: Sights,
    pub(crate) peerstore: Peerstore,
    pub(crate) addresses: Addresses,
    pub(crate) own_record: OwnRecord,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) metrics: Metrics,
    /// There is a connection whose buffers are to be looked at.
    pub(crate) buffers: Notify,
    /// Dials of addresses that may go on at once.
    pub(crate) dials_at_once: Semaphore,
    registry: Mutex<Registry>,
    events: broadcast::Sender<Event>,
    pub(crate) tasks: Tasks,
    pub(crate) runtime: Handle,
    /// Ends everything.
    pub(crate) end: CancellationToken,
    /// Ends listening and dialing.
    pub(crate) quiet: CancellationToken,
    ids: AtomicU64,
    backoff: Mutex<Backoff>,
}

impl Inner {
    pub(crate) fn new(
        identity: Keypair,
        world: World,
        config: Config,
        transports: Vec<Box<dyn Transport>>,
        upgrader: Upgrader,
        gater: Option<Arc<dyn Gater>>,
        runtime: Handle,
    ) -> Arc<Self> {
        let end = CancellationToken::new();
        let changes = Changes::default();
        Arc::new(Self {
            own: identity.public().peer_id(),
            peerstore: Peerstore::new(identity.public().peer_id()),
            identity,
            world,
            ledger: Ledger::new(config.limits),
            metrics: Metrics::new(),
            buffers: Notify::new(),
            dials_at_once: Semaphore::new(
                config.limits.dials_at_once_max.min(Semaphore::MAX_PERMITS),
            ),
            config,
            transports,
            upgrader,
            gater: Mutex::new(gater),
            protocols: Protocols::new(changes.clone()),
            changes,
            sights: Sights::default(),
            addresses: Addresses::default(),
            own_record: OwnRecord::default(),
            registry: Mutex::new(Registry::default()),
            events: broadcast::Sender::new(crate::event::EVENTS_MAX),
            tasks: Tasks::default(),
            runtime,
            quiet: end.child_token(),
            end,
            ids: AtomicU64::new(0),
            backoff: Mutex::default(),
        })
    }

    pub(crate) fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn backoff(&self) -> MutexGuard<'_, Backoff> {
        self.backoff.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn gater(&self) -> Option<Arc<dyn Gater>> {
        self.gater.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    /// Tells of something that was refused, but not so often that other events are lost by it.
    pub(crate) fn emit_refusal(&self, event: Event) {
        if self.ledger.may_tell(Instant::now()) {
            self.emit(event);
        }
    }

    pub(crate) fn emit(&self, event: Event) {
        // Nobody needs to listen: without a subscriber there is nobody to tell.
        drop(self.events.send(event));
    }

    /// Spawns a task of the host; it is dropped where it stands when the host ends.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        // A future that another one captures and awaits takes its size twice: 3 KiB of an idle
        // connection.
        let task = Box::pin(task);
        self.tasks.spawn(&self.runtime, |running| async move {
            let _running = running;
            task.await;
        });
    }

    /// Ends every task.
    fn end(&self) {
        self.end.cancel();
        self.tasks.end();
    }

    pub(crate) fn transport(&self, addr: &Multiaddr) -> Option<&dyn Transport> {
        self.transports.iter().find(|transport| transport.supports(addr)).map(AsRef::as_ref)
    }
}

/// The connections of a host, and the dials under way.
#[derive(Default)]
pub(crate) struct Registry {
    /// In their peers' order, so that whatever is done to all of them is done in the same order in
    /// every run of a simulation.
    by_peer: BTreeMap<PeerId, Vec<Arc<Conn>>>,
    pub(crate) dials: HashMap<DialKey, Dial>,
    pub(crate) access: Access,
    pub(crate) marks: Marks,
    /// A task looks after there being too many connections.
    pub(crate) trimming: bool,
    closed: bool,
}

impl Registry {
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Adds a connection, unless the host is closed, or has been told meanwhile to deny it.
    pub(crate) fn add(&mut self, conn: &Arc<Conn>) -> Result<(), Cause> {
        if self.closed {
            let reason = "the host is closed".into();
            let code = ErrorCode::CONNECTION_SHUTDOWN;
            return Err(ConnectionError::Closed { code, reason }.into());
        }
        let (peer, remote) = (conn.peer(), conn.info().remote());
        self.access.check(GatePoint::Upgraded, Some(&peer), Some(remote))?;
        self.by_peer.entry(conn.peer()).or_default().push(Arc::clone(conn));
        Ok(())
    }

    /// Removes a connection, and says how many to its peer are left.
    pub(crate) fn remove(&mut self, conn: &Arc<Conn>) -> usize {
        let peer = conn.peer();
        let Some(conns) = self.by_peer.get_mut(&peer) else { return 0 };
        conns.retain(|other| other.id != conn.id);
        let left = conns.len();
        if left == 0 {
            self.by_peer.remove(&peer);
        }
        left
    }

    /// The connection that a new stream to `peer` goes over.
    pub(crate) fn connection_to(&self, peer: &PeerId) -> Option<Arc<Conn>> {
        best(self.by_peer.get(peer)?.iter())
    }

    /// The connection to `target` that can be used: to its peer, or, where no peer is named, one
    /// that was dialed to its addresses. `avoid` is one that has just failed.
    pub(crate) fn usable(&self, target: &Target, avoid: Option<u64>) -> Option<Arc<Conn>> {
        let usable = |conn: &&Arc<Conn>| Some(conn.id) != avoid;
        if let Some(peer) = &target.peer {
            return best(self.by_peer.get(peer)?.iter().filter(usable));
        }
        let dialed = |conn: &&Arc<Conn>| {
            let by_name = || conn.names.get().is_some_and(|names| *names == target.addrs);
            conn.info().role() == Role::Initiator
                && (target.addrs.contains(conn.info().remote()) || by_name())
        };
        best(self.by_peer.values().flatten().filter(dialed).filter(usable))
    }

    /// The connections to `peer` that nobody is closing, best first.
    pub(crate) fn usable_of(&self, peer: &PeerId) -> Vec<Arc<Conn>> {
        let mut conns = self.of_peer(peer);
        conns.retain(|conn| !conn.is_closing());
        conns.sort_by_cached_key(|conn| Reverse(rank(conn)));
        conns
    }

    /// The connections that nobody on this side is closing.
    pub(crate) fn open(&self) -> impl Iterator<Item = &Arc<Conn>> {
        self.by_peer.values().flatten().filter(|conn| !conn.is_closing())
    }

    /// The connections to `peer`, oldest first.
    pub(crate) fn of_peer(&self, peer: &PeerId) -> Vec<Arc<Conn>> {
        self.by_peer.get(peer).cloned().unwrap_or_default()
    }

    /// The newest connection to each peer.
    pub(crate) fn newest(&self) -> Vec<Arc<Conn>> {
        self.by_peer.keys().filter_map(|peer| self.connection_to(peer)).collect()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Conn>> {
        self.by_peer.values().flatten().cloned().collect()
    }
}

/// The connection to use, of those that nobody is closing: a direct one, then the one with the
/// most streams, so that both sides come to use the same, then the newest (CONN-17).
fn best<'a>(conns: impl Iterator<Item = &'a Arc<Conn>>) -> Option<Arc<Conn>> {
    conns.filter(|conn| !conn.is_closing()).max_by_key(|conn| rank(conn)).cloned()
}

fn rank(conn: &Conn) -> (bool, usize, u64) {
    (!is_relayed(conn.info().remote()), conn.use_of().0, conn.id)
}

impl Host {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        let owner = Arc::new(Owner(Arc::clone(&inner)));
        Self { inner, _owner: owner }
    }

    /// This host's peer id.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        self.inner.own
    }

    /// The addresses under which the host can be reached, as texts that end in `/p2p/<id>`. A
    /// wildcard address stands here as those of the machine's interfaces.
    #[must_use]
    pub fn addrs(&self) -> Vec<String> {
        self.multiaddrs().iter().map(ToString::to_string).collect()
    }

    /// The same as [`Host::addrs`], as addresses.
    #[must_use]
    pub fn multiaddrs(&self) -> Vec<Multiaddr> {
        let own = self.inner.own;
        self.inner.addresses.all().iter().map(|addr| addr.with_peer(&own)).collect()
    }

    /// The addresses, ending in `/p2p/<id>`, that peers see the host at beside those that it
    /// listens on, as behind a router that forwards a port: for each listen address at most three
    /// that four observers of different IP ranges agree on (IDENT-17). Peers are told of them.
    #[must_use]
    pub fn observed_addrs(&self) -> Vec<Multiaddr> {
        let own = self.inner.own;
        self.inner.sights.believed().iter().map(|addr| addr.with_peer(&own)).collect()
    }

    /// Listens on one more address, and gives those under which it can be reached, without
    /// `/p2p`. It accepts from the moment this returns.
    ///
    /// # Errors
    /// [`ListenError`] names the address and the cause.
    ///
    /// # Cancel safety
    /// Dropped before it returns, it may listen or not.
    pub async fn listen(&self, addr: impl AsRef<str>) -> Result<Vec<Multiaddr>, ListenError> {
        self.inner.listen(addr.as_ref()).await
    }

    /// Has `handler` serve the streams that peers open for `protocol`, each in a task of its own.
    /// A handler that fails, panics or returns without `shutdown` resets its stream; nothing else
    /// is affected. One that holds a handle of this host keeps it alive until [`Host::close`].
    ///
    /// # Errors
    /// [`HandleError`] when the name is not valid, or is served already.
    pub fn handle<P, F, Fut, E>(&self, protocol: P, handler: F) -> Result<(), HandleError>
    where
        P: TryInto<ProtocolId>,
        P::Error: Into<p2p_core::ProtocolIdError>,
        F: Fn(Stream) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let protocol = protocol.try_into().map_err(Into::into)?;
        self.inner.protocols.handle(protocol, handler)
    }

    /// Gives the streams that peers open for `protocol` one after the other, for those who
    /// prefer a loop to a handler. At most 32 wait; the next is reset.
    ///
    /// # Errors
    /// [`HandleError`] when the name is not valid, or is served already.
    pub fn accept<P>(&self, protocol: P) -> Result<AcceptedStreams, HandleError>
    where
        P: TryInto<ProtocolId>,
        P::Error: Into<p2p_core::ProtocolIdError>,
    {
        let protocol = protocol.try_into().map_err(Into::into)?;
        AcceptedStreams::register(&self.inner, protocol)
    }

    /// Stops serving `protocol`; streams under way go on. False when it was not served.
    pub fn unhandle(&self, protocol: &str) -> bool {
        self.inner.protocols.remove(protocol)
    }

    /// Opens a stream for `protocol`, over the connection to the peer that there is, or a new
    /// one. Tasks that ask for one peer at a time share one dial. An address that has failed is
    /// left alone for 5 s, and longer each time up to 5 min; [`Host::connect`] does not wait.
    ///
    /// What it gives is awaited, perhaps after [`Opening::optimistic`] or [`Opening::timeout`].
    pub fn open<P>(&self, target: impl IntoTarget, protocol: P) -> Opening
    where
        P: TryInto<ProtocolId>,
        P::Error: Into<p2p_core::ProtocolIdError>,
    {
        let request = target.into_target().map_err(OpenError::from).and_then(|target| {
            let protocol = protocol.try_into().map_err(Into::into)?;
            Ok((target, protocol))
        });
        Opening::new(self.clone(), request)
    }

    /// Connects to a peer, unless there is a connection already, and says what is known of it.
    /// Addresses that have failed of late, which [`Host::open`] leaves alone for 5 s up to 5 min,
    /// are tried all the same.
    ///
    /// # Errors
    /// [`OpenError`] with every address that was tried.
    ///
    /// # Cancel safety
    /// Cancel safe: a dial that nobody waits for is given up.
    pub async fn connect(&self, target: impl IntoTarget) -> Result<Arc<ConnectionInfo>, OpenError> {
        let conn = self.inner.connect(&target.into_target()?, None, true).await?;
        Ok(Arc::clone(conn.info()))
    }

    /// The connections to a peer, oldest first.
    #[must_use]
    pub fn connections(&self, peer: &PeerId) -> Vec<Arc<ConnectionInfo>> {
        let registry = self.inner.registry();
        let conns = registry.by_peer.get(peer).map(Vec::as_slice).unwrap_or_default();
        conns.iter().map(|conn| Arc::clone(conn.info())).collect()
    }

    /// The peers that the host is connected to.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerId> {
        self.inner.registry().by_peer.keys().copied().collect()
    }

    /// Ends all connections to a peer; streams that are not finished are reset.
    pub fn disconnect(&self, peer: &PeerId) {
        let conns = self.inner.registry().of_peer(peer);
        for conn in conns {
            conn.close(ErrorCode::NONE, "disconnected by the application");
        }
    }

    /// Keeps the connection that new streams to a peer go over from being closed as idle or to
    /// make room; `None` without one.
    #[must_use]
    pub fn keep_alive(&self, peer: &PeerId) -> Option<KeepAlive> {
        let conn = self.inner.registry().connection_to(peer)?;
        Some(KeepAlive::new(&conn))
    }

    /// What the host uses of its limits at this moment. It costs a lock for each connection, to
    /// ask what it holds, and a few numbers.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let buffered = self.inner.buffered().into_iter().map(|(_, bytes)| bytes);
        self.inner.ledger.usage(buffered.fold(0, usize::saturating_add))
    }

    /// What the host, each peer, each protocol and each IP range use of their limits at one
    /// moment. It costs a lock for each connection and a copy of all these lists, at most some
    /// hundred KiB.
    #[must_use]
    pub fn usage_report(&self) -> UsageReport {
        self.inner.ledger.report(&self.inner.buffered_in_detail(), Instant::now())
    }

    /// What is known of peers. [`Host::open`] by a peer id alone dials the addresses there.
    #[must_use]
    pub fn peerstore(&self) -> Peerstore {
        self.inner.peerstore.clone()
    }

    /// Subscribes to what happens from now on.
    #[must_use]
    pub fn events(&self) -> Events {
        Events::new(self.inner.events.subscribe())
    }

    /// Connects to a peer and waits for what it says of itself.
    ///
    /// # Errors
    /// [`OpenError`] when it cannot be reached, or does not answer.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn identify(&self, target: impl IntoTarget) -> Result<Arc<PeerInfo>, OpenError> {
        let conn = self.inner.connect(&target.into_target()?, None, false).await?;
        crate::identify::wait(&conn).await
    }

    /// Connects to a peer and waits until it says that it serves `protocol`: at once, or when it
    /// begins to. The wait keeps the connection alive, and has no limit of its own.
    ///
    /// # Errors
    /// [`OpenError`] when the peer cannot be reached, does not say who it is, or leaves.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn wait_protocol<P>(
        &self,
        target: impl IntoTarget,
        protocol: P,
    ) -> Result<Arc<PeerInfo>, OpenError>
    where
        P: TryInto<ProtocolId>,
        P::Error: Into<p2p_core::ProtocolIdError>,
    {
        let protocol = protocol.try_into().map_err(Into::into)?;
        let conn = self.inner.connect(&target.into_target()?, None, false).await?;
        let _hold = conn.hold();
        crate::identify::wait_until(&conn, |info| info.protocols.contains(&protocol)).await
    }

    /// Connects to a peer and measures one round trip.
    ///
    /// # Errors
    /// [`PingError`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn ping(&self, target: impl IntoTarget) -> Result<Duration, PingError> {
        self.pinger(target)?.ping().await
    }

    /// Makes a pinger, which measures any number of round trips on one stream.
    ///
    /// # Errors
    /// [`PingError`] when the target is not valid.
    pub fn pinger(&self, target: impl IntoTarget) -> Result<Pinger, PingError> {
        Ok(Pinger::new(self.clone(), target.into_target().map_err(OpenError::from)?))
    }

    /// Ends the host gracefully: frees the ports and takes nothing new, waits for streams under
    /// way up to [`Builder::drain_timeout`](crate::Builder::drain_timeout), says goodbye to every
    /// peer, and returns when all tasks have ended. Later calls wait for the same.
    ///
    /// # Cancel safety
    /// Dropped before it returns, the host takes nothing new; call it again to go on.
    pub async fn close(&self) {
        let inner = &self.inner;
        inner.quiet.cancel();
        inner.addresses.clear();
        let conns = {
            let mut registry = inner.registry();
            registry.closed = true;
            registry.all()
        };
        let unused = async {
            for conn in &conns {
                conn.wait_unused().await;
            }
        };
        if timeout(inner.config.drain_timeout, unused).await.is_err() {
            let in_use: usize = conns.iter().map(|conn| conn.in_use()).sum();
            tracing::debug!(in_use, "closed with streams under way");
        }
        for conn in &conns {
            conn.close(ErrorCode::NONE, "the host is closed");
        }
        let ended = Instant::now() + END_MAX;
        for conn in &conns {
            if conn.wait_ended(ended).await.is_err() {
                tracing::debug!(peer = %conn.peer(), "the connection did not end in time");
            }
        }
        inner.end();
        // Handlers and the gater may hold handles of this host: a circle that ends here, also
        // where one of them has called this and ends with the other tasks.
        inner.protocols.clear();
        let gater = inner.gater.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(gater);
        inner.tasks.wait().await;
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("peer_id", &self.inner.own).finish_non_exhaustive()
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("own", &self.own).finish_non_exhaustive()
    }
}

impl From<Cause> for DialError {
    fn from(cause: Cause) -> Self {
        #[expect(clippy::wildcard_enum_match_arm, reason = "adopting a connection fails of three")]
        match cause {
            Cause::Limit(limit) => Self::Limit(limit),
            Cause::Denied(denied) => Self::Denied(denied),
            _ => Self::HostClosed,
        }
    }
}
