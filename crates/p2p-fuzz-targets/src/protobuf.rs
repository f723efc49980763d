//! Messages with one thing wrong in them.

use crate::input::Input;

/// Adds a protobuf field that holds bytes.
pub(crate) fn put(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    p2p_core::varint::encode(bytes.len() as u64, out);
    out.extend(bytes);
}

/// Changes `bytes` as the input says: a bit, the end, or a part of them.
pub(crate) fn change(input: &mut Input, bytes: &mut Vec<u8>) {
    let at = input.below(bytes.len() + 1);
    match input.below(8) {
        0..=2 => {
            let bit = 1 << input.below(8);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= bit;
            }
        }
        3 => bytes.truncate(at),
        4 => {
            bytes.splice(at..at, input.bytes().to_vec());
        }
        5 => {
            let len = input.below(40).min(bytes.len() - at);
            bytes.drain(at..at + len);
        }
        6 => bytes.rotate_left(at),
        _ => bytes.extend_from_within(at..),
    }
}
