//! What befalls the host itself: listeners that fail, and its own end under attack.

use std::{io, time::Duration};

use async_trait::async_trait;
use p2p::{
    Event, Stream,
    core::{
        DialTarget, Incoming, Link, ListenEvent, Listener, Multiaddr, Pipe, Transport,
        TransportError,
    },
};
use p2p_testkit::hostile::wire::yamux::data;
use tokio::{sync::mpsc, time::Instant};

use crate::{
    common::{self, Network, echo_host, echo_once, next_event, tasks},
    field::{CONNECTION, WINDOW, attack},
};

/// A transport whose listener fails to accept, again and again, between the links that it gives.
struct Failing {
    links: std::sync::Mutex<Option<mpsc::Receiver<Result<Link, TransportError>>>>,
}

struct FailingListener {
    addr: Multiaddr,
    links: mpsc::Receiver<Result<Link, TransportError>>,
}

fn failure(addr: &Multiaddr, kind: io::ErrorKind) -> TransportError {
    TransportError::Accept { addr: addr.clone(), source: io::Error::from(kind).into() }
}

#[async_trait]
impl Transport for Failing {
    fn supports(&self, addr: &Multiaddr) -> bool {
        addr.to_string().starts_with("/memory/")
    }

    async fn dial(&self, target: DialTarget) -> Result<Link, TransportError> {
        Err(TransportError::Unsupported { addr: target.addr })
    }

    async fn listen(&self, addr: Multiaddr) -> Result<Box<dyn Listener>, TransportError> {
        let links = self.links.lock().unwrap().take();
        let links = links.ok_or_else(|| TransportError::Unsupported { addr: addr.clone() })?;
        Ok(Box::new(FailingListener { addr, links }))
    }
}

#[async_trait]
impl Listener for FailingListener {
    fn addrs(&self) -> Vec<Multiaddr> {
        vec![self.addr.clone()]
    }

    async fn next(&mut self) -> Result<ListenEvent, TransportError> {
        let Some(link) = self.links.recv().await else { return std::future::pending().await };
        let local = self.addr.clone();
        Ok(match link {
            Err(error) => ListenEvent::Failed(error),
            Ok(link) => {
                ListenEvent::Incoming(Incoming::new(local.clone(), local, async { Ok(link) }))
            }
        })
    }
}

#[tokio::test(start_paused = true)]
async fn nim_ac07d5229_accept_errors_without_end_and_links_that_fail_keep_nobody_out() {
    let (sender, links) = mpsc::channel(16);
    let victim = p2p::builder()
        .transport(Failing { links: Some(links).into() })
        .listen("/memory/1")
        .spawn()
        .await
        .unwrap();
    victim.handle("/echo/1.0.0", common::echo).unwrap();
    let addr: Multiaddr = "/memory/1".parse().unwrap();
    let mut events = victim.events();
    for kind in [io::ErrorKind::OutOfMemory, io::ErrorKind::ConnectionAborted].repeat(500) {
        sender.send(Err(failure(&addr, kind))).await.unwrap();
    }
    // A link whose bytes fail at once, and one that is good.
    let broken = broken_pipe(io::ErrorKind::ConnectionReset);
    sender.send(Ok(Link::Pipe(broken))).await.unwrap();
    let failed = next_event(&mut events, |event| {
        if let Event::InboundFailed { error } = event { Some(error) } else { None }
    });
    assert!(!failed.await.to_string().is_empty());
    let (near, far) = tokio::io::duplex(4096);
    let (read, write) = tokio::io::split(far);
    sender.send(Ok(Link::Pipe(Pipe::new(read, write)))).await.unwrap();
    let honest = p2p::builder().transport(Once(Some(near).into())).spawn().await.unwrap();
    assert_eq!(echo_once(&honest, "/memory/1", b"let in").await.unwrap(), b"let in");
    for host in [honest, victim] {
        host.close().await;
    }
    drop(sender);
    assert_eq!(tasks(), 0);
}

/// A transport that dials one link that there is.
struct Once(std::sync::Mutex<Option<tokio::io::DuplexStream>>);

#[async_trait]
impl Transport for Once {
    fn supports(&self, addr: &Multiaddr) -> bool {
        addr.to_string().starts_with("/memory/")
    }

    async fn dial(&self, target: DialTarget) -> Result<Link, TransportError> {
        let link = self.0.lock().unwrap().take();
        let link = link.ok_or(TransportError::Unsupported { addr: target.addr })?;
        let (read, write) = tokio::io::split(link);
        Ok(Link::Pipe(Pipe::new(read, write)))
    }

    async fn listen(&self, addr: Multiaddr) -> Result<Box<dyn Listener>, TransportError> {
        Err(TransportError::Unsupported { addr })
    }
}

/// A pipe that only fails.
fn broken_pipe(kind: io::ErrorKind) -> Pipe {
    Pipe::new(Broken(kind), Broken(kind))
}

struct Broken(io::ErrorKind);

impl tokio::io::AsyncRead for Broken {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        _: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::task::Poll::Ready(Err(self.0.into()))
    }
}

impl tokio::io::AsyncWrite for Broken {
    fn poll_write(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        _: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        std::task::Poll::Ready(Err(self.0.into()))
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::task::Poll::Ready(Err(self.0.into()))
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::task::Poll::Ready(Err(self.0.into()))
    }
}

#[test]
fn going_away_from_an_offender_with_data_in_flight_takes_its_time_and_no_more() {
    attack(CONNECTION + WINDOW, async |field| {
        let mut script = field.stream(1, "/echo/1.0.0").await;
        field.flood(&mut script, &data(0, 1, &[7; 1_000]), 200).await;
        let offender =
            field.victim.peers().into_iter().find(|peer| *peer != field.honest.peer_id());
        field.victim.disconnect(&offender.unwrap());
        field.honest_echo().await;
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(field.offenders(), 0);
    });
}

#[tokio::test(start_paused = true)]
async fn a_host_that_shuts_down_with_data_in_flight_ends_in_its_time_and_cuts_nothing_short() {
    let network = Network::default();
    let victim = echo_host(&network, "/memory/7").await;
    victim
        .handle("/flood/1.0.0", |mut stream: Stream| async move {
            loop {
                tokio::io::AsyncWriteExt::write_all(&mut stream, &[7; 4096]).await?;
            }
            #[expect(unreachable_code, reason = "it says what the handler gives")]
            io::Result::Ok(())
        })
        .unwrap();
    let addr = victim.addrs().remove(0);
    let reader = common::builder(&network, None).spawn().await.unwrap();
    let mut stream = reader.open(&addr, "/flood/1.0.0").await.unwrap();
    let begun = Instant::now();
    victim.close().await;
    // A second to drain, five for the goodbye, and one for the peer's.
    assert!(begun.elapsed() <= Duration::from_secs(8), "{:?}", begun.elapsed());
    let mut received = Vec::new();
    let end = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut received).await;
    assert!(end.is_err(), "what was cut looks complete");
    drop(stream);
    reader.close().await;
    assert_eq!(tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn nim_0c25c3fc1_a_handler_that_disconnects_its_own_peer_ends() {
    let network = Network::default();
    let victim = echo_host(&network, "/memory/7").await;
    let host = std::sync::Arc::new(std::sync::Mutex::new(Some(victim.clone())));
    let own = std::sync::Arc::clone(&host);
    victim
        .handle("/leave/1.0.0", move |stream: Stream| {
            let host = own.lock().unwrap().clone();
            async move {
                host.unwrap().disconnect(&stream.peer());
                io::Result::Ok(())
            }
        })
        .unwrap();
    let addr = victim.addrs().remove(0);
    let peer = common::builder(&network, None).spawn().await.unwrap();
    let begun = Instant::now();
    let mut stream = peer.open(&addr, "/leave/1.0.0").optimistic().await.unwrap();
    let end = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut Vec::new()).await;
    assert!(end.is_err());
    assert!(begun.elapsed() <= Duration::from_secs(1), "{:?}", begun.elapsed());
    drop((stream, host.lock().unwrap().take()));
    assert_eq!(echo_once(&peer, &addr, b"anew").await.unwrap(), b"anew");
    peer.close().await;
    victim.close().await;
    assert_eq!(tasks(), 0);
}

#[test]
fn go_bcc2bf186_an_optimistic_stream_that_nobody_answers_is_closed_at_once() {
    attack(CONNECTION, async |field| {
        let mut script = field.yamux().await;
        script.hear(12).await.unwrap();
        let peer = field.victim.peers().into_iter().find(|peer| *peer != field.honest.peer_id());
        let begun = Instant::now();
        let opening = field.victim.open(peer.unwrap(), "/silent/1.0.0").optimistic();
        let mut stream = opening.await.unwrap();
        tokio::io::AsyncWriteExt::shutdown(&mut stream).await.unwrap();
        drop(stream);
        assert_eq!(begun.elapsed(), Duration::ZERO);
        script.hear_until(b"/silent/1.0.0\n").await.unwrap();
    });
}
