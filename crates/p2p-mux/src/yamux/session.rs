//! The session: every stream of one connection, and what is due to be sent.
//!
//! Input is in `incoming`, output in `transmit`; here is what they share, and the application's
//! commands.

#[cfg(test)]
mod counters;
mod incoming;
mod line;
mod transmit;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use bytes::{BufMut, Bytes, BytesMut};
#[cfg(test)]
pub(in crate::yamux) use counters::Counters;
use incoming::{Incoming, RESETS_MAX, RESETS_PER_SECOND};
use line::Line;
use p2p_core::{
    ErrorCode, Gather, MuxCore, MuxError, MuxEvent, ProtocolId, Role, StreamError, StreamId,
};
use transmit::BODY_LEN_MAX;

use super::{
    Config,
    held::Spares,
    names::Names,
    stream::{Chunk, Opening, RecvPhase, RecvSide, SendPhase, SendSide, StreamState},
    windows::{HostWindows, Windows},
};
use crate::{
    blocks::Blocks,
    budget::Budget,
    ids::IdHashes,
    lingering::{Lingering, pop_due, prune},
};

/// Go-away codes (YAMUX-37); 0 is a normal end.
const GO_AWAY_PROTOCOL_ERROR: u32 = 1;
const GO_AWAY_INTERNAL_ERROR: u32 = 2;
/// What one stream may have queued, in bytes: what two whole Noise records carry. A rest of a few
/// bytes would be a record, and a system call, of its own.
const SEND_BUFFER_MAX: usize = 2 * BODY_LEN_MAX;
/// What all streams of the connection may have queued, in bytes, before each is held to
/// `SEND_BUFFER_MIN`.
const SEND_BUFFERS_MAX: usize = 256 << 10;
/// What every stream may queue however much the others have queued, in bytes.
const SEND_BUFFER_MIN: usize = 4 << 10;
/// A stream that becomes active with at least so many bytes sends in bulk: many of them that are
/// filled again whenever they are empty would hold up one that says a little.
const BULK_LEN_MIN: usize = SEND_BUFFER_MIN;
/// Slices of at least this many bytes are copied to blocks that are used again.
const BLOCK_LEN_MIN: usize = 32 << 10;
/// The largest of those blocks, in bytes.
const BLOCK_LEN_MAX: usize = 64 << 10;
/// Blocks that are kept for later, until the next ping that finds nothing queued.
const BLOCKS_MAX: usize = 2;
/// Own streams that the peer has not acknowledged; opening waits beyond (YAMUX-42).
const UNACKNOWLEDGED_MAX: usize = 256;
/// Inbound streams that nobody has accepted; one more is reset (YAMUX-43).
const UNACCEPTED_MAX: usize = 256;
/// How often the round trip is measured again while credit is given.
const MEASURE_INTERVAL: Duration = Duration::from_secs(1);
/// Intervals of silence after a ping that mean that the peer is gone.
const PINGS_MISSED_MAX: u32 = 2;
/// The last id of either parity is near 2^32; ids stop well before (YAMUX-10).
const ID_MAX: u32 = u32::MAX - 2;

#[derive(Debug)]
pub(super) struct Session {
    config: Config,
    now: Instant,
    incoming: Incoming,
    streams: HashMap<u32, StreamState, IdHashes>,
    names: Names,
    next_id: u32,
    outbound: usize,
    /// Own streams, from their opening on.
    unacknowledged: usize,
    /// What comes in must not be kept by reference.
    lent: bool,
    /// Bytes queued for sending, over all streams.
    queued: usize,
    line: Line,
    windows: Windows,
    /// Streams that nobody has accepted yet.
    unaccepted: VecDeque<u32>,
    refuse_inbound: bool,
    open_blocked: bool,

    pongs: VecDeque<u32>,
    refusals: VecDeque<u32>,
    control: VecDeque<u32>,
    urgent: VecDeque<u32>,
    bulk: VecDeque<u32>,
    /// Urgent frames since the last bulk frame.
    urgent_run: u32,
    /// When ACKs that have found no frame to ride on are sent alone, at the earliest.
    acks: VecDeque<(Instant, u32)>,
    lingering: Lingering<u32>,
    headers: BytesMut,
    stock: Stock,
    /// What received bytes are held in.
    spares: Spares<Chunk>,
    events: VecDeque<MuxEvent>,

    ping: Ping,
    resets: Budget,
    empty_frames: u32,
    goodbye: Goodbye,
}

/// What is written is held in this.
#[derive(Debug)]
struct Stock {
    /// What large slices are copied to.
    blocks: Blocks,
    spares: Spares<Bytes>,
}

/// Our own ping: at most one is under way (YAMUX-34).
#[derive(Debug)]
struct Ping {
    value: u32,
    due: Instant,
    to_send: bool,
    sent_at: Option<Instant>,
    /// When the last answer came.
    answered_at: Option<Instant>,
    /// Intervals in a row in which it was not answered and nothing else came in.
    missed: u32,
    round_trip: Option<Duration>,
}

/// How far the end of the session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goodbye {
    /// In full operation.
    None,
    /// Sends what is queued, then goes away with this code.
    AfterData(u32),
    /// Goes away with this code at once.
    Now(u32),
    /// The last frame was given out.
    Said,
    /// The peer has gone away.
    Heard(ErrorCode),
}

impl Session {
    pub(super) fn new(config: Config, host: Arc<HostWindows>, role: Role, now: Instant) -> Self {
        let ping = Ping {
            value: 0,
            due: now,
            to_send: false,
            sent_at: None,
            answered_at: None,
            missed: 0,
            round_trip: None,
        };
        let windows = Windows::new(host, &config);
        Self {
            config,
            now,
            incoming: Incoming::next_header(),
            streams: HashMap::default(),
            names: Names::default(),
            next_id: match role {
                Role::Initiator => 1,
                Role::Responder => 2,
            },
            outbound: 0,
            unacknowledged: 0,
            lent: false,
            queued: 0,
            line: Line::default(),
            windows,
            unaccepted: VecDeque::new(),
            refuse_inbound: false,
            open_blocked: false,
            pongs: VecDeque::new(),
            refusals: VecDeque::new(),
            control: VecDeque::new(),
            urgent: VecDeque::new(),
            bulk: VecDeque::new(),
            urgent_run: 0,
            acks: VecDeque::new(),
            lingering: Lingering::new(),
            headers: BytesMut::new(),
            stock: Stock { blocks: Blocks::new(BLOCKS_MAX), spares: Spares::default() },
            spares: Spares::default(),
            events: VecDeque::new(),
            ping,
            resets: Budget::new(RESETS_MAX, RESETS_PER_SECOND, now),
            empty_frames: 0,
            goodbye: Goodbye::None,
        }
    }

    /// Ends a stream early, on this side only.
    fn kill_stream(&mut self, id: u32, error: StreamError) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        self.queued -= stream.send.queued();
        self.line.answer(id);
        self.windows.shrink(stream.kill(error));
        self.events.push_back(MuxEvent::Ended(stream_id(id)));
    }

    /// Ends a stream early on both sides. One that the peer has not heard of just goes away.
    fn reset_stream(&mut self, id: u32, code: ErrorCode) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.error.is_some() {
            return;
        }
        let unheard = stream.opening == Opening::SynDue;
        let over =
            stream.send.phase == SendPhase::Finished && stream.recv.phase == RecvPhase::Ended;
        if !unheard && !over {
            stream.reset_due = true;
        }
        self.kill_stream(id, StreamError::ResetLocally(code));
        self.schedule_control(id);
        self.forget_if_over(id);
    }

    fn forget_if_over(&mut self, id: u32) {
        let over = self.streams.get(&id).is_some_and(StreamState::is_over);
        if !over {
            return;
        }
        let Some(mut stream) = self.streams.remove(&id) else { return };
        self.windows.shrink(stream.recv.stop());
        self.names.remove(stream.protocol);
        if matches!(stream.opening, Opening::SynDue | Opening::SynSent) {
            self.unacknowledged -= 1;
        }
        if stream.inbound {
            self.windows.end_inbound();
            self.unaccepted.retain(|waiting| *waiting != id);
        } else {
            self.outbound -= 1;
        }
        if self.streams.is_empty() {
            self.release_spares();
        }
        self.tell_openers();
    }

    /// Gives back what is kept for the next streams.
    fn release_spares(&mut self) {
        self.names.shrink_to_fit();
        self.stock.spares.clear();
        self.spares.clear();
    }

    fn tell_reader(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id)
            && std::mem::take(&mut stream.recv.blocked)
        {
            self.events.push_back(MuxEvent::Readable(stream_id(id)));
        }
    }

    fn tell_openers(&mut self) {
        if self.open_blocked && self.may_open() {
            self.open_blocked = false;
            self.events.push_back(MuxEvent::Openable);
        }
    }

    fn may_open(&self) -> bool {
        self.unacknowledged < UNACKNOWLEDGED_MAX && self.outbound < self.config.streams_outbound_max
    }

    fn schedule_control(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !stream.in_control
        {
            stream.in_control = true;
            self.control.push_back(id);
            prune(&mut self.control, &self.streams, |id| *id);
        }
    }

    fn schedule_data(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !stream.in_ready
        {
            stream.in_ready = true;
            let bulk = stream.send.queued() >= BULK_LEN_MIN;
            let queue = if bulk { &mut self.bulk } else { &mut self.urgent };
            queue.push_back(id);
            prune(queue, &self.streams, |id| *id);
        }
    }

    fn fail(&mut self, error: &MuxError) {
        let ours = matches!(error, MuxError::Flood { .. } | MuxError::KeepAlive(_));
        let code = if ours { GO_AWAY_INTERNAL_ERROR } else { GO_AWAY_PROTOCOL_ERROR };
        if !self.is_closed() {
            self.goodbye = Goodbye::Now(code);
        }
    }

    fn live(&mut self, id: StreamId) -> Option<(u32, &mut StreamState)> {
        let number = u32::try_from(id.value()).ok()?;
        self.streams.get_mut(&number).map(|stream| (number, stream))
    }

    /// Queues as much as there is room for, of `len` bytes, and says how much.
    fn send(
        &mut self,
        id: StreamId,
        len: usize,
        push: impl FnOnce(&mut SendSide, &mut Stock, usize),
    ) -> Poll<Result<usize, StreamError>> {
        let total = self.queued;
        let number = u32::try_from(id.value()).unwrap_or(0);
        let Some(stream) = self.streams.get_mut(&number) else {
            return Poll::Ready(Err(StreamError::ResetLocally(ErrorCode::NONE)));
        };
        if let Some(error) = &stream.error {
            return Poll::Ready(Err(StreamError::clone(error)));
        }
        if stream.send.phase != SendPhase::Open {
            return Poll::Ready(Err(StreamError::Finished));
        }
        let room = stream.send.room(send_buffer_max(total, stream.send.queued())).min(len);
        self.line.answer(number);
        if len == 0 {
            return Poll::Ready(Ok(0));
        }
        if room == 0 {
            self.line_up(number);
            return Poll::Pending;
        }
        stream.send.blocked = false;
        if std::mem::take(&mut stream.send.in_line) {
            self.line.leave(number);
        }
        push(&mut stream.send, &mut self.stock, room);
        let idle = !std::mem::replace(&mut stream.in_ready, true);
        self.queued += room;
        if idle {
            let bulk = stream.send.queued() >= BULK_LEN_MIN;
            let queue = if bulk { &mut self.bulk } else { &mut self.urgent };
            queue.push_back(number);
            prune(queue, &self.streams, |id| *id);
        }
        Poll::Ready(Ok(room))
    }

    /// Hands out received bytes, and gives credit for them. `take` says what it has taken; nothing
    /// where the stream holds nothing.
    fn receive<T>(
        &mut self,
        id: StreamId,
        take: impl FnOnce(&mut RecvSide, &mut Spares<Chunk>) -> Option<T>,
    ) -> Poll<Result<Option<T>, StreamError>> {
        let number = u32::try_from(id.value()).unwrap_or(0);
        let Some(stream) = self.streams.get_mut(&number) else {
            return Poll::Ready(Err(StreamError::ResetLocally(ErrorCode::NONE)));
        };
        if let Some(taken) = take(&mut stream.recv, &mut self.spares) {
            if !stream.recv.update_due && stream.recv.wants_update() && stream.error.is_none() {
                stream.recv.update_due = true;
                self.schedule_control(number);
            }
            return Poll::Ready(Ok(Some(taken)));
        }
        if let Some(code) = stream.recv.given_up {
            return Poll::Ready(Err(StreamError::ResetLocally(code)));
        }
        match (stream.recv.phase, &stream.error) {
            (RecvPhase::Ended, _) => Poll::Ready(Ok(None)),
            (RecvPhase::Open | RecvPhase::Stopped, Some(error)) => {
                Poll::Ready(Err(StreamError::clone(error)))
            }
            (RecvPhase::Stopped | RecvPhase::Open, None) => {
                stream.recv.blocked = true;
                Poll::Pending
            }
        }
    }

    /// Sends a ping, unless one is under way.
    fn ping(&mut self) -> bool {
        let idle = self.ping.sent_at.is_none() && !self.ping.to_send;
        if idle {
            self.ping.value = self.ping.value.wrapping_add(1);
            self.ping.to_send = true;
        }
        idle
    }

    /// Measures the round trip again while data flow: windows are made for it as it is then.
    fn measure(&mut self) {
        let old = |at: Instant| self.now.saturating_duration_since(at) >= MEASURE_INTERVAL;
        if self.ping.answered_at.is_some_and(old) {
            self.ping();
        }
    }

    fn handle_ping_due(&mut self, now: Instant) -> Result<(), MuxError> {
        let keep_alive = self.config.keep_alive;
        self.ping.due = now + keep_alive;
        // One that waits to be taken has not been missed: a peer that takes nothing is the driver's
        // to judge, and one that takes little is alive.
        if self.ping() || self.ping.to_send {
            return Ok(());
        }
        self.ping.missed += 1;
        if self.ping.missed < PINGS_MISSED_MAX {
            return Ok(());
        }
        let error = MuxError::KeepAlive(keep_alive * PINGS_MISSED_MAX);
        self.fail(&error);
        Err(error)
    }

    /// Notes the time, for what is to begin with it.
    fn look_at_clock(&mut self, now: Instant) {
        self.now = now;
        self.lingering.look_at_clock(now, &self.streams);
    }

    /// Both halves of this side are done, and the peer's end is still to come.
    fn linger(&mut self, id: u32) {
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
    fn end_lingering(&mut self, id: u32) {
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

    /// Whether what comes in means nothing any more.
    fn is_deaf(&self) -> bool {
        self.is_closed() || matches!(self.goodbye, Goodbye::Now(_))
    }
}

impl MuxCore for Session {
    fn handle_data(&mut self, mut plain: Bytes, now: Instant) -> Result<(), MuxError> {
        self.look_at_clock(now);
        self.ping.missed = 0;
        while !plain.is_empty() && !self.is_deaf() {
            if let Err(error) = self.handle_piece(&mut plain) {
                self.fail(&error);
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

    fn handle_timeout(&mut self, now: Instant) -> Result<(), MuxError> {
        self.look_at_clock(now);
        while let Some(id) = pop_due(&mut self.acks, now) {
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            stream.ack_overdue = true;
            if stream.opening == Opening::AckDue && stream.accepted {
                self.schedule_control(id);
            }
        }
        while let Some(id) = self.lingering.pop_due(now) {
            self.end_lingering(id);
        }
        self.end_call();
        if self.ping.due <= now {
            if self.queued == 0 {
                self.stock.blocks.clear();
            }
            self.handle_ping_due(now)?;
        }
        Ok(())
    }

    fn handle_idle(&mut self) {
        self.streams.shrink_to_fit();
        self.release_spares();
        for stream in self.streams.values_mut() {
            stream.recv.copy_referenced();
        }
        if self.headers.is_empty() {
            self.headers = BytesMut::new();
        }
        for ids in [
            &mut self.unaccepted,
            &mut self.pongs,
            &mut self.refusals,
            &mut self.control,
            &mut self.urgent,
            &mut self.bulk,
        ] {
            ids.shrink_to_fit();
        }
        self.acks.shrink_to_fit();
        self.lingering.shrink_to_fit();
        self.line.shrink_to_fit();
        self.events.shrink_to_fit();
    }

    fn handle_end(&mut self, error: &StreamError) {
        if !self.is_closed() {
            self.goodbye = Goodbye::Said;
        }
        let mut ids: Vec<u32> = self.streams.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.reset_due = false;
                self.line.answer(id);
                stream.abandon(error.clone());
                self.events.push_back(MuxEvent::Ended(stream_id(id)));
                self.forget_if_over(id);
            }
        }
        self.queued = 0;
        self.events.push_back(MuxEvent::Openable);
    }

    fn has_transmit(&self) -> bool {
        match self.goodbye {
            Goodbye::Said | Goodbye::Heard(_) => return false,
            Goodbye::Now(_) | Goodbye::AfterData(_) => return true,
            Goodbye::None => {}
        }
        !self.control.is_empty()
            || !self.urgent.is_empty()
            || !self.bulk.is_empty()
            || !self.pongs.is_empty()
            || !self.refusals.is_empty()
            || self.ping.to_send
            || self.may_call()
    }

    fn poll_transmit(&mut self, budget: usize, frames: &mut Gather, now: Instant) {
        self.look_at_clock(now);
        if !self.is_closed() {
            self.transmit(budget, frames);
        }
    }

    fn poll_event(&mut self) -> Option<MuxEvent> {
        self.events.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if self.is_closed() {
            return None;
        }
        let ack = self.acks.front().map(|(due, _)| *due);
        let linger = self.lingering.poll_timeout(self.now);
        [Some(self.ping.due), ack, linger, self.line.due()].into_iter().flatten().min()
    }

    fn open(&mut self) -> Poll<Result<StreamId, MuxError>> {
        if self.next_id > ID_MAX {
            return Poll::Ready(Err(MuxError::IdsExhausted));
        }
        if !self.may_open() || self.goodbye != Goodbye::None {
            self.open_blocked = true;
            return Poll::Pending;
        }
        let id = self.next_id;
        self.next_id += 2;
        self.streams.insert(id, StreamState::new(false));
        self.outbound += 1;
        self.unacknowledged += 1;
        self.schedule_control(id);
        Poll::Ready(Ok(stream_id(id)))
    }

    fn accept(&mut self) -> Option<StreamId> {
        let id = self.unaccepted.pop_front()?;
        let stream = self.streams.get_mut(&id)?;
        stream.accepted = true;
        if stream.ack_overdue {
            self.schedule_control(id);
        }
        Some(stream_id(id))
    }

    fn refuse_inbound(&mut self) {
        self.refuse_inbound = true;
        while let Some(id) = self.unaccepted.pop_front() {
            self.reset_stream(id, ErrorCode::NONE);
            self.release_send(stream_id(id));
            self.release_recv(stream_id(id));
        }
    }

    fn write(&mut self, id: StreamId, data: &mut Bytes) -> Poll<Result<(), StreamError>> {
        let len = data.len();
        self.send(id, len, |send, stock, room| send.push(data.split_to(room), &mut stock.spares))
            .map_ok(|_| ())
    }

    fn write_slice(&mut self, id: StreamId, data: &[u8]) -> Poll<Result<usize, StreamError>> {
        self.send(id, data.len(), |send, Stock { blocks, spares }, room| {
            for piece in data.get(..room).unwrap_or(data).chunks(BLOCK_LEN_MAX) {
                if piece.len() < BLOCK_LEN_MIN {
                    send.push_slice(piece, spares);
                    continue;
                }
                let mut block = blocks.take(piece.len());
                block.extend_from_slice(piece);
                send.push(block.split().freeze(), spares);
                blocks.retire(block);
            }
        })
    }

    fn read(&mut self, id: StreamId, max: usize) -> Poll<Result<Option<Bytes>, StreamError>> {
        self.receive(id, |recv, spares| recv.take(max, spares))
    }

    fn read_buf(&mut self, id: StreamId, out: &mut dyn BufMut) -> Poll<Result<usize, StreamError>> {
        self.receive(id, |recv, spares| recv.copy_to(out, spares)).map_ok(Option::unwrap_or_default)
    }

    fn finish(&mut self, id: StreamId) -> Result<(), StreamError> {
        let gone = StreamError::ResetLocally(ErrorCode::NONE);
        let Some((number, stream)) = self.live(id) else { return Err(gone) };
        match stream.send.phase {
            SendPhase::Open => {
                stream.send.phase = SendPhase::Finishing;
                self.line.answer(number);
                self.schedule_data(number);
                Ok(())
            }
            SendPhase::Finishing | SendPhase::Finished => Ok(()),
            SendPhase::Dead => Err(stream.error.as_deref().cloned().unwrap_or(gone)),
        }
    }

    fn reset(&mut self, id: StreamId, code: ErrorCode) {
        if let Some((number, _)) = self.live(id) {
            self.reset_stream(number, code);
        }
    }

    fn stop(&mut self, id: StreamId, code: ErrorCode) {
        let Some((number, stream)) = self.live(id) else { return };
        let ended = stream.recv.phase == RecvPhase::Ended;
        if ended && stream.recv.is_empty() {
            return;
        }
        let code = *stream.recv.given_up.get_or_insert(code);
        let growth = stream.recv.stop();
        let blocks_peer = !ended && stream.recv.window == 0 && stream.error.is_none();
        self.windows.shrink(growth);
        // The rest of a frame that is coming in may be the end.
        let coming =
            matches!(self.incoming, Incoming::Body { stream, .. } if stream == Some(number));
        if blocks_peer && !coming {
            self.reset_stream(number, code);
        }
    }

    fn stopped(&mut self, id: StreamId) -> Poll<StreamError> {
        match self.live(id) {
            None => Poll::Ready(StreamError::ResetLocally(ErrorCode::NONE)),
            Some((_, stream)) => {
                stream.error.as_deref().cloned().map_or(Poll::Pending, Poll::Ready)
            }
        }
    }

    fn release_send(&mut self, id: StreamId) {
        let Some((number, stream)) = self.live(id) else { return };
        stream.send_held = false;
        if stream.send.phase == SendPhase::Open {
            self.reset_stream(number, ErrorCode::NONE);
        }
        self.forget_if_over(number);
        self.linger(number);
    }

    fn release_recv(&mut self, id: StreamId) {
        self.stop(id, ErrorCode::NONE);
        let Some((number, stream)) = self.live(id) else { return };
        stream.recv_held = false;
        self.forget_if_over(number);
        self.linger(number);
    }

    fn close(&mut self, code: ErrorCode) {
        if self.goodbye != Goodbye::None {
            return;
        }
        self.refuse_inbound();
        let unfinished: Vec<u32> = {
            let mut ids: Vec<u32> = self
                .streams
                .iter()
                .filter(|(_, s)| s.send.phase == SendPhase::Open)
                .map(|(id, _)| *id)
                .collect();
            ids.sort_unstable();
            ids
        };
        for id in unfinished {
            self.reset_stream(id, ErrorCode::NONE);
        }
        self.goodbye = Goodbye::AfterData(code.value());
    }

    fn is_closed(&self) -> bool {
        matches!(self.goodbye, Goodbye::Said | Goodbye::Heard(_))
    }

    fn goodbye(&self) -> Option<ErrorCode> {
        match self.goodbye {
            Goodbye::Heard(code) => Some(code),
            Goodbye::None | Goodbye::AfterData(_) | Goodbye::Now(_) | Goodbye::Said => None,
        }
    }

    fn stream_count(&self) -> usize {
        self.streams.len()
    }

    fn buffered(&self) -> usize {
        let received = self.streams.values().map(|stream| stream.recv.buffered());
        received.fold(self.queued, usize::saturating_add)
    }

    fn set_protocol(&mut self, id: StreamId, protocol: &ProtocolId) {
        let number = u32::try_from(id.value()).unwrap_or(0);
        if let Some(stream) = self.streams.get_mut(&number) {
            self.names.remove(stream.protocol);
            stream.protocol = self.names.add(protocol);
            let open = stream.recv.phase == RecvPhase::Open && stream.error.is_none();
            if open && self.windows.foresees(protocol, self.now) {
                stream.recv.update_due = true;
                self.schedule_control(number);
            }
        }
    }

    fn buffered_by_protocol(&self, each: &mut dyn FnMut(Option<&ProtocolId>, usize)) {
        for stream in self.streams.values() {
            let bytes = stream.send.queued().saturating_add(stream.recv.buffered());
            each(self.names.get(stream.protocol), bytes);
        }
    }
}

/// How much one stream may have queued, in bytes, given that `total` bytes are queued in all, and
/// `queued` of them are its own.
fn send_buffer_max(total: usize, queued: usize) -> usize {
    debug_assert!(queued <= total, "the total counts every stream");
    let left = SEND_BUFFERS_MAX.saturating_sub(total) + queued;
    left.clamp(SEND_BUFFER_MIN, SEND_BUFFER_MAX)
}

fn stream_id(number: u32) -> StreamId {
    StreamId::new(u64::from(number))
}
