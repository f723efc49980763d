use std::time::Duration;

/// What one direction between two machines is like.
#[derive(Clone, Debug)]
pub struct Link {
    pub(super) latency: Duration,
    pub(super) jitter: Duration,
    pub(super) bandwidth: Option<u64>,
    pub(super) buffer: usize,
    pub(super) loss: u64,
    pub(super) segment_max: usize,
    pub(super) ragged: bool,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            latency: Duration::from_millis(10),
            jitter: Duration::ZERO,
            bandwidth: None,
            buffer: 256 << 10,
            loss: 0,
            segment_max: 16 << 10,
            ragged: false,
        }
    }
}

impl Link {
    /// Begins with the defaults: 10 ms, no jitter, no loss, no limit of bandwidth.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How long a segment is under way. Default 10 ms.
    #[must_use]
    pub fn latency(mut self, latency: Duration) -> Self {
        self.latency = latency;
        self
    }

    /// How much longer it may take: between nothing and this, drawn for each segment. Segments of
    /// one connection never overtake each other. Default 0.
    #[must_use]
    pub fn jitter(mut self, jitter: Duration) -> Self {
        self.jitter = jitter;
        self
    }

    /// How many bytes pass in a second, at least 1, shared by all connections. Default: no limit.
    #[must_use]
    pub fn bandwidth(mut self, bytes_per_second: u64) -> Self {
        self.bandwidth = Some(bytes_per_second.max(1));
        self
    }

    /// How many bytes of one connection may be written and not yet read at the other end, those
    /// under way among them; then writing waits. Default 256 KiB, at least 1.
    #[must_use]
    pub fn buffer(mut self, bytes: usize) -> Self {
        self.buffer = bytes.max(1);
        self
    }

    /// How many of a thousand segments are lost. As with TCP, the application sees a delay: the
    /// segment and what follows it come 200 ms later, and each time that it is lost again twice
    /// as much. Default 0.
    #[must_use]
    pub fn loss(mut self, of_thousand: u64) -> Self {
        self.loss = of_thousand.min(900);
        self
    }

    /// Has what is written arrive in pieces of any size from one byte on. Default: in pieces of at
    /// most 16 KiB, as they were written.
    #[must_use]
    pub fn ragged(mut self) -> Self {
        self.ragged = true;
        self.segment_max = 1460;
        self
    }
}
