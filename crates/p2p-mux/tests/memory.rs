//! What a connection holds, counted by the allocator: bytes held, not bytes of payload.
//!
//! One test, because the count is of the whole process.
#![cfg(feature = "yamux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{alloc::System, fmt::Write, task::Poll, time::Duration};

use bytes::Bytes;
use cap::Cap;
use common::{
    echo,
    mask::{mask, sealed},
    settle, soon,
};
use p2p_core::{MuxCore, Muxer, Pipe, Role, StreamId};
use p2p_mux::{Driver, Mux, MuxStream, Setup, Yamux};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    time::Instant,
};

#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

const KIB: usize = 1 << 10;
const WINDOW: usize = 256 * KIB;
/// What a stream may hold beside its window: a block that is not full, and the queue of blocks.
const BLOCKS: usize = 24 * KIB;
/// What a driver may hold under load: the buffers of both directions. Unread data of the whole
/// connection hold two of them at most.
const BUFFERS: usize = 3 * 2 * 65_601 + 192 * KIB;
/// Everything else of a connection.
const CONNECTION: usize = 16 * KIB;
/// What the test's pipe holds each way.
const PIPE: usize = 64 * KIB;

/// A header and a body.
fn data(flags: u8, stream: u32, len: usize) -> Vec<u8> {
    let mut frame = vec![0, 0, 0, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(u32::try_from(len).unwrap().to_be_bytes());
    frame.resize(12 + len, 7);
    frame
}

/// The ways to fill the window of stream 1: the sizes of its frames in turn, and how many bytes
/// on a stream that does not exist come after each.
const SLICINGS: [(&str, &[usize], usize); 7] = [
    ("frames of one byte", &[1], 0),
    ("frames of 64 bytes", &[64], 0),
    ("frames of 16 KiB", &[16 * KIB], 0),
    ("frames of one byte and of 16 KiB", &[1, 16 * KIB], 0),
    ("frames of 4 KiB, each in a record of its own", &[4 * KIB], 60 * KIB),
    ("frames of 4095 bytes, each in a record of its own", &[4 * KIB - 1], 60 * KIB),
    ("one frame", &[WINDOW], 0),
];

/// The plain bytes that fill the window so.
fn filling(sizes: &[usize], other: usize) -> Vec<u8> {
    let mut wire = Vec::new();
    let mut left = WINDOW;
    for size in sizes.iter().cycle() {
        let len = left.min(*size);
        if len == 0 {
            return wire;
        }
        left -= len;
        wire.extend(data(0, 1, len));
        if other > 0 {
            wire.extend(data(0, 99, other));
        }
    }
    wire
}

fn held_since(before: usize) -> usize {
    HEAP.allocated().saturating_sub(before)
}

fn session() -> Box<dyn MuxCore> {
    Yamux::default().start(Role::Responder, std::time::Instant::now())
}

/// A session alone, which is lent records of `record` bytes, each in a buffer of its own.
fn an_unread_stream_of_a_session(record: usize, figures: &mut String) {
    for (name, sizes, other) in SLICINGS {
        let wire = filling(sizes, other);
        let now = std::time::Instant::now();
        let before = HEAP.allocated();
        let mut session = session();
        session.handle_data(data(1, 1, 0).into(), now).unwrap();
        let stream = session.accept().unwrap();
        for piece in wire.chunks(record) {
            session.handle_lent(Bytes::copy_from_slice(piece), now).unwrap();
            while session.poll_event().is_some() {}
        }
        let held = held_since(before);
        writeln!(figures, "session, records of {record}: {held} bytes held for {name}").unwrap();
        assert!(held <= WINDOW + BLOCKS, "{held} bytes held for {name}");
        assert_eq!(read_all(session.as_mut(), stream), WINDOW);
        let left = held_since(before);
        assert!(left <= 4 * KIB, "{left} bytes held after all was read");
    }
}

fn read_all(session: &mut dyn MuxCore, stream: StreamId) -> usize {
    let mut count = 0;
    while let Poll::Ready(Ok(Some(chunk))) = session.read(stream, usize::MAX) {
        count += chunk.len();
    }
    count
}

/// What may be queued to be sent of one stream, and of a connection before each stream is held to
/// its least.
const UNSENT: usize = 128 * KIB;
const UNSENT_ALL: usize = 256 * KIB;
const UNSENT_LEAST: usize = 4 * KIB;

/// Writers that nobody lets send: on one stream, and on as many as this side may open.
fn unsent_data(figures: &mut String) {
    for streams in [1, 256] {
        for len in [1, 100, 1500, 4 * KIB, 40_000, 200_000] {
            let slice = vec![7; len];
            let before = HEAP.allocated();
            let mut session = session();
            let mut queued = 0;
            for _ in 0..streams {
                let Poll::Ready(Ok(id)) = session.open() else { panic!("{streams} may be open") };
                while let Poll::Ready(count) = session.write_slice(id, &slice) {
                    queued += count.unwrap();
                }
            }
            let held = held_since(before);
            writeln!(
                figures,
                "{streams} streams, writes of {len}: {held} bytes held for {queued} that are unsent"
            )
            .unwrap();
            let most = if streams == 1 { UNSENT } else { UNSENT_ALL + streams * UNSENT_LEAST };
            assert!(queued <= most, "{queued} bytes queued");
            // A chunk that small writes are gathered in has doubled.
            assert!(held <= most / 3 * 5 + CONNECTION + streams * KIB, "{held} bytes held");
        }
    }
}

/// Mplex has no windows: a stream that holds too much is reset, and so is the largest of a
/// connection that does.
#[cfg(feature = "mplex")]
fn unread_streams_of_mplex(figures: &mut String) {
    const STREAM: usize = 8 << 20;
    const ALL: usize = 16 << 20;
    for streams in [1_u8, 5] {
        for len in [1_u8, 100] {
            let now = std::time::Instant::now();
            let before = HEAP.allocated();
            let mut session = p2p_mux::Mplex::default().start(Role::Responder, now);
            for stream in 0..streams {
                session.handle_data(vec![stream << 3, 0].into(), now).unwrap();
            }
            let (mut most, mut sent) = (0, 0);
            // In one buffer that is cut, as the driver does it, of a tenth of a stream's bound.
            while sent < ALL + ALL / 8 {
                let mut wire = Vec::new();
                for stream in (0..streams).cycle().take(STREAM / 10 / usize::from(len)) {
                    wire.extend([stream << 3 | 2, len]);
                    wire.resize(wire.len() + usize::from(len), 7);
                    sent += usize::from(len);
                }
                let ended = session.handle_data(wire.into(), now).is_err();
                while session.poll_event().is_some() {}
                most = most.max(held_since(before));
                // Too much that comes for streams that were reset.
                if ended {
                    break;
                }
            }
            writeln!(figures, "mplex, {streams} streams, messages of {len}: {most} bytes held")
                .unwrap();
            let bound = if streams == 1 { STREAM } else { ALL };
            assert!(most <= bound + 64 * KIB, "{most} bytes held");
        }
    }
}

fn start(io: DuplexStream, role: Role) -> (Mux, Driver) {
    let (read, write) = tokio::io::split(io);
    let core = Yamux::default().start(role, Instant::now().into_std());
    Setup::new(Pipe::new(read, write), core).sealed(mask(65_000), mask(65_000)).start()
}

/// Through the driver, whose records of 64 KiB lie in receive buffers of 128 KiB. Those that unread
/// data hold are let go, too, when the connection is idle.
async fn an_unread_stream_of_a_connection(figures: &mut String) {
    for (name, sizes, other) in SLICINGS {
        let mut wire = sealed(&data(1, 1, 0), 65_000);
        wire.extend(sealed(&filling(sizes, other), 65_000));
        let before = HEAP.allocated();
        let (ours, mut theirs) = duplex(PIPE);
        let (mut mux, driver) = start(ours, Role::Responder);
        let driver = tokio::spawn(driver);
        theirs.write_all(&wire).await.unwrap();
        settle().await;
        let mut stream = soon(mux.accept()).await.unwrap();
        let held = held_since(before);
        let most = WINDOW + BLOCKS + BUFFERS + CONNECTION + 2 * PIPE;
        writeln!(figures, "driver: {held} bytes held for {name}").unwrap();
        assert!(held <= most, "{held} bytes held for {name}");

        tokio::time::sleep(Duration::from_secs(5)).await;
        let held = held_since(before);
        writeln!(figures, "driver, idle: {held} bytes held for {name}").unwrap();
        assert!(held <= most - BUFFERS, "{held} bytes held for {name} by an idle connection");

        let mut unread = vec![0; WINDOW];
        soon(stream.read_exact(&mut unread)).await.unwrap();
        drop(unread);
        tokio::time::sleep(Duration::from_secs(5)).await;
        let held = held_since(before);
        assert!(held <= CONNECTION + 2 * PIPE, "{held} bytes held after all was read");
        driver.abort();
        drop((mux, stream, theirs));
        settle().await;
    }
}

/// A connection that has moved much and is idle now, and streams that are open and idle.
async fn an_idle_connection(figures: &mut String) {
    const STREAMS: usize = 100;
    let before = HEAP.allocated();
    let (ours, theirs) = duplex(KIB);
    let (client, driver) = start(ours, Role::Initiator);
    let first = tokio::spawn(driver);
    let (server, driver) = start(theirs, Role::Responder);
    let second = tokio::spawn(driver);
    let echoing = tokio::spawn(echo(server));
    for _ in 0..4 {
        exchange(client.open().await.unwrap()).await;
    }
    tokio::time::sleep(Duration::from_secs(100)).await;
    let idle = held_since(before) / 2;
    writeln!(figures, "an idle connection holds about {idle} bytes").unwrap();
    assert!(idle <= CONNECTION, "{idle} bytes held by an idle connection");

    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        streams.push(client.open().await.unwrap());
    }
    tokio::time::sleep(Duration::from_secs(100)).await;
    // Both ends are here, and a task of the echo with its buffer of 8 KiB.
    let each = (held_since(before) / 2 - idle) / STREAMS;
    writeln!(figures, "an idle stream holds about {each} bytes, half of the echo's task included")
        .unwrap();
    assert!(each <= 8 * KIB, "{each} bytes held by an idle stream");
    drop(streams);
    for task in [first, second] {
        task.abort();
    }
    echoing.abort();
}

async fn exchange(stream: MuxStream) {
    let (mut read, mut write) = tokio::io::split(stream);
    let sender = tokio::spawn(async move {
        write.write_all(&vec![1; 1 << 20]).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let mut all = Vec::new();
    soon(read.read_to_end(&mut all)).await.unwrap();
    assert_eq!(all.len(), 1 << 20);
    sender.await.unwrap();
}

#[test]
fn promise_3_memory_is_bounded_in_bytes_held_however_the_peer_slices_its_frames() {
    // Written at the end: what is printed is held, too.
    let mut figures = String::with_capacity(16 * KIB);
    for record in [1, 5000, 65_000, 131_000] {
        an_unread_stream_of_a_session(record, &mut figures);
    }
    unsent_data(&mut figures);
    #[cfg(feature = "mplex")]
    unread_streams_of_mplex(&mut figures);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        an_unread_stream_of_a_connection(&mut figures).await;
        an_idle_connection(&mut figures).await;
    });
    eprint!("{figures}");
}
