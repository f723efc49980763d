use std::{path::PathBuf, time::Duration};

use clap::{
    Parser, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use p2p::{AddrExt, IntoTarget, KeyType, Multiaddr, PeerId, core::parse_multiaddr};

use crate::{socket::Socket, transfer::ticket::Ticket};

/// libp2p from the command line: see it work, find out what does not, send files, forward ports.
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
        #[command(flatten)]
        listen: ListenArgs,

        /// Answer `p2p perf` too: whoever reaches this may then use up its line
        #[arg(long)]
        perf: bool,
    },
    /// Measure round trips to a peer, all on one stream
    #[command(after_help = "Example: p2p ping -c 10 /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW…")]
    Ping(PingArgs),
    /// Ask a peer who it is and what it supports
    #[command(after_help = "Example: p2p identify /ip4/192.0.2.7/tcp/4001")]
    Identify(PeerArgs),
    /// Carry stdin and stdout over a stream, as netcat does
    #[command(
        after_help = "Example: p2p pipe listen > copy.tar\n         tar c folder | p2p pipe connect ADDR"
    )]
    Pipe {
        #[command(subcommand)]
        command: PipeCommand,
    },
    /// Forward local ports or Unix sockets to services that a peer exposes with `p2p serve-tcp`
    #[command(after_help = FORWARD_HELP)]
    Forward(ForwardArgs),
    /// Expose services to peers that run `p2p forward`; what is not allowed here is refused
    #[command(after_help = SERVE_TCP_HELP)]
    ServeTcp(ServeTcpArgs),
    /// Send files and folders to whoever has the ticket that this shows, once
    #[command(after_help = SEND_HELP)]
    Send(SendArgs),
    /// Receive what a ticket stands for; what is already here is not sent again
    #[command(after_help = RECV_HELP)]
    Recv(RecvArgs),
    /// Measure how fast data go to a peer and back
    #[command(after_help = PERF_HELP)]
    Perf(PerfArgs),
    /// Find out, step by step, why a peer is not reached, or whether libp2p works here at all
    #[command(after_help = DOCTOR_HELP)]
    Doctor {
        /// The peer's address [default: this machine alone is looked at]
        #[arg(value_parser = peer_addr)]
        addr: Option<Multiaddr>,

        /// How long a step may take, in seconds
        #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = limit)]
        timeout: Duration,
    },
    /// Write the script that lets a shell complete this program's commands
    #[command(
        after_help = "Example: p2p completions bash > ~/.local/share/bash-completion/completions/p2p"
    )]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Make or show a key file, which says which peer a host is
    #[command(after_help = "Example: p2p key new node.key && p2p listen --key node.key")]
    Key {
        #[command(subcommand)]
        command: KeyCommand,
    },
}

/// Where a host listens, and which peer it is.
#[derive(Debug, clap::Args)]
pub(crate) struct ListenArgs {
    /// An address to listen on; may be given several times
    #[arg(long, value_name = "ADDR", default_value = "/ip4/0.0.0.0/tcp/0", value_parser = listen_addr)]
    pub(crate) listen: Vec<Multiaddr>,

    /// The key file that says which peer this is [default: a new peer each time]
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PipeCommand {
    /// Wait for one peer, then carry stdin to it and what it sends to stdout
    #[command(after_help = "The addresses are told on stderr: stdout is the peer's data.\n\n\
                            Example: p2p pipe listen > received")]
    Listen {
        #[command(flatten)]
        listen: ListenArgs,

        /// Serve only this peer; may be given several times [default: the first that comes]
        #[arg(long, value_name = "ID")]
        allow_peer: Vec<PeerId>,
    },
    /// Connect to a `p2p pipe listen`
    #[command(
        after_help = "Example: p2p pipe connect /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW… < file"
    )]
    Connect {
        #[command(flatten)]
        peer: PeerArgs,

        /// The key file that says which peer this is [default: a new peer each time]
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
    },
}

const FORWARD_HELP: &str = "\
Examples: p2p forward --local 127.0.0.1:8080 --peer ADDR --remote 127.0.0.1:80
          p2p forward --local unix:/run/local-db --peer ADDR --remote unix:/run/db \\
                      --local 127.0.0.1:8080 --remote localhost:80

SSH over it, with `p2p serve-tcp --allow 127.0.0.1:22` at the other end:
          ssh -o ProxyCommand='p2p forward --stdio --peer ADDR --remote 127.0.0.1:22' user@name";

const SERVE_TCP_HELP: &str = "\
Examples: p2p serve-tcp --allow 127.0.0.1:80
          p2p serve-tcp --key node.key --listen /ip4/0.0.0.0/tcp/4001 \\
                        --allow unix:/run/db --allow-peer 12D3KooW…
A peer's id is in `p2p key show FILE`; it runs `p2p forward --key FILE`.";

const PERF_HELP: &str = "\
The peer may be of any libp2p implementation that serves /perf/1.0.0: `p2p listen --perf` does.

Example: p2p perf --upload 1GiB --download 0 /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW…";

const DOCTOR_HELP: &str = "\
With --json it is a report for an issue: addresses, names and peer ids are left out of it.

Examples: p2p doctor
          p2p doctor /dns/node.example/tcp/4001/p2p/12D3KooW…";

#[derive(Debug, clap::Args)]
pub(crate) struct PerfArgs {
    #[command(flatten)]
    pub(crate) peer: PeerArgs,

    /// How much to send, in bytes or with KiB, MiB or GiB; 0 leaves it out
    #[arg(long, value_name = "BYTES", default_value = "64MiB", value_parser = bytes)]
    pub(crate) upload: u64,

    /// How much to receive, likewise
    #[arg(long, value_name = "BYTES", default_value = "64MiB", value_parser = bytes)]
    pub(crate) download: u64,

    /// How many streams carry it at a time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) streams: u32,
}

const SEND_HELP: &str = "\
Whoever has the ticket gets the files. It is good until this program ends, which is when one
receiver has everything. Symbolic links are left out.

Examples: p2p send photos letter.pdf
          p2p send --listen /ip4/0.0.0.0/tcp/4001 --announce /dns/home.example/tcp/4001 photos";

const RECV_HELP: &str = "\
A file has its name only when it is complete and its SHA-256 is the sender's; until then it is in
NAME.p2p.part. Run the same again, or with a new ticket, after an interruption: it goes on where it
stopped.

Example: p2p recv p2psend… --into downloads";

#[derive(Debug, clap::Args)]
pub(crate) struct SendArgs {
    /// The files and folders to send
    #[arg(required = true)]
    pub(crate) path: Vec<PathBuf>,

    #[command(flatten)]
    pub(crate) listen: ListenArgs,

    /// An address for the ticket beside this machine's own, such as a router's that forwards the
    /// port; may be given several times
    #[arg(long, value_name = "ADDR", value_parser = bare_addr)]
    pub(crate) announce: Vec<Multiaddr>,

    /// Show the ticket as a QR code too
    #[arg(long)]
    pub(crate) qr: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RecvArgs {
    /// What `p2p send` shows
    #[arg(value_parser = ticket)]
    pub(crate) ticket: Ticket,

    /// The folder to put everything in; it is made if it is not there
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) into: PathBuf,

    /// Replace files that are there with the same name and are not the same
    #[arg(long)]
    pub(crate) overwrite: bool,

    /// How long to wait for the sender to be reached, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = limit)]
    pub(crate) timeout: Duration,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ForwardArgs {
    /// Where to take connections: HOST:PORT (port 0: one that is free) or unix:/PATH; the first
    /// --local goes with the first --remote, and so on
    #[arg(long, value_name = "SOCKET", value_parser = local_socket, required_unless_present = "stdio")]
    pub(crate) local: Vec<Socket>,

    /// The peer's address; with /p2p/ID at its end, another peer there is an error
    #[arg(long, value_name = "ADDR", value_parser = peer_addr)]
    pub(crate) peer: Multiaddr,

    /// The service, as the peer reaches it: HOST:PORT or unix:/PATH
    #[arg(long, value_name = "SOCKET", value_parser = remote_socket, required = true)]
    pub(crate) remote: Vec<Socket>,

    /// Carry stdin and stdout to the one --remote instead
    #[arg(long, conflicts_with = "local")]
    pub(crate) stdio: bool,

    /// The key file that says which peer this is [default: a new peer each time]
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,

    /// How long to wait for the peer at each step, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = limit)]
    pub(crate) timeout: Duration,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ServeTcpArgs {
    /// A service that peers may reach: HOST:PORT or unix:/PATH; may be given several times
    #[arg(long, value_name = "SOCKET", value_parser = remote_socket, required = true)]
    pub(crate) allow: Vec<Socket>,

    /// A peer that may reach them; may be given several times [default: every peer]
    #[arg(long, value_name = "ID")]
    pub(crate) allow_peer: Vec<PeerId>,

    #[command(flatten)]
    pub(crate) listen: ListenArgs,
}

impl Args {
    /// What is wrong with the arguments together, where each alone is right.
    pub(crate) fn check(&self) -> Result<(), clap::Error> {
        let Command::Forward(forward) = &self.command else { return Ok(()) };
        let (locals, remotes) = (forward.local.len(), forward.remote.len());
        let message = match forward.stdio {
            true if remotes != 1 => "--stdio goes with one --remote".to_owned(),
            false if locals != remotes => {
                format!("{locals} --local and {remotes} --remote: each needs the other")
            }
            _ => return Ok(()),
        };
        let mut command = <Self as clap::CommandFactory>::command();
        Err(command.error(clap::error::ErrorKind::WrongNumberOfValues, message))
    }
}

impl Command {
    /// Whether stdout carries a peer's data, and what the program says goes to stderr.
    pub(crate) fn has_data_on_stdout(&self) -> bool {
        matches!(self, Self::Pipe { .. } | Self::Forward(ForwardArgs { stdio: true, .. }))
    }
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

fn bytes(text: &str) -> Result<u64, String> {
    let number_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(number_end);
    let factor: u64 = match unit.trim_start() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err("write it like 1000, 64MiB or 1GiB".into()),
    };
    let number: u64 = number.parse().map_err(|_| "it is not a number of bytes")?;
    number.checked_mul(factor).ok_or_else(|| "it is more than 2^64 - 1 bytes".into())
}

fn listen_addr(text: &str) -> Result<Multiaddr, String> {
    parse_multiaddr(text).map_err(|error| not_an_addr(&error))
}

fn ticket(text: &str) -> Result<Ticket, String> {
    text.parse()
}

/// A peer's address without its id.
fn bare_addr(text: &str) -> Result<Multiaddr, String> {
    let (bare, _) = peer_addr(text)?.split_peer().map_err(|error| error.to_string())?;
    Ok(bare)
}

fn remote_socket(text: &str) -> Result<Socket, String> {
    let socket = local_socket(text)?;
    if matches!(&socket, Socket::Tcp(addr) if addr.ends_with(":0")) {
        return Err("port 0 is no service".into());
    }
    Ok(socket)
}

fn local_socket(text: &str) -> Result<Socket, String> {
    Socket::parse(text)
}

fn peer_addr(text: &str) -> Result<Multiaddr, String> {
    if text.parse::<PeerId>().is_ok() {
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

    #[test]
    fn sizes_are_numbers_of_bytes() {
        assert_eq!((bytes("0"), bytes("1000")), (Ok(0), Ok(1000)));
        assert_eq!((bytes("3 KiB"), bytes("1GiB")), (Ok(3072), Ok(1 << 30)));
        for text in ["", "x", "-1", "1.5MiB", "1MB", "17179869184GiB", "MiB"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}
