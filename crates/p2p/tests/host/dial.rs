//! Dialing: addresses, their order and their errors, and those who share a dial.

use super::*;

#[tokio::test(start_paused = true)]
async fn conn_05_another_peer_than_the_one_dialed_is_refused_by_name() {
    let network = Network::default();
    let (dialer, listener, _) = pair(&network).await;
    let wanted = builder(&network, None).spawn().await.unwrap().peer_id();
    let addr = format!("/memory/7/p2p/{wanted}");
    let error = dialer.open(&addr, "/echo/1.0.0").await.unwrap_err();
    let text = error.to_string();
    let actual = listener.peer_id().to_string();
    assert!(text.contains(&wanted.to_string()) && text.contains(&actual), "{text}");
    let [attempt] = attempts(error).try_into().unwrap();
    assert_eq!(attempt.stage, Stage::Security);
    assert!(text.contains("security") && text.contains("/memory/7"), "{text}");
    assert!(dialer.peers().is_empty());
    assert_eq!(echo_once(&dialer, "/memory/7", b"still there").await.unwrap(), b"still there");
}

#[tokio::test(start_paused = true)]
async fn one_dial_serves_everybody_who_asks() {
    let network = Network::default();
    let (dialer, listener, addr) = pair(&network).await;
    let mut connected = listener.events();
    let mut asking = JoinSet::new();
    for number in 0..50u8 {
        let (dialer, addr) = (dialer.clone(), addr.clone());
        asking.spawn(async move { echo_once(&dialer, &addr, &[number]).await == Ok(vec![number]) });
    }
    assert!(asking.join_all().await.into_iter().all(|equal| equal));
    assert_eq!(dialer.connections(&listener.peer_id()).len(), 1);
    let mut count = 0;
    while let Ok(Some(event)) = timeout(Duration::from_secs(1), connected.next()).await {
        count += usize::from(matches!(event, Event::Connected { .. }));
    }
    assert_eq!(count, 1);
}

#[tokio::test(start_paused = true)]
async fn a_dial_that_nobody_waits_for_is_given_up() {
    let network = Network::default();
    let dialer = builder(&network, None).spawn().await.unwrap();
    let before = tasks();
    // Port 0 of this network never answers.
    let first = tokio::spawn(dialer.open("/memory/0", PING).into_future());
    let second = tokio::spawn(dialer.open("/memory/0", PING).into_future());
    tokio::time::sleep(Duration::from_secs(1)).await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(tasks() > before, "somebody still waits");
    second.abort();
    assert!(second.await.unwrap_err().is_cancelled());
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(tasks(), before);
}

#[tokio::test(start_paused = true)]
async fn an_address_that_never_answers_has_its_time_and_its_stage() {
    let network = Network::default();
    let dialer = builder(&network, None).spawn().await.unwrap();
    let begun = Instant::now();
    let [attempt] = attempts(dialer.connect("/memory/0").await.unwrap_err()).try_into().unwrap();
    assert_eq!(begun.elapsed(), Duration::from_secs(10));
    assert_eq!(attempt.stage, Stage::Connect);
    assert!(matches!(attempt.cause, Cause::TimedOut(limit) if limit == Duration::from_secs(10)));
}

#[tokio::test(start_paused = true)]
async fn when_the_time_for_the_whole_runs_out_what_was_under_way_is_named() {
    let network = Network::default();
    let limit = Duration::from_secs(3);
    let dialer = builder(&network, None).dial_timeout(limit).spawn().await.unwrap();
    let error = dialer.connect("/memory/0").await.unwrap_err();
    let OpenError::Dial(DialError::TimedOut(after, attempts)) = &error else { panic!("{error}") };
    assert_eq!((*after, attempts.len()), (limit, 1));
    assert_eq!(attempts[0].stage, Stage::Connect);
    assert_eq!(attempts[0].elapsed, limit);
    assert!(error.to_string().contains("/memory/0"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn conn_34_a_bad_address_among_good_ones_costs_250_ms() {
    let network = Network::default();
    let (dialer, listener, _) = pair(&network).await;
    let addrs = vec!["/memory/0".parse().unwrap(), "/memory/7".parse().unwrap()];
    let begun = Instant::now();
    dialer.connect((listener.peer_id(), addrs)).await.unwrap();
    assert_eq!(begun.elapsed(), Duration::from_millis(250));
}

#[tokio::test(start_paused = true)]
async fn every_address_that_was_tried_is_in_the_error() {
    let network = Network::default();
    let (dialer, listener, _) = pair(&network).await;
    let addrs = ["/memory/0", "/memory/404", "/ip4/127.0.0.1/udp/1/quic-v1"];
    let addrs = addrs.map(|a| a.parse().unwrap()).to_vec();
    let error = dialer.connect((listener.peer_id(), addrs)).await.unwrap_err();
    let text = error.to_string();
    let attempts = attempts(error);
    assert_eq!(attempts.len(), 3, "{text}");
    for (addr, cause) in [
        ("/memory/0", "no answer within 10s"),
        ("/memory/404", "refused"),
        ("/ip4/127.0.0.1/udp/1/quic-v1", "no transport"),
    ] {
        assert!(text.contains(addr) && text.contains(cause), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn conn_06_a_host_does_not_dial_itself() {
    let network = Network::default();
    let (_, listener, addr) = pair(&network).await;
    let error = listener.connect(&addr).await.unwrap_err();
    assert!(matches!(error, OpenError::Dial(DialError::SelfDial(_))), "{error}");
    // Not even by an address that does not name it.
    let [attempt] = attempts(listener.connect("/memory/7").await.unwrap_err()).try_into().unwrap();
    assert!(matches!(attempt.cause, Cause::SelfDial), "{attempt}");
}

#[tokio::test(start_paused = true)]
async fn conn_36_an_address_that_failed_is_left_alone_unless_the_caller_insists() {
    let network = Network::default();
    let dialer = builder(&network, None).spawn().await.unwrap();
    let stage = |error| attempts(error).remove(0);
    let first = stage(dialer.open("/memory/7", "/echo/1.0.0").await.unwrap_err());
    assert!(matches!(first.cause, Cause::Transport(_)), "{first}");
    let listener = echo_host(&network, "/memory/7").await;
    let second = stage(dialer.open("/memory/7", "/echo/1.0.0").await.unwrap_err());
    assert!(matches!(second.cause, Cause::BackedOff(left) if left.as_secs() == 5), "{second}");
    assert!(second.to_string().contains("Host::connect"), "{second}");
    tokio::time::sleep(Duration::from_millis(4999)).await;
    let third = stage(dialer.open("/memory/7", "/echo/1.0.0").await.unwrap_err());
    assert!(matches!(third.cause, Cause::BackedOff(left) if left.as_millis() == 1), "{third}");
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(echo_once(&dialer, "/memory/7", b"x").await.unwrap(), b"x");

    // Insisting works at once, and clears it.
    let other = builder(&network, None).spawn().await.unwrap();
    listener.close().await;
    assert!(other.open("/memory/8", "/echo/1.0.0").await.is_err());
    let _listener = echo_host(&network, "/memory/8").await;
    other.connect("/memory/8").await.unwrap();
    assert_eq!(echo_once(&other, "/memory/8", b"x").await.unwrap(), b"x");
}

#[tokio::test(start_paused = true)]
async fn conn_36_who_insists_is_not_answered_by_a_dial_that_did_not() {
    let network = Network::default();
    let dialer = builder(&network, None).spawn().await.unwrap();
    assert!(dialer.open("/memory/7", "/echo/1.0.0").await.is_err());
    let _listener = echo_host(&network, "/memory/7").await;
    // The first to ask makes the dial, in which the address is left alone; the second joins it.
    let (patient, insisting) = tokio::join!(
        dialer.open("/memory/7", "/echo/1.0.0").into_future(),
        dialer.connect("/memory/7"),
    );
    assert!(patient.is_err());
    insisting.unwrap();
}

#[tokio::test]
async fn conn_06_28_ones_own_and_unspecified_addresses_are_not_dialed() {
    let host = p2p::builder().listen("/ip4/127.0.0.1/tcp/0").spawn().await.unwrap();
    let own = host.multiaddrs()[0].iter().take(2).collect::<p2p::Multiaddr>();
    let attempt = attempts(host.connect(&own).await.unwrap_err()).remove(0);
    assert!(matches!(attempt.cause, Cause::SelfDial), "{attempt}");
    assert_eq!(attempt.stage, Stage::Connect, "before any byte was sent");
    for any in ["/ip4/0.0.0.0/tcp/1", "/ip6/::/tcp/1"] {
        let attempt = attempts(host.connect(any).await.unwrap_err()).remove(0);
        assert!(matches!(attempt.cause, Cause::Unspecified), "{attempt}");
        assert!(attempt.to_string().contains(any), "{attempt}");
    }
    host.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_without_addresses_is_named() {
    let network = Network::default();
    let (dialer, listener, _) = pair(&network).await;
    let error = dialer.connect(listener.peer_id()).await.unwrap_err();
    assert!(error.to_string().contains(&listener.peer_id().to_string()), "{error}");
    dialer.connect("/memory/7").await.unwrap();
    assert!(dialer.connect(listener.peer_id()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn conn_16_dialing_each_other_at_once_ends_with_usable_connections() {
    let network = Network::default();
    let left = echo_host(&network, "/memory/1").await;
    let right = echo_host(&network, "/memory/2").await;
    let (to_left, to_right) = (left.addrs().remove(0), right.addrs().remove(0));
    let (a, b) = tokio::join!(left.connect(&to_right), right.connect(&to_left));
    assert!(a.is_ok() && b.is_ok());
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(echo_once(&left, &to_right, b"x").await.unwrap(), b"x");
    assert_eq!(echo_once(&right, &to_left, b"y").await.unwrap(), b"y");
}

#[tokio::test(start_paused = true)]
async fn somebody_who_joined_a_dial_that_ran_out_of_time_has_his_own_addresses_tried() {
    let network = Network::default();
    let listener = echo_host(&network, "/memory/7").await;
    let dialer =
        builder(&network, None).dial_timeout(Duration::from_secs(3)).spawn().await.unwrap();
    let peer = listener.peer_id();
    let silent = (peer, vec!["/memory/0".parse().unwrap()]);
    let good = (peer, vec!["/memory/7".parse().unwrap()]);
    let (first, second) = tokio::join!(dialer.connect(silent), dialer.connect(good));
    for connected in [first, second] {
        assert_eq!(connected.unwrap().remote().to_string(), "/memory/7");
    }
}

/// It took the time for one dial, and then that of another.
#[tokio::test(start_paused = true)]
async fn promise_2_somebody_who_joins_a_dial_waits_no_longer_than_his_own_time() {
    let network = Network::default();
    let limit = Duration::from_secs(3);
    let dialer = builder(&network, None).dial_timeout(limit).spawn().await.unwrap();
    let peer = p2p::Keypair::generate().unwrap().public().peer_id();
    // None of them answers, and they are more than the first dial takes.
    let silent = |range: std::ops::Range<u8>| {
        let addrs = range.map(|number| format!("/ip4/192.0.2.{number}/memory/0").parse().unwrap());
        (peer, addrs.collect::<Vec<Multiaddr>>())
    };
    let waits = async |after: u64, range| {
        tokio::time::sleep(Duration::from_secs(after)).await;
        let begun = Instant::now();
        let error = dialer.connect(silent(range)).await.unwrap_err();
        let OpenError::Dial(DialError::TimedOut(told, tried)) = error else { panic!("{error}") };
        assert_eq!(told, limit);
        (begun.elapsed(), tried.len())
    };
    let (first, second, third) =
        tokio::join!(waits(0, 0..1), waits(2, 100..180), waits(4, 100..180));
    assert_eq!(first.0, limit);
    assert_eq!(second, (limit, 8), "it has tried its own addresses");
    assert_eq!(third, (limit, 8), "it has joined a dial with less time than its own");
}

#[tokio::test(start_paused = true)]
async fn who_joins_a_dial_has_his_addresses_tried_at_once() {
    let network = Network::default();
    let listener = echo_host(&network, "/memory/7").await;
    let dialer = builder(&network, None).spawn().await.unwrap();
    let target = |addr: &str| (listener.peer_id(), vec![addr.parse::<Multiaddr>().unwrap()]);
    let begun = Instant::now();
    let (first, second) = tokio::join!(dialer.connect(target("/memory/0")), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        dialer.connect(target("/memory/7")).await
    });
    assert!(first.is_ok() && second.is_ok());
    assert_eq!(begun.elapsed(), Duration::from_secs(1));
    assert_eq!(dialer.connections(&listener.peer_id()).len(), 1);
}
