use std::fmt;

use p2p_core::{ErrorCode, IoCause, ProtocolId};

/// Why a negotiation did not end in an agreement. Each is the end of the negotiation, and of the
/// stream that it was held on.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NegotiationError {
    /// The caller gave nothing to propose. Nothing was sent.
    #[error("there is no protocol to propose")]
    NoProtocols,
    /// The peer refused every proposal.
    #[error("the peer supports none of {proposed:?}")]
    Unsupported {
        /// What was proposed, in this order.
        proposed: Vec<ProtocolId>,
    },
    /// The peer's first bytes are not the header of multistream-select 1.0.0 (MSS-11). Holds
    /// those bytes, shortened, with those that are not printable ASCII escaped.
    #[error("the peer does not speak multistream-select 1.0.0: it began with \"{0}\"")]
    NotMultistream(String),
    /// The peer announced a message that is too long (MSS-04). Its body was not read.
    #[error("the peer announced a message of {len} bytes, more than {max}")]
    MessageLen {
        /// The length announced, in bytes.
        len: usize,
        /// The longest that is taken, in bytes.
        max: usize,
    },
    /// A length prefix of more than two bytes, or not in its shortest form (MSS-04, MSS-06).
    #[error("the peer's length prefix is not a varint of at most two bytes in its shortest form")]
    Varint,
    /// A message that does not end in a newline (MSS-03).
    #[error("the peer sent a message that does not end in a newline")]
    NoNewline,
    /// A message of length 0, which has not even its newline (MSS-03).
    #[error("the peer sent a message of length 0")]
    Empty,
    /// A message that is not UTF-8 (MSS-01).
    #[error("the peer sent a message that is not UTF-8")]
    NotUtf8,
    /// The answer is neither the proposal nor `na` (MSS-15).
    #[error("the peer answered the proposal of {expected} with {got:?}")]
    UnexpectedAnswer {
        /// What was proposed.
        expected: ProtocolId,
        /// What came back, shortened.
        got: String,
    },
    /// The peer made more proposals than are answered, which is this many.
    #[error("the peer made more than {0} proposals")]
    TooManyProposals(usize),
    /// The peer ended the stream in the middle of the negotiation. That is no breach of the
    /// protocol (MSS-19): a peer out of names does so.
    #[error("the peer ended the stream {0}")]
    Closed(ClosedAt),
    /// The stream failed.
    #[error("the stream failed: {0}")]
    Io(IoCause),
}

impl NegotiationError {
    /// The code to reset the stream with, where the negotiation was about a stream (CONN-42).
    #[must_use]
    pub fn stream_code(&self) -> ErrorCode {
        match self {
            Self::NoProtocols | Self::Unsupported { .. } | Self::Closed(_) | Self::Io(_) => {
                ErrorCode::STREAM_NEGOTIATION_FAILED
            }
            Self::NotMultistream(_)
            | Self::MessageLen { .. }
            | Self::Varint
            | Self::NoNewline
            | Self::Empty
            | Self::NotUtf8
            | Self::UnexpectedAnswer { .. } => ErrorCode::STREAM_PROTOCOL_VIOLATION,
            Self::TooManyProposals(_) => ErrorCode::STREAM_RESOURCE_LIMIT,
        }
    }
}

/// How far a negotiation had come when the peer ended the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClosedAt {
    /// The peer's header was not whole.
    Header,
    /// The peer's header was there, and this many proposals had been refused.
    Refused(usize),
}

impl fmt::Display for ClosedAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => f.write_str("before its multistream-select header"),
            Self::Refused(1) => f.write_str("after its header and 1 refused proposal"),
            Self::Refused(count) => {
                write!(f, "after its header and {count} refused proposals")
            }
        }
    }
}
