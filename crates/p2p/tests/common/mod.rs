//! A network in memory whose pipes can be made to fail at any byte.
#![allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    clippy::unwrap_used,
    reason = "shared by several test programs"
)]

use std::{
    collections::HashMap,
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
    time::Duration,
};

use async_trait::async_trait;
use bytes::{BufMut, BytesMut};
use p2p::{
    Builder, Event, Events, Host, Multiaddr, Stream,
    core::{
        DialTarget, Incoming, Link, ListenEvent, Listener, Pipe, Transport, TransportError,
        multiaddr::Protocol, varint,
    },
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream},
    sync::mpsc,
};

/// What happens to the bytes of one direction, from a byte on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The direction ends.
    Cut,
    /// Nothing more arrives.
    Stall,
    /// One byte is changed.
    Flip,
    /// Everything is replaced.
    Garbage,
}

/// A fault of the links that one host dials.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub fault: Fault,
    pub at: usize,
    /// On what the dialer sends, or on what it receives.
    pub outbound: bool,
}

/// The address that links come from, unless they are said to come from another.
const UNKNOWN: &str = "/memory/999";

/// A link and the address that it comes from.
type Dialed = (DuplexStream, Multiaddr);

/// The listeners by their ports. An address may begin with an IP address, which leads nowhere else.
#[derive(Clone, Default)]
pub struct Network {
    listeners: Arc<Mutex<HashMap<u64, mpsc::Sender<Dialed>>>>,
}

impl Network {
    pub fn transport(&self, plan: Option<Plan>) -> Memory {
        let (latency, from) = (Duration::ZERO, UNKNOWN.into());
        Memory { network: self.clone(), plan, latency, from, pipe_len: 4096 }
    }

    /// Links on which everything takes `latency` each way.
    pub fn far_transport(&self, latency: Duration) -> Memory {
        Memory { latency, ..self.transport(None) }
    }

    /// Links that are seen to come from an address, as `/ip4/192.0.2.1/memory/1`.
    pub fn transport_from(&self, from: &str) -> Memory {
        Memory { from: from.into(), ..self.transport(None) }
    }
}

pub struct Memory {
    network: Network,
    plan: Option<Plan>,
    latency: Duration,
    from: String,
    /// What a link holds each way, in bytes.
    pub pipe_len: usize,
}

fn port(addr: &Multiaddr) -> Option<u64> {
    match addr.iter().last() {
        Some(Protocol::Memory(port)) => Some(port),
        _ => None,
    }
}

#[async_trait]
impl Transport for Memory {
    fn supports(&self, addr: &Multiaddr) -> bool {
        port(addr).is_some()
    }

    async fn dial(&self, target: DialTarget) -> Result<Link, TransportError> {
        let refused = || TransportError::Dial {
            addr: target.addr.clone(),
            source: io::Error::from(io::ErrorKind::ConnectionRefused).into(),
        };
        let port = port(&target.addr).unwrap();
        if port == 0 {
            // An address that never answers.
            std::future::pending::<()>().await;
        }
        let sender = self.network.listeners.lock().unwrap().get(&port).cloned();
        let (near, far) = tokio::io::duplex(self.pipe_len);
        let near = if self.latency.is_zero() { near } else { delayed(near, self.latency) };
        sender
            .ok_or_else(refused)?
            .send((far, self.from.parse().unwrap()))
            .await
            .map_err(|_| refused())?;
        let (read, write) = tokio::io::split(near);
        Ok(Link::Pipe(match self.plan {
            None => Pipe::new(read, write),
            Some(plan) if plan.outbound => Pipe::new(read, Faulty::new(write, plan)),
            Some(plan) => {
                // The other direction goes through a pipe of its own.
                let (reader, mut feed) = tokio::io::duplex(4096);
                tokio::spawn(async move {
                    let mut read = read;
                    let (keep, feed) = tokio::io::split(&mut feed);
                    let mut faulty = Faulty::new(feed, plan);
                    let copied = tokio::io::copy(&mut read, &mut faulty).await;
                    drop((copied, faulty.shutdown().await, keep));
                });
                Pipe::new(reader, write)
            }
        }))
    }

    async fn listen(&self, addr: Multiaddr) -> Result<Box<dyn Listener>, TransportError> {
        let (sender, links) = mpsc::channel(64);
        self.network.listeners.lock().unwrap().insert(port(&addr).unwrap(), sender);
        Ok(Box::new(MemoryListener { addr, links }))
    }
}

/// Puts a long line in front of a pipe.
fn delayed(far: DuplexStream, latency: Duration) -> DuplexStream {
    let (near, line) = tokio::io::duplex(4096);
    let (line_read, line_write) = tokio::io::split(line);
    let (far_read, far_write) = tokio::io::split(far);
    tokio::spawn(delay(line_read, far_write, latency));
    tokio::spawn(delay(far_read, line_write, latency));
    near
}

/// Hands on what it reads, each piece `latency` after it came.
async fn delay(
    mut from: impl AsyncRead + Unpin + Send + 'static,
    mut to: impl AsyncWrite + Unpin,
    latency: Duration,
) {
    let (sender, mut pieces) = mpsc::channel::<(tokio::time::Instant, Vec<u8>)>(1024);
    tokio::spawn(async move {
        let mut buffer = vec![0; 4096];
        while let Ok(count) = from.read(&mut buffer).await {
            let due = tokio::time::Instant::now() + latency;
            let sent = sender.send((due, buffer[..count].to_vec())).await;
            if count == 0 || sent.is_err() {
                return;
            }
        }
    });
    while let Some((due, piece)) = pieces.recv().await {
        tokio::time::sleep_until(due).await;
        let written =
            if piece.is_empty() { to.shutdown().await } else { to.write_all(&piece).await };
        if written.is_err() {
            return;
        }
    }
}

struct MemoryListener {
    addr: Multiaddr,
    links: mpsc::Receiver<Dialed>,
}

#[async_trait]
impl Listener for MemoryListener {
    fn addrs(&self) -> Vec<Multiaddr> {
        vec![self.addr.clone()]
    }

    async fn next(&mut self) -> Result<ListenEvent, TransportError> {
        let Some((link, remote)) = self.links.recv().await else {
            return std::future::pending().await;
        };
        let (read, write) = tokio::io::split(link);
        let link = async move { Ok(Link::Pipe(Pipe::new(read, write))) };
        Ok(ListenEvent::Incoming(Incoming::new(self.addr.clone(), remote, link)))
    }
}

/// A writer that keeps its promise up to a byte.
struct Faulty<W> {
    inner: W,
    plan: Plan,
    written: usize,
}

impl<W> Faulty<W> {
    fn new(inner: W, plan: Plan) -> Self {
        Self { inner, plan, written: 0 }
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Faulty<W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let before = self.plan.at.saturating_sub(self.written).min(buf.len());
        let piece: Vec<u8> = if before > 0 {
            buf[..before].to_vec()
        } else {
            match self.plan.fault {
                Fault::Stall => return Poll::Ready(Ok(buf.len())),
                Fault::Cut => {
                    ready!(Pin::new(&mut self.inner).poll_shutdown(cx))?;
                    return Poll::Ready(Ok(buf.len()));
                }
                Fault::Garbage => vec![0xaa; buf.len()],
                Fault::Flip if self.written == self.plan.at => vec![buf[0] ^ 0x20],
                Fault::Flip => buf.to_vec(),
            }
        };
        let count = ready!(Pin::new(&mut self.inner).poll_write(cx, &piece))?;
        self.written += count;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// A builder on a network in memory.
pub fn builder(network: &Network, plan: Option<Plan>) -> Builder {
    p2p::builder().transport(network.transport(plan)).drain_timeout(Duration::from_secs(1))
}

/// The next event that `pick` takes; it comes within a while.
pub async fn next_event<T>(events: &mut Events, pick: impl Fn(Event) -> Option<T>) -> T {
    let picking = async {
        loop {
            let event = events.next().await.expect("the host has ended");
            if let Some(picked) = pick(event) {
                return picked;
            }
        }
    };
    let picked = tokio::time::timeout(Duration::from_secs(1000), picking).await;
    picked.expect("the event does not come")
}

pub async fn echo(stream: Stream) -> io::Result<()> {
    let (mut r, mut w) = tokio::io::split(stream);
    tokio::io::copy(&mut r, &mut w).await?;
    w.shutdown().await
}

/// A host that echoes, at `/memory/<port>` (or any other address).
pub async fn echo_host(network: &Network, addr: &str) -> Host {
    let host = builder(network, None).listen(addr).spawn().await.unwrap();
    host.handle("/echo/1.0.0", echo).unwrap();
    host
}

/// Sends `data` over a new stream and reads them back to the end.
pub async fn echo_once(host: &Host, addr: &str, data: &[u8]) -> Result<Vec<u8>, String> {
    let mut stream = host.open(addr, "/echo/1.0.0").await.map_err(|e| e.to_string())?;
    stream.write_all(data).await.map_err(|e| e.to_string())?;
    stream.shutdown().await.map_err(|e| e.to_string())?;
    let mut back = Vec::new();
    stream.read_to_end(&mut back).await.map_err(|e| e.to_string())?;
    Ok(back)
}

/// One field of a protobuf message.
pub fn field(number: u8, data: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    out.put_u8(number << 3 | 2);
    varint::encode(u64::try_from(data.len()).unwrap(), &mut out);
    out.put_slice(data);
    out.to_vec()
}

/// A message with its length before it.
pub fn delimited(message: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    varint::encode(u64::try_from(message.len()).unwrap(), &mut out);
    out.put_slice(message);
    out.to_vec()
}

/// Tasks of this runtime besides the test itself.
pub fn tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}
