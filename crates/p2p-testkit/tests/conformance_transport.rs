//! That each check of the transport suite can fail: a transport with one flaw for each.
#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "tests; every other flaw is meant"
)]

#[path = "../../p2p/tests/common/mod.rs"]
mod common;

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker, ready},
};

use async_trait::async_trait;
use common::{Memory, Network};
use p2p_core::{
    DialTarget, Incoming, Link, ListenEvent, Listener, Multiaddr, Pipe, PipeRead, Transport,
    TransportError,
};
use p2p_testkit::conformance;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    sync::oneshot,
};

/// What is wrong with a transport, or with the links that it dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    SupportsNothing,
    SupportsEverything,
    NamesAPeer,
    NamelessErrors,
    AcceptLosesWhatIsCancelled,
    AcceptWaitsForTheDialer,
    AThirdDialIsRefused,
    ADroppedDialStopsTheListener,
    IncomingOutlivesItsDrop,
    ListenerOutlivesItsDrop,
    LosesAByte,
    EndsBothHalvesAtOnce,
    SwallowsShutdown,
    ReadsHoldUpWrites,
    WakesTheFirst,
    TakesEverything,
    OutlivesItsDrop,
    AskedLosesAByte,
    AskedSaysTheEnd,
    AskedForgetsTheEnd,
}

struct Flawed {
    memory: Arc<Memory>,
    flaw: Flaw,
    dials: Arc<AtomicUsize>,
    dropped: Arc<AtomicUsize>,
}

/// A dial that is counted while it lives.
struct UnderWay(Arc<AtomicUsize>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts the futures that are dropped before their end.
struct Unfinished(Option<Arc<AtomicUsize>>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(count) = self.0.take() {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn refusal(addr: Multiaddr) -> TransportError {
    TransportError::Dial { addr, source: io::Error::from(io::ErrorKind::ConnectionRefused).into() }
}

#[async_trait]
impl Transport for Flawed {
    fn supports(&self, addr: &Multiaddr) -> bool {
        match self.flaw {
            Flaw::SupportsNothing => false,
            Flaw::SupportsEverything => true,
            _ => self.memory.supports(addr),
        }
    }

    async fn dial(&self, target: DialTarget) -> Result<Link, TransportError> {
        if !self.memory.supports(&target.addr) {
            let named =
                if self.flaw == Flaw::NamelessErrors { Multiaddr::empty() } else { target.addr };
            return Err(TransportError::Unsupported { addr: named });
        }
        let mut unfinished = Unfinished(Some(Arc::clone(&self.dropped)));
        let few = self.dials.fetch_add(1, Ordering::Relaxed) < 2;
        let under_way = UnderWay(Arc::clone(&self.dials));
        tokio::task::yield_now().await;
        drop(under_way);
        if self.flaw == Flaw::AThirdDialIsRefused && !few {
            return Err(refusal(target.addr));
        }
        if self.flaw == Flaw::ADroppedDialStopsTheListener
            && self.dropped.load(Ordering::Relaxed) > 2
        {
            std::future::pending::<()>().await;
        }
        let link = self.memory.dial(target).await?;
        unfinished.0 = None;
        let Link::Pipe(Pipe { read, write, .. }) = link else { return Ok(link) };
        Ok(Link::Pipe(flawed_pipe(self.flaw, read, write)))
    }

    async fn listen(&self, addr: Multiaddr) -> Result<Box<dyn Listener>, TransportError> {
        if !self.memory.supports(&addr) {
            return Err(TransportError::Unsupported { addr });
        }
        let listener = Some(self.memory.listen(addr).await?);
        Ok(Box::new(FlawedListener { listener, flaw: self.flaw }))
    }
}

struct FlawedListener {
    listener: Option<Box<dyn Listener>>,
    flaw: Flaw,
}

impl Drop for FlawedListener {
    fn drop(&mut self) {
        if self.flaw == Flaw::ListenerOutlivesItsDrop {
            std::mem::forget(self.listener.take());
        }
    }
}

#[async_trait]
impl Listener for FlawedListener {
    fn addrs(&self) -> Vec<Multiaddr> {
        let addrs = self.listener.as_ref().unwrap().addrs();
        let peer = "/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
        match self.flaw {
            Flaw::NamesAPeer => vec![format!("{}{peer}", addrs[0]).parse().unwrap()],
            _ => addrs,
        }
    }

    async fn next(&mut self) -> Result<ListenEvent, TransportError> {
        let event = self.listener.as_mut().unwrap().next().await?;
        let ListenEvent::Incoming(incoming) = event else { return Ok(event) };
        match self.flaw {
            Flaw::AcceptLosesWhatIsCancelled => {
                tokio::task::yield_now().await;
                Ok(ListenEvent::Incoming(incoming))
            }
            Flaw::AcceptWaitsForTheDialer => {
                let (local, remote) = (incoming.local.clone(), incoming.remote.clone());
                let Link::Pipe(mut pipe) = incoming.link().await? else { unreachable!() };
                let first = pipe.read.read_u8().await;
                Ok(ListenEvent::Incoming(Incoming::new(local, remote, async move {
                    drop(first);
                    Ok(Link::Pipe(pipe))
                })))
            }
            Flaw::IncomingOutlivesItsDrop => {
                let (local, remote) = (incoming.local.clone(), incoming.remote.clone());
                let (ask, asked) = oneshot::channel::<oneshot::Sender<_>>();
                tokio::spawn(async move {
                    match asked.await {
                        Ok(answer) => drop(answer.send(incoming.link().await)),
                        Err(_) => {
                            tokio::time::sleep(conformance::PATIENCE * 10).await;
                            drop(incoming);
                        }
                    }
                });
                Ok(ListenEvent::Incoming(Incoming::new(local, remote, async {
                    let (answer, link) = oneshot::channel();
                    assert!(ask.send(answer).is_ok(), "somebody waits for it");
                    link.await.unwrap()
                })))
            }
            _ => Ok(ListenEvent::Incoming(incoming)),
        }
    }
}

fn flawed_pipe(
    flaw: Flaw,
    read: impl AsyncRead + Unpin + Send + 'static,
    write: impl AsyncWrite + Unpin + Send + 'static,
) -> Pipe {
    let reading = Arc::new(AtomicUsize::new(0));
    if flaw == Flaw::OutlivesItsDrop {
        let (read, write) = (Box::leak(Box::new(read)), Box::leak(Box::new(write)));
        return Pipe::new(read, write);
    }
    Pipe::direct(
        FlawedRead { read, flaw, reading: Arc::clone(&reading), count: 0, first: None },
        FlawedWrite { write, flaw, reading, taken: Vec::new(), ended: false },
    )
}

struct FlawedRead<R> {
    read: R,
    flaw: Flaw,
    reading: Arc<AtomicUsize>,
    count: usize,
    first: Option<Waker>,
}

impl<R: AsyncRead + Unpin> AsyncRead for FlawedRead<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.flaw == Flaw::EndsBothHalvesAtOnce && this.reading.load(Ordering::Relaxed) > 1 {
            return Poll::Ready(Ok(()));
        }
        let waker = match this.flaw {
            Flaw::WakesTheFirst => this.first.get_or_insert_with(|| cx.waker().clone()).clone(),
            _ => cx.waker().clone(),
        };
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.read).poll_read(&mut Context::from_waker(&waker), buf);
        if polled.is_ready() {
            this.first = None;
            let len = buf.filled().len();
            if this.flaw == Flaw::LosesAByte && this.count < 100 && this.count + len - before >= 100
            {
                buf.set_filled(len - 1);
            }
            this.count += len - before;
        }
        if this.reading.load(Ordering::Relaxed) < 2 {
            this.reading.store(usize::from(polled.is_pending()), Ordering::Relaxed);
        }
        polled
    }
}

impl<R: AsyncRead + Unpin + Send> PipeRead for FlawedRead<R> {
    fn try_read(&mut self, buf: &mut [u8]) -> Option<io::Result<usize>> {
        let mut read = ReadBuf::new(buf);
        let polled =
            Pin::new(&mut self.read).poll_read(&mut Context::from_waker(Waker::noop()), &mut read);
        let len = read.filled().len();
        match (self.flaw, polled) {
            (Flaw::AskedSaysTheEnd, Poll::Pending) => Some(Ok(0)),
            (Flaw::AskedLosesAByte, Poll::Ready(Ok(()))) if len > 1 => Some(Ok(len - 1)),
            (Flaw::AskedForgetsTheEnd, Poll::Ready(Ok(()))) if len == 0 => {
                Some(Err(io::ErrorKind::WouldBlock.into()))
            }
            (_, Poll::Pending) => Some(Err(io::ErrorKind::WouldBlock.into())),
            (_, Poll::Ready(result)) => Some(result.map(|()| len)),
        }
    }
}

struct FlawedWrite<W> {
    write: W,
    flaw: Flaw,
    reading: Arc<AtomicUsize>,
    /// What was taken without room.
    taken: Vec<u8>,
    ended: bool,
}

impl<W: AsyncWrite + Unpin> FlawedWrite<W> {
    fn poll_pass_on(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.taken.is_empty() {
            let count = ready!(Pin::new(&mut self.write).poll_write(cx, &self.taken))?;
            self.taken.drain(..count);
        }
        Poll::Ready(Ok(()))
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for FlawedWrite<W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.flaw {
            Flaw::ReadsHoldUpWrites if self.reading.load(Ordering::Relaxed) == 1 => Poll::Pending,
            Flaw::TakesEverything => {
                self.taken.extend_from_slice(buf);
                // What does not go now goes later.
                match self.poll_pass_on(cx) {
                    Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                    Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(buf.len())),
                }
            }
            _ => Pin::new(&mut self.write).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_pass_on(cx))?;
        Pin::new(&mut self.write).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_pass_on(cx))?;
        match self.flaw {
            Flaw::SwallowsShutdown => Poll::Ready(Ok(())),
            Flaw::EndsBothHalvesAtOnce if !self.ended => {
                self.ended = true;
                self.reading.store(2, Ordering::Relaxed);
                Pin::new(&mut self.write).poll_shutdown(cx)
            }
            _ => Pin::new(&mut self.write).poll_shutdown(cx),
        }
    }
}

/// The check that the suite names for a transport with `flaw`; none where all is well.
async fn verdict(flaw: Flaw) -> Option<conformance::Violation> {
    let memory = Arc::new(Network::default().transport(None));
    let (dials, dropped) = (Arc::default(), Arc::default());
    let transport = Arc::new(Flawed { memory, flaw, dials, dropped });
    let addr = |text: &str| text.parse::<Multiaddr>().unwrap();
    let checked =
        conformance::transport(transport, addr("/memory/7"), addr("/ip4/127.0.0.1/tcp/1")).await;
    checked.err()
}

#[tokio::test(start_paused = true)]
async fn each_check_of_a_transport_finds_its_flaw() {
    assert_eq!(verdict(Flaw::None).await, None);
    for (flaw, check) in [
        (Flaw::SupportsNothing, "addresses"),
        (Flaw::NamesAPeer, "addresses"),
        (Flaw::SupportsEverything, "foreign addresses"),
        (Flaw::NamelessErrors, "foreign addresses"),
        (Flaw::AcceptLosesWhatIsCancelled, "cancelled accept"),
        (Flaw::AcceptWaitsForTheDialer, "silent dialer"),
        (Flaw::ADroppedDialStopsTheListener, "dropped dial"),
        (Flaw::AThirdDialIsRefused, "many at once"),
        (Flaw::IncomingOutlivesItsDrop, "dropped incoming"),
        (Flaw::ListenerOutlivesItsDrop, "dropped listener"),
        (Flaw::LosesAByte, "both ways"),
        (Flaw::EndsBothHalvesAtOnce, "half-close"),
        (Flaw::SwallowsShutdown, "half-close"),
        (Flaw::ReadsHoldUpWrites, "halves"),
        (Flaw::WakesTheFirst, "last waker"),
        (Flaw::TakesEverything, "back-pressure"),
        (Flaw::OutlivesItsDrop, "dropped link"),
        (Flaw::AskedLosesAByte, "asked directly"),
        (Flaw::AskedSaysTheEnd, "asked directly"),
        (Flaw::AskedForgetsTheEnd, "asked directly"),
    ] {
        let violation = verdict(flaw).await;
        let found = violation.as_ref().map(conformance::Violation::check);
        assert_eq!(found, Some(check), "{flaw:?}: {violation:?}");
        assert!(!violation.unwrap().seen().is_empty());
    }
}
