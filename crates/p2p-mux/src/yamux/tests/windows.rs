//! Credit: what may be sent, and when more is granted.

use p2p_core::ProtocolId;

use super::*;

/// Reads everything and gives the credit that is granted for it.
fn granted(rig: &mut Rig, id: StreamId) -> u32 {
    rig.read_all(id);
    let frames = rig.frames();
    for frame in &frames {
        assert_eq!((frame.kind, frame.flags, frame.stream), (UPDATE, 0, number(id)));
    }
    assert!(frames.len() <= 1);
    frames.first().map_or(0, |frame| frame.length)
}

#[test]
fn yamux_22_windows_begin_with_256_kib() {
    let mut rig = Rig::server();
    let one = rig.accepted(1);
    rig.hear(&data(0, 1, &vec![0; 262_144])).unwrap();
    assert!(rig.frames().is_empty(), "no credit before the application reads");
    assert_eq!(rig.read_all(one).0.len(), 262_144);
    let two = rig.opened();
    let mut sent = 0;
    while rig.write(two, &[0; 50_000]) > 0 {
        sent += rig.frames().iter().map(|frame| frame.body.len()).sum::<usize>();
    }
    assert_eq!(sent, 262_144);
}

/// What was announced and has not come was taken for read, so that a frame that trickled in let the
/// peer send, and this side hold, twice the window.
#[test]
fn yamux_29_what_is_still_under_way_is_not_credited() {
    let mut rig = Rig::server();
    let one = rig.accepted(1);
    let frame = data(0, 1, &vec![0; 200_000]).encode();
    rig.hear_bytes(&frame[..12 + 1]).unwrap();
    assert_eq!(granted(&mut rig, one), 0, "one byte was read");
    rig.hear_bytes(&frame[13..]).unwrap();
    assert_eq!(granted(&mut rig, one), 200_000);
}

#[test]
fn yamux_23_headers_and_empty_frames_cost_no_credit() {
    let mut rig = Rig::server();
    rig.accepted(1);
    for _ in 0..50 {
        rig.hear(&bare(DATA, 0, 1, 0)).unwrap();
    }
    rig.hear(&data(0, 1, &vec![0; 262_144])).unwrap();
}

#[test]
fn yamux_24_t05_01_credit_on_syn_and_ack_is_a_delta() {
    let mut rig = Rig::server();
    rig.hear(&bare(UPDATE, SYN, 1, 0)).unwrap();
    rig.hear(&bare(UPDATE, SYN, 3, 10)).unwrap();
    let (one, three) = (rig.session.accept().unwrap(), rig.session.accept().unwrap());
    let two = rig.open();
    rig.frames();
    rig.hear(&bare(UPDATE, ACK, 2, 5)).unwrap();
    for (stream, window) in [(one, 262_144), (three, 262_154), (two, 262_149)] {
        let mut sent = 0;
        loop {
            let count = rig.write(stream, &[0; 50_000]);
            sent += count;
            rig.frames();
            if count == 0 {
                break;
            }
        }
        assert_eq!(sent, window);
    }
}

#[test]
fn yamux_26_credit_that_overflows_is_fatal() {
    let mut rig = Rig::server();
    rig.accepted(1);
    rig.hear(&bare(UPDATE, 0, 1, u32::MAX - 262_144)).unwrap();
    let error = MuxError::WindowOverflow { stream: 1, credit: 1 };
    assert_eq!(rig.hear(&bare(UPDATE, 0, 1, 1)), Err(error));
    assert_eq!(rig.frames(), [bare(GO_AWAY, 0, 0, 1)]);
}

#[test]
fn yamux_27_more_data_than_credit_is_fatal() {
    for already in [0, 1, 262_143, 262_144] {
        let mut rig = Rig::server();
        rig.accepted(1);
        rig.hear(&data(0, 1, &vec![0; already as usize])).unwrap();
        let (len, window) = (262_145 - already, 262_144 - already);
        // It is the header that counts: no body needs to follow.
        let error = MuxError::WindowExceeded { stream: 1, len, window };
        assert_eq!(rig.hear(&bare(DATA, 0, 1, len)), Err(error));
        assert_eq!(rig.frames(), [bare(GO_AWAY, 0, 0, 1)]);
        assert!(rig.session.is_closed());
    }
}

/// Whatever the window is that a stream had, no honest frame is larger than the largest.
#[test]
fn more_data_than_any_window_is_fatal_on_unknown_streams_too() {
    let mut rig = Rig::server();
    let most = 128 << 20;
    rig.hear(&bare(DATA, 0, 99, most)).unwrap();
    rig.hear_bytes(&vec![0; most as usize]).unwrap();
    let error = MuxError::WindowExceeded { stream: 99, len: most + 1, window: most };
    assert_eq!(rig.hear(&bare(DATA, 0, 99, most + 1)), Err(error));
}

#[test]
fn yamux_28_updates_may_be_small_and_wake_a_writer() {
    let mut rig = Rig::client();
    let one = rig.opened();
    while rig.write(one, &[0; 100_000]) > 0 {
        rig.frames();
    }
    rig.events();
    rig.hear(&bare(UPDATE, 0, 1, 0)).unwrap();
    assert!(rig.events().is_empty());
    rig.hear(&bare(UPDATE, 0, 1, 1)).unwrap();
    assert_eq!(rig.events(), [MuxEvent::Writable(one)]);
    assert_eq!(rig.write(one, b"xy"), 1);
    assert_eq!(rig.frames(), [data(0, 1, b"x")]);
}

#[test]
fn yamux_29_credit_comes_when_a_quarter_of_the_first_window_was_read() {
    let mut rig = Rig::server();
    let one = rig.accepted(1);
    rig.hear(&data(0, 1, &vec![0; 65_535])).unwrap();
    assert_eq!(granted(&mut rig, one), 0);
    rig.hear(&data(0, 1, b"!")).unwrap();
    assert!(rig.frames().is_empty(), "not on receipt");
    assert_eq!(granted(&mut rig, one), 65_536);
    rig.hear(&data(0, 1, &vec![0; 262_144])).unwrap();
    assert!(matches!(rig.session.read(one, 65_535), Poll::Ready(Ok(Some(_)))));
    assert!(rig.frames().is_empty());
    assert!(matches!(rig.session.read(one, 9000), Poll::Ready(Ok(Some(_)))));
    assert_eq!(rig.frames(), [bare(UPDATE, 0, 1, 74_535)], "only for what was read");
}

/// The answer is larger than a window, and our side is finished.
#[test]
fn yamux_17_t05_09_credit_is_granted_after_our_own_fin() {
    let mut rig = Rig::client();
    let one = rig.opened();
    rig.session.finish(one).unwrap();
    assert_eq!(rig.frames(), [bare(DATA, FIN, 1, 0)]);
    for _ in 0..10 {
        rig.hear(&data(0, 1, &vec![0; 262_144])).unwrap();
        assert_eq!(granted(&mut rig, one), 262_144);
    }
}

#[test]
fn yamux_31_no_credit_after_the_peers_fin() {
    let mut rig = Rig::server();
    let one = rig.accepted(1);
    rig.hear(&data(FIN, 1, &vec![0; 262_144])).unwrap();
    assert_eq!(granted(&mut rig, one), 0);
    rig.hear(&bare(UPDATE, 0, 1, 100)).unwrap();
    rig.session.finish(one).unwrap();
    rig.frames();
    rig.hear(&bare(UPDATE, 0, 1, 100)).unwrap();
    rig.release(one);
    assert!(rig.is_empty());
}

/// Uses up the window, reads it, and lets `time` pass before the next round.
fn round(rig: &mut Rig, one: StreamId, window: &mut u32, time: Duration) -> u32 {
    rig.hear(&data(0, 1, &vec![0; *window as usize])).unwrap();
    let credit = granted(rig, one);
    *window = credit;
    rig.now += time;
    credit
}

#[test]
fn yamux_30_the_window_grows_to_what_is_read_in_two_round_trips() {
    let mut rig = Rig::with(quiet(), Role::Responder, 100 * MILLI);
    let one = rig.accepted(1);
    let mut window = WINDOW_INITIAL;
    assert_eq!(round(&mut rig, one, &mut window, 200 * MILLI), 256 << 10, "the first: no measure");
    assert_eq!(round(&mut rig, one, &mut window, 160 * MILLI), 256 << 10, "no more than it is");
    assert_eq!(
        round(&mut rig, one, &mut window, 100 * MILLI),
        400 << 10,
        "256 KiB in 160 ms ask for 320, a quarter more than before, and as much again goes ahead"
    );
    assert_eq!(round(&mut rig, one, &mut window, 24 * MILLI), 800 << 10, "twice as much at most");
    assert_eq!(round(&mut rig, one, &mut window, 401 * MILLI), 800 << 10, "too short to measure");
    assert_eq!(round(&mut rig, one, &mut window, MILLI), 800 << 10, "slow, and never smaller");
    assert_eq!(rig.session.counters().growth, (800 - 256) << 10);
    rig.session.reset(one, ErrorCode::NONE);
    assert_eq!(rig.session.counters().growth, 0, "the growth goes back with the stream's end");
    rig.release(one);
    rig.frames();
    assert!(rig.is_empty());
}

/// A link does not change with the stream: one after another does not begin from nothing.
#[test]
fn yamux_30_a_stream_begins_with_the_window_of_the_one_before() {
    const MIB: u32 = 1 << 20;
    let config = quiet().windows_growth_max(32 * MIB);
    let mut rig = Rig::with(config, Role::Responder, 100 * MILLI);
    let (one, mut window) = (rig.accepted(1), WINDOW_INITIAL);
    let mut most = 0;
    for _ in 0..9 {
        most = round(&mut rig, one, &mut window, 100 * MILLI);
    }
    assert!(most > 24 * MIB, "{most}");
    rig.session.reset(one, ErrorCode::NONE);
    rig.release(one);
    rig.frames();
    assert_eq!(rig.session.counters().growth, 0);
    let mut first_credit = |id: u32| {
        let stream = rig.accepted(id);
        rig.hear(&data(0, id, &[0; 100])).unwrap();
        assert_eq!(rig.read_all(stream).0.len(), 100);
        assert_eq!(rig.session.counters().growth, 0, "not for a stream that is not read");
        rig.hear(&data(0, id, &[0; 100_000])).unwrap();
        rig.read_all(stream);
        let updates = rig.frames().into_iter().filter(|frame| frame.kind == UPDATE);
        let credit: u32 = updates.map(|frame| frame.length).sum();
        rig.session.reset(stream, ErrorCode::NONE);
        rig.release(stream);
        rig.frames();
        rig.now += Duration::from_secs(4);
        credit
    };
    let most = 24 * MIB - WINDOW_INITIAL + 100_100;
    assert_eq!(first_credit(3), most, "three quarters of what there is for the connection");
    assert_eq!(first_credit(5), most);
    first_credit(7);
    assert_eq!(first_credit(9), 100_100, "links do change in ten seconds");
}

/// Others wait for half of the window (YAMUX-29), which a fast link then has to do without.
#[test]
fn yamux_29_credit_of_a_large_window_comes_by_the_mebibyte() {
    const MIB: u32 = 1 << 20;
    let mut rig = Rig::with(quiet(), Role::Responder, 100 * MILLI);
    let (one, mut window) = (rig.accepted(1), WINDOW_INITIAL);
    while window < 16 * MIB {
        round(&mut rig, one, &mut window, 100 * MILLI);
    }
    for (read, credit) in [(MIB - 1, 0), (1, MIB)] {
        rig.hear(&data(0, 1, &vec![0; read as usize])).unwrap();
        assert_eq!(granted(&mut rig, one), credit);
    }
}

/// A protocol that has needed a large window is told of it with the stream's opening, a round trip
/// earlier than by its first data.
#[test]
fn yamux_30_a_protocol_that_has_needed_a_large_window_has_one_at_once() {
    let [bulk, other] = ["/bulk", "/other"].map(|name| ProtocolId::new(name).unwrap());
    let mut rig = Rig::with(quiet(), Role::Responder, 100 * MILLI);
    let credit_of = |rig: &mut Rig, id: StreamId, protocol: &ProtocolId| {
        rig.session.set_protocol(id, protocol);
        let updates = rig.frames().into_iter().filter(|frame| frame.kind == UPDATE);
        updates.map(|frame| frame.length).sum::<u32>()
    };
    let (one, mut window) = (rig.accepted(1), WINDOW_INITIAL);
    assert_eq!(credit_of(&mut rig, one, &bulk), 0, "nothing is known");
    let wanted = (0..5).map(|_| round(&mut rig, one, &mut window, 100 * MILLI)).last();
    assert!(wanted > Some(WINDOW_INITIAL));
    let (three, five) = (rig.accepted(3), rig.accepted(5));
    assert_eq!(credit_of(&mut rig, three, &other), 0, "it has needed none");
    let growth = rig.session.counters().growth;
    let credit = credit_of(&mut rig, five, &bulk);
    assert!(credit > 2 * WINDOW_INITIAL, "{credit}");
    assert_eq!(rig.session.counters().growth, growth + credit);
    rig.hear(&data(0, 5, &[0; 100_000])).unwrap();
    assert_eq!(granted(&mut rig, five), 0, "and no more for what it reads first");
    let seven = rig.accepted(7);
    rig.session.stop(seven, ErrorCode::NONE);
    assert_eq!(credit_of(&mut rig, seven, &bulk), 0, "nobody reads it");
    rig.now += Duration::from_secs(11);
    let nine = rig.accepted(9);
    assert_eq!(credit_of(&mut rig, nine, &bulk), 0, "links do change in ten seconds");
}

/// py-libp2p ignores what is on a window update with SYN: both sides would wait for each other.
#[test]
fn yamux_24_credit_that_is_given_at_once_does_not_ride_on_syn() {
    let bulk = ProtocolId::new("/bulk").unwrap();
    let mut rig = Rig::with(quiet(), Role::Responder, 100 * MILLI);
    let (one, mut window) = (rig.accepted(1), WINDOW_INITIAL);
    rig.session.set_protocol(one, &bulk);
    while round(&mut rig, one, &mut window, 100 * MILLI) <= WINDOW_INITIAL {}
    let own = rig.open();
    rig.session.set_protocol(own, &bulk);
    rig.write(own, b"proposal");
    let sent = rig.frames();
    let [syn, credit, proposal] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!((syn.kind, syn.flags, syn.length), (UPDATE, SYN, 0));
    assert_eq!((credit.kind, credit.flags), (UPDATE, 0));
    assert!(credit.length > 0);
    assert_eq!((proposal.flags, proposal.length), (0, 8));
}

/// A window at most doubles with each round trip, however much was read meanwhile.
#[test]
fn yamux_30_a_window_settles_at_twice_what_a_link_carries() {
    let mut rig = Rig::with(quiet(), Role::Responder, 60 * MILLI);
    let one = rig.accepted(1);
    // 5 Gbit/s in steps of 1 ms; the peer hears of credit one round trip later.
    let (step, round_trip) = (625_000_usize, 60);
    let mut credit = vec![0; 2000];
    credit[0] = 262_144_usize;
    let (mut left, mut sent_at, mut pings) = (0, Vec::new(), 0);
    for now in 0..1800 {
        left += credit[now];
        let count = left.min(step);
        left -= count;
        sent_at.push(count);
        for body in vec![0; count].chunks(1 << 16) {
            rig.hear(&data(0, 1, body)).unwrap();
        }
        rig.read_all(one);
        for frame in rig.frames() {
            match frame.kind {
                UPDATE => credit[now + round_trip] += frame.length as usize,
                PING => pings += 1,
                other => panic!("a frame of kind {other}"),
            }
        }
        rig.now += MILLI;
    }
    assert_eq!(pings, 1, "measured again after a second, and not answered");
    let rate = |from: usize| sent_at[from..from + round_trip].iter().sum::<usize>();
    let full = step * round_trip;
    assert!(rate(15 * round_trip) >= full * 8 / 10, "{} of {full}", rate(15 * round_trip));
    assert!(rate(25 * round_trip) >= full * 95 / 100);
    let window = rig.session.counters().growth + WINDOW_INITIAL;
    assert!(window as usize <= 2 * full, "{window} for {full} bytes in a round trip");
}

/// A reader that sleeps for a second, and then takes all that has come at 1 GB/s. The peer fills the
/// window meanwhile. Gives the window after so many naps, in bytes.
fn nap(round_trip: Duration, naps: usize) -> u32 {
    let mut rig = Rig::with(quiet(), Role::Responder, round_trip);
    let one = rig.accepted(1);
    let mut credit = WINDOW_INITIAL;
    for _ in 0..naps {
        rig.hear(&data(0, 1, &vec![0; credit as usize])).unwrap();
        credit = 0;
        rig.now += SECOND;
        while rig.session.read(one, 16 << 10).is_ready() {
            rig.now += Duration::from_micros(16);
            for frame in rig.frames() {
                credit += if frame.kind == UPDATE { frame.length } else { 0 };
            }
        }
    }
    rig.session.counters().growth + WINDOW_INITIAL
}

/// What a burst asks for is bounded by what it reads in two round trips; one that is over in less
/// than a quarter of one is averaged with the sleep before it.
#[test]
fn yamux_30_a_reader_in_bursts_gets_no_more_than_its_bursts_need() {
    assert_eq!(nap(60 * MILLI, 200), WINDOW_INITIAL, "far below a quarter of a round trip");
    assert_eq!(nap(10 * MILLI, 200), WINDOW_INITIAL);
    let window = nap(MILLI, 200);
    assert!(window <= 2 << 20, "{window}, of 2 MB in two round trips");
}

/// A stream over a link of 20 µs, which both ends take longer turns for: `burst` bytes come and are read
/// at 1.4 GB/s, then there is a pause. Gives the window at last.
fn quick(burst: usize, pause: Duration) -> u32 {
    let mut rig = Rig::with(quiet(), Role::Responder, Duration::from_micros(20));
    let one = rig.accepted(1);
    for _ in 0..(16 << 20) / burst {
        for body in vec![0; burst].chunks(64 << 10) {
            rig.hear(&data(0, 1, body)).unwrap();
            rig.now += Duration::from_micros(45);
            granted(&mut rig, one);
        }
        rig.now += pause;
    }
    rig.session.counters().growth + WINDOW_INITIAL
}

#[test]
fn yamux_30_windows_are_made_for_turns_of_both_sides_at_least() {
    let window = quick(256 << 10, Duration::ZERO);
    assert!((1..4).contains(&(window >> 20)), "{window} for 1.4 MB in a millisecond");
    let one_of_many = quick(256 << 10, 10 * MILLI);
    assert_eq!(one_of_many, WINDOW_INITIAL, "its bursts are not its rate");
}

#[test]
fn yamux_30_no_growth_without_a_round_trip() {
    let mut rig = Rig::fresh(quiet(), Role::Responder);
    rig.session.handle_timeout(rig.now).unwrap();
    rig.frames();
    let one = rig.accepted(1);
    let mut window = WINDOW_INITIAL;
    for _ in 0..5 {
        assert_eq!(round(&mut rig, one, &mut window, Duration::ZERO), 256 << 10);
    }
}

#[test]
fn window_max_limits_growth() {
    for most in [100, 262_144, 300_000, 16 << 20] {
        let mut rig = Rig::with(quiet().window_max(most), Role::Responder, MILLI);
        let one = rig.accepted(1);
        let mut window = WINDOW_INITIAL;
        for _ in 0..10 {
            round(&mut rig, one, &mut window, MILLI);
        }
        assert_eq!(window, most.max(WINDOW_INITIAL));
    }
}

#[test]
fn windows_growth_max_limits_all_streams_and_is_given_back() {
    let config = quiet().windows_growth_max(1 << 20);
    let mut rig = Rig::with(config, Role::Responder, MILLI);
    let grow = |rig: &mut Rig, number: u32| {
        let id = rig.accepted(number);
        let mut window = WINDOW_INITIAL;
        for _ in 0..5 {
            rig.hear(&data(0, number, &vec![0; window as usize])).unwrap();
            window = granted(rig, id);
            rig.now += MILLI;
        }
        (id, window)
    };
    let (one, window) = grow(&mut rig, 1);
    assert_eq!(window, (1 << 20) + (256 << 10));
    assert_eq!(grow(&mut rig, 3).1, 256 << 10, "nothing is left");
    // An ordinary end gives it back too.
    rig.hear(&bare(UPDATE, FIN, 1, 0)).unwrap();
    rig.session.finish(one).unwrap();
    rig.frames();
    rig.release(one);
    assert_eq!(rig.session.counters().growth, 0);
    let (five, window) = grow(&mut rig, 5);
    assert_eq!(window, (1 << 20) + (256 << 10));
    rig.hear(&bare(UPDATE, RST, 5, 0)).unwrap();
    assert_eq!(rig.session.counters().growth, 0, "held by the application, but dead");
    rig.release(five);
    assert_eq!(grow(&mut rig, 7).1, (1 << 20) + (256 << 10));
}

fn host_sessions<const N: usize>(config: &Config) -> [Rig; N] {
    let host = HostWindows::new(config);
    std::array::from_fn(|_| {
        let host = Arc::clone(&host);
        Rig::of_host(config.clone(), Role::Responder, host).measured(MILLI)
    })
}

/// Lets a new stream's window grow as far as it may, and says how far.
fn grown(rig: &mut Rig) -> u32 {
    let id = rig.accepted(1);
    let mut window = WINDOW_INITIAL;
    for _ in 0..16 {
        round(rig, id, &mut window, MILLI);
    }
    window - WINDOW_INITIAL
}

#[test]
fn windows_growth_host_max_is_shared_and_something_is_always_left() {
    let config = quiet().windows_growth_host_max(16 << 20);
    let [mut one, mut two, mut three] = host_sessions(&config);
    assert_eq!(grown(&mut one), 8 << 20, "half");
    assert_eq!(grown(&mut two), 4 << 20, "half of the rest");
    drop(one);
    assert_eq!(grown(&mut three), 6 << 20, "half of what is left after the first's end");
    two.session.reset(id(1), ErrorCode::NONE);
    drop((two, three));
}

#[test]
fn streams_inbound_host_max_is_shared_and_something_is_always_left() {
    let config = quiet().streams_inbound_host_max(64);
    let [mut one, mut two, mut three] = host_sessions(&config);
    let accepted = |rig: &mut Rig| {
        let syn: Vec<Frame> = (1..101).map(|n| bare(UPDATE, SYN, 2 * n - 1, 0)).collect();
        rig.hear_all(&syn);
        let accepted = std::iter::from_fn(|| rig.session.accept()).count();
        let refused = rig.frames().iter().filter(|f| f.flags == RST).count();
        assert_eq!(accepted + refused, 100);
        accepted
    };
    assert_eq!(accepted(&mut one), 32);
    assert_eq!(accepted(&mut two), 16);
    assert_eq!(accepted(&mut three), 8);
    // An ended stream makes room for another.
    three.hear(&bare(UPDATE, RST, 1, 0)).unwrap();
    three.release(id(1));
    three.hear(&bare(UPDATE, SYN, 301, 0)).unwrap();
    assert!(three.session.accept().is_some());
    drop((one, two));
    three.hear_all(&[bare(UPDATE, SYN, 303, 0), bare(UPDATE, SYN, 305, 0)]);
    assert_eq!(std::iter::from_fn(|| three.session.accept()).count(), 2);
}

/// The buffers for sending are limited, and every stream gets a share.
#[test]
fn send_buffers_are_limited() {
    let mut rig = Rig::client();
    let streams: Vec<StreamId> = (0..12).map(|_| rig.opened()).collect();
    let taken: Vec<usize> = streams.iter().map(|id| rig.write(*id, &[0; 200_000])).collect();
    assert_eq!(taken, [[131_014; 2].as_slice(), &[4096; 10]].concat());
    assert_eq!(rig.session.counters().queued, 2 * 131_014 + 10 * 4096);
    for id in &streams {
        assert_eq!(rig.write(*id, b"x"), 0);
    }
    rig.events();
    assert_eq!(rig.session.backlog(), 12 + 12, "to be sent, and in line");
    // One after the other is told, in their order.
    for id in &streams {
        rig.frames();
        assert_eq!(rig.session.counters().queued, 0);
        assert_eq!(rig.events(), [MuxEvent::Writable(*id)]);
        rig.frames();
        assert_eq!(rig.events(), [], "the others are not told before it has come");
        assert!(rig.write(*id, b"more") > 0);
    }
    assert_eq!(rig.session.backlog(), 1, "the last one's data");
}

/// One that was told that there is room, and gives up writing, holds up the others for a moment.
#[test]
fn a_writer_that_does_not_come_is_not_waited_for() {
    let mut rig = Rig::client();
    let streams: Vec<StreamId> = (0..7).map(|_| rig.opened()).collect();
    let fill = |rig: &mut Rig| {
        for id in &streams {
            while rig.write(*id, &[0; 65_507]) > 0 {}
        }
        rig.events();
        rig.frames();
    };
    fill(&mut rig);
    assert_eq!(rig.events(), [MuxEvent::Writable(streams[0])]);
    // It does nothing.
    rig.pass(9 * MILLI).unwrap();
    rig.frames();
    assert_eq!(rig.events(), []);
    rig.pass(MILLI).unwrap();
    rig.frames();
    assert_eq!(rig.events(), [MuxEvent::Writable(streams[1])]);
    // It ends its data instead.
    rig.session.finish(streams[1]).unwrap();
    rig.frames();
    assert_eq!(rig.events(), [MuxEvent::Writable(streams[2])]);
    // It ends.
    rig.session.reset(streams[2], ErrorCode::NONE);
    rig.frames();
    assert_eq!(rig.events(), [MuxEvent::Ended(streams[2]), MuxEvent::Writable(streams[3])]);
    // It goes.
    rig.release(streams[3]);
    rig.frames();
    let events = rig.events();
    assert!(events.contains(&MuxEvent::Writable(streams[4])), "{events:?}");
    // One that has ended in the line is not told.
    rig.session.reset(streams[5], ErrorCode::NONE);
    assert!(rig.write(streams[4], b"here") > 0);
    rig.frames();
    assert_eq!(rig.events(), [MuxEvent::Ended(streams[5]), MuxEvent::Writable(streams[6])]);
    assert!(rig.write(streams[6], b"and here") > 0);
    rig.frames();
    assert_eq!(rig.events(), []);
}

/// One that finds room by itself is in the line no more.
#[test]
fn a_writer_that_finds_room_by_itself_leaves_the_line() {
    let mut rig = Rig::client();
    let streams: Vec<StreamId> = (0..3).map(|_| rig.opened()).collect();
    for id in &streams {
        assert!(rig.write(*id, &[0; 200_000]) > 0);
        assert_eq!(rig.write(*id, b"more"), 0);
    }
    rig.session.poll_transmit(1, &mut Gather::new(), rig.now);
    assert_eq!(rig.events(), [], "too little room to tell one");
    assert_eq!(rig.session.backlog(), 3 + 3, "data, and in line");
    assert_eq!(rig.write(streams[0], b"more"), 4, "half of its own has gone");
    assert_eq!(rig.session.backlog(), 3 + 2);
}

/// A full buffer and a little credit left.
#[test]
fn a_writer_with_little_credit_is_woken_when_its_buffer_empties() {
    let mut rig = Rig::client();
    let one = rig.opened();
    for _ in 0..2 {
        assert_eq!(rig.write(one, &[0; 200_000]), 131_014);
        assert_eq!(rig.write(one, b"more than five"), 0);
        rig.events();
        rig.frames();
        assert_eq!(rig.events(), [MuxEvent::Writable(one)]);
    }
    assert_eq!(rig.write(one, &[0; 200]), (256 << 10) - 2 * 131_014);
}

/// Streams that write a little all the time must not hold up one that sends in bulk.
#[test]
fn busy_small_streams_do_not_starve_a_bulk_stream() {
    let mut rig = Rig::client();
    let bulk = rig.opened();
    let small: Vec<StreamId> = (0..20).map(|_| rig.opened()).collect();
    for id in small.iter().chain([&bulk]) {
        rig.hear(&bare(UPDATE, 0, number(*id), 1 << 30)).unwrap();
    }
    rig.write(bulk, &[1; 100_000]);
    let mut sent = 0;
    for _ in 0..20 {
        for id in &small {
            rig.write(*id, &[0; 8000]);
        }
        let mut out = Gather::new();
        rig.session.poll_transmit(1 << 17, &mut out, rig.now);
        for frame in Frame::decode_all(&out.copy_to_bytes(out.len())) {
            sent += if frame.stream == number(bulk) { frame.body.len() } else { 0 };
        }
    }
    assert_eq!(sent, 100_000);
}
