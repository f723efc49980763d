//! The network as a state machine: machines, the ways between them, listeners and connections.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, ErrorKind},
    mem,
    net::{IpAddr, SocketAddr},
    task::Waker,
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::{io::ReadBuf, time::Instant};

use super::{link::Link, random::Random, trace::Trace};

/// Connections that wait to be accepted; further ones are not answered, as by Linux.
const BACKLOG_MAX: usize = 128;
/// For how long a side sends again what is not acknowledged, before the connection has failed.
const RETRANSMIT_MAX: Duration = Duration::from_secs(20);
/// How long until what was lost is sent again, at first.
const RETRANSMIT_FIRST: Duration = Duration::from_millis(200);
/// The first port that is given out to dialers, and to listeners that leave the choice.
const DIALER_PORT: u16 = 49_152;
const LISTENER_PORT: u16 = 4001;

pub(super) type MachineId = usize;

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EndId {
    conn: u64,
    side: Side,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Dialer,
    Listener,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Dialer => Self::Listener,
            Self::Listener => Self::Dialer,
        }
    }

    fn index(self) -> usize {
        match self {
            Self::Dialer => 0,
            Self::Listener => 1,
        }
    }
}

/// What came of a call that may have to wait, perhaps until a time.
#[derive(Debug)]
pub(super) enum Turn<T> {
    Done(T),
    Wait(Option<Instant>),
}

/// What came of an attempt to connect.
#[derive(Debug)]
pub(super) enum Answer {
    Open(Arrived),
    Refused,
    Nothing,
}

/// A connection as one side gets it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrived {
    pub(super) end: EndId,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
}

#[derive(Debug)]
pub(super) struct State {
    seed: u64,
    epoch: Instant,
    pub(super) trace: Trace,
    /// To be woken once the lock is released.
    pub(super) wakers: Vec<Waker>,
    link: Link,
    ways: BTreeMap<(MachineId, MachineId), Way>,
    machines: Vec<MachineState>,
    listeners: BTreeMap<(MachineId, u16), Bound>,
    conns: BTreeMap<u64, Conn>,
    conns_made: u64,
}

#[derive(Debug)]
struct MachineState {
    ip: IpAddr,
    /// One more with each crash: what is of an earlier life does nothing any more.
    life: u64,
    nat: bool,
    read_rate: Option<u64>,
    dialer_ports: u16,
}

/// One direction between two machines.
#[derive(Debug, Default)]
struct Way {
    link: Option<Link>,
    busy_until: Option<Instant>,
    cut_since: Option<Instant>,
    conns: u64,
}

#[derive(Debug, Default)]
struct Bound {
    queue: VecDeque<Arrived>,
    waker: Option<Waker>,
}

/// A connection. A lane carries what the end of its index sends.
#[derive(Debug)]
struct Conn {
    ends: [End; 2],
    lanes: [Lane; 2],
}

#[derive(Debug)]
struct End {
    machine: MachineId,
    /// How many of its halves the application still has.
    halves: u8,
    failed: Option<ErrorKind>,
    /// When the other side's reset arrives.
    reset_at: Option<Instant>,
    finished: bool,
    /// A slow reader reads again from then on.
    reads_at: Option<Instant>,
    reader: Option<Waker>,
    writer: Option<Waker>,
    random: Random,
}

#[derive(Debug, Default)]
struct Lane {
    segments: VecDeque<Segment>,
    /// Bytes that were written, and are not known to have been read.
    outstanding: usize,
    /// When the writer learns of bytes that were read.
    read: VecDeque<(Instant, usize)>,
    last_arrival: Option<Instant>,
}

/// Bytes under way; without any, the end of the data.
#[derive(Debug)]
struct Segment {
    departs: Instant,
    arrives: Instant,
    bytes: Bytes,
}

impl Way {
    /// Whether what arrives `at` has arrived.
    fn has_passed(&self, at: Instant, now: Instant) -> bool {
        at <= now && self.passes(at)
    }

    fn passes(&self, at: Instant) -> bool {
        self.cut_since.is_none_or(|since| at <= since)
    }
}

impl End {
    fn is_gone(&self) -> bool {
        self.halves == 0 || self.failed.is_some()
    }

    fn wake(&mut self, wakers: &mut Vec<Waker>) {
        wakers.extend(self.reader.take());
        wakers.extend(self.writer.take());
    }
}

impl Lane {
    /// Gives up what has not been sent by `now`.
    fn drop_unsent(&mut self, now: Instant) {
        self.segments.retain(|segment| segment.departs <= now);
    }

    fn has_data(&self) -> bool {
        self.segments.iter().any(|segment| !segment.bytes.is_empty())
    }
}

impl State {
    pub(super) fn new(seed: u64, now: Instant) -> Self {
        Self {
            seed,
            epoch: now,
            trace: Trace::default(),
            wakers: Vec::new(),
            link: Link::default(),
            ways: BTreeMap::new(),
            machines: Vec::new(),
            listeners: BTreeMap::new(),
            conns: BTreeMap::new(),
            conns_made: 0,
        }
    }

    pub(super) fn since_epoch(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.epoch)
    }

    pub(super) fn add_machine(&mut self, ip: Option<IpAddr>) -> Option<MachineId> {
        let id = self.machines.len();
        let number = u32::try_from(id).ok()?.checked_add(1)?;
        let ip = ip.unwrap_or_else(|| {
            let [_, high, middle, low] = number.to_be_bytes();
            IpAddr::from([10, high, middle, low])
        });
        if self.machine_at(ip).is_some() {
            return None;
        }
        self.machines.push(MachineState {
            ip,
            life: 0,
            nat: false,
            read_rate: None,
            dialer_ports: 0,
        });
        Some(id)
    }

    fn machine_at(&self, ip: IpAddr) -> Option<MachineId> {
        self.machines.iter().position(|machine| machine.ip == ip)
    }

    pub(super) fn ip(&self, machine: MachineId) -> IpAddr {
        self.machines[machine].ip
    }

    pub(super) fn life(&self, machine: MachineId) -> u64 {
        self.machines[machine].life
    }

    pub(super) fn set_default_link(&mut self, link: Link) {
        self.link = link;
    }

    pub(super) fn set_link(&mut self, from: MachineId, to: MachineId, link: Link) {
        self.way(from, to).link = Some(link);
    }

    pub(super) fn set_nat(&mut self, machine: MachineId, nat: bool) {
        self.machines[machine].nat = nat;
    }

    pub(super) fn set_read_rate(&mut self, machine: MachineId, rate: Option<u64>) {
        self.machines[machine].read_rate = rate;
        self.wake_ends(|end| end.machine == machine);
    }

    pub(super) fn connections(&self) -> usize {
        self.conns.len()
    }

    pub(super) fn buffered(&self) -> usize {
        let lanes = self.conns.values().flat_map(|conn| &conn.lanes);
        lanes.flat_map(|lane| &lane.segments).map(|segment| segment.bytes.len()).sum()
    }

    /// Adds what the application says.
    pub(super) fn note(&mut self, now: Instant, text: &str) {
        let at = self.since_epoch(now);
        self.trace.add(at, "note", &[], text.as_bytes(), || text.to_owned());
    }

    /// Adds what `numbers` tell, and `text` in words.
    fn event(
        &mut self,
        now: Instant,
        what: &'static str,
        numbers: &[u64],
        text: impl FnOnce() -> String,
    ) {
        let at = self.since_epoch(now);
        self.trace.add(at, what, numbers, &[], text);
    }

    fn way(&mut self, from: MachineId, to: MachineId) -> &mut Way {
        self.ways.entry((from, to)).or_default()
    }

    fn link(&self, from: MachineId, to: MachineId) -> &Link {
        let own = self.ways.get(&(from, to)).and_then(|way| way.link.as_ref());
        own.unwrap_or(&self.link)
    }

    fn is_cut(&self, from: MachineId, to: MachineId) -> bool {
        self.ways.get(&(from, to)).is_some_and(|way| way.cut_since.is_some())
    }

    pub(super) fn cut(&mut self, from: MachineId, to: MachineId, now: Instant) {
        let way = self.way(from, to);
        if way.cut_since.is_some() {
            return;
        }
        way.cut_since = Some(now);
        let names = self.names(from, to);
        self.event(now, "cut", &numbers([from, to]), || names);
        self.wake_between(from, to);
    }

    pub(super) fn heal(&mut self, from: MachineId, to: MachineId, now: Instant) {
        if !self.is_cut(from, to) {
            return;
        }
        for id in self.between(from, to) {
            // What was sent again for too long is given up before the way opens.
            self.settle(EndId { conn: id, side: Side::Dialer }, now);
            self.settle(EndId { conn: id, side: Side::Listener }, now);
        }
        let Some(since) = self.way(from, to).cut_since.take() else { return };
        let latency = self.link(from, to).latency;
        for id in self.between(from, to) {
            let Some(conn) = self.conns.get_mut(&id) else { continue };
            for side in [Side::Dialer, Side::Listener] {
                let (own, other) = (side.index(), side.other().index());
                if conn.ends[own].machine != from || conn.ends[other].machine != to {
                    continue;
                }
                let again = now + latency + conn.ends[own].random.time(RETRANSMIT_FIRST);
                let lane = &mut conn.lanes[own];
                for segment in lane.segments.iter_mut().filter(|it| it.arrives > since) {
                    segment.arrives = segment.arrives.max(again);
                    lane.last_arrival = Some(segment.arrives);
                }
                let reset_at = &mut conn.ends[other].reset_at;
                *reset_at = reset_at.map(|at| if at > since { at.max(again) } else { at });
            }
        }
        let names = self.names(from, to);
        self.event(now, "heal", &numbers([from, to]), || names);
        self.wake_between(from, to);
    }

    pub(super) fn machines(&self) -> impl Iterator<Item = MachineId> + use<> {
        0..self.machines.len()
    }

    fn names(&self, from: MachineId, to: MachineId) -> String {
        format!("{} > {}", self.ip(from), self.ip(to))
    }

    fn between(&self, one: MachineId, other: MachineId) -> Vec<u64> {
        let is = |conn: &Conn| {
            let [dialer, listener] = [conn.ends[0].machine, conn.ends[1].machine];
            (dialer, listener) == (one, other) || (dialer, listener) == (other, one)
        };
        self.conns.iter().filter(|(_, conn)| is(conn)).map(|(id, _)| *id).collect()
    }

    fn wake_between(&mut self, one: MachineId, other: MachineId) {
        for id in self.between(one, other) {
            let ends = self.conns.get_mut(&id).map(|conn| &mut conn.ends);
            ends.into_iter().flatten().for_each(|end| end.wake(&mut self.wakers));
        }
    }

    fn wake_ends(&mut self, which: impl Fn(&End) -> bool) {
        let ends = self.conns.values_mut().flat_map(|conn| &mut conn.ends);
        ends.filter(|end| which(end)).for_each(|end| end.wake(&mut self.wakers));
    }

    /// Has every connection between two machines reset, as by a router that lost its state.
    pub(super) fn reset(&mut self, one: MachineId, other: MachineId, now: Instant) {
        for id in self.between(one, other) {
            for end in self.conns.get_mut(&id).map(|conn| &mut conn.ends).into_iter().flatten() {
                end.reset_at = Some(end.reset_at.map_or(now, |at| at.min(now)));
            }
        }
        let names = self.names(one, other);
        self.event(now, "reset", &numbers([one, other]), || names);
        self.wake_between(one, other);
    }

    /// Ends everything that runs on a machine, whose system then resets its connections.
    pub(super) fn crash(&mut self, machine: MachineId, now: Instant) {
        self.machines[machine].life += 1;
        let ip = self.ip(machine);
        self.event(now, "crash", &numbers([machine]), || ip.to_string());
        let bound: Vec<u16> =
            self.listeners.keys().filter(|(of, _)| *of == machine).map(|(_, port)| *port).collect();
        for port in bound {
            self.unlisten(machine, port, now);
        }
        let ids: Vec<u64> = self.conns.keys().copied().collect();
        for conn in ids {
            for side in [Side::Dialer, Side::Listener] {
                let id = EndId { conn, side };
                let Some(conn) = self.conns.get_mut(&conn) else { continue };
                let end = &mut conn.ends[side.index()];
                if end.machine != machine || end.failed.is_some() || end.halves == 0 {
                    continue;
                }
                end.failed = Some(ErrorKind::ConnectionAborted);
                end.wake(&mut self.wakers);
                conn.lanes[side.other().index()].segments.clear();
                self.abort(id, now);
            }
        }
    }

    pub(super) fn listen(
        &mut self,
        machine: MachineId,
        addr: SocketAddr,
    ) -> Result<SocketAddr, io::Error> {
        let own = &self.machines[machine];
        if !addr.ip().is_unspecified() && addr.ip() != own.ip {
            return Err(ErrorKind::AddrNotAvailable.into());
        }
        let is_free = |port: &u16| !self.listeners.contains_key(&(machine, *port));
        let port = match addr.port() {
            0 => (LISTENER_PORT..DIALER_PORT).find(is_free),
            port => Some(port).filter(is_free),
        };
        let Some(port) = port else { return Err(ErrorKind::AddrInUse.into()) };
        let ip = own.ip;
        self.listeners.insert((machine, port), Bound::default());
        Ok(SocketAddr::new(ip, port))
    }

    /// Frees a port; connections that nobody has accepted are reset.
    pub(super) fn unlisten(&mut self, machine: MachineId, port: u16, now: Instant) {
        let Some(bound) = self.listeners.remove(&(machine, port)) else { return };
        self.wakers.extend(bound.waker);
        for arrived in bound.queue {
            if let Some(conn) = self.conns.get_mut(&arrived.end.conn) {
                conn.ends[arrived.end.side.index()].halves = 0;
            }
            self.abort(arrived.end, now);
            self.forget_if_over(arrived.end.conn);
        }
    }

    pub(super) fn accept(
        &mut self,
        machine: MachineId,
        port: u16,
        waker: &Waker,
    ) -> Turn<Option<Arrived>> {
        let Some(bound) = self.listeners.get_mut(&(machine, port)) else {
            return Turn::Done(None);
        };
        match bound.queue.pop_front() {
            Some(arrived) => Turn::Done(Some(arrived)),
            None => {
                bound.waker = Some(waker.clone());
                Turn::Wait(None)
            }
        }
    }

    /// How long a packet takes from a machine to an address.
    pub(super) fn latency_to(&self, from: MachineId, to: IpAddr) -> Duration {
        let to = self.machine_at(to).unwrap_or(from);
        self.link(from, to).latency
    }

    pub(super) fn latency_from(&self, from: IpAddr, to: MachineId) -> Duration {
        let from = self.machine_at(from).unwrap_or(to);
        self.link(from, to).latency
    }

    /// Whether an answer from an address reaches a machine at this moment.
    pub(super) fn hears(&self, machine: MachineId, from: IpAddr) -> bool {
        self.machine_at(from).is_some_and(|from| !self.is_cut(from, machine))
    }

    /// A request to connect reaches its goal.
    pub(super) fn connect(&mut self, from: MachineId, to: SocketAddr, now: Instant) -> Answer {
        let answer = self.answer(from, to);
        let (what, conn) = match &answer {
            Answer::Open(arrived) => ("connect", arrived.end.conn),
            Answer::Refused => ("refuse", 0),
            Answer::Nothing => ("lose", 0),
        };
        let ip = self.ip(from);
        let [from] = numbers([from]);
        let numbers = [conn, from, u64::from(to.port())];
        self.event(now, what, &numbers, || format!("{ip} > {to} {conn}"));
        answer
    }

    fn answer(&mut self, from: MachineId, to: SocketAddr) -> Answer {
        let Some(machine) = self.machine_at(to.ip()) else { return Answer::Nothing };
        if self.is_cut(from, machine) || (self.machines[machine].nat && from != machine) {
            return Answer::Nothing;
        }
        let Some(bound) = self.listeners.get_mut(&(machine, to.port())) else {
            return Answer::Refused;
        };
        if bound.queue.len() >= BACKLOG_MAX {
            return Answer::Nothing;
        }
        self.conns_made += 1;
        let conn = self.conns_made;
        let own = &mut self.machines[from];
        let here = SocketAddr::new(own.ip, DIALER_PORT + own.dialer_ports);
        own.dialer_ports = (own.dialer_ports + 1) % 16_000;
        let ends = [(from, machine), (machine, from)].map(|(machine, peer)| {
            let way = self.ways.entry((machine, peer)).or_default();
            way.conns += 1;
            let labels = [numbers([machine, peer]), [way.conns, 0]].concat();
            End {
                machine,
                halves: 2,
                failed: None,
                reset_at: None,
                finished: false,
                reads_at: None,
                reader: None,
                writer: None,
                random: Random::of(self.seed, &labels),
            }
        });
        self.conns.insert(conn, Conn { ends, lanes: Default::default() });
        let end = |side| EndId { conn, side };
        if let Some(bound) = self.listeners.get_mut(&(machine, to.port())) {
            let end = end(Side::Listener);
            bound.queue.push_back(Arrived { end, local: to, remote: here });
            self.wakers.extend(bound.waker.take());
        }
        Answer::Open(Arrived { end: end(Side::Dialer), local: here, remote: to })
    }

    /// The machines of an end, its own first.
    fn ends_at(&self, id: EndId) -> Option<(MachineId, MachineId)> {
        let conn = self.conns.get(&id.conn)?;
        Some((conn.ends[id.side.index()].machine, conn.ends[id.side.other().index()].machine))
    }

    /// Until when what was sent into a way that is cut is sent again.
    fn gives_up_at(&self, id: EndId) -> Option<Instant> {
        let (own, peer) = self.ends_at(id)?;
        let since = self.ways.get(&(own, peer))?.cut_since?;
        let lane = &self.conns.get(&id.conn)?.lanes[id.side.index()];
        let lost = lane.segments.iter().find(|segment| segment.arrives > since)?;
        Some(lost.departs.max(since) + RETRANSMIT_MAX)
    }

    /// Has an end fail that has come to its end by now.
    fn settle(&mut self, id: EndId, now: Instant) {
        let Some((own, peer)) = self.ends_at(id) else { return };
        let gives_up = self.gives_up_at(id).is_some_and(|at| at <= now);
        let Some(conn) = self.conns.get_mut(&id.conn) else { return };
        let way = self.ways.entry((peer, own)).or_default();
        let end = &mut conn.ends[id.side.index()];
        if end.failed.is_some() {
            return;
        }
        let is_reset = end.reset_at.is_some_and(|at| way.has_passed(at, now));
        end.failed = match (is_reset, gives_up) {
            (true, _) => Some(ErrorKind::ConnectionReset),
            (false, true) => Some(ErrorKind::TimedOut),
            (false, false) => return,
        };
        end.wake(&mut self.wakers);
        let way = self.ways.entry((own, peer)).or_default();
        let lane = &mut conn.lanes[id.side.index()];
        lane.segments.retain(|segment| way.has_passed(segment.arrives, now));
        self.event(now, "fail", &[id.conn, u64::from(is_reset)], || id.to_string());
    }

    /// When an end has to be looked at again though nothing new was written to it.
    fn ends_by(&self, id: EndId) -> Option<Instant> {
        let (own, peer) = self.ends_at(id)?;
        let reset_at = self.conns.get(&id.conn)?.ends[id.side.index()].reset_at;
        let way = self.ways.get(&(peer, own))?;
        earliest([reset_at.filter(|at| way.passes(*at)), self.gives_up_at(id)])
    }

    pub(super) fn read(
        &mut self,
        id: EndId,
        buf: &mut ReadBuf<'_>,
        waker: &Waker,
        now: Instant,
    ) -> Result<Turn<()>, io::Error> {
        self.settle(id, now);
        let Some((own, peer)) = self.ends_at(id) else { return Err(gone()) };
        let back = self.link(own, peer).latency;
        let rate = self.machines[own].read_rate;
        let ends_by = self.ends_by(id);
        let Some(conn) = self.conns.get_mut(&id.conn) else { return Err(gone()) };
        let way = self.ways.entry((peer, own)).or_default();
        let [end, other] = both(&mut conn.ends, id.side);
        let lane = &mut conn.lanes[id.side.other().index()];
        let may_read = end.reads_at.is_none_or(|at| at <= now);
        let head = lane.segments.front().filter(|head| way.passes(head.arrives));
        let arrives = head.map(|head| head.arrives);
        if may_read && arrives.is_some_and(|at| at <= now) {
            let most = rate
                .map_or(usize::MAX, |rate| usize::try_from(rate / 100 + 1).unwrap_or(usize::MAX));
            let count = lane.take(buf, most, |at| way.has_passed(at, now));
            if count > 0 {
                end.reads_at = rate.map(|rate| now + per_second(count, rate));
                lane.read.push_back((now + back, count));
                self.wakers.extend(other.writer.take());
            }
            let count = u64::try_from(count).unwrap_or(u64::MAX);
            self.event(now, "read", &[id.conn, count], || format!("{id} {count}"));
            return Ok(Turn::Done(()));
        }
        if let Some(kind) = end.failed {
            return Err(kind.into());
        }
        end.reader = Some(waker.clone());
        let due = arrives.map(|at| end.reads_at.map_or(at, |reads_at| at.max(reads_at)));
        Ok(Turn::Wait(earliest([due, ends_by])))
    }

    pub(super) fn write(
        &mut self,
        id: EndId,
        data: &[u8],
        waker: &Waker,
        now: Instant,
    ) -> Result<Turn<usize>, io::Error> {
        self.settle(id, now);
        let Some((own, peer)) = self.ends_at(id) else { return Err(gone()) };
        let buffer = self.link(own, peer).buffer;
        let back = self.link(peer, own).latency;
        let ends_by = self.ends_by(id);
        let Some(conn) = self.conns.get_mut(&id.conn) else { return Err(gone()) };
        let [end, other] = both(&mut conn.ends, id.side);
        if let Some(kind) = end.failed {
            return Err(kind.into());
        }
        if end.finished {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let lane = &mut conn.lanes[id.side.index()];
        lane.learn_of_reads(now);
        let count = buffer.saturating_sub(lane.outstanding).min(data.len());
        if count == 0 && !data.is_empty() {
            end.writer = Some(waker.clone());
            let due = lane.read.front().map(|(at, _)| *at);
            return Ok(Turn::Wait(earliest([due, ends_by])));
        }
        let is_gone = other.is_gone();
        let (taken, _) = data.split_at(count);
        let mut left = Bytes::copy_from_slice(taken);
        while left.has_remaining() {
            let segment_max = self.segment_len(id);
            let bytes = left.split_to(segment_max.min(left.len()));
            let arrives = self.send(id, bytes, now);
            if is_gone {
                let Some(conn) = self.conns.get_mut(&id.conn) else { break };
                conn.lanes[id.side.index()].segments.clear();
                let end = &mut conn.ends[id.side.index()];
                end.reset_at.get_or_insert(arrives + back);
                self.wakers.extend(end.reader.take());
            }
        }
        let at = self.since_epoch(now);
        let text = || format!("{id} {count}");
        self.trace.add(at, "write", &[id.conn, u64::from(id.side == Side::Dialer)], taken, text);
        Ok(Turn::Done(count))
    }

    /// The length of the next segment.
    fn segment_len(&mut self, id: EndId) -> usize {
        let Some((own, peer)) = self.ends_at(id) else { return 1 };
        let (most, ragged) = {
            let link = self.link(own, peer);
            (link.segment_max, link.ragged)
        };
        let Some(conn) = self.conns.get_mut(&id.conn) else { return most };
        let random = &mut conn.ends[id.side.index()].random;
        match (ragged, random.below(8)) {
            (false, _) => most,
            (true, 0) => 1,
            (true, _) => {
                let bound = u64::try_from(most).unwrap_or(u64::MAX);
                usize::try_from(1 + random.below(bound)).unwrap_or(most)
            }
        }
    }

    /// Puts one segment on its way, and says when it arrives.
    fn send(&mut self, id: EndId, bytes: Bytes, now: Instant) -> Instant {
        let Some((own, peer)) = self.ends_at(id) else { return now };
        let link = self.link(own, peer);
        let (latency, jitter, loss) = (link.latency, link.jitter, link.loss);
        let sending = link.bandwidth.map(|bandwidth| per_second(bytes.len(), bandwidth));
        let way = self.way(own, peer);
        let mut departs = now;
        if let Some(sending) = sending {
            departs = way.busy_until.map_or(now, |busy| busy.max(now)) + sending;
            way.busy_until = Some(departs);
        }
        let Some(conn) = self.conns.get_mut(&id.conn) else { return now };
        let random = &mut conn.ends[id.side.index()].random;
        let mut delay = latency;
        if !jitter.is_zero() {
            delay += random.time(jitter);
        }
        let mut again = RETRANSMIT_FIRST;
        while random.below(1000) < loss && again < RETRANSMIT_MAX {
            delay += again;
            again *= 2;
        }
        let lane = &mut conn.lanes[id.side.index()];
        let arrives = lane.last_arrival.map_or(departs + delay, |last| last.max(departs + delay));
        lane.last_arrival = Some(arrives);
        lane.outstanding += bytes.len();
        lane.segments.push_back(Segment { departs, arrives, bytes });
        self.wakers.extend(conn.ends[id.side.other().index()].reader.take());
        arrives
    }

    /// Ends the data of one direction.
    pub(super) fn finish(&mut self, id: EndId, now: Instant) {
        let Some(conn) = self.conns.get_mut(&id.conn) else { return };
        let [end, other] = both(&mut conn.ends, id.side);
        if mem::replace(&mut end.finished, true) || end.failed.is_some() {
            return;
        }
        if !other.is_gone() {
            self.send(id, Bytes::new(), now);
        }
        self.event(now, "end", &[id.conn, u64::from(id.side == Side::Dialer)], || id.to_string());
    }

    /// The application has dropped one half of an end. With the other one it closes the
    /// connection, which resets it where received data are unread.
    pub(super) fn drop_half(&mut self, id: EndId, is_writer: bool, now: Instant) {
        let Some(conn) = self.conns.get_mut(&id.conn) else { return };
        let end = &mut conn.ends[id.side.index()];
        end.halves = end.halves.saturating_sub(1);
        let is_closed = end.halves == 0;
        let inbound = &mut conn.lanes[id.side.other().index()];
        let is_unread = inbound.has_data();
        if is_closed {
            inbound.segments.clear();
        }
        if is_closed && is_unread && end.failed.is_none() {
            self.abort(id, now);
        } else if is_writer {
            self.finish(id, now);
        }
        if is_closed {
            self.forget_if_over(id.conn);
        }
    }

    /// Gives up what an end has not sent, and resets the other end.
    fn abort(&mut self, id: EndId, now: Instant) {
        let Some((own, peer)) = self.ends_at(id) else { return };
        let latency = self.link(own, peer).latency;
        let Some(conn) = self.conns.get_mut(&id.conn) else { return };
        let lane = &mut conn.lanes[id.side.index()];
        lane.drop_unsent(now);
        let last = lane.segments.back().map_or(now, |segment| segment.arrives);
        let [end, other] = both(&mut conn.ends, id.side);
        end.finished = true;
        other.reset_at.get_or_insert(last.max(now + latency));
        other.wake(&mut self.wakers);
        self.event(now, "abort", &[id.conn, u64::from(id.side == Side::Dialer)], || id.to_string());
    }

    fn forget_if_over(&mut self, conn: u64) {
        let is_over = |conn: &Conn| conn.ends.iter().all(|end| end.halves == 0);
        if self.conns.get(&conn).is_some_and(is_over) {
            self.conns.remove(&conn);
        }
    }
}

impl Lane {
    /// Hands out at most `most` bytes of what has arrived.
    fn take(
        &mut self,
        buf: &mut ReadBuf<'_>,
        most: usize,
        has_arrived: impl Fn(Instant) -> bool,
    ) -> usize {
        let mut count = 0;
        while count < most
            && buf.remaining() > 0
            && let Some(head) = self.segments.front_mut()
            && !head.bytes.is_empty()
            && has_arrived(head.arrives)
        {
            let len = head.bytes.len().min(buf.remaining()).min(most - count);
            buf.put_slice(&head.bytes.split_to(len));
            count += len;
            if head.bytes.is_empty() {
                self.segments.pop_front();
            }
        }
        count
    }

    fn learn_of_reads(&mut self, now: Instant) {
        while let Some((at, count)) = self.read.front().copied()
            && at <= now
        {
            self.read.pop_front();
            self.outstanding = self.outstanding.saturating_sub(count);
        }
    }
}

impl std::fmt::Display for EndId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let side = match self.side {
            Side::Dialer => "dialer",
            Side::Listener => "listener",
        };
        write!(f, "{} {side}", self.conn)
    }
}

/// An end and the other one.
fn both(ends: &mut [End; 2], side: Side) -> [&mut End; 2] {
    let [dialer, listener] = ends;
    match side {
        Side::Dialer => [dialer, listener],
        Side::Listener => [listener, dialer],
    }
}

fn earliest<const N: usize>(times: [Option<Instant>; N]) -> Option<Instant> {
    times.into_iter().flatten().min()
}

fn per_second(bytes: usize, rate: u64) -> Duration {
    let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
    Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / rate.max(1))
}

fn numbers<const N: usize>(ids: [usize; N]) -> [u64; N] {
    ids.map(|id| u64::try_from(id).unwrap_or(u64::MAX))
}

fn gone() -> io::Error {
    ErrorKind::NotConnected.into()
}
