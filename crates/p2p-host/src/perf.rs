//! Perf, `/perf/1.0.0`: how fast a connection carries data (specs, perf/perf.md).
//!
//! ```text
//!   client                                     server
//!     │ ── 8 bytes: how many it wants back ──▶   │
//!     │ ── upload, end of data ──────────────▶   │ reads to the end
//!     │ ◀─────────────── download, end of data ─ │
//! ```
//!
//! The server is off until [`serve`] is called: whoever may use it can use up this side's line.

use std::time::Duration;

use bytes::Bytes;
use p2p_core::{ErrorCode, ProtocolId, Stream, StreamError};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};

use crate::{
    HandleError, Host, IntoTarget, OpenError,
    dispatch::{BoxError, Limits},
    ledger::Max,
};

/// The protocol's name.
pub const PROTOCOL: ProtocolId = ProtocolId::from_static("/perf/1.0.0");

/// What is written at once, in bytes, by reference to [`ZEROS`].
const PIECE_LEN: usize = 64 << 10;
/// The content, which is arbitrary (PERF-03).
static ZEROS: [u8; PIECE_LEN] = [0; PIECE_LEN];
/// How long the other side may neither send nor take anything, on either side.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Streams of one peer that are served at a time; the next is reset.
const STREAMS_OF_PEER_MAX: usize = 64;

/// Why a measurement has no result.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PerfError {
    /// The peer could not be reached, or does not serve perf.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The stream failed.
    #[error("the perf stream failed: {0}")]
    Stream(p2p_core::IoCause),
    /// The peer sent another number of bytes than it was asked for.
    #[error("the peer sent {received} bytes and was asked for {wanted}")]
    Len {
        /// What was asked for, in bytes.
        wanted: u64,
        /// What had come when the peer ended its data, or the first count that was too high.
        received: u64,
    },
}

impl From<StreamError> for PerfError {
    fn from(error: StreamError) -> Self {
        Self::Stream(std::io::Error::from(error).into())
    }
}

impl From<std::io::Error> for PerfError {
    fn from(error: std::io::Error) -> Self {
        Self::Stream(error.into())
    }
}

/// How far a measurement is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Bytes handed to the multiplexer so far.
    pub uploaded: u64,
    /// Bytes received so far.
    pub downloaded: u64,
}

/// What a measurement has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Measured {
    /// From the first byte sent until the peer had read all of it: the first byte, or the end,
    /// of its answer.
    pub upload: Duration,
    /// From there to the end of the answer.
    pub download: Duration,
}

/// Serves the protocol on `host`, to every peer: at most 64 streams of one peer at a time.
/// `host.unhandle("/perf/1.0.0")` ends that.
///
/// # Errors
/// [`HandleError`] when it is served already.
pub fn serve(host: &Host) -> Result<(), HandleError> {
    let of_peer_max = Some(Max::fixed(STREAMS_OF_PEER_MAX));
    let limits = Limits { streams_of_peer_max: of_peer_max, ..Limits::default() };
    host.inner.protocols.handle_within(PROTOCOL, limits, answer)
}

/// Reads to the end, and only then sends (PERF-02).
async fn answer(mut stream: Stream) -> Result<(), BoxError> {
    stream.set_read_deadline(in_time());
    let wanted = stream.read_u64().await?;
    receive(&mut stream, |_| Ok(())).await?;
    send(&mut stream, wanted, |_| {}).await?;
    Ok(stream.shutdown().await?)
}

impl Host {
    /// Uploads and downloads so many bytes on one stream, and says how long each took. The peer
    /// may be of any implementation that serves `/perf/1.0.0`.
    ///
    /// # Errors
    /// [`PerfError`].
    ///
    /// # Cancel safety
    /// Cancel safe: dropped, it resets the stream, and the peer stops sending.
    pub async fn perf(
        &self,
        target: impl IntoTarget,
        upload: u64,
        download: u64,
    ) -> Result<Measured, PerfError> {
        let stream = self.open(target, PROTOCOL).await?;
        measure(stream, upload, download, |_| {}).await
    }
}

/// The same as [`Host::perf`] on a stream that is open already, telling `progress` of every piece
/// that moves.
///
/// # Errors
/// [`PerfError`].
///
/// # Cancel safety
/// Cancel safe: dropped, it resets the stream.
pub async fn measure(
    mut stream: Stream,
    upload: u64,
    download: u64,
    mut progress: impl FnMut(Progress),
) -> Result<Measured, PerfError> {
    let begun = Instant::now();
    let mut now = Progress::default();
    stream.set_write_deadline(in_time());
    stream.write_u64(download).await?;
    send(&mut stream, upload, |sent| {
        now.uploaded = sent;
        progress(now);
    })
    .await?;
    stream.shutdown().await?;
    let mut turned = None;
    let received = receive(&mut stream, |received| {
        turned.get_or_insert_with(Instant::now);
        now.downloaded = received;
        progress(now);
        if received > download {
            return Err(PerfError::Len { wanted: download, received });
        }
        Ok(())
    })
    .await;
    if received.is_err() {
        stream.reset(ErrorCode::NONE);
    }
    let received = received?;
    if received < download {
        return Err(PerfError::Len { wanted: download, received });
    }
    let ended = Instant::now();
    let turned = turned.unwrap_or(ended);
    Ok(Measured { upload: turned - begun, download: ended - turned })
}

/// Sends `len` bytes, and tells how many are gone after each piece.
async fn send(stream: &mut Stream, len: u64, mut sent: impl FnMut(u64)) -> Result<(), StreamError> {
    let mut left = len;
    while left > 0 {
        let piece_len = usize::try_from(left).unwrap_or(PIECE_LEN).min(PIECE_LEN);
        let mut piece = Bytes::from_static(&ZEROS).split_to(piece_len);
        stream.set_write_deadline(in_time());
        stream.send(&mut piece).await?;
        left = left.saturating_sub(piece_len as u64);
        sent(len.saturating_sub(left));
    }
    Ok(())
}

/// Reads to the end, and tells how many bytes have come after each piece.
async fn receive(
    stream: &mut Stream,
    mut came: impl FnMut(u64) -> Result<(), PerfError>,
) -> Result<u64, PerfError> {
    let mut count = 0u64;
    loop {
        stream.set_read_deadline(in_time());
        let Some(piece) = stream.chunk(usize::MAX).await? else {
            return Ok(count);
        };
        count = count.saturating_add(piece.len() as u64);
        came(count)?;
    }
}

fn in_time() -> Option<std::time::Instant> {
    Some((Instant::now() + SILENCE_MAX).into_std())
}
