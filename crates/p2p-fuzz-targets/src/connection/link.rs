//! A transport whose links do to the bytes what a plan says.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
    time::Duration,
};

use async_trait::async_trait;
use p2p_core::{
    DialTarget, Incoming, Link, ListenEvent, Listener, Multiaddr, Pipe, Transport, TransportError,
    multiaddr::Protocol,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc,
    time::{Sleep, sleep},
};

/// What a link holds each way, in bytes.
const HELD_MAX: usize = 64 << 10;
/// Reads and writes of a side that are cut into pieces; later ones are whole, to end in time.
const CUT_MAX: usize = 4096;

/// What happens in one direction, once.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// Nothing arrives for a while.
    Stall(Duration),
    /// The next byte is changed.
    Flip(u8),
    Insert(Vec<u8>),
    /// So many bytes do not arrive, and those after them do.
    Lose(usize),
    /// The direction ends, and whoever sends does not notice.
    End,
    /// Nothing arrives any more.
    Silence,
    /// Both directions fail.
    Break,
}

/// What a side's links do, one after the other and all together.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Each with the number of bytes that the side sends between the one before and it.
    pub(super) faults: VecDeque<(usize, Fault)>,
    /// The most that one write takes and one read gives, in turn; empty for no limit.
    pub(super) writes: Vec<usize>,
    pub(super) reads: Vec<usize>,
    cut: usize,
}

impl Plan {
    fn step(&mut self, is_write: bool) -> usize {
        let steps = if is_write { &self.writes } else { &self.reads };
        if steps.is_empty() || self.cut >= CUT_MAX {
            return usize::MAX;
        }
        self.cut += 1;
        steps[self.cut % steps.len()]
    }
}

/// What happens to a dial.
#[derive(Clone, Copy, Debug)]
pub(super) enum Dialed {
    Open,
    Refused,
    /// No answer ever comes.
    Silent,
    Slow,
    /// The listener's side of the link fails before its first byte.
    FailsThere,
    /// The listener could not take it.
    NotTaken,
}

/// Two sides, each at `/memory/<side>`.
#[derive(Debug)]
struct Network {
    plans: [Plan; 2],
    dials: VecDeque<Dialed>,
    listeners: [Option<mpsc::Sender<ListenEvent>>; 2],
}

/// A side's access to the network.
#[derive(Clone)]
pub(super) struct Access {
    network: Arc<Mutex<Network>>,
    side: usize,
}

impl Access {
    /// `dials` are for the dials of both sides, in turn.
    pub(super) fn of_both(plans: [Plan; 2], dials: VecDeque<Dialed>) -> [Self; 2] {
        let network = Network { plans, dials, listeners: [None, None] };
        let network = Arc::new(Mutex::new(network));
        [0, 1].map(|side| Self { network: network.clone(), side })
    }

    fn network(&self) -> MutexGuard<'_, Network> {
        self.network.lock().expect("no panic that goes on")
    }

    fn plan(&self, call: impl FnOnce(&mut Plan) -> usize) -> usize {
        call(&mut self.network().plans[self.side])
    }

    fn link(&self, wire: &Wire) -> Link {
        let (access, wire) = (self.clone(), wire.clone());
        let read = ReadEnd { access: access.clone(), wire: wire.clone() };
        Link::Pipe(Pipe::new(
            read,
            WriteEnd { access, wire, stall: None, flip: 0, lose: 0, silent: false },
        ))
    }

    async fn connect(&self, addr: &Multiaddr) -> io::Result<Link> {
        let to = side_of(addr).ok_or(ErrorKind::AddrNotAvailable)?;
        let dialed = self.network().dials.pop_front().unwrap_or(Dialed::Open);
        match dialed {
            Dialed::Open | Dialed::FailsThere | Dialed::NotTaken => {}
            Dialed::Refused => return Err(ErrorKind::ConnectionRefused.into()),
            Dialed::Silent => return std::future::pending().await,
            Dialed::Slow => sleep(Duration::from_secs(3)).await,
        }
        let wire = Wire::default();
        let there = Self { network: self.network.clone(), side: to }.link(&wire);
        let aborted = || io::Error::from(ErrorKind::ConnectionAborted).into();
        let event = match dialed {
            Dialed::NotTaken => ListenEvent::Failed(TransportError::Accept {
                addr: addr.clone(),
                source: aborted(),
            }),
            Dialed::Open | Dialed::FailsThere | Dialed::Refused | Dialed::Silent | Dialed::Slow => {
                let failed = TransportError::Accept { addr: addr.clone(), source: aborted() };
                let fails = matches!(dialed, Dialed::FailsThere);
                let link = async move { if fails { Err(failed) } else { Ok(there) } };
                let from = Multiaddr::from(Protocol::Memory(100 + self.side as u64));
                ListenEvent::Incoming(Incoming::new(addr.clone(), from, link))
            }
        };
        let listener = self.network().listeners[to].clone();
        let taken = listener.is_some_and(|listener| listener.try_send(event).is_ok());
        if taken { Ok(self.link(&wire)) } else { Err(ErrorKind::ConnectionRefused.into()) }
    }
}

fn side_of(addr: &Multiaddr) -> Option<usize> {
    match addr.iter().next() {
        Some(Protocol::Memory(side @ 0..=1)) => usize::try_from(side).ok(),
        _ => None,
    }
}

#[async_trait]
impl Transport for Access {
    fn supports(&self, addr: &Multiaddr) -> bool {
        side_of(addr).is_some()
    }

    async fn dial(&self, target: DialTarget) -> Result<Link, TransportError> {
        let DialTarget { addr, .. } = target;
        let connected = self.connect(&addr).await;
        connected.map_err(|source| TransportError::Dial { addr, source: source.into() })
    }

    async fn listen(&self, addr: Multiaddr) -> Result<Box<dyn Listener>, TransportError> {
        let (sender, events) = mpsc::channel(16);
        self.network().listeners[self.side] = Some(sender);
        Ok(Box::new(Port { addr, events }))
    }
}

struct Port {
    addr: Multiaddr,
    events: mpsc::Receiver<ListenEvent>,
}

#[async_trait]
impl Listener for Port {
    fn addrs(&self) -> Vec<Multiaddr> {
        vec![self.addr.clone()]
    }

    async fn next(&mut self) -> Result<ListenEvent, TransportError> {
        match self.events.recv().await {
            Some(event) => Ok(event),
            None => std::future::pending().await,
        }
    }
}

/// One direction of a link.
#[derive(Debug, Default)]
struct Lane {
    bytes: VecDeque<u8>,
    ended: bool,
    broken: bool,
    /// Nobody reads any more.
    deaf: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Lane {
    fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }
}

/// Both directions, by the side that sends. Its wakers are those of the runtime: they queue tasks
/// and run none.
#[derive(Clone, Debug, Default)]
struct Wire(Arc<Mutex<[Lane; 2]>>);

impl Wire {
    fn lanes(&self) -> MutexGuard<'_, [Lane; 2]> {
        self.0.lock().expect("no panic that goes on")
    }

    fn change(&self, side: usize, call: impl FnOnce(&mut Lane)) {
        let mut lanes = self.lanes();
        call(&mut lanes[side]);
        lanes[side].wake();
    }
}

struct ReadEnd {
    access: Access,
    wire: Wire,
}

impl AsyncRead for ReadEnd {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut lanes = self.wire.lanes();
        let lane = &mut lanes[1 - self.access.side];
        if lane.broken {
            return Poll::Ready(Err(ErrorKind::ConnectionReset.into()));
        }
        if lane.bytes.is_empty() && !lane.ended {
            lane.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = lane.bytes.len().min(buf.remaining());
        let count = count.min(self.access.plan(|plan| plan.step(false)));
        let taken: Vec<u8> = lane.bytes.drain(..count).collect();
        buf.put_slice(&taken);
        lane.wake();
        Poll::Ready(Ok(()))
    }
}

impl Drop for ReadEnd {
    fn drop(&mut self) {
        self.wire.change(1 - self.access.side, |lane| lane.deaf = true);
    }
}

struct WriteEnd {
    access: Access,
    wire: Wire,
    stall: Option<Pin<Box<Sleep>>>,
    /// What changes the next byte.
    flip: u8,
    /// How many bytes are not going to arrive.
    lose: usize,
    silent: bool,
}

impl WriteEnd {
    fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(stall) = &mut self.stall else { return Poll::Ready(()) };
        std::task::ready!(stall.as_mut().poll(cx));
        self.stall = None;
        Poll::Ready(())
    }

    /// What is due, if it is not time for bytes.
    fn fault_due(&self) -> Option<Fault> {
        let mut network = self.access.network();
        let faults = &mut network.plans[self.access.side].faults;
        if faults.front()?.0 > 0 {
            return None;
        }
        faults.pop_front().map(|(_, fault)| fault)
    }

    fn suffer(&mut self, fault: Fault) {
        let side = self.access.side;
        match fault {
            Fault::Stall(time) => self.stall = Some(Box::pin(sleep(time))),
            Fault::Flip(mask) => self.flip ^= mask,
            Fault::Insert(garbage) => self.wire.change(side, |lane| lane.bytes.extend(garbage)),
            Fault::Lose(count) => self.lose += count,
            Fault::End => {
                self.silent = true;
                self.wire.change(side, |lane| lane.ended = true);
            }
            Fault::Silence => self.silent = true,
            Fault::Break => {
                for side in 0..2 {
                    self.wire.change(side, |lane| lane.broken = true);
                }
            }
        }
    }

    /// How many bytes can be sent in one way, which are then counted.
    fn advance(&self, len: usize) -> usize {
        let until = |plan: &mut Plan| plan.faults.front().map_or(len, |(after, _)| *after);
        let count = len.min(self.access.plan(|plan| plan.step(true))).min(self.access.plan(until));
        if let Some((after, _)) = self.access.network().plans[self.access.side].faults.front_mut() {
            *after -= count;
        }
        count
    }
}

impl AsyncWrite for WriteEnd {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            std::task::ready!(self.poll_stall(cx));
            let Some(fault) = self.fault_due() else { break };
            self.suffer(fault);
        }
        let mut lanes = self.wire.lanes();
        let lane = &mut lanes[self.access.side];
        if lane.broken || (lane.deaf && !self.silent) {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        }
        if self.silent {
            return Poll::Ready(Ok(buf.len()));
        }
        let room = HELD_MAX.saturating_sub(lane.bytes.len());
        if room == 0 {
            lane.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = self.advance(buf.len().min(room));
        let lost = count.min(self.lose);
        let before = lane.bytes.len();
        lane.bytes.extend(&buf[lost..count]);
        lane.wake();
        let changed = lane.bytes.get_mut(before).map(|byte| *byte ^= self.flip).is_some();
        drop(lanes);
        self.lose -= lost;
        if changed {
            self.flip = 0;
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.poll_stall(cx));
        if !self.silent {
            self.wire.change(self.access.side, |lane| lane.ended = true);
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for WriteEnd {
    fn drop(&mut self) {
        if !self.silent {
            self.wire.change(self.access.side, |lane| lane.ended = true);
        }
    }
}
