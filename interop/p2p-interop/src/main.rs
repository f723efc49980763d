//! This project's node as the program under test of libp2p's transport interoperability tests.

use std::{future::pending, path::Path, process::ExitCode, sync::Arc, time::Duration};

use interop_plan::{
    Announce, ECHO, Failure, KNOWN, LATE, Muxer, Opener, Peer, Settings, answer_echo, answer_known,
    ping_once, run,
};
use p2p::{ConnectionInfo, Event, Host, Keypair, PeerId, Stream, mux, noise, perf, ping, tcp};
use serde_json::{Value, json};

mod record;

use record::{Recorded, Transcript};

#[tokio::main]
async fn main() -> ExitCode {
    run::<Node, _, _>(listen).await
}

/// A host with the one multiplexer that is asked for. With a `transcript`, all that its connection
/// carries is written there, and its keys are known to everybody.
fn builder(muxer: Muxer, transcript: Option<&Transcript>) -> p2p::Builder {
    let builder = p2p_host::builder();
    let builder = match transcript {
        None => builder
            .transport(tcp::Tcp::default())
            .security(|key| Ok(noise::Noise::new(key)?.with_cipher(noise::cipher::Cipher::RING))),
        Some(transcript) => builder
            .identity(Keypair::from_ed25519_seed(&IDENTITY_SEED))
            .transport(Recorded::new(tcp::Tcp::default(), transcript.clone()))
            .security(|key| noise::fuzzing::noise_with_keys(key, STATIC_KEY, EPHEMERAL_KEY)),
    };
    match muxer {
        Muxer::Mplex => builder.muxer(mux::Mplex::new(mplex_config())),
        _ => builder.muxer(mux::Yamux::default()),
    }
}

/// The keys of recorded conversations. The test that replays them has the same.
const IDENTITY_SEED: [u8; 32] = [1; 32];
const STATIC_KEY: [u8; 32] = [2; 32];
const EPHEMERAL_KEY: [u8; 32] = [3; 32];

/// Where the conversation is to be written, if it is.
fn transcript() -> Result<Option<Transcript>, Failure> {
    let Some(path) = std::env::var_os("transcript") else { return Ok(None) };
    Ok(Some(Transcript::create(Path::new(&path))?))
}

/// Room for the scenarios: mplex has no flow control, so what is not read yet has to be held, and
/// by default it opens 5 streams a second and 100 at once.
fn mplex_config() -> mux::mplex::Config {
    mux::mplex::Config::default()
        .streams_outbound_max(256)
        .opens_per_second_max(usize::MAX)
        .stream_received_max(12 << 20)
        .connection_received_max(24 << 20)
}

async fn listen(settings: Settings, announce: Announce) -> Result<(), Failure> {
    let transcript = transcript()?;
    let builder = builder(settings.muxer, transcript.as_ref());
    let host = builder.listen(format!("/ip4/{}/tcp/0", settings.ip)).spawn().await?;
    host.handle(ECHO, |stream: Stream| answer_echo(stream))?;
    let knows = host.clone();
    host.handle(KNOWN, move |stream: Stream| {
        let known = knows.peerstore().get(&stream.peer());
        let names = known.map(|known| known.protocols).unwrap_or_default();
        answer_known(stream, names.into_iter().map(|name| name.to_string()))
    })?;
    perf::serve(&host)?;
    let mut events = host.events();
    announce.tell(&host.addrs()).await?;
    let Some(transcript) = transcript else { return pending().await };
    while let Some(event) = events.next().await {
        match event {
            Event::Connected { peer, .. } => transcript.note("peer", &peer.to_string()),
            Event::Identified { info, .. } => transcript.note("agent", &info.agent),
            _ => {}
        }
    }
    Ok(())
}

/// A dialer and its connection.
struct Node {
    host: Host,
    peer: PeerId,
    connection: Arc<ConnectionInfo>,
    ping: Option<Stream>,
    transcript: Option<Transcript>,
}

impl Node {
    /// The connection that was dialed is the only one there has to be.
    fn is_connected(&self) -> Result<(), Failure> {
        match self.host.connections(&self.peer).as_slice() {
            [connection] if Arc::ptr_eq(connection, &self.connection) => Ok(()),
            others => Err(format!("the connection is lost; there are {}", others.len()).into()),
        }
    }
}

impl Peer for Node {
    type Stream = Stream;

    // More wait for those to end.
    const STREAMS_AT_ONCE: usize = 1000;

    async fn dial(settings: &Settings, addr: &str) -> Result<Self, Failure> {
        let transcript = transcript()?;
        let host = builder(settings.muxer, transcript.as_ref()).spawn().await?;
        let connection = host.connect(addr).await?;
        let peer = connection.peer();
        if let Some(transcript) = &transcript {
            transcript.note("peer", &peer.to_string());
        }
        Ok(Self { host, peer, connection, ping: None, transcript })
    }

    async fn ping(&mut self) -> Result<Duration, Failure> {
        self.is_connected()?;
        let mut stream = match self.ping.take() {
            Some(stream) => stream,
            None => self.host.open(self.peer, ping::PROTOCOL).optimistic().await?,
        };
        let round_trip = ping_once(&mut stream).await?;
        self.ping = Some(stream);
        self.is_connected()?;
        Ok(round_trip)
    }

    async fn identify(&mut self) -> Result<Value, Failure> {
        let info = self.host.identify(self.peer).await?;
        if let Some(transcript) = &self.transcript {
            transcript.note("agent", &info.agent);
        }
        let texts = |list: &[p2p::Multiaddr]| list.iter().map(ToString::to_string).collect();
        let addrs: Vec<String> = texts(&info.listen_addrs);
        let protocols: Vec<&str> = info.protocols.iter().map(p2p::ProtocolId::as_str).collect();
        Ok(json!({
            "agent": info.agent,
            "protocolVersion": info.protocol_version,
            "protocols": protocols,
            "listenAddrs": addrs,
            "observedAddr": info.observed_addr.as_ref().map(ToString::to_string),
        }))
    }

    async fn serve_late(&mut self) -> Result<(), Failure> {
        Ok(self.host.handle(LATE, |stream: Stream| answer_echo(stream))?)
    }

    fn opener(&self) -> Opener<Stream> {
        let (host, peer) = (self.host.clone(), self.peer);
        Arc::new(move |protocol| {
            let host = host.clone();
            Box::pin(async move { Ok(host.open(peer, protocol).await?) })
        })
    }

    async fn close(mut self) {
        self.ping = None;
        self.host.close().await;
    }
}
