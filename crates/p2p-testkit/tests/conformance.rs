//! The suites on this project's own implementations.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use p2p_core::Multiaddr;
use p2p_mux::{Mplex, Yamux};
use p2p_security_noise::{Noise, cipher::Cipher};
use p2p_security_plaintext::Plaintext;
use p2p_testkit::conformance::{self, Violation};
use p2p_transport_tcp::Tcp;

fn addr(text: &str) -> Multiaddr {
    text.parse().unwrap()
}

#[tokio::test]
async fn tcp_keeps_the_contract_of_a_transport() -> Result<(), Violation> {
    for listen in ["/ip4/127.0.0.1/tcp/0", "/ip6/::1/tcp/0"] {
        let tcp = Arc::new(Tcp::new());
        conformance::transport(tcp, addr(listen), addr("/ip4/127.0.0.1/udp/1")).await?;
    }
    Ok(())
}

#[test]
fn noise_keeps_the_contract_and_protects_with_every_cipher() -> Result<(), Violation> {
    for cipher in [Cipher::RUST_CRYPTO, Cipher::RING, Cipher::AWS_LC] {
        conformance::security(|key| Ok(Noise::new(key)?.with_cipher(cipher)))?;
        conformance::protection(|key| Ok(Noise::new(key)?.with_cipher(cipher)))?;
    }
    Ok(())
}

#[test]
fn plaintext_keeps_the_contract_and_protects_nothing() -> Result<(), Violation> {
    let make = |key: &p2p_core::Keypair| Ok(Plaintext::dangerous_new(key));
    conformance::security(make)?;
    assert_eq!(conformance::protection(make).unwrap_err().check(), "secrecy");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn yamux_keeps_the_contract_of_a_muxer() -> Result<(), Violation> {
    conformance::muxer(&Yamux::default()).await
}

#[tokio::test(start_paused = true)]
async fn mplex_keeps_the_contract_of_a_muxer() -> Result<(), Violation> {
    conformance::muxer(&Mplex::default()).await
}
