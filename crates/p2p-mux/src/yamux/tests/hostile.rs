//! A peer that sends whatever it likes, and an application that does whatever it may: nothing
//! panics, nothing grows, and what is read is what came, once and in order, up to its end.

use std::collections::HashMap;

use super::*;
use crate::common::random::{Random, for_seeds};

const STEPS: usize = 300;
const WINDOW_MAX: u32 = 1 << 20;
/// A piece of at most so many bytes holds one body that is kept by reference, not two: what a
/// stream holds can be counted then.
const PIECE_MAX: usize = 8191;

/// A stream as the application has it.
#[derive(Default)]
struct Held {
    send: bool,
    recv: bool,
    /// The byte that must come next; the first may be any.
    next: Option<u8>,
    /// How reading ended.
    end: Option<End>,
}

struct World {
    random: Random,
    rig: Rig,
    held: HashMap<u32, Held>,
    /// Body bytes sent on each stream: each is the count of those before it.
    sent: HashMap<u32, u8>,
    /// The peer keeps to frames; otherwise it sends broken ones too, whose bytes nobody knows.
    framed: bool,
    dead: bool,
}

impl World {
    fn new(seed: u64, framed: bool) -> Self {
        let mut random = Random::new(seed);
        let config = Config::default()
            .streams_inbound_max(random.pick(&[1, 5, 512]))
            .streams_outbound_max(random.pick(&[1, 5, 256]))
            .window_max(WINDOW_MAX)
            .windows_growth_max(1 << 20);
        let role = random.pick(&[Role::Initiator, Role::Responder]);
        let rig = Rig::fresh(config, role);
        let (held, sent) = (HashMap::new(), HashMap::new());
        Self { random, rig, held, sent, framed, dead: false }
    }

    fn run(&mut self) {
        for _ in 0..STEPS {
            match self.random.below(10) {
                0..=5 => self.attack(),
                6 => self.give(),
                7 => self.take(),
                8 => self.end(),
                _ => self.pass(),
            }
            self.check();
        }
        // Whatever has happened: what the application lets go of leaves nothing behind.
        for (number, held) in std::mem::take(&mut self.held) {
            if held.send {
                self.rig.session.release_send(id(number));
            }
            if held.recv {
                self.rig.session.release_recv(id(number));
            }
        }
        self.rig.session.refuse_inbound();
        self.rig.frames();
        let _ = self.rig.pass(31 * SECOND);
        let error = StreamError::Connection(p2p_core::ConnectionError::Dropped);
        self.rig.session.handle_end(&error);
        assert!(self.rig.is_empty(), "{:?}", self.rig.session.counters());
    }

    fn attack(&mut self) {
        let mut wire = Vec::new();
        for _ in 0..1 + self.random.below(4) {
            wire.extend(self.frame());
        }
        if !self.framed && self.random.chance(40) {
            self.spoil(&mut wire);
        }
        let mut wire = wire.as_slice();
        while !wire.is_empty() {
            let most = self.random.pick(&[1, 20, PIECE_MAX]).min(wire.len());
            let (piece, rest) = wire.split_at(1 + self.random.below(most));
            wire = rest;
            let before = self.rig.session.is_closed() || self.dead;
            let result = self.rig.hear_bytes(piece);
            assert!(!before || result.is_ok(), "heard after the end: {result:?}");
            if result.is_err() {
                self.dead = true;
                let frames = self.rig.frames();
                let [last] = frames.as_slice() else { panic!("more than a goodbye: {frames:?}") };
                assert!(last.kind == GO_AWAY && [1, 2].contains(&last.length), "{last:?}");
            }
        }
    }

    /// Mostly one that an honest peer might send: others end the connection.
    fn frame(&mut self) -> Vec<u8> {
        let sin = self.random.chance(300);
        let stream = match self.random.below(20) {
            0 => u32::MAX - 1,
            1 if sin => 0,
            _ => u32::try_from(1 + self.random.below(12)).unwrap(),
        };
        let kind = match self.random.below(200) {
            0..120 => DATA,
            120..190 => UPDATE,
            190..199 => PING,
            _ if sin => 4,
            _ => {
                if self.random.chance(10) {
                    GO_AWAY
                } else {
                    PING
                }
            }
        };
        let stream = if kind >= PING && !sin { 0 } else { stream };
        let window = self.rig.session.window(stream);
        let theirs = stream % 2 != self.rig.session.parity();
        let begins = theirs && window.is_none() && kind < PING;
        let flags = match self.random.below(24) {
            _ if kind == PING => self.random.pick(&[SYN, SYN, ACK, SYN | ACK, 0]),
            _ if sin => u16::try_from(self.random.below(1 << 16)).unwrap(),
            0 => FIN,
            1 if self.random.chance(3) => RST,
            2 => self.random.pick(&[ACK, ACK | FIN, 0xff00, FIN | RST]),
            3 if begins => self.random.pick(&[SYN | FIN, SYN | RST, SYN | ACK]),
            3..=8 if begins => SYN,
            _ => 0,
        };
        let most = self.random.pick(&[1, 100, 5000, 100_000]);
        let length = self.random.below(most);
        if kind != DATA {
            let overflow = self.random.pick(&[u32::MAX, u32::MAX - 262_144, 1 << 31]);
            let length = if sin { overflow } else { u32::try_from(length).unwrap() };
            return bare(kind, flags, stream, length).encode();
        }
        let room = if sin { usize::MAX } else { window.unwrap_or(WINDOW_INITIAL) as usize };
        let length = length.min(room);
        let next = self.sent.entry(stream).or_default();
        let body: Vec<u8> = (0..length).map(|i| next.wrapping_add(i.to_le_bytes()[0])).collect();
        *next = next.wrapping_add(length.to_le_bytes()[0]);
        data(flags, stream, &body).encode()
    }

    /// Flips, cuts out, doubles.
    fn spoil(&mut self, wire: &mut Vec<u8>) {
        let at = self.random.below(wire.len().min(100));
        match self.random.below(4) {
            0 => wire[at] ^= 1 << self.random.below(8),
            1 => wire.truncate(at),
            2 => wire.extend_from_within(at..),
            _ => drop(wire.drain(..at)),
        }
    }

    /// The application opens, accepts and writes.
    fn give(&mut self) {
        if self.random.chance(2) {
            let opened = match self.rig.session.open() {
                Poll::Ready(Ok(id)) => Some(id),
                Poll::Ready(Err(_)) | Poll::Pending => None,
            };
            for id in opened.into_iter().chain(self.rig.session.accept()) {
                let held = Held { send: true, recv: true, ..Held::default() };
                assert!(self.held.insert(number(id), held).is_none(), "a stream given twice");
            }
        }
        for number in self.numbers(|held| held.send) {
            let len = self.random.below(50_000);
            let _ = self.rig.session.write_slice(id(number), &vec![0; len]);
        }
        if self.random.chance(2) {
            self.rig.frames();
        }
    }

    fn numbers(&self, which: fn(&Held) -> bool) -> Vec<u32> {
        let mut all: Vec<u32> =
            self.held.iter().filter(|(_, held)| which(held)).map(|(number, _)| *number).collect();
        all.sort_unstable();
        all
    }

    /// The application reads.
    fn take(&mut self) {
        for number in self.numbers(|held| held.recv) {
            let most = self.random.pick(&[1, 1000, usize::MAX]);
            let held = self.held.get_mut(&number).unwrap();
            match self.rig.session.read(id(number), most) {
                Poll::Ready(Ok(Some(chunk))) => {
                    assert_eq!(held.end, None, "bytes after the end");
                    assert!(!chunk.is_empty() && chunk.len() <= most);
                    for byte in chunk.iter().filter(|_| self.framed) {
                        assert_eq!(
                            held.next.unwrap_or(*byte),
                            *byte,
                            "doubled, lost or disordered"
                        );
                        held.next = Some(byte.wrapping_add(1));
                    }
                }
                Poll::Ready(Ok(None)) => held.ends(End::Fin),
                Poll::Ready(Err(error)) => held.ends(End::of(&error)),
                Poll::Pending => assert_eq!(held.end, None, "open again after the end"),
            }
        }
    }

    /// The application ends a stream in some way.
    fn end(&mut self) {
        let numbers = self.numbers(|_| true);
        if numbers.is_empty() {
            return;
        }
        let number = self.random.pick(&numbers);
        let held = self.held.get_mut(&number).unwrap();
        let session = &mut self.rig.session;
        match self.random.below(6) {
            0 => drop(session.finish(id(number))),
            1 => session.reset(id(number), code(5)),
            2 => {
                session.stop(id(number), code(6));
                held.end = None;
            }
            3 | 4 if held.send => {
                session.release_send(id(number));
                held.send = false;
            }
            _ if held.recv => {
                session.release_recv(id(number));
                held.recv = false;
            }
            _ => {}
        }
        if !held.send && !held.recv {
            self.held.remove(&number);
        }
    }

    fn pass(&mut self) {
        let time = self.random.pick(&[MILLI, 25 * MILLI, SECOND, 31 * SECOND]);
        if self.rig.pass(time).is_err() {
            self.dead = true;
        }
        self.rig.frames();
    }

    fn check(&mut self) {
        let session = &mut self.rig.session;
        while session.poll_event().is_some() {}
        let counters = session.counters();
        assert_eq!(counters, session.recount());
        assert!(session.backlog() < 1500, "{}", session.backlog());
        assert!(counters.growth <= 1 << 20);
        assert!(counters.queued <= (256 << 10) + counters.streams * 4096);
        for number in 0..14 {
            let held = session.held(id(number));
            let most = WINDOW_MAX as usize + (16 << 10) + 8192;
            assert!(held <= most, "{held} bytes held");
        }
    }
}

impl Held {
    /// Once reading has ended, it stays ended, in the same way.
    fn ends(&mut self, end: End) {
        assert!(self.end.is_none_or(|before| before == end), "{:?}, then {end:?}", self.end);
        self.end = Some(end);
    }
}

#[test]
fn go_yamux_c917613_no_frames_of_a_hostile_peer_break_anything() {
    for_seeds(1500, |seed| World::new(seed, true).run());
}

#[test]
fn go_yamux_c917613_no_bytes_of_a_hostile_peer_break_anything() {
    for_seeds(1500, |seed| World::new(seed, false).run());
}
