//! `p2p-mux` beside the published `yamux` crate: the same work on both in turn, in one run.
//!
//! `cargo run --release -p compare-mux -- [--runs 7] [--threads 2] [--json FILE] [FILTER]`, in
//! this workspace. Throughput and CPU time are for both ends together, since both are in this
//! process, and include the pipe, which is the same for both: `bare` is the same bulk copied through
//! the pipe alone, which nothing over it can surpass. No encryption.

mod sides;

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use cpu_time::ProcessTime;
use serde_json::{Value, json};
use sides::{Io, Side, Stream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
    task::JoinSet,
};

/// What the pipe in memory holds each way, in bytes: about what a socket does.
const PIPE_LEN: usize = 256 << 10;
/// What an application writes and reads at once in bulk, in bytes.
const BULK_LEN: usize = 64 << 10;
const BULK_TOTAL: usize = 256 << 20;
const MESSAGE_LEN: usize = 32;

#[derive(Clone, Copy)]
enum Work {
    /// The client sends so many bytes on all streams together.
    Bulk { streams: usize },
    /// Every client sends so many messages, and lets others run after each.
    Flood { streams: usize, messages: usize },
    /// Every client sends so many messages, and waits for the echo of each.
    Echo { streams: usize, messages: usize },
}

impl Work {
    fn streams(self) -> usize {
        match self {
            Self::Bulk { streams } | Self::Flood { streams, .. } | Self::Echo { streams, .. } => {
                streams
            }
        }
    }

    /// Bytes of payload that the streams carry, in both directions.
    fn bytes(self) -> usize {
        match self {
            Self::Bulk { .. } => BULK_TOTAL,
            Self::Flood { streams, messages } => streams * messages * MESSAGE_LEN,
            Self::Echo { streams, messages } => 2 * streams * messages * MESSAGE_LEN,
        }
    }
}

const WORKS: [(&str, Work); 5] = [
    ("bulk, 1 stream", Work::Bulk { streams: 1 }),
    ("bulk, 64 streams", Work::Bulk { streams: 64 }),
    ("32 B flood, 1000 streams", Work::Flood { streams: 1000, messages: 300 }),
    ("32 B echo, 1000 streams", Work::Echo { streams: 1000, messages: 100 }),
    ("32 B echo, 1 stream", Work::Echo { streams: 1, messages: 20_000 }),
];

struct Options {
    runs: usize,
    threads: usize,
    json: Option<String>,
    filter: String,
    side: Option<Side>,
}

fn main() {
    let options = options();
    let mut report = Vec::new();
    println!(
        "{} threads, {} runs each in turn; MB/s of payload and CPU ns/byte as min/median/max",
        options.threads, options.runs
    );
    for pipe in ["memory", "tcp"] {
        for (name, work) in WORKS {
            let title = format!("{pipe}: {name}");
            if title.contains(&options.filter) {
                report.push(compare(&options, pipe, &title, work));
            }
        }
    }
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&report).expect("plain values");
        std::fs::write(path, text + "\n").expect("the report can be written");
    }
}

fn options() -> Options {
    let mut options =
        Options { runs: 7, threads: 2, json: None, filter: String::new(), side: None };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().unwrap_or_else(|| panic!("{arg} needs a value"));
        match arg.as_str() {
            "--runs" => options.runs = value().parse().expect("a number"),
            "--threads" => options.threads = value().parse().expect("a number"),
            "--json" => options.json = Some(value()),
            "--ours" => options.side = Some(Side::Ours),
            _ => options.filter = arg,
        }
    }
    options
}

fn compare(options: &Options, pipe: &str, title: &str, work: Work) -> Value {
    let mut theirs = Vec::new();
    let mut ours = Vec::new();
    let mut bare = Vec::new();
    for _ in 0..options.runs {
        if options.side.is_none() && matches!(work, Work::Bulk { .. }) {
            bare.push(run(options.threads, pipe, None, work));
        }
        if options.side.is_none() {
            theirs.push(run(options.threads, pipe, Some(Side::Theirs), work));
        }
        ours.push(run(options.threads, pipe, Some(Side::Ours), work));
    }
    let theirs = Figures::new(&theirs, work);
    let ours = Figures::new(&ours, work);
    let bare = (!bare.is_empty()).then(|| Figures::new(&bare, work));
    println!("{title}");
    let mut line = String::new();
    let sides = [(Side::Theirs.name(), &theirs), (Side::Ours.name(), &ours)];
    for (name, figures) in bare.iter().map(|bare| ("bare", bare)).chain(sides) {
        let _ = writeln!(
            line,
            "  {name:<11}{:>32} MB/s {:>24} ns/B",
            show(&figures.rate),
            show(&figures.cpu)
        );
    }
    let faster = ours.rate[1] / theirs.rate[1];
    let cheaper = ours.cpu[1] / theirs.cpu[1];
    println!("{line}  {faster:.2} times the throughput, {cheaper:.2} times the CPU time");
    json!({
        "work": title,
        "threads": options.threads,
        "yamux": theirs.json(),
        "p2p_mux": ours.json(),
        "bare": bare.map(|bare| bare.json()),
        "throughput_ratio": faster,
        "cpu_ratio": cheaper,
    })
}

fn show(figures: &[f64; 3]) -> String {
    let [min, median, max] = figures;
    if *median < 100.0 {
        format!("{min:.2}/{median:.2}/{max:.2}")
    } else {
        format!("{min:.0}/{median:.0}/{max:.0}")
    }
}

/// Min, median and max of several runs.
struct Figures {
    /// In MB/s.
    rate: [f64; 3],
    /// In ns/byte.
    cpu: [f64; 3],
}

impl Figures {
    fn new(runs: &[(Duration, Duration)], work: Work) -> Self {
        let bytes = work.bytes() as f64;
        let rate = runs.iter().map(|(wall, _)| bytes / wall.as_secs_f64() / 1e6);
        let cpu = runs.iter().map(|(_, cpu)| cpu.as_secs_f64() * 1e9 / bytes);
        Self { rate: spread(rate.collect()), cpu: spread(cpu.collect()) }
    }

    fn json(&self) -> Value {
        json!({ "mb_per_s": self.rate, "cpu_ns_per_byte": self.cpu })
    }
}

fn spread(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    match (values.first(), values.get(values.len() / 2), values.last()) {
        (Some(min), Some(median), Some(max)) => [*min, *median, *max],
        _ => [f64::NAN; 3],
    }
}

/// Wall and CPU time of one run, from the first byte of work to the confirmation of the last.
fn run(threads: usize, pipe: &str, side: Option<Side>, work: Work) -> (Duration, Duration) {
    let runtime = runtime(threads);
    runtime.block_on(async {
        // In a task, as everything else.
        let pipe = pipe.to_owned();
        let task = tokio::spawn(async move {
            match pipe.as_str() {
                "memory" => measure(memory(), side, work).await,
                _ => measure(tcp().await, side, work).await,
            }
        });
        task.await.expect("a run")
    })
}

fn runtime(threads: usize) -> Runtime {
    let mut builder = match threads {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    builder.worker_threads(threads).enable_all().build().expect("a runtime")
}

fn memory() -> (DuplexStream, DuplexStream) {
    tokio::io::duplex(PIPE_LEN)
}

async fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
    let addr = listener.local_addr().expect("is bound");
    let (a, b) = tokio::join!(TcpStream::connect(addr), listener.accept());
    let (a, (b, _)) = (a.expect("connects"), b.expect("accepts"));
    a.set_nodelay(true).expect("a socket");
    b.set_nodelay(true).expect("a socket");
    (a, b)
}

async fn measure(
    pipes: (impl Io, impl Io),
    side: Option<Side>,
    work: Work,
) -> (Duration, Duration) {
    let Some(side) = side else { return measure_bare(pipes, work.streams()).await };
    let session = side.session(pipes, work.streams()).await;
    let (wall, cpu) = (Instant::now(), ProcessTime::now());
    let mut tasks = JoinSet::new();
    for (client, server) in session.client.into_iter().zip(session.server) {
        match work {
            Work::Bulk { streams } => {
                tasks.spawn(send(client, BULK_TOTAL / streams, BULK_LEN));
                tasks.spawn(receive(server, BULK_TOTAL / streams));
            }
            Work::Flood { messages, .. } => {
                tasks.spawn(send(client, messages * MESSAGE_LEN, MESSAGE_LEN));
                tasks.spawn(receive(server, messages * MESSAGE_LEN));
            }
            Work::Echo { messages, .. } => {
                tasks.spawn(ask(client, messages));
                tasks.spawn(echo(server, messages));
            }
        }
    }
    // A stream that was dropped before the last byte arrived would be reset.
    let _streams = tasks.join_all().await;
    (wall.elapsed(), cpu.elapsed())
}

/// As many buffers as the streams would have at each end, in turn: they do not fit a processor's
/// nearest cache either.
async fn measure_bare((mut a, mut b): (impl Io, impl Io), streams: usize) -> (Duration, Duration) {
    let (wall, cpu) = (Instant::now(), ProcessTime::now());
    let sending = tokio::spawn(async move {
        let buffers = vec![vec![7; BULK_LEN]; streams];
        for buffer in buffers.iter().cycle().take(BULK_TOTAL / BULK_LEN) {
            a.write_all(buffer).await.expect("writes");
        }
        a.read_u8().await.expect("the confirmation");
    });
    let receiving = tokio::spawn(async move {
        let mut buffers = vec![vec![0; BULK_LEN]; streams];
        let (mut turn, mut left) = (0, BULK_TOTAL);
        while left > 0 {
            left -= b.read(&mut buffers[turn % streams]).await.expect("reads");
            turn += 1;
        }
        b.write_u8(1).await.expect("writes");
    });
    sending.await.expect("sends");
    receiving.await.expect("receives");
    (wall.elapsed(), cpu.elapsed())
}

async fn send(mut stream: Stream, total: usize, len: usize) -> Stream {
    let message = vec![7; len];
    for _ in 0..total / len {
        stream.write_all(&message).await.expect("writes");
        if len == MESSAGE_LEN {
            tokio::task::yield_now().await;
        }
    }
    stream.flush().await.expect("flushes");
    stream.read_u8().await.expect("the confirmation");
    stream
}

async fn receive(mut stream: Stream, total: usize) -> Stream {
    let mut buffer = vec![0; BULK_LEN.min(total)];
    let mut left = total;
    while left > 0 {
        match stream.read(&mut buffer).await.expect("reads") {
            0 => panic!("{left} bytes are missing"),
            count => left -= count,
        }
    }
    stream.write_u8(1).await.expect("writes");
    stream.flush().await.expect("flushes");
    stream
}

async fn ask(mut stream: Stream, messages: usize) -> Stream {
    let mut answer = [0; MESSAGE_LEN];
    for _ in 0..messages {
        stream.write_all(&[7; MESSAGE_LEN]).await.expect("writes");
        stream.flush().await.expect("flushes");
        stream.read_exact(&mut answer).await.expect("reads");
    }
    stream
}

async fn echo(mut stream: Stream, messages: usize) -> Stream {
    let mut message = [0; MESSAGE_LEN];
    for _ in 0..messages {
        stream.read_exact(&mut message).await.expect("reads");
        stream.write_all(&message).await.expect("writes");
        stream.flush().await.expect("flushes");
    }
    stream
}
