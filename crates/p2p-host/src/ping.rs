//! Ping, `/ipfs/ping/1.0.0`: 32 random bytes, echoed (specs, ping/ping.md).

use std::{io, time::Duration};

use p2p_core::{ErrorCode, ProtocolId, Stream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout},
};

use crate::{
    Host, OpenError, Target,
    dispatch::{BoxError, Limits, Protocols},
    error::Cause,
    ledger::Max,
    metrics,
    open::open_counted,
    world::World,
};

/// The protocol's name.
pub const PROTOCOL: ProtocolId = ProtocolId::from_static("/ipfs/ping/1.0.0");

/// Length of a ping in bytes (PING-01).
const PING_LEN: usize = 32;
/// Ping streams of one peer that are answered at a time (PING-03).
const STREAMS_OF_PEER_MAX: usize = 2;
/// How long an answered stream may be silent. rust-libp2p pings every 15 s on one stream.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How long a ping may take.
const PING_MAX: Duration = Duration::from_secs(10);

/// Why there is no round trip to report.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PingError {
    /// The peer could not be reached, or does not answer pings; the latter is not a dead peer
    /// (PING-09).
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The stream failed.
    #[error("the ping stream failed: {0}")]
    Stream(p2p_core::IoCause),
    /// The peer did not answer in time.
    #[error("no pong within {0:?}")]
    TimedOut(Duration),
    /// The peer sent back other bytes (PING-05).
    #[error("the pong differs from the ping")]
    Mismatch,
    /// The system gave no randomness.
    #[error("the system gave no randomness: {0}")]
    Randomness(String),
}

/// Serves the protocol.
pub(crate) fn register(protocols: &Protocols) -> Result<(), crate::HandleError> {
    let limits = Limits {
        streams_of_peer_max: Some(Max::fixed(STREAMS_OF_PEER_MAX)),
        keeps_alive: false,
        ..Limits::default()
    };
    protocols.handle_within(PROTOCOL, limits, answer)
}

/// Echoes pings until the peer ends its side (PING-02, PING-04).
async fn answer(mut stream: Stream) -> Result<(), BoxError> {
    let mut ping = [0; PING_LEN];
    loop {
        let mut read = 0;
        while read < PING_LEN {
            let more = stream.read(&mut ping[read..]);
            match timeout(SILENCE_MAX, more).await?? {
                0 if read == 0 => return Ok(stream.shutdown().await?),
                0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                count => read += count,
            }
        }
        timeout(SILENCE_MAX, stream.write_all(&ping)).await??;
    }
}

/// Measures round trips to one peer, all on one stream, which is opened anew when the peer has
/// ended it (PING-06). From [`Host::pinger`].
#[derive(Debug)]
pub struct Pinger {
    host: Host,
    target: Target,
    stream: Option<Stream>,
    stats: PingStats,
}

/// What a [`Pinger`] has measured since it was made. A ping that was given up counts for nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PingStats {
    /// Pings that were answered.
    pub answered: u64,
    /// Pings that failed, in whatever way.
    pub failed: u64,
    /// Pings that have failed since the last that was answered.
    pub failed_in_a_row: u64,
    /// The last round trip.
    pub last: Option<Duration>,
    /// The shortest round trip.
    pub min: Option<Duration>,
    /// The longest round trip.
    pub max: Option<Duration>,
    /// The mean of all round trips.
    pub mean: Option<Duration>,
    sum: Duration,
}

impl PingStats {
    fn count(&mut self, round_trip: Option<Duration>) {
        let Some(last) = round_trip else {
            self.failed = self.failed.saturating_add(1);
            self.failed_in_a_row = self.failed_in_a_row.saturating_add(1);
            return;
        };
        self.answered = self.answered.saturating_add(1);
        self.failed_in_a_row = 0;
        self.last = Some(last);
        self.min = Some(self.min.map_or(last, |min| min.min(last)));
        self.max = self.max.max(self.last);
        self.sum = self.sum.saturating_add(last);
        let count = u32::try_from(self.answered).unwrap_or(u32::MAX);
        self.mean = self.sum.checked_div(count);
    }
}

impl Pinger {
    pub(crate) fn new(host: Host, target: Target) -> Self {
        Self { host, target, stream: None, stats: PingStats::default() }
    }

    /// What has been measured, and how often it failed.
    #[must_use]
    pub fn stats(&self) -> PingStats {
        self.stats
    }

    /// Measures one round trip; connects and opens the stream first where that is needed.
    ///
    /// # Errors
    /// [`PingError`]; the pinger can be used again.
    ///
    /// # Cancel safety
    /// Cancel safe: the stream of a ping that was given up is not used again.
    pub async fn ping(&mut self) -> Result<Duration, PingError> {
        let result = self.measure().await;
        metrics::pinged(&result);
        self.stats.count(result.as_ref().ok().copied());
        result
    }

    async fn measure(&mut self) -> Result<Duration, PingError> {
        if let Some(stream) = self.stream.take() {
            match self.ping_on(stream).await {
                // The peer has ended it meanwhile.
                Err(PingError::Stream(_)) => {}
                result => return result,
            }
        }
        let inner = &self.host.inner;
        let conn = inner.connect(&self.target, None, false).await.map_err(OpenError::from)?;
        let stream = open_counted(inner, &conn, &PROTOCOL, false, PING_MAX).await?;
        self.ping_on(stream).await
    }

    async fn ping_on(&mut self, mut stream: Stream) -> Result<Duration, PingError> {
        match timeout(PING_MAX, exchange(&self.host.inner.world, &mut stream)).await {
            Ok(Ok(round_trip)) => {
                self.stream = Some(stream);
                Ok(round_trip)
            }
            Ok(Err(error)) => {
                stream.reset(ErrorCode::NONE);
                Err(error)
            }
            Err(_) => {
                stream.reset(ErrorCode::NONE);
                Err(PingError::TimedOut(PING_MAX))
            }
        }
    }
}

impl Drop for Pinger {
    /// Ends the stream in order: nothing is owed on it.
    fn drop(&mut self) {
        if let Some(mut stream) = self.stream.take() {
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            let end =
                tokio::io::AsyncWrite::poll_shutdown(std::pin::Pin::new(&mut stream), &mut context);
            debug_assert!(end.is_ready(), "shutting a stream down never waits");
        }
    }
}

async fn exchange(world: &World, stream: &mut Stream) -> Result<Duration, PingError> {
    let mut ping = [0; PING_LEN];
    world.fill(&mut ping).map_err(|error| PingError::Randomness(error.to_string()))?;
    let begun = Instant::now();
    let failed = |error: io::Error| PingError::Stream(error.into());
    stream.write_all(&ping).await.map_err(failed)?;
    let mut pong = [0; PING_LEN];
    stream.read_exact(&mut pong).await.map_err(failed)?;
    let round_trip = begun.elapsed();
    if pong == ping { Ok(round_trip) } else { Err(PingError::Mismatch) }
}

impl From<Cause> for PingError {
    fn from(cause: Cause) -> Self {
        Self::Stream(io::Error::other(cause.to_string()).into())
    }
}
