//! Headers, bodies, and where they may be cut.

use p2p_core::Muxer;

use super::{
    super::{Yamux, session::Counters},
    *,
};

#[test]
fn yamux_01_name() {
    assert_eq!(Yamux::default().protocol().as_str(), "/yamux/1.0.0");
}

/// The vectors of the catalogue, as a server hears them.
#[test]
fn yamux_02_vectors_are_understood() {
    let mut rig = Rig::server();
    let two = rig.open();
    rig.write(two, b"?");
    assert_eq!(rig.say(), unhex("0000000100000002000000013f"));
    for frame in [
        "000100010000000100000000",
        "000000000000000100000003616263",
        "00000005000000030000000178",
        "000100020000000200000000",
        "000100000000000200020000",
        "000200010000000000000005",
    ] {
        rig.hear_bytes(&unhex(frame)).unwrap();
    }
    assert_eq!(rig.say(), unhex("000200020000000000000005"));
    assert_eq!(rig.session.accept(), Some(id(1)));
    assert_eq!(rig.session.accept(), Some(id(3)));
    assert_eq!(rig.read_all(id(1)), (b"abc".to_vec(), End::Open));
    assert_eq!(rig.read_all(id(3)), (b"x".to_vec(), End::Fin));
    rig.hear_bytes(&unhex("000100040000000100000000")).unwrap();
    assert_eq!(rig.read_all(id(1)), (vec![], End::Fin));
    rig.hear_bytes(&unhex("000100080000000100001001")).unwrap();
    assert_eq!(rig.stopped(id(1)), Some(End::Reset(0x1001)));
    rig.hear_bytes(&unhex("000000080000000300000000")).unwrap();
    assert_eq!(rig.stopped(id(3)), Some(End::Reset(0)));
    rig.hear_bytes(&unhex("000300000000000000001005")).unwrap();
    assert_eq!(rig.session.goodbye(), Some(code(0x1005)));
}

/// The vectors of the catalogue that this side sends.
#[test]
fn yamux_02_vectors_are_sent() {
    let mut rig = Rig::client();
    rig.open();
    assert_eq!(rig.say(), unhex("000100010000000100000000"));
    let three = rig.open();
    rig.write(three, b"hi");
    assert_eq!(rig.say(), unhex("0000000100000003000000026869"));
    rig.session.finish(three).unwrap();
    assert_eq!(rig.say(), unhex("000000040000000300000000"));
    rig.session.reset(id(1), code(0x1001));
    assert_eq!(rig.say(), unhex("000100080000000100001001"));
    rig.hear_bytes(&unhex("000000010000000200000000")).unwrap();
    assert_eq!(rig.session.accept(), Some(id(2)));
    rig.write(id(2), b"ok");
    assert_eq!(rig.say(), unhex("0000000200000002000000026f6b"));
    rig.session.finish(id(2)).unwrap();
    rig.frames();
    rig.session.close(ErrorCode::NONE);
    assert_eq!(rig.say(), unhex("000300000000000000000000"));
}

#[test]
fn yamux_02_frames_may_be_cut_anywhere() {
    let wire: Vec<u8> = [
        bare(UPDATE, SYN, 1, 5),
        data(0, 1, b"abc"),
        data(SYN | FIN, 3, b"whole"),
        bare(DATA, 0, 1, 0),
        data(FIN, 1, b"def"),
    ]
    .iter()
    .flat_map(Frame::encode)
    .collect();
    for size in 1..=wire.len() {
        let mut rig = Rig::server();
        for piece in wire.chunks(size) {
            rig.hear_bytes(piece).unwrap();
        }
        assert_eq!(rig.read_all(id(1)), (b"abcdef".to_vec(), End::Fin), "pieces of {size}");
        assert_eq!(rig.read_all(id(3)), (b"whole".to_vec(), End::Fin), "pieces of {size}");
    }
}

/// Every vector that must be fatal, and that nothing is heard or said after the go away.
#[test]
fn yamux_05_must_be_fatal() {
    for (wire, error) in [
        ("010000000000000100000000", MuxError::Version(1)),
        ("000400000000000100000000", MuxError::FrameType(4)),
        ("000000000000000000000000", MuxError::Misplaced { frame: "data", stream: 0 }),
        ("000100010000000200000000", MuxError::StreamId(2)),
        (
            "000100000000000100000000000100000000000effffffff",
            MuxError::WindowOverflow { stream: 14, credit: u32::MAX },
        ),
    ] {
        let mut rig = Rig::server();
        for _ in 0..7 {
            rig.open();
        }
        rig.frames();
        assert_eq!(rig.hear_bytes(&unhex(wire)), Err(error.clone()), "{wire}");
        rig.hear(&bare(UPDATE, SYN, 1, 0)).unwrap();
        assert_eq!(rig.session.accept(), None, "nothing is heard after {error}");
        assert_eq!(rig.frames(), [bare(GO_AWAY, 0, 0, 1)], "{error}");
        assert!(rig.session.is_closed());
    }
}

#[test]
fn yamux_05_unknown_flag_bits_are_ignored() {
    let mut rig = Rig::server();
    rig.hear(&bare(UPDATE, 0xfff0 | SYN, 1, 0)).unwrap();
    rig.hear(&data(0xff00 | FIN, 1, b"x")).unwrap();
    assert_eq!(rig.read_all(id(1)), (b"x".to_vec(), End::Fin));
}

#[test]
fn yamux_06_session_frames_on_streams_and_the_reverse_are_fatal() {
    for (frame, name) in [
        (bare(DATA, SYN, 0, 0), "data"),
        (bare(UPDATE, 0, 0, 1), "window update"),
        (bare(PING, SYN, 1, 1), "ping"),
        (bare(GO_AWAY, 0, 1, 0), "go away"),
    ] {
        let mut rig = Rig::server();
        let error = MuxError::Misplaced { frame: name, stream: frame.stream };
        assert_eq!(rig.hear(&frame), Err(error));
        assert_eq!(rig.frames(), [bare(GO_AWAY, 0, 0, 1)]);
    }
}

#[test]
fn yamux_07_empty_data_frames_are_legal() {
    let mut rig = Rig::server();
    rig.hear(&bare(DATA, SYN, 1, 0)).unwrap();
    rig.hear(&bare(DATA, 0, 1, 0)).unwrap();
    assert_eq!(rig.read_all(id(1)), (vec![], End::Open));
    rig.hear(&bare(DATA, FIN, 1, 0)).unwrap();
    assert_eq!(rig.read_all(id(1)), (vec![], End::Fin));
}

/// Every vector that must be ignored, and others like them.
#[test]
fn yamux_20_t05_04_frames_for_unknown_streams_are_ignored() {
    let mut rig = Rig::server();
    for wire in [
        "000000040000006300000000",
        "000100080000006300000007",
        "0000000000000063000000020102",
        "000100020000006300000000",
        "00010000000000630000ffff",
        "0001000000000063ffffffff",
        "000000080000006300000003010203",
        "000100080000000200000007",
    ] {
        rig.hear_bytes(&unhex(wire)).unwrap();
        assert!(rig.frames().is_empty() && rig.events().is_empty(), "{wire}");
        assert_eq!(rig.session.counters(), Counters::default());
    }
    rig.hear(&data(SYN, 1, b"next")).unwrap();
    assert_eq!(rig.read_all(id(1)), (b"next".to_vec(), End::Open));
}

/// A body that was ignored because its stream is not open yet must not flow into the stream that
/// gets this number before the body has ended: no window covers it.
#[test]
fn a_body_for_a_stream_that_is_not_open_yet_is_not_delivered_to_it() {
    let mut rig = Rig::client();
    let frame = data(FIN, 1, &[7; 1000]).encode();
    rig.hear_bytes(&frame[..20]).unwrap();
    assert_eq!(rig.open(), id(1));
    rig.hear_bytes(&frame[20..]).unwrap();
    assert_eq!(rig.read_all(id(1)), (vec![], End::Open));
    rig.frames();
    rig.hear(&data(ACK, 1, b"real")).unwrap();
    assert_eq!(rig.read_all(id(1)), (b"real".to_vec(), End::Open));
}
