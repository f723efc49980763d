//! Doors for the fuzz targets, and for tests that replay what was recorded: what bytes from the wire
//! reach only behind a cipher. Not part of the API, and free to change.

use p2p_core::{
    Handshake, Keypair, Open, PeerId, ProtocolId, PublicKey, Role, Seal, Security, SecurityError,
};

use crate::{
    Noise,
    cipher::Cipher,
    payload,
    record::{Opener, Sealer},
    symmetric::CipherState,
    verified::Verified,
    xx::DhKey,
};

/// Decodes and checks a decrypted handshake payload; gives the peer and the multiplexers it offers.
///
/// # Errors
/// [`SecurityError`] unless the identity in it has signed `static_key`.
pub fn verify_payload(
    payload: &[u8],
    static_key: &[u8; 32],
) -> Result<(PublicKey, Vec<String>), SecurityError> {
    let peer = payload::verify(payload, static_key, &Verified::new())?;
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

/// Makes a provider whose handshakes all have the same keys, each of 32 bytes, so that what a peer
/// has answered once can be opened again. It protects nothing.
///
/// # Errors
/// [`SecurityError::OwnKey`] when `keypair` cannot sign the static key.
pub fn noise_with_keys(
    keypair: &Keypair,
    static_key: [u8; 32],
    ephemeral_key: [u8; 32],
) -> Result<impl Security + use<>, SecurityError> {
    let noise = Noise::with_static_key(keypair, DhKey::from_secret(static_key))?;
    Ok(KnownKeys { noise, ephemeral_key })
}

struct KnownKeys {
    noise: Noise,
    ephemeral_key: [u8; 32],
}

impl Security for KnownKeys {
    fn protocol(&self) -> ProtocolId {
        self.noise.protocol()
    }

    fn start(
        &self,
        role: Role,
        expected: Option<&PeerId>,
        muxers: &[ProtocolId],
    ) -> Result<Box<dyn Handshake>, SecurityError> {
        let ephemeral = DhKey::from_secret(self.ephemeral_key);
        Ok(Box::new(self.noise.handshake_with(ephemeral, role, expected, muxers)))
    }
}
