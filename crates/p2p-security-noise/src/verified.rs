//! What has been verified before.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use p2p_core::SecurityError;
use sha2::{Digest, Sha256};

use crate::{limits::VERIFIED_MAX, xx::POINT_LEN};

/// The digests of the newest bindings of an identity to a static key whose signature was good.
///
/// A peer signs its static key once, so one that comes back shows the same three things, and
/// whether a signature is good depends on nothing else. Only what has come over a channel of that
/// static key gets here, and only a good signature stays. To find an entry that was not verified
/// takes two inputs of one SHA-256.
///
/// Whoever makes [`VERIFIED_MAX`] identities and completes a handshake with each drives the others
/// out, whose next signatures are then verified as they would be without a memory. A peer can
/// tell by the time of an answer whether it is still remembered itself, and so whether that many
/// others have come since; it learns nothing of who they are.
pub(crate) struct Verified {
    /// The oldest first; allocated once.
    digests: Mutex<VecDeque<[u8; 32]>>,
}

impl Verified {
    pub(crate) fn new() -> Self {
        Self { digests: Mutex::new(VecDeque::with_capacity(VERIFIED_MAX)) }
    }

    /// Does `verify`, which is to depend on nothing but the other three, unless it was good for
    /// the same before.
    pub(crate) fn once(
        &self,
        identity_key: &[u8],
        static_key: &[u8; POINT_LEN],
        signature: &[u8],
        verify: impl FnOnce() -> Result<(), SecurityError>,
    ) -> Result<(), SecurityError> {
        // The key's length says where the signature begins.
        let digest: [u8; 32] = Sha256::new()
            .chain_update(static_key)
            .chain_update(identity_key.len().to_be_bytes())
            .chain_update(identity_key)
            .chain_update(signature)
            .finalize()
            .into();
        if self.with(|digests| digests.contains(&digest)) {
            return Ok(());
        }
        verify()?;
        self.with(|digests| {
            if digests.contains(&digest) {
                return;
            }
            if digests.len() >= VERIFIED_MAX {
                digests.pop_front();
            }
            digests.push_back(digest);
        });
        Ok(())
    }

    fn with<T>(&self, work: impl FnOnce(&mut VecDeque<[u8; 32]>) -> T) -> T {
        work(&mut self.digests.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATIC: [u8; POINT_LEN] = [5; POINT_LEN];

    /// Whether it had to be verified.
    fn verifies(verified: &Verified, key: &[u8], static_key: &[u8; 32], signature: &[u8]) -> bool {
        let mut asked = false;
        let good = verified.once(key, static_key, signature, || {
            asked = true;
            Ok(())
        });
        assert_eq!(good, Ok(()));
        asked
    }

    #[test]
    fn the_same_is_verified_once_and_whatever_differs_again() {
        let verified = Verified::new();
        assert!(verifies(&verified, b"key", &STATIC, b"signature"));
        assert!(!verifies(&verified, b"key", &STATIC, b"signature"));
        assert!(verifies(&verified, b"kez", &STATIC, b"signature"));
        assert!(verifies(&verified, b"key", &[6; 32], b"signature"));
        assert!(verifies(&verified, b"key", &STATIC, b"signaturf"));
        // The same bytes, cut elsewhere.
        assert!(verifies(&verified, b"keys", &STATIC, b"ignature"));
    }

    #[test]
    fn what_was_not_good_is_not_remembered() {
        let verified = Verified::new();
        for _ in 0..2 {
            let bad = verified.once(b"key", &STATIC, b"forged", || Err(SecurityError::Signature));
            assert_eq!(bad, Err(SecurityError::Signature));
        }
        assert!(verifies(&verified, b"key", &STATIC, b"forged"));
    }

    #[test]
    fn the_oldest_makes_room_and_nothing_is_allocated() {
        let verified = Verified::new();
        let before = verified.with(|digests| digests.capacity());
        let name = |number: usize| number.to_be_bytes();
        for number in 0..=VERIFIED_MAX {
            assert!(verifies(&verified, &name(number), &STATIC, b""));
        }
        let (len, capacity) = verified.with(|digests| (digests.len(), digests.capacity()));
        assert_eq!((len, capacity), (VERIFIED_MAX, before));
        assert!(!verifies(&verified, &name(1), &STATIC, b""));
        assert!(verifies(&verified, &name(0), &STATIC, b""));
        assert!(verifies(&verified, &name(1), &STATIC, b""));
    }
}
