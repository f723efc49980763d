use std::{path::PathBuf, time::Duration};

use clap::{
    Parser, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use p2p::{AddrExt, IntoTarget, KeyType, Multiaddr, core::parse_multiaddr};

/// libp2p from the command line: see it work, listen, ping and identify peers, manage keys.
#[derive(Debug, Parser)]
#[command(
    name = "p2p",
    version,
    after_help = "Begin with: p2p demo\n\nExit codes: 0 success, 1 failure, 2 wrong use, 130 interrupted."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,

    /// Print each event as one JSON object a line, and nothing else on stdout
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Log to stderr what happens inside; without it RUST_LOG decides (default: warn)
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the whole of it on this machine: two hosts, one connection, many streams
    #[command(after_help = "Example: p2p demo README.md")]
    Demo {
        /// The file to send from one host to the other [default: one that is built in]
        file: Option<PathBuf>,
    },
    /// Listen for peers until Ctrl-C; answer ping, identify and /echo/1.0.0
    #[command(after_help = "Example: p2p listen --listen /ip4/0.0.0.0/tcp/4001 --key node.key")]
    Listen {
        /// An address to listen on; may be given several times
        #[arg(long, value_name = "ADDR", default_value = "/ip4/0.0.0.0/tcp/0", value_parser = listen_addr)]
        listen: Vec<Multiaddr>,

        /// The key file that says which peer this is [default: a new peer each time]
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
    },
    /// Measure round trips to a peer, all on one stream
    #[command(after_help = "Example: p2p ping -c 10 /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW…")]
    Ping(PingArgs),
    /// Ask a peer who it is and what it supports
    #[command(after_help = "Example: p2p identify /ip4/192.0.2.7/tcp/4001")]
    Identify(PeerArgs),
    /// Make or show a key file, which says which peer a host is
    #[command(after_help = "Example: p2p key new node.key && p2p listen --key node.key")]
    Key {
        #[command(subcommand)]
        command: KeyCommand,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct PeerArgs {
    /// The peer's address; with /p2p/ID at its end, another peer there is an error
    #[arg(value_parser = peer_addr)]
    pub(crate) addr: Multiaddr,

    /// How long to wait for the peer at each step, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = limit)]
    pub(crate) timeout: Duration,
}

#[derive(Debug, clap::Args)]
pub(crate) struct PingArgs {
    #[command(flatten)]
    pub(crate) peer: PeerArgs,

    /// How many round trips to measure
    #[arg(short, long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) count: u32,

    /// How long from one ping to the next, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub(crate) interval: Duration,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a new key in a new file that only you can read, and show whose it is
    #[command(after_help = "Example: p2p key new node.key")]
    New {
        /// The file to write; one that exists is never overwritten
        file: PathBuf,

        /// The type of key; every peer knows ed25519, few know ecdsa
        #[arg(long = "type", value_name = "TYPE", default_value = "ed25519", value_parser = key_types())]
        key_type: KeyType,
    },
    /// Show which peer a key file makes a host; the secret is not shown
    #[command(after_help = "Example: p2p key show node.key")]
    Show {
        /// The key file
        file: PathBuf,
    },
    /// Write a key as PEM (PKCS#8), for other programs; the file is not encrypted
    #[command(after_help = "Example: p2p key export node.key node.pem")]
    Export {
        /// The key file
        file: PathBuf,
        /// The PEM file to write; one that exists is never overwritten
        pem: PathBuf,
    },
    /// Make a key file of a PEM file (PKCS#8, SEC1 or PKCS#1); RSA keys come in this way
    #[command(after_help = "Example: p2p key import node.pem node.key")]
    Import {
        /// The PEM file
        pem: PathBuf,
        /// The key file to write; one that exists is never overwritten
        file: PathBuf,
    },
}

/// The types of key that can be made here.
fn key_types() -> impl TypedValueParser<Value = KeyType> {
    PossibleValuesParser::new(["ed25519", "secp256k1", "ecdsa"]).map(|name| match name.as_str() {
        "secp256k1" => KeyType::Secp256k1,
        "ecdsa" => KeyType::Ecdsa,
        _ => KeyType::Ed25519,
    })
}

/// The longest time that can be given: a day.
const SECONDS_MAX: f64 = 86_400.0;

fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| "it is not a number of seconds".to_owned())?;
    if !(0.0..=SECONDS_MAX).contains(&number) {
        return Err(format!("it is not between 0 and {SECONDS_MAX} seconds"));
    }
    Duration::try_from_secs_f64(number).map_err(|error| error.to_string())
}

fn limit(text: &str) -> Result<Duration, String> {
    let limit = seconds(text)?;
    if limit.is_zero() {
        return Err("nothing answers within 0 seconds".into());
    }
    Ok(limit)
}

fn listen_addr(text: &str) -> Result<Multiaddr, String> {
    parse_multiaddr(text).map_err(|error| not_an_addr(&error))
}

fn peer_addr(text: &str) -> Result<Multiaddr, String> {
    if text.parse::<p2p::PeerId>().is_ok() {
        return Err(no_addr());
    }
    let addr = parse_multiaddr(text).map_err(|error| not_an_addr(&error))?;
    (&addr).into_target().map_err(|error| error.to_string())?;
    match addr.split_peer() {
        Ok((bare, _)) if bare.is_empty() => Err(no_addr()),
        Ok(_) => Ok(addr),
        Err(error) => Err(error.to_string()),
    }
}

fn not_an_addr(error: &dyn std::error::Error) -> String {
    format!("it is not a multiaddr ({error}); write it like /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW…")
}

fn no_addr() -> String {
    "it names a peer, but not where it is; write it like /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW…"
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str = "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq";

    #[test]
    fn the_command_line_is_sound() {
        <Args as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn a_peer_is_given_by_where_it_is() {
        assert!(peer_addr("/ip4/127.0.0.1/tcp/1").is_ok());
        assert!(peer_addr(&format!("/ip4/127.0.0.1/tcp/1/p2p/{PEER}")).is_ok());
        for text in ["", "/", "hello", "/ip4/localhost/tcp/1", PEER, &format!("/p2p/{PEER}")] {
            assert!(peer_addr(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_numbers_of_seconds() {
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        assert_eq!(seconds("0"), Ok(Duration::ZERO));
        for text in ["", "-1", "x", "NaN", "inf", "1e9"] {
            assert!(seconds(text).is_err(), "{text}");
        }
        assert!(limit("0").is_err());
    }
}
