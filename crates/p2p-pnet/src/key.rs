use std::{fmt, str::FromStr, sync::Arc};

use p2p_core::KeyError;
use salsa20::{
    Salsa20, XSalsa20,
    cipher::{KeyIvInit, StreamCipher},
};
use shake::{ExtendableOutput, Shake128, Update, XofReader};
use zeroize::Zeroizing;

use crate::cipher::NONCE_LEN;

/// Length of a pre-shared key, in bytes.
const KEY_LEN: usize = 32;
/// The longest key file that is looked at, in bytes. The longest form of one has 99.
const KEY_FILE_LEN_MAX: usize = 1024;

const HEADER: &str = "/key/swarm/psk/1.0.0/";
const BASE16: &str = "/base16/";
const BASE64: &str = "/base64/";
const BIN: &str = "/bin/";

/// The secret that all members of a private network share: 32 random bytes.
///
/// Zeroized with the last clone; `Debug` shows its [`Fingerprint`] alone.
///
/// ```
/// use p2p_pnet::PreSharedKey;
///
/// let key = PreSharedKey::generate()?;
/// let file = key.to_key_file(); // for the other members
/// let theirs: PreSharedKey = file.parse()?;
/// assert_eq!(theirs.fingerprint(), key.fingerprint());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct PreSharedKey(Arc<Zeroizing<[u8; KEY_LEN]>>);

impl PreSharedKey {
    /// Makes a new key from the system's randomness.
    ///
    /// # Errors
    /// [`KeyError::Randomness`] when the system gives none.
    pub fn generate() -> Result<Self, KeyError> {
        let mut key = Zeroizing::new([0; KEY_LEN]);
        getrandom::fill(key.as_mut_slice()).map_err(|e| KeyError::Randomness(e.to_string()))?;
        Ok(Self(Arc::new(key)))
    }

    /// Makes the key of 32 bytes. They must be random: words or a password are no key.
    #[must_use]
    pub fn from_bytes(key: [u8; KEY_LEN]) -> Self {
        Self(Arc::new(Zeroizing::new(key)))
    }

    /// Parses a key file, the `swarm.key` of kubo: the line `/key/swarm/psk/1.0.0/`, then the
    /// line `/base16/`, `/base64/` or `/bin/`, then the 32 bytes in that form (CONN-15).
    ///
    /// Lines end in `\n` or `\r\n`. Hexadecimal digits may be of either case, base64 is the
    /// standard alphabet with its padding. Behind the key there may be white space (behind a
    /// binary one, one end of line). At most 1024 bytes are looked at.
    ///
    /// # Errors
    /// [`KeyFileError`] names the line and what is wrong with it, and repeats nothing of it.
    ///
    /// # Specification
    /// libp2p/specs `pnet/Private-Networks-PSK-V1.md`, "Interface".
    pub fn from_key_file(file: &[u8]) -> Result<Self, KeyFileError> {
        if file.len() > KEY_FILE_LEN_MAX {
            return Err(KeyFileError::TooLong { len: file.len(), max: KEY_FILE_LEN_MAX });
        }
        let (header, rest) = split_line(file);
        if header != HEADER.as_bytes() {
            return Err(KeyFileError::Header);
        }
        let (encoding, key) = split_line(rest.ok_or(KeyFileError::Missing { line: 2 })?);
        let key = key.ok_or(KeyFileError::Missing { line: 3 });
        let parse = [(BASE16, base16 as Parse), (BASE64, base64), (BIN, bin)];
        let parse = parse.into_iter().find(|(name, _)| name.as_bytes() == encoding);
        let (_, parse) = parse.ok_or(KeyFileError::Encoding)?;
        Ok(Self(Arc::new(parse(key?)?)))
    }

    /// The key file's text, 96 bytes in base16: what every implementation reads.
    #[must_use]
    pub fn to_key_file(&self) -> Zeroizing<String> {
        let mut file = Zeroizing::new(String::with_capacity(KEY_FILE_LEN_MAX));
        for line in [HEADER, "\n", BASE16, "\n"] {
            file.push_str(line);
        }
        push_hex(&mut file, self.0.as_slice());
        file.push('\n');
        file
    }

    /// What tells two keys apart without giving them away.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let mut stream = Zeroizing::new([0; 64]);
        let key: &[u8; KEY_LEN] = &self.0;
        Salsa20::new(key.into(), b"finprint".into()).apply_keystream(stream.as_mut_slice());
        let mut hash = Shake128::default();
        hash.update(stream.as_slice());
        let mut fingerprint = [0; 16];
        hash.finalize_xof().read(&mut fingerprint);
        Fingerprint(fingerprint)
    }

    /// The cipher of one direction, which begins with `nonce`.
    pub(crate) fn cipher(&self, nonce: &[u8; NONCE_LEN]) -> XSalsa20 {
        let key: &[u8; KEY_LEN] = &self.0;
        XSalsa20::new(key.into(), nonce.into())
    }
}

impl FromStr for PreSharedKey {
    type Err = KeyFileError;

    /// Parses a key file's text; see [`PreSharedKey::from_key_file`].
    fn from_str(file: &str) -> Result<Self, Self::Err> {
        Self::from_key_file(file.as_bytes())
    }
}

impl fmt::Debug for PreSharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PreSharedKey({})", self.fingerprint())
    }
}

/// The fingerprint of a [`PreSharedKey`], 16 bytes, shown as 32 hexadecimal digits: the same as
/// go-libp2p and rust-libp2p compute, and kubo prints when it starts. It may be shown to anybody.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 16]);

impl Fingerprint {
    /// The 16 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// Why a key file is none. Repeats nothing of the file: it may be a key in the wrong place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// The file is too long to be one.
    #[error("the key file has {len} bytes, more than {max}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The first line is another.
    #[error("line 1 of the key file is not {HEADER}")]
    Header,
    /// The file ends before this line.
    #[error("the key file has no line {line}")]
    Missing {
        /// Its number, from 1.
        line: u8,
    },
    /// The second line is another.
    #[error("line 2 of the key file is not {BASE16}, {BASE64} or {BIN}")]
    Encoding,
    /// The key is not of 32 bytes.
    #[error("line 3 of the key file: a key of {len} bytes in {encoding}; expected {expected}")]
    Len {
        /// What line 2 says.
        encoding: &'static str,
        /// The length found, in bytes of the file.
        len: usize,
        /// The length expected, in bytes of the file.
        expected: usize,
    },
    /// A character that does not belong to the encoding, or not there.
    #[error("line 3 of the key file, column {column}: not what {encoding} has there")]
    Digit {
        /// What line 2 says.
        encoding: &'static str,
        /// Its place in the line, from 1.
        column: usize,
    },
    /// There is something behind the key.
    #[error("line 4 of the key file: nothing may follow the key")]
    Trailing,
}

type Parse = fn(&[u8]) -> Result<Zeroizing<[u8; KEY_LEN]>, KeyFileError>;

/// The first line without its end, and what follows it, if it has an end.
fn split_line(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    let mut parts = text.splitn(2, |byte| *byte == b'\n');
    let line = parts.next().unwrap_or_default();
    (line.strip_suffix(b"\r").unwrap_or(line), parts.next())
}

/// The key's one line, of `expected` bytes.
fn only_line<'a>(
    text: &'a [u8],
    encoding: &'static str,
    expected: usize,
) -> Result<&'a [u8], KeyFileError> {
    let text = text.trim_ascii_end();
    if text.contains(&b'\n') {
        return Err(KeyFileError::Trailing);
    }
    match text.len() {
        len if len == expected => Ok(text),
        len => Err(KeyFileError::Len { encoding, len, expected }),
    }
}

fn base16(text: &[u8]) -> Result<Zeroizing<[u8; KEY_LEN]>, KeyFileError> {
    let text = only_line(text, BASE16, 2 * KEY_LEN)?;
    let mut key = Zeroizing::new([0; KEY_LEN]);
    for (index, digit) in text.iter().enumerate() {
        let wrong = KeyFileError::Digit { encoding: BASE16, column: index.saturating_add(1) };
        let value = char::from(*digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
        let byte = key.get_mut(index / 2).zip(value);
        let (byte, value) = byte.ok_or(wrong)?;
        *byte = *byte << 4 | value;
    }
    Ok(key)
}

fn base64(text: &[u8]) -> Result<Zeroizing<[u8; KEY_LEN]>, KeyFileError> {
    let text = only_line(text, BASE64, 44)?;
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    // 43 digits and one `=`; bits that the last digit has too many must be zero.
    let wrong_at = text.iter().position(|byte| !is_digit(byte)).unwrap_or(text.len());
    let wrong =
        KeyFileError::Digit { encoding: BASE64, column: wrong_at.saturating_add(1).min(43) };
    let text = str::from_utf8(text).map_err(|_| wrong.clone())?;
    let decoded = multibase::Base::Base64Pad.decode(text).map_err(|_| wrong.clone())?;
    let decoded = Zeroizing::new(decoded);
    Ok(Zeroizing::new(decoded.as_slice().try_into().map_err(|_| wrong)?))
}

fn bin(bytes: &[u8]) -> Result<Zeroizing<[u8; KEY_LEN]>, KeyFileError> {
    match bytes.split_first_chunk() {
        Some((key, b"" | b"\n" | b"\r\n")) => Ok(Zeroizing::new(*key)),
        Some(_) | None => {
            Err(KeyFileError::Len { encoding: BIN, len: bytes.len(), expected: KEY_LEN })
        }
    }
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            text.extend(char::from_digit(u32::from(digit), 16));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "/key/swarm/psk/1.0.0/\n/base16/\n\
                        6189c5cf0b87fb800c1a9feeda73c6ab5e998db48fb9e6a978575c770ceef683\n";

    fn counting() -> [u8; KEY_LEN] {
        std::array::from_fn(|i| u8::try_from(i).expect("small"))
    }

    fn parse(encoding: &str, key: impl AsRef<[u8]>) -> Result<[u8; KEY_LEN], KeyFileError> {
        let mut file = format!("{HEADER}\n{encoding}\n").into_bytes();
        file.extend_from_slice(key.as_ref());
        PreSharedKey::from_key_file(&file).map(|key| **key.0)
    }

    /// Key and fingerprint are those of go-ipfs, with which rust-libp2p compares itself too.
    #[test]
    fn the_fingerprint_is_the_one_that_others_compute() {
        let key: PreSharedKey = FILE.parse().expect("a key file");
        assert_eq!(key.fingerprint().to_string(), "45fc986bbc9388a11d939df26f730f0c");
        assert_eq!(format!("{key:?}"), "PreSharedKey(45fc986bbc9388a11d939df26f730f0c)");
        assert_eq!(key.fingerprint().as_bytes()[0], 0x45);
    }

    #[test]
    fn conn_15_the_key_file_is_written_as_it_is_read() {
        let key: PreSharedKey = FILE.parse().expect("a key file");
        assert_eq!(*key.to_key_file(), FILE);
        let made = PreSharedKey::generate().expect("randomness");
        let read: PreSharedKey = made.to_key_file().parse().expect("our own");
        assert_eq!(read.0, made.0);
        assert_ne!(made.0, PreSharedKey::generate().expect("randomness").0);
        assert_eq!(PreSharedKey::from_bytes(counting()).0.as_slice(), counting());
    }

    #[test]
    fn conn_15_every_encoding_case_and_line_end_is_read() {
        let hex = "000102030405060708090a0b0c0d0e0f101112131415161718191A1B1C1D1E1F";
        let base64 = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        for end in ["", "\n", "\r\n", " \n\n"] {
            assert_eq!(parse(BASE16, format!("{hex}{end}")), Ok(counting()), "{end:?}");
            assert_eq!(parse(BASE64, format!("{base64}{end}")), Ok(counting()), "{end:?}");
        }
        for end in [&b""[..], b"\n", b"\r\n"] {
            assert_eq!(parse(BIN, [&counting(), end].concat()), Ok(counting()), "{end:?}");
        }
        let windows = format!("{HEADER}\r\n{BASE16}\r\n{hex}\r\n");
        assert_eq!(windows.parse::<PreSharedKey>().expect("a key file").0.as_slice(), counting());
        // Bytes of a binary key that look like ends of lines are of the key.
        let lines = [b'\n'; KEY_LEN];
        assert_eq!(parse(BIN, lines), Ok(lines));
        assert_eq!(parse(BASE16, "fF".repeat(32)), Ok([0xff; KEY_LEN]));
    }

    #[test]
    fn conn_15_what_is_wrong_with_a_key_file_is_named_with_its_line() {
        let file = |file: &[u8]| PreSharedKey::from_key_file(file).map(|_| ());
        for wrong in
            ["", "\n", "/key/swarm/psk/1.0.0", " /key/swarm/psk/1.0.0/\n", "61", "\u{feff}"]
        {
            assert_eq!(file(wrong.as_bytes()), Err(KeyFileError::Header), "{wrong:?}");
        }
        assert_eq!(file(HEADER.as_bytes()), Err(KeyFileError::Missing { line: 2 }));
        let two = format!("{HEADER}\n{BASE16}");
        assert_eq!(file(two.as_bytes()), Err(KeyFileError::Missing { line: 3 }));
        for encoding in ["", "/base32/", "base16", "/base16/ ", "/BASE16/"] {
            assert_eq!(parse(encoding, "ff".repeat(32)), Err(KeyFileError::Encoding));
        }
        let long = "f".repeat(KEY_FILE_LEN_MAX);
        let max = KEY_FILE_LEN_MAX;
        assert_eq!(parse(BASE16, &long), Err(KeyFileError::TooLong { len: max + 31, max }));
        let fits = "f".repeat(KEY_FILE_LEN_MAX - 31);
        assert!(matches!(parse(BASE16, fits), Err(KeyFileError::Len { .. })));

        for (encoding, expected) in [(BASE16, 64), (BASE64, 44), (BIN, 32)] {
            for len in [0, expected - 1, expected + 1] {
                let error = Err(KeyFileError::Len { encoding, len, expected });
                assert_eq!(parse(encoding, "A".repeat(len)), error);
            }
        }
        // A sign and a digit are no two digits.
        for (at, digit) in [(0, "g"), (0, "+"), (7, " "), (63, "/")] {
            let mut key = "f".repeat(64);
            key.replace_range(at..=at, digit);
            let error = KeyFileError::Digit { encoding: BASE16, column: at + 1 };
            assert_eq!(parse(BASE16, key), Err(error), "{digit}");
        }
        let good = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        for (at, digit, column) in [(0, "-", 1), (9, "=", 10), (42, "9", 43), (43, "A", 43)] {
            let mut key = good.to_owned();
            key.replace_range(at..=at, digit);
            let error = KeyFileError::Digit { encoding: BASE64, column };
            assert_eq!(parse(BASE64, key), Err(error), "{at}");
        }
        let two_keys = format!("{0}\n{0}", "f".repeat(64));
        assert_eq!(parse(BASE16, two_keys), Err(KeyFileError::Trailing));
        assert!(parse(BASE16, [0xff; 64]).is_err() && parse(BASE64, [0xff; 44]).is_err());
    }

    #[test]
    fn no_error_repeats_the_key() {
        let secret = "00aabbccddeeff00aabbccddeeff00aabbccddeeff00aabbccddeeff00aabbcc";
        for file in [
            secret.to_owned(),
            format!("{HEADER}\n{secret}"),
            format!("{HEADER}\n{BASE16}\n{secret}0"),
            format!("{HEADER}\n{BASE16}\n{}g", &secret[1..]),
            format!("{HEADER}\n{BASE16}\n{secret}\n{secret}"),
        ] {
            let error = file.parse::<PreSharedKey>().expect_err("no key file");
            assert!(!format!("{error} {error:?}").contains("aabb"), "{error:?}");
        }
    }
}
