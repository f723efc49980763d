//! Two sessions, a pipe that cuts and stalls, and random commands, against a simple model.

use std::collections::HashMap;

use bytes::{BufMut, BytesMut};

use super::{
    super::session::Counters,
    random::{Random, for_seeds},
    *,
};

const SEEDS: u64 = 3000;
const STEPS: usize = 400;

/// Small, middling or large: rarely more than a window.
fn len(random: &mut Random) -> usize {
    let most = random.pick(&[20, 500, 5000, 70_000, LEN_MAX]);
    1 + random.below(most)
}

/// The longest write, in bytes.
const LEN_MAX: usize = 300_000;
/// After so many bytes what a stream sends repeats.
const PERIOD: usize = 65_537;

/// `len` bytes at `offset` of what `side` sends on stream `number`.
fn text(text: &Bytes, side: usize, number: u32, offset: usize, len: usize) -> Bytes {
    let start = (offset + number as usize * 1009 + side * 7919) % PERIOD;
    text.slice(start..start + len)
}

/// What one side's application knows of one direction of a stream.
#[derive(Debug, Default)]
struct Direction {
    written: usize,
    finished: bool,
    read: usize,
    ended: bool,
    /// The sender reset it, or the receiver gave up, or the connection ended.
    broken: bool,
}

/// A stream as one side's application holds it.
#[derive(Debug)]
struct Held {
    number: u32,
    send: bool,
    recv: bool,
}

struct World {
    random: Random,
    text: Bytes,
    rigs: [Rig; 2],
    /// Bytes on their way from each side.
    pipes: [BytesMut; 2],
    stalled: [bool; 2],
    held: [Vec<Held>; 2],
    /// By sender and stream.
    directions: HashMap<(usize, u32), Direction>,
    closed: bool,
}

impl World {
    fn new(seed: u64, text: Bytes) -> Self {
        let config =
            || quiet().streams_outbound_max(12).window_max(1 << 20).windows_growth_max(1 << 20);
        let client = Rig::fresh(config(), Role::Initiator);
        let mut server = Rig::fresh(config(), Role::Responder);
        server.now = client.now;
        Self {
            random: Random::new(seed),
            text,
            rigs: [client, server],
            pipes: Default::default(),
            stalled: [false; 2],
            held: Default::default(),
            directions: HashMap::new(),
            closed: false,
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
            if self.random.chance(4000) {
                self.rigs[side].session.close(code(7));
                self.closed = true;
            }
            if self.random.chance(8000) {
                self.lose_pipe();
            }
            self.check(side);
        }
    }

    /// Both sides lose the pipe with all that is in it.
    fn lose_pipe(&mut self) {
        let error = StreamError::Connection(p2p_core::ConnectionError::Truncated);
        for rig in &mut self.rigs {
            rig.session.handle_end(&error);
        }
        self.pipes = Default::default();
        self.closed = true;
    }

    fn open(&mut self, side: usize) {
        let Poll::Ready(Ok(id)) = self.rigs[side].session.open() else { return };
        let number = number(id);
        self.directions.insert((0, number), Direction::default());
        self.directions.insert((1, number), Direction::default());
        self.held[side].push(Held { number, send: true, recv: true });
    }

    fn accept(&mut self, side: usize) {
        let Some(id) = self.rigs[side].session.accept() else { return };
        self.held[side].push(Held { number: number(id), send: true, recv: true });
    }

    fn any_held(&mut self, side: usize, which: fn(&Held) -> bool) -> Option<u32> {
        let numbers: Vec<u32> =
            self.held[side].iter().filter(|held| which(held)).map(|held| held.number).collect();
        (!numbers.is_empty()).then(|| numbers[self.random.below(numbers.len())])
    }

    fn write(&mut self, side: usize) {
        let Some(number) = self.any_held(side, |held| held.send) else { return };
        let direction = self.directions.get_mut(&(side, number)).unwrap();
        let from = direction.written;
        let text = text(&self.text, side, number, from, len(&mut self.random));
        let session = &mut self.rigs[side].session;
        let result = if self.random.chance(2) {
            session.write_slice(id(number), &text)
        } else {
            let mut data = text.clone();
            session.write(id(number), &mut data).map_ok(|()| text.len() - data.len())
        };
        match result {
            Poll::Ready(Ok(count)) => {
                assert!(!direction.finished && count > 0);
                direction.written += count;
            }
            Poll::Ready(Err(StreamError::Finished)) => assert!(direction.finished),
            Poll::Ready(Err(_)) => direction.broken = true,
            Poll::Pending => {}
        }
    }

    fn read(&mut self, side: usize) {
        if let Some(number) = self.any_held(side, |held| held.recv) {
            let most = len(&mut self.random);
            self.read_stream(side, number, most);
        }
    }

    fn read_stream(&mut self, side: usize, number: u32, most: usize) -> bool {
        let direction = self.directions.get_mut(&(1 - side, number)).unwrap();
        let session = &mut self.rigs[side].session;
        let read = if self.random.below(2) == 0 {
            session.read(id(number), most)
        } else {
            let mut copied = Vec::new().limit(most);
            let read = session.read_buf(id(number), &mut copied);
            read.map_ok(|count| {
                assert_eq!(count, copied.get_ref().len());
                (count > 0).then(|| Bytes::from(copied.into_inner()))
            })
        };
        match read {
            Poll::Ready(Ok(Some(chunk))) => {
                assert!(!direction.ended && !chunk.is_empty() && chunk.len() <= most);
                let sent = text(&self.text, 1 - side, number, direction.read, chunk.len());
                assert!(chunk == sent, "not what was written");
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
                direction.broken = true;
                false
            }
            Poll::Pending => false,
        }
    }

    /// Ends a stream in one of all ways.
    fn end(&mut self, side: usize) {
        let which = self.random.below(12);
        let Some(number) = self.any_held(side, |_| true) else { return };
        let session = &mut self.rigs[side].session;
        let held = self.held[side].iter_mut().find(|held| held.number == number).unwrap();
        match which {
            0..=5 if held.send => {
                drop(session.finish(id(number)));
                self.directions.get_mut(&(side, number)).unwrap().finished = true;
            }
            6 => session.reset(id(number), code(3)),
            7 if held.recv => session.stop(id(number), code(4)),
            8 | 9 if held.send => {
                session.release_send(id(number));
                held.send = false;
            }
            10 | 11 if held.recv => {
                session.release_recv(id(number));
                held.recv = false;
            }
            _ => {}
        }
        self.held[side].retain(|held| held.send || held.recv);
    }

    /// Moves bytes from `side` to the other, cut at random.
    fn deliver(&mut self, side: usize) {
        if self.stalled[side] {
            return;
        }
        if self.pipes[side].len() < 1000 && self.rigs[side].session.has_transmit() {
            let mut out = Gather::new();
            let budget = len(&mut self.random);
            let rig = &mut self.rigs[side];
            rig.session.poll_transmit(budget, &mut out, rig.now);
            self.pipes[side].extend_from_slice(&out.copy_to_bytes(out.len()));
        }
        let mut left = len(&mut self.random).min(self.pipes[side].len());
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
            rig.pass(time).unwrap();
        }
    }

    fn check(&mut self, side: usize) {
        let session = &mut self.rigs[side].session;
        // As the driver does once it has heard or said the last word.
        if session.is_closed() {
            let error = StreamError::Connection(p2p_core::ConnectionError::Dropped);
            session.handle_end(&error);
        }
        while session.poll_event().is_some() {}
        assert_eq!(session.counters(), session.recount());
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
                for i in 0..self.held[side].len() {
                    let held = &self.held[side][i];
                    let (number, recv) = (held.number, held.recv);
                    if held.send {
                        drop(self.rigs[side].session.finish(id(number)));
                        self.directions.get_mut(&(side, number)).unwrap().finished = true;
                    }
                    while recv && self.read_stream(side, number, 50_000) {
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
            for held in std::mem::take(&mut self.held[side]) {
                let direction = &self.directions[&(1 - side, held.number)];
                let over = direction.ended || direction.broken || self.closed;
                assert!(over || !held.recv, "stream {} hangs: {direction:?}", held.number);
                self.rigs[side].release(id(held.number));
            }
        }
        for _ in 0..4 {
            for side in 0..2 {
                self.rigs[side].pass(31 * SECOND).unwrap();
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
    for_seeds(SEEDS, |seed| {
        let mut world = World::new(seed, text.clone());
        world.run();
        world.wind_up();
    });
}
