use std::{
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{
    io::{self, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    sync::{Barrier, Semaphore},
    task::JoinSet,
};

use crate::{ECHO, Failure, KNOWN, LATE, Opener, PERF, Pattern, Peer, Settings};

/// What a dialer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scenario {
    /// `ping`: two pings, as the test plans want them.
    Ping,
    /// `identify`: prints what the listener says of itself.
    Identify,
    /// `echo`: 10 MiB there and back on one stream.
    Echo,
    /// `streams`: 200 echo streams that are all open at once.
    Streams,
    /// `perf`: 10 MiB there, then 10 MiB back.
    Perf,
    /// `big-backlog`: 1,000 echo streams as fast as they open, then a ping on the same connection.
    BigBacklog,
    /// `talk`: identify, two pings and a short echo, one after the other: what is recorded.
    Talk,
    /// `push`: serves one more protocol, and waits until the listener knows of it.
    Push,
}

/// What echo and perf carry each way, in bytes.
const BULK_LEN: u64 = 10 << 20;
/// Streams of [`Scenario::Streams`], and what each carries each way, in bytes.
const STREAMS: usize = 200;
const STREAM_LEN: usize = 1000;
/// Streams of [`Scenario::BigBacklog`], and what each carries each way, in bytes.
const BACKLOG: usize = 1000;
const BACKLOG_LEN: u64 = 100;
/// What the echo of [`Scenario::Talk`] carries each way, in bytes.
const TALK_LEN: u64 = 1000;
/// The pause between two questions of [`Scenario::Push`].
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// Length of a ping in bytes (PING-01).
const PING_LEN: usize = 32;

impl FromStr for Scenario {
    type Err = Failure;

    fn from_str(name: &str) -> Result<Self, Failure> {
        Ok(match name {
            "ping" => Self::Ping,
            "identify" => Self::Identify,
            "echo" => Self::Echo,
            "streams" => Self::Streams,
            "perf" => Self::Perf,
            "big-backlog" => Self::BigBacklog,
            "talk" => Self::Talk,
            "push" => Self::Push,
            _ => return Err(format!("there is no scenario {name}").into()),
        })
    }
}

/// Dials and runs the scenario; gives what the dialer prints.
pub(crate) async fn run<P: Peer>(settings: &Settings, addr: &str) -> Result<Value, Failure> {
    let half_close = settings.half_close;
    let begun = Instant::now();
    let mut peer = P::dial(settings, addr).await?;
    let result = match settings.scenario {
        Scenario::Ping => {
            peer.ping().await?;
            let whole = begun.elapsed();
            let ping = peer.ping().await?;
            json!({"handshakePlusOneRTTMillis": millis(whole), "pingRTTMilllis": millis(ping)})
        }
        Scenario::Identify => peer.identify().await?,
        Scenario::Echo => {
            let begun = Instant::now();
            exercise(peer.opener()(ECHO).await?, 1, BULK_LEN, half_close).await?;
            json!({"bytes": BULK_LEN, "echoMillis": millis(begun.elapsed())})
        }
        Scenario::Streams => {
            // js drops a connection with more than 10 streams before its upgrade has ended; a pong
            // says that it has (YAMUX-48).
            peer.ping().await?;
            let begun = Instant::now();
            streams_at_once(&peer.opener(), half_close).await?;
            json!({"streams": STREAMS, "streamsMillis": millis(begun.elapsed())})
        }
        Scenario::Perf => perf(peer.opener()(PERF).await?).await?,
        Scenario::BigBacklog => {
            peer.ping().await?;
            let begun = Instant::now();
            backlog(&peer.opener(), P::STREAMS_AT_ONCE, half_close).await?;
            let took = millis(begun.elapsed());
            peer.ping().await?;
            json!({"streams": BACKLOG, "backlogMillis": took})
        }
        Scenario::Talk => {
            let said = peer.identify().await?;
            peer.ping().await?;
            let ping = peer.ping().await?;
            exercise(peer.opener()(ECHO).await?, 1, TALK_LEN, half_close).await?;
            json!({"agent": said["agent"], "pingRTTMilllis": millis(ping), "bytes": TALK_LEN})
        }
        Scenario::Push => push(&mut peer).await?,
    };
    peer.close().await;
    Ok(result)
}

/// A duration in milliseconds, with three digits behind the point.
fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// Sends one ping on a ping stream.
///
/// # Errors
/// Those of the stream; a pong that differs from the ping.
pub async fn ping_once(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> Result<Duration, Failure> {
    let begun = Instant::now();
    let mut ping = [0; PING_LEN];
    // The same each time, so that a recorded pong is right again when it is replayed.
    Pattern::new(0).fill(&mut ping);
    stream.write_all(&ping).await?;
    stream.flush().await?;
    let mut pong = [0; PING_LEN];
    stream.read_exact(&mut pong).await?;
    if pong != ping {
        return Err("the pong differs from the ping".into());
    }
    Ok(begun.elapsed())
}

/// Sends `len` bytes of the pattern of `seed`, ends its half, and checks every byte and the end of
/// what comes back meanwhile. Without `half_close` it ends its half after the last byte has come
/// back, and waits for no end.
///
/// # Errors
/// Those of the stream; an echo with another byte or of another length.
pub async fn exercise(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    seed: u64,
    len: u64,
    half_close: bool,
) -> Result<(), Failure> {
    let (mut read, mut write) = io::split(stream);
    let send = async {
        let (mut pattern, mut left) = (Pattern::new(seed), len);
        let mut piece = vec![0; 16 << 10];
        while left > 0 {
            let now = piece.len().min(usize::try_from(left)?);
            let Some(piece) = piece.get_mut(..now) else { break };
            pattern.fill(piece);
            write.write_all(piece).await?;
            left -= u64::try_from(now)?;
        }
        write.flush().await?;
        if half_close {
            write.shutdown().await?;
        }
        Ok::<_, Failure>(())
    };
    let receive = async {
        let (mut pattern, mut seen) = (Pattern::new(seed), 0u64);
        let (mut came, mut sent) = (vec![0; 64 << 10], vec![0; 64 << 10]);
        while half_close || seen < len {
            let count = read.read(&mut came).await?;
            if count == 0 {
                break;
            }
            let (Some(came), Some(sent)) = (came.get(..count), sent.get_mut(..count)) else {
                break;
            };
            pattern.fill(sent);
            if came != sent {
                return Err(format!("another byte came back after byte {seen}").into());
            }
            seen += u64::try_from(count)?;
        }
        if seen == len { Ok(()) } else { Err(format!("{seen} of {len} bytes came back").into()) }
    };
    let (sent, received): (Result<(), Failure>, Result<(), Failure>) = tokio::join!(send, receive);
    sent.map_err(|error| format!("sending: {error}"))?;
    received.map_err(|error| format!("receiving: {error}"))?;
    if !half_close {
        write.shutdown().await?;
    }
    Ok(())
}

/// Has a message echoed on each of [`STREAMS`] streams; none ends before all have their echo.
async fn streams_at_once<S>(open: &Opener<S>, half_close: bool) -> Result<(), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let all_echoed = Arc::new(Barrier::new(STREAMS));
    let mut tasks = JoinSet::new();
    for index in 0..STREAMS {
        let (opening, all_echoed) = (open(ECHO), Arc::clone(&all_echoed));
        tasks.spawn(async move {
            let mut stream = opening.await?;
            let (mut message, mut echo) = (vec![0; STREAM_LEN], vec![0; STREAM_LEN]);
            Pattern::new(u64::try_from(index)?).fill(&mut message);
            stream.write_all(&message).await?;
            stream.flush().await?;
            stream.read_exact(&mut echo).await?;
            all_echoed.wait().await;
            stream.shutdown().await?;
            let ended = !half_close || stream.read(&mut [0]).await? == 0;
            if ended && echo == message { Ok(()) } else { Err("the echo differs".into()) }
        });
    }
    join(tasks).await
}

/// Opens [`BACKLOG`] echo streams, of which at most `at_once` are under way.
async fn backlog<S>(open: &Opener<S>, at_once: usize, half_close: bool) -> Result<(), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(at_once));
    let mut tasks = JoinSet::new();
    for index in 0..BACKLOG {
        let (open, permits) = (Arc::clone(open), Arc::clone(&permits));
        tasks.spawn(async move {
            let _permit = permits.acquire().await?;
            exercise(open(ECHO).await?, u64::try_from(index)?, BACKLOG_LEN, half_close).await
        });
    }
    join(tasks).await
}

/// Serves one more protocol once the listener has identified this side.
async fn push<P: Peer>(peer: &mut P) -> Result<Value, Failure> {
    peer.identify().await?;
    let opener = peer.opener();
    let before = loop {
        let known = known(&opener).await?;
        if !known.is_empty() {
            break known;
        }
        tokio::time::sleep(ASK_AGAIN).await;
    };
    if before.lines().any(|name| name == LATE) {
        return Err(format!("{LATE} is known before it is served").into());
    }
    let begun = Instant::now();
    peer.serve_late().await?;
    while !known(&opener).await?.lines().any(|name| name == LATE) {
        tokio::time::sleep(ASK_AGAIN).await;
    }
    Ok(json!({"pushMillis": millis(begun.elapsed())}))
}

/// The protocols that the listener knows the dialer to support, one on each line.
async fn known<S: AsyncRead + AsyncWrite + Unpin>(open: &Opener<S>) -> Result<String, Failure> {
    let mut answer = String::new();
    open(KNOWN).await?.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// Waits for all; the first failure ends them.
async fn join(mut tasks: JoinSet<Result<(), Failure>>) -> Result<(), Failure> {
    let (mut done, of) = (0, tasks.len());
    while let Some(ended) = tasks.join_next().await {
        ended?.map_err(|error| format!("after {done} of {of} streams: {error}"))?;
        done += 1;
    }
    Ok(())
}

/// Uploads and then downloads [`BULK_LEN`] bytes.
async fn perf(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<Value, Failure> {
    let begun = Instant::now();
    stream.write_u64(BULK_LEN).await?;
    io::copy(&mut io::repeat(0).take(BULK_LEN), &mut stream).await?;
    stream.shutdown().await?;
    stream.read_u8().await?;
    let uploaded = begun.elapsed();
    let more = io::copy(&mut stream, &mut io::sink()).await?;
    if more + 1 != BULK_LEN {
        return Err(format!("{} of {BULK_LEN} bytes came", more + 1).into());
    }
    let down = begun.elapsed() - uploaded;
    Ok(json!({"bytes": BULK_LEN, "uploadMillis": millis(uploaded), "downloadMillis": millis(down)}))
}
