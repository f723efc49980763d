//! Private networks of libp2p: a pre-shared key around any transport or byte stream.
//!
//! A network whose members share a secret of 32 bytes. A host that does not have it, be it of
//! another private network or of the public one, cannot connect to a member, nor a member to it.
//!
//! ```text
//!   either direction:  nonce (24 random bytes) │ everything else, XORed with XSalsa20(key, nonce)
//!
//!   socket ──► private network ──► secure channel ──► multiplexer ──► streams
//! ```
//!
//! There are two ways in:
//!
//! - [`PrivateNetwork`] wraps a transport, for a host;
//! - [`protect()`] wraps any `AsyncRead + AsyncWrite`.
//!
//! # Two hosts in one private network
//!
//! Tempting, and wrong: `p2p::builder().transport(PrivateNetwork::new(key, Tcp::default()))`.
//! That builder has a TCP transport already, which comes first and is open to the public. Begin
//! with `p2p::private_builder(key)`, which wraps everything there is, or with the bare builder:
//!
//! ```
//! use p2p_host::{Builder, Stream};
//! use p2p_pnet::{PreSharedKey, PrivateNetwork};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! fn builder(key: &PreSharedKey) -> Builder {
//!     p2p_host::builder()
//!         .transport(PrivateNetwork::new(key.clone(), p2p_transport_tcp::Tcp::default()))
//!         .security(p2p_security_noise::Noise::new)
//!         .muxer(p2p_mux::Yamux::default())
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let key: PreSharedKey = "/key/swarm/psk/1.0.0/\n/base16/\n\
//!     6189c5cf0b87fb800c1a9feeda73c6ab5e998db48fb9e6a978575c770ceef683\n"
//!     .parse()?;
//! let host = builder(&key).listen("/ip4/127.0.0.1/tcp/0").spawn().await?;
//! host.handle("/hello/1.0.0", |mut s: Stream| async move {
//!     s.write_all(b"hello, member").await?;
//!     s.shutdown().await
//! })?;
//!
//! let other = builder(&key).spawn().await?;
//! let mut heard = String::new();
//! other.open(&host.addrs()[0], "/hello/1.0.0").await?.read_to_string(&mut heard).await?;
//! assert_eq!(heard, "hello, member");
//!
//! let stranger = builder(&PreSharedKey::generate()?).spawn().await?;
//! let error = stranger.open(&host.addrs()[0], "/hello/1.0.0").await.unwrap_err();
//! assert!(error.to_string().contains("pre-shared key"), "{error}");
//! # Ok(())
//! # }
//! ```
//!
//! # What it deliberately is not
//!
//! - No secure channel: nothing is authenticated, and whoever changes a bit on the way changes
//!   that bit of what is received. The secure channel inside notices.
//! - No forward secrecy: who learns the key can decrypt the layer of everything recorded. The
//!   secure channel inside has its own secrets.
//! - No membership: a key cannot be taken back from one member. All others need a new one.
//! - Nothing for QUIC, WebTransport and WebRTC, which are refused.
//!
//! # When keys differ
//!
//! The layer itself cannot tell: bytes of another key come out as garbage. [`PrivateNetwork`]
//! knows what every libp2p connection begins with, so it says [`LinkError::OtherKey`] at the
//! first byte that differs, and [`LinkError::Public`] for a peer that begins in the clear. The
//! side that is only hung up on gets [`LinkError::Silent`]. Compare the fingerprints that the
//! errors name.
//!
//! # The safeguard `LIBP2P_FORCE_PNET`
//!
//! Where it is `1` in the environment, go-libp2p refuses to start without a key. A library that
//! read it behind its user's back would be a second, hidden configuration, so this one does not;
//! a program asks [`is_forced`] when it was given no key.
//!
//! # Limits
//!
//! A link holds 24 bytes of the peer's until its nonce is whole; afterwards what is being
//! written, at most [`WRITE_LEN_MAX`] bytes, and nothing at rest. It has no clock: a host's limits
//! for a dial and for an inbound connection cover the nonce. There are no cargo features.
//!
//! # Specification
//!
//! libp2p/specs `pnet/Private-Networks-PSK-V1.md`.

#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

use std::{env, ffi::OsString};

mod cipher;
mod error;
mod io;
mod key;
mod network;

pub use cipher::WRITE_LEN_MAX;
pub use error::LinkError;
pub use io::{PrivateStream, protect};
pub use key::{Fingerprint, KeyFileError, PreSharedKey};
pub use network::PrivateNetwork;

/// Whether the environment forbids to run outside of a private network: `LIBP2P_FORCE_PNET` is
/// `1`. For programs; nothing in this library asks.
///
/// # Specification
/// libp2p/specs `pnet/Private-Networks-PSK-V1.md`, "Safeguard".
#[must_use]
pub fn is_forced() -> bool {
    forces(env::var_os("LIBP2P_FORCE_PNET"))
}

fn forces(value: Option<OsString>) -> bool {
    value.is_some_and(|value| value == "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_1_forces_a_private_network() {
        assert!(forces(Some("1".into())));
        for value in [None, Some("0"), Some(""), Some("true"), Some("11")] {
            assert!(!forces(value.map(Into::into)), "{value:?}");
        }
    }
}
