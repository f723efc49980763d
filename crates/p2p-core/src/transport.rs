use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use async_trait::async_trait;
use multiaddr::Multiaddr;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{Muxed, PeerId, TransportError};

/// An ordered, reliable byte pipe in two halves, neither encrypted nor multiplexed.
#[non_exhaustive]
pub struct Pipe {
    /// What the peer sends.
    pub read: Box<dyn PipeRead>,
    /// What this side sends.
    pub write: Box<dyn AsyncWrite + Unpin + Send>,
    /// This side's address, where the transport knows it.
    pub local: Option<Multiaddr>,
}

impl Pipe {
    /// Makes a pipe of two halves.
    #[must_use]
    pub fn new(
        read: impl AsyncRead + Unpin + Send + 'static,
        write: impl AsyncWrite + Unpin + Send + 'static,
    ) -> Self {
        Self::direct(Told(read), write)
    }

    /// Makes a pipe of two halves, the first of which can be asked directly for what has come in.
    #[must_use]
    pub fn direct(
        read: impl PipeRead + 'static,
        write: impl AsyncWrite + Unpin + Send + 'static,
    ) -> Self {
        Self { read: Box::new(read), write: Box::new(write), local: None }
    }

    /// Adds this side's address.
    #[must_use]
    pub fn with_local(mut self, local: Multiaddr) -> Self {
        self.local = Some(local);
        self
    }
}

/// The half of a [`Pipe`] in which the peer sends.
pub trait PipeRead: AsyncRead + Unpin + Send {
    /// Receives what has come in by now, up to `buf.len()` bytes, by asking the system for it, and not the
    /// runtime, which knows only of what had come in when it last looked. It never waits, and calls nobody:
    /// it is for a task that looks again and again for a few microseconds, and then uses `poll_read`.
    ///
    /// `None`, the default, where a pipe cannot do that. `Some(Ok(0))` is the peer's end.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when nothing has come in, and those of `poll_read`.
    fn try_read(&mut self, buf: &mut [u8]) -> Option<io::Result<usize>> {
        let _ = buf;
        None
    }
}

/// A half that waits to be told.
struct Told<R>(R);

impl<R: AsyncRead + Unpin + Send> AsyncRead for Told<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<R: AsyncRead + Unpin + Send> PipeRead for Told<R> {}

impl fmt::Debug for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipe").finish_non_exhaustive()
    }
}

/// What a transport produced, and so how much upgrading it still needs.
#[derive(Debug)]
#[non_exhaustive]
pub enum Link {
    /// Needs a secure channel and a multiplexer.
    Pipe(Pipe),
    /// Is secure and multiplexed already.
    Muxed(Muxed),
}

/// What to dial.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DialTarget {
    /// The address, without the `/p2p` of the peer.
    pub addr: Multiaddr,
    /// Who is expected there, for links that authenticate themselves.
    pub peer: Option<PeerId>,
}

impl DialTarget {
    /// Makes a target of an address and the peer expected there.
    #[must_use]
    pub fn new(addr: Multiaddr, peer: Option<PeerId>) -> Self {
        Self { addr, peer }
    }
}

/// A way to reach peers, as a value that a host is configured with.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Whether this transport dials and listens on addresses of this form.
    fn supports(&self, addr: &Multiaddr) -> bool;

    /// Connects. The caller limits the time.
    ///
    /// # Errors
    /// [`TransportError`] names the address and the cause.
    ///
    /// # Cancel safety
    /// Dropping the future closes the attempt.
    async fn dial(&self, target: DialTarget) -> Result<Link, TransportError>;

    /// Binds an address; it accepts from the moment this returns.
    ///
    /// # Errors
    /// [`TransportError`] names the address and the cause.
    async fn listen(&self, addr: Multiaddr) -> Result<Box<dyn Listener>, TransportError>;
}

/// A bound address.
#[async_trait]
pub trait Listener: Send + 'static {
    /// The addresses under which it can be reached, without `/p2p`, ports filled in.
    fn addrs(&self) -> Vec<Multiaddr>;

    /// Waits for what happens next. An error ends the listener; what passes (no file
    /// descriptors left, a connection gone before it was taken) is a
    /// [`ListenEvent::Failed`], and the listener has waited before it tries again.
    ///
    /// # Cancel safety
    /// Cancel safe and prompt: handshakes belong in [`Incoming::link`].
    async fn next(&mut self) -> Result<ListenEvent, TransportError>;
}

/// What happened at a listener.
#[derive(Debug)]
#[non_exhaustive]
pub enum ListenEvent {
    /// Somebody connects.
    Incoming(Incoming),
    /// The listener can be reached under one more address.
    AddrAdded(Multiaddr),
    /// The listener can no longer be reached under this address.
    AddrRemoved(Multiaddr),
    /// One connection could not be taken; the listener goes on.
    Failed(TransportError),
}

/// An inbound link that may be dropped before one byte of cryptography: gate first, pay later.
#[non_exhaustive]
pub struct Incoming {
    /// The listener's side.
    pub local: Multiaddr,
    /// The peer's side.
    pub remote: Multiaddr,
    link: Pin<Box<dyn Future<Output = Result<Link, TransportError>> + Send>>,
}

impl Incoming {
    /// Makes an inbound link; `link` does what the transport itself still has to do.
    #[must_use]
    pub fn new(
        local: Multiaddr,
        remote: Multiaddr,
        link: impl Future<Output = Result<Link, TransportError>> + Send + 'static,
    ) -> Self {
        Self { local, remote, link: Box::pin(link) }
    }

    /// Finishes what the transport itself has to do.
    ///
    /// # Errors
    /// [`TransportError`] names the address and the cause.
    ///
    /// # Cancel safety
    /// Dropping the future closes the link.
    pub async fn link(self) -> Result<Link, TransportError> {
        self.link.await
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming")
            .field("local", &self.local)
            .field("remote", &self.remote)
            .finish_non_exhaustive()
    }
}
