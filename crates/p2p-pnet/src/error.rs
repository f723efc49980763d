use std::io;

use crate::{Fingerprint, cipher::NONCE_LEN};

/// Why a link is of no use in this private network. Comes inside an [`io::Error`]; in a host's
/// errors, `IoCause::downcast_ref` finds it.
///
/// There is no authentication in the layer, so what is known of the peer's key is known from the
/// bytes that come out: those of a libp2p connection always begin the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The peer speaks libp2p in the clear.
    #[error("the peer is in no private network: it began with multistream-select in the clear")]
    Public,
    /// What the peer sent is no libp2p under this side's key.
    #[error(
        "the peer has another pre-shared key, or is in no private network: \
         its first bytes make no sense with the key of fingerprint {ours}"
    )]
    OtherKey {
        /// This side's.
        ours: Fingerprint,
    },
    /// The peer closed or reset the link before its first message, as one with another key does,
    /// to which this side's bytes make no sense.
    #[error(
        "the peer closed the link before its first message; \
         its pre-shared key may be another than the one of fingerprint {ours}"
    )]
    Silent {
        /// This side's.
        ours: Fingerprint,
    },
    /// The peer closed the link inside its nonce.
    #[error("the peer closed the link after {len} of the {NONCE_LEN} bytes of its nonce")]
    NonceCut {
        /// How much of it there was, in bytes; 1 to 23.
        len: usize,
    },
    /// The link brings its own encryption and multiplexing, and cannot be wrapped.
    #[error(
        "QUIC, WebTransport and WebRTC cannot be used in a private network: \
         they bring their own encryption, around which a pre-shared key cannot be put"
    )]
    Multiplexed,
    /// One direction has carried 2^70 bytes.
    #[error("the cipher's stream is used up")]
    Exhausted,
}

impl From<LinkError> for io::Error {
    fn from(error: LinkError) -> Self {
        let kind = match &error {
            LinkError::Public | LinkError::OtherKey { .. } => io::ErrorKind::InvalidData,
            LinkError::Silent { .. } | LinkError::NonceCut { .. } => io::ErrorKind::UnexpectedEof,
            LinkError::Multiplexed => io::ErrorKind::Unsupported,
            LinkError::Exhausted => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}
