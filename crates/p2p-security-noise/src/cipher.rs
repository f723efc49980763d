//! The cipher of a channel as a value: ChaCha20-Poly1305, by whichever implementation is given.
//!
//! [`Cipher::RUST_CRYPTO`] is always there. The features `ring`, `aws-lc-rs` and `openssl` make
//! further ones available, and change nothing by themselves:
//! [`Noise::with_cipher`](crate::Noise::with_cipher) does. All of them speak the same bytes, so the two ends of a channel need not agree on one.
//!
//! | value | feature | needs | keys are wiped when dropped |
//! |---|---|---|---|
//! | [`Cipher::RUST_CRYPTO`] | – | Rust alone | yes |
//! | `Cipher::RING` | `ring` | a C compiler | no: ring frees its expanded key as it is |
//! | `Cipher::AWS_LC` | `aws-lc-rs` | a C compiler | yes |
//! | `Cipher::OPENSSL` | `openssl` | the system's OpenSSL with its headers, pkg-config and a C compiler to build; its library to run | yes |
//!
//! The keys that Noise derives are wiped in any case; the column is about the copy that the
//! implementation keeps. Where the feature `ring` is used, somebody who reads freed memory of
//! this process can find keys of channels that are over.
//!
//! # An implementation of your own
//!
//! ```
//! use p2p_security_noise::{
//!     Keypair, Noise, SecurityError,
//!     cipher::{Cipher, CipherKey, NONCE_LEN, TAG_LEN},
//! };
//!
//! struct Counting(Box<dyn CipherKey>, u64);
//!
//! impl CipherKey for Counting {
//!     fn seal(
//!         &mut self,
//!         nonce: &[u8; NONCE_LEN],
//!         associated: &[u8],
//!         text: &mut [u8],
//!     ) -> Result<[u8; TAG_LEN], SecurityError> {
//!         self.1 += text.len() as u64;
//!         self.0.seal(nonce, associated, text)
//!     }
//!
//!     fn open(
//!         &mut self,
//!         nonce: &[u8; NONCE_LEN],
//!         associated: &[u8],
//!         sealed: &mut [u8],
//!     ) -> Result<(), SecurityError> {
//!         self.0.open(nonce, associated, sealed)
//!     }
//! }
//!
//! let counting = Cipher::new("counting", |key| Ok(Box::new(Counting(Cipher::RUST_CRYPTO.key(key)?, 0))));
//! let noise = Noise::new(&Keypair::generate()?)?.with_cipher(counting);
//! # drop(noise);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
#[macro_use]
mod ring_api;
#[cfg(feature = "openssl")]
mod openssl;
mod rust_crypto;

#[cfg(feature = "aws-lc-rs")]
mod aws_lc {
    ring_api!(aws_lc_rs, "aws-lc-rs");
}
#[cfg(feature = "ring")]
mod ring {
    ring_api!(ring, "ring");
}

use std::fmt;

use p2p_core::SecurityError;

/// Length of a key in bytes.
pub const KEY_LEN: usize = 32;
/// Length of a nonce in bytes.
pub const NONCE_LEN: usize = 12;
/// Length of a tag in bytes.
pub const TAG_LEN: usize = 16;

/// One implementation of ChaCha20-Poly1305 as RFC 8439 has it.
#[derive(Clone, Copy)]
pub struct Cipher {
    name: &'static str,
    make: MakeKey,
}

type MakeKey = fn(&[u8; KEY_LEN]) -> Result<Box<dyn CipherKey>, SecurityError>;

impl Cipher {
    /// RustCrypto's `chacha20poly1305`: Rust alone. On x86 it finds AVX2 at run time.
    pub const RUST_CRYPTO: Self = Self::new("RustCrypto", rust_crypto::make);

    /// That of `ring`: assembly and C, chosen at run time by what the processor has.
    #[cfg(feature = "ring")]
    pub const RING: Self = Self::new("ring", ring::make);

    /// That of `aws-lc-rs`: assembly and C, chosen at run time by what the processor has.
    #[cfg(feature = "aws-lc-rs")]
    pub const AWS_LC: Self = Self::new("aws-lc-rs", aws_lc::make);

    /// That of the system's OpenSSL: assembly, chosen at run time by what the processor has, with
    /// AVX-512 among it.
    #[cfg(feature = "openssl")]
    pub const OPENSSL: Self = Self::new("OpenSSL", openssl::make);

    /// Makes a value of an implementation: `name` is for people who read logs, `make` is called
    /// with 32 bytes of key, five times in a handshake, two of them for the channel's directions.
    #[must_use]
    #[expect(clippy::type_complexity, reason = "a private alias would be shown in its place")]
    pub const fn new(
        name: &'static str,
        make: fn(&[u8; KEY_LEN]) -> Result<Box<dyn CipherKey>, SecurityError>,
    ) -> Self {
        Self { name, make }
    }

    /// What the implementation is called.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Takes a key into use.
    ///
    /// # Errors
    /// [`SecurityError::Cipher`] when the implementation cannot take it.
    pub fn key(&self, key: &[u8; KEY_LEN]) -> Result<Box<dyn CipherKey>, SecurityError> {
        (self.make)(key)
    }
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cipher({})", self.name)
    }
}

/// ChaCha20-Poly1305 with a key: one direction of a channel, or one step of a handshake.
///
/// It is called once for each record, with at most 65,535 bytes. The caller never repeats a
/// nonce when sealing; an implementation keeps no count of its own. It should wipe its key when
/// dropped, and must not print it.
///
/// # Specification
/// RFC 8439, section 2.8.
pub trait CipherKey: Send + 'static {
    /// Encrypts `text` in place and returns the tag over it and `associated`.
    ///
    /// # Errors
    /// [`SecurityError::Cipher`] when the implementation fails; `text` is then not sent.
    fn seal(
        &mut self,
        nonce: &[u8; NONCE_LEN],
        associated: &[u8],
        text: &mut [u8],
    ) -> Result<[u8; TAG_LEN], SecurityError>;

    /// Checks and decrypts `sealed`, the ciphertext and behind it the 16 bytes of its tag, in
    /// place: afterwards the plaintext stands in front of the tag.
    ///
    /// # Errors
    /// [`SecurityError::Decrypt`] when the tag is not that of ciphertext, nonce and `associated`,
    /// or is not there. What `sealed` holds then is not used.
    fn open(
        &mut self,
        nonce: &[u8; NONCE_LEN],
        associated: &[u8],
        sealed: &mut [u8],
    ) -> Result<(), SecurityError>;
}

/// Every implementation that this build has, for tests that hold for all of them.
#[cfg(test)]
pub(crate) const ALL: &[Cipher] = &[
    Cipher::RUST_CRYPTO,
    #[cfg(feature = "ring")]
    Cipher::RING,
    #[cfg(feature = "aws-lc-rs")]
    Cipher::AWS_LC,
    #[cfg(feature = "openssl")]
    Cipher::OPENSSL,
];

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; KEY_LEN] = [7; KEY_LEN];
    const NONCE: [u8; NONCE_LEN] = [0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];

    fn sealed(cipher: Cipher, associated: &[u8], plain: &[u8]) -> Vec<u8> {
        let mut sealed = plain.to_vec();
        let mut key = cipher.key(&KEY).expect("a key");
        let tag = key.seal(&NONCE, associated, &mut sealed).expect("it fits");
        sealed.extend(tag);
        sealed
    }

    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|i| u8::try_from(i % 251).expect("small")).collect()
    }

    /// RFC 8439, section 2.8.2.
    #[test]
    fn noise_15_every_cipher_gives_the_vector_of_rfc_8439() {
        let key: [u8; 32] = std::array::from_fn(|i| 0x80 + u8::try_from(i).expect("small"));
        let nonce = [7, 0, 0, 0, 0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47];
        let associated = [0x50, 0x51, 0x52, 0x53, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7];
        let plain = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip \
                      for the future, sunscreen would be it.";
        let tag = [
            0x1a, 0xe1, 0x0b, 0x59, 0x4f, 0x09, 0xe2, 0x6a, 0x7e, 0x90, 0x2e, 0xcb, 0xd0, 0x60,
            0x06, 0x91,
        ];
        for cipher in ALL {
            let mut text = plain.to_vec();
            let mut key = cipher.key(&key).expect("a key");
            assert_eq!(key.seal(&nonce, &associated, &mut text), Ok(tag), "{cipher:?}");
            assert_eq!(text[..8], [0xd3, 0x1a, 0x8d, 0x34, 0x64, 0x8e, 0x60, 0xdb], "{cipher:?}");
            text.extend(tag);
            key.open(&nonce, &associated, &mut text).expect("authentic");
            assert_eq!(text[..plain.len()], plain[..], "{cipher:?}");
        }
    }

    #[test]
    fn noise_15_what_one_cipher_seals_every_other_opens_at_every_size() {
        for len in (0..=300).chain([65_519]) {
            let plain = pattern(len);
            let reference = sealed(Cipher::RUST_CRYPTO, &plain[..len.min(32)], &plain);
            for sealer in ALL {
                let whole = sealed(*sealer, &plain[..len.min(32)], &plain);
                assert!(whole == reference, "{sealer:?} seals {len} bytes");
                for opener in ALL {
                    let mut wire = whole.clone();
                    let mut key = opener.key(&KEY).expect("a key");
                    key.open(&NONCE, &plain[..len.min(32)], &mut wire).expect("authentic");
                    assert!(wire[..len] == plain, "{sealer:?} to {opener:?}, {len} bytes");
                }
            }
        }
    }

    #[test]
    fn noise_23_every_cipher_refuses_a_changed_bit_a_cut_and_other_associated_data() {
        for cipher in ALL {
            let whole = sealed(*cipher, b"ad", b"hello, world");
            let mut key = cipher.key(&KEY).expect("a key");
            let mut open = |mut wire: Vec<u8>, nonce, associated: &[u8]| {
                key.open(nonce, associated, &mut wire)
            };
            for at in 0..whole.len() {
                for bit in 0..8 {
                    let mut changed = whole.clone();
                    changed[at] ^= 1 << bit;
                    let refused = open(changed, &NONCE, b"ad");
                    assert_eq!(refused, Err(SecurityError::Decrypt), "{cipher:?}, byte {at}");
                }
                let refused = open(whole[..at].to_vec(), &NONCE, b"ad");
                assert_eq!(refused, Err(SecurityError::Decrypt), "{cipher:?}, cut at {at}");
            }
            assert_eq!(open(whole.clone(), &NONCE, b"da"), Err(SecurityError::Decrypt));
            assert_eq!(open(whole.clone(), &[0; NONCE_LEN], b"ad"), Err(SecurityError::Decrypt));
            assert_eq!(open(whole, &NONCE, b"ad"), Ok(()));
        }
    }

    #[test]
    fn no_cipher_leaves_plaintext_behind_when_the_tag_is_wrong() {
        for cipher in ALL {
            for len in [16, 64, 1024, 65_504] {
                let plain = pattern(len);
                let mut wire = sealed(*cipher, b"", &plain);
                wire[len] ^= 1;
                let mut key = cipher.key(&KEY).expect("a key");
                assert_eq!(key.open(&NONCE, b"", &mut wire), Err(SecurityError::Decrypt));
                let kept = wire.chunks(16).zip(plain.chunks(16)).any(|(wire, plain)| wire == plain);
                assert!(!kept, "{cipher:?}, {len} bytes");
            }
        }
    }

    #[test]
    fn a_cipher_is_printed_by_its_name() {
        assert_eq!(format!("{:?}", Cipher::RUST_CRYPTO), "Cipher(RustCrypto)");
        assert_eq!(Cipher::RUST_CRYPTO.name(), "RustCrypto");
    }
}
