//! Unsigned varints as multiformats writes them: little-endian base 128, at most nine bytes,
//! shortest form only (VAR-01 to VAR-03).

use bytes::BufMut;

/// The longest encoding, in bytes.
pub const LEN_MAX: usize = 9;

/// Why bytes are not a varint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VarintError {
    /// More than nine bytes, that is, more than 63 bits.
    #[error("the varint is longer than {LEN_MAX} bytes")]
    TooLong,
    /// A multi-byte varint that ends in a zero byte: the same number has a shorter form.
    #[error("the varint is not in its shortest form")]
    NotMinimal,
}

/// Appends `value` to `out` in one to nine bytes.
///
/// # Panics
/// When `value` needs more than 63 bits. Lengths never do.
pub fn encode(mut value: u64, out: &mut impl BufMut) {
    assert!(value >> 63 == 0, "a varint holds at most 63 bits");
    while value >= 0x80 {
        out.put_u8(low_bits(value) | 0x80);
        value >>= 7;
    }
    out.put_u8(low_bits(value));
}

/// Decodes a varint at the front of `bytes` into the value and the number of bytes it takes;
/// `None` says that more bytes are needed.
///
/// # Errors
/// [`VarintError`] as soon as the bytes cannot become a valid varint.
pub fn decode(bytes: &[u8]) -> Result<Option<(u64, usize)>, VarintError> {
    let mut value = 0u64;
    for (index, byte) in bytes.iter().copied().enumerate().take(LEN_MAX) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            if byte == 0 && index > 0 {
                return Err(VarintError::NotMinimal);
            }
            return Ok(Some((value, index + 1)));
        }
    }
    if bytes.len() >= LEN_MAX {
        return Err(VarintError::TooLong);
    }
    Ok(None)
}

fn low_bits(value: u64) -> u8 {
    u8::try_from(value & 0x7f).expect("seven bits fit a byte")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    #[test]
    fn var_01_known_values_encode_and_decode() {
        for (value, bytes) in [
            (1u64, &[0x01u8][..]),
            (127, &[0x7f]),
            (128, &[0x80, 0x01]),
            (255, &[0xff, 0x01]),
            (300, &[0xac, 0x02]),
            (16384, &[0x80, 0x80, 0x01]),
        ] {
            let mut out = Vec::new();
            encode(value, &mut out);
            assert_eq!(out, bytes);
            assert_eq!(decode(bytes), Ok(Some((value, bytes.len()))));
            assert_eq!(decode(&bytes[..bytes.len() - 1]), Ok(None));
        }
    }

    #[test]
    fn var_02_a_tenth_byte_is_refused_at_the_ninth() {
        assert_eq!(decode(&[0xff; 9]), Err(VarintError::TooLong));
        assert_eq!(decode(&[0xff; 8]), Ok(None));
        let mut out = Vec::new();
        encode((1 << 63) - 1, &mut out);
        assert_eq!(decode(&out), Ok(Some(((1 << 63) - 1, 9))));
    }

    #[test]
    fn var_02_nine_bytes_decide() {
        for after in [0x00, 0x01, 0x7f, 0x80, 0xff] {
            let bytes = [&[0xff; 9][..], &[after]].concat();
            assert_eq!(decode(&bytes), Err(VarintError::TooLong), "{after:#x}");
        }
        // What comes after a whole one is not looked at.
        assert_eq!(decode(&[0x05, 0xff]), Ok(Some((5, 1))));
        assert_eq!(decode(&[]), Ok(None));
    }

    #[test]
    fn var_03_non_minimal_is_refused() {
        for bytes in [&[0x81, 0x00][..], &[0x80, 0x00], &[0x80, 0x80, 0x00], &[0xff, 0x80, 0x00]] {
            assert_eq!(decode(bytes), Err(VarintError::NotMinimal), "{bytes:02x?}");
        }
        let longest = [&[0x80; 8][..], &[0x00]].concat();
        assert_eq!(decode(&longest), Err(VarintError::NotMinimal));
        assert_eq!(decode(&[0x00]), Ok(Some((0, 1))));
    }

    /// VAR-04: what is written is minimal, as every reader needs it.
    #[test]
    fn var_01_04_every_value_has_one_encoding() {
        let mut random = Random(5);
        let edges = (0..63).flat_map(|bit| [(1 << bit) - 1, 1 << bit]).chain([(1 << 63) - 1]);
        let values: Vec<u64> = edges.chain((0..1000).map(|_| random.next() >> 1)).collect();
        for value in values {
            let mut out = Vec::new();
            encode(value, &mut out);
            assert_eq!(decode(&out), Ok(Some((value, out.len()))));
            for len in 0..out.len() {
                assert_eq!(decode(&out[..len]), Ok(None));
            }
        }
        for _ in 0..20_000 {
            let bytes = random.bytes(12);
            let Ok(Some((value, used))) = decode(&bytes) else { continue };
            let mut out = Vec::new();
            encode(value, &mut out);
            assert_eq!(out, bytes[..used]);
        }
    }
}
