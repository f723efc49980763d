use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use multiaddr::Multiaddr;

use crate::{ConnectionError, ErrorCode, PeerId, ProtocolId, PublicKey, Stream};

/// Which side of a connection or stream this is. It decides who proposes in a negotiation, who
/// begins a handshake and which stream ids are whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "there are two sides")]
pub enum Role {
    /// The dialer of a connection, the opener of a stream.
    Initiator,
    /// The other side.
    Responder,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Initiator => "initiator",
            Self::Responder => "responder",
        })
    }
}

/// What is known of a connection from its upgrade on; it never changes.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    role: Role,
    peer: PeerId,
    public_key: PublicKey,
    local: Option<Multiaddr>,
    remote: Multiaddr,
    security: Option<ProtocolId>,
    muxer: Option<ProtocolId>,
}

impl ConnectionInfo {
    /// Makes the description of a connection with the peer that has proven `public_key`.
    #[must_use]
    pub fn new(
        role: Role,
        public_key: PublicKey,
        local: Option<Multiaddr>,
        remote: Multiaddr,
    ) -> Self {
        let peer = public_key.peer_id();
        Self { role, peer, public_key, local, remote, security: None, muxer: None }
    }

    /// Adds the names of the secure channel and the multiplexer that were negotiated; a link
    /// that is born multiplexed has none.
    #[must_use]
    pub fn with_upgrade(mut self, security: ProtocolId, muxer: ProtocolId) -> Self {
        self.security = Some(security);
        self.muxer = Some(muxer);
        self
    }

    /// Whether this side dialed or listened.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// The peer, as the secure channel has verified it.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// The peer's public key.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// This side's address, without `/p2p`, where the transport knows it.
    #[must_use]
    pub fn local(&self) -> Option<&Multiaddr> {
        self.local.as_ref()
    }

    /// The peer's address as seen from here, without `/p2p`.
    #[must_use]
    pub fn remote(&self) -> &Multiaddr {
        &self.remote
    }

    /// The secure channel that was negotiated.
    #[must_use]
    pub fn security(&self) -> Option<&ProtocolId> {
        self.security.as_ref()
    }

    /// The multiplexer that was negotiated.
    #[must_use]
    pub fn muxer(&self) -> Option<&ProtocolId> {
        self.muxer.as_ref()
    }
}

/// An authenticated, multiplexed connection. QUIC implements it directly; a [`Pipe`](crate::Pipe)
/// earns it by being upgraded.
pub trait Connection: Send + Sync + fmt::Debug + 'static {
    /// What is known of the connection.
    fn info(&self) -> &Arc<ConnectionInfo>;

    /// Makes a new opener. Each has a waker of its own, so any number of tasks may wait at once.
    fn opener(&self) -> Box<dyn OpenStream>;

    /// Ends the connection: what was written to streams that are shut down is still sent, then
    /// the goodbye; everything else is reset. `reason` is for this side's errors and logs. Does
    /// nothing on a connection that has ended.
    fn close(&self, code: ErrorCode, reason: &str);

    /// How many bytes its streams hold at this moment: received and not read, written and not
    /// sent. 0 where that is not known.
    fn buffered(&self) -> usize {
        0
    }

    /// The same for each part of it: calls `each` any number of times with a protocol, as
    /// [`Stream::with_protocol`] has named it, and bytes of its streams; `None` stands for streams
    /// without one. `each` must not use the connection: it may be called under its lock.
    fn buffered_by_protocol(&self, each: &mut dyn FnMut(Option<&ProtocolId>, usize)) {
        each(None, self.buffered());
    }
}

/// Opens streams of one connection.
pub trait OpenStream: Send + 'static {
    /// Opens a stream as soon as the peer allows one more.
    ///
    /// # Errors
    /// [`ConnectionError`] when the connection has ended or has no stream ids left.
    ///
    /// # Cancel safety
    /// Nothing is opened before `Ready`; dropping the opener gives its turn to the next.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Result<Stream, ConnectionError>>;
}

/// Takes the streams that the peer opens on one connection.
pub trait AcceptStream: Send + 'static {
    /// Takes the next stream.
    ///
    /// # Errors
    /// Why the connection has ended; the same on every later call.
    ///
    /// # Cancel safety
    /// Nothing is taken before `Ready`. Dropping the acceptor refuses all later streams.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<Stream, ConnectionError>>;
}

/// A multiplexed connection and the one place where its inbound streams come out.
#[non_exhaustive]
pub struct Muxed {
    /// The connection.
    pub connection: Arc<dyn Connection>,
    /// Its inbound streams.
    pub accept: Box<dyn AcceptStream>,
}

impl Muxed {
    /// Makes a link of a connection and its inbound streams.
    #[must_use]
    pub fn new(connection: Arc<dyn Connection>, accept: Box<dyn AcceptStream>) -> Self {
        Self { connection, accept }
    }
}

impl fmt::Debug for Muxed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Muxed").field("connection", &self.connection).finish_non_exhaustive()
    }
}
