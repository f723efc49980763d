//! A simulated network in one process, hostile peers and conformance suites, for tests of programs
//! that use the `p2p` libp2p implementation.
//!
//! ```text
//!            seed
//!             │
//!   ┌─────────▼──────────────────────── network ───────────────────────────────────┐
//!   │  Machine ─ Host ─┐      latency, jitter, bandwidth,     ┌─ Host ─ Machine    │
//!   │                  ├───── loss, buffers, cuts, resets ────┤                    │──► trace
//!   │  Machine ─ Host ─┘                                      └─ hostile peer      │    hash
//!   └──────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! [`network`] has machines with IP addresses and links between them. Hosts run on them as on real
//! ones, in virtual time: a test of an hour takes a moment. The same seed gives the same course,
//! byte for byte and event for event, so that what failed once fails again.
//!
//! A test of a protocol of your own, with 50 seeds, on a line of 80 ms that loses segments and
//! breaks down for three seconds:
//!
//! ```
//! use std::time::Duration;
//! use p2p_host::Stream;
//! use p2p_testkit::network::{Link, for_each_seed};
//! use tokio::{io::{AsyncReadExt, AsyncWriteExt, copy, split}, time::sleep};
//!
//! for_each_seed(0..50, |network| async move {
//!     let (near, far) = (network.machine(), network.machine());
//!     network.set_link(&near, &far, Link::new().latency(Duration::from_millis(80)).loss(20));
//!     let server = far.builder().listen(far.addr(4001).to_string()).spawn().await.unwrap();
//!     server.handle("/echo/1", |s: Stream| async move {
//!         let (mut r, mut w) = split(s);
//!         copy(&mut r, &mut w).await?;
//!         w.shutdown().await
//!     }).unwrap();
//!     let client = near.builder().spawn().await.unwrap();
//!     let mut stream = client.open(&server.addrs()[0], "/echo/1").await.unwrap();
//!     network.cut(&near, &far);
//!     stream.write_all(b"are you there?").await.unwrap();
//!     stream.shutdown().await.unwrap();
//!     sleep(Duration::from_secs(3)).await;
//!     network.heal(&near, &far);
//!     let mut answer = String::new();
//!     stream.read_to_string(&mut answer).await.unwrap();
//!     assert_eq!(answer, "are you there?");
//! });
//! ```
//!
//! When a seed fails, the panic names it, and `P2P_SEED=<seed> cargo test` runs it alone.
//!
//! [`simulation`] is the scenario that this project runs on its own hosts, which the program of
//! this crate repeats with as many seeds as you like:
//! `cargo run --release -p p2p-testkit -- simulate --seeds 100000`. [`conformance`] and
//! [`hostile`] test implementations of the layers, and peers that break their rules.
//!
//! It deliberately simulates connections, not packets: there is no UDP, and what TCP does of its
//! own accord (slow start, congestion) is left out. Nothing of it is for production.

pub mod conformance;
pub mod hostile;
pub mod network;
pub mod simulation;

/// The page on testing, whose example is run.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/testing.md")]
struct Testing;
