//! The interface of `ring`, which `aws-lc-rs` has too: one text for both.

/// Implements `make` with the crate `$krate`, in the module where it is called.
macro_rules! ring_api {
    ($krate:ident, $name:literal) => {
        use ::$krate::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
        use p2p_core::SecurityError;

        use super::{CipherKey, KEY_LEN, NONCE_LEN, TAG_LEN};

        pub(super) fn make(key: &[u8; KEY_LEN]) -> Result<Box<dyn CipherKey>, SecurityError> {
            let key = UnboundKey::new(&CHACHA20_POLY1305, key)
                .map_err(|_| SecurityError::Cipher(concat!($name, " cannot take a key")))?;
            Ok(Box::new(Key(LessSafeKey::new(key))))
        }

        /// "Less safe" in that the caller counts the nonces, which Noise does.
        struct Key(LessSafeKey);

        impl CipherKey for Key {
            fn seal(
                &mut self,
                nonce: &[u8; NONCE_LEN],
                associated: &[u8],
                text: &mut [u8],
            ) -> Result<[u8; TAG_LEN], SecurityError> {
                let nonce = Nonce::assume_unique_for_key(*nonce);
                let tag = self.0.seal_in_place_separate_tag(nonce, Aad::from(associated), text);
                tag.ok()
                    .and_then(|tag| tag.as_ref().try_into().ok())
                    .ok_or(SecurityError::Cipher(concat!($name, " cannot seal")))
            }

            fn open(
                &mut self,
                nonce: &[u8; NONCE_LEN],
                associated: &[u8],
                sealed: &mut [u8],
            ) -> Result<(), SecurityError> {
                let nonce = Nonce::assume_unique_for_key(*nonce);
                let opened = self.0.open_in_place(nonce, Aad::from(associated), sealed);
                opened.map(|_| ()).map_err(|_| SecurityError::Decrypt)
            }
        }
    };
}
