//! The commands that dial a peer.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use libp2p::{
    PeerId, Swarm, identify, ping,
    swarm::{SwarmEvent, dial_opts::DialOpts},
};
use serde_json::json;
use tokio::{task::JoinSet, time::timeout};

use crate::{
    cli::{Load, Target},
    echo,
    node::{self, Behaviour, BehaviourEvent, Settings},
    report::{self, Failure},
};

/// How long closing a connection may take before the process ends without it.
const CLOSING: Duration = Duration::from_secs(1);

/// A node connected to the peer under test.
pub(crate) struct Client {
    swarm: Swarm<Behaviour>,
    peer: PeerId,
}

impl Client {
    /// Dials the target and waits for the connection.
    async fn connect(target: &Target, ping: ping::Config) -> Result<Self, Failure> {
        let idle = target.time_limit();
        let mut swarm = node::build(target.identity.load()?, Settings { ping, idle })?;
        let peer = target.remote.peer;
        let dial = DialOpts::peer_id(peer).addresses(vec![target.remote.addr.clone()]).build();
        swarm.dial(dial).map_err(|error| Failure::during("dial", &error))?;
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::ConnectionEstablished { .. } => return Ok(Self { swarm, peer }),
                SwarmEvent::OutgoingConnectionError { error, .. } => {
                    return Err(Failure::during("dial", &error));
                }
                other => tracing::debug!(?other, "while dialling"),
            }
        }
    }

    /// Waits for the next event of a protocol; the loss of the connection is a failure.
    async fn next_event(&mut self) -> Result<BehaviourEvent, Failure> {
        loop {
            match self.swarm.select_next_some().await {
                SwarmEvent::Behaviour(event) => return Ok(event),
                SwarmEvent::ConnectionClosed { cause, .. } => {
                    let cause = cause.map_or_else(
                        || "closed on this side".to_owned(),
                        |error| report::chain(&error),
                    );
                    return Err(Failure::new(format!("connection lost: {cause}")));
                }
                other => tracing::debug!(?other, "while connected"),
            }
        }
    }

    /// Closes the connection in order, so that the peer sees an end rather than a reset.
    pub(crate) async fn close(mut self) {
        if self.swarm.disconnect_peer_id(self.peer).is_err() {
            return;
        }
        let closed = async {
            while !matches!(
                self.swarm.select_next_some().await,
                SwarmEvent::ConnectionClosed { .. }
            ) {}
        };
        if timeout(CLOSING, closed).await.is_err() {
            tracing::warn!("the connection did not close in time");
        }
    }
}

/// Reports `count` successful pings, or the first failed one.
pub(crate) async fn ping(
    target: &Target,
    count: u32,
    interval: Duration,
) -> Result<Client, Failure> {
    let config = ping::Config::new().with_interval(interval);
    let mut client = Client::connect(target, config).await?;
    let mut done = 0;
    while done < count {
        if let BehaviourEvent::Ping(event) = client.next_event().await? {
            let rtt = event.result.map_err(|error| Failure::during("ping", &error))?;
            report::line(&json!({"event": "ping", "rtt_us": report::micros(rtt)}))?;
            done += 1;
        }
    }
    Ok(client)
}

/// Reports what the peer tells about itself.
pub(crate) async fn identify(target: &Target) -> Result<Client, Failure> {
    let mut client = Client::connect(target, ping::Config::new()).await?;
    loop {
        match client.next_event().await? {
            BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. }) => {
                report::line(&report::identify(&peer_id, &info))?;
                return Ok(client);
            }
            BehaviourEvent::Identify(identify::Event::Error { error, .. }) => {
                return Err(Failure::during("identify", &error));
            }
            other => tracing::debug!(?other, "while identifying"),
        }
    }
}

/// Reports that every byte of every round came back unchanged.
pub(crate) async fn echo(target: &Target, load: &Load) -> Result<Client, Failure> {
    let mut client = Client::connect(target, ping::Config::new()).await?;
    let started = Instant::now();
    for _ in 0..load.rounds {
        echo_round(&mut client, load).await?;
    }
    report::line(&json!({
        "event": "echo",
        "bytes": load.bytes,
        "streams": load.streams,
        "rounds": load.rounds,
        "elapsed_ms": report::micros(started.elapsed()) / 1000,
    }))?;
    Ok(client)
}

/// Runs the streams of one round to their ends.
async fn echo_round(client: &mut Client, load: &Load) -> Result<(), Failure> {
    let mut tasks = JoinSet::new();
    for index in 0..load.streams {
        let mut control = client.swarm.behaviour().streams.new_control();
        let (peer, bytes) = (client.peer, load.bytes);
        tasks.spawn(async move {
            let named = |failure| Failure::new(format!("stream {index}: {failure}"));
            let stream = control
                .open_stream(peer, echo::PROTOCOL)
                .await
                .map_err(|error| named(Failure::during("open", &error)))?;
            echo::exercise(stream, u64::from(index), bytes).await.map_err(named)
        });
    }
    loop {
        tokio::select! {
            // Streams that ended count even if the connection ended right after them.
            biased;
            task = tasks.join_next() => match task {
                Some(ended) => ended.map_err(|error| Failure::during("task", &error))??,
                None => return Ok(()),
            },
            event = client.next_event() => {
                let event = event?;
                tracing::debug!(?event, "during echo");
            }
        }
    }
}
