//! Every await point of a connection's life cancelled once, and every call of its pipe failed
//! once: dial, accept, negotiation, handshake, opening, reading, writing, closing.
//!
//! `crates/p2p/tests/faults.rs` cuts, stalls and changes every byte. Here the pipe itself fails, as
//! a socket does, and those who wait are dropped. What matters is the same: everything ends, and
//! nothing is left: no task, no place among the limits, no memory.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "../../p2p/tests/common/mod.rs"]
mod common;

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use common::{Memory, Network, echo, echo_once, tasks};
use p2p::{
    Host, Keypair,
    core::{
        DialTarget, Incoming, Link, ListenEvent, Listener, Multiaddr, Pipe, Role, Transport,
        TransportError,
    },
};
use p2p_mux::Yamux;
use p2p_security_noise::Noise;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    sync::Notify,
    time::timeout,
};

/// By then every wait that there is has run out.
const ALL_LIMITS: Duration = Duration::from_secs(200);
/// The most that a call of a pipe takes or gives, in bytes, so that there are many.
const PIECE: usize = 48;
/// No exchange of these tests makes as many calls, or takes as many polls.
const POINTS_MAX: usize = 5_000;

/// Something that happens at one call of a pipe, counted from 0 over reads, writes, flushes and
/// shutdowns.
struct Trip {
    at: usize,
    /// The call fails, and all that follow; otherwise somebody is told, and the pipe goes on.
    fails: Option<io::ErrorKind>,
    calls: AtomicUsize,
    reached: AtomicBool,
    told: Notify,
}

impl Trip {
    fn new(at: usize, fails: Option<io::ErrorKind>) -> Arc<Self> {
        let (calls, reached, told) = Default::default();
        Arc::new(Self { at, fails, calls, reached, told })
    }

    fn never() -> Arc<Self> {
        Self::new(usize::MAX, None)
    }

    fn was_reached(&self) -> bool {
        self.reached.load(Ordering::Relaxed)
    }

    fn call(&self) -> io::Result<()> {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        if number < self.at {
            return Ok(());
        }
        if !self.reached.swap(true, Ordering::Relaxed) {
            self.told.notify_one();
        }
        self.fails.map_or(Ok(()), |kind| Err(kind.into()))
    }
}

struct Tripping<P> {
    pipe: P,
    trip: Arc<Trip>,
}

impl<P: AsyncRead + Unpin> AsyncRead for Tripping<P> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.trip.call()?;
        let mut piece = vec![0; buf.remaining().min(PIECE)];
        let mut small = ReadBuf::new(&mut piece);
        let read = Pin::new(&mut self.pipe).poll_read(cx, &mut small);
        buf.put_slice(small.filled());
        read
    }
}

impl<P: AsyncWrite + Unpin> AsyncWrite for Tripping<P> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.trip.call()?;
        Pin::new(&mut self.pipe).poll_write(cx, &buf[..buf.len().min(PIECE)])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.trip.call()?;
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.trip.call()?;
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

/// The trip of the links that are made next.
#[derive(Clone)]
struct Next(Arc<Mutex<Arc<Trip>>>);

impl Next {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Trip::never())))
    }

    fn set(&self, trip: &Arc<Trip>) {
        *self.0.lock().unwrap() = Arc::clone(trip);
    }

    fn wrap(&self, link: Link) -> Link {
        let Link::Pipe(Pipe { read, write, .. }) = link else { panic!("links are pipes") };
        let trip = Arc::clone(&self.0.lock().unwrap());
        let read = Tripping { pipe: read, trip: Arc::clone(&trip) };
        Link::Pipe(Pipe::new(read, Tripping { pipe: write, trip }))
    }
}

/// The network in memory, with links that trip.
struct TrippingMemory {
    memory: Memory,
    next: Next,
}

struct TrippingListener {
    listener: Box<dyn Listener>,
    next: Next,
}

#[async_trait]
impl Transport for TrippingMemory {
    fn supports(&self, addr: &Multiaddr) -> bool {
        self.memory.supports(addr)
    }

    async fn dial(&self, target: DialTarget) -> Result<Link, TransportError> {
        Ok(self.next.wrap(self.memory.dial(target).await?))
    }

    async fn listen(&self, addr: Multiaddr) -> Result<Box<dyn Listener>, TransportError> {
        let listener = self.memory.listen(addr).await?;
        Ok(Box::new(TrippingListener { listener, next: self.next.clone() }))
    }
}

#[async_trait]
impl Listener for TrippingListener {
    fn addrs(&self) -> Vec<Multiaddr> {
        self.listener.addrs()
    }

    async fn next(&mut self) -> Result<ListenEvent, TransportError> {
        let event = self.listener.next().await?;
        let ListenEvent::Incoming(incoming) = event else { return Ok(event) };
        let (local, remote) = (incoming.local.clone(), incoming.remote.clone());
        let next = self.next.clone();
        let link = async move { Ok(next.wrap(incoming.link().await?)) };
        Ok(ListenEvent::Incoming(Incoming::new(local, remote, link)))
    }
}

/// Polls a future so many times, and then drops it.
async fn polled<T>(polls: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = Box::pin(future);
    let mut left = polls;
    let outcome = std::future::poll_fn(|cx| {
        let Some(less) = left.checked_sub(1) else { return Poll::Ready(None) };
        left = less;
        future.as_mut().poll(cx).map(Some)
    });
    timeout(ALL_LIMITS, outcome).await.expect("it hangs")
}

/// A listener, and a bystander who must not notice anything.
struct Scene {
    network: Network,
    listener: Host,
    /// The links that the listener takes.
    accepted: Next,
    bystander: Host,
    addr: String,
    at_rest: usize,
}

impl Scene {
    async fn set() -> Self {
        let network = Network::default();
        let accepted = Next::new();
        let transport = TrippingMemory { memory: network.transport(None), next: accepted.clone() };
        let listener = host(transport).listen("/memory/7").spawn().await.unwrap();
        listener.handle("/echo/1.0.0", echo).unwrap();
        let addr = listener.addrs().remove(0);
        let bystander = host(network.transport(None)).spawn().await.unwrap();
        assert_eq!(echo_once(&bystander, &addr, b"before").await.unwrap(), b"before");
        tokio::time::sleep(Duration::from_secs(20)).await;
        let mut scene = Self { network, listener, accepted, bystander, addr, at_rest: 0 };
        scene.at_rest = tasks();
        scene
    }

    /// A dialer whose links trip.
    async fn dialer(&self, trip: &Arc<Trip>) -> (Host, Next) {
        let next = Next::new();
        next.set(trip);
        let memory = self.network.transport(None);
        let identity = Keypair::from_ed25519_seed(&[5; 32]);
        let transport = TrippingMemory { memory, next: next.clone() };
        (host(transport).identity(identity).spawn().await.unwrap(), next)
    }

    /// That nobody but the bystander is left, and that it was not disturbed.
    async fn is_as_before(&self, point: usize) {
        self.accepted.set(&Trip::never());
        let begun = tokio::time::Instant::now();
        let back = echo_once(&self.bystander, &self.addr, b"during").await;
        assert_eq!(back.as_deref(), Ok(&b"during"[..]), "at {point}");
        assert_eq!(begun.elapsed(), Duration::ZERO, "the bystander had to wait, at {point}");
        tokio::time::sleep(Duration::from_secs(40)).await;
        let usage = self.listener.usage();
        assert_eq!(usage.pending_inbound.count, 0, "at {point}");
        assert_eq!(usage.connections_inbound.count, 1, "at {point}");
        assert_eq!(
            (usage.streams_inbound.count, usage.streams_outbound.count),
            (0, 0),
            "at {point}"
        );
        assert_eq!(tasks(), self.at_rest, "a task is left behind, at {point}");
    }

    async fn end(self) {
        self.bystander.close().await;
        self.listener.close().await;
        assert_eq!(tasks(), 0);
    }
}

fn host(transport: impl Transport) -> p2p::Builder {
    p2p::builder()
        .transport(transport)
        .idle_timeout(Duration::from_secs(30_000))
        .drain_timeout(Duration::from_secs(1))
}

/// The whole life of a connection: dialed, used both ways, closed.
async fn life(dialer: &Host, addr: &str) -> Result<(), String> {
    let back = echo_once(dialer, addr, &[7; 500]).await?;
    assert_eq!(back, [7; 500], "what came back is neither whole nor an error");
    dialer.ping(addr).await.map_err(|error| error.to_string())?;
    dialer.close().await;
    Ok(())
}

async fn ends(what: &str, point: usize, future: impl Future<Output = ()>) {
    let ended = timeout(ALL_LIMITS, future).await;
    ended.unwrap_or_else(|_| panic!("{what} hangs at {point}"));
}

/// Fails each call in turn, of the dialer's pipe or of the listener's. Gives how many there are.
async fn each_call_fails(scene: &Scene, dialers: bool, kind: io::ErrorKind) -> usize {
    for point in 0..POINTS_MAX {
        let trip = Trip::new(point, Some(kind));
        let (dialer, next) = scene.dialer(&trip).await;
        if !dialers {
            next.set(&Trip::never());
            scene.accepted.set(&trip);
        }
        ends("a life", point, async {
            if let Err(text) = life(&dialer, &scene.addr).await {
                assert!(!text.is_empty());
            }
        })
        .await;
        ends("the dialer's close", point, dialer.close()).await;
        drop(dialer);
        scene.is_as_before(point).await;
        if !trip.was_reached() {
            return point;
        }
    }
    panic!("a life makes more than {POINTS_MAX} calls");
}

/// Drops what waits, at each call in turn: `cancel` says what.
async fn each_call_is_cancelled(scene: &Scene, dialers: bool, cancel: Cancel) -> usize {
    for point in 0..POINTS_MAX {
        let trip = Trip::new(point, None);
        let (dialer, next) = scene.dialer(&trip).await;
        if !dialers {
            next.set(&Trip::never());
            scene.accepted.set(&trip);
        }
        let cancelled = async {
            tokio::select! {
                biased;
                () = trip.told.notified() => {}
                outcome = life(&dialer, &scene.addr) => outcome.unwrap(),
            }
        };
        ends("a life", point, cancelled).await;
        match cancel {
            Cancel::Call if trip.was_reached() => {
                next.set(&Trip::never());
                scene.accepted.set(&Trip::never());
                // A moment later nothing of it is counted, and the host is good for another try.
                tokio::time::sleep(Duration::from_secs(15)).await;
                let usage = dialer.usage();
                let counts = [usage.pending_outbound, usage.dials_at_once, usage.streams_outbound];
                assert_eq!(counts.map(|used| used.count), [0; 3], "at {point}");
                // One that was closed meanwhile says so.
                let again = echo_once(&dialer, &scene.addr, b"again").await;
                let good = again.as_deref() == Ok(&b"again"[..]);
                assert!(good || again.is_err_and(|text| text.contains("closed")), "at {point}");
                ends("the dialer's close", point, dialer.close()).await;
            }
            Cancel::Call => ends("the dialer's close", point, dialer.close()).await,
            Cancel::Host => {}
        }
        drop(dialer);
        scene.is_as_before(point).await;
        if !trip.was_reached() {
            return point;
        }
    }
    panic!("a life makes more than {POINTS_MAX} calls");
}

#[derive(Clone, Copy)]
enum Cancel {
    /// The application's call alone.
    Call,
    /// The whole host of the dialer.
    Host,
}

/// Runs a test twice: the second time nothing may be left of it.
fn leaves_nothing(test: impl AsyncFn(&Scene) -> usize, points_min: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let scene = runtime.block_on(Scene::set());
    let points = runtime.block_on(test(&scene));
    assert!(points >= points_min, "only {points} points");
    let info = allocation_counter::measure(|| {
        assert_eq!(runtime.block_on(test(&scene)), points, "not the same the second time");
    });
    eprintln!("{points} points, {} bytes left after all of them", info.bytes_current);
    assert!(info.bytes_current < 32 << 10, "{} bytes are left", info.bytes_current);
    runtime.block_on(scene.end());
}

#[test]
fn each_call_of_the_dialers_pipe_fails() {
    leaves_nothing(
        async |scene| each_call_fails(scene, true, io::ErrorKind::ConnectionReset).await,
        50,
    );
}

#[test]
fn each_call_of_the_listeners_pipe_fails() {
    leaves_nothing(
        async |scene| each_call_fails(scene, false, io::ErrorKind::ConnectionReset).await,
        50,
    );
}

#[test]
fn each_call_of_the_dialers_pipe_fails_as_nothing_is_expected_to() {
    leaves_nothing(
        async |scene| each_call_fails(scene, true, io::ErrorKind::OutOfMemory).await,
        50,
    );
}

#[test]
fn a_life_is_given_up_at_each_call_of_the_dialers_pipe() {
    leaves_nothing(async |scene| each_call_is_cancelled(scene, true, Cancel::Call).await, 50);
}

#[test]
fn a_life_is_given_up_at_each_call_of_the_listeners_pipe() {
    leaves_nothing(async |scene| each_call_is_cancelled(scene, false, Cancel::Call).await, 50);
}

#[test]
fn a_host_is_dropped_at_each_call_of_its_pipe() {
    leaves_nothing(async |scene| each_call_is_cancelled(scene, true, Cancel::Host).await, 50);
}

#[test]
fn a_host_is_dropped_at_each_call_of_its_peers_pipe() {
    leaves_nothing(async |scene| each_call_is_cancelled(scene, false, Cancel::Host).await, 50);
}

/// Drops a call of a host after each number of polls. `call` gives whether it was done.
async fn each_poll_of(scene: &Scene, call: impl AsyncFn(&Host, &str, usize) -> bool) -> usize {
    for point in 0..POINTS_MAX {
        let (dialer, _) = scene.dialer(&Trip::never()).await;
        let done = call(&dialer, &scene.addr, point).await;
        tokio::time::sleep(Duration::from_secs(15)).await;
        let usage = dialer.usage();
        let counts = [usage.pending_outbound, usage.dials_at_once, usage.streams_outbound];
        assert_eq!(counts.map(|used| used.count), [0; 3], "at {point}");
        ends("the dialer's close", point, dialer.close()).await;
        drop(dialer);
        scene.is_as_before(point).await;
        if done {
            return point;
        }
    }
    panic!("it takes more than {POINTS_MAX} polls");
}

#[test]
fn a_dial_is_dropped_at_each_poll() {
    let call = async |dialer: &Host, addr: &str, polls| {
        polled(polls, dialer.connect(addr)).await.is_some()
    };
    leaves_nothing(async |scene| each_poll_of(scene, call).await, 2);
}

#[test]
fn an_opening_is_dropped_at_each_poll() {
    for optimistic in [false, true] {
        let call = async |dialer: &Host, addr: &str, polls| {
            dialer.connect(addr).await.unwrap();
            let opening = dialer.open(addr, "/echo/1.0.0");
            let opening = if optimistic { opening.optimistic() } else { opening };
            polled(polls, opening.into_future()).await.is_some()
        };
        leaves_nothing(async |scene| each_poll_of(scene, call).await, 1);
    }
}

#[test]
fn writing_is_dropped_at_each_poll() {
    let call = async |dialer: &Host, addr: &str, polls| {
        let mut stream = dialer.open(addr, "/echo/1.0.0").await.unwrap();
        let (mut read, mut write) = tokio::io::split(&mut stream);
        let data = vec![7; 600_000];
        let write = async {
            write.write_all(&data).await.unwrap();
            write.shutdown().await.unwrap();
        };
        let read = async { read.read_to_end(&mut Vec::new()).await.unwrap() };
        let mut read = std::pin::pin!(read);
        let written = tokio::select! {
            written = polled(polls, write) => written.is_some(),
            _ = &mut read => false,
        };
        if written {
            assert_eq!(read.await, 600_000);
        }
        written
    };
    leaves_nothing(async |scene| each_poll_of(scene, call).await, 2);
}

#[test]
fn reading_is_dropped_at_each_poll() {
    let call = async |dialer: &Host, addr: &str, polls| {
        let mut stream = dialer.open(addr, "/echo/1.0.0").await.unwrap();
        stream.write_all(&[7; 20_000]).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut back = Vec::new();
        let read = polled(polls, stream.read_to_end(&mut back)).await;
        assert!(back.iter().all(|byte| *byte == 7));
        if read.is_none() {
            // What was not read yet is still there.
            stream.read_to_end(&mut back).await.unwrap();
        }
        assert_eq!(back.len(), 20_000);
        read.is_some()
    };
    leaves_nothing(async |scene| each_poll_of(scene, call).await, 2);
}

#[test]
fn ping_and_identify_are_dropped_at_each_poll() {
    let ping =
        async |dialer: &Host, addr: &str, polls| polled(polls, dialer.ping(addr)).await.is_some();
    leaves_nothing(async |scene| each_poll_of(scene, ping).await, 2);
    let identify = async |dialer: &Host, addr: &str, polls| {
        polled(polls, dialer.identify(addr)).await.is_some()
    };
    leaves_nothing(async |scene| each_poll_of(scene, identify).await, 2);
}

#[test]
fn closing_is_dropped_at_each_poll_and_can_be_gone_on_with() {
    let call = async |dialer: &Host, addr: &str, polls| {
        let mut stream = dialer.open(addr, "/echo/1.0.0").await.unwrap();
        stream.write_all(&[7; 2_000]).await.unwrap();
        let closed = polled(polls, dialer.close()).await;
        drop(stream);
        closed.is_some()
    };
    leaves_nothing(async |scene| each_poll_of(scene, call).await, 2);
}

/// Two futures over the ends of a pipe: one is dropped with its end after each number of polls, and
/// then the other must end.
async fn each_poll_of_a_pair<A, B>(
    one: impl AsyncFn(Tripping<tokio::io::DuplexStream>) -> A,
    other: impl AsyncFn(Tripping<tokio::io::DuplexStream>) -> B,
) -> usize {
    for point in 0..POINTS_MAX {
        let (near, far) = tokio::io::duplex(64);
        let wrap = |pipe| Tripping { pipe, trip: Trip::never() };
        let both = async { tokio::join!(polled(point, one(wrap(near))), other(wrap(far))).0 };
        let done = timeout(ALL_LIMITS, both).await.unwrap_or_else(|_| panic!("hangs at {point}"));
        if done.is_some() {
            return point;
        }
    }
    panic!("it takes more than {POINTS_MAX} polls");
}

#[tokio::test(start_paused = true)]
async fn a_negotiation_is_dropped_at_each_poll_of_either_side() {
    const ECHO: p2p::ProtocolId = p2p::ProtocolId::from_static("/echo/1.0.0");
    const NONE: p2p::ProtocolId = p2p::ProtocolId::from_static("/none/1.0.0");
    let initiate = async |mut io| p2p_multistream::initiate(&mut io, [NONE, ECHO]).await;
    let respond =
        async |mut io| p2p_multistream::respond(&mut io, |name| name == "/echo/1.0.0").await;
    assert!(each_poll_of_a_pair(initiate, respond).await > 2);
    assert!(each_poll_of_a_pair(respond, initiate).await > 2);
    assert_eq!(tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_handshake_is_dropped_at_each_poll_of_either_side() {
    let [ours, theirs] =
        [1, 2].map(|seed| Noise::new(&Keypair::from_ed25519_seed(&[seed; 32])).unwrap());
    let begin =
        async |io| p2p_security_noise::handshake(io, &ours, Role::Initiator, None).await.map(drop);
    let answer = async |io| {
        p2p_security_noise::handshake(io, &theirs, Role::Responder, None).await.map(drop)
    };
    assert!(each_poll_of_a_pair(begin, answer).await > 2);
    assert!(each_poll_of_a_pair(answer, begin).await > 2);
    assert_eq!(tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_connections_driver_is_dropped_at_each_poll() {
    let client = async |io| {
        let (mux, driver) = p2p_mux::connect(io, &Yamux::default(), Role::Initiator);
        let work = async {
            let mut stream = mux.open().await?;
            stream.write_all(&[7; 2_000]).await.map_err(drop).ok();
            stream.shutdown().await.ok();
            drop(stream.read_to_end(&mut Vec::new()).await);
            drop(mux);
            Ok::<_, p2p::core::ConnectionError>(())
        };
        tokio::join!(driver, work).0.to_string()
    };
    let server = async |io| {
        let (mut mux, driver) = p2p_mux::connect(io, &Yamux::default(), Role::Responder);
        let work = async {
            while let Ok(mut stream) = mux.accept().await {
                let mut heard = Vec::new();
                drop(stream.read_to_end(&mut heard).await);
                drop(stream.write_all(&heard).await);
                drop(stream.shutdown().await);
            }
        };
        tokio::join!(driver, work).0.to_string()
    };
    assert!(each_poll_of_a_pair(client, server).await > 10);
    assert!(each_poll_of_a_pair(server, client).await > 10);
    assert_eq!(tasks(), 0);
}
