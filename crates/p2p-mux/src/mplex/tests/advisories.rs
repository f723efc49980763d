//! What broke other multiplexers (15-advisories.md), as tests.

use super::*;

#[test]
fn cve_2023_44487_rapid_reset() {
    let mut rig = Rig::new();
    for number in 0.. {
        let wire = [frame(OPEN, number, b""), frame(2, number, &[0; 5000]), frame(6, number, b"")];
        let result = rig.hear(&wire.concat());
        rig.events();
        assert!(rig.session.backlog() < 100);
        if let Err(error) = result {
            assert_eq!(number, 1000);
            assert_eq!(error, MuxError::Flood { what: "stream resets", limit: 1000 });
            break;
        }
        assert!(rig.is_empty());
    }
}

#[test]
fn cve_2023_44487_resets_at_an_honest_pace_are_no_flood() {
    let mut rig = Rig::new();
    for number in 0..5000 {
        rig.hear(&[frame(OPEN, number, b""), frame(6, number, b"")].concat()).unwrap();
        rig.events();
        rig.now += 10 * MILLI;
    }
}

/// The peer makes us reset: streams beyond the limit, while it reads nothing.
#[test]
fn cve_2025_8671_made_you_reset() {
    let mut rig = Rig::with(brisk().streams_inbound_max(0));
    for number in 0..1000 {
        rig.take(OPEN, number, b"name");
    }
    assert_eq!(rig.session.backlog(), 1000);
    let flood = MuxError::Flood { what: "stream resets", limit: 1000 };
    assert_eq!(rig.hear(&frame(OPEN, 1000, b"")), Err(flood));
}

/// The same at a pace that the allowance for resets bears.
#[test]
fn cve_2024_32984_refusals_that_nobody_reads_are_bounded() {
    let mut rig = Rig::with(brisk().streams_inbound_max(0));
    let mut result = Ok(());
    let mut refused = 0;
    while result.is_ok() {
        rig.now += 10 * MILLI;
        result = rig.hear(&frame(OPEN, refused, b""));
        refused += 1;
        assert!(refused <= 1001);
    }
    assert_eq!(result, Err(MuxError::Flood { what: "refused streams", limit: 1000 }));
}

#[test]
fn cve_2019_9518_empty_frames() {
    let mut rig = Rig::new();
    rig.accepted(1);
    for _ in 0..3 {
        rig.hear(&frame(2, 1, b"").repeat(100)).unwrap();
        rig.take(2, 1, b"x");
    }
    let flood = MuxError::Flood { what: "empty frames in a row", limit: 100 };
    assert_eq!(rig.hear(&frame(2, 1, b"").repeat(101)), Err(flood));
}

#[test]
fn mplex_12_a_flood_of_frames_of_no_stream_ends_the_connection() {
    let flood = MuxError::Flood { what: "frames of no stream", limit: 65_536 };
    for flag in 1..7 {
        let mut rig = Rig::new();
        let wire = frame(flag, 9, b"x");
        rig.hear(&wire.repeat(65_536)).unwrap();
        assert_eq!(rig.session.backlog(), 0);
        rig.now += SECOND;
        rig.hear(&wire.repeat(1000)).unwrap();
        assert_eq!(rig.hear(&wire), Err(flood.clone()));
    }
}

/// A length of a mebibyte is believed only as far as the bytes come.
#[test]
fn ghsa_hmj8_5xmh_5573_a_body_that_never_comes() {
    let mut rig = Rig::new();
    let one = rig.accepted(1);
    let wire = frame(2, 1, &vec![0; 1 << 20]);
    rig.hear(&wire[..6]).unwrap();
    assert!(rig.session.counters().held < 200);
    rig.write(one, b"answer");
    assert_eq!(rig.frames(), [(1, 1, b"answer".to_vec())]);
}

/// rust-yamux 0.14 keeps every frame as a block of its own: 60 to 90 times the payload.
#[test]
fn one_byte_frames_cost_no_more_memory_than_large_ones() {
    const LEN: usize = 256 << 10;
    // Each frame alone, and as many as fit one received buffer.
    for each in [1, 10_000] {
        let mut rig = Rig::new();
        let one = rig.accepted(1);
        let mut sent = 0;
        while sent < LEN {
            let count = each.min(LEN - sent);
            rig.hear(&frame(2, 1, b"x").repeat(count)).unwrap();
            sent += count;
        }
        let held = rig.session.weigh(one);
        assert!(held <= LEN + (16 << 10) + 4096, "{held} bytes held");
        assert!(rig.session.counters().held.abs_diff(held) < 4096, "and it is known");
        assert_eq!(rig.read(one).0.len(), LEN);
    }
}

#[test]
fn frames_of_mixed_sizes_cost_no_more_memory() {
    let mut rig = Rig::new();
    let one = rig.accepted(1);
    // Eight chunks by reference, each with a few bytes before it, that make blocks of their own.
    for _ in 0..8 {
        rig.take(2, 1, b"x");
        rig.take(2, 1, &[0; 4096]);
    }
    let mut sent = 8 * 4097;
    let mut size = 1;
    while sent < 262_144 {
        let len = size.min(262_144 - sent);
        let wire = Bytes::from(frame(2, 1, &vec![0; len]));
        rig.session.handle_lent(wire, rig.now).unwrap();
        sent += len;
        size = size * 7 % 5003;
    }
    let held = rig.session.weigh(one);
    assert!(held <= 262_144 + (16 << 10) + 8192, "{held} bytes held");
    assert_eq!(rig.read(one).0.len(), 262_144);
    assert_eq!(rig.session.counters(), rig.session.recount());
}

/// What is lent is not kept, and what was kept is let go when nothing moves.
#[test]
fn buffers_that_are_lent_or_idle_are_not_held() {
    let mut rig = Rig::new();
    let one = rig.accepted(1);
    let buffer = Bytes::from(frame(2, 1, &[7; 40_000]));
    rig.session.handle_lent(buffer.clone(), rig.now).unwrap();
    assert!(buffer.is_unique());
    rig.session.handle_data(buffer.clone(), rig.now).unwrap();
    assert!(!buffer.is_unique(), "a large chunk is not copied");
    rig.session.handle_idle();
    assert!(buffer.is_unique());
    assert_eq!(rig.session.counters(), rig.session.recount());
    assert!(rig.read(one).0 == [7; 80_000]);
}

/// libp2p-mplex 0.44 loses the wake-up of a reader whose data come while streams of the other
/// side are reset and refused.
#[test]
fn libp2p_mplex_0_44_a_reader_is_woken_among_resets_of_other_streams() {
    let mut rig = Rig::with(brisk().streams_inbound_max(3));
    let ours = rig.opened();
    let theirs: Vec<StreamId> = (0..3).map(|number| rig.accepted(number)).collect();
    for id in theirs.iter().chain([&ours]) {
        assert_eq!(rig.read(*id).1, End::Open);
    }
    let wire = [
        frame(6, 0, b""),
        frame(6, 1, b""),
        frame(1, 0, b"data of our stream"),
        frame(6, 2, b""),
        frame(OPEN, 3, b""),
    ];
    rig.hear(&wire.concat()).unwrap();
    let events = rig.events();
    assert!(events.contains(&MuxEvent::Readable(ours)), "{events:?}");
    for id in theirs {
        assert!(events.contains(&MuxEvent::Ended(id)), "{events:?}");
    }
    assert_eq!(rig.read(ours).0, b"data of our stream");
}

/// rust-libp2p stalls the whole connection when one stream is not read (trap 4); here every other
/// stream, and what this side has to send, go on.
#[test]
fn trap_4_one_unread_stream_stalls_nothing() {
    let mut rig = Rig::new();
    let unread = rig.accepted(1);
    let other = rig.accepted(2);
    for _ in 0..700 {
        rig.take(2, 1, &[0; 16 << 10]);
        rig.take(2, 2, b"ping");
        assert_eq!(rig.read(other).0, b"ping");
        rig.write(other, b"pong");
        assert!(rig.frames().contains(&(1, 2, b"pong".to_vec())));
    }
    assert_eq!(rig.writing(unread), LIMIT);
}
