//! The wire format: vectors, cuts and violations.

use p2p_core::{Muxer, varint::VarintError};

use super::*;
use crate::Mplex;

#[test]
fn mplex_01_the_name() {
    assert_eq!(Mplex::default().protocol().as_str(), "/mplex/6.7.0");
}

/// The vectors of what a session of ours sends, on its own stream 17 and on the peer's.
#[test]
fn mplex_02_03_vectors_as_sent() {
    let mut rig = Rig::new();
    rig.session.set_next_number(17);
    let ours = rig.open();
    assert_eq!(rig.say(), unhex("880100"), "opens with an empty name");
    rig.write(ours, b"hello");
    assert_eq!(rig.say(), unhex("8a010568656c6c6f"));
    rig.session.finish(ours).unwrap();
    assert_eq!(rig.say(), unhex("8c0100"));
    rig.session.reset(ours, ErrorCode::NONE);
    assert_eq!(rig.say(), unhex("8e0100"));

    let theirs = rig.accepted(17);
    rig.write(theirs, b"world");
    assert_eq!(rig.say(), unhex("890105776f726c64"));
    rig.session.finish(theirs).unwrap();
    assert_eq!(rig.say(), unhex("8b0100"));
    rig.session.reset(theirs, ErrorCode::NONE);
    assert_eq!(rig.say(), unhex("8d0100"));
}

#[test]
fn mplex_02_03_vectors_as_received() {
    let mut rig = Rig::new();
    rig.session.set_next_number(17);
    rig.opened();
    let ours = stream_id(17, false);
    rig.hear(&unhex("000130")).unwrap();
    rig.hear(&unhex("880100")).unwrap();
    assert_eq!(rig.session.accept(), Some(theirs(0)));
    assert_eq!(rig.session.accept(), Some(theirs(17)));
    rig.hear(&unhex("8a010568656c6c6f")).unwrap();
    assert_eq!(rig.read(theirs(17)), (b"hello".to_vec(), End::Open));
    rig.hear(&unhex("890105776f726c64")).unwrap();
    assert_eq!(rig.read(ours), (b"world".to_vec(), End::Open));
    rig.hear(&unhex("8c0100")).unwrap();
    assert_eq!(rig.read(theirs(17)), (vec![], End::Close));
    rig.hear(&unhex("8b0100")).unwrap();
    assert_eq!(rig.read(ours), (vec![], End::Close));
    rig.hear(&unhex("8d0100")).unwrap();
    assert_eq!(rig.writing(ours), End::Reset);
    rig.hear(&unhex("8e0100")).unwrap();
    assert_eq!(rig.writing(theirs(17)), End::Reset);
}

/// A violation ends everything at once, without a word.
fn is_fatal(wire: &[u8], error: &MuxError) {
    let mut rig = Rig::new();
    let one = rig.accepted(17);
    rig.write(one, b"never sent");
    assert_eq!(rig.hear(wire).as_ref(), Err(error), "{wire:02x?}");
    assert!(rig.session.is_closed() && !rig.session.has_transmit());
    rig.take(2, 17, b"means nothing");
    assert_eq!(rig.read(one), (vec![], End::Open));
    assert!(!error.to_string().is_empty());

    let mut rig = Rig::new();
    rig.accepted(17);
    let (last, first) = wire.split_last().unwrap();
    for byte in first {
        rig.hear(&[*byte]).unwrap();
    }
    assert_eq!(rig.hear(&[*last]).as_ref(), Err(error), "{wire:02x?}, byte by byte");
}

#[test]
fn mplex_02_varints_that_are_not_minimal_are_fatal() {
    is_fatal(&unhex("8000"), &MuxError::Varint(VarintError::NotMinimal));
    is_fatal(&unhex("8a018500"), &MuxError::Varint(VarintError::NotMinimal));
}

#[test]
fn mplex_02_varints_beyond_nine_bytes_are_fatal() {
    is_fatal(&[0xff; 9], &MuxError::Varint(VarintError::TooLong));
    is_fatal(&[&[0x00][..], &[0x80; 9]].concat(), &MuxError::Varint(VarintError::TooLong));
}

#[test]
fn mplex_02_numbers_have_sixty_bits() {
    let mut rig = Rig::new();
    let most = (1 << 60) - 1;
    let one = rig.accepted(most);
    rig.take(2, most, b"far");
    rig.write(one, b"away");
    assert_eq!(rig.read(one).0, b"far");
    assert_eq!(rig.frames(), [(1, most, b"away".to_vec())]);
}

#[test]
fn mplex_03_flag_seven_is_fatal() {
    is_fatal(&unhex("8f01"), &MuxError::FrameType(7));
    let mut rig = Rig::new();
    assert_eq!(rig.hear(&unhex("8f0100")), Err(MuxError::FrameType(7)));
}

#[test]
fn mplex_07_a_second_open_of_a_live_stream_is_fatal() {
    is_fatal(&unhex("880100"), &MuxError::OpenedTwice(17));
    // The peer's number is open on our side too: that is another stream.
    let mut rig = Rig::new();
    rig.opened();
    rig.take(OPEN, 0, b"");
}

#[test]
fn mplex_08_a_body_beyond_a_mebibyte_is_fatal_before_it_comes() {
    for flag in 0..7 {
        let mut wire = vec![flag];
        varint::encode(1_048_577, &mut wire);
        assert_eq!(wire[1..], unhex("818040"));
        is_fatal(&wire, &MuxError::FrameLen { len: 1_048_577, max: 1_048_576 });
    }
    let wire = [&[0x02][..], &[0xff; 8], &[0x7f]].concat();
    is_fatal(&wire, &MuxError::FrameLen { len: (1 << 63) - 1, max: 1_048_576 });
}

#[test]
fn mplex_08_a_body_of_a_mebibyte_is_handed_out_as_it_comes() {
    let mut rig = Rig::new();
    let one = rig.accepted(1);
    let wire = frame(2, 1, &vec![7; 1 << 20]);
    let mut read = 0;
    for piece in wire.chunks(10_000) {
        rig.hear(piece).unwrap();
        let (data, end) = rig.read(one);
        read += data.len();
        assert_eq!(end, End::Open);
        assert!(rig.session.counters().held <= 16 << 10);
    }
    assert_eq!(read, 1 << 20);
}

/// Every cut of a sequence of all kinds of frames gives the same.
#[test]
fn frames_may_be_cut_anywhere() {
    let wire = [
        frame(OPEN, 300, b"a name"),
        frame(2, 300, b"first"),
        frame(2, 300, b""),
        frame(1, 9, b"of no stream"),
        frame(2, 300, &[5; 200]),
        frame(4, 300, b"with a body"),
        frame(OPEN, 301, b""),
        frame(6, 301, b"with a body"),
        frame(OPEN, 302, b""),
    ]
    .concat();
    let text = [&b"first"[..], &[5; 200]].concat();
    let hear = |pieces: &[&[u8]]| {
        let mut rig = Rig::new();
        for piece in pieces {
            rig.hear(piece).unwrap();
        }
        assert_eq!(rig.session.accept(), Some(theirs(300)));
        assert_eq!(rig.session.accept(), Some(theirs(302)));
        assert_eq!(rig.session.accept(), None);
        assert_eq!(rig.read(theirs(300)), (text.clone(), End::Close));
    };
    for cut in 0..wire.len() {
        let (first, second) = wire.split_at(cut);
        hear(&[first, second]);
    }
    hear(&wire.chunks(1).collect::<Vec<_>>());
}
