//! The XX pattern (Noise, section 7.5), with payloads that it does not look into.

use std::sync::Arc;

use bytes::{Buf, BytesMut};
use p2p_core::SecurityError;
use sha2::{Digest, Sha256};
use x25519_dalek::{PublicKey, SharedSecret, StaticSecret};
use zeroize::Zeroizing;

use crate::{
    cipher::{Cipher, TAG_LEN},
    symmetric::{CipherState, SymmetricState},
};

/// Length of an X25519 public key in bytes.
pub(crate) const POINT_LEN: usize = 32;
/// Length of a static key as it is sent: with a tag.
const SEALED_POINT_LEN: usize = POINT_LEN + TAG_LEN;
/// Lengths of the messages without their payload; those of 2 and 3 always end with a tag.
pub(crate) const MESSAGE_1_LEN: usize = POINT_LEN;
pub(crate) const MESSAGE_2_LEN_MIN: usize = POINT_LEN + SEALED_POINT_LEN + TAG_LEN;
pub(crate) const MESSAGE_3_LEN_MIN: usize = SEALED_POINT_LEN + TAG_LEN;

/// An X25519 key pair; the secret zeroizes itself when dropped.
pub(crate) struct DhKey {
    secret: StaticSecret,
    public: PublicKey,
}

impl DhKey {
    pub(crate) fn generate() -> Result<Self, SecurityError> {
        let mut secret = Zeroizing::new([0; POINT_LEN]);
        getrandom::fill(secret.as_mut_slice())
            .map_err(|e| SecurityError::Randomness(e.to_string()))?;
        Ok(Self::from_secret(*secret))
    }

    /// The `number`-th key of a seed: known to all who know the seed.
    pub(crate) fn of_seed(seed: u64, number: u64) -> Self {
        let digest = Sha256::new_with_prefix(b"p2p-security-noise seeded key")
            .chain_update(seed.to_be_bytes())
            .chain_update(number.to_be_bytes());
        Self::from_secret(digest.finalize().into())
    }

    pub(crate) fn from_secret(secret: [u8; POINT_LEN]) -> Self {
        let secret = StaticSecret::from(secret);
        Self { public: PublicKey::from(&secret), secret }
    }

    pub(crate) fn public(&self) -> &[u8; POINT_LEN] {
        self.public.as_bytes()
    }

    /// An all-zero result would be known to anybody, so it is refused: Noise leaves it open
    /// (section 12.1), go and js refuse it too.
    fn agree(&self, theirs: &PublicKey) -> Result<SharedSecret, SecurityError> {
        let shared = self.secret.diffie_hellman(theirs);
        if !shared.was_contributory() {
            return Err(SecurityError::LowOrderPoint);
        }
        Ok(shared)
    }
}

/// One side of an XX handshake. `write_*` appends a message to `out`; `read_*` takes one and
/// leaves its payload in `message`. The order of the calls is the caller's duty.
pub(crate) struct Xx {
    symmetric: SymmetricState,
    static_key: Arc<DhKey>,
    ephemeral: DhKey,
}

impl Xx {
    pub(crate) fn new(
        cipher: Cipher,
        prologue: &[u8],
        static_key: Arc<DhKey>,
        ephemeral: DhKey,
    ) -> Self {
        Self { symmetric: SymmetricState::new(cipher, prologue), static_key, ephemeral }
    }

    /// `-> e`
    pub(crate) fn write_1(
        &mut self,
        payload: &[u8],
        out: &mut BytesMut,
    ) -> Result<(), SecurityError> {
        self.write_ephemeral(out);
        self.symmetric.encrypt_and_hash(payload, out)
    }

    /// `-> e`; gives the initiator's ephemeral key.
    pub(crate) fn read_1(&mut self, message: &mut BytesMut) -> Result<PublicKey, SecurityError> {
        let their_ephemeral = self.read_ephemeral(message)?;
        self.symmetric.decrypt_and_hash(message)?;
        Ok(their_ephemeral)
    }

    /// `<- e, ee, s, es`
    pub(crate) fn write_2(
        &mut self,
        their_ephemeral: &PublicKey,
        payload: &[u8],
        out: &mut BytesMut,
    ) -> Result<(), SecurityError> {
        self.write_ephemeral(out);
        self.symmetric.mix_key(self.ephemeral.agree(their_ephemeral)?.as_bytes())?;
        self.symmetric.encrypt_and_hash(self.static_key.public(), out)?;
        self.symmetric.mix_key(self.static_key.agree(their_ephemeral)?.as_bytes())?;
        self.symmetric.encrypt_and_hash(payload, out)
    }

    /// `<- e, ee, s, es`; gives the responder's ephemeral and static keys.
    pub(crate) fn read_2(
        &mut self,
        message: &mut BytesMut,
    ) -> Result<(PublicKey, PublicKey), SecurityError> {
        let their_ephemeral = self.read_ephemeral(message)?;
        self.symmetric.mix_key(self.ephemeral.agree(&their_ephemeral)?.as_bytes())?;
        let their_static = self.read_static(message)?;
        self.symmetric.mix_key(self.ephemeral.agree(&their_static)?.as_bytes())?;
        self.symmetric.decrypt_and_hash(message)?;
        Ok((their_ephemeral, their_static))
    }

    /// `-> s, se`
    pub(crate) fn write_3(
        &mut self,
        their_ephemeral: &PublicKey,
        payload: &[u8],
        out: &mut BytesMut,
    ) -> Result<(), SecurityError> {
        self.symmetric.encrypt_and_hash(self.static_key.public(), out)?;
        self.symmetric.mix_key(self.static_key.agree(their_ephemeral)?.as_bytes())?;
        self.symmetric.encrypt_and_hash(payload, out)
    }

    /// `-> s, se`; gives the initiator's static key.
    pub(crate) fn read_3(&mut self, message: &mut BytesMut) -> Result<PublicKey, SecurityError> {
        let their_static = self.read_static(message)?;
        self.symmetric.mix_key(self.ephemeral.agree(&their_static)?.as_bytes())?;
        self.symmetric.decrypt_and_hash(message)?;
        Ok(their_static)
    }

    /// The ciphers of the two directions: initiator to responder, then back.
    pub(crate) fn split(&self) -> Result<(CipherState, CipherState), SecurityError> {
        self.symmetric.split()
    }

    fn write_ephemeral(&mut self, out: &mut BytesMut) {
        out.extend_from_slice(self.ephemeral.public());
        self.symmetric.mix_hash(self.ephemeral.public());
    }

    fn read_ephemeral(&mut self, message: &mut BytesMut) -> Result<PublicKey, SecurityError> {
        let point = take_point(message)?;
        self.symmetric.mix_hash(point.as_bytes());
        Ok(point)
    }

    fn read_static(&mut self, message: &mut BytesMut) -> Result<PublicKey, SecurityError> {
        if message.len() < SEALED_POINT_LEN {
            return Err(too_short());
        }
        let mut sealed = message.split_to(SEALED_POINT_LEN);
        self.symmetric.decrypt_and_hash(&mut sealed)?;
        take_point(&mut sealed)
    }

    #[cfg(test)]
    pub(crate) fn symmetric(&self) -> &SymmetricState {
        &self.symmetric
    }
}

fn take_point(message: &mut BytesMut) -> Result<PublicKey, SecurityError> {
    let point: [u8; POINT_LEN] = *message.first_chunk().ok_or_else(too_short)?;
    message.advance(POINT_LEN);
    Ok(PublicKey::from(point))
}

fn too_short() -> SecurityError {
    SecurityError::Malformed("a message ends before its keys do".into())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::cipher::ALL;

    pub(crate) fn hex(text: &str) -> Vec<u8> {
        assert!(text.len().is_multiple_of(2), "whole bytes");
        (0..text.len() / 2)
            .map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).expect("hex"))
            .collect()
    }

    pub(crate) fn key(text: &str) -> DhKey {
        DhKey::from_secret(hex(text).try_into().expect("32 bytes"))
    }

    /// The points whose order divides 8, and their non-canonical forms: every scalar of ours
    /// gives zero with them.
    pub(crate) const LOW_ORDER: [&str; 7] = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ];

    const PROLOGUE: &[u8] = b"John Galt";
    /// Payload and ciphertext of the six messages of the Cacophony vector.
    const MESSAGES: [(&str, &str); 6] = [
        (
            "4c756477696720766f6e204d69736573",
            "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c79444c756477696720766f\
             6e204d69736573",
        ),
        (
            "4d757272617920526f746862617264",
            "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f14480884381cbad1f276e038c48\
             378ffce2b65285e08d6b68aaa3629a5a8639392490e5b9bd5269c2f1e4f488ed8831161f19b7815528\
             f8982ffe09be9b5c412f8a0db50f8814c7194e83f23dbd8d162c9326ad",
        ),
        (
            "462e20412e20486179656b",
            "c7195ffacac1307ff99046f219750fc47693e23c3cb08b89c2af808b444850a80ae475b9df0f169ae8\
             0a89be0865b57f58c9fea0d4ec82a286427402f113e4b6ae769a1d95941d49b25030",
        ),
        ("4361726c204d656e676572", "96763ed773f8e47bb3712f0e29b3060ffc956ffc146cee53d5e1df"),
        (
            "4a65616e2d426170746973746520536179",
            "3e40f15f6f3a46ae446b253bf8b1d9ffb6ed9b174d272328ff91a7e2e5c79c07f5",
        ),
        (
            "457567656e2042f6686d20766f6e2042617765726b",
            "eb3f3515110702e047a6c9da4478b6ead94873c11c0f2d710ddb3f09fce024b3a58502ae3f",
        ),
    ];

    fn cacophony(cipher: Cipher) -> (Xx, Xx) {
        let initiator = Xx::new(
            cipher,
            PROLOGUE,
            Arc::new(key("e61ef9919cde45dd5f82166404bd08e38bceb5dfdfded0a34c8df7ed542214d1")),
            key("893e28b9dc6ca8d611ab664754b8ceb7bac5117349a4439a6b0569da977c464a"),
        );
        let responder = Xx::new(
            cipher,
            PROLOGUE,
            Arc::new(key("4a3acbfdb163dec651dfa3194dece676d437029c62a408b4c5ea9114246e4893")),
            key("bbdb4cdbd309f1a1f2e1456967fe288cadd6f712d65dc7b7793d5e63da6b375b"),
        );
        (initiator, responder)
    }

    #[test]
    fn noise_03_04_the_cacophony_vector() {
        for &cipher in ALL {
            let (mut initiator, mut responder) = cacophony(cipher);
            let [one, two, three, ..] = MESSAGES.map(|(payload, _)| hex(payload));
            let mut wire = BytesMut::new();

            initiator.write_1(&one, &mut wire).expect("message 1");
            assert_eq!(wire, hex(MESSAGES[0].1));
            let initiator_ephemeral = responder.read_1(&mut wire).expect("message 1");
            assert_eq!(wire, one);

            wire.clear();
            responder.write_2(&initiator_ephemeral, &two, &mut wire).expect("message 2");
            assert_eq!(wire, hex(MESSAGES[1].1));
            let (responder_ephemeral, _) = initiator.read_2(&mut wire).expect("message 2");
            assert_eq!(wire, two);

            wire.clear();
            initiator.write_3(&responder_ephemeral, &three, &mut wire).expect("message 3");
            assert_eq!(wire, hex(MESSAGES[2].1));
            responder.read_3(&mut wire).expect("message 3");
            assert_eq!(wire, three);

            let hash = "c8e5f64e846193be2a834104c2a009868d6c9f3bd3c186299888b488b2f1f58e";
            assert_eq!(initiator.symmetric().hash().to_vec(), hex(hash));
            assert_eq!(responder.symmetric().hash().to_vec(), hex(hash));

            let (mut forth, mut back) = initiator.split().expect("keys");
            let (mut forth_receiver, mut back_receiver) = responder.split().expect("keys");
            for (index, (payload, sealed)) in MESSAGES.into_iter().enumerate().skip(3) {
                let (sender, receiver) = if index == 4 {
                    (&mut forth, &mut forth_receiver)
                } else {
                    (&mut back_receiver, &mut back)
                };
                let mut wire = BytesMut::from(&hex(payload)[..]);
                sender.encrypt(&[], &mut wire, 0).expect("nonces left");
                assert_eq!(wire, hex(sealed), "message {}", index + 1);
                receiver.decrypt(&[], &mut wire).expect("authentic");
                assert_eq!(wire, hex(payload));
            }
        }
    }

    #[test]
    fn crypto_1_10_low_order_points_give_no_secret() {
        for point in LOW_ORDER {
            let point: [u8; 32] = hex(point).try_into().expect("32 bytes");
            let mut masked = point;
            masked[31] |= 0x80;
            for point in [point, masked] {
                let agreed = DhKey::from_secret([9; 32]).agree(&PublicKey::from(point));
                assert!(matches!(agreed, Err(SecurityError::LowOrderPoint)), "{point:02x?}");
            }
        }
    }

    #[test]
    fn messages_that_end_inside_a_key_are_malformed() {
        for &cipher in ALL {
            let (mut initiator, mut responder) = cacophony(cipher);
            for len in 0..POINT_LEN {
                let mut short = BytesMut::zeroed(len);
                assert!(matches!(responder.read_1(&mut short), Err(SecurityError::Malformed(_))));
                assert!(matches!(initiator.read_2(&mut short), Err(SecurityError::Malformed(_))));
            }
            for len in 0..SEALED_POINT_LEN {
                let mut short = BytesMut::zeroed(len);
                assert!(matches!(responder.read_3(&mut short), Err(SecurityError::Malformed(_))));
            }
        }
    }
}
