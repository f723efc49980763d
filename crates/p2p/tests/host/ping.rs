//! Ping, both ways.

use super::*;

#[tokio::test(start_paused = true)]
async fn ping_01_02_04_what_comes_in_pieces_is_echoed_until_the_dialer_ends() {
    let network = Network::default();
    let (dialer, _listener, addr) = pair(&network).await;
    let mut stream = dialer.open(&addr, PING).await.unwrap();
    let text: Vec<u8> = (0..96).collect();
    // In one piece, one by one, and more than one at once.
    let mut echoed = [0; 32];
    stream.write_all(&text[..32]).await.unwrap();
    stream.read_exact(&mut echoed).await.unwrap();
    assert_eq!(echoed, text[..32]);
    for byte in &text[..32] {
        stream.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    stream.read_exact(&mut echoed).await.unwrap();
    assert_eq!(echoed, text[..32]);
    stream.write_all(&text).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, text, "what came before the end is echoed, then the listener ends too");
}

#[tokio::test(start_paused = true)]
async fn ping_07_a_dialer_that_ends_before_the_echo_gets_it() {
    let network = Network::default();
    let (dialer, _listener, addr) = pair(&network).await;
    let mut stream = dialer.open(&addr, PING).await.unwrap();
    stream.write_all(&[9; 32]).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut echoed = Vec::new();
    stream.read_to_end(&mut echoed).await.unwrap();
    assert_eq!(echoed, [9; 32]);
}

#[tokio::test(start_paused = true)]
async fn ping_08_a_ping_stream_keeps_no_connection_alive() {
    let network = Network::default();
    let (dialer, _listener, addr) = pair(&network).await;
    let mut pinger = dialer.pinger(&addr).unwrap();
    pinger.ping().await.unwrap();
    tokio::time::sleep(Duration::from_secs(70)).await;
    assert!(dialer.peers().is_empty(), "idle for more than a minute");
}

#[tokio::test(start_paused = true)]
async fn ping_09_a_peer_without_ping_is_alive_and_named() {
    let network = Network::default();
    let (dialer, listener, addr) = pair(&network).await;
    assert!(listener.unhandle(PING));
    let error = dialer.ping(&addr).await.unwrap_err();
    assert!(error.to_string().contains(PING), "{error}");
    assert_eq!(dialer.peers(), [listener.peer_id()]);
}

#[tokio::test(start_paused = true)]
async fn ping_03_two_streams_of_a_peer_are_answered_and_the_third_is_reset() {
    let network = Network::default();
    let (dialer, _listener, addr) = pair(&network).await;
    let mut streams = Vec::new();
    for _ in 0..2 {
        streams.push(dialer.open(&addr, PING).await.unwrap());
    }
    for stream in &mut streams {
        stream.write_all(&[7; 32]).await.unwrap();
        let mut pong = [0; 32];
        stream.read_exact(&mut pong).await.unwrap();
        assert_eq!(pong, [7; 32]);
    }
    assert_eq!(reset_code(&dialer, &addr, PING).await, ErrorCode::STREAM_RESOURCE_LIMIT);
    drop(streams);
    assert!(dialer.ping(&addr).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_pinger_tells_of_its_round_trips_and_failures() {
    let network = Network::default();
    let listener = echo_host(&network, "/memory/7").await;
    let far = network.far_transport(Duration::from_millis(20));
    let dialer = p2p::builder().transport(far).spawn().await.unwrap();
    dialer.identify("/memory/7").await.unwrap();
    let mut pinger = dialer.pinger("/memory/7").unwrap();
    assert_eq!(pinger.stats(), p2p::ping::PingStats::default());
    for _ in 0..3 {
        pinger.ping().await.unwrap();
    }
    let trip = Some(Duration::from_millis(40));
    let stats = pinger.stats();
    assert_eq!((stats.answered, stats.failed, stats.failed_in_a_row), (3, 0, 0));
    assert_eq!([stats.last, stats.min, stats.max, stats.mean], [trip; 4]);
    assert!(listener.unhandle("/ipfs/ping/1.0.0"));
    let mut refused = dialer.pinger("/memory/7").unwrap();
    for failed in 1..=2 {
        assert!(refused.ping().await.is_err());
        let stats = refused.stats();
        assert_eq!((stats.answered, stats.failed, stats.failed_in_a_row), (0, failed, failed));
        assert_eq!(stats.mean, None);
    }
}

#[tokio::test(start_paused = true)]
async fn ping_06_a_stream_that_the_peer_has_ended_is_opened_anew() {
    let network = Network::default();
    let (dialer, _listener, addr) = pair(&network).await;
    let _alive = {
        dialer.connect(&addr).await.unwrap();
        dialer.keep_alive(&dialer.peers()[0]).unwrap()
    };
    let mut pinger = dialer.pinger(&addr).unwrap();
    pinger.ping().await.unwrap();
    // The listener ends streams that are silent for a minute; its connection stays.
    tokio::time::sleep(Duration::from_secs(59)).await;
    pinger.ping().await.unwrap();
    tokio::time::sleep(Duration::from_secs(61)).await;
    pinger.ping().await.unwrap();
}
