//! The Noise secure channel of libp2p: `Noise_XX_25519_ChaChaPoly_SHA256`, negotiated as `/noise`.
//!
//! Two peers that know nothing of each other but, on the dialing side, a peer id, get an
//! encrypted channel and the proof of who is at its other end.
//!
//! ```text
//!   initiator                                          responder
//!       │ ── 1: e ─────────────────────────────────────────▶ │
//!       │ ◀─ 2: e, ee, s, es, {identity, signature, muxers} ─ │
//!    checks identity and expected peer id                     │
//!       │ ── 3: s, se, {identity, signature, muxers} ──────▶ │
//!       │                                          checks identity
//!       │ ◀═ records: length (2 bytes), ciphertext, tag ═══▶ │
//! ```
//!
//! There are two ways in:
//!
//! - [`handshake()`] takes any `AsyncRead + AsyncWrite` and gives an encrypted [`NoiseStream`];
//! - [`Noise`] is a [`Security`](p2p_core::Security) provider without any I/O, which a host or a
//!   driver of your own feeds with bytes.
//!
//! ```
//! use p2p_security_noise::{Keypair, Noise, Role, handshake};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (alice, bob) = (Keypair::generate()?, Keypair::generate()?);
//! let bob_id = bob.public().peer_id();
//! let (a, b) = tokio::io::duplex(1024);
//!
//! let (noise_a, noise_b) = (Noise::new(&alice)?, Noise::new(&bob)?);
//! let (dialed, accepted) = tokio::join!(
//!     handshake(a, &noise_a, Role::Initiator, Some(&bob_id)),
//!     handshake(b, &noise_b, Role::Responder, None),
//! );
//! let ((mut to_bob, _), (mut to_alice, who)) = (dialed?, accepted?);
//! assert_eq!(who, alice.public());
//!
//! to_bob.write_all(b"hello").await?;
//! to_bob.shutdown().await?;
//! let mut heard = String::new();
//! to_alice.read_to_string(&mut heard).await?;
//! assert_eq!(heard, "hello");
//! # Ok(())
//! # }
//! ```
//!
//! It serves alone: nothing else of `p2p` is needed, only a byte stream. `examples/chat.rs` is two
//! people who chat over TCP, with this crate and tokio's sockets:
//!
//! ```text
//! cargo run -p p2p-security-noise --example chat -- listen 127.0.0.1:4001
//! ```
//!
//! # What it deliberately is not
//!
//! - No other pattern than XX, no fallback, no rekeying, no padding: libp2p defines none.
//! - No goodbye: Noise has no close message, so the end of the stream between two records may
//!   be the peer's close or an attacker's cut. The protocol above must know its own end.
//! - No clock: whoever runs a handshake limits its time (10 to 15 seconds are usual).
//! - No check against dialing oneself: one's own identity is as valid as any other here; a host
//!   refuses it (NOISE-11).
//! - No WebTransport certificate hashes: they are skipped when received.
//!
//! # Limits
//!
//! All of them are constants in [`limits`].
//!
//! # Features
//!
//! None is on by default, and none changes what the crate does: they make implementations of the
//! cipher available as values for [`Noise::with_cipher`]; see [`cipher`].
//!
//! | feature | brings | needs |
//! |---|---|---|
//! | `ring` | `cipher::Cipher::RING` | a C compiler |
//! | `aws-lc-rs` | `cipher::Cipher::AWS_LC` | a C compiler |
//! | `openssl` | `cipher::Cipher::OPENSSL` | the system's OpenSSL, with its headers to build |
//!
//! # Specification
//!
//! libp2p/specs `noise/README.md` and `connections/inlined-muxer-negotiation.md`; the Noise
//! Protocol Framework, revision 34.

#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

pub mod cipher;
mod fields;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod handshake;
mod io;
pub mod limits;
mod noise;
mod payload;
#[rustfmt::skip]
#[allow(unreachable_pub, unnameable_types, clippy::exhaustive_structs, dead_code, reason = "generated from proto/noise.proto")]
mod proto;
mod record;
mod symmetric;
mod verified;
mod xx;

pub use io::{HandshakeError, NoiseStream, handshake};
pub use noise::Noise;
pub use p2p_core::{Keypair, PeerId, PublicKey, Role, SecurityError};
