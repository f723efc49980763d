//! The limits of this crate, as constants.
//!
//! During a handshake a peer, of whom nothing is proven yet, can make this side hold one message
//! of [`HANDSHAKE_MESSAGE_LEN_MAX`] bytes. It is decrypted and decoded where it stands: nothing
//! of it is copied before the signature in it is verified, and then at most [`MUXERS_MAX`]
//! references. Afterwards a [`NoiseStream`](crate::NoiseStream) holds [`RECEIVE_BUFFER_LEN`] and
//! [`SEND_BUFFER_LEN`].

/// The longest sealed record in bytes, without its 2-byte length prefix: what that prefix can
/// say (NOISE-14).
pub const MESSAGE_LEN_MAX: usize = 65_535;

/// The longest handshake message that is taken, in bytes, without its 2-byte length prefix.
///
/// The prefix could say 65,535, but a peer that has proven nothing yet gets no 64 KiB. What a
/// peer can mean seriously is far shorter: an RSA key of 8192 bits and its signature (2112 bytes),
/// 100 multiplexers with names of 64 bytes (6600), 32 certificate hashes of 34 bytes (1152), keys
/// and tags (96): less than 10 KiB. A usual one has about 200 bytes, and one of an RSA identity of
/// 4096 bits 1.2 KiB. The rest is for keys to come: one of ML-DSA-87 with its signature needs
/// 7219 bytes.
pub const HANDSHAKE_MESSAGE_LEN_MAX: usize = 16_384;

/// The most plaintext in one record, in bytes: the rest is the tag (NOISE-15).
pub const RECORD_PLAIN_LEN_MAX: usize = MESSAGE_LEN_MAX - crate::cipher::TAG_LEN;

/// The most bytes a peer can send in a handshake, as either role, length prefixes included:
/// the initiator's first message and a message of the longest length. It is also what
/// [`handshake()`](crate::handshake()) holds for them, allocated once; memory that is never
/// written to costs address space only.
pub const HANDSHAKE_RECEIVED_LEN_MAX: usize =
    2 + crate::xx::MESSAGE_1_LEN + 2 + HANDSHAKE_MESSAGE_LEN_MAX;

/// How many empty records a peer may send in a row. They are legal and carry nothing; more than
/// this end the channel, so that they cannot keep a reader busy for free.
pub const EMPTY_RECORDS_MAX: u32 = 1_000;

/// The most multiplexer names that are looked at in a peer's list; a longer list counts as none,
/// as in go-libp2p (NOISE-31).
pub const MUXERS_MAX: usize = 100;

/// The most multiplexer names that are sent; the rest of a longer list is left out.
pub const MUXERS_OFFERED_MAX: usize = 32;

/// The most bytes of multiplexer names that are sent; what does not fit is left out, from the
/// first name that does not. A peer with the same limits takes every offer of this length, next
/// to an identity of any supported type.
pub const MUXERS_OFFERED_LEN_MAX: usize = 4_096;

/// How many peers are remembered whose signature of their static key was good, 32 bytes each: it is
/// not verified again when they come back. Allocated once for a [`Noise`](crate::Noise) and its
/// clones, 8 KiB.
pub const VERIFIED_MAX: usize = 256;

/// What a [`NoiseStream`](crate::NoiseStream) holds for bytes received, in bytes: two whole records, so that a record in part can always be completed in place and
/// the buffer never grows. Allocated once for each stream; memory that is never written to
/// costs address space only.
pub const RECEIVE_BUFFER_LEN: usize = 2 * (2 + MESSAGE_LEN_MAX);

/// What a [`NoiseStream`](crate::NoiseStream) holds for bytes to be sent, in bytes: one whole
/// record. Allocated once for each stream.
pub const SEND_BUFFER_LEN: usize = 2 + MESSAGE_LEN_MAX;
