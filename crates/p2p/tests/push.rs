//! Identify push: peers hear of changes once, in whole messages, and tell theirs at a bounded
//! rate.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use common::{Network, builder, delimited, echo_host, field};
use p2p::{Event, Host, Keypair, Multiaddr, PeerId, Stream, core::PeerRecord, identify::PeerInfo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};

const IDENTIFY: &str = "/ipfs/id/1.0.0";
const PUSH: &str = "/ipfs/id/push/1.0.0";

async fn host(network: &Network) -> Host {
    builder(network, None).spawn().await.unwrap()
}

/// Two hosts that know each other; the second listens at `/memory/7`.
async fn pair(network: &Network) -> (Host, Host) {
    let listener = echo_host(network, "/memory/7").await;
    let dialer = host(network).await;
    dialer.identify("/memory/7").await.unwrap();
    listener.identify(dialer.peer_id()).await.unwrap();
    // What the listener served late is told by now.
    tokio::time::sleep(Duration::from_secs(5)).await;
    (dialer, listener)
}

/// Has `host` keep the pushes that it gets.
fn keep_pushes(host: &Host) -> Arc<Mutex<Vec<Vec<u8>>>> {
    let kept: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let keeps = Arc::clone(&kept);
    assert!(host.unhandle(PUSH));
    host.handle(PUSH, move |mut s: Stream| {
        let keeps = Arc::clone(&keeps);
        async move {
            let mut push = Vec::new();
            s.read_to_end(&mut push).await?;
            keeps.lock().unwrap().push(push);
            s.shutdown().await
        }
    })
    .unwrap();
    kept
}

/// Sends `push` as it is, and says whether the peer took it.
async fn send_push(from: &Host, to: PeerId, push: &[u8]) -> bool {
    let Ok(mut stream) = from.open(to, PUSH).await else { return false };
    let mut end = Vec::new();
    stream.write_all(push).await.is_ok()
        && stream.shutdown().await.is_ok()
        && stream.read_to_end(&mut end).await.is_ok()
}

fn names(info: &PeerInfo) -> Vec<&str> {
    info.protocols.iter().map(p2p::ProtocolId::as_str).collect()
}

#[tokio::test(start_paused = true)]
async fn ipush_01_04_a_peer_hears_of_a_new_protocol_after_a_second() {
    let network = Network::default();
    let (dialer, listener) = pair(&network).await;
    let mut events = dialer.events();
    let begun = Instant::now();
    listener.handle("/new/1", common::echo).unwrap();
    let info = dialer.wait_protocol(listener.peer_id(), "/new/1").await.unwrap();
    assert_eq!(begun.elapsed(), Duration::from_secs(1));
    assert!(names(&info).contains(&"/echo/1.0.0"), "{info:?}");
    let Some(Event::Identified { peer, info: told }) = events.next().await else { panic!() };
    assert_eq!((peer, &told), (listener.peer_id(), &info));
    // It is known already.
    assert_eq!(dialer.wait_protocol("/memory/7", "/new/1").await.unwrap(), info);
    assert!(listener.unhandle("/new/1"));
    let Some(Event::Identified { info, .. }) = events.next().await else { panic!() };
    assert!(!names(&info).contains(&"/new/1"), "{info:?}");
    assert_eq!(dialer.identify(listener.peer_id()).await.unwrap(), info);
}

#[tokio::test(start_paused = true)]
async fn ipush_01_a_peer_hears_of_new_addresses_and_of_queues() {
    let network = Network::default();
    let (dialer, listener) = pair(&network).await;
    let streams = listener.accept("/queue/1").unwrap();
    listener.listen("/memory/8").await.unwrap();
    let info = dialer.wait_protocol(listener.peer_id(), "/queue/1").await.unwrap();
    let addrs: Vec<String> = info.listen_addrs.iter().map(ToString::to_string).collect();
    assert_eq!(addrs, ["/memory/7", "/memory/8"]);
    let mut events = dialer.events();
    drop(streams);
    let Some(Event::Identified { info, .. }) = events.next().await else { panic!() };
    assert!(!names(&info).contains(&"/queue/1"), "{info:?}");
    assert_eq!(info.listen_addrs.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn ipush_02_a_push_is_as_complete_as_an_answer() {
    let network = Network::default();
    let (dialer, listener) = pair(&network).await;
    let kept = keep_pushes(&dialer);
    listener.handle("/new/1", common::echo).unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut stream = dialer.open(listener.peer_id(), IDENTIFY).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(*kept.lock().unwrap(), [answer]);
}

#[tokio::test(start_paused = true)]
async fn ipush_04_many_changes_are_one_push_and_none_is_none() {
    let network = Network::default();
    let (dialer, listener) = pair(&network).await;
    let kept = keep_pushes(&dialer);
    for number in 0..100 {
        listener.handle(format!("/new/{number}"), common::echo).unwrap();
        tokio::time::sleep(Duration::from_millis(9)).await;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(kept.lock().unwrap().len(), 1);
    listener.handle("/short/1", common::echo).unwrap();
    assert!(listener.unhandle("/short/1"));
    assert!(!listener.unhandle("/never/1"));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(kept.lock().unwrap().len(), 1);
    listener.handle("/last/1", common::echo).unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(kept.lock().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn ipush_04_at_most_32_peers_are_told_at_a_time_and_each_has_ten_seconds() {
    let network = Network::default();
    let hour = Duration::from_secs(3600);
    let listener =
        builder(&network, None).idle_timeout(hour).listen("/memory/7").spawn().await.unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let mut dialers = Vec::new();
    for _ in 0..40 {
        let (dialer, asked) = (host(&network).await, Arc::clone(&asked));
        assert!(dialer.unhandle(PUSH));
        dialer
            .handle(PUSH, move |s: Stream| {
                asked.fetch_add(1, Ordering::Relaxed);
                async move {
                    std::future::pending::<()>().await;
                    drop(s);
                    Ok::<_, std::io::Error>(())
                }
            })
            .unwrap();
        dialer.identify("/memory/7").await.unwrap();
        dialers.push(dialer);
    }
    tokio::time::sleep(Duration::from_secs(30)).await;
    asked.store(0, Ordering::Relaxed);
    listener.handle("/new/1", common::echo).unwrap();
    tokio::time::sleep(Duration::from_millis(1001)).await;
    assert_eq!(asked.load(Ordering::Relaxed), 32);
    // Those that are told at the end of this wait hear of both changes.
    listener.handle("/new/2", common::echo).unwrap();
    tokio::time::sleep(Duration::from_millis(9998)).await;
    assert_eq!(asked.load(Ordering::Relaxed), 32);
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert_eq!(asked.load(Ordering::Relaxed), 32 + 32);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(asked.load(Ordering::Relaxed), 32 + 40);
}

#[tokio::test(start_paused = true)]
async fn ipush_04_a_peer_that_does_not_list_the_protocol_is_left_alone() {
    let network = Network::default();
    let listener = echo_host(&network, "/memory/7").await;
    let key = Keypair::generate().unwrap();
    let dialer = builder(&network, None).identity(key.clone()).spawn().await.unwrap();
    let kept = keep_pushes(&dialer);
    assert!(dialer.unhandle(IDENTIFY));
    let answer =
        delimited(&[field(1, &key.public().to_protobuf()), field(3, b"/other/1")].concat());
    dialer
        .handle(IDENTIFY, move |mut s: Stream| {
            let answer = answer.clone();
            async move {
                s.write_all(&answer).await?;
                s.shutdown().await
            }
        })
        .unwrap();
    dialer.connect("/memory/7").await.unwrap();
    let info = listener.identify(dialer.peer_id()).await.unwrap();
    assert_eq!(names(&info), ["/other/1"]);
    listener.handle("/new/1", common::echo).unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(kept.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn ipush_02_03_what_a_push_leaves_out_is_unchanged() {
    let network = Network::default();
    let (dialer, listener) = pair(&network).await;
    let peer = dialer.peer_id();
    let before = listener.identify(peer).await.unwrap();
    // Neither key nor observed address, as js-libp2p pushes; no protocols.
    let addr: Multiaddr = "/memory/77".parse().unwrap();
    let push = [field(2, &addr.to_vec()), field(6, b"js/1")].concat();
    assert!(send_push(&dialer, listener.peer_id(), &delimited(&push)).await);
    let after = listener.identify(peer).await.unwrap();
    let mut expected = PeerInfo::clone(&before);
    (expected.listen_addrs, expected.agent) = (vec![addr.clone()], "js/1".into());
    assert_eq!(*after, expected);
    // In two messages, as go-libp2p sends it.
    let push = [delimited(&field(3, b"/a/1")), delimited(&field(3, b"/b/1"))].concat();
    assert!(send_push(&dialer, listener.peer_id(), &push).await);
    let after = listener.identify(peer).await.unwrap();
    assert_eq!((names(&after), &after.listen_addrs[..]), (vec!["/a/1", "/b/1"], &[addr][..]));
}

#[tokio::test(start_paused = true)]
async fn ipush_02_env_06_records_only_become_newer() {
    let network = Network::default();
    let key = Keypair::generate().unwrap();
    let listener = echo_host(&network, "/memory/7").await;
    let dialer = builder(&network, None).identity(key.clone()).spawn().await.unwrap();
    dialer.connect("/memory/7").await.unwrap();
    let push = async |seq: u64, addr: &str| {
        let record = PeerRecord::new(dialer.peer_id(), seq, [addr.parse().unwrap()]);
        let sealed = record.seal(&key).unwrap();
        let message = delimited(&field(8, sealed.as_bytes()));
        assert!(send_push(&dialer, listener.peer_id(), &message).await);
        let info = listener.identify(dialer.peer_id()).await.unwrap();
        (info.listen_addrs[0].to_string(), info.record_seq, info.record.clone().unwrap().to_vec())
    };
    let second = push(2, "/memory/20").await;
    assert_eq!((&second.0[..], second.1), ("/memory/20", Some(2)));
    assert_eq!(PeerRecord::open(&second.2).unwrap().seq(), 2);
    assert_eq!(push(1, "/memory/10").await, second);
    assert_eq!(push(3, "/memory/30").await.0, "/memory/30");
}

#[tokio::test(start_paused = true)]
async fn ident_04_a_push_with_a_foreign_key_or_garbled_changes_nothing() {
    let network = Network::default();
    let (dialer, listener) = pair(&network).await;
    let before = listener.identify(dialer.peer_id()).await.unwrap();
    let other = Keypair::generate().unwrap().public().to_protobuf();
    let foreign = delimited(&[field(1, &other), field(3, b"/foreign/1")].concat());
    let garbled = [delimited(&field(3, b"/garbled/1")), vec![0xff; 40]].concat();
    let long = delimited(&field(3, &[b'/'; 8190]));
    for push in [foreign, garbled, long] {
        assert!(!send_push(&dialer, listener.peer_id(), &push).await);
    }
    assert_eq!(listener.identify(dialer.peer_id()).await.unwrap(), before);
    assert_eq!(listener.connections(&dialer.peer_id()).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn ipush_05_the_eleventh_push_in_a_row_is_reset() {
    let network = Network::default();
    let (dialer, listener) = pair(&network).await;
    for number in 0..10u8 {
        let push = delimited(&field(6, &[b'0' + number]));
        assert!(send_push(&dialer, listener.peer_id(), &push).await, "{number}");
    }
    let push = delimited(&field(6, b"eleventh"));
    assert!(!send_push(&dialer, listener.peer_id(), &push).await);
    assert_eq!(listener.identify(dialer.peer_id()).await.unwrap().agent, "9");
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(send_push(&dialer, listener.peer_id(), &push).await);
    assert!(!send_push(&dialer, listener.peer_id(), &push).await);
}

#[tokio::test(start_paused = true)]
async fn ipush_07_the_old_delta_is_not_served() {
    let network = Network::default();
    let (dialer, _listener) = pair(&network).await;
    let refused = dialer.open("/memory/7", "/p2p/id/delta/1.0.0").await;
    assert!(matches!(refused, Err(p2p::OpenError::Unsupported { .. })), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_push_under_way_does_not_keep_a_connection_alive() {
    let network = Network::default();
    let idle = Duration::from_secs(4);
    let listener =
        builder(&network, None).idle_timeout(idle).listen("/memory/7").spawn().await.unwrap();
    let dialer = host(&network).await;
    assert!(dialer.unhandle(PUSH));
    let mut held = dialer.accept(PUSH).unwrap();
    let begun = Instant::now();
    dialer.identify("/memory/7").await.unwrap();
    listener.handle("/new/1", common::echo).unwrap();
    let told = held.next().await.unwrap();
    // The other way: a push that does not come.
    let sends = dialer.open("/memory/7", PUSH).await.unwrap();
    let mut events = dialer.events();
    while !matches!(events.next().await.unwrap(), Event::Disconnected { .. }) {}
    assert_eq!(begun.elapsed(), idle);
    drop((told, sends));
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_a_protocol_ends_with_the_connection() {
    let network = Network::default();
    let listener = echo_host(&network, "/memory/7").await;
    let idle = Duration::from_secs(4);
    let dialer = builder(&network, None).idle_timeout(idle).spawn().await.unwrap();
    dialer.connect("/memory/7").await.unwrap();
    let (waited, ()) = tokio::join!(dialer.wait_protocol(listener.peer_id(), "/never/1"), async {
        tokio::time::sleep(idle * 5).await;
        assert_eq!(dialer.connections(&listener.peer_id()).len(), 1, "the wait is no use");
        listener.disconnect(&dialer.peer_id());
    });
    let text = waited.unwrap_err().to_string();
    assert!(text.contains(&listener.peer_id().to_string()), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_push_counts_although_the_peer_never_answered() {
    let network = Network::default();
    let listener = echo_host(&network, "/memory/7").await;
    let dialer = host(&network).await;
    assert!(dialer.unhandle(IDENTIFY));
    dialer.connect("/memory/7").await.unwrap();
    listener.identify(dialer.peer_id()).await.unwrap_err();
    let push = delimited(&field(3, b"/pushed/1"));
    assert!(send_push(&dialer, listener.peer_id(), &push).await);
    let info = listener.identify(dialer.peer_id()).await.unwrap();
    assert_eq!((names(&info), info.public_key.peer_id()), (vec!["/pushed/1"], dialer.peer_id()));
}
