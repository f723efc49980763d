//! Too many connections: those worth least make room (CONN-22).
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::Duration;

use common::{Network, builder, echo, echo_once, next_event};
use p2p::{
    Builder, ConnectionError, ErrorCode, Event, Events, Host, Keypair, LimitReached, PeerId,
};
use tokio::time::{Instant, sleep};

const HOUR: Duration = Duration::from_secs(3600);

/// A host that closes nothing as idle.
async fn host(network: &Network, set: impl FnOnce(Builder) -> Builder) -> Host {
    let host = set(builder(network, None).idle_timeout(HOUR).listen("/memory/7"));
    let host = host.spawn().await.unwrap();
    host.handle("/echo/1.0.0", echo).unwrap();
    host
}

/// Peers that are connected to it.
async fn peers(network: &Network, count: usize) -> Vec<Host> {
    let mut peers = Vec::new();
    for _ in 0..count {
        let peer = builder(network, None).idle_timeout(HOUR).spawn().await.unwrap();
        peer.connect("/memory/7").await.unwrap();
        peer.identify("/memory/7").await.unwrap();
        peers.push(peer);
    }
    peers
}

fn ids(peers: &[&Host]) -> Vec<PeerId> {
    let mut ids: Vec<PeerId> = peers.iter().map(|peer| peer.peer_id()).collect();
    ids.sort_unstable();
    ids
}

async fn disconnected(events: &mut Events) -> (PeerId, ConnectionError) {
    let ended = |event| {
        if let Event::Disconnected { peer, cause, .. } = event { Some((peer, cause)) } else { None }
    };
    next_event(events, ended).await
}

fn random_peer() -> PeerId {
    Keypair::generate().unwrap().public().peer_id()
}

#[tokio::test(start_paused = true)]
async fn conn_22_the_least_value_goes_first_then_the_fewest_streams_then_the_longest_idle() {
    let network = Network::default();
    let host = host(&network, |b| b.connections_watermarks(3, 5)).await;
    let all = peers(&network, 5).await;
    let [valued, busy, idle, lately, disliked] = all.as_slice() else { panic!() };
    host.tag(&valued.peer_id(), "a friend", 15).unwrap();
    host.tag(&valued.peer_id(), "slow", -5).unwrap();
    host.tag(&disliked.peer_id(), "wrong answers", -1).unwrap();
    let mut streams = Vec::new();
    for peer in [busy, disliked, disliked] {
        streams.push(peer.open("/memory/7", "/echo/1.0.0").await.unwrap());
    }
    sleep(Duration::from_secs(30)).await;
    echo_once(lately, "/memory/7", b"x").await.unwrap();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(host.peers().len(), 5, "as many as the mark are not too many");
    let (mut events, mut events_of_idle) = (host.events(), idle.events());

    let newcomer = peers(&network, 1).await.remove(0);
    let mut gone = Vec::new();
    for _ in 0..3 {
        let (peer, cause) = disconnected(&mut events).await;
        let ConnectionError::Closed { code, reason } = &cause else { panic!("{cause}") };
        assert_eq!((*code, code.value()), (ErrorCode::CONNECTION_GARBAGE_COLLECTED, 0x1005));
        for part in ["trimmed", "6 connections", "5", "Builder::connections_watermarks"] {
            assert!(reason.contains(part), "{reason}");
        }
        gone.push(peer);
    }
    gone.sort_unstable();
    assert_eq!(gone, ids(&[disliked, idle, lately]));
    let (_, cause) = disconnected(&mut events_of_idle).await;
    let ConnectionError::ClosedByPeer { code } = cause else { panic!("{cause}") };
    assert_eq!(code, ErrorCode::CONNECTION_GARBAGE_COLLECTED);
    assert_eq!(host.peers(), ids(&[valued, busy, &newcomer]));
    // What is left is usable, and who was trimmed may come again.
    assert_eq!(echo_once(busy, "/memory/7", b"x").await.unwrap(), b"x");
    assert_eq!(echo_once(idle, "/memory/7", b"x").await.unwrap(), b"x");
}

#[tokio::test(start_paused = true)]
async fn conn_22_of_two_that_are_idle_the_longer_idle_one_goes() {
    let network = Network::default();
    let host = host(&network, |b| b.connections_watermarks(2, 2)).await;
    let all = peers(&network, 2).await;
    sleep(Duration::from_secs(60)).await;
    // The older connection was used last.
    echo_once(&all[0], "/memory/7", b"x").await.unwrap();
    let newcomer = peers(&network, 1).await.remove(0);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(host.peers(), ids(&[&all[0], &newcomer]));
}

#[tokio::test(start_paused = true)]
async fn conn_22_young_connections_are_spared_and_looked_at_again() {
    let network = Network::default();
    let host = host(&network, |b| b.connections_watermarks(2, 4)).await;
    let begun = Instant::now();
    let _peers = peers(&network, 6).await;
    let mut events = host.events();
    let first = disconnected(&mut events).await;
    assert!(matches!(first.1, ConnectionError::Closed { .. }), "{first:?}");
    assert!(begun.elapsed() >= Duration::from_secs(60), "{:?}", begun.elapsed());
    assert!(begun.elapsed() <= Duration::from_secs(72), "{:?}", begun.elapsed());
    sleep(Duration::from_secs(2)).await;
    assert_eq!(host.peers().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn conn_22_protected_and_kept_connections_are_never_trimmed() {
    let network = Network::default();
    let host = host(&network, |b| b.connections_watermarks(0, 1)).await;
    let all = peers(&network, 3).await;
    let [protected, kept, other] = all.as_slice() else { panic!() };
    host.protect(&protected.peer_id(), "dht").unwrap();
    host.protect(&protected.peer_id(), "relay").unwrap();
    host.tag(&protected.peer_id(), "disliked", i32::MIN).unwrap();
    let guard = host.keep_alive(&kept.peer_id()).unwrap();
    sleep(Duration::from_secs(200)).await;
    assert_eq!(host.peers(), ids(&[protected, kept]));
    assert!(host.unprotect(&protected.peer_id(), "dht"));
    assert!(!host.unprotect(&protected.peer_id(), "dht"));
    sleep(Duration::from_secs(20)).await;
    assert_eq!(host.peers(), ids(&[protected, kept]), "one protection is left");
    assert!(host.unprotect(&protected.peer_id(), "relay"));
    sleep(Duration::from_secs(12)).await;
    assert_eq!(host.peers(), [kept.peer_id()]);
    // One connection is not too many, kept or not.
    drop(guard);
    sleep(Duration::from_secs(200)).await;
    assert_eq!(host.peers(), [kept.peer_id()]);
    drop(other.connect("/memory/7").await);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(host.peers(), [other.peer_id()], "somebody looks again");
}

#[tokio::test(start_paused = true)]
async fn conn_22_strangers_make_room_before_the_limit_keeps_anybody_out() {
    let network = Network::default();
    let set = |b: Builder| b.connections_watermarks(2, 4).connections_inbound_max(6);
    let host = host(&network, set).await;
    let mut kept = Vec::new();
    for _ in 0..6 {
        kept.extend(peers(&network, 2).await);
        sleep(Duration::from_secs(61)).await;
        assert!(host.peers().len() <= 4);
    }
    assert_eq!(host.usage().refused, 0);
}

#[tokio::test(start_paused = true)]
async fn marks_that_cross_or_have_no_end_are_taken() {
    let network = Network::default();
    let crossed =
        host(&network, |b| b.connections_watermarks(9, 1).trim_grace(Duration::ZERO)).await;
    let _peers = peers(&network, 3).await;
    sleep(Duration::from_secs(20)).await;
    assert_eq!(crossed.peers().len(), 1);
    crossed.close().await;
    let endless =
        host(&network, |b| b.connections_watermarks(0, usize::MAX).trim_grace(Duration::MAX));
    let endless = endless.await;
    let _peers = peers(&network, 3).await;
    sleep(Duration::from_secs(200)).await;
    assert_eq!(endless.peers().len(), 3);
}

fn assert_names(limit: &LimitReached, parts: &[&str]) {
    let text = limit.to_string();
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn tags_and_protections_are_bounded() {
    let network = Network::default();
    let host = host(&network, |b| b.tagged_peers_max(2)).await;
    let [one, two, three] = [random_peer(), random_peer(), random_peer()];
    host.tag(&one, "a", 1).unwrap();
    host.protect(&two, "a").unwrap();
    let full =
        ["the limit of 2 tagged or protected peers", "application", "Builder::tagged_peers_max"];
    assert_names(&host.tag(&three, "a", 1).unwrap_err(), &full);
    assert_names(&host.protect(&three, "a").unwrap_err(), &full);
    // Taking the last mark off a peer frees its place.
    host.tag(&two, "a", 1).unwrap();
    assert!(host.unprotect(&two, "a"));
    assert!(host.tag(&three, "a", 1).is_err());
    assert!(host.untag(&two, "a") && !host.untag(&two, "a") && !host.untag(&three, "a"));
    host.tag(&three, "a", 1).unwrap();

    let name = |number: usize| number.to_string();
    for number in 1..16 {
        host.tag(&one, &name(number), 1).unwrap();
    }
    for number in 0..16 {
        host.protect(&one, &name(number)).unwrap();
    }
    let peer = one.to_string();
    let limit = host.tag(&one, "one more", 1).unwrap_err();
    assert_names(&limit, &["the limit of 16 tags of one peer", &peer, "it is fixed"]);
    let limit = host.protect(&one, "one more").unwrap_err();
    assert_names(&limit, &["the limit of 16 protections of one peer", &peer, "it is fixed"]);
    host.tag(&one, "a", 2).unwrap();
    host.protect(&one, "0").unwrap();
    assert!(host.untag(&one, "a"));
    host.tag(&one, &"x".repeat(64), 1).unwrap();
    let limit = host.tag(&one, &"x".repeat(65), 1).unwrap_err();
    assert_names(&limit, &["the limit of 64 bytes of a tag's name", "a name of 65", "it is fixed"]);
}
