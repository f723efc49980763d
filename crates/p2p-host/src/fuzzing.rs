//! Doors for the fuzz targets. Not part of the API, and free to change.

use bytes::Bytes;
use p2p_core::PublicKey;

use crate::identify::{self, PeerInfo};

/// Decodes a whole identify answer of the peer that has proven to have `public_key`.
///
/// # Errors
/// A text that says what is wrong with it.
pub fn identify(answer: Bytes, public_key: &PublicKey) -> Result<PeerInfo, String> {
    identify::decode(answer, public_key)
}
