//! The session: every stream of one connection, and what is due to be sent.
//!
//! Input is in `incoming`, output in `transmit`; here is what they share, and the application's
//! commands.

#[cfg(test)]
mod counters;
mod incoming;
mod transmit;

use std::{
    collections::{HashMap, VecDeque},
    task::Poll,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
#[cfg(test)]
pub(in crate::mplex) use counters::Counters;
use incoming::Incoming;
use p2p_core::{ErrorCode, Gather, MuxCore, MuxError, MuxEvent, ProtocolId, StreamError, StreamId};

use super::{
    Config,
    frame::{is_inbound, stream_id},
    stream::{RecvPhase, SendPhase, StreamState},
};
use crate::{
    budget::Budget,
    ids::IdHashes,
    lingering::{Lingering, prune},
    received::Received,
    unsent,
};

/// Inbound streams that nobody has accepted; one more is reset.
const UNACCEPTED_MAX: usize = 256;
/// The time in which no more streams are opened than `opens_per_second_max`: a second as the peer
/// measures it, and what the network may have shortened it by.
const OPENS_WINDOW: Duration = Duration::from_millis(1250);
/// The largest stream number that is used: js-libp2p cannot read larger ones (trap 3).
const NUMBER_MAX: u64 = (1 << 28) - 1;
/// Resets that the peer sends or causes: so many at once, and `RESETS_PER_SECOND` over time.
const RESETS_MAX: u32 = 1000;
const RESETS_PER_SECOND: u32 = 100;
/// Frames for streams that are gone, which are ignored: so many at once, and
/// `STRAYS_PER_SECOND` over time. A sender in full flight has sent some ten thousand before it
/// hears of a reset.
const STRAYS_MAX: u32 = 65_536;
const STRAYS_PER_SECOND: u32 = 1000;

#[derive(Debug)]
pub(super) struct Session {
    config: Config,
    now: Instant,
    phase: Phase,
    incoming: Incoming,
    streams: HashMap<StreamId, StreamState, IdHashes>,
    next_number: u64,
    inbound: usize,
    outbound: usize,
    /// Memory that received data occupy, over all streams, in bytes.
    held: usize,
    /// What comes in must not be kept by reference.
    lent: bool,
    /// Bytes queued for sending, over all streams.
    queued: usize,
    /// Streams that nobody has accepted yet.
    unaccepted: VecDeque<StreamId>,
    refuse_inbound: bool,
    open_blocked: bool,
    /// Own streams that the peer has not heard of.
    opens_due: usize,
    /// When the latest streams were opened, as far as `OPENS_WINDOW` goes back.
    opens: VecDeque<Instant>,

    refusals: VecDeque<StreamId>,
    control: VecDeque<StreamId>,
    ready: VecDeque<StreamId>,
    lingering: Lingering<StreamId>,
    headers: BytesMut,
    events: VecDeque<MuxEvent>,

    resets: Budget,
    strays: Budget,
    empty_frames: u32,
}

/// How far the end of the session is. The wire knows no goodbye (MPLEX-14).
///
/// ```text
///  Open ──close──► Closing ──all was sent──► Closed
///    └──────┴─── violation, end of the pipe ───┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// In full operation.
    Open,
    /// Sends what is queued.
    Closing,
    /// Nothing is sent any more, and what comes in means nothing.
    Closed,
}

impl Session {
    pub(super) fn new(config: Config, now: Instant) -> Self {
        Self {
            config,
            now,
            phase: Phase::Open,
            incoming: Incoming::next_header(),
            streams: HashMap::default(),
            next_number: 0,
            inbound: 0,
            outbound: 0,
            held: 0,
            lent: false,
            queued: 0,
            unaccepted: VecDeque::new(),
            refuse_inbound: false,
            open_blocked: false,
            opens_due: 0,
            opens: VecDeque::new(),
            refusals: VecDeque::new(),
            control: VecDeque::new(),
            ready: VecDeque::new(),
            lingering: Lingering::new(),
            headers: BytesMut::new(),
            events: VecDeque::new(),
            resets: Budget::new(RESETS_MAX, RESETS_PER_SECOND, now),
            strays: Budget::new(STRAYS_MAX, STRAYS_PER_SECOND, now),
            empty_frames: 0,
        }
    }

    /// Ends a stream early, on this side only. What has arrived stays readable.
    fn abandon_stream(&mut self, id: StreamId, error: StreamError) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        self.queued -= stream.send.unsent.len();
        self.opens_due -= usize::from(stream.open_due);
        stream.abandon(error);
        self.events.push_back(MuxEvent::Ended(id));
        self.tell_openers();
    }

    /// The same, and drops what has arrived, unless it is complete.
    fn kill_stream(&mut self, id: StreamId, error: StreamError) {
        self.abandon_stream(id, error);
        if self.streams.get(&id).is_some_and(|s| s.recv.phase != RecvPhase::Ended) {
            self.drop_received(id);
        }
    }

    fn drop_received(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        self.held -= stream.recv.received.held();
        stream.recv.received = Received::default();
    }

    /// Has the peer told that the stream is reset, unless it has never heard of it, or has
    /// nothing to do with it any more.
    fn schedule_reset(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.error.is_none() && !stream.open_due && !stream.is_complete() {
            stream.reset_due = true;
            self.schedule_control(id);
        }
    }

    /// Ends a stream early on both sides.
    fn reset_stream(&mut self, id: StreamId, code: ErrorCode) {
        if self.streams.get(&id).is_some_and(|s| s.error.is_none()) {
            self.schedule_reset(id);
            self.kill_stream(id, StreamError::ResetLocally(code));
            self.forget_if_over(id);
        }
    }

    fn forget_if_over(&mut self, id: StreamId) {
        if !self.streams.get(&id).is_some_and(StreamState::is_over) {
            return;
        }
        self.drop_received(id);
        self.streams.remove(&id);
        if is_inbound(id) {
            self.inbound -= 1;
            self.unaccepted.retain(|waiting| *waiting != id);
        } else {
            self.outbound -= 1;
        }
        self.tell_openers();
    }

    fn tell_reader(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id)
            && std::mem::take(&mut stream.recv.blocked)
        {
            self.events.push_back(MuxEvent::Readable(id));
        }
    }

    fn tell_openers(&mut self) {
        if self.open_blocked && self.may_open() {
            self.open_blocked = false;
            self.events.push_back(MuxEvent::Openable);
        }
    }

    fn may_open(&self) -> bool {
        self.outbound < self.config.streams_outbound_max
            && self.opens_due + self.opens.len() < self.config.opens_per_second_max
    }

    fn schedule_control(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !stream.in_control
        {
            stream.in_control = true;
            self.control.push_back(id);
            prune(&mut self.control, &self.streams, |id| *id);
        }
    }

    fn schedule_data(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !stream.in_ready
        {
            stream.in_ready = true;
            self.ready.push_back(id);
            prune(&mut self.ready, &self.streams, |id| *id);
        }
    }

    /// The room for `len` more bytes, or what a writer gets instead.
    fn writable(&mut self, id: StreamId, len: usize) -> Poll<Result<usize, StreamError>> {
        let Some(stream) = self.streams.get_mut(&id) else {
            return Poll::Ready(Err(StreamError::ResetLocally(ErrorCode::NONE)));
        };
        if let Some(error) = &stream.error {
            return Poll::Ready(Err(error.clone()));
        }
        if stream.send.phase != SendPhase::Open {
            return Poll::Ready(Err(StreamError::Finished));
        }
        let room = unsent::room(stream.send.unsent.len(), self.queued).min(len);
        if room == 0 && len > 0 {
            stream.send.blocked = true;
            return Poll::Pending;
        }
        Poll::Ready(Ok(room))
    }

    /// Notes the time, for what is to begin or to end with it.
    fn look_at_clock(&mut self, now: Instant) {
        self.now = now;
        while self.opens.front().is_some_and(|at| *at + OPENS_WINDOW <= now) {
            self.opens.pop_front();
        }
        self.tell_openers();
        self.lingering.look_at_clock(now, &self.streams);
    }

    /// Both halves of this side are done, and the peer's end is still to come.
    fn linger(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get(&id)
            && !stream.send_held
            && !stream.recv_held
            && stream.error.is_none()
        {
            self.lingering.begin(id);
        }
    }

    /// Forgets a stream that was done on this side long ago. Without a reset: the peer may still
    /// be about to read what it was sent.
    fn end_lingering(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.send_held || stream.recv_held {
            return;
        }
        if stream.send.phase == SendPhase::Finishing {
            self.lingering.begin(id);
            return;
        }
        stream.recv.phase = RecvPhase::Ended;
        self.forget_if_over(id);
    }

    /// The streams' ids in an order that does not depend on the map's.
    fn ids(&self, which: impl Fn(&StreamState) -> bool) -> Vec<StreamId> {
        let chosen = self.streams.iter().filter(|(_, stream)| which(stream));
        let mut ids: Vec<StreamId> = chosen.map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids
    }
}

impl MuxCore for Session {
    fn handle_data(&mut self, mut plain: Bytes, now: Instant) -> Result<(), MuxError> {
        self.look_at_clock(now);
        while !plain.is_empty() && self.phase != Phase::Closed {
            if let Err(error) = self.handle_piece(&mut plain) {
                self.phase = Phase::Closed;
                return Err(error);
            }
        }
        Ok(())
    }

    fn handle_lent(&mut self, plain: Bytes, now: Instant) -> Result<(), MuxError> {
        self.lent = true;
        let handled = self.handle_data(plain, now);
        self.lent = false;
        handled
    }

    fn handle_idle(&mut self) {
        for stream in self.streams.values_mut() {
            let held = stream.recv.received.held();
            stream.recv.received.copy_referenced();
            self.held = self.held - held + stream.recv.received.held();
        }
        self.streams.shrink_to_fit();
        if self.headers.is_empty() {
            self.headers = BytesMut::new();
        }
        for ids in [&mut self.unaccepted, &mut self.refusals, &mut self.control, &mut self.ready] {
            ids.shrink_to_fit();
        }
        self.opens.shrink_to_fit();
        self.lingering.shrink_to_fit();
        self.events.shrink_to_fit();
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), MuxError> {
        self.look_at_clock(now);
        while let Some(id) = self.lingering.pop_due(now) {
            self.end_lingering(id);
        }
        Ok(())
    }

    fn handle_end(&mut self, error: &StreamError) {
        self.phase = Phase::Closed;
        for id in self.ids(|_| true) {
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.reset_due = false;
            }
            self.abandon_stream(id, error.clone());
            self.forget_if_over(id);
        }
        self.events.push_back(MuxEvent::Openable);
    }

    fn has_transmit(&self) -> bool {
        match self.phase {
            Phase::Closed => false,
            Phase::Closing => true,
            Phase::Open => {
                !self.control.is_empty() || !self.ready.is_empty() || !self.refusals.is_empty()
            }
        }
    }

    fn poll_transmit(&mut self, budget: usize, frames: &mut Gather, now: Instant) {
        self.look_at_clock(now);
        if self.phase != Phase::Closed {
            self.transmit(budget, frames);
        }
    }

    fn poll_event(&mut self) -> Option<MuxEvent> {
        self.events.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if self.phase == Phase::Closed {
            return None;
        }
        let linger = self.lingering.poll_timeout(self.now);
        let opens = self.opens.front().filter(|_| self.open_blocked).map(|at| *at + OPENS_WINDOW);
        [linger, opens].into_iter().flatten().min()
    }

    fn open(&mut self) -> Poll<Result<StreamId, MuxError>> {
        if self.next_number > NUMBER_MAX {
            return Poll::Ready(Err(MuxError::IdsExhausted));
        }
        if !self.may_open() || self.phase != Phase::Open {
            self.open_blocked = true;
            return Poll::Pending;
        }
        let id = stream_id(self.next_number, false);
        self.next_number += 1;
        self.streams.insert(id, StreamState::new(false));
        self.outbound += 1;
        self.opens_due += 1;
        self.schedule_control(id);
        Poll::Ready(Ok(id))
    }

    fn accept(&mut self) -> Option<StreamId> {
        let id = self.unaccepted.pop_front()?;
        self.streams.get_mut(&id)?.accepted = true;
        Some(id)
    }

    fn refuse_inbound(&mut self) {
        self.refuse_inbound = true;
        while let Some(id) = self.unaccepted.pop_front() {
            self.reset_stream(id, ErrorCode::NONE);
            self.release_send(id);
            self.release_recv(id);
        }
    }

    fn write(&mut self, id: StreamId, data: &mut Bytes) -> Poll<Result<(), StreamError>> {
        let room = std::task::ready!(self.writable(id, data.len()))?;
        if let Some(stream) = self.streams.get_mut(&id).filter(|_| room > 0) {
            stream.send.unsent.push(data.split_to(room));
            self.queued += room;
            self.schedule_data(id);
        }
        Poll::Ready(Ok(()))
    }

    fn write_slice(&mut self, id: StreamId, data: &[u8]) -> Poll<Result<usize, StreamError>> {
        let room = std::task::ready!(self.writable(id, data.len()))?;
        if let Some(stream) = self.streams.get_mut(&id).filter(|_| room > 0) {
            stream.send.unsent.push_slice(data.get(..room).unwrap_or(data));
            self.queued += room;
            self.schedule_data(id);
        }
        Poll::Ready(Ok(room))
    }

    fn read(&mut self, id: StreamId, max: usize) -> Poll<Result<Option<Bytes>, StreamError>> {
        let Some(stream) = self.streams.get_mut(&id) else {
            return Poll::Ready(Err(StreamError::ResetLocally(ErrorCode::NONE)));
        };
        let held = stream.recv.received.held();
        if let Some(chunk) = stream.recv.received.take(max) {
            self.held = self.held - held + stream.recv.received.held();
            return Poll::Ready(Ok(Some(chunk)));
        }
        if let Some(code) = stream.recv.given_up {
            return Poll::Ready(Err(StreamError::ResetLocally(code)));
        }
        match (stream.recv.phase, &stream.error) {
            (RecvPhase::Ended, _) => Poll::Ready(Ok(None)),
            (RecvPhase::Open | RecvPhase::Stopped, Some(error)) => Poll::Ready(Err(error.clone())),
            (RecvPhase::Open | RecvPhase::Stopped, None) => {
                stream.recv.blocked = true;
                Poll::Pending
            }
        }
    }

    fn finish(&mut self, id: StreamId) -> Result<(), StreamError> {
        let gone = StreamError::ResetLocally(ErrorCode::NONE);
        let Some(stream) = self.streams.get_mut(&id) else { return Err(gone) };
        match stream.send.phase {
            SendPhase::Open => {
                stream.send.phase = SendPhase::Finishing;
                self.schedule_data(id);
                Ok(())
            }
            SendPhase::Finishing | SendPhase::Finished => Ok(()),
            SendPhase::Dead => Err(stream.error.clone().unwrap_or(gone)),
        }
    }

    fn reset(&mut self, id: StreamId, code: ErrorCode) {
        self.reset_stream(id, code);
    }

    /// The protocol has no word for it but the reset, which would end the other direction too:
    /// what still comes is dropped, up to a bound.
    fn stop(&mut self, id: StreamId, code: ErrorCode) {
        let Some(stream) = self.streams.get_mut(&id).filter(|s| s.recv.is_owed()) else { return };
        stream.recv.given_up.get_or_insert(code);
        if stream.recv.phase == RecvPhase::Open {
            stream.recv.phase = RecvPhase::Stopped;
        }
        self.drop_received(id);
    }

    fn stopped(&mut self, id: StreamId) -> Poll<StreamError> {
        match self.streams.get(&id) {
            None => Poll::Ready(StreamError::ResetLocally(ErrorCode::NONE)),
            Some(stream) => stream.error.clone().map_or(Poll::Pending, Poll::Ready),
        }
    }

    fn release_send(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.send_held = false;
        if stream.send.phase == SendPhase::Open {
            self.reset_stream(id, ErrorCode::NONE);
        }
        self.forget_if_over(id);
        self.linger(id);
    }

    fn release_recv(&mut self, id: StreamId) {
        self.stop(id, ErrorCode::NONE);
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.recv_held = false;
        self.forget_if_over(id);
        self.linger(id);
    }

    /// All that can be said is which streams are not complete; the end of the pipe is the goodbye.
    fn close(&mut self, _code: ErrorCode) {
        if self.phase != Phase::Open {
            return;
        }
        self.refuse_inbound();
        for id in self.ids(|stream| stream.send.phase == SendPhase::Open) {
            self.reset_stream(id, ErrorCode::NONE);
        }
        self.phase = Phase::Closing;
    }

    fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    fn goodbye(&self) -> Option<ErrorCode> {
        None
    }

    fn stream_count(&self) -> usize {
        self.streams.len()
    }

    fn buffered(&self) -> usize {
        self.queued.saturating_add(self.held)
    }

    fn set_protocol(&mut self, id: StreamId, protocol: &ProtocolId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.protocol = Some(protocol.clone());
        }
    }

    fn buffered_by_protocol(&self, each: &mut dyn FnMut(Option<&ProtocolId>, usize)) {
        for stream in self.streams.values() {
            let bytes = stream.send.unsent.len().saturating_add(stream.recv.received.held());
            each(stream.protocol.as_ref(), bytes);
        }
    }
}
