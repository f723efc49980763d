//! Points and traps of the catalogue that need more than one session's usual rig, or that the
//! other files do not come across.

use super::*;

/// Types and flags by their numbers, on the wire and in every combination.
#[test]
fn yamux_03_types_and_flags() {
    let mut rig = Rig::server();
    for (hex, reads) in [
        ("000000010000000100000000", (vec![], End::Open)),
        ("000100010000000300000000", (vec![], End::Open)),
        ("000000050000000500000000", (vec![], End::Fin)),
        ("000100050000000700000000", (vec![], End::Fin)),
    ] {
        rig.hear_bytes(&unhex(hex)).unwrap();
        let stream = rig.session.accept().unwrap();
        assert_eq!(rig.read_all(stream), reads, "{hex}");
    }
    rig.hear_bytes(&unhex("000000080000000100000000")).unwrap();
    rig.hear_bytes(&unhex("000100080000000300000000")).unwrap();
    assert_eq!(rig.stopped(id(1)), Some(End::Reset(0)));
    assert_eq!(rig.stopped(id(3)), Some(End::Reset(0)));
    let two = rig.open();
    rig.frames();
    assert_eq!(rig.session.counters().unacknowledged, 1);
    rig.hear_bytes(&unhex("000100060000000200000000")).unwrap();
    assert_eq!(rig.session.counters().unacknowledged, 0, "ACK");
    assert_eq!(rig.read_all(two), (vec![], End::Fin), "and FIN");
}

/// A length is a body in data frames alone: what follows the others is the next header.
#[test]
fn yamux_04_only_data_frames_have_a_body() {
    let mut rig = Rig::server();
    let wire: Vec<u8> = [
        bare(UPDATE, SYN, 1, 1000),
        bare(PING, SYN, 0, 2000),
        bare(UPDATE, 0, 1, 3000),
        data(FIN, 1, b"body"),
        bare(GO_AWAY, 0, 0, 4000),
    ]
    .iter()
    .flat_map(Frame::encode)
    .collect();
    rig.hear_bytes(&wire).unwrap();
    let one = rig.session.accept().unwrap();
    assert_eq!(rig.read_all(one), (b"body".to_vec(), End::Fin));
    assert_eq!(rig.session.goodbye(), Some(code(4000)));
}

/// Every data frame names its body's length, and none has a body that its length does not count.
#[test]
fn yamux_04_data_frames_are_as_long_as_they_say() {
    let mut rig = Rig::client();
    let one = rig.opened();
    rig.write(one, &[7; 100_000]);
    rig.session.finish(one).unwrap();
    let wire = rig.say();
    let frames = Frame::decode_all(&wire);
    assert_eq!(wire.len(), frames.len() * 12 + 100_000);
}

/// Writes until the window is used up, and says how much that was.
fn writes_until_blocked(rig: &mut Rig, id: StreamId) -> usize {
    let mut sent = 0;
    loop {
        let count = rig.write(id, &[0; 50_000]);
        rig.frames();
        sent += count;
        if count == 0 {
            return sent;
        }
    }
}

/// A configuration of one's own changes neither what the peer is taken to grant nor what it is
/// told with SYN and ACK: windows grow with window updates alone.
#[test]
fn yamux_25_t05_12_every_configuration_assumes_and_announces_256_kib() {
    for most in [1, 262_144, 64 << 20] {
        let mut rig = Rig::with(quiet().window_max(most), Role::Responder, Duration::ZERO);
        let two = rig.open();
        assert_eq!(rig.frames(), [bare(UPDATE, SYN, 2, 0)]);
        assert_eq!(writes_until_blocked(&mut rig, two), 262_144);
        let one = rig.accepted(1);
        rig.hear(&data(0, 1, &vec![0; 262_144])).unwrap();
        assert!(rig.hear(&data(0, 1, b"!")).is_err(), "no more than was announced");
        rig.read_all(one);
    }
}

#[test]
fn yamux_36_a_ping_may_be_the_very_first_frame() {
    let mut rig = Rig::fresh(Config::default(), Role::Responder);
    rig.hear(&bare(PING, SYN, 0, 0)).unwrap();
    assert_eq!(rig.frames(), [bare(PING, ACK, 0, 0)]);
}

#[test]
fn yamux_39_closing_says_go_away_with_code_zero_once() {
    let mut rig = Rig::client();
    rig.session.close(ErrorCode::NONE);
    assert_eq!(rig.frames(), [bare(GO_AWAY, 0, 0, 0)]);
    assert!(rig.session.is_closed() && !rig.session.has_transmit());
}

/// rust-yamux refuses bodies of more than 1 MiB; go sends at most 64 KiB.
#[test]
fn yamux_45_bodies_are_at_most_64_kib() {
    let mut rig = Rig::client();
    let one = rig.opened();
    rig.hear(&bare(UPDATE, 0, 1, 1 << 30)).unwrap();
    for _ in 0..50 {
        let text = Bytes::from(vec![0; 1 << 20]);
        assert!(rig.session.write(one, &mut text.clone()).is_ready());
        for frame in rig.frames() {
            assert!(frame.body.len() <= 65_536 - 12, "{frame:?}");
        }
    }
}

/// A body that is as large as the window comes in piece by piece, whatever its size.
#[test]
fn yamux_45_t05_11_a_body_as_large_as_a_grown_window_is_taken() {
    let mut rig = Rig::with(quiet(), Role::Responder, SECOND);
    let one = rig.accepted(1);
    let (began, mut window) = (rig.now, 262_144);
    while window < 2 << 20 {
        rig.hear(&data(0, 1, &vec![0; window])).unwrap();
        rig.read_all(one);
        let frames = rig.frames();
        let updates = frames.iter().filter(|frame| frame.kind == UPDATE);
        window = updates.map(|frame| frame.length as usize).sum();
        rig.now += SECOND;
        assert!(rig.now < began + 20 * SECOND);
    }
    let text = vec![5; window];
    rig.hear(&data(0, 1, &text)).unwrap();
    assert!(rig.read_all(one).0 == text);
}

#[test]
fn yamux_46_a_syn_carries_at_most_256_kib() {
    for (len, good) in [(262_144, true), (262_145, false)] {
        let mut rig = Rig::server();
        let result = rig.hear(&data(SYN, 1, &vec![0; len]));
        assert_eq!(result.is_ok(), good, "{result:?}");
        assert_eq!(rig.session.accept().is_some(), good);
    }
}

/// Every flag rides on every kind of frame, alone and with others.
#[test]
fn yamux_11_t05_02_flags_combine_freely() {
    for kind in [DATA, UPDATE] {
        let body: &[u8] = if kind == DATA { b"body" } else { b"" };
        let frame = |flags, number| Frame { kind, ..data(flags, number, body) };

        let mut rig = Rig::server();
        rig.hear(&frame(SYN | FIN, 1)).unwrap();
        let one = rig.session.accept().unwrap();
        assert_eq!(rig.read_all(one), (body.to_vec(), End::Fin));

        // An ACK on a SYN has nothing to acknowledge.
        rig.hear(&frame(SYN | ACK, 3)).unwrap();
        let three = rig.session.accept().unwrap();
        assert_eq!(rig.read_all(three), (body.to_vec(), End::Open));

        let two = rig.open();
        rig.frames();
        rig.hear(&frame(ACK | FIN, 2)).unwrap();
        assert_eq!(rig.read_all(two), (body.to_vec(), End::Fin));
        assert_eq!(rig.session.counters().unacknowledged, 0);

        // Born dead: it is not even offered.
        rig.hear(&frame(SYN | RST, 5)).unwrap();
        assert_eq!(rig.session.accept(), None);
        let four = rig.open();
        rig.frames();
        rig.hear(&frame(ACK | FIN | RST, 4)).unwrap();
        assert_eq!(rig.read_all(four), (vec![], End::Reset(0)), "RST is stronger than FIN");
        rig.hear(&data(SYN, 7, b"in step")).unwrap();
        assert_eq!(rig.read_all(id(7)), (b"in step".to_vec(), End::Open));
    }
}

/// What was under way to a stream that has ended here earns no answer: it would hit the peer's
/// half of it, which may still be read.
#[test]
fn yamux_20_t05_03_late_frames_for_a_finished_stream_earn_no_reset() {
    let mut rig = Rig::server();
    let one = rig.accepted(1);
    rig.write(one, b"answer");
    rig.session.finish(one).unwrap();
    rig.hear(&bare(UPDATE, FIN, 1, 0)).unwrap();
    rig.frames();
    rig.release(one);
    rig.events();
    assert!(rig.is_empty());
    rig.hear_all(&[
        bare(UPDATE, 0, 1, 1000),
        data(0, 1, b"late"),
        bare(DATA, FIN, 1, 0),
        bare(UPDATE, ACK, 1, 0),
        bare(UPDATE, RST, 1, 5),
    ]);
    assert!(rig.frames().is_empty() && rig.events().is_empty() && rig.is_empty());
}

/// Acknowledging never waits for something to send: a peer stalls at 256 streams otherwise.
#[test]
fn yamux_14_t05_05_streams_that_only_receive_are_acknowledged() {
    let mut rig = Rig::server();
    let mut acknowledged = 0;
    for i in 0..512 {
        rig.hear(&data(SYN | FIN, 1 + 2 * i, b"one way")).unwrap();
        let stream = rig.session.accept().unwrap();
        rig.read_all(stream);
        if i % 100 == 99 || i == 511 {
            rig.pass(20 * MILLI).unwrap();
            acknowledged += rig.frames().iter().filter(|frame| frame.flags == ACK).count();
        }
    }
    assert_eq!(acknowledged, 512);
}

/// 513 streams of both sides together end a connection to rust-libp2p.
#[test]
fn yamux_44_t05_06_at_most_256_of_our_streams_are_open() {
    let mut rig = Rig::client();
    for _ in 0..256 {
        rig.opened();
    }
    assert!(rig.session.open().is_pending());
}

/// Go-away and reset codes that no registry knows are handed on as they are.
#[test]
fn yamux_41_t05_15_unknown_codes_are_opaque() {
    let mut rig = Rig::server();
    let one = rig.accepted(1);
    rig.hear(&bare(UPDATE, RST, 1, 0xdead_beef)).unwrap();
    assert_eq!(rig.stopped(one), Some(End::Reset(0xdead_beef)));
    rig.hear(&bare(GO_AWAY, 0, 0, 0xbeef_dead)).unwrap();
    assert_eq!(rig.session.goodbye(), Some(code(0xbeef_dead)));
}
