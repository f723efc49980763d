//! One stream: what waits to be sent, and what waits to be read.
//!
//! ```text
//!  sending half                                  receiving half
//!
//!  Open ──finish──► Finishing ──close sent──►    Open ──close──► Ended (what came stays readable)
//!    │                 │            Finished      │
//!    └── reset, overflow, end ────► Dead          └─ stop ──► Stopped ──close──► Ended
//! ```

use p2p_core::{ErrorCode, ProtocolId, StreamError};

use crate::{received::Received, unsent::Unsent};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SendPhase {
    /// Takes data.
    Open,
    /// The end is queued behind the data.
    Finishing,
    /// The close was sent.
    Finished,
    /// Reset by either side, or the connection ended.
    Dead,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecvPhase {
    /// The peer may send.
    Open,
    /// The peer's close has arrived.
    Ended,
    /// Nobody reads any more; what arrives is dropped.
    Stopped,
}

#[derive(Debug)]
pub(super) struct StreamState {
    /// The application has it: an inbound stream waits for that.
    pub(super) accepted: bool,
    /// Ours, and the peer has not heard of it.
    pub(super) open_due: bool,
    /// A reset is to be sent.
    pub(super) reset_due: bool,
    pub(super) send: SendSide,
    pub(super) recv: RecvSide,
    /// By whom what it holds is counted.
    pub(super) protocol: Option<ProtocolId>,
    /// Set once the stream has ended early; what every later call gives.
    pub(super) error: Option<StreamError>,
    /// In the session's queue of streams with control frames to send.
    pub(super) in_control: bool,
    /// In the session's queue of streams with data to send.
    pub(super) in_ready: bool,
    pub(super) send_held: bool,
    pub(super) recv_held: bool,
}

/// The sending half.
#[derive(Debug)]
pub(super) struct SendSide {
    pub(super) phase: SendPhase,
    pub(super) unsent: Unsent,
    /// A writer waits for room.
    pub(super) blocked: bool,
}

/// The receiving half.
#[derive(Debug)]
pub(super) struct RecvSide {
    pub(super) phase: RecvPhase,
    pub(super) received: Received,
    /// A reader waits for data.
    pub(super) blocked: bool,
    /// What is left may not be read, and never looks complete: the application has given up, or
    /// the connection has dropped it for its limit.
    pub(super) given_up: Option<ErrorCode>,
    /// Bytes that came after that.
    pub(super) dropped: usize,
}

impl StreamState {
    pub(super) fn new(inbound: bool) -> Self {
        Self {
            accepted: !inbound,
            open_due: !inbound,
            reset_due: false,
            send: SendSide { phase: SendPhase::Open, unsent: Unsent::default(), blocked: false },
            recv: RecvSide {
                phase: RecvPhase::Open,
                received: Received::default(),
                blocked: false,
                given_up: None,
                dropped: 0,
            },
            protocol: None,
            error: None,
            in_control: false,
            in_ready: false,
            send_held: true,
            recv_held: true,
        }
    }

    /// Ends both directions early. What has arrived stays readable, and then comes `error`,
    /// unless the peer's close was there before.
    pub(super) fn abandon(&mut self, error: StreamError) {
        self.send.unsent.clear();
        self.send.phase = SendPhase::Dead;
        self.open_due = false;
        self.error.get_or_insert(error);
    }

    /// Whether both sides have ended their data in good order.
    pub(super) fn is_complete(&self) -> bool {
        self.send.phase == SendPhase::Finished && self.recv.phase == RecvPhase::Ended
    }

    /// Whether the session can forget the stream.
    pub(super) fn is_over(&self) -> bool {
        let sent = matches!(self.send.phase, SendPhase::Finished | SendPhase::Dead);
        let received = self.recv.phase == RecvPhase::Ended || self.error.is_some();
        !self.send_held && !self.recv_held && sent && received && !self.reset_due
    }
}

impl RecvSide {
    /// Whether something may still come that somebody wants.
    pub(super) fn is_owed(&self) -> bool {
        self.phase == RecvPhase::Open || !self.received.is_empty()
    }
}
