//! The command that waits for peers.

use futures::StreamExt as _;
use libp2p::{Multiaddr, PeerId, identify, multiaddr::Protocol, swarm::SwarmEvent};
use serde_json::json;

use crate::{
    cli::Identity,
    node::{self, BehaviourEvent, Settings},
    report::{self, Failure},
};

/// Listens on `addr` and reports what happens until the process is killed.
pub(crate) async fn run(addr: Multiaddr, identity: &Identity) -> Result<(), Failure> {
    let mut swarm = node::build(identity.load()?, Settings::default())?;
    swarm.listen_on(addr).map_err(|error| Failure::during("listen", &error))?;
    let local = *swarm.local_peer_id();
    loop {
        report_event(&local, swarm.select_next_some().await)?;
    }
}

/// Prints the line that belongs to an event, if one does.
fn report_event(local: &PeerId, event: SwarmEvent<BehaviourEvent>) -> Result<(), Failure> {
    let value = match event {
        SwarmEvent::NewListenAddr { address, .. } => {
            let addr = address.with(Protocol::P2p(*local)).to_string();
            json!({"event": "listening", "addr": addr})
        }
        SwarmEvent::ListenerClosed { reason, .. } => {
            return Err(Failure::new(format!("listener closed: {reason:?}")));
        }
        SwarmEvent::ConnectionClosed { peer_id, cause, .. } => json!({
            "event": "disconnected",
            "peer": peer_id.to_string(),
            "cause": cause.as_ref().map(|error| report::chain(error)),
        }),
        SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
            peer_id,
            info,
            ..
        })) => report::identified(&peer_id, &info),
        SwarmEvent::Behaviour(BehaviourEvent::Ping(event)) => match event.result {
            Ok(rtt) => json!({
                "event": "pinged",
                "peer": event.peer.to_string(),
                "rtt_us": report::micros(rtt),
            }),
            Err(error) => {
                tracing::warn!(peer = %event.peer, %error, "own ping");
                return Ok(());
            }
        },
        SwarmEvent::IncomingConnectionError { error, .. } => {
            tracing::warn!(error = %report::chain(&error), "incoming connection");
            return Ok(());
        }
        other => {
            tracing::debug!(?other, "other event");
            return Ok(());
        }
    };
    Ok(report::line(&value)?)
}
