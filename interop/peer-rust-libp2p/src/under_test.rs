//! The node as the program under test of the transport interoperability tests.

use std::{
    collections::HashMap,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::StreamExt as _;
use interop_plan::{
    Announce, Failure, KNOWN, LATE, Muxer, Opener, PERF, Peer, Settings, answer_known, answer_perf,
    chain, run,
};
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm, identify,
    identity::Keypair,
    multiaddr::Protocol,
    ping,
    swarm::{SwarmEvent, dial_opts::DialOpts},
};
use libp2p_stream::{Control, IncomingStreams};
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt as _};

use crate::{
    cli::Remote,
    node::{self, Behaviour, BehaviourEvent},
};

/// The pause between two pings of the dialer; each gives one of the round trips to report.
const PING_INTERVAL: Duration = Duration::from_millis(20);
/// Events that wait for the scenario; more are dropped.
const EVENTS_MAX: usize = 64;

/// Does what the environment asks for.
pub(crate) async fn main() -> ExitCode {
    run::<Node, _, _>(listen).await
}

fn swarm(settings: &Settings) -> Result<Swarm<Behaviour>, Failure> {
    if settings.muxer != Muxer::Yamux {
        return Err("rust-libp2p has no other multiplexer than yamux".into());
    }
    let ping = ping::Config::new().with_interval(PING_INTERVAL);
    let settings = node::Settings { ping, idle: settings.time_limit };
    node::build(Keypair::generate_ed25519(), settings).map_err(|error| error.to_string().into())
}

async fn listen(settings: Settings, announce: Announce) -> Result<(), Failure> {
    let mut swarm = swarm(&settings)?;
    swarm.listen_on(format!("/ip4/{}/tcp/0", settings.ip).parse()?)?;
    let mut perf = swarm.behaviour().streams.new_control().accept(StreamProtocol::new(PERF))?;
    tokio::spawn(async move {
        while let Some((peer, stream)) = perf.next().await {
            if let Err(error) = answer_perf(stream.compat()).await {
                tracing::warn!(%peer, %error, "perf stream");
            }
        }
    });
    let known: Arc<Mutex<HashMap<PeerId, Vec<String>>>> = Arc::default();
    let tells = Arc::clone(&known);
    let mut asked = swarm.behaviour().streams.new_control().accept(StreamProtocol::new(KNOWN))?;
    tokio::spawn(async move {
        while let Some((peer, stream)) = asked.next().await {
            let names = tells.lock().unwrap_or_else(PoisonError::into_inner).get(&peer).cloned();
            if let Err(error) = answer_known(stream.compat(), names.unwrap_or_default()).await {
                tracing::warn!(%peer, %error, "known stream");
            }
        }
    });
    let local = *swarm.local_peer_id();
    let mut addrs: Vec<String> = Vec::new();
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::NewListenAddr { address, .. } => {
                addrs.push(address.with(Protocol::P2p(local)).to_string());
                if addrs.len() == 1 {
                    announce.tell(&addrs).await?;
                }
            }
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
                peer_id,
                info,
                ..
            })) => {
                let names = info.protocols.iter().map(ToString::to_string).collect();
                known.lock().unwrap_or_else(PoisonError::into_inner).insert(peer_id, names);
            }
            other => tracing::debug!(?other, "event"),
        }
    }
}

/// What the swarm's task tells the scenario.
enum Event {
    Connected,
    Ping { at: Instant, result: Result<Duration, String> },
    Identified(Value),
    Lost(String),
}

struct Node {
    peer: PeerId,
    control: Control,
    events: mpsc::Receiver<Event>,
    push: mpsc::Sender<()>,
    late: Option<IncomingStreams>,
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Node {
    async fn next<T>(&mut self, mut wanted: impl FnMut(Event) -> Option<T>) -> Result<T, Failure> {
        loop {
            match self.events.recv().await {
                Some(Event::Lost(cause)) => return Err(cause.into()),
                Some(event) => match wanted(event) {
                    Some(found) => return Ok(found),
                    None => continue,
                },
                None => return Err("the swarm has ended".into()),
            }
        }
    }
}

impl Peer for Node {
    type Stream = Compat<libp2p::Stream>;

    // It ends a connection with more than 512 streams of both sides.
    const STREAMS_AT_ONCE: usize = 200;

    async fn dial(settings: &Settings, addr: &str) -> Result<Self, Failure> {
        let Remote { addr, peer } = addr.parse()?;
        let mut swarm = swarm(settings)?;
        swarm.dial(DialOpts::peer_id(peer).addresses(vec![addr]).build())?;
        let control = swarm.behaviour().streams.new_control();
        let (tell, events) = mpsc::channel(EVENTS_MAX);
        let (end, ended) = oneshot::channel();
        let (push, pushes) = mpsc::channel(1);
        let task = tokio::spawn(drive(swarm, peer, tell, pushes, ended));
        let mut node = Self { peer, control, events, push, late: None, end, task };
        node.next(|event| matches!(event, Event::Connected).then_some(())).await?;
        Ok(node)
    }

    async fn ping(&mut self) -> Result<Duration, Failure> {
        // A ping that was sent earlier proves nothing of the connection now.
        let begun = Instant::now();
        let result = self.next(|event| match event {
            Event::Ping { at, result } if at >= begun => Some(result),
            _ => None,
        });
        Ok(result.await??)
    }

    async fn identify(&mut self) -> Result<Value, Failure> {
        self.next(|event| if let Event::Identified(info) = event { Some(info) } else { None }).await
    }

    async fn serve_late(&mut self) -> Result<(), Failure> {
        self.late = Some(self.control.accept(StreamProtocol::new(LATE))?);
        Ok(self.push.send(()).await?)
    }

    fn opener(&self) -> Opener<Self::Stream> {
        let (control, peer) = (self.control.clone(), self.peer);
        Arc::new(move |protocol| {
            let mut control = control.clone();
            Box::pin(async move {
                let opened = control.open_stream(peer, StreamProtocol::new(protocol)).await;
                Ok(opened.map_err(|error| chain(&error))?.compat())
            })
        })
    }

    async fn close(self) {
        if self.end.send(()).is_ok() && self.task.await.is_err() {
            tracing::warn!("the swarm's task has failed");
        }
    }
}

/// Drives the swarm until the scenario ends it.
async fn drive(
    mut swarm: Swarm<Behaviour>,
    peer: PeerId,
    tell: mpsc::Sender<Event>,
    mut pushes: mpsc::Receiver<()>,
    mut ended: oneshot::Receiver<()>,
) {
    let mut leaving = false;
    loop {
        let event = tokio::select! {
            _ = &mut ended, if !leaving => {
                leaving = true;
                if swarm.disconnect_peer_id(peer).is_err() {
                    return;
                }
                continue;
            }
            Some(()) = pushes.recv() => {
                swarm.behaviour_mut().identify.push([peer]);
                continue;
            }
            event = swarm.select_next_some() => event,
        };
        let event = match event {
            SwarmEvent::ConnectionEstablished { .. } => Event::Connected,
            SwarmEvent::ConnectionClosed { .. } if leaving => return,
            SwarmEvent::ConnectionClosed { cause, .. } => Event::Lost(match cause {
                Some(error) => format!("connection lost: {}", chain(&error)),
                None => "connection closed".to_owned(),
            }),
            SwarmEvent::OutgoingConnectionError { error, .. } => {
                Event::Lost(format!("dialing: {}", chain(&error)))
            }
            SwarmEvent::Behaviour(BehaviourEvent::Ping(event)) => Event::Ping {
                at: Instant::now(),
                result: event.result.map_err(|error| chain(&error)),
            },
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
                info,
                ..
            })) => Event::Identified(identified(&info)),
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Error {
                error,
                ..
            })) => Event::Lost(format!("identify: {}", chain(&error))),
            other => {
                tracing::debug!(?other, "event");
                continue;
            }
        };
        if tell.try_send(event).is_err() {
            tracing::trace!("an event that nobody waits for");
        }
    }
}

fn identified(info: &identify::Info) -> Value {
    let addrs: Vec<String> = info.listen_addrs.iter().map(Multiaddr::to_string).collect();
    let protocols: Vec<&str> = info.protocols.iter().map(StreamProtocol::as_ref).collect();
    json!({
        "agent": info.agent_version,
        "protocolVersion": info.protocol_version,
        "protocols": protocols,
        "listenAddrs": addrs,
        "observedAddr": info.observed_addr.to_string(),
    })
}
