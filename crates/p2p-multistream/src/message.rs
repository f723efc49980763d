//! The framing: one message is a varint length, a text, and a newline that the length counts.

use bytes::{Buf, BufMut, BytesMut};
use p2p_core::varint;

use crate::NegotiationError;

/// The longest message that is taken, in bytes with its newline but without its length prefix:
/// what go-libp2p and js-libp2p take (MSS-04).
pub const MESSAGE_LEN_MAX: usize = 1024;

/// The first message of either side, as it is on the wire (MSS-02).
pub(crate) const HEADER: &[u8] = b"\x13/multistream/1.0.0\n";
/// The text of the header.
pub(crate) const HEADER_TEXT: &str = "/multistream/1.0.0";
/// The text of a refusal.
pub(crate) const NA: &str = "na";

/// 1024 needs two bytes. A third is refused before it is read.
const PREFIX_LEN_MAX: usize = 2;
/// The shortest message on the wire: its length and a newline.
const WIRE_LEN_MIN: usize = 2;
/// How much of what a peer has sent goes into an error, in bytes or characters.
const SHOWN_LEN_MAX: usize = 64;

/// Appends a message. `text` is a protocol name, or shorter than the longest.
pub(crate) fn put(text: &str, out: &mut BytesMut) {
    let len = text.len().saturating_add(1);
    varint::encode(u64::try_from(len).expect("a message is at most 1024 bytes"), out);
    out.put_slice(text.as_bytes());
    out.put_u8(b'\n');
}

/// Takes the header from the front of `wire`, and says whether it was whole. It fails at the
/// first byte that differs, so a peer that speaks something else is not waited for.
pub(crate) fn take_header(wire: &mut BytesMut) -> Result<bool, NegotiationError> {
    let front = wire.get(..HEADER.len()).unwrap_or(wire);
    if !HEADER.starts_with(front) {
        let shown = wire.get(..SHOWN_LEN_MAX).unwrap_or(wire);
        return Err(NegotiationError::NotMultistream(shown.escape_ascii().to_string()));
    }
    if front.len() < HEADER.len() {
        return Ok(false);
    }
    wire.advance(HEADER.len());
    Ok(true)
}

/// Takes a message from the front of `wire` and gives its text without the newline; `None`, with
/// `wire` as it was, while it is not whole.
pub(crate) fn take(wire: &mut BytesMut) -> Result<Option<String>, NegotiationError> {
    let Some(prefix) = Prefix::parse(wire)? else { return Ok(None) };
    let Some(body) = wire.get(prefix.len..prefix.end()) else { return Ok(None) };
    let Some((b'\n', text)) = body.split_last() else { return Err(NegotiationError::NoNewline) };
    let text = str::from_utf8(text).map_err(|_| NegotiationError::NotUtf8)?.to_owned();
    wire.advance(prefix.end());
    Ok(Some(text))
}

/// How many bytes may be read, behind those that are `buffered`, without reading past the end of
/// the message that they begin.
pub(crate) fn wanted(buffered: &[u8]) -> usize {
    let end = match Prefix::parse(buffered) {
        Ok(Some(prefix)) => prefix.end(),
        Ok(None) => WIRE_LEN_MIN,
        // One more byte, so that the next `advance` says what is wrong.
        Err(_) => 0,
    };
    end.saturating_sub(buffered.len()).max(1)
}

/// The same where the header is still to come. No negotiation ends with it, so that at least the
/// shortest message can be read along.
pub(crate) fn wanted_header(buffered: &[u8]) -> usize {
    match buffered.get(HEADER.len()..) {
        Some(behind) => wanted(behind),
        None => HEADER.len().saturating_sub(buffered.len()).saturating_add(WIRE_LEN_MIN),
    }
}

/// Cuts a peer's text down to what an error may hold.
pub(crate) fn shorten(text: &str) -> String {
    text.chars().take(SHOWN_LEN_MAX).collect()
}

/// A length prefix within the limits.
struct Prefix {
    /// Of the prefix itself: 1 or 2.
    len: usize,
    /// What it says: 1 to 1024.
    body_len: usize,
}

impl Prefix {
    fn parse(wire: &[u8]) -> Result<Option<Self>, NegotiationError> {
        let front = wire.get(..PREFIX_LEN_MAX).unwrap_or(wire);
        let decoded = varint::decode(front).map_err(|_| NegotiationError::Varint)?;
        let Some((body_len, len)) = decoded else {
            let whole = front.len() == PREFIX_LEN_MAX;
            return if whole { Err(NegotiationError::Varint) } else { Ok(None) };
        };
        let body_len = usize::try_from(body_len).unwrap_or(usize::MAX);
        match body_len {
            0 => Err(NegotiationError::Empty),
            1..=MESSAGE_LEN_MAX => Ok(Some(Self { len, body_len })),
            _ => Err(NegotiationError::MessageLen { len: body_len, max: MESSAGE_LEN_MAX }),
        }
    }

    fn end(&self) -> usize {
        self.len.saturating_add(self.body_len)
    }
}
