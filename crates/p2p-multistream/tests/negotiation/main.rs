//! The points of `conformance/02-multistream-select.md`, by their ids.

mod machines;
mod streams;

use bytes::BytesMut;
use p2p_core::ProtocolId;
use p2p_multistream::{Initiator, NegotiationError, Responder};

const NOISE: ProtocolId = ProtocolId::from_static("/noise");
const TLS: ProtocolId = ProtocolId::from_static("/tls/1.0.0");
const YAMUX: ProtocolId = ProtocolId::from_static("/yamux/1.0.0");
const MPLEX: ProtocolId = ProtocolId::from_static("/mplex/6.7.0");
const ID: ProtocolId = ProtocolId::from_static("/ipfs/id/1.0.0");
const PING: ProtocolId = ProtocolId::from_static("/ipfs/ping/1.0.0");

/// The vectors of the catalogue.
const HEADER: &str = "132f6d756c746973747265616d2f312e302e300a";
const NA: &str = "036e610a";
const LS: &str = "036c730a";
const NAMES: [(ProtocolId, &str); 6] = [
    (NOISE, "072f6e6f6973650a"),
    (TLS, "0b2f746c732f312e302e300a"),
    (YAMUX, "0d2f79616d75782f312e302e300a"),
    (MPLEX, "0d2f6d706c65782f362e372e300a"),
    (ID, "0f2f697066732f69642f312e302e300a"),
    (PING, "112f697066732f70696e672f312e302e300a"),
];

/// Malformed messages, and what is wrong with each.
const MUST_FAIL: [(&str, &str); 8] = [
    ("00", "Empty"),
    ("036e6161", "NoNewline"),
    ("81802f", "Varint"),
    ("8300", "Varint"),
    ("83006e610a", "Varint"),
    ("ffffffffffffffffff01", "Varint"),
    ("8108", "MessageLen"),
    ("03ff610a", "NotUtf8"),
];

type Outcome = Result<Option<ProtocolId>, NegotiationError>;

fn hex(text: &str) -> Vec<u8> {
    (0..text.len() / 2)
        .map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).expect("hex"))
        .collect()
}

/// A message on the wire.
fn msg(text: &str) -> Vec<u8> {
    let mut wire = Vec::new();
    p2p_core::varint::encode(text.len() as u64 + 1, &mut wire);
    wire.extend_from_slice(text.as_bytes());
    wire.push(b'\n');
    wire
}

/// The header and then these messages on the wire.
fn flight(texts: &[&str]) -> Vec<u8> {
    let mut wire = hex(HEADER);
    texts.iter().for_each(|text| wire.extend(msg(text)));
    wire
}

/// The longest name there is: a message of exactly 1024 bytes.
fn longest() -> ProtocolId {
    ProtocolId::new(&format!("/{}", "x".repeat(1022))).expect("1023 bytes")
}

/// The name of an error's variant.
fn variant(error: &NegotiationError) -> String {
    assert!(!error.to_string().is_empty());
    format!("{error:?}").split(['(', ' ', '{']).next().expect("never empty").to_owned()
}

/// Either machine, so that a test can be about both.
enum Machine {
    Initiator(Initiator),
    Responder(Responder, ProtocolId),
}

impl Machine {
    fn initiator(protocols: &[ProtocolId]) -> Self {
        Self::Initiator(Initiator::new(protocols.iter().cloned()).expect("not empty"))
    }

    /// Supports one protocol.
    fn responder(protocol: ProtocolId) -> Self {
        Self::Responder(Responder::new(), protocol)
    }

    fn advance(&mut self, wire: &mut BytesMut, out: &mut BytesMut) -> Outcome {
        match self {
            Self::Initiator(machine) => machine.advance(wire, out),
            Self::Responder(machine, supported) => {
                machine.advance(wire, out, &mut |name| name == supported.as_str())
            }
        }
    }

    fn wanted(&self, buffered: &[u8]) -> usize {
        match self {
            Self::Initiator(machine) => machine.wanted(buffered),
            Self::Responder(machine, _) => machine.wanted(buffered),
        }
    }

    /// Gives it `input` in chunks of `size`, and returns how it ends, what it sends and what it
    /// leaves of the input.
    fn feed(&mut self, input: &[u8], size: usize) -> (Outcome, BytesMut, BytesMut) {
        let (mut wire, mut out) = (BytesMut::new(), BytesMut::new());
        let mut outcome = self.advance(&mut wire, &mut out);
        for chunk in input.chunks(size) {
            wire.extend_from_slice(chunk);
            if matches!(outcome, Ok(None)) {
                outcome = self.advance(&mut wire, &mut out);
            }
        }
        (outcome, out, wire)
    }
}

/// xorshift64: small, and the same on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).expect("less than a usize")
    }
}
