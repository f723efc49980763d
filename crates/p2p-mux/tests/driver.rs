//! The driver over an in-memory pipe.
#![cfg(feature = "yamux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};

use bytes::BufMut;
use common::{
    Calls, Counted, GO_AWAY, GO_AWAY_PROTOCOL_ERROR, PING, echo, pair, pattern, raw, read_exact,
    settle, soon,
};
use p2p_core::{ConnectionError, ErrorCode, MuxError, Pipe, Role, SendHalf, StreamError};
use p2p_mux::{Config, Mux, Setup, Yamux, connect};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, duplex},
    time::Instant,
};

/// The stream error inside of an I/O error.
fn stream_error(error: &std::io::Error) -> &StreamError {
    error.get_ref().and_then(|e| e.downcast_ref()).expect("a stream error")
}

fn is_dropped(error: &std::io::Error) -> bool {
    matches!(stream_error(error), StreamError::Connection(ConnectionError::Dropped))
}

async fn echo_many(size: usize, streams: usize, len: usize) {
    let (client, _, server, _) = pair(size);
    tokio::spawn(echo(server));
    let mut tasks = Vec::new();
    for seed in 0..streams {
        let stream = client.open().await.unwrap();
        tasks.push(tokio::spawn(async move {
            let (mut read, mut write) = tokio::io::split(stream);
            let text = pattern(seed, len);
            let copy = text.clone();
            let sender = tokio::spawn(async move {
                write.write_all(&copy).await.unwrap();
                write.shutdown().await.unwrap();
            });
            let mut echoed = Vec::new();
            read.read_to_end(&mut echoed).await.unwrap();
            sender.await.unwrap();
            assert!(echoed == text, "stream {seed} of {len} bytes over {size}");
        }));
    }
    for task in tasks {
        soon(task).await.unwrap();
    }
}

#[tokio::test]
async fn twenty_streams_echo_a_mebibyte_through_seven_bytes() {
    echo_many(7, 20, (1 << 20) / 20).await;
}

#[tokio::test]
async fn twenty_streams_echo_a_mebibyte_each() {
    echo_many(64 << 10, 20, 1 << 20).await;
}

#[tokio::test]
async fn a_pipe_of_any_size_will_do() {
    for size in [1, 2, 11, 12, 13, 100, 4096, 65_536] {
        echo_many(size, 3, 5000).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn echo_on_two_threads() {
    for size in [64, 5000, 64 << 10] {
        echo_many(size, 20, 200_000).await;
    }
}

/// rust-yamux issue 227: replies that wait to be written must not stop the reading.
#[tokio::test(start_paused = true)]
async fn rust_yamux_227_sixty_four_streams_saturate_a_tiny_pipe_in_both_directions() {
    const LEN: usize = 300_000;
    let (client, _, server, _) = pair(1000);
    async fn exchange(stream: p2p_mux::MuxStream) {
        let (mut read, mut write) = tokio::io::split(stream);
        let sender = tokio::spawn(async move {
            write.write_all(&vec![1; LEN]).await.unwrap();
            write.shutdown().await.unwrap();
        });
        // Paused time moves when nobody can go on: every window is used up before anybody reads.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut all = Vec::new();
        read.read_to_end(&mut all).await.unwrap();
        assert_eq!(all.len(), LEN);
        sender.await.unwrap();
    }
    let mut tasks = Vec::new();
    let accepting = tokio::spawn(async move {
        let mut server = server;
        let mut tasks = Vec::new();
        for _ in 0..64 {
            tasks.push(tokio::spawn(exchange(server.accept().await.unwrap())));
        }
        for task in tasks {
            task.await.unwrap();
        }
    });
    for _ in 0..64 {
        let mut stream = client.open().await.unwrap();
        stream.write_all(b"").await.unwrap();
        tasks.push(tokio::spawn(exchange(stream)));
    }
    for task in tasks {
        soon(task).await.unwrap();
    }
    soon(accepting).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn half_close() {
    let (client, _, mut server, _) = pair(64);
    let mut ours = client.open().await.unwrap();
    ours.write_all(b"question").await.unwrap();
    ours.shutdown().await.unwrap();
    let mut theirs = server.accept().await.unwrap();
    let mut text = String::new();
    soon(theirs.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "question");
    theirs.write_all(b"answer").await.unwrap();
    theirs.shutdown().await.unwrap();
    let mut text = String::new();
    soon(ours.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "answer");
    let error = ours.write_all(b"more").await.unwrap_err();
    assert!(matches!(stream_error(&error), StreamError::Finished));
}

#[tokio::test(start_paused = true)]
async fn waiting_openers_take_their_turns_and_a_dropped_one_passes_it_on() {
    let (ours, theirs) = duplex(4096);
    let muxer = Yamux::new(Config::default().streams_outbound_max(1));
    let (client, driver) = connect(ours, &muxer, Role::Initiator);
    tokio::spawn(driver);
    let (server, driver) = connect(theirs, &Yamux::default(), Role::Responder);
    tokio::spawn(driver);
    tokio::spawn(echo(server));
    let client = Arc::new(client);

    let first = client.open().await.unwrap();
    let (order, mut opened) = tokio::sync::mpsc::channel(8);
    let mut waiting = Vec::new();
    for turn in 0..6 {
        let (client, order) = (Arc::clone(&client), order.clone());
        waiting.push(tokio::spawn(async move {
            let stream = client.open().await.unwrap();
            order.send(turn).await.unwrap();
            stream
        }));
        settle().await;
    }
    // One that waits first, one in the middle.
    waiting[0].abort();
    waiting[3].abort();
    settle().await;
    drop(first);
    let mut turns = Vec::new();
    for turn in [1, 2, 4, 5] {
        turns.push(soon(opened.recv()).await.unwrap());
        settle().await;
        assert!(opened.try_recv().is_err(), "one at a time");
        drop(soon(&mut waiting[turn]).await.unwrap());
    }
    assert_eq!(turns, [1, 2, 4, 5]);
}

/// The first in the queue is woken, and dropped before it runs.
#[tokio::test(start_paused = true)]
async fn a_turn_that_was_given_is_passed_on_when_its_opener_is_dropped() {
    let (ours, _theirs) = duplex(4096);
    let muxer = Yamux::new(Config::default().streams_outbound_max(1));
    let (client, driver) = connect(ours, &muxer, Role::Initiator);
    tokio::spawn(driver);
    let held = client.open().await.unwrap();
    let mut first = Box::pin(client.open());
    let mut second = Box::pin(client.open());
    let (first_calls, first_waker) = Calls::waker();
    let (second_calls, second_waker) = Calls::waker();
    assert!(first.as_mut().poll(&mut Context::from_waker(&first_waker)).is_pending());
    assert!(second.as_mut().poll(&mut Context::from_waker(&second_waker)).is_pending());
    drop(held);
    settle().await;
    assert_eq!((first_calls.count(), second_calls.count()), (1, 1));
    drop(first);
    assert!(second.as_mut().poll(&mut Context::from_waker(&second_waker)).is_ready());
}

/// The first in the queue is woken, but whoever holds it has stopped polling: the others let it go
/// first once, then they go.
#[tokio::test(start_paused = true)]
async fn an_opener_that_nobody_polls_does_not_block_those_behind_it() {
    let (ours, _theirs) = duplex(4096);
    let muxer = Yamux::new(Config::default().streams_outbound_max(2));
    let (client, driver) = connect(ours, &muxer, Role::Initiator);
    tokio::spawn(driver);
    let client = Arc::new(client);
    let held = [client.open().await.unwrap(), client.open().await.unwrap()];
    let mut idle = Box::pin(client.open());
    let (_calls, waker) = Calls::waker();
    assert!(idle.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    let waiting = tokio::spawn({
        let client = Arc::clone(&client);
        async move { client.open().await.unwrap() }
    });
    settle().await;
    assert!(!waiting.is_finished());
    drop(held);
    let first = soon(waiting).await.unwrap();
    let second = soon(client.open()).await.unwrap();
    assert!(idle.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    drop(first);
    settle().await;
    assert!(idle.as_mut().poll(&mut Context::from_waker(&waker)).is_ready(), "its turn is kept");
    drop(second);
}

/// One that comes back late, but before those behind it have gone, still goes first.
#[tokio::test(start_paused = true)]
async fn an_opener_behind_another_yields_to_it_once() {
    let (ours, _theirs) = duplex(4096);
    let muxer = Yamux::new(Config::default().streams_outbound_max(1));
    let (client, driver) = connect(ours, &muxer, Role::Initiator);
    tokio::spawn(driver);
    let held = client.open().await.unwrap();
    let mut first = Box::pin(client.open());
    let mut second = Box::pin(client.open());
    let (_calls, waker) = Calls::waker();
    let cx = &mut Context::from_waker(&waker);
    assert!(first.as_mut().poll(cx).is_pending());
    assert!(second.as_mut().poll(cx).is_pending());
    drop(held);
    settle().await;
    assert!(second.as_mut().poll(cx).is_pending());
    assert!(first.as_mut().poll(cx).is_ready());
}

/// The frames of a stream and the end come at once, before anybody accepts.
#[tokio::test(start_paused = true)]
async fn a_stream_that_came_with_the_end_is_accepted_and_read() {
    let stream = [0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0, 2, b'h', b'i'];
    for goodbye in [&GO_AWAY[..], &[]] {
        let (mut mux, served, mut pipe) = raw(4096);
        pipe.write_all(&[&stream[..], goodbye].concat()).await.unwrap();
        drop(pipe);
        soon(served).await.unwrap();
        let mut text = String::new();
        soon(mux.accept()).await.unwrap().read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hi");
        assert!(soon(mux.accept()).await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn everything_that_waits_is_told_when_the_driver_is_dropped() {
    let (ours, _theirs) = duplex(64);
    let muxer = Yamux::new(Config::default().streams_outbound_max(3));
    let (mux, driver) = connect(ours, &muxer, Role::Initiator);
    let served = tokio::spawn(driver);
    let mut reading = mux.open().await.unwrap();
    let mut writing = mux.open().await.unwrap();
    let (mut watching, _recv) = mux.open().await.unwrap().into_halves();
    let reader = tokio::spawn(async move { reading.read_u8().await.unwrap_err() });
    let writer =
        tokio::spawn(async move { writing.write_all(&vec![0; 1 << 20]).await.unwrap_err() });
    let watcher = tokio::spawn(async move { poll_fn(|cx| watching.poll_stopped(cx)).await });
    let mux = Arc::new(mux);
    let opener = tokio::spawn({
        let mux = Arc::clone(&mux);
        async move { mux.open().await.unwrap_err() }
    });
    settle().await;
    served.abort();
    assert!(is_dropped(&soon(reader).await.unwrap()));
    assert!(is_dropped(&soon(writer).await.unwrap()));
    let error = soon(watcher).await.unwrap();
    assert!(matches!(error, StreamError::Connection(ConnectionError::Dropped)));
    assert!(matches!(soon(opener).await.unwrap(), ConnectionError::Dropped));
    let mut mux = Arc::into_inner(mux).unwrap();
    assert!(matches!(soon(mux.accept()).await, Err(ConnectionError::Dropped)));
}

#[tokio::test(start_paused = true)]
async fn a_pending_accept_is_told_when_the_driver_is_dropped() {
    let (mut mux, served, _pipe) = raw(64);
    let accepting = tokio::spawn(async move { mux.accept().await.unwrap_err() });
    settle().await;
    served.abort();
    assert!(matches!(soon(accepting).await.unwrap(), ConnectionError::Dropped));
}

#[tokio::test(start_paused = true)]
async fn yamux_40_the_end_of_the_pipe_is_a_truncation_only_with_streams() {
    let (mut mux, served, pipe) = raw(64);
    settle().await;
    drop(pipe);
    let closed = |e: &ConnectionError| matches!(e, ConnectionError::ClosedByPeer { .. });
    assert!(closed(&soon(mux.accept()).await.unwrap_err()));
    assert!(closed(&soon(served).await.unwrap()));

    let (mut mux, served, mut pipe) = raw(64);
    pipe.write_all(&[0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2, b'h', b'i']).await.unwrap();
    let mut stream = soon(mux.accept()).await.unwrap();
    drop(pipe);
    assert!(matches!(soon(served).await.unwrap(), ConnectionError::Truncated));
    let mut text = Vec::new();
    let error = stream.read_to_end(&mut text).await.unwrap_err();
    assert_eq!(text, b"hi");
    let error = stream_error(&error);
    assert!(matches!(error, StreamError::Connection(ConnectionError::Truncated)));
}

#[tokio::test(start_paused = true)]
async fn the_peer_goes_away() {
    let (mut mux, served, mut pipe) = raw(64);
    let mut wire = vec![0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2, b'h', b'i'];
    pipe.write_all(&wire).await.unwrap();
    let mut stream = soon(mux.accept()).await.unwrap();
    wire = GO_AWAY.to_vec();
    wire[11] = 2;
    pipe.write_all(&wire).await.unwrap();
    let error = soon(served).await.unwrap();
    assert!(matches!(error, ConnectionError::ClosedByPeer { code } if code.value() == 2));
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await.unwrap_err();
    assert_eq!(text, b"hi");
    assert!(mux.open().await.is_err());
    let mut rest = Vec::new();
    soon(pipe.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, PING, "nothing is said to a peer that went away");
}

/// What the peer has sent before it left is there, even when writing to it fails already.
#[tokio::test(start_paused = true)]
async fn data_and_a_goodbye_are_read_from_a_pipe_that_takes_no_more() {
    let (mut mux, served, mut pipe) = raw(1024);
    pipe.write_all(&[0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2, b'h', b'i']).await.unwrap();
    let mut stream = soon(mux.accept()).await.unwrap();
    let more = [0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0, 1, b'!'];
    pipe.write_all(&[more.as_slice(), &GO_AWAY].concat()).await.unwrap();
    drop(pipe);
    stream.write_all(b"nobody gets this").await.unwrap();
    assert!(matches!(soon(served).await.unwrap(), ConnectionError::ClosedByPeer { .. }));
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "hi!");
}

#[tokio::test(start_paused = true)]
async fn garbage_ends_the_connection_with_a_go_away() {
    let (mut mux, served, mut pipe) = raw(64);
    let began = Instant::now();
    pipe.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(matches!(soon(mux.accept()).await, Err(ConnectionError::Mux(MuxError::Version(b'G')))));
    let mut said = Vec::new();
    soon(pipe.read_to_end(&mut said)).await.unwrap();
    assert_eq!(said, [PING, GO_AWAY_PROTOCOL_ERROR].concat());
    drop(pipe);
    assert!(matches!(soon(served).await, Ok(ConnectionError::Mux(_))));
    assert!(began.elapsed() <= Duration::from_secs(1));
}

/// One that violates the rules and then neither reads nor closes.
#[tokio::test(start_paused = true)]
async fn a_violation_ends_the_connection_within_a_second() {
    for size in [4, 64] {
        let (_mux, served, mut pipe) = raw(size);
        let began = Instant::now();
        pipe.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert!(matches!(soon(served).await, Ok(ConnectionError::Mux(_))));
        assert!(began.elapsed() <= Duration::from_millis(1001), "{:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn ghsa_29qp_crvh_w22m_a_peer_that_takes_nothing_for_ten_seconds_is_given_up() {
    let (mux, served, mut pipe) = raw(64);
    let mut stream = mux.open().await.unwrap();
    stream.write_all(&[0; 100_000]).await.unwrap();
    let began = Instant::now();
    // It goes on sending, which is no excuse.
    let chatter = tokio::spawn(async move {
        loop {
            pipe.write_all(&PING).await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    let error = soon(stream.read_u8()).await.unwrap_err();
    let StreamError::Connection(ConnectionError::WriteStalled(time)) = stream_error(&error) else {
        panic!("{error}");
    };
    assert_eq!(*time, Duration::from_secs(10));
    assert_eq!(began.elapsed().as_secs(), 10);
    assert!(matches!(soon(served).await, Ok(ConnectionError::WriteStalled(_))));
    chatter.abort();
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_a_byte_now_and_then_is_not_stalled() {
    let (mux, served, mut pipe) = raw(64);
    let mut stream = mux.open().await.unwrap();
    stream.write_all(&[0; 1000]).await.unwrap();
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(9)).await;
        read_exact(&mut pipe, 1).await;
        pipe.write_all(&[0, 2, 0, 2, 0, 0, 0, 0, 0, 0, 0, 9]).await.unwrap();
    }
    assert!(!served.is_finished());
}

#[tokio::test(start_paused = true)]
async fn close_sends_what_is_finished_and_then_the_goodbye() {
    let (mux, served, mut pipe) = raw(50);
    let mut done = mux.open().await.unwrap();
    done.write_all(&[7; 10_000]).await.unwrap();
    done.shutdown().await.unwrap();
    let mut undone = mux.open().await.unwrap();
    undone.write_all(&[8; 10_000]).await.unwrap();
    mux.close(ErrorCode::new(0x1005), "idle");
    assert!(matches!(
        mux.open().await,
        Err(ConnectionError::Closed { code, .. }) if code.value() == 0x1005
    ));
    let mut said = Vec::new();
    soon(pipe.read_to_end(&mut said)).await.unwrap();
    drop(pipe);
    assert_eq!(said.iter().filter(|byte| **byte == 7).count(), 10_000);
    assert_eq!(said.iter().filter(|byte| **byte == 8).count(), 0, "unheard of, so not sent");
    assert_eq!(said[said.len() - 12..], [0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 5]);
    let error = soon(served).await.unwrap();
    assert!(matches!(error, ConnectionError::Closed { reason, .. } if &*reason == "idle"));
}

#[tokio::test(start_paused = true)]
async fn close_is_bounded_in_time_when_the_peer_reads_nothing() {
    let (mux, served, _pipe) = raw(16);
    let mut stream = mux.open().await.unwrap();
    stream.write_all(&[7; 10_000]).await.unwrap();
    stream.shutdown().await.unwrap();
    settle().await;
    let began = Instant::now();
    mux.close(ErrorCode::NONE, "bye");
    assert!(matches!(soon(served).await, Ok(ConnectionError::Closed { .. })));
    assert_eq!(began.elapsed().as_secs(), 5);
}

/// Neither can write before the other reads.
#[tokio::test(start_paused = true)]
async fn go_yamux_5c8df85_both_sides_close_at_once_with_full_pipes() {
    let (client, client_task, mut server, server_task) = pair(16);
    let mut ours = client.open().await.unwrap();
    let mut theirs = server.open().await.unwrap();
    ours.write_all(&[1; 50_000]).await.unwrap();
    theirs.write_all(&[2; 50_000]).await.unwrap();
    ours.shutdown().await.unwrap();
    theirs.shutdown().await.unwrap();
    let began = Instant::now();
    client.close(ErrorCode::NONE, "bye");
    server.close(ErrorCode::NONE, "bye");
    assert!(matches!(soon(client_task).await, Ok(ConnectionError::Closed { .. })));
    assert!(matches!(soon(server_task).await, Ok(ConnectionError::Closed { .. })));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert!(server.accept().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_pending_stopped_is_told_of_a_reset() {
    let (mux, _served, mut pipe) = raw(64);
    let (mut send, _recv) = mux.open().await.unwrap().into_halves();
    read_exact(&mut pipe, 24).await;
    let watcher = tokio::spawn(async move { poll_fn(|cx| send.poll_stopped(cx)).await });
    settle().await;
    assert!(!watcher.is_finished());
    pipe.write_all(&[0, 1, 0, 8, 0, 0, 0, 2, 0, 0, 0, 77]).await.unwrap();
    let error = soon(watcher).await.unwrap();
    assert!(matches!(error, StreamError::Reset(code) if code.value() == 77));
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_closes_the_connection() {
    let (client, client_task, _server, server_task) = pair(64);
    settle().await;
    drop(client);
    assert!(matches!(soon(server_task).await, Ok(ConnectionError::ClosedByPeer { .. })));
    assert!(matches!(soon(client_task).await, Ok(ConnectionError::Closed { .. })));
}

/// The last use goes away inside of the driver: with the peer's end of a stream that nobody
/// holds any more.
#[tokio::test(start_paused = true)]
async fn the_last_stream_closes_the_connection_when_its_end_comes_later() {
    let (client, client_task, mut server, server_task) = pair(64);
    let mut stream = client.open().await.unwrap();
    drop(client);
    stream.write_all(b"last words").await.unwrap();
    stream.shutdown().await.unwrap();
    drop(stream);
    let mut theirs = soon(server.accept()).await.unwrap();
    let mut text = String::new();
    theirs.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "last words");
    settle().await;
    assert!(!client_task.is_finished());
    let began = Instant::now();
    theirs.shutdown().await.unwrap();
    assert!(matches!(soon(client_task).await, Ok(ConnectionError::Closed { .. })));
    assert!(matches!(soon(server_task).await, Ok(ConnectionError::ClosedByPeer { .. })));
    assert!(began.elapsed() < Duration::from_secs(1));
}

/// Streams that nobody can accept any more do not keep a connection.
#[tokio::test(start_paused = true)]
async fn unaccepted_streams_do_not_keep_a_connection() {
    let (mux, served, mut pipe) = raw(64);
    pipe.write_all(&[0, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0]).await.unwrap();
    settle().await;
    drop(mux);
    let mut said = Vec::new();
    soon(pipe.read_to_end(&mut said)).await.unwrap();
    drop(pipe);
    let reset = [0, 1, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0];
    assert_eq!(said, [PING, reset, GO_AWAY].concat());
    assert!(matches!(soon(served).await, Ok(ConnectionError::Closed { .. })));
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_not_polled_between_timers() {
    let (ours, theirs) = duplex(4096);
    let (client, driver) = connect(ours, &Yamux::default(), Role::Initiator);
    let (driver, polls) = Counted::new(driver);
    tokio::spawn(driver);
    let (mut server, driver) = connect(theirs, &Yamux::default(), Role::Responder);
    tokio::spawn(driver);
    let mut stream = client.open().await.unwrap();
    stream.write_all(b"x").await.unwrap();
    let _theirs = server.accept().await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let before = polls.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(300)).await;
    let each = (polls.load(Ordering::Relaxed) - before) / 10;
    // Each 30 s: its own ping and the answer, the peer's ping, the release of the buffers.
    assert!((2..=6).contains(&each), "{each} polls for each interval");
}

#[tokio::test(start_paused = true)]
async fn a_blocked_driver_is_not_polled_for_what_is_written() {
    let (ours, _theirs) = duplex(16);
    let (client, driver) = connect(ours, &Yamux::default(), Role::Initiator);
    let (driver, polls) = Counted::new(driver);
    tokio::spawn(driver);
    let mut stream = client.open().await.unwrap();
    settle().await;
    let before = polls.load(Ordering::Relaxed);
    for _ in 0..100 {
        stream.write_all(b"x").await.unwrap();
        settle().await;
    }
    assert_eq!(polls.load(Ordering::Relaxed), before);
}

/// A pipe that cannot be written to once, and can be again in the same turn of the driver.
struct Hiccup {
    pending_writes: usize,
    to_read: Vec<u8>,
}

impl AsyncRead for Hiccup {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.to_read.is_empty() {
            return Poll::Pending;
        }
        buf.put_slice(&std::mem::take(&mut self.to_read));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Hiccup {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        if self.pending_writes > 0 {
            self.pending_writes -= 1;
            return Poll::Pending;
        }
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A lost wake-up: "blocked" was remembered beyond the write that ended it.
#[tokio::test(start_paused = true)]
async fn a_driver_that_could_write_again_in_the_same_turn_is_called_later() {
    let pipe = Hiccup { pending_writes: 1, to_read: PING.to_vec() };
    let (mux, driver) = connect(pipe, &Yamux::default(), Role::Initiator);
    let mut driver = pin!(driver);
    let (calls, waker) = Calls::waker();
    let mut cx = Context::from_waker(&waker);
    assert!(driver.as_mut().poll(&mut cx).is_pending());
    assert_eq!(calls.count(), 0);
    let _stream = mux.open().await.unwrap();
    assert_eq!(calls.count(), 1, "there is a SYN to send");
}

/// A lost timer: the ACK of a stream that was accepted while the driver slept.
#[tokio::test(start_paused = true)]
async fn the_ack_of_a_silent_stream_goes_out_in_time() {
    let (mut mux, _served, mut pipe) = raw(64);
    read_exact(&mut pipe, 12).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    pipe.write_all(&[0, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0]).await.unwrap();
    let began = Instant::now();
    let _stream = soon(mux.accept()).await.unwrap();
    assert_eq!(read_exact(&mut pipe, 12).await, [0, 1, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0]);
    assert!(began.elapsed() <= Duration::from_millis(25), "{:?}", began.elapsed());
}

/// A stream that is released while the session's clock is behind lingers for its full time.
#[tokio::test(start_paused = true)]
async fn a_stream_that_is_released_after_a_long_silence_lingers_for_its_full_time() {
    let (mux, _served, mut pipe) = raw(1024);
    read_exact(&mut pipe, 12).await;
    pipe.write_all(&[0, 2, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(29_900)).await;
    let mut stream = mux.open().await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    stream.shutdown().await.unwrap();
    drop((stream, mux));
    // A frame with the data, and one with FIN.
    read_exact(&mut pipe, 17 + 12).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(read_exact(&mut pipe, 12).await[1], 2, "the next ping");
    tokio::time::sleep(Duration::from_secs(9)).await;
    let nothing = tokio::time::timeout(Duration::from_millis(500), pipe.read_u8()).await;
    assert!(nothing.is_err(), "29.5 s after the release");
    // With its last stream the connection has lost its last use.
    assert_eq!(read_exact(&mut pipe, 12).await, [0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
}

/// A lost timer: nothing is to be sent when the last half of a finished stream is dropped, but the
/// time for the peer's end begins.
#[tokio::test(start_paused = true)]
async fn a_finished_stream_that_is_dropped_later_is_forgotten_in_time() {
    let (ours, mut pipe) = duplex(1024);
    let muxer = Yamux::new(Config::default().keep_alive(Duration::from_secs(10_000)));
    let (mux, driver) = connect(ours, &muxer, Role::Responder);
    tokio::spawn(driver);
    let mut stream = mux.open().await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(read_exact(&mut pipe, 24).await[12..], [0, 0, 0, 5, 0, 0, 0, 2, 0, 0, 0, 0]);
    tokio::time::sleep(Duration::from_secs(1000)).await;
    drop((stream, mux));
    let began = Instant::now();
    assert_eq!(read_exact(&mut pipe, 12).await, [0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(began.elapsed().as_secs(), 30);
}

/// polkadot-sdk issue 9169: a layer below that claims to have written more than it got.
#[tokio::test(start_paused = true)]
async fn polkadot_sdk_9169_a_pipe_that_lies_about_its_writes_is_an_error() {
    struct Liar;
    impl AsyncRead for Liar {
        fn poll_read(
            self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            _buf: &mut ReadBuf<'_>,
        ) -> Poll<std::io::Result<()>> {
            Poll::Pending
        }
    }
    impl AsyncWrite for Liar {
        fn poll_write(
            self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<std::io::Result<usize>> {
            Poll::Ready(Ok(buf.len() + 1))
        }
        fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }
    let (mux, mut driver) = connect(Liar, &Yamux::default(), Role::Initiator);
    assert!(matches!(soon(&mut driver).await, ConnectionError::Io(_)));
    assert!(matches!(soon(driver).await, ConnectionError::Dropped), "polled once more");
    assert!(mux.open().await.is_err());
}

/// A future that is polled `polls` times and then dropped.
async fn cancelled_after<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        let result = future.as_mut().poll(cx).map(Some);
        if result.is_pending() && left == 0 {
            return Poll::Ready(None);
        }
        result
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn dropped_futures_lose_nothing() {
    const LEN: usize = 400_000;
    let (client, _, mut server, _) = pair(100);
    let receiver = tokio::spawn(async move {
        let mut stream = None;
        let mut all = Vec::new();
        for polls in (0..3).cycle() {
            let Some(stream) = &mut stream else {
                stream = cancelled_after(polls, server.accept()).await.map(Result::unwrap);
                tokio::task::yield_now().await;
                continue;
            };
            let mut buf = [0; 1000];
            match cancelled_after(polls, stream.read(&mut buf)).await {
                Some(Ok(0)) => return all,
                Some(read) => all.extend_from_slice(&buf[..read.unwrap()]),
                None => tokio::task::yield_now().await,
            }
        }
        unreachable!("an endless loop")
    });
    let mut stream = None;
    let text = pattern(5, LEN);
    let mut sent = 0;
    for polls in (0..3).cycle() {
        let Some(stream) = &mut stream else {
            stream = cancelled_after(polls, client.open()).await.map(Result::unwrap);
            continue;
        };
        let end = LEN.min(sent + 3000);
        match cancelled_after(polls, stream.write(&text[sent..end])).await {
            Some(count) => sent += count.unwrap(),
            None => tokio::task::yield_now().await,
        }
        if sent == LEN {
            break;
        }
    }
    let mut stream = stream.unwrap();
    stream.shutdown().await.unwrap();
    assert!(soon(receiver).await.unwrap() == text);
}

/// What `send` takes by reference is not in `data` any more, and the rest is.
#[tokio::test(start_paused = true)]
async fn a_dropped_send_leaves_what_it_did_not_take() {
    let (client, _, mut server, _) = pair(100);
    let (mut send, _recv) = client.open().await.unwrap().into_halves();
    let text = bytes::Bytes::from(pattern(1, 700_000));
    let receiver = tokio::spawn(async move {
        let mut all = Vec::new();
        server.accept().await.unwrap().read_to_end(&mut all).await.unwrap();
        all
    });
    let mut data = text.clone();
    while !data.is_empty() {
        let sending = poll_fn(|cx| send.poll_send(cx, &mut data));
        match cancelled_after(1, sending).await {
            Some(result) => result.unwrap(),
            None => tokio::task::yield_now().await,
        }
    }
    send.shutdown().await.unwrap();
    assert!(soon(receiver).await.unwrap() == text);
}

#[tokio::test(start_paused = true)]
async fn yamux_47_a_stalled_stream_does_not_stall_another() {
    let (client, _, mut server, _) = pair(4096);
    let mut stalled = client.open().await.unwrap();
    let filling = tokio::spawn(async move {
        stalled.write_all(&vec![0; 1 << 20]).await.unwrap();
    });
    let _unread = server.accept().await.unwrap();
    settle().await;
    tokio::spawn(echo(server));
    let mut stream = client.open().await.unwrap();
    stream.write_all(b"ping").await.unwrap();
    let mut answer = [0; 4];
    soon(stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"ping");
    assert!(!filling.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_given_up_after_two_intervals() {
    let (mut mux, served, _pipe) = raw(1024);
    let began = Instant::now();
    let error = mux.accept().await.unwrap_err();
    assert!(matches!(error, ConnectionError::Mux(MuxError::KeepAlive(_))), "{error}");
    assert_eq!(began.elapsed().as_secs(), 60);
    assert!(matches!(soon(served).await, Ok(ConnectionError::Mux(_))));
}

/// 250 bytes a second: what is on its way takes longer than two intervals.
#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_data_slowly_is_not_given_up() {
    const LEN: usize = 20_000;
    let (ours, mut theirs) = duplex(64);
    let muxer = Yamux::new(Config::default().keep_alive(Duration::from_secs(1)));
    let (mux, driver) = connect(ours, &muxer, Role::Responder);
    let served = tokio::spawn(driver);
    assert_eq!(read_exact(&mut theirs, 12).await, PING);
    theirs.write_all(&[0, 2, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1]).await.unwrap();
    let mut stream = mux.open().await.unwrap();
    stream.write_all(&pattern(1, LEN)).await.unwrap();
    let mut taken = read_exact(&mut theirs, 12).await;
    while taken.len() < 12 + LEN {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let count = theirs.read_buf(&mut (&mut taken).limit(50)).await.unwrap();
        assert!(count > 0, "given up after {} bytes", taken.len());
    }
    assert_eq!(taken[12..12 + LEN], pattern(1, LEN));
    assert!(!served.is_finished());
    // From its ping on, it is as any other.
    assert!(matches!(soon(served).await.unwrap(), ConnectionError::Mux(MuxError::KeepAlive(_))));
}

#[tokio::test(start_paused = true)]
async fn received_and_unsent_bytes_are_handed_in() {
    let (ours, mut theirs) = duplex(1024);
    let (read, write) = tokio::io::split(ours);
    let now = Instant::now().into_std();
    let core = p2p_core::Muxer::start(&Yamux::default(), Role::Responder, now);
    let (mut mux, driver) = Setup::new(Pipe::new(read, write), core)
        .with_unsent(b"unsent"[..].into())
        .with_received(b"\0\x01\0\0\0\x02hi"[..].into(), b"\0\0\0\x01\0\0"[..].into())
        .start();
    tokio::spawn(driver);
    // The plain part begins the frame, the wire part ends it.
    let mut stream = soon(mux.accept()).await;
    let error = stream.as_mut().err();
    assert!(error.is_none(), "{error:?}");
    let mut text = [0; 2];
    soon(stream.unwrap().read_exact(&mut text)).await.unwrap();
    assert_eq!(&text, b"hi");
    assert_eq!(read_exact(&mut theirs, 18).await, [b"unsent".as_slice(), &PING].concat());
}

#[test]
fn handles_and_drivers_can_be_sent() {
    fn check<T: Send + 'static>() {}
    check::<Mux>();
    check::<p2p_mux::MuxStream>();
    check::<p2p_mux::Driver>();
}
