//! What holds for every type of key, shown on those of this build.

use zeroize::{ZeroizeOnDrop, Zeroizing};

use super::*;
use crate::PeerId;

/// A line of `vectors.txt`: the keys of the specification (peer-ids/peer-ids.md), what the keys of
/// the certificates in tls/tls.md have signed, and a signature by OpenSSL.
pub(super) fn vector(name: &str) -> Vec<u8> {
    let lines = include_str!("vectors/vectors.txt").lines();
    let found = lines.filter_map(|line| line.split_once(' ')).find(|(found, _)| *found == name);
    hex(found.unwrap_or_else(|| panic!("no vector {name}")).1)
}

pub(super) fn hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("ASCII"));
    digits.map(|pair| u8::from_str_radix(pair, 16).expect("hex")).collect()
}

/// `Type` and `Data` as a key message.
pub(super) fn message(key_type: u8, data: &[u8]) -> Vec<u8> {
    let mut message = vec![8, key_type, 0x12];
    crate::varint::encode(data.len() as u64, &mut message);
    [message.as_slice(), data].concat()
}

/// The private key of a vector.
pub(super) fn keypair(name: &str) -> Keypair {
    Keypair::from_protobuf(&vector(&format!("{name}-private"))).expect(name)
}

struct Case {
    name: &'static str,
    key_type: KeyType,
    /// Base58btc, base32 and base36.
    texts: [&'static str; 3],
}

const CASES: &[Case] = &[
    Case {
        name: "ed25519",
        key_type: KeyType::Ed25519,
        texts: [
            "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq",
            "bafzaajaiaejcahwr5d5ofrfbis4l5d6uwr57hu5tjodrypfm6yaq6dsc2r2pzyt6",
            "k51qzi5uqu5dgy8qsq67hbz73jqkw87l3fgf4a91qb0d9b5173tir7n4vxk1oe",
        ],
    },
    #[cfg(feature = "secp256k1")]
    Case {
        name: "secp256k1",
        key_type: KeyType::Secp256k1,
        texts: [
            "16Uiu2HAmLhLvBoYaoZfaMUKuibM6ac163GwKY74c5kiSLg5KvLpY",
            "bafzaajiiaijcca3xo7uzjzcsyilaj6i54cj44qk7kqzpoao5rti2pjx6udtdbp6kte",
            "kzwfwjn5ji4put13uvtwtc7azzwk42cq2o8ctfnxa6q8n90e72o3pjqbrp3lpcp",
        ],
    },
    #[cfg(feature = "ecdsa")]
    Case {
        name: "ecdsa",
        key_type: KeyType::Ecdsa,
        texts: [
            "QmVMT29id3TUASyfZZ6k9hmNyc2nYabCo4uMSpDw4zrgDk",
            "bafzbeidigywdclqvl5hxfefwp5onbffcfife7pza57mmfb4tiqmtkdjw64",
            "k2k4r8m0iploq6r25jp915xawtnx0qdr0je62jws2kki6votbj5191x3",
        ],
    },
    #[cfg(feature = "rsa")]
    Case {
        name: "rsa",
        key_type: KeyType::Rsa,
        texts: [
            "QmaeANgBs1DTSxWSrPPtobgQuxW8XTfsS4ydbK4rCHzqxG",
            "bafzbeifwzcumbiyql7bhv7fe7mixg6i7aohegq75k234m63bnw6dbicmzu",
            "k2k4r8nz0pc9sm08wgacijx1ic8vxy9e2770otjszhz1nodfs0brtvpp",
        ],
    },
];

impl Case {
    fn public(&self) -> Vec<u8> {
        vector(&format!("{}-public", self.name))
    }

    fn private(&self) -> Vec<u8> {
        vector(&format!("{}-private", self.name))
    }

    fn keypair(&self) -> Keypair {
        keypair(self.name)
    }
}

#[test]
fn key_01_03_05_06_07_09_11_the_vectors_of_the_specification() {
    for case in CASES {
        let pair = case.keypair();
        assert_eq!(*pair.to_protobuf(), case.private(), "{}", case.name);
        assert_eq!(pair.public().to_protobuf(), case.public(), "{}", case.name);
        assert_eq!(pair.key_type(), case.key_type);
        let public = PublicKey::from_protobuf(&case.public()).expect(case.name);
        assert_eq!(public, pair.public());
        assert_eq!(public.key_type(), case.key_type);
    }
}

#[test]
fn pid_01_02_05_06_the_peer_ids_of_the_vectors() {
    for case in CASES {
        let id = case.keypair().public().peer_id();
        let [base58, base32, base36] = case.texts;
        assert_eq!(id.to_string(), base58);
        assert_eq!(id.to_cid(), base32);
        for text in case.texts {
            assert_eq!(text.parse::<PeerId>(), Ok(id), "{text}");
        }
        assert_eq!(base36.parse::<PeerId>().expect(base36).as_bytes(), id.as_bytes());
    }
}

#[test]
fn pid_04_a_short_key_comes_back_out_of_its_peer_id() {
    for case in CASES {
        let public = case.keypair().public();
        let expected = if public.to_protobuf().len() > 42 {
            Err(KeyError::Hashed)
        } else {
            Ok(public.clone())
        };
        assert_eq!(PublicKey::try_from(&public.peer_id()), expected, "{}", case.name);
    }
}

#[test]
fn key_13_every_truncation_is_refused() {
    for case in CASES {
        let (public, private) = (case.public(), case.private());
        for len in 0..public.len() {
            assert!(PublicKey::from_protobuf(&public[..len]).is_err(), "{} {len}", case.name);
        }
        for len in 0..private.len() {
            assert!(Keypair::from_protobuf(&private[..len]).is_err(), "{} {len}", case.name);
        }
        // The same with the length of Data set right, which reaches the parser of the type.
        let data = &public[public.len() - data_len(&public)..];
        for len in 0..data.len() {
            assert!(PublicKey::from_data(case.key_type, &data[..len]).is_err(), "{}", case.name);
        }
        let data = &private[private.len() - data_len(&private)..];
        for len in (0..data.len()).filter(|len| case.key_type != KeyType::Ed25519 || *len != 32) {
            assert!(Keypair::from_data(case.key_type, &data[..len]).is_err(), "{}", case.name);
        }
    }
}

fn data_len(message: &[u8]) -> usize {
    let (len, _) = crate::varint::decode(&message[3..]).expect("minimal").expect("whole");
    usize::try_from(len).expect("short")
}

/// Two encodings of one key would be two peers.
#[test]
fn key_02_whatever_is_accepted_is_the_canonical_encoding() {
    for case in CASES {
        let mut public = case.public();
        for bit in 0..public.len() * 8 {
            public[bit / 8] ^= 1 << (bit % 8);
            if let Ok(key) = PublicKey::from_protobuf(&public) {
                assert_eq!(key.to_protobuf(), public, "{} {bit}", case.name);
            }
            public[bit / 8] ^= 1 << (bit % 8);
        }
        let mut private = case.private();
        let step = if case.key_type == KeyType::Rsa { 97 } else { 1 };
        for bit in (0..private.len() * 8).step_by(step) {
            private[bit / 8] ^= 1 << (bit % 8);
            if let Ok(pair) = Keypair::from_protobuf(&private) {
                let signature = pair.sign(b"message").expect("it was accepted");
                assert_eq!(pair.public().verify(b"message", &signature), Ok(()));
            }
            private[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn key_02_only_the_canonical_message_is_taken() {
    let key = &vector("ed25519-public")[4..];
    let with = |head: &[u8], tail: &[u8]| [head, key, tail].concat();
    let not_minimal = KeyError::Encoding("a number is not in its shortest form");
    let length = KeyError::Encoding("the length of Data is not what follows it");
    for (bytes, error) in [
        (Vec::new(), KeyError::Missing("Type")),
        (with(&[0x12, 0x20], &[8, 1]), KeyError::Missing("Type")), // fields swapped
        (with(&[0x12, 0x20], &[]), KeyError::Missing("Type")),     // as proto3 writes RSA
        (vec![8, 1], KeyError::Missing("Data")),
        (with(&[8, 1, 8, 1, 0x12, 0x20], &[]), KeyError::Missing("Data")), // Type twice
        (with(&[8, 1, 0x1a, 0, 0x12, 0x20], &[]), KeyError::Missing("Data")), // a field 3 between
        (with(&[8, 1, 0x12, 0x20], &[0x18, 0]), length.clone()),           // a field 3 after
        (with(&[8, 1, 0x12, 0x21], &[]), length.clone()),
        (with(&[8, 1, 0x12, 0x1f], &[]), length),
        (with(&[8, 0x81, 0, 0x12, 0x20], &[]), not_minimal.clone()),
        (with(&[8, 1, 0x12, 0xa0, 0], &[]), not_minimal),
        (vec![8], KeyError::Encoding("a number is cut short")),
        (vec![8, 1, 0x12], KeyError::Encoding("a number is cut short")),
    ] {
        assert_eq!(PublicKey::from_protobuf(&bytes).as_ref(), Err(&error), "{bytes:02x?}");
        assert_eq!(Keypair::from_protobuf(&bytes).err(), Some(error), "{bytes:02x?}");
    }
    assert!(PublicKey::from_protobuf(&with(&[8, 1, 0x12, 0x20], &[])).is_ok());
}

#[test]
fn key_13_unknown_types_and_types_without_their_feature_name_themselves() {
    assert_eq!(PublicKey::from_protobuf(&[8, 9, 0x12, 0]), Err(KeyError::UnknownType(9)));
    for (key_type, number, feature) in [
        (KeyType::Rsa, 0, "rsa"),
        (KeyType::Secp256k1, 2, "secp256k1"),
        (KeyType::Ecdsa, 3, "ecdsa"),
    ] {
        if CASES.iter().any(|case| case.key_type == key_type) {
            continue;
        }
        let error = KeyError::UnsupportedType(key_type);
        assert_eq!(PublicKey::from_protobuf(&[8, number, 0x12, 0]), Err(error.clone()));
        assert_eq!(Keypair::from_protobuf(&[8, number, 0x12, 0]).err(), Some(error.clone()));
        assert!(error.to_string().contains(&format!("`{feature}`")), "{error}");
    }
}

#[test]
fn cve_2023_39533_a_message_longer_than_any_key_is_not_parsed() {
    let max = PublicKey::ENCODED_LEN_MAX;
    let at = |len: usize| PublicKey::from_protobuf(&vec![0xff; len]);
    assert_eq!(at(max), Err(KeyError::Missing("Type")));
    assert_eq!(at(max + 1), Err(KeyError::TooLong { len: max + 1, max }));
    let long = Keypair::from_protobuf(&[8; (8 << 10) + 1]).err();
    assert_eq!(long, Some(KeyError::TooLong { len: 8193, max: 8192 }));
}

/// RUSTSEC-2019-0004: any 64 bytes were taken for a signature.
#[test]
fn rustsec_2019_0004_a_signature_is_really_checked() {
    for case in CASES {
        let pair = case.keypair();
        let public = pair.public();
        let mut signature = pair.sign(b"message").expect(case.name);
        assert_eq!(signature, pair.sign(b"message").expect(case.name), "deterministic");
        assert_eq!(public.verify(b"message", &signature), Ok(()));
        let refused = Err(KeyError::Signature);
        assert_eq!(public.verify(b"massage", &signature), refused);
        for len in 0..signature.len() {
            assert_eq!(public.verify(b"message", &signature[..len]), refused, "{len}");
        }
        for bit in 0..signature.len() * 8 {
            signature[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(public.verify(b"message", &signature), refused, "{} {bit}", case.name);
            signature[bit / 8] ^= 1 << (bit % 8);
        }
        assert_eq!(public.verify(b"message", &vec![0; signature.len()]), refused);
        signature.push(0);
        assert_eq!(public.verify(b"message", &signature), refused);
        for other in CASES.iter().filter(|other| other.key_type != case.key_type) {
            let of_other = other.keypair().sign(b"message").expect(other.name);
            assert_eq!(public.verify(b"message", &of_other), refused);
        }
    }
}

#[test]
fn key_10_11_the_signatures_of_the_tls_vectors_verify() {
    for case in CASES.iter().filter(|case| case.key_type != KeyType::Rsa) {
        let public = vector(&format!("tls-{}-public", case.name));
        let public = PublicKey::from_protobuf(&public).expect(case.name);
        let signature = vector(&format!("tls-{}-signature", case.name));
        assert_eq!(public.verify(&vector("tls-message"), &signature), Ok(()), "{}", case.name);
        assert_eq!(public.verify(&[], &signature), Err(KeyError::Signature));
    }
}

#[test]
fn new_keys_differ_and_come_back_from_storage() {
    for case in CASES {
        if case.key_type == KeyType::Rsa {
            let error = Keypair::generate_of(KeyType::Rsa).expect_err("not made here");
            assert_eq!(error, KeyError::Generate(KeyType::Rsa));
            continue;
        }
        let pair = Keypair::generate_of(case.key_type).expect("randomness");
        assert_eq!(pair.key_type(), case.key_type);
        let other = Keypair::generate_of(case.key_type).expect("randomness");
        assert_ne!(pair.public(), other.public());
        let again = Keypair::from_protobuf(&pair.to_protobuf()).expect("its own");
        assert_eq!(again.public(), pair.public());
        let public = PublicKey::from_protobuf(&pair.public().to_protobuf()).expect("its own");
        let signature = again.sign(b"message").expect("signs");
        assert_eq!(public.verify(b"message", &signature), Ok(()));
    }
    assert_eq!(Keypair::generate().expect("randomness").key_type(), KeyType::Ed25519);
}

#[test]
fn debug_shows_no_secret() {
    for case in CASES {
        let shown = format!("{:?} {:?}", case.keypair(), case.keypair().public());
        let id = case.texts[0];
        assert_eq!(shown, format!("Keypair({id}) PublicKey({id})"));
    }
}

#[test]
fn errors_of_a_damaged_private_key_show_none_of_its_bytes() {
    for case in CASES {
        let mut private = case.private();
        *private.last_mut().expect("not empty") ^= 1;
        private.push(0);
        let error = Keypair::from_protobuf(&private).expect_err("a byte too many");
        let shown = format!("{error} {error:?}");
        assert!(shown.len() < 200 && !shown.contains("[0x"), "{shown}");
    }
}

/// The types say so; memory that is freed cannot be looked at without `unsafe`.
#[test]
fn secrets_are_of_types_that_wipe_themselves() {
    fn wipes<T: ZeroizeOnDrop>() {}
    wipes::<ed25519_dalek::SigningKey>();
    #[cfg(feature = "secp256k1")]
    wipes::<k256::ecdsa::SigningKey>();
    #[cfg(feature = "ecdsa")]
    wipes::<p256::ecdsa::SigningKey>();
    #[cfg(feature = "ecdsa")]
    wipes::<p256::SecretKey>();
    let _: Zeroizing<Vec<u8>> = keypair("ed25519").to_protobuf();
}
