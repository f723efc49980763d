use std::sync::LazyLock;

use p2p_core::{Keypair, PublicKey};
use p2p_security_noise::{fuzzing::verify_payload, limits::MUXERS_MAX};

use crate::{input::Input, protobuf::put};

/// The static key that the handshake has delivered.
const STATIC_KEY: [u8; 32] = [5; 32];
const PREFIX: &[u8] = b"noise-libp2p-static-key:";

struct Signed {
    public_key: PublicKey,
    encoded: Vec<u8>,
    /// Of the static key.
    signature: Vec<u8>,
    /// Of another static key, and of the right one without the prefix.
    others: [Vec<u8>; 2],
}

static IDENTITIES: LazyLock<[Signed; 2]> = LazyLock::new(|| {
    [1, 2].map(|seed| {
        let pair = Keypair::from_ed25519_seed(&[seed; 32]);
        Signed {
            public_key: pair.public(),
            encoded: pair.public().to_protobuf(),
            signature: sign(&pair, &[PREFIX, &STATIC_KEY].concat()),
            others: [sign(&pair, &[PREFIX, &[6; 32]].concat()), sign(&pair, &STATIC_KEY)],
        }
    })
});

fn sign(pair: &Keypair, text: &[u8]) -> Vec<u8> {
    pair.sign(text).expect("an Ed25519 key signs")
}

/// The decrypted payload of messages 2 and 3, built of fields in any order and number: only a peer
/// whose signature is in it is believed, and no long list of multiplexers is.
pub fn noise_payload(data: &[u8]) {
    let payload = build(data);
    let Ok((peer, muxers)) = verify_payload(&payload, &STATIC_KEY) else { return };
    let known = IDENTITIES.iter().find(|identity| identity.public_key == peer);
    let signature = &known.expect("a peer whose key nobody has").signature;
    assert!(payload.windows(signature.len()).any(|bytes| bytes == signature), "did not sign");
    assert!(muxers.len() <= MUXERS_MAX);
    assert!(muxers.iter().map(String::len).sum::<usize>() <= payload.len());
}

fn build(data: &[u8]) -> Vec<u8> {
    let mut input = Input::new(data);
    let mut payload = Vec::new();
    while !input.is_empty() {
        let op = input.byte();
        let identity = &IDENTITIES[usize::from(op >> 7)];
        match op & 0xf {
            0 | 1 => put(&mut payload, 1, &identity.encoded),
            2 | 3 => put(&mut payload, 2, &identity.signature),
            4 => put(&mut payload, 2, &identity.others[usize::from(op >> 6 & 1)]),
            5 => {
                let name = input.bytes().to_vec();
                let mut extensions = Vec::new();
                for _ in 0..input.below(128) {
                    put(&mut extensions, 2, &name);
                }
                put(&mut payload, 4, &extensions);
            }
            6 => put(&mut payload, 4, input.bytes()),
            7 => put(&mut payload, input.byte() >> 3, input.bytes()),
            8 => {
                let (at, bit) = (input.below(payload.len() + 1), input.below(8));
                if let Some(byte) = payload.get_mut(at) {
                    *byte ^= 1 << bit;
                }
            }
            9 => payload.truncate(input.below(payload.len() + 1)),
            10..=12 => payload.extend(input.bytes()),
            _ => payload.extend(input.rest()),
        }
    }
    payload
}
