//! What tests look at in a session.

use p2p_core::StreamId;

use super::{
    super::{frame::is_inbound, stream::StreamState},
    Session,
};

#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::mplex) struct Counters {
    pub(in crate::mplex) streams: usize,
    pub(in crate::mplex) inbound: usize,
    pub(in crate::mplex) outbound: usize,
    pub(in crate::mplex) unaccepted: usize,
    pub(in crate::mplex) opens_due: usize,
    pub(in crate::mplex) held: usize,
    pub(in crate::mplex) queued: usize,
}

impl Session {
    pub(in crate::mplex) fn counters(&self) -> Counters {
        Counters {
            streams: self.streams.len(),
            inbound: self.inbound,
            outbound: self.outbound,
            unaccepted: self.unaccepted.len(),
            opens_due: self.opens_due,
            held: self.held,
            queued: self.queued,
        }
    }

    /// The counters as they follow from the streams alone.
    pub(in crate::mplex) fn recount(&self) -> Counters {
        let count = |what: &dyn Fn(&StreamId, &StreamState) -> bool| {
            self.streams.iter().filter(|(id, stream)| what(id, stream)).count()
        };
        let sum = |what: fn(&StreamState) -> usize| self.streams.values().map(what).sum();
        Counters {
            streams: self.streams.len(),
            inbound: count(&|id, _| is_inbound(*id)),
            outbound: count(&|id, _| !is_inbound(*id)),
            unaccepted: count(&|_, s| !s.accepted && s.send_held),
            opens_due: count(&|_, s| s.open_due),
            held: sum(|s| s.recv.received.held()),
            queued: sum(|s| s.send.unsent.len()),
        }
    }

    /// The memory that received data may hold, in bytes.
    #[cfg(feature = "yamux")]
    pub(in crate::mplex) fn received_max(&self) -> usize {
        self.config.connection_received_max
    }

    /// The length of everything that could grow without a stream.
    pub(in crate::mplex) fn backlog(&self) -> usize {
        let queues = [&self.control, &self.ready, &self.refusals];
        queues.iter().map(|queue| queue.len()).sum::<usize>()
            + self.lingering.len()
            + self.opens.len()
            + self.events.len()
            + self.headers.len()
    }

    /// The memory that the stream's received data occupy as it is, payload or not, in bytes.
    pub(in crate::mplex) fn weigh(&mut self, id: StreamId) -> usize {
        self.streams.get_mut(&id).map_or(0, |stream| stream.recv.received.weigh())
    }

    pub(in crate::mplex) fn set_next_number(&mut self, number: u64) {
        self.next_number = number;
    }
}
