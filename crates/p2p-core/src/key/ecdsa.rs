//! ECDSA over P-256, the one curve that every peer with this type of key takes: KEY-11.

use p256::{
    SecretKey,
    ecdsa::{
        Signature, SigningKey, VerifyingKey,
        signature::{Signer, Verifier},
    },
    elliptic_curve::Generate,
};
use zeroize::Zeroizing;

use super::{KeyError, KeyType};

/// What stands before an uncompressed point in its DER `SubjectPublicKeyInfo`: the curve by name,
/// and a bit string of 65 bytes. Nobody writes another form, so that no DER has to be parsed.
const SPKI_HEADER: [u8; 26] = *b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\
    \x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";
/// Length of an uncompressed point, in bytes.
const POINT_LEN: usize = 65;

#[derive(Clone, PartialEq, Eq)]
pub(super) struct PublicKey(VerifyingKey);

impl PublicKey {
    pub(super) fn from_data(data: &[u8]) -> Result<Self, KeyError> {
        let point = data
            .strip_prefix(&SPKI_HEADER)
            .filter(|point| point.len() == POINT_LEN && point.first() == Some(&4))
            .ok_or_else(|| {
                unusable("they are not the SubjectPublicKeyInfo of an uncompressed P-256 point")
            })?;
        VerifyingKey::from_sec1_bytes(point).map(Self).map_err(|_| KeyError::Point(KeyType::Ecdsa))
    }

    pub(super) fn to_data(&self) -> Vec<u8> {
        [&SPKI_HEADER, self.0.to_sec1_point(false).as_bytes()].concat()
    }

    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), KeyError> {
        let signature = Signature::from_der(signature).map_err(|_| KeyError::Signature)?;
        self.0.verify(message, &signature).map_err(|_| KeyError::Signature)
    }
}

#[derive(Clone)]
pub(super) struct PrivateKey(SigningKey);

impl PrivateKey {
    pub(super) fn generate() -> Result<Self, KeyError> {
        SigningKey::try_generate().map(Self).map_err(|e| KeyError::Randomness(e.to_string()))
    }

    /// Reads SEC1 `ECPrivateKey`; the curve's name and the public key may be missing in it, and
    /// must fit when they are there.
    pub(super) fn from_data(data: &[u8]) -> Result<Self, KeyError> {
        SecretKey::from_sec1_der(data)
            .map(|key| Self(key.into()))
            .map_err(|_| unusable("they are not a DER ECPrivateKey of P-256"))
    }

    pub(super) fn to_data(&self) -> Zeroizing<Vec<u8>> {
        SecretKey::from(&self.0).to_sec1_der().expect("a key of fixed length has an encoding")
    }

    #[cfg(feature = "pem")]
    pub(super) fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        use p256::pkcs8::EncodePrivateKey;
        self.0.to_pkcs8_der().expect("a key of fixed length has an encoding").to_bytes()
    }

    pub(super) fn public(&self) -> PublicKey {
        PublicKey(*self.0.verifying_key())
    }

    /// Signs deterministically (RFC 6979).
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let signature: Signature =
            self.0.try_sign(message).map_err(|_| KeyError::Signing(KeyType::Ecdsa))?;
        Ok(signature.to_der().as_bytes().to_vec())
    }
}

fn unusable(reason: &str) -> KeyError {
    KeyError::Data { key_type: KeyType::Ecdsa, reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use p256::ecdsa::Signature;

    use super::SPKI_HEADER;
    use crate::{
        KeyError, KeyType, Keypair, PublicKey,
        key::tests::{hex, keypair, message, vector},
    };

    fn point() -> Vec<u8> {
        vector("ecdsa-public")[4 + SPKI_HEADER.len()..].to_vec()
    }

    fn parse(data: &[u8]) -> Result<PublicKey, KeyError> {
        PublicKey::from_protobuf(&message(3, data))
    }

    #[test]
    fn key_11_only_the_one_form_of_a_p256_key_is_taken() {
        let good = [&SPKI_HEADER, point().as_slice()].concat();
        assert!(parse(&good).is_ok());
        let compressed = [
            &hex("3039301306072a8648ce3d020106082a8648ce3d030107032200")[..],
            &[2],
            &point()[1..33],
        ]
        .concat();
        let infinity = hex("3019301306072a8648ce3d020106082a8648ce3d03010703020000");
        let secp256k1 =
            [&hex("3056301006072a8648ce3d020106052b8104000a034200")[..], &point()].concat();
        let p384 = [&hex("3076301006072a8648ce3d020106052b81040022036200")[..], &[4; 97]].concat();
        let no_curve = [&hex("304f300906072a8648ce3d0201034200")[..], &point()].concat();
        let long_length =
            [&hex("308159301306072a8648ce3d020106082a8648ce3d030107034200")[..], &point()].concat();
        let impossible_length =
            [&hex("3084ffffffff301306072a8648ce3d020106082a8648ce3d030107034200")[..], &point()]
                .concat();
        let trailing = [good.as_slice(), &[0]].concat();
        let mut hybrid = good.clone();
        hybrid[26] = 6;
        let mut unused_bits = good.clone();
        unused_bits[25] = 1;
        for data in [
            compressed,
            infinity,
            secp256k1,
            p384,
            no_curve,
            long_length,
            impossible_length,
            trailing,
            hybrid,
            unused_bits,
            point(),
            Vec::new(),
        ] {
            let error = parse(&data).expect_err("another form");
            assert!(matches!(error, KeyError::Data { key_type: KeyType::Ecdsa, .. }), "{error}");
        }
    }

    #[test]
    fn key_11_a_point_off_the_curve_is_refused() {
        let mut data = [&SPKI_HEADER, point().as_slice()].concat();
        data[90] ^= 1;
        assert_eq!(parse(&data), Err(KeyError::Point(KeyType::Ecdsa)));
        data[27..].fill(0);
        assert_eq!(parse(&data), Err(KeyError::Point(KeyType::Ecdsa)));
        data[27..].fill(0xff);
        assert_eq!(parse(&data), Err(KeyError::Point(KeyType::Ecdsa)));
    }

    #[test]
    fn key_11_private_keys_are_read_as_others_write_them() {
        let whole = vector("ecdsa-private");
        let scalar = &whole[11..43];
        let without_curve =
            [&hex("306b0201010420")[..], scalar, &hex("a144034200"), &point()].concat();
        let bare = [&hex("30250201010420")[..], scalar].concat();
        for data in [&without_curve, &bare] {
            let pair = Keypair::from_protobuf(&message(3, data)).expect("a known form");
            assert_eq!(*pair.to_protobuf(), whole);
        }
        let mut other_curve =
            [&hex("302e0201010420")[..], scalar, &hex("a00706052b8104000a")].concat();
        let mut other_public = without_curve.clone();
        other_public[50] ^= 1;
        let mut zero = bare.clone();
        zero[7..].fill(0);
        let mut version = bare.clone();
        version[4] = 2;
        let trailing = [bare.as_slice(), &[0]].concat();
        for data in [&other_curve, &other_public, &zero, &version, &trailing] {
            let error = Keypair::from_protobuf(&message(3, data)).expect_err("damaged");
            assert!(matches!(error, KeyError::Data { key_type: KeyType::Ecdsa, .. }), "{error}");
        }
        // Only the curve's name was wrong.
        other_curve.truncate(other_curve.len() - 9);
        other_curve[1] = 0x25;
        assert_eq!(other_curve, bare);
    }

    #[test]
    fn key_11_the_refused_tls_vector_is_refused() {
        let key = PublicKey::from_protobuf(&vector("tls-ecdsa-public")).expect("valid");
        let signature = vector("tls-ecdsa-wrong-signature");
        assert_eq!(key.verify(&vector("tls-message"), &signature), Err(KeyError::Signature));
    }

    #[test]
    fn key_11_only_strict_der_signatures_are_taken() {
        let pair = keypair("ecdsa");
        let signature = Signature::from_der(&pair.sign(b"message").expect("signs")).expect("DER");
        let (r, s) = (signature.r().to_bytes(), signature.s().to_bytes());
        // The second key of each pair says how the bytes are written.
        let with = |r: &[u8], s: &[u8]| {
            let part = |n: &[u8]| [&[2, u8::try_from(n.len()).expect("short")], n].concat();
            let both = [part(r), part(s)].concat();
            [&[0x30, u8::try_from(both.len()).expect("short")], both.as_slice()].concat()
        };
        let int = |n: &[u8]| {
            let zeros = n.iter().take_while(|byte| **byte == 0).count();
            let sign = if n[zeros] & 0x80 == 0 { &[][..] } else { &[0] };
            [sign, &n[zeros..]].concat()
        };
        let (r, s) = (int(&r), int(&s));
        let verify = |signature: &[u8]| pair.public().verify(b"message", signature);
        let good = with(&r, &s);
        assert_eq!(verify(&good), Ok(()));
        let mut long_length = good.clone();
        long_length.insert(1, 0x81);
        let mut indefinite = good.clone();
        indefinite[1] = 0x80;
        for bad in [
            with(&[&[0], r.as_slice()].concat(), &s),
            with(&r, &[&[0], s.as_slice()].concat()),
            with(&[0xff], &s),
            with(&[0], &s),
            with(&r, &[0]),
            with(&[], &s),
            with(&r, &[&[1], [0xff; 32].as_slice()].concat()),
            with(&[&[0], [0xff; 32].as_slice()].concat(), &s),
            long_length,
            indefinite,
        ] {
            assert_eq!(verify(&bad), Err(KeyError::Signature), "{bad:02x?}");
        }
    }
}
