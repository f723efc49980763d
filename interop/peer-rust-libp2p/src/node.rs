//! The swarm every command runs.

use std::time::Duration;

use libp2p::{
    Swarm, SwarmBuilder, identify, identity::Keypair, noise, ping, swarm::NetworkBehaviour, tcp,
    yamux,
};

use crate::{report::Failure, serve};

/// How long a connection without streams other than ping stays open at least.
const IDLE: Duration = Duration::from_secs(60);

/// The protocols of the node.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    pub(crate) ping: ping::Behaviour,
    pub(crate) identify: identify::Behaviour,
    pub(crate) serve: serve::Behaviour,
    pub(crate) streams: libp2p_stream::Behaviour,
}

/// How a command wants its node.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) ping: ping::Config,
    pub(crate) idle: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { ping: ping::Config::new(), idle: IDLE }
    }
}

/// Builds a node with this identity over TCP, Noise and Yamux.
pub(crate) fn build(identity: Keypair, settings: Settings) -> Result<Swarm<Behaviour>, Failure> {
    let Settings { ping, idle } = settings;
    let builder = SwarmBuilder::with_existing_identity(identity)
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .map_err(|error| Failure::during("noise keys", &error))?
        .with_behaviour(|key| Behaviour {
            ping: ping::Behaviour::new(ping),
            identify: identify::Behaviour::new(
                identify::Config::new("p2p-interop/1.0.0".to_owned(), key.public())
                    .with_agent_version("rust-libp2p/0.57".to_owned()),
            ),
            serve: serve::Behaviour,
            streams: libp2p_stream::Behaviour::new(),
        });
    let Ok(builder) = builder;
    Ok(builder
        .with_swarm_config(|config| config.with_idle_connection_timeout(idle.max(IDLE)))
        .build())
}
