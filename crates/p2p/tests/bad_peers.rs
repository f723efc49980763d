//! Peers that authenticate and then do what no honest one does, and what an honest one next to
//! them notices: nothing.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::Duration;

use bytes::BytesMut;
use common::{Network, builder, delimited, echo, echo_host, echo_once, field, next_event, tasks};
use p2p::{
    Cause, DialError, Event, Host, Keypair, ListenError, Multiaddr, OpenError, ProtocolId, Stage,
    Stream,
    core::{DialTarget, Link, Muxer, Pipe, Role, Security, Transport},
    noise::Noise,
};
use p2p_mux::{Mux, MuxStream, Setup, Yamux};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep, timeout},
};

const IDENTIFY: ProtocolId = ProtocolId::from_static("/ipfs/id/1.0.0");

/// A connection to `/memory/7` that is played by hand from the multiplexer on.
async fn connect(network: &Network) -> Mux {
    let target = DialTarget::new("/memory/7".parse().unwrap(), None);
    let link = network.transport(None).dial(target).await.unwrap();
    let Link::Pipe(mut pipe) = link else { panic!("{link:?}") };
    let io = &mut tokio::io::join(&mut pipe.read, &mut pipe.write);
    p2p::multistream::initiate(io, [ProtocolId::from_static("/noise")]).await.unwrap();
    let noise = Noise::new(&Keypair::generate().unwrap()).unwrap();
    let yamux = Yamux::default();
    let mut handshake = noise.start(Role::Initiator, None, &[yamux.protocol()]).unwrap();
    let (mut wire, mut out) = (BytesMut::new(), BytesMut::new());
    let session = loop {
        let session = handshake.advance(&mut wire, &mut out).unwrap();
        pipe.write.write_all(&out.split()).await.unwrap();
        if let Some(session) = session {
            break session;
        }
        pipe.read.read_buf(&mut wire).await.unwrap();
    };
    assert_eq!(session.muxer, Some(yamux.protocol()));
    let core = yamux.start(Role::Initiator, Instant::now().into_std());
    let setup = Setup::new(Pipe::new(pipe.read, pipe.write), core)
        .sealed(session.seal, session.open)
        .with_received(wire, BytesMut::new());
    let (mux, driver) = setup.start();
    tokio::spawn(driver);
    mux
}

/// An honest peer next to it finds the host as it should be.
async fn assert_serves(network: &Network) {
    let honest = builder(network, None).spawn().await.unwrap();
    let begun = Instant::now();
    assert_eq!(echo_once(&honest, "/memory/7", b"x").await.unwrap(), b"x");
    assert_eq!(begun.elapsed(), Duration::ZERO, "it has waited");
    honest.close().await;
}

#[tokio::test(start_paused = true)]
async fn streams_that_never_speak_end_in_ten_seconds_and_hold_up_nobody() {
    let network = Network::default();
    let host = echo_host(&network, "/memory/7").await;
    let mux = connect(&network).await;
    let begun = Instant::now();
    let mut streams: Vec<MuxStream> = Vec::new();
    while let Ok(stream) = timeout(Duration::from_secs(1), mux.open()).await {
        let mut stream = stream.unwrap();
        // One byte, so that there is a frame.
        stream.write_all(b"\x13").await.unwrap();
        streams.push(stream);
    }
    assert_eq!(streams.len(), 256);
    assert!(host.usage().streams_inbound.count <= 128, "the rest waits in the multiplexer");
    assert_serves(&network).await;
    let negotiating = begun + Duration::from_secs(10);
    for stream in &mut streams[..128] {
        assert!(stream.read(&mut [0]).await.is_err());
        assert!(Instant::now() <= negotiating, "{:?}", begun.elapsed());
    }
    for stream in &mut streams[128..] {
        assert!(stream.read(&mut [0]).await.is_err());
    }
    assert_eq!(begun.elapsed(), Duration::from_secs(20), "two rounds of ten seconds");
    assert_eq!(host.usage().streams_inbound.count, 0);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_identify_is_answered_within_the_bounds_and_holds_up_nobody() {
    let network = Network::default();
    let host = echo_host(&network, "/memory/7").await;
    let at_rest = tasks();
    let mut mux = connect(&network).await;
    let mut unread = Vec::new();
    let mut ended = 0;
    for _ in 0..5000 {
        // Too many of its resets end the connection; it comes back.
        let Ok(mut stream) = mux.open().await else {
            ended += 1;
            mux = connect(&network).await;
            continue;
        };
        let agreed = p2p::multistream::initiate(&mut stream, [IDENTIFY]).await;
        if agreed.is_ok() {
            unread.push(stream);
        }
        assert!(host.usage().streams_inbound.count <= 16 + 1, "{}", host.usage().streams_inbound);
        // Answers that nobody reads take memory of their reader.
        assert!(host.usage().buffered_bytes.count <= 1 << 20);
        if unread.len() >= 200 {
            assert_serves(&network).await;
            unread.clear();
        }
    }
    assert!(ended > 0, "nobody minds the resets");
    drop((unread, mux));
    sleep(Duration::from_secs(60)).await;
    assert_eq!(tasks(), at_rest);
    assert_serves(&network).await;
}

/// Its own identify would be as good as another, but for its size.
#[tokio::test(start_paused = true)]
async fn a_peer_that_advertises_ten_thousand_protocols_is_known_with_a_thousand() {
    let network = Network::default();
    let key = Keypair::generate().unwrap();
    let liar = builder(&network, None).identity(key.clone()).listen("/memory/7");
    let liar = liar.spawn().await.unwrap();
    assert!(liar.unhandle("/ipfs/id/1.0.0"));
    let names = |part: u32| {
        (0..1100).flat_map(|n| field(3, format!("/{part}{n}").as_bytes())).collect::<Vec<u8>>()
    };
    let own_key = field(1, &key.public().to_protobuf());
    let parts = (0..9).map(names).map(|part| delimited(&part[..8000.min(part.len())]));
    let whole: Vec<u8> = delimited(&own_key).into_iter().chain(parts.flatten()).collect();
    liar.handle("/ipfs/id/1.0.0", move |mut stream: Stream| {
        let whole = whole.clone();
        async move {
            stream.write_all(&whole).await?;
            stream.shutdown().await
        }
    })
    .unwrap();
    liar.handle("/echo/1.0.0", echo).unwrap();
    let host = builder(&network, None).spawn().await.unwrap();
    match host.identify("/memory/7").await {
        Ok(info) => assert_eq!(info.protocols.len(), 1024),
        Err(error) => panic!("{error}"),
    }
    assert_eq!(host.peerstore().get(&liar.peer_id()).unwrap().protocols.len(), 1024);
    assert_eq!(echo_once(&host, "/memory/7", b"x").await.unwrap(), b"x");
}

#[tokio::test(start_paused = true)]
async fn of_a_thousand_addresses_of_a_peer_32_are_tried() {
    let network = Network::default();
    let host = builder(&network, None).spawn().await.unwrap();
    let peer = Keypair::generate().unwrap().public().peer_id();
    let addrs: Vec<Multiaddr> = (0..1000u32)
        .map(|n| format!("/ip4/203.0.{}.{}/memory/9", n / 250, n % 250).parse().unwrap())
        .collect();
    let error = host.connect((peer, addrs)).await.unwrap_err();
    let OpenError::Dial(DialError::Attempts(tried)) = &error else { panic!("{error}") };
    assert_eq!(tried.len(), 32);
    let silent: Vec<Multiaddr> = (0..1000u32)
        .map(|n| format!("/ip4/203.0.{}.{}/memory/0", n / 250, n % 250).parse().unwrap())
        .collect();
    let dial = tokio::spawn({
        let host = host.clone();
        async move { host.connect((peer, silent)).await }
    });
    let begun = Instant::now();
    while !dial.is_finished() {
        assert!(host.usage().dials_at_once.count <= 8);
        sleep(Duration::from_millis(500)).await;
    }
    assert!(dial.await.unwrap().is_err());
    assert!(begun.elapsed() <= Duration::from_millis(30_500), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn addresses_that_are_near_are_not_kept_of_a_peer_that_is_far() {
    let network = Network::default();
    let key = Keypair::generate().unwrap();
    let far = builder(&network, None).identity(key.clone()).listen("/ip4/8.8.8.8/memory/7");
    let far = far.spawn().await.unwrap();
    assert!(far.unhandle("/ipfs/id/1.0.0"));
    let mut message = field(1, &key.public().to_protobuf());
    for addr in ["/ip4/127.0.0.1/tcp/1", "/ip4/10.0.0.1/tcp/1", "/ip4/1.1.1.1/tcp/1", "/memory/1"] {
        message.extend(field(2, &addr.parse::<Multiaddr>().unwrap().to_vec()));
    }
    let whole = delimited(&message);
    far.handle("/ipfs/id/1.0.0", move |mut stream: Stream| {
        let whole = whole.clone();
        async move {
            stream.write_all(&whole).await?;
            stream.shutdown().await
        }
    })
    .unwrap();
    let host = builder(&network, None).spawn().await.unwrap();
    host.identify("/ip4/8.8.8.8/memory/7").await.unwrap();
    let known = host.peerstore().get(&far.peer_id()).unwrap();
    let mut addrs: Vec<String> = known.addrs.iter().map(|known| known.addr.to_string()).collect();
    addrs.sort();
    assert_eq!(addrs, ["/ip4/1.1.1.1/tcp/1", "/ip4/8.8.8.8/memory/7"]);
}

/// A machine that was asleep for a day: every timer of it is late at once.
#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_costs_connections_at_most() {
    let network = Network::default();
    let listener = echo_host(&network, "/memory/7").await;
    let dialer = builder(&network, None).spawn().await.unwrap();
    let mut open = dialer.open("/memory/7", "/echo/1.0.0").await.unwrap();
    let dialing = tokio::spawn({
        let dialer = dialer.clone();
        async move { dialer.connect("/memory/0").await }
    });
    sleep(Duration::from_millis(10)).await;
    for _ in 0..3 {
        tokio::time::advance(Duration::from_secs(86_400)).await;
        assert_eq!(echo_once(&dialer, "/memory/7", b"x").await.unwrap(), b"x");
    }
    assert!(dialing.await.unwrap().is_err());
    // The old stream works, or says why not.
    if open.write_all(b"y").await.is_ok() {
        let _ = timeout(Duration::from_secs(10), open.read_u8()).await.unwrap();
    }
    drop(open);
    for host in [listener, dialer] {
        host.close().await;
    }
    assert_eq!(tasks(), 0);
}

/// A host that answers whatever comes with garbage, at `/memory/7`.
async fn garbage(network: &Network) {
    let transport = network.transport(None);
    let mut listener = transport.listen("/memory/7".parse().unwrap()).await.unwrap();
    tokio::spawn(async move {
        while let Ok(p2p::core::ListenEvent::Incoming(incoming)) = listener.next().await {
            let Ok(Link::Pipe(mut pipe)) = incoming.link().await else { continue };
            tokio::spawn(async move {
                let _ = pipe.write.write_all(&[0xff; 64]).await;
                sleep(Duration::from_secs(1)).await;
            });
        }
    });
}

#[track_caller]
fn assert_names(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}

async fn connect_error(host: &Host, addr: &str) -> String {
    host.connect(addr).await.unwrap_err().to_string()
}

#[tokio::test(start_paused = true)]
async fn the_text_of_every_error_names_stage_address_and_cause() {
    let network = Network::default();
    let host = builder(&network, None).spawn().await.unwrap();
    let text = connect_error(&host, "/memory/8").await;
    assert_names(&text, &["/memory/8", "in connect", "connection refused"]);
    let text = connect_error(&host, "/memory/0").await;
    assert_names(&text, &["/memory/0", "in connect", "after 10.0s", "no answer within 10s"]);
    let text = connect_error(&host, "/ip4/192.0.2.1/udp/1/quic-v1").await;
    assert_names(&text, &["/ip4/192.0.2.1/udp/1/quic-v1", "in connect", "no transport"]);
    let plain = p2p_host::builder().transport(network.transport(None)).security(Noise::new);
    let plain = plain.muxer(Yamux::default()).spawn().await.unwrap();
    let text = connect_error(&plain, "/dns4/example.com/tcp/1").await;
    assert_names(&text, &["/dns4/example.com/tcp/1", "in dns", "no resolver"]);

    garbage(&network).await;
    let text = connect_error(&host, "/memory/7").await;
    assert_names(&text, &["/memory/7", "in security", "negotiation"]);

    // Nothing in common to multiplex with.
    let network = Network::default();
    let mplex = p2p_host::builder().transport(network.transport(None)).security(Noise::new);
    let mplex = mplex.muxer(p2p_mux::Mplex::default()).listen("/memory/7").spawn().await.unwrap();
    let mut events = mplex.events();
    let host = builder(&network, None).spawn().await.unwrap();
    let text = connect_error(&host, "/memory/7").await;
    assert_names(&text, &["/memory/7", "in security", "no multiplexer in common", "/mplex/6.7.0"]);
    let told = next_event(&mut events, |event| {
        if let Event::InboundFailed { error } = event { Some(error) } else { None }
    });
    let told = told.await;
    let parts = ["inbound connection from /memory/999", "in security", "closed the connection"];
    assert_names(&told.to_string(), &parts);

    // Streams.
    let network = Network::default();
    let listener = echo_host(&network, "/memory/7").await;
    let host = builder(&network, None).spawn().await.unwrap();
    let peer = listener.peer_id().to_string();
    let text = host.open("/memory/7", "/nothing").await.unwrap_err().to_string();
    assert_names(&text, &[&peer, "does not support /nothing"]);
    let mut places = Vec::new();
    let error = loop {
        match host.open("/memory/7", "/ipfs/ping/1.0.0").await {
            Ok(stream) if places.len() < 2 => places.push(stream),
            Ok(mut third) => break third.read_u8().await.unwrap_err().to_string(),
            Err(error) => break error.to_string(),
        }
    };
    assert_names(&error, &["in protocol", &peer, "reset the stream (code 0x1002)"]);
    let few = builder(&network, None).streams_outbound_max(0).spawn().await.unwrap();
    let error = few.open("/memory/7", "/echo/1.0.0").await.unwrap_err();
    let OpenError::Stream { stage: Stage::Stream, cause: Cause::Limit(_), .. } = &error else {
        panic!("{error}")
    };
    let parts = ["/echo/1.0.0", &peer, "in stream", "Builder::streams_outbound_max"];
    assert_names(&error.to_string(), &parts);

    // Listening.
    for (addr, parts) in [
        ("nonsense", &["nonsense"][..]),
        ("/ip4/192.0.2.1/udp/1", &["/ip4/192.0.2.1/udp/1", "no transport"]),
        ("/ip4/192.0.2.1/tcp/1", &["/ip4/192.0.2.1/tcp/1", "assign"]),
    ] {
        let error: ListenError = host.listen(addr).await.unwrap_err();
        assert_names(&error.to_string(), parts);
    }
}
