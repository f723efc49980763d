//! Private keys as PEM text (RFC 7468).

use pkcs8::{
    AlgorithmIdentifierRef, ObjectIdentifier, PrivateKeyInfoRef,
    der::{
        self, Decode, Reader, SliceReader, TagMode, TagNumber,
        asn1::{AnyRef, BitStringRef, OctetStringRef},
        pem,
    },
};
use zeroize::Zeroizing;

use super::{KeyError, KeyType, Keypair, PublicKey, keypair::Private};

/// The longest text that is looked at, in bytes. RSA of 4096 bits takes 3.3 KB, and three times
/// that when its numbers are printed before it.
const TEXT_LEN_MAX: usize = 64 << 10;

const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const SECP256K1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.10");

impl Keypair {
    /// Reads a private key in PEM: PKCS#8 (`PRIVATE KEY`) of any type, SEC1 (`EC PRIVATE KEY`)
    /// with the curve's name, or PKCS#1 (`RSA PRIVATE KEY`). Needs the feature `pem`.
    ///
    /// # Errors
    /// [`KeyError::Encrypted`] for an encrypted key, [`KeyError::Pem`] for any other text, and
    /// the errors of [`Keypair::from_protobuf`] for the key in it.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        if text.len() > TEXT_LEN_MAX {
            return Err(KeyError::TooLong { len: text.len(), max: TEXT_LEN_MAX });
        }
        // A header says it when the label does not. Base64 has no comma.
        if text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains(",ENCRYPTED") {
            return Err(KeyError::Encrypted);
        }
        let (label, der) = decode(after_parameters(text)).map_err(|e| unusable(&e))?;
        let secret = match label {
            "PRIVATE KEY" => Secret::from_pkcs8(&der),
            "EC PRIVATE KEY" => Secret::from_sec1(&der, None),
            "RSA PRIVATE KEY" => Ok(Secret::new(KeyType::Rsa, &der)),
            other => Err(KeyError::Pem(format!("it holds a {other}"))),
        }?;
        let pair = Self::from_data(secret.key_type, secret.data)?;
        if let Some(public) = secret.public
            && PublicKey::from_data(secret.key_type, public)? != pair.public()
        {
            return Err(KeyError::Mismatch);
        }
        Ok(pair)
    }

    /// Writes the private key as PKCS#8 in PEM. Needs the feature `pem`.
    #[must_use]
    pub fn to_pem(&self) -> Zeroizing<String> {
        let der = each!(Private, &self.0, key => key.to_pkcs8());
        let text = pem::encode_string("PRIVATE KEY", pem::LineEnding::LF, &der);
        Zeroizing::new(text.expect("a key of bounded length has a text"))
    }
}

/// `openssl ecparam -genkey` writes the curve's name in a block of its own before the key, which
/// has it too.
fn after_parameters(text: &str) -> &str {
    let text = text.trim_start();
    if !text.starts_with("-----BEGIN EC PARAMETERS-----") {
        return text;
    }
    text.split_once("-----END EC PARAMETERS-----").map_or(text, |(_, rest)| rest.trim_start())
}

/// The label, and the bytes, into a buffer that does not grow.
fn decode(text: &str) -> Result<(&str, Zeroizing<Vec<u8>>), pem::Error> {
    let mut decoder = pem::Decoder::new_detect_wrap(text.as_bytes())?;
    let mut der = Zeroizing::new(Vec::with_capacity(decoder.remaining_len()));
    decoder.decode_to_end(&mut der)?;
    Ok((decoder.type_label(), der))
}

/// What a DER private key holds, in the form of the `Data` of a key message.
struct Secret<'a> {
    key_type: KeyType,
    data: &'a [u8],
    /// The public key beside it; `None` also when `data` contain it.
    public: Option<&'a [u8]>,
}

impl<'a> Secret<'a> {
    fn new(key_type: KeyType, data: &'a [u8]) -> Self {
        Self { key_type, data, public: None }
    }

    fn from_pkcs8(bytes: &'a [u8]) -> Result<Self, KeyError> {
        let info = PrivateKeyInfoRef::from_der(bytes).map_err(|e| unusable(&e))?;
        let AlgorithmIdentifierRef { oid, parameters } = info.algorithm;
        let inner = info.private_key.as_bytes();
        match (oid, parameters) {
            (ED25519, None) => {
                let data = <&OctetStringRef>::from_der(inner).map_err(|e| unusable(&e))?.as_bytes();
                let public = info.public_key.and_then(|bits| bits.as_bytes());
                Ok(Self { key_type: KeyType::Ed25519, data, public })
            }
            (RSA, Some(null)) if null == AnyRef::NULL => Ok(Self::new(KeyType::Rsa, inner)),
            (EC, Some(curve)) => {
                let curve = curve.decode_as().map_err(|e: der::Error| unusable(&e))?;
                Self::from_sec1(inner, Some(curve))
            }
            (other, _) => Err(KeyError::Pem(format!("its algorithm is {other}"))),
        }
    }

    /// `curve` is what stands around the key; it must be the same as what stands in it.
    fn from_sec1(bytes: &'a [u8], curve: Option<ObjectIdentifier>) -> Result<Self, KeyError> {
        let (scalar, inner_curve, public) = split_sec1(bytes).map_err(|e| unusable(&e))?;
        if curve.is_some() && inner_curve.is_some() && curve != inner_curve {
            return Err(KeyError::Pem("it names two curves".into()));
        }
        match curve.or(inner_curve) {
            Some(P256) => Ok(Self::new(KeyType::Ecdsa, bytes)),
            Some(SECP256K1) => Ok(Self { key_type: KeyType::Secp256k1, data: scalar, public }),
            Some(other) => Err(KeyError::Pem(format!("its curve is {other}"))),
            None => Err(KeyError::Pem("it does not name its curve".into())),
        }
    }
}

/// The scalar, the curve and the public key of a SEC1 `ECPrivateKey` (RFC 5915, section 3).
type Sec1<'a> = (&'a [u8], Option<ObjectIdentifier>, Option<&'a [u8]>);

fn split_sec1(bytes: &[u8]) -> Result<Sec1<'_>, der::Error> {
    let mut reader = SliceReader::new(bytes)?;
    let parts = reader.sequence(|r| {
        u8::decode(r)?;
        let scalar = <&OctetStringRef>::decode(r)?.as_bytes();
        let curve = r.context_specific(TagNumber(0), TagMode::Explicit)?;
        let public: Option<BitStringRef<'_>> =
            r.context_specific(TagNumber(1), TagMode::Explicit)?;
        Ok::<_, der::Error>((scalar, curve, public.and_then(|bits| bits.as_bytes())))
    })?;
    reader.finish()?;
    Ok(parts)
}

fn unusable(error: &dyn std::error::Error) -> KeyError {
    KeyError::Pem(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::tests::keypair;

    const ED25519_PEM: &str = include_str!("vectors/ed25519.pem");

    #[test]
    fn ed25519_is_read_and_written_as_openssl_does() {
        let pair = Keypair::from_pem(ED25519_PEM).expect("by OpenSSL");
        assert_eq!(pair.to_protobuf(), keypair("ed25519").to_protobuf());
        assert_eq!(*pair.to_pem(), ED25519_PEM);
    }

    #[cfg(feature = "secp256k1")]
    #[test]
    fn secp256k1_is_read_and_written_as_openssl_does() {
        let pair = keypair("secp256k1");
        for text in
            [include_str!("vectors/secp256k1.pem"), include_str!("vectors/secp256k1-sec1.pem")]
        {
            let read = Keypair::from_pem(text).expect("by OpenSSL");
            assert_eq!(read.to_protobuf(), pair.to_protobuf());
        }
        let read = Keypair::from_pem(&pair.to_pem()).expect("its own");
        assert_eq!(read.to_protobuf(), pair.to_protobuf());
    }

    #[cfg(feature = "ecdsa")]
    #[test]
    fn ecdsa_is_read_and_written_as_openssl_does() {
        let pair = keypair("ecdsa");
        for text in [include_str!("vectors/ecdsa.pem"), include_str!("vectors/ecdsa-sec1.pem")] {
            let read = Keypair::from_pem(text).expect("by OpenSSL");
            assert_eq!(read.to_protobuf(), pair.to_protobuf());
        }
        assert_eq!(*pair.to_pem(), include_str!("vectors/ecdsa.pem"));
    }

    #[cfg(feature = "rsa")]
    #[test]
    fn rsa_is_read_and_written_as_openssl_does() {
        let pair = keypair("rsa");
        for text in [include_str!("vectors/rsa.pem"), include_str!("vectors/rsa-pkcs1.pem")] {
            let read = Keypair::from_pem(text).expect("by OpenSSL");
            assert_eq!(read.to_protobuf(), pair.to_protobuf());
        }
        assert_eq!(*pair.to_pem(), include_str!("vectors/rsa.pem"));
    }

    #[test]
    fn an_encrypted_key_says_that_it_is() {
        for text in
            [include_str!("vectors/encrypted.pem"), include_str!("vectors/encrypted-sec1.pem")]
        {
            assert_eq!(Keypair::from_pem(text).err(), Some(KeyError::Encrypted));
        }
    }

    #[test]
    fn every_truncation_is_refused() {
        for len in 0..ED25519_PEM.len() - 1 {
            let error = Keypair::from_pem(&ED25519_PEM[..len]).expect_err("cut short");
            assert!(matches!(error, KeyError::Pem(_)), "{len}: {error}");
        }
    }

    fn text(label: &str, der: &[u8]) -> String {
        pem::encode_string(label, pem::LineEnding::CRLF, der).expect("short")
    }

    fn pkcs8(algorithm: &[u8], key: &[u8], rest: &[u8]) -> String {
        let part = |tag: u8, content: &[u8]| {
            [&[tag, u8::try_from(content.len()).expect("short")], content].concat()
        };
        let version = if rest.is_empty() { 0 } else { 1 };
        let parts = [&[2, 1, version][..], &part(0x30, algorithm), &part(4, key), rest].concat();
        text("PRIVATE KEY", &part(0x30, &parts))
    }

    const ED25519_OID: [u8; 5] = [6, 3, 0x2b, 0x65, 0x70];

    #[test]
    fn the_public_key_of_pkcs8_version_2_must_fit() {
        let pair = keypair("ed25519");
        let (private, mut public) = (pair.to_protobuf(), pair.public().to_protobuf());
        let key = [&[4, 32], &private[4..36]].concat();
        let rest = |public: &[u8]| [&[0x81, 33, 0][..], &public[4..]].concat();
        let read = Keypair::from_pem(&pkcs8(&ED25519_OID, &key, &rest(&public))).expect("fits");
        assert_eq!(read.public(), pair.public());
        public.copy_from_slice(&Keypair::from_ed25519_seed(&[7; 32]).public().to_protobuf());
        let error = Keypair::from_pem(&pkcs8(&ED25519_OID, &key, &rest(&public))).err();
        assert_eq!(error, Some(KeyError::Mismatch));
    }

    #[test]
    fn other_texts_say_what_they_are() {
        let seed = [&[4, 32][..], &[1; 32]].concat();
        let x25519 = [6, 3, 0x2b, 0x65, 0x6e];
        let with_null = [&ED25519_OID[..], &[5, 0]].concat();
        let ec = |curve: &[u8]| [&[6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1], curve].concat();
        let p384 = ec(&[6, 5, 0x2b, 0x81, 4, 0, 0x22]);
        let p256 = [6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
        let bare = [&[0x30, 37, 2, 1, 1, 4, 32][..], &[1; 32]].concat();
        let secp256k1_inside =
            [&[0x30, 46, 2, 1, 1, 4, 32][..], &[1; 32], &[0xa0, 7, 6, 5, 0x2b, 0x81, 4, 0, 10]]
                .concat();
        for (given, said) in [
            (String::new(), ""),
            ("-----BEGIN PRIVATE KEY-----".into(), ""),
            (text("OPENSSH PRIVATE KEY", &[1]), "OPENSSH PRIVATE KEY"),
            (text("PUBLIC KEY", &[1]), "PUBLIC KEY"),
            (text("PRIVATE KEY", &[]), ""),
            (text("PRIVATE KEY", &seed), ""),
            (pkcs8(&x25519, &seed, &[]), "1.3.101.110"),
            (pkcs8(&with_null, &seed, &[]), "1.3.101.112"),
            (pkcs8(&ED25519_OID, &[1; 32], &[]), ""),
            (pkcs8(&p384, &bare, &[]), "1.3.132.0.34"),
            (pkcs8(&ec(&[]), &bare, &[]), "1.2.840.10045.2.1"),
            (pkcs8(&ec(&p256), &secp256k1_inside, &[]), "two curves"),
            (text("EC PRIVATE KEY", &bare), "does not name its curve"),
            (text("EC PRIVATE KEY", &[bare.as_slice(), &[0]].concat()), ""),
            (ED25519_PEM.repeat(2), ""),
        ] {
            let error = Keypair::from_pem(&given).expect_err(&given);
            assert!(matches!(&error, KeyError::Pem(why) if why.contains(said)), "{error}: {given}");
        }
        let short = pkcs8(&ED25519_OID, &seed[..33], &[]);
        assert!(Keypair::from_pem(&short).is_err());
        let long = " ".repeat(TEXT_LEN_MAX + 1);
        assert!(matches!(Keypair::from_pem(&long), Err(KeyError::TooLong { .. })));
    }
}
