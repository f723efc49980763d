//! What tests look at in a session.

use std::time::Instant;

use p2p_core::StreamId;

use super::{
    super::stream::{Opening, RecvPhase, StreamState},
    Session,
};

#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::yamux) struct Counters {
    pub(in crate::yamux) streams: usize,
    pub(in crate::yamux) inbound: usize,
    pub(in crate::yamux) outbound: usize,
    pub(in crate::yamux) unacknowledged: usize,
    pub(in crate::yamux) unaccepted: usize,
    pub(in crate::yamux) queued: usize,
    pub(in crate::yamux) growth: u32,
}

impl Session {
    pub(in crate::yamux) fn counters(&self) -> Counters {
        Counters {
            streams: self.streams.len(),
            inbound: self.windows.inbound(),
            outbound: self.outbound,
            unacknowledged: self.unacknowledged,
            unaccepted: self.unaccepted.len(),
            queued: self.queued,
            growth: u32::try_from(self.windows.growth()).expect("far less"),
        }
    }

    /// The counters as they follow from the streams alone.
    pub(in crate::yamux) fn recount(&self) -> Counters {
        let count =
            |what: &dyn Fn(&StreamState) -> bool| self.streams.values().filter(|s| what(s)).count();
        Counters {
            streams: self.streams.len(),
            inbound: count(&|s| s.inbound),
            outbound: count(&|s| !s.inbound),
            unacknowledged: count(&|s| matches!(s.opening, Opening::SynDue | Opening::SynSent)),
            unaccepted: count(&|s| !s.accepted && s.send_held),
            queued: self.streams.values().map(|s| s.send.queued()).sum(),
            growth: self.streams.values().map(|s| s.recv.growth()).sum(),
        }
    }

    /// The length of everything that could grow without a stream.
    pub(in crate::yamux) fn backlog(&self) -> usize {
        let queues = [&self.control, &self.urgent, &self.bulk, &self.pongs, &self.refusals];
        queues.iter().map(|queue| queue.len()).sum::<usize>()
            + self.acks.len()
            + self.lingering.len()
            + self.line.len()
            + self.events.len()
            + self.headers.len()
    }

    /// The bytes that the stream's received data occupy, payload or not.
    pub(in crate::yamux) fn held(&mut self, id: StreamId) -> usize {
        self.live(id).map_or(0, |(_, stream)| stream.recv.held())
    }

    /// What is kept for the next streams that hold bytes.
    pub(in crate::yamux) fn kept(&self) -> usize {
        self.spares.len() + self.stock.spares.len()
    }

    pub(in crate::yamux) fn clock(&self) -> Instant {
        self.now
    }

    /// The lowest bit of this side's own streams.
    pub(in crate::yamux) fn parity(&self) -> u32 {
        self.next_id % 2
    }

    /// How much data a live stream may still get.
    pub(in crate::yamux) fn window(&self, id: u32) -> Option<u32> {
        let recv = &self.streams.get(&id)?.recv;
        Some(if recv.phase == RecvPhase::Ended { 0 } else { recv.window })
    }

    pub(in crate::yamux) fn set_next_id(&mut self, id: u32) {
        self.next_id = id;
    }
}
