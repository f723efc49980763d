//! Mplex, `/mplex/6.7.0`: the state machine of one session. Deprecated.
//!
//! Mplex has no flow control: a peer sends as much as it likes, and this side can only take it,
//! or end the stream. What nobody reads is kept up to a bound ([`Config::stream_received_max`]);
//! then the stream is reset, and the others go on. It has no keep-alive and no goodbye either,
//! and a reset says no reason. Offer it for peers that know nothing else, and always after yamux.
//!
#![cfg_attr(feature = "mplex", doc = "```")]
#![cfg_attr(not(feature = "mplex"), doc = "```ignore")]
//! use p2p_core::Role;
//! use p2p_mux::{connect, mplex::{Config, Mplex}};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! let muxer = Mplex::new(Config::default().stream_received_max(1 << 20));
//! let (ours, theirs) = tokio::io::duplex(4096);
//! let (client, driver) = connect(ours, &muxer, Role::Initiator);
//! tokio::spawn(driver);
//! let (mut server, driver) = connect(theirs, &muxer, Role::Responder);
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

mod config;
mod frame;
mod session;
mod stream;
#[cfg(test)]
mod tests;

use std::time::Instant;

pub use config::Config;
use p2p_core::{MuxCore, Muxer, ProtocolId, Role};
use session::Session;

/// The mplex multiplexer, as a value that a host is configured with. Deprecated: see the
/// [module](self).
#[derive(Clone, Debug, Default)]
pub struct Mplex {
    config: Config,
}

impl Mplex {
    /// The name that is negotiated for it (MPLEX-01).
    pub const PROTOCOL: ProtocolId = ProtocolId::from_static("/mplex/6.7.0");

    /// Makes the multiplexer with limits of your own.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config }
    }
}

impl Muxer for Mplex {
    fn protocol(&self) -> ProtocolId {
        Self::PROTOCOL
    }

    /// Both roles are the same: each side numbers its own streams (MPLEX-04).
    fn start(&self, _role: Role, now: Instant) -> Box<dyn MuxCore> {
        Box::new(Session::new(self.config.clone(), now))
    }
}
