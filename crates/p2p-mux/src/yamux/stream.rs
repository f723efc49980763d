//! One stream: what waits to be sent, what waits to be read, and the two windows.
//!
//! ```text
//!  sending half                                receiving half
//!
//!  Open ──finish──► Finishing ──FIN sent──►    Open ──FIN──► Ended (buffer stays readable)
//!    │                 │            Finished    │
//!    └──── reset / RST / end ──────► Dead       └─ stop ──► Stopped ──FIN──► Ended
//! ```

use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use p2p_core::{ErrorCode, ProtocolId, StreamError};

use super::{
    Config, WINDOW_INITIAL,
    frame::Flags,
    held::{Held, Spares},
    names::Name,
    windows::Windows,
};

/// Received bytes are copied into blocks of up to this many bytes, unless they are large and
/// read promptly. It bounds the memory of a stream whose peer sends tiny frames.
const BLOCK_LEN_MAX: usize = 16 << 10;
/// What a block may waste when it is closed before it is full, in bytes: a peer that mixes what is
/// copied with what is kept by reference closes many.
const WASTE_LEN_MAX: usize = 256;
/// The first block of a stream, in bytes.
const BLOCK_LEN_MIN: usize = 64;
/// Credit below this many bytes is not worth a frame.
const UPDATE_MIN: u32 = 64 << 10;
/// So much is always worth one: of a large window even an eighth is much that the peer has to do without.
const UPDATE_MAX: u32 = 1 << 20;
/// Windows are made for a round trip of no less: one that was measured while nothing flowed leaves out
/// the turns that both sides take with what does, and each would wait for the other.
const ROUND_TRIP_MIN: Duration = Duration::from_micros(500);
/// Writes below this many bytes are gathered into a common chunk.
const GATHER_LEN_MAX: usize = 4 << 10;
/// Frames of up to this many bytes of such a chunk are copied behind their headers.
const COPY_LEN_MAX: usize = 1 << 10;
/// The largest chunk that small writes are gathered into, in bytes.
const CHUNK_LEN_MAX: usize = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SendPhase {
    /// Takes data.
    Open,
    /// The end is queued behind the data.
    Finishing,
    /// FIN was sent.
    Finished,
    /// Reset by either side, or the connection ended.
    Dead,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecvPhase {
    /// The peer may send.
    Open,
    /// FIN has arrived.
    Ended,
    /// Nobody reads any more; what arrives is dropped and earns no credit.
    Stopped,
}

/// Who opened the stream, and whether that was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// Ours, and no frame of it was sent yet.
    SynDue,
    /// Ours, sent, not acknowledged.
    SynSent,
    /// Theirs, and no frame went back yet.
    AckDue,
    /// Both sides know of it.
    Done,
}

#[derive(Debug)]
pub(super) struct StreamState {
    pub(super) inbound: bool,
    /// The application has it: an inbound stream waits for that.
    pub(super) accepted: bool,
    /// The time for the ACK to ride on another frame has passed.
    pub(super) ack_overdue: bool,
    pub(super) opening: Opening,
    pub(super) send: SendSide,
    pub(super) recv: RecvSide,
    /// By whom what it holds is counted.
    pub(super) protocol: Option<Name>,
    /// Set once the stream has ended early; what every later call gives. Boxed, since most streams
    /// have none, and a connection's streams should fit a processor's cache.
    pub(super) error: Option<Box<StreamError>>,
    /// A RST is to be sent, with the code of the error.
    pub(super) reset_due: bool,
    /// In the session's queue of streams with control frames to send.
    pub(super) in_control: bool,
    /// In one of the session's queues of streams with data to send.
    pub(super) in_ready: bool,
    pub(super) send_held: bool,
    pub(super) recv_held: bool,
}

impl StreamState {
    pub(super) fn new(inbound: bool) -> Self {
        Self {
            inbound,
            accepted: !inbound,
            ack_overdue: false,
            opening: if inbound { Opening::AckDue } else { Opening::SynDue },
            send: SendSide::new(),
            recv: RecvSide::new(),
            protocol: None,
            error: None,
            reset_due: false,
            in_control: false,
            in_ready: false,
            send_held: true,
            recv_held: true,
        }
    }

    /// Ends both directions early, and says how far the window had grown, in bytes. What was
    /// received up to an end of data stays readable: it is complete.
    pub(super) fn kill(&mut self, error: StreamError) -> u32 {
        self.abandon(error);
        if self.recv.phase == RecvPhase::Ended { 0 } else { self.recv.stop() }
    }

    /// The same for the end of the connection: what has arrived stays readable.
    pub(super) fn abandon(&mut self, error: StreamError) {
        self.send.clear();
        self.send.phase = SendPhase::Dead;
        self.error.get_or_insert_with(|| Box::new(error));
    }

    /// The flags that the stream's first frame carries; none on later ones.
    pub(super) fn opening_flags(&mut self) -> Flags {
        match self.opening {
            Opening::SynDue => {
                self.opening = Opening::SynSent;
                Flags::SYN
            }
            Opening::AckDue => {
                self.opening = Opening::Done;
                Flags::ACK
            }
            Opening::SynSent | Opening::Done => Flags::NONE,
        }
    }

    /// The code of the RST that is to be sent, once.
    pub(super) fn take_reset(&mut self) -> Option<u32> {
        let due = std::mem::take(&mut self.reset_due);
        due.then(|| match self.error.as_deref() {
            Some(StreamError::ResetLocally(code)) => code.value(),
            _ => ErrorCode::NONE.value(),
        })
    }

    /// Whether the session can forget the stream.
    pub(super) fn is_over(&self) -> bool {
        let sent = matches!(self.send.phase, SendPhase::Finished | SendPhase::Dead);
        let received = self.recv.phase == RecvPhase::Ended || self.error.is_some();
        !self.send_held && !self.recv_held && sent && received && !self.reset_due
    }
}

/// The sending half.
#[derive(Debug)]
pub(super) struct SendSide {
    pub(super) phase: SendPhase,
    /// What the peer still lets us send, in bytes.
    pub(super) credit: u32,
    /// A writer waits for room.
    pub(super) blocked: bool,
    /// In the line of those who do.
    pub(super) in_line: bool,
    /// What is queued, where anything is.
    held: Option<Box<Held<Bytes>>>,
    /// How many bytes of it; all of them are covered by credit already taken.
    queued: u32,
}

impl SendSide {
    fn new() -> Self {
        Self {
            phase: SendPhase::Open,
            credit: WINDOW_INITIAL,
            blocked: false,
            in_line: false,
            held: None,
            queued: 0,
        }
    }

    pub(super) fn queued(&self) -> usize {
        usize::try_from(self.queued).unwrap_or(usize::MAX)
    }

    /// How many more bytes can be queued with a buffer of `buffer_max` bytes.
    pub(super) fn room(&self, buffer_max: usize) -> usize {
        let credit = usize::try_from(self.credit).unwrap_or(usize::MAX);
        buffer_max.saturating_sub(self.queued()).min(credit)
    }

    /// Queues `data`, which fits `room`.
    pub(super) fn push(&mut self, data: Bytes, spares: &mut Spares<Bytes>) {
        if data.len() < GATHER_LEN_MAX {
            self.push_slice(&data, spares);
            return;
        }
        self.take_credit(data.len());
        spares.lend(&mut self.held).push(data);
    }

    /// Queues a copy of `data`, which fits `room`.
    pub(super) fn push_slice(&mut self, data: &[u8], spares: &mut Spares<Bytes>) {
        if data.len() >= GATHER_LEN_MAX {
            // A chunk that grew with it would be copied again.
            self.push(Bytes::copy_from_slice(data), spares);
            return;
        }
        self.take_credit(data.len());
        let held = spares.lend(&mut self.held);
        if held.tail.len() + data.len() > CHUNK_LEN_MAX {
            held.seal_tail();
        }
        held.tail.extend_from_slice(data);
    }

    fn take_credit(&mut self, len: usize) {
        let len = u32::try_from(len).expect("what fits the room fits the credit");
        self.queued += len;
        self.credit -= len;
    }

    /// Takes `len` bytes, no more than are queued, as the chunks they are in.
    pub(super) fn take(
        &mut self,
        len: usize,
        spares: &mut Spares<Bytes>,
        mut each: impl FnMut(Bytes),
    ) {
        let Some(held) = &mut self.held else { return };
        let mut left = len;
        while left > 0 {
            let Some(front) = held.chunks.front_mut() else {
                held.seal_tail();
                continue;
            };
            if front.len() > left {
                each(front.split_to(left));
                break;
            }
            left -= front.len();
            each(held.chunks.pop_front().expect("the front was just looked at"));
        }
        self.uncount(len, spares);
    }

    /// The same by copying, where that costs less than sharing: few bytes of a common chunk.
    pub(super) fn copy_small(
        &mut self,
        len: usize,
        spares: &mut Spares<Bytes>,
        out: &mut BytesMut,
    ) -> bool {
        let Some(held) = &mut self.held else { return len == 0 };
        if !held.chunks.is_empty() || len > COPY_LEN_MAX {
            return false;
        }
        out.extend_from_slice(held.tail.get(..len).unwrap_or_default());
        held.tail.advance(len);
        self.uncount(len, spares);
        true
    }

    fn uncount(&mut self, len: usize, spares: &mut Spares<Bytes>) {
        self.queued -= u32::try_from(len).expect("no more than are queued");
        if self.queued == 0 {
            spares.take_back(&mut self.held);
        }
    }

    fn clear(&mut self) {
        self.held = None;
        self.queued = 0;
        self.blocked = false;
    }
}

impl Held<Bytes> {
    fn push(&mut self, data: Bytes) {
        self.seal_tail();
        self.chunks.push_back(data);
    }

    /// Makes a chunk of the block.
    fn seal_tail(&mut self) {
        if !self.tail.is_empty() {
            self.chunks.push_back(std::mem::take(&mut self.tail).freeze());
        }
    }
}

/// The receiving half.
#[derive(Debug)]
pub(super) struct RecvSide {
    pub(super) phase: RecvPhase,
    /// What the peer may still send, in bytes.
    pub(super) window: u32,
    /// What is still to come of a frame whose header has, in bytes.
    under_way: u32,
    /// A reader waits for data.
    pub(super) blocked: bool,
    /// A window update is to be sent.
    pub(super) update_due: bool,
    /// The application has given up reading, with this code.
    pub(super) given_up: Option<ErrorCode>,
    /// The size that the window is kept at, in bytes.
    target: u32,
    /// How fast it is read: of those alone that have given credit.
    pace: Option<Box<Pace>>,
    /// What was received and not read, where anything was.
    held: Option<Box<Held<Chunk>>>,
    /// How many bytes of it.
    buffered: u32,
}

/// How fast the application reads.
#[derive(Debug)]
struct Pace {
    /// Since when `read` counts.
    measured_at: Instant,
    /// What the application has read since then, in bytes.
    read: u32,
    /// The largest window that what was read has asked for, in bytes; the first one at least.
    wanted: u32,
}

/// Bytes that were received together.
pub(super) type Chunk = (Bytes, Origin);

/// Whether a chunk holds the buffer it was received in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Referenced,
    Copied,
}

impl RecvSide {
    fn new() -> Self {
        Self {
            phase: RecvPhase::Open,
            window: WINDOW_INITIAL,
            under_way: 0,
            blocked: false,
            update_due: false,
            given_up: None,
            target: WINDOW_INITIAL,
            pace: None,
            held: None,
            buffered: 0,
        }
    }

    /// What was received and not read, in bytes.
    pub(super) fn buffered(&self) -> usize {
        usize::try_from(self.buffered).unwrap_or(usize::MAX)
    }

    /// Takes note of a frame of `len` bytes, which the window covers.
    pub(super) fn announce(&mut self, len: u32) {
        self.window -= len;
        self.under_way += len;
    }

    /// Keeps `data` by reference: it holds the buffer it came in.
    pub(super) fn push_referenced(&mut self, data: Bytes, spares: &mut Spares<Chunk>) {
        self.count(data.len());
        spares.lend(&mut self.held).push_referenced(data);
    }

    /// Keeps a copy of `data` in blocks that waste at most half of their size, and at most
    /// `BLOCK_LEN_MAX` bytes a stream.
    pub(super) fn push_copied(&mut self, data: &[u8], spares: &mut Spares<Chunk>) {
        if !data.is_empty() {
            self.count(data.len());
            spares.lend(&mut self.held).push_copied(data);
        }
    }

    fn count(&mut self, len: usize) {
        let len = u32::try_from(len).expect("received data were checked against the window");
        self.under_way = self.under_way.saturating_sub(len);
        self.buffered = self.buffered.saturating_add(len);
    }

    /// Copies what is kept by reference, so that no buffer is held for it any more.
    pub(super) fn copy_referenced(&mut self) {
        if let Some(held) = &mut self.held {
            held.copy_referenced();
        }
    }

    /// Takes at most `max` bytes.
    pub(super) fn take(&mut self, max: usize, spares: &mut Spares<Chunk>) -> Option<Bytes> {
        let held = self.held.as_mut()?;
        if held.chunks.is_empty() {
            held.seal_tail();
        }
        let (front, _) = held.chunks.front_mut()?;
        let chunk = front.split_to(front.len().min(max));
        if front.is_empty() {
            held.chunks.pop_front();
        }
        self.uncount(chunk.len(), spares);
        Some(chunk)
    }

    /// Copies to `out` what it has room for, of all that is buffered, and says how much.
    pub(super) fn copy_to(
        &mut self,
        out: &mut dyn BufMut,
        spares: &mut Spares<Chunk>,
    ) -> Option<usize> {
        let held = self.held.as_mut()?;
        let room = out.remaining_mut();
        while out.has_remaining_mut()
            && let Some((front, _)) = held.chunks.front_mut()
        {
            move_to(front, out);
            if front.is_empty() {
                held.chunks.pop_front();
            }
        }
        move_to(&mut held.tail, out);
        let count = room - out.remaining_mut();
        self.uncount(count, spares);
        Some(count)
    }

    fn uncount(&mut self, len: usize, spares: &mut Spares<Chunk>) {
        let len = u32::try_from(len).expect("no more is buffered than the window");
        self.buffered = self.buffered.saturating_sub(len);
        if self.buffered == 0 {
            spares.take_back(&mut self.held);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.buffered == 0
    }

    /// Whether so much was read that the peer should hear of it. Others wait for half of the window
    /// (YAMUX-29); then a peer that is held back by it may be left with half a window for each
    /// round trip.
    pub(super) fn wants_update(&self) -> bool {
        self.phase == RecvPhase::Open
            && self.missing() >= (self.target / 8).clamp(UPDATE_MIN, UPDATE_MAX)
    }

    fn missing(&self) -> u32 {
        let held = self.window.saturating_add(self.under_way).saturating_add(self.buffered);
        self.target.saturating_sub(held)
    }

    /// The credit to send now.
    ///
    /// The window grows to what the application reads in two round trips: with one, it would be
    /// the window that holds the peer back; more gains nothing (YAMUX-30). What is read is counted
    /// over a quarter of a round trip at least, since peers that wait for credit send in bursts, and
    /// those that send many streams by turns.
    /// That is the effect of the window of a round trip ago: while it rises, the window is set
    /// for as much more again, as Linux does for TCP, and so doubles in each round trip. The first credit
    /// is what one before it has come to, as far as there is enough for others.
    pub(super) fn grant(
        &mut self,
        now: Instant,
        round_trip: Option<Duration>,
        protocol: Option<&ProtocolId>,
        windows: &mut Windows,
        config: &Config,
    ) -> u32 {
        let read = self.missing();
        match (&mut self.pace, round_trip) {
            (None, _) => {
                let known = windows.first(now).min(config.window_max);
                let wanted = known.max(WINDOW_INITIAL);
                self.target += windows.grow(known.saturating_sub(self.target));
                self.pace = Some(Box::new(Pace { measured_at: now, read: 0, wanted }));
            }
            // What was read until now has taken an unknown time.
            (Some(pace), None) => (pace.measured_at, pace.read) = (now, 0),
            (Some(pace), Some(measured)) => {
                let round_trip = measured.max(ROUND_TRIP_MIN);
                pace.read = pace.read.saturating_add(read);
                let elapsed = now.saturating_duration_since(pace.measured_at);
                if elapsed >= (round_trip / 4).max(ROUND_TRIP_MIN) {
                    let wanted = per_time(pace.read, round_trip.saturating_mul(2), elapsed);
                    let more = wanted.saturating_sub(pace.wanted);
                    let more = u64::from(wanted) * u64::from(more) / u64::from(pace.wanted);
                    let ahead = wanted.saturating_add(u32::try_from(more).unwrap_or(u32::MAX));
                    pace.wanted = pace.wanted.max(wanted);
                    windows.learn(wanted, protocol, now);
                    let wanted = ahead.min(config.window_max).min(self.target.saturating_mul(2));
                    self.target += windows.grow(wanted.saturating_sub(self.target));
                    (pace.measured_at, pace.read) = (now, 0);
                }
            }
        }
        let credit = self.missing();
        self.window += credit;
        credit
    }

    /// Stops reading: drops what is buffered, and says how far the window had grown, in bytes.
    pub(super) fn stop(&mut self) -> u32 {
        let growth = self.target.saturating_sub(WINDOW_INITIAL);
        self.target = self.target.min(WINDOW_INITIAL);
        self.held = None;
        self.buffered = 0;
        if self.phase == RecvPhase::Open {
            self.phase = RecvPhase::Stopped;
        }
        growth
    }
}

impl Held<Chunk> {
    fn push_referenced(&mut self, data: Bytes) {
        if self.tail.capacity() - self.tail.len() > WASTE_LEN_MAX {
            self.tail = BytesMut::from(&self.tail[..]);
        }
        self.seal_tail();
        self.chunks.push_back((data, Origin::Referenced));
    }

    fn push_copied(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            if self.tail.len() >= BLOCK_LEN_MAX {
                self.seal_tail();
            }
            let room = BLOCK_LEN_MAX - self.tail.len();
            let (now, later) = data.split_at(data.len().min(room));
            let spare = self.tail.capacity() - self.tail.len();
            // What has been read from the front of a block is used again.
            if spare < now.len() && !self.tail.try_reclaim(now.len()) {
                let wanted = (self.tail.len() + now.len()).next_power_of_two();
                let wanted = wanted.clamp(BLOCK_LEN_MIN, BLOCK_LEN_MAX);
                let mut block = BytesMut::with_capacity(wanted);
                block.extend_from_slice(&self.tail);
                self.tail = block;
            }
            self.tail.extend_from_slice(now);
            data = later;
        }
    }

    fn copy_referenced(&mut self) {
        let referenced = |(_, origin): &Chunk| *origin == Origin::Referenced;
        if !self.chunks.iter().any(referenced) {
            return;
        }
        for chunk in std::mem::take(&mut self.chunks) {
            if !referenced(&chunk) {
                self.chunks.push_back(chunk);
                continue;
            }
            for block in chunk.0.chunks(BLOCK_LEN_MAX) {
                self.chunks.push_back((Bytes::copy_from_slice(block), Origin::Copied));
            }
        }
    }

    /// Makes a chunk of the block.
    fn seal_tail(&mut self) {
        if !self.tail.is_empty() {
            let block = std::mem::take(&mut self.tail).freeze();
            self.chunks.push_back((block, Origin::Copied));
        }
    }
}

/// How much comes in `time` where `amount` comes in `elapsed`.
fn per_time(amount: u32, time: Duration, elapsed: Duration) -> u32 {
    let amount = u128::from(amount) * time.as_nanos();
    u32::try_from(amount / elapsed.as_nanos().max(1)).unwrap_or(u32::MAX)
}

/// Moves what there is room for.
fn move_to(from: &mut impl Buf, out: &mut dyn BufMut) {
    let count = from.chunk().len().min(out.remaining_mut());
    out.put_slice(from.chunk().get(..count).unwrap_or_default());
    from.advance(count);
}

#[cfg(test)]
impl RecvSide {
    pub(super) fn growth(&self) -> u32 {
        self.target - WINDOW_INITIAL
    }

    /// The capacities of all blocks, and of the queue that holds them.
    pub(super) fn held(&mut self) -> usize {
        let Some(held) = &mut self.held else { return 0 };
        let queue = size_of_val(held) + held.chunks.capacity() * size_of::<Chunk>();
        let mut blocks = held.tail.capacity();
        for (chunk, origin) in std::mem::take(&mut held.chunks) {
            let block = chunk.try_into_mut().expect("the only reference to its buffer");
            blocks += block.capacity();
            held.chunks.push_back((block.freeze(), origin));
        }
        queue + blocks
    }
}
