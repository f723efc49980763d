//! Limits of connections and dials.

use super::*;

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
