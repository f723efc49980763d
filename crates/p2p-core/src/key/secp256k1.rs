//! ECDSA over secp256k1: KEY-09, KEY-10.

use k256::{
    ecdsa::{
        Signature, SigningKey, VerifyingKey,
        signature::{Signer, Verifier},
    },
    elliptic_curve::Generate,
};
use zeroize::Zeroizing;

use super::{KeyError, KeyType};

/// Length of a private key, in bytes.
const SCALAR_LEN: usize = 32;

#[derive(Clone, PartialEq, Eq)]
pub(super) struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Reads a SEC1 point: compressed, or uncompressed as KEY-09 lets others store it.
    pub(super) fn from_data(data: &[u8]) -> Result<Self, KeyError> {
        match (data.len(), data.first()) {
            (33, Some(2 | 3)) | (65, Some(4)) => VerifyingKey::from_sec1_bytes(data)
                .map(Self)
                .map_err(|_| KeyError::Point(KeyType::Secp256k1)),
            (33 | 65, _) => Err(KeyError::Point(KeyType::Secp256k1)),
            (len, _) => {
                Err(KeyError::Len { key_type: KeyType::Secp256k1, len, expected: "33 or 65" })
            }
        }
    }

    pub(super) fn to_data(&self) -> Vec<u8> {
        self.0.to_sec1_point(true).as_bytes().to_vec()
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

    pub(super) fn from_data(data: &[u8]) -> Result<Self, KeyError> {
        if data.len() != SCALAR_LEN {
            return Err(KeyError::Len {
                key_type: KeyType::Secp256k1,
                len: data.len(),
                expected: "32",
            });
        }
        SigningKey::from_slice(data).map(Self).map_err(|_| KeyError::Scalar(KeyType::Secp256k1))
    }

    pub(super) fn to_data(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(Zeroizing::new(self.0.to_bytes()).to_vec())
    }

    #[cfg(feature = "pem")]
    pub(super) fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        use k256::pkcs8::EncodePrivateKey;
        self.0.to_pkcs8_der().expect("a key of fixed length has an encoding").to_bytes()
    }

    pub(super) fn public(&self) -> PublicKey {
        PublicKey(*self.0.verifying_key())
    }

    /// Signs deterministically (RFC 6979), with S in the lower half.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let signature: Signature =
            self.0.try_sign(message).map_err(|_| KeyError::Signing(KeyType::Secp256k1))?;
        Ok(signature.to_der().as_bytes().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use k256::{ecdsa::Signature, elliptic_curve::scalar::IsHigh};

    use crate::{
        KeyError, KeyType, Keypair, PublicKey,
        key::tests::{hex, keypair, message, vector},
    };

    const ORDER: &str = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";

    /// The uncompressed form of the vector's point, by OpenSSL.
    const UNCOMPRESSED: &str = "047777e994e452c21604f91de093ce415f5432f701dd8cd1a7a6fea0e630bfca991b41b30efa52b659e9db235c31f9975578a17e2b356a6b84837b5b45c555cfb1";

    #[test]
    fn key_09_pid_03_uncompressed_points_are_reencoded() {
        let compressed = vector("secp256k1-public");
        let key = PublicKey::from_protobuf(&message(2, &hex(UNCOMPRESSED))).expect("a point");
        assert_eq!(key.to_protobuf(), compressed);
        assert_eq!(Ok(&key), PublicKey::from_protobuf(&compressed).as_ref());
        assert_eq!(key.peer_id(), keypair("secp256k1").public().peer_id());
    }

    #[test]
    fn key_09_infinity_other_forms_and_points_off_the_curve_are_refused() {
        let point = Err(KeyError::Point(KeyType::Secp256k1));
        let with =
            |tag: u8, rest: &[u8]| PublicKey::from_protobuf(&message(2, &[&[tag], rest].concat()));
        let uncompressed = hex(UNCOMPRESSED);
        let mut off = uncompressed[1..].to_vec();
        off[63] ^= 1;
        assert_eq!(with(4, &off), point);
        assert_eq!(with(6, &uncompressed[1..]), point); // hybrid
        assert_eq!(with(5, &uncompressed[1..33]), point); // compact
        assert_eq!(with(0, &uncompressed[1..33]), point);
        assert_eq!(with(4, &uncompressed[1..33]), point);
        assert_eq!(with(2, &uncompressed[1..]), point);
        assert_eq!(with(2, &[0xff; 32]), point); // beyond the field
        assert_eq!(with(4, &[0; 64]), point);
        // x = 5 is on no point.
        let mut x = [0; 32];
        x[31] = 5;
        assert_eq!(with(2, &x), point);
        for len in [0, 1, 32, 34, 64, 66] {
            let error = KeyError::Len { key_type: KeyType::Secp256k1, len, expected: "33 or 65" };
            assert_eq!(PublicKey::from_protobuf(&message(2, &vec![0; len])), Err(error));
        }
    }

    #[test]
    fn key_09_a_scalar_is_neither_zero_nor_beyond_the_order() {
        let mut scalar = hex(ORDER);
        let error = |data: &[u8]| Keypair::from_protobuf(&message(2, data)).err();
        assert_eq!(error(&scalar), Some(KeyError::Scalar(KeyType::Secp256k1)));
        assert_eq!(error(&[0; 32]), Some(KeyError::Scalar(KeyType::Secp256k1)));
        scalar[31] -= 1;
        assert_eq!(error(&scalar), None);
        for len in [0, 31, 33] {
            let expected = KeyError::Len { key_type: KeyType::Secp256k1, len, expected: "32" };
            assert_eq!(error(&vec![1; len]), Some(expected));
        }
    }

    #[test]
    fn key_10_s_is_always_low_and_a_high_one_is_refused() {
        let pair = keypair("secp256k1");
        for n in 0..32 {
            let signature = pair.sign(&[n]).expect("signs");
            let low = Signature::from_der(&signature).expect("DER");
            let (r, s) = low.split_scalars();
            assert!(!bool::from(s.is_high()));
            let high = Signature::from_scalars(*r, -*s).expect("in range").to_der();
            assert_eq!(pair.public().verify(&[n], &signature), Ok(()));
            assert_eq!(pair.public().verify(&[n], high.as_bytes()), Err(KeyError::Signature));
        }
    }
}
