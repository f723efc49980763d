//! `/p2p/demo/bulk/1.0.0`: the opener sends zeros and ends its side; the other side answers with
//! their count, 8 bytes, big-endian.

use std::io;

use bytes::Bytes;
use p2p::{ProtocolId, Stream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::STEP_MAX;
use crate::failure::{Failure, within};

pub(super) const PROTOCOL: ProtocolId = ProtocolId::from_static("/p2p/demo/bulk/1.0.0");

/// How much is sent, in bytes: about a second's worth, less where nothing is optimised.
pub(super) const LEN: u64 = if cfg!(debug_assertions) { 16 << 20 } else { 256 << 20 };

/// What goes with the figure.
pub(super) const NOTE: &str =
    if cfg!(debug_assertions) { " (debug build: try --release)" } else { "" };

/// What is sent at a time; divides [`LEN`].
const CHUNK_LEN: usize = 256 << 10;
static ZEROS: [u8; CHUNK_LEN] = [0; CHUNK_LEN];

/// Sends the zeros without copying them; gives the other side's count.
pub(super) async fn send(mut stream: Stream) -> Result<u64, Failure> {
    let failed = |error: io::Error| Failure::new(format!("the bulk stream failed: {error}"));
    for _ in 0..LEN / CHUNK_LEN as u64 {
        let mut zeros = Bytes::from_static(&ZEROS);
        let sending = async { stream.send(&mut zeros).await.map_err(|error| failed(error.into())) };
        within(STEP_MAX, "sending a piece of the bulk", sending).await?;
    }
    let answer = async {
        stream.shutdown().await.map_err(failed)?;
        stream.read_u64().await.map_err(failed)
    };
    within(STEP_MAX, "the count of the bulk", answer).await
}

/// Serves the protocol.
pub(super) async fn receive(mut stream: Stream) -> io::Result<()> {
    let mut count = 0;
    while let Some(chunk) = timeout(STEP_MAX, stream.chunk(CHUNK_LEN)).await?? {
        count += chunk.len() as u64;
    }
    stream.write_u64(count).await?;
    stream.shutdown().await
}
