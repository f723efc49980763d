//! The 12-byte header that every yamux frame begins with (YAMUX-02, YAMUX-03).
//!
//! ```text
//!  0        1        2        4            8            12
//!  | version | type   | flags  | stream id  | length     |   big-endian
//! ```

use bytes::BytesMut;
use p2p_core::MuxError;

/// Length of a header in bytes.
pub(super) const HEADER_LEN: usize = 12;

/// What a frame is, and what its length field means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Carries `length` bytes of a stream.
    Data,
    /// Adds `length` bytes of credit.
    WindowUpdate,
    /// Carries an opaque value.
    Ping,
    /// Ends the session with a code.
    GoAway,
}

/// The flags of a header; unknown bits are dropped (YAMUX-05).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flags(u16);

impl Flags {
    pub(super) const NONE: Self = Self(0);
    pub(super) const SYN: Self = Self(1);
    pub(super) const ACK: Self = Self(2);
    pub(super) const FIN: Self = Self(4);
    pub(super) const RST: Self = Self(8);
    const KNOWN: u16 = 15;

    pub(super) const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    #[must_use]
    pub(super) const fn with(self, other: Self, when: bool) -> Self {
        if when { Self(self.0 | other.0) } else { self }
    }
}

/// A decoded header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) flags: Flags,
    pub(super) stream: u32,
    pub(super) length: u32,
}

impl Header {
    pub(super) fn decode(bytes: [u8; HEADER_LEN]) -> Result<Self, MuxError> {
        let [version, kind, f0, f1, s0, s1, s2, s3, l0, l1, l2, l3] = bytes;
        if version != 0 {
            return Err(MuxError::Version(version));
        }
        let kind = match kind {
            0 => Kind::Data,
            1 => Kind::WindowUpdate,
            2 => Kind::Ping,
            3 => Kind::GoAway,
            other => return Err(MuxError::FrameType(other)),
        };
        Ok(Self {
            kind,
            flags: Flags(u16::from_be_bytes([f0, f1]) & Flags::KNOWN),
            stream: u32::from_be_bytes([s0, s1, s2, s3]),
            length: u32::from_be_bytes([l0, l1, l2, l3]),
        })
    }

    pub(super) fn encode(self, out: &mut BytesMut) {
        let kind = match self.kind {
            Kind::Data => 0,
            Kind::WindowUpdate => 1,
            Kind::Ping => 2,
            Kind::GoAway => 3,
        };
        let [f0, f1] = self.flags.0.to_be_bytes();
        let [s0, s1, s2, s3] = self.stream.to_be_bytes();
        let [l0, l1, l2, l3] = self.length.to_be_bytes();
        out.extend_from_slice(&[0, kind, f0, f1, s0, s1, s2, s3, l0, l1, l2, l3]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yamux_02_headers_round_trip() {
        let header = Header {
            kind: Kind::WindowUpdate,
            flags: Flags::ACK.with(Flags::FIN, true).with(Flags::RST, false),
            stream: 2,
            length: 131_072,
        };
        let mut out = BytesMut::new();
        header.encode(&mut out);
        assert_eq!(out[..], [0, 1, 0, 6, 0, 0, 0, 2, 0, 2, 0, 0]);
        let bytes = out[..].try_into().expect("12 bytes");
        assert_eq!(Header::decode(bytes), Ok(header));
    }

    #[test]
    fn yamux_05_other_versions_and_types_are_refused() {
        assert_eq!(Header::decode([1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]), Err(MuxError::Version(1)));
        assert_eq!(
            Header::decode([0, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]),
            Err(MuxError::FrameType(4))
        );
    }
}
