//! The two negotiation machines, alone and against each other.

use std::{collections::VecDeque, mem};

use bytes::BytesMut;
use p2p_core::ProtocolId;
use p2p_multistream::{Initiator, MESSAGE_LEN_MAX, NegotiationError, PROPOSALS_MAX, Responder};

use crate::input::Input;

/// What may be proposed and supported.
const NAMES: [ProtocolId; 4] = [
    ProtocolId::from_static("/noise"),
    ProtocolId::from_static("/yamux/1.0.0"),
    ProtocolId::from_static("/a"),
    ProtocolId::from_static("/ipfs/ping/1.0.0"),
];
/// Stands in `out` before a machine appends to it, and must stay.
const BEFORE: &[u8] = b"before";
/// A whole message, the longest, with its prefix.
const WIRE_LEN_MAX: usize = 2 + MESSAGE_LEN_MAX;
const HEADER: &[u8] = b"\x13/multistream/1.0.0\n";

/// Either machine.
enum Negotiator<'a> {
    Initiator(Initiator),
    Responder(Responder, &'a dyn Fn(&str) -> bool),
}

/// A machine with what it has heard and said.
struct Machine<'a> {
    negotiator: Negotiator<'a>,
    wire: BytesMut,
    said: Vec<u8>,
    taken: usize,
    wanted: usize,
    outcome: Result<Option<ProtocolId>, NegotiationError>,
}

impl<'a> Machine<'a> {
    fn initiator(names: &[ProtocolId]) -> Self {
        let initiator = Initiator::new(names.iter().cloned()).expect("at least one name");
        Self::new(Negotiator::Initiator(initiator))
    }

    fn responder(supports: &'a dyn Fn(&str) -> bool) -> Self {
        Self::new(Negotiator::Responder(Responder::new(), supports))
    }

    fn new(negotiator: Negotiator<'a>) -> Self {
        let mut machine = Self {
            negotiator,
            wire: BytesMut::new(),
            said: Vec::new(),
            taken: 0,
            wanted: 0,
            outcome: Ok(None),
        };
        machine.hear(&[]);
        machine
    }

    fn is_over(&self) -> bool {
        !matches!(self.outcome, Ok(None))
    }

    fn hear(&mut self, bytes: &[u8]) {
        self.wire.extend_from_slice(bytes);
        let before = self.wire.clone();
        let mut out = BytesMut::from(BEFORE);
        let wire = &mut self.wire;
        let (outcome, wanted, end) = match &mut self.negotiator {
            Negotiator::Initiator(machine) => {
                (machine.advance(wire, &mut out), machine.wanted(wire), machine.handle_end())
            }
            Negotiator::Responder(machine, supports) => {
                let outcome = machine.advance(wire, &mut out, &mut |name| supports(name));
                (outcome, machine.wanted(wire), machine.handle_end())
            }
        };
        assert!(!end.to_string().is_empty());
        let said = out.strip_prefix(BEFORE).expect("what was in `out` stays");
        assert!(before.ends_with(&self.wire), "takes from the front only");
        self.taken += before.len() - self.wire.len();
        if self.is_over() {
            assert!(said.is_empty() && before == self.wire, "nothing happens after the end");
            assert_eq!(kind(&outcome), kind(&self.outcome));
        }
        self.said.extend_from_slice(said);
        self.wanted = wanted;
        self.outcome = outcome;
        if self.is_over() {
            assert_eq!(self.wanted, 0);
        } else {
            assert!((1..=WIRE_LEN_MAX).contains(&self.wanted));
            assert!(self.wire.len() < WIRE_LEN_MAX, "no more than one message waits");
        }
    }

    /// Hears what `wire` holds as a reader does that takes no byte too many: at most `wanted` at a
    /// time. Gives what is left.
    fn hear_wanted<'b>(&mut self, mut wire: &'b [u8], input: &mut Input) -> &'b [u8] {
        while !self.is_over() && !wire.is_empty() {
            let most = self.wanted.min(wire.len());
            let count = if input.flag() { 1 + input.below(most) } else { most };
            let (now, later) = wire.split_at(count);
            self.hear(now);
            wire = later;
        }
        if matches!(self.outcome, Ok(Some(_))) {
            assert!(self.wire.is_empty(), "bytes behind the negotiation were wanted");
        }
        wire
    }
}

/// What can be compared of an outcome: the text of an error depends on how much was there.
fn kind(
    outcome: &Result<Option<ProtocolId>, NegotiationError>,
) -> (Option<&ProtocolId>, Option<mem::Discriminant<NegotiationError>>) {
    match outcome {
        Ok(protocol) => (protocol.as_ref(), None),
        Err(error) => (None, Some(mem::discriminant(error))),
    }
}

/// Messages as a peer sends them, or nearly, and whatever follows.
fn script(input: &mut Input) -> Vec<u8> {
    let mut wire = Vec::new();
    while !input.is_empty() {
        match input.below(8) {
            0 => wire.extend(HEADER),
            1 => wire.extend(b"\x03na\n"),
            2 => put(&mut wire, NAMES[input.below(NAMES.len())].as_str().as_bytes()),
            3 => put(&mut wire, input.bytes()),
            4 => put(&mut wire, b"ls"),
            5 => {
                let len = input.u16() % 1100;
                put(&mut wire, &vec![b'/'; len.into()]);
            }
            6 => wire.extend(input.bytes()),
            _ => wire.extend(input.rest()),
        }
    }
    wire
}

/// A message of any length: within the limits, and above.
fn put(wire: &mut Vec<u8>, text: &[u8]) {
    p2p_core::varint::encode(text.len() as u64 + 1, wire);
    wire.extend(text);
    wire.push(b'\n');
}

/// Bytes read as `wanted` says and bytes given all at once lead to the same end, with the same
/// answers, and with the same bytes left.
fn check_reading<'a>(
    make: impl Fn() -> Machine<'a>,
    input: &mut Input,
    wire: &[u8],
) -> Machine<'a> {
    let mut careful = make();
    let left = careful.hear_wanted(wire, input).len();
    let mut hasty = make();
    hasty.hear(wire);
    hasty.hear(&[]);
    assert_eq!(kind(&careful.outcome), kind(&hasty.outcome));
    if careful.outcome.is_ok() {
        assert_eq!(careful.said, hasty.said);
        assert_eq!(left + careful.wire.len(), hasty.wire.len());
        assert_eq!(careful.taken, hasty.taken);
    }
    careful
}

/// An initiator against any peer: it agrees only on what it has proposed and the peer has echoed,
/// and takes nothing that follows.
pub fn multistream_initiator(data: &[u8]) {
    let mut input = Input::new(data);
    let first = input.below(NAMES.len());
    let names = &NAMES[first..first + 1 + input.below(NAMES.len() - first)];
    let reading = input.bytes();
    let wire = script(&mut input);
    let end = check_reading(|| Machine::initiator(names), &mut Input::new(reading), &wire);
    assert!(end.said.starts_with(HEADER));
    if let Ok(Some(protocol)) = end.outcome {
        assert!(names.contains(&protocol));
        let mut echo = Vec::new();
        put(&mut echo, protocol.as_str().as_bytes());
        assert!(wire.get(..end.taken).is_some_and(|taken| taken.ends_with(&echo)));
        assert!(end.said.ends_with(&echo));
    }
}

/// A responder against any peer: it agrees only on what was proposed and is supported, answers every
/// proposal once, and takes nothing that follows.
pub fn multistream_responder(data: &[u8]) {
    let mut input = Input::new(data);
    let supported = input.byte();
    let supports = |name: &str| {
        NAMES
            .iter()
            .position(|known| known.as_str() == name)
            .is_some_and(|i| supported >> i & 1 == 1)
    };
    let reading = input.bytes();
    let wire = script(&mut input);
    let end = check_reading(|| Machine::responder(&supports), &mut Input::new(reading), &wire);
    let agreed = if matches!(end.outcome, Ok(Some(_))) { WIRE_LEN_MAX } else { 0 };
    assert!(end.said.len() <= HEADER.len() + 4 * PROPOSALS_MAX + agreed, "too many answers");
    if let Ok(Some(protocol)) = end.outcome {
        assert!(supports(protocol.as_str()));
        let mut echo = Vec::new();
        put(&mut echo, protocol.as_str().as_bytes());
        assert!(end.said.ends_with(&echo));
        assert!(wire.get(..end.taken).is_some_and(|taken| taken.ends_with(&echo)));
    }
}

/// Both machines over a pipe that cuts: they agree on the first name in common, or both know that
/// there is none, and what follows the negotiation arrives whole.
pub fn multistream_pair(data: &[u8]) {
    let mut input = Input::new(data);
    let supported = input.byte();
    let supports = |name: &ProtocolId| {
        NAMES.iter().position(|known| known == name).is_some_and(|i| supported >> i & 1 == 1)
    };
    let unknown = ProtocolId::from_static("/unknown");
    let mut names: Vec<ProtocolId> = vec![unknown; input.below(70)];
    names.extend((0..input.below(4)).map(|_| NAMES[input.below(NAMES.len())].clone()));
    if names.is_empty() {
        names.push(NAMES[0].clone());
    }
    let common = names.iter().take(PROPOSALS_MAX).find(|name| supports(name)).cloned();
    let payload: &[u8] = b"\x07/noise\nand more";

    let mut initiator = Machine::initiator(&names);
    let supported_name =
        |name: &str| NAMES.iter().any(|known| known.as_str() == name && supports(known));
    let mut responder = Machine::responder(&supported_name);
    let (mut forth, mut back) = (VecDeque::new(), VecDeque::new());
    let mut paid = false;
    loop {
        forth.extend(mem::take(&mut initiator.said));
        back.extend(mem::take(&mut responder.said));
        if !paid && matches!(initiator.outcome, Ok(Some(_))) {
            forth.extend(payload);
            paid = true;
        }
        let moved = step(&mut responder, &mut forth, &mut input)
            | step(&mut initiator, &mut back, &mut input);
        if !moved {
            break;
        }
    }
    match (initiator.outcome, responder.outcome) {
        (Ok(Some(ours)), Ok(Some(theirs))) => {
            assert_eq!(ours, theirs);
            assert_eq!(Some(ours), common);
            assert!(forth == payload && back.is_empty());
        }
        (Err(NegotiationError::Unsupported { proposed }), Ok(None)) => {
            assert!(common.is_none() && proposed == names && names.len() <= PROPOSALS_MAX);
        }
        (Ok(None), Err(NegotiationError::TooManyProposals(_))) => {
            assert!(common.is_none() && names.len() > PROPOSALS_MAX);
        }
        (ours, theirs) => panic!("{ours:?} and {theirs:?}"),
    }
}

/// Moves some of what is on its way to a machine that still wants it.
fn step(to: &mut Machine, pipe: &mut VecDeque<u8>, input: &mut Input) -> bool {
    if to.is_over() || pipe.is_empty() {
        return false;
    }
    let most = to.wanted.min(pipe.len());
    let count = if input.flag() { 1 + input.below(most) } else { most };
    let bytes: Vec<u8> = pipe.drain(..count).collect();
    to.hear(&bytes);
    true
}
