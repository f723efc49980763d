//! litep2p as a benchmark peer.
//!
//! TCP has no delay, Yamux's windows may grow without limit. Identify runs, as in every node and
//! in the others here. `--tune read-ahead=N`, `--tune write-buffer=N` (Noise records; its defaults
//! are 5 and 2), `--tune frame=N` (bytes of a Yamux frame; its default is 16k),
//! `--tune identify=on|off`.

use std::{collections::HashMap, future::pending, time::Duration};

use compare_peer::{Args, Failure, Node, Plain, Protocol, args::size, serve_stream};
use futures::StreamExt as _;
use litep2p::{
    Litep2p, Litep2pEvent, PeerId,
    codec::ProtocolCodec,
    config::ConfigBuilder,
    protocol::{Direction, TransportEvent, TransportService, UserProtocol, libp2p::identify},
    substream::Substream,
    transport::tcp::config::Config as TcpConfig,
    types::{SubstreamId, protocol::ProtocolName},
};
use tokio::sync::{mpsc, oneshot};

const LONG: Duration = Duration::from_secs(3600);
/// The most that it takes in one connection.
const STREAMS_MAX: usize = 4096;
/// Requests that wait.
const QUEUE_MAX: usize = 256;

type Opened = oneshot::Sender<Result<Substream, String>>;

enum Command {
    Open(PeerId, Opened),
    Close(PeerId),
}

/// One protocol: streams that are asked for, and an answer to those of others.
struct Streams {
    protocol: Protocol,
    commands: mpsc::Receiver<Command>,
}

#[async_trait::async_trait]
impl UserProtocol for Streams {
    fn protocol(&self) -> ProtocolName {
        ProtocolName::from(self.protocol.name())
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
                    Some(TransportEvent::ConnectionClosed { .. }) => connected = false,
                    Some(TransportEvent::SubstreamOpened { direction, substream, .. }) => {
                        match direction {
                            Direction::Inbound => {
                                tokio::spawn(serve_stream(self.protocol, Plain(substream)));
                            }
                            Direction::Outbound(id) => {
                                if let Some(opened) = opening.remove(&id) {
                                    opened.send(Ok(substream)).ok();
                                }
                            }
                        }
                    }
                    Some(TransportEvent::SubstreamOpenFailure { substream, error }) => {
                        if let Some(opened) = opening.remove(&substream) {
                            opened.send(Err(error.to_string())).ok();
                        }
                    }
                    Some(_) => {}
                    None => return Ok(()),
                },
                Some(command) = self.commands.recv(), if connected => match command {
                    Command::Open(peer, opened) => match service.open_substream(peer) {
                        Ok(id) => drop(opening.insert(id, opened)),
                        Err(error) => {
                            opened.send(Err(format!("{error:?}"))).ok();
                        }
                    },
                    Command::Close(peer) => {
                        if let Err(error) = service.force_close(peer) {
                            eprintln!("closing: {error}");
                        }
                    }
                },
            }
        }
    }
}

type Commands = HashMap<&'static str, mpsc::Sender<Command>>;

fn node(args: &Args, listen: Option<&str>) -> Result<(Litep2p, Commands), Failure> {
    let mut tcp = TcpConfig {
        listen_addresses: listen.map(str::parse).transpose()?.into_iter().collect(),
        reuse_port: false,
        nodelay: true,
        ..TcpConfig::default()
    };
    tcp.yamux_config.set_max_num_streams(STREAMS_MAX);
    tcp.yamux_config.set_max_connection_receive_window(None);
    if let Some(len) = args.tune.get("frame") {
        tcp.yamux_config.set_split_send_size(usize::try_from(size(len)?)?);
    }
    if let Some(records) = args.tune.get("read-ahead") {
        tcp.noise_read_ahead_frame_count = records.parse()?;
    }
    if let Some(records) = args.tune.get("write-buffer") {
        tcp.noise_write_buffer_size = records.parse()?;
    }
    let mut config = ConfigBuilder::new().with_tcp(tcp).with_keep_alive_timeout(LONG);
    if args.tuned("identify", "on") == "on" {
        let (identify, mut events) = identify::Config::new("ipfs/0.1.0".into(), None);
        tokio::spawn(async move { while events.next().await.is_some() {} });
        config = config.with_libp2p_identify(identify);
    }
    let mut all = Commands::new();
    for protocol in Protocol::ALL {
        let (sender, commands) = mpsc::channel(QUEUE_MAX);
        all.insert(protocol.name(), sender);
        config = config.with_user_protocol(Box::new(Streams { protocol, commands }));
    }
    Ok((Litep2p::new(config.build())?, all))
}

enum Dial {
    Connect(String, oneshot::Sender<Result<PeerId, String>>),
    Closed(oneshot::Sender<()>),
}

pub struct Peer {
    dials: mpsc::Sender<Dial>,
    commands: Commands,
}

impl Node for Peer {
    const NAME: &'static str = "litep2p";
    type Stream = Plain<Substream>;
    type Connection = PeerId;

    async fn start(args: &Args) -> Result<Self, Failure> {
        let (node, commands) = node(args, None)?;
        let (dials, asked) = mpsc::channel(1);
        tokio::spawn(drive(node, asked));
        Ok(Self { dials, commands })
    }

    async fn serve(args: &Args, tell: impl FnOnce(&str) + Send) -> Result<(), Failure> {
        let (mut node, _commands) = node(args, Some(&args.listen))?;
        tell(&node.listen_addresses().next().ok_or("no address")?.to_string());
        while node.next_event().await.is_some() {}
        pending().await
    }

    async fn connect(&self, addr: &str) -> Result<PeerId, Failure> {
        let (reply, connected) = oneshot::channel();
        self.dials
            .send(Dial::Connect(addr.into(), reply))
            .await
            .map_err(|_| "the node has ended")?;
        Ok(connected.await??)
    }

    async fn open(&self, peer: &PeerId, protocol: Protocol) -> Result<Self::Stream, Failure> {
        let (reply, opened) = oneshot::channel();
        let commands = self.commands.get(protocol.name()).ok_or("no such protocol")?;
        commands.send(Command::Open(*peer, reply)).await.map_err(|_| "the protocol has ended")?;
        Ok(Plain(opened.await??))
    }

    async fn close(&self, peer: PeerId) -> Result<(), Failure> {
        let (reply, closed) = oneshot::channel();
        self.dials.send(Dial::Closed(reply)).await.map_err(|_| "the node has ended")?;
        let commands = self.commands.get(Protocol::Echo.name()).ok_or("no such protocol")?;
        commands.send(Command::Close(peer)).await.map_err(|_| "the protocol has ended")?;
        Ok(closed.await?)
    }
}

async fn drive(mut node: Litep2p, mut asked: mpsc::Receiver<Dial>) {
    let (mut dialing, mut closing, mut closed) = (None, None, false);
    loop {
        tokio::select! {
            dial = asked.recv() => match dial {
                None => return,
                Some(Dial::Connect(addr, reply)) => {
                    closed = false;
                    let dialed = match addr.parse() {
                        Ok(addr) => node.dial_address(addr).await.map_err(|e| e.to_string()),
                        Err(_) => Err(format!("not an address: {addr}")),
                    };
                    match dialed {
                        Ok(()) => dialing = Some(reply),
                        Err(error) => {
                            reply.send(Err(error)).ok();
                        }
                    }
                }
                Some(Dial::Closed(reply)) if closed => {
                    reply.send(()).ok();
                }
                Some(Dial::Closed(reply)) => closing = Some(reply),
            },
            event = node.next_event() => match event {
                None => return,
                Some(Litep2pEvent::ConnectionEstablished { peer, .. }) => {
                    if let Some(reply) = dialing.take() {
                        reply.send(Ok(peer)).ok();
                    }
                }
                Some(Litep2pEvent::DialFailure { error, .. }) => {
                    if let Some(reply) = dialing.take() {
                        reply.send(Err(error.to_string())).ok();
                    }
                }
                Some(Litep2pEvent::ConnectionClosed { .. }) => {
                    closed = true;
                    if let Some(reply) = closing.take() {
                        reply.send(()).ok();
                    }
                }
                Some(_) => {}
            },
        }
    }
}
