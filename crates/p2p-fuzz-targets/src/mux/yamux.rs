use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes};
use p2p_core::{ConnectionError, ErrorCode, Gather, Role, StreamError, StreamId};

use super::{
    app::{App, Done, LEN_MAX, text},
    small_yamux,
};
use crate::input::Input;

const DATA: u8 = 0;
const UPDATE: u8 = 1;
const GO_AWAY: u8 = 3;

const SYN: u16 = 1;
const FIN: u16 = 4;
const RST: u16 = 8;

const HEADER_LEN: usize = 12;
const WINDOW_INITIAL: u64 = 256 << 10;
/// Streams of both sides that `small_yamux` allows.
const STREAMS_MAX: usize = 8 + 4;
/// What a session hears in one run, in bytes: then large frames become small.
const HEARD_MAX: usize = 1 << 19;

/// A session whose peer sends frames, nearly frames and anything else, between the commands of the
/// application and the passing of time.
///
/// What a stream delivers is what the peer has sent on it, within the credit that it was given, and
/// ends where the peer has ended it. What the session sends are well-formed frames with what was
/// written, within the peer's credit. Streams and answers are no more than the limits allow. After
/// an error there is one goodbye and nothing else.
pub fn yamux_session(data: &[u8]) {
    let mut input = Input::new(data);
    let role = if input.flag() { Role::Initiator } else { Role::Responder };
    let mut session = Session {
        app: App::new(&small_yamux(), role, Instant::now()),
        peer: Peer::default(),
        failed: false,
        answerable: 64,
        answered: 0,
    };
    while !input.is_empty() {
        session.step(&mut input);
    }
    session.transmit(usize::MAX);
}

struct Session {
    app: App,
    peer: Peer,
    failed: bool,
    /// How many headers the session may send, other than those of data, and how many it has sent.
    answerable: usize,
    answered: usize,
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
            200..=229 => drop(self.transmit(input.len(LEN_MAX))),
            230..=239 => {
                let time = [1, 20, 1000, 40_000][input.below(4)];
                let result = self.app.pass(Duration::from_millis(time));
                self.failed |= result.is_err();
            }
            240..=245 => self.failed |= self.app.core.handle_timeout(self.app.now).is_err(),
            246 | 247 => self.app.core.refuse_inbound(),
            248 | 249 => self.app.core.close(ErrorCode::new(input.byte().into())),
            250 => {
                let error = StreamError::Connection(ConnectionError::Truncated);
                self.app.core.handle_end(&error);
                assert!(self.app.core.is_closed());
            }
            _ => drop(self.transmit(usize::MAX)),
        }
        let told = self.app.tell();
        let heard = self.peer.heard.headers - heard_before;
        assert!(told <= 4 * (heard + STREAMS_MAX + 1), "{told} events");
        self.answerable += 4 + heard;
        assert!(self.app.core.stream_count() <= STREAMS_MAX);
    }

    fn hear(&mut self, wire: &[u8], input: &mut Input) {
        let whole = Bytes::copy_from_slice(wire);
        for piece in input.cut(&whole) {
            let over = self.failed || self.app.core.is_closed();
            let result = self.app.core.handle_data(whole.slice_ref(piece), self.app.now);
            if self.failed || result.is_err() {
                self.fail();
                return;
            }
            if !over {
                self.peer.send(piece);
            }
            for held in &self.app.held {
                let stream = self.peer.stream(held.id);
                assert!(stream.sent.len() as u64 <= stream.granted, "more than was allowed");
            }
        }
    }

    /// An error is the end: one goodbye, which says that something was wrong.
    fn fail(&mut self) {
        let goodbye = !self.app.core.is_closed() && !self.failed;
        self.failed = true;
        self.app.tell();
        let mut last = self.transmit(usize::MAX);
        assert!(self.app.core.is_closed() && !self.app.core.has_transmit());
        if goodbye {
            last.drain(..last.len() - HEADER_LEN);
            assert!(last.starts_with(&[0, GO_AWAY]) && last[8..] != [0; 4]);
        }
        assert!(self.app.core.poll_timeout().is_none());
    }

    fn note(&mut self, done: Done) {
        match done {
            Done::Opened(id) => self.peer.begin(number(id)),
            // The bytes with an error in them may have begun a stream before it.
            Done::Wrote(..) | Done::Finished(_) if self.failed => {}
            Done::Wrote(id, text) => self.peer.stream(id).written += text.len(),
            Done::Finished(id) => self.peer.stream(id).finished = true,
            Done::Read(id, chunk) if !self.failed => {
                let stream = self.peer.stream(id);
                let end = stream.read + chunk.len();
                let sent = stream.sent.get(stream.read..end).expect("more than was sent");
                assert!(chunk == sent, "not what was sent");
                stream.read = end;
            }
            Done::ReadEnd(id) if !self.failed => {
                let stream = self.peer.stream(id);
                assert!(stream.ended && stream.read == stream.sent.len(), "an end too early");
            }
            Done::Accepted(id) => {
                assert!(self.failed || self.peer.streams.contains_key(&number(id)))
            }
            Done::Read(..) | Done::ReadEnd(_) | Done::Nothing => {}
        }
    }

    fn transmit(&mut self, budget: usize) -> Vec<u8> {
        let mut out = Gather::new();
        for round in 0.. {
            if !self.app.core.has_transmit() || (round > 0 && budget < usize::MAX) {
                break;
            }
            assert!(round < 10_000, "sends without end");
            self.app.core.poll_transmit(budget, &mut out, self.app.now);
        }
        let wire = out.copy_to_bytes(out.len()).to_vec();
        self.answered += self.peer.take(&wire, self.app.role);
        assert!(self.answered <= self.answerable, "{} answers", self.answered);
        assert!(!self.peer.dismissed || self.app.core.is_closed());
        wire
    }
}

/// A frame that is valid, or nearly.
fn frame(input: &mut Input, large: bool) -> Vec<u8> {
    let shape = input.byte();
    let kind = match shape & 7 {
        0..=2 => DATA,
        3 | 4 => UPDATE,
        5 => 2,
        6 => GO_AWAY,
        _ => input.byte(),
    };
    let flags = if shape & 8 == 0 { [0, SYN, 2, FIN, RST][input.below(5)] } else { input.u16() };
    // A low id, or any.
    let id = match shape >> 4 & 3 {
        3 => input.u32(),
        _ => input.below(12) as u32,
    };
    let len = match shape >> 6 {
        0 => input.u32(),
        1 if large => input.below(300_000) as u32,
        _ => input.byte().into(),
    };
    let mut wire = vec![u8::from(shape == 255), kind];
    wire.extend(flags.to_be_bytes());
    wire.extend(id.to_be_bytes());
    wire.extend(len.to_be_bytes());
    if kind == DATA {
        let len = len as usize;
        let cut = if large { len.min(LEN_MAX) } else { len.min(255) };
        wire.extend_from_slice(&text(Role::Initiator, StreamId::new(id.into()), len % 1000, cut));
    }
    wire
}

/// What the peer knows: what it has sent and was sent on each stream. A stream that begins anew
/// under a number used before takes the place of the one that is gone.
#[derive(Default)]
struct Peer {
    streams: HashMap<u32, Stream>,
    heard: Heard,
    /// The session has said goodbye.
    dismissed: bool,
}

/// Where in a frame the bytes are that the session hears.
#[derive(Default)]
struct Heard {
    header: Vec<u8>,
    /// The stream that the body is for, where there is one, what is left of it, and its flags.
    body: Option<(Option<u32>, usize, u16)>,
    headers: usize,
    total: usize,
}

struct Stream {
    /// From the peer to the session.
    sent: Vec<u8>,
    ended: bool,
    read: usize,
    granted: u64,
    /// From the session to the peer.
    written: usize,
    finished: bool,
    taken: usize,
    said_end: bool,
    credit: u64,
}

impl Peer {
    fn begin(&mut self, id: u32) {
        if let Some((stream, ..)) = &mut self.heard.body
            && *stream == Some(id)
        {
            *stream = None;
        }
        let stream = Stream {
            sent: Vec::new(),
            ended: false,
            read: 0,
            granted: WINDOW_INITIAL,
            written: 0,
            finished: false,
            taken: 0,
            said_end: false,
            credit: WINDOW_INITIAL,
        };
        self.streams.insert(id, stream);
    }

    fn stream(&mut self, id: StreamId) -> &mut Stream {
        self.streams.get_mut(&number(id)).expect("a stream that somebody has opened")
    }

    /// Notes what the session has heard without an error.
    fn send(&mut self, mut wire: &[u8]) {
        self.heard.total += wire.len();
        while !wire.is_empty() {
            if let Some((id, left, flags)) = &mut self.heard.body {
                let (piece, rest) = wire.split_at(wire.len().min(*left));
                wire = rest;
                *left -= piece.len();
                let stream = id.and_then(|id| self.streams.get_mut(&id));
                let whole = *left == 0;
                if let Some(stream) = stream {
                    stream.sent.extend_from_slice(piece);
                    stream.ended |= whole && *flags & FIN != 0;
                }
                if whole {
                    self.heard.body = None;
                }
                continue;
            }
            let missing = HEADER_LEN - self.heard.header.len();
            let (piece, rest) = wire.split_at(wire.len().min(missing));
            wire = rest;
            self.heard.header.extend_from_slice(piece);
            if self.heard.header.len() == HEADER_LEN {
                let header = std::mem::take(&mut self.heard.header);
                self.send_header(Header::read(&header));
                if header[1] == GO_AWAY {
                    return;
                }
            }
        }
    }

    fn send_header(&mut self, header: Header) {
        self.heard.headers += 1;
        let Header { kind, flags, id, len } = header;
        if !matches!(kind, DATA | UPDATE) {
            return;
        }
        if flags & SYN != 0 {
            self.begin(id);
        }
        let reset = flags & RST != 0;
        let stream = self.streams.get_mut(&id).filter(|_| !reset);
        let known = stream.is_some();
        if let Some(stream) = stream {
            stream.ended |= flags & FIN != 0 && (kind == UPDATE || len == 0);
            if kind == UPDATE {
                stream.credit += u64::from(len);
            }
        }
        if kind == DATA && len > 0 {
            self.heard.body = Some((known.then_some(id), len as usize, flags));
        }
    }

    /// Checks what the session sends; gives the number of headers other than those of data.
    fn take(&mut self, mut wire: &[u8], role: Role) -> usize {
        let mut others = 0;
        while !wire.is_empty() {
            assert!(!self.dismissed, "something after the goodbye");
            let header;
            (header, wire) = wire.split_at_checked(HEADER_LEN).expect("whole frames");
            assert_eq!(header[0], 0, "the version");
            let Header { kind, flags, id, len } = Header::read(header);
            assert!(flags < 16 && kind <= GO_AWAY);
            others += usize::from(kind != DATA);
            if kind == GO_AWAY {
                self.dismissed = true;
            }
            if !matches!(kind, DATA | UPDATE) {
                assert_eq!(id, 0);
                continue;
            }
            let stream = self.streams.get_mut(&id);
            if kind == UPDATE {
                if let Some(stream) = stream.filter(|_| flags & RST == 0) {
                    stream.granted += u64::from(len);
                }
                continue;
            }
            let body;
            (body, wire) = wire.split_at_checked(len as usize).expect("whole frames");
            let stream = stream.expect("data on a stream that nobody has opened");
            assert!(!stream.said_end, "data after the end");
            let written = text(role, StreamId::new(id.into()), stream.taken, body.len());
            assert!(written == body, "not what was written");
            stream.taken += body.len();
            stream.said_end = flags & FIN != 0;
            assert!(stream.taken as u64 <= stream.credit, "more than the peer has allowed");
            assert!(stream.taken <= stream.written);
            let whole = stream.finished && stream.taken == stream.written;
            assert!(!stream.said_end || whole, "an end before all data");
        }
        others
    }
}

struct Header {
    kind: u8,
    flags: u16,
    id: u32,
    len: u32,
}

impl Header {
    fn read(mut bytes: &[u8]) -> Self {
        bytes.advance(1);
        let (kind, flags) = (bytes.get_u8(), bytes.get_u16());
        Self { kind, flags, id: bytes.get_u32(), len: bytes.get_u32() }
    }
}

fn number(id: StreamId) -> u32 {
    u32::try_from(id.value()).expect("ids of yamux have 32 bits")
}
