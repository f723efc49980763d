//! Pings, the keep-alive, and the end of a session.

use super::*;

#[test]
fn yamux_32_t05_07_pings_are_answered_at_once_and_first() {
    let mut rig = Rig::client();
    let one = rig.opened();
    rig.write(one, b"data");
    rig.hear(&bare(PING, SYN, 0, 0xdead_beef)).unwrap();
    assert_eq!(rig.frames(), [bare(PING, ACK, 0, 0xdead_beef), data(0, 1, b"data")]);
    assert!(rig.frames().is_empty(), "YAMUX-33: one answer");
}

#[test]
fn yamux_33_unexpected_pongs_are_ignored_and_not_answered() {
    let mut rig = Rig::fresh(quiet(), Role::Initiator);
    for value in [0, 1, 5] {
        rig.hear(&bare(PING, ACK, 0, value)).unwrap();
    }
    rig.hear(&bare(PING, 0, 0, 3)).unwrap();
    assert!(rig.frames().is_empty());
}

#[test]
fn yamux_34_at_most_one_own_ping_is_under_way() {
    let mut rig = Rig::fresh(Config::default(), Role::Initiator);
    rig.pass(Duration::ZERO).unwrap();
    assert_eq!(rig.frames(), [bare(PING, SYN, 0, 1)], "YAMUX-36: at once");
    for _ in 0..5 {
        rig.pass(29 * SECOND).unwrap();
        rig.hear(&bare(PING, SYN, 0, 9)).unwrap();
        assert_eq!(rig.frames(), [bare(PING, ACK, 0, 9)]);
    }
    rig.hear(&bare(PING, ACK, 0, 2)).unwrap();
    rig.pass(30 * SECOND).unwrap();
    assert!(rig.frames().is_empty(), "another value is no answer");
    rig.hear(&bare(PING, ACK, 0, 1)).unwrap();
    rig.pass(30 * SECOND - MILLI).unwrap();
    assert!(rig.frames().is_empty());
    rig.pass(MILLI).unwrap();
    assert_eq!(rig.frames(), [bare(PING, SYN, 0, 2)]);
}

#[test]
fn yamux_35_at_most_32_pongs_wait() {
    let mut rig = Rig::client();
    for value in 0..1000 {
        rig.hear(&bare(PING, SYN, 0, value)).unwrap();
    }
    let pongs: Vec<Frame> = (0..32).map(|value| bare(PING, ACK, 0, value)).collect();
    assert_eq!(rig.frames(), pongs);
}

#[test]
fn a_silent_peer_is_given_up_after_two_intervals() {
    let mut rig = Rig::fresh(Config::default().keep_alive(7 * SECOND), Role::Initiator);
    rig.pass(Duration::ZERO).unwrap();
    rig.frames();
    let began = rig.now;
    assert_eq!(rig.pass(100 * SECOND), Err(MuxError::KeepAlive(14 * SECOND)));
    assert_eq!(rig.now - began, 14 * SECOND);
    assert_eq!(rig.frames(), [bare(GO_AWAY, 0, 0, 2)]);
    assert!(rig.session.is_closed() && rig.session.poll_timeout().is_none());
}

/// On a slow link the ping waits behind data, longer than two intervals.
#[test]
fn a_ping_that_was_not_taken_is_not_missed() {
    let mut rig = Rig::fresh(Config::default().keep_alive(7 * SECOND), Role::Initiator);
    rig.pass(100 * SECOND).unwrap();
    assert_eq!(rig.frames(), [bare(PING, SYN, 0, 1)]);
    let taken = rig.now;
    assert_eq!(rig.pass(100 * SECOND), Err(MuxError::KeepAlive(14 * SECOND)));
    assert_eq!(rig.now - taken, 14 * SECOND, "whole intervals after it was");
}

/// On a slow link the pong waits behind data.
#[test]
fn a_peer_that_sends_data_is_alive() {
    let mut rig = Rig::fresh(Config::default(), Role::Initiator);
    rig.pass(Duration::ZERO).unwrap();
    rig.frames();
    for _ in 0..20 {
        rig.pass(25 * SECOND).unwrap();
        rig.hear_bytes(&[0]).unwrap();
        rig.hear_bytes(&bare(UPDATE, 0, 9, 0).encode()[1..]).unwrap();
    }
    assert_eq!(rig.pass(100 * SECOND), Err(MuxError::KeepAlive(60 * SECOND)));
}

/// A task that was not run for minutes hears the pong before it judges.
#[test]
fn a_session_that_was_not_run_for_long_does_not_blame_the_peer() {
    let mut rig = Rig::fresh(Config::default(), Role::Initiator);
    rig.pass(Duration::ZERO).unwrap();
    rig.frames();
    rig.now += 600 * SECOND;
    rig.session.handle_timeout(rig.now).unwrap();
    rig.hear(&bare(PING, ACK, 0, 1)).unwrap();
    rig.pass(30 * SECOND).unwrap();
    assert_eq!(rig.frames(), [bare(PING, SYN, 0, 2)]);
}

/// Neither a busy loop nor an overflow.
#[test]
fn keep_alive_intervals_are_clamped() {
    for (interval, clamped) in [(Duration::ZERO, 1), (Duration::MAX, 86_400)] {
        let mut rig = Rig::fresh(Config::default().keep_alive(interval), Role::Initiator);
        rig.session.handle_timeout(rig.now).unwrap();
        assert_eq!(rig.session.poll_timeout(), Some(rig.now + clamped * SECOND));
    }
}

#[test]
fn yamux_37_a_go_away_ends_the_session_and_nothing_follows() {
    for value in [0, 1, 2, 0x1005, u32::MAX] {
        let mut rig = Rig::server();
        let one = rig.accepted(1);
        rig.write(one, b"unsent");
        let wire = [bare(GO_AWAY, 0, 0, value).encode(), b"garbage".to_vec()].concat();
        rig.hear_bytes(&wire).unwrap();
        assert_eq!(rig.session.goodbye(), Some(code(value)));
        assert!(rig.session.is_closed() && rig.frames().is_empty());
        rig.hear_bytes(b"more garbage").unwrap();
        assert_eq!(rig.session.poll_timeout(), None);
    }
}

#[test]
fn yamux_38_the_goodbye_is_the_last_frame_and_comes_after_queued_data() {
    let mut rig = Rig::client();
    let (done, undone) = (rig.opened(), rig.opened());
    let text = vec![3; 100_000];
    rig.write(done, &text);
    rig.session.finish(done).unwrap();
    rig.write(undone, b"part");
    rig.hear(&bare(PING, SYN, 0, 5)).unwrap();
    rig.session.close(code(0x1006));
    rig.session.close(code(1));
    rig.hear(&bare(UPDATE, SYN, 2, 0)).unwrap();
    let frames = rig.frames();
    assert_eq!(
        frames[..3],
        [bare(PING, ACK, 0, 5), bare(UPDATE, RST, 2, 0), bare(UPDATE, RST, 3, 0)]
    );
    let body: Vec<u8> = frames.iter().flat_map(|frame| frame.body.clone()).collect();
    assert_eq!(body, text);
    assert_eq!(frames[frames.len() - 2].flags, FIN);
    assert_eq!(frames.last(), Some(&bare(GO_AWAY, 0, 0, 0x1006)));
    rig.hear(&bare(PING, SYN, 0, 6)).unwrap();
    rig.session.reset(done, ErrorCode::NONE);
    assert!(rig.frames().is_empty() && !rig.session.has_transmit());
    assert_eq!(rig.stopped(undone), Some(End::ResetLocally(0)));
    assert!(rig.session.open().is_pending());
}

/// In small helpings, as a driver with a slow pipe takes them.
#[test]
fn yamux_38_the_goodbye_waits_for_every_helping() {
    let mut rig = Rig::client();
    let streams: Vec<StreamId> = (0..5).map(|_| rig.opened()).collect();
    for id in &streams {
        rig.write(*id, &[3; 50_000]);
        rig.session.finish(*id).unwrap();
    }
    rig.session.close(ErrorCode::NONE);
    let mut all = Vec::new();
    while rig.session.has_transmit() {
        let mut out = Gather::new();
        rig.session.poll_transmit(1000, &mut out, rig.now);
        assert!(out.len() < 1000 + 65_519);
        all.extend(Frame::decode_all(&out.copy_to_bytes(out.len())));
    }
    assert_eq!(all.iter().map(|frame| frame.body.len()).sum::<usize>(), 250_000);
    assert_eq!(all.iter().filter(|frame| frame.flags == FIN).count(), 5);
    assert_eq!(all.iter().position(|frame| frame.kind == GO_AWAY), Some(all.len() - 1));
}

#[test]
fn closing_refuses_streams_that_nobody_has_accepted() {
    let mut rig = Rig::server();
    rig.hear(&bare(UPDATE, SYN, 1, 0)).unwrap();
    rig.session.close(ErrorCode::NONE);
    assert_eq!(rig.session.accept(), None);
    assert_eq!(rig.frames(), [bare(UPDATE, RST, 1, 0), bare(GO_AWAY, 0, 0, 0)]);
    assert!(rig.is_empty());
}

#[test]
fn yamux_41_t05_08_the_code_of_a_reset_is_never_credit() {
    let mut rig = Rig::server();
    let one = rig.accepted(1);
    rig.hear(&bare(UPDATE, RST, 1, u32::MAX)).unwrap();
    assert_eq!(rig.stopped(one), Some(End::Reset(u32::MAX)));
    rig.hear(&bare(UPDATE, SYN | RST, 3, u32::MAX)).unwrap();
    rig.release(one);
    assert!(rig.is_empty() && rig.session.accept().is_none());
}

#[test]
fn nothing_of_an_ended_session_waits() {
    let mut rig = Rig::client();
    let one = rig.open();
    while rig.session.open().is_ready() {}
    let error = StreamError::Connection(p2p_core::ConnectionError::Dropped);
    rig.session.handle_end(&error);
    let events = rig.events();
    assert!(events.contains(&MuxEvent::Ended(one)) && events.contains(&MuxEvent::Openable));
    assert_eq!(rig.session.poll_timeout(), None);
    assert!(!rig.session.has_transmit());
}
