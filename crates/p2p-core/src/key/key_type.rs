use std::fmt;

/// The kinds of key that libp2p knows (KEY-01).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyType {
    /// RSA of 2048 to 8192 bits. Needs the feature `rsa`.
    Rsa,
    /// Ed25519, which every implementation must support.
    Ed25519,
    /// ECDSA over secp256k1. Needs the feature `secp256k1`.
    Secp256k1,
    /// ECDSA over P-256. Needs the feature `ecdsa`.
    Ecdsa,
}

impl KeyType {
    /// The number in the `Type` field of a key message.
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Rsa => 0,
            Self::Ed25519 => 1,
            Self::Secp256k1 => 2,
            Self::Ecdsa => 3,
        }
    }

    pub(super) fn from_number(number: u64) -> Option<Self> {
        [Self::Rsa, Self::Ed25519, Self::Secp256k1, Self::Ecdsa]
            .into_iter()
            .find(|key_type| u64::from(key_type.number()) == number)
    }

    /// The feature that brings the type; Ed25519 needs none.
    pub(super) fn feature(self) -> &'static str {
        match self {
            Self::Rsa => "rsa",
            Self::Ed25519 => "default",
            Self::Secp256k1 => "secp256k1",
            Self::Ecdsa => "ecdsa",
        }
    }
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
