use std::fmt;

#[cfg(feature = "ecdsa")]
use super::ecdsa;
#[cfg(feature = "rsa")]
use super::rsa;
#[cfg(feature = "secp256k1")]
use super::secp256k1;
use super::{KeyError, KeyType, ed25519, message};
use crate::PeerId;

/// A peer's public key, of any type that this build has the feature for.
///
/// Two keys are equal when they are the same key, whatever form they were parsed from.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(Public);

#[derive(Clone, PartialEq, Eq)]
pub(super) enum Public {
    Ed25519(ed25519::PublicKey),
    #[cfg(feature = "rsa")]
    Rsa(rsa::PublicKey),
    #[cfg(feature = "secp256k1")]
    Secp256k1(secp256k1::PublicKey),
    #[cfg(feature = "ecdsa")]
    Ecdsa(ecdsa::PublicKey),
}

impl PublicKey {
    /// The longest protobuf form that is looked at, in bytes: that of an RSA key of 8192 bits
    /// with an exponent of 33 (KEY-08, CVE-2023-39533). Ed25519 takes 36 bytes, secp256k1 37,
    /// ECDSA 95.
    pub const ENCODED_LEN_MAX: usize = 1_069;

    /// Decodes the protobuf form (KEY-01), only as the specification says it must be written:
    /// `Type`, then `Data`, in the shortest numbers, and nothing else (KEY-02).
    ///
    /// # Errors
    /// [`KeyError`] when it is longer than [`PublicKey::ENCODED_LEN_MAX`], not a canonical key
    /// message, of a type that this build lacks, or not a key that is safe to verify with.
    pub fn from_protobuf(bytes: &[u8]) -> Result<Self, KeyError> {
        let (key_type, data) = message::decode(bytes, Self::ENCODED_LEN_MAX)?;
        Self::from_data(key_type, data)
    }

    pub(super) fn from_data(key_type: KeyType, data: &[u8]) -> Result<Self, KeyError> {
        parse!(Public, PublicKey, key_type, data).map(Self)
    }

    pub(super) fn from_key(key: Public) -> Self {
        Self(key)
    }

    /// Makes a key of the 32 raw bytes of an Ed25519 public key (KEY-05).
    ///
    /// # Errors
    /// [`KeyError::Len`] or [`KeyError::Point`].
    pub fn from_ed25519(raw: &[u8]) -> Result<Self, KeyError> {
        Self::from_data(KeyType::Ed25519, raw)
    }

    /// Encodes the canonical protobuf form (KEY-02): 36 to [`PublicKey::ENCODED_LEN_MAX`] bytes.
    #[must_use]
    pub fn to_protobuf(&self) -> Vec<u8> {
        message::encode(self.key_type(), &each!(Public, &self.0, key => key.to_data()))
    }

    /// Derives the peer id, from the canonical encoding whatever form was parsed (PID-03).
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        PeerId::from_encoded_key(&self.to_protobuf())
    }

    /// The key's type.
    #[must_use]
    pub fn key_type(&self) -> KeyType {
        match &self.0 {
            Public::Ed25519(_) => KeyType::Ed25519,
            #[cfg(feature = "rsa")]
            Public::Rsa(_) => KeyType::Rsa,
            #[cfg(feature = "secp256k1")]
            Public::Secp256k1(_) => KeyType::Secp256k1,
            #[cfg(feature = "ecdsa")]
            Public::Ecdsa(_) => KeyType::Ecdsa,
        }
    }

    /// Checks that `signature` is this key's over `message`: 64 bytes for Ed25519, DER over
    /// SHA-256 for the curves, PKCS#1 v1.5 over SHA-256 for RSA (KEY-07, KEY-10, KEY-11).
    ///
    /// # Errors
    /// [`KeyError::Signature`] when it is not; also for Ed25519 keys of small order, and for
    /// secp256k1 signatures whose S is in the upper half.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), KeyError> {
        each!(Public, &self.0, key => key.verify(message, signature))
    }
}

impl TryFrom<&PeerId> for PublicKey {
    type Error = KeyError;

    /// Takes the key out of a peer id that contains it (PID-04).
    fn try_from(id: &PeerId) -> Result<Self, KeyError> {
        Self::from_protobuf(id.inlined_key().ok_or(KeyError::Hashed)?)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.peer_id())
    }
}
