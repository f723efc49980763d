//! Hosts inside, outside and of other private networks, over loopback TCP.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{future::pending, time::Duration};

use async_trait::async_trait;
use p2p_core::{
    ConnectionInfo, DialTarget, Incoming, IoCause, Keypair, Link, ListenEvent, Listener, Multiaddr,
    Muxer, Pipe, Role, Transport, TransportError,
};
use p2p_host::{Builder, Cause, DialError, Event, Events, Host, OpenError, Stage, Stream};
use p2p_mux::{Setup, Yamux};
use p2p_pnet::{LinkError, PreSharedKey, PrivateNetwork};
use p2p_security_noise::Noise;
use p2p_transport_tcp::Tcp;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

/// Below the host's own limits: what goes wrong is noticed, and not waited for.
const SOON: Duration = Duration::from_secs(5);

fn psk(byte: u8) -> PreSharedKey {
    PreSharedKey::from_bytes([byte; 32])
}

fn builder(key: Option<u8>) -> Builder {
    let builder = match key {
        Some(key) => p2p_host::builder().transport(PrivateNetwork::new(psk(key), Tcp::default())),
        None => p2p_host::builder().transport(Tcp::default()),
    };
    builder.security(Noise::new).muxer(Yamux::default())
}

async fn echo_host(key: Option<u8>) -> Host {
    let host = builder(key).listen("/ip4/127.0.0.1/tcp/0").spawn().await.unwrap();
    host.handle("/echo/1.0.0", |s: Stream| async move {
        let (mut r, mut w) = tokio::io::split(s);
        tokio::io::copy(&mut r, &mut w).await?;
        w.shutdown().await
    })
    .unwrap();
    host
}

#[tokio::test]
async fn conn_13_two_hosts_with_one_key_echo() {
    let listener = echo_host(Some(1)).await;
    let dialer = builder(Some(1)).spawn().await.unwrap();
    let data: Vec<u8> = (0..1_000_000u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
    let stream = dialer.open(&listener.addrs()[0], "/echo/1.0.0").await.unwrap();
    let (mut read, mut write) = tokio::io::split(stream);
    let mut back = Vec::new();
    let send = async {
        write.write_all(&data).await?;
        write.shutdown().await
    };
    let (sent, received) = tokio::join!(send, read.read_to_end(&mut back));
    sent.unwrap();
    received.unwrap();
    assert!(back == data);
    dialer.close().await;
    listener.close().await;
}

/// The causes of a dial that failed on both of its sides.
async fn failures(dialer: Option<u8>, listener: Option<u8>) -> (Cause, Cause) {
    let listener = echo_host(listener).await;
    let mut events = listener.events();
    let dialer = builder(dialer).spawn().await.unwrap();
    let opened = timeout(SOON, dialer.open(&listener.addrs()[0], "/echo/1.0.0")).await.unwrap();
    let OpenError::Dial(DialError::Attempts(attempts)) = opened.unwrap_err() else {
        panic!("another error");
    };
    let accepted = timeout(SOON, inbound_failure(&mut events)).await.unwrap();
    assert_eq!(attempts[0].stage, Stage::Security);
    dialer.close().await;
    listener.close().await;
    (attempts[0].cause.clone(), accepted)
}

async fn inbound_failure(events: &mut Events) -> Cause {
    loop {
        if let Event::InboundFailed { error } = events.next().await.unwrap() {
            return error.cause;
        }
    }
}

fn link_error(cause: &Cause) -> Option<&LinkError> {
    let (Cause::Io(cause)
    | Cause::Transport(
        TransportError::Dial { source: cause, .. } | TransportError::Accept { source: cause, .. },
    )) = cause
    else {
        return None;
    };
    IoCause::downcast_ref(cause)
}

#[tokio::test]
async fn conn_13_hosts_with_different_keys_are_told_so_on_both_sides() {
    let (dialed, accepted) = failures(Some(1), Some(2)).await;
    // The listener looks at what it got, and hangs up.
    let ours = psk(2).fingerprint();
    assert_eq!(link_error(&accepted), Some(&LinkError::OtherKey { ours }), "{accepted}");
    let ours = psk(1).fingerprint();
    assert_eq!(link_error(&dialed), Some(&LinkError::Silent { ours }), "{dialed}");
    for cause in [dialed, accepted] {
        assert!(cause.to_string().contains("pre-shared key"), "{cause}");
    }
}

#[tokio::test]
async fn a_public_dialer_is_recognised_by_a_private_listener() {
    let (dialed, accepted) = failures(None, Some(2)).await;
    assert_eq!(link_error(&accepted), Some(&LinkError::Public), "{accepted}");
    assert!(matches!(dialed, Cause::Negotiation(_) | Cause::Closed), "{dialed}");
}

#[tokio::test]
async fn a_private_dialer_gets_nothing_from_a_public_listener() {
    let (dialed, accepted) = failures(Some(1), None).await;
    let ours = psk(1).fingerprint();
    assert_eq!(link_error(&dialed), Some(&LinkError::Silent { ours }), "{dialed}");
    assert!(matches!(accepted, Cause::Negotiation(_)), "{accepted}");
}

/// A transport whose links are born multiplexed, whatever their address.
#[derive(Debug)]
struct Multiplexed;

fn muxed_link(remote: &Multiaddr) -> Link {
    let pipe = Pipe::new(tokio::io::empty(), tokio::io::sink());
    let core = Yamux::default().start(Role::Initiator, std::time::Instant::now());
    let peer = Keypair::from_ed25519_seed(&[9; 32]).public();
    let info = ConnectionInfo::new(Role::Initiator, peer, None, remote.clone());
    Link::Muxed(Setup::new(pipe, core).start_with(info).0)
}

#[async_trait]
impl Transport for Multiplexed {
    fn supports(&self, _: &Multiaddr) -> bool {
        true
    }

    async fn dial(&self, target: DialTarget) -> Result<Link, TransportError> {
        Ok(muxed_link(&target.addr))
    }

    async fn listen(&self, addr: Multiaddr) -> Result<Box<dyn Listener>, TransportError> {
        Ok(Box::new(OneLink(Some(addr))))
    }
}

struct OneLink(Option<Multiaddr>);

#[async_trait]
impl Listener for OneLink {
    fn addrs(&self) -> Vec<Multiaddr> {
        self.0.iter().cloned().collect()
    }

    async fn next(&mut self) -> Result<ListenEvent, TransportError> {
        let Some(addr) = self.0.take() else { return pending().await };
        let link = muxed_link(&addr);
        Ok(ListenEvent::Incoming(Incoming::new(addr.clone(), addr, async { Ok(link) })))
    }
}

#[tokio::test]
async fn conn_15_a_link_that_is_born_multiplexed_is_refused_dialed_or_accepted() {
    let network = PrivateNetwork::new(psk(1), Multiplexed);
    let addr: Multiaddr = "/memory/1".parse().unwrap();
    let dialed = network.dial(DialTarget::new(addr.clone(), None)).await.unwrap_err();
    let mut listener = network.listen(addr.clone()).await.unwrap();
    assert_eq!(listener.addrs(), [addr]);
    let ListenEvent::Incoming(incoming) = listener.next().await.unwrap() else { panic!("none") };
    let accepted = incoming.link().await.unwrap_err();
    assert!(matches!(dialed, TransportError::Dial { .. }), "{dialed}");
    assert!(matches!(accepted, TransportError::Accept { .. }), "{accepted}");
    for error in [dialed, accepted] {
        assert!(error.to_string().contains("/memory/1"), "{error}");
        assert_eq!(link_error(&Cause::Transport(error)), Some(&LinkError::Multiplexed));
    }
}

/// Nothing may be dialed on the way to finding out.
#[tokio::test]
async fn conn_15_addresses_of_quic_are_refused_before_they_are_dialed_or_listened_on() {
    #[derive(Debug)]
    struct Untouchable;
    #[async_trait]
    impl Transport for Untouchable {
        fn supports(&self, _: &Multiaddr) -> bool {
            true
        }
        async fn dial(&self, target: DialTarget) -> Result<Link, TransportError> {
            panic!("{} is dialed", target.addr)
        }
        async fn listen(&self, addr: Multiaddr) -> Result<Box<dyn Listener>, TransportError> {
            panic!("{addr} is listened on")
        }
    }
    let network = PrivateNetwork::new(psk(1), Untouchable);
    for form in ["quic", "quic-v1", "quic-v1/webtransport", "webrtc-direct", "webrtc"] {
        let addr: Multiaddr = format!("/ip4/127.0.0.1/udp/1/{form}").parse().unwrap();
        assert!(network.supports(&addr));
        let error = network.dial(DialTarget::new(addr.clone(), None)).await.unwrap_err();
        assert!(matches!(error, TransportError::Dial { .. }), "{error}");
        assert_eq!(link_error(&Cause::Transport(error)), Some(&LinkError::Multiplexed));
        let error = network.listen(addr).await.err().unwrap();
        assert!(error.to_string().contains("private network"), "{error}");
    }
}

#[test]
fn debug_shows_the_fingerprint_and_no_key() {
    let text = format!("{:?}", PrivateNetwork::new(psk(0xab), Multiplexed));
    assert!(text.contains(&psk(0xab).fingerprint().to_string()), "{text}");
    assert!(!text.contains("abab") && !text.contains("171"), "{text}");
}
