//! The plaintext channel of libp2p, `/plaintext/2.0.0`: for tests, and for nothing else.
//!
//! ```text
//!   either side                                   the other
//!       │ ── length (varint), {id, public key} ────▶ │
//!       │ ◀─────────── length, {id, public key} ──── │
//!    the id must be the key's, and the one expected
//!       │ ◀═══════════ bytes as they are ══════════▶ │
//! ```
//!
//! # What it does not protect
//!
//! Anything. **The peer's identity is what the peer says**: public keys are public, so everybody
//! can say that they are anybody, and a dial to a peer id ends at whoever answers. Everybody on
//! the way can read, change, insert and cut. There is no signature, no encryption, no
//! authentication, no protection against replays. A host that accepts it accepts every attack.
//!
//! It is here so that what passes between two hosts can be looked at, and measured without the
//! cost of cryptography. [`Plaintext::dangerous_new`] is the one way to get it.
//!
//! There are two ways in:
//!
//! - [`handshake()`] runs the exchange over any `AsyncRead + AsyncWrite`, which is afterwards
//!   used as it is;
//! - [`Plaintext`] is a [`Security`](p2p_core::Security) provider without any I/O, for a host:
//!   `.security(|key| Ok(Plaintext::dangerous_new(key)))`.
//!
//! ```
//! use p2p_security_plaintext::{Keypair, Plaintext, handshake};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (alice, bob) = (Keypair::generate()?, Keypair::generate()?);
//! let bob_id = bob.public().peer_id();
//! let (a, b) = tokio::io::duplex(1024);
//!
//! let (plain_a, plain_b) = (Plaintext::dangerous_new(&alice), Plaintext::dangerous_new(&bob));
//! let (dialed, accepted) = tokio::join!(
//!     handshake(a, &plain_a, Some(&bob_id)),
//!     handshake(b, &plain_b, None),
//! );
//! let ((mut to_bob, _), (mut to_alice, claimed)) = (dialed?, accepted?);
//! assert_eq!(claimed, alice.public());
//!
//! to_bob.write_all(b"hello, everybody").await?;
//! to_bob.shutdown().await?;
//! let mut heard = String::new();
//! to_alice.read_to_string(&mut heard).await?;
//! assert_eq!(heard, "hello, everybody");
//! # Ok(())
//! # }
//! ```
//!
//! # Limits
//!
//! A peer can make this side hold [`MESSAGE_LEN_MAX`] bytes and their length. There is no clock:
//! whoever runs a handshake limits its time. There are no cargo features.
//!
//! # Specification
//!
//! libp2p/specs `plaintext/README.md`.

#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

mod exchange;
mod io;
mod plaintext;
#[rustfmt::skip]
#[allow(unreachable_pub, unnameable_types, clippy::exhaustive_structs, reason = "generated from proto/plaintext.proto")]
mod proto;

pub use exchange::MESSAGE_LEN_MAX;
pub use io::{HandshakeError, handshake};
pub use p2p_core::{Keypair, PeerId, PublicKey, SecurityError};
pub use plaintext::Plaintext;
