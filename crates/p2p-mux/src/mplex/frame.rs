//! The two varints that every mplex frame begins with (MPLEX-02, MPLEX-03).
//!
//! ```text
//!  | stream number << 3 | flag |  body length  | body |
//!
//!  flag 0 open                       (the body is a name, which means nothing)
//!       1 message  3 close  5 reset  of a stream that the receiver of the frame has opened
//!       2 message  4 close  6 reset  of a stream that the sender of the frame has opened
//! ```

use bytes::BytesMut;
use p2p_core::{MuxError, StreamId, varint};

/// The longest header, in bytes.
pub(super) const HEADER_LEN_MAX: usize = 2 * varint::LEN_MAX;
/// The longest body that is accepted, in bytes (MPLEX-08).
pub(super) const BODY_LEN_MAX: u32 = 1 << 20;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Begins a stream.
    Open,
    /// Carries bytes of a stream.
    Message,
    /// Ends the sender's direction.
    Close,
    /// Ends both directions.
    Reset,
}

/// A decoded header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) stream: StreamId,
    /// The body's length in bytes.
    pub(super) len: u32,
}

impl Header {
    /// Decodes the header at the front of `bytes` and gives its length, or `None` when it is not
    /// complete.
    pub(super) fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, MuxError> {
        let Some((value, first)) = varint::decode(bytes).map_err(MuxError::Varint)? else {
            return Ok(None);
        };
        let (kind, inbound) = match value & 7 {
            0 => (Kind::Open, true),
            1 => (Kind::Message, false),
            2 => (Kind::Message, true),
            3 => (Kind::Close, false),
            4 => (Kind::Close, true),
            5 => (Kind::Reset, false),
            6 => (Kind::Reset, true),
            _ => return Err(MuxError::FrameType(7)),
        };
        let rest = bytes.get(first..).unwrap_or_default();
        let Some((len, second)) = varint::decode(rest).map_err(MuxError::Varint)? else {
            return Ok(None);
        };
        let len = u32::try_from(len)
            .ok()
            .filter(|len| *len <= BODY_LEN_MAX)
            .ok_or(MuxError::FrameLen { len, max: BODY_LEN_MAX.into() })?;
        let header = Self { kind, stream: stream_id(value >> 3, inbound), len };
        Ok(Some((header, first.saturating_add(second))))
    }

    pub(super) fn encode(self, out: &mut BytesMut) {
        let flag = match (self.kind, is_inbound(self.stream)) {
            (Kind::Open, _) => 0,
            (Kind::Message, true) => 1,
            (Kind::Message, false) => 2,
            (Kind::Close, true) => 3,
            (Kind::Close, false) => 4,
            (Kind::Reset, true) => 5,
            (Kind::Reset, false) => 6,
        };
        varint::encode(number(self.stream) << 3 | flag, out);
        varint::encode(self.len.into(), out);
    }
}

/// The id of stream `number` of one side: the same number may be in use twice (MPLEX-04).
/// Numbers have at most 60 bits.
pub(super) fn stream_id(number: u64, inbound: bool) -> StreamId {
    StreamId::new(number << 1 | u64::from(inbound))
}

/// Whether the peer has opened the stream.
pub(super) fn is_inbound(id: StreamId) -> bool {
    id.value() & 1 == 1
}

/// The stream's number on the wire.
pub(super) fn number(id: StreamId) -> u64 {
    id.value() >> 1
}
