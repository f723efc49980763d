//! What a client measures.

use std::{
    fmt::Display,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Map, Value, json};
use tokio::task::JoinSet;

use crate::{
    Args, Failure, Node,
    pattern::{PIECE_LEN, Pattern},
    process,
    serve::{self, MESSAGE_LEN, Protocol},
    stats::Times,
    stream::{Buffer, Stream},
};

/// Streams that one connection carries in `idle-streams`: less than any peer's limit.
const STREAMS_OF_CONNECTION: usize = 100;
/// Connections that are dialed at once in `idle-conns`.
const DIALS_AT_ONCE: usize = 32;
/// `bulk-loaded-rr` ends after so long, with fewer requests.
const LOADED_MAX: Duration = Duration::from_secs(4);
/// Nothing takes longer, but for what moves bytes.
const STEP_MAX: Duration = Duration::from_secs(60);

type Figures = Map<String, Value>;

/// Runs the scenario of `args`; gives one line of JSON.
pub(crate) async fn run<N: Node>(args: &Args) -> Result<String, Failure> {
    let mut line = Map::new();
    line.insert("impl".into(), json!(N::NAME));
    line.insert("transport".into(), json!(args.transport));
    line.insert("scenario".into(), json!(args.scenario));
    line.insert("rt".into(), json!(args.runtime.name()));
    line.insert("tune".into(), json!(args.tune));
    let figures = match args.scenario.as_str() {
        "bulk-up" => bulk::<N>(args, true).await?,
        "bulk-down" => bulk::<N>(args, false).await?,
        "handshakes" => dials::<N>(args, false).await?,
        "dial-ping" => dials::<N>(args, true).await?,
        "streams" => streams::<N>(args).await?,
        "rr" => rr::<N>(args).await?,
        "idle-conns" => idle_conns::<N>(args).await?,
        "idle-streams" => idle_streams::<N>(args).await?,
        "round-trips" => round_trips::<N>(args).await?,
        "bulk-loaded-rr" => loaded_rr::<N>(args).await?,
        other => return Err(format!("no scenario {other}").into()),
    };
    line.extend(figures);
    Ok(Value::Object(line).to_string())
}

async fn step<T, E: Display>(
    what: &str,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(STEP_MAX, work).await {
        Ok(done) => done.map_err(|error| format!("{what}: {error}").into()),
        Err(_) => Err(format!("{what}: not done within {STEP_MAX:?}").into()),
    }
}

/// A node and its connection.
struct Client<N: Node> {
    node: N,
    connection: N::Connection,
}

impl<N: Node> Client<N> {
    async fn connect(args: &Args) -> Result<Arc<Self>, Failure> {
        let node = step("starting", N::start(args)).await?;
        let connection = step("connecting", node.connect(&args.addr)).await?;
        Ok(Arc::new(Self { node, connection }))
    }

    async fn open(&self, protocol: Protocol) -> Result<N::Stream, Failure> {
        step("opening a stream", self.node.open(&self.connection, protocol)).await
    }

    /// How many allocations there were in both processes, where they are counted.
    async fn allocations(&self) -> Result<Option<u64>, Failure> {
        let Some(own) = serve::allocations() else { return Ok(None) };
        let mut stream = self.open(Protocol::Allocations).await?;
        let mut theirs = [0; 8];
        stream.finish().await?;
        stream.read_exact(&mut theirs).await?;
        Ok(Some(own + u64::from_be_bytes(theirs)))
    }

    /// Runs `work`, and adds what it has cost to the figures, for each of `units`.
    async fn costs<T>(
        &self,
        args: &Args,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<(T, Cost), Failure> {
        let before = self.allocations().await?;
        let (begun, cpu) = (Instant::now(), cpu_time(args));
        let done = work.await?;
        let (wall, cpu) = (begun.elapsed(), cpu_time(args).zip(cpu).map(|(b, a)| b - a));
        let allocations = self.allocations().await?.zip(before).map(|(b, a)| b - a);
        Ok((done, Cost { wall, cpu, allocations }))
    }
}

struct Cost {
    wall: Duration,
    /// Of both processes.
    cpu: Option<Duration>,
    allocations: Option<u64>,
}

impl Cost {
    fn per(&self, count: usize, figures: &mut Figures) {
        let count = count as f64;
        figures.insert("per_s".into(), json!(count / self.wall.as_secs_f64()));
        if let Some(cpu) = self.cpu {
            figures.insert("cpu_us_each".into(), json!(cpu.as_secs_f64() * 1e6 / count));
        }
        if let Some(allocations) = self.allocations {
            figures.insert("allocations_each".into(), json!(allocations as f64 / count));
        }
    }
}

/// Of this process and the server.
fn cpu_time(args: &Args) -> Option<Duration> {
    let own = process::cpu_time(std::process::id())?;
    Some(own + process::cpu_time(args.server_pid?)?)
}

fn percentiles(times: &mut Times, of: &[usize], figures: &mut Figures) {
    for percent in of {
        figures.insert(format!("p{percent}_us"), json!(times.percentile(*percent)));
    }
}

async fn bulk<N: Node>(args: &Args, up: bool) -> Result<Figures, Failure> {
    let streams = args.streams.unwrap_or(1).max(1);
    let client = Client::<N>::connect(args).await?;
    transfer(&client, args.warmup, streams, up).await?;
    let bytes = args.bytes - args.bytes % streams as u64;
    let ((), cost) = client.costs(args, transfer(&client, bytes, streams, up)).await?;
    let mut figures = Map::new();
    figures.insert("bytes".into(), json!(bytes));
    figures.insert("streams".into(), json!(streams));
    figures.insert("gb_per_s".into(), json!(bytes as f64 / cost.wall.as_secs_f64() / 1e9));
    let gib = bytes as f64 / (1_u64 << 30) as f64;
    if let Some(cpu) = cost.cpu {
        figures.insert("cpu_s_per_gib".into(), json!(cpu.as_secs_f64() / gib));
    }
    if let Some(allocations) = cost.allocations {
        figures.insert("allocations_per_mib".into(), json!(allocations as f64 / gib / 1024.0));
    }
    Ok(figures)
}

/// Moves so many bytes over so many streams at once, until the receiver has seen their end.
async fn transfer<N: Node>(
    client: &Arc<Client<N>>,
    bytes: u64,
    streams: usize,
    up: bool,
) -> Result<(), Failure> {
    let each = bytes / streams as u64;
    let mut tasks = JoinSet::new();
    for _ in 0..streams {
        let client = Arc::clone(client);
        tasks.spawn(async move {
            let stream = client.open(Protocol::Perf).await?;
            if up { upload(stream, each, None).await } else { download(stream, each).await }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

/// One byte back is the receiver's word that it has seen all, and found it right. With `until`,
/// sends until it is set, and counts there.
async fn upload(
    mut stream: impl Stream,
    bytes: u64,
    until: Option<(&AtomicBool, &AtomicU64)>,
) -> Result<(), Failure> {
    stream.send(&[0, 0, 0, 0, 0, 0, 0, 1]).await?;
    match until {
        None => serve::send(&mut stream, bytes).await?,
        Some((ended, sent)) => {
            let mut pattern = Pattern::default();
            while !ended.load(Ordering::Relaxed) {
                stream.send(pattern.next(PIECE_LEN as u64)).await?;
                sent.fetch_add(PIECE_LEN as u64, Ordering::Relaxed);
            }
        }
    }
    stream.finish().await?;
    receive(stream, 1).await
}

async fn download(mut stream: impl Stream, bytes: u64) -> Result<(), Failure> {
    stream.say(&bytes.to_be_bytes()).await?;
    stream.finish().await?;
    receive(stream, bytes).await
}

async fn receive(mut stream: impl Stream, bytes: u64) -> Result<(), Failure> {
    let (mut pattern, mut buffer) = (Pattern::default(), Buffer::default());
    while stream.take(&mut pattern, &mut buffer).await? > 0 {}
    if pattern.at() == bytes {
        return Ok(());
    }
    Err(format!("{} bytes instead of {bytes}", pattern.at()).into())
}

/// Each worker has a node of its own: a node would share one dial between all that ask for it.
async fn dials<N: Node>(args: &Args, ping: bool) -> Result<Figures, Failure> {
    let concurrency = args.concurrency.max(1);
    let count = args.count.unwrap_or(500).max(1).div_ceil(concurrency) * concurrency;
    let mut nodes = Vec::new();
    for _ in 0..concurrency {
        let node = step("starting", N::start(args)).await?;
        // The first of a node is not counted.
        dial(&node, args, ping).await?;
        nodes.push(node);
    }
    let (begun, cpu) = (Instant::now(), cpu_time(args));
    let mut tasks = JoinSet::new();
    for node in nodes {
        let args = args.clone();
        tasks.spawn(async move {
            let mut times = Times::default();
            for _ in 0..count / concurrency {
                times.push(dial(&node, &args, ping).await?);
            }
            // It ends when all is measured.
            Ok::<_, Failure>((node, times))
        });
    }
    let (mut times, mut nodes) = (Times::default(), Vec::new());
    while let Some(done) = tasks.join_next().await {
        let (node, those) = done??;
        nodes.push(node);
        times.append(those);
    }
    let cpu = cpu_time(args).zip(cpu).map(|(b, a)| b - a);
    let cost = Cost { wall: begun.elapsed(), cpu, allocations: None };
    let mut figures = Map::new();
    figures.insert("count".into(), json!(count));
    figures.insert("concurrency".into(), json!(concurrency));
    cost.per(count, &mut figures);
    percentiles(&mut times, &[50, 99], &mut figures);
    Ok(figures)
}

/// How long it took until there was a connection, or the first pong; closing it is not in it.
async fn dial<N: Node>(node: &N, args: &Args, ping: bool) -> Result<Duration, Failure> {
    let begun = Instant::now();
    let connection = step("connecting", node.connect(&args.addr)).await?;
    if ping {
        let mut stream = step("opening a stream", node.open(&connection, Protocol::Ping)).await?;
        exchange(&mut stream, 0).await?;
    }
    let time = begun.elapsed();
    step("closing", node.close(connection)).await?;
    Ok(time)
}

/// One message and its echo, which is no other's.
async fn exchange(stream: &mut impl Stream, number: u64) -> Result<(), Failure> {
    let mut message = [0x5a; MESSAGE_LEN];
    message[..8].copy_from_slice(&number.to_le_bytes());
    let mut answer = [0; MESSAGE_LEN];
    stream.say(&message).await?;
    stream.read_exact(&mut answer).await?;
    if answer == message { Ok(()) } else { Err("a wrong echo".into()) }
}

async fn streams<N: Node>(args: &Args) -> Result<Figures, Failure> {
    let concurrency = args.concurrency.max(1);
    let count = args.count.unwrap_or(20_000).max(1).div_ceil(concurrency) * concurrency;
    let client = Client::<N>::connect(args).await?;
    many(&client, concurrency, count.div_ceil(20)).await?;
    let (mut times, cost) = client.costs(args, many(&client, concurrency, count)).await?;
    let mut figures = Map::new();
    figures.insert("count".into(), json!(count));
    figures.insert("concurrency".into(), json!(concurrency));
    cost.per(count, &mut figures);
    percentiles(&mut times, &[50, 99], &mut figures);
    Ok(figures)
}

/// Opens, uses and closes streams.
async fn many<N: Node>(
    client: &Arc<Client<N>>,
    concurrency: usize,
    count: usize,
) -> Result<Times, Failure> {
    let mut tasks = JoinSet::new();
    for worker in 0..concurrency {
        let client = Arc::clone(client);
        tasks.spawn(async move {
            let mut times = Times::default();
            for number in 0..count / concurrency {
                let begun = Instant::now();
                let mut stream = client.open(Protocol::Echo).await?;
                exchange(&mut stream, (worker * count + number) as u64).await?;
                stream.finish().await?;
                if stream.read(&mut [0]).await? > 0 {
                    return Err("more than the echo".into());
                }
                times.push(begun.elapsed());
            }
            Ok::<_, Failure>(times)
        });
    }
    let mut times = Times::default();
    while let Some(done) = tasks.join_next().await {
        times.append(done??);
    }
    Ok(times)
}

async fn rr<N: Node>(args: &Args) -> Result<Figures, Failure> {
    let count = args.count.unwrap_or(50_000).max(1);
    let client = Client::<N>::connect(args).await?;
    let mut stream = client.open(Protocol::Echo).await?;
    exchanges(&mut stream, count.div_ceil(20), None).await?;
    let (mut times, cost) = client.costs(args, exchanges(&mut stream, count, None)).await?;
    let mut figures = Map::new();
    figures.insert("count".into(), json!(count));
    cost.per(count, &mut figures);
    percentiles(&mut times, &[50, 90, 99], &mut figures);
    Ok(figures)
}

async fn exchanges(
    stream: &mut impl Stream,
    count: usize,
    limit: Option<Duration>,
) -> Result<Times, Failure> {
    let started = Instant::now();
    let mut times = Times::default();
    for number in 0..count {
        let begun = Instant::now();
        if limit.is_some_and(|limit| begun - started > limit) {
            break;
        }
        exchange(stream, number as u64).await?;
        times.push(begun.elapsed());
    }
    Ok(times)
}

/// Resident memory of the server, and of this process.
async fn memory(args: &Args) -> Result<[u64; 2], Failure> {
    tokio::time::sleep(args.settle).await;
    let server = args.server_pid.ok_or("it needs --server-pid")?;
    let resident = process::resident(server).zip(process::resident(std::process::id()));
    let (server, client) = resident.ok_or("the system does not tell the memory")?;
    Ok([server, client])
}

fn kib_each(before: [u64; 2], after: [u64; 2], count: usize, unit: &str) -> Figures {
    let mut figures = Map::new();
    for (index, side) in ["server", "client"].into_iter().enumerate() {
        let each = (after[index] as f64 - before[index] as f64) / 1024.0 / count as f64;
        figures.insert(format!("{side}_kib_per_{unit}"), json!(each));
    }
    figures
}

/// The nodes are in the baseline: what is measured is what a connection adds.
async fn connected<N: Node>(
    args: &Args,
    count: usize,
) -> Result<([u64; 2], Vec<Arc<Client<N>>>), Failure> {
    let mut nodes = Vec::new();
    for _ in 0..count {
        nodes.push(step("starting", N::start(args)).await?);
    }
    let before = memory(args).await?;
    let at_once = Arc::new(tokio::sync::Semaphore::new(DIALS_AT_ONCE));
    let mut tasks = JoinSet::new();
    for node in nodes {
        let (args, at_once) = (args.clone(), Arc::clone(&at_once));
        tasks.spawn(async move {
            let _permit = at_once.acquire_owned().await?;
            let connection = step("connecting", node.connect(&args.addr)).await?;
            Ok::<_, Failure>(Arc::new(Client { node, connection }))
        });
    }
    let mut clients = Vec::new();
    while let Some(done) = tasks.join_next().await {
        clients.push(done??);
    }
    Ok((before, clients))
}

async fn idle_conns<N: Node>(args: &Args) -> Result<Figures, Failure> {
    let (before, clients) = connected::<N>(args, args.conns).await?;
    let after = memory(args).await?;
    let mut figures = kib_each(before, after, args.conns, "conn");
    figures.insert("conns".into(), json!(args.conns));
    // They are alive.
    for client in clients.iter().step_by(clients.len().div_ceil(50)) {
        exchange(&mut client.open(Protocol::Echo).await?, 1).await?;
    }
    Ok(figures)
}

async fn idle_streams<N: Node>(args: &Args) -> Result<Figures, Failure> {
    let count = args.streams.unwrap_or(1000);
    let conns = count.div_ceil(STREAMS_OF_CONNECTION).max(1);
    let (_, clients) = connected::<N>(args, conns).await?;
    let before = memory(args).await?;
    let mut streams = Vec::new();
    for index in 0..count {
        let mut stream = clients[index % conns].open(Protocol::Echo).await?;
        exchange(&mut stream, index as u64).await?;
        streams.push(stream);
    }
    let after = memory(args).await?;
    let mut figures = kib_each(before, after, count, "stream");
    figures.insert("streams".into(), json!(count));
    figures.insert("conns".into(), json!(conns));
    for (index, stream) in streams.iter_mut().enumerate() {
        exchange(stream, index as u64).await?;
    }
    Ok(figures)
}

async fn round_trips<N: Node>(args: &Args) -> Result<Figures, Failure> {
    let mut times = [Times::default(), Times::default(), Times::default()];
    let node = step("starting", N::start(args)).await?;
    for number in 0..args.count.unwrap_or(5).max(1) {
        let begun = Instant::now();
        let connection = step("connecting", node.connect(&args.addr)).await?;
        times[0].push(begun.elapsed());
        let mut stream = step("opening", node.open(&connection, Protocol::Echo)).await?;
        times[1].push(begun.elapsed());
        exchange(&mut stream, number as u64).await?;
        times[2].push(begun.elapsed());
        drop(stream);
        step("closing", node.close(connection)).await?;
    }
    let rtt = args.rtt.as_secs_f64() * 1e3;
    let mut figures = Map::new();
    figures.insert("rtt_ms".into(), json!(rtt));
    for (name, times) in ["connected_ms", "stream_open_ms", "first_echo_ms"].iter().zip(&mut times)
    {
        figures.insert((*name).into(), json!(times.percentile(50) / 1e3));
    }
    figures.insert("round_trips".into(), json!(times[2].percentile(50) / 1e3 / rtt));
    Ok(figures)
}

async fn loaded_rr<N: Node>(args: &Args) -> Result<Figures, Failure> {
    let streams = args.streams.unwrap_or(63);
    let count = args.count.unwrap_or(2000).max(1);
    let client = Client::<N>::connect(args).await?;
    let (ended, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut tasks = JoinSet::new();
    for _ in 0..streams {
        let (client, ended, sent) = (Arc::clone(&client), Arc::clone(&ended), Arc::clone(&sent));
        tasks.spawn(async move {
            let stream = client.open(Protocol::Perf).await?;
            upload(stream, 0, Some((&ended, &sent))).await
        });
    }
    let mut stream = client.open(Protocol::Echo).await?;
    exchanges(&mut stream, count.div_ceil(20), Some(LOADED_MAX / 4)).await?;
    let (begun, before) = (Instant::now(), sent.load(Ordering::Relaxed));
    let mut times = exchanges(&mut stream, count, Some(LOADED_MAX)).await?;
    let moved = sent.load(Ordering::Relaxed) - before;
    let wall = begun.elapsed();
    ended.store(true, Ordering::Relaxed);
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    let mut figures = Map::new();
    figures.insert("streams".into(), json!(streams));
    figures.insert("count".into(), json!(times.len()));
    percentiles(&mut times, &[50, 99], &mut figures);
    figures.insert("gb_per_s".into(), json!(moved as f64 / wall.as_secs_f64() / 1e9));
    Ok(figures)
}
