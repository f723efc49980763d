//! This project's node as the program under test of libp2p's transport interoperability tests.

use std::{future::pending, process::ExitCode, sync::Arc, time::Duration};

use interop_plan::{
    Announce, ECHO, Failure, Muxer, Opener, Peer, Settings, answer_echo, ping_once, run,
};
use p2p::{ConnectionInfo, Host, PeerId, Stream, mux, noise, perf, ping, tcp};
use serde_json::{Value, json};

#[tokio::main]
async fn main() -> ExitCode {
    run::<Node, _, _>(listen).await
}

/// A host with the one multiplexer that is asked for.
fn builder(muxer: Muxer) -> p2p::Builder {
    let builder = p2p_host::builder()
        .transport(tcp::Tcp::default())
        .security(|key| Ok(noise::Noise::new(key)?.with_cipher(noise::cipher::Cipher::RING)));
    match muxer {
        Muxer::Mplex => builder.muxer(mux::Mplex::new(mplex_config())),
        _ => builder.muxer(mux::Yamux::default()),
    }
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
    let builder = builder(settings.muxer).listen(format!("/ip4/{}/tcp/0", settings.ip));
    let host = builder.spawn().await?;
    host.handle(ECHO, |stream: Stream| answer_echo(stream))?;
    perf::serve(&host)?;
    announce.tell(&host.addrs()).await?;
    pending().await
}

/// A dialer and its connection.
struct Node {
    host: Host,
    peer: PeerId,
    connection: Arc<ConnectionInfo>,
    ping: Option<Stream>,
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
        let host = builder(settings.muxer).spawn().await?;
        let connection = host.connect(addr).await?;
        let peer = connection.peer();
        Ok(Self { host, peer, connection, ping: None })
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
