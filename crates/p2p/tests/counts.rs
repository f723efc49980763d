//! What a MiB and a request cost, in counts, which are the same on every machine: calls to the
//! pipe (with a socket: system calls), allocations, copies, runs of tasks. All bounds are here.
//!
//! Two ends of a connection in one thread, over a pipe that holds as much as a socket; counts are
//! of both ends together. A bound is what was counted, and a quarter more. What an idle stream holds
//! is that of two hosts over TCP.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    future::{Future, poll_fn},
    io::{self, IoSlice},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use p2p::{
    Keypair,
    core::{Handshake, Muxer, Pipe, RecvHalf, Role, Security, SendHalf, Session},
    mux::{Mux, MuxRecv, MuxSend, Setup, Yamux},
    noise::{Noise, cipher::Cipher},
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};

/// For a MiB over one stream, in pieces of 64 KiB, with Noise: each piece is sent at once by the task
/// that writes it.
const MIB: Bounds =
    Bounds { reads: 20.0, writes: 22.0, allocations: 10.0, tasks: 30.0, copied: 0.02 };
/// For a request of 32 bytes and its answer over one stream, with Noise.
const REQUEST: Bounds =
    Bounds { reads: 2.5, writes: 2.5, allocations: 0.1, tasks: 7.5, copied: 1.0 };
/// What an idle echo stream holds on both sides together, in bytes.
const IDLE_STREAM: u64 = 1_430;
/// What part of the payload may be copied without a secure channel, on each way: the little of a
/// frame that is left at the end of a buffer.
const CLEAR_COPIED_MAX: f64 = 0.02;

/// What the pipe holds each way, in bytes.
const PIPE_LEN: usize = 512 << 10;
const PIECE_LEN: usize = 64 << 10;
static PIECE: [u8; PIECE_LEN] = [7; PIECE_LEN];

/// One end of a stream.
type End = (MuxSend, MuxRecv);

/// What one unit may cost.
struct Bounds {
    /// Calls that read something from the pipe. One that finds nothing makes no system call with a
    /// socket of tokio's, which knows that there is nothing.
    reads: f64,
    writes: f64,
    allocations: f64,
    /// Runs of a connection's task and of the application's two.
    tasks: f64,
    /// What part of the payload does not stand where the pipe has put it when the application gets
    /// it: because it was copied, or because its record did not fit the end of a buffer and was
    /// moved. Of 32 bytes, all.
    copied: f64,
}

impl Bounds {
    fn check(&self, what: &str, cost: &Cost, units: usize) {
        let counts = [
            ("reads", cost.reads, self.reads),
            ("writes", cost.writes, self.writes),
            ("allocations", cost.allocations, self.allocations),
            ("runs of tasks", cost.tasks, self.tasks),
        ];
        let each = counts.map(|(of, count, bound)| (of, count as f64 / units as f64, bound));
        let over: Vec<_> = each.iter().filter(|(_, count, bound)| count > bound).collect();
        eprintln!("{what}: {each:?}");
        assert!(over.is_empty(), "{what} costs more than the bound: {over:?}");
    }
}

#[derive(Debug, Default)]
struct Cost {
    reads: usize,
    writes: usize,
    allocations: usize,
    tasks: usize,
}

/// What both ends do.
#[derive(Default)]
struct Counts {
    reads: AtomicUsize,
    writes: AtomicUsize,
    tasks: AtomicUsize,
    /// Where the pipe has put what it received.
    buffers: Mutex<Vec<(usize, usize)>>,
    /// Bytes that were written from the application's own memory.
    uncopied_out: AtomicUsize,
    /// Bytes that the application was handed where the pipe had put them.
    uncopied_in: AtomicUsize,
}

impl Counts {
    fn cost(&self, allocations: usize) -> Cost {
        let take = |count: &AtomicUsize| count.swap(0, Ordering::Relaxed);
        Cost {
            reads: take(&self.reads),
            writes: take(&self.writes),
            tasks: take(&self.tasks),
            allocations,
        }
    }

    fn wrote(&self, slice: &[u8], taken: usize) {
        let (own, at) = (PIECE.as_ptr() as usize, slice.as_ptr() as usize);
        if at >= own && at + slice.len() <= own + PIECE_LEN {
            self.uncopied_out.fetch_add(taken.min(slice.len()), Ordering::Relaxed);
        }
    }

    fn handed_out(&self, chunk: &[u8]) {
        let at = chunk.as_ptr() as usize;
        let within =
            |(start, len): &(usize, usize)| at >= *start && at + chunk.len() <= start + len;
        if self.buffers.lock().unwrap().iter().any(within) {
            self.uncopied_in.fetch_add(chunk.len(), Ordering::Relaxed);
        }
    }
}

struct CountedPipe(DuplexStream, Arc<Counts>);

impl AsyncRead for CountedPipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self(pipe, counts) = &mut *self;
        let before = buf.filled().len();
        let result = Pin::new(pipe).poll_read(cx, buf);
        counts.reads.fetch_add(usize::from(result.is_ready()), Ordering::Relaxed);
        if let Some(new) = buf.filled().get(before..).filter(|new| !new.is_empty()) {
            // A record may reach over what several reads have put one after the other.
            let mut buffers = counts.buffers.lock().unwrap();
            let start = new.as_ptr() as usize;
            match buffers.iter_mut().find(|(from, len)| from + *len == start) {
                Some((_, len)) => *len += new.len(),
                None => buffers.push((start, new.len())),
            }
        }
        result
    }
}

impl AsyncWrite for CountedPipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self(pipe, counts) = &mut *self;
        let result = Pin::new(pipe).poll_write(cx, buf);
        counts.writes.fetch_add(usize::from(result.is_ready()), Ordering::Relaxed);
        if let Poll::Ready(Ok(taken)) = &result {
            counts.wrote(buf, *taken);
        }
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self(pipe, counts) = &mut *self;
        let result = Pin::new(pipe).poll_write_vectored(cx, bufs);
        counts.writes.fetch_add(usize::from(result.is_ready()), Ordering::Relaxed);
        if let Poll::Ready(Ok(taken)) = &result {
            let mut left = *taken;
            for buf in bufs {
                counts.wrote(buf, left);
                left = left.saturating_sub(buf.len());
            }
        }
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Counts how often `task` runs.
async fn counted<T>(task: impl Future<Output = T>, counts: Arc<Counts>) -> T {
    let mut task = pin!(task);
    poll_fn(move |cx| {
        counts.tasks.fetch_add(1, Ordering::Relaxed);
        task.as_mut().poll(cx)
    })
    .await
}

fn sessions() -> [Session; 2] {
    let start = |role| {
        let noise = Noise::new(&Keypair::generate().unwrap()).unwrap().with_cipher(Cipher::RING);
        noise.start(role, None, &[]).unwrap()
    };
    let mut initiator: Box<dyn Handshake> = start(Role::Initiator);
    let mut responder: Box<dyn Handshake> = start(Role::Responder);
    let (mut forth, mut back, mut ours) = (BytesMut::new(), BytesMut::new(), None);
    loop {
        if ours.is_none() {
            ours = initiator.advance(&mut back, &mut forth).unwrap();
        }
        if let Some(theirs) = responder.advance(&mut forth, &mut back).unwrap() {
            return [ours.unwrap(), theirs];
        }
    }
}

/// A stream, seen from both ends, and the connections that carry it.
async fn stream(sealed: bool, counts: &Arc<Counts>) -> ([End; 2], [Mux; 2]) {
    let (near, far) = tokio::io::duplex(PIPE_LEN);
    let mut sessions = sealed.then(sessions).map(IntoIterator::into_iter);
    let mut start = |pipe, role| {
        let (read, write) = tokio::io::split(CountedPipe(pipe, Arc::clone(counts)));
        let core = Yamux::default().start(role, tokio::time::Instant::now().into_std());
        let mut setup = Setup::new(Pipe::new(read, write), core);
        if let Some(session) = sessions.as_mut().and_then(Iterator::next) {
            setup = setup.sealed(session.seal, session.open);
        }
        let (mux, driver) = setup.start();
        tokio::spawn(counted(driver, Arc::clone(counts)));
        mux
    };
    let (client, mut server) = (start(near, Role::Initiator), start(far, Role::Responder));
    let mut opened = client.open().await.unwrap();
    opened.write_all(&[0]).await.unwrap();
    let mut accepted = server.accept().await.unwrap();
    accepted.read_u8().await.unwrap();
    ([opened.into_halves(), accepted.into_halves()], [client, server])
}

/// Sends so many MiB by reference, and takes them by reference.
async fn mebibytes(streams: [End; 2], count: usize, counts: &Arc<Counts>) -> [End; 2] {
    let [opened, accepted] = streams;
    let total = count << 20;
    let sending = async move {
        let mut stream = opened;
        for _ in 0..total / PIECE_LEN {
            let mut piece = Bytes::from_static(&PIECE);
            while !piece.is_empty() {
                poll_fn(|cx| stream.0.poll_send(cx, &mut piece)).await.unwrap();
            }
        }
        stream
    };
    let noted = Arc::clone(counts);
    let receiving = async move {
        let mut stream = accepted;
        let mut left = total;
        while left > 0 {
            let chunk = poll_fn(|cx| stream.1.poll_chunk(cx, usize::MAX)).await.unwrap().unwrap();
            noted.handed_out(&chunk);
            left -= chunk.len();
        }
        stream
    };
    let sending = tokio::spawn(counted(sending, Arc::clone(counts)));
    let receiving = tokio::spawn(counted(receiving, Arc::clone(counts)));
    [sending.await.unwrap(), receiving.await.unwrap()]
}

/// Asks and answers so often.
async fn requests(streams: [End; 2], count: usize, counts: &Arc<Counts>) -> [End; 2] {
    let [opened, accepted] = streams;
    let asking = async move {
        let (mut stream, mut answer) = (opened, [0; 32]);
        for _ in 0..count {
            stream.0.write_all(&[1; 32]).await.unwrap();
            stream.1.read_exact(&mut answer).await.unwrap();
        }
        stream
    };
    let answering = async move {
        let (mut stream, mut request) = (accepted, [0; 32]);
        for _ in 0..count {
            stream.1.read_exact(&mut request).await.unwrap();
            stream.0.write_all(&request).await.unwrap();
        }
        stream
    };
    let asking = tokio::spawn(counted(asking, Arc::clone(counts)));
    let answering = tokio::spawn(counted(answering, Arc::clone(counts)));
    [asking.await.unwrap(), answering.await.unwrap()]
}

/// What `units` of `work` cost, once as many have warmed the connection up.
fn measure(
    sealed: bool,
    units: usize,
    work: impl AsyncFn([End; 2], usize, &Arc<Counts>) -> [End; 2],
) -> (Cost, Arc<Counts>) {
    let counts = Arc::new(Counts::default());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let (mut streams, _muxes) = runtime.block_on(stream(sealed, &counts));
    streams = runtime.block_on(work(streams, units, &counts));
    counts.cost(0);
    counts.uncopied_in.store(0, Ordering::Relaxed);
    counts.uncopied_out.store(0, Ordering::Relaxed);
    let mut left = Some(streams);
    let allocated = allocation_counter::measure(|| {
        left = left.take().map(|streams| runtime.block_on(work(streams, units, &counts)));
    });
    let cost = counts.cost(usize::try_from(allocated.count_total).unwrap());
    (cost, counts)
}

#[test]
fn a_mib_costs_few_calls_allocations_and_runs_of_tasks() {
    let (cost, counts) = measure(true, 32, mebibytes);
    MIB.check("a MiB", &cost, 32);
    let total = 32 << 20;
    let copied = total - counts.uncopied_in.load(Ordering::Relaxed);
    let part = copied as f64 / total as f64;
    eprintln!("a MiB: {part:.4} of it copied or moved on the way in, at most {}", MIB.copied);
    assert!(part <= MIB.copied, "{copied} bytes of {total} were copied on the way in");
}

#[test]
fn a_request_costs_few_calls_allocations_and_runs_of_tasks() {
    let (cost, _) = measure(true, 1000, requests);
    REQUEST.check("a request", &cost, 1000);
}

#[test]
fn without_a_secure_channel_nothing_is_copied() {
    let (_, counts) = measure(false, 32, mebibytes);
    let total = 32 << 20;
    for (way, uncopied) in [("out", &counts.uncopied_out), ("in", &counts.uncopied_in)] {
        let copied = total - uncopied.load(Ordering::Relaxed);
        let part = copied as f64 / total as f64;
        eprintln!("a MiB in the clear: {part:.4} of it copied on the way {way}");
        assert!(part <= CLEAR_COPIED_MAX, "{copied} bytes of {total} copied on the way {way}");
    }
}

#[test]
fn an_idle_stream_holds_few_bytes() {
    const COUNT: u32 = 100;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    let (server, client) = runtime.block_on(async {
        let server = p2p::builder().listen("/ip4/127.0.0.1/tcp/0").spawn().await.unwrap();
        let echo = |mut stream: p2p::Stream| async move {
            let mut text = [0; 32];
            while stream.read_exact(&mut text).await.is_ok() {
                stream.write_all(&text).await?;
            }
            Ok::<_, io::Error>(())
        };
        server.handle("/echo/1.0.0", echo).unwrap();
        (server, p2p::builder().spawn().await.unwrap())
    });
    let addr = server.addrs().first().unwrap().clone();
    let open = async |count: u32| {
        let mut streams = Vec::with_capacity(COUNT as usize);
        for _ in 0..count {
            let mut stream = client.open(&addr, "/echo/1.0.0").await.unwrap();
            stream.write_all(&[7; 32]).await.unwrap();
            stream.read_exact(&mut [0; 32]).await.unwrap();
            streams.push(stream);
        }
        streams
    };
    // The connection, identify and whatever is made once are no part of it.
    let first = runtime.block_on(open(1));
    runtime.block_on(tokio::time::sleep(std::time::Duration::from_millis(200)));
    let mut streams = Vec::new();
    let held = allocation_counter::measure(|| streams = runtime.block_on(open(COUNT)));
    let each = u64::try_from(held.bytes_current).unwrap() / u64::from(COUNT);
    eprintln!("an idle stream holds {each} bytes on both sides together");
    assert!(each <= IDLE_STREAM, "{each}");
    drop((first, streams));
}
