//! Input: from the peer's bytes to changes of streams. Every check of a header stands before any
//! state is made (CVE-2026-32314); bodies are handed on piece by piece.

use std::time::Duration;

use bytes::{Buf, Bytes};
use p2p_core::{ErrorCode, MuxError, MuxEvent, StreamError};

use super::{
    super::{
        WINDOW_INITIAL,
        frame::{Flags, HEADER_LEN, Header, Kind},
        stream::{Opening, RecvPhase, StreamState},
    },
    Goodbye, Session, UNACCEPTED_MAX, stream_id,
};
use crate::lingering::prune;

/// Received chunks of at least this many bytes are kept by reference, where the driver allows it.
const REFERENCED_LEN_MIN: usize = 4 << 10;
/// Pongs that wait to be sent; a ping beyond is not answered (YAMUX-35).
const PONGS_MAX: usize = 32;
/// Refusals that wait to be sent. A peer that causes more does not read them; js-libp2p may open
/// 1000 streams at once (YAMUX-44), all of them in one received buffer.
const REFUSALS_MAX: usize = 1000;
/// Frames in a row that carry nothing.
const EMPTY_FRAMES_MAX: u32 = 100;
/// Resets that the peer sends or causes: so many at once, and `RESETS_PER_SECOND` over time.
pub(super) const RESETS_MAX: u32 = 1000;
pub(super) const RESETS_PER_SECOND: u32 = 100;
/// How long an ACK may wait for a frame of its stream to ride on. Peers count streams that are
/// not acknowledged, but no peer times out on it (YAMUX-14).
const ACK_DELAY: Duration = Duration::from_millis(20);

/// Where in a frame the incoming bytes are.
#[derive(Debug)]
pub(super) enum Incoming {
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
    pub(super) const fn next_header() -> Self {
        Self::Header { bytes: [0; HEADER_LEN], have: 0 }
    }
}

impl Session {
    pub(super) fn handle_piece(&mut self, plain: &mut Bytes) -> Result<(), MuxError> {
        match &mut self.incoming {
            Incoming::Header { bytes, have } => {
                if let (0, Some(whole)) = (*have, plain.first_chunk()) {
                    let header = Header::decode(*whole)?;
                    plain.advance(HEADER_LEN);
                    return self.handle_header(header);
                }
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
                *left -= u32::try_from(count).expect("no more than `left`, which is a u32");
                let (stream, whole, end) = (*stream, *left == 0, *end);
                if whole {
                    self.incoming = Incoming::next_header();
                }
                let Some(stream) = stream else {
                    plain.advance(count);
                    return Ok(());
                };
                self.on_body(stream, plain, count, whole && !end);
                if whole && end {
                    self.on_fin(stream);
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
        let live = match self.begin_or_acknowledge(header)? {
            Some(stream) => {
                stream.recv.announce(header.length);
                true
            }
            None => false,
        };
        if live && end && header.length == 0 {
            self.on_fin(header.stream);
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
        let (Some(stream), Some(sum)) = (self.begin_or_acknowledge(header)?, sum) else {
            return Ok(());
        };
        stream.send.credit = sum;
        if credit > 0 && stream.send.blocked {
            self.line_up(header.stream);
            self.call_next();
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

    /// Handles SYN, ACK and RST. `None` when there is no stream to go on with.
    fn begin_or_acknowledge(
        &mut self,
        header: Header,
    ) -> Result<Option<&mut StreamState>, MuxError> {
        if header.flags.has(Flags::SYN) && !self.begin_inbound(header.stream)? {
            return Ok(None);
        }
        if header.flags.has(Flags::ACK)
            && let Some(stream) = self.streams.get_mut(&header.stream)
            && stream.opening == Opening::SynSent
        {
            stream.opening = Opening::Done;
            self.unacknowledged -= 1;
            self.tell_openers();
        }
        if header.flags.has(Flags::RST) {
            let code = match header.kind {
                Kind::WindowUpdate => header.length,
                Kind::Data | Kind::Ping | Kind::GoAway => 0,
            };
            if self.streams.contains_key(&header.stream) {
                self.on_reset(header.stream, ErrorCode::new(code))?;
            }
            return Ok(None);
        }
        Ok(self.streams.get_mut(&header.stream))
    }

    fn begin_inbound(&mut self, id: u32) -> Result<bool, MuxError> {
        let full = self.windows.inbound() >= self.config.streams_inbound_max
            || self.unaccepted.len() >= UNACCEPTED_MAX;
        if full
            || self.refuse_inbound
            || self.goodbye != Goodbye::None
            || !self.windows.begin_inbound()
        {
            self.spend_reset()?;
            if self.refusals.len() >= REFUSALS_MAX {
                let limit = u32::try_from(REFUSALS_MAX).unwrap_or(u32::MAX);
                return Err(MuxError::Flood { what: "refused streams", limit });
            }
            self.refusals.push_back(id);
            return Ok(false);
        }
        self.streams.insert(id, StreamState::new(true));
        self.unaccepted.push_back(id);
        prune(&mut self.acks, &self.streams, |(_, id)| *id);
        self.acks.push_back((self.now + ACK_DELAY, id));
        self.events.push_back(MuxEvent::Acceptable);
        Ok(true)
    }

    /// Takes the `len` bytes of a body that are at the front of `plain`. `more` says that this is
    /// the end of the frame, but not of the data.
    fn on_body(&mut self, id: u32, plain: &mut Bytes, len: usize, more: bool) {
        let Some(stream) = self.streams.get_mut(&id) else {
            plain.advance(len);
            return;
        };
        if stream.recv.phase != RecvPhase::Open {
            // Nobody reads: without a word the peer would wait for credit for ever.
            if more && stream.recv.window == 0 && stream.error.is_none() {
                let code = stream.recv.given_up.unwrap_or(ErrorCode::NONE);
                self.reset_stream(id, code);
            }
            plain.advance(len);
            return;
        }
        if len >= REFERENCED_LEN_MIN && !self.lent {
            stream.recv.push_referenced(plain.split_to(len), &mut self.spares);
        } else {
            stream.recv.push_copied(plain.get(..len).unwrap_or(plain), &mut self.spares);
            plain.advance(len);
        }
        if std::mem::take(&mut stream.recv.blocked) {
            self.events.push_back(MuxEvent::Readable(stream_id(id)));
        }
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
            stream.reset_due = false;
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
            self.ping.answered_at = Some(self.now);
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
}
