//! Every limit, reached.

use super::*;

/// Has the peer open streams from `first` on, and accepts them.
fn open_accepted(rig: &mut Rig, first: u32, count: u32) -> Vec<StreamId> {
    (0..count).map(|i| rig.accepted(first + 2 * i)).collect()
}

#[test]
fn yamux_44_512_inbound_streams_and_the_next_is_reset() {
    let mut rig = Rig::server();
    let streams = open_accepted(&mut rig, 1, 512);
    rig.hear(&data(SYN, 2001, b"body")).unwrap();
    assert_eq!(rig.frames(), [bare(UPDATE, RST, 2001, 0)]);
    assert_eq!(rig.session.accept(), None);
    // One that ends makes room.
    rig.session.reset(streams[0], ErrorCode::NONE);
    rig.release(streams[0]);
    rig.frames();
    rig.accepted(2003);
    assert_eq!(rig.session.counters().inbound, 512);
}

#[test]
fn yamux_43_256_unaccepted_streams_and_the_next_is_reset() {
    let mut rig = Rig::server();
    for i in 0..256 {
        rig.hear(&bare(UPDATE, SYN, 1 + 2 * i, 0)).unwrap();
    }
    rig.hear(&bare(UPDATE, SYN, 601, 0)).unwrap();
    assert_eq!(rig.frames(), [bare(UPDATE, RST, 601, 0)]);
    assert_eq!(rig.session.counters().unaccepted, 256);
    rig.session.accept().unwrap();
    rig.hear(&bare(UPDATE, SYN, 603, 0)).unwrap();
    assert!(rig.frames().is_empty());
}

#[test]
fn outbound_streams_are_limited_and_wait_for_an_end() {
    let config = quiet().streams_outbound_max(3);
    let mut rig = Rig::with(config, Role::Initiator, Duration::ZERO);
    let one = rig.opened();
    rig.opened();
    rig.opened();
    assert!(rig.session.open().is_pending());
    rig.hear(&data(FIN, 1, b"x")).unwrap();
    rig.session.finish(one).unwrap();
    rig.frames();
    rig.events();
    assert!(rig.session.open().is_pending(), "the application still has it");
    rig.release(one);
    assert_eq!(rig.events(), [MuxEvent::Openable]);
    rig.opened();
    assert!(rig.session.open().is_pending());
}

#[test]
fn yamux_42_256_unacknowledged_streams_and_the_next_waits() {
    let config = quiet().streams_outbound_max(1000);
    let mut rig = Rig::with(config, Role::Initiator, Duration::ZERO);
    // All before the first frame is sent.
    let streams: Vec<StreamId> = (0..256).map(|_| rig.open()).collect();
    assert!(rig.session.open().is_pending());
    assert_eq!(rig.frames().len(), 256);
    assert!(rig.session.open().is_pending());
    rig.events();
    rig.hear(&bare(UPDATE, ACK, number(streams[7]), 0)).unwrap();
    assert_eq!(rig.events(), [MuxEvent::Openable]);
    rig.open();
    assert!(rig.session.open().is_pending());
    // A reset counts as an answer, and so does an end.
    rig.hear(&bare(UPDATE, RST, number(streams[8]), 0)).unwrap();
    rig.release(streams[8]);
    assert!(rig.events().contains(&MuxEvent::Openable));
    rig.open();
    rig.frames();
    assert_eq!(rig.session.counters().unacknowledged, 256);
}

#[test]
fn at_most_1000_refusals_wait() {
    let mut rig = Rig::server();
    rig.session.refuse_inbound();
    for i in 0..1000 {
        rig.hear(&bare(UPDATE, SYN, 1 + 2 * i, 0)).unwrap();
    }
    // The peer has earned more resets, but it has not read any.
    rig.now += SECOND;
    let flood = MuxError::Flood { what: "refused streams", limit: 1000 };
    assert_eq!(rig.hear(&bare(UPDATE, SYN, 4001, 0)), Err(flood));
    assert_eq!(rig.frames(), [bare(GO_AWAY, 0, 0, 2)]);
}

/// js-libp2p opens up to 1000 streams, and all of their frames fit one read.
#[test]
fn a_thousand_streams_at_once_are_refused_but_not_punished() {
    let mut rig = Rig::server();
    let wire: Vec<u8> = (0..1000).flat_map(|i| bare(UPDATE, SYN, 1 + 2 * i, 0).encode()).collect();
    rig.hear_bytes(&wire).unwrap();
    assert_eq!(rig.frames().len(), 744);
    assert_eq!(rig.session.counters().inbound, 256);
}

#[test]
fn a_hundred_empty_frames_in_a_row_and_no_more() {
    for empty in [bare(DATA, 0, 1, 0), bare(UPDATE, 0, 1, 0), bare(DATA, 0x100, 1, 0)] {
        let mut rig = Rig::server();
        rig.accepted(1);
        for _ in 0..3 {
            for _ in 0..100 {
                rig.hear(&empty).unwrap();
            }
            rig.hear(&data(0, 1, b"x")).unwrap();
        }
        for _ in 0..100 {
            rig.hear(&empty).unwrap();
        }
        let flood = MuxError::Flood { what: "empty frames in a row", limit: 100 };
        assert_eq!(rig.hear(&empty), Err(flood));
        assert_eq!(rig.frames(), [bare(GO_AWAY, 0, 0, 2)]);
    }
}

#[test]
fn a_thousand_resets_at_once_and_a_hundred_a_second() {
    let mut rig = Rig::server();
    let mut next = 1;
    let mut churn = |rig: &mut Rig| {
        next += 2;
        rig.hear(&bare(UPDATE, SYN, next, 0)).and_then(|()| rig.hear(&bare(UPDATE, RST, next, 0)))
    };
    for _ in 0..1000 {
        churn(&mut rig).unwrap();
    }
    assert!(rig.is_empty());
    for _ in 0..10 {
        rig.now += SECOND;
        for _ in 0..100 {
            churn(&mut rig).unwrap();
        }
    }
    rig.now += 9 * MILLI;
    let flood = MuxError::Flood { what: "stream resets", limit: 1000 };
    assert_eq!(churn(&mut rig), Err(flood));
}

/// A peer that resets what this side opens makes no work that this side has not begun.
#[test]
fn resets_of_our_own_streams_are_not_counted() {
    let mut rig = Rig::client();
    for _ in 0..3000 {
        let id = rig.open();
        rig.frames();
        rig.hear(&bare(UPDATE, RST, number(id), 0)).unwrap();
        rig.release(id);
        rig.events();
    }
    assert!(rig.is_empty() && rig.frames().is_empty());
}

#[test]
fn a_stream_lingers_for_thirty_seconds() {
    let mut rig = Rig::client();
    let one = rig.opened();
    rig.pass(100 * SECOND).unwrap();
    rig.write(one, b"x");
    rig.session.finish(one).unwrap();
    rig.release(one);
    assert_eq!(rig.session.poll_timeout(), Some(rig.session_clock()), "the driver must look");
    assert_eq!(rig.frames(), [data(0, 1, b"x"), bare(DATA, FIN, 1, 0)]);
    rig.pass(30 * SECOND - MILLI).unwrap();
    assert!(rig.frames().is_empty());
    rig.pass(MILLI).unwrap();
    assert!(rig.frames().is_empty(), "a reset could take what was sent from a slow reader");
    assert!(rig.is_empty());
}

#[test]
fn finishing_a_stream_that_was_reset_says_so() {
    let mut rig = Rig::client();
    let one = rig.opened();
    rig.session.finish(one).unwrap();
    rig.session.finish(one).unwrap();
    let three = rig.opened();
    rig.hear(&bare(UPDATE, RST, number(three), 7)).unwrap();
    let error = rig.session.finish(three).unwrap_err();
    assert!(matches!(error, StreamError::Reset(code) if code.value() == 7), "{error}");
}

/// The clock of a session that sleeps is as old as its last event.
#[test]
fn a_stream_that_is_opened_and_released_after_a_silence_is_sent_whole() {
    let mut rig = Rig::client();
    rig.pass(100 * SECOND).unwrap();
    let one = rig.open();
    rig.write(one, b"request");
    rig.session.finish(one).unwrap();
    rig.release(one);
    rig.session.handle_timeout(rig.now).unwrap();
    assert_eq!(rig.frames(), [data(SYN, 1, b"request"), bare(DATA, FIN, 1, 0)]);
}

#[test]
fn nothing_grows_with_streams_that_come_and_go() {
    let mut rig = Rig::server();
    let mut most = 0;
    for i in 0..20_000 {
        let (theirs, ours) = (1 + 2 * i, rig.open());
        rig.hear(&data(SYN | FIN, theirs, b"question")).unwrap();
        let stream = rig.session.accept().unwrap();
        rig.write(stream, b"answer");
        rig.session.finish(stream).unwrap();
        rig.write(ours, b"one way");
        rig.session.finish(ours).unwrap();
        rig.release(stream);
        rig.release(ours);
        if i % 3 == 0 {
            rig.frames();
        }
        rig.hear(&bare(UPDATE, ACK | FIN, number(ours), 0)).unwrap();
        rig.events();
        most = most.max(rig.session.backlog());
    }
    assert!(most < 400, "{most} entries");
    rig.frames();
    assert!(rig.is_empty());
}

/// Streams that end while they wait to be sent, on a pipe that is blocked.
#[test]
fn nothing_grows_while_nothing_can_be_sent() {
    let mut rig = Rig::client();
    let held = rig.opened();
    rig.write(held, b"waits");
    let mut most = 0;
    for _ in 0..20_000 {
        let id = rig.open();
        rig.write(id, &[0; 5000]);
        rig.release(id);
        rig.events();
        most = most.max(rig.session.backlog());
    }
    assert!(most < 400, "{most} entries");
    assert_eq!(rig.session.counters().queued, 5);
}

/// What streams have held bytes in is kept for others as long as there are some.
#[test]
fn what_streams_have_held_bytes_in_goes_with_the_last_of_them() {
    let mut rig = Rig::server();
    let streams = [1, 3].map(|number| rig.accepted(number));
    for _ in 0..3 {
        for id in streams {
            rig.hear(&data(0, number(id), b"question")).unwrap();
            assert_eq!(rig.read_all(id).0, b"question");
            assert_eq!(rig.write(id, b"answer"), 6);
            rig.frames();
        }
    }
    for (id, kept) in streams.into_iter().zip([2, 0]) {
        rig.session.reset(id, ErrorCode::NONE);
        rig.release(id);
        rig.frames();
        assert_eq!(rig.session.kept(), kept);
    }
}
