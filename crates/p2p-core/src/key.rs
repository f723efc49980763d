use std::fmt;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use prost::Message;
use zeroize::Zeroizing;

use crate::{PeerId, proto};

/// Length of an Ed25519 public key, of a seed, and of half a private key, in bytes.
const ED25519_LEN: usize = 32;

/// The kinds of key that libp2p knows (KEY-01). This crate works with [`KeyType::Ed25519`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyType {
    /// RSA of 2048 to 8192 bits.
    Rsa,
    /// Ed25519, which every implementation must support.
    Ed25519,
    /// ECDSA over secp256k1.
    Secp256k1,
    /// ECDSA over P-256.
    Ecdsa,
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rsa => "RSA",
            Self::Ed25519 => "Ed25519",
            Self::Secp256k1 => "secp256k1",
            Self::Ecdsa => "ECDSA",
        })
    }
}

impl KeyType {
    fn from_wire(wire: proto::KeyType) -> Self {
        match wire {
            proto::KeyType::Rsa => Self::Rsa,
            proto::KeyType::Ed25519 => Self::Ed25519,
            proto::KeyType::Secp256k1 => Self::Secp256k1,
            proto::KeyType::Ecdsa => Self::Ecdsa,
        }
    }
}

/// What is wrong with a key or a signature. Never holds key material.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The bytes are not the two-field key message.
    #[error("the key is not a protobuf key message: {0}")]
    Encoding(String),
    /// A number in the `Type` field that the specification does not define.
    #[error("key type {0} is not defined")]
    UnknownType(i32),
    /// A defined type that this build cannot use.
    #[error("{0} keys are not supported by this build")]
    UnsupportedType(KeyType),
    /// The key's data have the wrong length.
    #[error("{key_type} key data of {len} bytes; expected {expected}")]
    Len {
        /// The key's type.
        key_type: KeyType,
        /// The length found, in bytes.
        len: usize,
        /// The lengths allowed.
        expected: &'static str,
    },
    /// The bytes are not a point of the curve.
    #[error("the {0} public key is not a valid point")]
    Point(KeyType),
    /// The public half does not belong to the private half.
    #[error("the public key stored beside the private key does not belong to it")]
    Mismatch,
    /// The signature is not this key's over this message.
    #[error("the signature is not valid")]
    Signature,
    /// The system's source of randomness failed.
    #[error("the system gave no randomness: {0}")]
    Randomness(String),
}

/// A peer's public key.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Decodes the protobuf form (KEY-01). Unknown fields are skipped.
    ///
    /// # Errors
    /// [`KeyError`] when it is not a key message, or of a type or length that is not supported.
    pub fn from_protobuf(bytes: &[u8]) -> Result<Self, KeyError> {
        let message =
            proto::PublicKey::decode(bytes).map_err(|e| KeyError::Encoding(e.to_string()))?;
        match wire_type(message.r#type)? {
            KeyType::Ed25519 => Self::from_ed25519(&message.data),
            other @ (KeyType::Rsa | KeyType::Secp256k1 | KeyType::Ecdsa) => {
                Err(KeyError::UnsupportedType(other))
            }
        }
    }

    /// Makes a key of the 32 raw bytes of an Ed25519 public key (KEY-05).
    ///
    /// # Errors
    /// [`KeyError::Len`] or [`KeyError::Point`].
    pub fn from_ed25519(raw: &[u8]) -> Result<Self, KeyError> {
        let raw: &[u8; ED25519_LEN] = raw.try_into().map_err(|_| KeyError::Len {
            key_type: KeyType::Ed25519,
            len: raw.len(),
            expected: "32",
        })?;
        VerifyingKey::from_bytes(raw).map(Self).map_err(|_| KeyError::Point(KeyType::Ed25519))
    }

    /// Encodes the canonical protobuf form (KEY-02); 36 bytes for Ed25519.
    #[must_use]
    pub fn to_protobuf(&self) -> Vec<u8> {
        proto::PublicKey {
            r#type: proto::KeyType::Ed25519.into(),
            data: self.0.to_bytes().to_vec(),
        }
        .encode_to_vec()
    }

    /// Derives the peer id, from the canonical encoding whatever form was parsed (PID-03).
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        PeerId::from_encoded_key(&self.to_protobuf())
    }

    /// The key's type.
    #[must_use]
    pub fn key_type(&self) -> KeyType {
        KeyType::Ed25519
    }

    /// Checks that `signature` is this key's over `message`.
    ///
    /// # Errors
    /// [`KeyError::Signature`] when it is not, also for keys of small order.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), KeyError> {
        let signature = Signature::from_slice(signature).map_err(|_| KeyError::Signature)?;
        self.0.verify_strict(message, &signature).map_err(|_| KeyError::Signature)
    }
}

impl TryFrom<&PeerId> for PublicKey {
    type Error = KeyError;

    /// Takes the key out of a peer id that contains it (PID-04).
    fn try_from(id: &PeerId) -> Result<Self, KeyError> {
        let encoded = id
            .inlined_key()
            .ok_or_else(|| KeyError::Encoding("the peer id is a hash of its key".into()))?;
        Self::from_protobuf(encoded)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.peer_id())
    }
}

/// A host's key pair. The private half is zeroized when dropped and never printed.
#[derive(Clone)]
pub struct Keypair(SigningKey);

impl Keypair {
    /// Makes a new Ed25519 key pair from the system's randomness.
    ///
    /// # Errors
    /// [`KeyError::Randomness`] when the system gives none.
    pub fn generate() -> Result<Self, KeyError> {
        let mut seed = Zeroizing::new([0; ED25519_LEN]);
        getrandom::fill(seed.as_mut_slice()).map_err(|e| KeyError::Randomness(e.to_string()))?;
        Ok(Self::from_ed25519_seed(&seed))
    }

    /// Makes the Ed25519 key pair of a 32-byte seed.
    #[must_use]
    pub fn from_ed25519_seed(seed: &[u8; ED25519_LEN]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// Decodes the protobuf storage form (KEY-06): 64 bytes of seed and public key, or the
    /// legacy 96 with the public key twice.
    ///
    /// # Errors
    /// [`KeyError`] when it is not a key message, of another type or length, or when the halves
    /// do not belong together.
    pub fn from_protobuf(bytes: &[u8]) -> Result<Self, KeyError> {
        let message =
            proto::PrivateKey::decode(bytes).map_err(|e| KeyError::Encoding(e.to_string()))?;
        let data = Zeroizing::new(message.data);
        match wire_type(message.r#type)? {
            KeyType::Ed25519 => Self::from_ed25519_private(&data),
            other @ (KeyType::Rsa | KeyType::Secp256k1 | KeyType::Ecdsa) => {
                Err(KeyError::UnsupportedType(other))
            }
        }
    }

    fn from_ed25519_private(data: &[u8]) -> Result<Self, KeyError> {
        let wrong_len =
            || KeyError::Len { key_type: KeyType::Ed25519, len: data.len(), expected: "64 or 96" };
        if !matches!(data.len(), 64 | 96) {
            return Err(wrong_len());
        }
        let (seed, public) = data.split_first_chunk().ok_or_else(wrong_len)?;
        let key = SigningKey::from_bytes(seed);
        let expected = key.verifying_key().to_bytes();
        if public.chunks(ED25519_LEN).any(|copy| copy != expected) {
            return Err(KeyError::Mismatch);
        }
        Ok(Self(key))
    }

    /// Encodes the protobuf storage form: 68 bytes. Never sent to a peer (KEY-12).
    #[must_use]
    pub fn to_protobuf(&self) -> Zeroizing<Vec<u8>> {
        let pair = Zeroizing::new(self.0.to_keypair_bytes());
        let mut message =
            proto::PrivateKey { r#type: proto::KeyType::Ed25519.into(), data: pair.to_vec() };
        let encoded = Zeroizing::new(message.encode_to_vec());
        zeroize::Zeroize::zeroize(&mut message.data);
        encoded
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// Signs `message`; 64 bytes for Ed25519.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).to_vec()
    }
}

impl fmt::Debug for Keypair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keypair({})", self.public().peer_id())
    }
}

fn wire_type(number: i32) -> Result<KeyType, KeyError> {
    proto::KeyType::try_from(number)
        .map(KeyType::from_wire)
        .map_err(|_| KeyError::UnknownType(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLIC: &str = "080112201ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e";
    const PRIVATE: &str = "080112407e0830617c4a7de83925dfb2694556b12936c477a0e1feb2e148ec9da60fee7d\
                           1ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e";
    const PEER: &str = "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq";

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len() / 2)
            .map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).expect("hex"))
            .collect()
    }

    #[test]
    fn key_05_06_specification_vectors() {
        let key = Keypair::from_protobuf(&hex(PRIVATE)).expect("valid");
        assert_eq!(*key.to_protobuf(), hex(PRIVATE));
        assert_eq!(key.public().to_protobuf(), hex(PUBLIC));
        let public = PublicKey::from_protobuf(&hex(PUBLIC)).expect("valid");
        assert_eq!(public.peer_id().to_string(), PEER);
        assert_eq!(PublicKey::try_from(&public.peer_id()), Ok(public));
    }

    #[test]
    fn key_06_the_legacy_form_is_read_and_its_copies_compared() {
        let mut legacy = hex(PRIVATE);
        legacy.extend_from_slice(&hex(PUBLIC)[4..]);
        legacy[3] = 96;
        assert!(Keypair::from_protobuf(&legacy).is_ok());
        *legacy.last_mut().expect("not empty") ^= 1;
        assert!(matches!(Keypair::from_protobuf(&legacy), Err(KeyError::Mismatch)));
    }

    #[test]
    fn key_13_unknown_types_and_lengths_name_themselves() {
        assert_eq!(PublicKey::from_protobuf(&[8, 9, 0x12, 0]), Err(KeyError::UnknownType(9)));
        assert_eq!(
            PublicKey::from_protobuf(&[8, 0, 0x12, 0]),
            Err(KeyError::UnsupportedType(KeyType::Rsa))
        );
        assert_eq!(
            PublicKey::from_protobuf(&[8, 1, 0x12, 1, 7]),
            Err(KeyError::Len { key_type: KeyType::Ed25519, len: 1, expected: "32" })
        );
        for len in 0..36 {
            assert!(PublicKey::from_protobuf(&hex(PUBLIC)[..len]).is_err(), "{len}");
        }
    }

    /// RUSTSEC-2019-0004: any 64 bytes were taken for a signature.
    #[test]
    fn rustsec_2019_0004_a_signature_is_really_checked() {
        let key = Keypair::from_protobuf(&hex(PRIVATE)).expect("valid");
        let mut signature = key.sign(b"message");
        assert_eq!(key.public().verify(b"message", &signature), Ok(()));
        assert_eq!(key.public().verify(b"massage", &signature), Err(KeyError::Signature));
        signature[0] ^= 1;
        assert_eq!(key.public().verify(b"message", &signature), Err(KeyError::Signature));
        assert_eq!(key.public().verify(b"message", &[0; 64]), Err(KeyError::Signature));
        assert_eq!(key.public().verify(b"message", &[]), Err(KeyError::Signature));
    }

    #[test]
    fn debug_shows_no_secret() {
        let key = Keypair::from_protobuf(&hex(PRIVATE)).expect("valid");
        assert_eq!(format!("{key:?}"), format!("Keypair({PEER})"));
    }
}
