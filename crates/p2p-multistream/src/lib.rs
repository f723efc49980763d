//! multistream-select 1.0.0: how two libp2p peers agree on the protocol that they speak next, on a
//! new connection, on a secured one and on every new stream.
//!
//! ```text
//!   Initiator                                   Responder
//!     │  /multistream/1.0.0   /yamux/2.0.0         │
//!     │ ─────────────────────────────────────────► │
//!     │            /multistream/1.0.0   na         │
//!     │ ◄───────────────────────────────────────── │
//!     │  /yamux/1.0.0                              │
//!     │ ─────────────────────────────────────────► │
//!     │                       /yamux/1.0.0         │
//!     │ ◄───────────────────────────────────────── │
//!     ▼            agreed: /yamux/1.0.0            ▼
//! ```
//!
//! Each message is a varint length, a text and a newline, at most [`MESSAGE_LEN_MAX`] bytes.
//!
//! Two ways to use it:
//!
//! - [`initiate`] and [`respond`] negotiate over any tokio stream, and take not one byte more than
//!   the negotiation from it (MSS-07);
//! - [`Initiator`] and [`Responder`] are the same as state machines over buffers, for those who
//!   own the buffer, or who send data before the answer is there (see [`Initiator`]).
//!
//! ```
//! use p2p_core::ProtocolId;
//!
//! const YAMUX: ProtocolId = ProtocolId::from_static("/yamux/1.0.0");
//! const MPLEX: ProtocolId = ProtocolId::from_static("/mplex/6.7.0");
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), p2p_multistream::NegotiationError> {
//! let (mut dialer, mut listener) = tokio::io::duplex(1024);
//! let (proposed, answered) = tokio::join!(
//!     p2p_multistream::initiate(&mut dialer, [MPLEX, YAMUX]),
//!     p2p_multistream::respond(&mut listener, |name| name == "/yamux/1.0.0"),
//! );
//! assert_eq!(proposed?, YAMUX);
//! assert_eq!(answered?, YAMUX);
//! # Ok(())
//! # }
//! ```
//!
//! It has no clock: whoever negotiates limits the time (10 seconds are usual, MSS-34) and, when
//! that is over, drops the stream.
//!
//! Deliberately absent: `ls` and `/libp2p/simultaneous-connect` are answered `na` (MSS-31,
//! MSS-32), and nothing here asks for them.

#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

mod error;
mod initiator;
mod message;
mod negotiate;
mod responder;

pub use error::{ClosedAt, NegotiationError};
pub use initiator::Initiator;
pub use message::MESSAGE_LEN_MAX;
pub use negotiate::{initiate, respond};
pub use responder::{PROPOSALS_MAX, Responder};
