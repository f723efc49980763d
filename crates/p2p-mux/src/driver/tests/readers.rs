//! The driver and those who read: it waits for them where it would have to copy, and not for long.

use bytes::Bytes;
use p2p_core::RecvHalf;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, split},
    task::yield_now,
};

use super::*;
use crate::{
    MuxRecv,
    common::{echo, pair, pattern, raw},
};

/// What the peer sends on a stream: no more than a first window.
const TEXT_LEN: usize = 240_000;
/// What one frame carries.
const FRAME_LEN: usize = 60_000;
/// The blocks that received bytes are copied to, in bytes.
const BLOCK_LEN: usize = 16 << 10;

/// A frame on stream `id`, which the first one opens.
fn frame(id: u32, first: bool, text: &[u8]) -> Vec<u8> {
    let mut frame = vec![0, 0, 0, u8::from(first)];
    frame.extend(id.to_be_bytes());
    frame.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
    frame.extend_from_slice(text);
    frame
}

/// All that the peer sends on `streams` streams, one after another.
fn frames(streams: u32) -> Vec<u8> {
    let mut all = Vec::new();
    for number in 0..streams {
        let text = pattern(number as usize, TEXT_LEN);
        for (place, piece) in text.chunks(FRAME_LEN).enumerate() {
            all.extend(frame(2 * number + 1, place == 0, piece));
        }
    }
    all
}

async fn chunk(recv: &mut MuxRecv) -> Bytes {
    std::future::poll_fn(|cx| recv.poll_chunk(cx, usize::MAX)).await.unwrap().unwrap()
}

/// A connection whose read buffer has its full size: the peer's first stream has been read.
async fn warm() -> (Mux, DuplexStream) {
    let (mut mux, _, mut peer) = raw(4 << 20);
    peer.write_all(&frames(1)).await.unwrap();
    let (_send, mut recv) = mux.accept().await.unwrap().into_halves();
    let mut len = 0;
    while len < TEXT_LEN {
        len += chunk(&mut recv).await.len();
    }
    recv.stop(ErrorCode::NONE);
    settle().await;
    (mux, peer)
}

/// The same streams without the first.
fn later(streams: u32) -> Vec<u8> {
    let all = frames(streams + 1);
    all[frames(1).len()..].to_vec()
}

#[tokio::test(start_paused = true)]
async fn what_is_read_a_little_later_is_not_copied() {
    const STREAMS: u32 = 4;
    let (mut mux, mut peer) = warm().await;
    let mut tasks = Vec::new();
    let begun = tokio::time::Instant::now();
    peer.write_all(&later(STREAMS)).await.unwrap();
    for number in 1..=STREAMS {
        let (send, mut recv) = soon(mux.accept()).await.unwrap().into_halves();
        tasks.push(tokio::spawn(async move {
            let (mut all, mut copied) = (Vec::new(), 0);
            while all.len() < TEXT_LEN {
                // As one that another thread has to be woken for: the driver has turns meanwhile.
                for _ in 0..5 {
                    yield_now().await;
                }
                let chunk = chunk(&mut recv).await;
                copied += usize::from(chunk.len() == BLOCK_LEN);
                all.extend_from_slice(&chunk);
            }
            // It looks for more, and lets the driver read on.
            tokio::spawn(async move { (chunk(&mut recv).await, send) });
            assert!(all == pattern(number as usize, TEXT_LEN));
            copied
        }));
    }
    for task in tasks {
        assert_eq!(soon(task).await.unwrap(), 0, "blocks were copied");
    }
    assert_eq!(begun.elapsed(), Duration::ZERO, "nobody has waited for a timer");
}

#[tokio::test(start_paused = true)]
async fn those_who_do_not_let_go_hold_up_nobody_for_long() {
    const STREAMS: u32 = 8;
    let (mut mux, mut peer) = warm().await;
    peer.write_all(&later(STREAMS)).await.unwrap();
    let begun = tokio::time::Instant::now();
    let mut held = Vec::new();
    for _ in 0..STREAMS {
        let (send, mut recv) = soon(mux.accept()).await.unwrap().into_halves();
        held.push((soon(chunk(&mut recv)).await, send, recv));
    }
    let waited = begun.elapsed();
    assert!(waited > Duration::ZERO, "the driver has not waited at all");
    assert!(waited <= 2 * READERS_MAX, "{waited:?}");
    let begun = tokio::time::Instant::now();
    for number in STREAMS + 1..2 * STREAMS {
        let text = pattern(9, FRAME_LEN);
        peer.write_all(&frame(2 * number + 1, true, &text)).await.unwrap();
        let (_send, mut recv) = soon(mux.accept()).await.unwrap().into_halves();
        let mut all = Vec::new();
        while all.len() < FRAME_LEN {
            all.extend_from_slice(&soon(chunk(&mut recv)).await);
        }
        assert!(all == text);
    }
    assert_eq!(begun.elapsed(), Duration::ZERO, "they are not waited for again");
}

/// One that reads and writes by turns does not let go of what it has read before it has written.
#[tokio::test(start_paused = true)]
async fn those_who_wait_to_write_are_not_waited_for() {
    const LEN: usize = 4 << 20;
    for size in [64 << 10, 1 << 20, 16 << 20] {
        let (client, _, server, _) = pair(size);
        tokio::spawn(echo(server));
        let begun = tokio::time::Instant::now();
        let mut tasks = Vec::new();
        for seed in 0..4 {
            let (mut read, mut write) = split(client.open().await.unwrap());
            tasks.push(tokio::spawn(async move {
                let text = pattern(seed, LEN);
                let mut echoed = vec![0; LEN];
                let writing = async {
                    write.write_all(&text).await.unwrap();
                    write.shutdown().await.unwrap();
                };
                tokio::join!(writing, async { read.read_exact(&mut echoed).await.unwrap() });
                assert!(echoed == text);
            }));
        }
        for task in tasks {
            soon(task).await.unwrap();
        }
        assert_eq!(begun.elapsed(), Duration::ZERO, "over {size} bytes");
    }
}
