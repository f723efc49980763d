//! Conversations with other implementations, as `interop/run --record` has written them down: the
//! recorded bytes of the other side are replayed to a host of ours with the same keys, and what it
//! hears and answers is checked.
#![expect(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]

mod common;
#[path = "../../../interop/plan/src/pattern.rs"]
#[expect(unreachable_pub, reason = "of another crate")]
mod pattern;

use std::{
    collections::BTreeMap,
    fs, io,
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use common::{echo, next_event};
use p2p::{
    Event, Host, Keypair, Multiaddr, PeerId, ProtocolId, Stream,
    core::{
        DialTarget, Handshake, Incoming, Link, ListenEvent, Listener, Open, Opened, Pipe, Role,
        Seal, Security, SecurityError, Session, Transport, TransportError, varint,
    },
    mux, noise,
};
use pattern::Pattern;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};

/// The keys of `p2p-interop` when it records.
const IDENTITY_SEED: [u8; 32] = [1; 32];
const STATIC_KEY: [u8; 32] = [2; 32];
const EPHEMERAL_KEY: [u8; 32] = [3; 32];

const ADDR: &str = "/ip4/127.0.0.1/tcp/4001";
const ECHO: &str = "/echo/1.0.0";
const IDENTIFY: &str = "/ipfs/id/1.0.0";
const ECHO_LEN: usize = 1000;
const PING_LEN: usize = 32;
const HEADER: &[u8] = b"\x13/multistream/1.0.0\n";
/// More than any piece that was recorded.
const WHOLE: usize = 1 << 20;

/// The peers by their names, with the multiplexers that they have besides yamux.
const PEERS: [(&str, &[&str]); 5] =
    [("rust", &[]), ("js", &["mplex"]), ("py", &["mplex"]), ("go", &[]), ("litep2p", &[])];

/// One recorded conversation.
struct Transcript {
    name: String,
    we_dial: bool,
    muxer: String,
    half_close: bool,
    peer: PeerId,
    agent: String,
    /// What came, in the pieces in which it was read.
    came: Vec<Vec<u8>>,
}

fn unhex(text: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(byte).collect()
}

fn transcript(dialer: &str, listener: &str, muxer: &str) -> Transcript {
    let name = format!("{dialer}-{listener}-{muxer}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../interop/transcripts");
    let text = fs::read_to_string(path.join(format!("{name}.txt"))).expect(&name);
    let values = |name: &str| -> Vec<String> {
        let of_name = |line: &str| Some(line.strip_prefix(name)?.strip_prefix(' ')?.to_owned());
        text.lines().filter_map(of_name).collect()
    };
    let value = |name: &str| values(name).into_iter().next().expect(name);
    assert!(text.starts_with("# ") && text.lines().any(|line| line.starts_with("> ")), "{name}");
    Transcript {
        we_dial: dialer == "p2p",
        muxer: format!("/{muxer}/{}", if muxer == "yamux" { "1.0.0" } else { "6.7.0" }),
        half_close: value("half_close") == "true",
        peer: value("peer").parse().unwrap(),
        agent: value("agent"),
        came: values("<").iter().filter(|piece| *piece != "end").map(|p| unhex(p)).collect(),
        name,
    }
}

/// All there have to be: every peer on either side, over every multiplexer that it has.
fn transcripts() -> Vec<Transcript> {
    let mut all = Vec::new();
    for (peer, more) in PEERS {
        for muxer in ["yamux"].iter().chain(more) {
            all.push(transcript("p2p", peer, muxer));
            all.push(transcript(peer, "p2p", muxer));
        }
    }
    all
}

/// How the other side's bytes reach the host, and how they end.
#[derive(Clone, Copy)]
struct Delivery {
    /// The most bytes that a read gets.
    piece: usize,
    /// Whether the link is reset at the end rather than closed.
    reset: bool,
}

const AS_RECORDED: Delivery = Delivery { piece: WHOLE, reset: false };

/// A link on which the other side says what it has said before.
struct Replay {
    came: Mutex<Option<Vec<Vec<u8>>>>,
    delivery: Delivery,
}

impl Replay {
    /// Each piece comes when this side has nothing left to do: paused time moves on only then. So
    /// all that the other side had heard before it said this has been said again.
    fn pipe(&self) -> Pipe {
        let came = self.came.lock().unwrap().take().expect("one link");
        let (mut line, near) = tokio::io::duplex(self.delivery.piece);
        tokio::spawn(async move {
            for piece in came {
                tokio::time::sleep(Duration::from_millis(1)).await;
                if line.write_all(&piece).await.is_err() {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        });
        Pipe::new(Ending { inner: near, reset: self.delivery.reset }, tokio::io::sink())
    }
}

/// A reader that is reset instead of ended.
struct Ending<R> {
    inner: R,
    reset: bool,
}

impl<R: AsyncRead + Unpin> AsyncRead for Ending<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        match read {
            Poll::Ready(Ok(())) if self.reset && buf.filled().len() == before => {
                Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
            }
            other => other,
        }
    }
}

#[async_trait]
impl Transport for Replay {
    fn supports(&self, _: &Multiaddr) -> bool {
        true
    }

    async fn dial(&self, _: DialTarget) -> Result<Link, TransportError> {
        Ok(Link::Pipe(self.pipe()))
    }

    async fn listen(&self, addr: Multiaddr) -> Result<Box<dyn Listener>, TransportError> {
        Ok(Box::new(ReplayListener { addr, pipe: Some(self.pipe()) }))
    }
}

struct ReplayListener {
    addr: Multiaddr,
    pipe: Option<Pipe>,
}

#[async_trait]
impl Listener for ReplayListener {
    fn addrs(&self) -> Vec<Multiaddr> {
        vec![self.addr.clone()]
    }

    async fn next(&mut self) -> Result<ListenEvent, TransportError> {
        let Some(pipe) = self.pipe.take() else { return std::future::pending().await };
        let link = async { Ok(Link::Pipe(pipe)) };
        let remote = "/ip4/127.0.0.1/tcp/4002".parse().unwrap();
        Ok(ListenEvent::Incoming(Incoming::new(self.addr.clone(), remote, link)))
    }
}

/// What was said under the cipher.
#[derive(Clone, Default)]
struct Plain {
    came: Arc<Mutex<Vec<u8>>>,
    sent: Arc<Mutex<Vec<u8>>>,
}

/// A secure channel that keeps what goes through it.
struct Tapped<T> {
    inner: T,
    plain: Plain,
}

impl<S: Security> Security for Tapped<S> {
    fn protocol(&self) -> ProtocolId {
        self.inner.protocol()
    }

    fn start(
        &self,
        role: Role,
        expected: Option<&PeerId>,
        muxers: &[ProtocolId],
    ) -> Result<Box<dyn Handshake>, SecurityError> {
        let inner = self.inner.start(role, expected, muxers)?;
        Ok(Box::new(Tapped { inner, plain: self.plain.clone() }))
    }
}

impl Handshake for Tapped<Box<dyn Handshake>> {
    fn advance(
        &mut self,
        wire: &mut BytesMut,
        out: &mut BytesMut,
    ) -> Result<Option<Session>, SecurityError> {
        let Some(session) = self.inner.advance(wire, out)? else { return Ok(None) };
        let seal = Tapped { inner: session.seal, plain: self.plain.clone() };
        let open = Tapped { inner: session.open, plain: self.plain.clone() };
        Ok(Some(Session::new(session.peer, session.muxer, Box::new(seal), Box::new(open))))
    }
}

impl Seal for Tapped<Box<dyn Seal>> {
    fn seal(&mut self, plain: &mut dyn Buf, out: &mut BytesMut) -> Result<(), SecurityError> {
        let mut all = plain.copy_to_bytes(plain.remaining());
        self.plain.sent.lock().unwrap().extend_from_slice(&all);
        self.inner.seal(&mut all, out)
    }
}

impl Open for Tapped<Box<dyn Open>> {
    fn open(&mut self, wire: &mut BytesMut) -> Result<Opened, SecurityError> {
        let opened = self.inner.open(wire)?;
        if let Opened::Record(record) = &opened {
            self.plain.came.lock().unwrap().extend_from_slice(record);
        }
        Ok(opened)
    }
}

async fn host(transcript: &Transcript, delivery: Delivery) -> (Host, Plain) {
    let plain = Plain::default();
    let tap = plain.clone();
    let came = Mutex::new(Some(transcript.came.clone()));
    let builder = p2p_host::builder()
        .identity(Keypair::from_ed25519_seed(&IDENTITY_SEED))
        .transport(Replay { came, delivery })
        .security(move |key| {
            let inner = noise::fuzzing::noise_with_keys(key, STATIC_KEY, EPHEMERAL_KEY)?;
            Ok(Tapped { inner, plain: tap })
        });
    let builder = match transcript.muxer.as_str() {
        "/yamux/1.0.0" => builder.muxer(mux::Yamux::default()),
        _ => builder.muxer(mux::Mplex::default()),
    };
    let builder = if transcript.we_dial { builder } else { builder.listen(ADDR) };
    let host = builder.spawn().await.unwrap();
    host.handle(ECHO, echo).unwrap();
    (host, plain)
}

/// Replays a conversation in which the other side listens.
async fn dial(transcript: &Transcript, delivery: Delivery) -> Plain {
    let (host, plain) = host(transcript, delivery).await;
    let mut events = host.events();
    let addr = format!("{ADDR}/p2p/{}", transcript.peer);
    let connection = host.connect(&addr).await.unwrap();
    assert_eq!(connection.peer(), transcript.peer);
    assert_eq!(connection.muxer().unwrap().as_str(), transcript.muxer);

    let info = host.identify(transcript.peer).await.unwrap();
    assert_eq!(info.agent, transcript.agent);
    for protocol in [ECHO, IDENTIFY, "/ipfs/ping/1.0.0"] {
        assert!(info.protocols.iter().any(|known| known.as_str() == protocol), "{protocol}");
    }

    let mut pings = host.open(transcript.peer, p2p::ping::PROTOCOL).optimistic().await.unwrap();
    for _ in 0..2 {
        let (mut ping, mut pong) = ([0; PING_LEN], [0; PING_LEN]);
        Pattern::new(0).fill(&mut ping);
        pings.write_all(&ping).await.unwrap();
        pings.read_exact(&mut pong).await.unwrap();
        assert_eq!(pong, ping);
    }

    let mut stream: Stream = host.open(transcript.peer, ECHO).await.unwrap();
    let (mut data, mut back) = (vec![0; ECHO_LEN], vec![0; ECHO_LEN]);
    Pattern::new(1).fill(&mut data);
    stream.write_all(&data).await.unwrap();
    if transcript.half_close {
        stream.shutdown().await.unwrap();
        back.clear();
        stream.read_to_end(&mut back).await.unwrap();
    } else {
        stream.read_exact(&mut back).await.unwrap();
    }
    assert_eq!(back, data);
    assert_eq!(host.connections(&transcript.peer).len(), 1);
    drop((stream, pings));
    disconnected(&mut events, transcript).await;
    plain
}

/// Replays a conversation in which the other side dials.
async fn listen(transcript: &Transcript, delivery: Delivery) -> Plain {
    let (host, plain) = host(transcript, delivery).await;
    let mut events = host.events();
    let connection = next_event(&mut events, |event| match event {
        Event::Connected { connection, .. } => Some(connection),
        Event::InboundFailed { error } => panic!("{error}"),
        _ => None,
    });
    let connection = connection.await;
    assert_eq!(connection.peer(), transcript.peer);
    assert_eq!(connection.muxer().unwrap().as_str(), transcript.muxer);
    let info = next_event(&mut events, |event| match event {
        Event::Identified { info, .. } => Some(info),
        Event::Disconnected { cause, .. } => panic!("{cause}"),
        _ => None,
    });
    assert_eq!(info.await.agent, transcript.agent);
    disconnected(&mut events, transcript).await;
    plain
}

async fn disconnected(events: &mut p2p::Events, transcript: &Transcript) {
    let gone = next_event(events, |event| match event {
        Event::Disconnected { peer, .. } => Some(peer),
        _ => None,
    });
    assert_eq!(gone.await, transcript.peer);
}

async fn replay(transcript: &Transcript, delivery: Delivery) -> Plain {
    // A failure's output says which it was.
    eprintln!("{}", transcript.name);
    match transcript.we_dial {
        true => dial(transcript, delivery).await,
        false => listen(transcript, delivery).await,
    }
}

/// What one side has said on a stream.
#[derive(Debug, Default)]
struct Said {
    data: Vec<u8>,
    ended: bool,
    reset: bool,
}

/// What one side has said, by the streams: the key is whether the dialer has opened it, and its id.
type Streams = BTreeMap<(bool, u64), Said>;

/// Cuts the negotiation of the multiplexer off, where there is one.
fn frames(mut plain: &[u8]) -> (bool, &[u8]) {
    let Some(rest) = plain.strip_prefix(HEADER) else { return (false, plain) };
    plain = rest;
    let (_, rest) = message(plain);
    (true, rest)
}

/// One message of a negotiation, without its newline, and what follows it.
fn message(bytes: &[u8]) -> (&str, &[u8]) {
    let (len, rest) = bytes.split_first().unwrap();
    let (text, rest) = rest.split_at(usize::from(*len));
    (std::str::from_utf8(text).unwrap().trim_end_matches('\n'), rest)
}

/// A yamux frame.
struct Frame<'a> {
    kind: u8,
    flags: u16,
    id: u64,
    /// The fourth number of the header: a length, credit, or a value of a ping's.
    number: u32,
    body: &'a [u8],
}

const DATA: u8 = 0;
const UPDATE: u8 = 1;
const PING: u8 = 2;
const GO_AWAY: u8 = 3;
const SYN: u16 = 1;
const ACK: u16 = 2;
const FIN: u16 = 4;
const RST: u16 = 8;

fn yamux_frames(mut bytes: &[u8]) -> Vec<Frame<'_>> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let (mut header, rest) = bytes.split_at(12);
        assert_eq!(header.get_u8(), 0);
        let (kind, flags) = (header.get_u8(), header.get_u16());
        let (id, number) = (u64::from(header.get_u32()), header.get_u32());
        let len = if kind == DATA { usize::try_from(number).unwrap() } else { 0 };
        let (body, rest) = rest.split_at(len);
        frames.push(Frame { kind, flags, id, number, body });
        bytes = rest;
    }
    frames
}

fn yamux_streams(bytes: &[u8]) -> Streams {
    let mut streams = Streams::new();
    for frame in yamux_frames(bytes) {
        if frame.kind == DATA || frame.kind == UPDATE {
            let said = streams.entry((frame.id % 2 == 1, frame.id)).or_default();
            said.data.extend_from_slice(frame.body);
            said.ended |= frame.flags & FIN != 0;
            said.reset |= frame.flags & RST != 0;
        }
    }
    streams
}

fn mplex_streams(frames: &[u8], of_dialer: bool) -> Streams {
    let mut streams = Streams::new();
    let mut frames = BytesMut::from(frames);
    while !frames.is_empty() {
        let mut number = || {
            let (value, len) = varint::decode(&frames).unwrap().unwrap();
            frames.advance(len);
            value
        };
        let (header, len) = (number(), number());
        let body = frames.split_to(usize::try_from(len).unwrap());
        let flag = header & 7;
        // An even flag is of the one who has opened the stream.
        let said = streams.entry(((flag % 2 == 0) == of_dialer, header >> 3)).or_default();
        match flag {
            1 | 2 => said.data.extend_from_slice(&body),
            3 | 4 => said.ended = true,
            5 | 6 => said.reset = true,
            _ => {}
        }
    }
    streams
}

/// The protocol of a stream, and what was said after its negotiation.
fn negotiated(said: &Said) -> (String, Vec<u8>) {
    let Some(rest) = said.data.strip_prefix(HEADER) else { return Default::default() };
    if rest.is_empty() {
        return Default::default();
    }
    let (protocol, rest) = message(rest);
    (protocol.to_owned(), rest.to_vec())
}

/// The streams that the dialer has opened: protocol, what the dialer and what we have said.
fn asked(transcript: &Transcript, plain: &Plain) -> Vec<(String, Said, Said)> {
    let streams = |plain: &Mutex<Vec<u8>>, of_dialer| {
        let plain = plain.lock().unwrap();
        let (_, frames) = frames(&plain);
        match transcript.muxer.as_str() {
            "/yamux/1.0.0" => yamux_streams(frames),
            _ => mplex_streams(frames, of_dialer),
        }
    };
    let mut sent = streams(&plain.sent, false);
    let came = streams(&plain.came, true).into_iter().filter(|((of_dialer, _), _)| *of_dialer);
    came.map(|(key, mut asked)| {
        let mut said = sent.remove(&key).unwrap_or_default();
        let (protocol, data) = negotiated(&asked);
        asked.data = data;
        said.data = negotiated(&said).1;
        (protocol, asked, said)
    })
    .collect()
}

#[tokio::test(start_paused = true)]
async fn conn_01_03_04_what_every_peer_has_answered_is_understood_again() {
    for transcript in transcripts().iter().filter(|transcript| transcript.we_dial) {
        replay(transcript, AS_RECORDED).await;
    }
}

#[tokio::test(start_paused = true)]
async fn conn_01_03_07_what_every_dialer_has_asked_is_answered_again() {
    for transcript in transcripts().iter().filter(|transcript| !transcript.we_dial) {
        let plain = replay(transcript, AS_RECORDED).await;
        let streams = asked(transcript, &plain);
        let of = |name: &'static str| streams.iter().filter(move |(protocol, ..)| protocol == name);

        let pings: usize = of("/ipfs/ping/1.0.0").map(|(_, asked, _)| asked.data.len()).sum();
        assert!(pings >= 2 * PING_LEN && pings.is_multiple_of(PING_LEN), "{pings}");
        for (protocol, asked, said) in of("/ipfs/ping/1.0.0").chain(of(ECHO)) {
            assert_eq!(said.data, asked.data, "{protocol}");
        }
        let [(_, asked, said)] = of(ECHO).collect::<Vec<_>>()[..] else { panic!("one echo") };
        assert_eq!(asked.data.len(), ECHO_LEN);
        if transcript.half_close {
            assert!(asked.ended && said.ended && !asked.reset && !said.reset);
        }
        assert!(of(IDENTIFY).count() >= 1);
        for (_, _, said) in of(IDENTIFY) {
            assert!(!said.data.is_empty() && said.ended, "{said:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn mss_07_noise_21_the_same_byte_by_byte() {
    for transcript in transcripts() {
        replay(&transcript, Delivery { piece: 1, ..AS_RECORDED }).await;
    }
}

/// The peers of whose conversations over yamux one at least is so.
async fn yamux_peers(is_so: impl Fn(&[Frame<'_>]) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for transcript in transcripts().iter().filter(|transcript| transcript.muxer == "/yamux/1.0.0") {
        let plain = replay(transcript, AS_RECORDED).await;
        let came = plain.came.lock().unwrap();
        if is_so(&yamux_frames(frames(&came).1)) {
            let name = transcript.name.trim_end_matches("-yamux");
            found.push(name.trim_start_matches("p2p-").trim_end_matches("-p2p").to_owned());
        }
    }
    found.dedup();
    found
}

/// With these in what was recorded, the replays above show that every form is understood.
#[tokio::test(start_paused = true)]
async fn yamux_11_13_16_18_t05_02_streams_are_opened_answered_and_ended_in_every_form() {
    let has = |kind: u8, flag: u16| {
        move |frames: &[Frame<'_>]| {
            let mut of_streams = frames.iter().filter(|frame| frame.id != 0);
            of_streams.any(|frame| frame.kind == kind && frame.flags & flag != 0)
        }
    };
    assert_eq!(yamux_peers(has(DATA, SYN)).await, ["rust", "litep2p"]);
    assert_eq!(yamux_peers(has(UPDATE, SYN)).await, ["js", "py", "go"]);
    assert_eq!(yamux_peers(has(DATA, ACK)).await, ["rust", "litep2p"]);
    assert_eq!(yamux_peers(has(UPDATE, ACK)).await, ["js", "py", "go"]);
    assert_eq!(yamux_peers(has(DATA, FIN)).await, ["rust", "litep2p"]);
    assert_eq!(yamux_peers(has(UPDATE, FIN)).await, ["js", "py", "go"]);
    assert_eq!(yamux_peers(has(UPDATE, RST)).await, ["go"]);
}

#[tokio::test(start_paused = true)]
async fn yamux_24_28_t05_01_credit_comes_with_the_answer_or_for_every_frame() {
    let with_answer = |frames: &[Frame<'_>]| {
        frames.iter().any(|frame| frame.kind == UPDATE && frame.flags == ACK && frame.number > 0)
    };
    assert_eq!(yamux_peers(with_answer).await, ["js"]);
    let without_data = |frames: &[Frame<'_>]| {
        let credit = |frame: &&Frame<'_>| frame.kind == UPDATE && frame.flags == 0;
        let data = frames.iter().filter(|frame| frame.kind == DATA).count();
        frames.iter().filter(credit).count() > data
    };
    assert_eq!(yamux_peers(without_data).await, ["js", "py"]);
}

#[tokio::test(start_paused = true)]
async fn yamux_32_36_38_39_pings_come_first_and_go_away_last() {
    let ping_first = |frames: &[Frame<'_>]| frames[0].kind == PING && frames[0].flags == SYN;
    assert_eq!(yamux_peers(ping_first).await, ["rust", "js", "go", "litep2p"]);
    let arbitrary = |frames: &[Frame<'_>]| frames[0].kind == PING && frames[0].number > 1;
    assert_eq!(yamux_peers(arbitrary).await, ["litep2p"]);
    let goodbye = |frames: &[Frame<'_>]| frames.last().unwrap().kind == GO_AWAY;
    assert_eq!(yamux_peers(goodbye).await, ["rust", "js"]);
}

#[tokio::test(start_paused = true)]
async fn mplex_05_06_names_of_streams_are_ids_with_and_without_a_letter() {
    for (peer, names) in [("js", ["i0", "i1"]), ("py", ["0", "1"])] {
        let transcript = transcript(peer, "p2p", "mplex");
        let plain = replay(&transcript, AS_RECORDED).await;
        let came = plain.came.lock().unwrap();
        for (id, name) in (0u8..).zip(names) {
            let len = u8::try_from(name.len()).unwrap();
            let open = [&[id << 3, len], name.as_bytes()].concat();
            assert!(came.windows(open.len()).any(|window| window == open), "{peer} {name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn noise_29_34_t03_02_who_agrees_on_the_multiplexer_early() {
    for transcript in transcripts() {
        let plain = replay(&transcript, AS_RECORDED).await;
        let early = ["js", "go"].iter().any(|peer| transcript.name.contains(peer));
        let negotiates = |plain: &Mutex<Vec<u8>>| frames(&plain.lock().unwrap()).0;
        assert_eq!(negotiates(&plain.came), !early, "{}", transcript.name);
        assert_eq!(negotiates(&plain.sent), !early, "{}", transcript.name);
    }
}

/// How much each dialer says before it has heard anything.
#[test]
fn mss_10_12_22_t02_03_t03_03_first_flights_of_the_dialers() {
    let proposal = [HEADER, b"\x07/noise\n"].concat();
    for (peer, first) in [
        ("rust", [&proposal[..], &[0, 32]].concat()),
        ("js", proposal.clone()),
        ("py", HEADER.to_vec()),
        ("go", proposal.clone()),
        ("litep2p", proposal.clone()),
    ] {
        let transcript = transcript(peer, "p2p", "yamux");
        let came = &transcript.came[0];
        let with_message_1 = proposal.len() + 2 + 32;
        assert_eq!(came.len(), if peer == "rust" { with_message_1 } else { first.len() }, "{peer}");
        assert!(came.starts_with(&first), "{peer}");
    }
}

#[tokio::test(start_paused = true)]
async fn mss_36_ident_03_14_t08_02_identify_is_asked_first_and_answered_each_time() {
    for (peer, times) in [("go", 2), ("py", 2), ("js", 1), ("rust", 1), ("litep2p", 1)] {
        let transcript = transcript(peer, "p2p", "yamux");
        let plain = replay(&transcript, AS_RECORDED).await;
        let streams = asked(&transcript, &plain);
        let answered = |(protocol, _, said): &&(String, Said, Said)| {
            protocol == IDENTIFY && said.ended && !said.data.is_empty()
        };
        assert_eq!(streams.iter().filter(answered).count(), times, "{peer}");
        // litep2p pings first.
        assert!(peer == "litep2p" || streams[0].0 == IDENTIFY, "{peer}");
    }
}

#[tokio::test(start_paused = true)]
async fn ping_07_js_ends_each_ping_before_the_pong_and_gets_it() {
    for muxer in ["yamux", "mplex"] {
        let transcript = transcript("js", "p2p", muxer);
        let plain = replay(&transcript, AS_RECORDED).await;
        let streams = asked(&transcript, &plain);
        let pings: Vec<_> =
            streams.iter().filter(|(name, ..)| name.ends_with("ping/1.0.0")).collect();
        assert_eq!(pings.len(), 2);
        for (_, asked, said) in pings {
            assert_eq!((&said.data, asked.data.len()), (&asked.data, PING_LEN));
            assert!(asked.ended && said.ended && !said.reset);
        }
    }
}

/// go ends its sockets with a reset, after which nothing may be worse than after an end.
#[tokio::test(start_paused = true)]
async fn conn_24_t07_01_a_reset_is_taken_as_an_end() {
    for transcript in transcripts() {
        replay(&transcript, Delivery { reset: true, ..AS_RECORDED }).await;
    }
}
