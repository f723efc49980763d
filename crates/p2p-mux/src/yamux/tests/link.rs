//! Two sessions over a link with a latency, a bandwidth and a buffer, in virtual time.

use std::collections::VecDeque;

use super::*;

const TICK: Duration = Duration::from_micros(250);

/// One direction: what it has taken leaves at the link's speed and arrives later.
struct Link {
    /// Bytes in one tick.
    speed: usize,
    latency: Duration,
    /// How many bytes may wait to leave.
    buffer: usize,
    waiting: Gather,
    under_way: VecDeque<(Instant, Bytes)>,
}

impl Link {
    fn new(bits_per_second: usize, latency: Duration, buffer: usize) -> Self {
        let speed = bits_per_second / 8 / 4000;
        Self { speed, latency, buffer, waiting: Gather::new(), under_way: VecDeque::new() }
    }

    /// Lets one tick's worth leave.
    fn tick(&mut self, now: Instant) {
        let count = self.waiting.len().min(self.speed);
        let bytes = self.waiting.copy_to_bytes(count);
        if !bytes.is_empty() {
            self.under_way.push_back((now + self.latency, bytes));
        }
    }

    fn arrival(&mut self, now: Instant) -> Option<Bytes> {
        self.under_way.front().filter(|(at, _)| *at <= now)?;
        self.under_way.pop_front().map(|(_, bytes)| bytes)
    }
}

/// One stream from a sender that never pauses to a reader.
struct World {
    sender: Rig,
    receiver: Rig,
    stream: StreamId,
    forth: Link,
    back: Link,
    text: Bytes,
    /// What the reader takes in one tick, in bytes.
    reads: usize,
    read: usize,
    /// What the receiver has allowed beyond what was read, at most.
    window: usize,
}

impl World {
    fn new(bits_per_second: usize, round_trip: Duration, reads: usize, most: u32) -> Self {
        let config = || Config::default().window_max(most).windows_growth_max(most);
        let mut sender = Rig::fresh(config(), Role::Initiator);
        let mut receiver = Rig::fresh(config(), Role::Responder);
        receiver.now = sender.now;
        sender.session.handle_timeout(sender.now).unwrap();
        receiver.session.handle_timeout(sender.now).unwrap();
        let stream = sender.open();
        let link = || Link::new(bits_per_second, round_trip / 2, 1 << 20);
        let text = Bytes::from(vec![0; 1 << 20]);
        let (forth, back) = (link(), link());
        Self { sender, receiver, stream, forth, back, text, reads, read: 0, window: 0 }
    }

    fn run(&mut self, time: Duration) {
        let end = self.sender.now + time;
        while self.sender.now < end {
            self.tick();
        }
    }

    fn tick(&mut self) {
        let now = self.sender.now;
        while self.forth.waiting.len() < self.forth.buffer {
            while let Poll::Ready(result) =
                self.sender.session.write(self.stream, &mut self.text.clone())
            {
                result.unwrap();
            }
            if !self.sender.session.has_transmit() {
                break;
            }
            let room = self.forth.buffer - self.forth.waiting.len();
            self.sender.session.poll_transmit(room, &mut self.forth.waiting, now);
        }
        self.forth.tick(now);
        while let Some(bytes) = self.forth.arrival(now) {
            self.receiver.session.handle_data(bytes, now).unwrap();
        }
        self.receiver.session.accept();
        self.take();
        if self.receiver.session.has_transmit() {
            self.receiver.session.poll_transmit(1 << 17, &mut self.back.waiting, now);
        }
        self.back.tick(now);
        while let Some(bytes) = self.back.arrival(now) {
            self.sender.session.handle_data(bytes, now).unwrap();
        }
        self.sender.events();
        self.receiver.events();
        let growth = self.receiver.session.counters().growth as usize;
        self.window = self.window.max(growth + WINDOW_INITIAL as usize);
        self.sender.pass(TICK).unwrap();
        self.receiver.pass(TICK).unwrap();
    }

    fn take(&mut self) {
        let mut left = self.reads;
        while left > 0
            && let Poll::Ready(Ok(Some(chunk))) = self.receiver.session.read(self.stream, left)
        {
            left -= chunk.len();
            self.read += chunk.len();
        }
    }
}

const ROUND_TRIP: Duration = Duration::from_millis(60);
const GIGABIT: usize = 1_000_000_000;

#[test]
fn one_stream_fills_a_long_fat_link_and_holds_no_more_than_twice_what_is_under_way() {
    let under_way = 5 * GIGABIT / 8 / 1000 * 60;
    let most = u32::try_from(2 * under_way).unwrap();
    let mut world = World::new(5 * GIGABIT, ROUND_TRIP, usize::MAX, most);
    let mut shares = Vec::new();
    for _ in 0..20 {
        let before = world.read;
        world.run(ROUND_TRIP);
        shares.push((world.read - before) * 100 / under_way);
    }
    assert!(shares[14..].iter().all(|share| *share >= 80), "{shares:?} % of the link");
    assert!(world.window <= 2 * under_way, "a window of {} for {under_way}", world.window);
}

/// A reader that takes 1 Mbit/s is what holds the sender back, not the window.
#[test]
fn a_window_does_not_grow_beyond_what_a_slow_reader_takes() {
    for link in [10_000_000, 100_000_000, GIGABIT] {
        let mut world = World::new(link, ROUND_TRIP, 1_000_000 / 8 / 4000, 1 << 30);
        world.run(20 * SECOND);
        assert!(world.read > 2_000_000, "{} bytes read over {link}", world.read);
        assert_eq!(world.window, WINDOW_INITIAL as usize, "over {link}");
    }
}
