/// Below it, what the driver takes in at once would reset a stream whose reader is waiting.
const RECEIVED_MIN: usize = 256 << 10;

/// The limits of one mplex connection.
#[derive(Clone, Debug)]
pub struct Config {
    pub(super) streams_inbound_max: usize,
    pub(super) streams_outbound_max: usize,
    pub(super) stream_received_max: usize,
    pub(super) connection_received_max: usize,
    pub(super) opens_per_second_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            streams_inbound_max: 512,
            streams_outbound_max: 100,
            stream_received_max: 8 << 20,
            connection_received_max: 16 << 20,
            opens_per_second_max: 5,
        }
    }
}

impl Config {
    /// How many streams of the peer may be open at once; the next one is refused with a reset.
    /// Default 512. Each costs some hundred bytes; what it may hold of received data is bounded
    /// for all of them together by [`Config::connection_received_max`].
    #[must_use]
    pub fn streams_inbound_max(mut self, count: usize) -> Self {
        self.streams_inbound_max = count;
        self
    }

    /// How many streams of this side may be open at once; opening waits beyond. Default 100:
    /// rust-libp2p resets what exceeds 128 streams of both sides together (MPLEX-16).
    #[must_use]
    pub fn streams_outbound_max(mut self, count: usize) -> Self {
        self.streams_outbound_max = count;
        self
    }

    /// The memory, in bytes, that a stream may hold of received data that nobody has read.
    /// Default 8 MiB, at least 256 KiB. A stream that would need more is reset, in both
    /// directions: its reader gets what was received before, and then an error.
    ///
    /// The peer cannot be slowed down, so this is how far a reader may fall behind. The default
    /// is what this side may take in before a reader that shares its thread can run; js-libp2p
    /// allows 4 MiB. A reader that is slower than the link for long is reset whatever the bound.
    #[must_use]
    pub fn stream_received_max(mut self, bytes: usize) -> Self {
        self.stream_received_max = bytes.max(RECEIVED_MIN);
        self
    }

    /// The memory, in bytes, that all streams of the connection together may hold of received
    /// data that nobody has read. Default 16 MiB, at least 256 KiB. Where more is needed, the
    /// stream that holds most is reset, and what it holds is dropped: its reader gets an error.
    #[must_use]
    pub fn connection_received_max(mut self, bytes: usize) -> Self {
        self.connection_received_max = bytes.max(RECEIVED_MIN);
        self
    }

    /// How many streams this side may open in a second; opening waits beyond. Default 5, at
    /// least 1; `usize::MAX` is no limit.
    ///
    /// A js-libp2p that hears of a sixth stream within a second ends the connection, with every
    /// stream on it (MPLEX-16): the wait is the smaller evil. Raise it where the peers are known
    /// to be others. A quarter of a second is added for the network's jitter.
    #[must_use]
    pub fn opens_per_second_max(mut self, count: usize) -> Self {
        self.opens_per_second_max = count.max(1);
        self
    }
}
