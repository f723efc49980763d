//! The two implementations behind one shape: a session of so many open streams.

use std::{future::poll_fn, task::Poll};

use p2p_core::Role;
use p2p_mux::{Config, Mux, Yamux};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
};
use tokio_util::compat::{FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};

/// More than any run opens.
const STREAMS_MAX: usize = 2048;

/// What a stream and a pipe are to these benches.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Io for T {}
pub type Stream = Box<dyn Io>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The published crate.
    Theirs,
    /// `p2p-mux`.
    Ours,
}

impl Side {
    pub fn name(self) -> &'static str {
        match self {
            Self::Theirs => "yamux 0.14",
            Self::Ours => "p2p-mux",
        }
    }

    /// `count` streams, known to both ends, and nothing on its way.
    pub async fn session(self, pipes: (impl Io, impl Io), count: usize) -> Session {
        match self {
            Self::Theirs => theirs(pipes, count).await,
            Self::Ours => ours(pipes, count).await,
        }
    }
}

pub struct Session {
    pub client: Vec<Stream>,
    pub server: Vec<Stream>,
    /// Keeps the connection.
    _mux: Option<(Mux, Mux)>,
}

async fn ours((a, b): (impl Io, impl Io), count: usize) -> Session {
    let limits =
        Config::default().streams_inbound_max(STREAMS_MAX).streams_outbound_max(STREAMS_MAX);
    let muxer = Yamux::new(limits);
    let (opens, driver) = p2p_mux::connect(a, &muxer, Role::Initiator);
    tokio::spawn(driver);
    let (mut accepts, driver) = p2p_mux::connect(b, &muxer, Role::Responder);
    tokio::spawn(driver);
    let mut client: Vec<Stream> = Vec::new();
    let mut server: Vec<Stream> = Vec::new();
    for _ in 0..count {
        let (ours, theirs) = tokio::join!(
            async { greet(Box::new(opens.open().await.expect("opens"))).await },
            async { answer(Box::new(accepts.accept().await.expect("accepts"))).await },
        );
        client.push(ours);
        server.push(theirs);
    }
    Session { client, server, _mux: Some((opens, accepts)) }
}

async fn theirs((a, b): (impl Io, impl Io), count: usize) -> Session {
    let mut limits = yamux::Config::default();
    limits.set_max_num_streams(STREAMS_MAX);
    let mut opens = yamux::Connection::new(a.compat(), limits.clone(), yamux::Mode::Client);
    let mut accepts = yamux::Connection::new(b.compat(), limits, yamux::Mode::Server);
    let (opened_in, mut opened) = mpsc::channel(1);
    let (accepted_in, mut accepted) = mpsc::channel(STREAMS_MAX);
    tokio::spawn(async move {
        let mut left = count;
        poll_fn(|cx| {
            // Opened one by one, since the peer must acknowledge them.
            while left > 0
                && opened_in.capacity() > 0
                && let Poll::Ready(stream) = opens.poll_new_outbound(cx)
            {
                left -= 1;
                opened_in.try_send(stream.expect("opens")).expect("there is room");
            }
            while let Poll::Ready(next) = opens.poll_next_inbound(cx) {
                if !matches!(next, Some(Ok(_))) {
                    return Poll::Ready(());
                }
            }
            Poll::Pending
        })
        .await;
    });
    tokio::spawn(async move {
        while let Some(Ok(stream)) = poll_fn(|cx| accepts.poll_next_inbound(cx)).await {
            accepted_in.try_send(stream).expect("there is room");
        }
    });
    let mut client: Vec<Stream> = Vec::new();
    let mut server: Vec<Stream> = Vec::new();
    for _ in 0..count {
        let stream = opened.recv().await.expect("opens");
        let (ours, theirs) = tokio::join!(greet(Box::new(stream.compat())), async {
            answer(Box::new(accepted.recv().await.expect("accepts").compat())).await
        },);
        client.push(ours);
        server.push(theirs);
    }
    Session { client, server, _mux: None }
}

async fn greet(mut stream: Stream) -> Stream {
    stream.write_u8(1).await.expect("writes");
    stream.flush().await.expect("flushes");
    stream.read_u8().await.expect("reads");
    stream
}

async fn answer(mut stream: Stream) -> Stream {
    stream.read_u8().await.expect("reads");
    stream.write_u8(1).await.expect("writes");
    stream.flush().await.expect("flushes");
    stream
}
