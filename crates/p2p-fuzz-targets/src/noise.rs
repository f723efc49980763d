//! The Noise secure channel: its handshake, the payload in it, and its records.

mod handshake;
mod payload;
mod record;

pub use handshake::noise_handshake;
pub use payload::noise_payload;
pub use record::noise_record;
