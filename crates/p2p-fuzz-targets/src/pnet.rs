//! Private networks: the key file, and a pipe with the key around it.

use std::{future::Future, io, pin::Pin, task::Poll};

use async_trait::async_trait;
use multibase::Base;
use p2p_core::{DialTarget, Link, Listener, Multiaddr, Pipe, Transport, TransportError};
use p2p_pnet::{LinkError, PreSharedKey, PrivateNetwork, PrivateStream, WRITE_LEN_MAX, protect};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    input::Input,
    pipe::{End, Wire},
};

const NONCE_LEN: usize = 24;
const GREETING: &[u8] = b"\x13/multistream/1.0.0\n";
/// What is written in one run, in bytes.
const WRITTEN_MAX: usize = 1 << 20;

/// A key file that is taken has the key in it, in the form that it says; its own form is that of
/// the same key. An error says nothing of the content.
pub fn pnet_key_file(data: &[u8]) {
    let parsed = PreSharedKey::from_key_file(data);
    if let Ok(text) = std::str::from_utf8(data) {
        let same = text.parse::<PreSharedKey>().map(|key| key.fingerprint());
        assert_eq!(same, parsed.as_ref().map(PreSharedKey::fingerprint).map_err(Clone::clone));
    }
    let key = match parsed {
        Ok(key) => key,
        Err(error) => return assert!((10..200).contains(&error.to_string().len())),
    };
    let file = key.to_key_file();
    let again: PreSharedKey = file.parse().expect("its own form");
    assert_eq!(again.to_key_file(), file);
    assert_eq!(again.fingerprint(), key.fingerprint());

    let mut lines = data.splitn(3, |byte| *byte == b'\n');
    let mut line = || lines.next().expect("three lines");
    assert_eq!(line().trim_ascii_end(), b"/key/swarm/psk/1.0.0/");
    let raw = match line().trim_ascii_end() {
        b"/base16/" => Base::Base16Lower.decode(text(line()).to_ascii_lowercase()),
        b"/base64/" => Base::Base64Pad.decode(text(line())),
        b"/bin/" => Ok(line()[..32].to_vec()),
        other => panic!("{}", other.escape_ascii()),
    };
    let raw = raw.expect("what was taken").try_into().expect("32 bytes");
    assert_eq!(PreSharedKey::from_bytes(raw).to_key_file(), file, "another key");
}

fn text(line: &[u8]) -> &str {
    std::str::from_utf8(line.trim_ascii_end()).expect("digits")
}

/// Two sides that share a key, or do not, over a pipe that cuts, stalls and may change a bit or
/// end early.
///
/// What a side reads is what the other has written, in order, once, but for the bits that were
/// changed; an end comes only after all of it. On the wire nothing is in the clear. Where the first
/// bytes are known, as in a host's network, another key or a missing one is an error, and nothing
/// is read after it. Nobody waits for what the pipe does not know of, and nothing is left behind.
pub fn pnet_stream(data: &[u8]) {
    let mut input = Input::new(data);
    let bits = input.byte();
    let wire = Wire::default();
    wire.both().directions.iter_mut().for_each(|direction| direction.step = usize::MAX);
    let other = if bits & 3 == 3 { 2 } else { 1 };
    let sides = [1, other].map(|key| PreSharedKey::from_bytes([key; 32]));
    let checks = bits & 4 != 0;
    let greets = bits & 8 == 0;
    let mut world = World {
        sides: [Side::new(&wire, 0, &sides[0], checks), Side::new(&wire, 1, &sides[1], false)],
        wire,
        same_key: other == 1,
        checks,
    };
    world.sides[1].greets = greets;
    if bits & 0x70 == 0x70 {
        world.strange(&mut input);
        return;
    }
    while !input.is_empty() {
        world.step(&mut input);
    }
    world.wind_up();
}

struct World {
    sides: [Side; 2],
    wire: Wire,
    same_key: bool,
    /// Side 0 knows what side 1 must begin with.
    checks: bool,
}

impl World {
    fn step(&mut self, input: &mut Input) {
        let op = input.byte();
        let at = usize::from(op >> 7);
        match op & 0x7f {
            0..=39 => {
                let len = input.len(300_000);
                self.sides[at].write(&self.wire, len);
            }
            40..=79 => {
                let len = input.len(300_000);
                self.read(at, len);
            }
            80..=89 => drop(self.sides[at].flush(&self.wire)),
            90..=95 => self.sides[at].shutdown(&self.wire),
            96..=99 => {
                let bit = 1 << input.below(8);
                let place = input.u16();
                self.flip(at, place.into(), bit);
            }
            100 => {
                // Cut by somebody on the way.
                let mut both = self.wire.both();
                let direction = &mut both.directions[at];
                let left = input.below(direction.bytes.len() + 1);
                direction.bytes.truncate(left);
                (direction.ended, direction.cut) = (true, true);
                self.sides[at].cut = true;
            }
            _ => {
                let mut both = self.wire.both();
                let direction = &mut both.directions[at];
                direction.takes += input.len(100_000);
                direction.gives += input.len(100_000);
                direction.step = input.len(100_000);
            }
        }
    }

    /// Changes a bit on the way.
    fn flip(&mut self, from: usize, place: usize, bit: u8) {
        let mut both = self.wire.both();
        let direction = &mut both.directions[from];
        let on_way = direction.bytes.len();
        let before = direction.wire.len() - on_way;
        let Some(byte) = direction.bytes.get_mut(place % on_way.max(1)) else { return };
        *byte ^= bit;
        let offset = before + place % on_way;
        match offset.checked_sub(NONCE_LEN) {
            Some(offset) => self.sides[from].flipped.push((offset, bit)),
            None => self.same_key = false,
        }
    }

    fn read(&mut self, at: usize, len: usize) {
        let Poll::Ready(result) = self.sides[at].read(&self.wire, len) else { return };
        let checks = self.checks && at == 0;
        let (from, to) = (1 - at, at);
        match result {
            Ok(chunk) if chunk.is_empty() => {
                assert!(!self.sides[to].failed, "an end after an error");
                let both = self.wire.both();
                assert!(both.directions[from].ended && both.directions[from].bytes.is_empty());
                let complete = self.sides[to].read == self.sides[from].written;
                assert!(complete || self.sides[from].cut, "an end before all data");
                assert!(!checks || self.sides[to].read >= GREETING.len(), "nothing was said");
            }
            Ok(chunk) => {
                assert!(!self.sides[to].failed, "bytes after an error");
                let start = self.sides[to].read;
                self.sides[to].read += chunk.len();
                assert!(self.sides[to].read <= self.sides[from].written, "more than was written");
                let mut expected = self.sides[from].text(start, chunk.len());
                for (offset, bit) in &self.sides[from].flipped {
                    if let Some(byte) = offset.checked_sub(start).and_then(|i| expected.get_mut(i))
                    {
                        *byte ^= bit;
                    }
                }
                if self.same_key {
                    assert!(chunk == expected, "not what was written");
                } else if chunk.len() > 8 {
                    assert!(chunk != expected, "with another key");
                }
                let known = GREETING.len().saturating_sub(start).min(chunk.len());
                if checks && known > 0 {
                    assert_eq!(chunk[..known], GREETING[start..start + known], "garbage");
                }
            }
            Err(error) => {
                self.check_error(to, &error);
                self.sides[to].failed = true;
            }
        }
    }

    fn check_error(&self, to: usize, error: &io::Error) {
        let sender = &self.sides[1 - to];
        let cause = error.get_ref().and_then(|error| error.downcast_ref::<LinkError>());
        match cause.expect("an error of this layer") {
            LinkError::NonceCut { len } => {
                assert!(sender.cut && (1..NONCE_LEN).contains(len));
            }
            LinkError::OtherKey { .. } => {
                assert!(self.checks && to == 0);
                assert!(!self.same_key || !sender.greets || !sender.flipped.is_empty());
            }
            LinkError::Silent { .. } => {
                assert!(self.checks && to == 0 && self.sides[to].read < GREETING.len());
                assert!(self.wire.both().directions[1 - to].ended);
            }
            other @ (LinkError::Public | LinkError::Multiplexed | LinkError::Exhausted | _) => {
                panic!("{other}")
            }
        }
    }

    fn wind_up(&mut self) {
        for direction in &mut self.wire.both().directions {
            (direction.takes, direction.gives) = (usize::MAX, usize::MAX);
            direction.step = usize::MAX;
        }
        for at in 0..2 {
            assert!(self.sides[at].flush(&self.wire).is_ready() || self.sides[at].broken);
            self.sides[at].shutdown(&self.wire);
            assert!(self.sides[at].shut || self.sides[at].broken || self.sides[at].cut);
        }
        for at in 0..2 {
            loop {
                let before = (self.sides[at].read, self.sides[at].failed);
                self.read(at, 50_000);
                if before == (self.sides[at].read, self.sides[at].failed) {
                    break;
                }
            }
            let (from, to) = (&self.sides[1 - at], &self.sides[at]);
            let lost = from.cut || to.failed || to.broken || from.broken;
            assert!(lost || to.read == from.written, "{} of {}", to.read, from.written);
            self.check_wire(at);
        }
    }

    /// What goes over the wire is a nonce, and then as much as was written, but not that.
    fn check_wire(&self, at: usize) {
        let both = self.wire.both();
        let (wire, side) = (&both.directions[at].wire, &self.sides[at]);
        if side.cut || side.broken {
            return;
        }
        assert_eq!(wire.len(), NONCE_LEN + side.written);
        let len = side.written.min(64);
        assert!(len < 8 || wire[NONCE_LEN..NONCE_LEN + len] != side.text(0, len), "in the clear");
    }

    /// The other side has no key, and sends anything.
    fn strange(&mut self, input: &mut Input) {
        let clear = input.flag();
        let rest = input.rest();
        let said = [if clear { GREETING } else { b"" }, rest].concat();
        for direction in &mut self.wire.both().directions {
            (direction.takes, direction.gives) = (usize::MAX, usize::MAX);
        }
        let mut read = 0;
        for piece in Input::new(rest).cut(&said) {
            self.wire.both().directions[1].bytes.extend(piece);
            let _ = self.sides[0].flush(&self.wire);
            if let Poll::Ready(Ok(chunk)) = self.sides[0].read(&self.wire, 1000) {
                read += chunk.len();
            }
        }
        self.wire.both().directions[1].ended = true;
        if self.sides[0].flush(&self.wire).is_pending() {
            panic!("the pipe is ready");
        }
        let mut last = None;
        for _ in 0..=said.len() {
            match self.sides[0].read(&self.wire, 1000) {
                Poll::Ready(Ok(chunk)) if chunk.is_empty() => break,
                Poll::Ready(Ok(chunk)) => read += chunk.len(),
                Poll::Ready(Err(error)) => {
                    last = Some(error);
                    break;
                }
                Poll::Pending => panic!("the pipe has ended"),
            }
        }
        let cause = last.as_ref().and_then(io::Error::get_ref);
        let cause = cause.and_then(|error| error.downcast_ref::<LinkError>());
        // Before that, an error may have been given to another read.
        if self.sides[0].broken {
            return;
        }
        assert!(read <= said.len().saturating_sub(NONCE_LEN));
        assert_eq!(cause == Some(&LinkError::Public), clear, "{cause:?}");
        assert!(!self.checks || (cause.is_some() && read < GREETING.len()), "{cause:?}");
    }
}

/// A protected end, in the two forms that there are.
enum Stream {
    Alone(PrivateStream<End>),
    OfNetwork(Pipe),
}

type Beginning = Pin<Box<dyn Future<Output = io::Result<Stream>>>>;

struct Side {
    role: usize,
    beginning: Option<Beginning>,
    stream: Option<Stream>,
    /// Begins with what every connection begins with.
    greets: bool,
    written: usize,
    read: usize,
    shut: bool,
    /// Its direction was cut on the way.
    cut: bool,
    /// Reading gave an error.
    failed: bool,
    /// It never came to be.
    broken: bool,
    /// Changed bits of what it wrote.
    flipped: Vec<(usize, u8)>,
}

impl Side {
    fn new(wire: &Wire, role: usize, key: &PreSharedKey, in_network: bool) -> Self {
        let (end, key) = (wire.end(role), key.clone());
        let beginning: Beginning = if in_network {
            let network = PrivateNetwork::new(key, Fixed(end));
            Box::pin(async move {
                let target = DialTarget::new("/memory/1".parse().expect("an address"), None);
                match network.dial(target).await.map_err(io::Error::other)? {
                    Link::Pipe(pipe) => Ok(Stream::OfNetwork(pipe)),
                    other @ (Link::Muxed(_) | _) => panic!("{other:?}"),
                }
            })
        } else {
            Box::pin(async move { protect(end, &key).await.map(Stream::Alone) })
        };
        Self {
            role,
            beginning: Some(beginning),
            stream: None,
            greets: true,
            written: 0,
            read: 0,
            shut: false,
            cut: false,
            failed: false,
            broken: false,
            flipped: Vec::new(),
        }
    }

    /// What the side writes from `offset`.
    fn text(&self, offset: usize, len: usize) -> Vec<u8> {
        let byte = |i: usize| match GREETING.get(i) {
            Some(byte) if self.greets => *byte,
            _ => (i / 251 + i * (7 + 4 * self.role)).to_le_bytes()[0],
        };
        (offset..offset + len).map(byte).collect()
    }

    /// The stream, once the nonce is taken.
    fn begun(&mut self, wire: &Wire) -> Option<&mut Stream> {
        if let Some(beginning) = &mut self.beginning
            && let Poll::Ready(result) = wire.poll(|cx| beginning.as_mut().poll(cx))
        {
            self.beginning = None;
            match result {
                Ok(stream) => self.stream = Some(stream),
                Err(_) => self.broken = true,
            }
        }
        self.stream.as_mut()
    }

    fn write(&mut self, wire: &Wire, len: usize) {
        if self.shut || self.cut || self.written > WRITTEN_MAX {
            return;
        }
        let text = self.text(self.written, len);
        let Some(stream) = self.begun(wire) else { return };
        let count = wire.poll(|cx| match stream {
            Stream::Alone(stream) => Pin::new(stream).poll_write(cx, &text),
            Stream::OfNetwork(pipe) => Pin::new(&mut pipe.write).poll_write(cx, &text),
        });
        if let Poll::Ready(count) = count {
            let count = count.expect("the pipe does not fail");
            assert_eq!(count, len.min(WRITE_LEN_MAX));
            self.written += count;
        }
    }

    fn flush(&mut self, wire: &Wire) -> Poll<()> {
        if self.cut || self.shut {
            return Poll::Ready(());
        }
        let Some(stream) = self.begun(wire) else { return Poll::Pending };
        let flushed = wire.poll(|cx| match stream {
            Stream::Alone(stream) => Pin::new(stream).poll_flush(cx),
            Stream::OfNetwork(pipe) => Pin::new(&mut pipe.write).poll_flush(cx),
        });
        if flushed.is_ready() {
            let sent = wire.both().directions[self.role].wire.len();
            assert_eq!(sent, NONCE_LEN + self.written, "something was not sent");
        }
        flushed.map(|result| result.expect("the pipe does not fail"))
    }

    fn shutdown(&mut self, wire: &Wire) {
        if self.shut || self.cut {
            return;
        }
        let Some(stream) = self.begun(wire) else { return };
        let shut = wire.poll(|cx| match stream {
            Stream::Alone(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::OfNetwork(pipe) => Pin::new(&mut pipe.write).poll_shutdown(cx),
        });
        self.shut = matches!(shut, Poll::Ready(Ok(())));
    }

    fn read(&mut self, wire: &Wire, len: usize) -> Poll<io::Result<Vec<u8>>> {
        let Some(stream) = self.begun(wire) else { return Poll::Pending };
        let mut buf = vec![0; len];
        let mut buf = ReadBuf::new(&mut buf);
        let result = wire.poll(|cx| match stream {
            Stream::Alone(stream) => Pin::new(stream).poll_read(cx, &mut buf),
            Stream::OfNetwork(pipe) => Pin::new(&mut pipe.read).poll_read(cx, &mut buf),
        });
        assert!(matches!(result, Poll::Ready(Ok(()))) || buf.filled().is_empty());
        result.map_ok(|()| buf.filled().to_vec())
    }
}

/// A transport whose one link is there already.
struct Fixed(End);

#[async_trait]
impl Transport for Fixed {
    fn supports(&self, _: &Multiaddr) -> bool {
        true
    }

    async fn dial(&self, _: DialTarget) -> Result<Link, TransportError> {
        Ok(Link::Pipe(Pipe::new(self.0.clone(), self.0.clone())))
    }

    async fn listen(&self, _: Multiaddr) -> Result<Box<dyn Listener>, TransportError> {
        unreachable!("nobody listens")
    }
}
