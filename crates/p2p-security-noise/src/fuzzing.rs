//! Doors for the fuzz targets: what bytes from the wire reach only behind a cipher. Not part of the
//! API, and free to change.

use p2p_core::{Open, PublicKey, Seal, SecurityError};

use crate::{
    cipher::Cipher,
    payload,
    record::{Opener, Sealer},
    symmetric::CipherState,
};

/// Decodes and checks a decrypted handshake payload; gives the peer and the multiplexers it offers.
///
/// # Errors
/// [`SecurityError`] unless the identity in it has signed `static_key`.
pub fn verify_payload(
    payload: &[u8],
    static_key: &[u8; 32],
) -> Result<(PublicKey, Vec<String>), SecurityError> {
    let peer = payload::verify(payload, static_key)?;
    let muxers = payload::muxers(payload)?;
    Ok((peer, muxers.into_iter().map(str::to_owned).collect()))
}

/// Makes both ends of one direction of a channel, with `key` and the first nonce.
///
/// # Errors
/// [`SecurityError`] when the cipher refuses the key.
pub fn records(key: &[u8; 32]) -> Result<(impl Seal + use<>, impl Open + use<>), SecurityError> {
    let cipher = || CipherState::new(Cipher::RUST_CRYPTO, key);
    Ok((Sealer::new(cipher()?), Opener::new(cipher()?)))
}
