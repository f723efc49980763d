use bytes::BytesMut;
use p2p_core::{Open, Opened, Seal};
use p2p_security_noise::{
    fuzzing::records,
    limits::{EMPTY_RECORDS_MAX, MESSAGE_LEN_MAX},
};

use crate::input::Input;

/// Records that were sealed, and changed, dropped, doubled, exchanged or invented on their way: what
/// is opened is the beginning of what was sealed, and after an error there is nothing more.
pub fn noise_record(data: &[u8]) {
    let mut input = Input::new(data);
    let (mut seal, open) = records(&[9; 32]).expect("the cipher takes every key");
    let mut plain = Vec::new();
    let mut wire = Vec::new();
    let mut records = Vec::new();
    for _ in 0..input.below(8) {
        let len = input.len(70_000);
        let fill = input.byte();
        let text: Vec<u8> =
            (0..len).map(|i| fill.wrapping_add((i % 251).to_le_bytes()[0])).collect();
        let mut record = BytesMut::new();
        seal.seal(&mut &text[..], &mut record).expect("nonces left");
        plain.extend_from_slice(&text);
        wire.extend_from_slice(&record);
        records.push(record.to_vec());
    }
    let honest = wire.clone();
    for _ in 0..input.below(4) {
        change(&mut input, &mut records);
    }
    let wire = records.concat();

    let mut reader = Reader { open, wire: BytesMut::new(), plain: Vec::new(), failed: false };
    for piece in input.cut(&wire) {
        reader.hear(piece);
    }
    assert!(plain.starts_with(&reader.plain), "not what was sealed");
    if wire == honest {
        assert!(!reader.failed && reader.plain == plain && reader.wire.is_empty());
    }
    if reader.failed {
        // What is genuine, and next in order, comes too late.
        reader.wire.clear();
        reader.hear(&honest);
    }
}

fn change(input: &mut Input, records: &mut Vec<Vec<u8>>) {
    let at = input.below(records.len() + 1);
    let way = input.below(8);
    let (Some(record), other) = (records.get_mut(at), input.byte()) else {
        records.push(input.bytes().to_vec());
        return;
    };
    match way {
        0 | 1 => {
            let place = input.below(record.len() + 1);
            if let Some(byte) = record.get_mut(place) {
                *byte ^= 1 << (other & 7);
            }
        }
        2 => record.truncate(input.below(record.len() + 1)),
        3 => {
            records.remove(at);
        }
        4 => {
            let double = record.clone();
            records.insert(at, double);
        }
        5 => {
            let other = usize::from(other) % records.len();
            records.swap(at, other);
        }
        6 => {
            let body = input.bytes();
            *record = [&[0, body.len().to_le_bytes()[0]], body].concat();
        }
        _ => record.extend(input.bytes()),
    }
}

struct Reader<O> {
    open: O,
    wire: BytesMut,
    plain: Vec<u8>,
    failed: bool,
}

impl<O: Open> Reader<O> {
    fn hear(&mut self, bytes: &[u8]) {
        self.wire.extend_from_slice(bytes);
        let mut empty = 0;
        loop {
            let before = self.wire.len();
            match self.open.open(&mut self.wire) {
                Ok(Opened::Record(plain)) => {
                    assert!(!self.failed, "opened something after a failure");
                    empty = if plain.is_empty() { empty + 1 } else { 0 };
                    assert!(empty <= EMPTY_RECORDS_MAX);
                    self.plain.extend_from_slice(&plain);
                }
                Ok(Opened::Incomplete(missing)) => {
                    assert!(!self.failed && self.wire.len() == before);
                    assert!(missing > 0 && missing + before <= 2 + MESSAGE_LEN_MAX);
                    return;
                }
                Ok(other) => panic!("{other:?}"),
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    self.failed = true;
                    return;
                }
            }
        }
    }
}
