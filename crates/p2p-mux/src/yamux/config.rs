use std::time::Duration;

use super::WINDOW_INITIAL;

/// Below it, pings would be the connection's main use.
const KEEP_ALIVE_MIN: Duration = Duration::from_secs(1);
/// Above it, no ping is ever sent in practice, and instants would overflow in the end.
const KEEP_ALIVE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// The limits of yamux connections.
#[derive(Clone, Debug)]
pub struct Config {
    pub(super) streams_inbound_max: usize,
    pub(super) streams_outbound_max: usize,
    pub(super) window_max: u32,
    pub(super) windows_growth_max: u32,
    pub(super) windows_growth_host_max: u64,
    pub(super) streams_inbound_host_max: u64,
    pub(super) keep_alive: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            streams_inbound_max: 512,
            streams_outbound_max: 256,
            window_max: 128 << 20,
            windows_growth_max: 128 << 20,
            windows_growth_host_max: 256 << 20,
            streams_inbound_host_max: 4096,
            keep_alive: Duration::from_secs(30),
        }
    }
}

impl Config {
    /// How many streams of the peer may be open at once; the next one is refused with a reset.
    /// Default 512. Each may hold its window of received data, 256 KiB at first.
    #[must_use]
    pub fn streams_inbound_max(mut self, count: usize) -> Self {
        self.streams_inbound_max = count;
        self
    }

    /// How many streams of this side may be open at once; opening waits beyond. Default 256:
    /// rust-libp2p ends the whole connection at 513 streams of both sides together (YAMUX-44),
    /// and go-libp2p refuses more than 256 of a peer (CONN-46).
    #[must_use]
    pub fn streams_outbound_max(mut self, count: usize) -> Self {
        self.streams_outbound_max = count;
        self
    }

    /// The largest receive window of a stream, in bytes, that is, how much a slow reader may
    /// leave unread. Default 128 MiB, which fills 10 Gbit/s over a round trip of 100 ms; never below
    /// the 256 KiB that every peer assumes.
    ///
    /// A window only grows to what the application has read within two round trips, so that most
    /// stay far below.
    #[must_use]
    pub fn window_max(mut self, bytes: u32) -> Self {
        self.window_max = bytes.max(WINDOW_INITIAL);
        self
    }

    /// How much all receive windows of a connection together may grow above their first
    /// 256 KiB, in bytes. Default 128 MiB.
    #[must_use]
    pub fn windows_growth_max(mut self, bytes: u32) -> Self {
        self.windows_growth_max = bytes;
        self
    }

    /// How much all receive windows of all connections of one [`Yamux`](crate::Yamux) value
    /// together may grow above their first 256 KiB, in bytes. Default 256 MiB. A connection never
    /// holds more of it than it leaves to the others; where nothing is left, windows stay as they
    /// are, and streams over long distances are slower.
    #[must_use]
    pub fn windows_growth_host_max(mut self, bytes: u64) -> Self {
        self.windows_growth_host_max = bytes;
        self
    }

    /// How many streams of peers may be open at once on all connections of one
    /// [`Yamux`](crate::Yamux) value together; the next one is refused with a reset. Default 4096:
    /// their first windows promise 1 GiB. A connection never holds more of them than it leaves to
    /// the others.
    #[must_use]
    pub fn streams_inbound_host_max(mut self, count: u64) -> Self {
        self.streams_inbound_host_max = count;
        self
    }

    /// How often the peer is pinged. Default 30 s, at least 1 s, at most a day. The connection
    /// ends when a ping is unanswered and nothing else has come in for two intervals.
    #[must_use]
    pub fn keep_alive(mut self, interval: Duration) -> Self {
        self.keep_alive = interval.clamp(KEEP_ALIVE_MIN, KEEP_ALIVE_MAX);
        self
    }
}
