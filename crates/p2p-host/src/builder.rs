use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use p2p_core::{Keypair, Muxer, Resolve, Security, SecurityError, Store, Transport};
use tokio::runtime::Handle;

use crate::{
    AccessRule, BuildError, Gater, Host, LimitReached,
    gate::Access,
    host::{Config, Inner},
    identify,
    keeper::Keeper,
    ledger::HostLimits,
    ping, push,
    rates::Rate,
    resolve::Resolver,
    trim::Watermarks,
    upgrade::Upgrader,
    world::World,
};

type MakeSecurity = Box<dyn FnOnce(&Keypair) -> Result<Arc<dyn Security>, SecurityError> + Send>;

/// Sets a host up; see [`builder`](crate::builder).
#[must_use = "nothing happens until `spawn`"]
pub struct Builder {
    identity: Option<Keypair>,
    transports: Vec<Box<dyn Transport>>,
    security: Vec<MakeSecurity>,
    muxers: Vec<Arc<dyn Muxer>>,
    listen: Vec<String>,
    gater: Option<Arc<dyn Gater>>,
    store: Option<Box<dyn Store>>,
    access: Access,
    refused: Option<LimitReached>,
    config: Config,
    world: World,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self {
            identity: None,
            transports: Vec::new(),
            security: Vec::new(),
            muxers: Vec::new(),
            listen: Vec::new(),
            gater: None,
            store: None,
            access: Access::default(),
            refused: None,
            world: World::System,
            config: Config {
                agent: concat!("p2p/", env!("CARGO_PKG_VERSION")).into(),
                idle_timeout: Duration::from_secs(60),
                busy_poll: Duration::ZERO,
                drain_timeout: Duration::from_secs(5),
                inbound_timeout: Duration::from_secs(10),
                address_timeout: Duration::from_secs(10),
                dial_timeout: Duration::from_secs(30),
                open_timeout: Duration::from_secs(10),
                limits: HostLimits {
                    connections_inbound_max: 512,
                    connections_outbound_max: 512,
                    connections_per_peer_max: 8,
                    connections_per_ip_max: 64,
                    connections_per_ip6_site_max: 256,
                    connections_per_ip_rate: Rate {
                        burst: 64,
                        interval: Duration::from_millis(100),
                    },
                    buffered_bytes_max: 512 << 20,
                    buffered_bytes_per_peer_max: 256 << 20,
                    buffered_bytes_per_protocol_max: usize::MAX,
                    buffered_bytes_per_ip_max: 256 << 20,
                    pending_inbound_max: 128,
                    dials_at_once_max: 160,
                    streams_inbound_max: 8192,
                    streams_outbound_max: 8192,
                    streams_inbound_per_peer_max: 1024,
                    streams_outbound_per_peer_max: 1024,
                    streams_inbound_per_ip_max: 4096,
                    streams_per_protocol_max: 4096,
                    streams_per_protocol_and_peer_max: 512,
                },
                watermarks: Watermarks { low: 384, high: 448, grace: Duration::from_secs(60) },
                tagged_peers_max: 4096,
                resolver: Resolver::default(),
            },
        }
    }

    /// The host's key pair. Default: a new one for each host.
    pub fn identity(mut self, identity: Keypair) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Adds a transport. The first that knows an address is used for it.
    pub fn transport(mut self, transport: impl Transport) -> Self {
        self.transports.push(Box::new(transport));
        self
    }

    /// Adds a secure channel, which is made with the host's identity. The first is preferred.
    pub fn security<S: Security>(
        mut self,
        make: impl FnOnce(&Keypair) -> Result<S, SecurityError> + Send + 'static,
    ) -> Self {
        self.security.push(Box::new(move |identity| Ok(Arc::new(make(identity)?))));
        self
    }

    /// Adds a multiplexer. The first is preferred.
    pub fn muxer(mut self, muxer: impl Muxer) -> Self {
        self.muxers.push(Arc::new(muxer));
        self
    }

    /// What looks up the names in `/dns`, `/dns4`, `/dns6` and `/dnsaddr`, for all transports that
    /// do not take an address with its name. Default: none, and such an address cannot be dialed.
    ///
    /// A dial asks at most 32 questions, 8 at a time and each for at most 5 s, follows 4 `/dnsaddr`
    /// records one after another, and takes 16 records of an answer and 100 addresses in all.
    pub fn resolver(mut self, resolver: impl Resolve) -> Self {
        self.config.resolver = Resolver::new(resolver);
        self
    }

    /// Adds an address to listen on; port 0 lets the system choose.
    pub fn listen(mut self, addr: impl Into<String>) -> Self {
        self.listen.push(addr.into());
        self
    }

    /// Has `gater` judge every connection. Default: all are allowed.
    pub fn gater(mut self, gater: impl Gater) -> Self {
        self.gater = Some(Arc::new(gater));
        self
    }

    /// Has `store` keep what is known of peers: [`Builder::spawn`] begins with what it holds, and
    /// what changes from there on is written within a second or two, and by [`Host::close`].
    /// Default: none, and what is known ends with the host.
    ///
    /// The host knows what it knows also while the store cannot be written, as on a full disk:
    /// see [`Event::StoreFailed`](crate::Event::StoreFailed). Tags and protections are not kept.
    pub fn store(mut self, store: impl Store) -> Self {
        self.store = Some(Box::new(store));
        self
    }

    /// Denies a peer or IP range from the start: see [`Host::deny`].
    pub fn deny(mut self, rule: impl Into<AccessRule>) -> Self {
        let denied = self.access.deny(rule.into());
        self.refused = self.refused.or(denied.err());
        self
    }

    /// Allows a peer or IP range from the start, and with it none that is not on the list: see
    /// [`Host::allow`].
    pub fn allow(mut self, rule: impl Into<AccessRule>) -> Self {
        let allowed = self.access.allow(rule.into());
        self.refused = self.refused.or(allowed.err());
        self
    }

    /// The software's name as peers see it. Default: `p2p/` and the version.
    pub fn agent(mut self, agent: impl Into<String>) -> Self {
        self.config.agent = agent.into();
        self
    }

    /// How long a connection lives that no stream and no guard uses. Default 60 s. Ping and
    /// identify are not use.
    pub fn idle_timeout(mut self, limit: Duration) -> Self {
        self.config.idle_timeout = limit;
        self
    }

    /// Keeps the runtime from sleeping for up to `most` after a connection has sent something little, as
    /// long as its answers come that soon; `Duration::ZERO`, the default here, for never. `p2p::builder()`
    /// sets 100 µs.
    ///
    /// Waking a processor and a thread takes some 50 µs on each side. Where answers are there in less, as
    /// on one machine or in one data center, a request is several times as fast without, and costs less
    /// processor time. Only time that would be idle is spent: every other task runs meanwhile, and all
    /// sockets are looked at; but for up to 50 µs after each message (20 over a current-thread runtime) of
    /// a connection that is alone in having such answers, and whose pipe can be asked for them
    /// ([`PipeRead::try_read`](p2p_core::PipeRead::try_read)): then its thread does nothing else, and other
    /// sockets may wait for up to 3 ms. Each connection comes to it by itself: eight answers in time pay for one
    /// wait in vain, so that a peer that is milliseconds away is never waited for.
    pub fn busy_poll(mut self, most: Duration) -> Self {
        self.config.busy_poll = most;
        self
    }

    /// How long [`Host::close`] waits for streams under way. Default 5 s.
    pub fn drain_timeout(mut self, limit: Duration) -> Self {
        self.config.drain_timeout = limit;
        self
    }

    /// How long an inbound connection may take from accept to the multiplexer. Default 10 s.
    pub fn inbound_timeout(mut self, limit: Duration) -> Self {
        self.config.inbound_timeout = limit;
        self
    }

    /// How long dialing and upgrading one address may take. Default 10 s.
    pub fn address_timeout(mut self, limit: Duration) -> Self {
        self.config.address_timeout = limit;
        self
    }

    /// How long a dial may take over all addresses. Default 30 s.
    pub fn dial_timeout(mut self, limit: Duration) -> Self {
        self.config.dial_timeout = limit;
        self
    }

    /// How long opening a stream and negotiating its protocol may take. Default 10 s.
    pub fn open_timeout(mut self, limit: Duration) -> Self {
        self.config.open_timeout = limit;
        self
    }

    /// How many inbound connections may be in their upgrade, or refused after it and not yet
    /// ended; one more is closed at once. Default 128. Each costs a file descriptor and up to
    /// 128 KiB.
    pub fn pending_inbound_max(mut self, count: usize) -> Self {
        self.config.limits.pending_inbound_max = count;
        self
    }

    /// How many inbound connections there may be, with those that are pending; one more is closed
    /// before any cryptography. Default 512. Each costs a file descriptor, and up to 1.5 MiB and
    /// the windows of its streams; see `docs/limits.md`.
    pub fn connections_inbound_max(mut self, count: usize) -> Self {
        self.config.limits.connections_inbound_max = count;
        self
    }

    /// How many outbound connections there may be, with the dials to peers under way; one more
    /// dial fails with [`DialError::Limit`](crate::DialError::Limit). Default 512. Each costs as
    /// much as an inbound one.
    pub fn connections_outbound_max(mut self, count: usize) -> Self {
        self.config.limits.connections_outbound_max = count;
        self
    }

    /// How many connections to one peer there may be. Default 8. One more is closed as soon as the
    /// peer is known: it has cost a handshake.
    pub fn connections_per_peer_max(mut self, count: usize) -> Self {
        self.config.limits.connections_per_peer_max = count;
        self
    }

    /// How many connections and dials of one IPv4 address or IPv6 /56 there may be, in both
    /// directions; one more is closed before any cryptography. Default 64; go-libp2p has 8. Peers
    /// behind one address (a NAT, a relaying proxy, a cluster) share them: raise it to as many as
    /// are honestly there. Loopback addresses have no limit, nor what comes over a relay or has no
    /// IP address.
    pub fn connections_per_ip_max(mut self, count: usize) -> Self {
        self.config.limits.connections_per_ip_max = count;
        self
    }

    /// The same for an IPv6 /48, which is often one site or customer. Default 256;
    /// go-libp2p has 64.
    pub fn connections_per_ip6_site_max(mut self, count: usize) -> Self {
        self.config.limits.connections_per_ip6_site_max = count;
        self
    }

    /// How many new inbound connections of one IPv4 address or IPv6 /56 are taken in a row, and
    /// then one in each `interval`; one more is closed before any cryptography. Default 64, and
    /// then one in 100 ms; go-libp2p has 16, and one in 5 s. An IPv6 /48 may have four times as
    /// many. Loopback addresses have no limit, nor what comes over a relay or has no IP address;
    /// an interval of 0 is none either. It bounds the handshakes that one address can cause, where
    /// [`Builder::connections_per_ip_max`] bounds what it can hold.
    pub fn connections_per_ip_rate(mut self, burst: u32, interval: Duration) -> Self {
        self.config.limits.connections_per_ip_rate = Rate { burst, interval };
        self
    }

    /// How many bytes the streams of all connections may hold: received and not read by the
    /// application, written by it and not sent. Default 512 MiB.
    ///
    /// It is looked at every second. While more is held, inbound connections and streams are
    /// refused, which names this setting. When it is still more at the next look, the connections
    /// that hold most are closed (0x1001), until the others hold less; protected ones
    /// ([`Host::protect`]) last. What comes in between two looks is bounded by the windows of the
    /// multiplexer alone.
    pub fn buffered_bytes_max(mut self, bytes: usize) -> Self {
        self.config.limits.buffered_bytes_max = bytes;
        self
    }

    /// The same for one peer: while its streams hold more, its inbound connections and streams are
    /// refused, and then its connections that hold most are closed. Default 256 MiB, half of what
    /// the host may hold by default, so that it acts before a peer alone fills that; who lowers
    /// [`Builder::buffered_bytes_max`] lowers this with it. An application that means to leave more
    /// than that unread for seconds raises it.
    pub fn buffered_bytes_per_peer_max(mut self, bytes: usize) -> Self {
        self.config.limits.buffered_bytes_per_peer_max = bytes;
        self
    }

    /// The same for one protocol: while its streams hold more, its inbound streams are refused, and
    /// then the connections are closed on which they hold most, with the streams of other protocols
    /// there. Default: none beside that of the host (`usize::MAX`), since many a host speaks one
    /// protocol. Streams that are still negotiating are of none.
    pub fn buffered_bytes_per_protocol_max(mut self, bytes: usize) -> Self {
        self.config.limits.buffered_bytes_per_protocol_max = bytes;
        self
    }

    /// The same for one IPv4 address or IPv6 /56, over all its peers: while their streams hold more,
    /// inbound connections and streams from there are refused, and then those that hold most are
    /// closed. An IPv6 /48 may have four times as many: by default that of the host comes first.
    /// Default 256 MiB. Loopback addresses have no limit, nor what comes over a relay or has no IP
    /// address.
    pub fn buffered_bytes_per_ip_max(mut self, bytes: usize) -> Self {
        self.config.limits.buffered_bytes_per_ip_max = bytes;
        self
    }

    /// How many addresses may be dialed at a time, for all peers; further ones wait for their turn
    /// within [`Builder::dial_timeout`]. Default 160, as in go-libp2p. Each costs a file descriptor
    /// and up to 128 KiB.
    pub fn dials_at_once_max(mut self, count: usize) -> Self {
        self.config.limits.dials_at_once_max = count;
        self
    }

    /// How many streams peers may have open with this host, and handlers that have not returned;
    /// one more is reset. Default 8192. Each may hold its window of received data: 256 KiB at
    /// first.
    pub fn streams_inbound_max(mut self, count: usize) -> Self {
        self.config.limits.streams_inbound_max = count;
        self
    }

    /// How many of them one peer may have, over all its connections; one more is reset. Default
    /// 1024.
    pub fn streams_inbound_per_peer_max(mut self, count: usize) -> Self {
        self.config.limits.streams_inbound_per_peer_max = count;
        self
    }

    /// How many of them the peers of one IPv4 address or IPv6 /56 may have together; one more is
    /// reset. An IPv6 /48 may have four times as many: by default that of the host comes first.
    /// Default 4096, half of the host's. Loopback addresses have no limit, nor what comes over a
    /// relay or has no IP address.
    pub fn streams_inbound_per_ip_max(mut self, count: usize) -> Self {
        self.config.limits.streams_inbound_per_ip_max = count;
        self
    }

    /// How many streams this host may have open, or be opening; one more fails with
    /// [`Cause::Limit`](crate::Cause::Limit). Default 8192. Each costs as much as an inbound
    /// one.
    pub fn streams_outbound_max(mut self, count: usize) -> Self {
        self.config.limits.streams_outbound_max = count;
        self
    }

    /// How many of them may go to one peer, over all its connections. Default 1024; the
    /// multiplexer lets a connection have 256, and further ones wait.
    pub fn streams_outbound_per_peer_max(mut self, count: usize) -> Self {
        self.config.limits.streams_outbound_per_peer_max = count;
        self
    }

    /// How many inbound streams of one protocol there may be; one more is reset. Default 4096. It
    /// is for protocols without limits of their own.
    pub fn streams_per_protocol_max(mut self, count: usize) -> Self {
        self.config.limits.streams_per_protocol_max = count;
        self
    }

    /// How many inbound streams of one protocol one peer may have; one more is reset. Default 512.
    /// It is for protocols without limits of their own.
    pub fn streams_per_protocol_and_peer_max(mut self, count: usize) -> Self {
        self.config.limits.streams_per_protocol_and_peer_max = count;
        self
    }

    /// When there are more than `high` connections in all, those worth least are closed until
    /// `low` are left: the least sum of [`Host::tag`] first, then the fewest streams, then the
    /// longest without a change of these. Young ones ([`Builder::trim_grace`]), protected ones
    /// ([`Host::protect`]) and those with a [`KeepAlive`](crate::KeepAlive) stay. The peer is told
    /// code 0x1005; the cause on this side is the same code.
    ///
    /// Default 384 and 448, which is below [`Builder::connections_inbound_max`]: strangers make
    /// room for others before they keep anybody out. A host that wants more connections raises
    /// both; `usize::MAX` trims never. Looked at every 10 s while there are too many.
    pub fn connections_watermarks(mut self, low: usize, high: usize) -> Self {
        (self.config.watermarks.low, self.config.watermarks.high) = (low, high);
        self
    }

    /// How old a connection is before it may be closed to make room. Default 60 s, as in
    /// go-libp2p.
    pub fn trim_grace(mut self, age: Duration) -> Self {
        self.config.watermarks.grace = age;
        self
    }

    /// How many peers may have tags or protections, connected or not. Default 4096. Each costs up
    /// to 4 KiB, for 16 tags and 16 protections with names of 64 bytes.
    pub fn tagged_peers_max(mut self, count: usize) -> Self {
        self.config.tagged_peers_max = count;
        self
    }

    /// Has all randomness of the host itself follow from `seed`, and the date in its signed records
    /// come from `date`: a simulated network then sees the same bytes in every run. Its secure
    /// channel and its identity have to be seeded as well. Dangerous: what pings hold can be
    /// guessed. Default: the system's randomness and clock.
    pub fn dangerous_simulated(
        mut self,
        seed: u64,
        date: impl Fn() -> SystemTime + Send + Sync + 'static,
    ) -> Self {
        self.world = World::simulated(seed, Box::new(date));
        self
    }

    /// Starts the host. When it returns, every address is bound.
    ///
    /// # Errors
    /// [`BuildError`] says what is missing, or which address could not be bound and why; then
    /// nothing is left running.
    ///
    /// # Cancel safety
    /// Dropped before it returns, it leaves nothing running.
    pub async fn spawn(self) -> Result<Host, BuildError> {
        let runtime = Handle::try_current().map_err(|_| BuildError::NoRuntime)?;
        for (what, missing) in [
            ("transport", self.transports.is_empty()),
            ("security", self.security.is_empty()),
            ("muxer", self.muxers.is_empty()),
        ] {
            if missing {
                return Err(BuildError::Missing(what));
            }
        }
        if let Some(limit) = self.refused {
            return Err(limit.into());
        }
        let identity = match self.identity {
            Some(identity) => identity,
            None => Keypair::generate()?,
        };
        let mut security = Vec::with_capacity(self.security.len());
        for make in self.security {
            security.push(make(&identity)?);
        }
        let names = security.iter().map(|s| s.protocol());
        unique(names.chain(self.muxers.iter().map(|m| m.protocol())))?;
        let own = identity.public().peer_id();
        let busy_poll = self.config.busy_poll;
        let upgrader = Upgrader { own, security, muxers: self.muxers, busy_poll };
        let (world, config) = (self.world, self.config);
        let inner =
            Inner::new(identity, world, config, self.transports, upgrader, self.gater, runtime);
        inner.registry().access = self.access;
        let host = Host::new(inner);
        let keeper = match self.store {
            Some(store) => Some(Keeper::load(store, &host.inner.peerstore).await?),
            None => None,
        };
        identify::register(&host.inner)?;
        ping::register(&host.inner.protocols)?;
        push::register(&host.inner)?;
        host.inner.watch_buffers();
        for addr in &self.listen {
            host.listen(addr).await?;
        }
        if let Some(keeper) = keeper {
            keeper.begin(&host.inner);
        }
        Ok(host)
    }
}

fn unique(names: impl Iterator<Item = p2p_core::ProtocolId>) -> Result<(), BuildError> {
    let mut seen = std::collections::BTreeSet::new();
    for name in names {
        if !seen.insert(name.clone()) {
            return Err(BuildError::Duplicate(name));
        }
    }
    Ok(())
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("listen", &self.listen)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
