//! Noise's two symmetric objects (Noise, sections 5.1 and 5.2), for ChaChaPoly (by the cipher that
//! is given) and SHA-256.

use bytes::BytesMut;
use hkdf::Hkdf;
use p2p_core::SecurityError;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::cipher::{Cipher, CipherKey, KEY_LEN, NONCE_LEN, TAG_LEN};

/// Length of a hash and a chaining key in bytes: that of a key, too.
const HASH_LEN: usize = KEY_LEN;
/// Of exactly the hash's length, so it is the first hash itself (NOISE-02).
const PROTOCOL_NAME: [u8; HASH_LEN] = *b"Noise_XX_25519_ChaChaPoly_SHA256";

/// A key and the number of messages it was used for: one direction of a channel.
///
/// The counter only moves when a message was good (CVE-2024-58265), and its last value is
/// never used (CVE-2021-4239).
pub(crate) struct CipherState {
    key: Box<dyn CipherKey>,
    counter: u64,
}

impl CipherState {
    pub(crate) fn new(cipher: Cipher, key: &[u8; KEY_LEN]) -> Result<Self, SecurityError> {
        Ok(Self { key: cipher.key(key)?, counter: 0 })
    }

    #[cfg(test)]
    pub(crate) fn with_counter(cipher: Cipher, key: [u8; KEY_LEN], counter: u64) -> Self {
        Self { key: cipher.key(&key).expect("a key"), counter }
    }

    /// Encrypts what stands in `out` from `start` on in place, and appends the tag.
    pub(crate) fn encrypt(
        &mut self,
        associated: &[u8],
        out: &mut BytesMut,
        start: usize,
    ) -> Result<(), SecurityError> {
        let next = self.counter.checked_add(1).ok_or(SecurityError::NoncesExhausted)?;
        let (_, text) = out.split_at_mut(start);
        let tag = self.key.seal(&nonce(self.counter), associated, text)?;
        out.extend_from_slice(&tag);
        self.counter = next;
        Ok(())
    }

    /// Decrypts ciphertext and tag in place, and cuts the tag off.
    pub(crate) fn decrypt(
        &mut self,
        associated: &[u8],
        sealed: &mut BytesMut,
    ) -> Result<(), SecurityError> {
        let next = self.counter.checked_add(1).ok_or(SecurityError::NoncesExhausted)?;
        let len = sealed.len().checked_sub(TAG_LEN).ok_or(SecurityError::Decrypt)?;
        self.key.open(&nonce(self.counter), associated, sealed)?;
        sealed.truncate(len);
        self.counter = next;
        Ok(())
    }
}

/// Four zero bytes, then the counter in little-endian (NOISE-16).
fn nonce(counter: u64) -> [u8; NONCE_LEN] {
    let [a, b, c, d, e, f, g, h] = counter.to_le_bytes();
    [0, 0, 0, 0, a, b, c, d, e, f, g, h]
}

/// What both sides have said and agreed on so far in a handshake.
pub(crate) struct SymmetricState {
    chaining_key: Zeroizing<[u8; HASH_LEN]>,
    hash: [u8; HASH_LEN],
    cipher: Cipher,
    /// `None` before the first key agreement: message 1 is sent in the clear.
    state: Option<CipherState>,
}

impl SymmetricState {
    /// The prologue is mixed in even when it is empty (NOISE-04).
    pub(crate) fn new(cipher: Cipher, prologue: &[u8]) -> Self {
        let chaining_key = Zeroizing::new(PROTOCOL_NAME);
        let mut symmetric = Self { chaining_key, hash: PROTOCOL_NAME, cipher, state: None };
        symmetric.mix_hash(prologue);
        symmetric
    }

    pub(crate) fn mix_hash(&mut self, data: &[u8]) {
        self.hash = self.hash_with(data);
    }

    fn hash_with(&self, data: &[u8]) -> [u8; HASH_LEN] {
        Sha256::new().chain_update(self.hash).chain_update(data).finalize().into()
    }

    pub(crate) fn mix_key(&mut self, secret: &[u8]) -> Result<(), SecurityError> {
        let derived = self.derive(secret);
        let [chaining_key, key] = &*derived;
        *self.chaining_key = *chaining_key;
        self.state = Some(CipherState::new(self.cipher, key)?);
        Ok(())
    }

    /// Noise's HKDF with two outputs is RFC 5869's with empty info (Noise, section 4.3).
    fn derive(&self, secret: &[u8]) -> Zeroizing<[[u8; HASH_LEN]; 2]> {
        let mut derived = Zeroizing::new([[0; HASH_LEN]; 2]);
        Hkdf::<Sha256>::new(Some(self.chaining_key.as_slice()), secret)
            .expand(&[], derived.as_flattened_mut())
            .expect("64 bytes are within the 8160 that HKDF can give");
        derived
    }

    pub(crate) fn encrypt_and_hash(
        &mut self,
        plain: &[u8],
        out: &mut BytesMut,
    ) -> Result<(), SecurityError> {
        let start = out.len();
        out.extend_from_slice(plain);
        if let Some(state) = &mut self.state {
            state.encrypt(&self.hash, out, start)?;
        }
        let (_, sealed) = out.split_at(start);
        self.mix_hash(sealed);
        Ok(())
    }

    /// Leaves the plaintext in `sealed`.
    pub(crate) fn decrypt_and_hash(&mut self, sealed: &mut BytesMut) -> Result<(), SecurityError> {
        let next = self.hash_with(sealed);
        if let Some(state) = &mut self.state {
            state.decrypt(&self.hash, sealed)?;
        }
        self.hash = next;
        Ok(())
    }

    /// The keys of the two directions: initiator to responder, then back (NOISE-17).
    pub(crate) fn split(&self) -> Result<(CipherState, CipherState), SecurityError> {
        let derived = self.derive(&[]);
        let [forth, back] = &*derived;
        Ok((CipherState::new(self.cipher, forth)?, CipherState::new(self.cipher, back)?))
    }

    #[cfg(test)]
    pub(crate) fn hash(&self) -> [u8; HASH_LEN] {
        self.hash
    }

    #[cfg(test)]
    pub(crate) fn split_keys(&self) -> [[u8; HASH_LEN]; 2] {
        *self.derive(&[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cipher::ALL;

    fn sealed(state: &mut CipherState, plain: &[u8]) -> BytesMut {
        let mut out = BytesMut::from(plain);
        state.encrypt(b"ad", &mut out, 0).expect("nonces left");
        out
    }

    #[test]
    fn noise_02_04_the_first_hash_is_the_name_itself_with_the_prologue_mixed_in() {
        assert_eq!(PROTOCOL_NAME.len(), 32);
        for prologue in [&[][..], b"libp2p-webrtc-noise:"] {
            let hash = Sha256::digest([&PROTOCOL_NAME[..], prologue].concat());
            assert_eq!(SymmetricState::new(ALL[0], prologue).hash()[..], hash[..]);
        }
        assert_ne!(SymmetricState::new(ALL[0], &[]).hash(), PROTOCOL_NAME);
    }

    /// A cipher of somebody else's that fails.
    #[test]
    fn a_cipher_that_fails_is_an_error_and_its_counter_stays() {
        struct Broken;

        impl CipherKey for Broken {
            fn seal(
                &mut self,
                _: &[u8; NONCE_LEN],
                _: &[u8],
                _: &mut [u8],
            ) -> Result<[u8; TAG_LEN], SecurityError> {
                Err(SecurityError::Cipher("the device is gone"))
            }

            fn open(
                &mut self,
                _: &[u8; NONCE_LEN],
                _: &[u8],
                _: &mut [u8],
            ) -> Result<(), SecurityError> {
                Err(SecurityError::Cipher("the device is gone"))
            }
        }

        let broken = Cipher::new("broken", |_| Ok(Box::new(Broken)));
        let mut state = CipherState::with_counter(broken, [7; 32], 3);
        let mut text = BytesMut::zeroed(40);
        let gone = Err(SecurityError::Cipher("the device is gone"));
        assert_eq!(state.encrypt(&[], &mut text, 0), gone);
        assert_eq!(state.decrypt(&[], &mut text), gone);
        assert_eq!((state.counter, text.len()), (3, 40));
        let none = Cipher::new("none", |_| Err(SecurityError::Cipher("no key slot")));
        let error = SymmetricState::new(none, &[]).mix_key(&[1; 32]);
        assert_eq!(error, Err(SecurityError::Cipher("no key slot")));
    }

    #[test]
    fn noise_16_the_nonce_is_four_zeros_and_a_little_endian_counter() {
        assert_eq!(nonce(0x0102_0304_0506_0708)[..], [0, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1]);
    }

    #[test]
    fn noise_22_the_last_nonce_is_never_used_for_sealing() {
        for &cipher in ALL {
            let mut state = CipherState::with_counter(cipher, [7; 32], u64::MAX - 1);
            sealed(&mut state, b"last");
            let mut out = BytesMut::from(&b"one too many"[..]);
            assert_eq!(state.encrypt(b"ad", &mut out, 0), Err(SecurityError::NoncesExhausted));
            assert_eq!(state.counter, u64::MAX);
        }
    }

    #[test]
    fn noise_22_the_last_nonce_is_never_used_for_opening() {
        for &cipher in ALL {
            let mut sender = CipherState::with_counter(cipher, [7; 32], u64::MAX - 1);
            let mut receiver = CipherState::with_counter(cipher, [7; 32], u64::MAX - 1);
            receiver.decrypt(b"ad", &mut sealed(&mut sender, b"last")).expect("the last one");
            let mut more = BytesMut::zeroed(32);
            assert_eq!(receiver.decrypt(b"ad", &mut more), Err(SecurityError::NoncesExhausted));
        }
    }

    /// RUSTSEC-2024-0011: one forged message moved the receiver's counter.
    #[test]
    fn cve_2024_58265_a_forged_message_does_not_move_the_counter() {
        for &cipher in ALL {
            let mut sender = CipherState::with_counter(cipher, [7; 32], 0);
            let mut receiver = CipherState::with_counter(cipher, [7; 32], 0);
            let mut forged = BytesMut::zeroed(40);
            assert_eq!(receiver.decrypt(b"ad", &mut forged), Err(SecurityError::Decrypt));
            assert_eq!(receiver.counter, 0);
            let mut good = sealed(&mut sender, b"good");
            receiver.decrypt(b"ad", &mut good).expect("still in step");
            assert_eq!(good, b"good"[..]);
        }
    }

    #[test]
    fn less_than_a_tag_and_other_associated_data_are_refused() {
        for &cipher in ALL {
            let mut state = CipherState::with_counter(cipher, [7; 32], 0);
            for len in 0..TAG_LEN {
                let mut short = BytesMut::zeroed(len);
                assert_eq!(state.decrypt(b"", &mut short), Err(SecurityError::Decrypt), "{len}");
            }
            let mut message = sealed(&mut CipherState::with_counter(cipher, [7; 32], 0), b"x");
            assert_eq!(state.decrypt(b"da", &mut message), Err(SecurityError::Decrypt));
        }
    }
}
