//! Ed25519 (RFC 8032): KEY-05, KEY-06.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use zeroize::Zeroizing;

use super::{KeyError, KeyType};

/// Length of a public key, of a seed, and of half a private key, in bytes.
pub(super) const LEN: usize = 32;

#[derive(Clone, PartialEq, Eq)]
pub(super) struct PublicKey(VerifyingKey);

impl PublicKey {
    pub(super) fn from_data(data: &[u8]) -> Result<Self, KeyError> {
        let raw = data.try_into().map_err(|_| KeyError::Len {
            key_type: KeyType::Ed25519,
            len: data.len(),
            expected: "32",
        })?;
        VerifyingKey::from_bytes(raw).map(Self).map_err(|_| KeyError::Point(KeyType::Ed25519))
    }

    pub(super) fn to_data(&self) -> Vec<u8> {
        self.0.to_bytes().to_vec()
    }

    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), KeyError> {
        let signature = Signature::from_slice(signature).map_err(|_| KeyError::Signature)?;
        self.0.verify_strict(message, &signature).map_err(|_| KeyError::Signature)
    }
}

#[derive(Clone)]
pub(super) struct PrivateKey(SigningKey);

impl PrivateKey {
    pub(super) fn generate() -> Result<Self, KeyError> {
        let mut seed = Zeroizing::new([0; LEN]);
        getrandom::fill(seed.as_mut_slice()).map_err(|e| KeyError::Randomness(e.to_string()))?;
        Ok(Self::from_seed(&seed))
    }

    pub(super) fn from_seed(seed: &[u8; LEN]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The length tells the forms apart: what is after the seed are copies of the public key.
    pub(super) fn from_data(data: &[u8]) -> Result<Self, KeyError> {
        let (seed, copies) = data
            .split_first_chunk()
            .filter(|(_, copies)| matches!(copies.len(), 0 | 32 | 64))
            .ok_or(KeyError::Len {
                key_type: KeyType::Ed25519,
                len: data.len(),
                expected: "64, or the forms of other implementations, 32 and 96",
            })?;
        let key = Self::from_seed(seed);
        let expected = key.0.verifying_key().to_bytes();
        if copies.chunks(LEN).any(|copy| copy != expected) {
            return Err(KeyError::Mismatch);
        }
        Ok(key)
    }

    pub(super) fn to_data(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(Zeroizing::new(self.0.to_keypair_bytes()).to_vec())
    }

    /// PKCS#8 in version 1, without the public key: the form of RFC 8410 that everybody reads.
    #[cfg(feature = "pem")]
    pub(super) fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        const HEADER: [u8; 16] =
            *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
        Zeroizing::new([HEADER.as_slice(), self.0.as_bytes()].concat())
    }

    pub(super) fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        Ok(self.0.sign(message).to_vec())
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        KeyError, KeyType, Keypair, PublicKey,
        key::tests::{hex, keypair, message, vector},
    };

    #[test]
    fn key_05_any_other_length_is_refused() {
        for len in [0, 31, 33, 64] {
            let error = KeyError::Len { key_type: KeyType::Ed25519, len, expected: "32" };
            assert_eq!(PublicKey::from_protobuf(&message(1, &vec![1; len])), Err(error));
        }
        // y = 2 is on no point of the curve.
        let mut y = [0; 32];
        y[0] = 2;
        assert_eq!(PublicKey::from_ed25519(&y), Err(KeyError::Point(KeyType::Ed25519)));
    }

    #[test]
    fn key_06_legacy_forms_are_read_and_their_copies_compared() {
        let (private, public) = (vector("ed25519-private"), vector("ed25519-public"));
        let (whole, public) = (&private[4..], &public[4..]);
        let legacy = [whole, public].concat();
        for data in [whole, &legacy, &whole[..32]] {
            let pair = Keypair::from_protobuf(&message(1, data)).expect("a known form");
            assert_eq!(*pair.to_protobuf(), private);
        }
        for (len, wrong) in [(64, 63), (96, 32), (96, 95)] {
            let mut data = legacy[..len].to_vec();
            data[wrong] ^= 1;
            let error = Keypair::from_protobuf(&message(1, &data)).expect_err("not its own");
            assert_eq!(error, KeyError::Mismatch, "{len} {wrong}");
        }
        for len in [0, 31, 33, 63, 65, 95, 97, 128] {
            let error = Keypair::from_protobuf(&message(1, &vec![1; len])).expect_err("no form");
            assert!(matches!(error, KeyError::Len { len: found, .. } if found == len), "{error}");
        }
    }

    /// CVE-2022-50237: signing with a public key that is not the private key's gives it away.
    #[test]
    fn cve_2022_50237_the_halves_of_a_pair_always_belong_together() {
        let mut private = vector("ed25519-private");
        let other = Keypair::from_ed25519_seed(&[7; 32]).public().to_protobuf();
        private[36..].copy_from_slice(&other[4..]);
        assert_eq!(Keypair::from_protobuf(&private).err(), Some(KeyError::Mismatch));
    }

    /// A signature (identity, 0) fits every message under the identity point.
    #[test]
    fn keys_and_signatures_of_small_order_are_refused() {
        let mut identity = [0; 32];
        identity[0] = 1;
        let key = PublicKey::from_ed25519(&identity).expect("on the curve");
        let signature = [identity, [0; 32]].concat();
        assert_eq!(key.verify(b"message", &signature), Err(KeyError::Signature));
    }

    #[test]
    fn s_beyond_the_order_is_refused() {
        const ORDER: &str = "edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010";
        let pair = keypair("ed25519");
        let mut signature = pair.sign(b"message").expect("signs");
        let mut carry = 0;
        for (byte, of_order) in signature[32..].iter_mut().zip(hex(ORDER)) {
            let sum = u16::from(*byte) + u16::from(of_order) + carry;
            (*byte, carry) = (sum.to_le_bytes()[0], sum >> 8);
        }
        assert_eq!(pair.public().verify(b"message", &signature), Err(KeyError::Signature));
    }
}
