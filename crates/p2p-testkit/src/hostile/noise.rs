//! Noise XX by hand: `Noise_XX_25519_ChaChaPoly_SHA256`, with every payload chosen by a test.

use std::fmt;

use hkdf::Hkdf;
use p2p_core::{Keypair, SecurityError};
use p2p_security_noise::cipher::{Cipher, NONCE_LEN, TAG_LEN};
use sha2::{Digest, Sha256};
use x25519_dalek::{PublicKey, StaticSecret};

use super::wire::field;

const NAME: [u8; 32] = *b"Noise_XX_25519_ChaChaPoly_SHA256";
/// Stands before the static key in what an identity signs.
const SIGNATURE_PREFIX: &[u8] = b"noise-libp2p-static-key:";

/// One side of a handshake. Messages come without the two bytes of their length; see [`framed`].
/// The keys are the same for the same seed: nothing here is a secret.
pub struct RawHandshake {
    static_key: StaticSecret,
    ephemeral: StaticSecret,
    their_ephemeral: [u8; 32],
    hash: [u8; 32],
    chain: [u8; 32],
    key: Option<[u8; 32]>,
    count: u64,
}

/// A message or record with its length of two bytes before it.
#[must_use]
pub fn framed(message: &[u8]) -> Vec<u8> {
    let len = u16::try_from(message.len()).unwrap_or(u16::MAX);
    [&len.to_be_bytes()[..], message].concat()
}

/// The payload of a handshake message, of any parts; `muxers` are left out where there are none.
#[must_use]
pub fn payload(identity_key: &[u8], signature: &[u8], muxers: &[&str]) -> Vec<u8> {
    let muxers: Vec<u8> = muxers.iter().flat_map(|name| field(2, name.as_bytes())).collect();
    let extensions = if muxers.is_empty() { Vec::new() } else { field(4, &muxers) };
    [field(1, identity_key), field(2, signature), extensions].concat()
}

impl RawHandshake {
    /// Begins a handshake, as either side.
    #[must_use]
    pub fn new(seed: u8) -> Self {
        let mut begun = Self {
            static_key: StaticSecret::from([seed; 32]),
            ephemeral: StaticSecret::from([seed ^ 0x80; 32]),
            their_ephemeral: [0; 32],
            hash: NAME,
            chain: NAME,
            key: None,
            count: 0,
        };
        begun.mix_hash(&[]);
        begun
    }

    /// The payload of a good peer that has `identity` and offers `muxers`.
    ///
    /// # Errors
    /// That of signing.
    pub fn good_payload(
        &self,
        identity: &Keypair,
        muxers: &[&str],
    ) -> Result<Vec<u8>, p2p_core::KeyError> {
        let signed = [SIGNATURE_PREFIX, PublicKey::from(&self.static_key).as_bytes()].concat();
        Ok(payload(&identity.public().to_protobuf(), &identity.sign(&signed)?, muxers))
    }

    /// `-> e`
    pub fn message_1(&mut self, payload: &[u8]) -> Vec<u8> {
        let ephemeral = self.say_ephemeral();
        self.mix_hash(payload);
        [&ephemeral, payload].concat()
    }

    /// `-> e`, heard.
    ///
    /// # Errors
    /// [`SecurityError`] when it is none.
    pub fn hear_1(&mut self, message: &[u8]) -> Result<(), SecurityError> {
        let payload = self.hear_ephemeral(message)?;
        self.mix_hash(payload);
        Ok(())
    }

    /// `<- e, ee, s, es`
    ///
    /// # Errors
    /// The cipher's.
    pub fn message_2(&mut self, payload: &[u8]) -> Result<Vec<u8>, SecurityError> {
        let mut out = self.say_ephemeral().to_vec();
        self.mix_key(&self.ephemeral.clone(), self.their_ephemeral);
        out.extend(self.seal(&PublicKey::from(&self.static_key).to_bytes())?);
        self.mix_key(&self.static_key.clone(), self.their_ephemeral);
        out.extend(self.seal(payload)?);
        Ok(out)
    }

    /// `<- e, ee, s, es`, heard: gives the payload.
    ///
    /// # Errors
    /// [`SecurityError`] when it is none.
    pub fn hear_2(&mut self, message: &[u8]) -> Result<Vec<u8>, SecurityError> {
        let rest = self.hear_ephemeral(message)?;
        self.mix_key(&self.ephemeral.clone(), self.their_ephemeral);
        let (sealed, rest) = rest.split_at_checked(32 + TAG_LEN).ok_or_else(too_short)?;
        let their_static = self.open(sealed)?.try_into().map_err(|_| too_short())?;
        self.mix_key(&self.ephemeral.clone(), their_static);
        self.open(rest)
    }

    /// `-> s, se`
    ///
    /// # Errors
    /// The cipher's.
    pub fn message_3(&mut self, payload: &[u8]) -> Result<Vec<u8>, SecurityError> {
        let mut out = self.seal(&PublicKey::from(&self.static_key).to_bytes())?;
        self.mix_key(&self.static_key.clone(), self.their_ephemeral);
        out.extend(self.seal(payload)?);
        Ok(out)
    }

    /// What the initiator sends after the third message.
    #[must_use]
    pub fn records(mut self) -> RawRecords {
        self.mix_key_with(&[]);
        // The first of the two keys that a handshake ends with is the initiator's.
        RawRecords { key: self.chain, count: 0 }
    }

    fn say_ephemeral(&mut self) -> [u8; 32] {
        let public = PublicKey::from(&self.ephemeral).to_bytes();
        self.mix_hash(&public);
        public
    }

    fn hear_ephemeral<'a>(&mut self, message: &'a [u8]) -> Result<&'a [u8], SecurityError> {
        let (ephemeral, rest) = message.split_first_chunk().ok_or_else(too_short)?;
        self.their_ephemeral = *ephemeral;
        self.mix_hash(ephemeral);
        Ok(rest)
    }

    fn mix_hash(&mut self, data: &[u8]) {
        self.hash = Sha256::new().chain_update(self.hash).chain_update(data).finalize().into();
    }

    fn mix_key(&mut self, ours: &StaticSecret, theirs: [u8; 32]) {
        self.mix_key_with(ours.diffie_hellman(&PublicKey::from(theirs)).as_bytes());
    }

    fn mix_key_with(&mut self, secret: &[u8]) {
        let mut derived = [[0; 32]; 2];
        Hkdf::<Sha256>::new(Some(&self.chain), secret)
            .expand(&[], derived.as_flattened_mut())
            .expect("64 bytes are within what HKDF can give");
        let [chain, key] = derived;
        (self.chain, self.key, self.count) = (chain, Some(key), 0);
    }

    /// The key of this moment, and the nonce for the next message.
    fn next(&mut self) -> ([u8; 32], [u8; NONCE_LEN]) {
        let nonce = nonce(self.count);
        self.count = self.count.wrapping_add(1);
        (self.key.unwrap_or_default(), nonce)
    }

    fn seal(&mut self, plain: &[u8]) -> Result<Vec<u8>, SecurityError> {
        let (key, nonce) = self.next();
        let mut sealed = plain.to_vec();
        let tag = Cipher::RUST_CRYPTO.key(&key)?.seal(&nonce, &self.hash, &mut sealed)?;
        sealed.extend_from_slice(&tag);
        self.mix_hash(&sealed);
        Ok(sealed)
    }

    fn open(&mut self, sealed: &[u8]) -> Result<Vec<u8>, SecurityError> {
        let (key, nonce) = self.next();
        let mut plain = sealed.to_vec();
        Cipher::RUST_CRYPTO.key(&key)?.open(&nonce, &self.hash, &mut plain)?;
        plain.truncate(plain.len().saturating_sub(TAG_LEN));
        self.mix_hash(sealed);
        Ok(plain)
    }
}

/// The initiator's records: of any content, empty ones too.
pub struct RawRecords {
    key: [u8; 32],
    count: u64,
}

impl RawRecords {
    /// Seals one record, with its length before it.
    ///
    /// # Errors
    /// The cipher's.
    pub fn seal(&mut self, plain: &[u8]) -> Result<Vec<u8>, SecurityError> {
        let mut sealed = plain.to_vec();
        let tag = Cipher::RUST_CRYPTO.key(&self.key)?.seal(&nonce(self.count), &[], &mut sealed)?;
        sealed.extend_from_slice(&tag);
        self.count = self.count.wrapping_add(1);
        Ok(framed(&sealed))
    }
}

impl fmt::Debug for RawRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawRecords").field("count", &self.count).finish_non_exhaustive()
    }
}

fn nonce(count: u64) -> [u8; NONCE_LEN] {
    let [a, b, c, d, e, f, g, h] = count.to_le_bytes();
    [0, 0, 0, 0, a, b, c, d, e, f, g, h]
}

impl fmt::Debug for RawHandshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawHandshake").finish_non_exhaustive()
    }
}

fn too_short() -> SecurityError {
    SecurityError::Malformed("a message ends before its keys do".into())
}
