use std::{
    task::Poll,
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes};
use p2p_core::{
    ConnectionInfo, ErrorCode, Gather, Keypair, MuxCore, MuxEvent, Muxed, Muxer, Pipe, Role,
    StreamError, StreamId,
};
use p2p_mux::Setup;

use super::{Check, UNREAD_MAX, Violation, connection, difference, pattern};

/// What is asked of `poll_transmit` at once, in bytes.
const BUDGET: usize = 16 << 10;
/// How far it may go beyond that: one frame.
const FRAME_MAX: usize = 1 << 20;
/// Streams that nobody may open without a word of the peer.
const STREAMS: usize = 100_000;
/// Calls of `handle_timeout` in a row, each when it is due, after which time must have passed.
const TIMEOUTS: usize = 1_000;

/// Checks a multiplexer: its state machine, two of them back to back in virtual time, and
/// [`connection`](super::connection()) over this project's driver and a pipe in memory.
///
/// # Errors
/// The first [`Violation`].
///
/// # Cancel safety
/// Dropped, it leaves tasks that end by themselves.
pub async fn muxer(muxer: &dyn Muxer) -> Result<(), Violation> {
    let suite = Suite { muxer };
    suite.open_and_accept()?;
    suite.data()?;
    suite.half_close()?;
    suite.write_leaves_the_rest()?;
    suite.unread_data()?;
    suite.stalled_stream()?;
    suite.resets()?;
    suite.dropped_halves()?;
    suite.too_many_streams()?;
    suite.refused_streams()?;
    suite.end_of_the_link()?;
    suite.close()?;
    suite.streams_that_are_gone()?;
    suite.garbage()?;
    suite.timers()?;
    connection(async || Ok(suite.muxed())).await
}

struct Suite<'a> {
    muxer: &'a dyn Muxer,
}

/// Two sessions back to back.
struct Pair {
    check: Check,
    now: Instant,
    sides: [Side; 2],
    /// The most bytes that are handed in at once.
    step: usize,
}

struct Side {
    core: Box<dyn MuxCore>,
    events: Vec<MuxEvent>,
}

impl Side {
    fn told(&mut self, event: MuxEvent) -> bool {
        let told = self.events.contains(&event);
        self.events.retain(|other| *other != event);
        told
    }
}

impl Pair {
    fn side(&mut self, of: usize) -> &mut Side {
        let [first, second] = &mut self.sides;
        if of == 0 { first } else { second }
    }

    fn core(&mut self, of: usize) -> &mut dyn MuxCore {
        self.side(of).core.as_mut()
    }

    fn take_events(&mut self, of: usize) {
        let side = self.side(of);
        while let Some(event) = side.core.poll_event() {
            side.events.push(event);
        }
    }

    /// Moves frames until there are none. Gives how many bytes went.
    fn pump(&mut self) -> Result<usize, Violation> {
        let mut moved = 0;
        loop {
            let before = moved;
            for from in [0, 1] {
                moved += self.transmit(from)?;
            }
            if moved == before {
                return Ok(moved);
            }
        }
    }

    fn transmit(&mut self, from: usize) -> Result<usize, Violation> {
        let (check, now, step) = (self.check, self.now, self.step);
        let mut moved = 0;
        while self.core(from).has_transmit() {
            let mut frames = Gather::new();
            self.core(from).poll_transmit(BUDGET, &mut frames, now);
            self.take_events(from);
            let len = frames.len();
            if len == 0 {
                let again = self.core(from).has_transmit() && !self.core(from).is_closed();
                check.that(!again, || {
                    "`has_transmit` says yes, and `poll_transmit` gives nothing".into()
                })?;
                break;
            }
            check.that(len <= BUDGET + FRAME_MAX, || {
                format!("{len} bytes where {BUDGET} are asked for")
            })?;
            moved += len;
            let mut bytes = frames.copy_to_bytes(len);
            while !bytes.is_empty() {
                let piece = bytes.split_to(bytes.len().min(step));
                let handled = self.core(1 - from).handle_data(piece, now);
                self.take_events(1 - from);
                check.ok("handling what the other side has sent", handled)?;
            }
        }
        Ok(moved)
    }

    fn open(&mut self, by: usize) -> Result<StreamId, Violation> {
        let opened = self.core(by).open();
        self.take_events(by);
        match opened {
            Poll::Ready(opened) => self.check.ok("opening a stream", opened),
            Poll::Pending => Err(self.check.seen("a stream of a new session cannot be opened")),
        }
    }

    fn accept(&mut self, by: usize) -> Result<StreamId, Violation> {
        let told = self.side(by).told(MuxEvent::Acceptable);
        self.check.that(told, || "nobody is told of a stream that the peer has opened".into())?;
        let accepted = self.core(by).accept();
        accepted.ok_or_else(|| self.check.seen("a stream that the peer has opened is not there"))
    }

    /// A stream that side `by` has opened: its ids on side 0 and on side 1.
    fn stream(&mut self, by: usize) -> Result<[StreamId; 2], Violation> {
        let ours = self.open(by)?;
        // A stream may be told of with its first data alone.
        self.write(by, ours, b"?")?;
        self.pump()?;
        let theirs = self.accept(1 - by)?;
        let first = self.read_all(1 - by, theirs)?;
        self.check.that(first == b"?", || difference(b"?", &first))?;
        Ok(if by == 0 { [ours, theirs] } else { [theirs, ours] })
    }

    fn write(&mut self, by: usize, id: StreamId, data: &[u8]) -> Result<(), Violation> {
        let mut data = Bytes::copy_from_slice(data);
        for _ in 0..10_000 {
            let written = self.core(by).write(id, &mut data);
            self.take_events(by);
            match written {
                Poll::Ready(written) => self.check.ok("a write", written)?,
                Poll::Pending => return Err(self.check.seen("a write that must fit waits")),
            }
            if data.is_empty() {
                return Ok(());
            }
        }
        Err(self.check.seen("writes are ready and take nothing"))
    }

    /// Reads what is there.
    fn read_all(&mut self, by: usize, id: StreamId) -> Result<Vec<u8>, Violation> {
        let mut all = Vec::new();
        loop {
            let chunk = self.core(by).read(id, 10_000);
            self.take_events(by);
            match chunk {
                Poll::Ready(Ok(Some(chunk))) => {
                    self.check.that(chunk.len() <= 10_000, || {
                        format!("{} bytes where 10000 are asked for", chunk.len())
                    })?;
                    all.extend_from_slice(&chunk);
                }
                Poll::Ready(Ok(None)) | Poll::Pending => return Ok(all),
                Poll::Ready(Err(error)) => {
                    return Err(self.check.seen(format!("a read fails: {error}")));
                }
            }
        }
    }

    fn echo(&mut self, ids: [StreamId; 2]) -> Result<(), Violation> {
        let [ours, theirs] = ids;
        self.write(0, ours, b"ping")?;
        self.pump()?;
        let heard = self.read_all(1, theirs)?;
        self.check.that(heard == b"ping", || difference(b"ping", &heard))?;
        self.write(1, theirs, b"pong")?;
        self.pump()?;
        let heard = self.read_all(0, ours)?;
        self.check.that(heard == b"pong", || difference(b"pong", &heard))
    }

    /// That both sides hold no stream any more, when all timers of the next hour have run.
    fn nothing_is_left(&mut self) -> Result<(), Violation> {
        let end = self.now + Duration::from_secs(3600);
        for _ in 0..TIMEOUTS {
            self.pump()?;
            let due = self.sides.iter().filter_map(|side| side.core.poll_timeout()).min();
            let left = self.sides.iter().map(|side| side.core.stream_count()).sum::<usize>();
            match due.filter(|due| left > 0 && *due < end) {
                Some(due) => self.now = self.now.max(due),
                None => break,
            }
            for of in [0, 1] {
                let now = self.now;
                let handled = self.core(of).handle_timeout(now);
                self.take_events(of);
                self.check.ok("a timeout", handled)?;
            }
        }
        let counts = self.sides.each_ref().map(|side| side.core.stream_count());
        self.check.that(counts == [0, 0], || format!("{counts:?} streams are held by nobody"))
    }

    fn release(&mut self, ids: [StreamId; 2]) {
        for (of, id) in ids.into_iter().enumerate() {
            self.core(of).release_send(id);
            self.core(of).release_recv(id);
            self.take_events(of);
        }
    }
}

impl Suite<'_> {
    fn pair(&self, check: Check) -> Pair {
        let now = Instant::now();
        let side = |role| Side { core: self.muxer.start(role, now), events: Vec::new() };
        let sides = [side(Role::Initiator), side(Role::Responder)];
        Pair { check, now, sides, step: usize::MAX }
    }

    fn muxed(&self) -> (Muxed, Muxed) {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let end = |role, io: tokio::io::DuplexStream, seed| {
            let (read, write) = tokio::io::split(io);
            let now = tokio::time::Instant::now().into_std();
            let setup = Setup::new(Pipe::new(read, write), self.muxer.start(role, now));
            let key = Keypair::from_ed25519_seed(&[seed; 32]).public();
            let (muxed, driver) = setup.start_with(ConnectionInfo::new(
                role,
                key,
                None,
                p2p_core::Multiaddr::empty(),
            ));
            drop(tokio::spawn(driver));
            muxed
        };
        (end(Role::Initiator, ours, 2), end(Role::Responder, theirs, 1))
    }

    /// Streams of either side arrive at the other, each once and with an id of its own.
    fn open_and_accept(&self) -> Result<(), Violation> {
        let mut pair = self.pair(Check("open and accept"));
        let mut seen = [Vec::new(), Vec::new()];
        for by in [0, 1, 0, 1, 1, 0] {
            let ids = pair.stream(by)?;
            for (seen, id) in seen.iter_mut().zip(ids) {
                pair.check.that(!seen.contains(&id), || format!("{id:?} is given twice"))?;
                seen.push(id);
            }
            pair.now += Duration::from_secs(2);
            pair.echo(ids)?;
        }
        let more = [0, 1].map(|of| pair.core(of).accept());
        pair.check.that(more == [None, None], || "a stream that nobody has opened".into())
    }

    /// Bytes arrive once and in order, whatever pieces the link makes of them.
    fn data(&self) -> Result<(), Violation> {
        for step in [usize::MAX, 1, 2, 13, 1000] {
            let mut pair = self.pair(Check("data"));
            let ids = pair.stream(0)?;
            pair.step = step;
            let sent = pattern(40_000);
            for from in [0, 1] {
                let [ours, theirs] = if from == 0 { ids } else { [ids[1], ids[0]] };
                let waits = pair.core(1 - from).read(theirs, 1).is_pending();
                pair.check
                    .that(waits, || "there is something to read before it was sent".into())?;
                pair.write(from, ours, &sent)?;
                pair.pump()?;
                let told = pair.side(1 - from).told(MuxEvent::Readable(theirs));
                pair.check.that(told, || "a read that waited is not told of data".into())?;
                let received = pair.read_all(1 - from, theirs)?;
                pair.check.that(received == sent, || difference(&sent, &received))?;
            }
        }
        Ok(())
    }

    /// `finish` ends one direction behind its data; the other goes on; then nothing is left.
    fn half_close(&self) -> Result<(), Violation> {
        let mut pair = self.pair(Check("half-close"));
        let [ours, theirs] = pair.stream(0)?;
        pair.write(0, ours, b"last")?;
        let finished = pair.core(0).finish(ours);
        pair.check.ok("finishing", finished)?;
        pair.pump()?;
        let heard = pair.read_all(1, theirs)?;
        pair.check.that(heard == b"last", || difference(b"last", &heard))?;
        let end = pair.core(1).read(theirs, 1);
        pair.check.that(matches!(end, Poll::Ready(Ok(None))), || {
            format!("{end:?} at the end of the data")
        })?;
        let late = pair.core(0).write(ours, &mut Bytes::from_static(b"x"));
        pair.check.that(matches!(late, Poll::Ready(Err(StreamError::Finished))), || {
            format!("{late:?} for a write behind the end")
        })?;
        pair.write(1, theirs, b"answer")?;
        let finished = pair.core(1).finish(theirs);
        pair.check.ok("finishing", finished)?;
        pair.pump()?;
        let heard = pair.read_all(0, ours)?;
        pair.check.that(heard == b"answer", || difference(b"answer", &heard))?;
        let end = pair.core(0).read(ours, 1);
        pair.check.that(matches!(end, Poll::Ready(Ok(None))), || {
            format!("{end:?} at the end of the answer")
        })?;
        pair.release([ours, theirs]);
        pair.nothing_is_left()
    }

    /// What a write does not take stays in `data`, and arrives when it is written later.
    fn write_leaves_the_rest(&self) -> Result<(), Violation> {
        let mut pair = self.pair(Check("write leaves the rest"));
        let [ours, theirs] = pair.stream(0)?;
        let sent = pattern(3 << 20);
        let (mut left, mut received) = (Bytes::from(sent.clone()), Vec::new());
        for round in 0.. {
            let before = left.len();
            let written = pair.core(0).write(ours, &mut left);
            pair.take_events(0);
            let waits = match written {
                Poll::Ready(written) => {
                    pair.check.ok("a write", written)?;
                    pair.check.that(left.len() < before, || {
                        "a write is ready and takes nothing".into()
                    })?;
                    false
                }
                Poll::Pending => {
                    pair.check.that(left.len() == before, || {
                        "a write waits and has taken something".into()
                    })?;
                    true
                }
            };
            if !waits && !left.is_empty() {
                continue;
            }
            pair.pump()?;
            received.extend(pair.read_all(1, theirs)?);
            pair.pump()?;
            if left.is_empty() {
                break;
            }
            let told = pair.side(0).told(MuxEvent::Writable(ours));
            pair.check.that(told, || "a write that waited is not told of room".into())?;
            pair.check.that(round < 100_000, || "it takes for ever".into())?;
        }
        received.extend(pair.read_all(1, theirs)?);
        pair.check.that(received == sent, || difference(&sent, &received))
    }

    /// Data that nobody reads end in a writer that waits, or in a reset; not in memory.
    fn unread_data(&self) -> Result<(), Violation> {
        let mut pair = self.pair(Check("unread data"));
        let [ours, theirs] = pair.stream(0)?;
        let piece = Bytes::from(pattern(16 << 10));
        let mut written = 0;
        while written < 4 * UNREAD_MAX {
            let mut data = piece.clone();
            let result = pair.core(0).write(ours, &mut data);
            pair.take_events(0);
            written += piece.len() - data.len();
            let moved = pair.pump()?;
            match result {
                Poll::Ready(Ok(())) => {}
                Poll::Pending if moved > 0 => {}
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(_)) => {
                    let read = std::iter::repeat_with(|| pair.core(1).read(theirs, usize::MAX))
                        .find(|chunk| !matches!(chunk, Poll::Ready(Ok(Some(_)))));
                    return pair.check.that(matches!(read, Some(Poll::Ready(Err(_)))), || {
                        format!("{read:?} for the reader of a stream that was cut")
                    });
                }
            }
        }
        Err(pair.check.seen(format!("{written} bytes that nobody reads are taken")))
    }

    /// A stream that nobody reads stops no other.
    fn stalled_stream(&self) -> Result<(), Violation> {
        let mut pair = self.pair(Check("stalled stream"));
        let [stalled, _] = pair.stream(0)?;
        pair.now += Duration::from_secs(2);
        let other = pair.stream(1)?;
        for _ in 0..100 {
            let mut data = Bytes::from(vec![7; 64 << 10]);
            if !matches!(pair.core(0).write(stalled, &mut data), Poll::Ready(Ok(()))) {
                break;
            }
            pair.take_events(0);
            pair.pump()?;
        }
        pair.echo(other)
    }

    /// A reset is an error on both sides, and never looks like an end.
    fn resets(&self) -> Result<(), Violation> {
        let mut pair = self.pair(Check("resets"));
        for by in [0, 1] {
            pair.now += Duration::from_secs(2);
            let ids = pair.stream(0)?;
            let waits = pair.core(1 - by).read(ids[1 - by], 1).is_pending();
            pair.check.that(waits, || "there is something to read".into())?;
            pair.write(by, ids[by], b"the beginning of something")?;
            pair.core(by).reset(ids[by], ErrorCode::new(7));
            pair.take_events(by);
            pair.pump()?;
            for of in [0, 1] {
                let told = pair.side(of).told(MuxEvent::Ended(ids[of]));
                pair.check
                    .that(told, || format!("side {of} is not told of a reset of side {by}"))?;
                let read = std::iter::repeat_with(|| pair.core(of).read(ids[of], 100))
                    .find(|chunk| !matches!(chunk, Poll::Ready(Ok(Some(_)))));
                pair.check.that(matches!(read, Some(Poll::Ready(Err(_)))), || {
                    format!("{read:?} of a stream that was reset")
                })?;
                let write = pair.core(of).write(ids[of], &mut Bytes::from_static(b"x"));
                pair.check.that(matches!(write, Poll::Ready(Err(_))), || {
                    format!("{write:?} for a write to a stream that was reset")
                })?;
                let stopped = pair.core(of).stopped(ids[of]);
                pair.check.that(stopped.is_ready(), || {
                    "`stopped` waits on a stream that was reset".into()
                })?;
            }
            pair.release(ids);
        }
        pair.nothing_is_left()
    }

    /// A sending half that goes before its end resets; nothing is left of streams that are dropped.
    fn dropped_halves(&self) -> Result<(), Violation> {
        let mut pair = self.pair(Check("dropped halves"));
        let ids = pair.stream(0)?;
        pair.write(0, ids[0], b"the beginning of something")?;
        pair.core(0).release_send(ids[0]);
        pair.core(0).release_recv(ids[0]);
        pair.take_events(0);
        pair.pump()?;
        let read = std::iter::repeat_with(|| pair.core(1).read(ids[1], 100))
            .find(|chunk| !matches!(chunk, Poll::Ready(Ok(Some(_)))));
        pair.check.that(matches!(read, Some(Poll::Ready(Err(_)))), || {
            format!("{read:?} of a stream whose sender was dropped")
        })?;
        pair.release(ids);
        pair.now += Duration::from_secs(2);
        // Everything is dropped that was finished, but not read.
        let ids = pair.stream(1)?;
        for of in [0, 1] {
            pair.write(of, ids[of], b"unread")?;
            let finished = pair.core(of).finish(ids[of]);
            pair.check.ok("finishing", finished)?;
        }
        pair.pump()?;
        pair.release(ids);
        pair.nothing_is_left()
    }

    /// Opening waits sooner or later for a peer that says nothing, and goes on when it does.
    fn too_many_streams(&self) -> Result<(), Violation> {
        let mut pair = self.pair(Check("too many streams"));
        let mut opened = Vec::new();
        while let Poll::Ready(result) = pair.core(0).open() {
            opened.push(pair.check.ok("opening", result)?);
            pair.take_events(0);
            pair.check.that(opened.len() < STREAMS, || {
                format!("{STREAMS} streams that the peer has not heard of")
            })?;
        }
        pair.take_events(0);
        let first = *opened.first().ok_or_else(|| pair.check.seen("no stream can be opened"))?;
        let count = pair.core(0).stream_count();
        pair.check.that(count == opened.len(), || {
            format!("{count} streams are counted of {}", opened.len())
        })?;
        for id in opened {
            pair.core(0).reset(id, ErrorCode::NONE);
            pair.core(0).release_send(id);
            pair.core(0).release_recv(id);
            pair.take_events(0);
        }
        pair.pump()?;
        pair.now += Duration::from_secs(60);
        let now = pair.now;
        let handled = pair.core(0).handle_timeout(now);
        pair.take_events(0);
        pair.check.ok("a timeout", handled)?;
        pair.pump()?;
        let told = pair.side(0).told(MuxEvent::Openable);
        pair.check.that(told, || "an `open` that waited is not told of room".into())?;
        let next = pair.open(0)?;
        pair.check.that(next != first, || format!("{next:?} is given twice"))
    }

    /// After `refuse_inbound` the peer's streams are ended, and its others go on.
    fn refused_streams(&self) -> Result<(), Violation> {
        let mut pair = self.pair(Check("refused streams"));
        let before = pair.stream(0)?;
        pair.core(1).refuse_inbound();
        pair.take_events(1);
        let late = pair.open(0)?;
        pair.write(0, late, b"x")?;
        pair.pump()?;
        let accepted = pair.core(1).accept();
        pair.check.that(accepted.is_none(), || "a stream is accepted after all".into())?;
        let stopped = pair.core(0).stopped(late);
        pair.check
            .that(stopped.is_ready(), || "the opener of a refused stream hears nothing".into())?;
        pair.echo(before)
    }

    /// The end of the link is an error for every stream whose end had not come; what came before
    /// can be read.
    fn end_of_the_link(&self) -> Result<(), Violation> {
        let mut pair = self.pair(Check("end of the link"));
        let cut = pair.stream(0)?;
        pair.now += Duration::from_secs(2);
        let whole = pair.stream(0)?;
        for ids in [cut, whole] {
            pair.write(0, ids[0], b"before")?;
        }
        let finished = pair.core(0).finish(whole[0]);
        pair.check.ok("finishing", finished)?;
        pair.pump()?;
        let error = StreamError::Connection(p2p_core::ConnectionError::Truncated);
        for of in [0, 1] {
            pair.core(of).handle_end(&error);
            pair.take_events(of);
            let left = pair.core(of).has_transmit();
            pair.check
                .that(!left, || "there is something to send on a link that has ended".into())?;
        }
        for (ids, good) in [(cut, false), (whole, true)] {
            let mut heard = Vec::new();
            let end = loop {
                let read = pair.core(1).read(ids[1], 100);
                let Poll::Ready(Ok(Some(chunk))) = read else { break read };
                heard.extend_from_slice(&chunk);
            };
            pair.check.that(heard == b"before", || difference(b"before", &heard))?;
            let right = if good {
                matches!(end, Poll::Ready(Ok(None)))
            } else {
                matches!(end, Poll::Ready(Err(_)))
            };
            pair.check.that(right, || format!("{end:?} after a link's end"))?;
        }
        pair.release(cut);
        pair.release(whole);
        let counts = pair.sides.each_ref().map(|side| side.core.stream_count());
        pair.check.that(counts == [0, 0], || format!("{counts:?} streams outlive their link"))
    }

    /// `close` sends what was finished, resets the rest, and comes to an end.
    fn close(&self) -> Result<(), Violation> {
        let mut pair = self.pair(Check("close"));
        let cut = pair.stream(0)?;
        pair.now += Duration::from_secs(2);
        let whole = pair.stream(0)?;
        for ids in [cut, whole] {
            pair.write(0, ids[0], b"before")?;
        }
        let finished = pair.core(0).finish(whole[0]);
        pair.check.ok("finishing", finished)?;
        pair.core(0).close(ErrorCode::NONE);
        pair.take_events(0);
        pair.pump()?;
        let closed = pair.core(0).is_closed();
        pair.check.that(closed, || {
            "a session that was closed and has nothing to send is not closed".into()
        })?;
        let heard = pair.read_all(1, whole[1])?;
        pair.check.that(heard == b"before", || difference(b"before", &heard))?;
        pair.core(1).handle_end(&StreamError::Connection(p2p_core::ConnectionError::Truncated));
        pair.take_events(1);
        let read = std::iter::repeat_with(|| pair.core(1).read(cut[1], 100))
            .find(|chunk| !matches!(chunk, Poll::Ready(Ok(Some(_)))));
        pair.check.that(matches!(read, Some(Poll::Ready(Err(_)))), || {
            format!("{read:?} of a stream that was not finished when its connection was closed")
        })
    }

    /// Commands on streams that are gone do nothing, or fail.
    fn streams_that_are_gone(&self) -> Result<(), Violation> {
        let mut pair = self.pair(Check("streams that are gone"));
        let ids = pair.stream(0)?;
        pair.now += Duration::from_secs(2);
        let other = pair.stream(0)?;
        pair.core(0).reset(ids[0], ErrorCode::NONE);
        pair.pump()?;
        pair.release(ids);
        pair.pump()?;
        for (of, id) in ids.into_iter().enumerate() {
            let core = pair.core(of);
            core.reset(id, ErrorCode::NONE);
            core.stop(id, ErrorCode::NONE);
            core.release_send(id);
            core.release_recv(id);
            let results = [
                matches!(core.read(id, 1), Poll::Ready(Err(_))),
                matches!(core.write(id, &mut Bytes::from_static(b"x")), Poll::Ready(Err(_))),
                matches!(core.write_slice(id, b"x"), Poll::Ready(Err(_))),
                core.finish(id).is_err(),
                core.stopped(id).is_ready(),
            ];
            pair.take_events(of);
            pair.check.that(results == [true; 5], || {
                format!("read, write, write_slice, finish, stopped of a stream that is gone fail: {results:?}")
            })?;
        }
        pair.echo(other)
    }

    /// Garbage ends the session by an error, or means something; it does not panic.
    fn garbage(&self) -> Result<(), Violation> {
        let check = Check("garbage");
        let noise = pattern(1 << 16);
        let mut refused = 0;
        for (number, piece) in noise.chunks(64).enumerate() {
            let role = if number % 2 == 0 { Role::Initiator } else { Role::Responder };
            let now = Instant::now();
            let mut core = self.muxer.start(role, now);
            if core.handle_data(Bytes::copy_from_slice(piece), now).is_err() {
                refused += 1;
                // The last word is given out once.
                for _ in 0..2 {
                    core.poll_transmit(0, &mut Gather::new(), now);
                }
                let more = core.has_transmit();
                check.that(!more, || {
                    "there is something to send after a violation and its last word".into()
                })?;
            }
        }
        check.that(refused > 0, || "nothing is refused of a thousand pieces of garbage".into())
    }

    /// A timeout that is handled when it is due is not due any more.
    fn timers(&self) -> Result<(), Violation> {
        let mut pair = self.pair(Check("timers"));
        let ids = pair.stream(0)?;
        pair.release(ids);
        let begun = pair.now;
        for _ in 0..TIMEOUTS {
            let Some(due) = pair.core(0).poll_timeout() else { return Ok(()) };
            pair.now = pair.now.max(due);
            let now = pair.now;
            for of in [0, 1] {
                let handled = pair.core(of).handle_timeout(now);
                pair.take_events(of);
                pair.check.ok("a timeout, with a peer that answers", handled)?;
            }
            pair.pump()?;
        }
        pair.check.that(pair.now > begun + Duration::from_secs(1), || {
            format!("{TIMEOUTS} timeouts take {:?}", pair.now - begun)
        })
    }
}
