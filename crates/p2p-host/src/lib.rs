//! The host: what a program of the `p2p` libp2p implementation holds in its hand.
//!
//! ```text
//!            Transport            Security             Muxer
//!   dial ──►   Pipe   ─ upgrade ─► Session ─ upgrade ─► Connection ──► open / handle / accept
//!  listen ─►
//! ```
//!
//! A [`Host`] dials, listens, upgrades, and routes every stream to its protocol's handler. It
//! names no transport, cipher or multiplexer: it is given them as values. The `p2p` crate has a
//! builder that has them filled in.
//!
//! It deliberately has no loop for you to poll, no behaviour to derive, no type parameter.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let host = p2p_host::builder()
//!     .transport(p2p_transport_tcp::Tcp::default())
//!     .security(p2p_security_noise::Noise::new)
//!     .muxer(p2p_mux::Yamux::default())
//!     .listen("/ip4/127.0.0.1/tcp/0")
//!     .spawn()
//!     .await?;
//! assert!(host.addrs()[0].ends_with(&host.peer_id().to_string()));
//! host.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! # Connections
//!
//! A connection lives while a stream or a [`KeepAlive`] guard does, and
//! [`Builder::idle_timeout`] longer, unless it is closed to make room
//! ([`Builder::connections_watermarks`]) or denied ([`Host::deny`]). Several connections to one peer are normal; new streams go
//! over a direct one, then the one with the most streams, then the newest.
//!
//! # Errors
//!
//! They are data: a [`DialError`] holds every address that was tried, the [`Stage`] in which it
//! failed, how long that took, and the cause.
//!
//! # Metrics and logs
//!
//! With the feature `metrics` the `metrics` facade is told what happens; `docs/metrics.md` has the
//! names. Through `tracing`, each connection has a span `connection` (`id`, `direction`, `peer`)
//! and in it each stream a span `stream` (`connection`, `direction`, `peer`, `protocol`), in which
//! a handler runs. What changes is told at DEBUG, what is read and written at TRACE. Addresses
//! are told at DEBUG and below, keys and data never.

mod backoff;
mod buffers;
mod builder;
mod connection;
mod dial;
mod dispatch;
mod entry;
#[rustfmt::skip]
#[allow(unnameable_types, unreachable_pub, reason = "generated from proto/peer_entry.proto")]
#[allow(clippy::exhaustive_structs, reason = "generated from proto/peer_entry.proto")]
mod entry_proto;
mod error;
mod event;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod gate;
mod group;
mod host;
pub mod identify;
mod ip;
mod keeper;
pub mod key_file;
mod ledger;
mod listen;
#[cfg(feature = "metrics")]
mod metrics;
#[cfg(not(feature = "metrics"))]
#[path = "no_metrics.rs"]
mod metrics;
mod observed;
mod open;
pub mod peerstore;
pub mod perf;
pub mod ping;
mod push;
pub mod request;
mod resolve;
#[rustfmt::skip]
#[allow(unnameable_types, unreachable_pub, reason = "generated from proto/identify.proto")]
#[allow(clippy::exhaustive_structs, reason = "generated from proto/identify.proto")]
mod proto;
mod rank;
mod rates;
mod target;
mod tasks;
mod trim;
mod upgrade;
mod usage;
mod watched;
mod world;

pub use builder::Builder;
pub use connection::KeepAlive;
pub use dispatch::{AcceptedStreams, HandleError};
pub use error::{
    BuildError, Cause, DialAttempt, DialError, InboundError, LimitReached, ListenError, OpenError,
    Stage,
};
pub use event::{Event, Events};
pub use gate::{AccessRule, Denied, GatePoint, Gater};
pub use host::Host;
pub use ip::{IpRange, IpRangeError};
pub use open::Opening;
pub use p2p_core::{Keypair, Multiaddr, PeerId, ProtocolId, Stream};
pub use target::{IntoTarget, Target, TargetError};
pub use usage::{PeerUsage, ProtocolUsage, RangeUsage, Usage, UsageReport, Used};

/// Begins a host that has no transport, secure channel or multiplexer yet.
pub fn builder() -> Builder {
    Builder::new()
}
