use std::io;

use bytes::{BufMut, BytesMut};
use p2p_core::ProtocolId;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::{Initiator, NegotiationError, Responder};

/// Proposes `protocols` over `io`, best first, and returns the one that the peer confirms.
///
/// Reads not one byte past the confirmation: the next byte read from `io` is the first of the
/// agreed protocol. It has no clock: the caller limits the time. It writes before it reads, so the
/// pipe must hold the 20 bytes of the responder's header.
///
/// # Errors
/// [`NegotiationError`]; `io` is to be reset or dropped.
///
/// # Cancel safety
/// Not cancel safe: a future that is dropped leaves `io` in the middle of the negotiation, so
/// `io` is to be reset or dropped as well.
pub async fn initiate<S: AsyncRead + AsyncWrite + Unpin>(
    io: &mut S,
    protocols: impl IntoIterator<Item = ProtocolId>,
) -> Result<ProtocolId, NegotiationError> {
    let mut initiator = Initiator::new(protocols)?;
    let (mut wire, mut out) = (BytesMut::new(), BytesMut::new());
    loop {
        let agreed = initiator.advance(&mut wire, &mut out)?;
        write(io, &mut out).await.map_err(failed)?;
        if let Some(protocol) = agreed {
            return Ok(protocol);
        }
        let wanted = initiator.wanted(&wire);
        if read(io, &mut wire, wanted).await.map_err(failed)? == 0 {
            return Err(initiator.handle_end());
        }
    }
}

/// Answers the peer's proposals on `io` until `supports` says yes to one, and returns that one.
///
/// Reads not one byte past the proposal: the next byte read from `io` is the first of the agreed
/// protocol. It has no clock: the caller limits the time.
///
/// An answer that cannot be written is not the end: the initiator may have closed that direction
/// with its request on the way (MSS-26). Then the agreement counts, and the protocol's own writes
/// fail.
///
/// # Errors
/// [`NegotiationError`]; `io` is to be reset or dropped.
///
/// # Cancel safety
/// Not cancel safe: a future that is dropped leaves `io` in the middle of the negotiation, so
/// `io` is to be reset or dropped as well.
pub async fn respond<S: AsyncRead + AsyncWrite + Unpin>(
    io: &mut S,
    mut supports: impl FnMut(&str) -> bool,
) -> Result<ProtocolId, NegotiationError> {
    let mut responder = Responder::new();
    let (mut wire, mut out) = (BytesMut::new(), BytesMut::new());
    let mut writable = Ok(());
    loop {
        let agreed = responder.advance(&mut wire, &mut out, &mut supports)?;
        if writable.is_ok() {
            writable = write(io, &mut out).await;
        }
        if let Some(protocol) = agreed {
            return Ok(protocol);
        }
        let wanted = responder.wanted(&wire);
        if read(io, &mut wire, wanted).await.map_err(failed)? == 0 {
            return Err(writable.map_or_else(failed, |()| responder.handle_end()));
        }
    }
}

async fn write(io: &mut (impl AsyncWrite + Unpin), out: &mut BytesMut) -> io::Result<()> {
    if out.is_empty() {
        return Ok(());
    }
    io.write_all_buf(out).await?;
    // A buffered stream would keep the message, and both sides would wait.
    io.flush().await
}

/// Reads between 1 and `max` bytes, or 0 at the end of the stream.
async fn read(
    io: &mut (impl AsyncRead + Unpin),
    wire: &mut BytesMut,
    max: usize,
) -> io::Result<usize> {
    wire.reserve(max);
    io.read_buf(&mut wire.limit(max)).await
}

fn failed(error: io::Error) -> NegotiationError {
    NegotiationError::Io(error.into())
}
