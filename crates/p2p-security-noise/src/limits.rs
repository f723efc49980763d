//! The limits of this crate, as constants.
//!
//! During a handshake a peer can make this side hold one message of [`MESSAGE_LEN_MAX`] bytes
//! and, while it is decoded, about 2 MiB of tiny list entries, which are gone when
//! [`advance`](p2p_core::Handshake::advance) returns. Afterwards a
//! [`NoiseStream`](crate::NoiseStream) holds [`RECEIVE_BUFFER_LEN`] and [`SEND_BUFFER_LEN`].

/// The longest handshake message or sealed record in bytes, without its 2-byte length prefix:
/// what that prefix can say (NOISE-14).
pub const MESSAGE_LEN_MAX: usize = 65_535;

/// The most plaintext in one record, in bytes: the rest is the tag (NOISE-15).
pub const RECORD_PLAIN_LEN_MAX: usize = MESSAGE_LEN_MAX - crate::symmetric::TAG_LEN;

/// The most bytes a peer can send in a handshake, as either role, length prefixes included:
/// the initiator's first message and a message of the longest length.
pub const HANDSHAKE_RECEIVED_LEN_MAX: usize = 2 + crate::xx::MESSAGE_1_LEN + 2 + MESSAGE_LEN_MAX;

/// How many empty records a peer may send in a row. They are legal and carry nothing; more than
/// this end the channel, so that they cannot keep a reader busy for free.
pub const EMPTY_RECORDS_MAX: u32 = 1_000;

/// The most multiplexer names that are looked at in a peer's list; a longer list counts as none,
/// as in go-libp2p (NOISE-31).
pub const MUXERS_MAX: usize = 100;

/// The most multiplexer names that are sent; the rest of a longer list is left out. With names
/// of the greatest length they take half of a handshake message, so that every offer fits.
pub const MUXERS_OFFERED_MAX: usize = 32;

/// What a [`NoiseStream`](crate::NoiseStream) and its handshake hold for bytes received, in
/// bytes: two whole records, so that a record in part can always be completed in place and
/// the buffer never grows. Allocated once for each stream; memory that is never written to
/// costs address space only.
pub const RECEIVE_BUFFER_LEN: usize = 2 * (2 + MESSAGE_LEN_MAX);

/// What a [`NoiseStream`](crate::NoiseStream) holds for bytes to be sent, in bytes: one whole
/// record. Allocated once for each stream.
pub const SEND_BUFFER_LEN: usize = 2 + MESSAGE_LEN_MAX;
