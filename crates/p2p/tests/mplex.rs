//! Hosts that speak mplex, over links in memory.
#![cfg(feature = "noise")]
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::io;

use common::{Network, echo, echo_once};
use p2p::{Builder, Host};
use p2p_mux::{Mplex, Yamux};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn bare(network: &Network) -> Builder {
    let builder = p2p_host::builder().transport(network.transport(None));
    builder.security(p2p_security_noise::Noise::new)
}

async fn listener(builder: Builder) -> Host {
    let host = builder.listen("/memory/7").spawn().await.unwrap();
    host.handle("/echo/1.0.0", echo).unwrap();
    host
}

/// Echoes once, and gives the multiplexer that both sides have agreed on.
async fn muxer(dialer: Builder, listener_: Builder) -> String {
    let listener = listener(listener_).await;
    let dialer = dialer.spawn().await.unwrap();
    let text = vec![7; 300_000];
    assert!(echo_once(&dialer, "/memory/7", &text).await.unwrap() == text);
    let names = [(&dialer, &listener), (&listener, &dialer)].map(|(host, other)| {
        let connections = host.connections(&other.peer_id());
        let [connection] = connections.as_slice() else { panic!("{connections:?}") };
        connection.muxer().unwrap().as_str().to_owned()
    });
    assert_eq!(names[0], names[1]);
    dialer.close().await;
    listener.close().await;
    names[0].clone()
}

#[tokio::test(start_paused = true)]
async fn mplex_01_two_hosts_with_mplex_alone_echo() {
    let network = Network::default();
    let host = || bare(&network).muxer(Mplex::default());
    assert_eq!(muxer(host(), host()).await, "/mplex/6.7.0");
}

#[tokio::test(start_paused = true)]
async fn mplex_trap_5_yamux_is_preferred_when_both_are_offered() {
    let network = Network::default();
    let both = || bare(&network).muxer(Yamux::default()).muxer(Mplex::default());
    assert_eq!(muxer(both(), both()).await, "/yamux/1.0.0");
    let mplex = || bare(&network).muxer(Mplex::default());
    assert_eq!(muxer(both(), mplex()).await, "/mplex/6.7.0");
    assert_eq!(muxer(mplex(), both()).await, "/mplex/6.7.0");
}

#[cfg(feature = "mplex")]
#[tokio::test(start_paused = true)]
async fn mplex_trap_5_the_feature_offers_it_after_yamux() {
    let network = Network::default();
    let full = || common::builder(&network, None);
    assert_eq!(muxer(full(), full()).await, "/yamux/1.0.0");
    let mplex = || bare(&network).muxer(Mplex::default());
    assert_eq!(muxer(full(), mplex()).await, "/mplex/6.7.0");
}

/// mplex has no back-pressure: a driver that hogs the thread would have readers reset.
#[tokio::test]
async fn mplex_15_a_reader_that_keeps_up_is_not_reset_however_much_comes() {
    const LEN: u64 = 64 << 20;
    let network = Network::default();
    let host = || bare(&network).muxer(Mplex::default());
    let listener = host().listen("/memory/7").spawn().await.unwrap();
    let (tell, mut told) = tokio::sync::mpsc::channel(1);
    let sink = move |mut stream: p2p::Stream| {
        let tell = tell.clone();
        async move {
            let count = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
            tell.send(count.map_err(|error| error.to_string())).await.map_err(io::Error::other)
        }
    };
    listener.handle("/sink/1.0.0", sink).unwrap();
    let dialer = host().spawn().await.unwrap();
    let mut stream = dialer.open("/memory/7", "/sink/1.0.0").await.unwrap();
    let mut zeros = tokio::io::repeat(0).take(LEN);
    tokio::io::copy(&mut zeros, &mut stream).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(told.recv().await.unwrap(), Ok(LEN));
}
