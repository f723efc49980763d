use p2p_core::{Keypair, Opened};
use prost::Message;

use super::*;
use crate::{
    Noise,
    cipher::{ALL, Cipher},
    limits::HANDSHAKE_RECEIVED_LEN_MAX,
    proto::{NoiseExtensions, NoiseHandshakePayload},
    xx::{
        DhKey,
        tests::{LOW_ORDER, hex},
    },
};

const YAMUX: ProtocolId = ProtocolId::from_static("/yamux/1.0.0");
const MPLEX: ProtocolId = ProtocolId::from_static("/mplex/6.7.0");

/// The run of the catalogue (conformance/03-noise.md, Test vectors), with length prefixes.
const MESSAGE_1: &str = "002079a631eede1bf9c98f12032cdeadd0e7a079398fc786b88cc846ec89af85a51a";
const MESSAGE_2: &str = "\
    00d8493e82fc74464a59268817623d2053c5eb8e2cc4a988b4fee179ec6b010d531d21c1c2b4f69d73b9e76f\
    1e955ed922fb932477dc4fb492ab027583fe9297866e552ad0af69c38a1b6711b9c4f34df9f90aece4267d77\
    6aeddcbc67d91df7cceddbaccd1238f8832e8313511b32a9a8e90efb131a426c56ef1f4d4265dffeca4e2384\
    693458e8802e6e27e8342ef424546e2f1211488e9fe9a695127b38183ec43e1987f55a08cf0ae208eb2df73d\
    dcca68d3c0472f5b21210b9d6e19a9ba6d2f782c37bae4adacc7e2bd40165e759008c5296906ee35dfd0";
const MESSAGE_3: &str = "\
    00b897c22c1c716681a8fc936574da1ebd3f365d9714ca0ff4be4b798866e900f48bc3e10d37cc8eefbfd4fe\
    c2c8a8874f05364a771e92b136bea1e90b488ea28e2293e8b4c30c76b744a1ca20fca5a564b1d83594baf5c6\
    d05d27edbb457681fabc902d40709cf3ed67e22c69d0efd5cb4dd582593f825dc9323cb6c3b0bc0aa33aba92\
    6d6c7ffa9f878c41cac4f9458d3ea574d0c37f5f12a44f594aa55f3b8197552fc543eecdd32b43ed01ac068d\
    b7ed4f6255b061fc5ca8";
const HELLO: &str = "0015bbe8531ecc522d2319151fd1ee31778cad98efcdfd";
const WORLD: &str = "00154e2f298d07bb913c642ded273a966faf4a1a88bc96";

fn initiator_keypair() -> Keypair {
    Keypair::from_ed25519_seed(&count_from(0))
}

fn responder_keypair() -> Keypair {
    Keypair::from_protobuf(&hex(
        "080112407e0830617c4a7de83925dfb2694556b12936c477a0e1feb2e148ec9da60fee7d\
         1ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e",
    ))
    .expect("the specification's")
}

fn count_from(first: u8) -> [u8; 32] {
    std::array::from_fn(|i| first + u8::try_from(i).expect("small"))
}

fn identity(role: Role) -> Identity {
    match role {
        Role::Initiator => {
            Identity::new(&initiator_keypair(), DhKey::from_secret(count_from(0x20)))
                .expect("signs")
        }
        Role::Responder => {
            Identity::new(&responder_keypair(), DhKey::from_secret(count_from(0x60)))
                .expect("signs")
        }
    }
}

fn xx(role: Role) -> Xx {
    xx_with(Cipher::RUST_CRYPTO, role)
}

fn xx_with(cipher: Cipher, role: Role) -> Xx {
    let ephemeral = match role {
        Role::Initiator => count_from(0x40),
        Role::Responder => count_from(0x80),
    };
    Xx::new(cipher, &[], identity(role).static_key, DhKey::from_secret(ephemeral))
}

fn side(role: Role, expected: Option<PeerId>, muxers: &[ProtocolId]) -> NoiseHandshake {
    let (identity, verified) = (Arc::new(identity(role)), Arc::new(Verified::new()));
    NoiseHandshake::new(role, xx(role), identity, verified, expected, muxers.to_vec())
}

fn with_cipher(mut side: NoiseHandshake, cipher: Cipher, role: Role) -> NoiseHandshake {
    let xx = Box::new(xx_with(cipher, role));
    side.state = match role {
        Role::Initiator => State::Begin(xx),
        Role::Responder => State::AwaitFirst(xx),
    };
    side
}

fn initiator() -> NoiseHandshake {
    side(Role::Initiator, Some(responder_keypair().public().peer_id()), &[YAMUX])
}

fn responder() -> NoiseHandshake {
    side(Role::Responder, None, &[YAMUX])
}

fn advance(
    side: &mut NoiseHandshake,
    wire: &mut BytesMut,
) -> Result<(BytesMut, Option<Session>), SecurityError> {
    let mut out = BytesMut::new();
    let session = side.advance(wire, &mut out).inspect_err(|_| assert!(out.is_empty()))?;
    Ok((out, session))
}

/// Feeds one message that must be answered, but does not end the handshake.
fn answer(side: &mut NoiseHandshake, message: &[u8]) -> BytesMut {
    let mut wire = BytesMut::from(message);
    let (out, session) = advance(side, &mut wire).expect("good");
    assert!(session.is_none() && wire.is_empty());
    out
}

fn failure(side: &mut NoiseHandshake, message: &[u8]) -> SecurityError {
    let mut wire = BytesMut::from(message);
    let error = advance(side, &mut wire).expect_err("a failure");
    assert_eq!(advance(side, &mut wire).err(), Some(cannot_advance("Failed")));
    error
}

fn cannot_advance(state: &'static str) -> SecurityError {
    SecurityError::IllegalMove { state, event: "advance" }
}

/// Runs two sides against each other, each result as soon as it comes.
fn run(
    mut initiator: NoiseHandshake,
    mut responder: NoiseHandshake,
) -> Result<(Session, Session), SecurityError> {
    let mut wire = answer(&mut initiator, &[]);
    let mut wire = advance(&mut responder, &mut wire)?.0;
    let (mut wire, session) = advance(&mut initiator, &mut wire)?;
    let theirs = advance(&mut responder, &mut wire)?.1;
    Ok((session.expect("complete"), theirs.expect("complete")))
}

fn sealed(session: &mut Session, plain: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    session.seal.seal(&mut &plain[..], &mut out).expect("nonces left");
    out
}

fn assert_opens(session: &mut Session, wire: &mut BytesMut, plain: &str) {
    let Opened::Record(record) = session.open.open(wire).expect("authentic") else {
        panic!("the record is whole");
    };
    assert_eq!(record, plain);
}

#[test]
fn noise_03_14_17_the_catalogues_vector_as_initiator() {
    for &cipher in ALL {
        let mut side = with_cipher(initiator(), cipher, Role::Initiator);
        assert_eq!(answer(&mut side, &[]), hex(MESSAGE_1));
        let mut wire = BytesMut::from(&hex(MESSAGE_2)[..]);
        let (out, session) = advance(&mut side, &mut wire).expect("good");
        assert_eq!(out, hex(MESSAGE_3));
        let mut session = session.expect("complete");
        assert_eq!(session.peer, responder_keypair().public());
        assert_eq!(session.muxer, Some(YAMUX));
        assert_eq!(sealed(&mut session, b"hello"), hex(HELLO));
        assert_opens(&mut session, &mut BytesMut::from(&hex(WORLD)[..]), "world");
        assert_eq!(advance(&mut side, &mut wire).err(), Some(cannot_advance("Complete")));
    }
}

#[test]
fn noise_03_14_17_the_catalogues_vector_as_responder() {
    for &cipher in ALL {
        let mut side = with_cipher(responder(), cipher, Role::Responder);
        assert_eq!(answer(&mut side, &hex(MESSAGE_1)), hex(MESSAGE_2));
        let mut wire = BytesMut::from(&hex(MESSAGE_3)[..]);
        let (out, session) = advance(&mut side, &mut wire).expect("good");
        assert!(out.is_empty());
        let mut session = session.expect("complete");
        let peer = "12D3KooWA4Xop1JaT3MHxwYMkCepYsv4iPVopMXwCz5iHYdBfeSB";
        assert_eq!(session.peer.peer_id().to_string(), peer);
        assert_eq!(session.muxer, Some(YAMUX));
        assert_eq!(sealed(&mut session, b"world"), hex(WORLD));
        assert_opens(&mut session, &mut BytesMut::from(&hex(HELLO)[..]), "hello");
        assert_eq!(advance(&mut side, &mut wire).err(), Some(cannot_advance("Complete")));
    }
}

#[test]
fn noise_07_08_17_the_catalogues_payloads_hash_and_keys() {
    let payload = |role| payload::encode(&identity(role), &[YAMUX]);
    assert_eq!(
        payload(Role::Responder),
        hex("0a24080112201ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e12404e\
             a1b545be8b8da74e8e74cf87d2f4c619707aea9691305664f0baec1d1b1cde71f014511dfc05670b39\
             57906267042542a417a63dd2e115617197c7351f3600220e120c2f79616d75782f312e302e30")
    );
    assert_eq!(
        payload(Role::Initiator),
        hex("0a240801122003a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b81240db\
             a54aebc490a466780fb42426c90e105da09f950f5f9319498ee3b081cdba8c7d368532a220d93e291e\
             4259bb3f47c5e42d5646e45de3c37f27bc3686f4e402220e120c2f79616d75782f312e302e30")
    );
    let mut xx = xx(Role::Initiator);
    let mut wire = BytesMut::new();
    xx.write_1(&[], &mut wire).expect("message 1");
    let (their_ephemeral, their_static) =
        xx.read_2(&mut BytesMut::from(&hex(MESSAGE_2)[2..])).expect("message 2");
    let their_static = their_static.as_bytes().to_vec();
    let expected = "675dd574ed7789310b3d2e7681f3790b466c773b1521fecf36577958371ea52f";
    assert_eq!(their_static, hex(expected));
    xx.write_3(&their_ephemeral, &payload(Role::Initiator), &mut wire).expect("message 3");
    let hash = "57743def6495ee056b6e4b208b1f9a95dd4ace7ff8c83eda14556bd6bc1b2be4";
    assert_eq!(xx.symmetric().hash().to_vec(), hex(hash));
    let [forth, back] = xx.symmetric().split_keys();
    let key = "fda6c69a11c3f420e5f822adec66dc5ab67a3629b178af202918f3f8a56d5269";
    assert_eq!(forth.to_vec(), hex(key));
    let key = "fdefbb7b96b987ffe0b7d79116fbb958081f9b1fdab55910a255a57f057c037c";
    assert_eq!(back.to_vec(), hex(key));
}

/// A side that waits for that message.
fn awaiting(message: u8) -> NoiseHandshake {
    let mut side = if message == 2 { initiator() } else { responder() };
    match message {
        1 => {}
        2 => drop(answer(&mut side, &[])),
        _ => drop(answer(&mut side, &hex(MESSAGE_1))),
    }
    assert_eq!(side.awaits(), Ok(message));
    side
}

#[test]
fn noise_06_09_14_a_message_of_an_impossible_length_is_refused_by_its_length_alone() {
    const MAX: usize = HANDSHAKE_MESSAGE_LEN_MAX;
    for (message, min, max) in [(1, 32, 32), (2, 96, MAX), (3, 64, MAX)] {
        for len in [0, 1, 15, 16, min - 1, max + 1, 20_000, 65_535] {
            let prefix = u16::try_from(len).expect("a length").to_be_bytes();
            let error = failure(&mut awaiting(message), &prefix);
            let expected = SecurityError::HandshakeLen { message, len, min, max };
            assert_eq!(error, expected);
        }
        for len in [min, max] {
            let prefix = u16::try_from(len).expect("a length").to_be_bytes();
            assert!(answer_is_empty(&mut awaiting(message), &prefix), "{message}, {len}");
        }
    }
    let error = failure(&mut awaiting(3), &[255, 255]);
    let text = "message 3 of the peer's handshake has 65535 bytes, not 64 to 16384";
    assert_eq!(error.to_string(), text);
}

#[test]
fn noise_03_messages_out_of_order_repeated_or_sent_back_fail() {
    const MAX: usize = HANDSHAKE_MESSAGE_LEN_MAX;
    let wrong_len =
        |message, len, min, max| Some(SecurityError::HandshakeLen { message, len, min, max });
    for (awaited, sent, expected) in [
        (1, MESSAGE_2, wrong_len(1, 216, 32, 32)),
        (1, MESSAGE_3, wrong_len(1, 184, 32, 32)),
        (2, MESSAGE_1, wrong_len(2, 32, 96, MAX)),
        (2, MESSAGE_3, Some(SecurityError::Decrypt)),
        (3, MESSAGE_1, wrong_len(3, 32, 64, MAX)),
        (3, MESSAGE_2, Some(SecurityError::Decrypt)),
    ] {
        let error = failure(&mut awaiting(awaited), &hex(sent));
        assert_eq!(Some(error), expected, "awaited {awaited}");
    }
    // After the end, a repeated message is a record that nobody has sealed.
    let (mut a, mut b) = run(initiator(), responder()).expect("good");
    let mut again = BytesMut::from(&hex(MESSAGE_2)[..]);
    assert_eq!(a.open.open(&mut again).err(), Some(SecurityError::Decrypt));
    let mut again = BytesMut::from(&hex(MESSAGE_3)[..]);
    assert_eq!(b.open.open(&mut again).err(), Some(SecurityError::Decrypt));
}

#[test]
fn noise_16_17_18_23_bad_records_end_the_channel_for_either_role() {
    for initiators in [true, false] {
        let channel = || {
            let (a, b) = run(initiator(), responder()).expect("good");
            if initiators { (a, b) } else { (b, a) }
        };
        let (mut receiver, mut sender) = channel();
        let first = sealed(&mut sender, b"first");
        let second = sealed(&mut sender, b"second");
        let mut tampered = first.clone();
        tampered[2] ^= 1;
        let sent_back = sealed(&mut receiver, b"sent back");
        let short = |len| SecurityError::RecordLen { len, min: 16 };
        for (name, wire, expected) in [
            ("tampered with", &tampered[..], SecurityError::Decrypt),
            ("out of order", &second, SecurityError::Decrypt),
            ("sent back", &sent_back, SecurityError::Decrypt),
            ("of length 0", &[0, 0], short(0)),
            ("of length 15", &[0, 15], short(15)),
        ] {
            let (mut receiver, _) = channel();
            let mut wire = BytesMut::from(wire);
            assert_eq!(receiver.open.open(&mut wire).err(), Some(expected.clone()), "{name}");
            let error = receiver.open.open(&mut first.clone()).err();
            assert_eq!(error, Some(expected), "after one {name}");
        }
        assert_opens(&mut receiver, &mut first.clone(), "first");
        let error = receiver.open.open(&mut first.clone()).err();
        assert_eq!(error, Some(SecurityError::Decrypt), "replayed");
    }
}

#[test]
fn noise_10_wrong_peer_gets_no_third_message() {
    let expected = initiator_keypair().public().peer_id();
    let actual = responder_keypair().public().peer_id();
    let mut side = side(Role::Initiator, Some(expected), &[]);
    answer(&mut side, &[]);
    let mut wire = BytesMut::from(&hex(MESSAGE_2)[..]);
    let mut out = BytesMut::from(&b"before"[..]);
    let error = side.advance(&mut wire, &mut out).err();
    assert_eq!(error, Some(SecurityError::WrongPeer { expected, actual }));
    assert_eq!(out, b"before"[..]);
    assert_eq!(side.advance(&mut wire, &mut out).err(), Some(cannot_advance("Failed")));
    assert_eq!(out, b"before"[..]);
}

#[test]
fn noise_10_a_responder_with_an_expectation_checks_it_too() {
    let expected = responder_keypair().public().peer_id();
    let responder = side(Role::Responder, Some(expected), &[YAMUX]);
    let error = run(initiator(), responder).err();
    let actual = initiator_keypair().public().peer_id();
    assert_eq!(error, Some(SecurityError::WrongPeer { expected, actual }));
}

#[test]
fn noise_09_10_a_peer_that_is_remembered_is_checked_no_less() {
    let noise = Noise::new(&initiator_keypair()).expect("randomness");
    let actual = responder_keypair().public().peer_id();
    let dial = |expected: &PeerId, responder: NoiseHandshake| {
        let initiator = noise.start_handshake(Role::Initiator, Some(expected), &[YAMUX]);
        run(initiator.expect("randomness"), responder).map(|(ours, _)| ours.peer.peer_id())
    };
    for _ in 0..2 {
        assert_eq!(dial(&actual, responder()), Ok(actual));
    }
    let expected = initiator_keypair().public().peer_id();
    let error = SecurityError::WrongPeer { expected, actual };
    assert_eq!(dial(&expected, responder()), Err(error));

    // What it has shown, by one who does not have its static key.
    let mut thief = responder();
    let other = Arc::new(DhKey::from_secret(count_from(1)));
    let ephemeral = DhKey::from_secret(count_from(0x80));
    let xx = Xx::new(Cipher::RUST_CRYPTO, &[], Arc::clone(&other), ephemeral);
    thief.state = State::AwaitFirst(Box::new(xx));
    thief.identity = Arc::new(Identity { static_key: other, ..identity(Role::Responder) });
    assert_eq!(dial(&actual, thief), Err(SecurityError::Signature));
}

#[test]
fn noise_11_ones_own_identity_is_accepted_here() {
    let responder = NoiseHandshake::new(
        Role::Responder,
        xx(Role::Responder),
        Arc::new(
            Identity::new(&initiator_keypair(), DhKey::from_secret(count_from(0x60)))
                .expect("signs"),
        ),
        Arc::new(Verified::new()),
        None,
        Vec::new(),
    );
    let (_, theirs) = run(side(Role::Initiator, None, &[]), responder).expect("good");
    assert_eq!(theirs.peer, initiator_keypair().public());
}

#[test]
fn noise_04_prologues_that_differ_fail() {
    let mut responder = responder();
    responder.state = State::AwaitFirst(Box::new(Xx::new(
        Cipher::RUST_CRYPTO,
        b"other",
        identity(Role::Responder).static_key,
        DhKey::from_secret(count_from(0x80)),
    )));
    assert_eq!(run(initiator(), responder).err(), Some(SecurityError::Decrypt));
}

/// What the responder says to message 1, and the initiator to message 2, when `message` is
/// the first; a byte of message 1 is only noticed in message 2.
fn outcome_of_first(message: &[u8]) -> Result<(BytesMut, Option<Session>), SecurityError> {
    let mut initiator = initiator();
    answer(&mut initiator, &[]);
    let (mut second, _) = advance(&mut responder(), &mut BytesMut::from(message))?;
    advance(&mut initiator, &mut second)
}

fn outcome_of_second(message: &[u8]) -> Result<(BytesMut, Option<Session>), SecurityError> {
    let mut initiator = initiator();
    answer(&mut initiator, &[]);
    advance(&mut initiator, &mut BytesMut::from(message))
}

fn outcome_of_third(message: &[u8]) -> Result<(BytesMut, Option<Session>), SecurityError> {
    let mut responder = responder();
    answer(&mut responder, &hex(MESSAGE_1));
    advance(&mut responder, &mut BytesMut::from(message))
}

type Outcome = fn(&[u8]) -> Result<(BytesMut, Option<Session>), SecurityError>;
const OUTCOMES: [(&str, Outcome); 3] =
    [(MESSAGE_1, outcome_of_first), (MESSAGE_2, outcome_of_second), (MESSAGE_3, outcome_of_third)];

#[test]
fn noise_23_a_flipped_bit_in_any_byte_of_any_message_fails() {
    for (number, (message, outcome)) in OUTCOMES.into_iter().enumerate() {
        let message = hex(message);
        assert!(outcome(&message).is_ok());
        for at in 0..message.len() {
            let mut flipped = message.clone();
            flipped[at] ^= 1 << (at % 8);
            let error = match outcome(&flipped) {
                Err(error) => error,
                // A length that has grown waits for bytes, and fails when they come.
                Ok((out, session)) => {
                    assert!(at < PREFIX_LEN && out.is_empty() && session.is_none());
                    flipped.resize(PREFIX_LEN + HANDSHAKE_MESSAGE_LEN_MAX, 0);
                    outcome(&flipped).expect_err("not sealed")
                }
            };
            let in_len = matches!(error, SecurityError::HandshakeLen { .. });
            let ends = if at < PREFIX_LEN {
                in_len || error == SecurityError::Decrypt
            } else {
                error == SecurityError::Decrypt
            };
            assert!(ends, "message {}, byte {at}: {error}", number + 1);
        }
    }
}

#[test]
fn noise_24_a_message_cut_at_any_byte_is_waited_for() {
    for (message, outcome) in OUTCOMES.into_iter().skip(1) {
        for len in 0..hex(message).len() {
            let (out, session) = outcome(&hex(message)[..len]).expect("not wrong so far");
            assert!(out.is_empty() && session.is_none());
        }
    }
    for len in 0..hex(MESSAGE_1).len() {
        assert!(answer_is_empty(&mut responder(), &hex(MESSAGE_1)[..len]), "{len}");
    }
}

fn answer_is_empty(side: &mut NoiseHandshake, part: &[u8]) -> bool {
    let (out, session) = advance(side, &mut BytesMut::from(part)).expect("not wrong so far");
    out.is_empty() && session.is_none()
}

#[test]
fn noise_14_one_byte_at_a_time_gives_the_same_bytes() {
    let mut side = responder();
    let mut wire = BytesMut::new();
    let mut sent = BytesMut::new();
    let mut session = None;
    for byte in hex(MESSAGE_1).into_iter().chain(hex(MESSAGE_3)) {
        assert!(session.is_none());
        wire.put_u8(byte);
        session = side.advance(&mut wire, &mut sent).expect("good");
    }
    assert_eq!(sent, hex(MESSAGE_2));
    assert_eq!(session.expect("complete").peer, initiator_keypair().public());
}

#[test]
fn noise_03_a_third_message_that_is_there_already_is_not_waited_for() {
    let mut wire = BytesMut::from(&[hex(MESSAGE_1), hex(MESSAGE_3)].concat()[..]);
    let (out, session) = advance(&mut responder(), &mut wire).expect("good");
    assert_eq!(out, hex(MESSAGE_2));
    assert!(session.is_some() && wire.is_empty());
}

#[test]
fn noise_21_records_behind_message_3_stay_in_the_wire() {
    let mut side = responder();
    answer(&mut side, &hex(MESSAGE_1));
    let mut wire = BytesMut::from(&[hex(MESSAGE_3), hex(HELLO)].concat()[..]);
    let (_, session) = advance(&mut side, &mut wire).expect("good");
    assert_eq!(wire, hex(HELLO));
    assert_opens(&mut session.expect("complete"), &mut wire, "hello");
}

#[test]
fn crypto_1_10_low_order_points_in_messages_1_and_2_are_refused() {
    for point in LOW_ORDER {
        let message = [vec![0, 32], hex(point)].concat();
        assert_eq!(failure(&mut responder(), &message), SecurityError::LowOrderPoint);
        let mut side = initiator();
        answer(&mut side, &[]);
        let mut message = hex(MESSAGE_2);
        message[2..34].copy_from_slice(&hex(point));
        assert_eq!(failure(&mut side, &message), SecurityError::LowOrderPoint);
    }
}

#[test]
fn crypto_1_18_a_replayed_third_message_fails_for_a_fresh_ephemeral_key() {
    let mut side = responder();
    side.state = State::AwaitFirst(Box::new(Xx::new(
        Cipher::RUST_CRYPTO,
        &[],
        identity(Role::Responder).static_key,
        DhKey::from_secret(count_from(0x81)),
    )));
    answer(&mut side, &hex(MESSAGE_1));
    assert_eq!(failure(&mut side, &hex(MESSAGE_3)), SecurityError::Decrypt);
}

/// Message 2 of a responder whose channel is right but whose payload is `payload`.
fn second_with(payload: &NoiseHandshakePayload) -> BytesMut {
    second_with_bytes(&payload.encode_to_vec())
}

fn second_with_bytes(payload: &[u8]) -> BytesMut {
    let mut xx = xx(Role::Responder);
    let their_ephemeral = xx.read_1(&mut BytesMut::from(&hex(MESSAGE_1)[2..])).expect("message 1");
    let mut out = BytesMut::new();
    put_message(&mut out, |out| xx.write_2(&their_ephemeral, payload, out)).expect("good");
    out
}

fn failure_of_second(payload: &NoiseHandshakePayload) -> SecurityError {
    let mut side = initiator();
    answer(&mut side, &[]);
    failure(&mut side, &second_with(payload))
}

#[test]
fn noise_09_a_bad_payload_in_message_2_gets_no_third_message() {
    let good = payload::encode(&identity(Role::Responder), &[]);
    let good = NoiseHandshakePayload::decode(&good[..]).expect("our own");
    let other_key = responder_keypair().sign(&payload::to_be_signed(&[1; 32])).expect("signs");
    let bad = NoiseHandshakePayload { identity_sig: Some(other_key), ..good.clone() };
    assert_eq!(failure_of_second(&bad), SecurityError::Signature);
    let bad = NoiseHandshakePayload { identity_sig: Some(Vec::new()), ..good.clone() };
    assert_eq!(failure_of_second(&bad), SecurityError::Missing("identity_sig"));
    let mut long = vec![8, 1, 0x12, 33];
    long.extend([4; 33]);
    let bad = NoiseHandshakePayload { identity_key: Some(long), ..good };
    assert!(matches!(failure_of_second(&bad), SecurityError::IdentityKey(_)));
    let empty = NoiseHandshakePayload::default();
    assert_eq!(failure_of_second(&empty), SecurityError::Missing("identity_key"));
}

/// Message 3 of an initiator whose channel is right but whose payload is `payload`.
fn third_with(payload: &[u8]) -> BytesMut {
    let mut xx = xx(Role::Initiator);
    let mut out = BytesMut::new();
    xx.write_1(&[], &mut out).expect("message 1");
    out.clear();
    let mut second = BytesMut::from(&hex(MESSAGE_2)[2..]);
    let (their_ephemeral, _) = xx.read_2(&mut second).expect("message 2");
    put_message(&mut out, |out| xx.write_3(&their_ephemeral, payload, out)).expect("good");
    out
}

#[test]
fn noise_09_a_bad_payload_in_message_3_ends_the_handshake() {
    let stolen = payload::encode(&identity(Role::Responder), &[]);
    let mut side = responder();
    answer(&mut side, &hex(MESSAGE_1));
    assert_eq!(failure(&mut side, &third_with(&stolen)), SecurityError::Signature);
}

/// A payload of `role` that makes a message with `overhead` as long as a message can be.
fn filling_payload(role: Role, overhead: usize) -> NoiseHandshakePayload {
    let good = payload::encode(&identity(role), &[YAMUX]);
    let mut payload = NoiseHandshakePayload::decode(&good[..]).expect("our own");
    // Four bytes: the tag and length of the filler, and the longer length around it.
    let filler = HANDSHAKE_MESSAGE_LEN_MAX - overhead - good.len() - 4;
    payload.extensions = Some(NoiseExtensions {
        webtransport_certhashes: vec![vec![0; filler]],
        stream_muxers: vec![YAMUX.to_string()],
    });
    payload
}

#[test]
fn noise_14_a_second_message_of_the_greatest_length_is_read() {
    let message = second_with(&filling_payload(Role::Responder, MESSAGE_2_LEN_MIN));
    assert_eq!(message.len(), PREFIX_LEN + HANDSHAKE_MESSAGE_LEN_MAX);
    let mut side = initiator();
    answer(&mut side, &[]);
    let (_, session) = advance(&mut side, &mut BytesMut::from(&message[..])).expect("good");
    assert_eq!(session.expect("complete").muxer, Some(YAMUX));
}

#[test]
fn noise_14_a_third_message_of_the_greatest_length_is_read() {
    let payload = filling_payload(Role::Initiator, MESSAGE_3_LEN_MIN);
    let third = third_with(&payload.encode_to_vec());
    assert_eq!(hex(MESSAGE_1).len() + third.len(), HANDSHAKE_RECEIVED_LEN_MAX);
    let mut side = responder();
    answer(&mut side, &hex(MESSAGE_1));
    let (_, session) = advance(&mut side, &mut BytesMut::from(&third[..])).expect("good");
    assert_eq!(session.expect("complete").muxer, Some(YAMUX));
}

#[test]
fn noise_28_29_both_sides_come_to_the_same_muxer() {
    let agreed = |ours: &[ProtocolId], theirs: &[ProtocolId]| {
        let sides = (side(Role::Initiator, None, ours), side(Role::Responder, None, theirs));
        let (a, b) = run(sides.0, sides.1).expect("good");
        assert_eq!(a.muxer, b.muxer);
        a.muxer
    };
    assert_eq!(agreed(&[YAMUX, MPLEX], &[MPLEX, YAMUX]), Some(YAMUX));
    assert_eq!(agreed(&[MPLEX, YAMUX], &[YAMUX]), Some(YAMUX));
    assert_eq!(agreed(&[YAMUX], &[]), None);
    assert_eq!(agreed(&[], &[YAMUX]), None);
    assert_eq!(agreed(&[], &[]), None);
}

#[test]
fn noise_30_no_muxer_in_common_fails_before_the_third_message() {
    let mut initiator = side(Role::Initiator, None, &[MPLEX]);
    answer(&mut initiator, &[]);
    let error = failure(&mut initiator, &hex(MESSAGE_2));
    assert_eq!(error, SecurityError::NoCommonMuxer(vec![YAMUX.to_string()]));
    let mut responder = side(Role::Responder, None, &[MPLEX]);
    let second = answer(&mut responder, &hex(MESSAGE_1));
    let mut eager = side(Role::Initiator, None, &[MPLEX, YAMUX]);
    answer(&mut eager, &[]);
    let third = advance(&mut eager, &mut BytesMut::from(&second[..])).expect("good").0;
    responder.muxers = vec![ProtocolId::from_static("/other")];
    let error = failure(&mut responder, &third);
    let theirs = vec![MPLEX.to_string(), YAMUX.to_string()];
    assert_eq!(error, SecurityError::NoCommonMuxer(theirs));
}

#[test]
fn noise_28_an_offer_keeps_to_its_limits_and_is_taken_by_a_peer_with_the_same() {
    let noise = crate::Noise::new(&initiator_keypair()).expect("randomness");
    for (len, offered) in [(1_023, 4), (1_024, 0), (12, 32), (128, 32), (129, 31)] {
        let name = |i| ProtocolId::new(&format!("/{i:0$}", len - 1));
        let Ok(muxers) = (0..200).map(name).collect::<Result<Vec<_>, _>>() else {
            assert_eq!(offered, 0, "no name has {len} bytes");
            continue;
        };
        let start = |role| noise.start_handshake(role, None, &muxers).expect("randomness");
        assert_eq!(start(Role::Initiator).muxers, muxers[..offered]);
        let (a, b) = run(start(Role::Initiator), start(Role::Responder)).expect("good");
        assert_eq!(a.muxer.as_ref(), muxers.first());
        assert_eq!(b.muxer.as_ref(), muxers.first());
    }
}

#[test]
fn crypto_1_9_every_handshake_has_an_ephemeral_key_of_its_own() {
    let noise = crate::Noise::new(&initiator_keypair()).expect("randomness");
    let first = || {
        let mut side = noise.start_handshake(Role::Initiator, None, &[]).expect("randomness");
        answer(&mut side, &[])
    };
    assert_ne!(first(), first());
}

#[test]
fn noise_06_12_message_1_is_an_ephemeral_key_and_nothing_else_whatever_is_offered() {
    for muxers in [&[][..], &[YAMUX, MPLEX]] {
        let mut side = side(Role::Initiator, None, muxers);
        assert_eq!(answer(&mut side, &[]), hex(MESSAGE_1));
    }
}

/// With a good signature this list would end the handshake for another reason.
#[test]
fn noise_13_extensions_are_not_looked_at_before_the_signature_is_good() {
    let signed = payload::encode(&identity(Role::Responder), &[MPLEX]);
    let mut forged = NoiseHandshakePayload::decode(&signed[..]).expect("our own");
    assert!(matches!(failure_of_second(&forged), SecurityError::NoCommonMuxer(_)));
    forged.identity_sig = Some(vec![1; 64]);
    assert_eq!(failure_of_second(&forged), SecurityError::Signature);
    let broken_extensions = |sig: &[u8]| {
        let payload = NoiseHandshakePayload {
            identity_sig: Some(sig.to_vec()),
            extensions: None,
            ..forged.clone()
        };
        let bytes = [payload.encode_to_vec(), vec![0x22, 1, 0x12]].concat();
        failure(&mut awaiting(2), &second_with_bytes(&bytes))
    };
    assert_eq!(broken_extensions(&[1; 64]), SecurityError::Signature);
    let good = identity(Role::Responder).signature;
    assert!(matches!(broken_extensions(&good), SecurityError::Malformed(_)));
}

/// Four bytes in a row, in hexadecimal or as a list of numbers, are taken for a leak.
fn shows(text: &str, secret: &[u8]) -> bool {
    let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    secret.windows(4).any(|bytes| {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let list: Vec<String> = bytes.iter().map(ToString::to_string).collect();
        let hex_list: Vec<String> = bytes.iter().map(|byte| format!("{byte:#x}")).collect();
        text.to_lowercase().contains(&hex)
            || text.contains(&list.join(","))
            || text.contains(&hex_list.join(","))
    })
}

#[test]
fn crypto_1_11_nothing_that_is_printed_holds_a_secret() {
    let mut probe = xx(Role::Initiator);
    probe.write_1(&[], &mut BytesMut::new()).expect("message 1");
    probe.read_2(&mut BytesMut::from(&hex(MESSAGE_2)[2..])).expect("message 2");
    let [forth, back] = probe.symmetric().split_keys();
    let prologue = count_from(0xc0);
    let secrets = [
        count_from(0),
        count_from(0x20),
        count_from(0x40),
        count_from(0x60),
        count_from(0x80),
        forth,
        back,
    ];

    let keypair = initiator_keypair();
    let noise = crate::Noise::new(&keypair).expect("randomness");
    let noise = noise.with_prologue(prologue.to_vec());
    let (session, _) = run(initiator(), responder()).expect("good");
    let mut texts = vec![
        format!("{keypair:?} {keypair:#?}"),
        format!("{noise:?} {noise:#?}"),
        format!("{session:?} {session:#?}"),
        format!("{ALL:?}"),
    ];
    let mut told = |error: SecurityError| {
        texts.push(format!("{error:?} {error:#?} {error}"));
        let error = crate::HandshakeError::from(error);
        texts.push(format!("{error:?} {error:#?} {error}"));
    };
    for (awaited, sent) in [(1, MESSAGE_2), (2, MESSAGE_1), (2, MESSAGE_3), (3, MESSAGE_2)] {
        told(failure(&mut awaiting(awaited), &hex(sent)));
    }
    for payload in [
        &[][..],
        &[0x0a, 1, 9],
        &[0x0a, 1, 9, 0x12, 1, 9],
        &payload::encode(&identity(Role::Initiator), &[]),
        &payload::encode(&identity(Role::Responder), &[MPLEX]),
        &[0xff; 40],
    ] {
        told(failure(&mut awaiting(2), &second_with_bytes(payload)));
    }
    for point in LOW_ORDER {
        told(failure(&mut awaiting(1), &[vec![0, 32], hex(point)].concat()));
    }
    let mut misled = side(Role::Initiator, Some(keypair.public().peer_id()), &[]);
    answer(&mut misled, &[]);
    told(failure(&mut misled, &hex(MESSAGE_2)));
    for text in texts {
        for secret in secrets.iter().chain([&prologue]) {
            assert!(!shows(&text, secret), "{text}");
        }
    }
    assert!(shows(&format!("{:?}", secrets[1]), &secrets[1]));
    assert!(shows(&format!("{:02X?}", secrets[1]).replace(", ", ""), &secrets[1]));
}

/// A payload full of tiny list entries: it was 2 MiB when it was decoded into lists.
#[test]
fn noise_13_27_a_payload_of_tiny_entries_costs_nothing_beyond_its_message() {
    let good = payload::encode(&identity(Role::Responder), &[]);
    let unsigned = good[..good.len() - 66].to_vec();
    let room = HANDSHAKE_MESSAGE_LEN_MAX - MESSAGE_2_LEN_MIN;
    for entry in [&[0x12, 0][..], &[0x0a, 0]] {
        for (front, signed) in [(&good, true), (&unsigned, false)] {
            let count = (room - front.len() - 4) / entry.len();
            let mut payload = [&front[..], &[0x22]].concat();
            p2p_core::varint::encode((count * entry.len()) as u64, &mut payload);
            payload.extend(entry.repeat(count));
            let mut wire = second_with_bytes(&payload);
            assert!(wire.len() > HANDSHAKE_MESSAGE_LEN_MAX - 4);
            let mut side = awaiting(2);
            let mut out = BytesMut::new();
            let mut outcome = None;
            let held = allocation_counter::measure(|| {
                outcome = Some(side.advance(&mut wire, &mut out));
            });
            let outcome = outcome.expect("it ran");
            if signed {
                // The list is too long, or there is none: the muxer is negotiated later.
                assert!(outcome.is_ok_and(|session| session.is_some_and(|s| s.muxer.is_none())));
            } else {
                assert_eq!(outcome.err(), Some(SecurityError::Missing("identity_sig")));
            }
            let most = if signed { 12_288 } else { 2_048 };
            assert!(held.bytes_max <= most, "{entry:?}, {signed}: {held:?}");
        }
    }
}

#[test]
fn random_bytes_never_panic_and_never_succeed() {
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed.to_le_bytes()[0]
    };
    for round in 0..400 {
        let mut wire = BytesMut::new();
        let mut side = if round % 2 == 0 { initiator() } else { responder() };
        for _ in 0..8 {
            let len = usize::from(random());
            wire.extend_from_slice(&[0, u8::try_from(len).expect("a byte")]);
            wire.extend((0..len).map(|_| random()));
            if let Ok((_, session)) = advance(&mut side, &mut wire) {
                assert!(session.is_none());
            }
        }
    }
}
