//! What broke other multiplexers (15-advisories.md), as tests.

use super::*;

/// The stream was registered before its first body was checked, and its clean-up panicked.
#[test]
fn cve_2026_32314_syn_with_a_body_beyond_the_window() {
    let mut rig = Rig::server();
    let wire = data(SYN, 1, &vec![0; 262_145]).encode();
    let error = MuxError::WindowExceeded { stream: 1, len: 262_145, window: 262_144 };
    assert_eq!(rig.hear_bytes(&wire), Err(error));
    assert!(rig.is_empty() && rig.events().is_empty());
    assert_eq!(rig.frames(), [bare(GO_AWAY, 0, 0, 1)]);

    let mut rig = Rig::server();
    rig.hear(&data(SYN, 1, &vec![0; 262_144])).unwrap();
    assert_eq!(rig.read_all(id(1)).0.len(), 262_144);
}

/// Credit was added without a check.
#[test]
fn cve_2026_31814_credit_that_overflows() {
    let error = MuxError::WindowOverflow { stream: 1, credit: u32::MAX };
    for flags in [0, ACK, FIN] {
        let mut rig = Rig::client();
        rig.open();
        rig.frames();
        assert_eq!(rig.hear(&bare(UPDATE, flags, 1, u32::MAX)), Err(error.clone()));
    }
    for flags in [SYN, SYN | FIN] {
        let mut rig = Rig::server();
        assert_eq!(rig.hear(&bare(UPDATE, flags, 1, u32::MAX)), Err(error.clone()));
        assert!(rig.is_empty() && rig.session.accept().is_none());
        assert_eq!(rig.frames(), [bare(GO_AWAY, 0, 0, 1)]);
    }
}

/// Pongs were queued without a limit for a peer that does not read.
#[test]
fn cve_2024_32984_ping_flood_that_reads_no_answer() {
    let mut rig = Rig::server();
    let wire: Vec<u8> = (0..10_000).flat_map(|i| bare(PING, SYN, 0, i).encode()).collect();
    for _ in 0..20 {
        rig.hear_bytes(&wire).unwrap();
        assert_eq!(rig.session.backlog(), 32);
    }
}

/// A length of 4 GiB was believed.
#[test]
fn ghsa_hmj8_5xmh_5573_length_of_four_gibibytes() {
    for frame in
        [bare(DATA, 0, 1, u32::MAX), bare(DATA, SYN, 3, u32::MAX), bare(DATA, RST, 1, u32::MAX)]
    {
        let mut rig = Rig::server();
        rig.accepted(1);
        let result = rig.hear(&frame);
        assert!(matches!(result, Err(MuxError::WindowExceeded { len: u32::MAX, .. })));
    }
    let mut rig = Rig::server();
    assert!(rig.hear(&bare(DATA, 0, 99, u32::MAX)).is_err(), "on an unknown stream, too");
}

/// The body stalls: nothing is held for it, and the session answers.
#[test]
fn ghsa_hmj8_5xmh_5573_body_that_never_comes() {
    let mut rig = Rig::server();
    let one = rig.accepted(1);
    rig.hear_bytes(&bare(DATA, 0, 1, 100_000).encode()).unwrap();
    assert_eq!(rig.session.held(one), 0);
    rig.write(one, b"answer");
    assert_eq!(rig.frames(), [data(0, 1, b"answer")]);
}

#[test]
fn cve_2023_44487_rapid_reset() {
    let mut rig = Rig::server();
    for i in 0.. {
        let number = 1 + 2 * i;
        let first = data(SYN, number, &[0; 5000]);
        let result = rig.hear(&first).and_then(|()| rig.hear(&bare(UPDATE, RST, number, 0)));
        rig.events();
        assert!(rig.session.backlog() < 2000);
        if let Err(error) = result {
            assert_eq!(i, 1000);
            assert_eq!(error, MuxError::Flood { what: "stream resets", limit: 1000 });
            break;
        }
    }
}

/// The peer makes us reset: streams beyond the limit, while it reads nothing.
#[test]
fn cve_2025_8671_made_you_reset() {
    let config = quiet().streams_inbound_max(1);
    let mut rig = Rig::with(config, Role::Responder, Duration::ZERO);
    rig.accepted(1);
    for i in 0..1000 {
        rig.hear(&data(SYN, 3 + 2 * i, b"body")).unwrap();
    }
    let flood = MuxError::Flood { what: "stream resets", limit: 1000 };
    assert_eq!(rig.hear(&bare(UPDATE, SYN, 4001, 0)), Err(flood));
    assert_eq!(rig.frames(), [bare(GO_AWAY, 0, 0, 2)]);
}

#[test]
fn cve_2019_9518_empty_frames() {
    let mut rig = Rig::server();
    rig.accepted(1);
    let wire: Vec<u8> = (0..101).flat_map(|_| bare(DATA, 0, 1, 0).encode()).collect();
    assert!(matches!(rig.hear_bytes(&wire), Err(MuxError::Flood { limit: 100, .. })));
}

/// rust-yamux 0.14 keeps every frame as a block of its own: 60 to 90 times the payload.
#[test]
fn rust_yamux_0_14_one_byte_frames_cost_no_more_memory_than_large_ones() {
    const WINDOW: usize = 262_144;
    let frame = data(0, 1, b"x").encode();
    // Each frame alone, and as many as fit one received buffer.
    for each in [1, 10_000] {
        let mut rig = Rig::server();
        let one = rig.accepted(1);
        let mut sent = 0;
        while sent < WINDOW {
            let count = each.min(WINDOW - sent);
            rig.hear_bytes(&frame.repeat(count)).unwrap();
            sent += count;
        }
        let held = rig.session.held(one);
        assert!(held <= WINDOW + (16 << 10) + 4096, "{held} bytes held");
        assert_eq!(rig.read_all(one).0.len(), WINDOW);
    }
}

/// The same with frames of any mixture, some of which are kept by reference.
#[test]
fn frames_of_mixed_sizes_cost_no_more_memory() {
    let mut rig = Rig::server();
    let one = rig.accepted(1);
    let (mut sent, mut size) = (0, 1);
    let mut hear = |len: usize, lent| {
        let len = len.min(262_144 - sent);
        let wire = Bytes::from(data(0, 1, &vec![0; len]).encode());
        if lent {
            rig.session.handle_lent(wire, rig.now).unwrap();
        } else {
            rig.session.handle_data(wire, rig.now).unwrap();
        }
        sent += len;
        sent < 262_144
    };
    // By reference, each with a block before it that is half empty: as many as the driver's buffers
    // have room for.
    for _ in 0..40 {
        assert!(hear(2049, false));
        assert!(hear(4096, false));
    }
    while hear(size, true) {
        size = size * 7 % 5003;
    }
    let held = rig.session.held(one);
    assert!(held <= 262_144 + (16 << 10) + 16_384, "{held} bytes held");
    assert_eq!(rig.read_all(one).0.len(), 262_144);
}

/// What is lent is not kept, and what was kept is let go when nothing moves.
#[test]
fn buffers_that_are_lent_or_idle_are_not_held() {
    let mut rig = Rig::server();
    let one = rig.accepted(1);
    let buffer = Bytes::from(data(0, 1, &[7; 40_000]).encode());
    rig.session.handle_lent(buffer.clone(), rig.now).unwrap();
    assert!(buffer.is_unique());
    rig.session.handle_data(buffer.clone(), rig.now).unwrap();
    assert!(!buffer.is_unique(), "a large chunk is not copied");
    rig.session.handle_idle();
    assert!(buffer.is_unique());
    assert!(rig.read_all(one).0 == [7; 80_000]);
}

/// rust-yamux issue 227: both sides have full pipes and pings under way. Reading goes on.
#[test]
fn rust_yamux_227_two_saturated_sessions_never_deadlock() {
    const PIPE: usize = 20;
    const LEN: usize = 600_000;
    let config = Config::default().keep_alive(SECOND);
    let mut client = Rig::fresh(config.clone(), Role::Initiator);
    let mut server = Rig::fresh(config, Role::Responder);
    server.now = client.now;
    let (one, two) = (client.open(), server.open());
    let mut pipes = [Vec::new(), Vec::new()];
    let mut left = [LEN; 2];
    let mut read = [0; 2];
    let mut accepted = [None; 2];
    for turn in 0..10_000_000_u32 {
        for (side, rig) in [&mut client, &mut server].into_iter().enumerate() {
            let own = [one, two][side];
            if left[side] > 0 {
                left[side] -= rig.write(own, &vec![0; left[side].min(50_000)]);
            }
            // As the driver does it: frames are taken when all the last ones are in the pipe.
            if pipes[side].is_empty() && rig.session.has_transmit() {
                let mut out = Gather::new();
                rig.session.poll_transmit(1, &mut out, rig.now);
                pipes[side].extend(out.copy_to_bytes(out.len()));
            }
            let taken = pipes[1 - side].len().min(if turn % 50 == 0 { 30_000 } else { PIPE });
            let wire: Vec<u8> = pipes[1 - side].drain(..taken).collect();
            rig.hear_bytes(&wire).unwrap();
            accepted[side] = accepted[side].or_else(|| rig.session.accept());
            // The application reads now and then, so that windows are used up.
            if turn % 1000 == 0
                && let Some(id) = accepted[side]
            {
                read[side] += rig.read_all(id).0.len();
            }
            rig.pass(5 * MILLI).unwrap();
            rig.events();
        }
        if read == [LEN; 2] {
            return;
        }
    }
    panic!("deadlock: {left:?} to write, {read:?} read");
}

/// Each ping was answered by a task of its own. Pings between data are no different, and those
/// that are not answered are not made up for later.
#[test]
fn go_yamux_203f9c9_cve_2019_9512_ping_flood_between_data() {
    let mut rig = Rig::server();
    let one = rig.accepted(1);
    for i in 0..100_000 {
        rig.hear(&bare(PING, SYN, 0, i)).unwrap();
        if i % 100 == 0 {
            rig.hear(&data(0, 1, b"x")).unwrap();
        }
        assert!(rig.session.backlog() <= 33);
        rig.events();
    }
    assert_eq!(rig.frames().len(), 32);
    assert_eq!(rig.read_all(one).0.len(), 1000);
}

/// Streams had no cap, and what was remembered of those in flight was never forgotten.
#[test]
fn go_yamux_f55df18_syn_flood() {
    let mut rig = Rig::server();
    let mut refused = 0;
    let flood = (0..).find_map(|i| {
        let result = rig.hear(&data(SYN, 1 + 2 * i, b"body"));
        rig.events();
        refused += rig.frames().iter().filter(|frame| frame.flags == RST).count();
        let counters = rig.session.counters();
        assert!(counters.streams <= 256 && rig.session.backlog() < 600);
        result.err()
    });
    assert_eq!(flood, Some(MuxError::Flood { what: "stream resets", limit: 1000 }));
    assert_eq!(refused, 1000);
}

/// Connections without limits on streams were exhausted by opening them: here each is refused
/// without a word of it being kept, and the others go on.
#[test]
fn cve_2022_23492_23486_23487_stream_flood_hurts_nobody_else() {
    let config = quiet().streams_inbound_max(4);
    let mut rig = Rig::with(config, Role::Responder, Duration::ZERO);
    let streams: Vec<StreamId> = [1, 3, 5, 7].map(|number| rig.accepted(number)).into();
    for i in 0..900 {
        rig.hear(&data(SYN, 9 + 2 * i, &[0; 5000])).unwrap();
    }
    assert_eq!(rig.session.counters().streams, 4);
    rig.frames();
    for id in streams {
        rig.hear(&data(0, number(id), b"still here")).unwrap();
        assert_eq!(rig.read_all(id).0, b"still here");
        assert_eq!(rig.write(id, b"and here"), 8);
    }
    assert_eq!(rig.frames().len(), 4);
}

/// A frame was kept until it was whole, and the window looked at then: here the header decides,
/// and what has come of a body is handed on at once.
#[test]
fn js_yamux_8_0_a_frame_is_not_buffered_before_its_window_is_checked() {
    let mut rig = Rig::server();
    let one = rig.accepted(1);
    let wire = data(0, 1, &[4; 100_000]).encode();
    rig.hear_bytes(&wire[..12 + 70_000]).unwrap();
    assert_eq!(rig.read_all(one).0.len(), 70_000);
    rig.hear_bytes(&wire[12 + 70_000..]).unwrap();
    assert_eq!(rig.read_all(one).0.len(), 30_000);
    let left = 262_144 - 100_000;
    let result = rig.hear_bytes(&bare(DATA, 0, 1, left + 1).encode());
    assert!(matches!(result, Err(MuxError::WindowExceeded { .. })), "by its header alone");
}

/// It went on serving the connection after its own go away.
#[test]
fn rust_yamux_0_14_nothing_is_served_after_a_protocol_error() {
    let mut rig = Rig::server();
    let one = rig.accepted(1);
    rig.write(one, b"never sent");
    rig.hear(&bare(GO_AWAY, 0, 1, 0)).unwrap_err();
    for frame in [data(SYN, 3, b"x"), data(0, 1, b"x"), bare(PING, SYN, 0, 1)] {
        rig.hear(&frame).unwrap();
    }
    assert_eq!(rig.session.accept(), None);
    assert_eq!(rig.read_all(one), (vec![], End::Open));
    assert_eq!(rig.frames(), [bare(GO_AWAY, 0, 0, 1)]);
    rig.hear_bytes(&[9; 100]).unwrap();
    assert!(!rig.session.has_transmit() && rig.session.open().is_pending());
}

/// Data of one stream came at the moment at which others ended, and its reader was not woken.
#[test]
fn mplex_0_44_h2_931_no_reader_is_left_asleep_when_others_end() {
    let mut rig = Rig::server();
    let streams = [1, 3, 5, 7].map(|number| rig.accepted(number));
    for id in streams {
        assert!(rig.session.read(id, 100).is_pending());
    }
    rig.events();
    rig.session.reset(streams[0], ErrorCode::NONE);
    let wire: Vec<u8> =
        [bare(UPDATE, RST, 3, 0), data(0, 5, b"data"), bare(DATA, FIN, 7, 0), data(SYN, 9, b"new")]
            .iter()
            .flat_map(Frame::encode)
            .collect();
    rig.hear_bytes(&wire).unwrap();
    let [one, three, five, seven] = streams;
    assert_eq!(
        rig.events(),
        [
            MuxEvent::Ended(one),
            MuxEvent::Ended(three),
            MuxEvent::Readable(five),
            MuxEvent::Readable(seven),
            MuxEvent::Acceptable,
        ]
    );
}

/// Frames below 256 bytes that nobody reads, h2's measure: what they cost is what they carry.
#[test]
fn h2_935_rustsec_2026_0258_small_frames_within_the_window_cost_what_they_carry() {
    let mut rig = Rig::server();
    let streams = [1, 3, 5, 7].map(|number| rig.accepted(number));
    for round in 0..26_000 {
        let id = streams[round % 4];
        rig.hear(&data(0, number(id), &[0; 10])).unwrap();
        rig.events();
    }
    for id in streams {
        let held = rig.session.held(id);
        assert!(held <= 65_000 + (16 << 10) + 4096, "{held} bytes held for 65,000");
    }
    assert!(rig.session.backlog() < 100);
}

/// Credit of one byte at a time makes frames of one byte, never more work than the peer paid for.
#[test]
fn cve_2019_9511_data_dribble() {
    let mut rig = Rig::client();
    let one = rig.opened();
    while rig.write(one, &[0; 100_000]) > 0 {
        rig.frames();
    }
    for _ in 0..10_000 {
        assert_eq!(rig.write(one, &[0; 100_000]), 0);
        rig.hear(&bare(UPDATE, 0, 1, 1)).unwrap();
        assert_eq!(rig.write(one, &[0; 100_000]), 1);
        assert_eq!(rig.frames().len(), 1);
        assert!(rig.session.backlog() < 10);
        rig.events();
    }
}

/// The peer asks for much and takes nothing: what waits to be sent stays bounded.
#[test]
fn cve_2019_9517_internal_data_buffering() {
    let mut rig = Rig::server();
    for i in 0..200 {
        let number = 1 + 2 * i;
        rig.hear(&bare(UPDATE, SYN, number, u32::MAX - 262_144)).unwrap();
        let stream = rig.session.accept().unwrap();
        for _ in 0..10 {
            let taken = rig.write(stream, &[0; 100_000]);
            assert!(taken <= 128 << 10);
        }
    }
    assert!(rig.session.counters().queued <= (256 << 10) + 200 * 4096);
}

/// Streams that come and go keep nothing and reorder nothing.
#[test]
fn cve_2019_9513_resource_loop() {
    let mut rig = Rig::server();
    let held = rig.accepted(1);
    for i in 1..20_000 {
        let number = 1 + 2 * i;
        rig.hear(&data(SYN | FIN, number, b"?")).unwrap();
        let stream = rig.session.accept().unwrap();
        rig.write(stream, b"!");
        rig.session.finish(stream).unwrap();
        assert_eq!(rig.frames(), [data(ACK, number, b"!"), bare(DATA, FIN, number, 0)]);
        rig.release(stream);
        rig.events();
        assert!(rig.session.counters().streams == 1 && rig.session.backlog() < 200);
    }
    assert_eq!(rig.write(held, b"goes on"), 7);
}
