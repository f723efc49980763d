//! Stream multiplexers of libp2p, and the task that drives one over any pipe.
//!
//! ```text
//!   your tasks                 one task                     the pipe
//!   MuxStream ─┐          ┌───────────────┐
//!   MuxStream ─┼─ Mutex ──┤    Driver     ├── Seal ──► AsyncWrite
//!   MuxStream ─┘ (MuxCore)└───────────────┘◄─ Open ─── AsyncRead
//! ```
//!
//! [`Yamux`] is a pure state machine ([`p2p_core::MuxCore`]): it has no socket, clock, task or
//! lock. The [`Driver`] is the future that moves bytes between it and a pipe; reading never waits
//! for writing. A stream that is not read holds at most its window; the peer gets credit when the
//! application reads, never on receipt.
//!
//! It deliberately has no secure channel: over a socket of your own, secure that first. Hosts
//! hand one in with [`Setup::sealed`].
//!
//! # On its own
//!
#![cfg_attr(feature = "yamux", doc = "```")]
#![cfg_attr(not(feature = "yamux"), doc = "```ignore")]
//! use p2p_core::Role;
//! use p2p_mux::{Yamux, connect};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! let (ours, theirs) = tokio::io::duplex(4096);
//! let (client, driver) = connect(ours, &Yamux::default(), Role::Initiator);
//! tokio::spawn(driver);
//! let (mut server, driver) = connect(theirs, &Yamux::default(), Role::Responder);
//! tokio::spawn(driver);
//!
//! let mut stream = client.open().await?;
//! stream.write_all(b"hello").await?;
//! stream.shutdown().await?;
//!
//! let mut text = String::new();
//! server.accept().await?.read_to_string(&mut text).await?;
//! assert_eq!(text, "hello");
//! # Ok(())
//! # }
//! ```
//!
//! # Memory
//!
//! A stream holds at most its receive window (256 KiB at first, [`Config::window_max`] at most)
//! and 16 KiB, however small the frames are that fill it, and 128 KiB of data to be sent. A
//! connection holds its streams, at most 1 MiB of data to be sent and 4 KiB for each stream, and
//! while data flow up to 128 KiB to receive into, 192 KiB to send from and eight received buffers
//! of 128 KiB that readers have yet to take. An idle connection releases its buffers.
//!
//! Over mplex, where nothing holds the peer back, a stream holds at most 8 MiB of received data
//! and 16 KiB, and all streams together 16 MiB and 16 KiB, by default and however small the frames
//! are; the rest is the same.
//!
//! # Features
//!
//! `yamux` (on by default): the `/yamux/1.0.0` multiplexer. Without it the crate is the driver
//! alone, for multiplexers of your own. `mplex` (off): the deprecated `/mplex/6.7.0`, `Mplex`, for
//! peers that know no other; it has no flow control.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::indexing_slicing))]
#![cfg_attr(
    not(feature = "yamux"),
    allow(rustdoc::broken_intra_doc_links, reason = "Yamux is a feature")
)]

mod blocks;
#[cfg(any(feature = "mplex", test))]
mod budget;
mod deadline;
mod driver;
mod handle;
mod ids;
#[cfg(any(feature = "mplex", test))]
pub mod mplex;
#[cfg(any(feature = "mplex", test))]
mod received;
mod shared;
#[cfg(any(feature = "mplex", test))]
mod unsent;
#[cfg(feature = "yamux")]
mod yamux;

pub use driver::{Driver, Prelude, Setup};
pub use handle::{Mux, MuxRecv, MuxSend, MuxStream, connect};
#[cfg(any(feature = "mplex", test))]
pub use mplex::Mplex;
#[cfg(feature = "yamux")]
pub use yamux::{Config, Yamux};
