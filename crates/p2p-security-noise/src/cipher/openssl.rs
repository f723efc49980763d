use ::openssl::{cipher::Cipher, cipher_ctx::CipherCtx, error::ErrorStack};
use p2p_core::SecurityError;

use super::{CipherKey, KEY_LEN, NONCE_LEN, TAG_LEN};

pub(super) fn make(key: &[u8; KEY_LEN]) -> Result<Box<dyn CipherKey>, SecurityError> {
    let context = CipherCtx::new().and_then(|mut context| {
        context.encrypt_init(Some(Cipher::chacha20_poly1305()), Some(key), None)?;
        Ok(context)
    });
    let context = context.map_err(|_| SecurityError::Cipher("OpenSSL cannot take a key"))?;
    Ok(Box::new(Key(context)))
}

/// Has the key for both directions: a stream cipher has no other for opening. OpenSSL wipes it when
/// the context is freed.
struct Key(CipherCtx);

impl Key {
    /// What both directions do between the nonce and the tag.
    fn apply(&mut self, associated: &[u8], text: &mut [u8]) -> Result<(), ErrorStack> {
        // Records have none, and a call costs as much as 64 bytes.
        if !associated.is_empty() {
            self.0.cipher_update(associated, None)?;
        }
        let len = text.len();
        self.0.cipher_update_inplace(text, len)?;
        Ok(())
    }

    fn seal(
        &mut self,
        nonce: &[u8; NONCE_LEN],
        associated: &[u8],
        text: &mut [u8],
    ) -> Result<[u8; TAG_LEN], ErrorStack> {
        self.0.encrypt_init(None, None, Some(nonce))?;
        self.apply(associated, text)?;
        self.0.cipher_final(&mut [])?;
        let mut tag = [0; TAG_LEN];
        self.0.tag(&mut tag)?;
        Ok(tag)
    }
}

impl CipherKey for Key {
    fn seal(
        &mut self,
        nonce: &[u8; NONCE_LEN],
        associated: &[u8],
        text: &mut [u8],
    ) -> Result<[u8; TAG_LEN], SecurityError> {
        Self::seal(self, nonce, associated, text)
            .map_err(|_| SecurityError::Cipher("OpenSSL cannot seal"))
    }

    fn open(
        &mut self,
        nonce: &[u8; NONCE_LEN],
        associated: &[u8],
        sealed: &mut [u8],
    ) -> Result<(), SecurityError> {
        let (text, tag) = sealed.split_last_chunk_mut::<TAG_LEN>().ok_or(SecurityError::Decrypt)?;
        let decrypted = self.0.decrypt_init(None, None, Some(nonce)).and_then(|()| {
            self.0.set_tag(tag)?;
            self.apply(associated, text)
        });
        let opened = decrypted
            .map_err(|_| SecurityError::Cipher("OpenSSL cannot open"))
            .and_then(|()| self.0.cipher_final(&mut []).map_err(|_| SecurityError::Decrypt));
        // OpenSSL decrypts before it has seen whether the tag is right.
        opened.map(|_| ()).inspect_err(|_| text.fill(0))
    }
}
