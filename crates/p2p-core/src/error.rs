use std::{fmt, io, sync::Arc, time::Duration};

use multiaddr::Multiaddr;

use crate::{KeyError, PeerId, varint::VarintError};

/// A 32-bit code that says why a stream or a connection ended. Advisory: peers that do not
/// understand it see a plain reset or close (CONN-40).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ErrorCode(u32);

impl ErrorCode {
    /// No error, or none given.
    pub const NONE: Self = Self(0);
    /// Connection code: the other side broke the protocol (CONN-41).
    pub const CONNECTION_PROTOCOL_VIOLATION: Self = Self(0x1003);
    /// Connection code: a limit of this host was reached (CONN-41).
    pub const CONNECTION_RESOURCE_LIMIT: Self = Self(0x1001);
    /// Connection code: closed to make room, as an idle one (CONN-41).
    pub const CONNECTION_GARBAGE_COLLECTED: Self = Self(0x1005);
    /// Connection code: this host is shutting down (CONN-41).
    pub const CONNECTION_SHUTDOWN: Self = Self(0x1006);
    /// Connection code: the other side is not wanted (CONN-41).
    pub const CONNECTION_GATED: Self = Self(0x1007);
    /// Stream code: no protocol in common (CONN-42; the two lists are shifted by one).
    pub const STREAM_NEGOTIATION_FAILED: Self = Self(0x1001);
    /// Stream code: a limit of this host was reached (CONN-42).
    pub const STREAM_RESOURCE_LIMIT: Self = Self(0x1002);
    /// Stream code: the other side broke the stream's protocol (CONN-42).
    pub const STREAM_PROTOCOL_VIOLATION: Self = Self(0x1004);

    /// Makes a code of a number; applications choose their own.
    #[must_use]
    pub const fn new(code: u32) -> Self {
        Self(code)
    }

    /// The number.
    #[must_use]
    pub const fn value(self) -> u32 {
        self.0
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NONE => f.write_str("no code"),
            Self(code) => write!(f, "code {code:#x}"),
        }
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ErrorCode({:#x})", self.0)
    }
}

/// An operating system's error, in a form that can be told to several who wait for it.
#[derive(Clone)]
pub struct IoCause(Arc<io::Error>);

impl IoCause {
    /// The kind of error.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        self.0.kind()
    }

    /// The stream's error, where that is the cause.
    #[must_use]
    pub fn stream_error(&self) -> Option<&StreamError> {
        self.downcast_ref()
    }

    /// The error of a layer above the operating system, where one of type `E` is the cause.
    #[must_use]
    pub fn downcast_ref<E: std::error::Error + 'static>(&self) -> Option<&E> {
        self.0.get_ref()?.downcast_ref()
    }

    /// The operating system's number of the error, where it comes from there.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        self.0.raw_os_error()
    }
}

impl From<io::Error> for IoCause {
    fn from(error: io::Error) -> Self {
        Self(Arc::new(error))
    }
}

impl fmt::Display for IoCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for IoCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for IoCause {}

/// Why a stream cannot go on. Only this stream is concerned, unless the connection is lost.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The peer reset the stream: what it sent before may be incomplete.
    #[error("the peer reset the stream ({0})")]
    Reset(ErrorCode),
    /// This side reset the stream before.
    #[error("the stream was reset by this side ({0})")]
    ResetLocally(ErrorCode),
    /// The stream's deadline for reading or writing passed while a call was waiting. Nothing is
    /// lost, and the stream can be used on with another deadline.
    #[error("the stream's deadline passed")]
    DeadlinePassed,
    /// Written to after `shutdown`.
    #[error("the stream's sending half is already shut down")]
    Finished,
    /// The peer did not accept the protocol that the stream was opened for optimistically.
    #[error("the peer does not support {0}")]
    Unsupported(crate::ProtocolId),
    /// The peer broke the negotiation's rules on this stream.
    #[error("the stream's negotiation failed: {0}")]
    Negotiation(String),
    /// The connection that carries the stream has ended.
    #[error("the connection ended: {0}")]
    Connection(ConnectionError),
}

impl From<StreamError> for io::Error {
    fn from(error: StreamError) -> Self {
        let kind = match &error {
            StreamError::Reset(_) => io::ErrorKind::ConnectionReset,
            StreamError::ResetLocally(_) | StreamError::Connection(_) => {
                io::ErrorKind::ConnectionAborted
            }
            StreamError::DeadlinePassed => io::ErrorKind::TimedOut,
            StreamError::Finished => io::ErrorKind::BrokenPipe,
            StreamError::Unsupported(_) => io::ErrorKind::Unsupported,
            StreamError::Negotiation(_) => io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}

/// Why a connection ended or could not go on.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// This side closed it.
    #[error("closed by this side: {reason} ({code})")]
    Closed {
        /// What was given to `close`, and told to the peer where the wire allows it.
        code: ErrorCode,
        /// What was given to `close`; not sent.
        reason: Arc<str>,
    },
    /// The peer said goodbye.
    #[error("closed by the peer ({code})")]
    ClosedByPeer {
        /// What the peer gave.
        code: ErrorCode,
    },
    /// The link ended without the multiplexer's goodbye: data may be missing.
    #[error("the link ended without a goodbye from the peer")]
    Truncated,
    /// The link failed.
    #[error("the link failed: {0}")]
    Io(IoCause),
    /// A record could not be opened or sealed.
    #[error("the secure channel failed: {0}")]
    Security(SecurityError),
    /// The peer broke the multiplexer's rules, or ran into one of its limits.
    #[error("the multiplexer failed: {0}")]
    Mux(MuxError),
    /// The peer took nothing of what was to be sent for too long.
    #[error("the peer took no data for {0:?}")]
    WriteStalled(Duration),
    /// The peer broke the rules of an optimistic negotiation of the multiplexer.
    #[error("the multiplexer's negotiation failed: {0}")]
    Negotiation(String),
    /// The task that serves the connection was ended from outside.
    #[error("the connection's task was ended")]
    Dropped,
}

impl From<ConnectionError> for io::Error {
    fn from(error: ConnectionError) -> Self {
        Self::new(io::ErrorKind::ConnectionAborted, error)
    }
}

/// Why a transport could not give a link or a listener.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The transport does not know addresses of this form.
    #[error("{addr} is not an address of this transport")]
    Unsupported {
        /// The address.
        addr: Multiaddr,
    },
    /// The address could not be bound.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// The address.
        addr: Multiaddr,
        /// What the system said.
        source: IoCause,
    },
    /// The address could not be reached.
    #[error("cannot connect to {addr}: {source}")]
    Dial {
        /// The address.
        addr: Multiaddr,
        /// What the system said.
        source: IoCause,
    },
    /// One inbound link could not be taken; the listener goes on.
    #[error("cannot accept on {addr}: {source}")]
    Accept {
        /// The listening address.
        addr: Multiaddr,
        /// What the system said.
        source: IoCause,
    },
}

/// Why a handshake failed or a record cannot be trusted. Holds no key material.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecurityError {
    /// The peer proved another identity than the one that was dialed.
    #[error("expected peer {expected}, but the other side proved to be {actual}")]
    WrongPeer {
        /// The one that was dialed.
        expected: PeerId,
        /// The one that answered.
        actual: PeerId,
    },
    /// The peer's handshake message is malformed.
    #[error("the peer's handshake is malformed: {0}")]
    Malformed(String),
    /// A handshake message is longer or shorter than a legal one can be.
    #[error("message {message} of the peer's handshake has {len} bytes, not {min} to {max}")]
    HandshakeLen {
        /// The number of the message, from 1.
        message: u8,
        /// Its length in bytes.
        len: usize,
        /// The least it can have, in bytes.
        min: usize,
        /// The most that is taken of a peer that has not proven its identity, in bytes.
        max: usize,
    },
    /// The peer's handshake lacks a field, or has it empty.
    #[error("the peer's handshake has no {0}")]
    Missing(&'static str),
    /// The peer's identity key is malformed, or of a type that is not supported.
    #[error("the peer's identity key is not usable: {0}")]
    IdentityKey(String),
    /// The peer's signature does not bind its identity to this channel.
    #[error("the peer's identity signature is not valid")]
    Signature,
    /// The key agreement gave no secret: the peer sent a point of low order.
    #[error("the peer's key share is a point of low order")]
    LowOrderPoint,
    /// Bytes on the wire were not sealed by the peer, or were changed on the way.
    #[error("a message failed authentication")]
    Decrypt,
    /// A record is too short to hold its authentication tag.
    #[error("a record of {len} bytes is shorter than its {min}-byte tag")]
    RecordLen {
        /// The record's length in bytes.
        len: usize,
        /// The tag's length in bytes.
        min: usize,
    },
    /// Too many empty records in a row.
    #[error("more than {0} empty records in a row")]
    EmptyRecords(u32),
    /// The channel has sealed or opened as many records as its key allows.
    #[error("the channel's nonces are used up")]
    NoncesExhausted,
    /// Both sides offered multiplexers inside the handshake, with none in common.
    #[error("no multiplexer in common: the peer offers {0:?}")]
    NoCommonMuxer(Vec<String>),
    /// This host's own identity key could not sign.
    #[error("this host's own key could not sign: {0}")]
    OwnKey(#[source] KeyError),
    /// The system's source of randomness failed.
    #[error("the system gave no randomness: {0}")]
    Randomness(String),
    /// The cipher's implementation failed; the text names it and what it was to do.
    #[error("the cipher failed: {0}")]
    Cipher(&'static str),
    /// A handshake was driven on where it cannot go on: a mistake of the caller.
    #[error("{event} is not possible in the handshake's state {state}")]
    IllegalMove {
        /// The state that the handshake is in.
        state: &'static str,
        /// What was to be done.
        event: &'static str,
    },
}

/// How the peer broke the multiplexer's rules, or which limit it met.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MuxError {
    /// A version that is not ours.
    #[error("frame of version {0}")]
    Version(u8),
    /// A frame type that is not defined.
    #[error("frame of unknown type {0}")]
    FrameType(u8),
    /// A session frame on a stream, or a stream frame on the session.
    #[error("{frame} frame on stream {stream}")]
    Misplaced {
        /// The kind of frame.
        frame: &'static str,
        /// The stream id it carries.
        stream: u32,
    },
    /// The peer opened a stream with an id that is ours to give, or that it has used before.
    #[error("the peer opened stream {0}, an id that it cannot use")]
    StreamId(u32),
    /// The peer opened a stream that is open already.
    #[error("the peer opened stream {0}, which is open already")]
    OpenedTwice(u64),
    /// A number in a frame's header is not a varint.
    #[error("malformed frame header: {0}")]
    Varint(VarintError),
    /// A frame that is longer than the protocol allows.
    #[error("frame of {len} bytes, more than {max}")]
    FrameLen {
        /// The length of the frame's body in bytes.
        len: u64,
        /// The longest that the protocol allows, in bytes.
        max: u64,
    },
    /// More data than the stream's window allows.
    #[error("{len} bytes on stream {stream}, whose window has {window} left")]
    WindowExceeded {
        /// The stream.
        stream: u32,
        /// The length of the data in bytes.
        len: u32,
        /// What was left of the window, in bytes.
        window: u32,
    },
    /// Credit that pushes a window over 2^32 - 1 bytes.
    #[error("credit of {credit} bytes overflows the window of stream {stream}")]
    WindowOverflow {
        /// The stream.
        stream: u32,
        /// The credit in bytes.
        credit: u32,
    },
    /// Data after the peer had ended its side of the stream.
    #[error("data on stream {0} after its end")]
    DataAfterEnd(u32),
    /// The peer makes this side do work without end; the text names the work.
    #[error("the peer exceeds the limit of {limit} for {what}")]
    Flood {
        /// What is limited.
        what: &'static str,
        /// The limit.
        limit: u32,
    },
    /// The peer did not answer the multiplexer's keep-alive ping.
    #[error("the peer left a keep-alive ping unanswered for {0:?}")]
    KeepAlive(Duration),
    /// This connection has used up its stream ids.
    #[error("the connection's stream ids are used up")]
    IdsExhausted,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conn_40_41_42_the_codes_are_those_of_the_two_lists() {
        assert_eq!(ErrorCode::default(), ErrorCode::NONE);
        let connection = [
            (ErrorCode::CONNECTION_RESOURCE_LIMIT, 0x1001),
            (ErrorCode::CONNECTION_PROTOCOL_VIOLATION, 0x1003),
            (ErrorCode::CONNECTION_GARBAGE_COLLECTED, 0x1005),
            (ErrorCode::CONNECTION_SHUTDOWN, 0x1006),
        ];
        let stream = [
            (ErrorCode::NONE, 0),
            (ErrorCode::STREAM_NEGOTIATION_FAILED, 0x1001),
            (ErrorCode::STREAM_RESOURCE_LIMIT, 0x1002),
            (ErrorCode::STREAM_PROTOCOL_VIOLATION, 0x1004),
        ];
        for (code, number) in connection.into_iter().chain(stream) {
            assert_eq!(code.value(), number);
        }
        assert_eq!(ErrorCode::STREAM_RESOURCE_LIMIT.to_string(), "code 0x1002");
        assert_eq!(ErrorCode::NONE.to_string(), "no code");
    }
}
