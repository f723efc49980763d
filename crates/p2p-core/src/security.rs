use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::{PeerId, ProtocolId, PublicKey, Role, SecurityError};

/// A secure-channel protocol, as a value that a host is configured with.
pub trait Security: Send + Sync + 'static {
    /// The name that is negotiated for it, such as `/noise`.
    fn protocol(&self) -> ProtocolId;

    /// Begins a handshake.
    ///
    /// With `expected`, it must fail for any other peer, and before this side has shown its own
    /// identity where the protocol allows that. `muxers` are this side's multiplexers, best
    /// first, for protocols that can agree on one inside the handshake; empty where that is not
    /// wanted.
    ///
    /// # Errors
    /// [`SecurityError`] when it cannot begin.
    fn start(
        &self,
        role: Role,
        expected: Option<&PeerId>,
        muxers: &[ProtocolId],
    ) -> Result<Box<dyn Handshake>, SecurityError>;
}

/// A handshake under way: bytes in, bytes out; no socket, clock or task.
pub trait Handshake: Send {
    /// Takes what it can use from the front of `wire`, appends what is to be sent to `out`, and
    /// returns the session once it is complete. Bytes behind the handshake stay in `wire`: they
    /// are the session's first records.
    ///
    /// `Ok(None)` means that it waits for more bytes, after `out` has been sent. On the session,
    /// too, `out` may hold a last message.
    ///
    /// # Errors
    /// [`SecurityError`]; the connection must be ended without sending what `out` holds.
    fn advance(
        &mut self,
        wire: &mut BytesMut,
        out: &mut BytesMut,
    ) -> Result<Option<Session>, SecurityError>;
}

/// A finished handshake. The two directions share nothing, so they may run on two cores.
#[non_exhaustive]
pub struct Session {
    /// The identity that the peer has proven.
    pub peer: PublicKey,
    /// The multiplexer, where the handshake has agreed on one.
    pub muxer: Option<ProtocolId>,
    /// Seals what this side sends.
    pub seal: Box<dyn Seal>,
    /// Opens what the peer sends.
    pub open: Box<dyn Open>,
}

impl Session {
    /// Makes a session of its parts.
    #[must_use]
    pub fn new(
        peer: PublicKey,
        muxer: Option<ProtocolId>,
        seal: Box<dyn Seal>,
        open: Box<dyn Open>,
    ) -> Self {
        Self { peer, muxer, seal, open }
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("peer", &self.peer)
            .field("muxer", &self.muxer)
            .finish_non_exhaustive()
    }
}

/// The sending direction of a secure channel.
pub trait Seal: Send + 'static {
    /// Seals all of `plain` into whole records at the end of `out`. This is the one copy of the
    /// outgoing path.
    ///
    /// # Errors
    /// [`SecurityError::NoncesExhausted`]; the channel cannot be used any more.
    fn seal(&mut self, plain: &mut dyn Buf, out: &mut BytesMut) -> Result<(), SecurityError>;
}

/// The receiving direction of a secure channel.
pub trait Open: Send + 'static {
    /// Opens the record at the front of `wire`, in place and without copying it.
    ///
    /// # Errors
    /// [`SecurityError`]: nothing that follows can be trusted, and the connection must end.
    fn open(&mut self, wire: &mut BytesMut) -> Result<Opened, SecurityError>;
}

/// What [`Open::open`] found.
#[non_exhaustive]
pub enum Opened {
    /// The plaintext of one record; it may be empty.
    Record(Bytes),
    /// The record is not whole yet: at least this many more bytes are needed.
    Incomplete(usize),
}

/// Says how long a record is, and nothing of what is in it.
impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Record(plain) => write!(f, "Record({} bytes)", plain.len()),
            Self::Incomplete(missing) => f.debug_tuple("Incomplete").field(missing).finish(),
        }
    }
}

/// Both directions of a channel that protects nothing: bytes go through as they are. For pipes
/// that are used without a secure channel, and for protocols that only exchange identities.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "it will never hold anything")]
pub struct Clear;

impl Seal for Clear {
    /// Never fails.
    fn seal(&mut self, plain: &mut dyn Buf, out: &mut BytesMut) -> Result<(), SecurityError> {
        out.put(plain);
        Ok(())
    }
}

impl Open for Clear {
    /// Gives all of `wire` as one record. Never fails.
    fn open(&mut self, wire: &mut BytesMut) -> Result<Opened, SecurityError> {
        if wire.is_empty() {
            return Ok(Opened::Incomplete(1));
        }
        Ok(Opened::Record(wire.split().freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_opened_is_not_printed() {
        let record = Opened::Record(Bytes::from_static(b"secret"));
        assert_eq!(
            format!("{record:?} {:?}", Opened::Incomplete(7)),
            "Record(6 bytes) Incomplete(7)"
        );
    }
}
