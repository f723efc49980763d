//! p2p as a benchmark peer.
//!
//! `--tune cipher=ring|rustcrypto|aws-lc-rs|openssl` (the last with the feature `openssl`),
//! `--tune open=negotiated|optimistic`, `--tune busy-poll=MICROSECONDS` (100, as
//! in `p2p::builder()`).

use std::{future::pending, io, time::Duration};

use bytes::Bytes;
use compare_peer::{
    Args, Buffer, Failure, Node, Protocol, Stream, check, pattern::Pattern, serve_stream,
};
use p2p::{
    Host, PeerId,
    noise::{Noise, cipher::Cipher},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// More than any scenario needs.
const MANY: usize = 1 << 20;
const LONG: Duration = Duration::from_secs(3600);

#[derive(Debug)]
pub struct Peer {
    host: Host,
    optimistic: bool,
}

#[derive(Debug)]
pub struct Connection {
    addr: String,
    peer: PeerId,
}

fn builder(args: &Args) -> Result<p2p::Builder, Failure> {
    let cipher = match args.tuned("cipher", "ring") {
        "ring" => Cipher::RING,
        "rustcrypto" => Cipher::RUST_CRYPTO,
        "aws-lc-rs" => Cipher::AWS_LC,
        #[cfg(feature = "openssl")]
        "openssl" => Cipher::OPENSSL,
        other => return Err(format!("no cipher {other}").into()),
    };
    let limits = p2p::mux::Config::default().streams_inbound_host_max(MANY as u64);
    let busy_poll = args.tuned("busy-poll", "100");
    let busy_poll = busy_poll.parse().map_err(|_| format!("busy-poll={busy_poll}: no number"))?;
    Ok(p2p_host::builder()
        .busy_poll(Duration::from_micros(busy_poll))
        .transport(p2p::tcp::Tcp::default())
        .security(move |identity| Ok(Noise::new(identity)?.with_cipher(cipher)))
        .muxer(p2p::mux::Yamux::new(limits))
        .idle_timeout(LONG)
        .connections_inbound_max(MANY)
        .connections_outbound_max(MANY)
        .connections_per_peer_max(MANY)
        .connections_watermarks(MANY, MANY)
        .pending_inbound_max(MANY)
        .streams_inbound_max(MANY)
        .streams_inbound_per_peer_max(MANY)
        .streams_per_protocol_max(MANY)
        .streams_per_protocol_and_peer_max(MANY)
        .streams_outbound_max(MANY)
        .streams_outbound_per_peer_max(MANY))
}

impl Node for Peer {
    const NAME: &'static str = "p2p";
    type Stream = OfHost;
    type Connection = Connection;

    async fn start(args: &Args) -> Result<Self, Failure> {
        let host = builder(args)?.spawn().await?;
        Ok(Self { host, optimistic: args.tuned("open", "negotiated") == "optimistic" })
    }

    async fn serve(args: &Args, tell: impl FnOnce(&str) + Send) -> Result<(), Failure> {
        let host = builder(args)?.listen(&args.listen).spawn().await?;
        for protocol in Protocol::ALL.into_iter().filter(|protocol| *protocol != Protocol::Ping) {
            // Every host answers pings.
            host.handle(protocol.name(), move |stream| async move {
                serve_stream(protocol, OfHost(stream)).await;
                Ok::<_, io::Error>(())
            })?;
        }
        tell(host.addrs().first().ok_or("no address")?);
        pending().await
    }

    async fn connect(&self, addr: &str) -> Result<Connection, Failure> {
        let info = self.host.connect(addr).await?;
        Ok(Connection { addr: addr.into(), peer: info.peer() })
    }

    async fn open(&self, connection: &Connection, protocol: Protocol) -> Result<OfHost, Failure> {
        let opening = self.host.open(connection.peer, protocol.name());
        let opening = if self.optimistic { opening.optimistic() } else { opening };
        let stream = opening.await.map_err(|error| format!("{}: {error}", connection.addr))?;
        Ok(OfHost(stream))
    }

    async fn close(&self, connection: Connection) -> Result<(), Failure> {
        self.host.disconnect(&connection.peer);
        Ok(())
    }
}

/// A stream that hands bytes on without copying them.
#[derive(Debug)]
pub struct OfHost(p2p::Stream);

impl Stream for OfHost {
    async fn send(&mut self, piece: &'static [u8]) -> io::Result<()> {
        Ok(self.0.send(&mut Bytes::from_static(piece)).await?)
    }

    async fn say(&mut self, message: &[u8]) -> io::Result<()> {
        self.0.write_all(message).await
    }

    async fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into).await
    }

    async fn take(&mut self, pattern: &mut Pattern, _: &mut Buffer) -> io::Result<usize> {
        match self.0.chunk(usize::MAX).await? {
            Some(chunk) => check(pattern, &chunk),
            None => Ok(0),
        }
    }

    async fn finish(&mut self) -> io::Result<()> {
        self.0.shutdown().await
    }
}
