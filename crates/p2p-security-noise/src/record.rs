//! The transport phase: records of a 2-byte big-endian length, ciphertext and tag (NOISE-14).

use bytes::{Buf, BufMut, Bytes, BytesMut};
use p2p_core::{Open, Opened, Seal, SecurityError};

use crate::{
    cipher::TAG_LEN,
    limits::{EMPTY_RECORDS_MAX, RECORD_PLAIN_LEN_MAX},
    symmetric::CipherState,
};

/// Length of the length in front of every message, in bytes.
pub(crate) const PREFIX_LEN: usize = 2;
/// What a record adds to its plaintext, in bytes.
const OVERHEAD: usize = PREFIX_LEN + TAG_LEN;

/// What is copied at once when sealing, in bytes.
const COPY_LEN_MAX: usize = 2048;
/// A rest of fewer bytes is no record of its own.
const REST_LEN_MIN: usize = 4 << 10;

/// The sending direction.
pub(crate) struct Sealer {
    cipher: CipherState,
}

impl Sealer {
    pub(crate) fn new(cipher: CipherState) -> Self {
        Self { cipher }
    }

    fn seal_record(
        &mut self,
        plain: &mut dyn Buf,
        out: &mut BytesMut,
    ) -> Result<(), SecurityError> {
        let front = out.len();
        let len = record_len(plain.remaining());
        let sealed_len = u16::try_from(len.saturating_add(TAG_LEN))
            .expect("the longest plaintext and its tag fit the length prefix");
        out.put_u16(sealed_len);
        let text = out.len();
        copy(plain, len, out);
        // Plaintext must not stay in what is going to be sent.
        self.cipher.encrypt(&[], out, text).inspect_err(|_| out.truncate(front))
    }
}

impl Seal for Sealer {
    /// On an error, `out` still holds whole records only.
    fn seal(&mut self, plain: &mut dyn Buf, out: &mut BytesMut) -> Result<(), SecurityError> {
        let records = plain.remaining().div_ceil(RECORD_PLAIN_LEN_MAX);
        out.reserve(plain.remaining().saturating_add(records.saturating_mul(OVERHEAD)));
        while plain.has_remaining() {
            self.seal_record(plain, out)?;
        }
        Ok(())
    }
}

/// How much of `left` plain bytes the next record carries: a full one, but two halves where its rest
/// would be small. 64 KiB are a little more than a record, and many write so much at once.
fn record_len(left: usize) -> usize {
    let rest = left.saturating_sub(RECORD_PLAIN_LEN_MAX);
    if rest > 0 && rest < REST_LEN_MIN {
        return left.div_ceil(2);
    }
    left.min(RECORD_PLAIN_LEN_MAX)
}

/// Copies `len` bytes, a little at a time: some processors take several times as long for a large
/// copy between places that are not aligned alike (sealing 65,519 bytes took 64 µs, now 46).
fn copy(plain: &mut dyn Buf, len: usize, out: &mut BytesMut) {
    let mut left = len;
    while left > 0 {
        let chunk = plain.chunk();
        let count = chunk.len().min(left).min(COPY_LEN_MAX);
        out.extend_from_slice(chunk.split_at(count).0);
        plain.advance(count);
        left = left.saturating_sub(count);
    }
}

/// The receiving direction. A failure is for ever, and told again by every call: nothing behind it
/// can be trusted (NOISE-23).
pub(crate) struct Opener {
    cipher: CipherState,
    empty_in_a_row: u32,
    failure: Option<SecurityError>,
}

impl Opener {
    pub(crate) fn new(cipher: CipherState) -> Self {
        Self { cipher, empty_in_a_row: 0, failure: None }
    }

    fn open_record(&mut self, wire: &mut BytesMut) -> Result<Opened, SecurityError> {
        let Some(prefix) = wire.first_chunk::<PREFIX_LEN>() else {
            return Ok(Opened::Incomplete(PREFIX_LEN.saturating_sub(wire.len())));
        };
        let len = usize::from(u16::from_be_bytes(*prefix));
        if len < TAG_LEN {
            return Err(SecurityError::RecordLen { len, min: TAG_LEN });
        }
        let missing = len.saturating_add(PREFIX_LEN).saturating_sub(wire.len());
        if missing > 0 {
            return Ok(Opened::Incomplete(missing));
        }
        wire.advance(PREFIX_LEN);
        let mut record = wire.split_to(len);
        self.cipher.decrypt(&[], &mut record)?;
        if record.is_empty() {
            self.count_empty()?;
            return Ok(Opened::Record(Bytes::new()));
        }
        self.empty_in_a_row = 0;
        Ok(Opened::Record(record.freeze()))
    }

    fn count_empty(&mut self) -> Result<(), SecurityError> {
        if self.empty_in_a_row == EMPTY_RECORDS_MAX {
            return Err(SecurityError::EmptyRecords(EMPTY_RECORDS_MAX));
        }
        self.empty_in_a_row = self.empty_in_a_row.saturating_add(1);
        Ok(())
    }
}

impl Open for Opener {
    fn open(&mut self, wire: &mut BytesMut) -> Result<Opened, SecurityError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        self.open_record(wire).inspect_err(|failure| self.failure = Some(failure.clone()))
    }
}

#[cfg(test)]
mod tests {
    use p2p_core::Gather;

    use super::*;
    use crate::{
        cipher::{ALL, Cipher},
        limits::MESSAGE_LEN_MAX,
    };

    const KEY: [u8; 32] = [3; 32];

    fn pair(cipher: Cipher) -> (Sealer, Opener) {
        (
            Sealer::new(CipherState::with_counter(cipher, KEY, 0)),
            Opener::new(CipherState::with_counter(cipher, KEY, 0)),
        )
    }

    fn sealed(sealer: &mut Sealer, plain: &[u8]) -> BytesMut {
        let mut out = BytesMut::new();
        sealer.seal(&mut &plain[..], &mut out).expect("nonces left");
        out
    }

    /// An empty record, which `seal` never writes.
    fn empty(sealer: &mut Sealer) -> BytesMut {
        let mut out = BytesMut::from(&[0, 16][..]);
        sealer.cipher.encrypt(&[], &mut out, PREFIX_LEN).expect("nonces left");
        out
    }

    fn opened(opener: &mut Opener, wire: &mut BytesMut) -> Bytes {
        let Opened::Record(plain) = opener.open(wire).expect("authentic") else {
            panic!("the record is whole");
        };
        plain
    }

    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|i| u8::try_from(i % 251).expect("small")).collect()
    }

    #[test]
    fn noise_15_records_are_filled_or_halves_and_hold_at_most_65519_bytes() {
        for &cipher in ALL {
            for (len, records) in [
                (0, vec![]),
                (1, vec![1]),
                (65_519, vec![65_519]),
                (65_520, vec![32_760, 32_760]),
                (65_548, vec![32_774, 32_774]),
                (69_615, vec![65_519, 4_096]),
                (131_038, vec![65_519, 65_519]),
                (200_000, vec![65_519, 65_519, 34_481, 34_481]),
            ] {
                let (mut sealer, mut opener) = pair(cipher);
                let plain = pattern(len);
                let mut wire = sealed(&mut sealer, &plain);
                assert_eq!(wire.len(), len + records.len() * OVERHEAD);
                let mut all = Vec::new();
                for expected in records {
                    let record = opened(&mut opener, &mut wire);
                    assert_eq!(record.len(), expected);
                    all.extend_from_slice(&record);
                }
                assert!(wire.is_empty() && all == plain);
                assert!(matches!(opener.open(&mut wire), Ok(Opened::Incomplete(2))));
            }
        }
    }

    #[test]
    fn noise_15_a_rope_is_gathered_into_one_record_and_bytes_before_it_are_kept() {
        for &cipher in ALL {
            let (mut sealer, mut opener) = pair(cipher);
            let mut rope = Gather::new();
            rope.push(Bytes::from_static(b"hel"));
            rope.push(Bytes::from_static(b"lo"));
            let mut wire = BytesMut::from(&b"before"[..]);
            sealer.seal(&mut rope, &mut wire).expect("nonces left");
            assert!(rope.is_empty());
            assert_eq!(wire.split_to(6), b"before"[..]);
            assert_eq!(opened(&mut opener, &mut wire), "hello");
        }
    }

    #[test]
    fn seal_allocates_once_and_open_copies_nothing() {
        for &cipher in ALL {
            let (mut sealer, mut opener) = pair(cipher);
            let mut wire = BytesMut::new();
            sealer.seal(&mut &pattern(200_000)[..], &mut wire).expect("nonces left");
            assert_eq!(wire.capacity(), wire.len());
            let at = wire.as_ptr().wrapping_add(PREFIX_LEN);
            assert_eq!(opened(&mut opener, &mut wire).as_ptr(), at);
        }
    }

    #[test]
    fn noise_18_incomplete_says_how_many_bytes_are_missing() {
        for &cipher in ALL {
            let (mut sealer, mut opener) = pair(cipher);
            let whole = sealed(&mut sealer, &pattern(300));
            for len in 0..whole.len() {
                let mut wire = BytesMut::from(&whole[..len]);
                let missing = if len < 2 { 2 - len } else { whole.len() - len };
                let found = opener.open(&mut wire);
                assert!(
                    matches!(found, Ok(Opened::Incomplete(count)) if count == missing),
                    "{len}"
                );
                assert_eq!(wire, whole[..len]);
            }
            assert_eq!(opened(&mut opener, &mut whole.clone()), pattern(300));
        }
    }

    #[test]
    fn noise_18_19_every_record_size_from_16_to_65535_is_accepted() {
        for &cipher in ALL {
            let (mut sealer, mut opener) = pair(cipher);
            assert_eq!(opened(&mut opener, &mut empty(&mut sealer)), "");
            for len in [1, 2, 64_511, RECORD_PLAIN_LEN_MAX] {
                assert_eq!(opened(&mut opener, &mut sealed(&mut sealer, &pattern(len))).len(), len);
            }
            assert_eq!(RECORD_PLAIN_LEN_MAX + TAG_LEN, MESSAGE_LEN_MAX);
        }
    }

    #[test]
    fn noise_18_records_shorter_than_a_tag_are_fatal_before_they_are_whole() {
        for &cipher in ALL {
            for len in 0..16u8 {
                let (_, mut opener) = pair(cipher);
                let mut wire = BytesMut::from(&[0, len][..]);
                let expected = SecurityError::RecordLen { len: len.into(), min: 16 };
                assert_eq!(opener.open(&mut wire).err(), Some(expected));
            }
        }
    }

    #[test]
    fn noise_18_a_thousand_empty_records_in_a_row_but_no_more() {
        for &cipher in ALL {
            let (mut sealer, mut opener) = pair(cipher);
            for _ in 0..2 {
                for _ in 0..EMPTY_RECORDS_MAX {
                    assert_eq!(opened(&mut opener, &mut empty(&mut sealer)), "");
                }
                assert_eq!(opened(&mut opener, &mut sealed(&mut sealer, b"x")), "x");
            }
            for _ in 0..EMPTY_RECORDS_MAX {
                assert_eq!(opened(&mut opener, &mut empty(&mut sealer)), "");
            }
            let error = opener.open(&mut empty(&mut sealer)).err();
            assert_eq!(error, Some(SecurityError::EmptyRecords(EMPTY_RECORDS_MAX)));
            let error = opener.open(&mut sealed(&mut sealer, b"x")).err();
            assert_eq!(error, Some(SecurityError::EmptyRecords(EMPTY_RECORDS_MAX)));
        }
    }

    #[test]
    fn noise_23_a_changed_byte_is_fatal_wherever_it_is() {
        for &cipher in ALL {
            let (mut sealer, _) = pair(cipher);
            let whole = sealed(&mut sealer, b"hello");
            for at in 0..whole.len() {
                for bit in 0..8 {
                    let (_, mut opener) = pair(cipher);
                    let mut wire = whole.clone();
                    wire[at] ^= 1 << bit;
                    let error = match opener.open(&mut wire) {
                        // A record that claims to be longer waits; then it fails as well.
                        Ok(Opened::Incomplete(_)) => {
                            assert!(at < PREFIX_LEN, "byte {at}");
                            wire.resize(PREFIX_LEN + MESSAGE_LEN_MAX, 0);
                            opener.open(&mut wire).err()
                        }
                        found => found.err(),
                    };
                    let short = SecurityError::RecordLen { len: 21 ^ (1 << bit), min: 16 };
                    let in_len = at == 1 && bit == 4;
                    let expected = if in_len { short } else { SecurityError::Decrypt };
                    assert_eq!(error.as_ref(), Some(&expected), "byte {at}, bit {bit}");
                    assert_eq!(opener.open(&mut wire).err(), Some(expected));
                }
            }
        }
    }

    #[test]
    fn noise_23_it_never_resynchronises() {
        for &cipher in ALL {
            let (mut sealer, mut opener) = pair(cipher);
            let mut forged = BytesMut::zeroed(40);
            forged[1] = 38;
            assert_eq!(opener.open(&mut forged).err(), Some(SecurityError::Decrypt));
            let mut good = sealed(&mut sealer, b"good");
            assert_eq!(opener.open(&mut good).err(), Some(SecurityError::Decrypt));
        }
    }

    #[test]
    fn noise_16_replayed_and_reordered_records_fail() {
        for &cipher in ALL {
            let (mut sealer, mut opener) = pair(cipher);
            let first = sealed(&mut sealer, b"first");
            let second = sealed(&mut sealer, b"second");
            assert_eq!(opened(&mut opener, &mut first.clone()), "first");
            assert_eq!(opener.open(&mut first.clone()).err(), Some(SecurityError::Decrypt));
            let (_, mut opener) = pair(cipher);
            assert_eq!(opener.open(&mut second.clone()).err(), Some(SecurityError::Decrypt));
        }
    }

    #[test]
    fn noise_22_sealing_stops_before_the_last_nonce_with_whole_records_only() {
        for &cipher in ALL {
            let mut sealer = Sealer::new(CipherState::with_counter(cipher, KEY, u64::MAX - 1));
            let mut opener = Opener::new(CipherState::with_counter(cipher, KEY, u64::MAX - 1));
            let mut wire = BytesMut::new();
            let error = sealer.seal(&mut &pattern(2 * RECORD_PLAIN_LEN_MAX)[..], &mut wire);
            assert_eq!(error, Err(SecurityError::NoncesExhausted));
            assert_eq!(wire.len(), PREFIX_LEN + MESSAGE_LEN_MAX);
            assert_eq!(sealer.seal(&mut &b"x"[..], &mut wire), Err(SecurityError::NoncesExhausted));
            assert_eq!(wire.len(), PREFIX_LEN + MESSAGE_LEN_MAX);
            assert_eq!(opened(&mut opener, &mut wire).len(), RECORD_PLAIN_LEN_MAX);
        }
    }

    #[test]
    fn noise_22_opening_stops_before_the_last_nonce() {
        for &cipher in ALL {
            let mut sealer = Sealer::new(CipherState::with_counter(cipher, KEY, u64::MAX - 1));
            let mut opener = Opener::new(CipherState::with_counter(cipher, KEY, u64::MAX - 1));
            assert_eq!(opened(&mut opener, &mut sealed(&mut sealer, b"last")), "last");
            let mut more = BytesMut::zeroed(40);
            more[1] = 38;
            for _ in 0..2 {
                let error = opener.open(&mut more).err();
                assert_eq!(error, Some(SecurityError::NoncesExhausted));
            }
        }
    }
}
