//! The writing side in a second task. What the driver does besides is tested from outside, in
//! `tests/driver.rs`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod saturation;

use std::sync::atomic::{AtomicUsize, Ordering};

use p2p_core::{ErrorCode, MuxError, Role, SecurityError};
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex},
    task::JoinHandle,
};

use super::*;
use crate::{
    Yamux,
    common::{
        self, Counted, GO_AWAY, GO_AWAY_PROTOCOL_ERROR, PING, echo, echo_stream, pattern,
        read_exact, settle, soon,
    },
    connect,
};

/// The peer's ping, and this side's answer.
const THEIR_PING: [u8; 12] = [0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 5];
const PONG: [u8; 12] = [0, 2, 0, 2, 0, 0, 0, 0, 0, 0, 0, 5];

/// Has the driver lend its writing side at the first byte in each direction, and take it back when
/// one of them is at rest.
fn eager(driver: &mut Driver) {
    driver.load.scale = Scale { turn_len: 1, turns: 1, low_len: 1 };
}

/// A server in two tasks whose writing side is with the second, and whose peer is the test.
struct Lent {
    mux: Mux,
    driver: JoinHandle<ConnectionError>,
    second: JoinHandle<()>,
    /// How often the second task was polled.
    polls: Arc<AtomicUsize>,
    desk: Arc<Desk>,
    peer: DuplexStream,
}

impl Lent {
    async fn new(size: usize) -> Self {
        let (ours, peer) = duplex(size);
        let setup = connect(ours, &Yamux::default(), Role::Responder);
        Self::serve(setup, peer).await
    }

    async fn serve((mux, mut driver): (Mux, Driver), mut peer: DuplexStream) -> Self {
        eager(&mut driver);
        let (second, polls) = Counted::new(driver.write_task().unwrap());
        assert!(driver.write_task().is_none(), "there is one");
        let desk = Arc::clone(driver.desk.as_ref().unwrap());
        peer.write_all(&THEIR_PING).await.unwrap();
        let (driver, second) = (tokio::spawn(driver), tokio::spawn(second));
        let mut said = vec![0; 24];
        peer.read_exact(&mut said).await.unwrap();
        assert_eq!(said, [PING, PONG].concat());
        settle().await;
        assert!(desk.holds_writer(), "lent");
        Self { mux, driver, second, polls, desk, peer }
    }

    /// Waits until the driver has found the load to be low.
    async fn rest(&self) {
        tokio::time::sleep(2 * LOOK_AFTER).await;
        settle().await;
        assert!(!self.desk.holds_writer(), "taken back");
    }
}

#[tokio::test(start_paused = true)]
async fn the_second_task_rests_with_the_load() {
    let mut lent = Lent::new(4096).await;
    lent.rest().await;
    let polls = lent.polls.load(Ordering::Relaxed);
    let mut stream = lent.mux.open().await.unwrap();
    stream.write_all(b"hi").await.unwrap();
    assert_eq!(read_exact(&mut lent.peer, 14).await[12..], *b"hi");
    assert_eq!(lent.polls.load(Ordering::Relaxed), polls, "the driver writes alone");
    // And it is lent again with the next load.
    lent.peer.write_all(&THEIR_PING).await.unwrap();
    stream.write_all(b"ho").await.unwrap();
    settle().await;
    assert!(lent.desk.holds_writer());
}

#[tokio::test(start_paused = true)]
async fn a_dropped_driver_ends_both_tasks_and_frees_the_pipe() {
    for by_owner in [false, true] {
        let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let before = tasks();
        let Lent { mux, driver, second, mut peer, .. } = Lent::new(4096).await;
        assert_eq!(tasks(), before + 2);
        if by_owner {
            driver.abort();
        } else {
            drop(mux);
        }
        // The end of the pipe.
        let mut rest = Vec::new();
        soon(peer.read_to_end(&mut rest)).await.unwrap();
        drop(peer);
        soon(second).await.unwrap();
        let cause = soon(driver).await;
        assert_eq!(cause.is_err(), by_owner);
        assert_eq!(tasks(), before);
    }
}

#[tokio::test(start_paused = true)]
async fn an_aborted_second_task_leaves_the_connection_to_the_driver() {
    let mut lent = Lent::new(64).await;
    let mut stream = lent.mux.open().await.unwrap();
    let text = pattern(1, 5000);
    stream.write_all(&text).await.unwrap();
    settle().await;
    lent.second.abort();
    settle().await;
    assert!(!lent.desk.holds_writer());
    stream.write_all(b"!").await.unwrap();
    let mut all = Vec::new();
    while all.len() < 12 + 5000 + 12 + 1 {
        all.push(soon(lent.peer.read_u8()).await.unwrap());
    }
    assert_eq!(all[12..5012], text);
    assert_eq!(all.last(), Some(&b'!'));
}

#[tokio::test(start_paused = true)]
async fn a_violation_is_answered_while_the_writing_side_is_lent() {
    let mut lent = Lent::new(4096).await;
    let begun = tokio::time::Instant::now();
    lent.peer.write_all(&[9; 12]).await.unwrap();
    let mut rest = Vec::new();
    soon(lent.peer.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, GO_AWAY_PROTOCOL_ERROR);
    assert_eq!(begun.elapsed(), Duration::ZERO, "taken back at once");
    drop(lent.peer);
    let cause = soon(lent.driver).await.unwrap();
    assert!(matches!(cause, ConnectionError::Mux(MuxError::Version(9))));
    soon(lent.second).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_close_sends_what_is_queued_and_the_goodbye_while_the_writing_side_is_lent() {
    let mut lent = Lent::new(64).await;
    let mut stream = lent.mux.open().await.unwrap();
    let text = pattern(2, 5000);
    stream.write_all(&text).await.unwrap();
    stream.shutdown().await.unwrap();
    settle().await;
    lent.mux.close(ErrorCode::NONE, "enough");
    let mut rest = Vec::new();
    soon(lent.peer.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest[12..5012], text);
    assert!(rest.ends_with(&GO_AWAY));
    drop(lent.peer);
    assert!(matches!(soon(lent.driver).await.unwrap(), ConnectionError::Closed { .. }));
    soon(lent.second).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn ghsa_29qp_a_peer_that_takes_nothing_is_given_up_while_the_writing_side_is_lent() {
    let lent = Lent::new(64).await;
    let mut stream = lent.mux.open().await.unwrap();
    stream.write_all(&[0; 5000]).await.unwrap();
    let begun = tokio::time::Instant::now();
    let cause = soon(lent.driver).await.unwrap();
    assert!(matches!(cause, ConnectionError::WriteStalled(_)), "{cause:?}");
    let waited = begun.elapsed();
    assert!(waited >= WRITE_STALL_MAX && waited < WRITE_STALL_MAX + FAIL_MAX + 2 * LOOK_AFTER);
    soon(lent.second).await.unwrap();
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

/// The connection of a pipe that takes its ping and one pong, and then fails.
async fn weak(panics: bool) -> (JoinHandle<ConnectionError>, JoinHandle<()>, Mux, DuplexStream) {
    let (ours, mut peer) = duplex(4096);
    let (read, _) = tokio::io::split(ours);
    let now = TokioInstant::now().into_std();
    let core = p2p_core::Muxer::start(&Yamux::default(), Role::Responder, now);
    let (mux, mut driver) = Setup::new(Pipe::new(read, Weak { left: 24, panics }), core).start();
    eager(&mut driver);
    let second = tokio::spawn(driver.write_task().unwrap());
    let desk = Arc::clone(driver.desk.as_ref().unwrap());
    peer.write_all(&THEIR_PING).await.unwrap();
    let driver = tokio::spawn(driver);
    settle().await;
    assert!(desk.holds_writer(), "lent");
    (driver, second, mux, peer)
}

#[tokio::test(start_paused = true)]
async fn what_the_peer_has_sent_is_read_when_the_second_task_cannot_write() {
    let (driver, second, mut mux, mut peer) = weak(false).await;
    let hi = [0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0, 2, b'h', b'i'];
    peer.write_all(&[&THEIR_PING[..], &hi].concat()).await.unwrap();
    let begun = tokio::time::Instant::now();
    assert!(matches!(soon(driver).await.unwrap(), ConnectionError::Io(_)));
    assert_eq!(begun.elapsed(), Duration::ZERO, "the driver is told at once");
    let mut text = String::new();
    soon(mux.accept()).await.unwrap().read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "hi");
    soon(second).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_second_task_ends_the_connection() {
    let (driver, second, mut mux, mut peer) = weak(true).await;
    peer.write_all(&THEIR_PING).await.unwrap();
    assert!(soon(second).await.unwrap_err().is_panic());
    assert!(matches!(soon(driver).await.unwrap(), ConnectionError::Dropped));
    assert!(matches!(soon(mux.accept()).await, Err(ConnectionError::Dropped)));
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_is_used_up_in_the_second_task_ends_the_connection() {
    let (ours, mut peer) = duplex(1024);
    let (read, write) = tokio::io::split(ours);
    let now = TokioInstant::now().into_std();
    let core = p2p_core::Muxer::start(&Yamux::default(), Role::Responder, now);
    let seal = Box::new(common::mask::Mask { most: 1000, left: 2 });
    let (_mux, mut driver) =
        Setup::new(Pipe::new(read, write), core).sealed(seal, common::mask::mask(1000)).start();
    eager(&mut driver);
    tokio::spawn(driver.write_task().unwrap());
    let served = tokio::spawn(driver);
    // The first answer is sealed by the second task, the next one cannot be.
    for _ in 0..2 {
        peer.write_all(&common::mask::sealed(&THEIR_PING, 1000)).await.unwrap();
        settle().await;
    }
    let begun = tokio::time::Instant::now();
    let error = soon(served).await.unwrap();
    assert_eq!(begun.elapsed(), Duration::ZERO, "the driver is told at once");
    assert!(matches!(error, ConnectionError::Security(SecurityError::NoncesExhausted)));
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

/// Moves `len` bytes up and, where `back`, down again at the same time; says how often the second
/// task of the client was polled. Thresholds are those of every connection.
async fn carry(len: usize, back: bool) -> usize {
    let (ours, theirs) = duplex(1 << 20);
    let (client, mut driver) = connect(ours, &Yamux::default(), Role::Initiator);
    let (second, polls) = Counted::new(driver.write_task().unwrap());
    tokio::spawn(second);
    tokio::spawn(driver);
    let (mut server, driver) = connect(theirs, &Yamux::default(), Role::Responder);
    tokio::spawn(driver);
    tokio::spawn(async move {
        while let Ok(mut stream) = server.accept().await {
            tokio::spawn(async move {
                if back {
                    return echo_stream(stream).await;
                }
                let count = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
                stream.shutdown().await?;
                Ok(count)
            });
        }
    });
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let (mut read, mut write) = tokio::io::split(client.open().await.unwrap());
        tasks.push(tokio::spawn(async move {
            let sender = async {
                write.write_all(&vec![7; len / 8]).await.unwrap();
                write.shutdown().await.unwrap();
            };
            let mut sink = tokio::io::sink();
            let (_, count) = tokio::join!(sender, tokio::io::copy(&mut read, &mut sink));
            assert_eq!(count.unwrap(), if back { len as u64 / 8 } else { 0 });
        }));
    }
    for task in tasks {
        soon(task).await.unwrap();
    }
    polls.load(Ordering::Relaxed)
}

#[tokio::test(start_paused = true)]
async fn only_a_load_in_both_directions_calls_the_second_task() {
    assert_eq!(carry(64 << 20, false).await, 1, "one direction");
    assert_eq!(carry(1 << 20, true).await, 1, "not for long");
    let polls = carry(64 << 20, true).await;
    assert!(polls > 20, "both directions: {polls}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn echo_in_two_tasks_on_two_threads() {
    for size in [64, 5000, 64 << 10, 1 << 20] {
        let (ours, theirs) = duplex(size);
        let (client, driver) = connect(ours, &Yamux::default(), Role::Initiator);
        let (server, other) = connect(theirs, &Yamux::default(), Role::Responder);
        for mut driver in [driver, other] {
            eager(&mut driver);
            tokio::spawn(driver.write_task().unwrap());
            tokio::spawn(driver);
        }
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
