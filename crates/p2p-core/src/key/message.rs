//! The two-field protobuf that keys travel and are stored in (KEY-01).
//!
//! Written by hand, for three reasons: a field that is missing must not read as its default, a
//! secret is not copied on its way, and the message is taken only as the specification says it
//! must be written (KEY-02). Every known implementation writes it so, and a message in another
//! form is refused rather than understood: two encodings of one key are never two peers.

use super::{KeyError, KeyType};
use crate::varint;

/// Field 1, a varint.
const TYPE_TAG: u8 = 0x08;
/// Field 2, length-delimited.
const DATA_TAG: u8 = 0x12;
/// Two tags, the type, and the length of `Data`.
const OVERHEAD_MAX: usize = 3 + varint::LEN_MAX;

/// Takes a message of at most `len_max` bytes apart into its `Type` and `Data`.
pub(super) fn decode(bytes: &[u8], len_max: usize) -> Result<(KeyType, &[u8]), KeyError> {
    if bytes.len() > len_max {
        return Err(KeyError::TooLong { len: bytes.len(), max: len_max });
    }
    let (number, rest) = field(bytes, TYPE_TAG, "Type")?;
    let (len, data) = field(rest, DATA_TAG, "Data")?;
    if usize::try_from(len) != Ok(data.len()) {
        return Err(KeyError::Encoding("the length of Data is not what follows it"));
    }
    let key_type = KeyType::from_number(number).ok_or(KeyError::UnknownType(number))?;
    Ok((key_type, data))
}

/// The number after `tag`, and what follows it.
fn field<'a>(bytes: &'a [u8], tag: u8, name: &'static str) -> Result<(u64, &'a [u8]), KeyError> {
    let rest = bytes.strip_prefix(&[tag]).ok_or(KeyError::Missing(name))?;
    let (number, used) = varint::decode(rest)
        .map_err(|_| KeyError::Encoding("a number is not in its shortest form"))?
        .ok_or(KeyError::Encoding("a number is cut short"))?;
    Ok((number, rest.get(used..).unwrap_or_default()))
}

/// Encodes the one canonical form. The buffer never grows: no copy of a secret is left behind.
pub(super) fn encode(key_type: KeyType, data: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(OVERHEAD_MAX + data.len());
    message.extend([TYPE_TAG, key_type.number(), DATA_TAG]);
    varint::encode(data.len() as u64, &mut message);
    message.extend_from_slice(data);
    message
}
