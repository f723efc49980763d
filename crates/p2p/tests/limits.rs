//! Each limit of a host is reached: what it allows, one more, and what is free again afterwards.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::{collections::BTreeSet, future::IntoFuture, time::Duration};

use common::{Network, builder, echo, echo_host, echo_once, next_event};
use p2p::{
    Builder, Cause, DialError, ErrorCode, Event, Events, Host, IpRange, Keypair, LimitReached,
    OpenError, PeerId, Stage, Stream, StreamError, UsageReport, Used,
    core::{DialTarget, Link, Transport},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

async fn listener(network: &Network, set: impl FnOnce(Builder) -> Builder) -> Host {
    let host = set(builder(network, None).listen("/memory/7")).spawn().await.unwrap();
    host.handle("/echo/1.0.0", echo).unwrap();
    host
}

async fn dialer(network: &Network, set: impl FnOnce(Builder) -> Builder) -> Host {
    set(builder(network, None)).spawn().await.unwrap()
}

/// A host whose links come from an address.
async fn dialer_from(network: &Network, from: &str) -> Host {
    let transport = network.transport_from(from);
    p2p::builder().transport(transport).spawn().await.unwrap()
}

/// A link that says nothing.
async fn silent(network: &Network, from: &str) -> Link {
    let target = DialTarget::new("/memory/7".parse().unwrap(), None);
    network.transport_from(from).dial(target).await.unwrap()
}

/// What the next inbound failure, or refused stream, says of its limit.
async fn refusal(events: &mut Events) -> LimitReached {
    let refused = |event| {
        if let Event::InboundFailed { error } = &event {
            let Cause::Limit(limit) = &error.cause else { return None };
            assert!(error.to_string().contains(&limit.to_string()), "{error}");
            return Some(limit.clone());
        }
        if let Event::StreamRefused { limit, .. } = event { Some(limit) } else { None }
    };
    let refusal = timeout(Duration::from_secs(100), next_event(events, refused));
    refusal.await.expect("something is refused")
}

fn assert_names(limit: &LimitReached, value: usize, what: &str, holder: &str, setting: &str) {
    let text = limit.to_string();
    assert_eq!((limit.value, limit.what), (value, what), "{text}");
    for part in [&format!("the limit of {value} {what}"), holder, setting] {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}

fn dial_limit(error: OpenError) -> LimitReached {
    if let OpenError::Dial(DialError::Limit(limit))
    | OpenError::Stream { stage: Stage::Stream, cause: Cause::Limit(limit), .. } = error
    {
        return limit;
    }
    let OpenError::Dial(DialError::Attempts(tried) | DialError::TimedOut(_, tried)) = error else {
        panic!("{error}");
    };
    let Cause::Limit(limit) = &tried[0].cause else { panic!("{}", tried[0]) };
    assert_eq!(tried[0].stage, Stage::Connect);
    limit.clone()
}

fn used(used: Used) -> (usize, usize) {
    (used.count, used.max)
}

// Connections.

#[tokio::test(start_paused = true)]
async fn conn_11_pending_inbound_connections_are_counted_before_anything_is_read() {
    let network = Network::default();
    let host = listener(&network, |b| b.pending_inbound_max(2)).await;
    let mut events = host.events();
    let _first = silent(&network, "/memory/1").await;
    let second = silent(&network, "/memory/1").await;
    sleep(Duration::from_millis(1)).await;
    assert_eq!(used(host.usage().pending_inbound), (2, 2));
    let _third = silent(&network, "/memory/1").await;
    let limit = refusal(&mut events).await;
    let what = "pending inbound connections";
    assert_names(&limit, 2, what, "2 pending ones", "Builder::pending_inbound_max");
    assert_eq!((used(host.usage().pending_inbound), host.usage().refused), ((2, 2), 1));
    drop(second);
    sleep(Duration::from_millis(1)).await;
    let honest = dialer(&network, |b| b).await;
    honest.connect("/memory/7").await.unwrap();
    // The other one's time runs out.
    sleep(Duration::from_secs(10)).await;
    assert_eq!(host.usage().pending_inbound.count, 0);
    assert_eq!(host.usage().connections_inbound.count, 1);
}

#[tokio::test(start_paused = true)]
async fn conn_45_pending_connections_have_places_among_the_inbound_ones() {
    let network = Network::default();
    let host = listener(&network, |b| b.connections_inbound_max(2)).await;
    let mut events = host.events();
    let kept = dialer(&network, |b| b).await;
    kept.connect("/memory/7").await.unwrap();
    let pending = silent(&network, "/memory/1").await;
    sleep(Duration::from_millis(1)).await;
    let third = dialer(&network, |b| b).await;
    assert!(third.connect("/memory/7").await.is_err());
    let limit = refusal(&mut events).await;
    let holder = "1 connections, 1 pending ones; connected are 1 peers";
    assert_names(&limit, 2, "inbound connections", holder, "Builder::connections_inbound_max");
    drop(pending);
    sleep(Duration::from_millis(1)).await;
    third.connect("/memory/7").await.unwrap();
    assert_eq!(used(host.usage().connections_inbound), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn conn_45_outbound_connections_and_dials_are_counted_before_they_are_made() {
    let network = Network::default();
    let _hosts = [echo_host(&network, "/memory/8").await, echo_host(&network, "/memory/9").await];
    let host = dialer(&network, |b| b.connections_outbound_max(2)).await;
    host.connect("/memory/8").await.unwrap();
    // Port 0 of this network never answers.
    let endless = tokio::spawn(host.open("/memory/0", "/echo/1.0.0").into_future());
    sleep(Duration::from_secs(1)).await;
    let usage = host.usage();
    assert_eq!((used(usage.connections_outbound), used(usage.pending_outbound)), ((1, 2), (1, 2)));
    assert_eq!(used(usage.dials_at_once), (1, 160));
    let limit = dial_limit(host.connect("/memory/9").await.unwrap_err());
    let holder = "1 connections, 1 pending ones";
    assert_names(&limit, 2, "outbound connections", holder, "Builder::connections_outbound_max");
    endless.abort();
    assert!(endless.await.unwrap_err().is_cancelled());
    sleep(Duration::from_millis(1)).await;
    host.connect("/memory/9").await.unwrap();
    let usage = host.usage();
    assert_eq!((usage.connections_outbound.count, usage.pending_outbound.count), (2, 0));
    assert_eq!((usage.dials_at_once.count, usage.refused), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn conn_46_connections_of_a_peer_are_refused_as_soon_as_it_is_known() {
    let network = Network::default();
    let host = listener(&network, |b| b.connections_per_peer_max(2)).await;
    let mut events = host.events();
    let identity = Keypair::generate().unwrap();
    let mut same = Vec::new();
    for _ in 0..3 {
        let one = dialer(&network, |b| b.identity(identity.clone())).await;
        drop(one.connect("/memory/7").await);
        same.push(one);
    }
    let limit = refusal(&mut events).await;
    let peer = identity.public().peer_id();
    let setting = "Builder::connections_per_peer_max";
    assert_names(&limit, 2, "connections to one peer", &peer.to_string(), setting);
    assert_eq!(host.connections(&peer).len(), 2);
    let of_peer = host.usage_report().peers[0];
    assert_eq!((of_peer.peer, used(of_peer.connections)), (peer, (2, 2)));
    same.remove(0).close().await;
    let again = dialer(&network, |b| b.identity(identity)).await;
    assert_eq!(echo_once(&again, "/memory/7", b"x").await.unwrap(), b"x");
}

#[tokio::test(start_paused = true)]
async fn conn_45_inbound_connections_of_an_ipv4_address_are_bounded_pending_ones_too() {
    let network = Network::default();
    let host = listener(&network, |b| b.connections_per_ip_max(8)).await;
    let mut events = host.events();
    let mut pending = Vec::new();
    for port in 0..7 {
        pending.push(silent(&network, &format!("/ip4/192.0.2.1/memory/{port}")).await);
    }
    let eighth = dialer_from(&network, "/ip6/::ffff:192.0.2.1/memory/8").await;
    eighth.connect("/memory/7").await.unwrap();
    let ninth = dialer_from(&network, "/ip4/192.0.2.1/memory/9").await;
    assert!(ninth.connect("/memory/7").await.is_err());
    let limit = refusal(&mut events).await;
    let what = "connections of one IPv4 address";
    let holder = "8 connections and dials of 192.0.2.1/32";
    assert_names(&limit, 8, what, holder, "Builder::connections_per_ip_max");
    let range: IpRange = "192.0.2.1".parse().unwrap();
    let report = host.usage_report();
    assert_eq!(report.ip_ranges.len(), 1);
    let of_range = report.ip_ranges[0];
    assert_eq!((of_range.range, used(of_range.connections)), (range, (8, 8)));
    // Its neighbour is another.
    let other = dialer_from(&network, "/ip4/192.0.2.2/memory/1").await;
    other.connect("/memory/7").await.unwrap();
    pending.pop();
    sleep(Duration::from_millis(1)).await;
    ninth.connect("/memory/7").await.unwrap();
    for host in [eighth, ninth, other] {
        host.close().await;
    }
    sleep(Duration::from_secs(20)).await;
    assert_eq!(host.usage_report().ip_ranges, []);
}

#[tokio::test(start_paused = true)]
async fn conn_45_ipv6_addresses_are_counted_by_their_56_and_48_bits() {
    let network = Network::default();
    let set = |b: Builder| b.connections_per_ip_max(2).connections_per_ip6_site_max(3);
    let host = listener(&network, set).await;
    let mut events = host.events();
    let mut links = Vec::new();
    for from in ["2001:db8:1:100::1", "2001:db8:1:1ff::2"] {
        links.push(silent(&network, &format!("/ip6/{from}/memory/1")).await);
    }
    links.push(silent(&network, "/ip6/2001:db8:1:17f::3/memory/1").await);
    let limit = refusal(&mut events).await;
    let holder = "2 connections and dials of 2001:db8:1:100::/56";
    let setting = "Builder::connections_per_ip_max";
    assert_names(&limit, 2, "connections of one IPv6 /56", holder, setting);
    links.push(silent(&network, "/ip6/2001:db8:1:200::1/memory/1").await);
    links.push(silent(&network, "/ip6/2001:db8:1:300::1/memory/1").await);
    let limit = refusal(&mut events).await;
    let holder = "3 connections and dials of 2001:db8:1::/48";
    let setting = "Builder::connections_per_ip6_site_max";
    assert_names(&limit, 3, "connections of one IPv6 /48", holder, setting);
    links.push(silent(&network, "/ip6/2001:db8:2::1/memory/1").await);
    links.push(silent(&network, "/ip6/::1/memory/1").await);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(host.usage().pending_inbound.count, 5);
    assert_eq!(host.usage().refused, 2, "what is refused takes no place in either range");
    // The range from which one has gone is open again.
    links.remove(0);
    sleep(Duration::from_millis(1)).await;
    links.push(silent(&network, "/ip6/2001:db8:1:100::9/memory/1").await);
    sleep(Duration::from_millis(1)).await;
    assert_eq!((host.usage().pending_inbound.count, host.usage().refused), (5, 2));
}

#[tokio::test(start_paused = true)]
async fn conn_45_loopback_and_relayed_addresses_have_no_limit() {
    let network = Network::default();
    let host = listener(&network, |b| b.connections_per_ip_max(1)).await;
    let mut links = Vec::new();
    for _ in 0..3 {
        for from in ["/ip4/127.0.0.1", "/ip6/::1", "/ip4/192.0.2.1/tcp/1/p2p-circuit", ""] {
            links.push(silent(&network, &format!("{from}/memory/1")).await);
        }
    }
    sleep(Duration::from_millis(1)).await;
    assert_eq!((host.usage().pending_inbound.count, host.usage().refused), (12, 0));
    let report = host.usage_report();
    let shown: Vec<String> =
        report.ip_ranges.iter().map(|of| format!("{}: {}", of.range, of.connections)).collect();
    let expected = ["127.0.0.1/32", "::1/128"].map(|range| format!("{range}: 3 (no limit)"));
    assert_eq!(shown, expected);
}

/// So many silent links from an address, and how many of them were taken.
async fn taken(network: &Network, host: &Host, from: &str, count: usize) -> usize {
    let before = host.usage().pending_inbound.count;
    let mut links = Vec::new();
    for _ in 0..count {
        links.push(silent(network, &format!("{from}/memory/1")).await);
    }
    sleep(Duration::from_millis(1)).await;
    let taken = host.usage().pending_inbound.count - before;
    drop(links);
    sleep(Duration::from_millis(1)).await;
    taken
}

#[tokio::test(start_paused = true)]
async fn conn_45_new_connections_of_an_address_are_taken_at_a_rate() {
    let network = Network::default();
    let rate = |b: Builder| b.connections_per_ip_rate(4, Duration::from_secs(2));
    let host = listener(&network, rate).await;
    let mut events = host.events();
    assert_eq!(taken(&network, &host, "/ip4/192.0.2.1", 6).await, 4);
    let limit = refusal(&mut events).await;
    let what = "new connections of one IPv4 address at once";
    let holder = "192.0.2.1/32, which may have one more in 2.0s";
    assert_names(&limit, 4, what, holder, "Builder::connections_per_ip_rate");
    let range: IpRange = "192.0.2.1".parse().unwrap();
    let rates = host.usage_report().ip_rates;
    assert_eq!((rates.len(), rates[0].0, used(rates[0].1)), (1, range, (4, 4)));
    assert_eq!(taken(&network, &host, "/ip4/192.0.2.2", 1).await, 1, "each address for itself");
    // One more for each two seconds.
    sleep(Duration::from_secs(2)).await;
    assert_eq!(taken(&network, &host, "/ip4/192.0.2.1", 2).await, 1);
    sleep(Duration::from_secs(4)).await;
    assert_eq!(taken(&network, &host, "/ip4/192.0.2.1", 4).await, 2);
    sleep(Duration::from_secs(100)).await;
    assert_eq!(host.usage_report().ip_rates, []);
    assert_eq!(taken(&network, &host, "/ip4/192.0.2.1", 6).await, 4);
    // What is refused costs the address nothing: an honest peer there has its turn.
    sleep(Duration::from_secs(2)).await;
    let honest = dialer_from(&network, "/ip4/192.0.2.1/memory/1").await;
    honest.connect("/memory/7").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn conn_45_an_ipv6_site_has_four_times_the_rate_and_what_is_near_has_none() {
    let network = Network::default();
    let rate = |b: Builder| b.connections_per_ip_rate(2, Duration::from_secs(2));
    let host = listener(&network, rate).await;
    let mut events = host.events();
    for subnet in 1..=4 {
        assert_eq!(taken(&network, &host, &format!("/ip6/2001:db8:1:{subnet}00::1"), 3).await, 2);
        let limit = refusal(&mut events).await;
        assert_eq!((limit.value, limit.what), (2, "new connections of one IPv6 /56 at once"));
    }
    assert_eq!(taken(&network, &host, "/ip6/2001:db8:1:500::1", 1).await, 0);
    let limit = refusal(&mut events).await;
    let what = "new connections of one IPv6 /48 at once";
    let setting = "Builder::connections_per_ip_rate";
    assert_names(&limit, 8, what, "2001:db8:1::/48", setting);
    for from in ["/ip4/127.0.0.1", "/ip6/::1", "/ip4/192.0.2.1/tcp/1/p2p-circuit", ""] {
        assert_eq!(taken(&network, &host, from, 10).await, 10, "{from}");
    }
}

#[tokio::test(start_paused = true)]
async fn conn_45_dials_to_an_ip_address_are_counted_with_its_connections() {
    let network = Network::default();
    let _hosts = [echo_host(&network, "/memory/8").await, echo_host(&network, "/memory/9").await];
    let host = dialer(&network, |b| b.connections_per_ip_max(1)).await;
    host.connect("/ip4/192.0.2.1/memory/8").await.unwrap();
    let limit = dial_limit(host.connect("/ip4/192.0.2.1/memory/9").await.unwrap_err());
    let holder = "1 connections and dials of 192.0.2.1/32";
    let setting = "Builder::connections_per_ip_max";
    assert_names(&limit, 1, "connections of one IPv4 address", holder, setting);
    let peer = host.peers()[0];
    host.disconnect(&peer);
    sleep(Duration::from_secs(2)).await;
    // It is not left alone: it was never tried.
    assert_eq!(echo_once(&host, "/ip4/192.0.2.1/memory/9", b"x").await.unwrap(), b"x");
}

#[tokio::test(start_paused = true)]
async fn dials_at_once_wait_for_their_turn_and_name_the_limit_when_it_never_comes() {
    let network = Network::default();
    let _listener = echo_host(&network, "/memory/7").await;
    let set = |b: Builder| b.dials_at_once_max(2).dial_timeout(Duration::from_secs(9));
    let host = dialer(&network, set).await;
    let mut endless = JoinSet::new();
    for _ in 0..2 {
        let (host, peer) = (host.clone(), Keypair::generate().unwrap().public().peer_id());
        endless.spawn(async move { host.connect(format!("/memory/0/p2p/{peer}")).await.is_err() });
    }
    sleep(Duration::from_secs(1)).await;
    let begun = Instant::now();
    host.connect("/memory/7").await.unwrap();
    assert_eq!(begun.elapsed(), Duration::from_secs(8), "its turn came as the others ended");
    assert!(endless.join_all().await.into_iter().all(|failed| failed));

    let set = |b: Builder| b.dials_at_once_max(1).dial_timeout(Duration::from_secs(9));
    let host = dialer(&network, set).await;
    let peers = [1, 2].map(|seed| Keypair::from_ed25519_seed(&[seed; 32]).public().peer_id());
    let [first, second] = peers.map(|peer| host.connect(format!("/memory/0/p2p/{peer}")));
    let (first, second) = tokio::join!(first, second);
    assert!(matches!(first, Err(OpenError::Dial(DialError::TimedOut(..)))), "{first:?}");
    let limit = dial_limit(second.unwrap_err());
    assert_names(&limit, 1, "dials at once", "dials under way", "Builder::dials_at_once_max");
    assert_eq!(host.usage().dials_at_once.count, 0);
}

// Streams.

/// Opens a stream that the peer resets, and gives the code.
async fn reset_code(dialer: &Host, protocol: &str) -> ErrorCode {
    let opened = dialer.open("/memory/7", protocol).await;
    let error = match opened {
        Ok(mut stream) => {
            let read = timeout(Duration::from_secs(100), stream.chunk(64));
            read.await.expect("it is not refused").unwrap_err()
        }
        Err(error) => {
            let OpenError::Stream { cause: Cause::Stream(error), .. } = error else {
                panic!("{error}");
            };
            error
        }
    };
    let StreamError::Reset(code) = error else { panic!("{error}") };
    code
}

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
    for (peers, max, what, range) in [
        (vec!["/ip4/192.0.2.1"; 2], 1, "inbound streams of one IPv4 address", "192.0.2.1/32"),
        (
            vec!["/ip6/2001:db8:1:100::1", "/ip6/2001:db8:1:1ff::2"],
            1,
            "inbound streams of one IPv6 /56",
            "2001:db8:1:100::/56",
        ),
        (
            vec![
                "/ip6/2001:db8:2:100::1",
                "/ip6/2001:db8:2:200::1",
                "/ip6/2001:db8:2:300::1",
                "/ip6/2001:db8:2:400::1",
                "/ip6/2001:db8:2:500::1",
            ],
            4,
            "inbound streams of one IPv6 /48",
            "2001:db8:2::/48",
        ),
        (vec!["/ip6/::1"; 5], usize::MAX, "", "::1/128"),
    ] {
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
            assert_names(&limit, max, what, &holder, "Builder::streams_inbound_per_ip_max");
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

// Buffered bytes.

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
    let closed = timeout(Duration::from_secs(100), next_event(events, gone));
    closed.await.expect("a connection is closed")
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
    for (peers, what, value, range) in [
        (
            vec!["/ip4/192.0.2.1", "/ip4/192.0.2.1"],
            "buffered bytes of one IPv4 address",
            50_000,
            "192.0.2.1/32",
        ),
        (
            vec!["/ip6/2001:db8:1:100::1", "/ip6/2001:db8:1:1ff::1"],
            "buffered bytes of one IPv6 /56",
            50_000,
            "2001:db8:1:100::/56",
        ),
        (
            vec![
                "/ip6/2001:db8:2:100::1",
                "/ip6/2001:db8:2:200::1",
                "/ip6/2001:db8:2:300::1",
                "/ip6/2001:db8:2:400::1",
                "/ip6/2001:db8:2:500::1",
            ],
            "buffered bytes of one IPv6 /48",
            200_000,
            "2001:db8:2::/48",
        ),
    ] {
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
        assert_names(&limit, value, what, &holder, setting);
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
    let network = Network::default();
    let set = |b: Builder| b.buffered_bytes_max(100_000).buffered_bytes_per_peer_max(70_000);
    let (host, _streams) = unread(&network, set).await;
    let (small, great) = (dialer(&network, |b| b).await, dialer(&network, |b| b).await);
    // For the host's limit alone the other one would go first.
    host.protect(&great.peer_id(), "dear").unwrap();
    let (_little, _much) = (fill(&small, 40_000).await, fill(&great, 80_000).await);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(host.peers(), [small.peer_id()]);
}
