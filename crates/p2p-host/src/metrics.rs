//! What the host tells the `metrics` facade. The names, their labels and units are in
//! `docs/metrics.md`; what stands here is told to the recorder when a host is made.
//!
//! Only the figures of streams are on a hot path. Their handles are taken once for each protocol:
//! a read or write costs one atomic addition, and no lock.

use std::{
    collections::HashMap,
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, PoisonError, RwLock},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use metrics::{
    Counter, Gauge, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};
use p2p_core::{
    ConnectionInfo, ErrorCode, Multiaddr, ProtocolId, RecvHalf, Role, SendHalf, Stream,
    StreamError, multiaddr::Protocol,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    Cause, DialAttempt, LimitReached, OpenError, Stage, connection::direction, ip::is_relayed,
    ping::PingError,
};

/// Protocols that have figures of their own; those that come later share `other`.
const PROTOCOLS_MAX: usize = 256;
const OTHER: &str = "other";

const CONNECTIONS: &str = "p2p_connections";
const CONNECTIONS_OPENED: &str = "p2p_connections_opened_total";
const CONNECTIONS_CLOSED: &str = "p2p_connections_closed_total";
const HANDSHAKE: &str = "p2p_handshake_seconds";
const DIALS: &str = "p2p_dials_total";
const INBOUND_FAILED: &str = "p2p_inbound_failed_total";
const STREAMS: &str = "p2p_streams";
const STREAMS_OPENED: &str = "p2p_streams_opened_total";
const BYTES: &str = "p2p_bytes_total";
const BUFFERED: &str = "p2p_buffered_bytes";
const REFUSED: &str = "p2p_refused_total";
const PINGS: &str = "p2p_pings_total";
const PING: &str = "p2p_ping_seconds";
const IDENTIFY: &str = "p2p_identify_total";

/// What a host keeps of its metrics: the handles of each protocol.
#[derive(Debug)]
pub(crate) struct Metrics {
    protocols: RwLock<HashMap<ProtocolId, Arc<OfProtocol>>>,
}

/// The handles of one protocol.
#[derive(Debug)]
struct OfProtocol {
    sent: Counter,
    received: Counter,
    inbound: OfDirection,
    outbound: OfDirection,
}

#[derive(Debug)]
struct OfDirection {
    open: Gauge,
    opened: Counter,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        describe();
        Self { protocols: RwLock::default() }
    }

    /// Counts a stream of a protocol until the guard is dropped, and its bytes.
    pub(crate) fn meter(
        &self,
        stream: Stream,
        protocol: &ProtocolId,
        role: Role,
    ) -> (Stream, StreamOpen) {
        let of_protocol = self.of(protocol);
        let (sent, received) = (of_protocol.sent.clone(), of_protocol.received.clone());
        let stream = stream
            .map_send(|inner| Box::new(CountedSend { inner, sent }))
            .map_recv(|inner| Box::new(CountedRecv { inner, received }));
        (stream, StreamOpen::new(of_protocol, role))
    }

    fn of(&self, protocol: &ProtocolId) -> Arc<OfProtocol> {
        let known = self.protocols.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.get(protocol) {
            return Arc::clone(found);
        }
        let label = if known.len() < PROTOCOLS_MAX { protocol.as_str() } else { OTHER };
        drop(known);
        let made = Arc::new(OfProtocol::new(label));
        if label == OTHER {
            return made;
        }
        let mut known = self.protocols.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(known.entry(protocol.clone()).or_insert(made))
    }
}

impl OfProtocol {
    fn new(protocol: &str) -> Self {
        let bytes = |direction: &'static str| counter!(BYTES, "protocol" => protocol.to_owned(), "direction" => direction);
        let streams = |role: Role| OfDirection {
            open: gauge!(STREAMS, "protocol" => protocol.to_owned(), "direction" => direction(role)),
            opened: counter!(
                STREAMS_OPENED, "protocol" => protocol.to_owned(), "direction" => direction(role)
            ),
        };
        Self {
            sent: bytes("sent"),
            received: bytes("received"),
            inbound: streams(Role::Responder),
            outbound: streams(Role::Initiator),
        }
    }

    fn of(&self, role: Role) -> &OfDirection {
        match role {
            Role::Initiator => &self.outbound,
            Role::Responder => &self.inbound,
        }
    }
}

/// A stream is open as long as this lives.
#[derive(Debug)]
pub(crate) struct StreamOpen {
    of_protocol: Arc<OfProtocol>,
    role: Role,
}

impl StreamOpen {
    fn new(of_protocol: Arc<OfProtocol>, role: Role) -> Self {
        let of_direction = of_protocol.of(role);
        of_direction.opened.increment(1);
        of_direction.open.increment(1.0);
        Self { of_protocol, role }
    }
}

impl Drop for StreamOpen {
    fn drop(&mut self) {
        self.of_protocol.of(self.role).open.decrement(1.0);
    }
}

/// A connection is open as long as this lives.
#[derive(Debug)]
pub(crate) struct ConnectionOpen {
    open: Gauge,
    closed: Counter,
}

impl ConnectionOpen {
    pub(crate) fn new(info: &ConnectionInfo) -> Self {
        let labels = [
            ("direction", direction(info.role()).to_owned()),
            ("transport", transport(info.remote()).to_owned()),
            ("security", security(info.security())),
        ];
        counter!(CONNECTIONS_OPENED, &labels).increment(1);
        let open = gauge!(CONNECTIONS, &labels);
        open.increment(1.0);
        Self { open, closed: counter!(CONNECTIONS_CLOSED, &labels) }
    }
}

impl Drop for ConnectionOpen {
    fn drop(&mut self) {
        self.open.decrement(1.0);
        self.closed.increment(1);
    }
}

/// A pipe was secured and multiplexed in so much time.
pub(crate) fn shook_hands(info: &ConnectionInfo, took: Duration) {
    let labels =
        [("direction", direction(info.role()).to_owned()), ("security", security(info.security()))];
    histogram!(HANDSHAKE, &labels).record(took);
}

/// How far the dial of one address has come, and with what result: `None` when it was neither made
/// nor failed, since another address was faster, time ran out or nobody waited any more.
pub(crate) fn dialed(stage: Stage, result: Option<Result<(), &Cause>>) {
    let result = match result {
        None => "unfinished",
        Some(Ok(())) => "connected",
        Some(Err(cause)) => result_of(cause),
    };
    counter!(DIALS, "result" => result, "stage" => stage.name()).increment(1);
}

/// Names of a dial that led nowhere.
pub(crate) fn unresolved(failures: &[DialAttempt]) {
    for DialAttempt { stage, cause, .. } in failures {
        dialed(*stage, Some(Err(cause)));
    }
}

/// A connection from outside came to nothing.
pub(crate) fn inbound_failed(stage: Stage, cause: &Cause) {
    counter!(INBOUND_FAILED, "result" => result_of(cause), "stage" => stage.name()).increment(1);
}

/// What all connections of a host hold, in bytes. Several hosts of a process are added up.
#[derive(Debug)]
pub(crate) struct Buffered(f64);

impl Buffered {
    pub(crate) fn new() -> Self {
        Self(0.0)
    }

    #[expect(clippy::cast_precision_loss, reason = "exact up to 8 PiB")]
    pub(crate) fn set(&mut self, bytes: usize) {
        let before = std::mem::replace(&mut self.0, bytes as f64);
        gauge!(BUFFERED).increment(self.0 - before);
    }
}

impl Drop for Buffered {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// A limit has refused something.
pub(crate) fn refused(limit: &LimitReached) {
    let name = limit.setting.and_then(|setting| setting.rsplit("::").next());
    counter!(REFUSED, "limit" => name.unwrap_or(limit.what)).increment(1);
}

/// A list or the gater has refused something.
pub(crate) fn denied() {
    counter!(REFUSED, "limit" => "denied").increment(1);
}

pub(crate) fn pinged(result: &Result<Duration, PingError>) {
    if let Ok(round_trip) = result {
        histogram!(PING).record(*round_trip);
    }
    let result = match result {
        Ok(_) => "answered",
        Err(PingError::Open(error)) => result_of_open(error),
        Err(PingError::TimedOut(_)) => "timed_out",
        Err(PingError::Mismatch) => "mismatch",
        Err(PingError::Stream(_) | PingError::Randomness(_)) => "failed",
    };
    counter!(PINGS, "result" => result).increment(1);
}

pub(crate) fn identified(result: Result<(), &OpenError>) {
    let result = result.map_or_else(result_of_open, |()| "answered");
    counter!(IDENTIFY, "result" => result).increment(1);
}

#[expect(clippy::wildcard_enum_match_arm, reason = "what has no name of its own is a failure")]
fn result_of_open(error: &OpenError) -> &'static str {
    match error {
        OpenError::Unsupported { .. } => "unsupported",
        OpenError::Stream { cause, .. } => result_of(cause),
        _ => "failed",
    }
}

/// What a cause is counted as: this side's refusal, time that ran out, or a failure.
fn result_of(cause: &Cause) -> &'static str {
    match cause {
        Cause::TimedOut(_) => "timed_out",
        Cause::Limit(_)
        | Cause::Denied(_)
        | Cause::BackedOff(_)
        | Cause::NoTransport
        | Cause::NoResolver
        | Cause::NamesLimit { .. }
        | Cause::Unspecified
        | Cause::SelfDial => "refused",
        Cause::Transport(_)
        | Cause::Io(_)
        | Cause::Closed
        | Cause::Negotiation(_)
        | Cause::Security(_)
        | Cause::Stream(_)
        | Cause::Connection(_)
        | Cause::Resolve { .. } => "failed",
    }
}

/// The last protocol of an address that is a transport.
#[expect(clippy::wildcard_enum_match_arm, reason = "the rest of an address is no transport")]
fn transport(addr: &Multiaddr) -> &'static str {
    if is_relayed(addr) {
        return "relay";
    }
    let known = addr.iter().filter_map(|part| match part {
        Protocol::Tcp(_) => Some("tcp"),
        Protocol::Ws(_) => Some("ws"),
        Protocol::Wss(_) => Some("wss"),
        Protocol::QuicV1 => Some("quic-v1"),
        Protocol::WebTransport => Some("webtransport"),
        Protocol::WebRTCDirect => Some("webrtc-direct"),
        Protocol::Memory(_) => Some("memory"),
        Protocol::Unix(_) => Some("unix"),
        _ => None,
    });
    known.last().unwrap_or(OTHER)
}

/// There are as many secure channels as the host was given.
fn security(name: Option<&ProtocolId>) -> String {
    name.map_or_else(|| "none".into(), ToString::to_string)
}

fn describe() {
    for (name, unit, text) in [
        (CONNECTIONS_OPENED, Unit::Count, "connections that were made"),
        (CONNECTIONS_CLOSED, Unit::Count, "connections that have ended"),
        (DIALS, Unit::Count, "dials of one address, by result and the stage they came to"),
        (INBOUND_FAILED, Unit::Count, "inbound connections that came to nothing"),
        (STREAMS_OPENED, Unit::Count, "streams whose protocol was agreed"),
        (BYTES, Unit::Bytes, "bytes that applications have read and written"),
        (REFUSED, Unit::Count, "what was refused, by the limit"),
        (PINGS, Unit::Count, "pings, by result"),
        (IDENTIFY, Unit::Count, "questions to a new connection's peer, by result"),
    ] {
        describe_counter!(name, unit, text);
    }
    for (name, unit, text) in [
        (CONNECTIONS, Unit::Count, "connections that are open"),
        (STREAMS, Unit::Count, "streams that are open"),
        (BUFFERED, Unit::Bytes, "received and not read, written and not sent"),
    ] {
        describe_gauge!(name, unit, text);
    }
    for (name, text) in [
        (HANDSHAKE, "from the first byte to the multiplexer, of connections that were made"),
        (PING, "round trips"),
    ] {
        describe_histogram!(name, Unit::Seconds, text);
    }
}

/// A receiving half whose bytes are counted.
struct CountedRecv {
    inner: Box<dyn RecvHalf>,
    received: Counter,
}

impl RecvHalf for CountedRecv {
    fn poll_chunk(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
    ) -> Poll<Result<Option<Bytes>, StreamError>> {
        let chunk = ready!(self.inner.poll_chunk(cx, max));
        if let Ok(Some(chunk)) = &chunk {
            self.received.increment(chunk.len() as u64);
        }
        Poll::Ready(chunk)
    }

    fn set_deadline(&mut self, at: Option<Instant>) {
        self.inner.set_deadline(at);
    }

    fn stop(&mut self, code: ErrorCode) {
        self.inner.stop(code);
    }

    fn reset(&mut self, code: ErrorCode) {
        self.inner.reset(code);
    }
}

impl AsyncRead for CountedRecv {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = ready!(Pin::new(&mut self.inner).poll_read(cx, buf));
        let count = buf.filled().len().saturating_sub(before);
        if count > 0 {
            self.received.increment(count as u64);
        }
        Poll::Ready(result)
    }
}

/// A sending half whose bytes are counted.
struct CountedSend {
    inner: Box<dyn SendHalf>,
    sent: Counter,
}

impl CountedSend {
    fn count(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = result {
            self.sent.increment(count as u64);
        }
        result
    }
}

impl SendHalf for CountedSend {
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        data: &mut Bytes,
    ) -> Poll<Result<(), StreamError>> {
        let before = data.len();
        let result = self.inner.poll_send(cx, data);
        let count = before.saturating_sub(data.len());
        if count > 0 {
            self.sent.increment(count as u64);
        }
        result
    }

    fn set_deadline(&mut self, at: Option<Instant>) {
        self.inner.set_deadline(at);
    }

    fn reset(&mut self, code: ErrorCode) {
        self.inner.reset(code);
    }

    fn poll_stopped(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        self.inner.poll_stopped(cx)
    }

    fn set_protocol(&mut self, protocol: &ProtocolId) {
        self.inner.set_protocol(protocol);
    }
}

impl AsyncWrite for CountedSend {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.count(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.count(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transport_is_one_of_few_names() {
        for (addr, name) in [
            ("/ip4/192.0.2.1/tcp/1", "tcp"),
            ("/ip4/192.0.2.1/tcp/1/ws", "ws"),
            ("/ip4/192.0.2.1/udp/1/quic-v1", "quic-v1"),
            ("/ip4/192.0.2.1/udp/1/quic-v1/webtransport", "webtransport"),
            ("/ip4/192.0.2.1/tcp/1/p2p-circuit", "relay"),
            ("/memory/7", "memory"),
            ("/dns/example.com", "other"),
        ] {
            assert_eq!(transport(&addr.parse().unwrap()), name, "{addr}");
        }
    }

    /// Names that a program makes up as it runs must not become labels without end.
    #[test]
    fn protocols_beyond_the_bound_share_a_label() {
        let metrics = Metrics::new();
        for number in 0..1000 {
            metrics.of(&ProtocolId::new(&format!("/made/up/{number}")).unwrap());
        }
        assert_eq!(metrics.protocols.read().unwrap().len(), PROTOCOLS_MAX);
    }
}
