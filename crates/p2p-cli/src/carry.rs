//! Carries bytes between a stream and something local, both ways at once.
//!
//! ```text
//!   local ── read ──► send half ──►  an end is an end on the other side (half-close),
//!   local ◄─ write ── recv half ◄──  an error is an error there: cut data never looks whole
//! ```

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::BytesMut;
use p2p::{RecvStream, SendStream, Stream, StreamError, core::IoCause};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// What is moved at a time, in bytes, each way.
const PIECE_LEN: usize = 64 << 10;

/// Why it ended early.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The peer, or the way to it.
    Stream(StreamError),
    /// The local end could not be read.
    Read(io::Error),
    /// The local end takes nothing more.
    Write(io::Error),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream(error) => error.fmt(f),
            Self::Read(error) => write!(f, "cannot read from the local end: {error}"),
            Self::Write(error) => write!(f, "cannot write to the local end: {error}"),
        }
    }
}

/// How many bytes went over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Carried {
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

/// Carries both ways until both are at their end, or one is broken: then the stream is reset, and
/// what is local is for the caller to abort. Has no limit of time: the connection has.
pub(crate) async fn carry(
    stream: Stream,
    read: impl AsyncRead + Unpin,
    write: impl AsyncWrite + Unpin,
) -> Result<Carried, Broken> {
    let (send, recv) = stream.into_halves();
    let (sent, received) = tokio::try_join!(carry_out(read, send), carry_in(recv, write))?;
    Ok(Carried { sent, received })
}

async fn carry_out(mut read: impl AsyncRead + Unpin, mut send: SendStream) -> Result<u64, Broken> {
    let mut sent = 0;
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(PIECE_LEN);
        let len = tokio::select! {
            biased;
            error = send.stopped() => return Err(Broken::Stream(error)),
            len = read.read_buf(&mut buffer) => len.map_err(Broken::Read)?,
        };
        if len == 0 {
            let ended = send.shutdown().await.map_err(IoCause::from);
            ended.map_err(|cause| {
                Broken::Stream(cause.stream_error().cloned().unwrap_or(StreamError::Finished))
            })?;
            return Ok(sent);
        }
        sent += len as u64;
        send.send(&mut buffer.split().freeze()).await.map_err(Broken::Stream)?;
    }
}

async fn carry_in(mut recv: RecvStream, mut write: impl AsyncWrite + Unpin) -> Result<u64, Broken> {
    let mut received = 0;
    while let Some(piece) = recv.chunk(PIECE_LEN).await.map_err(Broken::Stream)? {
        write.write_all(&piece).await.map_err(Broken::Write)?;
        write.flush().await.map_err(Broken::Write)?;
        received += piece.len() as u64;
    }
    match write.shutdown().await {
        // The local end has closed after its own end: it has all it wanted.
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(received),
        ended => ended.map(|()| received).map_err(Broken::Write),
    }
}

/// Stdout that is really closed by `shutdown`, so that its reader sees the end although the
/// program goes on.
#[derive(Debug)]
pub(crate) struct Stdout(tokio::io::Stdout);

impl Stdout {
    pub(crate) fn new() -> Self {
        Self(tokio::io::stdout())
    }
}

impl AsyncWrite for Stdout {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx).map(|flushed| flushed.and_then(|()| close_stdout()))
    }
}

/// Puts /dev/null in the place of stdout, which closes it for its reader.
#[cfg(unix)]
fn close_stdout() -> io::Result<()> {
    let null = std::fs::OpenOptions::new().write(true).open("/dev/null")?;
    Ok(rustix::stdio::dup2_stdout(null)?)
}

/// It is closed when the program ends.
#[cfg(not(unix))]
fn close_stdout() -> io::Result<()> {
    Ok(())
}
