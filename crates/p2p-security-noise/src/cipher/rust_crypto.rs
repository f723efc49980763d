use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, KeyInit, Nonce, Tag};
use p2p_core::SecurityError;

use super::{CipherKey, KEY_LEN, NONCE_LEN, TAG_LEN};

#[expect(clippy::unnecessary_wraps, reason = "the form that all implementations share")]
pub(super) fn make(key: &[u8; KEY_LEN]) -> Result<Box<dyn CipherKey>, SecurityError> {
    Ok(Box::new(Key(ChaCha20Poly1305::new(key.into()))))
}

struct Key(ChaCha20Poly1305);

impl CipherKey for Key {
    fn seal(
        &mut self,
        nonce: &[u8; NONCE_LEN],
        associated: &[u8],
        text: &mut [u8],
    ) -> Result<[u8; TAG_LEN], SecurityError> {
        let sealed = self.0.encrypt_inout_detached(&Nonce::from(*nonce), associated, text.into());
        sealed.map(Into::into).map_err(|_| SecurityError::Cipher("RustCrypto cannot seal"))
    }

    fn open(
        &mut self,
        nonce: &[u8; NONCE_LEN],
        associated: &[u8],
        sealed: &mut [u8],
    ) -> Result<(), SecurityError> {
        let (text, tag) = sealed.split_last_chunk_mut::<TAG_LEN>().ok_or(SecurityError::Decrypt)?;
        let (nonce, tag) = (Nonce::from(*nonce), Tag::from(*tag));
        let opened = self.0.decrypt_inout_detached(&nonce, associated, text.into(), &tag);
        opened.map_err(|_| SecurityError::Decrypt)
    }
}
