//! The plaintext channel.

use std::{pin::pin, sync::LazyLock, task::Poll};

use bytes::BytesMut;
use p2p_core::{Keypair, Opened, PeerId, PublicKey, Role, Security, SecurityError, varint};
use p2p_security_plaintext::{HandshakeError, MESSAGE_LEN_MAX, Plaintext, handshake};

use crate::{
    input::Input,
    pipe::Wire,
    protobuf::{change, put},
};

/// This side, and two that the peer may be.
static KEYS: LazyLock<[Keypair; 3]> =
    LazyLock::new(|| [1, 2, 3].map(|seed| Keypair::from_ed25519_seed(&[seed; 32])));

/// A side whose peer sends a message built of fields, in any order and number, and something behind
/// it, cut in any way.
///
/// A side that completes has been told a key and its id, and who was expected; it takes the one
/// message and no byte behind it, be it driven by hand or over a pipe. One that fails stays failed.
/// It says the same in every case, and waits for no more than the limit that is stated.
pub fn plaintext_handshake(data: &[u8]) {
    let mut input = Input::new(data);
    let expected = match input.below(4) {
        0 | 1 => None,
        at => Some(KEYS[at - 1].public().peer_id()),
    };
    let role = if input.flag() { Role::Initiator } else { Role::Responder };
    let behind = input.bytes();
    let honest = input.below(4) == 0;
    let message = if honest { message(1, 1) } else { build(&mut input) };
    let mut wire = Vec::new();
    let announced = if input.below(8) == 7 { input.u32() as usize } else { message.len() };
    varint::encode(announced as u64, &mut wire);
    wire.extend(&message);
    if input.below(8) == 7 {
        change(&mut input, &mut wire);
    }
    wire.extend(behind);
    let pieces = input.cut(&wire);

    let by_hand = run(role, expected, &pieces);
    assert_eq!(by_hand, run(role, expected, &[&wire]), "depends on where the wire is cut");
    let framed = [&[message.len().to_le_bytes()[0]], &message[..]].concat();
    if honest && wire.starts_with(&framed) {
        let fits = expected.is_none_or(|id| id == KEYS[1].public().peer_id());
        assert_eq!(fits, matches!(by_hand, Outcome::Done(..)));
    }
    if let Outcome::Done(peer, rest) = &by_hand {
        let taken = &wire[..wire.len() - rest];
        let (len, start) = varint::decode(taken).expect("the shortest").expect("whole");
        assert_eq!(taken.len(), start + len as usize, "not one message");
        let says = |bytes: &[u8]| taken.windows(bytes.len()).any(|window| window == bytes);
        assert!(says(&peer.to_protobuf()) && says(peer.peer_id().as_bytes()));
        assert!(expected.is_none_or(|id| id == peer.peer_id()));
    }
    assert_eq!(by_hand, over_pipe(expected, &wire, &mut input), "over a pipe");
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// With so many bytes left.
    Done(PublicKey, usize),
    Waits,
    Failed(SecurityError),
}

fn run(role: Role, expected: Option<PeerId>, pieces: &[&[u8]]) -> Outcome {
    let plaintext = Plaintext::dangerous_new(&KEYS[0]);
    let muxers = ["/yamux/1.0.0".try_into().expect("a name")];
    let started = plaintext.start(role, expected.as_ref(), &muxers);
    let mut handshake = started.expect("nothing can fail");
    let (mut wire, mut out) = (BytesMut::new(), BytesMut::from("before"));
    let mut left: usize = pieces.iter().map(|piece| piece.len()).sum();
    let mut said = message(0, 0);
    said.splice(0..0, [b"before", &[said.len().to_le_bytes()[0]][..]].concat());
    for piece in [&[][..]].iter().chain(pieces) {
        wire.extend_from_slice(piece);
        left -= piece.len();
        let before = wire.clone();
        let outcome = handshake.advance(&mut wire, &mut out);
        assert_eq!(out, said, "what it says is always the same");
        let outcome = match outcome {
            Ok(None) => {
                assert_eq!(wire, before, "takes a part");
                assert!(wire.len() < 2 + MESSAGE_LEN_MAX, "waits for too much");
                continue;
            }
            Ok(Some(session)) => {
                assert!(session.muxer.is_none() && before.ends_with(&wire));
                let rest = wire.len() + left;
                let mut open = session.open;
                let opened = open.open(&mut wire).expect("no check");
                assert!(matches!(opened, Opened::Record(_) | Opened::Incomplete(1)));
                Outcome::Done(session.peer, rest)
            }
            Err(error) => Outcome::Failed(error),
        };
        let again = handshake.advance(&mut wire, &mut out);
        assert!(matches!(again, Err(SecurityError::IllegalMove { .. })) && out == said);
        return outcome;
    }
    Outcome::Waits
}

/// The same by the function for sockets, over a pipe that gives few bytes at once.
fn over_pipe(expected: Option<PeerId>, bytes: &[u8], input: &mut Input) -> Outcome {
    let pipe = Wire::default();
    let plaintext = Plaintext::dangerous_new(&KEYS[0]);
    {
        let mut both = pipe.both();
        both.directions[1].bytes.extend(bytes);
        for direction in &mut both.directions {
            direction.step = input.len(5000);
        }
    }
    let mut exchange = pin!(handshake(pipe.end(0), &plaintext, expected.as_ref()));
    for _ in 0..10_000 {
        for direction in &mut pipe.both().directions {
            (direction.takes, direction.gives) = (100, 100);
        }
        let result = pipe.poll(|cx| exchange.as_mut().poll(cx));
        let Poll::Ready(result) = result else {
            if pipe.both().directions[1].bytes.is_empty() {
                pipe.both().directions[1].ended = true;
            }
            continue;
        };
        return match result {
            Ok((_, peer)) => Outcome::Done(peer, pipe.both().directions[1].bytes.len()),
            Err(HandshakeError::Closed) => Outcome::Waits,
            Err(HandshakeError::Security(error)) => Outcome::Failed(error),
            Err(error) => panic!("{error}"),
        };
    }
    panic!("does not come to an end");
}

/// The exchange's message: the id of one, and the key of another.
fn message(id: usize, key: usize) -> Vec<u8> {
    let mut message = Vec::new();
    put(&mut message, 1, KEYS[id].public().peer_id().as_bytes());
    put(&mut message, 2, &KEYS[key].public().to_protobuf());
    message
}

fn build(input: &mut Input) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..input.below(8) {
        let op = input.byte();
        let key = KEYS[usize::from(op >> 4) % KEYS.len()].public();
        match op & 0xf {
            0..=2 => put(&mut bytes, 1, key.peer_id().as_bytes()),
            3..=5 => put(&mut bytes, 2, &key.to_protobuf()),
            6 => put(&mut bytes, input.byte() >> 3, input.bytes()),
            7 => put(&mut bytes, 3, &vec![7; input.below(5000)]),
            8 => bytes.extend(input.bytes()),
            9 => change(input, &mut bytes),
            10 => bytes.extend(message(usize::from(op >> 4) % 3, input.below(3))),
            _ => bytes.extend(message(1, 1)),
        }
    }
    bytes
}
