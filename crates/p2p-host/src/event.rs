use std::sync::Arc;

use p2p_core::{ConnectionError, ConnectionInfo, Multiaddr, PeerId, ProtocolId, StoreError};
use tokio::sync::broadcast;

use crate::{InboundError, LimitReached, identify::PeerInfo};

/// Events that wait for one subscriber, at most; older ones are then missed.
pub(crate) const EVENTS_MAX: usize = 256;

/// Something that happened at a host. Nobody needs to listen.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The host can be reached under one more address; it ends in `/p2p/<id>`.
    Listening {
        /// The address.
        addr: Multiaddr,
    },
    /// The host can no longer be reached under this address.
    ListenEnded {
        /// The address.
        addr: Multiaddr,
        /// Why, unless the host was closed.
        cause: Option<p2p_core::TransportError>,
    },
    /// The addresses that several peers see the host at are others now; see
    /// [`Host::observed_addrs`](crate::Host::observed_addrs).
    ObservedAddrs {
        /// All of them; they end in `/p2p/<id>`.
        addrs: Vec<Multiaddr>,
    },
    /// A connection was made, by either side.
    Connected {
        /// The peer.
        peer: PeerId,
        /// What is known of the connection.
        connection: Arc<ConnectionInfo>,
    },
    /// A connection has ended.
    Disconnected {
        /// The peer.
        peer: PeerId,
        /// What was known of the connection.
        connection: Arc<ConnectionInfo>,
        /// Why it ended. One that was closed to make room has
        /// [`ErrorCode::CONNECTION_GARBAGE_COLLECTED`](p2p_core::ErrorCode).
        cause: ConnectionError,
        /// How many connections to this peer are left.
        left: usize,
    },
    /// A peer has said who it is and what it supports.
    Identified {
        /// The peer.
        peer: PeerId,
        /// What it said.
        info: Arc<PeerInfo>,
    },
    /// A connection from outside came to nothing. Nothing else is affected.
    InboundFailed {
        /// What failed, and where.
        error: InboundError,
    },
    /// A stream that a peer opened was reset, because a limit is reached. Refusals of streams and
    /// of connections before their upgrade are told at most 32 times a second;
    /// [`Usage::refused`](crate::Usage::refused) counts them all.
    StreamRefused {
        /// The peer.
        peer: PeerId,
        /// The protocol, where the peer had come to name it.
        protocol: Option<ProtocolId>,
        /// The limit.
        limit: LimitReached,
    },
    /// What is known of peers cannot be written to the store. The host goes on without, and tries
    /// again after 2 s, and then less often up to every minute; this is told once, until
    /// [`Event::StoreRecovered`].
    StoreFailed {
        /// Why.
        error: StoreError,
    },
    /// The store has taken all that had changed since [`Event::StoreFailed`].
    StoreRecovered,
    /// The subscriber was too slow: so many events are lost to it.
    Missed {
        /// How many.
        count: u64,
    },
}

/// A subscription to a host's events, from [`Host::events`](crate::Host::events).
#[derive(Debug)]
pub struct Events {
    receiver: broadcast::Receiver<Event>,
}

impl Events {
    pub(crate) fn new(receiver: broadcast::Receiver<Event>) -> Self {
        Self { receiver }
    }

    /// Waits for the next event; `None` once the host is gone.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn next(&mut self) -> Option<Event> {
        match self.receiver.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(count)) => Some(Event::Missed { count }),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}
