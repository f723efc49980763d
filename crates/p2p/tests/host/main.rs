//! What a host promises its users, over links in memory with paused time, and over TCP where the
//! system's part in it matters.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;

mod dial;
mod ping;

use std::{future::IntoFuture, time::Duration};

use common::{Network, builder, echo, echo_host, echo_once, tasks};
use p2p::{
    BuildError, Cause, ConnectionError, DialError, ErrorCode, Event, Host, ListenError, Multiaddr,
    OpenError, Stage, Stream, StreamError,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
    time::{Instant, timeout},
};

const PING: &str = "/ipfs/ping/1.0.0";

async fn pair(network: &Network) -> (Host, Host, String) {
    let listener = echo_host(network, "/memory/7").await;
    let dialer = builder(network, None).spawn().await.unwrap();
    let addr = listener.addrs().remove(0);
    (dialer, listener, addr)
}

fn attempts(error: OpenError) -> Vec<p2p::DialAttempt> {
    let OpenError::Dial(DialError::Attempts(attempts)) = error else { panic!("{error:?}") };
    attempts.to_vec()
}

/// Opens a stream that the peer resets, during or right after the negotiation, and gives the
/// reset's code.
async fn reset_code(dialer: &Host, addr: &str, protocol: &str) -> ErrorCode {
    let error = match dialer.open(addr, protocol).await {
        Ok(mut stream) => loop {
            match stream.chunk(64).await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("{protocol}: a reset stream looks complete"),
                Err(error) => break error,
            }
        },
        Err(OpenError::Stream { stage: Stage::Protocol, cause: Cause::Stream(error), .. }) => error,
        Err(other) => panic!("{other:?}"),
    };
    let StreamError::Reset(code) = error else { panic!("{error:?}") };
    code
}

#[tokio::test(start_paused = true)]
async fn conn_17_streams_go_over_a_direct_connection_then_the_busiest_then_the_newest() {
    let network = Network::default();
    let (_, host, _) = pair(&network).await;
    let mut same = dialers_of_one_peer(
        &network,
        &["/memory/1", "/memory/2", "/memory/3", "/memory/4/p2p-circuit/memory/4"],
    )
    .await;
    let peer = same[0].peer_id();
    let remote = |stream: &Stream| stream.connection().remote().to_string();
    let open = async || host.open(peer, "/echo/1.0.0").await.unwrap();
    let newest = open().await;
    assert_eq!(remote(&newest), "/memory/3");
    drop(newest);
    let busy = same[1].open("/memory/7", "/echo/1.0.0").await.unwrap();
    assert_eq!(remote(&open().await), "/memory/2");
    drop(busy);
    sleep_a_little().await;
    assert_eq!(remote(&open().await), "/memory/3");
    same.truncate(1);
    sleep_a_little().await;
    assert_eq!(remote(&open().await), "/memory/1");
}

/// The best one is the busiest, and so the first that has no room.
#[tokio::test(start_paused = true)]
async fn conn_17_a_connection_without_room_for_a_stream_is_passed_over() {
    let network = Network::default();
    let (_, host, _) = pair(&network).await;
    let same = dialers_of_one_peer(&network, &["/memory/1", "/memory/2"]).await;
    let peer = same[0].peer_id();
    let remote = |stream: &Stream| stream.connection().remote().to_string();
    let begun = Instant::now();
    let mut streams = Vec::new();
    for _ in 0..300 {
        streams.push(host.open(peer, "/echo/1.0.0").await.unwrap());
    }
    assert_eq!(begun.elapsed(), Duration::ZERO, "nothing waited");
    let first = remote(&streams[0]);
    let on_first = streams.iter().filter(|stream| remote(stream) == first).count();
    assert_eq!(on_first, 256, "as many as the multiplexer lets a connection have");
    // Both are full: it waits for whichever has room first.
    while let Ok(opened) =
        timeout(Duration::from_secs(1), host.open(peer, "/echo/1.0.0").into_future()).await
    {
        streams.push(opened.unwrap());
    }
    assert!(streams.len() > 500, "{}", streams.len());
    let waiting = tokio::spawn(host.open(peer, "/echo/1.0.0").into_future());
    sleep_a_little().await;
    assert!(!waiting.is_finished());
    let mut ended = streams.pop().unwrap();
    ended.shutdown().await.unwrap();
    assert_eq!(ended.read(&mut [0]).await.unwrap(), 0);
    let freed = remote(&ended);
    drop(ended);
    assert_eq!(remote(&waiting.await.unwrap().unwrap()), freed);
}

/// Hosts with one identity that have connected from these places, one after the other.
async fn dialers_of_one_peer(network: &Network, places: &[&str]) -> Vec<Host> {
    let identity = p2p::Keypair::generate().unwrap();
    let mut same = Vec::new();
    for from in places {
        let transport = network.transport_from(from);
        let dialer = p2p::builder().transport(transport).identity(identity.clone());
        let dialer = dialer.spawn().await.unwrap();
        dialer.handle("/echo/1.0.0", echo).unwrap();
        dialer.connect("/memory/7").await.unwrap();
        dialer.identify("/memory/7").await.unwrap();
        same.push(dialer);
    }
    same
}

async fn sleep_a_little() {
    tokio::time::sleep(Duration::from_secs(2)).await;
}

#[tokio::test]
async fn both_ends_of_a_tcp_connection_know_both_addresses() {
    let listener = p2p::builder().listen("/ip4/127.0.0.1/tcp/0").spawn().await.unwrap();
    let dialer = p2p::builder().spawn().await.unwrap();
    let addr = listener.addrs().remove(0);
    let near = dialer.connect(&addr).await.unwrap();
    let seen = dialer.identify(&addr).await.unwrap();
    let [far] = listener.connections(&dialer.peer_id()).try_into().unwrap();
    assert_eq!(near.local(), Some(far.remote()));
    assert_eq!(far.local(), Some(near.remote()));
    assert_eq!(seen.observed_addr.as_ref(), near.local());
}

#[tokio::test]
async fn refused_over_tcp_names_address_and_stage() {
    let dialer = p2p::builder().spawn().await.unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let addr = format!("/ip4/127.0.0.1/tcp/{free}");
    let text = dialer.connect(&addr).await.unwrap_err().to_string();
    assert!(text.contains(&addr) && text.contains("connect") && text.contains("refused"), "{text}");
}

// Streams and protocols.

#[tokio::test(start_paused = true)]
async fn mss_18_an_unsupported_protocol_leaves_the_connection_usable() {
    let network = Network::default();
    let (dialer, listener, addr) = pair(&network).await;
    let error = dialer.open(&addr, "/nobody/1.0.0").await.unwrap_err();
    assert!(matches!(&error, OpenError::Unsupported { protocol, .. }
        if protocol.as_str() == "/nobody/1.0.0"));
    assert!(error.to_string().contains("/nobody/1.0.0"));
    assert_eq!(echo_once(&dialer, &addr, b"x").await.unwrap(), b"x");
    assert_eq!(dialer.connections(&listener.peer_id()).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn mss_20_24_optimistic_streams_carry_data_at_once_and_tell_of_refusal_when_read() {
    let network = Network::default();
    let (dialer, _listener, addr) = pair(&network).await;
    let mut stream = dialer.open(&addr, "/echo/1.0.0").optimistic().await.unwrap();
    stream.write_all(b"early").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut back = Vec::new();
    stream.read_to_end(&mut back).await.unwrap();
    assert_eq!(back, b"early");

    let mut stream = dialer.open(&addr, "/nobody/1.0.0").optimistic().await.unwrap();
    stream.write_all(b"lost").await.unwrap();
    let error = stream.read_to_end(&mut back).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::Unsupported);
    assert!(error.to_string().contains("/nobody/1.0.0"), "{error}");
    assert!(stream.write_all(b"more").await.is_err(), "both directions are over");
    // MSS-23: read without having written.
    let mut stream = dialer.open(&addr, "/echo/1.0.0").optimistic().await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(stream.chunk(16).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_panics_or_fails_ends_its_own_stream_only() {
    let network = Network::default();
    let (dialer, listener, addr) = pair(&network).await;
    listener
        .handle("/panic/1.0.0", |_: Stream| async {
            if tasks() > 0 {
                panic!("a planned panic");
            }
            Ok::<_, std::io::Error>(())
        })
        .unwrap();
    listener
        .handle("/fail/1.0.0", |mut s: Stream| async move {
            s.write_all(b"half an answer").await?;
            Err::<(), _>(std::io::Error::other("a planned failure"))
        })
        .unwrap();
    let mut bystander = dialer.open(&addr, "/echo/1.0.0").await.unwrap();
    for protocol in ["/panic/1.0.0", "/fail/1.0.0"] {
        assert_eq!(reset_code(&dialer, &addr, protocol).await, ErrorCode::NONE);
    }
    bystander.write_all(b"x").await.unwrap();
    assert_eq!(bystander.read_u8().await.unwrap(), b'x');
    drop(bystander);
    assert_eq!(dialer.connections(&listener.peer_id()).len(), 1);
    dialer.close().await;
    listener.close().await;
    assert_eq!(tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn accepted_streams_come_in_order_and_end_with_the_service() {
    let network = Network::default();
    let (dialer, listener, addr) = pair(&network).await;
    let mut accepted = listener.accept("/queue/1.0.0").unwrap();
    assert!(listener.accept("/queue/1.0.0").is_err());
    for number in 0..3u8 {
        let mut stream = dialer.open(&addr, "/queue/1.0.0").await.unwrap();
        stream.write_all(&[number]).await.unwrap();
        let mut taken = accepted.next().await.unwrap();
        assert_eq!(taken.peer(), dialer.peer_id());
        assert_eq!(taken.protocol().unwrap().as_str(), "/queue/1.0.0");
        assert_eq!(taken.read_u8().await.unwrap(), number);
    }
    drop(accepted);
    let error = dialer.open(&addr, "/queue/1.0.0").await.unwrap_err();
    assert!(matches!(error, OpenError::Unsupported { .. }));
    assert!(listener.accept("/queue/1.0.0").is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_accept_queue_that_is_full_refuses_the_next_stream() {
    let network = Network::default();
    let (dialer, listener, addr) = pair(&network).await;
    let _accepted = listener.accept("/queue/1.0.0").unwrap();
    let mut streams = Vec::new();
    for _ in 0..32 {
        streams.push(dialer.open(&addr, "/queue/1.0.0").await.unwrap());
    }
    let code = reset_code(&dialer, &addr, "/queue/1.0.0").await;
    assert_eq!(code, ErrorCode::STREAM_RESOURCE_LIMIT);
    for stream in &mut streams {
        assert!(timeout(Duration::from_millis(1), stream.chunk(1)).await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn protocol_names_are_checked_and_taken_ones_are_refused() {
    let network = Network::default();
    let (dialer, listener, addr) = pair(&network).await;
    assert!(listener.handle("echo", echo).unwrap_err().to_string().contains("echo"));
    assert!(listener.handle("/echo/1.0.0", echo).unwrap_err().to_string().contains("/echo/1.0.0"));
    assert!(listener.handle(PING, echo).is_err());
    assert!(matches!(dialer.open(&addr, "echo").await, Err(OpenError::Protocol(_))));
    assert!(matches!(dialer.open("nonsense", PING).await, Err(OpenError::Target(_))));
    assert!(listener.unhandle("/echo/1.0.0"));
    assert!(!listener.unhandle("/echo/1.0.0"));
    assert!(dialer.open(&addr, "/echo/1.0.0").await.is_err());
}

// Listening and building.

#[tokio::test]
async fn addresses_that_cannot_be_bound_are_named() {
    let taken = p2p::builder().listen("/ip4/127.0.0.1/tcp/0").spawn().await.unwrap();
    let addr = taken.multiaddrs().remove(0).to_string();
    let bare = addr.split("/p2p/").next().unwrap();
    let text = p2p::builder().listen(bare).spawn().await.unwrap_err().to_string();
    assert!(text.contains(bare) && text.contains("in use"), "{text}");

    for (addr, expected) in [
        ("/ip4/localhost/tcp/0", "/ip4/localhost/tcp/0"),
        ("", "multiaddr"),
        ("/ip4/127.0.0.1/udp/0/quic-v1", "no transport"),
        (addr.as_str(), "this host is"),
    ] {
        let error = p2p::builder().listen(addr).spawn().await.unwrap_err();
        assert!(
            matches!(error, BuildError::Listen(_)) && error.to_string().contains(expected),
            "{error}"
        );
    }
    let host = p2p::builder().spawn().await.unwrap();
    assert!(matches!(host.listen("x").await, Err(ListenError::Parse { .. })));
    assert!(host.addrs().is_empty());
}

#[tokio::test]
async fn a_wildcard_is_reported_as_addresses_that_can_be_dialed() {
    let host = p2p::builder().listen("/ip4/0.0.0.0/tcp/0").spawn().await.unwrap();
    let addrs = host.addrs();
    assert!(addrs.iter().any(|a| a.starts_with("/ip4/127.0.0.1/tcp/")), "{addrs:?}");
    assert!(addrs.iter().all(|a| !a.contains("/0.0.0.0/") && !a.contains("/tcp/0/")), "{addrs:?}");
    let end = format!("/p2p/{}", host.peer_id());
    assert!(addrs.iter().all(|a| a.ends_with(&end)));
}

#[tokio::test]
async fn a_host_needs_its_parts() {
    let missing = p2p_host::builder().spawn().await.unwrap_err();
    assert!(matches!(missing, BuildError::Missing("transport")), "{missing}");
    let twice = p2p::builder().muxer(p2p::mux::Yamux::default()).spawn().await.unwrap_err();
    assert!(twice.to_string().contains("/yamux/1.0.0"), "{twice}");
}

#[tokio::test]
async fn the_parts_of_the_builder_can_be_changed() {
    use p2p::{noise::cipher::Cipher, tcp::Tcp};
    let mut parts = p2p::Parts::default();
    let paved = if cfg!(feature = "openssl") { "OpenSSL" } else { "ring" };
    assert_eq!(parts.noise_cipher.name(), paved);
    parts.noise_cipher = Cipher::RUST_CRYPTO;
    parts.tcp = Tcp::new().with_port_reuse(true);
    let listener = p2p::builder().listen("/ip4/127.0.0.1/tcp/0").spawn().await.unwrap();
    listener.handle("/echo/1.0.0", echo).unwrap();
    let dialer = parts.builder().listen("/ip4/127.0.0.1/tcp/0").spawn().await.unwrap();
    let addr = listener.addrs().remove(0);
    assert_eq!(echo_once(&dialer, &addr, b"x").await.unwrap(), b"x");
    let [connection] = listener.connections(&dialer.peer_id()).try_into().unwrap();
    let own = dialer.addrs().remove(0);
    assert!(own.starts_with(&connection.remote().to_string()), "{own}: the port is reused");
}

// Lifetime.

#[tokio::test]
async fn close_frees_the_port_and_ends_every_task() {
    let before = tasks();
    let host = p2p::builder().listen("/ip4/127.0.0.1/tcp/0").spawn().await.unwrap();
    host.handle("/echo/1.0.0", echo).unwrap();
    let addr = host.addrs().remove(0);
    let other = p2p::builder().spawn().await.unwrap();
    assert_eq!(echo_once(&other, &addr, b"x").await.unwrap(), b"x");
    let mut events = other.events();
    host.close().await;
    let cause = loop {
        if let Some(Event::Disconnected { cause, left, .. }) = events.next().await {
            assert_eq!(left, 0);
            break cause;
        }
    };
    assert!(matches!(cause, ConnectionError::ClosedByPeer { .. }), "{cause}");
    let bare = addr.split("/p2p/").next().unwrap().to_owned();
    let again = p2p::builder().listen(bare).spawn().await.unwrap();
    again.close().await;
    other.close().await;
    assert_eq!(tasks(), before);
    host.close().await;
    assert!(matches!(host.connect(&addr).await, Err(OpenError::Dial(DialError::SelfDial(_)))));
    let elsewhere = other.connect(&addr).await.unwrap_err();
    assert!(matches!(elsewhere, OpenError::Dial(DialError::HostClosed)), "{elsewhere}");
    assert!(matches!(host.listen("/ip4/127.0.0.1/tcp/0").await, Err(ListenError::HostClosed)));
}

/// The host has a runtime of its own, so that every task there is one of its.
#[test]
fn close_under_load_leaves_no_task() {
    use tokio::runtime::Builder;
    let own = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let others = Builder::new_current_thread().enable_all().build().unwrap();
    let host = own.block_on(async {
        let builder = p2p::builder().listen("/ip4/127.0.0.1/tcp/0");
        builder.drain_timeout(Duration::from_millis(50)).spawn().await.unwrap()
    });
    host.handle("/echo/1.0.0", echo).unwrap();
    let addr = host.addrs().remove(0);
    others.block_on(async {
        let (told, mut under_way) = tokio::sync::mpsc::channel(1000);
        let mut load = JoinSet::new();
        for _ in 0..8 {
            let dialer = p2p::builder().spawn().await.unwrap();
            for _ in 0..8 {
                let (dialer, addr, told) = (dialer.clone(), addr.clone(), told.clone());
                load.spawn(async move {
                    while echo_once(&dialer, &addr, &[7; 100_000]).await.is_ok() {
                        // Those beyond are not counted.
                        let _ = told.try_send(());
                    }
                });
            }
        }
        for _ in 0..200 {
            under_way.recv().await.unwrap();
        }
        let closing = host.clone();
        own.spawn(async move { closing.close().await }).await.unwrap();
        // That very task may still be on its way out, on the other thread: none but that one.
        assert!(own.metrics().num_alive_tasks() <= 1);
        let freed = async {
            while own.metrics().num_alive_tasks() > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), freed).await.unwrap();
        assert_eq!(host.usage().streams_inbound.count, 0);
        assert_eq!(host.usage().connections_inbound.count, 0);
        load.join_all().await;
    });
}

#[tokio::test(start_paused = true)]
async fn close_waits_for_streams_under_way_up_to_its_limit() {
    let network = Network::default();
    let (dialer, listener, addr) = pair(&network).await;
    let mut busy = dialer.open(&addr, "/echo/1.0.0").await.unwrap();
    let begun = Instant::now();
    let (closed, back) = tokio::join!(listener.close(), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        busy.write_all(b"in time").await.unwrap();
        busy.shutdown().await.unwrap();
        let mut back = Vec::new();
        busy.read_to_end(&mut back).await.unwrap();
        back
    });
    let () = closed;
    assert_eq!(back, b"in time");
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());

    let (dialer, listener, addr) = pair(&Network::default()).await;
    let idle = dialer.open(&addr, "/echo/1.0.0").await.unwrap();
    let begun = Instant::now();
    listener.close().await;
    assert!(begun.elapsed() >= Duration::from_secs(1) && begun.elapsed() < Duration::from_secs(3));
    drop(idle);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_ends_everything() {
    let network = Network::default();
    let (dialer, listener, addr) = pair(&network).await;
    let mut stream = dialer.open(&addr, "/echo/1.0.0").await.unwrap();
    drop((dialer, listener));
    assert!(stream.read_u8().await.is_err());
    drop(stream);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn conn_21_an_unused_connection_is_closed_after_its_idle_time_unless_it_is_kept() {
    let network = Network::default();
    let (dialer, listener, addr) = pair(&network).await;
    dialer.connect(&addr).await.unwrap();
    let guard = dialer.keep_alive(&listener.peer_id()).unwrap();
    let listener_guard = loop {
        if let Some(guard) = listener.keep_alive(&dialer.peer_id()) {
            break guard;
        }
        tokio::task::yield_now().await;
    };
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(dialer.peers(), [listener.peer_id()]);
    drop((guard, listener_guard));
    tokio::time::sleep(Duration::from_secs(59)).await;
    assert_eq!(dialer.peers(), [listener.peer_id()]);
    // A stream starts the time anew.
    assert_eq!(echo_once(&dialer, &addr, b"x").await.unwrap(), b"x");
    tokio::time::sleep(Duration::from_secs(59)).await;
    assert_eq!(dialer.peers(), [listener.peer_id()]);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(dialer.peers().is_empty() && listener.peers().is_empty());
    // Closing it was no fault: the next stream dials again.
    assert_eq!(echo_once(&dialer, &addr, b"x").await.unwrap(), b"x");
}

// Limits.

#[tokio::test(start_paused = true)]
async fn a_reached_limit_names_itself_its_holder_and_its_setting() {
    let network = Network::default();
    let listener = echo_host(&network, "/memory/7").await;
    let _second = echo_host(&network, "/memory/8").await;
    let dialer = builder(&network, None).connections_outbound_max(1).spawn().await.unwrap();
    dialer.connect(listener.addrs().remove(0)).await.unwrap();
    let error = dialer.connect("/memory/8").await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, OpenError::Dial(DialError::Limit(_))), "{text}");
    for part in ["1 outbound connections", "1 peers", "Builder::connections_outbound_max"] {
        assert!(text.contains(part), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn more_inbound_connections_than_allowed_are_closed_before_any_cryptography() {
    let network = Network::default();
    let listener = builder(&network, None)
        .listen("/memory/7")
        .connections_inbound_max(2)
        .spawn()
        .await
        .unwrap();
    let mut dialers = Vec::new();
    for _ in 0..2 {
        let dialer = builder(&network, None).spawn().await.unwrap();
        dialer.connect("/memory/7").await.unwrap();
        dialer.identify("/memory/7").await.unwrap();
        dialers.push(dialer);
    }
    let third = builder(&network, None).spawn().await.unwrap();
    let [attempt] = attempts(third.connect("/memory/7").await.unwrap_err()).try_into().unwrap();
    assert!(matches!(attempt.cause, Cause::Closed), "{attempt}");
    assert_eq!(listener.peers().len(), 2);
    dialers.pop().unwrap().close().await;
    assert!(third.connect("/memory/7").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn conn_10_11_pending_inbound_connections_are_bounded_and_end_in_ten_seconds() {
    let network = Network::default();
    let listener =
        builder(&network, None).listen("/memory/7").pending_inbound_max(3).spawn().await.unwrap();
    let mut events = listener.events();
    // Dialers that connect and say nothing.
    let transport = network.transport(None);
    let target = || p2p::core::DialTarget::new("/memory/7".parse().unwrap(), None);
    let mut silent = Vec::new();
    for _ in 0..5 {
        silent.push(p2p::core::Transport::dial(&transport, target()).await.unwrap());
    }
    let honest = builder(&network, None).spawn().await.unwrap();
    assert!(honest.connect("/memory/7").await.is_err());
    for _ in 0..3 {
        let event = events.next().await.unwrap();
        let Event::InboundFailed { error } = event else { panic!("{event:?}") };
        assert!(matches!(error.cause, Cause::Limit(_)), "{error}");
    }
    let begun = Instant::now();
    for _ in 0..3 {
        let event = events.next().await.unwrap();
        let Event::InboundFailed { error } = event else { panic!("{event:?}") };
        assert_eq!(error.stage, Stage::Security);
        assert!(matches!(error.cause, Cause::TimedOut(_)), "{error}");
    }
    assert!(begun.elapsed() <= Duration::from_secs(10));
    assert!(honest.connect("/memory/7").await.is_ok());
}

// Identify and events.

#[tokio::test(start_paused = true)]
async fn ident_02_03_05_07_both_sides_learn_of_each_other() {
    let network = Network::default();
    let (dialer, listener, addr) = pair(&network).await;
    let mut events = listener.events();
    let info = dialer.identify(&addr).await.unwrap();
    assert_eq!(info.public_key.peer_id(), listener.peer_id());
    assert_eq!(info.listen_addrs, ["/memory/7".parse().unwrap()]);
    assert_eq!(info.observed_addr, Some("/memory/999".parse().unwrap()));
    let names: Vec<_> = info.protocols.iter().map(|p| p.as_str()).collect();
    assert_eq!(names, ["/echo/1.0.0", "/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", PING]);
    assert!(info.agent.starts_with("p2p/"), "{}", info.agent);
    assert!(
        matches!(events.next().await, Some(Event::Connected { peer, .. }) if peer == dialer.peer_id())
    );
    assert!(
        matches!(events.next().await, Some(Event::Identified { peer, .. }) if peer == dialer.peer_id())
    );
}

#[tokio::test(start_paused = true)]
async fn ident_01_11_the_answer_needs_no_question_and_ends() {
    let network = Network::default();
    let (dialer, _listener, addr) = pair(&network).await;
    let mut stream = dialer.open(&addr, "/ipfs/id/1.0.0").await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let (len, read) = p2p::core::varint::decode(&answer).unwrap().unwrap();
    assert_eq!(usize::try_from(len).unwrap() + read, answer.len(), "one delimited message");
}

#[tokio::test(start_paused = true)]
async fn conn_20_the_last_of_several_connections_says_that_none_is_left() {
    let network = Network::default();
    let one = echo_host(&network, "/memory/7").await;
    let two = echo_host(&network, "/memory/8").await;
    // Both dial at once, and both connections are kept.
    let (to_one, to_two) = (one.addrs().remove(0), two.addrs().remove(0));
    let mut events = one.events();
    let (first, second) = tokio::join!(two.connect(&to_one), one.connect(&to_two));
    first.unwrap();
    second.unwrap();
    assert_eq!(one.connections(&two.peer_id()).len(), 2);
    let mut stream = one.open(&to_two, "/echo/1.0.0").await.unwrap();
    two.close().await;
    assert!(stream.read_u8().await.is_err(), "its streams end with a connection");
    let mut left = Vec::new();
    while left.last() != Some(&0) {
        if let Event::Disconnected { left: count, .. } = events.next().await.unwrap() {
            left.push(count);
        }
    }
    assert!(left.is_sorted_by(|a, b| a > b), "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn conn_19_a_connection_is_announced_before_its_streams_are_served() {
    let network = Network::default();
    let (dialer, listener, addr) = pair(&network).await;
    let events = std::sync::Mutex::new(listener.events());
    let (tell, mut told) = tokio::sync::mpsc::channel(1);
    let handler = move |_stream: Stream| {
        let event = at_once(events.lock().unwrap().next());
        let tell = tell.clone();
        async move {
            let known = matches!(event, Some(Some(Event::Connected { .. })));
            tell.send(known).await.map_err(std::io::Error::other)
        }
    };
    listener.handle("/order/1.0.0", handler).unwrap();
    let _stream = dialer.open(&addr, "/order/1.0.0").optimistic().await.unwrap();
    assert_eq!(told.recv().await, Some(true));
}

/// What `future` gives without waiting.
fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    match future.as_mut().poll(&mut cx) {
        std::task::Poll::Ready(value) => Some(value),
        std::task::Poll::Pending => None,
    }
}

#[tokio::test(start_paused = true)]
async fn conn_26_protocols_come_and_go_while_connected() {
    let network = Network::default();
    let (dialer, listener, addr) = pair(&network).await;
    assert!(dialer.open(&addr, "/late/1.0.0").await.is_err());
    listener.handle("/late/1.0.0", echo).unwrap();
    assert!(dialer.open(&addr, "/late/1.0.0").await.is_ok());
    assert!(listener.unhandle("/late/1.0.0"));
    assert!(dialer.open(&addr, "/late/1.0.0").await.is_err());
    assert_eq!(dialer.connections(&listener.peer_id()).len(), 1, "all of it on one connection");
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_is_slow_is_told_what_it_missed() {
    let network = Network::default();
    let (dialer, listener, addr) = pair(&network).await;
    let mut events = dialer.events();
    for _ in 0..150 {
        dialer.identify(&addr).await.unwrap();
        dialer.disconnect(&listener.peer_id());
        while !dialer.peers().is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    // Three events for each connection, 256 of which wait.
    assert!(matches!(events.next().await, Some(Event::Missed { count: 194 })));
    assert!(!matches!(events.next().await, Some(Event::Missed { .. })));
}
