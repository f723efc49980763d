//! Who goes first, counted in bytes.

use super::*;

const BULK: usize = 63;

/// Streams that send in bulk, and one that says a little now and then.
struct World {
    rig: Rig,
    bulk: Vec<StreamId>,
    quiet: StreamId,
}

impl World {
    fn new() -> Self {
        let mut rig = Rig::client();
        let bulk: Vec<StreamId> = (0..BULK).map(|_| rig.opened()).collect();
        let quiet = rig.opened();
        for id in bulk.iter().chain([&quiet]) {
            rig.hear(&bare(UPDATE, 0, number(*id), 1 << 30)).unwrap();
        }
        Self { rig, bulk, quiet }
    }

    /// Every bulk stream writes as much as it may, another one first each time.
    fn fill(&mut self) {
        self.rig.events();
        self.bulk.rotate_left(1);
        for id in &self.bulk {
            while self.rig.write(*id, &[0; 64 << 10]) > 0 {}
        }
    }

    /// What one turn of a driver takes.
    fn turn(&mut self) -> Vec<Frame> {
        let mut out = Gather::new();
        self.rig.session.poll_transmit(2 * 65_519, &mut out, self.rig.now);
        Frame::decode_all(&out.copy_to_bytes(out.len()))
    }
}

#[test]
fn an_interactive_stream_beside_63_bulk_streams_waits_for_a_bounded_number_of_bytes() {
    let mut world = World::new();
    let mut worst = 0;
    for round in 0..500 {
        for _ in 0..round % 7 {
            world.fill();
            world.turn();
        }
        world.fill();
        assert_eq!(world.rig.write(world.quiet, b"keystroke"), 9);
        let mut ahead = 0;
        'sent: loop {
            for frame in world.turn() {
                if frame.stream == number(world.quiet) {
                    assert_eq!(frame.body, b"keystroke");
                    break 'sent;
                }
                ahead += frame.body.len();
            }
            world.fill();
        }
        worst = worst.max(ahead);
    }
    assert!(worst <= 65_536, "{worst} bytes went ahead");
}

/// As long as they write in turns.
#[test]
fn bulk_streams_take_their_turns() {
    let mut world = World::new();
    let mut sent = std::collections::HashMap::new();
    for _ in 0..5000 {
        world.fill();
        for frame in world.turn() {
            *sent.entry(frame.stream).or_insert(0) += frame.body.len();
        }
    }
    let (least, most) = (sent.values().min().unwrap(), sent.values().max().unwrap());
    assert_eq!(sent.len(), BULK);
    assert!(*most <= *least / 10 * 11, "{least} and {most} bytes");
}

#[test]
fn control_frames_go_before_all_data() {
    let mut world = World::new();
    world.fill();
    world.turn();
    world.fill();
    let rig = &mut world.rig;
    rig.write(world.quiet, b"keystroke");
    rig.hear(&bare(PING, SYN, 0, 5)).unwrap();
    let read = world.bulk[0];
    rig.hear(&data(0, number(read), &[0; 200_000])).unwrap();
    rig.read_all(read);
    rig.session.reset(world.bulk[1], code(4));
    let frames = world.turn();
    let (reset, quiet) = (number(world.bulk[1]), number(world.quiet));
    assert_eq!(
        frames[..4],
        [
            bare(PING, ACK, 0, 5),
            bare(UPDATE, 0, number(read), 200_000),
            bare(UPDATE, RST, reset, 4),
            data(0, quiet, b"keystroke"),
        ]
    );
}
