//! Input: from the peer's bytes to changes of streams. Every check of a header stands before any
//! state is made; bodies are handed on piece by piece.

use bytes::{Buf, Bytes};
use p2p_core::{ErrorCode, MuxError, MuxEvent, StreamError, StreamId};

use super::{
    super::{
        frame::{HEADER_LEN_MAX, Header, Kind, is_inbound, number},
        stream::{RecvPhase, StreamState},
    },
    Phase, RESETS_MAX, STRAYS_MAX, Session, UNACCEPTED_MAX,
};

/// Received chunks of at least this many bytes are kept by reference, where the driver allows it.
const REFERENCED_LEN_MIN: usize = 4 << 10;
/// Refusals that wait to be sent. A peer that causes more does not read them.
const REFUSALS_MAX: usize = 1000;
/// Messages in a row that carry nothing.
const EMPTY_FRAMES_MAX: u32 = 100;
/// What may still come on a stream that nobody reads before it is reset, in bytes.
const DROPPED_MAX: usize = 256 << 10;

/// Where in a frame the incoming bytes are.
#[derive(Debug)]
pub(super) enum Incoming {
    Header {
        bytes: [u8; HEADER_LEN_MAX],
        have: usize,
    },
    /// The body of a message; or of anything else, which nobody gets.
    Body {
        stream: Option<StreamId>,
        left: u32,
    },
}

impl Incoming {
    pub(super) const fn next_header() -> Self {
        Self::Header { bytes: [0; HEADER_LEN_MAX], have: 0 }
    }
}

impl Session {
    pub(super) fn handle_piece(&mut self, plain: &mut Bytes) -> Result<(), MuxError> {
        match &mut self.incoming {
            Incoming::Header { bytes, have } => {
                let before = *have;
                for (slot, byte) in bytes.iter_mut().skip(before).zip(plain.iter()) {
                    *slot = *byte;
                    *have += 1;
                }
                match Header::decode(bytes.get(..*have).unwrap_or_default())? {
                    // No part of a valid header is as long as `bytes`.
                    None => plain.clear(),
                    Some((header, len)) => {
                        plain.advance(len.saturating_sub(before));
                        let stream = self.handle_header(header)?;
                        self.incoming = match header.len {
                            0 => Incoming::next_header(),
                            left => Incoming::Body { stream, left },
                        };
                    }
                }
            }
            Incoming::Body { stream, left } => {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(plain.len());
                let piece = plain.split_to(count);
                *left -= u32::try_from(count).expect("no more than `left`, which is a u32");
                let (stream, whole) = (*stream, *left == 0);
                if whole {
                    self.incoming = Incoming::next_header();
                }
                if let Some(stream) = stream {
                    self.on_piece(stream, piece);
                }
            }
        }
        Ok(())
    }

    /// Gives the stream that the body is for, if anybody wants it.
    fn handle_header(&mut self, header: Header) -> Result<Option<StreamId>, MuxError> {
        let empty = header.kind == Kind::Message && header.len == 0;
        self.count_empty(empty)?;
        if header.kind == Kind::Open {
            self.on_open(header.stream)?;
            return Ok(None);
        }
        let stream = self.streams.get(&header.stream);
        let wanted = |s: &StreamState| s.error.is_none() && s.recv.phase != RecvPhase::Ended;
        if !stream.is_some_and(|s| wanted(s) || s.error.is_none() && header.kind == Kind::Reset) {
            self.spend_stray()?;
            return Ok(None);
        }
        match header.kind {
            Kind::Message => return Ok(Some(header.stream)),
            Kind::Close => self.on_close(header.stream),
            Kind::Reset => self.on_reset(header.stream)?,
            Kind::Open => {}
        }
        Ok(None)
    }

    fn on_open(&mut self, id: StreamId) -> Result<(), MuxError> {
        if self.streams.contains_key(&id) {
            return Err(MuxError::OpenedTwice(number(id)));
        }
        let full = self.inbound >= self.config.streams_inbound_max
            || self.unaccepted.len() >= UNACCEPTED_MAX;
        if full || self.refuse_inbound || self.phase != Phase::Open {
            self.spend_reset()?;
            if self.refusals.len() >= REFUSALS_MAX {
                let limit = u32::try_from(REFUSALS_MAX).unwrap_or(u32::MAX);
                return Err(MuxError::Flood { what: "refused streams", limit });
            }
            self.refusals.push_back(id);
            return Ok(());
        }
        self.streams.insert(id, StreamState::new(true));
        self.inbound += 1;
        self.unaccepted.push_back(id);
        self.events.push_back(MuxEvent::Acceptable);
        Ok(())
    }

    fn on_piece(&mut self, id: StreamId, piece: Bytes) {
        let Some(stream) = self.streams.get_mut(&id).filter(|s| s.error.is_none()) else { return };
        if stream.recv.phase != RecvPhase::Open {
            stream.recv.dropped = stream.recv.dropped.saturating_add(piece.len());
            if stream.recv.dropped > DROPPED_MAX {
                let code = stream.recv.given_up.unwrap_or(ErrorCode::NONE);
                self.reset_stream(id, code);
            }
            return;
        }
        let held = stream.recv.received.held();
        if held.saturating_add(piece.len()) > self.config.stream_received_max {
            self.overflow(id);
            return;
        }
        self.make_room(piece.len());
        let Some(stream) = self.streams.get_mut(&id).filter(|s| s.error.is_none()) else { return };
        if piece.len() >= REFERENCED_LEN_MIN && !self.lent {
            stream.recv.received.push_referenced(piece);
        } else {
            stream.recv.received.push_copied(&piece);
        }
        self.held = self.held - held + stream.recv.received.held();
        self.tell_reader(id);
    }

    /// A stream's reader is too far behind: it may read what has come, and then hears of it.
    fn overflow(&mut self, id: StreamId) {
        self.schedule_reset(id);
        self.abandon_stream(id, StreamError::ResetLocally(ErrorCode::STREAM_RESOURCE_LIMIT));
    }

    /// Ends the streams that hold most until `len` more bytes fit the connection's limit. A
    /// stream that holds little does not pay for one that holds much.
    fn make_room(&mut self, len: usize) {
        while self.held > 0
            && self.held.saturating_add(len) > self.config.connection_received_max
            && let Some((_, id)) =
                self.streams.iter().map(|(id, s)| (s.recv.received.held(), *id)).max()
        {
            self.overflow(id);
            self.drop_received(id);
            let Some(stream) = self.streams.get_mut(&id) else { return };
            stream.recv.given_up.get_or_insert(ErrorCode::STREAM_RESOURCE_LIMIT);
            if !stream.accepted {
                self.disown(id);
            }
        }
    }

    /// A stream that was not accepted never will be.
    fn disown(&mut self, id: StreamId) {
        self.unaccepted.retain(|waiting| *waiting != id);
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.send_held = false;
            stream.recv_held = false;
        }
        self.forget_if_over(id);
    }

    fn on_close(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.recv.phase = RecvPhase::Ended;
            self.tell_reader(id);
            self.forget_if_over(id);
        }
    }

    fn on_reset(&mut self, id: StreamId) -> Result<(), MuxError> {
        // A stream of ours cost this side an opening: the peer cannot make many.
        if is_inbound(id) {
            self.spend_reset()?;
        }
        self.kill_stream(id, StreamError::Reset(ErrorCode::NONE));
        if self.streams.get(&id).is_some_and(|s| !s.accepted) {
            self.disown(id);
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

    fn spend_stray(&mut self) -> Result<(), MuxError> {
        if self.strays.spend(self.now) {
            return Ok(());
        }
        Err(MuxError::Flood { what: "frames of no stream", limit: STRAYS_MAX })
    }

    fn count_empty(&mut self, empty: bool) -> Result<(), MuxError> {
        self.empty_frames = if empty { self.empty_frames.saturating_add(1) } else { 0 };
        if self.empty_frames > EMPTY_FRAMES_MAX {
            return Err(MuxError::Flood { what: "empty frames in a row", limit: EMPTY_FRAMES_MAX });
        }
        Ok(())
    }
}
