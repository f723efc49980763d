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
