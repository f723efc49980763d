//! Output: from what is due to frames. The session's own go first (pong, ping), then the streams'
//! control frames (RST, credit, SYN or ACK alone), then data, where streams that have just become
//! active go before those that send in bulk.

use p2p_core::Gather;

use super::{
    super::{
        frame::{Flags, HEADER_LEN, Header, Kind},
        stream::{Opening, RecvPhase, SendPhase},
    },
    Goodbye, Session,
};

/// The largest body of a data frame that is sent: with its header it fills one Noise record.
pub(super) const BODY_LEN_MAX: usize = 65_519 - HEADER_LEN;
/// A rest of fewer bytes is no frame of its own, behind a full one: they become two halves. 64 KiB are
/// a little more than one frame, and many write so much at once.
const REST_LEN_MIN: usize = 4 << 10;
/// What a stream that has just become active may send before those that send in bulk, in bytes.
const URGENT_LEN_MAX: usize = 16 << 10;
/// Frames of streams that have just become active that may go ahead of one bulk frame: what is
/// about one turn of the driver.
const URGENT_RUN_MAX: u32 = 8;
/// What headers are written to at once, in bytes.
const HEADERS_LEN: usize = 64 * HEADER_LEN;

impl Session {
    pub(super) fn transmit(&mut self, budget: usize, frames: &mut Gather) {
        self.headers.reserve(HEADERS_LEN);
        if !matches!(self.goodbye, Goodbye::Now(_)) {
            self.transmit_session();
            while let Some(id) = self.control.pop_front() {
                self.transmit_control(id);
            }
            self.transmit_streams(budget, frames);
            self.call_next();
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

    fn put_header(&mut self, kind: Kind, flags: Flags, stream: u32, length: u32) {
        Header { kind, flags, stream, length }.encode(&mut self.headers);
    }

    fn transmit_session(&mut self) {
        while let Some(value) = self.pongs.pop_front() {
            self.put_header(Kind::Ping, Flags::ACK, 0, value);
        }
        if std::mem::take(&mut self.ping.to_send) {
            self.ping.sent_at = Some(self.now);
            self.ping.due = self.now + self.config.keep_alive;
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
        if let Some(code) = stream.take_reset() {
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
            let protocol = self.names.get(stream.protocol);
            stream.recv.grant(self.now, round_trip, protocol, &mut self.windows, &self.config)
        } else {
            0
        };
        let mut flags = stream.opening_flags();
        // py-libp2p does not take what comes with a SYN.
        if credit > 0 && flags == Flags::SYN {
            self.put_header(Kind::WindowUpdate, flags, id, 0);
            flags = Flags::NONE;
        }
        if credit > 0 || flags != Flags::NONE {
            self.put_header(Kind::WindowUpdate, flags, id, credit);
        }
        if credit > 0 {
            self.measure();
        }
    }

    /// Sends one data frame of at most `max` bytes of a stream, and FIN after its last one. True
    /// when more is queued.
    ///
    /// FIN rides on no body, as in all other implementations: js-libp2p 3 drops the body of such
    /// a frame (YAMUX-16).
    fn transmit_data(&mut self, id: u32, max: usize, frames: &mut Gather) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else { return false };
        let queued = stream.send.queued();
        let count = if (max + 1..max + REST_LEN_MIN).contains(&queued) {
            queued.div_ceil(2)
        } else {
            queued.min(max)
        };
        let more = queued > count;
        stream.in_ready = more;
        let end = match stream.send.phase {
            SendPhase::Open => false,
            SendPhase::Finishing => !more,
            SendPhase::Dead | SendPhase::Finished => return false,
        };
        let mut flags = stream.opening_flags();
        if count > 0 || !end {
            let length = u32::try_from(count).expect("a body is at most 64 KiB");
            Header { kind: Kind::Data, flags, stream: id, length }.encode(&mut self.headers);
            let (headers, spares) = (&mut self.headers, &mut self.stock.spares);
            if !stream.send.copy_small(count, spares, headers) {
                frames.push(headers.split().freeze());
                stream.send.take(count, spares, |chunk| frames.push(chunk));
            }
            self.queued -= count;
            flags = Flags::NONE;
        }
        if end {
            flags = flags.with(Flags::FIN, true);
            Header { kind: Kind::Data, flags, stream: id, length: 0 }.encode(&mut self.headers);
            frames.push(self.headers.split().freeze());
            stream.send.phase = SendPhase::Finished;
            self.forget_if_over(id);
        }
        more
    }

    fn transmit_streams(&mut self, budget: usize, frames: &mut Gather) {
        let full = frames.len().saturating_add(budget);
        while frames.len() + self.headers.len() < full
            && let Some((id, max)) = self.next_ready()
        {
            if self.transmit_data(id, max, frames) {
                self.bulk.push_back(id);
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
}
