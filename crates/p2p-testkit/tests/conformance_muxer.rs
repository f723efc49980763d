//! That each check of the muxer suite can fail: a yamux with one flaw for each.

use std::{collections::VecDeque, task::Poll, time::Instant};

use bytes::Bytes;
use p2p_core::{
    ErrorCode, Gather, MuxCore, MuxError, MuxEvent, Muxer, ProtocolId, Role, StreamError, StreamId,
};
use p2p_mux::Yamux;
use p2p_testkit::conformance;

/// What is wrong with a multiplexer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    TellsNobodyOfStreams,
    WantsWholeFrames,
    TellsNoReader,
    NeverEnds,
    LosesTheRestOfAWrite,
    ReadsAhead,
    StopsWithOneStream,
    TellsNobodyOfResets,
    KeepsDroppedStreams,
    DroppedLooksComplete,
    OpensWithoutEnd,
    AcceptsWhatIsRefused,
    CutLooksComplete,
    NeverCloses,
    ForgetsToFailOnGoneStreams,
    TakesGarbage,
    IsAlwaysDue,
    ClaimsToHaveFrames,
}

struct Flawed(Flaw);

impl Muxer for Flawed {
    fn protocol(&self) -> ProtocolId {
        Yamux::default().protocol()
    }

    fn start(&self, role: Role, now: Instant) -> Box<dyn MuxCore> {
        let core = Yamux::default().start(role, now);
        Box::new(FlawedCore {
            core,
            flaw: self.0,
            now,
            accepted: Vec::new(),
            ahead: VecDeque::new(),
            waits: 0,
            next: 1 << 20,
        })
    }
}

struct FlawedCore {
    core: Box<dyn MuxCore>,
    flaw: Flaw,
    now: Instant,
    accepted: Vec<StreamId>,
    /// What was taken from the core before anybody has asked for it.
    ahead: VecDeque<(StreamId, Bytes)>,
    /// Writers that wait.
    waits: usize,
    next: u64,
}

impl FlawedCore {
    fn is(&self, flaw: Flaw) -> bool {
        self.flaw == flaw
    }

    fn stops(&self) -> bool {
        self.is(Flaw::StopsWithOneStream) && self.waits > 0 && self.core.stream_count() > 1
    }
}

impl MuxCore for FlawedCore {
    fn handle_data(&mut self, plain: Bytes, now: Instant) -> Result<(), MuxError> {
        if self.is(Flaw::WantsWholeFrames) && plain.len() < 12 {
            return Err(MuxError::Version(7));
        }
        let handled = self.core.handle_data(plain, now);
        for id in self.accepted.iter().filter(|_| self.flaw == Flaw::ReadsAhead) {
            while let Poll::Ready(Ok(Some(chunk))) = self.core.read(*id, 10_000) {
                self.ahead.push_back((*id, chunk));
            }
        }
        if self.is(Flaw::TakesGarbage) { Ok(()) } else { handled }
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), MuxError> {
        self.core.handle_timeout(now)
    }

    fn handle_end(&mut self, error: &StreamError) {
        self.core.handle_end(error);
    }

    fn has_transmit(&self) -> bool {
        !self.stops() && self.core.has_transmit() || self.is(Flaw::ClaimsToHaveFrames)
    }

    fn poll_transmit(&mut self, budget: usize, frames: &mut Gather, now: Instant) {
        if self.stops() {
            return;
        }
        self.core.poll_transmit(budget, frames, now);
    }

    fn poll_event(&mut self) -> Option<MuxEvent> {
        loop {
            let event = self.core.poll_event()?;
            match (event, self.flaw) {
                (MuxEvent::Acceptable, Flaw::TellsNobodyOfStreams)
                | (MuxEvent::Readable(_), Flaw::TellsNoReader)
                | (MuxEvent::Ended(_), Flaw::TellsNobodyOfResets) => {}
                _ => return Some(event),
            }
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if self.is(Flaw::IsAlwaysDue) { Some(self.now) } else { self.core.poll_timeout() }
    }

    fn open(&mut self) -> Poll<Result<StreamId, MuxError>> {
        let opened = self.core.open();
        if self.is(Flaw::OpensWithoutEnd) && opened.is_pending() {
            self.next += 1;
            return Poll::Ready(Ok(StreamId::new(self.next)));
        }
        opened
    }

    fn accept(&mut self) -> Option<StreamId> {
        let accepted = self.core.accept();
        self.accepted.extend(accepted);
        accepted
    }

    fn refuse_inbound(&mut self) {
        if !self.is(Flaw::AcceptsWhatIsRefused) {
            self.core.refuse_inbound();
        }
    }

    fn write(&mut self, id: StreamId, data: &mut Bytes) -> Poll<Result<(), StreamError>> {
        let written = self.core.write(id, data);
        match (&written, self.flaw) {
            (Poll::Ready(Ok(())), Flaw::LosesTheRestOfAWrite) => data.clear(),
            (Poll::Pending, _) => self.waits += 1,
            _ => {}
        }
        written
    }

    fn write_slice(&mut self, id: StreamId, data: &[u8]) -> Poll<Result<usize, StreamError>> {
        self.core.write_slice(id, data)
    }

    fn read(&mut self, id: StreamId, max: usize) -> Poll<Result<Option<Bytes>, StreamError>> {
        if let Some(at) = self.ahead.iter().position(|(of, _)| *of == id) {
            return Poll::Ready(Ok(self.ahead.remove(at).map(|(_, chunk)| chunk)));
        }
        let read = self.core.read(id, max);
        match (&read, self.flaw) {
            (Poll::Ready(Ok(None)), Flaw::NeverEnds) => Poll::Pending,
            (Poll::Ready(Err(StreamError::Reset(_))), Flaw::DroppedLooksComplete)
            | (Poll::Ready(Err(StreamError::Connection(_))), Flaw::CutLooksComplete) => {
                Poll::Ready(Ok(None))
            }
            _ => read,
        }
    }

    fn finish(&mut self, id: StreamId) -> Result<(), StreamError> {
        let finished = self.core.finish(id);
        if self.is(Flaw::ForgetsToFailOnGoneStreams) { Ok(()) } else { finished }
    }

    fn reset(&mut self, id: StreamId, code: ErrorCode) {
        self.core.reset(id, code);
    }

    fn stop(&mut self, id: StreamId, code: ErrorCode) {
        self.core.stop(id, code);
    }

    fn stopped(&mut self, id: StreamId) -> Poll<StreamError> {
        self.core.stopped(id)
    }

    fn release_send(&mut self, id: StreamId) {
        if !self.is(Flaw::KeepsDroppedStreams) {
            self.core.release_send(id);
        }
    }

    fn release_recv(&mut self, id: StreamId) {
        self.core.release_recv(id);
    }

    fn close(&mut self, code: ErrorCode) {
        self.core.close(code);
    }

    fn is_closed(&self) -> bool {
        self.core.is_closed() && !self.is(Flaw::NeverCloses)
    }

    fn goodbye(&self) -> Option<ErrorCode> {
        self.core.goodbye()
    }

    fn stream_count(&self) -> usize {
        self.core.stream_count()
    }
}

#[tokio::test(start_paused = true)]
async fn each_check_of_a_muxer_finds_its_flaw() {
    assert_eq!(conformance::muxer(&Flawed(Flaw::None)).await.err(), None);
    for (flaw, check) in [
        (Flaw::TellsNobodyOfStreams, "open and accept"),
        (Flaw::ClaimsToHaveFrames, "open and accept"),
        (Flaw::WantsWholeFrames, "data"),
        (Flaw::TellsNoReader, "data"),
        (Flaw::NeverEnds, "half-close"),
        (Flaw::LosesTheRestOfAWrite, "write leaves the rest"),
        (Flaw::ReadsAhead, "unread data"),
        (Flaw::StopsWithOneStream, "stalled stream"),
        (Flaw::TellsNobodyOfResets, "resets"),
        (Flaw::DroppedLooksComplete, "resets"),
        (Flaw::KeepsDroppedStreams, "half-close"),
        (Flaw::OpensWithoutEnd, "too many streams"),
        (Flaw::AcceptsWhatIsRefused, "refused streams"),
        (Flaw::CutLooksComplete, "end of the link"),
        (Flaw::NeverCloses, "close"),
        (Flaw::ForgetsToFailOnGoneStreams, "streams that are gone"),
        (Flaw::TakesGarbage, "garbage"),
        (Flaw::IsAlwaysDue, "timers"),
    ] {
        let violation = conformance::muxer(&Flawed(flaw)).await.err();
        let found = violation.as_ref().map(conformance::Violation::check);
        assert_eq!(found, Some(check), "{flaw:?}: {violation:?}");
    }
}
