//! The command line.

use std::{path::PathBuf, str::FromStr, time::Duration};

use clap::{Args, Parser, Subcommand};
use libp2p::{Multiaddr, PeerId, identity::Keypair, multiaddr::Protocol};

use crate::report::Failure;

/// A rust-libp2p node for interoperability tests.
#[derive(Debug, Parser)]
#[command(name = "peer-rust-libp2p")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What the process does.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs a node that answers ping, identify and /echo/1.0.0 until it is killed.
    Listen {
        /// The address to listen on.
        #[arg(long, value_name = "MULTIADDR", default_value = "/ip4/127.0.0.1/tcp/0")]
        listen: Multiaddr,
        #[command(flatten)]
        identity: Identity,
    },
    /// Pings a peer.
    Ping {
        #[command(flatten)]
        target: Target,
        /// How many pings must succeed.
        #[arg(short = 'c', long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
        count: u32,
        /// The pause between two pings, in milliseconds.
        #[arg(long, value_name = "MS", default_value_t = 100)]
        interval_ms: u64,
    },
    /// Prints what a peer tells about itself through identify.
    Identify {
        #[command(flatten)]
        target: Target,
    },
    /// Sends bytes over /echo/1.0.0 streams and compares what comes back.
    Echo {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        load: Load,
    },
}

/// What the command `echo` sends over its one connection.
#[derive(Debug, Args)]
pub(crate) struct Load {
    /// How many bytes each stream carries each way.
    #[arg(long, value_name = "N", default_value_t = 10 * 1024 * 1024)]
    pub(crate) bytes: u64,
    /// How many streams run at once.
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) streams: u32,
    /// How many times that is done, one after the other, on new streams.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,
}

/// The peer a client command dials, and how long it may take.
#[derive(Debug, Args)]
pub(crate) struct Target {
    /// The peer's full address, ending in /p2p/ID.
    #[arg(value_name = "ADDR")]
    pub(crate) remote: Remote,
    /// The overall time limit, in seconds.
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout_s: u64,
    #[command(flatten)]
    pub(crate) identity: Identity,
}

/// Who the node is.
#[derive(Debug, Args)]
pub(crate) struct Identity {
    /// A file with the private key in libp2p's protobuf form, instead of a new Ed25519 key.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

impl Identity {
    /// The key pair of the file, or a new one.
    pub(crate) fn load(&self) -> Result<Keypair, Failure> {
        let Some(path) = &self.key else { return Ok(Keypair::generate_ed25519()) };
        let bytes = std::fs::read(path).map_err(|error| Failure::during("key file", &error))?;
        Keypair::from_protobuf_encoding(&bytes).map_err(|error| Failure::during("key file", &error))
    }
}

impl Target {
    /// The overall time limit of the command.
    pub(crate) fn time_limit(&self) -> Duration {
        Duration::from_secs(self.timeout_s)
    }
}

/// A dialable address together with the peer ID it ends in.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    pub(crate) addr: Multiaddr,
    pub(crate) peer: PeerId,
}

impl FromStr for Remote {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let addr: Multiaddr = text.parse().map_err(|error| format!("{error}"))?;
        match addr.iter().last() {
            Some(Protocol::P2p(peer)) => Ok(Self { addr, peer }),
            _ => Err("the address does not end in /p2p/ID".to_owned()),
        }
    }
}
