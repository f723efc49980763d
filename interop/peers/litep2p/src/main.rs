//! A litep2p node as the program under test of libp2p's transport interoperability tests.

use std::{
    collections::HashMap,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt as _};
use interop_plan::{
    Announce, ECHO, Failure, Muxer, Opener, PERF, Peer, Settings, answer_echo, answer_perf, run,
};
use litep2p::{
    Litep2p, Litep2pEvent, PeerId,
    codec::ProtocolCodec,
    config::ConfigBuilder,
    protocol::{
        Direction, TransportEvent, TransportService, UserProtocol,
        libp2p::{
            identify::{self, IdentifyEvent},
            ping::{self, PingEvent},
        },
    },
    substream::Substream,
    transport::tcp::config::Config as TcpConfig,
    types::{SubstreamId, protocol::ProtocolName},
};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

/// The pause between two pings; each gives one of the round trips to report.
const PING_INTERVAL: Duration = Duration::from_millis(20);
/// Requests and events that wait.
const QUEUE_MAX: usize = 256;

#[tokio::main]
async fn main() -> ExitCode {
    run::<Dialer, _, _>(listen).await
}

type Opened = oneshot::Sender<Result<Substream, String>>;

/// One protocol: streams that are asked for, and an answer to those of others.
struct Streams {
    name: &'static str,
    asked: mpsc::Receiver<(PeerId, Opened)>,
}

#[async_trait::async_trait]
impl UserProtocol for Streams {
    fn protocol(&self) -> ProtocolName {
        ProtocolName::from(self.name)
    }

    fn codec(&self) -> ProtocolCodec {
        ProtocolCodec::Unspecified
    }

    async fn run(mut self: Box<Self>, mut service: TransportService) -> litep2p::Result<()> {
        let mut opening: HashMap<SubstreamId, Opened> = HashMap::new();
        let mut connected = false;
        loop {
            tokio::select! {
                event = service.next() => match event {
                    Some(TransportEvent::ConnectionEstablished { .. }) => connected = true,
                    Some(TransportEvent::SubstreamOpened { direction, substream, .. }) => {
                        match direction {
                            Direction::Inbound => answer(self.name, substream),
                            Direction::Outbound(id) => tell(opening.remove(&id), Ok(substream)),
                        }
                    }
                    Some(TransportEvent::SubstreamOpenFailure { substream, error }) => {
                        tell(opening.remove(&substream), Err(error.to_string()));
                    }
                    Some(_) => {}
                    None => return Ok(()),
                },
                Some((peer, opened)) = self.asked.recv(), if connected => {
                    match service.open_substream(peer) {
                        Ok(id) => drop(opening.insert(id, opened)),
                        Err(error) => tell(Some(opened), Err(format!("{error:?}"))),
                    }
                }
            }
        }
    }
}

fn tell(opened: Option<Opened>, result: Result<Substream, String>) {
    if opened.is_none_or(|opened| opened.send(result).is_err()) {
        tracing::debug!("nobody waits for a stream");
    }
}

fn answer(protocol: &'static str, stream: Substream) {
    tokio::spawn(async move {
        let done = match protocol {
            PERF => answer_perf(stream).await,
            _ => answer_echo(stream).await,
        };
        if let Err(error) = done {
            tracing::warn!(protocol, %error, "a stream has failed");
        }
    });
}

type Asking = mpsc::Sender<(PeerId, Opened)>;

struct Node {
    litep2p: Litep2p,
    pings: Box<dyn Stream<Item = PingEvent> + Send + Unpin>,
    identified: Box<dyn Stream<Item = IdentifyEvent> + Send + Unpin>,
    echo: Asking,
    perf: Asking,
}

fn node(settings: &Settings) -> Result<Node, Failure> {
    if settings.muxer != Muxer::Yamux {
        return Err("litep2p has no other multiplexer than yamux".into());
    }
    let (ping, pings) = ping::ConfigBuilder::new().with_ping_interval(PING_INTERVAL).build();
    let agent = concat!("litep2p/", "0.16").to_owned();
    let (identify, identified) = identify::Config::new("ipfs/0.1.0".to_owned(), Some(agent));
    let (echo, echo_asked) = mpsc::channel(QUEUE_MAX);
    let (perf, perf_asked) = mpsc::channel(QUEUE_MAX);
    let listen = if settings.is_dialer { vec![] } else { vec![listen_addr(settings)?] };
    let tcp = TcpConfig { listen_addresses: listen, reuse_port: false, ..TcpConfig::default() };
    let config = ConfigBuilder::new()
        .with_tcp(tcp)
        .with_libp2p_ping(ping)
        .with_libp2p_identify(identify)
        .with_user_protocol(Box::new(Streams { name: ECHO, asked: echo_asked }))
        .with_user_protocol(Box::new(Streams { name: PERF, asked: perf_asked }))
        .with_keep_alive_timeout(settings.time_limit)
        .build();
    Ok(Node { litep2p: Litep2p::new(config)?, pings, identified, echo, perf })
}

fn listen_addr(settings: &Settings) -> Result<litep2p::types::multiaddr::Multiaddr, Failure> {
    Ok(format!("/ip4/{}/tcp/0", settings.ip).parse()?)
}

async fn listen(settings: Settings, announce: Announce) -> Result<(), Failure> {
    let mut node = node(&settings)?;
    let addrs: Vec<String> = node.litep2p.listen_addresses().map(ToString::to_string).collect();
    announce.tell(&addrs).await?;
    loop {
        tokio::select! {
            Some(event) = node.litep2p.next_event() => tracing::debug!(?event, "event"),
            Some(_) = node.pings.next() => {}
            Some(event) = node.identified.next() => tracing::debug!(?event, "identified"),
        }
    }
}

/// What the dialer's task tells the scenario.
enum Event {
    Connected(PeerId),
    Ping(Instant, Duration),
    Identified(Value),
    Lost(String),
}

/// A dialer and its connection.
struct Dialer {
    peer: PeerId,
    events: mpsc::Receiver<Event>,
    echo: Asking,
    perf: Asking,
}

impl Dialer {
    async fn next<T>(&mut self, mut wanted: impl FnMut(Event) -> Option<T>) -> Result<T, Failure> {
        loop {
            match self.events.recv().await {
                Some(Event::Lost(cause)) => return Err(cause.into()),
                Some(event) => match wanted(event) {
                    Some(found) => return Ok(found),
                    None => continue,
                },
                None => return Err("the node has ended".into()),
            }
        }
    }
}

impl Peer for Dialer {
    type Stream = Substream;

    // It ends a connection with more than 512 streams of both sides.
    const STREAMS_AT_ONCE: usize = 200;

    async fn dial(settings: &Settings, addr: &str) -> Result<Self, Failure> {
        let mut node = node(settings)?;
        node.litep2p.dial_address(addr.parse()?).await?;
        let (tell, mut events) = mpsc::channel(QUEUE_MAX);
        let (echo, perf) = (node.echo.clone(), node.perf.clone());
        tokio::spawn(drive(node, tell));
        let peer = match events.recv().await {
            Some(Event::Connected(peer)) => peer,
            Some(Event::Lost(cause)) => return Err(cause.into()),
            _ => return Err("the first event is not of the connection".into()),
        };
        Ok(Self { peer, events, echo, perf })
    }

    async fn ping(&mut self) -> Result<Duration, Failure> {
        // A ping that was sent earlier proves nothing of the connection now.
        let begun = Instant::now();
        let wanted = |event| match event {
            Event::Ping(at, round_trip) if at >= begun => Some(round_trip),
            _ => None,
        };
        self.next(wanted).await
    }

    async fn identify(&mut self) -> Result<Value, Failure> {
        self.next(|event| if let Event::Identified(said) = event { Some(said) } else { None }).await
    }

    async fn serve_late(&mut self) -> Result<(), Failure> {
        Err("litep2p has no identify push".into())
    }

    fn opener(&self) -> Opener<Substream> {
        let (echo, perf, peer) = (self.echo.clone(), self.perf.clone(), self.peer);
        Arc::new(move |protocol| {
            let asking = if protocol == PERF { perf.clone() } else { echo.clone() };
            Box::pin(async move {
                let (opened, stream) = oneshot::channel();
                asking.send((peer, opened)).await?;
                Ok(stream.await??)
            })
        })
    }

    // It has no orderly end of a connection to offer.
    async fn close(self) {}
}

/// Drives the node until nobody waits for its events any more.
async fn drive(mut node: Node, tell: mpsc::Sender<Event>) {
    while !tell.is_closed() {
        let event = tokio::select! {
            Some(event) = node.litep2p.next_event() => match event {
                Litep2pEvent::ConnectionEstablished { peer, .. } => Event::Connected(peer),
                Litep2pEvent::ConnectionClosed { .. } => Event::Lost("connection closed".into()),
                Litep2pEvent::DialFailure { error, .. } => Event::Lost(format!("dialing: {error}")),
                other => Event::Lost(format!("{other:?}")),
            },
            Some(PingEvent::Ping { ping, .. }) = node.pings.next() => {
                Event::Ping(Instant::now(), ping)
            }
            Some(IdentifyEvent::PeerIdentified {
                protocol_version,
                user_agent,
                supported_protocols,
                observed_address,
                listen_addresses,
                ..
            }) = node.identified.next() => {
                let addrs: Vec<String> = listen_addresses.iter().map(ToString::to_string).collect();
                let mut protocols: Vec<String> =
                    supported_protocols.iter().map(ToString::to_string).collect();
                protocols.sort();
                Event::Identified(json!({
                    "agent": user_agent,
                    "protocolVersion": protocol_version,
                    "protocols": protocols,
                    "listenAddrs": addrs,
                    "observedAddr": observed_address.to_string(),
                }))
            }
            else => return,
        };
        if tell.try_send(event).is_err() {
            tracing::trace!("an event that nobody waits for");
        }
    }
}
