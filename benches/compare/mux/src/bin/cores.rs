//! One connection's driver alone on the machine's cores: the peer costs almost nothing. It replays
//! records that were sealed before, and drops what it gets.
//!
//! `cargo run --release -p compare-mux --bin cores -- [--runs 7] [--threads 2] [FILTER]`, in this
//! workspace. Figures are of payload, in and out together.

#[path = "../noise.rs"]
mod noise;

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Instant,
};

use bytes::{Buf, Bytes, BytesMut};
use cpu_time::ProcessTime;
use futures_util::task::AtomicWaker;
use p2p_core::{Clear, Muxer, Pipe, RecvHalf, Role, Seal, SendHalf};
use p2p_mux::{MuxStream, Setup, Yamux};
use p2p_security_noise::cipher::Cipher;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    runtime::{Builder, Runtime},
    sync::Notify,
    task::JoinSet,
};

/// What goes in each direction that is used, in bytes.
const TOTAL: usize = 256 << 20;
/// The body of a data frame that fills a Noise record with its header, in bytes.
const BODY_LEN: usize = 65_519 - 12;
/// Streams of the peer: so many that none uses up its window before it gets credit.
const STREAMS: u32 = 250;
/// Streams that this side writes on.
const WRITERS: usize = 16;
/// What the peer sends before the application must have read the first of it, in bytes.
const AHEAD: usize = 2 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    In,
    Out,
    Both,
}

fn main() {
    let (mut runs, mut threads, mut filter) = (7, 2, String::new());
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|n| n.parse().ok()).expect("a number");
        match arg.as_str() {
            "--runs" => runs = number(),
            "--threads" => threads = number(),
            _ => filter = arg,
        }
    }
    let ciphers =
        [("clear", None), ("RustCrypto", Some(Cipher::RUST_CRYPTO)), ("ring", Some(Cipher::RING))];
    println!("{threads} threads, {runs} runs each; median (lowest to highest), processor time");
    for (name, cipher) in ciphers {
        for flow in [Flow::In, Flow::Out, Flow::Both] {
            let title = format!("{name}, {flow:?}");
            if !title.contains(&filter) {
                continue;
            }
            let figures: Vec<Figures> =
                (0..runs).map(|_| runtime(threads).block_on(run(cipher, flow))).collect();
            let of = |figure: fn(&Figures) -> f64| sorted(figures.iter().map(figure).collect());
            let (rates, cpu) = (of(|run| run.rate), of(|run| run.cpu));
            println!(
                "{title:<18} {:>5.0} ({:.0} to {:.0}) MB/s, {:.2} ns/byte",
                median(&rates),
                rates[0],
                rates[runs - 1],
                median(&cpu),
            );
        }
    }
}

/// Of one run: MB/s, and ns of CPU for each byte.
struct Figures {
    rate: f64,
    cpu: f64,
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

fn median(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}

fn runtime(threads: usize) -> Runtime {
    Builder::new_multi_thread().worker_threads(threads).enable_all().build().expect("a runtime")
}

/// What both ends of the pipe and the application tell each other.
#[derive(Default)]
struct Flows {
    /// Bytes that the application has read.
    read: AtomicUsize,
    reader: AtomicWaker,
    all_read: Notify,
    /// Bytes that were written to the pipe.
    written: AtomicUsize,
    all_written: Notify,
}

async fn run(cipher: Option<Cipher>, flow: Flow) -> Figures {
    let (mut seal, own): (Box<dyn Seal>, _) = match cipher.map(noise::sessions) {
        Some((peer, own)) => (peer.seal, Some(own)),
        None => (Box::new(Clear), None),
    };
    let sent = if flow == Flow::Out { 0 } else { TOTAL };
    let wire = replay(seal.as_mut(), sent);
    let flows = Arc::<Flows>::default();
    let pipe = Pipe::new(
        Replay { wire, at: 0, flows: Arc::clone(&flows) },
        Sink { flows: Arc::clone(&flows) },
    );
    let now = tokio::time::Instant::now().into_std();
    let mut setup = Setup::new(pipe, Yamux::default().start(Role::Responder, now));
    if let Some(session) = own {
        setup = setup.sealed(session.seal, session.open);
    }
    let (mut mux, driver) = setup.start();
    let (wall, cpu) = (Instant::now(), ProcessTime::now());
    tokio::spawn(driver);
    let mut streams = JoinSet::new();
    for number in 0..STREAMS as usize {
        let stream = mux.accept().await.expect("the peer opens it");
        let writes = flow != Flow::In && number < WRITERS;
        streams.spawn(use_stream(stream, writes, Arc::clone(&flows)));
    }
    if flow != Flow::Out {
        flows.all_read.notified().await;
    }
    if flow != Flow::In {
        flows.all_written.notified().await;
    }
    let bytes = (flows.read.load(SeqCst) + flows.written.load(SeqCst)) as f64;
    let (wall, cpu) = (wall.elapsed().as_secs_f64(), cpu.elapsed().as_secs_f64());
    drop((streams, mux));
    Figures { rate: bytes / wall / 1e6, cpu: cpu * 1e9 / bytes }
}

/// Reads all that comes, and writes without end where it `writes`.
async fn use_stream(stream: MuxStream, writes: bool, flows: Arc<Flows>) {
    let (mut send, mut recv) = stream.into_halves();
    let chunk = Bytes::from(vec![7; BODY_LEN]);
    let writing = async {
        if !writes {
            return;
        }
        loop {
            let mut data = chunk.clone();
            while !data.is_empty() {
                if poll_fn(|cx| send.poll_send(cx, &mut data)).await.is_err() {
                    return;
                }
            }
        }
    };
    let reading = async {
        while let Ok(Some(chunk)) = poll_fn(|cx| recv.poll_chunk(cx, usize::MAX)).await {
            if flows.read.fetch_add(chunk.len(), SeqCst) + chunk.len() >= TOTAL {
                flows.all_read.notify_one();
            }
            flows.reader.wake();
        }
    };
    tokio::join!(writing, reading);
}

/// What the peer sends: it opens streams, gives all the credit there is, and then `total` bytes in
/// full records, a stream after the other.
fn replay(seal: &mut dyn Seal, total: usize) -> Vec<u8> {
    let header = |kind: u8, flags: u8, stream: u32, len: u32| {
        let mut out = vec![0, kind, 0, flags];
        out.extend(stream.to_be_bytes());
        out.extend(len.to_be_bytes());
        out
    };
    let ids = || (0..STREAMS).map(|number| 2 * number + 1);
    let opening: Vec<u8> = ids().flat_map(|id| header(1, 1, id, u32::MAX - (256 << 10))).collect();
    let mut out = BytesMut::with_capacity(total + total / 500 + (1 << 20));
    seal.seal(&mut &opening[..], &mut out).expect("seals");
    let body = Bytes::from(vec![5; BODY_LEN]);
    for id in ids().cycle().take(total.div_ceil(BODY_LEN)) {
        let header = Bytes::from(header(0, 0, id, BODY_LEN as u32));
        seal.seal(&mut header.chain(body.clone()), &mut out).expect("seals");
    }
    out.into()
}

/// The peer's records, no faster than the application reads them.
struct Replay {
    wire: Vec<u8>,
    at: usize,
    flows: Arc<Flows>,
}

impl AsyncRead for Replay {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let ahead = |flows: &Flows| flows.read.load(SeqCst) + AHEAD;
        if ahead(&this.flows) <= this.at {
            this.flows.reader.register(cx.waker());
        }
        let left = ahead(&this.flows).min(this.wire.len()).saturating_sub(this.at);
        if left == 0 {
            return Poll::Pending;
        }
        let count = left.min(buf.remaining());
        buf.put_slice(&this.wire[this.at..this.at + count]);
        this.at += count;
        Poll::Ready(Ok(()))
    }
}

/// Takes everything at once and drops it.
struct Sink {
    flows: Arc<Flows>,
}

impl AsyncWrite for Sink {
    fn poll_write(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.flows.written.fetch_add(buf.len(), SeqCst) + buf.len() >= TOTAL {
            self.flows.all_written.notify_one();
        }
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let len = bufs.iter().map(|buf| buf.len()).sum();
        if self.flows.written.fetch_add(len, SeqCst) + len >= TOTAL {
            self.flows.all_written.notify_one();
        }
        Poll::Ready(Ok(len))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
