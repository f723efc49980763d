use std::{mem, ops::RangeInclusive, sync::Arc};

use bytes::{Buf, BufMut, BytesMut};
use p2p_core::{Handshake, PeerId, ProtocolId, PublicKey, Role, SecurityError, Session};

use crate::{
    limits::HANDSHAKE_MESSAGE_LEN_MAX,
    noise::Identity,
    payload,
    record::{Opener, PREFIX_LEN, Sealer},
    symmetric::CipherState,
    verified::Verified,
    xx::{MESSAGE_1_LEN, MESSAGE_2_LEN_MIN, MESSAGE_3_LEN_MIN, POINT_LEN, Xx},
};

/// One handshake, without I/O.
pub(crate) struct NoiseHandshake {
    state: State,
    identity: Arc<Identity>,
    verified: Arc<Verified>,
    expected: Option<PeerId>,
    muxers: Vec<ProtocolId>,
}

/// ```text
///          initiator                                   responder
///
///           Begin                                      AwaitFirst
///             │ send 1                                     │ receive 1, send 2
///             ▼                                            ▼
///        AwaitSecond                                   AwaitThird
///             │ receive 2, check the peer,                 │ receive 3, check the peer,
///             │ send 3, give the session                   │ give the session
///             ▼                                            ▼
///          Complete                                     Complete
///
///                    any failure, anywhere ──▶ Failed
/// ```
///
/// Each state owns the secrets, so a failure drops them on the spot. They are boxed, so that a
/// change of state leaves no copy of them on the stack.
enum State {
    Begin(Box<Xx>),
    AwaitFirst(Box<Xx>),
    AwaitSecond(Box<Xx>),
    AwaitThird(Box<Xx>),
    Complete,
    Failed,
}

impl State {
    fn name(&self) -> &'static str {
        match self {
            Self::Begin(_) => "Begin",
            Self::AwaitFirst(_) => "AwaitFirst",
            Self::AwaitSecond(_) => "AwaitSecond",
            Self::AwaitThird(_) => "AwaitThird",
            Self::Complete => "Complete",
            Self::Failed => "Failed",
        }
    }

    /// The number of the message that comes next from the peer, and the lengths it may have. A
    /// length outside of them is refused before the message is read.
    fn awaits(&self) -> Option<(u8, RangeInclusive<usize>)> {
        const MAX: usize = HANDSHAKE_MESSAGE_LEN_MAX;
        match self {
            Self::AwaitFirst(_) => Some((1, MESSAGE_1_LEN..=MESSAGE_1_LEN)),
            Self::Begin(_) | Self::AwaitSecond(_) => Some((2, MESSAGE_2_LEN_MIN..=MAX)),
            Self::AwaitThird(_) => Some((3, MESSAGE_3_LEN_MIN..=MAX)),
            Self::Complete | Self::Failed => None,
        }
    }

    fn illegal(&self, event: &'static str) -> SecurityError {
        SecurityError::IllegalMove { state: self.name(), event }
    }
}

impl NoiseHandshake {
    pub(crate) fn new(
        role: Role,
        xx: Xx,
        identity: Arc<Identity>,
        verified: Arc<Verified>,
        expected: Option<PeerId>,
        muxers: Vec<ProtocolId>,
    ) -> Self {
        let xx = Box::new(xx);
        let state = match role {
            Role::Initiator => State::Begin(xx),
            Role::Responder => State::AwaitFirst(xx),
        };
        Self { state, identity, verified, expected, muxers }
    }

    /// The number of the message that comes next from the peer.
    pub(crate) fn awaits(&self) -> Result<u8, SecurityError> {
        let (number, _) = self.state.awaits().ok_or_else(|| self.state.illegal("awaits"))?;
        Ok(number)
    }

    fn step(
        &mut self,
        wire: &mut BytesMut,
        out: &mut BytesMut,
    ) -> Result<Option<Session>, SecurityError> {
        if let State::Begin(_) = self.state {
            self.send_first(out)?;
        }
        loop {
            let awaited = self.state.awaits();
            let (number, lens) = awaited.ok_or_else(|| self.state.illegal("advance"))?;
            let Some(message) = take_message(wire, number, lens)? else {
                return Ok(None);
            };
            if let Some(session) = self.handle_message(message, out)? {
                return Ok(Some(session));
            }
        }
    }

    fn send_first(&mut self, out: &mut BytesMut) -> Result<(), SecurityError> {
        match mem::replace(&mut self.state, State::Failed) {
            State::Begin(mut xx) => {
                put_message(out, |message| xx.write_1(&[], message))?;
                self.state = State::AwaitSecond(xx);
                Ok(())
            }
            other @ (State::AwaitFirst(_)
            | State::AwaitSecond(_)
            | State::AwaitThird(_)
            | State::Complete
            | State::Failed) => Err(other.illegal("send_first")),
        }
    }

    fn handle_message(
        &mut self,
        message: BytesMut,
        out: &mut BytesMut,
    ) -> Result<Option<Session>, SecurityError> {
        match mem::replace(&mut self.state, State::Failed) {
            State::AwaitFirst(mut xx) => {
                self.answer_first(&mut xx, message, out)?;
                self.state = State::AwaitThird(xx);
                Ok(None)
            }
            State::AwaitSecond(mut xx) => {
                let session = self.answer_second(&mut xx, message, out)?;
                self.state = State::Complete;
                Ok(Some(session))
            }
            State::AwaitThird(mut xx) => {
                let session = self.take_third(&mut xx, message)?;
                self.state = State::Complete;
                Ok(Some(session))
            }
            other @ (State::Begin(_) | State::Complete | State::Failed) => {
                Err(other.illegal("handle_message"))
            }
        }
    }

    fn answer_first(
        &self,
        xx: &mut Xx,
        mut message: BytesMut,
        out: &mut BytesMut,
    ) -> Result<(), SecurityError> {
        let their_ephemeral = xx.read_1(&mut message)?;
        let payload = payload::encode(&self.identity, &self.muxers);
        put_message(out, |message| xx.write_2(&their_ephemeral, &payload, message))
    }

    /// Everything about the responder is checked before this side shows who it is (NOISE-10).
    fn answer_second(
        &self,
        xx: &mut Xx,
        mut message: BytesMut,
        out: &mut BytesMut,
    ) -> Result<Session, SecurityError> {
        let (their_ephemeral, their_static) = xx.read_2(&mut message)?;
        let (peer, muxer) = self.verify(Role::Initiator, &message, their_static.as_bytes())?;
        let payload = payload::encode(&self.identity, &self.muxers);
        put_message(out, |message| xx.write_3(&their_ephemeral, &payload, message))?;
        let (forth, back) = xx.split()?;
        Ok(session(peer, muxer, forth, back))
    }

    fn take_third(&self, xx: &mut Xx, mut message: BytesMut) -> Result<Session, SecurityError> {
        let their_static = xx.read_3(&mut message)?;
        let (peer, muxer) = self.verify(Role::Responder, &message, their_static.as_bytes())?;
        let (forth, back) = xx.split()?;
        Ok(session(peer, muxer, back, forth))
    }

    /// What the peer has proven to be, and the multiplexer that both sides agree on.
    fn verify(
        &self,
        role: Role,
        payload: &[u8],
        their_static: &[u8; POINT_LEN],
    ) -> Result<(PublicKey, Option<ProtocolId>), SecurityError> {
        let peer = payload::verify(payload, their_static, &self.verified)?;
        let actual = peer.peer_id();
        if let Some(expected) = self.expected.filter(|expected| *expected != actual) {
            return Err(SecurityError::WrongPeer { expected, actual });
        }
        let theirs = payload::muxers(payload)?;
        Ok((peer, payload::agree_muxer(role, &self.muxers, &theirs)?))
    }
}

impl Handshake for NoiseHandshake {
    fn advance(
        &mut self,
        wire: &mut BytesMut,
        out: &mut BytesMut,
    ) -> Result<Option<Session>, SecurityError> {
        let before = out.len();
        self.step(wire, out).inspect_err(|_| {
            if !matches!(self.state, State::Complete) {
                self.state = State::Failed;
            }
            out.truncate(before);
        })
    }
}

fn session(
    peer: PublicKey,
    muxer: Option<ProtocolId>,
    send: CipherState,
    receive: CipherState,
) -> Session {
    Session::new(peer, muxer, Box::new(Sealer::new(send)), Box::new(Opener::new(receive)))
}

/// Takes the message at the front of `wire` without its length; `None` while it is not whole.
fn take_message(
    wire: &mut BytesMut,
    number: u8,
    lens: RangeInclusive<usize>,
) -> Result<Option<BytesMut>, SecurityError> {
    let Some(prefix) = wire.first_chunk::<PREFIX_LEN>() else {
        return Ok(None);
    };
    let len = usize::from(u16::from_be_bytes(*prefix));
    if !lens.contains(&len) {
        let (min, max) = lens.into_inner();
        return Err(SecurityError::HandshakeLen { message: number, len, min, max });
    }
    if wire.len() < len.saturating_add(PREFIX_LEN) {
        return Ok(None);
    }
    wire.advance(PREFIX_LEN);
    Ok(Some(wire.split_to(len)))
}

/// Appends what `write` writes, behind its length.
fn put_message(
    out: &mut BytesMut,
    write: impl FnOnce(&mut BytesMut) -> Result<(), SecurityError>,
) -> Result<(), SecurityError> {
    let mut message = BytesMut::new();
    write(&mut message)?;
    let len = u16::try_from(message.len())
        .expect("an identity and MUXERS_OFFERED_LEN_MAX bytes of names fit a message");
    out.put_u16(len);
    out.extend_from_slice(&message);
    Ok(())
}

#[cfg(test)]
mod tests;
