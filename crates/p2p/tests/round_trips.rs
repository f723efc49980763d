//! How often a dialer waits for the other side, counted in virtual time over a link of 100 ms.
//! Over TCP its own round trip comes on top.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::Duration;

use common::{Network, echo, echo_host};
use p2p::{
    Host, PeerId, ProtocolId,
    core::{Handshake, Role, Security, SecurityError},
    mux, noise,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};

const ROUND_TRIP: Duration = Duration::from_millis(100);

/// Whole round trips since `begun`, in which nothing else took time.
fn round_trips(begun: Instant) -> u128 {
    let elapsed = begun.elapsed().as_millis();
    assert_eq!(elapsed % ROUND_TRIP.as_millis(), 0, "{elapsed} ms");
    elapsed / ROUND_TRIP.as_millis()
}

/// Noise as rust-libp2p, litep2p and py-libp2p have it: it agrees on no multiplexer.
struct NothingEarly(noise::Noise);

impl Security for NothingEarly {
    fn protocol(&self) -> ProtocolId {
        self.0.protocol()
    }

    fn start(
        &self,
        role: Role,
        expected: Option<&PeerId>,
        _: &[ProtocolId],
    ) -> Result<Box<dyn Handshake>, SecurityError> {
        self.0.start(role, expected, &[])
    }
}

async fn far_hosts() -> (Host, Host, String) {
    let network = Network::default();
    let listener = echo_host(&network, "/memory/7").await;
    far_from(&network, listener).await
}

async fn far_from(network: &Network, listener: Host) -> (Host, Host, String) {
    let far = network.far_transport(ROUND_TRIP / 2);
    let dialer = p2p::builder().transport(far).spawn().await.unwrap();
    let addr = listener.addrs().remove(0);
    (dialer, listener, addr)
}

#[tokio::test(start_paused = true)]
async fn mss_12_a_connection_takes_one_round_trip() {
    let (dialer, _listener, addr) = far_hosts().await;
    let begun = Instant::now();
    dialer.connect(&addr).await.unwrap();
    // Header, proposal and Noise message 1; the answers and message 2.
    assert_eq!(round_trips(begun), 1);
}

/// SYN to first echoed byte: three round trips over TCP.
#[tokio::test(start_paused = true)]
async fn an_optimistic_stream_has_its_echo_one_round_trip_after_the_connection() {
    let (dialer, _listener, addr) = far_hosts().await;
    let begun = Instant::now();
    let mut stream = dialer.open(&addr, "/echo/1.0.0").optimistic().await.unwrap();
    stream.write_all(b"x").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'x');
    assert_eq!(round_trips(begun), 2);
}

/// The proposal of the multiplexer, its first frames, the stream's negotiation and its data go out
/// together.
#[tokio::test(start_paused = true)]
async fn noise_29_a_peer_that_agrees_on_no_multiplexer_early_costs_no_round_trip() {
    let network = Network::default();
    let listener = p2p_host::builder()
        .transport(network.transport(None))
        .security(|key| Ok(NothingEarly(noise::Noise::new(key)?)))
        .muxer(mux::Yamux::default())
        .listen("/memory/7");
    let listener = listener.spawn().await.unwrap();
    listener.handle("/echo/1.0.0", echo).unwrap();
    let (dialer, _listener, addr) = far_from(&network, listener).await;
    let begun = Instant::now();
    let mut stream = dialer.open(&addr, "/echo/1.0.0").optimistic().await.unwrap();
    stream.write_all(b"x").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'x');
    assert_eq!(round_trips(begun), 2);
}

#[tokio::test(start_paused = true)]
async fn a_negotiated_stream_takes_one_more() {
    let (dialer, _listener, addr) = far_hosts().await;
    let begun = Instant::now();
    let mut stream = dialer.open(&addr, "/echo/1.0.0").await.unwrap();
    assert_eq!(round_trips(begun), 2);
    stream.write_all(b"x").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'x');
    assert_eq!(round_trips(begun), 3);
}

#[tokio::test(start_paused = true)]
async fn identify_takes_one_round_trip_with_its_negotiation() {
    let (dialer, _listener, addr) = far_hosts().await;
    let begun = Instant::now();
    dialer.identify(&addr).await.unwrap();
    assert_eq!(round_trips(begun), 2);
}
