use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use p2p_core::{Handshake, Keypair, PeerId, ProtocolId, PublicKey, Role, Security, SecurityError};

use crate::{
    cipher::Cipher,
    handshake::NoiseHandshake,
    limits::{MUXERS_OFFERED_LEN_MAX, MUXERS_OFFERED_MAX},
    payload,
    verified::Verified,
    xx::{DhKey, Xx},
};

/// The Noise secure channel, as a value that a host is configured with.
///
/// It holds the host's X25519 static key and the identity's signature over it, made once and
/// shared by all clones and connections; every handshake makes an ephemeral key of its own.
/// Secrets are zeroized with the last clone and never printed. The signatures of the last
/// [`VERIFIED_MAX`](crate::limits::VERIFIED_MAX) peers are remembered, and not verified again.
///
/// The handshakes it starts can agree on a multiplexer. Offer one, or the same order on every
/// host: js-libp2p picks by the remote side's order in both roles, so a longer list in another
/// order can end with two different choices.
///
/// ```
/// use p2p_core::Security;
/// use p2p_security_noise::{Keypair, Noise, Role};
///
/// let noise = Noise::new(&Keypair::generate()?)?;
/// let mut handshake = noise.start(Role::Initiator, None, &[])?;
/// let (mut wire, mut out) = Default::default();
/// assert!(handshake.advance(&mut wire, &mut out)?.is_none());
/// assert_eq!(out.len(), 34); // message 1: its length, and an ephemeral key
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Noise {
    identity: Arc<Identity>,
    verified: Arc<Verified>,
    prologue: Bytes,
    cipher: Cipher,
    keys: Keys,
}

/// Where Diffie-Hellman keys come from.
#[derive(Clone)]
enum Keys {
    System,
    Seeded { seed: u64, made: Arc<AtomicU64> },
}

impl Keys {
    fn next(&self) -> Result<DhKey, SecurityError> {
        match self {
            Self::System => DhKey::generate(),
            Self::Seeded { seed, made } => {
                Ok(DhKey::of_seed(*seed, made.fetch_add(1, Ordering::Relaxed)))
            }
        }
    }
}

impl Noise {
    /// Makes a provider for the host that `keypair` identifies. The key pair itself is not kept.
    ///
    /// # Errors
    /// [`SecurityError::Randomness`] when the system gives none for the static key;
    /// [`SecurityError::OwnKey`] when `keypair` cannot sign it.
    pub fn new(keypair: &Keypair) -> Result<Self, SecurityError> {
        Self::with_keys(keypair, Keys::System)
    }

    /// Makes a provider whose keys all follow from `seed`, so that a simulated network sees the
    /// same bytes in every run. Dangerous: whoever knows the seed reads every connection.
    ///
    /// # Errors
    /// [`SecurityError::OwnKey`] when `keypair` cannot sign the static key.
    pub fn dangerous_seeded(keypair: &Keypair, seed: u64) -> Result<Self, SecurityError> {
        Self::with_keys(keypair, Keys::Seeded { seed, made: Arc::default() })
    }

    fn with_keys(keypair: &Keypair, keys: Keys) -> Result<Self, SecurityError> {
        let static_key = keys.next()?;
        Ok(Self { keys, ..Self::with_static_key(keypair, static_key)? })
    }

    pub(crate) fn with_static_key(
        keypair: &Keypair,
        static_key: DhKey,
    ) -> Result<Self, SecurityError> {
        let identity = Identity::new(keypair, static_key)?;
        let (prologue, cipher) = (Bytes::new(), Cipher::RUST_CRYPTO);
        let (identity, verified) = (Arc::new(identity), Arc::new(Verified::new()));
        Ok(Self { identity, verified, prologue, cipher, keys: Keys::System })
    }

    /// Sets the implementation of ChaCha20-Poly1305.
    ///
    /// Default: [`Cipher::RUST_CRYPTO`]. It costs nothing in memory, and the peer sees no
    /// difference; [`cipher`](crate::cipher) says what there is.
    #[must_use]
    pub fn with_cipher(mut self, cipher: Cipher) -> Self {
        self.cipher = cipher;
        self
    }

    /// Sets the bytes that both sides must have in common before the first message; not sent.
    ///
    /// Default: empty, as on TCP, WebSocket, relays and WebTransport. WebRTC-direct puts its
    /// certificate fingerprints there (NOISE-04). Handshakes between sides whose prologues
    /// differ fail with [`SecurityError::Decrypt`]. Costs its length in memory once, and its
    /// hashing in each handshake.
    #[must_use]
    pub fn with_prologue(mut self, prologue: impl Into<Bytes>) -> Self {
        self.prologue = prologue.into();
        self
    }

    pub(crate) fn start_handshake(
        &self,
        role: Role,
        expected: Option<&PeerId>,
        muxers: &[ProtocolId],
    ) -> Result<NoiseHandshake, SecurityError> {
        Ok(self.handshake_with(self.keys.next()?, role, expected, muxers))
    }

    pub(crate) fn handshake_with(
        &self,
        ephemeral: DhKey,
        role: Role,
        expected: Option<&PeerId>,
        muxers: &[ProtocolId],
    ) -> NoiseHandshake {
        let static_key = Arc::clone(&self.identity.static_key);
        let xx = Xx::new(self.cipher, &self.prologue, static_key, ephemeral);
        let muxers = offered(muxers).to_vec();
        let (identity, verified) = (Arc::clone(&self.identity), Arc::clone(&self.verified));
        NoiseHandshake::new(role, xx, identity, verified, expected.copied(), muxers)
    }
}

impl Security for Noise {
    /// `/noise` (NOISE-01).
    fn protocol(&self) -> ProtocolId {
        ProtocolId::from_static("/noise")
    }

    /// Begins a handshake. An initiator with `expected` fails after message 2, before it shows
    /// its own identity; a responder can only compare after message 3. Of `muxers` the first
    /// are offered, [`MUXERS_OFFERED_MAX`] and [`MUXERS_OFFERED_LEN_MAX`] bytes at most.
    ///
    /// # Errors
    /// [`SecurityError::Randomness`] when the system gives none for the ephemeral key.
    fn start(
        &self,
        role: Role,
        expected: Option<&PeerId>,
        muxers: &[ProtocolId],
    ) -> Result<Box<dyn Handshake>, SecurityError> {
        Ok(Box::new(self.start_handshake(role, expected, muxers)?))
    }
}

impl fmt::Debug for Noise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Noise")
            .field("identity", &self.identity.public_key)
            .field("cipher", &self.cipher)
            .finish_non_exhaustive()
    }
}

/// The front of `muxers` that keeps to the limits of an offer.
fn offered(muxers: &[ProtocolId]) -> &[ProtocolId] {
    let mut left = MUXERS_OFFERED_LEN_MAX;
    let fitting = muxers.iter().take(MUXERS_OFFERED_MAX).take_while(|muxer| {
        let rest = left.checked_sub(muxer.as_str().len());
        left = rest.unwrap_or_default();
        rest.is_some()
    });
    muxers.split_at(fitting.count()).0
}

/// Who this side is, bound to its static key by a signature.
pub(crate) struct Identity {
    pub(crate) public_key: PublicKey,
    pub(crate) static_key: Arc<DhKey>,
    pub(crate) signature: Vec<u8>,
}

impl Identity {
    pub(crate) fn new(keypair: &Keypair, static_key: DhKey) -> Result<Self, SecurityError> {
        let signature = keypair
            .sign(&payload::to_be_signed(static_key.public()))
            .map_err(SecurityError::OwnKey)?;
        Ok(Self { public_key: keypair.public(), static_key: Arc::new(static_key), signature })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_names_the_peer_and_no_secret() {
        let keypair = Keypair::from_ed25519_seed(&[1; 32]);
        let noise = Noise::new(&keypair).expect("randomness").with_prologue("prologue");
        let peer = keypair.public().peer_id();
        assert_eq!(
            format!("{noise:?}"),
            format!("Noise {{ identity: PublicKey({peer}), cipher: Cipher(RustCrypto), .. }}")
        );
    }

    #[test]
    fn noise_01_the_protocol_is_called_noise() {
        let noise = Noise::new(&Keypair::from_ed25519_seed(&[1; 32])).expect("randomness");
        assert_eq!(noise.protocol().as_str(), "/noise");
    }

    #[test]
    fn a_seed_gives_the_same_keys_in_every_run_and_each_handshake_its_own() {
        let first_messages = |seed| {
            let keypair = Keypair::from_ed25519_seed(&[1; 32]);
            let noise = Noise::dangerous_seeded(&keypair, seed).expect("it signs");
            [noise.clone(), noise].map(|noise| {
                let mut handshake = noise.start(Role::Initiator, None, &[]).expect("seeded");
                let mut out = bytes::BytesMut::new();
                handshake.advance(&mut bytes::BytesMut::new(), &mut out).expect("it begins");
                out
            })
        };
        let [first, second] = first_messages(1);
        assert_ne!(first, second, "an ephemeral key was used twice");
        assert_eq!(first_messages(1), [first.clone(), second]);
        assert_ne!(first_messages(2)[0], first);
    }

    #[test]
    fn noise_05_the_static_key_is_made_once_and_is_not_the_identity() {
        let keypair = Keypair::from_ed25519_seed(&[1; 32]);
        let noise = Noise::new(&keypair).expect("randomness");
        let other = Noise::new(&keypair).expect("randomness");
        let key = |noise: &Noise| *noise.identity.static_key.public();
        assert_eq!(key(&noise), key(&noise.clone()));
        assert_ne!(key(&noise), key(&other));
        assert!(!keypair.public().to_protobuf().ends_with(&key(&noise)));
    }
}
