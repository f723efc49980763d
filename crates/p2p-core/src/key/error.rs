use super::KeyType;

/// What is wrong with a key or a signature. Never holds key material.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// More bytes than the largest key of any type has; they were not parsed.
    #[error("a key of {len} bytes; the largest has {max}")]
    TooLong {
        /// The length found, in bytes.
        len: usize,
        /// The largest length, in bytes.
        max: usize,
    },
    /// The bytes are not the two-field key message, or not in its one canonical form.
    #[error("the key is not a canonical protobuf key message: {0}")]
    Encoding(&'static str),
    /// A field of the key message is missing, or not where it belongs.
    #[error("the key message has no {0} field in its place")]
    Missing(&'static str),
    /// A number in the `Type` field that the specification does not define.
    #[error("key type {0} is not defined")]
    UnknownType(u64),
    /// A defined type that this build cannot use.
    #[error("{0} keys are not part of this build: enable the feature `{name}`", name = .0.feature())]
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
    /// The key's data are not in the form that its type has.
    #[error("the {key_type} key data are not usable: {reason}")]
    Data {
        /// The key's type.
        key_type: KeyType,
        /// What is wrong with them, for people.
        reason: String,
    },
    /// The bytes are not a point of the curve that can be a public key.
    #[error("the {0} public key is not a valid point")]
    Point(KeyType),
    /// The private key is zero, or not below the curve's order.
    #[error("the {0} private key is out of range")]
    Scalar(KeyType),
    /// The modulus of an RSA key is even, too short or too long.
    #[error("an RSA modulus of {bits} bits; it must be odd, of 2048 to 8192 bits")]
    RsaModulus {
        /// Its length in bits.
        bits: usize,
    },
    /// The public exponent of an RSA key is even, below 3 or longer than 33 bits.
    #[error("the RSA exponent is not an odd number from 3 to 33 bits")]
    RsaExponent,
    /// The public half does not belong to the private half.
    #[error("the public key stored beside the private key does not belong to it")]
    Mismatch,
    /// The peer id is a hash of its key, which cannot be had back.
    #[error("the peer id is a hash of its key and does not contain it")]
    Hashed,
    /// The signature is not this key's over this message.
    #[error("the signature is not valid")]
    Signature,
    /// The private key could not sign: its parts do not fit each other.
    #[error("the {0} private key cannot sign: its parts do not fit each other")]
    Signing(KeyType),
    /// Keys of this type can be read, but not made here.
    #[error(
        "{0} keys can be read, but not made here; make one elsewhere, such as with \
         `openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072`, and read its PEM"
    )]
    Generate(KeyType),
    /// The text is not a PEM private key of a type that libp2p knows.
    #[error("the PEM text holds no usable private key: {0}")]
    Pem(String),
    /// The PEM private key is encrypted.
    #[error("the PEM private key is encrypted; decrypt it first, such as with `openssl pkey`")]
    Encrypted,
    /// The system's source of randomness failed.
    #[error("the system gave no randomness: {0}")]
    Randomness(String),
}
