//! Identity keys: the four types of libp2p, and their protobuf, DER and PEM forms.

/// Runs `$body` on whichever type of key `$value` holds.
macro_rules! each {
    ($kind:ident, $value:expr, $key:ident => $body:expr) => {
        match $value {
            $kind::Ed25519($key) => $body,
            #[cfg(feature = "rsa")]
            $kind::Rsa($key) => $body,
            #[cfg(feature = "secp256k1")]
            $kind::Secp256k1($key) => $body,
            #[cfg(feature = "ecdsa")]
            $kind::Ecdsa($key) => $body,
        }
    };
}

/// Parses the `Data` of a key message as its type wants it, for one half of a pair.
macro_rules! parse {
    ($kind:ident, $half:ident, $key_type:expr, $data:expr) => {
        match $key_type {
            KeyType::Ed25519 => ed25519::$half::from_data($data).map($kind::Ed25519),
            #[cfg(feature = "rsa")]
            KeyType::Rsa => rsa::$half::from_data($data).map($kind::Rsa),
            #[cfg(feature = "secp256k1")]
            KeyType::Secp256k1 => secp256k1::$half::from_data($data).map($kind::Secp256k1),
            #[cfg(feature = "ecdsa")]
            KeyType::Ecdsa => ecdsa::$half::from_data($data).map($kind::Ecdsa),
            #[cfg(not(feature = "rsa"))]
            KeyType::Rsa => Err(KeyError::UnsupportedType($key_type)),
            #[cfg(not(feature = "secp256k1"))]
            KeyType::Secp256k1 => Err(KeyError::UnsupportedType($key_type)),
            #[cfg(not(feature = "ecdsa"))]
            KeyType::Ecdsa => Err(KeyError::UnsupportedType($key_type)),
        }
    };
}

#[cfg(feature = "ecdsa")]
mod ecdsa;
mod ed25519;
mod error;
mod key_type;
mod keypair;
mod message;
#[cfg(feature = "pem")]
mod pem;
mod public;
#[cfg(feature = "rsa")]
mod rsa;
#[cfg(feature = "secp256k1")]
mod secp256k1;
#[cfg(test)]
mod tests;

pub use error::KeyError;
pub use key_type::KeyType;
pub use keypair::Keypair;
pub use public::PublicKey;
