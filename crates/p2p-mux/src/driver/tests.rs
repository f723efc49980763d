//! The writing side in the hands of those who write. What the driver does besides is tested from
//! outside, in `tests/driver.rs`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod asks;
mod readers;
mod saturation;

use std::sync::atomic::{AtomicUsize, Ordering};

use p2p_core::{ErrorCode, Role, SecurityError};
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex},
    task::JoinHandle,
};

use super::*;
use crate::{
    MuxStream, Yamux,
    common::{self, Counted, GO_AWAY, PING, echo, pattern, read_exact, settle, soon},
    connect,
};

/// Credit for every byte that a test writes on its first stream.
const CREDIT: [u8; 12] = [0, 1, 0, 0, 0, 0, 0, 1, 0x7f, 0, 0, 0];
/// What this side says before the first byte of its first stream: its ping and the stream's opening.
const HEAD_LEN: usize = 12;

/// A client whose driver rests, its first stream with all the credit there is, and its peer.
struct Rested {
    mux: Mux,
    stream: MuxStream,
    driver: JoinHandle<ConnectionError>,
    /// How often the driver was polled.
    polls: Arc<AtomicUsize>,
    peer: DuplexStream,
}

impl Rested {
    async fn new(size: usize) -> Self {
        let (ours, peer) = duplex(size);
        Self::serve(connect(ours, &Yamux::default(), Role::Initiator), peer).await
    }

    async fn serve((mux, driver): (Mux, Driver), mut peer: DuplexStream) -> Self {
        let (driver, polls) = Counted::new(driver);
        let driver = tokio::spawn(driver);
        let stream = mux.open().await.unwrap();
        assert_eq!(read_exact(&mut peer, HEAD_LEN + 12).await[..12], PING);
        peer.write_all(&CREDIT).await.unwrap();
        settle().await;
        Self { mux, stream, driver, polls, peer }
    }

    fn polls(&self) -> usize {
        self.polls.load(Ordering::Relaxed)
    }
}

fn client_core() -> Box<dyn MuxCore> {
    p2p_core::Muxer::start(&Yamux::default(), Role::Initiator, now())
}

/// What the streams of some frames carry.
fn bodies(mut frames: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some((header, rest)) = frames.split_at_checked(12) {
        let len = u32::from_be_bytes(header[8..].try_into().unwrap()) as usize;
        let len = if header[1] == 0 { len } else { 0 };
        all.extend_from_slice(&rest[..len]);
        frames = &rest[len..];
    }
    all
}

#[tokio::test(start_paused = true)]
async fn one_that_writes_much_sends_for_itself() {
    const LEN: usize = 2 << 20;
    let mut rested = Rested::new(2 * LEN).await;
    let (before, text) = (rested.polls(), pattern(3, LEN));
    rested.stream.write_all(&text[..100_000]).await.unwrap();
    assert_eq!(rested.polls(), before, "nobody but this task has run");
    rested.stream.write_all(&text[100_000..]).await.unwrap();
    let polls = rested.polls() - before;
    assert!(polls <= 1, "{polls} polls of the driver for 2 MiB");
    let mut said = vec![0; LEN];
    rested.peer.read_exact(&mut said).await.unwrap();
    rested.stream.shutdown().await.unwrap();
    settle().await;
    drop((rested.mux, rested.stream));
    rested.peer.read_to_end(&mut said).await.unwrap();
    assert!(bodies(&said) == text);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_driver_frees_the_pipe_that_it_has_left_to_others() {
    let mut rested = Rested::new(4096).await;
    rested.driver.abort();
    let mut rest = Vec::new();
    soon(rested.peer.read_to_end(&mut rest)).await.unwrap();
    let error = soon(rested.stream.write_all(&[0; 200_000])).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionAborted, "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_close_sends_what_one_that_writes_has_not_got_rid_of_and_the_goodbye() {
    let mut rested = Rested::new(64).await;
    let text = pattern(2, 100_000);
    rested.stream.write_all(&text).await.unwrap();
    rested.stream.shutdown().await.unwrap();
    rested.mux.close(ErrorCode::NONE, "enough");
    let mut rest = Vec::new();
    soon(rested.peer.read_to_end(&mut rest)).await.unwrap();
    assert!(bodies(&rest) == text);
    assert!(rest.ends_with(&GO_AWAY));
    drop(rested.peer);
    assert!(matches!(soon(rested.driver).await.unwrap(), ConnectionError::Closed { .. }));
}

#[tokio::test(start_paused = true)]
async fn ghsa_29qp_a_peer_that_takes_nothing_is_given_up_from_when_another_task_found_it_so() {
    let mut rested = Rested::new(64).await;
    // So long that nothing else is due, but the multiplexer's ping.
    tokio::time::sleep(Duration::from_secs(15)).await;
    let polls = rested.polls();
    let begun = tokio::time::Instant::now();
    let mut writing = Box::pin(rested.stream.write_all(&[0; 1_000_000]));
    let pending = std::future::poll_fn(|cx| Poll::Ready(writing.as_mut().poll(cx).is_pending()));
    assert!(pending.await);
    assert_eq!(rested.polls.load(Ordering::Relaxed), polls, "the driver has not seen it");
    let cause = soon(rested.driver).await.unwrap();
    assert!(matches!(cause, ConnectionError::WriteStalled(_)), "{cause:?}");
    let waited = begun.elapsed();
    assert!(waited >= WRITE_STALL_MAX && waited < WRITE_STALL_MAX + 2 * FAIL_MAX, "{waited:?}");
    drop(rested.peer);
}

/// A pipe whose writing side fails or panics after some bytes.
struct Weak {
    left: usize,
    panics: bool,
}

impl AsyncWrite for Weak {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let count = buf.len().min(self.left);
        self.left -= count;
        assert!(count > 0 || !self.panics, "a panic that the test wants");
        if count == 0 {
            return Poll::Ready(Err(std::io::ErrorKind::BrokenPipe.into()));
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A connection whose pipe takes a few bytes more than its first ones, and then fails.
async fn weak(panics: bool) -> Rested {
    let (ours, mut peer) = duplex(4096);
    let (read, _) = tokio::io::split(ours);
    let core = client_core();
    let setup = Setup::new(Pipe::new(read, Weak { left: 10_000, panics }), core);
    let (mux, driver) = setup.start();
    let (driver, polls) = Counted::new(driver);
    let driver = tokio::spawn(driver);
    let stream = mux.open().await.unwrap();
    peer.write_all(&CREDIT).await.unwrap();
    settle().await;
    Rested { mux, stream, driver, polls, peer }
}

#[tokio::test(start_paused = true)]
async fn what_the_peer_has_sent_is_read_when_one_that_writes_finds_the_pipe_broken() {
    let mut rested = weak(false).await;
    let hi = [0, 0, 0, 5, 0, 0, 0, 2, 0, 0, 0, 2, b'h', b'i'];
    rested.peer.write_all(&hi).await.unwrap();
    let begun = tokio::time::Instant::now();
    let error = soon(rested.stream.write_all(&[0; 300_000])).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionAborted, "{error}");
    assert!(matches!(soon(rested.driver).await.unwrap(), ConnectionError::Io(_)));
    assert_eq!(begun.elapsed(), Duration::ZERO, "the driver is told at once");
    let mut text = String::new();
    soon(rested.mux.accept()).await.unwrap().read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "hi");
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_pipe_in_a_task_that_writes_ends_the_connection() {
    let Rested { mut mux, mut stream, driver, peer: _peer, .. } = weak(true).await;
    let writing = tokio::spawn(async move { stream.write_all(&[0; 300_000]).await });
    assert!(soon(writing).await.unwrap_err().is_panic());
    assert!(matches!(soon(driver).await.unwrap(), ConnectionError::Dropped));
    assert!(matches!(soon(mux.accept()).await, Err(ConnectionError::Dropped)));
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_is_used_up_by_one_that_writes_ends_the_connection() {
    let (ours, mut peer) = duplex(1 << 20);
    let (read, write) = tokio::io::split(ours);
    let core = client_core();
    let seal = Box::new(common::mask::Mask { most: 1000, left: 50 });
    let (mux, driver) =
        Setup::new(Pipe::new(read, write), core).sealed(seal, common::mask::mask(1000)).start();
    let served = tokio::spawn(driver);
    let mut stream = mux.open().await.unwrap();
    settle().await;
    let begun = tokio::time::Instant::now();
    let error = soon(stream.write_all(&[0; 300_000])).await.unwrap_err();
    assert!(error.to_string().contains("nonces"), "{error}");
    let cause = soon(served).await.unwrap();
    assert_eq!(begun.elapsed(), Duration::ZERO, "the driver is told at once");
    assert!(matches!(cause, ConnectionError::Security(SecurityError::NoncesExhausted)));
    drop(peer.shutdown().await);
}

/// A pipe that takes everything, at once, and counts it.
#[derive(Default)]
struct Sink(Arc<AtomicUsize>);

impl AsyncWrite for Sink {
    fn poll_write(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.0.fetch_add(buf.len(), Ordering::Relaxed);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// How much those who write in bulk send between two looks of the runtime at its sockets; `awaited` says
/// that somebody waits for what the peer has to say.
async fn sent_between_looks(awaited: bool) -> usize {
    let (ours, mut peer) = duplex(4096);
    let (read, _) = tokio::io::split(ours);
    let core = client_core();
    let sent = Arc::<AtomicUsize>::default();
    let (mux, driver) = Setup::new(Pipe::new(read, Sink(Arc::clone(&sent))), core).start();
    tokio::spawn(driver);
    let (mut near, far) = tokio::net::UnixStream::pair().unwrap();
    let socket = tokio::spawn(async move { near.read_u8().await });
    let mut streams = Vec::new();
    for number in 0..8_u8 {
        streams.push(mux.open().await.unwrap());
        let credit = [0, 1, 0, 0, 0, 0, 0, 2 * number + 1, 0x7f, 0, 0, 0];
        peer.write_all(&credit).await.unwrap();
    }
    if awaited {
        let mut stream = mux.open().await.unwrap();
        tokio::spawn(async move { stream.read_u8().await });
    }
    settle().await;
    for mut stream in streams {
        tokio::spawn(async move { while stream.write_all(&[0; 64 << 10]).await.is_ok() {} });
    }
    far.try_write(&[7]).unwrap();
    let before = sent.load(Ordering::Relaxed);
    assert_eq!(soon(socket).await.unwrap().unwrap(), 7);
    sent.load(Ordering::Relaxed) - before
}

/// Those who write in bulk wake each other and the driver; between two looks at the sockets there are
/// some MiB nevertheless, not what 61 runs of tasks can send.
#[tokio::test]
async fn those_who_write_without_end_let_the_runtime_look_at_its_sockets() {
    let sent = sent_between_looks(false).await;
    assert!(sent <= 8 << 20, "{sent} bytes");
}

#[tokio::test]
async fn the_runtime_looks_at_its_sockets_soon_for_those_who_wait_for_the_peer() {
    let sent = sent_between_looks(true).await;
    assert!(sent <= 1 << 20, "{sent} bytes");
}

/// One that writes without end is not alone: the rest of its own task has its turns, and the driver.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_writes_without_end_lets_others_run() {
    let (ours, mut peer) = duplex(4096);
    let (read, _) = tokio::io::split(ours);
    let core = client_core();
    let (mut mux, driver) = Setup::new(Pipe::new(read, Sink::default()), core).start();
    tokio::spawn(driver);
    let mut stream = mux.open().await.unwrap();
    peer.write_all(&CREDIT).await.unwrap();
    let mut turns = 0;
    let task = tokio::spawn(async move {
        let writing = async {
            // Less than the credit.
            for _ in 0..20_000 {
                stream.write_all(&[0; 64 << 10]).await.unwrap();
            }
        };
        let others = std::future::poll_fn(|cx| {
            turns += 1;
            cx.waker().wake_by_ref();
            if turns < 20 { Poll::Pending } else { Poll::Ready(()) }
        });
        tokio::select! {
            biased;
            () = writing => panic!("nobody else had a turn"),
            () = others => stream,
        }
    });
    let stream = soon(task).await.unwrap();
    let hi = [0, 0, 0, 5, 0, 0, 0, 2, 0, 0, 0, 2, b'h', b'i'];
    peer.write_all(&hi).await.unwrap();
    let mut text = String::new();
    soon(mux.accept()).await.unwrap().read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "hi");
    drop(stream);
}

/// Polls of the driver of a connection that has asked ten times, and been answered at once: while it
/// waits for the eleventh answer, and after that.
async fn polls_while_it_waits(busy_poll: Duration) -> (usize, usize) {
    let (ours, peer) = duplex(4096);
    let (read, write) = tokio::io::split(ours);
    let core = client_core();
    let setup = Setup::new(Pipe::new(read, write), core).with_busy_poll(busy_poll);
    let mut rested = Rested::serve(setup.start(), peer).await;
    let answer = [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, b'!'];
    for _ in 0..10 {
        rested.stream.write_all(b"?").await.unwrap();
        read_exact(&mut rested.peer, 13).await;
        rested.peer.write_all(&answer).await.unwrap();
        assert_eq!(rested.stream.read_u8().await.unwrap(), b'!');
    }
    rested.stream.write_all(b"?").await.unwrap();
    settle().await;
    let before = rested.polls();
    settle().await;
    let waiting = rested.polls() - before;
    rested.peer.write_all(&answer).await.unwrap();
    settle().await;
    let before = rested.polls();
    settle().await;
    (waiting, rested.polls() - before)
}

#[tokio::test(start_paused = true)]
async fn a_driver_waits_awake_where_it_was_told_to_and_has_asked() {
    assert_eq!(polls_while_it_waits(Duration::ZERO).await, (0, 0));
    let (waiting, after) = polls_while_it_waits(Duration::from_secs(100)).await;
    assert!(waiting > 50, "{waiting} polls");
    assert_eq!(after, 0, "nothing was asked");
}

/// More than a turn moves, and nobody who adds to it: the driver goes on by itself.
#[tokio::test(start_paused = true)]
async fn what_a_turn_leaves_is_written_by_the_next_ones() {
    // What each of many streams may have queued.
    const LEN: usize = 4 << 10;
    const STREAMS: usize = 200;
    let (ours, mut peer) = duplex(4 << 20);
    let (mux, driver) = connect(ours, &Yamux::default(), Role::Initiator);
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let mut stream = mux.open().await.unwrap();
        stream.write_all(&vec![7; LEN]).await.unwrap();
        stream.shutdown().await.unwrap();
        streams.push(stream);
    }
    tokio::spawn(driver);
    let begun = tokio::time::Instant::now();
    soon(peer.read_exact(&mut vec![0; STREAMS * LEN])).await.unwrap();
    assert_eq!(begun.elapsed(), Duration::ZERO, "nothing has to wake it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn echo_on_two_threads() {
    for size in [64, 5000, 64 << 10, 1 << 20] {
        let (ours, theirs) = duplex(size);
        let (client, driver) = connect(ours, &Yamux::default(), Role::Initiator);
        let (server, other) = connect(theirs, &Yamux::default(), Role::Responder);
        tokio::spawn(driver);
        tokio::spawn(other);
        tokio::spawn(echo(server));
        let mut tasks = Vec::new();
        for seed in 0..20 {
            let (mut read, mut write) = tokio::io::split(client.open().await.unwrap());
            let text = pattern(seed, 200_000);
            let copy = text.clone();
            tokio::spawn(async move {
                write.write_all(&copy).await.unwrap();
                write.shutdown().await.unwrap();
            });
            tasks.push(tokio::spawn(async move {
                let mut echoed = Vec::new();
                read.read_to_end(&mut echoed).await.unwrap();
                assert!(echoed == text, "stream {seed} over {size}");
            }));
        }
        for task in tasks {
            soon(task).await.unwrap();
        }
    }
}
