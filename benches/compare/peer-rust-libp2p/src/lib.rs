//! rust-libp2p as a benchmark peer.
//!
//! Streams have a behaviour of their own: `libp2p-stream` opens one at a time, and drops inbound
//! ones that come faster than they are taken. Identify runs, as in every node and in the others
//! here; pings are answered, and sent by the scenarios alone. TCP has no delay, Yamux grows its
//! windows by itself. `--tune open=negotiated|optimistic`, `--tune identify=on|off`.

mod streams;

use std::time::Duration;

use compare_peer::{Args, Failure, Node, Plain, Protocol};
use futures::StreamExt as _;
use libp2p::{
    Multiaddr, PeerId, Swarm, SwarmBuilder,
    core::upgrade::Version,
    identify,
    multiaddr::Protocol as Part,
    noise,
    swarm::{
        NetworkBehaviour, SwarmEvent,
        behaviour::toggle::Toggle,
        dial_opts::{DialOpts, PeerCondition},
    },
    tcp, yamux,
};
use streams::Opener;
use tokio::sync::{mpsc, oneshot};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt as _};

/// Yamux keeps 256 KiB of its 1 GiB for each of so many streams, and lets windows grow into the
/// rest.
const STREAMS_MAX: usize = 512;
const LONG: Duration = Duration::from_secs(3600);

#[derive(NetworkBehaviour)]
struct Behaviour {
    identify: Toggle<identify::Behaviour>,
    streams: streams::Behaviour,
}

fn swarm(args: &Args) -> Result<Swarm<Behaviour>, Failure> {
    let version = match args.tuned("open", "negotiated") {
        "optimistic" => Version::V1Lazy,
        _ => Version::V1,
    };
    let identify = args.tuned("identify", "on") == "on";
    let mut mux = yamux::Config::default();
    mux.set_max_num_streams(STREAMS_MAX);
    let swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::new().nodelay(true), noise::Config::new, || mux)?
        .with_behaviour(|key| Behaviour {
            identify: identify
                .then(|| {
                    let config = identify::Config::new("ipfs/0.1.0".into(), key.public());
                    identify::Behaviour::new(config)
                })
                .into(),
            streams: streams::Behaviour::default(),
        })?
        .with_swarm_config(|config| {
            config
                .with_idle_connection_timeout(LONG)
                .with_substream_upgrade_protocol_override(version)
                .with_max_negotiating_inbound_streams(STREAMS_MAX)
        })
        .build();
    Ok(swarm)
}

enum Command {
    Dial(Multiaddr, oneshot::Sender<Result<(PeerId, Opener), String>>),
    Close(PeerId),
}

pub struct Peer(mpsc::Sender<Command>);

pub struct Connection(PeerId, Opener);

impl Node for Peer {
    const NAME: &'static str = "rust-libp2p";
    type Stream = Plain<Compat<libp2p::Stream>>;
    type Connection = Connection;

    async fn start(args: &Args) -> Result<Self, Failure> {
        let (commands, taken) = mpsc::channel(1);
        tokio::spawn(drive(swarm(args)?, taken));
        Ok(Self(commands))
    }

    async fn serve(args: &Args, tell: impl FnOnce(&str) + Send) -> Result<(), Failure> {
        let mut swarm = swarm(args)?;
        swarm.listen_on(args.listen.parse()?)?;
        let mut tell = Some(tell);
        loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await
                && let Some(tell) = tell.take()
            {
                tell(&address.with(Part::P2p(*swarm.local_peer_id())).to_string());
            }
        }
    }

    async fn connect(&self, addr: &str) -> Result<Connection, Failure> {
        let (reply, connected) = oneshot::channel();
        self.0.send(Command::Dial(addr.parse()?, reply)).await.map_err(|_| "the node has ended")?;
        let (peer, opener) = connected.await??;
        Ok(Connection(peer, opener))
    }

    async fn open(
        &self,
        connection: &Connection,
        protocol: Protocol,
    ) -> Result<Self::Stream, Failure> {
        Ok(Plain(connection.1.open(protocol).await?.compat()))
    }

    async fn close(&self, connection: Connection) -> Result<(), Failure> {
        let command = Command::Close(connection.0);
        Ok(self.0.send(command).await.map_err(|_| "the node has ended")?)
    }
}

async fn drive(mut swarm: Swarm<Behaviour>, mut commands: mpsc::Receiver<Command>) {
    let mut dialing = None;
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                None => return,
                Some(Command::Dial(addr, reply)) => {
                    let peer = match addr.iter().last() {
                        Some(Part::P2p(peer)) => peer,
                        _ => {
                            reply.send(Err("an address without a peer".into())).ok();
                            continue;
                        }
                    };
                    let dial = DialOpts::peer_id(peer)
                        .addresses(vec![addr])
                        .condition(PeerCondition::Always)
                        .build();
                    match swarm.dial(dial) {
                        Ok(()) => dialing = Some(reply),
                        Err(error) => {
                            reply.send(Err(error.to_string())).ok();
                        }
                    }
                }
                Some(Command::Close(peer)) => {
                    // It fails where the connection has ended by itself.
                    swarm.disconnect_peer_id(peer).ok();
                }
            },
            event = swarm.select_next_some() => match event {
                SwarmEvent::ConnectionEstablished { peer_id, .. } => {
                    if let Some(reply) = dialing.take() {
                        let opener = swarm.behaviour_mut().streams.take_opener();
                        reply.send(opener.map(|opener| (peer_id, opener)).ok_or_else(|| "no handler".into())).ok();
                    }
                }
                SwarmEvent::OutgoingConnectionError { error, .. } => {
                    if let Some(reply) = dialing.take() {
                        reply.send(Err(error.to_string())).ok();
                    }
                }
                _ => {}
            },
        }
    }
}
