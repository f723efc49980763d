//! RSA with PKCS#1 v1.5 over SHA-256: KEY-07, KEY-08.
//!
//! Private keys are used through `ring` alone: the pure Rust implementation leaks them in its
//! timing (CVE-2023-49092).

use std::sync::Arc;

use pkcs8::{
    AlgorithmIdentifierRef, ObjectIdentifier, SubjectPublicKeyInfoRef,
    der::{
        Decode, Encode, Reader, SliceReader,
        asn1::{AnyRef, BitStringRef, UintRef},
    },
};
use ring::{
    rand::SystemRandom,
    signature::{RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, UnparsedPublicKey},
};
use zeroize::Zeroizing;

use super::{KeyError, KeyType};

/// The algorithm of a `SubjectPublicKeyInfo` and of PKCS#8: `rsaEncryption`, with NULL.
pub(super) const ALGORITHM: AlgorithmIdentifierRef<'static> = AlgorithmIdentifierRef {
    oid: ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1"),
    parameters: Some(AnyRef::NULL),
};
/// The moduli that are verified with, in bits: the bounds of go and rust (CVE-2023-39533).
const BITS_MIN: usize = 2_048;
const BITS_MAX: usize = 8_192;
/// The largest exponent has 33 bits.
const EXPONENT_MAX: u64 = (1 << 33) - 1;

/// Kept as DER PKCS#1 `RSAPublicKey`, of at most 1,040 bytes.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct PublicKey(Arc<[u8]>);

impl PublicKey {
    /// Reads DER `SubjectPublicKeyInfo`. That it is the one form which is written, with its
    /// algorithm, shows when the key is written again.
    pub(super) fn from_data(data: &[u8]) -> Result<Self, KeyError> {
        let spki = SubjectPublicKeyInfoRef::try_from(data).map_err(|e| unusable(&e.to_string()))?;
        let pkcs1 = spki.subject_public_key.as_bytes();
        let key = Self::from_pkcs1(pkcs1.ok_or_else(|| unusable("the key is not whole bytes"))?)?;
        if key.to_data() != data {
            return Err(unusable("they are not the canonical DER of rsaEncryption with NULL"));
        }
        Ok(key)
    }

    /// Checks everything that a modulus and an exponent can be checked for.
    fn from_pkcs1(pkcs1: &[u8]) -> Result<Self, KeyError> {
        let (modulus, exponent) = split_pkcs1(pkcs1).map_err(|e| unusable(&e.to_string()))?;
        let unused = modulus.first().map_or(0, |first| first.leading_zeros() as usize);
        let bits = (modulus.len() * 8).saturating_sub(unused);
        let odd = modulus.last().is_some_and(|last| last % 2 == 1);
        if !odd || !(BITS_MIN..=BITS_MAX).contains(&bits) {
            return Err(KeyError::RsaModulus { bits });
        }
        let exponent = exponent.iter().take(8).fold(0, |all, byte| all << 8 | u64::from(*byte));
        if exponent % 2 == 0 || !(3..=EXPONENT_MAX).contains(&exponent) {
            return Err(KeyError::RsaExponent);
        }
        Ok(Self(pkcs1.into()))
    }

    pub(super) fn to_data(&self) -> Vec<u8> {
        BitStringRef::from_bytes(&self.0)
            .and_then(|subject_public_key| {
                SubjectPublicKeyInfoRef { algorithm: ALGORITHM, subject_public_key }.to_der()
            })
            .expect("a key of bounded length has an encoding")
    }

    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), KeyError> {
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &self.0)
            .verify(message, signature)
            .map_err(|_| KeyError::Signature)
    }
}

/// The modulus and the exponent, in big-endian without leading zeros.
fn split_pkcs1(pkcs1: &[u8]) -> Result<(&[u8], &[u8]), pkcs8::der::Error> {
    let mut reader = SliceReader::new(pkcs1)?;
    let parts = reader.sequence(|r| {
        Ok::<_, pkcs8::der::Error>((UintRef::decode(r)?.as_bytes(), UintRef::decode(r)?.as_bytes()))
    })?;
    reader.finish()?;
    Ok(parts)
}

#[derive(Clone)]
pub(super) struct PrivateKey {
    /// `ring` does not wipe it when dropped.
    pair: Arc<RsaKeyPair>,
    pkcs1: Arc<Zeroizing<Vec<u8>>>,
    public: PublicKey,
}

impl PrivateKey {
    /// Reads DER PKCS#1 `RSAPrivateKey`. One signature is made, since only that shows whether all
    /// the parts fit each other.
    pub(super) fn from_data(data: &[u8]) -> Result<Self, KeyError> {
        let pair = RsaKeyPair::from_der(data).map_err(|rejected| {
            unusable(&format!(
                "{rejected}; private keys must have two primes, a modulus of 2048 to 4096 bits \
                 and an exponent of 65537 or more"
            ))
        })?;
        let public = PublicKey::from_pkcs1(pair.public().as_ref())?;
        let key =
            Self { pair: Arc::new(pair), pkcs1: Arc::new(Zeroizing::new(data.to_vec())), public };
        key.sign(&[])?;
        Ok(key)
    }

    pub(super) fn to_data(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::clone(&self.pkcs1)
    }

    #[cfg(feature = "pem")]
    pub(super) fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        use pkcs8::{PrivateKeyInfoRef, der::asn1::OctetStringRef};
        OctetStringRef::new(&self.pkcs1)
            .and_then(|pkcs1| PrivateKeyInfoRef::new(ALGORITHM, pkcs1).to_der())
            .map(Zeroizing::new)
            .expect("a key of bounded length has an encoding")
    }

    pub(super) fn public(&self) -> PublicKey {
        self.public.clone()
    }

    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let mut signature = vec![0; self.pair.public().modulus_len()];
        self.pair
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature)
            .map_err(|_| KeyError::Signing(KeyType::Rsa))?;
        Ok(signature)
    }
}

fn unusable(reason: &str) -> KeyError {
    KeyError::Data { key_type: KeyType::Rsa, reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use crate::{
        KeyError, KeyType, Keypair, PublicKey,
        key::tests::{hex, keypair, message, vector},
    };

    /// The content of a DER `AlgorithmIdentifier`: rsaEncryption, NULL.
    const ALGORITHM: &str = "06092a864886f70d0101010500";

    fn der(tag: u8, content: &[u8]) -> Vec<u8> {
        let len = u16::try_from(content.len()).expect("short").to_be_bytes();
        let header = match len {
            [0, low] if low < 0x80 => vec![tag, low],
            [0, low] => vec![tag, 0x81, low],
            [high, low] => vec![tag, 0x82, high, low],
        };
        [header.as_slice(), content].concat()
    }

    fn spki(algorithm: &[u8], pkcs1: &[u8]) -> Vec<u8> {
        let bits = der(3, &[&[0], pkcs1].concat());
        der(0x30, &[der(0x30, algorithm), bits].concat())
    }

    fn pkcs1(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
        der(0x30, &[der(2, modulus), der(2, exponent)].concat())
    }

    /// An odd number of so many bits, as the content of an INTEGER.
    fn odd(bits: usize) -> Vec<u8> {
        let mut bytes = vec![0xff; bits / 8 + 1];
        bytes[0] = u8::try_from((1u16 << (bits % 8)) - 1).expect("fewer than eight bits");
        if !bits.is_multiple_of(8) { bytes } else { [&[0], &bytes[1..]].concat() }
    }

    fn parse_spki(data: &[u8]) -> Result<PublicKey, KeyError> {
        PublicKey::from_protobuf(&message(0, data))
    }

    fn parse(modulus: &[u8], exponent: &[u8]) -> Result<PublicKey, KeyError> {
        parse_spki(&spki(&hex(ALGORITHM), &pkcs1(modulus, exponent)))
    }

    const F4: [u8; 3] = [1, 0, 1];

    #[test]
    fn key_08_cve_2023_39533_only_moduli_of_2048_to_8192_bits() {
        for bits in [2_048, 2_049, 3_072, 4_096, 8_191, 8_192] {
            let key = parse(&odd(bits), &F4).unwrap_or_else(|e| panic!("{bits}: {e}"));
            assert_eq!(key.verify(b"message", &vec![1; bits / 8]), Err(KeyError::Signature));
        }
        for bits in [7, 512, 1_024, 2_040, 2_041, 2_047, 8_193, 8_199] {
            assert_eq!(parse(&odd(bits), &F4), Err(KeyError::RsaModulus { bits }));
        }
        let refused = parse(&odd(16_384), &F4).expect_err("too long");
        assert!(matches!(refused, KeyError::TooLong { max: 1_069, .. }), "{refused}");
        let mut even = odd(2_048);
        *even.last_mut().expect("not empty") -= 1;
        assert_eq!(parse(&even, &F4), Err(KeyError::RsaModulus { bits: 2_048 }));
        assert_eq!(parse(&[0], &F4), Err(KeyError::RsaModulus { bits: 0 }));
    }

    #[test]
    fn cve_2023_39533_only_odd_exponents_of_2_to_33_bits() {
        for exponent in [&[3][..], &F4, &[1, 0xff, 0xff, 0xff, 0xff]] {
            let key = parse(&odd(2_048), exponent).expect("in range");
            // The verifier takes it too: a signature of 1 is wrong, but is computed.
            assert_eq!(key.verify(b"message", &[1; 256]), Err(KeyError::Signature));
        }
        for exponent in [
            &[0][..],
            &[1],
            &[2],
            &[4],
            &[1, 0, 0],
            &[2, 0, 0, 0, 1],
            &[2, 0xff, 0xff, 0xff, 0xff],
            &[1; 8],
            &[1, 0, 0, 0, 0, 0, 0, 0, 3],
            &[1; 600],
        ] {
            assert_eq!(parse(&odd(2_048), exponent), Err(KeyError::RsaExponent), "{exponent:?}");
        }
    }

    #[test]
    fn the_largest_key_is_as_long_as_the_constant_says() {
        let data = spki(&hex(ALGORITHM), &pkcs1(&odd(8_192), &[1, 0xff, 0xff, 0xff, 0xff]));
        assert_eq!(message(0, &data).len(), PublicKey::ENCODED_LEN_MAX);
        let key = parse_spki(&data).expect("the largest");
        assert_eq!(key.to_protobuf(), message(0, &data));
    }

    #[test]
    fn key_07_only_canonical_der_is_taken() {
        let (algorithm, inner) = (hex(ALGORITHM), pkcs1(&odd(2_048), &F4));
        let good = spki(&algorithm, &inner);
        assert!(parse_spki(&good).is_ok());
        let bits = |head: &[u8], tail: &[u8]| {
            let bits = der(3, &[head, inner.as_slice(), tail].concat());
            der(0x30, &[der(0x30, &algorithm), bits].concat())
        };
        let with_length = |length: &[u8]| [&[0x30], length, &good[4..]].concat();
        let negative = [&[0x80], &odd(2_048)[2..]].concat();
        let padded = [&[0], odd(2_048).as_slice()].concat();
        for (name, data) in [
            ("trailing byte", [good.as_slice(), &[0]].concat()),
            ("trailing byte in the bit string", bits(&[0], &[0])),
            ("unused bits", bits(&[1], &[])),
            ("PSS", spki(&hex("06092a864886f70d01010a0500"), &inner)),
            ("no parameters", spki(&algorithm[..11], &inner)),
            ("parameters of OCTET STRING", spki(&hex("06092a864886f70d0101010400"), &inner)),
            ("a NULL of one byte", spki(&hex("06092a864886f70d010101050100"), &inner)),
            ("two NULLs", spki(&hex("06092a864886f70d01010105000500"), &inner)),
            ("a third number", spki(&algorithm, &der(0x30, &[&inner[4..], &[2, 1, 1]].concat()))),
            ("no exponent", spki(&algorithm, &der(0x30, &der(2, &odd(2_048))))),
            ("negative modulus", spki(&algorithm, &pkcs1(&negative, &F4))),
            ("padded modulus", spki(&algorithm, &pkcs1(&padded, &F4))),
            ("padded exponent", spki(&algorithm, &pkcs1(&odd(2_048), &[0, 3]))),
            ("negative exponent", spki(&algorithm, &pkcs1(&odd(2_048), &[0x80, 1]))),
            ("empty exponent", spki(&algorithm, &pkcs1(&odd(2_048), &[]))),
            ("empty modulus", spki(&algorithm, &pkcs1(&[], &F4))),
            ("indefinite length", with_length(&[0x80])),
            ("length in three bytes", with_length(&[&[0x83, 0], &good[2..4]].concat())),
            ("length of 4 GiB", with_length(&[0x84, 0xff, 0xff, 0xff, 0xff])),
            (
                "length of 2^64",
                with_length(&[0x88, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            ),
            ("the PKCS#1 form alone", inner.clone()),
            ("nothing", Vec::new()),
        ] {
            let error = parse_spki(&data).err();
            let refused = matches!(error, Some(KeyError::Data { key_type: KeyType::Rsa, .. }));
            assert!(refused, "{name}: {error:?}");
        }
    }

    /// PKCS#1 v1.5 is deterministic: it must be the signature that OpenSSL makes.
    #[test]
    fn key_07_the_signature_is_that_of_openssl() {
        let pair = keypair("rsa");
        assert_eq!(pair.sign(b"message").expect("signs"), vector("rsa-signature"));
    }

    #[test]
    fn key_07_a_private_key_whose_parts_do_not_fit_is_refused() {
        let whole = vector("rsa-private");
        // Version, n, e, d, p, q, dP, dQ and qInv begin at these bytes.
        for at in [8, 300, 1_100, 1_300, 1_600, 1_900, 2_200] {
            let mut damaged = whole.clone();
            damaged[at] ^= 2;
            let error = Keypair::from_protobuf(&damaged).err();
            if at == 1_100 {
                continue; // d is not used
            }
            assert!(
                matches!(error, Some(KeyError::Data { .. } | KeyError::Signing(KeyType::Rsa))),
                "{at}: {error:?}"
            );
        }
        let public = Keypair::from_protobuf(&vector("rsa-public")).err();
        assert!(matches!(public, Some(KeyError::Data { .. })), "{public:?}");
    }
}
