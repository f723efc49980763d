//! The frames of `/p2p-send/1.0.0`: a type (1 byte), a length (4 bytes, big-endian), a body.

use std::{
    io,
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use p2p::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{BUSY_EVERY, DIGEST_LEN, PIECE_LEN, SILENCE_MAX, names::PATH_LEN_MAX, ticket::Secret};
use crate::failure::Failure;

/// The longest text that says why, in bytes.
const TEXT_LEN_MAX: usize = 512;

/// Words in a row that the other side is busy: an hour.
const BUSY_MAX: u32 = 720;

const HEADER_LEN: usize = 5;

/// Answers that may wait while content is sent, in bytes: those to 64 files have 2944, and a
/// result 518.
const AHEAD_LEN_MAX: usize = 8 << 10;

/// A frame, and what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    Hello {
        secret: [u8; Secret::LEN],
    },
    Answer(Answer),
    Result {
        code: u8,
        text: String,
    },
    Offer {
        files: u64,
        folders: u64,
        bytes: u64,
    },
    Refused {
        code: u8,
        text: String,
    },
    Folder {
        path: String,
    },
    File {
        size: u64,
        executable: bool,
        path: String,
    },
    Content {
        start: u64,
    },
    Differs,
    /// So many bytes of content, which are yet to be read.
    Data {
        len: usize,
    },
    End {
        sha256: [u8; DIGEST_LEN],
    },
    Failed {
        text: String,
    },
    Done,
    Busy,
}

/// What a receiver wants of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Nothing.
    Skip,
    /// All but the first bytes, where the sender's have this digest.
    Want { have: u64, sha256: [u8; DIGEST_LEN] },
    /// To know whether its digest is this, and no content.
    Compare { have: u64, sha256: [u8; DIGEST_LEN] },
}

/// [`Frame::Result`]: everything is there; something is not; the receiver has given up.
pub(super) const ALL: u8 = 0;
pub(super) const PART: u8 = 1;
pub(super) const GAVE_UP: u8 = 2;

/// [`Frame::Refused`].
pub(super) const WRONG_SECRET: u8 = 1;
pub(super) const TAKEN: u8 = 2;

const HELLO: u8 = 0x01;
const ANSWER: u8 = 0x02;
const RESULT: u8 = 0x03;
const OFFER: u8 = 0x11;
const REFUSED: u8 = 0x12;
const FOLDER: u8 = 0x13;
const FILE: u8 = 0x14;
const CONTENT: u8 = 0x15;
const DIFFERS: u8 = 0x16;
const DATA: u8 = 0x17;
const END: u8 = 0x18;
const FAILED: u8 = 0x19;
const DONE: u8 = 0x1a;
const BUSY: u8 = 0x20;

/// How long the body of a frame of this type may be, in bytes.
fn body_len(kind: u8) -> Result<RangeInclusive<usize>, String> {
    Ok(match kind {
        HELLO => Secret::LEN..=Secret::LEN,
        ANSWER => 1..=1 + 8 + DIGEST_LEN,
        RESULT | REFUSED => 1..=1 + TEXT_LEN_MAX,
        OFFER => 24..=24,
        FOLDER => 1..=PATH_LEN_MAX,
        FILE => 10..=9 + PATH_LEN_MAX,
        CONTENT => 8..=8,
        DATA => 1..=PIECE_LEN,
        END => DIGEST_LEN..=DIGEST_LEN,
        FAILED => 0..=TEXT_LEN_MAX,
        DIFFERS | DONE | BUSY => 0..=0,
        other => return Err(format!("a frame of unknown type {other:#04x}")),
    })
}

/// Reads type and length, and refuses what the protocol does not allow before it is read.
fn decode_header(header: [u8; HEADER_LEN]) -> Result<(u8, usize), String> {
    let [kind, len @ ..] = header;
    let allowed = body_len(kind)?;
    let len = usize::try_from(u32::from_be_bytes(len)).unwrap_or(usize::MAX);
    if !allowed.contains(&len) {
        let (min, max) = allowed.into_inner();
        return Err(format!("a frame {kind:#04x} of {len} bytes, not {min} to {max}"));
    }
    Ok((kind, len))
}

/// Decodes a body whose length [`decode_header`] has allowed.
fn decode(kind: u8, body: &[u8]) -> Result<Frame, String> {
    decode_body(kind, body).ok_or_else(|| format!("a malformed frame {kind:#04x}"))
}

fn decode_body(kind: u8, body: &[u8]) -> Option<Frame> {
    Some(match kind {
        HELLO => Frame::Hello { secret: body.try_into().ok()? },
        ANSWER => Frame::Answer(decode_answer(body)?),
        RESULT => {
            let (&code, text) = body.split_first()?;
            Frame::Result { code, text: text_of(text)? }
        }
        REFUSED => {
            let (&code, text) = body.split_first()?;
            Frame::Refused { code, text: text_of(text)? }
        }
        OFFER => {
            let (files, rest) = split_u64(body)?;
            let (folders, rest) = split_u64(rest)?;
            let (bytes, []) = split_u64(rest)? else { return None };
            Frame::Offer { files, folders, bytes }
        }
        FOLDER => Frame::Folder { path: text_of(body)? },
        FILE => {
            let (size, rest) = split_u64(body)?;
            let (&flags, path) = rest.split_first()?;
            if flags > 1 {
                return None;
            }
            Frame::File { size, executable: flags == 1, path: text_of(path)? }
        }
        CONTENT => {
            let (start, []) = split_u64(body)? else { return None };
            Frame::Content { start }
        }
        DIFFERS => Frame::Differs,
        END => Frame::End { sha256: body.try_into().ok()? },
        FAILED => Frame::Failed { text: text_of(body)? },
        DONE => Frame::Done,
        BUSY => Frame::Busy,
        _ => return None,
    })
}

fn decode_answer(body: &[u8]) -> Option<Answer> {
    let (&kind, rest) = body.split_first()?;
    if kind == 0 {
        return rest.is_empty().then_some(Answer::Skip);
    }
    let (have, sha256) = split_u64(rest)?;
    let sha256 = sha256.try_into().ok()?;
    match kind {
        1 => Some(Answer::Want { have, sha256 }),
        2 => Some(Answer::Compare { have, sha256 }),
        _ => None,
    }
}

fn split_u64(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*number), rest))
}

fn text_of(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}

/// At most [`TEXT_LEN_MAX`] bytes of it.
fn cut(text: &str) -> &str {
    let end = (0..=TEXT_LEN_MAX.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    text.get(..end.unwrap_or_default()).unwrap_or_default()
}

/// A frame's bytes; of [`Frame::Data`] the header alone.
fn encode(frame: &Frame) -> Vec<u8> {
    let (kind, body): (u8, Vec<u8>) = match frame {
        Frame::Hello { secret } => (HELLO, secret.to_vec()),
        Frame::Answer(answer) => (ANSWER, encode_answer(answer)),
        Frame::Result { code, text } => (RESULT, [&[*code], cut(text).as_bytes()].concat()),
        Frame::Refused { code, text } => (REFUSED, [&[*code], cut(text).as_bytes()].concat()),
        Frame::Offer { files, folders, bytes } => {
            (OFFER, [files, folders, bytes].map(|number| number.to_be_bytes()).concat())
        }
        Frame::Folder { path } => (FOLDER, path.as_bytes().to_vec()),
        Frame::File { size, executable, path } => {
            (FILE, [&size.to_be_bytes()[..], &[u8::from(*executable)], path.as_bytes()].concat())
        }
        Frame::Content { start } => (CONTENT, start.to_be_bytes().to_vec()),
        Frame::Differs => (DIFFERS, Vec::new()),
        Frame::Data { len } => return header(DATA, *len),
        Frame::End { sha256 } => (END, sha256.to_vec()),
        Frame::Failed { text } => (FAILED, cut(text).as_bytes().to_vec()),
        Frame::Done => (DONE, Vec::new()),
        Frame::Busy => (BUSY, Vec::new()),
    };
    let mut bytes = header(kind, body.len());
    bytes.extend(body);
    bytes
}

fn header(kind: u8, len: usize) -> Vec<u8> {
    // No body is longer than `body_len` says.
    let len = u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes();
    [&[kind][..], &len].concat()
}

fn encode_answer(answer: &Answer) -> Vec<u8> {
    let (kind, have, sha256) = match answer {
        Answer::Skip => return vec![0],
        Answer::Want { have, sha256 } => (1, have, sha256),
        Answer::Compare { have, sha256 } => (2, have, sha256),
    };
    [&[kind][..], &have.to_be_bytes(), sha256].concat()
}

/// A stream of frames. Every wait has a limit.
#[derive(Debug)]
pub(super) struct Frames {
    pub(super) stream: Stream,
    /// What [`Frames::check_result`] has read ahead.
    read: BytesMut,
}

impl Frames {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, read: BytesMut::new() }
    }

    /// Reads the next frame, which comes within `limit`, but for a side that says it is busy.
    pub(super) async fn read_within(&mut self, limit: Duration) -> Result<Frame, Failure> {
        for _ in 0..BUSY_MAX {
            self.stream.set_read_deadline(Some(Instant::now() + limit));
            let mut header = [0; HEADER_LEN];
            self.read_exact(&mut header).await?;
            let (kind, len) = decode_header(header).map_err(violation)?;
            if kind == DATA {
                return Ok(Frame::Data { len });
            }
            let mut body = vec![0; len];
            self.read_exact(&mut body).await?;
            let frame = decode(kind, &body).map_err(violation)?;
            if frame != Frame::Busy {
                return Ok(frame);
            }
        }
        Err(Failure::new("the other side says that it is busy, and does nothing else"))
    }

    async fn read_exact(&mut self, buffer: &mut [u8]) -> Result<(), Failure> {
        let ahead = self.read.split_to(self.read.len().min(buffer.len()));
        let (start, rest) = buffer.split_at_mut(ahead.len());
        start.copy_from_slice(&ahead);
        self.stream.read_exact(rest).await.map_err(lost)?;
        Ok(())
    }

    pub(super) async fn read(&mut self) -> Result<Frame, Failure> {
        self.read_within(SILENCE_MAX).await
    }

    /// Fails when the other side has given the transfer up, without waiting for its next word.
    pub(super) async fn check_result(&mut self) -> Result<(), Failure> {
        self.stream.set_read_deadline(None);
        let piece = tokio::select! {
            biased;
            piece = self.stream.chunk(AHEAD_LEN_MAX) => piece.map_err(|error| lost(error.into()))?,
            () = std::future::ready(()) => return Ok(()),
        };
        let piece = piece.ok_or_else(|| lost(io::ErrorKind::UnexpectedEof.into()))?;
        self.read.extend_from_slice(&piece);
        if self.read.len() > AHEAD_LEN_MAX {
            return Err(violation("answers to what was not asked"));
        }
        let mut rest = &self.read[..];
        while let Some((header, after)) = rest.split_first_chunk() {
            let (kind, len) = decode_header(*header).map_err(violation)?;
            let Some((body, after)) = after.split_at_checked(len) else { break };
            if kind == RESULT
                && let Frame::Result { code, text } = decode(kind, body).map_err(violation)?
            {
                return Err(ended(code, &text));
            }
            rest = after;
        }
        Ok(())
    }

    /// Reads a part of the content that [`Frame::Data`] announced.
    pub(super) async fn read_content(&mut self, max: usize) -> Result<Bytes, Failure> {
        self.stream.set_read_deadline(Some(Instant::now() + SILENCE_MAX));
        let piece = self.stream.chunk(max).await.map_err(|error| lost(error.into()))?;
        piece.ok_or_else(|| lost(io::ErrorKind::UnexpectedEof.into()))
    }

    pub(super) async fn write(&mut self, frame: &Frame) -> Result<(), Failure> {
        self.stream.set_write_deadline(Some(Instant::now() + SILENCE_MAX));
        self.stream.write_all(&encode(frame)).await.map_err(lost)
    }

    /// Writes a piece of content, of 1 to [`PIECE_LEN`] bytes.
    pub(super) async fn write_content(&mut self, mut piece: Bytes) -> Result<(), Failure> {
        self.write(&Frame::Data { len: piece.len() }).await?;
        self.stream.send(&mut piece).await.map_err(|error| lost(error.into()))
    }

    /// Waits for what another thread does, and says meanwhile that this side is busy.
    pub(super) async fn busy_until<T: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let mut work = tokio::task::spawn_blocking(work);
        loop {
            match tokio::time::timeout(BUSY_EVERY, &mut work).await {
                Ok(done) => return done.map_err(|error| Failure::new(error.to_string())),
                Err(_) => self.write(&Frame::Busy).await?,
            }
        }
    }
}

/// What a receiver says that does not have all.
pub(super) fn ended(code: u8, text: &str) -> Failure {
    match code {
        PART => Failure::new(format!("the receiver does not have all: {text}")),
        GAVE_UP => Failure::new(format!("the receiver gave up: {text}")),
        code => Failure::new(format!("the receiver ended it (code {code}): {text}")),
    }
}

pub(super) fn violation(what: impl Into<String>) -> Failure {
    Failure::new(format!("the other side broke the protocol: {}", what.into()))
        .next("use the same version of this program on both sides")
}

fn lost(error: io::Error) -> Failure {
    let kind = error.kind();
    if kind == io::ErrorKind::TimedOut {
        return Failure::new(format!("the other side did nothing for {SILENCE_MAX:?}"));
    }
    if matches!(kind, io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) {
        return Failure::new("the other side ended the transfer before it was complete");
    }
    Failure::new(format!("the other side is gone: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Frame> {
        let sha256 = [9; DIGEST_LEN];
        let (text, path) = ("ü".to_owned(), "a/b".to_owned());
        vec![
            Frame::Hello { secret: [1; Secret::LEN] },
            Frame::Answer(Answer::Skip),
            Frame::Answer(Answer::Want { have: u64::MAX, sha256 }),
            Frame::Answer(Answer::Compare { have: 0, sha256 }),
            Frame::Result { code: PART, text: text.clone() },
            Frame::Offer { files: 1, folders: 2, bytes: u64::MAX },
            Frame::Refused { code: TAKEN, text: String::new() },
            Frame::Folder { path: path.clone() },
            Frame::File { size: 5, executable: true, path },
            Frame::Content { start: 3 },
            Frame::Differs,
            Frame::End { sha256 },
            Frame::Failed { text },
            Frame::Done,
            Frame::Busy,
        ]
    }

    fn read(bytes: &[u8]) -> Result<Frame, String> {
        let (header, body) = bytes.split_first_chunk::<HEADER_LEN>().ok_or("short")?;
        let (kind, len) = decode_header(*header)?;
        if body.len() != len {
            return Err("another length".into());
        }
        decode(kind, body)
    }

    #[test]
    fn frames_survive_the_wire() {
        for frame in all() {
            assert_eq!(read(&encode(&frame)).as_ref(), Ok(&frame));
        }
        assert_eq!(decode_header([DATA, 0, 2, 0, 0]), Ok((DATA, PIECE_LEN)));
    }

    #[test]
    fn the_bytes_are_those_of_the_document() {
        let file = Frame::File { size: 258, executable: false, path: "a".into() };
        assert_eq!(encode(&file), b"\x14\0\0\0\x0a\0\0\0\0\0\0\x01\x02\0a");
        let want = Frame::Answer(Answer::Want { have: 1, sha256: [7; 32] });
        let bytes = encode(&want);
        assert_eq!(bytes[..14], *b"\x02\0\0\0\x29\x01\0\0\0\0\0\0\0\x01");
        assert_eq!(bytes[14..], [7; 32]);
    }

    #[test]
    fn a_body_that_is_too_long_is_refused_by_its_header() {
        for (kind, max) in [
            (HELLO, 16),
            (ANSWER, 41),
            (RESULT, 513),
            (OFFER, 24),
            (REFUSED, 513),
            (FOLDER, 4096),
            (FILE, 4105),
            (CONTENT, 8),
            (DIFFERS, 0),
            (DATA, 131_072),
            (END, 32),
            (FAILED, 512),
            (DONE, 0),
            (BUSY, 0),
        ] {
            let header = |len: u32| {
                let [a, b, c, d] = len.to_be_bytes();
                decode_header([kind, a, b, c, d])
            };
            assert!(header(max).is_ok(), "{kind:#x}");
            assert!(header(max + 1).is_err() && header(u32::MAX).is_err(), "{kind:#x}");
        }
        for kind in [0, 4, 0x10, 0x1b, 0x21, 0xff] {
            assert!(decode_header([kind, 0, 0, 0, 0]).is_err(), "{kind:#x}");
        }
    }

    #[test]
    fn garbage_is_refused_or_a_frame_that_encodes_to_itself() {
        let mut state = 1u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut taken = 0;
        for _ in 0..50_000 {
            let mut bytes = encode(&all()[(random() % 15) as usize]);
            for _ in 0..random() % 3 {
                let at = (random() % bytes.len() as u64) as usize;
                bytes[at] = random() as u8;
            }
            if random() % 4 == 0 {
                bytes.truncate((random() % bytes.len() as u64) as usize);
            }
            if let Ok(frame) = read(&bytes) {
                assert_eq!(encode(&frame), bytes);
                taken += 1;
            }
        }
        assert!(taken > 1000, "{taken}");
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let frame = Frame::Failed { text: "ü".repeat(TEXT_LEN_MAX) + "x" };
        assert!(matches!(read(&encode(&frame)), Ok(Frame::Failed { text }) if text.len() == 512));
        let frame = Frame::Failed { text: format!("x{}", "ü".repeat(TEXT_LEN_MAX)) };
        assert!(matches!(read(&encode(&frame)), Ok(Frame::Failed { text }) if text.len() == 511));
    }
}
