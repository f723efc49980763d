//! Two sessions, a pipe that cuts and stalls, and random commands, against a simple model: what
//! both multiplexers must agree with, whatever their frames are.

use std::{
    collections::BTreeMap,
    task::Poll,
    time::{Duration, Instant},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use p2p_core::{ConnectionError, ErrorCode, Gather, MuxCore, ProtocolId, StreamError, StreamId};

use crate::common::random::{Random, for_seeds};

const STEPS: usize = 400;
/// After so many bytes what a stream sends repeats.
const PERIOD: usize = 65_537;

/// One of the two sessions, and its clock.
pub(crate) trait End {
    fn core(&mut self) -> &mut dyn MuxCore;
    fn now(&self) -> Instant;
    /// Lets time pass, stopping at every timeout on the way.
    fn pass(&mut self, time: Duration);
    /// Fails where the session's counters are not what follows from its streams, or where it holds
    /// more than it may.
    fn check(&mut self);
    /// Whether nothing is left of any stream.
    fn is_empty(&self) -> bool;
    /// What the other end calls the stream.
    fn mirror(id: StreamId) -> StreamId;
}

/// What is special to a multiplexer, or to a run.
#[derive(Clone, Copy)]
pub(crate) struct Terms {
    /// The longest write, in bytes.
    pub(crate) len_max: usize,
    /// A stream may be reset where its reader is so many bytes behind.
    pub(crate) behind_max: Option<usize>,
    /// Any stream may be reset for the connection's bound.
    pub(crate) narrow: bool,
    /// The applications hardly ever read.
    pub(crate) lazy: bool,
}

/// One direction of a stream, as the applications at its ends know it.
#[derive(Debug, Default)]
struct Direction {
    written: usize,
    finished: bool,
    read: usize,
    ended: bool,
    failed: bool,
    /// The most that was ever written and not read, in bytes.
    behind: usize,
}

#[derive(Debug, Default)]
struct Stream {
    /// By the side that sends.
    directions: [Direction; 2],
    /// Somebody has done something that ends it early.
    spoiled: bool,
    /// By side: the application has the sending, the receiving half.
    send: [bool; 2],
    recv: [bool; 2],
}

struct World<E> {
    random: Random,
    terms: Terms,
    text: Bytes,
    ends: [E; 2],
    /// Bytes on their way from each side.
    pipes: [BytesMut; 2],
    stalled: [bool; 2],
    /// By what the first side calls them.
    streams: BTreeMap<StreamId, Stream>,
    closed: bool,
    overflows: usize,
}

/// Runs so many seeds; gives the number of streams that were reset since their readers were behind.
pub(crate) fn agree<E: End>(seeds: u64, make: impl Fn(u64) -> ([E; 2], Terms)) -> usize {
    let len = PERIOD + 2 * make(0).1.len_max;
    let text = (0..PERIOD).map(|i| (i / 251 + i * 7).to_le_bytes()[0]).cycle().take(len);
    let text: Bytes = text.collect();
    let overflows = std::sync::atomic::AtomicUsize::new(0);
    let make = std::panic::AssertUnwindSafe(&make);
    for_seeds(seeds, |seed| {
        let (ends, terms) = make(seed);
        let mut world = World {
            random: Random::new(seed),
            terms,
            text: text.clone(),
            ends,
            pipes: Default::default(),
            stalled: [false; 2],
            streams: BTreeMap::new(),
            closed: false,
            overflows: 0,
        };
        world.run();
        world.wind_up();
        overflows.fetch_add(world.overflows, std::sync::atomic::Ordering::Relaxed);
    });
    overflows.into_inner()
}

fn name<E: End>(side: usize, id: StreamId) -> StreamId {
    if side == 0 { id } else { E::mirror(id) }
}

impl<E: End> World<E> {
    fn run(&mut self) {
        for _ in 0..STEPS {
            let side = self.random.below(2);
            match self.random.below(20) {
                0 | 1 => self.open(side),
                2 | 3 => self.accept(side),
                4..=8 => self.write(side),
                9..=12 => self.read(side),
                13 => self.end(side),
                14..=17 => self.deliver(side),
                18 => self.stalled[side] = self.random.chance(3),
                _ => self.pass(),
            }
            if self.random.chance(4000) {
                self.ends[side].core().close(ErrorCode::new(7));
                self.closed = true;
            }
            if self.random.chance(8000) {
                self.lose_pipe();
            }
            self.check(side);
        }
    }

    /// Small, middling or large: rarely more than a window.
    fn len(&mut self) -> usize {
        let most = self.random.pick(&[20, 500, 5000, 50_000, self.terms.len_max]);
        1 + self.random.below(most)
    }

    /// Both sides lose the pipe with all that is in it.
    fn lose_pipe(&mut self) {
        for end in &mut self.ends {
            end.core().handle_end(&StreamError::Connection(ConnectionError::Truncated));
        }
        self.pipes = Default::default();
        self.closed = true;
    }

    fn open(&mut self, side: usize) {
        if let Poll::Ready(opened) = self.ends[side].core().open() {
            self.begin(side, opened.expect("there are ids"));
        }
    }

    fn accept(&mut self, side: usize) {
        if let Some(id) = self.ends[side].core().accept() {
            self.begin(side, id);
        }
    }

    fn begin(&mut self, side: usize, id: StreamId) {
        self.ends[side].core().set_protocol(id, &ProtocolId::from_static("/begun"));
        let stream = self.streams.entry(name::<E>(side, id)).or_default();
        (stream.send[side], stream.recv[side]) = (true, true);
    }

    fn any(&mut self, which: impl Fn(&Stream) -> bool) -> Option<StreamId> {
        let names: Vec<StreamId> =
            self.streams.iter().filter(|(_, s)| which(s)).map(|(name, _)| *name).collect();
        (!names.is_empty()).then(|| self.random.pick(&names))
    }

    /// `len` bytes at `offset` of what `side` sends on the stream.
    fn text(&self, side: usize, stream: StreamId, offset: usize, len: usize) -> Bytes {
        let own = usize::try_from(stream.value() % 1_000_003).expect("small") * 1009;
        let start = (offset + own + side * 104_729) % PERIOD;
        self.text.slice(start..start + len)
    }

    fn write(&mut self, side: usize) {
        let Some(stream) = self.any(|s| s.send[side]) else { return };
        let len = self.len();
        let text = self.text(side, stream, self.streams[&stream].directions[side].written, len);
        let core = self.ends[side].core();
        let id = name::<E>(side, stream);
        let result = if self.random.chance(2) {
            core.write_slice(id, &text)
        } else {
            let mut data = text.clone();
            core.write(id, &mut data).map_ok(|()| text.len() - data.len())
        };
        let direction = &mut self.streams.get_mut(&stream).expect("it is known").directions[side];
        match result {
            Poll::Ready(Ok(count)) => {
                assert!(!direction.finished && count > 0);
                direction.written += count;
                direction.behind = direction.behind.max(direction.written - direction.read);
            }
            Poll::Ready(Err(StreamError::Finished)) => assert!(direction.finished),
            Poll::Ready(Err(_)) => self.must_be_spoiled(stream),
            Poll::Pending => {}
        }
    }

    fn read(&mut self, side: usize) {
        if self.terms.lazy && !self.random.chance(20) {
            return;
        }
        if let Some(stream) = self.any(|s| s.recv[side]) {
            let most = self.len();
            self.read_stream(side, stream, most);
        }
    }

    fn read_stream(&mut self, side: usize, stream: StreamId, most: usize) -> bool {
        let core = self.ends[side].core();
        let id = name::<E>(side, stream);
        let result = if self.random.chance(2) {
            core.read(id, most)
        } else {
            let mut copied = Vec::new().limit(most);
            core.read_buf(id, &mut copied).map_ok(|count| {
                assert_eq!(count, copied.get_ref().len());
                (count > 0).then(|| Bytes::from(copied.into_inner()))
            })
        };
        let from = self.streams[&stream].directions[1 - side].read;
        let len = matches!(&result, Poll::Ready(Ok(Some(chunk))) if chunk.len() <= most);
        let text = self.text(1 - side, stream, from, if len { most } else { 0 });
        let direction =
            &mut self.streams.get_mut(&stream).expect("it is known").directions[1 - side];
        match result {
            Poll::Ready(Ok(Some(chunk))) => {
                assert!(!direction.ended && !direction.failed);
                assert!(!chunk.is_empty() && chunk.len() <= most);
                assert!(chunk == text[..chunk.len()], "not what was written");
                direction.read += chunk.len();
                assert!(direction.read <= direction.written, "more than was written");
                true
            }
            Poll::Ready(Ok(None)) => {
                assert!(direction.finished, "an end that was not sent");
                assert_eq!(direction.read, direction.written, "an end before all data");
                direction.ended = true;
                false
            }
            Poll::Ready(Err(_)) => {
                assert!(!direction.ended, "an error after the end");
                direction.failed = true;
                self.must_be_spoiled(stream);
                false
            }
            Poll::Pending => false,
        }
    }

    /// A stream fails where somebody ended it, or where its reader was far behind and that is a
    /// reason.
    fn must_be_spoiled(&mut self, stream: StreamId) {
        let stream = &self.streams[&stream];
        if stream.spoiled || self.closed || self.terms.narrow {
            return;
        }
        let behind = stream.directions.iter().map(|d| d.behind).max().expect("there are two");
        let most = self.terms.behind_max.expect("reset for no reason");
        assert!(behind > most, "reset for no reason: {behind}");
        self.overflows += 1;
    }

    /// Ends a stream in one of all ways.
    fn end(&mut self, side: usize) {
        if self.terms.lazy && !self.random.chance(5) {
            return;
        }
        let which = self.random.below(12);
        let Some(stream) = self.any(|s| s.send[side] || s.recv[side]) else { return };
        let (core, id) = (self.ends[side].core(), name::<E>(side, stream));
        let stream = self.streams.get_mut(&stream).expect("it is known");
        match which {
            0..=5 if stream.send[side] => {
                drop(core.finish(id));
                stream.directions[side].finished = true;
            }
            6 => {
                core.reset(id, ErrorCode::new(3));
                stream.spoiled = true;
            }
            7 if stream.recv[side] => {
                core.stop(id, ErrorCode::new(4));
                stream.spoiled = true;
            }
            8 | 9 if stream.send[side] => {
                core.release_send(id);
                stream.spoiled |= !stream.directions[side].finished;
                stream.send[side] = false;
            }
            10 | 11 if stream.recv[side] => {
                core.release_recv(id);
                stream.spoiled = true;
                stream.recv[side] = false;
            }
            _ => {}
        }
    }

    /// Moves bytes from `side` to the other, cut at random.
    fn deliver(&mut self, side: usize) {
        if self.stalled[side] {
            return;
        }
        let budget = self.len();
        let end = &mut self.ends[side];
        if self.pipes[side].len() < 1000 && end.core().has_transmit() {
            let (mut out, now) = (Gather::new(), end.now());
            end.core().poll_transmit(budget, &mut out, now);
            self.pipes[side].put(out);
        }
        let mut left = self.len().min(self.pipes[side].len());
        while left > 0 {
            let most = if self.random.chance(10) { 1 } else { 100_000 };
            let count = 1 + self.random.below(left.min(most));
            let wire = self.pipes[side].copy_to_bytes(count);
            let end = &mut self.ends[1 - side];
            let now = end.now();
            end.core().handle_data(wire, now).expect("an honest peer");
            left -= count;
        }
    }

    fn pass(&mut self) {
        let time = self.random.pick(&[1, 30, 1000, 40_000]);
        for end in &mut self.ends {
            end.pass(Duration::from_millis(time));
        }
    }

    fn check(&mut self, side: usize) {
        let core = self.ends[side].core();
        // As the driver does once it has heard or said the last word.
        if core.is_closed() {
            core.handle_end(&StreamError::Connection(ConnectionError::Dropped));
        }
        while core.poll_event().is_some() {}
        let mut parts = 0;
        core.buffered_by_protocol(&mut |_, bytes| parts += bytes);
        assert_eq!(parts, core.buffered(), "the parts are not the whole");
        self.ends[side].check();
    }

    /// Everything is read and let go: nothing may be left of any stream.
    fn wind_up(&mut self) {
        self.stalled = [false; 2];
        for round in 0.. {
            assert!(round < 100_000, "does not come to an end");
            let mut moved = false;
            for side in 0..2 {
                self.accept(side);
                let names: Vec<StreamId> = self.streams.keys().copied().collect();
                for stream in names {
                    moved |= self.read_and_finish(side, stream);
                }
                moved |= !self.pipes[side].is_empty() || self.ends[side].core().has_transmit();
                self.deliver(side);
                self.check(side);
            }
            if !moved {
                break;
            }
        }
        for (stream, state) in &self.streams {
            for side in 0..2 {
                let direction = &state.directions[1 - side];
                let over = direction.ended || direction.failed || self.closed;
                assert!(over || !state.recv[side], "{stream:?} hangs: {direction:?}");
                let (core, id) = (self.ends[side].core(), name::<E>(side, *stream));
                if state.send[side] {
                    core.release_send(id);
                }
                if state.recv[side] {
                    core.release_recv(id);
                }
            }
        }
        for _ in 0..4 {
            for side in 0..2 {
                self.ends[side].pass(Duration::from_secs(31));
                while !self.pipes[side].is_empty() || self.ends[side].core().has_transmit() {
                    self.deliver(side);
                }
            }
        }
        for end in &mut self.ends {
            assert!(self.closed || end.is_empty(), "something is left");
            end.check();
        }
    }

    fn read_and_finish(&mut self, side: usize, stream: StreamId) -> bool {
        let state = self.streams.get_mut(&stream).expect("it is known");
        let recv = state.recv[side];
        if state.send[side] {
            state.directions[side].finished = true;
            drop(self.ends[side].core().finish(name::<E>(side, stream)));
        }
        let mut moved = false;
        while recv && self.read_stream(side, stream, 50_000) {
            moved = true;
        }
        moved
    }
}
