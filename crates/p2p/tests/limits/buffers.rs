//! Limits of buffered bytes.

use super::*;

/// A host that reads nothing of `/unread` and `/other`.
async fn unread(
    network: &Network,
    set: impl FnOnce(Builder) -> Builder,
) -> (Host, [p2p::AcceptedStreams; 2]) {
    let host = listener(network, set).await;
    let streams = ["/unread", "/other"].map(|protocol| host.accept(protocol).unwrap());
    (host, streams)
}

async fn fill(dialer: &Host, len: usize) -> Stream {
    fill_of(dialer, "/unread", len).await
}

async fn fill_of(dialer: &Host, protocol: &'static str, len: usize) -> Stream {
    let mut stream = dialer.open("/memory/7", protocol).await.unwrap();
    stream.write_all(&vec![0; len]).await.unwrap();
    stream
}

/// Sees a peer's connection closed, and gives the cause.
async fn closed(events: &mut Events) -> (PeerId, String) {
    let gone = |event| {
        let Event::Disconnected { peer, cause, .. } = event else { return None };
        Some((peer, cause.to_string()))
    };
    next_event(events, gone).await
}

/// What a report says of the bytes of a protocol.
fn buffered_of(host: &Host, protocol: &str) -> Option<(usize, usize)> {
    let report = host.usage_report();
    let found = report.protocols.iter().find(|of| of.protocol.as_str() == protocol);
    found.map(|of| used(of.buffered_bytes))
}

#[tokio::test(start_paused = true)]
async fn buffered_bytes_are_shown_for_the_host_and_each_peer_protocol_and_ip_range() {
    let network = Network::default();
    let set = |b: Builder| {
        let b = b.buffered_bytes_max(1 << 20).buffered_bytes_per_peer_max(1 << 19);
        b.buffered_bytes_per_ip_max(1 << 18).buffered_bytes_per_protocol_max(1 << 17)
    };
    let (host, [mut streams, _other]) = unread(&network, set).await;
    let first = dialer_from(&network, "/ip4/192.0.2.1/memory/1").await;
    let second = dialer_from(&network, "/ip4/192.0.2.1/memory/2").await;
    let third = dialer_from(&network, "/ip6/2001:db8::1/memory/1").await;
    let held = [
        fill(&first, 10_000).await,
        fill_of(&first, "/other", 20_000).await,
        fill(&second, 5_000).await,
        fill_of(&third, "/other", 3_000).await,
    ];
    sleep(Duration::from_millis(1)).await;
    assert_eq!(used(host.usage().buffered_bytes), (38_000, 1 << 20));
    let report = host.usage_report();
    assert_eq!(used(report.host.buffered_bytes), (38_000, 1 << 20));
    let of = |host: &Host| {
        let of_peer = report.peers.iter().find(|of| of.peer == host.peer_id()).unwrap();
        used(of_peer.buffered_bytes)
    };
    let of_peers = [of(&first), of(&second), of(&third)];
    assert_eq!(of_peers, [(30_000, 1 << 19), (5_000, 1 << 19), (3_000, 1 << 19)]);
    assert_eq!(buffered_of(&host, "/unread"), Some((15_000, 1 << 17)));
    assert_eq!(buffered_of(&host, "/other"), Some((23_000, 1 << 17)));
    let of_ranges =
        report.ip_ranges.iter().map(|of| format!("{}: {}", of.range, of.buffered_bytes));
    let expected = [
        "192.0.2.1/32: 35000 of 262144",
        "2001:db8::/48: 3000 of 1048576",
        "2001:db8::/56: 3000 of 262144",
    ];
    assert_eq!(of_ranges.collect::<Vec<_>>(), expected);
    let mut one = streams.next().await.unwrap();
    one.read_exact(&mut [0; 10_000]).await.unwrap();
    assert_eq!(host.usage().buffered_bytes.count, 28_000);
    assert_eq!(buffered_of(&host, "/unread"), Some((5_000, 1 << 17)));
    drop(held);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(host.usage().buffered_bytes.count, 0);

    // What is written and not sent counts, too, also when the stream is at its end.
    let mut out = first.open("/memory/7", "/unread").await.unwrap();
    let mut queued = loop {
        let next = streams.next().await.unwrap();
        if next.peer() == first.peer_id() {
            break next;
        }
    };
    queued.shutdown().await.unwrap();
    assert_eq!(out.read_to_end(&mut Vec::new()).await.unwrap(), 0);
    // As much at once would be sent at once.
    for _ in 0..2 {
        out.write_all(&[0; 50_000]).await.unwrap();
    }
    out.shutdown().await.unwrap();
    assert_eq!(first.usage().streams_outbound.count, 0);
    assert_eq!(buffered_of(&first, "/unread"), Some((100_000, usize::MAX)));
    assert_eq!(queued.read_to_end(&mut Vec::new()).await.unwrap(), 100_000);
    assert_eq!(buffered_of(&first, "/unread"), None);

    // Another multiplexer tells it as well, and counts what holds the bytes.
    let mplex = p2p_mux::Mplex::default();
    let bare = |mplex| {
        let builder = p2p_host::builder().transport(network.transport(None)).muxer(mplex);
        builder.security(p2p::noise::Noise::new)
    };
    let host = bare(mplex.clone()).listen("/memory/8").spawn().await.unwrap();
    let _streams = host.accept("/unread").unwrap();
    let dialer = bare(mplex).spawn().await.unwrap();
    let mut stream = dialer.open("/memory/8", "/unread").await.unwrap();
    stream.write_all(&[0; 10_000]).await.unwrap();
    sleep(Duration::from_millis(1)).await;
    let held = host.usage().buffered_bytes.count;
    assert!((10_000..30_000).contains(&held), "{held}");
    assert_eq!(buffered_of(&host, "/unread"), Some((held, usize::MAX)));
}

#[tokio::test(start_paused = true)]
async fn with_too_many_buffered_bytes_nothing_new_is_taken_and_then_the_greatest_holder_goes() {
    let network = Network::default();
    let (host, [mut streams, _]) = unread(&network, |b| b.buffered_bytes_max(100_000)).await;
    let mut events = host.events();
    let (small, great) = (dialer(&network, |b| b).await, dialer(&network, |b| b).await);
    let _little = fill(&small, 40_000).await;
    let much = fill(&great, 50_000).await;
    // Below the limit nothing happens, however long.
    sleep(Duration::from_secs(10)).await;
    assert_eq!(host.peers().len(), 2);
    let more = fill(&great, 20_000).await;
    sleep(Duration::from_millis(1100)).await;
    let reset = small.open("/memory/7", "/echo/1.0.0").await.unwrap_err().to_string();
    assert!(reset.contains("reset"), "{reset}");
    let limit = refusal(&mut events).await;
    let holder = format!("110000 bytes of 2 connections, 70000 by {}", great.peer_id());
    assert_names(&limit, 100_000, "buffered bytes", &holder, "Builder::buffered_bytes_max");
    let stranger = dialer(&network, |b| b).await;
    assert!(stranger.connect("/memory/7").await.is_err());
    assert_eq!(refusal(&mut events).await.what, "buffered bytes");
    // The next look finds no less.
    sleep(Duration::from_secs(1)).await;
    let (peer, cause) = closed(&mut events).await;
    assert_eq!(peer, great.peer_id());
    let expected = format!("it holds 70000 bytes: {limit}");
    assert!(cause.contains(&expected), "{cause}");
    drop((much, more));
    sleep(Duration::from_secs(2)).await;
    assert_eq!(used(host.usage().buffered_bytes), (40_000, 100_000));
    assert_eq!(echo_once(&small, "/memory/7", b"x").await.unwrap(), b"x");
    stranger.connect("/memory/7").await.unwrap();
    streams.next().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_application_that_reads_within_a_second_keeps_its_connections() {
    let network = Network::default();
    let (host, [mut streams, _]) = unread(&network, |b| b.buffered_bytes_max(100_000)).await;
    let great = dialer(&network, |b| b).await;
    let _much = fill(&great, 120_000).await;
    sleep(Duration::from_millis(1100)).await;
    streams.next().await.unwrap().read_exact(&mut [0; 60_000]).await.unwrap();
    sleep(Duration::from_secs(10)).await;
    assert_eq!(host.peers(), [great.peer_id()]);
    assert_eq!(echo_once(&great, "/memory/7", b"x").await.unwrap(), b"x");
}

#[tokio::test(start_paused = true)]
async fn a_protected_peer_is_the_last_to_go_for_its_buffers() {
    let network = Network::default();
    let (host, _streams) = unread(&network, |b| b.buffered_bytes_max(100_000)).await;
    let (small, great) = (dialer(&network, |b| b).await, dialer(&network, |b| b).await);
    host.protect(&great.peer_id(), "dear").unwrap();
    let (_little, _much) = (fill(&small, 40_000).await, fill(&great, 90_000).await);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(host.peers(), [great.peer_id()]);
    // But it goes before one that holds nothing: with that, nothing would be gained.
    let empty = dialer(&network, |b| b).await;
    let _open = empty.open("/memory/7", "/echo/1.0.0").await.unwrap();
    let _more = fill(&great, 20_000).await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(host.peers(), [empty.peer_id()]);
}

#[tokio::test(start_paused = true)]
async fn a_peer_with_too_many_buffered_bytes_is_given_nothing_new_and_then_closed() {
    let network = Network::default();
    let set = |b: Builder| b.buffered_bytes_per_peer_max(100_000);
    let (host, _streams) = unread(&network, set).await;
    let mut events = host.events();
    let identity = Keypair::from_ed25519_seed(&[9; 32]);
    let peer = identity.public().peer_id();
    let same = |b: Builder| b.identity(identity.clone());
    let (one, two) = (dialer(&network, same).await, dialer(&network, same).await);
    let other = dialer(&network, |b| b).await;
    let held = [fill(&one, 70_000).await, fill(&two, 30_000).await, fill(&other, 90_000).await];
    // All of them hold more, but each no more than it may.
    sleep(Duration::from_secs(10)).await;
    assert_eq!((host.usage().connections_inbound.count, host.usage().refused), (3, 0));
    let more = fill(&two, 1).await;
    sleep(Duration::from_millis(1100)).await;
    assert_eq!(reset_code(&two, "/echo/1.0.0").await, ErrorCode::STREAM_RESOURCE_LIMIT);
    let limit = refusal(&mut events).await;
    let holder = format!("100001 bytes of 2 connections of {peer}");
    let setting = "Builder::buffered_bytes_per_peer_max";
    assert_names(&limit, 100_000, "buffered bytes of one peer", &holder, setting);
    let third = dialer(&network, same).await;
    // It may be told after it has seen the handshake end.
    drop(third.connect("/memory/7").await);
    assert_eq!(refusal(&mut events).await, limit, "it is refused as soon as it is known");
    assert_eq!(echo_once(&other, "/memory/7", b"x").await.unwrap(), b"x");
    // The next look finds no less: the connection that holds most goes.
    let (gone, cause) = closed(&mut events).await;
    assert!(gone == peer && cause.contains(&format!("it holds 70000 bytes: {limit}")), "{cause}");
    sleep(Duration::from_secs(10)).await;
    assert_eq!(host.usage().connections_inbound.count, 2);
    assert_eq!(echo_once(&two, "/memory/7", b"x").await.unwrap(), b"x");
    third.connect("/memory/7").await.unwrap();
    drop((held, more));
}

#[tokio::test(start_paused = true)]
async fn a_protocol_with_too_many_buffered_bytes_is_given_nothing_new_and_then_freed() {
    let network = Network::default();
    let set = |b: Builder| b.buffered_bytes_per_protocol_max(100_000);
    let (host, _streams) = unread(&network, set).await;
    let mut events = host.events();
    let (small, great) = (dialer(&network, |b| b).await, dialer(&network, |b| b).await);
    // Who holds most is not who holds most of this protocol.
    let held = [
        fill(&small, 40_000).await,
        fill_of(&small, "/other", 90_000).await,
        fill(&great, 60_000).await,
    ];
    sleep(Duration::from_secs(10)).await;
    assert_eq!((host.peers().len(), host.usage().refused), (2, 0));
    let more = fill(&great, 5_000).await;
    sleep(Duration::from_millis(1100)).await;
    assert_eq!(reset_code(&small, "/unread").await, ErrorCode::STREAM_RESOURCE_LIMIT);
    let limit = refusal(&mut events).await;
    let holder = format!("105000 bytes of /unread on 2 connections, 65000 by {}", great.peer_id());
    let setting = "Builder::buffered_bytes_per_protocol_max";
    assert_names(&limit, 100_000, "buffered bytes of one protocol", &holder, setting);
    // Other protocols are served, and new peers taken.
    assert_eq!(echo_once(&small, "/memory/7", b"x").await.unwrap(), b"x");
    let stranger = dialer(&network, |b| b).await;
    assert_eq!(echo_once(&stranger, "/memory/7", b"x").await.unwrap(), b"x");
    let (gone, cause) = closed(&mut events).await;
    assert_eq!(gone, great.peer_id());
    assert!(cause.contains(&format!("it holds 65000 bytes: {limit}")), "{cause}");
    sleep(Duration::from_secs(10)).await;
    assert_eq!(buffered_of(&host, "/unread"), Some((40_000, 100_000)));
    let again = fill(&small, 10).await;
    drop((held, more, again));
}

#[tokio::test(start_paused = true)]
async fn an_ip_range_with_too_many_buffered_bytes_is_given_nothing_new_and_then_freed() {
    let network = Network::default();
    let set = |b: Builder| b.buffered_bytes_per_ip_max(50_000);
    let (host, _streams) = unread(&network, set).await;
    let mut events = host.events();
    let setting = "Builder::buffered_bytes_per_ip_max";
    // An IPv4 address, an IPv6 /56, and a /48, which may have four times as much.
    for (peers, of, range) in RANGES {
        let (what, value) = (format!("buffered bytes of {of}"), 50_000 * (peers.len() - 1));
        let (mut dialers, mut held) = (Vec::new(), Vec::new());
        // The last one holds a little more than the others.
        let len = value / peers.len();
        for (port, peer) in peers.iter().enumerate() {
            let dialer = dialer_from(&network, &format!("{peer}/memory/{port}")).await;
            held.push(fill(&dialer, len).await);
            dialers.push(dialer);
        }
        sleep(Duration::from_secs(10)).await;
        let refused = host.usage().refused;
        let last = dialers.last().unwrap();
        held.push(fill(last, 1).await);
        sleep(Duration::from_millis(1100)).await;
        assert_eq!(reset_code(&dialers[0], "/echo/1.0.0").await, ErrorCode::STREAM_RESOURCE_LIMIT);
        let limit = refusal(&mut events).await;
        let (sum, count) = (value + 1, peers.len());
        let most = format!("{} by {}", len + 1, last.peer_id());
        let holder = format!("{sum} bytes of {count} connections of {range}, {most}");
        assert_names(&limit, value, &what, &holder, setting);
        let before = host.usage().pending_inbound.count;
        let link = silent(&network, &format!("{}/memory/9", peers[0])).await;
        assert_eq!(refusal(&mut events).await, limit, "before any cryptography");
        assert_eq!(host.usage().pending_inbound.count, before);
        assert_eq!(host.usage().refused, refused + 2);
        drop(link);
        // Elsewhere nothing is refused.
        let other = dialer_from(&network, "/ip4/192.0.2.77/memory/1").await;
        assert_eq!(echo_once(&other, "/memory/7", b"x").await.unwrap(), b"x");
        let (gone, cause) = closed(&mut events).await;
        assert_eq!(gone, last.peer_id());
        assert!(cause.contains(&format!("it holds {} bytes: {limit}", len + 1)), "{cause}");
        other.close().await;
        closed(&mut events).await;
        sleep(Duration::from_secs(2)).await;
        assert_eq!(echo_once(&dialers[0], "/memory/7", b"x").await.unwrap(), b"x");
        drop(held);
        for dialer in &dialers[..count - 1] {
            dialer.close().await;
            closed(&mut events).await;
        }
    }
    // What is near, and what comes over a relay, has no limit.
    for from in ["/ip4/127.0.0.1/memory/1", "/ip4/192.0.2.1/tcp/1/p2p-circuit/memory/1"] {
        let near = dialer_from(&network, from).await;
        let _held = fill(&near, 200_000).await;
        sleep(Duration::from_secs(10)).await;
        assert_eq!(echo_once(&near, "/memory/7", b"x").await.unwrap(), b"x");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_closed_for_a_peer_is_not_paid_for_by_others() {
    type Set = fn(Builder) -> Builder;
    let wider: [Set; 2] =
        [|b| b.buffered_bytes_max(100_000), |b| b.buffered_bytes_per_protocol_max(100_000)];
    for wider in wider {
        let network = Network::default();
        let set = |b: Builder| wider(b).buffered_bytes_per_peer_max(70_000);
        let (host, _streams) = unread(&network, set).await;
        let (small, great) = (dialer(&network, |b| b).await, dialer(&network, |b| b).await);
        // For the wider limit alone the other one would go first.
        host.protect(&great.peer_id(), "dear").unwrap();
        let (_little, _much) = (fill(&small, 40_000).await, fill(&great, 80_000).await);
        sleep(Duration::from_secs(5)).await;
        assert_eq!(host.peers(), [small.peer_id()]);
    }
}

/// An IPv6 /56 and the /48 around it hold too much; one connection of the /56 is enough for both,
/// though others hold more than it does.
#[tokio::test(start_paused = true)]
async fn what_is_closed_for_a_subnet_is_not_paid_for_by_its_site() {
    let network = Network::default();
    let set = |b: Builder| b.buffered_bytes_per_ip_max(50_000);
    let (host, _streams) = unread(&network, set).await;
    let places = [
        ("/ip6/2001:db8:2:100::1", 30_000),
        ("/ip6/2001:db8:2:101::1", 30_000),
        ("/ip6/2001:db8:2:200::1", 42_000),
        ("/ip6/2001:db8:2:300::1", 42_000),
        ("/ip6/2001:db8:2:400::1", 42_000),
        ("/ip6/2001:db8:2:500::1", 42_000),
    ];
    let (mut dialers, mut held) = (Vec::new(), Vec::new());
    for (port, (place, len)) in places.into_iter().enumerate() {
        let dialer = dialer_from(&network, &format!("{place}/memory/{port}")).await;
        held.push(fill(&dialer, len).await);
        dialers.push(dialer);
    }
    sleep(Duration::from_secs(5)).await;
    let peers = host.peers();
    let [first, second, others @ ..] = dialers.as_slice() else { panic!() };
    let left = [first, second].map(|dialer| peers.contains(&dialer.peer_id()));
    assert_eq!(left.into_iter().filter(|left| *left).count(), 1, "one of the subnet");
    assert!(others.iter().all(|other| peers.contains(&other.peer_id())));
}
