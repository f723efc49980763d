//! The session against raw bytes, in virtual time.

mod advisories;
mod driven;
mod frames;
mod limits;
#[cfg(feature = "yamux")]
mod model;
mod states;
mod streams;

use std::{
    task::Poll,
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes};
use p2p_core::{ErrorCode, Gather, MuxCore, MuxError, MuxEvent, StreamError, StreamId, varint};

use super::{
    Config,
    frame::{number, stream_id},
    session::{Counters, Session},
};

const OPEN: u8 = 0;
/// What the peer of the session sends on streams of the session.
const THEIRS_ON_OURS: Flags = Flags { message: 1, close: 3, reset: 5 };
/// What the peer sends on streams that it has opened itself.
const THEIRS_ON_THEIRS: Flags = Flags { message: 2, close: 4, reset: 6 };

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const LIMIT: End = End::ResetLocally(0x1002);

struct Flags {
    message: u8,
    close: u8,
    reset: u8,
}

/// A frame as it is on the wire.
fn frame(flag: u8, number: u64, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    varint::encode(number << 3 | u64::from(flag), &mut out);
    varint::encode(body.len() as u64, &mut out);
    out.extend_from_slice(body);
    out
}

/// Flag, stream number and body of every frame of `wire`.
fn decode_all(mut wire: &[u8]) -> Vec<(u8, u64, Vec<u8>)> {
    let next = |wire: &mut &[u8]| {
        let (value, len) = varint::decode(wire).unwrap().expect("a whole varint");
        wire.advance(len);
        value
    };
    let mut frames = Vec::new();
    while !wire.is_empty() {
        let header = next(&mut wire);
        let len = usize::try_from(next(&mut wire)).unwrap();
        let flag = u8::try_from(header & 7).unwrap();
        frames.push((flag, header >> 3, wire.copy_to_bytes(len).to_vec()));
    }
    frames
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

/// A config whose pace of opening does not get in the way.
fn brisk() -> Config {
    Config::default().opens_per_second_max(usize::MAX)
}

fn theirs(number: u64) -> StreamId {
    stream_id(number, true)
}

/// One session, its clock and the test as its peer.
struct Rig {
    session: Session,
    now: Instant,
}

impl Rig {
    fn with(config: Config) -> Self {
        let now = Instant::now();
        Self { session: Session::new(config, now), now }
    }

    fn new() -> Self {
        Self::with(brisk())
    }

    fn hear(&mut self, wire: &[u8]) -> Result<(), MuxError> {
        self.session.handle_data(Bytes::copy_from_slice(wire), self.now)
    }

    /// Hears one valid frame.
    fn take(&mut self, flag: u8, number: u64, body: &[u8]) {
        self.hear(&frame(flag, number, body)).unwrap();
    }

    /// Everything that the session has to send now.
    fn say(&mut self) -> Vec<u8> {
        let mut out = Gather::new();
        while self.session.has_transmit() {
            self.session.poll_transmit(1 << 17, &mut out, self.now);
        }
        out.copy_to_bytes(out.len()).to_vec()
    }

    fn frames(&mut self) -> Vec<(u8, u64, Vec<u8>)> {
        decode_all(&self.say())
    }

    /// The same, where no frame has a body.
    fn bare_frames(&mut self) -> Vec<(u8, u64)> {
        let frames = self.frames();
        assert!(frames.iter().all(|(_, _, body)| body.is_empty()), "{frames:?}");
        frames.into_iter().map(|(flag, number, _)| (flag, number)).collect()
    }

    fn events(&mut self) -> Vec<MuxEvent> {
        std::iter::from_fn(|| self.session.poll_event()).collect()
    }

    /// Lets time pass, stopping at every timeout on the way.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.session.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.session.handle_timeout(self.now).unwrap();
        }
        self.now = end;
    }

    fn open(&mut self) -> StreamId {
        match self.session.open() {
            Poll::Ready(Ok(id)) => id,
            Poll::Ready(Err(error)) => panic!("no stream: {error}"),
            Poll::Pending => panic!("no stream now"),
        }
    }

    /// Opens a stream here and tells the peer.
    fn opened(&mut self) -> StreamId {
        let id = self.open();
        assert_eq!(self.bare_frames(), [(OPEN, number(id))]);
        id
    }

    /// Has the peer open a stream, and accepts it.
    fn accepted(&mut self, number: u64) -> StreamId {
        self.take(OPEN, number, b"");
        let id = self.session.accept().unwrap();
        assert_eq!(id, theirs(number));
        self.events();
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
    fn read(&mut self, id: StreamId) -> (Vec<u8>, End) {
        let mut all = Vec::new();
        loop {
            match self.session.read(id, usize::MAX) {
                Poll::Ready(Ok(Some(chunk))) => all.extend_from_slice(&chunk),
                Poll::Ready(Ok(None)) => return (all, End::Close),
                Poll::Ready(Err(error)) => return (all, End::of(&error)),
                Poll::Pending => return (all, End::Open),
            }
        }
    }

    /// What a writer of nothing gets.
    fn writing(&mut self, id: StreamId) -> End {
        match self.session.write_slice(id, b"") {
            Poll::Ready(Err(error)) => End::of(&error),
            Poll::Ready(Ok(_)) | Poll::Pending => End::Open,
        }
    }

    fn release(&mut self, id: StreamId) {
        self.session.release_send(id);
        self.session.release_recv(id);
    }

    fn is_empty(&self) -> bool {
        assert_eq!(self.session.counters(), self.session.recount());
        self.session.counters() == Counters::default()
    }
}

/// How reading or writing goes on, in a form that can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    Close,
    Reset,
    ResetLocally(u32),
    Finished,
    Connection,
}

impl End {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the others are not a multiplexer's")]
    fn of(error: &StreamError) -> Self {
        match error {
            StreamError::Reset(ErrorCode::NONE) => Self::Reset,
            StreamError::ResetLocally(code) => Self::ResetLocally(code.value()),
            StreamError::Finished => Self::Finished,
            StreamError::Connection(_) => Self::Connection,
            other => panic!("not an error of this multiplexer: {other}"),
        }
    }
}
