//! What a host knows of peers: enough to reach them by their ids alone.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::Duration;

use common::{Network, builder, echo_host, echo_once};
use p2p::{
    DialError, Host, Keypair, Multiaddr, OpenError, PeerId,
    core::PeerRecord,
    peerstore::{AddrSource, KnownPeer},
};

fn addr(text: &str) -> Multiaddr {
    text.parse().unwrap()
}

fn named(known: &KnownPeer) -> Vec<(String, AddrSource)> {
    known.addrs.iter().map(|known| (known.addr.to_string(), known.source)).collect()
}

async fn has_no_addresses(host: &Host, peer: PeerId) -> bool {
    let refused = host.open(peer, "/echo/1.0.0").await;
    matches!(refused, Err(OpenError::Dial(DialError::NoAddresses(of))) if of == peer)
}

async fn disconnected(host: &Host, peer: PeerId) {
    host.disconnect(&peer);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(host.connections(&peer).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_peer_is_reached_by_its_id_at_the_addresses_that_the_application_gave() {
    let network = Network::default();
    let listener = echo_host(&network, "/memory/7").await;
    let dialer = builder(&network, None).spawn().await.unwrap();
    let (peer, store) = (listener.peer_id(), dialer.peerstore());
    assert!(has_no_addresses(&dialer, peer).await);
    let other = Keypair::generate().unwrap().public().peer_id();
    let of_other = addr(&format!("/memory/8/p2p/{other}"));
    store.add(peer, [of_other, Multiaddr::empty(), addr(&listener.addrs()[0])]);
    assert_eq!(named(&store.get(&peer).unwrap()), [("/memory/7".into(), AddrSource::User)]);
    assert_eq!(echo_once(&dialer, &peer.to_string(), b"x").await.unwrap(), b"x");
    // It stays, however long nobody hears of the peer.
    disconnected(&dialer, peer).await;
    tokio::time::sleep(Duration::from_secs(1_000_000)).await;
    assert_eq!(echo_once(&dialer, &peer.to_string(), b"x").await.unwrap(), b"x");
    disconnected(&dialer, peer).await;
    assert!(store.remove(&peer) && !store.remove(&peer));
    assert!(has_no_addresses(&dialer, peer).await);
    store.add(dialer.peer_id(), [addr("/memory/7")]);
    assert!(store.peers().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_was_connected_is_known_for_an_hour() {
    let network = Network::default();
    let listener = echo_host(&network, "/memory/7").await;
    listener.listen("/memory/8").await.unwrap();
    let dialer = builder(&network, None).spawn().await.unwrap();
    let (peer, store) = (listener.peer_id(), dialer.peerstore());
    let info = dialer.identify("/memory/7").await.unwrap();
    let known = store.get(&peer).unwrap();
    let both = [("/memory/7".into(), AddrSource::Dialed), ("/memory/8".into(), AddrSource::Record)];
    assert_eq!(named(&known), both);
    assert_eq!((&known.protocols, &known.agent), (&info.protocols, &info.agent));
    assert_eq!(known.public_key.as_ref(), Some(&info.public_key));
    let (seq, envelope) = known.record.unwrap();
    let record = PeerRecord::open(&envelope).unwrap();
    assert_eq!((seq, record.seq(), record.peer()), (seq, seq, &peer));
    disconnected(&dialer, peer).await;
    tokio::time::sleep(Duration::from_secs(3500)).await;
    assert_eq!(echo_once(&dialer, &peer.to_string(), b"x").await.unwrap(), b"x");
    // While it is connected nothing expires.
    let guard = (dialer.keep_alive(&peer), listener.keep_alive(&dialer.peer_id()));
    tokio::time::sleep(Duration::from_secs(10_000)).await;
    assert_eq!(named(&store.get(&peer).unwrap()), both);
    drop(guard);
    disconnected(&dialer, peer).await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(has_no_addresses(&dialer, peer).await);
    assert!(store.get(&peer).unwrap().public_key.is_some());
}

#[tokio::test(start_paused = true)]
async fn ipush_02_a_peer_that_moves_is_found_where_it_says() {
    let network = Network::default();
    let listener = echo_host(&network, "/memory/7").await;
    // The listener knows the dialer by what it says alone.
    let dialer = builder(&network, None).spawn().await.unwrap();
    dialer.handle("/echo/1.0.0", common::echo).unwrap();
    dialer.identify("/memory/7").await.unwrap();
    listener.identify(dialer.peer_id()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    dialer.listen("/memory/9").await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    disconnected(&listener, dialer.peer_id()).await;
    let known = listener.peerstore().get(&dialer.peer_id()).unwrap();
    assert_eq!(named(&known), [("/memory/9".into(), AddrSource::Record)]);
    let peer = dialer.peer_id().to_string();
    assert_eq!(echo_once(&listener, &peer, b"x").await.unwrap(), b"x");
}
