//! What the fuzzers of this project run: one function for each decoder and state machine that takes
//! bytes from the wire, from a file or from a user, and one for two whole hosts and what lies
//! between them.
//!
//! ```text
//!   fuzz/fuzz_targets/NAME.rs ──► NAME(data) ◄── tests/replay.rs ◄── fuzz/{corpus,regressions}/NAME/
//! ```
//!
//! A target panics when a property does not hold; its documentation says which ones those are.
//! [`TARGETS`] names them all. `fuzz/` is the cargo-fuzz package that searches for inputs; the test
//! `replay` runs what was found there in every plain test run.
//!
//! A new target is a function here, a line in [`TARGETS`], and in `fuzz/` a file in
//! `fuzz_targets`, a `[[bin]]` and a corpus. The replay fails while one of them is missing.

mod connection;
mod host;
mod input;
mod multistream;
mod mux;
mod noise;
mod pipe;
mod plaintext;
mod pnet;
mod protobuf;
mod signed;
mod vocabulary;

pub use connection::connection;
pub use host::{dial_target, identify, key_file};
pub use multistream::{multistream_initiator, multistream_pair, multistream_responder};
pub use mux::{mplex_pair, mplex_session, yamux_pair, yamux_session};
pub use noise::{noise_handshake, noise_payload, noise_record};
pub use plaintext::plaintext_handshake;
pub use pnet::{pnet_key_file, pnet_stream};
pub use signed::{envelope, peer_record};
pub use vocabulary::{
    multiaddr_bytes, multiaddr_text, peer_id_bytes, peer_id_text, private_key, private_key_pem,
    protocol_id, public_key, varint,
};

/// Every target with its name, which is that of its corpus.
#[expect(clippy::type_complexity, reason = "two words a line, and no word for them")]
pub const TARGETS: &[(&str, fn(&[u8]))] = &[
    ("connection", connection),
    ("dial_target", dial_target),
    ("envelope", envelope),
    ("identify", identify),
    ("key_file", key_file),
    ("mplex_pair", mplex_pair),
    ("mplex_session", mplex_session),
    ("multiaddr_bytes", multiaddr_bytes),
    ("multiaddr_text", multiaddr_text),
    ("multistream_initiator", multistream_initiator),
    ("multistream_pair", multistream_pair),
    ("multistream_responder", multistream_responder),
    ("noise_handshake", noise_handshake),
    ("noise_payload", noise_payload),
    ("noise_record", noise_record),
    ("peer_id_bytes", peer_id_bytes),
    ("peer_id_text", peer_id_text),
    ("peer_record", peer_record),
    ("plaintext_handshake", plaintext_handshake),
    ("pnet_key_file", pnet_key_file),
    ("pnet_stream", pnet_stream),
    ("private_key", private_key),
    ("private_key_pem", private_key_pem),
    ("protocol_id", protocol_id),
    ("public_key", public_key),
    ("varint", varint),
    ("yamux_pair", yamux_pair),
    ("yamux_session", yamux_session),
];
