//! Output: from what is due to frames. Refusals go first, then what opens and resets streams,
//! then data, a frame of each stream in turn.

use p2p_core::{Gather, MuxEvent, StreamId};

use super::{
    super::{
        frame::{Header, Kind},
        stream::SendPhase,
    },
    Phase, Session,
};
use crate::unsent::STREAM_MAX;

/// The largest body that is sent: with their headers four of them fill a Noise record, and a
/// stream waits for no more than that of each other one. go-libp2p sends 4 KiB, rust-libp2p
/// 8 KiB, and each accepts 1 MiB (MPLEX-08).
const BODY_SENT_MAX: usize = 16_374;
/// What headers are written to at once, in bytes.
const HEADERS_LEN: usize = 512;

impl Session {
    pub(super) fn transmit(&mut self, budget: usize, frames: &mut Gather) {
        self.headers.reserve(HEADERS_LEN);
        while let Some(id) = self.refusals.pop_front() {
            self.put_header(Kind::Reset, id, 0);
        }
        while let Some(id) = self.control.pop_front() {
            self.transmit_control(id);
        }
        let full = frames.len().saturating_add(budget);
        while frames.len() < full
            && let Some(id) = self.ready.pop_front()
        {
            if self.transmit_data(id, frames) {
                self.ready.push_back(id);
            } else if let Some(stream) = self.streams.get_mut(&id) {
                stream.in_ready = false;
            }
        }
        frames.push(self.headers.split().freeze());
        if self.phase == Phase::Closing && self.ready.is_empty() {
            self.phase = Phase::Closed;
        }
    }

    fn put_header(&mut self, kind: Kind, stream: StreamId, len: u32) {
        Header { kind, stream, len }.encode(&mut self.headers);
    }

    /// Sends what a stream has to say besides data: its opening or its reset.
    fn transmit_control(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.in_control = false;
        let reset = std::mem::take(&mut stream.reset_due);
        if std::mem::take(&mut stream.open_due) {
            self.opens_due -= 1;
            self.opens.push_back(self.now);
            self.put_header(Kind::Open, id, 0);
        }
        if reset {
            self.put_header(Kind::Reset, id, 0);
            self.forget_if_over(id);
        }
    }

    /// Sends at most one frame of data of a stream, and its close behind the last one. True when
    /// more is queued.
    fn transmit_data(&mut self, id: StreamId, frames: &mut Gather) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else { return false };
        let count = match stream.send.phase {
            SendPhase::Dead | SendPhase::Finished => return false,
            SendPhase::Open | SendPhase::Finishing => stream.send.unsent.len().min(BODY_SENT_MAX),
        };
        if count > 0 {
            let len = u32::try_from(count).expect("a body is at most 16 KiB");
            let header = Header { kind: Kind::Message, stream: id, len };
            header.encode(&mut self.headers);
            frames.push(self.headers.split().freeze());
            stream.send.unsent.take(count, |chunk| frames.push(chunk));
            self.queued -= count;
        }
        let left = stream.send.unsent.len();
        if left == 0 && stream.send.phase == SendPhase::Finishing {
            stream.send.phase = SendPhase::Finished;
            self.put_header(Kind::Close, id, 0);
            self.forget_if_over(id);
        } else if stream.send.blocked && left <= STREAM_MAX / 2 {
            stream.send.blocked = false;
            self.events.push_back(MuxEvent::Writable(id));
        }
        left > 0
    }
}
