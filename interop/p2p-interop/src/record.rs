//! Writes down what a connection carries, as it is on the wire.

use std::{
    fs::File,
    io::{self, Write as _},
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use async_trait::async_trait;
use p2p::{
    Multiaddr,
    core::{DialTarget, Incoming, Link, ListenEvent, Listener, Pipe, Transport, TransportError},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A file of lines: `> HEX` is what this side has written, `< HEX` what it has read, `< end` the
/// other side's end, and `NAME VALUE` what is noted.
#[derive(Clone)]
pub(crate) struct Transcript(Arc<Mutex<File>>);

impl Transcript {
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        Ok(Self(Arc::new(Mutex::new(File::create(path)?))))
    }

    pub(crate) fn note(&self, name: &str, value: &str) {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = file.write_all(format!("{name} {value}\n").as_bytes()) {
            tracing::error!(%error, "the transcript cannot be written");
        }
    }

    fn bytes(&self, direction: &str, bytes: &[u8]) {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        self.note(direction, &hex);
    }
}

/// A transport whose links are written down.
pub(crate) struct Recorded<T> {
    inner: T,
    transcript: Transcript,
}

impl<T> Recorded<T> {
    pub(crate) fn new(inner: T, transcript: Transcript) -> Self {
        Self { inner, transcript }
    }
}

#[async_trait]
impl<T: Transport> Transport for Recorded<T> {
    fn supports(&self, addr: &Multiaddr) -> bool {
        self.inner.supports(addr)
    }

    async fn dial(&self, target: DialTarget) -> Result<Link, TransportError> {
        Ok(record(self.inner.dial(target).await?, &self.transcript))
    }

    async fn listen(&self, addr: Multiaddr) -> Result<Box<dyn Listener>, TransportError> {
        let inner = self.inner.listen(addr).await?;
        Ok(Box::new(RecordedListener { inner, transcript: self.transcript.clone() }))
    }
}

struct RecordedListener {
    inner: Box<dyn Listener>,
    transcript: Transcript,
}

#[async_trait]
impl Listener for RecordedListener {
    fn addrs(&self) -> Vec<Multiaddr> {
        self.inner.addrs()
    }

    async fn next(&mut self) -> Result<ListenEvent, TransportError> {
        let event = self.inner.next().await?;
        let ListenEvent::Incoming(incoming) = event else { return Ok(event) };
        let (local, remote) = (incoming.local.clone(), incoming.remote.clone());
        let transcript = self.transcript.clone();
        let link = async move { Ok(record(incoming.link().await?, &transcript)) };
        Ok(ListenEvent::Incoming(Incoming::new(local, remote, link)))
    }
}

fn record(link: Link, transcript: &Transcript) -> Link {
    match link {
        Link::Pipe(pipe) => {
            let read = Read { inner: pipe.read, transcript: transcript.clone() };
            let write = Write { inner: pipe.write, transcript: transcript.clone() };
            let recorded = Pipe::new(read, write);
            Link::Pipe(match pipe.local {
                Some(local) => recorded.with_local(local),
                None => recorded,
            })
        }
        other => other,
    }
}

struct Read {
    inner: Box<dyn AsyncRead + Unpin + Send>,
    transcript: Transcript,
}

impl AsyncRead for Read {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        match buf.filled().get(before..) {
            Some(came) if !came.is_empty() => self.transcript.bytes("<", came),
            _ => self.transcript.note("<", "end"),
        }
        Poll::Ready(Ok(()))
    }
}

struct Write {
    inner: Box<dyn AsyncWrite + Unpin + Send>,
    transcript: Transcript,
}

impl AsyncWrite for Write {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.inner).poll_write(cx, buf))?;
        self.transcript.bytes(">", buf.get(..count).unwrap_or_default());
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
