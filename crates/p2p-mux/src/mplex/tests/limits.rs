//! Every limit, reached.

use super::*;

const SMALL: usize = 256 << 10;

/// Has the peer send `total` bytes in messages of at most 16 KiB, and gives how many were held
/// at most.
fn flood(rig: &mut Rig, number: u64, total: usize) -> usize {
    let mut most = 0;
    let mut left = total;
    while left > 0 {
        let len = left.min(16 << 10);
        rig.take(2, number, &vec![0; len]);
        left -= len;
        most = most.max(rig.session.counters().held);
    }
    most
}

#[test]
fn mplex_15_a_slow_readers_stream_is_reset_at_the_bound_and_the_others_go_on() {
    let mut rig = Rig::new();
    let (slow, quick) = (rig.accepted(1), rig.accepted(2));
    rig.write(slow, b"unsent");
    let mut sent = 0;
    while rig.writing(slow) == End::Open {
        rig.take(2, 1, &[1; 10_000]);
        sent += 10_000;
        let ended = rig.events().contains(&MuxEvent::Ended(slow));
        assert_eq!(ended, rig.writing(slow) == LIMIT);
        rig.take(2, 2, b"quick");
        assert_eq!(rig.read(quick), (b"quick".to_vec(), End::Open));
        rig.events();
    }
    assert!((8_300_000..8_420_000).contains(&sent), "{sent}");
    assert_eq!(rig.bare_frames(), [(5, 1)], "both directions end");
    rig.take(2, 1, b"in flight");
    rig.take(4, 1, b"");
    rig.take(2, 2, b"goes on");
    assert_eq!(rig.read(quick), (b"goes on".to_vec(), End::Open));
    let (data, end) = rig.read(slow);
    assert_eq!((data.len(), end), (sent - 10_000, LIMIT), "what came before, and then an error");
    assert_eq!(rig.writing(slow), LIMIT);
    rig.release(slow);
    rig.release(quick);
    rig.frames();
    assert!(rig.is_empty());
}

#[test]
fn mplex_15_stream_received_max_is_the_bound_and_never_too_small() {
    for (set, bound) in [(1 << 20, 1 << 20), (0, SMALL)] {
        let mut rig = Rig::with(brisk().stream_received_max(set));
        let one = rig.accepted(1);
        let most = flood(&mut rig, 1, 3 << 20);
        assert_eq!(rig.writing(one), LIMIT);
        assert!((bound - (33 << 10)..=bound + (16 << 10)).contains(&most), "{most}");
    }
}

#[test]
fn mplex_15_a_reader_that_keeps_up_is_never_reset() {
    let mut rig = Rig::with(brisk().stream_received_max(SMALL));
    let one = rig.accepted(1);
    for _ in 0..100 {
        flood(&mut rig, 1, 200 << 10);
        let (data, end) = rig.read(one);
        assert_eq!((data.len(), end), (200 << 10, End::Open));
    }
    assert_eq!(rig.session.counters().held, 0);
}

/// The one that holds most pays, not the one that happens to receive.
#[test]
fn mplex_15_the_connections_bound_resets_the_stream_that_holds_most() {
    let config = brisk().stream_received_max(SMALL).connection_received_max(2 * SMALL);
    let mut rig = Rig::with(config);
    let ids: Vec<StreamId> = (0..4).map(|number| rig.accepted(number)).collect();
    flood(&mut rig, 0, 200 << 10);
    flood(&mut rig, 1, 220 << 10);
    rig.take(4, 1, b"");
    flood(&mut rig, 2, 60 << 10);
    assert!(rig.frames().is_empty());
    flood(&mut rig, 3, 100 << 10);
    assert_eq!(rig.bare_frames(), [(5, 1)]);
    assert_eq!(rig.read(ids[1]), (vec![], LIMIT), "what was complete never looks complete");
    for (index, len) in [(0, 200 << 10), (2, 60 << 10), (3, 100 << 10)] {
        let (data, end) = rig.read(ids[index]);
        assert_eq!((data.len(), end), (len, End::Open));
    }
    assert_eq!(rig.session.counters(), rig.session.recount());
    assert_eq!(rig.session.counters().held, 0);
}

#[test]
fn mplex_15_the_default_bound_of_a_connection_is_kept() {
    let mut rig = Rig::new();
    for number in 0..20 {
        rig.take(OPEN, number, b"");
    }
    let mut most = 0;
    for _ in 0..80 {
        for number in 0..20 {
            most = most.max(flood(&mut rig, number, 16 << 10));
        }
    }
    assert!((15 << 20..=(16 << 20) + (16 << 10)).contains(&most), "{most}");
    assert_eq!(rig.session.counters(), rig.session.recount());
}

/// A stream that overflowed keeps what can be read, and is the first to go where room is needed.
#[test]
fn mplex_15_what_an_overflowed_stream_holds_still_counts() {
    let config = brisk().stream_received_max(SMALL).connection_received_max(2 * SMALL);
    let mut rig = Rig::with(config);
    let one = rig.accepted(1);
    rig.accepted(2);
    rig.accepted(3);
    flood(&mut rig, 1, 300 << 10);
    assert_eq!(rig.bare_frames(), [(5, 1)]);
    flood(&mut rig, 2, 150 << 10);
    flood(&mut rig, 3, 150 << 10);
    assert!(rig.frames().is_empty(), "it is not reset twice");
    assert_eq!(rig.read(one), (vec![], LIMIT));
    assert_eq!(rig.session.counters(), rig.session.recount());
}

#[test]
fn mplex_15_a_stream_that_was_dropped_for_its_memory_is_never_accepted() {
    let config = brisk().connection_received_max(SMALL);
    let mut rig = Rig::with(config);
    rig.take(OPEN, 1, b"");
    rig.take(OPEN, 2, b"");
    flood(&mut rig, 1, 200 << 10);
    flood(&mut rig, 2, 100 << 10);
    assert_eq!(rig.bare_frames(), [(5, 1)]);
    assert_eq!(rig.session.accept(), Some(theirs(2)));
    assert_eq!(rig.session.accept(), None);
    assert_eq!(rig.session.stream_count(), 1);
}

#[test]
fn mplex_16_inbound_streams_beyond_the_limit_are_reset() {
    let mut rig = Rig::with(brisk().streams_inbound_max(2));
    let one = rig.accepted(1);
    rig.accepted(2);
    rig.take(OPEN, 3, b"");
    assert_eq!(rig.bare_frames(), [(5, 3)]);
    rig.session.reset(one, ErrorCode::NONE);
    rig.release(one);
    rig.frames();
    rig.accepted(4);
}

#[test]
fn unaccepted_streams_are_limited() {
    let mut rig = Rig::new();
    for number in 0..256 {
        rig.take(OPEN, number, b"");
    }
    assert!(rig.frames().is_empty());
    rig.take(OPEN, 256, b"");
    assert_eq!(rig.bare_frames(), [(5, 256)]);
    rig.session.accept();
    rig.take(OPEN, 257, b"");
    assert!(rig.frames().is_empty());
}

#[test]
fn mplex_16_own_streams_are_limited_and_openers_are_told() {
    let mut rig = Rig::with(brisk().streams_outbound_max(2));
    let one = rig.opened();
    rig.opened();
    assert_eq!(rig.session.open(), Poll::Pending);
    assert!(rig.events().is_empty());
    rig.session.reset(one, ErrorCode::NONE);
    rig.release(one);
    rig.frames();
    assert_eq!(rig.events(), [MuxEvent::Ended(one), MuxEvent::Openable]);
    rig.opened();
}

/// Trap 2: js-libp2p ends the connection at the sixth stream within a second.
#[test]
fn mplex_16_streams_are_opened_at_a_pace_that_js_bears() {
    let mut rig = Rig::with(Config::default());
    let start = rig.now;
    let mut opened = Vec::new();
    while opened.len() < 23 {
        match rig.session.open() {
            Poll::Ready(Err(error)) => panic!("{error}"),
            Poll::Ready(Ok(id)) => {
                // The pipe takes a while: what counts is when the peer hears of it.
                rig.pass(40 * MILLI);
                let frames = rig.frames();
                opened.extend(frames.iter().filter(|f| f.0 == OPEN).map(|_| rig.now));
                rig.session.finish(id).unwrap();
                rig.release(id);
            }
            Poll::Pending => {
                rig.events();
                while !rig.events().contains(&MuxEvent::Openable) {
                    let due = rig.session.poll_timeout().expect("time opens the way");
                    rig.pass(due - rig.now);
                }
            }
        }
    }
    for six in opened.windows(6) {
        assert!(six[5] - six[0] >= 1250 * MILLI, "six streams in {:?}", six[5] - six[0]);
    }
    assert!(*opened.last().unwrap() - start < 7 * SECOND, "no slower than it has to be");
}

/// Streams whose opening was not sent count, however late the clock is looked at.
#[test]
fn mplex_16_a_burst_of_opens_waits_for_the_first_to_be_sent() {
    let mut rig = Rig::with(Config::default().opens_per_second_max(3));
    let ids: Vec<StreamId> = (0..3).map(|_| rig.open()).collect();
    assert_eq!(rig.session.open(), Poll::Pending);
    rig.pass(10 * SECOND);
    assert_eq!(rig.session.open(), Poll::Pending);
    // One that was given up before the peer has heard of it leaves its place.
    rig.session.reset(ids[0], ErrorCode::NONE);
    assert_eq!(rig.events(), [MuxEvent::Ended(ids[0]), MuxEvent::Openable]);
    rig.open();
    assert_eq!(rig.bare_frames(), [(OPEN, 1), (OPEN, 2), (OPEN, 3)]);
    assert_eq!(rig.session.open(), Poll::Pending);
    rig.pass(1249 * MILLI);
    assert_eq!(rig.session.open(), Poll::Pending);
    rig.pass(MILLI);
    rig.open();
}

#[test]
fn send_buffers_are_limited_and_every_stream_gets_a_share() {
    let mut rig = Rig::new();
    let ids: Vec<StreamId> = (0..12).map(|_| rig.opened()).collect();
    let taken: Vec<usize> = ids.iter().map(|id| rig.write(*id, &[0; 200_000])).collect();
    assert_eq!(taken, [[131_072; 2].as_slice(), &[4096; 10]].concat());
    for id in &ids {
        assert_eq!(rig.write(*id, b"x"), 0);
    }
    rig.events();
    rig.frames();
    let woken = rig.events();
    for id in &ids {
        assert!(woken.contains(&MuxEvent::Writable(*id)), "{id:?} is left waiting");
        assert_eq!(rig.write(*id, b"x"), 1);
    }
}

#[test]
fn small_writes_share_a_frame_while_they_wait() {
    let mut rig = Rig::new();
    let one = rig.opened();
    for _ in 0..1000 {
        rig.write(one, b"0123456789");
    }
    let frames = rig.frames();
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0].2, b"0123456789".repeat(1000));
}

/// Frames are small, and the streams take turns.
#[test]
fn a_bulk_stream_holds_up_others_for_one_frame_each() {
    let mut rig = Rig::new();
    let ids: Vec<StreamId> = (0..5).map(|_| rig.opened()).collect();
    for id in &ids[..4] {
        rig.write(*id, &[0; 131_072]);
    }
    let mut out = Gather::new();
    rig.session.poll_transmit(1, &mut out, rig.now);
    rig.write(ids[4], b"small");
    let frames = [decode_all(&out.copy_to_bytes(out.len())), rig.frames()].concat();
    let small = frames.iter().position(|(_, number, _)| *number == 4).unwrap();
    assert!(small <= 5, "after {small} frames");
    for (index, frame) in frames.iter().enumerate() {
        assert!(frame.2.len() <= 16 << 10);
        let turn = index.saturating_sub(small) / 4;
        assert!(frame.1 == 4 || turn <= 9, "{index}");
    }
    let order: Vec<u64> = frames.iter().skip(small + 1).take(8).map(|frame| frame.1).collect();
    assert_eq!(order[..4], order[4..], "in turn");
}

#[test]
fn poll_transmit_stays_within_its_budget_and_a_frame() {
    let mut rig = Rig::new();
    let ids: Vec<StreamId> = (0..8).map(|_| rig.opened()).collect();
    for id in ids {
        rig.write(id, &[0; 131_072]);
    }
    let mut out = Gather::new();
    rig.session.poll_transmit(131_038, &mut out, rig.now);
    assert!((131_038..131_038 + 16_384).contains(&out.len()), "{}", out.len());
}
