use std::sync::LazyLock;

use bytes::BytesMut;
use p2p_core::{
    Handshake, Keypair, Opened, PeerId, ProtocolId, PublicKey, Role, Security, SecurityError,
    Session,
};
use p2p_security_noise::{
    Noise,
    limits::{HANDSHAKE_RECEIVED_LEN_MAX, MESSAGE_LEN_MAX},
};

use crate::input::Input;

const MUXERS: [ProtocolId; 2] =
    [ProtocolId::from_static("/yamux/1.0.0"), ProtocolId::from_static("/mplex/6.7.0")];
/// Stands in `out` before a handshake appends to it, and must stay.
const BEFORE: &[u8] = b"before";

/// One side's identity, with the static key that stays the same for all handshakes.
struct Host {
    keypair: Keypair,
    noise: Noise,
}

impl Host {
    fn new(seed: u8) -> Self {
        let keypair = Keypair::from_ed25519_seed(&[seed; 32]);
        let noise = Noise::new(&keypair).expect("randomness");
        Self { keypair, noise }
    }

    fn peer_id(&self) -> PeerId {
        self.keypair.public().peer_id()
    }
}

static INITIATOR: LazyLock<Host> = LazyLock::new(|| Host::new(1));
static RESPONDER: LazyLock<Host> = LazyLock::new(|| Host::new(2));
static STRANGER: LazyLock<Host> = LazyLock::new(|| Host::new(3));

/// The three messages of another handshake between the same two.
static OTHER_RUN: LazyLock<[Vec<u8>; 3]> = LazyLock::new(|| {
    let setup = || Setup { expected: None, muxers: MUXERS.to_vec() };
    let mut initiator = Side::new(&INITIATOR, &RESPONDER, Role::Initiator, setup());
    let mut responder = Side::new(&RESPONDER, &INITIATOR, Role::Responder, setup());
    let first = initiator.hear(&[], &[]);
    let second = responder.hear(&first, &first);
    let third = initiator.hear(&second, &second);
    [first, second, third]
});

/// An initiator and a responder with somebody between them, who changes, cuts, replaces, replays or
/// adds to their messages.
///
/// A side that completes has heard exactly what the other has said, and names that other; one that
/// fails adds nothing to `out` and stays failed; without a change both complete, unless they must
/// not; no side takes more bytes than the limit that is stated.
pub fn noise_handshake(data: &[u8]) {
    let mut input = Input::new(data);
    let ours = Setup::read(&mut input, &RESPONDER);
    let theirs = Setup::read(&mut input, &INITIATOR);
    let right = |setup: &Setup, peer: &Host| setup.expected.is_none_or(|id| id == peer.peer_id());
    let agreed = agreed(&ours.muxers, &theirs.muxers);
    let fits = right(&ours, &RESPONDER) && right(&theirs, &INITIATOR) && agreed.is_ok();
    let mut initiator = Side::new(&INITIATOR, &RESPONDER, Role::Initiator, ours);
    let mut responder = Side::new(&RESPONDER, &INITIATOR, Role::Responder, theirs);

    initiator.hear(&[], &[]);
    let mut untouched = true;
    for number in 0..3 {
        let (from, to) = match number {
            1 => (&responder, &mut initiator),
            _ => (&initiator, &mut responder),
        };
        let honest = from.messages.get(number / 2).cloned().unwrap_or_default();
        let tampered = tamper(&mut input, &honest, number);
        untouched &= tampered == honest;
        let said = from.said.clone();
        for piece in input.cut(&tampered) {
            to.hear(piece, &said);
        }
    }
    let mut sessions = (initiator.session.take(), responder.session.take());
    if untouched {
        assert_eq!(fits, sessions.0.is_some() && sessions.1.is_some());
    }
    if let (Some(ours), Some(theirs)) = (&mut sessions.0, &mut sessions.1) {
        assert_eq!(Ok(&ours.muxer), agreed.as_ref());
        assert_eq!(ours.muxer, theirs.muxer);
        assert!(exchange(ours, theirs) && exchange(theirs, ours));
    }
}

/// The first of the initiator's that the responder has too.
fn agreed(ours: &[ProtocolId], theirs: &[ProtocolId]) -> Result<Option<ProtocolId>, ()> {
    if ours.is_empty() || theirs.is_empty() {
        return Ok(None);
    }
    ours.iter().find(|our| theirs.contains(our)).map(|muxer| Some(muxer.clone())).ok_or(())
}

/// Whether what one side seals arrives at the other.
fn exchange(from: &mut Session, to: &mut Session) -> bool {
    let mut wire = BytesMut::new();
    from.seal.seal(&mut &b"hello"[..], &mut wire).is_ok()
        && matches!(to.open.open(&mut wire), Ok(Opened::Record(plain)) if plain == "hello")
}

/// What a side is started with.
struct Setup {
    expected: Option<PeerId>,
    muxers: Vec<ProtocolId>,
}

impl Setup {
    fn read(input: &mut Input, peer: &Host) -> Self {
        let bits = input.byte();
        let expected = match bits & 3 {
            0 | 1 => None,
            2 => Some(peer.peer_id()),
            _ => Some(STRANGER.peer_id()),
        };
        let mut muxers: Vec<ProtocolId> =
            (0..2).filter(|i| bits >> (2 + i) & 1 == 1).map(|i| MUXERS[i].clone()).collect();
        if bits & 0x10 != 0 {
            muxers.reverse();
        }
        Self { expected, muxers }
    }
}

/// Changes a message in as many ways as the input says.
fn tamper(input: &mut Input, honest: &[u8], number: usize) -> Vec<u8> {
    let mut wire = honest.to_vec();
    for _ in 0..input.below(4) {
        let at = input.below(wire.len() + 1);
        match input.below(10) {
            0 | 1 => {
                let bit = 1 << input.below(8);
                if let Some(byte) = wire.get_mut(at) {
                    *byte ^= bit;
                }
            }
            2 => wire.truncate(at),
            3 => wire.clone_from(&OTHER_RUN[number]),
            4 => {
                let replayed = OTHER_RUN[input.below(3)].clone();
                wire.splice(at..at, replayed);
            }
            5 => {
                wire.splice(at..at, input.bytes().to_vec());
            }
            6 => {
                // A frame that is well-formed and holds anything.
                let body = input.bytes();
                wire = [&[0, body.len().to_le_bytes()[0]], body].concat();
            }
            7 => {
                // As long as the prefix can say.
                let len = input.u16();
                wire = len.to_be_bytes().to_vec();
                wire.resize(2 + usize::from(len), input.byte());
            }
            8 => wire.rotate_left(at),
            _ => wire.extend_from_within(at..),
        }
    }
    wire
}

/// One side of the handshake and what it has heard and said.
struct Side {
    handshake: Box<dyn Handshake>,
    role: Role,
    peer: PublicKey,
    expected: Option<PeerId>,
    wire: BytesMut,
    heard: Vec<u8>,
    /// Everything it has said, and each message of that.
    said: Vec<u8>,
    messages: Vec<Vec<u8>>,
    over: bool,
    session: Option<Session>,
}

impl Side {
    fn new(host: &Host, peer: &Host, role: Role, setup: Setup) -> Self {
        let handshake =
            host.noise.start(role, setup.expected.as_ref(), &setup.muxers).expect("randomness");
        Self {
            handshake,
            role,
            peer: peer.keypair.public(),
            expected: setup.expected,
            wire: BytesMut::new(),
            heard: Vec::new(),
            said: Vec::new(),
            messages: Vec::new(),
            over: false,
            session: None,
        }
    }

    /// Takes bytes from the wire, given everything that the other side has really said. Gives the
    /// answer.
    fn hear(&mut self, bytes: &[u8], said_to_it: &[u8]) -> Vec<u8> {
        self.wire.extend_from_slice(bytes);
        self.heard.extend_from_slice(bytes);
        let before = self.wire.to_vec();
        let capacity = self.wire.capacity();
        let mut out = BytesMut::from(BEFORE);
        let outcome = self.handshake.advance(&mut self.wire, &mut out);
        let answer = out.strip_prefix(BEFORE).expect("what was in `out` stays").to_vec();
        assert!(before.ends_with(&self.wire), "takes from the front only");
        assert!(self.wire.capacity() <= capacity, "the buffer has grown");
        if self.over {
            assert!(matches!(outcome, Err(SecurityError::IllegalMove { .. })));
            assert!(self.wire == before, "nothing is taken after the end");
        }
        match outcome {
            Ok(None) => {
                assert!(self.wire.len() < 2 + MESSAGE_LEN_MAX, "no more than a message waits");
                assert!(self.heard.len() < HANDSHAKE_RECEIVED_LEN_MAX);
            }
            Ok(Some(session)) => {
                let taken = &self.heard[..self.heard.len() - self.wire.len()];
                assert_eq!(taken, said_to_it, "completed with a message that was changed");
                assert!(taken.len() <= HANDSHAKE_RECEIVED_LEN_MAX);
                assert_eq!(session.peer, self.peer);
                assert!(self.expected.is_none_or(|id| id == session.peer.peer_id()));
                assert_eq!(answer.is_empty(), self.role == Role::Responder);
                self.over = true;
                self.session = Some(session);
            }
            Err(error) => {
                assert!(answer.is_empty(), "a failure says nothing");
                assert!(!error.to_string().is_empty());
                self.over = true;
            }
        }
        if !answer.is_empty() {
            self.said.extend_from_slice(&answer);
            self.messages.push(answer.clone());
        }
        answer
    }
}
