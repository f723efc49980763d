//! Stream multiplexers of libp2p, and the task that drives one over any pipe.
//!
//! ```text
//!   your tasks                 one task                     the pipe
//!   MuxStream ─┐          ┌───────────────┐
//!   MuxStream ─┼─ Mutex ──┤    Driver     ├── Seal ──► AsyncWrite   which a task that writes in
//!   MuxStream ─┘ (MuxCore)└───────────────┘◄─ Open ─── AsyncRead    bulk uses itself meanwhile
//! ```
//!
//! [`Yamux`] is a pure state machine ([`p2p_core::MuxCore`]): it has no socket, clock, task or
//! lock. The [`Driver`] is the future that moves bytes between it and a pipe; reading never waits
//! for writing. A stream that is not read holds at most its window; the peer gets credit when the
//! application reads, never on receipt.
//!
//! One task serves a connection. A task of yours that writes much, or finds no room, seals and sends
//! what is queued itself as far as the pipe takes it, so that the two directions are on two cores
//! where there are two.
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
//! The worst case with the default [`Config`], in bytes held, however small the frames are:
//!
//! | of | bytes |
//! |---|---|
//! | a stream, received | its window and 16 KiB; the window is 256 KiB at first, and grows to what the application reads in two round trips, up to 128 MiB; at once where another stream needed that, to three quarters of what the connection has left |
//! | a stream, to be sent | 128 KiB, in up to 212 KiB of chunks that small writes are gathered in |
//! | a connection, received | 272 KiB for each of at most 768 streams, and 128 MiB of growth: 332 MiB |
//! | a connection, to be sent | 256 KiB, and 4 KiB for each stream; up to two thirds more where writes are small |
//! | a connection while data flow | 384 KiB of buffers to receive into, those that readers have yet to take among them, 192 KiB to send from, 128 KiB of copied slices, 46 KiB of what streams have held bytes in |
//! | all connections of one [`Yamux`] value, received | 272 KiB for each of 4096 inbound streams and for each that this side has opened, and 256 MiB of growth: 1.3 GiB and the own streams |
//!
//! A window is a promise: it is counted when it is given, not when it is used. The first 256 KiB
//! of a stream are promised by the protocol, and can only be refused with the stream. A stream
//! that nobody reads holds its window and no more. An idle connection releases its buffers: it and
//! each of its streams hold a few KiB then.
//! `tests/memory.rs` counts these figures in the allocator.
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

#[cfg(all(test, feature = "yamux"))]
extern crate self as p2p_mux;

#[cfg(feature = "yamux")]
mod blocks;
#[cfg(any(feature = "mplex", feature = "yamux", test))]
mod budget;
#[cfg(all(test, feature = "yamux"))]
#[path = "../tests/common/mod.rs"]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod common;
mod deadline;
mod desk;
mod driver;
mod handle;
mod ids;
#[cfg(any(feature = "mplex", feature = "yamux", test))]
mod lingering;
#[cfg(all(test, feature = "yamux"))]
mod model;
#[cfg(any(feature = "mplex", test))]
pub mod mplex;
#[cfg(any(feature = "mplex", test))]
mod received;
mod shared;
#[cfg(test)]
mod table;
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
