//! Two sessions, a pipe that cuts and stalls, and random commands, against a simple model.

use std::collections::BTreeMap;

use bytes::BytesMut;

use super::*;

const SEEDS: u64 = 400;
const STEPS: usize = 500;
/// The longest write, in bytes.
const LEN_MAX: usize = 100_000;
/// After so many bytes what a stream sends repeats.
const PERIOD: usize = 65_537;
const BOUND: usize = 256 << 10;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % end as u64).unwrap()
    }

    fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }

    /// Small, middling or large.
    fn len(&mut self) -> usize {
        let most = [20, 500, 5000, 40_000, LEN_MAX][self.below(5)];
        1 + self.below(most)
    }
}

/// A stream: who has opened it, and its number.
type Name = (usize, u64);

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

struct World {
    random: Random,
    text: Bytes,
    rigs: [Rig; 2],
    /// Bytes on their way from each side.
    pipes: [BytesMut; 2],
    stalled: [bool; 2],
    streams: BTreeMap<Name, Stream>,
    /// The connection's bound is so small that any stream may be reset for it.
    narrow: bool,
    /// The applications hardly ever read.
    lazy: bool,
    closed: bool,
    overflows: usize,
}

fn id(side: usize, name: Name) -> StreamId {
    stream_id(name.1, name.0 != side)
}

impl World {
    fn new(seed: u64, text: Bytes) -> Self {
        let narrow = seed.is_multiple_of(4);
        let lazy = seed % 5 == 1;
        let total = if narrow { BOUND } else { 16 << 20 };
        let config = brisk()
            .streams_outbound_max(if lazy { 1 } else { 8 })
            .stream_received_max(BOUND)
            .connection_received_max(total);
        let config = if seed.is_multiple_of(3) { config.opens_per_second_max(4) } else { config };
        let rigs = [Rig::with(config.clone()), Rig::with(config)];
        Self {
            random: Random(seed),
            text,
            rigs,
            pipes: Default::default(),
            stalled: [false; 2],
            streams: BTreeMap::new(),
            narrow,
            lazy,
            closed: false,
            overflows: 0,
        }
    }

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
            if self.random.chance(5000) {
                self.rigs[side].session.close(ErrorCode::new(7));
                self.closed = true;
            }
            self.check(side);
        }
    }

    fn open(&mut self, side: usize) {
        let Poll::Ready(opened) = self.rigs[side].session.open() else { return };
        let stream = self.streams.entry((side, number(opened.unwrap()))).or_default();
        (stream.send[side], stream.recv[side]) = (true, true);
    }

    fn accept(&mut self, side: usize) {
        let Some(accepted) = self.rigs[side].session.accept() else { return };
        let stream = self.streams.get_mut(&(1 - side, number(accepted))).unwrap();
        (stream.send[side], stream.recv[side]) = (true, true);
    }

    fn any(&mut self, which: impl Fn(&Stream) -> bool) -> Option<Name> {
        let names: Vec<Name> =
            self.streams.iter().filter(|(_, s)| which(s)).map(|(name, _)| *name).collect();
        (!names.is_empty()).then(|| names[self.random.below(names.len())])
    }

    /// `len` bytes at `offset` of what `side` sends on the stream.
    fn text(&self, side: usize, name: Name, offset: usize, len: usize) -> Bytes {
        let own = usize::try_from(name.1).unwrap() * 1009 + name.0 * 7919 + side * 104_729;
        let start = (offset + own) % PERIOD;
        self.text.slice(start..start + len)
    }

    fn write(&mut self, side: usize) {
        let Some(name) = self.any(|s| s.send[side]) else { return };
        let len = self.random.len();
        let text = self.text(side, name, self.streams[&name].directions[side].written, len);
        let session = &mut self.rigs[side].session;
        let result = if self.random.chance(2) {
            session.write_slice(id(side, name), &text)
        } else {
            let mut data = text.clone();
            session.write(id(side, name), &mut data).map_ok(|()| text.len() - data.len())
        };
        let stream = self.streams.get_mut(&name).unwrap();
        let direction = &mut stream.directions[side];
        match result {
            Poll::Ready(Ok(count)) => {
                assert!(!direction.finished && count > 0);
                direction.written += count;
                direction.behind = direction.behind.max(direction.written - direction.read);
            }
            Poll::Ready(Err(StreamError::Finished)) => assert!(direction.finished),
            Poll::Ready(Err(_)) => self.must_be_spoiled(name),
            Poll::Pending => {}
        }
    }

    fn read(&mut self, side: usize) {
        if self.lazy && !self.random.chance(20) {
            return;
        }
        if let Some(name) = self.any(|s| s.recv[side]) {
            let most = self.random.len();
            self.read_stream(side, name, most);
        }
    }

    fn read_stream(&mut self, side: usize, name: Name, most: usize) -> bool {
        let result = self.rigs[side].session.read(id(side, name), most);
        let from = self.streams[&name].directions[1 - side].read;
        let text = self.text(1 - side, name, from, most.min(LEN_MAX));
        let direction = &mut self.streams.get_mut(&name).unwrap().directions[1 - side];
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
                self.must_be_spoiled(name);
                false
            }
            Poll::Pending => false,
        }
    }

    /// A stream fails where somebody ended it, or where a reader was far behind.
    fn must_be_spoiled(&mut self, name: Name) {
        let stream = &self.streams[&name];
        if stream.spoiled || self.closed || self.narrow {
            return;
        }
        let behind = stream.directions.iter().map(|d| d.behind).max().unwrap();
        assert!(behind > BOUND - (48 << 10), "reset for no reason: {behind}");
        self.overflows += 1;
    }

    /// Ends a stream in one of all ways.
    fn end(&mut self, side: usize) {
        if self.lazy && !self.random.chance(5) {
            return;
        }
        let which = self.random.below(12);
        let Some(name) = self.any(|s| s.send[side] || s.recv[side]) else { return };
        let session = &mut self.rigs[side].session;
        let stream = self.streams.get_mut(&name).unwrap();
        match which {
            0..=5 if stream.send[side] => {
                drop(session.finish(id(side, name)));
                stream.directions[side].finished = true;
            }
            6 => {
                session.reset(id(side, name), ErrorCode::new(3));
                stream.spoiled = true;
            }
            7 if stream.recv[side] => {
                session.stop(id(side, name), ErrorCode::new(4));
                stream.spoiled = true;
            }
            8 | 9 if stream.send[side] => {
                session.release_send(id(side, name));
                stream.spoiled |= !stream.directions[side].finished;
                stream.send[side] = false;
            }
            10 | 11 if stream.recv[side] => {
                session.release_recv(id(side, name));
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
        let budget = self.random.len();
        let rig = &mut self.rigs[side];
        if self.pipes[side].len() < 1000 && rig.session.has_transmit() {
            let mut out = Gather::new();
            rig.session.poll_transmit(budget, &mut out, rig.now);
            self.pipes[side].extend_from_slice(&out.copy_to_bytes(out.len()));
        }
        let mut left = self.random.len().min(self.pipes[side].len());
        while left > 0 {
            let most = if self.random.chance(10) { 1 } else { 100_000 };
            let count = 1 + self.random.below(left.min(most));
            let wire: Bytes = self.pipes[side].split_to(count).freeze();
            let rig = &mut self.rigs[1 - side];
            rig.session.handle_data(wire, rig.now).unwrap();
            left -= count;
        }
    }

    fn pass(&mut self) {
        let time = [MILLI, 30 * MILLI, SECOND, 40 * SECOND][self.random.below(4)];
        for rig in &mut self.rigs {
            rig.pass(time);
        }
    }

    fn check(&mut self, side: usize) {
        let session = &mut self.rigs[side].session;
        while session.poll_event().is_some() {}
        let counters = session.counters();
        assert_eq!(counters, session.recount());
        assert!(counters.held <= if self.narrow { BOUND + (16 << 10) } else { 16 << 20 });
        assert!(session.backlog() < 2000, "{}", session.backlog());
    }

    /// Everything is read and let go: nothing may be left of any stream.
    fn wind_up(&mut self) {
        self.stalled = [false; 2];
        for round in 0.. {
            assert!(round < 100_000, "does not come to an end");
            let mut moved = false;
            for side in 0..2 {
                self.accept(side);
                let names: Vec<Name> = self.streams.keys().copied().collect();
                for name in names {
                    let stream = self.streams.get_mut(&name).unwrap();
                    let recv = stream.recv[side];
                    if stream.send[side] {
                        stream.directions[side].finished = true;
                        drop(self.rigs[side].session.finish(id(side, name)));
                    }
                    while recv && self.read_stream(side, name, 50_000) {
                        moved = true;
                    }
                }
                moved |= !self.pipes[side].is_empty() || self.rigs[side].session.has_transmit();
                self.deliver(side);
                self.check(side);
            }
            if !moved {
                break;
            }
        }
        for side in 0..2 {
            for (name, stream) in &mut self.streams {
                let direction = &stream.directions[1 - side];
                let over = direction.ended || direction.failed || self.closed;
                assert!(over || !stream.recv[side], "stream {name:?} hangs: {direction:?}");
                if stream.send[side] {
                    self.rigs[side].session.release_send(id(side, *name));
                }
                if stream.recv[side] {
                    self.rigs[side].session.release_recv(id(side, *name));
                }
            }
        }
        for _ in 0..4 {
            for side in 0..2 {
                self.rigs[side].pass(31 * SECOND);
                while !self.pipes[side].is_empty() || self.rigs[side].session.has_transmit() {
                    self.deliver(side);
                }
            }
        }
        for rig in &self.rigs {
            if !self.closed {
                assert_eq!(rig.session.counters(), Counters::default(), "something is left");
            }
            assert_eq!(rig.session.counters(), rig.session.recount());
        }
    }
}

#[test]
fn random_sessions_agree_with_the_model() {
    let text: Vec<u8> = (0..PERIOD)
        .map(|i| (i / 251 + i * 7).to_le_bytes()[0])
        .cycle()
        .take(PERIOD + LEN_MAX)
        .collect();
    let text = Bytes::from(text);
    let mut overflows = 0;
    for seed in 0..SEEDS {
        let result = std::panic::catch_unwind(|| {
            let mut world = World::new(seed, text.clone());
            world.run();
            world.wind_up();
            world.overflows
        });
        overflows += result.unwrap_or_else(|_| panic!("failed with seed {seed}"));
    }
    assert!(overflows > 10, "the bound was reached {overflows} times only");
}
