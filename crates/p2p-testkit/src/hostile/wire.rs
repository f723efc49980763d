//! Bytes of the protocols, as a script sends them: legal or not, nothing is checked.

use bytes::BufMut;
use p2p_core::varint;

/// A varint in its shortest form.
#[must_use]
pub fn varint(number: u64) -> Vec<u8> {
    let mut out = bytes::BytesMut::new();
    varint::encode(number, &mut out);
    out.to_vec()
}

/// Bytes with their length as a varint before them.
#[must_use]
pub fn counted(bytes: &[u8]) -> Vec<u8> {
    [&varint(u64::try_from(bytes.len()).unwrap_or(u64::MAX)), bytes].concat()
}

/// A field of a protobuf message that holds bytes.
#[must_use]
pub fn field(number: u64, bytes: &[u8]) -> Vec<u8> {
    [varint(number << 3 | 2), counted(bytes)].concat()
}

/// multistream-select 1.0.0.
pub mod multistream {
    use super::counted;

    /// The name that is in the header.
    pub const NAME: &str = "/multistream/1.0.0";

    /// A message: its length, the text, a newline.
    #[must_use]
    pub fn message(text: &str) -> Vec<u8> {
        counted(&[text.as_bytes(), b"\n"].concat())
    }

    /// The header and a proposal, or the header and an answer.
    #[must_use]
    pub fn proposal(protocol: &str) -> Vec<u8> {
        [message(NAME), message(protocol)].concat()
    }
}

/// Frames of yamux: version, type, flags, stream, length, and for data the body.
pub mod yamux {
    use super::BufMut;

    /// The name of the protocol.
    pub const NAME: &str = "/yamux/1.0.0";
    /// Type of a frame with data.
    pub const DATA: u8 = 0;
    /// Type of a frame that gives credit.
    pub const WINDOW_UPDATE: u8 = 1;
    /// Type of a ping and its answer.
    pub const PING: u8 = 2;
    /// Type of the goodbye.
    pub const GO_AWAY: u8 = 3;
    /// Flag that opens a stream, or asks for the answer of a ping.
    pub const SYN: u16 = 1;
    /// Flag that acknowledges a stream, or answers a ping.
    pub const ACK: u16 = 2;
    /// Flag that ends one direction.
    pub const FIN: u16 = 4;
    /// Flag that ends both.
    pub const RST: u16 = 8;

    /// A header of 12 bytes.
    #[must_use]
    pub fn frame(kind: u8, flags: u16, stream: u32, len: u32) -> Vec<u8> {
        let mut out = vec![0, kind];
        out.put_u16(flags);
        out.put_u32(stream);
        out.put_u32(len);
        out
    }

    /// What a peer has said, as its frames: type, flags, stream and length of each. What is not a
    /// whole header is left out.
    #[must_use]
    pub fn frames(mut said: &[u8]) -> Vec<(u8, u16, u32, u32)> {
        let mut frames = Vec::new();
        while let Some(([_, kind, a, b, c, d, e, f, g, h, i, j], rest)) = said.split_first_chunk() {
            let len = u32::from_be_bytes([*g, *h, *i, *j]);
            let stream = u32::from_be_bytes([*c, *d, *e, *f]);
            frames.push((*kind, u16::from_be_bytes([*a, *b]), stream, len));
            let body = if *kind == DATA { usize::try_from(len).unwrap_or(usize::MAX) } else { 0 };
            said = rest.get(body..).unwrap_or_default();
        }
        frames
    }

    /// A frame with data, whose length is that of `body`.
    #[must_use]
    pub fn data(flags: u16, stream: u32, body: &[u8]) -> Vec<u8> {
        let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
        [&frame(DATA, flags, stream, len), body].concat()
    }
}

/// Frames of mplex: stream and flag, length, body.
pub mod mplex {
    use super::{counted, varint};

    /// The name of the protocol.
    pub const NAME: &str = "/mplex/6.7.0";
    /// Flag that opens a stream.
    pub const OPEN: u64 = 0;
    /// Flag of data, by the side that has opened the stream.
    pub const MESSAGE: u64 = 2;
    /// Flag of one direction's end, by the side that has opened the stream.
    pub const CLOSE: u64 = 4;
    /// Flag of a stream's end, by the side that has opened it.
    pub const RESET: u64 = 6;

    /// A header with any length.
    #[must_use]
    pub fn header(stream: u64, flag: u64, len: u64) -> Vec<u8> {
        [varint(stream << 3 | flag), varint(len)].concat()
    }

    /// A frame, whose length is that of `body`.
    #[must_use]
    pub fn frame(stream: u64, flag: u64, body: &[u8]) -> Vec<u8> {
        [varint(stream << 3 | flag), counted(body)].concat()
    }
}
