//! The session: every stream of one connection, and what is due to be sent.
//!
//! Incoming bytes go `handle_data` → `handle_header` → one `on_*` for each kind of frame; bodies
//! are handed on piece by piece, so no frame is ever buffered whole. Outgoing frames come from
//! three queues, in this order: the session's own (pong, ping), the streams' control frames
//! (RST, credit, SYN or ACK alone), and data, where streams that have just become active go
//! before those that send in bulk.

use std::{
    collections::{HashMap, VecDeque},
    task::Poll,
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes, BytesMut};
use p2p_core::{ErrorCode, Gather, MuxCore, MuxError, MuxEvent, Role, StreamError, StreamId};

use super::{
    Config, WINDOW_INITIAL,
    frame::{Flags, HEADER_LEN, Header, Kind},
    stream::{Freed, Opening, RecvPhase, SendPhase, StreamState},
};

/// Go-away codes (YAMUX-37); 0 is a normal end.
const GO_AWAY_PROTOCOL_ERROR: u32 = 1;
const GO_AWAY_INTERNAL_ERROR: u32 = 2;
/// The largest body of a data frame that is sent: with its header it fills one Noise record.
const BODY_LEN_MAX: usize = 65_519 - HEADER_LEN;
/// What a stream that has just become active may send before those that send in bulk, in bytes.
const URGENT_LEN_MAX: usize = 16 << 10;
/// What one stream may have queued, in bytes.
const SEND_BUFFER_MAX: usize = 128 << 10;
/// What all streams of the connection may have queued, in bytes, before each is held to
/// `SEND_BUFFER_MIN`.
const SEND_BUFFERS_MAX: usize = 1 << 20;
/// What every stream may queue however much the others have queued, in bytes.
const SEND_BUFFER_MIN: usize = 4 << 10;
/// Received chunks of at least this many bytes are kept by reference, as long as no more than
/// `REFERENCED_MAX` are unread: each pins a receive buffer.
const REFERENCED_LEN_MIN: usize = 4 << 10;
/// How many unread chunks of the whole connection may pin a receive buffer.
const REFERENCED_MAX: usize = 8;
/// Own streams that the peer has not acknowledged; opening waits beyond (YAMUX-42).
const UNACKNOWLEDGED_MAX: usize = 256;
/// Inbound streams that nobody has accepted; one more is reset (YAMUX-43).
const UNACCEPTED_MAX: usize = 256;
/// Pongs that wait to be sent; a ping beyond is not answered (YAMUX-35).
const PONGS_MAX: usize = 32;
/// Refusals that wait to be sent. A peer that causes more does not read them; js-libp2p may open
/// 1000 streams at once (YAMUX-44), all of them in one received buffer.
const REFUSALS_MAX: usize = 1000;
/// Frames in a row that carry nothing.
const EMPTY_FRAMES_MAX: u32 = 100;
/// Resets that the peer sends or causes: so many at once, and `RESETS_PER_SECOND` over time.
const RESETS_MAX: u32 = 1000;
const RESETS_PER_SECOND: u32 = 100;
/// How long an ACK may wait for a frame of its stream to ride on. Peers count streams that are
/// not acknowledged, but no peer times out on it (YAMUX-14).
const ACK_DELAY: Duration = Duration::from_millis(20);
/// How long a stream that both halves of this side are done with waits for the peer's end, from
/// the first look at the clock after that.
const LINGER: Duration = Duration::from_secs(30);
/// Intervals of silence after a ping that mean that the peer is gone.
const PINGS_MISSED_MAX: u32 = 2;
/// Frames of streams that have just become active that may go ahead of one bulk frame: what is
/// about one turn of the driver.
const URGENT_RUN_MAX: u32 = 8;
/// Entries of streams that are gone, in a queue of streams, that are not worth a clean-up.
const QUEUE_SLACK: usize = 64;
/// What headers are written to at once, in bytes.
const HEADERS_LEN: usize = 64 * HEADER_LEN;
/// The last id of either parity is near 2^32; ids stop well before (YAMUX-10).
const ID_MAX: u32 = u32::MAX - 2;

#[derive(Debug)]
pub(super) struct Session {
    config: Config,
    now: Instant,
    incoming: Incoming,
    streams: HashMap<u32, StreamState>,
    next_id: u32,
    inbound: usize,
    outbound: usize,
    /// Own streams, from their opening on.
    unacknowledged: usize,
    /// Received chunks that pin a receive buffer, over all streams.
    referenced: usize,
    /// Bytes queued for sending, over all streams.
    queued: usize,
    growth_left: u32,
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
    lingering: VecDeque<(Instant, u32)>,
    /// Streams that begin to linger as soon as the time is known.
    released: Vec<u32>,
    headers: BytesMut,
    events: VecDeque<MuxEvent>,

    ping: Ping,
    resets: Budget,
    empty_frames: u32,
    goodbye: Goodbye,
}

/// Where in a frame the incoming bytes are.
#[derive(Debug)]
enum Incoming {
    Header {
        bytes: [u8; HEADER_LEN],
        have: usize,
    },
    /// The body of a stream that was live when the header came; else nobody may get it, even if
    /// a stream of that number is opened meanwhile: it is not covered by a window.
    Body {
        stream: Option<u32>,
        left: u32,
        end: bool,
    },
}

impl Incoming {
    const fn next_header() -> Self {
        Self::Header { bytes: [0; HEADER_LEN], have: 0 }
    }
}

/// Our own ping: at most one is under way (YAMUX-34).
#[derive(Debug)]
struct Ping {
    value: u32,
    due: Instant,
    to_send: bool,
    sent_at: Option<Instant>,
    /// Intervals in a row in which it was not answered and nothing else came in.
    missed: u32,
    round_trip: Option<Duration>,
}

/// An allowance that refills with time.
#[derive(Debug)]
struct Budget {
    left: u32,
    refilled_at: Instant,
}

impl Budget {
    fn spend(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.refilled_at);
        let earned = elapsed.as_millis() * u128::from(RESETS_PER_SECOND) / 1000;
        let earned = u32::try_from(earned).unwrap_or(RESETS_MAX);
        if earned > 0 {
            self.left = self.left.saturating_add(earned).min(RESETS_MAX);
            self.refilled_at = now;
        }
        let spent = self.left.checked_sub(1);
        self.left = spent.unwrap_or(0);
        spent.is_some()
    }
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
    pub(super) fn new(config: Config, role: Role, now: Instant) -> Self {
        let ping =
            Ping { value: 0, due: now, to_send: false, sent_at: None, missed: 0, round_trip: None };
        let growth_left = config.windows_growth_max;
        Self {
            config,
            now,
            incoming: Incoming::next_header(),
            streams: HashMap::new(),
            next_id: match role {
                Role::Initiator => 1,
                Role::Responder => 2,
            },
            inbound: 0,
            outbound: 0,
            unacknowledged: 0,
            referenced: 0,
            queued: 0,
            growth_left,
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
            lingering: VecDeque::new(),
            released: Vec::new(),
            headers: BytesMut::new(),
            events: VecDeque::new(),
            ping,
            resets: Budget { left: RESETS_MAX, refilled_at: now },
            empty_frames: 0,
            goodbye: Goodbye::None,
        }
    }

    // Input.

    fn handle_piece(&mut self, plain: &mut Bytes) -> Result<(), MuxError> {
        match &mut self.incoming {
            Incoming::Header { bytes, have } => {
                for (slot, byte) in bytes.iter_mut().skip(*have).zip(plain.iter()) {
                    *slot = *byte;
                }
                let count = plain.len().min(HEADER_LEN - *have);
                plain.advance(count);
                *have += count;
                if *have == HEADER_LEN {
                    let header = Header::decode(*bytes)?;
                    self.incoming = Incoming::next_header();
                    self.handle_header(header)?;
                }
            }
            Incoming::Body { stream, left, end } => {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(plain.len());
                let piece = plain.split_to(count);
                *left -= u32::try_from(count).expect("no more than `left`, which is a u32");
                let (stream, whole, end) = (*stream, *left == 0, *end);
                if whole {
                    self.incoming = Incoming::next_header();
                }
                if let Some(stream) = stream {
                    self.on_body(stream, piece, whole && !end);
                    if whole && end {
                        self.on_fin(stream);
                    }
                }
            }
        }
        Ok(())
    }

    fn handle_header(&mut self, header: Header) -> Result<(), MuxError> {
        let misplaced = |frame| MuxError::Misplaced { frame, stream: header.stream };
        match header.kind {
            Kind::Data if header.stream == 0 => Err(misplaced("data")),
            Kind::WindowUpdate if header.stream == 0 => Err(misplaced("window update")),
            Kind::Ping if header.stream != 0 => Err(misplaced("ping")),
            Kind::GoAway if header.stream != 0 => Err(misplaced("go away")),
            Kind::Data => self.on_data(header),
            Kind::WindowUpdate => self.on_window_update(header),
            Kind::Ping => {
                self.on_ping(header);
                Ok(())
            }
            Kind::GoAway => {
                self.goodbye = Goodbye::Heard(ErrorCode::new(header.length));
                Ok(())
            }
        }
    }

    /// Every check stands before any state is made (CVE-2026-32314).
    fn on_data(&mut self, header: Header) -> Result<(), MuxError> {
        let syn = header.flags.has(Flags::SYN);
        if syn {
            self.check_syn(header.stream)?;
        }
        let window = match self.streams.get(&header.stream) {
            Some(stream) if stream.recv.phase == RecvPhase::Ended && header.length > 0 => {
                return Err(MuxError::DataAfterEnd(header.stream));
            }
            Some(stream) => stream.recv.window,
            None if syn => WINDOW_INITIAL,
            // It is for a stream that is gone: some window has covered it.
            None => self.config.window_max,
        };
        if header.length > window {
            let (stream, len) = (header.stream, header.length);
            return Err(MuxError::WindowExceeded { stream, len, window });
        }
        self.count_empty(header.length == 0 && header.flags == Flags::NONE)?;
        let end = header.flags.has(Flags::FIN);
        let live = self.begin_or_acknowledge(header)?;
        if live {
            if let Some(stream) = self.streams.get_mut(&header.stream) {
                stream.recv.window -= header.length;
            }
            if end && header.length == 0 {
                self.on_fin(header.stream);
            }
        }
        if header.length > 0 {
            let stream = live.then_some(header.stream);
            self.incoming = Incoming::Body { stream, left: header.length, end };
        }
        Ok(())
    }

    fn on_window_update(&mut self, header: Header) -> Result<(), MuxError> {
        let reset = header.flags.has(Flags::RST);
        if header.flags.has(Flags::SYN) {
            self.check_syn(header.stream)?;
        }
        // The length of a reset is its error code, not credit (YAMUX-41).
        let credit = if reset { 0 } else { header.length };
        let known = self.streams.get(&header.stream);
        let have = known.map_or(WINDOW_INITIAL, |s| s.send.credit);
        let counts = known.is_some() || header.flags.has(Flags::SYN);
        let sum = have.checked_add(credit);
        if counts && sum.is_none() {
            return Err(MuxError::WindowOverflow { stream: header.stream, credit });
        }
        self.count_empty(credit == 0 && header.flags == Flags::NONE)?;
        if !self.begin_or_acknowledge(header)? {
            return Ok(());
        }
        if let (Some(stream), Some(sum)) = (self.streams.get_mut(&header.stream), sum) {
            stream.send.credit = sum;
            if credit > 0 && stream.send.blocked {
                stream.send.blocked = false;
                self.events.push_back(MuxEvent::Writable(stream_id(header.stream)));
            }
        }
        if header.flags.has(Flags::FIN) {
            self.on_fin(header.stream);
        }
        Ok(())
    }

    fn check_syn(&self, id: u32) -> Result<(), MuxError> {
        let ours = id % 2 == self.next_id % 2;
        if ours || self.streams.contains_key(&id) {
            return Err(MuxError::StreamId(id));
        }
        Ok(())
    }

    /// Handles SYN, ACK and RST. False when there is no stream to go on with.
    fn begin_or_acknowledge(&mut self, header: Header) -> Result<bool, MuxError> {
        if header.flags.has(Flags::SYN) && !self.begin_inbound(header.stream)? {
            return Ok(false);
        }
        let Some(stream) = self.streams.get_mut(&header.stream) else {
            return Ok(false);
        };
        if header.flags.has(Flags::ACK) && stream.opening == Opening::SynSent {
            stream.opening = Opening::Done;
            self.unacknowledged -= 1;
            self.tell_openers();
        }
        if header.flags.has(Flags::RST) {
            let code = match header.kind {
                Kind::WindowUpdate => header.length,
                Kind::Data | Kind::Ping | Kind::GoAway => 0,
            };
            self.on_reset(header.stream, ErrorCode::new(code))?;
            return Ok(false);
        }
        Ok(true)
    }

    fn begin_inbound(&mut self, id: u32) -> Result<bool, MuxError> {
        let full = self.inbound >= self.config.streams_inbound_max
            || self.unaccepted.len() >= UNACCEPTED_MAX;
        if full || self.refuse_inbound || self.goodbye != Goodbye::None {
            self.spend_reset()?;
            if self.refusals.len() >= REFUSALS_MAX {
                let limit = u32::try_from(REFUSALS_MAX).unwrap_or(u32::MAX);
                return Err(MuxError::Flood { what: "refused streams", limit });
            }
            self.refusals.push_back(id);
            return Ok(false);
        }
        self.streams.insert(id, StreamState::new(true));
        self.inbound += 1;
        self.unaccepted.push_back(id);
        prune(&mut self.acks, &self.streams, |(_, id)| *id);
        self.acks.push_back((self.now + ACK_DELAY, id));
        self.events.push_back(MuxEvent::Acceptable);
        Ok(true)
    }

    /// `more` says that this is the end of the frame, but not of the data.
    fn on_body(&mut self, id: u32, piece: Bytes, more: bool) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.recv.phase != RecvPhase::Open {
            // Nobody reads: without a word the peer would wait for credit for ever.
            if more && stream.recv.window == 0 && stream.error.is_none() {
                let code = stream.recv.given_up.unwrap_or(ErrorCode::NONE);
                self.reset_stream(id, code);
            }
            return;
        }
        if piece.len() >= REFERENCED_LEN_MIN && self.referenced < REFERENCED_MAX {
            self.referenced += 1;
            stream.recv.push_referenced(piece);
        } else {
            stream.recv.push_copied(&piece);
        }
        self.tell_reader(id);
    }

    fn on_fin(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.error.is_none() {
            stream.recv.phase = RecvPhase::Ended;
            self.tell_reader(id);
            self.forget_if_over(id);
        }
    }

    fn on_reset(&mut self, id: u32, code: ErrorCode) -> Result<(), MuxError> {
        // A stream of ours cost this side an opening: the peer cannot make many.
        if self.streams.get(&id).is_some_and(|s| s.inbound) {
            self.spend_reset()?;
        }
        self.kill_stream(id, StreamError::Reset(code));
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.reset_due = None;
            if !stream.accepted {
                stream.send_held = false;
                stream.recv_held = false;
            }
        }
        self.forget_if_over(id);
        Ok(())
    }

    fn spend_reset(&mut self) -> Result<(), MuxError> {
        if self.resets.spend(self.now) {
            return Ok(());
        }
        Err(MuxError::Flood { what: "stream resets", limit: RESETS_MAX })
    }

    fn on_ping(&mut self, header: Header) {
        if header.flags.has(Flags::SYN) {
            if self.pongs.len() < PONGS_MAX {
                self.pongs.push_back(header.length);
            }
        } else if header.flags.has(Flags::ACK)
            && header.length == self.ping.value
            && let Some(sent_at) = self.ping.sent_at.take()
        {
            self.ping.missed = 0;
            self.ping.round_trip = Some(self.now.saturating_duration_since(sent_at));
            self.ping.due = self.now + self.config.keep_alive;
        }
    }

    fn count_empty(&mut self, empty: bool) -> Result<(), MuxError> {
        self.empty_frames = if empty { self.empty_frames.saturating_add(1) } else { 0 };
        if self.empty_frames > EMPTY_FRAMES_MAX {
            return Err(MuxError::Flood { what: "empty frames in a row", limit: EMPTY_FRAMES_MAX });
        }
        Ok(())
    }

    // Changes of streams.

    /// Ends a stream early, on this side only.
    fn kill_stream(&mut self, id: u32, error: StreamError) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        self.queued -= stream.send.queued();
        let freed = stream.kill(error);
        self.take_back(&freed);
        self.events.push_back(MuxEvent::Ended(stream_id(id)));
    }

    fn take_back(&mut self, freed: &Freed) {
        self.referenced -= freed.referenced;
        self.growth_left = self.growth_left.saturating_add(freed.growth);
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
            stream.reset_due = Some(code.value());
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
        self.take_back(&stream.recv.stop());
        if matches!(stream.opening, Opening::SynDue | Opening::SynSent) {
            self.unacknowledged -= 1;
        }
        if stream.inbound {
            self.inbound -= 1;
            self.unaccepted.retain(|waiting| *waiting != id);
        } else {
            self.outbound -= 1;
        }
        self.tell_openers();
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
            self.urgent.push_back(id);
            prune(&mut self.urgent, &self.streams, |id| *id);
        }
    }

    // Output.

    fn put_header(&mut self, kind: Kind, flags: Flags, stream: u32, length: u32) {
        Header { kind, flags, stream, length }.encode(&mut self.headers);
    }

    fn transmit_session(&mut self) {
        while let Some(value) = self.pongs.pop_front() {
            self.put_header(Kind::Ping, Flags::ACK, 0, value);
        }
        if std::mem::take(&mut self.ping.to_send) {
            self.ping.sent_at = Some(self.now);
            self.put_header(Kind::Ping, Flags::SYN, 0, self.ping.value);
        }
        while let Some(id) = self.refusals.pop_front() {
            self.put_header(Kind::WindowUpdate, Flags::RST, id, 0);
        }
    }

    /// Sends what a stream has to say besides data: its reset, its credit, or SYN or ACK alone.
    fn transmit_control(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.in_control = false;
        if let Some(code) = stream.reset_due.take() {
            self.put_header(Kind::WindowUpdate, Flags::RST, id, code);
            self.forget_if_over(id);
            return;
        }
        if stream.error.is_some() {
            return;
        }
        let update = std::mem::take(&mut stream.recv.update_due);
        // SYN and ACK ride on data, where there are any.
        let alone = matches!(stream.opening, Opening::SynDue | Opening::AckDue) && !stream.in_ready;
        if !update && !alone {
            return;
        }
        let credit = if update && stream.recv.phase == RecvPhase::Open {
            let round_trip = self.ping.round_trip;
            stream.recv.grant(self.now, round_trip, &mut self.growth_left, &self.config)
        } else {
            0
        };
        let flags = self.opening_flags(id);
        if credit > 0 || flags != Flags::NONE {
            self.put_header(Kind::WindowUpdate, flags, id, credit);
        }
    }

    /// The flags that the stream's first frame carries; none on later ones.
    fn opening_flags(&mut self, id: u32) -> Flags {
        let Some(stream) = self.streams.get_mut(&id) else { return Flags::NONE };
        match stream.opening {
            Opening::SynDue => {
                stream.opening = Opening::SynSent;
                Flags::SYN
            }
            Opening::AckDue => {
                stream.opening = Opening::Done;
                Flags::ACK
            }
            Opening::SynSent | Opening::Done => Flags::NONE,
        }
    }

    /// Sends one data frame of at most `max` bytes of a stream, with FIN on its last one. True
    /// when more is queued.
    fn transmit_data(&mut self, id: u32, max: usize, frames: &mut Gather) -> bool {
        let gone = |s: &StreamState| matches!(s.send.phase, SendPhase::Dead | SendPhase::Finished);
        if self.streams.get(&id).is_none_or(gone) {
            return false;
        }
        let flags = self.opening_flags(id);
        let Some(stream) = self.streams.get_mut(&id) else { return false };
        let count = stream.send.queued().min(max);
        let more = stream.send.queued() > count;
        let end = !more && stream.send.phase == SendPhase::Finishing;
        let length = u32::try_from(count).expect("a body is at most 64 KiB");
        let header =
            Header { kind: Kind::Data, flags: flags.with(Flags::FIN, end), stream: id, length };
        header.encode(&mut self.headers);
        frames.push(self.headers.split().freeze());
        stream.send.take(count, |chunk| frames.push(chunk));
        self.queued -= count;
        if end {
            stream.send.phase = SendPhase::Finished;
        } else if stream.send.blocked
            && stream.send.queued() <= SEND_BUFFER_MAX / 2
            && stream.send.credit > 0
        {
            stream.send.blocked = false;
            self.events.push_back(MuxEvent::Writable(stream_id(id)));
        }
        if end {
            self.forget_if_over(id);
        }
        more
    }

    fn transmit_streams(&mut self, budget: usize, frames: &mut Gather) {
        let full = frames.len().saturating_add(budget);
        while frames.len() < full
            && let Some((id, max)) = self.next_ready()
        {
            if self.transmit_data(id, max, frames) {
                self.bulk.push_back(id);
            } else if let Some(stream) = self.streams.get_mut(&id) {
                stream.in_ready = false;
            }
        }
    }

    /// The stream whose turn it is to send data, and how much of it.
    fn next_ready(&mut self) -> Option<(u32, usize)> {
        if (self.urgent_run < URGENT_RUN_MAX || self.bulk.is_empty())
            && let Some(id) = self.urgent.pop_front()
        {
            self.urgent_run = self.urgent_run.saturating_add(1);
            return Some((id, URGENT_LEN_MAX));
        }
        self.urgent_run = 0;
        self.bulk.pop_front().map(|id| (id, BODY_LEN_MAX))
    }

    /// The last frame, once nothing more can be sent before it.
    fn transmit_goodbye(&mut self) {
        let code = match self.goodbye {
            Goodbye::AfterData(code) if self.urgent.is_empty() && self.bulk.is_empty() => code,
            Goodbye::Now(code) => code,
            Goodbye::AfterData(_) | Goodbye::None | Goodbye::Said | Goodbye::Heard(_) => return,
        };
        self.goodbye = Goodbye::Said;
        self.put_header(Kind::GoAway, Flags::NONE, 0, code);
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

    /// How much stream `id` may have queued, given what the others have.
    fn send_buffer_max(&self, queued: usize) -> usize {
        let left = SEND_BUFFERS_MAX.saturating_sub(self.queued) + queued;
        left.clamp(SEND_BUFFER_MIN, SEND_BUFFER_MAX)
    }

    /// The room for `len` more bytes, or what a writer gets instead.
    fn writable(&mut self, id: StreamId, len: usize) -> Poll<Result<(u32, usize), StreamError>> {
        let total = self.queued;
        let Some((number, stream)) = self.live(id) else {
            return Poll::Ready(Err(StreamError::ResetLocally(ErrorCode::NONE)));
        };
        if let Some(error) = &stream.error {
            return Poll::Ready(Err(error.clone()));
        }
        if stream.send.phase != SendPhase::Open {
            return Poll::Ready(Err(StreamError::Finished));
        }
        let queued = stream.send.queued();
        debug_assert!(queued <= total, "the total counts every stream");
        let buffer_max = self.send_buffer_max(queued);
        let (_, stream) = self.live(id).expect("it was just found");
        let room = stream.send.room(buffer_max).min(len);
        if room == 0 && len > 0 {
            stream.send.blocked = true;
            return Poll::Pending;
        }
        Poll::Ready(Ok((number, room)))
    }

    fn handle_ping_due(&mut self, now: Instant) -> Result<(), MuxError> {
        let keep_alive = self.config.keep_alive;
        self.ping.due = now + keep_alive;
        if self.ping.sent_at.is_none() && !self.ping.to_send {
            self.ping.value = self.ping.value.wrapping_add(1);
            self.ping.to_send = true;
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
        for id in self.released.drain(..) {
            self.lingering.push_back((now + LINGER, id));
        }
        prune(&mut self.lingering, &self.streams, |(_, id)| *id);
    }

    /// Both halves of this side are done, and the peer's end is still to come.
    fn linger(&mut self, id: u32) {
        if let Some(stream) = self.streams.get(&id)
            && !stream.send_held
            && !stream.recv_held
            && stream.error.is_none()
        {
            self.released.push(id);
        }
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

    fn handle_timeout(&mut self, now: Instant) -> Result<(), MuxError> {
        self.look_at_clock(now);
        while let Some(id) = pop_due(&mut self.acks, now) {
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            stream.ack_overdue = true;
            if stream.opening == Opening::AckDue && stream.accepted {
                self.schedule_control(id);
            }
        }
        while let Some(id) = pop_due(&mut self.lingering, now) {
            let waits = self.streams.get(&id).is_some_and(|s| !s.send_held && !s.recv_held);
            if waits {
                self.reset_stream(id, ErrorCode::NONE);
            }
        }
        if self.ping.due <= now {
            self.handle_ping_due(now)?;
        }
        Ok(())
    }

    fn handle_end(&mut self, error: &StreamError) {
        if !self.is_closed() {
            self.goodbye = Goodbye::Said;
        }
        let mut ids: Vec<u32> = self.streams.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.reset_due = None;
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
    }

    fn poll_transmit(&mut self, budget: usize, frames: &mut Gather, now: Instant) {
        self.look_at_clock(now);
        if self.is_closed() {
            return;
        }
        self.headers.reserve(HEADERS_LEN);
        if !matches!(self.goodbye, Goodbye::Now(_)) {
            self.transmit_session();
            while let Some(id) = self.control.pop_front() {
                self.transmit_control(id);
            }
            self.transmit_streams(budget, frames);
        }
        self.transmit_goodbye();
        frames.push(self.headers.split().freeze());
        while let Some((_, id)) = self.acks.front() {
            if self.streams.get(id).is_some_and(|s| s.opening == Opening::AckDue) {
                break;
            }
            self.acks.pop_front();
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
        let linger = self.lingering.front().map(|(due, _)| *due);
        let released = (!self.released.is_empty()).then_some(self.now);
        [Some(self.ping.due), ack, linger, released].into_iter().flatten().min()
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
        let (number, room) = std::task::ready!(self.writable(id, data.len()))?;
        if room > 0 {
            let (_, stream) = self.live(id).expect("it has room");
            stream.send.push(data.split_to(room));
            self.queued += room;
            self.schedule_data(number);
        }
        Poll::Ready(Ok(()))
    }

    fn write_slice(&mut self, id: StreamId, data: &[u8]) -> Poll<Result<usize, StreamError>> {
        let (number, room) = std::task::ready!(self.writable(id, data.len()))?;
        if room > 0 {
            let (_, stream) = self.live(id).expect("it has room");
            stream.send.push_slice(data.get(..room).unwrap_or(data));
            self.queued += room;
            self.schedule_data(number);
        }
        Poll::Ready(Ok(room))
    }

    fn read(&mut self, id: StreamId, max: usize) -> Poll<Result<Option<Bytes>, StreamError>> {
        let Some((number, stream)) = self.live(id) else {
            return Poll::Ready(Err(StreamError::ResetLocally(ErrorCode::NONE)));
        };
        if let Some((chunk, released)) = stream.recv.take(max) {
            if !stream.recv.update_due && stream.recv.wants_update() && stream.error.is_none() {
                stream.recv.update_due = true;
                self.schedule_control(number);
            }
            self.referenced -= usize::from(released);
            return Poll::Ready(Ok(Some(chunk)));
        }
        if let Some(code) = stream.recv.given_up {
            return Poll::Ready(Err(StreamError::ResetLocally(code)));
        }
        match (stream.recv.phase, &stream.error) {
            (RecvPhase::Ended, _) => Poll::Ready(Ok(None)),
            (RecvPhase::Open | RecvPhase::Stopped, Some(error)) => Poll::Ready(Err(error.clone())),
            (RecvPhase::Stopped | RecvPhase::Open, None) => {
                stream.recv.blocked = true;
                Poll::Pending
            }
        }
    }

    fn finish(&mut self, id: StreamId) {
        if let Some((number, stream)) = self.live(id)
            && stream.send.phase == SendPhase::Open
        {
            stream.send.phase = SendPhase::Finishing;
            self.schedule_data(number);
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
        let freed = stream.recv.stop();
        let blocks_peer = !ended && stream.recv.window == 0 && stream.error.is_none();
        self.take_back(&freed);
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
            Some((_, stream)) => stream.error.clone().map_or(Poll::Pending, Poll::Ready),
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
}

fn pop_due(queue: &mut VecDeque<(Instant, u32)>, now: Instant) -> Option<u32> {
    queue.front().filter(|(due, _)| *due <= now)?;
    queue.pop_front().map(|(_, id)| id)
}

/// Drops the entries of streams that are gone, once they outnumber the others.
fn prune<T>(queue: &mut VecDeque<T>, streams: &HashMap<u32, StreamState>, id: impl Fn(&T) -> u32) {
    if queue.len() > 2 * streams.len() + QUEUE_SLACK {
        queue.retain(|entry| streams.contains_key(&id(entry)));
    }
}

fn stream_id(number: u32) -> StreamId {
    StreamId::new(u64::from(number))
}

#[cfg(test)]
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    pub(super) streams: usize,
    pub(super) inbound: usize,
    pub(super) outbound: usize,
    pub(super) unacknowledged: usize,
    pub(super) unaccepted: usize,
    pub(super) referenced: usize,
    pub(super) queued: usize,
    pub(super) growth: u32,
}

#[cfg(test)]
impl Session {
    pub(super) fn counters(&self) -> Counters {
        Counters {
            streams: self.streams.len(),
            inbound: self.inbound,
            outbound: self.outbound,
            unacknowledged: self.unacknowledged,
            unaccepted: self.unaccepted.len(),
            referenced: self.referenced,
            queued: self.queued,
            growth: self.config.windows_growth_max - self.growth_left,
        }
    }

    /// The counters as they follow from the streams alone.
    pub(super) fn recount(&self) -> Counters {
        let count =
            |what: &dyn Fn(&StreamState) -> bool| self.streams.values().filter(|s| what(s)).count();
        Counters {
            streams: self.streams.len(),
            inbound: count(&|s| s.inbound),
            outbound: count(&|s| !s.inbound),
            unacknowledged: count(&|s| matches!(s.opening, Opening::SynDue | Opening::SynSent)),
            unaccepted: count(&|s| !s.accepted && s.send_held),
            referenced: self.streams.values().map(|s| s.recv.referenced()).sum(),
            queued: self.streams.values().map(|s| s.send.queued()).sum(),
            growth: self.streams.values().map(|s| s.recv.growth()).sum(),
        }
    }

    /// The length of everything that could grow without a stream.
    pub(super) fn backlog(&self) -> usize {
        let queues = [&self.control, &self.urgent, &self.bulk, &self.pongs, &self.refusals];
        queues.iter().map(|queue| queue.len()).sum::<usize>()
            + self.acks.len()
            + self.lingering.len()
            + self.released.len()
            + self.events.len()
            + self.headers.len()
    }

    /// The bytes that the stream's received data occupy, payload or not.
    pub(super) fn held(&mut self, id: StreamId) -> usize {
        self.live(id).map_or(0, |(_, stream)| stream.recv.held())
    }

    pub(super) fn clock(&self) -> Instant {
        self.now
    }

    pub(super) fn set_next_id(&mut self, id: u32) {
        self.next_id = id;
    }
}
