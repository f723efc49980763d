//! What a server answers.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{OnceLock, atomic::AtomicU64, atomic::Ordering},
};

use crate::{
    pattern::{PIECE_LEN, Pattern},
    stream::{Buffer, Stream},
};

/// Length of a ping, and of a request and its response, in bytes.
pub(crate) const MESSAGE_LEN: usize = 32;

/// The protocols of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Perf,
    Echo,
    Ping,
    /// 8 bytes big-endian: how many allocations there were in the server; for the builds that
    /// count them.
    Allocations,
}

impl Protocol {
    pub const ALL: [Self; 4] = [Self::Perf, Self::Echo, Self::Ping, Self::Allocations];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Perf => "/perf/1.0.0",
            Self::Echo => "/bench/echo/1.0.0",
            Self::Ping => "/ipfs/ping/1.0.0",
            Self::Allocations => "/bench/allocations/1.0.0",
        }
    }
}

static COUNT: OnceLock<fn() -> u64> = OnceLock::new();
static FAILED: AtomicU64 = AtomicU64::new(0);

pub(crate) fn count_allocations(count: Option<fn() -> u64>) {
    if let Some(count) = count {
        COUNT.get_or_init(|| count);
    }
}

/// How many there were in this process, where they are counted.
pub(crate) fn allocations() -> Option<u64> {
    COUNT.get().map(|count| count())
}

/// Serves one stream to its end. What went wrong is told once, and the stream is dropped.
pub fn serve_stream(
    protocol: Protocol,
    stream: impl Stream,
) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    // An idle echo does not take what a transfer needs.
    match protocol {
        Protocol::Perf => Box::pin(async {
            // That an echo went wrong is seen at the other end.
            if let Err(error) = perf(stream).await
                && FAILED.fetch_add(1, Ordering::Relaxed) == 0
            {
                eprintln!("server: {error} (further failures are not told)");
            }
        }),
        Protocol::Echo | Protocol::Ping => Box::pin(echo(stream)),
        Protocol::Allocations => Box::pin(async {
            tell_allocations(stream).await.ok();
        }),
    }
}

async fn perf(mut stream: impl Stream) -> io::Result<()> {
    let mut wanted = [0; 8];
    stream.read_exact(&mut wanted).await?;
    let (mut pattern, mut buffer) = (Pattern::default(), Buffer::default());
    while stream.take(&mut pattern, &mut buffer).await? > 0 {}
    drop(buffer);
    send(&mut stream, u64::from_be_bytes(wanted)).await?;
    stream.finish().await
}

async fn echo(mut stream: impl Stream) {
    let mut message = [0; MESSAGE_LEN];
    loop {
        match stream.read(&mut message).await {
            Ok(0) => return stream.finish().await.unwrap_or_default(),
            Ok(len) if stream.say(&message[..len]).await.is_ok() => {}
            _ => return,
        }
    }
}

async fn tell_allocations(mut stream: impl Stream) -> io::Result<()> {
    stream.say(&allocations().unwrap_or_default().to_be_bytes()).await?;
    stream.finish().await
}

/// Sends so many bytes of the pattern.
pub(crate) async fn send(stream: &mut impl Stream, len: u64) -> io::Result<()> {
    let mut pattern = Pattern::default();
    while pattern.at() < len {
        let left = len - pattern.at();
        stream.send(pattern.next(left.min(PIECE_LEN as u64))).await?;
    }
    Ok(())
}
