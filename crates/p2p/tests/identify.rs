//! Identify with peers that answer badly: the host says why, and the connection goes on.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::Duration;

use common::{Network, builder, delimited, echo_host, echo_once, field};
use p2p::{
    Host, Keypair, Multiaddr, Stream,
    core::{Envelope, PeerRecord},
    identify::PeerInfo,
};
use tokio::{io::AsyncWriteExt, time::Instant};

/// What a dialer learns of a host that answers identify with `answer`.
async fn identify(key: &Keypair, answer: Vec<u8>) -> Result<std::sync::Arc<PeerInfo>, String> {
    let network = Network::default();
    let liar =
        builder(&network, None).identity(key.clone()).listen("/memory/7").spawn().await.unwrap();
    assert!(liar.unhandle("/ipfs/id/1.0.0"));
    liar.handle("/ipfs/id/1.0.0", move |mut s: Stream| {
        let answer = answer.clone();
        async move {
            s.write_all(&answer).await?;
            s.shutdown().await
        }
    })
    .unwrap();
    liar.handle("/echo/1.0.0", common::echo).unwrap();
    let dialer = builder(&network, None).spawn().await.unwrap();
    let info = dialer.identify("/memory/7").await.map_err(|error| error.to_string());
    assert_eq!(echo_once(&dialer, "/memory/7", b"x").await.unwrap(), b"x");
    assert_eq!(connections(&dialer, &liar), 1);
    info
}

fn connections(of: &Host, to: &Host) -> usize {
    of.connections(&to.peer_id()).len()
}

fn own_key(key: &Keypair) -> Vec<u8> {
    field(1, &key.public().to_protobuf())
}

#[tokio::test(start_paused = true)]
async fn ident_04_a_missing_or_foreign_key_is_refused_by_name() {
    let key = Keypair::generate().unwrap();
    let text = identify(&key, delimited(&field(6, b"agent"))).await.unwrap_err();
    assert!(text.contains("no public key"), "{text}");
    let other = Keypair::generate().unwrap();
    let text = identify(&key, delimited(&own_key(&other))).await.unwrap_err();
    let ids = [&key, &other].map(|key| key.public().peer_id().to_string());
    assert!(ids.iter().all(|id| text.contains(id)), "{text}");
}

#[tokio::test(start_paused = true)]
async fn ident_09_the_parts_of_an_answer_are_merged_up_to_the_tenth() {
    let key = Keypair::generate().unwrap();
    let mut answer = delimited(&own_key(&key));
    for number in 1..=10u8 {
        let name = format!("/p/{number}");
        answer.extend(delimited(&[field(3, name.as_bytes()), field(6, name.as_bytes())].concat()));
    }
    let info = identify(&key, answer).await.unwrap();
    let names: Vec<_> = info.protocols.iter().map(|p| p.as_str().to_owned()).collect();
    assert_eq!(names, (1..=9).map(|n| format!("/p/{n}")).collect::<Vec<_>>());
    assert_eq!(info.agent, "/p/9");
}

#[tokio::test(start_paused = true)]
async fn ident_06_what_does_not_parse_is_left_out_one_by_one() {
    let key = Keypair::generate().unwrap();
    let addr: p2p::Multiaddr = "/ip4/127.0.0.1/tcp/1234".parse().unwrap();
    let with_peer = p2p::AddrExt::with_peer(&addr, &key.public().peer_id());
    let message = [
        own_key(&key),
        field(2, &[0xff, 0xff]),
        field(2, &addr.to_vec()),
        field(2, b""),
        field(2, &with_peer.to_vec()),
        field(3, b"no slash"),
        field(3, b"/good/1"),
        field(4, &[0xff]),
        field(15, b"unknown field"),
    ]
    .concat();
    let info = identify(&key, delimited(&message)).await.unwrap();
    assert_eq!(info.listen_addrs, [addr.clone(), addr]);
    assert_eq!(info.protocols, ["/good/1".try_into().unwrap()]);
    assert_eq!(info.observed_addr, None);
}

#[tokio::test(start_paused = true)]
async fn ident_16_another_version_is_no_reason_to_part() {
    let key = Keypair::generate().unwrap();
    // `identify` looks that the connection is still there, and can be used.
    let message = [own_key(&key), field(5, b"other/9.9.9"), field(6, b"agent")].concat();
    assert_eq!(identify(&key, delimited(&message)).await.unwrap().agent, "agent");
}

#[tokio::test(start_paused = true)]
async fn ident_08_13_messages_addresses_and_protocols_are_bounded() {
    let key = Keypair::generate().unwrap();
    let text = identify(&key, delimited(&vec![0; 8193])).await.unwrap_err();
    assert!(text.contains("8193") && text.contains("8192"), "{text}");
    let addr: p2p::Multiaddr = "/ip4/1.2.3.4/tcp/1".parse().unwrap();
    let mut answer = delimited(&own_key(&key));
    for part in 0..9u16 {
        let mut message = Vec::new();
        for number in 0..200u16 {
            message.extend(field(3, format!("/p/{}", part * 200 + number).as_bytes()));
        }
        message.extend(field(2, &addr.to_vec()).repeat(20));
        answer.extend(delimited(&message));
    }
    let info = identify(&key, answer).await.unwrap();
    assert_eq!((info.listen_addrs.len(), info.protocols.len()), (64, 1024));
}

fn addr(text: &str) -> Multiaddr {
    text.parse().unwrap()
}

fn record(key: &Keypair, seq: u64, addrs: &[&str]) -> PeerRecord {
    PeerRecord::new(key.public().peer_id(), seq, addrs.iter().map(|text| addr(text)))
}

#[tokio::test(start_paused = true)]
async fn ident_12_the_addresses_of_a_valid_record_are_the_only_ones() {
    let key = Keypair::generate().unwrap();
    let record = record(&key, 7, &["/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.2/tcp/2"]);
    let standard = record.seal(&key).unwrap();
    let (domain, kind) = ("libp2p-routing-state", b"/libp2p/routing-state-record");
    let legacy = Envelope::seal(&key, domain, kind, standard.payload()).unwrap();
    let claimed = field(2, &addr("/ip4/192.0.2.9/tcp/9").to_vec());
    for envelope in [standard, legacy] {
        // As go-libp2p sends it: all but the record, then the record alone (IDENT-09).
        let first = delimited(&[own_key(&key), claimed.clone()].concat());
        let answer = [first, delimited(&field(8, envelope.as_bytes()))].concat();
        let info = identify(&key, answer).await.unwrap();
        assert_eq!((&info.listen_addrs[..], info.record_seq), (record.addrs(), Some(7)));
    }
}

#[tokio::test(start_paused = true)]
async fn ident_12_a_record_that_is_not_valid_counts_for_nothing() {
    let key = Keypair::generate().unwrap();
    let claimed = addr("/ip4/192.0.2.9/tcp/9");
    let good = record(&key, 7, &["/ip4/192.0.2.1/tcp/1"]).seal(&key).unwrap();
    let mut flipped = good.as_bytes().to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    // Valid, but of a peer that this connection is not to.
    let other = Keypair::generate().unwrap();
    let foreign = record(&other, 7, &["/ip4/192.0.2.1/tcp/1"]).seal(&other).unwrap();
    // Signed by the peer, but of another one (RUSTSEC-2022-0009).
    let (domain, kind) = (PeerRecord::DOMAIN, PeerRecord::PAYLOAD_TYPE);
    let stolen = Envelope::seal(&key, domain, kind, foreign.payload()).unwrap();
    for envelope in [
        &flipped[..],
        foreign.as_bytes(),
        stolen.as_bytes(),
        &good.as_bytes()[..50],
        b"",
        &[0xff; 40],
    ] {
        let message = [own_key(&key), field(2, &claimed.to_vec()), field(8, envelope)].concat();
        let info = identify(&key, delimited(&message)).await.unwrap();
        assert_eq!((&info.listen_addrs[..], info.record_seq), (&[claimed.clone()][..], None));
    }
}

/// The record that a host sends to a peer, if it does.
async fn sent_record(dialer: &Host, to: &str) -> Option<PeerRecord> {
    let mut stream = dialer.open(to, "/ipfs/id/1.0.0").await.unwrap();
    let mut answer = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer).await.unwrap();
    assert!(answer.len() <= 4098, "{}", answer.len());
    // The last field of the message: key 0x42, its length, an envelope that begins with its key.
    let start = answer.windows(2).rposition(|pair| pair == [0x0a, 0x24])?;
    PeerRecord::open(&answer[start..]).ok()
}

#[tokio::test(start_paused = true)]
async fn ident_02_env_06_a_host_sends_its_signed_record_with_a_growing_number() {
    let network = Network::default();
    let host = echo_host(&network, "/memory/7").await;
    let dialer = builder(&network, None).spawn().await.unwrap();
    let first = sent_record(&dialer, "/memory/7").await.unwrap();
    assert_eq!((first.peer(), first.addrs()), (&host.peer_id(), &[addr("/memory/7")][..]));
    assert_eq!(sent_record(&dialer, "/memory/7").await.unwrap(), first);
    let info = dialer.identify("/memory/7").await.unwrap();
    assert_eq!((&info.listen_addrs[..], info.record_seq), (first.addrs(), Some(first.seq())));
    host.listen("/memory/8").await.unwrap();
    let second = sent_record(&dialer, "/memory/7").await.unwrap();
    assert_eq!(second.addrs(), [addr("/memory/7"), addr("/memory/8")]);
    assert_eq!(second.supersedes(&first), Ok(()));
}

#[tokio::test]
async fn ident_06_ma_39_a_memory_address_is_told_to_nobody_on_the_network() {
    let network = Network::default();
    let both = || p2p::builder().transport(network.transport(None));
    let host = both().listen("/memory/7").listen("/ip4/127.0.0.1/tcp/0").spawn().await.unwrap();
    let [memory, tcp] = &host.addrs()[..] else { panic!("{:?}", host.addrs()) };
    let bare = |text: &String| p2p::AddrExt::split_peer(&addr(text)).unwrap().0;
    let by_tcp = both().spawn().await.unwrap().identify(tcp).await.unwrap();
    assert_eq!(by_tcp.listen_addrs, [bare(tcp)]);
    let by_memory = both().spawn().await.unwrap().identify(memory).await.unwrap();
    assert_eq!(by_memory.listen_addrs, [bare(memory), bare(tcp)]);
}

#[tokio::test(start_paused = true)]
async fn ident_08_a_record_that_does_not_fit_is_not_sent() {
    let network = Network::default();
    let mut building = builder(&network, None);
    for port in 1..=300u64 {
        building = building.listen(format!("/memory/{port}"));
    }
    let host = building.spawn().await.unwrap();
    let dialer = builder(&network, None).spawn().await.unwrap();
    assert_eq!(sent_record(&dialer, "/memory/7").await, None);
    let info = dialer.identify(&host.addrs()[0]).await.unwrap();
    assert_eq!((info.listen_addrs.len(), info.record_seq), (64, None));
}

#[tokio::test(start_paused = true)]
async fn truncated_and_garbled_answers_are_errors_at_every_byte() {
    let key = Keypair::generate().unwrap();
    let whole = delimited(&own_key(&key));
    for len in 1..whole.len() {
        assert!(identify(&key, whole[..len].to_vec()).await.is_err(), "{len}");
    }
    assert!(identify(&key, Vec::new()).await.is_err());
    assert!(identify(&key, vec![0xff; 100]).await.is_err());
    // A length without its message.
    let text = identify(&key, vec![0x73]).await.unwrap_err();
    assert!(text.contains("115 bytes"), "{text}");
}

/// A host that takes identify streams and says nothing on them.
async fn silent_host(network: &Network) -> Host {
    let host = echo_host(network, "/memory/7").await;
    assert!(host.unhandle("/ipfs/id/1.0.0"));
    host.handle("/ipfs/id/1.0.0", |s: Stream| async move {
        std::future::pending::<()>().await;
        drop(s);
        Ok::<_, std::io::Error>(())
    })
    .unwrap();
    host
}

#[tokio::test(start_paused = true)]
async fn ident_11_an_answer_without_an_end_has_ten_seconds() {
    let network = Network::default();
    let _listener = silent_host(&network).await;
    let dialer = builder(&network, None).spawn().await.unwrap();
    // It would count as an answer.
    assert!(dialer.unhandle("/ipfs/id/push/1.0.0"));
    let begun = Instant::now();
    let text = dialer.identify("/memory/7").await.unwrap_err().to_string();
    assert!(text.contains("no answer within 10s"), "{text}");
    assert_eq!(begun.elapsed(), Duration::from_secs(10));
    assert_eq!(echo_once(&dialer, "/memory/7", b"x").await.unwrap(), b"x");
}

/// Opening its stream had ten seconds, and the answer ten more.
#[tokio::test(start_paused = true)]
async fn promise_2_identify_has_ten_seconds_with_the_opening_of_its_stream() {
    let network = Network::default();
    let _listener = silent_host(&network).await;
    let far = network.far_transport(Duration::from_secs(2));
    let dialer = p2p::builder().transport(far).spawn().await.unwrap();
    assert!(dialer.unhandle("/ipfs/id/push/1.0.0"));
    dialer.connect("/memory/7").await.unwrap();
    let begun = Instant::now();
    let text = dialer.identify("/memory/7").await.unwrap_err().to_string();
    assert!(text.contains("no answer within 10s"), "{text}");
    assert_eq!(begun.elapsed(), Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_ends_first_says_so() {
    let network = Network::default();
    let listener = silent_host(&network).await;
    let dialer = builder(&network, None).spawn().await.unwrap();
    dialer.connect("/memory/7").await.unwrap();
    let (learned, ()) = tokio::join!(dialer.identify("/memory/7"), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        dialer.disconnect(&listener.peer_id());
    });
    let text = learned.unwrap_err().to_string();
    assert!(text.contains("disconnected by the application"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn ident_08_a_host_with_many_protocols_and_addresses_sends_at_most_4096_bytes() {
    let network = Network::default();
    let mut building = builder(&network, None);
    for port in 1..300u64 {
        building = building.listen(format!("/memory/{port}"));
    }
    let listener = building.spawn().await.unwrap();
    for number in 0..200 {
        listener.handle(format!("/protocol/number/{number}/1.0.0"), common::echo).unwrap();
    }
    let dialer = builder(&network, None).spawn().await.unwrap();
    let mut stream = dialer.open("/memory/7", "/ipfs/id/1.0.0").await.unwrap();
    let mut answer = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer).await.unwrap();
    assert!(answer.len() <= 4098 && answer.len() > 4000, "{}", answer.len());
    let info = dialer.identify("/memory/7").await.unwrap();
    assert!(!info.protocols.is_empty());
}
