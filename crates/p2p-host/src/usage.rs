//! What a host uses of its limits.

use std::fmt;

use p2p_core::{PeerId, ProtocolId};

use crate::IpRange;

/// How many of something there are, and how many there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Used {
    /// How many there are.
    pub count: usize,
    /// How many there may be; `usize::MAX` where there is no limit.
    pub max: usize,
}

impl Used {
    pub(crate) fn new(count: usize, max: usize) -> Self {
        Self { count, max }
    }
}

impl fmt::Display for Used {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.max {
            usize::MAX => write!(f, "{} (no limit)", self.count),
            max => write!(f, "{} of {max}", self.count),
        }
    }
}

/// What a host uses of its limits, from [`Host::usage`](crate::Host::usage): the figures of one
/// moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Inbound connections. Those that are pending take places among them.
    pub connections_inbound: Used,
    /// Outbound connections. Dials under way take places among them.
    pub connections_outbound: Used,
    /// Inbound connections in their upgrade, or refused after it and not yet ended.
    pub pending_inbound: Used,
    /// Dials to peers under way; their limit is that of outbound connections.
    pub pending_outbound: Used,
    /// Addresses that are being dialed; further ones wait.
    pub dials_at_once: Used,
    /// Streams that peers have opened, and handlers that have not returned.
    pub streams_inbound: Used,
    /// Streams that this host has opened, or is opening.
    pub streams_outbound: Used,
    /// Bytes that all streams hold: received and not read, written and not sent. Beside them a
    /// connection has buffers of its own, see `docs/limits.md`.
    pub buffered_bytes: Used,
    /// Connections and streams that were refused since the host was started.
    pub refused: u64,
}

/// What one peer uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerUsage {
    /// The peer.
    pub peer: PeerId,
    /// Its connections.
    pub connections: Used,
    /// Streams that it has opened.
    pub streams_inbound: Used,
    /// Streams that this host has opened to it.
    pub streams_outbound: Used,
    /// Bytes that its streams hold.
    pub buffered_bytes: Used,
}

/// What one protocol uses. Streams that are still negotiating are not among its inbound ones.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProtocolUsage {
    /// The protocol.
    pub protocol: ProtocolId,
    /// Streams that peers have opened for it.
    pub streams_inbound: Used,
    /// Streams that this host has opened for it, which have no limit of their own.
    pub streams_outbound: usize,
    /// Bytes that its streams hold, in both directions.
    pub buffered_bytes: Used,
}

/// What one IP range uses: an IPv4 address, an IPv6 /56 or /48. What comes over a relay is not
/// counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RangeUsage {
    /// The range.
    pub range: IpRange,
    /// Connections and dials of its addresses, pending ones among them.
    pub connections: Used,
    /// Streams that peers have opened on these connections.
    pub streams_inbound: Used,
    /// Streams that this host has opened on them, which have no limit of their own.
    pub streams_outbound: usize,
    /// Bytes that these streams hold.
    pub buffered_bytes: Used,
}

/// The same in detail, from [`Host::usage_report`](crate::Host::usage_report): the figures of one
/// moment, each list sorted, without those that use nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UsageReport {
    /// The host as a whole.
    pub host: Usage,
    /// Each peer that is connected or has a stream.
    pub peers: Vec<PeerUsage>,
    /// Each protocol that has a stream, or bytes of one at its end.
    pub protocols: Vec<ProtocolUsage>,
    /// Each IPv4 address, IPv6 /56 and /48 that has a connection, a dial or a stream.
    pub ip_ranges: Vec<RangeUsage>,
    /// New connections of each of these that count against
    /// [`Builder::connections_per_ip_rate`](crate::Builder::connections_per_ip_rate).
    pub ip_rates: Vec<(IpRange, Used)>,
}
