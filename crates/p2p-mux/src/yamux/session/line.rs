//! The line of those who write and find no room: they are told in their order, each when there is
//! room for half of what it may queue or more, and nobody else has been told. Were all told at once, a little of each would fill the room, and
//! each little would be a frame, a wake-up here and another one at the peer.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use p2p_core::MuxEvent;

use super::{SEND_BUFFER_MAX, SEND_BUFFERS_MAX, Session, stream_id};
use crate::lingering::prune;

/// How long one who was told keeps its room. Where it does not come, since its task has given up
/// writing, it holds up the others for so long.
const CALL_MAX: Duration = Duration::from_millis(10);

#[derive(Debug, Default)]
pub(super) struct Line {
    waiting: VecDeque<u32>,
    /// The one that was told, and has not come yet.
    called: Option<u32>,
    /// Until when there may be one.
    due: Option<Instant>,
}

impl Line {
    /// When the next one is told in any case.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.filter(|_| !self.waiting.is_empty())
    }

    /// The one that was told has come, or will not.
    pub(super) fn answer(&mut self, id: u32) {
        self.called.take_if(|called| *called == id);
    }

    /// One that waited has found room by itself.
    pub(super) fn leave(&mut self, id: u32) {
        if let Some(place) = self.waiting.iter().position(|waiting| *waiting == id) {
            self.waiting.remove(place);
        }
    }

    pub(super) fn shrink_to_fit(&mut self) {
        self.waiting.shrink_to_fit();
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }
}

impl Session {
    /// Lets a writer wait that has found no room.
    pub(super) fn line_up(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.send.blocked = true;
        // One without credit is told when it has some.
        if !stream.send.in_line && stream.send.credit > 0 {
            stream.send.in_line = true;
            self.line.waiting.push_back(id);
            prune(&mut self.line.waiting, &self.streams, |id| *id);
        }
    }

    /// Whether the next one can be told.
    pub(super) fn may_call(&self) -> bool {
        let room = SEND_BUFFERS_MAX.saturating_sub(self.queued);
        self.line.called.is_none() && room >= SEND_BUFFER_MAX / 2 && !self.line.waiting.is_empty()
    }

    /// Tells the next one, if there is room.
    pub(super) fn call_next(&mut self) {
        while self.may_call()
            && let Some(id) = self.line.waiting.pop_front()
        {
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            stream.send.in_line = false;
            if std::mem::take(&mut stream.send.blocked) {
                self.line.called = Some(id);
                self.line.due.get_or_insert(self.now + CALL_MAX);
                self.events.push_back(MuxEvent::Writable(stream_id(id)));
            }
        }
    }

    /// Lets go of the one that was told and has not come.
    pub(super) fn end_call(&mut self) {
        if self.line.due.take_if(|due| *due <= self.now).is_some() {
            self.line.called = None;
            // As long as there is a line: a timer that is set anew for each of it costs more.
            self.line.due = (!self.line.waiting.is_empty()).then(|| self.now + CALL_MAX);
        }
    }
}
