use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes, BytesMut};
use p2p_core::{ErrorCode, Gather, Muxer, Role, StreamId};

use super::app::{App, Done, LEN_MAX, text};
use crate::input::Input;

/// What may be on its way before a side stops sending, in bytes.
const PIPE_LEN_MAX: usize = 1000;
/// What is carried in one run, in bytes.
const CARRIED_MAX: usize = 4 << 20;

/// Two sessions that both keep the rules, driven by the input, over a pipe that cuts and stalls.
///
/// Each stream delivers what was written, in order, once, and an end only where one was sent and
/// everything came before it. Whoever waits is told. In the end nothing is left of any stream.
/// `mirrored` is the id under which the other side knows a stream.
pub(super) fn run(muxer: &impl Muxer, mirrored: fn(StreamId) -> StreamId, data: &[u8]) {
    let mut input = Input::new(data);
    let now = Instant::now();
    let mut world = World {
        apps: [Role::Initiator, Role::Responder].map(|role| App::new(muxer, role, now)),
        pipes: Default::default(),
        mirrored,
        sent: HashMap::new(),
        carried: 0,
        closed: false,
    };
    while !input.is_empty() && world.carried < CARRIED_MAX {
        world.step(&mut input);
    }
    world.wind_up();
}

/// What was sent on one direction of a stream.
#[derive(Debug, Default)]
struct Sent {
    len: usize,
    finished: bool,
}

struct World {
    apps: [App; 2],
    /// Bytes on their way from each side.
    pipes: [BytesMut; 2],
    mirrored: fn(StreamId) -> StreamId,
    /// By sender and its stream.
    sent: HashMap<(usize, StreamId), Sent>,
    carried: usize,
    closed: bool,
}

impl World {
    fn step(&mut self, input: &mut Input) {
        let op = input.byte();
        let side = usize::from(op >> 7);
        match op & 0x7f {
            0..=79 => {
                let done = self.apps[side].command(input);
                self.note(side, done);
            }
            80..=119 => {
                let budget = input.len(LEN_MAX);
                self.transmit(side, budget);
                let most = input.len(LEN_MAX);
                self.deliver(side, most, input);
            }
            120..=125 => {
                let time = [1, 30, 1000, 20_000][input.below(4)];
                self.pass(Duration::from_millis(time));
            }
            126 => self.apps[side].core.refuse_inbound(),
            _ => {
                self.apps[side].core.close(ErrorCode::new(7));
                self.closed = true;
            }
        }
        self.apps[side].tell();
    }

    fn note(&mut self, side: usize, done: Done) {
        match done {
            Done::Wrote(id, text) => self.sent.entry((side, id)).or_default().len += text.len(),
            Done::Finished(id) => self.sent.entry((side, id)).or_default().finished = true,
            Done::Read(id, chunk) => {
                let read = self.read_by(side, id);
                let sender = &self.apps[1 - side];
                let start = read - chunk.len();
                let id = (self.mirrored)(id);
                assert!(chunk == text(sender.role, id, start, chunk.len()), "not what was written");
                let sent = self.sent.get(&(1 - side, id)).map_or(0, |sent| sent.len);
                assert!(read <= sent, "more than was written");
            }
            Done::ReadEnd(id) => {
                let sent = self.sent.get(&(1 - side, (self.mirrored)(id)));
                let whole = sent.is_some_and(|s| s.finished && s.len == self.read_by(side, id));
                assert!(whole, "an end that was not sent, or before all data");
            }
            Done::Nothing | Done::Opened(_) | Done::Accepted(_) => {}
        }
    }

    fn read_by(&self, side: usize, id: StreamId) -> usize {
        self.apps[side].held.iter().find(|held| held.id == id).map_or(0, |held| held.read)
    }

    fn transmit(&mut self, side: usize, budget: usize) {
        let app = &mut self.apps[side];
        if self.pipes[side].len() < PIPE_LEN_MAX && app.core.has_transmit() {
            let mut out = Gather::new();
            app.core.poll_transmit(budget, &mut out, app.now);
            self.carried += out.len();
            self.pipes[side].extend_from_slice(&out.copy_to_bytes(out.len()));
        }
    }

    fn deliver(&mut self, side: usize, most: usize, input: &mut Input) {
        let count = most.min(self.pipes[side].len());
        let wire: Bytes = self.pipes[side].split_to(count).freeze();
        let to = &mut self.apps[1 - side];
        for piece in input.cut(&wire) {
            to.core.handle_data(wire.slice_ref(piece), to.now).expect("the peer keeps the rules");
        }
        to.tell();
    }

    fn pass(&mut self, time: Duration) {
        for app in &mut self.apps {
            // A stalled pipe looks like a peer that is gone.
            self.closed |= app.pass(time).is_err();
            app.tell();
        }
    }

    /// Everything is read, finished and let go.
    fn wind_up(&mut self) {
        self.pump(false);
        // Here nobody writes who is told that there is room: then the next one is told, after
        // `CALL_MAX` of yamux's `line.rs`.
        for _ in 0..self.apps.iter().map(|app| app.held.len()).sum() {
            self.pass(Duration::from_millis(10));
            self.pump(false);
        }
        for app in &self.apps {
            for held in app.held.iter().filter(|held| held.send && !held.finished) {
                assert!(!held.write_waits || self.closed, "waits for ever: {held:?}");
            }
        }
        self.pump(true);
        for side in 0..2 {
            let app = &mut self.apps[side];
            for held in std::mem::take(&mut app.held) {
                assert!(held.read_over || !held.recv || self.closed, "hangs: {held:?}");
                app.core.release_send(held.id);
                app.core.release_recv(held.id);
            }
        }
        for _ in 0..4 {
            self.pump(true);
            self.pass(Duration::from_secs(31));
        }
        for app in &self.apps {
            assert!(self.closed || app.core.stream_count() == 0, "something is left");
        }
    }

    /// Moves bytes and reads until nothing moves any more.
    fn pump(&mut self, finish: bool) {
        for round in 0.. {
            assert!(round < 10_000, "does not come to an end");
            let mut moved = false;
            for side in 0..2 {
                while matches!(self.apps[side].accept(), Done::Accepted(_)) {}
                for at in 0..self.apps[side].held.len() {
                    if finish {
                        let done = self.apps[side].finish_at(at);
                        self.note(side, done);
                    }
                    while !self.apps[side].held[at].read_waits
                        && !self.apps[side].held[at].read_over
                        && let done @ (Done::Read(..) | Done::ReadEnd(_)) =
                            self.apps[side].read_some(at, 50_000)
                    {
                        self.note(side, done);
                        moved = true;
                    }
                }
                moved |= !self.pipes[side].is_empty() || self.apps[side].core.has_transmit();
                self.transmit(side, 100_000);
                self.deliver(side, usize::MAX, &mut Input::new(&[]));
                self.apps[side].tell();
            }
            if !moved {
                return;
            }
        }
    }
}
