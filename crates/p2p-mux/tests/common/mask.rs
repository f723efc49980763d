//! A secure channel that hides little, for tests of what it does to a driver.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use p2p_core::{Open, Opened, Seal, SecurityError};

const KEY: u8 = 0xa5;

/// Records of at most `most` bytes: their length in two bytes, a check byte, and the data under a
/// mask.
pub(crate) struct Mask {
    pub(crate) most: usize,
    /// Seals so many records; then it is used up.
    pub(crate) left: usize,
}

impl Seal for Mask {
    fn seal(&mut self, plain: &mut dyn Buf, out: &mut BytesMut) -> Result<(), SecurityError> {
        while plain.has_remaining() {
            self.left = self.left.checked_sub(1).ok_or(SecurityError::NoncesExhausted)?;
            let len = plain.remaining().min(self.most);
            out.put_u16(u16::try_from(len).unwrap());
            out.put_u8(KEY);
            for _ in 0..len {
                out.put_u8(plain.get_u8() ^ KEY);
            }
        }
        Ok(())
    }
}

impl Open for Mask {
    fn open(&mut self, wire: &mut BytesMut) -> Result<Opened, SecurityError> {
        if wire.len() < 3 {
            return Ok(Opened::Incomplete(3 - wire.len()));
        }
        let len = usize::from(u16::from_be_bytes([wire[0], wire[1]]));
        if wire[2] != KEY {
            return Err(SecurityError::Decrypt);
        }
        if wire.len() < 3 + len {
            return Ok(Opened::Incomplete(3 + len - wire.len()));
        }
        let mut record = wire.split_to(3 + len);
        record.advance(3);
        record.iter_mut().for_each(|byte| *byte ^= KEY);
        Ok(Opened::Record(record.freeze()))
    }
}

pub(crate) fn mask(most: usize) -> Box<Mask> {
    Box::new(Mask { most, left: usize::MAX })
}

pub(crate) fn sealed(plain: &[u8], most: usize) -> Vec<u8> {
    let mut out = BytesMut::new();
    mask(most).seal(&mut Bytes::copy_from_slice(plain), &mut out).unwrap();
    out.to_vec()
}
