use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes};
use p2p_core::{ConnectionError, ErrorCode, Gather, Role, StreamError, StreamId, varint};

use super::{
    app::{App, Done, LEN_MAX, text},
    small_mplex,
};
use crate::input::Input;

const OPEN: u64 = 0;
/// Streams of both sides that `small_mplex` allows.
const STREAMS_MAX: usize = 8 + 4;
/// What `small_mplex` keeps of received data, in bytes.
const RECEIVED_MAX: usize = 256 << 10;
/// What the deprecated peers stand of streams that are opened within a second.
const OPENS_PER_SECOND_MAX: usize = 5;
/// What a session hears in one run, in bytes: then large frames become small.
const HEARD_MAX: usize = 1 << 20;

/// A session whose peer sends frames, nearly frames and anything else, between the commands of the
/// application and the passing of time.
///
/// What a stream delivers is what the peer has sent on it, and ends where the peer has ended it;
/// what waits to be read stays within the limit. What the session sends are well-formed frames of
/// streams that it has opened or heard of, with what was written, and no more streams in a second
/// than peers stand. Streams and answers are no more than the limits allow. After an error there
/// is nothing.
pub fn mplex_session(data: &[u8]) {
    let mut input = Input::new(data);
    let mut session = Session {
        app: App::new(&small_mplex(), Role::Initiator, Instant::now()),
        peer: Peer::default(),
        failed: false,
    };
    while !input.is_empty() {
        session.step(&mut input);
    }
    session.transmit(usize::MAX);
    session.drain();
}

/// The id under which the other side knows a stream.
pub(super) fn mirrored(id: StreamId) -> StreamId {
    StreamId::new(id.value() ^ 1)
}

struct Session {
    app: App,
    peer: Peer,
    failed: bool,
}

impl Session {
    fn step(&mut self, input: &mut Input) {
        let heard_before = self.peer.heard.headers;
        match input.byte() {
            0..=99 => {
                let frame = frame(input, self.peer.heard.total < HEARD_MAX);
                self.hear(&frame, input);
            }
            100..=103 => self.hear(input.bytes(), input),
            104..=199 => {
                let done = self.app.command(input);
                self.note(done);
            }
            200..=229 => self.transmit(input.len(LEN_MAX)),
            230..=239 => {
                let time = [1, 300, 1250, 40_000][input.below(4)];
                self.app.pass(Duration::from_millis(time)).expect("no keep-alive");
            }
            240..=245 => {
                self.app.core.handle_timeout(self.app.now).expect("no keep-alive");
            }
            246 | 247 => self.app.core.refuse_inbound(),
            248 => self.app.core.close(ErrorCode::new(input.byte().into())),
            249 => self.end(&StreamError::Connection(ConnectionError::Truncated)),
            _ => self.transmit(usize::MAX),
        }
        let told = self.app.tell();
        let heard = self.peer.heard.headers - heard_before;
        assert!(told <= 4 * (heard + STREAMS_MAX + 1), "{told} events");
        assert!(self.app.core.stream_count() <= STREAMS_MAX);
    }

    fn hear(&mut self, wire: &[u8], input: &mut Input) {
        let whole = Bytes::copy_from_slice(wire);
        for piece in input.cut(&whole) {
            let over = self.app.core.is_closed();
            let result = self.app.core.handle_data(whole.slice_ref(piece), self.app.now);
            assert!(!over || result.is_ok(), "heard something after the end");
            match result {
                Ok(()) if !over => self.peer.send(piece),
                Ok(()) => {}
                Err(error) => {
                    self.failed = true;
                    self.end(&StreamError::Connection(ConnectionError::Mux(error)));
                    return;
                }
            }
        }
    }

    /// As a driver ends a connection, whose streams then say why.
    fn end(&mut self, error: &StreamError) {
        self.app.core.handle_end(error);
        assert!(self.app.core.is_closed() && !self.app.core.has_transmit());
        assert!(self.app.core.poll_timeout().is_none());
    }

    fn note(&mut self, done: Done) {
        match done {
            Done::Opened(id) => self.peer.begin(id),
            Done::Wrote(id, text) => self.peer.stream(id).written += text.len(),
            Done::Finished(id) => self.peer.stream(id).finished = true,
            Done::Accepted(id) => {
                assert!(self.failed || self.peer.streams.contains_key(&id), "opened by nobody");
            }
            // How far the bytes were heard that had the error in them is not known.
            Done::Read(..) | Done::ReadEnd(_) if self.failed => {}
            Done::Read(id, chunk) => {
                let stream = self.peer.stream(id);
                let end = stream.read + chunk.len();
                let sent = stream.sent.get(stream.read..end).expect("more than was sent");
                assert!(chunk == sent, "not what was sent");
                stream.read = end;
            }
            Done::ReadEnd(id) => {
                let stream = self.peer.stream(id);
                assert!(stream.ended && stream.read == stream.sent.len(), "an end too early");
            }
            Done::Nothing => {}
        }
    }

    fn transmit(&mut self, budget: usize) {
        let mut out = Gather::new();
        for round in 0.. {
            if !self.app.core.has_transmit() || (round > 0 && budget < usize::MAX) {
                break;
            }
            assert!(round < 10_000, "sends without end");
            self.app.core.poll_transmit(budget, &mut out, self.app.now);
        }
        let wire = out.copy_to_bytes(out.len());
        self.peer.take(&wire, self.app.now);
    }

    /// Reads all that there is.
    fn drain(&mut self) {
        while let accepted @ Done::Accepted(_) = self.app.accept() {
            self.note(accepted);
        }
        let mut total = 0;
        for at in 0..self.app.held.len() {
            while let done @ Done::Read(..) = self.app.read_some(at, LEN_MAX) {
                if let Done::Read(_, chunk) = &done {
                    total += chunk.len();
                }
                self.note(done);
            }
        }
        assert!(total <= RECEIVED_MAX, "{total} bytes were waiting");
    }
}

/// A frame that is valid, or nearly.
fn frame(input: &mut Input, large: bool) -> Vec<u8> {
    let shape = input.byte();
    let flag = match shape & 0xf {
        0..=3 => OPEN,
        4..=7 => 2,
        8 | 9 => 1,
        10 => 4,
        11 => 3,
        12 => 6,
        13 => 5,
        _ => (input.byte() & 7).into(),
    };
    // A low number, or any.
    let number = match shape >> 4 & 3 {
        3 => u64::from(input.u32()) << input.below(29),
        _ => input.below(12) as u64,
    };
    let len = match shape >> 6 {
        0 if matches!(flag, 1 | 2) => input.u32() as usize,
        1 if large => input.below(300_000),
        _ if matches!(flag, 1 | 2) => input.byte().into(),
        _ => 0,
    };
    let mut wire = Vec::new();
    varint::encode(number << 3 | flag, &mut wire);
    varint::encode(len as u64, &mut wire);
    let cut = if large { len.min(LEN_MAX) } else { len.min(255) };
    wire.extend_from_slice(&text(Role::Responder, StreamId::new(number), len % 1000, cut));
    wire
}

/// What the peer knows: what it has sent and was sent on each stream, by the session's ids. A
/// stream that begins anew under an id used before takes the place of the one that is gone.
#[derive(Default)]
struct Peer {
    streams: HashMap<StreamId, Stream>,
    heard: Heard,
    /// How many streams it has opened, and how many refusals it has got.
    opened: usize,
    reset: usize,
    /// When the session opened streams.
    opens: VecDeque<Instant>,
    /// The number of the next stream that the session opens.
    next: u64,
}

/// Where in a frame the bytes are that the session hears.
#[derive(Default)]
struct Heard {
    header: Vec<u8>,
    /// What is left of a body, and the stream that it is for, where there is one.
    body: usize,
    stream: Option<StreamId>,
    headers: usize,
    total: usize,
}

/// One stream.
#[derive(Default)]
struct Stream {
    /// From the peer to the session.
    sent: Vec<u8>,
    ended: bool,
    read: usize,
    /// From the session to the peer.
    begun: bool,
    written: usize,
    finished: bool,
    taken: usize,
    said_end: bool,
    said_reset: bool,
}

impl Peer {
    fn begin(&mut self, id: StreamId) {
        self.streams.insert(id, Stream::default());
    }

    fn stream(&mut self, id: StreamId) -> &mut Stream {
        self.streams.get_mut(&id).expect("a stream that somebody has opened")
    }

    /// Notes what the session has heard without an error.
    fn send(&mut self, mut wire: &[u8]) {
        self.heard.total += wire.len();
        while let Some((first, rest)) = wire.split_first() {
            if self.heard.body > 0 {
                let (piece, rest) = wire.split_at(wire.len().min(self.heard.body));
                wire = rest;
                self.heard.body -= piece.len();
                if let Some(stream) = self.heard.stream.and_then(|id| self.streams.get_mut(&id)) {
                    stream.sent.extend_from_slice(piece);
                }
                continue;
            }
            self.heard.header.push(*first);
            wire = rest;
            if let Some((value, len)) = two_varints(&self.heard.header) {
                self.heard.header.clear();
                self.send_header(value, len);
            }
        }
    }

    fn send_header(&mut self, value: u64, len: u64) {
        self.heard.headers += 1;
        assert!(value & 7 < 7 && len <= 1 << 20, "heard what must be refused");
        // A flag that is even says that the peer has opened the stream.
        let id = StreamId::new(value >> 3 << 1 | u64::from(value & 1 == 0));
        if value & 7 == OPEN {
            self.opened += 1;
            self.begin(id);
            self.stream(id).begun = true;
        }
        let stream = self.streams.get_mut(&id).filter(|stream| !stream.ended);
        self.heard.body = len as usize;
        self.heard.stream = None;
        match (value & 7, stream) {
            (1 | 2, Some(_)) => self.heard.stream = Some(id),
            (3 | 4, Some(stream)) => stream.ended = true,
            _ => {}
        }
    }

    /// Checks what the session sends.
    fn take(&mut self, mut wire: &[u8], now: Instant) {
        while !wire.is_empty() {
            let (value, first) = varint::decode(wire).expect("the shortest").expect("whole frames");
            let rest = &wire[first..];
            let (len, second) = varint::decode(rest).expect("the shortest").expect("whole frames");
            let body;
            (body, wire) = rest[second..].split_at_checked(len as usize).expect("whole frames");
            // Here it is an odd flag that says so: to the peer, it is the receiver who opened it.
            let (flag, inbound) = (value & 7, value & 1 == 1);
            let id = StreamId::new(value >> 3 << 1 | u64::from(inbound));
            assert!(flag < 7 && (matches!(flag, 1 | 2) || body.is_empty()));
            if flag == OPEN {
                self.take_open(value >> 3, now);
            }
            if matches!(flag, 5 | 6) {
                self.take_reset(id);
                continue;
            }
            let stream = self.stream(id);
            stream.begun |= flag == OPEN;
            assert!(stream.begun && !stream.said_end && !stream.said_reset, "after the end");
            let written = text(Role::Initiator, id, stream.taken, body.len());
            assert!(written == body, "not what was written");
            stream.taken += body.len();
            stream.said_end = matches!(flag, 3 | 4);
            assert!(stream.taken <= stream.written);
            let whole = stream.finished && stream.taken == stream.written;
            assert!(!stream.said_end || whole, "an end before all data");
        }
    }

    fn take_open(&mut self, number: u64, now: Instant) {
        assert!(number >= self.next, "a number that was used");
        self.next = number + 1;
        self.opens.push_back(now);
        while self.opens.front().is_some_and(|at| now - *at >= Duration::from_secs(1)) {
            self.opens.pop_front();
        }
        assert!(self.opens.len() <= OPENS_PER_SECOND_MAX, "more than js-libp2p stands");
    }

    fn take_reset(&mut self, id: StreamId) {
        let inbound = id.value() & 1 == 1;
        if inbound {
            // Also of one that was refused, whose number names another stream.
            self.reset += 1;
            assert!(self.reset <= self.opened, "more resets than streams");
        } else {
            let stream = self.stream(id);
            assert!(stream.begun && !stream.said_reset, "a reset of nothing");
            stream.said_reset = true;
        }
    }
}

/// The header that `bytes` are, once it is whole.
fn two_varints(bytes: &[u8]) -> Option<(u64, u64)> {
    let (value, len) = varint::decode(bytes).expect("heard what must be refused")?;
    let (second, _) = varint::decode(&bytes[len..]).expect("heard what must be refused")?;
    Some((value, second))
}
