//! Two peers that write on many streams through pipes of a few bytes, while pings fly: whatever
//! waits is told when it can go on, and somebody always can.
//!
//! Applications here try again only when an event says so. A turn moves a few bytes each way, now
//! and then many, so that windows are used up. As a driver does it, frames are taken from a
//! session when all of the last ones are in the pipe.

use std::collections::BTreeMap;

use super::{super::session::Counters, *};
use crate::common::random::{Random, for_seeds};

const SEEDS: u64 = 10_000;
/// Turns without any progress of an application: about as many bursts as make a hundred times
/// what can be under way.
const PATIENCE: u32 = 5000;
/// Turns without progress after which those who sleep until nothing else goes on do read.
const QUIET: u32 = 100;

/// One side's end of a stream, and the application that has it.
struct Task {
    to_write: usize,
    to_read: usize,
    finished: bool,
    ended: bool,
    /// An event has told it to go on, or it has not yet had to wait.
    may_write: bool,
    may_read: bool,
    /// Reads once in so many turns, or only when nothing else goes on.
    laziness: usize,
}

struct Side {
    rig: Rig,
    out: Gather,
    tasks: BTreeMap<u32, Task>,
}

struct World {
    random: Random,
    sides: [Side; 2],
    /// How much either side writes on a stream, by side and number.
    lengths: BTreeMap<(usize, u32), usize>,
    pipe: usize,
    progress: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let config = Config::default().keep_alive(SECOND);
        let side = |role| Side {
            rig: Rig::fresh(config.clone(), role),
            out: Gather::new(),
            tasks: BTreeMap::new(),
        };
        let mut sides = [side(Role::Initiator), side(Role::Responder)];
        sides[1].rig.now = sides[0].rig.now;
        let pipe = random.pick(&[1, 2, 5, 13, 40, 200]);
        Self { random, sides, lengths: BTreeMap::new(), pipe, progress: 0 }
    }

    fn run(&mut self) {
        for side in 0..2 {
            for _ in 0..1 + self.random.below(7) {
                let number = number(self.sides[side].rig.open());
                for writer in 0..2 {
                    let most = self.random.pick(&[1, 100, 5000, 30_000, 30_000, 600_000]);
                    self.lengths.insert((writer, number), self.random.below(most));
                }
                self.begin(side, number);
            }
        }
        let mut seen = 0;
        let mut patience = PATIENCE;
        while !self.is_done() {
            for side in 0..2 {
                self.turn(side, patience < PATIENCE - QUIET);
            }
            patience = if self.progress > seen { PATIENCE } else { patience - 1 };
            seen = self.progress;
            assert!(patience > 0, "deadlock: {}", self.describe());
        }
        self.wind_up();
    }

    fn begin(&mut self, side: usize, number: u32) {
        let task = Task {
            to_write: self.lengths[&(side, number)],
            to_read: self.lengths[&(1 - side, number)],
            finished: false,
            ended: false,
            may_write: true,
            may_read: true,
            laziness: self.random.pick(&[1, 1, 10, 300, usize::MAX]),
        };
        self.sides[side].tasks.insert(number, task);
    }

    fn turn(&mut self, side: usize, hurry: bool) {
        self.listen(side);
        let Side { rig, tasks, .. } = &mut self.sides[side];
        for (number, task) in tasks {
            let before = (task.to_write, task.to_read, task.finished, task.ended);
            task.write(&mut rig.session, id(*number), &mut self.random);
            let lazy = task.laziness == usize::MAX || !self.random.chance(task.laziness);
            if task.may_read && (hurry || !lazy) {
                task.read(&mut rig.session, id(*number), &mut self.random);
            }
            if before != (task.to_write, task.to_read, task.finished, task.ended) {
                self.progress += 1;
            }
        }
        self.transfer(side);
        if self.random.chance(8) {
            let step = self.random.pick(&[1, 5, 20, 60]);
            for side in &mut self.sides {
                side.rig.pass(step * MILLI).unwrap();
            }
        }
    }

    /// Does as the events say.
    fn listen(&mut self, side: usize) {
        while let Some(event) = self.sides[side].rig.session.poll_event() {
            let tasks = &mut self.sides[side].tasks;
            match event {
                MuxEvent::Readable(id) => {
                    tasks.get_mut(&number(id)).into_iter().for_each(|task| task.may_read = true);
                }
                MuxEvent::Writable(id) => {
                    tasks.get_mut(&number(id)).into_iter().for_each(|task| task.may_write = true);
                }
                MuxEvent::Acceptable => {
                    while let Some(id) = self.sides[side].rig.session.accept() {
                        self.begin(side, number(id));
                        self.progress += 1;
                    }
                }
                MuxEvent::Ended(_) | MuxEvent::Openable | _ => panic!("nobody resets: {event:?}"),
            }
        }
    }

    /// Moves what the pipe takes from `side` to the other.
    fn transfer(&mut self, side: usize) {
        let Side { rig, out, .. } = &mut self.sides[side];
        if out.is_empty() && rig.session.has_transmit() {
            rig.session.poll_transmit(1 << 17, out, rig.now);
        }
        let most = if self.random.chance(30) { 200_000 } else { self.pipe };
        let count = out.len().min(1 + self.random.below(most));
        let wire = out.copy_to_bytes(count);
        let rig = &mut self.sides[1 - side].rig;
        rig.session.handle_data(wire, rig.now).unwrap();
    }

    fn is_done(&self) -> bool {
        let mut tasks = self.sides.iter().flat_map(|side| side.tasks.values());
        let begun: usize = self.sides.iter().map(|side| side.tasks.len()).sum();
        begun == self.lengths.len() && tasks.all(|task| task.finished && task.ended)
    }

    /// Nothing is left of any stream.
    fn wind_up(&mut self) {
        for side in &mut self.sides {
            for number in side.tasks.keys() {
                side.rig.release(id(*number));
            }
        }
        for side in &mut self.sides {
            assert_eq!(side.rig.session.counters(), Counters::default(), "something is left");
        }
    }

    fn describe(&self) -> String {
        let mut out = format!("pipe of {}\n", self.pipe);
        for (side, state) in self.sides.iter().enumerate() {
            out += &format!(
                "side {side}: {:?}, {} bytes out\n",
                state.rig.session.counters(),
                state.out.len()
            );
            for (number, task) in &state.tasks {
                out += &format!(
                    "  stream {number}: {} to write, {} to read, may write {}, may read {}\n",
                    task.to_write, task.to_read, task.may_write, task.may_read
                );
            }
        }
        out
    }
}

impl Task {
    fn write(&mut self, session: &mut Session, id: StreamId, random: &mut Random) {
        while self.may_write && self.to_write > 0 {
            let most = random.pick(&[10, 3000, 100_000]);
            let count = self.to_write.min(1 + random.below(most));
            match session.write_slice(id, &ZEROS[..count]) {
                Poll::Ready(result) => self.to_write -= result.unwrap(),
                Poll::Pending => self.may_write = false,
            }
        }
        if self.to_write == 0 && !self.finished {
            session.finish(id).unwrap();
            self.finished = true;
        }
    }

    fn read(&mut self, session: &mut Session, id: StreamId, random: &mut Random) {
        let mut left = random.pick(&[1, 1000, usize::MAX]);
        while self.may_read && !self.ended && left > 0 {
            match session.read(id, left) {
                Poll::Ready(Ok(Some(chunk))) => {
                    left -= chunk.len();
                    self.to_read =
                        self.to_read.checked_sub(chunk.len()).expect("no more than was written");
                }
                Poll::Ready(Ok(None)) => {
                    assert_eq!(self.to_read, 0, "an end before all data");
                    self.ended = true;
                }
                Poll::Ready(Err(error)) => panic!("{error}"),
                Poll::Pending => self.may_read = false,
            }
        }
    }
}

static ZEROS: [u8; 100_000] = [0; 100_000];

#[test]
fn rust_yamux_227_saturated_sessions_never_deadlock_whatever_the_seed() {
    for_seeds(SEEDS, |seed| World::new(seed).run());
}
