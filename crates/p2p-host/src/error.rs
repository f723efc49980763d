use std::{fmt, sync::Arc, time::Duration};

use p2p_core::{
    ConnectionError, IoCause, KeyError, Multiaddr, PeerId, ProtocolId, ResolveError, SecurityError,
    StoreError, StreamError, TransportError,
};
use p2p_multistream::NegotiationError;

use crate::{Denied, HandleError, TargetError};

/// The step of a connection or stream in which something failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// The transport was connecting.
    Connect,
    /// The secure channel was being negotiated, or its handshake was under way.
    Security,
    /// The multiplexer was being negotiated.
    Muxer,
    /// A stream was being opened.
    Stream,
    /// A stream's protocol was being negotiated.
    Protocol,
    /// A name in an address was being looked up, before anything was dialed.
    Resolve,
}

impl Stage {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Security => "security",
            Self::Muxer => "muxer",
            Self::Stream => "stream",
            Self::Protocol => "protocol",
            Self::Resolve => "dns",
        }
    }

    pub(crate) fn number(self) -> u8 {
        self as u8
    }

    pub(crate) fn from_number(number: u8) -> Self {
        let all = [
            Self::Connect,
            Self::Security,
            Self::Muxer,
            Self::Stream,
            Self::Protocol,
            Self::Resolve,
        ];
        all.into_iter().find(|stage| stage.number() == number).unwrap_or(Self::Connect)
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What made one attempt fail.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// No transport of this host knows addresses of this form.
    #[error("no transport for this address")]
    NoTransport,
    /// The transport failed.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The link failed.
    #[error("the link failed: {0}")]
    Io(IoCause),
    /// The peer closed the link in the middle.
    #[error("the peer closed the connection")]
    Closed,
    /// Nothing in common, or the peer broke the negotiation's rules.
    #[error("negotiation: {0}")]
    Negotiation(NegotiationError),
    /// The handshake failed.
    #[error(transparent)]
    Security(#[from] SecurityError),
    /// The stream was reset before its protocol was agreed; a peer that is at one of its limits
    /// does so.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The connection ended meanwhile.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The peer did not answer in time.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The address has failed of late, and is left alone for so much longer.
    /// [`Host::connect`](crate::Host::connect) tries it all the same.
    #[error("it has failed of late; it is tried again in {0:.1?}, or at once by `Host::connect`")]
    BackedOff(Duration),
    /// The address leads nowhere: it is the one that says "any address".
    #[error("no host has this address")]
    Unspecified,
    /// The address leads to this host itself.
    #[error("this is the host's own address or peer id")]
    SelfDial,
    /// The name could not be looked up, or its records are of no use.
    #[error("{name}: {error}")]
    Resolve {
        /// The name that was looked up.
        name: String,
        /// Why it led nowhere.
        error: ResolveError,
    },
    /// The address has a name, and this host has nothing to look it up with.
    #[error(
        "this host has no resolver for names: enable the feature `dns` of the crate `p2p`, or give \
         it one with `Builder::resolver`"
    )]
    NoResolver,
    /// The names of one dial lead to so many others that this one was not looked up.
    #[error("the names of this dial lead to more than {value} {what}")]
    NamesLimit {
        /// What is limited.
        what: &'static str,
        /// The limit.
        value: usize,
    },
    /// A limit of this host.
    #[error(transparent)]
    Limit(#[from] LimitReached),
    /// This side does not want the connection.
    #[error(transparent)]
    Denied(#[from] Denied),
}

/// A limit of this host was reached.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LimitReached {
    /// What is limited.
    pub what: &'static str,
    /// The limit.
    pub value: usize,
    /// Who uses it.
    pub holder: String,
    /// The setting that raises it, where one does.
    pub setting: Option<&'static str>,
}

impl fmt::Display for LimitReached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, value, holder, setting } = self;
        write!(f, "the limit of {value} {what} is reached (used by {holder}; ")?;
        match setting {
            Some(setting) => write!(f, "raise it with `{setting}`)"),
            None => f.write_str("it is fixed)"),
        }
    }
}

impl std::error::Error for LimitReached {}

/// One address that was tried, or whose name could not be looked up.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DialAttempt {
    /// The address.
    pub addr: Multiaddr,
    /// Where it failed.
    pub stage: Stage,
    /// How long it took.
    pub elapsed: Duration,
    /// Why it failed.
    pub cause: Cause,
}

impl fmt::Display for DialAttempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { addr, stage, elapsed, cause } = self;
        write!(f, "{addr} failed in {stage} after {elapsed:.1?}: {cause}")
    }
}

/// Why a peer could not be reached. One dial may be told to several who wait for it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum DialError {
    /// No connection to the peer, and no address to dial.
    NoAddresses(PeerId),
    /// The target is this host itself.
    SelfDial(PeerId),
    /// Every name that could not be looked up, and every address that was tried.
    Attempts(Arc<[DialAttempt]>),
    /// The time for the whole ran out; every name and address that had failed or was under way.
    TimedOut(Duration, Arc<[DialAttempt]>),
    /// A limit of this host.
    Limit(LimitReached),
    /// This side does not want the peer.
    Denied(Denied),
    /// The host is closed.
    HostClosed,
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAddresses(peer) => {
                write!(f, "not connected to {peer}, and no address of it is known")
            }
            Self::SelfDial(peer) => write!(f, "{peer} is this host itself"),
            Self::Attempts(attempts) => write_attempts(f, attempts),
            Self::TimedOut(limit, attempts) => {
                write!(f, "no connection within {limit:?}")?;
                if !attempts.is_empty() {
                    f.write_str("; ")?;
                    write_attempts(f, attempts)?;
                }
                Ok(())
            }
            Self::Limit(limit) => write!(f, "{limit}"),
            Self::Denied(denied) => write!(f, "{denied}"),
            Self::HostClosed => f.write_str("the host is closed"),
        }
    }
}

fn write_attempts(f: &mut fmt::Formatter<'_>, attempts: &[DialAttempt]) -> fmt::Result {
    if attempts.is_empty() {
        return f.write_str("no address could be tried");
    }
    for (index, attempt) in attempts.iter().enumerate() {
        if index > 0 {
            f.write_str("; ")?;
        }
        write!(f, "{attempt}")?;
    }
    Ok(())
}

impl std::error::Error for DialError {}

/// Why a stream could not be opened.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The target is not an address or peer id.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The protocol name is not valid.
    #[error(transparent)]
    Protocol(#[from] p2p_core::ProtocolIdError),
    /// The peer could not be reached.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The peer does not support the protocol.
    #[error("{peer} does not support {protocol}")]
    Unsupported {
        /// The peer.
        peer: PeerId,
        /// The protocol.
        protocol: ProtocolId,
    },
    /// The stream failed before the protocol was agreed.
    #[error("opening {protocol} to {peer} failed in {stage}: {cause}")]
    Stream {
        /// The peer.
        peer: PeerId,
        /// The protocol.
        protocol: ProtocolId,
        /// Where it failed.
        stage: Stage,
        /// Why it failed.
        cause: Cause,
    },
}

/// Why an address could not be listened on.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The text is not an address.
    #[error("{text:?} is not a multiaddr: {reason}")]
    Parse {
        /// The text.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No transport of this host knows addresses of this form.
    #[error("cannot listen on {0}: no transport for this address")]
    NoTransport(Multiaddr),
    /// The address names another peer.
    #[error("cannot listen on {addr}: this host is {own}")]
    WrongPeer {
        /// The address.
        addr: Multiaddr,
        /// This host's id.
        own: PeerId,
    },
    /// The transport failed.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The host is closed.
    #[error("the host is closed")]
    HostClosed,
}

/// Why a host could not be made.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A part without which no connection can be made.
    #[error("the host has no {0}: give it one with `Builder::{0}`")]
    Missing(&'static str),
    /// Two parts of the same name.
    #[error("{0} is given twice")]
    Duplicate(ProtocolId),
    /// An address could not be bound.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// No identity could be made.
    #[error("no identity: {0}")]
    Identity(#[from] KeyError),
    /// The secure channel could not be set up.
    #[error("the secure channel cannot be set up: {0}")]
    Security(#[from] SecurityError),
    /// A built-in protocol could not be registered.
    #[error(transparent)]
    Handle(#[from] HandleError),
    /// More entries on a list than it takes.
    #[error(transparent)]
    Limit(#[from] LimitReached),
    /// What a store has kept could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// `spawn` was called outside a tokio runtime.
    #[error("`spawn` must be called on a tokio runtime")]
    NoRuntime,
}

/// Why a connection from outside came to nothing.
#[derive(Clone, Debug, thiserror::Error)]
#[error("inbound connection from {remote} failed in {stage} after {elapsed:.1?}: {cause}")]
#[non_exhaustive]
pub struct InboundError {
    /// The peer's address.
    pub remote: Multiaddr,
    /// Where it failed.
    pub stage: Stage,
    /// How long it took.
    pub elapsed: Duration,
    /// Why it failed.
    pub cause: Cause,
}
