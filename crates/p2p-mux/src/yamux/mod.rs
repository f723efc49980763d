//! Yamux, `/yamux/1.0.0`: the state machine of one session.

mod config;
mod frame;
mod held;
mod names;
mod session;
mod stream;
#[cfg(test)]
mod tests;
mod windows;

use std::{sync::Arc, time::Instant};

pub use config::Config;
use p2p_core::{MuxCore, Muxer, ProtocolId, Role};
use session::Session;
use windows::HostWindows;

/// Every window begins with this many bytes, whatever either side is configured with (YAMUX-22,
/// YAMUX-25).
const WINDOW_INITIAL: u32 = 256 << 10;

/// The yamux multiplexer, as a value that a host is configured with. Its clones, and all their
/// connections, share the limits that are for a whole host.
#[derive(Clone, Debug)]
pub struct Yamux {
    config: Config,
    windows: Arc<HostWindows>,
}

impl Yamux {
    /// The name that is negotiated for it (YAMUX-01).
    pub const PROTOCOL: ProtocolId = ProtocolId::from_static("/yamux/1.0.0");

    /// Makes the multiplexer with limits of your own.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let windows = HostWindows::new(&config);
        Self { config, windows }
    }
}

impl Default for Yamux {
    fn default() -> Self {
        Self::new(Config::default())
    }
}

impl Muxer for Yamux {
    fn protocol(&self) -> ProtocolId {
        Self::PROTOCOL
    }

    fn start(&self, role: Role, now: Instant) -> Box<dyn MuxCore> {
        Box::new(Session::new(self.config.clone(), Arc::clone(&self.windows), role, now))
    }
}
