//! What stands for the metrics without the feature `metrics`: nothing.

use std::time::Duration;

use p2p_core::{ConnectionInfo, ProtocolId, Role, Stream};

use crate::{Cause, DialAttempt, LimitReached, OpenError, Stage, ping::PingError};

#[derive(Debug)]
pub(crate) struct Metrics;

#[derive(Debug)]
pub(crate) struct StreamOpen;

#[derive(Debug)]
pub(crate) struct ConnectionOpen;

#[derive(Debug)]
pub(crate) struct Buffered;

impl Buffered {
    pub(crate) fn new() -> Self {
        Self
    }

    pub(crate) fn set(&mut self, _: usize) {}
}

impl Metrics {
    pub(crate) fn new() -> Self {
        Self
    }

    pub(crate) fn meter(&self, stream: Stream, _: &ProtocolId, _: Role) -> (Stream, StreamOpen) {
        (stream, StreamOpen)
    }
}

impl ConnectionOpen {
    pub(crate) fn new(_: &ConnectionInfo) -> Self {
        Self
    }
}

pub(crate) fn shook_hands(_: &ConnectionInfo, _: Duration) {}

pub(crate) fn dialed(_: Stage, _: Option<Result<(), &Cause>>) {}

pub(crate) fn unresolved(_: &[DialAttempt]) {}

pub(crate) fn inbound_failed(_: Stage, _: &Cause) {}

pub(crate) fn refused(_: &LimitReached) {}

pub(crate) fn denied() {}

pub(crate) fn pinged(_: &Result<Duration, PingError>) {}

pub(crate) fn identified(_: Result<(), &OpenError>) {}
