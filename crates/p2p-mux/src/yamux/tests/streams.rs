//! The life of a stream: opening, half-close, reset, and what remains readable.

use super::*;

#[test]
fn yamux_08_t05_14_clients_open_odd_and_servers_even_streams() {
    let mut client = Rig::client();
    let mut server = Rig::server();
    assert_eq!([client.open(), client.open()], [id(1), id(3)]);
    assert_eq!([server.open(), server.open()], [id(2), id(4)]);
}

#[test]
fn yamux_09_a_syn_with_our_parity_is_fatal() {
    for frame in [bare(UPDATE, SYN, 7, 0), data(SYN, 7, b"x")] {
        let mut rig = Rig::client();
        assert_eq!(rig.hear(&frame), Err(MuxError::StreamId(7)));
        assert_eq!(rig.frames(), [bare(GO_AWAY, 0, 0, 1)]);
    }
}

#[test]
fn yamux_10_ids_end_before_they_wrap() {
    for (role, next, last) in [
        (Role::Initiator, u32::MAX - 4, [u32::MAX - 4, u32::MAX - 2]),
        (Role::Responder, u32::MAX - 5, [u32::MAX - 5, u32::MAX - 3]),
    ] {
        let mut rig = Rig::with(quiet(), role, Duration::ZERO);
        rig.session.set_next_id(next);
        assert_eq!([rig.open(), rig.open()], last.map(id));
        for _ in 0..3 {
            assert_eq!(rig.session.open(), Poll::Ready(Err(MuxError::IdsExhausted)));
        }
        rig.write(id(next), b"old streams finish");
        assert_eq!(rig.frames().len(), 2);
    }
}

#[test]
fn yamux_11_a_stream_may_begin_with_an_update_or_with_data() {
    let mut rig = Rig::server();
    rig.hear(&bare(UPDATE, SYN, 1, 0)).unwrap();
    rig.hear(&data(SYN, 3, b"body")).unwrap();
    rig.hear(&data(SYN | FIN, 5, b"all")).unwrap();
    rig.hear(&bare(UPDATE, SYN | FIN, 7, 0)).unwrap();
    assert_eq!(rig.events(), [MuxEvent::Acceptable; 4]);
    assert_eq!(
        std::iter::from_fn(|| rig.session.accept()).collect::<Vec<_>>(),
        [id(1), id(3), id(5), id(7)]
    );
    assert_eq!(rig.read_all(id(1)), (vec![], End::Open));
    assert_eq!(rig.read_all(id(3)), (b"body".to_vec(), End::Open));
    assert_eq!(rig.read_all(id(5)), (b"all".to_vec(), End::Fin));
    assert_eq!(rig.read_all(id(7)), (vec![], End::Fin));
}

#[test]
fn yamux_11_syn_rides_on_data_when_there_are_some() {
    let mut rig = Rig::client();
    let (one, three, five) = (rig.open(), rig.open(), rig.open());
    rig.write(three, b"hi");
    rig.session.finish(five).unwrap();
    assert_eq!(
        rig.frames(),
        [bare(UPDATE, SYN, 1, 0), data(SYN, 3, b"hi"), bare(DATA, SYN | FIN, 5, 0)]
    );
    rig.write(one, b"later");
    assert_eq!(rig.frames(), [data(0, 1, b"later")]);
}

#[test]
fn yamux_12_the_initial_window_may_be_used_before_the_ack() {
    let mut rig = Rig::client();
    let one = rig.open();
    let mut sent = 0;
    loop {
        let count = rig.write(one, &[1; 60_000]);
        sent += count;
        let body: usize = rig.frames().iter().map(|frame| frame.body.len()).sum();
        assert_eq!(body, count);
        if count == 0 {
            break;
        }
    }
    assert_eq!(sent, 262_144);
}

#[test]
fn yamux_13_ack_rides_on_data_and_goes_alone_after_a_while() {
    let mut rig = Rig::server();
    for number in [1, 3, 5] {
        rig.hear(&bare(UPDATE, SYN, number, 0)).unwrap();
    }
    rig.session.accept().unwrap();
    let three = rig.session.accept().unwrap();
    rig.pass(10 * MILLI).unwrap();
    assert!(rig.frames().is_empty());
    rig.write(three, b"ok");
    assert_eq!(rig.frames(), [data(ACK, 3, b"ok")]);
    rig.pass(9 * MILLI).unwrap();
    assert!(!rig.session.has_transmit());
    rig.pass(MILLI).unwrap();
    assert_eq!(rig.frames(), [bare(UPDATE, ACK, 1, 0)]);
    rig.pass(SECOND).unwrap();
    assert!(rig.frames().is_empty(), "stream 5 is not accepted yet");
    let five = rig.session.accept().unwrap();
    assert_eq!(rig.frames(), [bare(UPDATE, ACK, 5, 0)], "late enough");
    rig.write(five, b"x");
    rig.write(three, b"x");
    assert_eq!(rig.frames(), [data(0, 5, b"x"), data(0, 3, b"x")], "YAMUX-14: once");
}

/// The clock of an idle session stands still: an accept must not take the ACK's time from it.
#[test]
fn an_ack_after_a_long_silence_is_sent_in_time() {
    let mut rig = Rig::server();
    rig.pass(1000 * SECOND).unwrap();
    rig.hear(&bare(UPDATE, SYN, 1, 0)).unwrap();
    rig.session.accept().unwrap();
    assert_eq!(rig.session.poll_timeout(), Some(rig.now + 20 * MILLI));
}

#[test]
fn yamux_14_a_late_ack_is_taken() {
    let mut rig = Rig::client();
    let one = rig.open();
    rig.frames();
    rig.hear(&data(0, 1, b"before the ack")).unwrap();
    assert_eq!(rig.session.counters().unacknowledged, 1);
    rig.pass(1000 * SECOND).unwrap();
    rig.hear(&data(ACK | FIN, 1, b"!")).unwrap();
    assert_eq!(rig.session.counters().unacknowledged, 0);
    assert_eq!(rig.read_all(one), (b"before the ack!".to_vec(), End::Fin));
    rig.session.finish(one).unwrap();
    rig.release(one);
    rig.frames();
    assert!(rig.is_empty());
    rig.hear(&bare(UPDATE, ACK, 1, 0)).unwrap();
    assert!(rig.is_empty() && rig.frames().is_empty());
}

#[test]
fn yamux_15_a_syn_for_a_live_stream_is_fatal() {
    for frame in [bare(UPDATE, SYN, 1, 0), data(SYN, 1, b"x")] {
        let mut rig = Rig::server();
        rig.hear(&bare(UPDATE, SYN, 1, 0)).unwrap();
        assert_eq!(rig.hear(&frame), Err(MuxError::StreamId(1)));
        assert_eq!(rig.frames(), [bare(GO_AWAY, 0, 0, 1)]);
    }
}

#[test]
fn yamux_16_half_close_both_ways() {
    let mut rig = Rig::server();
    let one = rig.accepted(1);
    rig.hear(&data(FIN, 1, b"question")).unwrap();
    assert_eq!(rig.read_all(one), (b"question".to_vec(), End::Fin));
    rig.write(one, b"answer");
    rig.session.finish(one).unwrap();
    assert_eq!(rig.frames(), [data(0, 1, b"answer"), bare(DATA, FIN, 1, 0)]);
    assert_eq!(rig.write_error(one), Some(End::Finished));
    rig.release(one);
    assert!(rig.is_empty());

    let two = rig.opened();
    rig.session.finish(two).unwrap();
    assert_eq!(rig.frames(), [bare(DATA, FIN, 2, 0)]);
    rig.hear(&data(0, 2, b"still open")).unwrap();
    rig.hear(&bare(UPDATE, FIN, 2, 0)).unwrap();
    assert_eq!(rig.read_all(two), (b"still open".to_vec(), End::Fin));
    rig.release(two);
    assert!(rig.is_empty());
}

/// js-libp2p 3 acts on the flags before the body, and then drops the body.
#[test]
fn yamux_16_fin_rides_on_no_body() {
    let mut rig = Rig::client();
    let one = rig.opened();
    rig.write(one, b"request");
    rig.session.finish(one).unwrap();
    assert_eq!(rig.frames(), [data(0, 1, b"request"), bare(DATA, FIN, 1, 0)]);
}

#[test]
fn yamux_16_fin_comes_behind_everything_that_is_queued() {
    let mut rig = Rig::client();
    let one = rig.opened();
    let text = vec![9; 100_000];
    assert_eq!(rig.write(one, &text), text.len());
    rig.session.finish(one).unwrap();
    rig.release(one);
    let frames = rig.frames();
    let body: Vec<u8> = frames.iter().flat_map(|frame| frame.body.clone()).collect();
    assert_eq!(body, text);
    let fins: Vec<bool> = frames.iter().map(|frame| frame.flags == FIN).collect();
    assert_eq!(fins.iter().position(|fin| *fin), Some(frames.len() - 1));
}

#[test]
fn data_after_the_end_are_fatal() {
    let mut rig = Rig::server();
    rig.hear(&data(SYN | FIN, 1, b"all")).unwrap();
    rig.hear(&bare(DATA, FIN, 1, 0)).unwrap();
    assert_eq!(rig.hear(&data(0, 1, b"more")), Err(MuxError::DataAfterEnd(1)));
}

#[test]
fn yamux_18_t05_10_a_reset_discards_and_ends_both_directions() {
    for (frame, error) in [(bare(UPDATE, RST, 1, 7), 7), (data(RST, 1, b"skipped"), 0)] {
        let mut rig = Rig::server();
        let one = rig.accepted(1);
        rig.hear(&data(0, 1, b"unread")).unwrap();
        rig.write(one, b"unsent");
        rig.events();
        rig.hear(&frame).unwrap();
        assert_eq!(rig.events(), [MuxEvent::Ended(one)]);
        assert_eq!(rig.read_all(one), (vec![], End::Reset(error)));
        assert_eq!(rig.write_error(one), Some(End::Reset(error)));
        assert_eq!(rig.stopped(one), Some(End::Reset(error)));
        rig.release(one);
        assert!(rig.frames().is_empty() && rig.is_empty());
        rig.hear(&data(SYN, 3, b"in step")).unwrap();
        assert_eq!(rig.read_all(id(3)), (b"in step".to_vec(), End::Open));
    }
}

#[test]
fn data_that_came_before_a_fin_stay_readable_after_a_reset() {
    let mut rig = Rig::server();
    rig.hear(&data(SYN | FIN, 1, b"complete")).unwrap();
    rig.hear(&bare(UPDATE, RST, 1, 3)).unwrap();
    assert_eq!(rig.session.accept(), None, "nobody had it");

    let three = rig.accepted(3);
    rig.hear(&data(FIN, 3, b"complete")).unwrap();
    rig.hear(&bare(UPDATE, RST, 3, 3)).unwrap();
    assert_eq!(rig.stopped(three), Some(End::Reset(3)));
    assert_eq!(rig.read_all(three), (b"complete".to_vec(), End::Fin));
}

#[test]
fn what_has_arrived_stays_readable_after_the_end_of_the_connection() {
    let mut rig = Rig::server();
    let (one, three) = (rig.accepted(1), rig.accepted(3));
    rig.hear(&data(FIN, 1, b"complete")).unwrap();
    rig.hear(&data(0, 3, b"truncated")).unwrap();
    let error = StreamError::Connection(p2p_core::ConnectionError::Truncated);
    rig.session.handle_end(&error);
    assert_eq!(rig.read_all(one), (b"complete".to_vec(), End::Fin));
    assert_eq!(rig.read_all(three), (b"truncated".to_vec(), End::Connection));
    assert_eq!(rig.write_error(one), Some(End::Connection));
    rig.release(one);
    rig.release(three);
    assert!(rig.is_empty() && !rig.session.has_transmit());
}

#[test]
fn yamux_19_a_dropped_unfinished_send_half_resets() {
    let mut rig = Rig::server();
    let one = rig.accepted(1);
    rig.write(one, b"part");
    rig.session.release_send(one);
    assert_eq!(rig.frames(), [bare(UPDATE, RST, 1, 0)]);
    assert_eq!(rig.read_all(one), (vec![], End::ResetLocally(0)));
    rig.session.release_recv(one);
    assert!(rig.is_empty());
}

#[test]
fn a_stream_that_nobody_has_heard_of_leaves_no_frame() {
    let mut rig = Rig::client();
    for _ in 0..1000 {
        let stream = rig.open();
        rig.write(stream, b"never sent");
        rig.release(stream);
        assert!(rig.is_empty());
        rig.events();
    }
    assert!(rig.session.backlog() < 300, "{}", rig.session.backlog());
    assert!(rig.frames().is_empty());
}

/// Until the window is used up the peer is not held up, and a reset could hurt what it reads.
#[test]
fn yamux_21_a_dropped_receive_half_resets_only_when_the_window_is_used_up() {
    let mut rig = Rig::client();
    let one = rig.opened();
    rig.write(one, b"request");
    rig.session.finish(one).unwrap();
    rig.release(one);
    assert_eq!(rig.frames(), [data(0, 1, b"request"), bare(DATA, FIN, 1, 0)]);
    rig.hear(&data(0, 1, &vec![0; 262_143])).unwrap();
    assert!(rig.frames().is_empty());
    rig.hear(&data(0, 1, b"!")).unwrap();
    assert_eq!(rig.frames(), [bare(UPDATE, RST, 1, 0)]);
    assert!(rig.is_empty());
}

#[test]
fn a_stopped_stream_is_not_reset_when_the_last_byte_of_the_window_brings_the_end() {
    let mut rig = Rig::client();
    let one = rig.opened();
    rig.session.stop(one, code(9));
    let frame = data(FIN, 1, &vec![0; 262_144]).encode();
    rig.hear_bytes(&frame[..100_000]).unwrap();
    rig.session.stop(one, code(9));
    rig.hear_bytes(&frame[100_000..]).unwrap();
    assert!(rig.frames().is_empty());
    assert_eq!(rig.write(one, b"goes on"), 7);
}

#[test]
fn a_stopped_stream_never_looks_complete() {
    let mut rig = Rig::client();
    let one = rig.opened();
    rig.hear(&data(0, 1, b"unread")).unwrap();
    rig.session.stop(one, code(9));
    assert_eq!(rig.read_all(one), (vec![], End::ResetLocally(9)));
    rig.hear(&bare(UPDATE, FIN, 1, 0)).unwrap();
    assert_eq!(rig.read_all(one), (vec![], End::ResetLocally(9)));

    let three = rig.opened();
    rig.hear(&data(0, 3, &vec![0; 262_144])).unwrap();
    rig.session.stop(three, code(9));
    assert_eq!(rig.frames(), [bare(UPDATE, RST, 3, 9)], "the peer waits for credit");

    let five = rig.opened();
    rig.hear(&data(FIN, 5, b"unread, and complete")).unwrap();
    rig.session.stop(five, code(9));
    assert_eq!(rig.read_all(five), (vec![], End::ResetLocally(9)));
}

#[test]
fn a_reset_of_an_unaccepted_stream_frees_it() {
    let mut rig = Rig::server();
    rig.hear(&data(SYN, 1, b"body")).unwrap();
    rig.hear(&data(SYN, 3, b"body")).unwrap();
    rig.hear(&bare(UPDATE, RST, 1, 0)).unwrap();
    assert_eq!(rig.session.counters().inbound, 1);
    assert_eq!(rig.session.accept(), Some(id(3)));
    assert_eq!(rig.session.accept(), None);
}

#[test]
fn local_reset_is_sent_once_with_its_code() {
    let mut rig = Rig::client();
    let one = rig.opened();
    rig.write(one, b"unsent");
    rig.session.reset(one, code(0x1002));
    rig.session.reset(one, code(5));
    rig.release(one);
    assert_eq!(rig.frames(), [bare(UPDATE, RST, 1, 0x1002)]);
    assert!(rig.is_empty());
    rig.hear_all(&[data(0, 1, b"in flight"), bare(UPDATE, RST, 1, 0)]);
    assert!(rig.frames().is_empty());
}

#[test]
fn refused_streams_are_reset_and_nothing_else() {
    let mut rig = Rig::server();
    let one = rig.accepted(1);
    rig.hear(&bare(UPDATE, SYN, 3, 0)).unwrap();
    rig.session.refuse_inbound();
    rig.hear(&data(SYN, 5, b"body")).unwrap();
    assert_eq!(rig.frames(), [bare(UPDATE, RST, 5, 0), bare(UPDATE, RST, 3, 0)]);
    assert_eq!(rig.session.accept(), None);
    assert_eq!(rig.write(one, b"goes on"), 7);
    rig.session.reset(one, ErrorCode::NONE);
    rig.release(one);
    rig.frames();
    assert!(rig.is_empty());
}
