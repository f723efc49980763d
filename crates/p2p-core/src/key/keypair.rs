use std::fmt;

use zeroize::Zeroizing;

#[cfg(feature = "ecdsa")]
use super::ecdsa;
#[cfg(feature = "rsa")]
use super::rsa;
#[cfg(feature = "secp256k1")]
use super::secp256k1;
use super::{
    KeyError, KeyType, PublicKey,
    ed25519::{self, LEN},
    message,
    public::Public,
};

/// The longest storage form that is looked at, in bytes. RSA of 8192 bits takes 4.7 KB: it cannot
/// be used, but is told so by name.
const ENCODED_LEN_MAX: usize = 8 << 10;

/// A host's key pair, of any type that this build has the feature for.
///
/// The private half is never printed and wiped from memory when dropped, with one exception: the
/// copy that `ring` works with of an RSA key, which it has no way to wipe.
#[derive(Clone)]
pub struct Keypair(pub(super) Private);

#[derive(Clone)]
pub(super) enum Private {
    Ed25519(ed25519::PrivateKey),
    #[cfg(feature = "rsa")]
    Rsa(rsa::PrivateKey),
    #[cfg(feature = "secp256k1")]
    Secp256k1(secp256k1::PrivateKey),
    #[cfg(feature = "ecdsa")]
    Ecdsa(ecdsa::PrivateKey),
}

impl Keypair {
    /// Makes a new Ed25519 key pair from the system's randomness. It is the type that every peer
    /// can talk to (KEY-04).
    ///
    /// # Errors
    /// [`KeyError::Randomness`] when the system gives none.
    pub fn generate() -> Result<Self, KeyError> {
        Self::generate_of(KeyType::Ed25519)
    }

    /// Makes a new key pair of a type from the system's randomness.
    ///
    /// # Errors
    /// [`KeyError::Generate`] for RSA, whose keys can be read but not made here;
    /// [`KeyError::UnsupportedType`] when this build lacks the type's feature;
    /// [`KeyError::Randomness`] when the system gives none.
    pub fn generate_of(key_type: KeyType) -> Result<Self, KeyError> {
        match key_type {
            KeyType::Ed25519 => ed25519::PrivateKey::generate().map(Private::Ed25519),
            KeyType::Rsa => Err(KeyError::Generate(key_type)),
            #[cfg(feature = "secp256k1")]
            KeyType::Secp256k1 => secp256k1::PrivateKey::generate().map(Private::Secp256k1),
            #[cfg(feature = "ecdsa")]
            KeyType::Ecdsa => ecdsa::PrivateKey::generate().map(Private::Ecdsa),
            #[cfg(not(feature = "secp256k1"))]
            KeyType::Secp256k1 => Err(KeyError::UnsupportedType(key_type)),
            #[cfg(not(feature = "ecdsa"))]
            KeyType::Ecdsa => Err(KeyError::UnsupportedType(key_type)),
        }
        .map(Self)
    }

    /// Makes the Ed25519 key pair of a 32-byte seed.
    #[must_use]
    pub fn from_ed25519_seed(seed: &[u8; LEN]) -> Self {
        Self(Private::Ed25519(ed25519::PrivateKey::from_seed(seed)))
    }

    /// Decodes the protobuf storage form. Its `Data` are
    ///
    /// - Ed25519: 64 bytes of seed and public key, the legacy 96 with the public key twice, or
    ///   the seed alone (KEY-06);
    /// - RSA: DER PKCS#1 `RSAPrivateKey`, of 2048 to 4096 bits (KEY-07);
    /// - secp256k1: the 32 bytes of the scalar (KEY-09);
    /// - ECDSA: DER SEC1 `ECPrivateKey` (KEY-11).
    ///
    /// # Errors
    /// [`KeyError`] when it is not a canonical key message, of a type that this build lacks, not
    /// a valid key, or when its halves do not belong together.
    pub fn from_protobuf(bytes: &[u8]) -> Result<Self, KeyError> {
        let (key_type, data) = message::decode(bytes, ENCODED_LEN_MAX)?;
        Self::from_data(key_type, data)
    }

    pub(super) fn from_data(key_type: KeyType, data: &[u8]) -> Result<Self, KeyError> {
        parse!(Private, PrivateKey, key_type, data).map(Self)
    }

    /// Encodes the protobuf storage form: 68 bytes for Ed25519. Never sent to a peer (KEY-12).
    #[must_use]
    pub fn to_protobuf(&self) -> Zeroizing<Vec<u8>> {
        let data = each!(Private, &self.0, key => key.to_data());
        Zeroizing::new(message::encode(self.key_type(), &data))
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey::from_key(match &self.0 {
            Private::Ed25519(key) => Public::Ed25519(key.public()),
            #[cfg(feature = "rsa")]
            Private::Rsa(key) => Public::Rsa(key.public()),
            #[cfg(feature = "secp256k1")]
            Private::Secp256k1(key) => Public::Secp256k1(key.public()),
            #[cfg(feature = "ecdsa")]
            Private::Ecdsa(key) => Public::Ecdsa(key.public()),
        })
    }

    /// The key's type.
    #[must_use]
    pub fn key_type(&self) -> KeyType {
        self.public().key_type()
    }

    /// Signs `message`: 64 bytes for Ed25519, DER of at most 72 for the curves, as long as the
    /// modulus for RSA. The same message gives the same signature, whatever the type.
    ///
    /// # Errors
    /// [`KeyError::Signing`] when the key's parts do not fit each other. Only an RSA key can be
    /// so, and reading one has tried it.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        each!(Private, &self.0, key => key.sign(message))
    }
}

impl fmt::Debug for Keypair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keypair({})", self.public().peer_id())
    }
}
