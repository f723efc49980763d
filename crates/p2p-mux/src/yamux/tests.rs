//! The session against raw bytes, in virtual time.

mod advisories;
mod fairness;
mod frames;
mod hostile;
mod limits;
mod link;
mod model;
mod points;
mod saturation;
mod session;
mod streams;
mod table;
mod windows;

use std::{
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes};
use p2p_core::{ErrorCode, Gather, MuxCore, MuxError, MuxEvent, Role, StreamError, StreamId};

use super::{Config, WINDOW_INITIAL, session::Session, windows::HostWindows};

const DATA: u8 = 0;
const UPDATE: u8 = 1;
const PING: u8 = 2;
const GO_AWAY: u8 = 3;

const SYN: u16 = 1;
const ACK: u16 = 2;
const FIN: u16 = 4;
const RST: u16 = 8;

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// A frame as it is on the wire.
#[derive(Clone, PartialEq, Eq)]
struct Frame {
    kind: u8,
    flags: u16,
    stream: u32,
    length: u32,
    body: Vec<u8>,
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, flags, stream, length, body } = self;
        write!(f, "(kind {kind} flags {flags} stream {stream} length {length} + {})", body.len())
    }
}

/// A frame without a body.
fn bare(kind: u8, flags: u16, stream: u32, length: u32) -> Frame {
    Frame { kind, flags, stream, length, body: Vec::new() }
}

/// A data frame.
fn data(flags: u16, stream: u32, body: &[u8]) -> Frame {
    let length = u32::try_from(body.len()).unwrap();
    Frame { kind: DATA, flags, stream, length, body: body.to_vec() }
}

impl Frame {
    fn encode(&self) -> Vec<u8> {
        let mut out = vec![0, self.kind];
        out.extend(self.flags.to_be_bytes());
        out.extend(self.stream.to_be_bytes());
        out.extend(self.length.to_be_bytes());
        out.extend(&self.body);
        out
    }

    fn decode_all(mut wire: &[u8]) -> Vec<Self> {
        let mut frames = Vec::new();
        while !wire.is_empty() {
            assert_eq!(wire.get_u8(), 0, "the version");
            let mut frame = Self {
                kind: wire.get_u8(),
                flags: wire.get_u16(),
                stream: wire.get_u32(),
                length: wire.get_u32(),
                body: Vec::new(),
            };
            if frame.kind == DATA {
                frame.body = wire.copy_to_bytes(frame.length as usize).to_vec();
            }
            frames.push(frame);
        }
        frames
    }
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

/// A config whose pings do not get in the way.
fn quiet() -> Config {
    Config::default().keep_alive(Duration::from_secs(86_400))
}

fn id(number: u32) -> StreamId {
    StreamId::new(number.into())
}

/// One session, its clock and the test as its peer.
struct Rig {
    session: Session,
    now: Instant,
}

impl Rig {
    /// A session that has sent its first ping and got the answer `round_trip` later.
    fn with(config: Config, role: Role, round_trip: Duration) -> Self {
        Self::fresh(config, role).measured(round_trip)
    }

    fn measured(mut self, round_trip: Duration) -> Self {
        let rig = &mut self;
        rig.session.handle_timeout(rig.now).unwrap();
        assert_eq!(rig.frames(), [bare(PING, SYN, 0, 1)]);
        rig.now += round_trip;
        rig.hear(&bare(PING, ACK, 0, 1)).unwrap();
        self
    }

    /// A session that has not been asked for anything yet.
    fn fresh(config: Config, role: Role) -> Self {
        let host = HostWindows::new(&config);
        Self::of_host(config, role, host)
    }

    /// The same for one of the sessions of a host.
    fn of_host(config: Config, role: Role, host: Arc<HostWindows>) -> Self {
        let now = Instant::now();
        Self { session: Session::new(config, host, role, now), now }
    }

    fn server() -> Self {
        Self::with(quiet(), Role::Responder, Duration::ZERO)
    }

    fn client() -> Self {
        Self::with(quiet(), Role::Initiator, Duration::ZERO)
    }

    fn hear_bytes(&mut self, wire: &[u8]) -> Result<(), MuxError> {
        self.session.handle_data(Bytes::copy_from_slice(wire), self.now)
    }

    fn hear(&mut self, frame: &Frame) -> Result<(), MuxError> {
        self.hear_bytes(&frame.encode())
    }

    fn hear_all(&mut self, frames: &[Frame]) {
        for frame in frames {
            self.hear(frame).unwrap();
        }
    }

    /// Everything that the session has to send now.
    fn say(&mut self) -> Vec<u8> {
        let mut out = Gather::new();
        while self.session.has_transmit() {
            self.session.poll_transmit(1 << 17, &mut out, self.now);
        }
        out.copy_to_bytes(out.len()).to_vec()
    }

    fn frames(&mut self) -> Vec<Frame> {
        Frame::decode_all(&self.say())
    }

    fn events(&mut self) -> Vec<MuxEvent> {
        std::iter::from_fn(|| self.session.poll_event()).collect()
    }

    /// Lets time pass, stopping at every timeout on the way.
    fn pass(&mut self, time: Duration) -> Result<(), MuxError> {
        let end = self.now + time;
        while let Some(due) = self.session.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.session.handle_timeout(self.now)?;
        }
        self.now = end;
        Ok(())
    }

    /// Opens a stream here and has the peer acknowledge it.
    fn opened(&mut self) -> StreamId {
        let id = self.open();
        self.frames();
        self.hear(&bare(UPDATE, ACK, number(id), 0)).unwrap();
        id
    }

    fn open(&mut self) -> StreamId {
        match self.session.open() {
            Poll::Ready(Ok(id)) => id,
            Poll::Ready(Err(error)) => panic!("no stream: {error}"),
            Poll::Pending => panic!("no stream now"),
        }
    }

    /// Has the peer open a stream, and accepts and acknowledges it.
    fn accepted(&mut self, number: u32) -> StreamId {
        self.hear(&bare(UPDATE, SYN, number, 0)).unwrap();
        let id = self.session.accept().unwrap();
        self.pass(20 * MILLI).unwrap();
        assert_eq!(self.frames(), [bare(UPDATE, ACK, number, 0)]);
        id
    }

    fn write(&mut self, id: StreamId, data: &[u8]) -> usize {
        match self.session.write_slice(id, data) {
            Poll::Ready(Ok(count)) => count,
            Poll::Ready(Err(error)) => panic!("cannot write: {error}"),
            Poll::Pending => 0,
        }
    }

    /// Reads everything that is there.
    fn read_all(&mut self, id: StreamId) -> (Vec<u8>, End) {
        let mut all = Vec::new();
        loop {
            match self.session.read(id, usize::MAX) {
                Poll::Ready(Ok(Some(chunk))) => all.extend_from_slice(&chunk),
                Poll::Ready(Ok(None)) => return (all, End::Fin),
                Poll::Ready(Err(error)) => return (all, End::of(&error)),
                Poll::Pending => return (all, End::Open),
            }
        }
    }

    fn release(&mut self, id: StreamId) {
        self.session.release_send(id);
        self.session.release_recv(id);
    }

    fn write_error(&mut self, id: StreamId) -> Option<End> {
        match self.session.write_slice(id, b"x") {
            Poll::Ready(Err(error)) => Some(End::of(&error)),
            Poll::Ready(Ok(_)) | Poll::Pending => None,
        }
    }

    /// The stream's error, if it has one.
    fn stopped(&mut self, id: StreamId) -> Option<End> {
        match self.session.stopped(id) {
            Poll::Ready(error) => Some(End::of(&error)),
            Poll::Pending => None,
        }
    }

    /// The time that the session has heard of last.
    fn session_clock(&self) -> Instant {
        self.session.clock()
    }

    fn is_empty(&self) -> bool {
        self.session.counters() == super::session::Counters::default()
    }
}

/// How reading went on, in a form that can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    Fin,
    Reset(u32),
    ResetLocally(u32),
    Finished,
    Connection,
}

impl End {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the others are not a multiplexer's")]
    fn of(error: &StreamError) -> Self {
        match error {
            StreamError::Reset(code) => Self::Reset(code.value()),
            StreamError::ResetLocally(code) => Self::ResetLocally(code.value()),
            StreamError::Finished => Self::Finished,
            StreamError::Connection(_) => Self::Connection,
            other => panic!("not an error of a multiplexer: {other}"),
        }
    }
}

fn number(id: StreamId) -> u32 {
    u32::try_from(id.value()).unwrap()
}

fn code(value: u32) -> ErrorCode {
    ErrorCode::new(value)
}
