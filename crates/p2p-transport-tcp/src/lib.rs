//! The TCP transport of the `p2p` libp2p implementation.
//!
//! It turns `/ip4/…/tcp/…` and `/ip6/…/tcp/…` into connected sockets, and that deliberately is all: a secure
//! channel and a multiplexer come from other crates, names (`/dns4/…`) are resolved before.
//!
//! ```text
//!   dial(/ip4/192.0.2.1/tcp/4001) ──────────────────► Link::Pipe{read, write}
//!   listen(/ip4/0.0.0.0/tcp/0) ──► Listener ─ next ─► Incoming{local, remote, link}
//!                                     └─ addrs ─► /ip4/127.0.0.1/tcp/40123, /ip4/192.0.2.7/…
//! ```
//!
//! ```
//! use p2p_core::{DialTarget, ListenEvent, Transport};
//! use p2p_transport_tcp::Tcp;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let tcp = Tcp::new();
//! let mut listener = tcp.listen("/ip4/127.0.0.1/tcp/0".parse()?).await?;
//! let addr = listener.addrs().remove(0);
//! let (dialed, event) = tokio::join!(tcp.dial(DialTarget::new(addr, None)), listener.next());
//! let ListenEvent::Incoming(incoming) = event? else { unreachable!("nothing failed") };
//! println!("{} connected", incoming.remote);
//! let (ours, theirs) = (dialed?, incoming.link().await?);
//! # drop((ours, theirs));
//! # Ok(())
//! # }
//! ```
//!
//! It must be used inside a tokio runtime with I/O and time enabled; tokio panics elsewhere.

mod accept_errors;
mod addr;
mod listener;
mod ports;
mod read_half;
mod tcp;

pub use tcp::Tcp;
