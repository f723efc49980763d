use std::{mem, ops::RangeInclusive, sync::Arc};

use bytes::{Buf, BufMut, BytesMut};
use p2p_core::{Handshake, PeerId, ProtocolId, PublicKey, Role, SecurityError, Session};

use crate::{
    limits::MESSAGE_LEN_MAX,
    noise::Identity,
    payload::{self, Verified},
    record::{Opener, PREFIX_LEN, Sealer},
    symmetric::CipherState,
    xx::{MESSAGE_1_LEN, MESSAGE_2_LEN_MIN, MESSAGE_3_LEN_MIN, Xx},
};

/// One handshake, without I/O.
pub(crate) struct NoiseHandshake {
    state: State,
    identity: Arc<Identity>,
    expected: Option<PeerId>,
    muxers: Vec<ProtocolId>,
}

/// ```text
///          initiator                                   responder
///
///           Begin                                      AwaitFirst
///             │ send 1                                     │ receive 1, send 2
///             ▼                                            ▼
///        AwaitSecond                                   AwaitThird
///             │ receive 2, check the peer,                 │ receive 3, check the peer,
///             │ send 3, give the session                   │ give the session
///             ▼                                            ▼
///           Over ◀──────── any failure, anywhere ───────▶ Over
/// ```
///
/// Each state owns the secrets, so a failure drops them on the spot. They are boxed, so that a
/// change of state leaves no copy of them on the stack.
enum State {
    Begin(Box<Xx>),
    AwaitFirst(Box<Xx>),
    AwaitSecond(Box<Xx>),
    AwaitThird(Box<Xx>),
    Over,
}

impl State {
    /// The number of the message that comes next from the peer, and the lengths it may have. A
    /// length outside of them is refused before the message is read.
    fn awaits(&self) -> Option<(u8, RangeInclusive<usize>)> {
        match self {
            Self::AwaitFirst(_) => Some((1, MESSAGE_1_LEN..=MESSAGE_1_LEN)),
            Self::Begin(_) | Self::AwaitSecond(_) => Some((2, MESSAGE_2_LEN_MIN..=MESSAGE_LEN_MAX)),
            Self::AwaitThird(_) => Some((3, MESSAGE_3_LEN_MIN..=MESSAGE_LEN_MAX)),
            Self::Over => None,
        }
    }
}

impl NoiseHandshake {
    pub(crate) fn new(
        role: Role,
        xx: Xx,
        identity: Arc<Identity>,
        expected: Option<PeerId>,
        muxers: Vec<ProtocolId>,
    ) -> Self {
        let xx = Box::new(xx);
        let state = match role {
            Role::Initiator => State::Begin(xx),
            Role::Responder => State::AwaitFirst(xx),
        };
        Self { state, identity, expected, muxers }
    }

    /// The number of the message that comes next from the peer; `None` when it is over.
    pub(crate) fn awaits(&self) -> Option<u8> {
        self.state.awaits().map(|(number, _)| number)
    }

    fn step(
        &mut self,
        wire: &mut BytesMut,
        out: &mut BytesMut,
    ) -> Result<Option<Session>, SecurityError> {
        if let State::Begin(_) = self.state {
            self.send_first(out)?;
        }
        let Some((number, lens)) = self.state.awaits() else {
            return Err(SecurityError::Over);
        };
        match take_message(wire, number, lens)? {
            Some(message) => self.handle_message(message, out),
            None => Ok(None),
        }
    }

    fn send_first(&mut self, out: &mut BytesMut) -> Result<(), SecurityError> {
        let State::Begin(mut xx) = mem::replace(&mut self.state, State::Over) else {
            return Err(SecurityError::Over);
        };
        put_message(out, |message| xx.write_1(&[], message))?;
        self.state = State::AwaitSecond(xx);
        Ok(())
    }

    fn handle_message(
        &mut self,
        message: BytesMut,
        out: &mut BytesMut,
    ) -> Result<Option<Session>, SecurityError> {
        match mem::replace(&mut self.state, State::Over) {
            State::AwaitFirst(mut xx) => {
                self.answer_first(&mut xx, message, out)?;
                self.state = State::AwaitThird(xx);
                Ok(None)
            }
            State::AwaitSecond(mut xx) => self.answer_second(&mut xx, message, out).map(Some),
            State::AwaitThird(mut xx) => self.take_third(&mut xx, message).map(Some),
            State::Begin(_) | State::Over => Err(SecurityError::Over),
        }
    }

    fn answer_first(
        &self,
        xx: &mut Xx,
        mut message: BytesMut,
        out: &mut BytesMut,
    ) -> Result<(), SecurityError> {
        let their_ephemeral = xx.read_1(&mut message)?;
        let payload = payload::encode(&self.identity, &self.muxers);
        put_message(out, |message| xx.write_2(&their_ephemeral, &payload, message))
    }

    /// Everything about the responder is checked before this side shows who it is (NOISE-10).
    fn answer_second(
        &self,
        xx: &mut Xx,
        mut message: BytesMut,
        out: &mut BytesMut,
    ) -> Result<Session, SecurityError> {
        let (their_ephemeral, their_static) = xx.read_2(&mut message)?;
        let verified = payload::verify(&message, their_static.as_bytes())?;
        self.check_expected(&verified)?;
        let muxer = payload::agree_muxer(Role::Initiator, &self.muxers, verified.muxers)?;
        let payload = payload::encode(&self.identity, &self.muxers);
        put_message(out, |message| xx.write_3(&their_ephemeral, &payload, message))?;
        let (forth, back) = xx.split();
        Ok(session(verified.peer, muxer, forth, back))
    }

    fn take_third(&self, xx: &mut Xx, mut message: BytesMut) -> Result<Session, SecurityError> {
        let their_static = xx.read_3(&mut message)?;
        let verified = payload::verify(&message, their_static.as_bytes())?;
        self.check_expected(&verified)?;
        let muxer = payload::agree_muxer(Role::Responder, &self.muxers, verified.muxers)?;
        let (forth, back) = xx.split();
        Ok(session(verified.peer, muxer, back, forth))
    }

    fn check_expected(&self, verified: &Verified) -> Result<(), SecurityError> {
        let actual = verified.peer.peer_id();
        match self.expected {
            Some(expected) if expected != actual => {
                Err(SecurityError::WrongPeer { expected, actual })
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl Handshake for NoiseHandshake {
    fn advance(
        &mut self,
        wire: &mut BytesMut,
        out: &mut BytesMut,
    ) -> Result<Option<Session>, SecurityError> {
        let before = out.len();
        self.step(wire, out).inspect_err(|_| {
            self.state = State::Over;
            out.truncate(before);
        })
    }
}

fn session(
    peer: PublicKey,
    muxer: Option<ProtocolId>,
    send: CipherState,
    receive: CipherState,
) -> Session {
    Session::new(peer, muxer, Box::new(Sealer::new(send)), Box::new(Opener::new(receive)))
}

/// Takes the message at the front of `wire` without its length; `None` while it is not whole.
fn take_message(
    wire: &mut BytesMut,
    number: u8,
    lens: RangeInclusive<usize>,
) -> Result<Option<BytesMut>, SecurityError> {
    let Some(prefix) = wire.first_chunk::<PREFIX_LEN>() else {
        return Ok(None);
    };
    let len = usize::from(u16::from_be_bytes(*prefix));
    if !lens.contains(&len) {
        let (min, max) = lens.into_inner();
        return Err(SecurityError::Malformed(format!(
            "message {number} has {len} bytes, not {min} to {max}"
        )));
    }
    if wire.len() < len.saturating_add(PREFIX_LEN) {
        return Ok(None);
    }
    wire.advance(PREFIX_LEN);
    Ok(Some(wire.split_to(len)))
}

/// Appends what `write` writes, behind its length.
fn put_message(
    out: &mut BytesMut,
    write: impl FnOnce(&mut BytesMut) -> Result<(), SecurityError>,
) -> Result<(), SecurityError> {
    let mut message = BytesMut::new();
    write(&mut message)?;
    let len = u16::try_from(message.len())
        .expect("an identity and MUXERS_OFFERED_MAX names fit a message");
    out.put_u16(len);
    out.extend_from_slice(&message);
    Ok(())
}

#[cfg(test)]
mod tests {
    use p2p_core::{Keypair, Opened};
    use prost::Message;

    use super::*;
    use crate::{
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
        let ephemeral = match role {
            Role::Initiator => count_from(0x40),
            Role::Responder => count_from(0x80),
        };
        Xx::new(&[], identity(role).static_key, DhKey::from_secret(ephemeral))
    }

    fn side(role: Role, expected: Option<PeerId>, muxers: &[ProtocolId]) -> NoiseHandshake {
        NoiseHandshake::new(role, xx(role), Arc::new(identity(role)), expected, muxers.to_vec())
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
        assert_eq!(advance(side, &mut wire).err(), Some(SecurityError::Over));
        error
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
        let mut side = initiator();
        assert_eq!(answer(&mut side, &[]), hex(MESSAGE_1));
        let mut wire = BytesMut::from(&hex(MESSAGE_2)[..]);
        let (out, session) = advance(&mut side, &mut wire).expect("good");
        assert_eq!(out, hex(MESSAGE_3));
        let mut session = session.expect("complete");
        assert_eq!(session.peer, responder_keypair().public());
        assert_eq!(session.muxer, Some(YAMUX));
        assert_eq!(sealed(&mut session, b"hello"), hex(HELLO));
        assert_opens(&mut session, &mut BytesMut::from(&hex(WORLD)[..]), "world");
        assert_eq!(advance(&mut side, &mut wire).err(), Some(SecurityError::Over));
    }

    #[test]
    fn noise_03_14_17_the_catalogues_vector_as_responder() {
        let mut side = responder();
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
        assert_eq!(advance(&mut side, &mut wire).err(), Some(SecurityError::Over));
    }

    #[test]
    fn noise_07_08_17_the_catalogues_payloads_hash_and_keys() {
        let payload = |role| payload::encode(&identity(role), &[YAMUX]);
        assert_eq!(
            payload(Role::Responder),
            hex(
                "0a24080112201ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e12404e\
                 a1b545be8b8da74e8e74cf87d2f4c619707aea9691305664f0baec1d1b1cde71f014511dfc05670b39\
                 57906267042542a417a63dd2e115617197c7351f3600220e120c2f79616d75782f312e302e30"
            )
        );
        assert_eq!(
            payload(Role::Initiator),
            hex(
                "0a240801122003a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b81240db\
                 a54aebc490a466780fb42426c90e105da09f950f5f9319498ee3b081cdba8c7d368532a220d93e291e\
                 4259bb3f47c5e42d5646e45de3c37f27bc3686f4e402220e120c2f79616d75782f312e302e30"
            )
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

    #[test]
    fn noise_06_message_1_has_no_payload_and_is_refused_by_its_length_alone() {
        for len in [0u16, 31, 33, 100, 65_535] {
            let error = failure(&mut responder(), &len.to_be_bytes());
            assert!(matches!(error, SecurityError::Malformed(_)), "{len}");
        }
    }

    #[test]
    fn noise_09_messages_2_and_3_too_short_for_keys_and_tags_are_refused_by_their_length() {
        for len in [0u16, 15, 95] {
            let mut side = initiator();
            answer(&mut side, &[]);
            let error = failure(&mut side, &len.to_be_bytes());
            assert!(matches!(error, SecurityError::Malformed(_)), "{len}");
        }
        for len in [0u16, 15, 63] {
            let mut side = responder();
            answer(&mut side, &hex(MESSAGE_1));
            let error = failure(&mut side, &len.to_be_bytes());
            assert!(matches!(error, SecurityError::Malformed(_)), "{len}");
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
        assert_eq!(side.advance(&mut wire, &mut out).err(), Some(SecurityError::Over));
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
    fn noise_11_ones_own_identity_is_accepted_here() {
        let responder = NoiseHandshake::new(
            Role::Responder,
            xx(Role::Responder),
            Arc::new(
                Identity::new(&initiator_keypair(), DhKey::from_secret(count_from(0x60)))
                    .expect("signs"),
            ),
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
    const OUTCOMES: [(&str, Outcome); 3] = [
        (MESSAGE_1, outcome_of_first),
        (MESSAGE_2, outcome_of_second),
        (MESSAGE_3, outcome_of_third),
    ];

    #[test]
    fn noise_23_a_flipped_bit_in_any_byte_of_any_message_fails() {
        for (number, (message, outcome)) in OUTCOMES.into_iter().enumerate() {
            let message = hex(message);
            assert!(outcome(&message).is_ok());
            for at in 0..message.len() {
                let mut flipped = message.clone();
                flipped[at] ^= 1 << (at % 8);
                match outcome(&flipped) {
                    Err(_) => {}
                    // A length that has grown waits for bytes, and fails when they come.
                    Ok((out, session)) => {
                        assert!(at < PREFIX_LEN && out.is_empty() && session.is_none());
                        flipped.resize(PREFIX_LEN + MESSAGE_LEN_MAX, 0);
                        assert!(outcome(&flipped).is_err(), "message {number}, byte {at}");
                    }
                }
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
    fn noise_21_records_behind_message_3_stay_in_the_wire() {
        let mut side = responder();
        answer(&mut side, &hex(MESSAGE_1));
        let mut wire = BytesMut::from(&[hex(MESSAGE_3), hex(HELLO)].concat()[..]);
        let (_, session) = advance(&mut side, &mut wire).expect("good");
        assert_eq!(wire, hex(HELLO));
        assert_opens(&mut session.expect("complete"), &mut wire, "hello");
    }

    #[test]
    fn low_order_points_in_messages_1_and_2_are_refused() {
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
    fn a_replayed_third_message_fails_for_a_fresh_ephemeral_key() {
        let mut side = responder();
        side.state = State::AwaitFirst(Box::new(Xx::new(
            &[],
            identity(Role::Responder).static_key,
            DhKey::from_secret(count_from(0x81)),
        )));
        answer(&mut side, &hex(MESSAGE_1));
        assert_eq!(failure(&mut side, &hex(MESSAGE_3)), SecurityError::Decrypt);
    }

    /// Message 2 of a responder whose channel is right but whose payload is `payload`.
    fn second_with(payload: &NoiseHandshakePayload) -> BytesMut {
        let mut xx = xx(Role::Responder);
        let their_ephemeral =
            xx.read_1(&mut BytesMut::from(&hex(MESSAGE_1)[2..])).expect("message 1");
        let mut out = BytesMut::new();
        let payload = payload.encode_to_vec();
        put_message(&mut out, |out| xx.write_2(&their_ephemeral, &payload, out)).expect("good");
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
        assert_eq!(failure_of_second(&bad), SecurityError::Signature);
        let mut long = vec![8, 1, 0x12, 33];
        long.extend([4; 33]);
        let bad = NoiseHandshakePayload { identity_key: Some(long), ..good };
        assert!(matches!(failure_of_second(&bad), SecurityError::IdentityKey(_)));
        let empty = NoiseHandshakePayload::default();
        assert!(matches!(failure_of_second(&empty), SecurityError::IdentityKey(_)));
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
        // Six bytes for the tag and length of the filler, and the longer lengths around it.
        let filler = MESSAGE_LEN_MAX - overhead - good.len() - 6;
        payload.extensions = Some(NoiseExtensions {
            webtransport_certhashes: vec![vec![0; filler]],
            stream_muxers: vec![YAMUX.to_string()],
        });
        payload
    }

    #[test]
    fn noise_14_a_second_message_of_the_greatest_length_is_read() {
        let message = second_with(&filling_payload(Role::Responder, MESSAGE_2_LEN_MIN));
        assert_eq!(message.len(), PREFIX_LEN + MESSAGE_LEN_MAX);
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
    fn an_offer_of_the_longest_names_fits_a_message() {
        let keypair = initiator_keypair();
        let noise = crate::Noise::new(&keypair).expect("randomness");
        let muxers: Vec<ProtocolId> = (0..200)
            .map(|i| ProtocolId::new(&format!("/{i:01022}")).expect("1023 bytes"))
            .collect();
        let start = |role| noise.start_handshake(role, None, &muxers).expect("randomness");
        let (a, b) = run(start(Role::Initiator), start(Role::Responder)).expect("good");
        assert_eq!(a.muxer.as_ref(), muxers.first());
        assert_eq!(b.muxer.as_ref(), muxers.first());
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
}
