//! The life of a stream.

use super::*;

/// Trap 1: replies on a stream that the peer has opened carry the receiver's flags.
#[test]
fn mplex_03_flags_say_who_opened_the_stream() {
    let mut rig = Rig::new();
    let (ours, theirs) = (rig.opened(), rig.accepted(0));
    assert_eq!((number(ours), number(theirs)), (0, 0));
    rig.write(theirs, b"reply");
    rig.write(ours, b"request");
    assert_eq!(rig.frames(), [(1, 0, b"reply".to_vec()), (2, 0, b"request".to_vec())]);
    rig.session.finish(ours).unwrap();
    rig.session.finish(theirs).unwrap();
    assert_eq!(rig.bare_frames(), [(4, 0), (3, 0)]);
    rig.session.reset(theirs, ErrorCode::NONE);
    rig.session.reset(ours, ErrorCode::NONE);
    assert_eq!(rig.bare_frames(), [(5, 0), (6, 0)]);
}

#[test]
fn mplex_04_numbers_go_up_from_zero_on_each_side() {
    let mut rig = Rig::new();
    for expected in 0..10 {
        let id = rig.opened();
        assert_eq!(number(id), expected);
        rig.session.reset(id, ErrorCode::NONE);
        rig.release(id);
        rig.frames();
    }
    assert!(rig.is_empty());
}

#[test]
fn mplex_04_numbers_run_out_before_js_cannot_read_them() {
    let mut rig = Rig::new();
    rig.session.set_next_number((1 << 28) - 1);
    rig.opened();
    assert_eq!(rig.session.open(), Poll::Ready(Err(MuxError::IdsExhausted)));
}

#[test]
fn mplex_05_the_same_number_names_two_streams() {
    let mut rig = Rig::new();
    let (ours, theirs) = (rig.opened(), rig.accepted(0));
    rig.take(THEIRS_ON_OURS.message, 0, b"to ours");
    rig.take(THEIRS_ON_THEIRS.message, 0, b"to theirs");
    rig.take(THEIRS_ON_THEIRS.close, 0, b"");
    assert_eq!(rig.read(ours), (b"to ours".to_vec(), End::Open));
    assert_eq!(rig.read(theirs), (b"to theirs".to_vec(), End::Close));
    rig.take(THEIRS_ON_OURS.reset, 0, b"");
    assert_eq!(rig.writing(ours), End::Reset);
    assert_eq!(rig.writing(theirs), End::Open);
}

#[test]
fn mplex_06_names_are_skipped_and_data_may_follow_at_once() {
    for name in [&b""[..], b"0", b"i0", &[0xff; 1000], &vec![b'n'; 1 << 20]] {
        let mut rig = Rig::new();
        let wire = [frame(OPEN, 0, name), frame(2, 0, b"data")].concat();
        rig.hear(&wire).unwrap();
        assert_eq!(rig.events(), [MuxEvent::Acceptable]);
        let id = rig.session.accept().unwrap();
        assert_eq!(rig.read(id), (b"data".to_vec(), End::Open));
        assert_eq!(rig.session.counters().held, 0);
        assert!(rig.frames().is_empty(), "nothing is acknowledged");
    }
}

/// The opening goes out at once, and before the data.
#[test]
fn mplex_06_data_follow_the_opening_without_an_answer() {
    let mut rig = Rig::new();
    let id = rig.open();
    rig.write(id, b"data");
    rig.session.finish(id).unwrap();
    let data = (2, 0, b"data".to_vec());
    assert_eq!(rig.frames(), [(OPEN, 0, vec![]), data, (4, 0, vec![])]);
}

#[test]
fn mplex_09_a_close_ends_one_direction() {
    let mut rig = Rig::new();
    let one = rig.accepted(1);
    rig.take(2, 1, b"all of it");
    rig.take(4, 1, b"");
    assert_eq!(rig.read(one), (b"all of it".to_vec(), End::Close));
    assert_eq!(rig.write(one, b"answer"), 6);
    rig.session.finish(one).unwrap();
    rig.session.finish(one).unwrap();
    assert_eq!(rig.writing(one), End::Finished);
    assert_eq!(rig.frames(), [(1, 1, b"answer".to_vec()), (3, 1, vec![])]);
    rig.release(one);
    assert!(rig.is_empty() && rig.frames().is_empty());
}

#[test]
fn mplex_09_our_close_leaves_the_other_direction_open() {
    let mut rig = Rig::new();
    let one = rig.opened();
    rig.session.finish(one).unwrap();
    assert_eq!(rig.bare_frames(), [(4, 0)]);
    rig.take(1, 0, b"still");
    rig.take(1, 0, b" here");
    assert_eq!(rig.read(one), (b"still here".to_vec(), End::Open));
    rig.take(3, 0, b"");
    assert_eq!(rig.read(one), (vec![], End::Close));
    rig.release(one);
    assert!(rig.is_empty() && rig.frames().is_empty());
}

#[test]
fn mplex_09_a_waiting_reader_hears_of_data_and_of_the_close() {
    let mut rig = Rig::new();
    let one = rig.accepted(1);
    assert_eq!(rig.read(one).1, End::Open);
    rig.take(2, 1, b"data");
    rig.take(2, 1, b"more");
    assert_eq!(rig.events(), [MuxEvent::Readable(one)]);
    rig.read(one);
    rig.take(4, 1, b"");
    assert_eq!(rig.events(), [MuxEvent::Readable(one)]);
}

#[test]
fn mplex_10_a_reset_ends_both_directions_with_an_error() {
    let mut rig = Rig::new();
    let one = rig.accepted(1);
    rig.take(2, 1, b"part");
    rig.write(one, b"unsent");
    rig.take(6, 1, b"");
    assert_eq!(rig.events(), [MuxEvent::Ended(one)]);
    assert_eq!(rig.read(one), (vec![], End::Reset));
    assert_eq!(rig.writing(one), End::Reset);
    assert!(rig.frames().is_empty(), "a reset is not answered");
    rig.release(one);
    assert!(rig.is_empty());
}

/// What the peer has closed before is complete.
#[test]
fn mplex_10_a_reset_after_the_close_leaves_the_data() {
    let mut rig = Rig::new();
    let one = rig.accepted(1);
    rig.take(2, 1, b"all");
    rig.take(4, 1, b"");
    rig.take(6, 1, b"");
    assert_eq!(rig.read(one), (b"all".to_vec(), End::Close));
    assert_eq!(rig.writing(one), End::Reset);
}

#[test]
fn mplex_10_our_reset_is_sent_once_and_keeps_its_code_to_itself() {
    let mut rig = Rig::new();
    let one = rig.opened();
    rig.write(one, b"unsent");
    rig.session.reset(one, ErrorCode::new(9));
    rig.session.reset(one, ErrorCode::new(10));
    assert_eq!(rig.read(one), (vec![], End::ResetLocally(9)));
    assert_eq!(rig.writing(one), End::ResetLocally(9));
    rig.release(one);
    assert_eq!(rig.bare_frames(), [(6, 0)]);
    assert!(rig.is_empty());
}

#[test]
fn mplex_11_bodies_of_close_and_reset_are_skipped() {
    let mut rig = Rig::new();
    let one = rig.accepted(1);
    let body = [frame(2, 1, b"not a frame"), vec![0xff; 20]].concat();
    rig.take(4, 1, &body);
    assert_eq!(rig.read(one), (vec![], End::Close));
    rig.take(6, 1, &body);
    assert_eq!(rig.writing(one), End::Reset);
    rig.accepted(2);
}

#[test]
fn mplex_12_frames_of_unknown_and_finished_streams_are_ignored() {
    let mut rig = Rig::new();
    let one = rig.accepted(1);
    rig.session.reset(one, ErrorCode::NONE);
    rig.frames();
    for released in [false, true] {
        for flag in 1..7 {
            for number in [1, 77] {
                rig.take(flag, number, b"body");
            }
        }
        assert!(rig.frames().is_empty() && rig.events().iter().all(|e| *e == MuxEvent::Ended(one)));
        assert_eq!(rig.session.counters().held, 0);
        assert_eq!(rig.is_empty(), released);
        rig.release(one);
    }
}

/// Nothing is delivered after the end of a stream, and nothing is made of it.
#[test]
fn mplex_12_data_after_the_close_are_ignored() {
    let mut rig = Rig::new();
    let one = rig.accepted(1);
    rig.take(2, 1, b"all");
    rig.take(4, 1, b"");
    rig.take(2, 1, &[0; 300 << 10]);
    rig.take(4, 1, b"");
    assert_eq!(rig.read(one), (b"all".to_vec(), End::Close));
    rig.take(2, 1, b"too late");
    assert_eq!(rig.read(one), (vec![], End::Close));
    assert!(rig.frames().is_empty());
    assert_eq!(rig.write(one, b"goes on"), 7);
}

#[test]
fn mplex_13_empty_messages_carry_nothing() {
    let mut rig = Rig::new();
    let one = rig.accepted(1);
    assert_eq!(rig.read(one).1, End::Open);
    rig.take(2, 1, b"");
    assert!(rig.events().is_empty());
    assert_eq!(rig.read(one), (vec![], End::Open));
    rig.take(2, 1, b"x");
    assert_eq!(rig.read(one), (b"x".to_vec(), End::Open));
}

#[test]
fn mplex_14_the_end_says_which_streams_are_not_complete_and_no_more() {
    let mut rig = Rig::new();
    let (one, two, three) = (rig.opened(), rig.opened(), rig.accepted(5));
    rig.take(OPEN, 6, b"");
    rig.write(one, &[1; 100_000]);
    rig.session.finish(one).unwrap();
    rig.write(two, b"never sent");
    rig.session.finish(three).unwrap();
    rig.session.close(ErrorCode::new(7));
    rig.session.close(ErrorCode::new(7));
    assert!(!rig.session.is_closed());
    assert_eq!(rig.session.open(), Poll::Pending);
    let mut frames = rig.frames();
    let data: usize = frames.iter().filter(|f| f.0 == 2).map(|f| f.2.len()).sum();
    assert_eq!(data, 100_000);
    frames.retain(|(flag, _, _)| *flag != 2);
    let flags: Vec<(u8, u64)> = frames.iter().map(|(flag, number, _)| (*flag, *number)).collect();
    assert_eq!(flags, [(5, 6), (6, 1), (3, 5), (4, 0)]);
    assert!(rig.session.is_closed() && !rig.session.has_transmit());
    assert_eq!(rig.session.goodbye(), None);
    assert_eq!(rig.session.poll_timeout(), None);
}

#[test]
fn mplex_14_the_end_of_the_pipe_ends_every_stream() {
    let mut rig = Rig::new();
    let (one, two) = (rig.opened(), rig.accepted(5));
    rig.take(1, 0, b"read");
    rig.take(2, 5, b"complete");
    rig.take(4, 5, b"");
    rig.session.handle_end(&StreamError::Connection(p2p_core::ConnectionError::Truncated));
    assert_eq!(rig.read(one), (b"read".to_vec(), End::Connection));
    assert_eq!(rig.read(two), (b"complete".to_vec(), End::Close));
    assert_eq!(rig.writing(two), End::Connection);
    rig.release(one);
    rig.release(two);
    assert!(rig.is_empty() && !rig.session.has_transmit());
}

/// There is no keep-alive: a session that nothing happens to wants nothing.
#[test]
fn mplex_18_an_idle_session_needs_no_timer() {
    let mut rig = Rig::new();
    rig.opened();
    assert_eq!(rig.session.poll_timeout(), None);
    assert!(!rig.session.has_transmit());
}

#[test]
fn a_dropped_unfinished_send_half_resets() {
    let mut rig = Rig::new();
    let one = rig.accepted(1);
    rig.write(one, b"part");
    rig.session.release_send(one);
    assert_eq!(rig.bare_frames(), [(5, 1)]);
    assert_eq!(rig.read(one), (vec![], End::ResetLocally(0)));
    rig.session.release_recv(one);
    assert!(rig.is_empty());
}

#[test]
fn a_stream_that_nobody_has_heard_of_leaves_no_frame() {
    let mut rig = Rig::new();
    for _ in 0..1000 {
        let one = rig.open();
        rig.write(one, b"never sent");
        rig.release(one);
        assert!(rig.is_empty());
        rig.events();
    }
    assert!(rig.frames().is_empty());
    assert!(rig.session.backlog() < 300, "{}", rig.session.backlog());
}

/// The peer cannot be told to stop. What it sends is dropped, and after a bound it is reset.
#[test]
fn a_stream_that_nobody_reads_any_more_is_reset_after_a_bound() {
    let mut rig = Rig::new();
    let one = rig.opened();
    rig.write(one, b"request");
    rig.session.finish(one).unwrap();
    rig.release(one);
    assert_eq!(rig.frames(), [(2, 0, b"request".to_vec()), (4, 0, vec![])]);
    for _ in 0..4 {
        rig.take(1, 0, &[0; 64 << 10]);
    }
    assert_eq!(rig.session.counters().held, 0);
    assert!(rig.frames().is_empty(), "a reset could hurt what the peer reads");
    rig.take(1, 0, b"!");
    assert_eq!(rig.bare_frames(), [(6, 0)]);
    assert!(rig.is_empty());
}

#[test]
fn a_stopped_stream_never_looks_complete() {
    let mut rig = Rig::new();
    let one = rig.accepted(1);
    rig.take(2, 1, b"unread");
    rig.session.stop(one, ErrorCode::new(9));
    rig.take(2, 1, b"more");
    assert_eq!(rig.read(one), (vec![], End::ResetLocally(9)));
    rig.take(4, 1, b"");
    assert_eq!(rig.read(one), (vec![], End::ResetLocally(9)));
    assert_eq!(rig.write(one, b"goes on"), 7);

    let two = rig.accepted(2);
    rig.take(2, 2, b"unread, and complete");
    rig.take(4, 2, b"");
    rig.session.stop(two, ErrorCode::new(9));
    assert_eq!(rig.read(two), (vec![], End::ResetLocally(9)));

    let three = rig.accepted(3);
    rig.take(4, 3, b"");
    rig.session.stop(three, ErrorCode::new(9));
    assert_eq!(rig.read(three), (vec![], End::Close), "it was complete before");
}

#[test]
fn a_stream_that_the_peer_never_ends_is_forgotten_after_a_while() {
    let mut rig = Rig::new();
    let one = rig.opened();
    rig.session.finish(one).unwrap();
    rig.frames();
    rig.release(one);
    rig.pass(29 * SECOND);
    assert_eq!(rig.session.stream_count(), 1);
    rig.pass(2 * SECOND);
    assert!(rig.is_empty() && rig.frames().is_empty());
    assert_eq!(rig.session.poll_timeout(), None);
}

#[test]
fn a_stream_whose_data_are_still_to_be_sent_does_not_linger_away() {
    let mut rig = Rig::new();
    let one = rig.opened();
    rig.write(one, b"data");
    rig.session.finish(one).unwrap();
    rig.release(one);
    rig.pass(100 * SECOND);
    assert_eq!(rig.frames().len(), 2);
    rig.pass(31 * SECOND);
    assert!(rig.is_empty());
}

#[test]
fn refused_streams_are_reset_and_nothing_else() {
    let mut rig = Rig::new();
    let one = rig.accepted(1);
    rig.take(OPEN, 2, b"");
    rig.session.refuse_inbound();
    rig.take(OPEN, 3, b"name");
    rig.take(2, 3, b"data");
    assert_eq!(rig.bare_frames(), [(5, 3), (5, 2)]);
    assert_eq!(rig.session.accept(), None);
    assert_eq!(rig.write(one, b"goes on"), 7);
}

#[test]
fn a_reset_of_an_unaccepted_stream_frees_it() {
    let mut rig = Rig::new();
    rig.take(OPEN, 1, b"");
    rig.take(2, 1, b"data");
    rig.take(OPEN, 2, b"");
    rig.take(6, 1, b"");
    assert_eq!(rig.session.counters().inbound, 1);
    assert_eq!(rig.session.accept(), Some(theirs(2)));
    assert_eq!(rig.session.accept(), None);
}
