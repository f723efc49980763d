//! Limits of streams.

use super::*;

/// Fills a limit of inbound streams, sees one more refused, and the place used again.
async fn fill_inbound(host: &Host, dialer: &Host, count: usize) -> LimitReached {
    // What identify has opened is at its end.
    dialer.identify("/memory/7").await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let mut events = host.events();
    let mut streams = Vec::new();
    for _ in 0..count {
        streams.push(dialer.open("/memory/7", "/echo/1.0.0").await.unwrap());
    }
    assert_eq!(host.usage().streams_inbound.count, count);
    assert_eq!(reset_code(dialer, "/echo/1.0.0").await, ErrorCode::STREAM_RESOURCE_LIMIT);
    let limit = refusal(&mut events).await;
    streams.pop();
    sleep(Duration::from_millis(1)).await;
    assert_eq!(echo_once(dialer, "/memory/7", b"x").await.unwrap(), b"x");
    sleep(Duration::from_millis(1)).await;
    assert_eq!(host.usage().streams_inbound.count, count - 1);
    limit
}

#[tokio::test(start_paused = true)]
async fn conn_46_inbound_streams_of_a_peer_are_bounded_over_all_protocols() {
    let network = Network::default();
    let host = listener(&network, |b| b.streams_inbound_per_peer_max(3)).await;
    let dialer = dialer(&network, |b| b).await;
    let limit = fill_inbound(&host, &dialer, 3).await;
    let (holder, setting) = (dialer.peer_id().to_string(), "Builder::streams_inbound_per_peer_max");
    assert_names(&limit, 3, "inbound streams of one peer", &holder, setting);
}

#[tokio::test(start_paused = true)]
async fn conn_46_inbound_streams_of_the_host_are_bounded() {
    let network = Network::default();
    let host = listener(&network, |b| b.streams_inbound_max(3)).await;
    let dialer = dialer(&network, |b| b).await;
    let limit = fill_inbound(&host, &dialer, 3).await;
    let setting = "Builder::streams_inbound_max";
    assert_names(&limit, 3, "inbound streams", "3 streams of 1 peers", setting);
}

#[tokio::test(start_paused = true)]
async fn inbound_streams_of_an_ip_range_are_bounded_over_all_its_peers() {
    let network = Network::default();
    let host = listener(&network, |b| b.streams_inbound_per_ip_max(1)).await;
    let mut events = host.events();
    // An IPv4 address may have one, an IPv6 /56, too, and a /48 four; loopback has no limit.
    let loopback: (&[&str], _, _) = (&["/ip6/::1"; 5], "", "::1/128");
    for (peers, of, range) in RANGES.into_iter().chain([loopback]) {
        let max = if of.is_empty() { usize::MAX } else { peers.len() - 1 };
        let mut dialers = Vec::new();
        for (port, peer) in peers.iter().enumerate() {
            let dialer = dialer_from(&network, &format!("{peer}/memory/{port}")).await;
            dialer.identify("/memory/7").await.unwrap();
            dialers.push(dialer);
        }
        sleep(Duration::from_secs(1)).await;
        let mut streams = Vec::new();
        for dialer in dialers.iter().take(max) {
            streams.push(dialer.open("/memory/7", "/echo/1.0.0").await.unwrap());
        }
        let count = streams.len();
        let range: IpRange = range.parse().unwrap();
        let report = host.usage_report();
        let of_range = report.ip_ranges.iter().find(|of| of.range == range).unwrap();
        assert_eq!(used(of_range.streams_inbound), (count, max));
        if let Some(next) = dialers.get(max) {
            let code = reset_code(next, "/echo/1.0.0").await;
            assert_eq!(code, ErrorCode::STREAM_RESOURCE_LIMIT);
            let limit = refusal(&mut events).await;
            let holder = format!("{max} streams of {range}");
            let what = format!("inbound streams of {of}");
            assert_names(&limit, max, &what, &holder, "Builder::streams_inbound_per_ip_max");
            streams.pop();
            sleep(Duration::from_millis(1)).await;
            assert_eq!(echo_once(next, "/memory/7", b"x").await.unwrap(), b"x");
        }
    }
    // They are counted on the way out, too, and left to the application.
    let host = dialer(&network, |b| b).await;
    let _streams = [
        host.open("/ip4/192.0.2.9/memory/7", "/echo/1.0.0").await.unwrap(),
        host.open("/ip4/192.0.2.9/memory/7", "/echo/1.0.0").await.unwrap(),
    ];
    assert_eq!(host.usage_report().ip_ranges[0].streams_outbound, 2);
}

#[tokio::test(start_paused = true)]
async fn conn_47_inbound_streams_of_a_protocol_are_bounded() {
    let network = Network::default();
    let host = listener(&network, |b| b.streams_per_protocol_max(3)).await;
    let dialer = dialer(&network, |b| b).await;
    let limit = fill_inbound(&host, &dialer, 3).await;
    let holder = "3 streams of /echo/1.0.0 from 1 peers";
    let setting = "Builder::streams_per_protocol_max";
    assert_names(&limit, 3, "inbound streams of one protocol", holder, setting);
}

#[tokio::test(start_paused = true)]
async fn conn_46_47_inbound_streams_of_a_protocol_and_peer_are_bounded() {
    let network = Network::default();
    let host = listener(&network, |b| b.streams_per_protocol_and_peer_max(3)).await;
    let one = dialer(&network, |b| b).await;
    let limit = fill_inbound(&host, &one, 3).await;
    let holder = format!("{} for /echo/1.0.0", one.peer_id());
    let setting = "Builder::streams_per_protocol_and_peer_max";
    assert_names(&limit, 3, "inbound streams of one protocol and peer", &holder, setting);
    // Another peer's are its own.
    let other = dialer(&network, |b| b).await;
    assert_eq!(echo_once(&other, "/memory/7", b"x").await.unwrap(), b"x");
}

#[tokio::test(start_paused = true)]
async fn conn_46_47_streams_that_the_application_has_accepted_are_counted_until_they_end() {
    let network = Network::default();
    let host = listener(&network, |b| b.streams_per_protocol_max(2)).await;
    let mut accepted = host.accept("/queue/1.0.0").unwrap();
    let dialer = dialer(&network, |b| b).await;
    let mut ours = Vec::new();
    let mut theirs = Vec::new();
    for _ in 0..2 {
        ours.push(dialer.open("/memory/7", "/queue/1.0.0").await.unwrap());
        theirs.push(accepted.next().await.unwrap());
    }
    let code = reset_code(&dialer, "/queue/1.0.0").await;
    assert_eq!(code, ErrorCode::STREAM_RESOURCE_LIMIT);
    assert_eq!(used(host.usage_report().protocols[0].streams_inbound), (2, 2));
    drop(theirs.pop());
    ours.push(dialer.open("/memory/7", "/queue/1.0.0").await.unwrap());
    accepted.next().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn conn_46_a_third_ping_stream_names_a_limit_that_no_setting_raises() {
    let network = Network::default();
    let host = listener(&network, |b| b).await;
    let dialer = dialer(&network, |b| b).await;
    let mut events = host.events();
    let _first = dialer.open("/memory/7", "/ipfs/ping/1.0.0").await.unwrap();
    let _second = dialer.open("/memory/7", "/ipfs/ping/1.0.0").await.unwrap();
    let code = reset_code(&dialer, "/ipfs/ping/1.0.0").await;
    assert_eq!(code, ErrorCode::STREAM_RESOURCE_LIMIT);
    let limit = refusal(&mut events).await;
    let holder = dialer.peer_id().to_string();
    assert_names(&limit, 2, "inbound streams of one protocol and peer", &holder, "it is fixed");
    assert_eq!(limit.setting, None);
}

#[tokio::test(start_paused = true)]
async fn outbound_streams_of_the_host_and_to_a_peer_are_bounded() {
    let network = Network::default();
    let _listener = listener(&network, |b| b).await;
    for of_peer in [true, false] {
        let set = |b: Builder| {
            if of_peer { b.streams_outbound_per_peer_max(3) } else { b.streams_outbound_max(3) }
        };
        let host = dialer(&network, set).await;
        host.identify("/memory/7").await.unwrap();
        sleep(Duration::from_secs(1)).await;
        let mut streams: Vec<Stream> = Vec::new();
        for _ in 0..3 {
            streams.push(host.open("/memory/7", "/echo/1.0.0").await.unwrap());
        }
        let limit = dial_limit(host.open("/memory/7", "/echo/1.0.0").await.unwrap_err());
        if of_peer {
            let (holder, setting) =
                (host.peers()[0].to_string(), "Builder::streams_outbound_per_peer_max");
            assert_names(&limit, 3, "outbound streams to one peer", &holder, setting);
        } else {
            let setting = "Builder::streams_outbound_max";
            assert_names(&limit, 3, "outbound streams", "3 streams of 1 peers", setting);
        }
        // Half of a stream keeps its place, the end of it does not.
        let mut last = streams.pop().unwrap();
        last.shutdown().await.unwrap();
        assert!(host.open("/memory/7", "/echo/1.0.0").await.is_err());
        assert_eq!(last.read_to_end(&mut Vec::new()).await.unwrap(), 0);
        assert_eq!(echo_once(&host, "/memory/7", b"x").await.unwrap(), b"x");
        assert_eq!(host.usage().streams_outbound.count, 2);
    }
}

#[tokio::test(start_paused = true)]
async fn streams_that_are_refused_or_fail_leave_no_count_behind() {
    let network = Network::default();
    let host = listener(&network, |b| b).await;
    let dialer = dialer(&network, |b| b).await;
    for _ in 0..3 {
        assert!(dialer.open("/memory/7", "/nobody/1.0.0").await.is_err());
        let optimistic = dialer.open("/memory/7", "/nobody/1.0.0").optimistic().await.unwrap();
        drop(optimistic);
        let opening = dialer.open("/memory/7", "/echo/1.0.0").into_future();
        drop(timeout(Duration::ZERO, opening).await);
    }
    sleep(Duration::from_secs(12)).await;
    for host in [&host, &dialer] {
        let UsageReport { host, protocols, peers, .. } = host.usage_report();
        assert_eq!((host.streams_inbound.count, host.streams_outbound.count), (0, 0));
        assert_eq!((protocols, peers.len()), (vec![], 1));
    }
    dialer.close().await;
    host.close().await;
    for host in [host, dialer] {
        let report = host.usage_report();
        assert!(report.peers.is_empty() && report.ip_ranges.is_empty());
        assert_eq!(report.host.connections_inbound.count, 0);
        assert_eq!(report.host.connections_outbound.count, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn usage_counts_each_protocol_and_peer_in_both_directions() {
    let network = Network::default();
    let host = listener(&network, |b| b).await;
    let (one, two) = (dialer(&network, |b| b).await, dialer(&network, |b| b).await);
    for dialer in [&one, &two] {
        dialer.identify("/memory/7").await.unwrap();
    }
    sleep(Duration::from_secs(1)).await;
    let mut streams = Vec::new();
    for dialer in [&one, &one, &two] {
        streams.push(dialer.open("/memory/7", "/echo/1.0.0").await.unwrap());
    }
    let report = host.usage_report();
    let [echo] = report.protocols.as_slice() else { panic!("{report:?}") };
    assert_eq!((echo.protocol.as_str(), used(echo.streams_inbound)), ("/echo/1.0.0", (3, 4096)));
    let of_peers: BTreeSet<_> =
        report.peers.iter().map(|of| (of.peer, used(of.streams_inbound))).collect();
    let expected = [(one.peer_id(), (2, 1024)), (two.peer_id(), (1, 1024))];
    assert_eq!(of_peers, BTreeSet::from(expected));
    let report = one.usage_report();
    assert_eq!(report.protocols[0].streams_outbound, 2);
    assert_eq!(used(report.peers[0].streams_outbound), (2, 1024));
    assert_eq!(report.host, one.usage());
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_refusals_pushes_no_other_event_out() {
    let network = Network::default();
    let host = listener(&network, |b| b.pending_inbound_max(1)).await;
    let mut events = host.events();
    let honest = dialer(&network, |b| b).await;
    honest.connect("/memory/7").await.unwrap();
    let mut links = Vec::new();
    for _ in 0..1000 {
        links.push(silent(&network, "/memory/1").await);
    }
    sleep(Duration::from_millis(1)).await;
    assert_eq!(host.usage().refused, 999);
    let (mut connected, mut told) = (0, 0);
    while let Ok(Some(event)) = timeout(Duration::ZERO, events.next()).await {
        connected += usize::from(matches!(event, Event::Connected { .. }));
        told += usize::from(matches!(event, Event::InboundFailed { .. }));
    }
    assert_eq!((connected, told), (1, 32));
    sleep(Duration::from_secs(1)).await;
    links.push(silent(&network, "/memory/1").await);
    let limit = refusal(&mut events).await;
    assert_eq!(limit.what, "pending inbound connections");
}
