//! Yamux, `/yamux/1.0.0`: the state machine of one session.

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

/// Every window begins with this many bytes, whatever either side is configured with (YAMUX-22,
/// YAMUX-25).
const WINDOW_INITIAL: u32 = 256 << 10;

/// The yamux multiplexer, as a value that a host is configured with.
#[derive(Clone, Debug, Default)]
pub struct Yamux {
    config: Config,
}

impl Yamux {
    /// The name that is negotiated for it (YAMUX-01).
    pub const PROTOCOL: ProtocolId = ProtocolId::from_static("/yamux/1.0.0");

    /// Makes the multiplexer with limits of your own.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config }
    }
}

impl Muxer for Yamux {
    fn protocol(&self) -> ProtocolId {
        Self::PROTOCOL
    }

    fn start(&self, role: Role, now: Instant) -> Box<dyn MuxCore> {
        Box::new(Session::new(self.config.clone(), role, now))
    }
}
