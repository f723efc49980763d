//! `/p2p-forward/1.0.0`: one local connection on one stream.
//!
//! ```text
//!   p2p forward                                  p2p serve-tcp
//!     │ ── 2 bytes: length, big-endian; the target ──► │ is it allowed? connects
//!     │ ◄─────────── answer: a byte, a text's length   │
//!     │              (2 bytes, big-endian), the text ─ │
//!     │ ◄────────── both ways, until both ends ──────► │
//! ```

use std::{future::pending, sync::Arc, time::Duration};

use p2p::{Host, Multiaddr, OpenError, ProtocolId, Stream, StreamError};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    args::ForwardArgs,
    carry::{Broken, Stdout, carry},
    failure::Failure,
    output::{Output, printable},
    peer,
    socket::{Local, LocalListener, Socket},
    stop::Stop,
};

pub(crate) const PROTOCOL: ProtocolId = ProtocolId::from_static("/p2p-forward/1.0.0");

/// Local connections that are carried at a time; further ones wait in the system's queue. As many
/// as the multiplexer lets a connection have streams.
const CONNECTIONS_MAX: usize = 256;

/// How long nothing is accepted after an error, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How much longer than the peer itself this side waits for the peer's answer.
const ANSWER_SLACK: Duration = Duration::from_secs(5);

/// How long `p2p serve-tcp` tries to reach a service, and waits for a request.
pub(crate) const STEP_MAX: Duration = Duration::from_secs(10);

/// The longest text of an answer, in bytes.
pub(crate) const TEXT_LEN_MAX: usize = 512;

/// The first byte of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Connected = 0,
    TargetNotAllowed = 1,
    PeerNotAllowed = 2,
    Unreachable = 3,
    Malformed = 4,
}

pub(crate) async fn run(args: &ForwardArgs, out: &Output, stop: &Stop) -> Result<u8, Failure> {
    let mut listeners = Vec::new();
    for (local, remote) in args.local.iter().zip(&args.remote) {
        let (listener, bound) = LocalListener::bind(local).await?;
        listeners.push((listener, bound, remote.clone()));
    }
    let host = peer::dialer(args.timeout, args.key.as_deref()).await?;
    let forwarding = async {
        if args.stdio && !out.is_json() {
            // What is on stderr comes between the lines of ssh.
            host.connect(&args.peer).await?;
        } else {
            peer::connect(&host, &args.peer, out).await?;
        }
        if args.stdio {
            let remote = args.remote.first().ok_or_else(|| Failure::new("no --remote"))?;
            return stdio(&host, &args.peer, remote).await;
        }
        forward(&host, &args.peer, listeners, out).await
    };
    let result = tokio::select! {
        biased;
        code = stop.requested() => Ok(if args.stdio { code } else { 0 }),
        result = forwarding => result.map(|()| 0),
    };
    host.close().await;
    result
}

async fn stdio(host: &Host, peer: &Multiaddr, remote: &Socket) -> Result<(), Failure> {
    let stream = request(host, peer, remote).await?;
    match carry(stream, tokio::io::stdin(), Stdout::new()).await {
        Ok(_) => Ok(()),
        Err(Broken::Write(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        Err(broken) => Err(lost(remote, &broken)),
    }
}

fn lost(remote: &Socket, broken: &Broken) -> Failure {
    match broken {
        Broken::Stream(StreamError::Reset(_)) => {
            Failure::new(format!("the connection to {remote} was reset at the other end"))
        }
        Broken::Stream(error) => Failure::new(format!("the peer is gone: {error}")),
        Broken::Read(_) | Broken::Write(_) => Failure::new(broken.to_string()),
    }
}

/// Asks the peer to connect, and gives the stream that is then the connection.
async fn request(host: &Host, peer: &Multiaddr, remote: &Socket) -> Result<Stream, Failure> {
    let mut stream = host.open(peer, PROTOCOL).await.map_err(|error| {
        let unsupported = matches!(error, OpenError::Unsupported { .. });
        let failure = Failure::from(error);
        if unsupported {
            return failure.next("start `p2p serve-tcp` there, or correct the peer's address");
        }
        failure
    })?;
    let until = Instant::now() + STEP_MAX + ANSWER_SLACK;
    stream.set_read_deadline(Some(until.into_std()));
    stream.set_write_deadline(Some(until.into_std()));
    let answer = ask(&mut stream, remote).await;
    let (code, text) = answer.map_err(|error| {
        Failure::new(format!("the peer did not say whether {remote} can be reached: {error}"))
    })?;
    stream.set_read_deadline(None);
    stream.set_write_deadline(None);
    let allow = format!("if it should, start `p2p serve-tcp --allow {remote}` there");
    let failure = match code {
        0 => return Ok(stream),
        1 => Failure::new(format!("the peer does not expose {remote}")).next(allow),
        2 => Failure::new("the peer does not serve this peer")
            .tried(format!("as {}", host.peer_id()))
            .next(format!(
                "start it with --allow-peer {} there, and give --key here so that the \
                           id stays the same",
                host.peer_id()
            )),
        3 => Failure::new(format!("the peer cannot reach {remote}: {text}"))
            .next("start the service there, or correct --remote"),
        code => Failure::new(format!("the peer refused {remote} (code {code}): {text}")),
    };
    Err(failure)
}

async fn ask(stream: &mut Stream, remote: &Socket) -> std::io::Result<(u8, String)> {
    let name = remote.to_string();
    // A name has at most 512 bytes.
    let len = u16::try_from(name.len()).unwrap_or(u16::MAX);
    stream.write_all(&[&len.to_be_bytes(), name.as_bytes()].concat()).await?;
    let code = stream.read_u8().await?;
    let text = read_text(stream, TEXT_LEN_MAX).await?;
    Ok((code, text))
}

/// Reads a text of at most `max` bytes after its length, 2 bytes, big-endian.
pub(crate) async fn read_text(stream: &mut Stream, max: usize) -> std::io::Result<String> {
    let invalid = |what: String| std::io::Error::new(std::io::ErrorKind::InvalidData, what);
    let len = usize::from(stream.read_u16().await?);
    if len > max {
        return Err(invalid(format!("a text of {len} bytes, more than {max}")));
    }
    let mut text = vec![0; len];
    stream.read_exact(&mut text).await?;
    String::from_utf8(text).map_err(|_| invalid("a text that is not UTF-8".into()))
}

async fn forward(
    host: &Host,
    peer: &Multiaddr,
    listeners: Vec<(LocalListener, Socket, Socket)>,
    out: &Output,
) -> Result<(), Failure> {
    for (_, local, remote) in &listeners {
        let fields = [("local", json!(local.to_string())), ("remote", json!(remote.to_string()))];
        out.event("forwarding", &fields, format_args!("forwarding {local} to {remote}"));
    }
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let all = listeners
        .iter()
        .map(|(listener, _, remote)| accept(listener, remote, host, peer, &places, out));
    let mut all: Vec<_> = all.map(Box::pin).collect();
    // Each goes on for ever; there are as many as the command line holds.
    std::future::poll_fn(|cx| {
        for one in &mut all {
            if one.as_mut().poll(cx).is_ready() {
                return std::task::Poll::Ready(());
            }
        }
        std::task::Poll::Pending
    })
    .await;
    Ok(())
}

/// Takes the connections of one local socket, for ever.
async fn accept(
    listener: &LocalListener,
    remote: &Socket,
    host: &Host,
    peer: &Multiaddr,
    places: &Arc<Semaphore>,
    out: &Output,
) {
    let mut connections = JoinSet::new();
    loop {
        // It is never closed.
        let Ok(place) = Arc::clone(places).acquire_owned().await else { return pending().await };
        let accepted = loop {
            tokio::select! {
                accepted = listener.accept() => break accepted,
                Some(ended) = connections.join_next() => tell(ended, remote, out),
            }
        };
        match accepted {
            Ok((local, from)) => {
                let (host, peer, remote) = (host.clone(), peer.clone(), remote.clone());
                connections.spawn(async move {
                    let carried = carry_one(&host, &peer, &remote, local).await;
                    drop(place);
                    (from, carried)
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a local connection could not be taken");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn carry_one(
    host: &Host,
    peer: &Multiaddr,
    remote: &Socket,
    local: Local,
) -> Result<(), Failure> {
    match request(host, peer, remote).await {
        Ok(stream) => local.carry(stream).await.map(|_| ()).map_err(|broken| lost(remote, &broken)),
        Err(failure) => {
            local.abort();
            Err(failure)
        }
    }
}

fn tell(
    ended: Result<(String, Result<(), Failure>), tokio::task::JoinError>,
    remote: &Socket,
    out: &Output,
) {
    let Ok((from, Err(failure))) = ended else { return };
    let message = failure.one_line();
    let fields =
        [("from", json!(from)), ("remote", json!(remote.to_string())), ("message", json!(message))];
    let text = format!("failed: {} to {remote}: {message}", printable(&from));
    out.event("failed", &fields, text);
}
