//! Multiplexers: one session against a peer that sends anything, and two sessions over a pipe.

mod app;
mod mplex;
mod pair;
mod yamux;

use p2p_core::Muxer;
use p2p_mux::{Config, Mplex, Yamux, mplex::Config as MplexConfig};

pub use mplex::mplex_session;
pub use yamux::yamux_session;

/// Few streams, and windows that grow once or twice, so that the limits are reached.
fn small_yamux() -> impl Muxer {
    let config = Config::default().streams_inbound_max(8).streams_outbound_max(4);
    Yamux::new(config.window_max(1 << 20).windows_growth_max(1 << 20))
}

/// As few streams, and as little received data as there can be.
fn small_mplex() -> impl Muxer {
    let config = MplexConfig::default().streams_inbound_max(8).streams_outbound_max(4);
    Mplex::new(config.stream_received_max(0).connection_received_max(0))
}

/// Two yamux sessions over a pipe that cuts and stalls: see `pair::run`.
pub fn yamux_pair(data: &[u8]) {
    pair::run(&small_yamux(), |id| id, data);
}

/// Two mplex sessions over a pipe that cuts and stalls: see `pair::run`.
pub fn mplex_pair(data: &[u8]) {
    pair::run(&small_mplex(), mplex::mirrored, data);
}
