//! The upgrade of a raw pipe to a multiplexed connection: one straight function over one buffer.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use bytes::BytesMut;
use p2p_core::{
    ConnectionInfo, Handshake, Multiaddr, Muxed, Muxer, Open, Opened, PeerId, Pipe, ProtocolId,
    Role, Seal, Security, SecurityError, Session,
};
use p2p_multistream::{Initiator, NegotiationError, Responder};
use p2p_mux::{Driver, Prelude, Setup};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};

use crate::{Cause, Stage, metrics};

/// The first capacity of the one read buffer, in bytes: the whole of an ordinary handshake.
const WIRE_LEN: usize = 1024;

/// How many bytes a handshake may leave untaken in the read buffer: a peer that has proven nothing
/// yet gets no more. The buffer doubles from [`WIRE_LEN`], so it has at most 32 KiB, and 48 KiB
/// for the moment in which it moves.
const HANDSHAKE_WIRE_LEN_MAX: usize = 24 << 10;

/// What a host upgrades pipes with, best first.
pub(crate) struct Upgrader {
    pub(crate) own: PeerId,
    pub(crate) security: Vec<Arc<dyn Security>>,
    pub(crate) muxers: Vec<Arc<dyn Muxer>>,
    pub(crate) busy_poll: Duration,
}

/// How far an attempt has come, for the one who waits for it with a time limit.
#[derive(Debug, Default)]
pub(crate) struct Progress(AtomicU8);

impl Progress {
    pub(crate) fn reach(&self, stage: Stage) {
        self.0.store(stage.number(), Ordering::Relaxed);
    }

    pub(crate) fn stage(&self) -> Stage {
        Stage::from_number(self.0.load(Ordering::Relaxed))
    }
}

impl Upgrader {
    /// Secures and multiplexes `pipe`. The caller limits the time, reads from `progress` where it
    /// was spent, and `may` refuse the peer as soon as it is known.
    pub(crate) async fn upgrade(
        &self,
        mut pipe: Pipe,
        role: Role,
        expected: Option<PeerId>,
        remote: Multiaddr,
        progress: &Progress,
        may: impl FnOnce(&PeerId) -> Result<(), Cause>,
    ) -> Result<(Muxed, Driver), Cause> {
        let begun = Instant::now();
        let local = pipe.local.take();
        let mut line = Line::new(pipe);

        progress.reach(Stage::Security);
        let (security, session) = match role {
            Role::Initiator => self.secure_outbound(&mut line, expected.as_ref()).await?,
            Role::Responder => self.secure_inbound(&mut line).await?,
        };
        let peer = session.peer.peer_id();
        if peer == self.own {
            return Err(Cause::SelfDial);
        }
        if let Some(expected) = expected.filter(|expected| *expected != peer) {
            return Err(SecurityError::WrongPeer { expected, actual: peer }.into());
        }
        may(&peer)?;

        progress.reach(Stage::Muxer);
        let info = ConnectionInfo::new(role, session.peer, local, remote);
        let mut line = SealedLine::new(line, session.seal, session.open);
        let (muxer, prelude) = match (session.muxer, role) {
            (Some(agreed), _) => (agreed, None),
            (None, Role::Initiator) => self.propose_muxer(&mut line).await?,
            (None, Role::Responder) => (self.answer_muxer(&mut line).await?, None),
        };
        let now = Instant::now();
        let core = self.muxer(&muxer)?.start(role, now.into_std());
        let info = info.with_upgrade(security, muxer);
        metrics::shook_hands(&info, now - begun);
        Ok(line.into_setup(core, prelude).with_busy_poll(self.busy_poll).start_with(info))
    }

    fn muxer(&self, name: &ProtocolId) -> Result<&Arc<dyn Muxer>, Cause> {
        let found = self.muxers.iter().find(|muxer| muxer.protocol() == *name);
        found.ok_or_else(|| {
            Cause::Negotiation(NegotiationError::Unsupported { proposed: vec![name.clone()] })
        })
    }

    fn muxer_names(&self) -> Vec<ProtocolId> {
        self.muxers.iter().map(|muxer| muxer.protocol()).collect()
    }

    fn begin(
        &self,
        security: &Arc<dyn Security>,
        role: Role,
        expected: Option<&PeerId>,
    ) -> Result<Box<dyn Handshake>, Cause> {
        Ok(security.start(role, expected, &self.muxer_names())?)
    }

    /// With one secure channel to propose, its first message rides along with the proposal and
    /// saves a round trip (MSS-22).
    async fn secure_outbound(
        &self,
        line: &mut Line,
        expected: Option<&PeerId>,
    ) -> Result<(ProtocolId, Session), Cause> {
        let mut negotiation =
            Initiator::new(self.security.iter().map(|security| security.protocol()))?;
        negotiation.advance(&mut line.wire, &mut line.out)?;
        let mut handshake = None;
        if let [only] = self.security.as_slice() {
            let mut begun = self.begin(only, Role::Initiator, expected)?;
            begun.advance(&mut BytesMut::new(), &mut line.out)?;
            handshake = Some(begun);
        }
        let agreed = loop {
            line.exchange().await?;
            if let Some(agreed) = negotiation.advance(&mut line.wire, &mut line.out)? {
                break agreed;
            }
        };
        let handshake = match handshake {
            Some(begun) => begun,
            None => self.begin(self.secure_channel(&agreed)?, Role::Initiator, expected)?,
        };
        Ok((agreed, line.shake_hands(handshake).await?))
    }

    async fn secure_inbound(&self, line: &mut Line) -> Result<(ProtocolId, Session), Cause> {
        let mut negotiation = Responder::new();
        let mut supports = |name: &str| self.security.iter().any(|s| s.protocol().as_str() == name);
        let agreed = loop {
            let (wire, out) = (&mut line.wire, &mut line.out);
            if let Some(agreed) = negotiation.advance(wire, out, &mut supports)? {
                break agreed;
            }
            line.exchange().await?;
        };
        let handshake = self.begin(self.secure_channel(&agreed)?, Role::Responder, None)?;
        Ok((agreed, line.shake_hands(handshake).await?))
    }

    fn secure_channel(&self, name: &ProtocolId) -> Result<&Arc<dyn Security>, Cause> {
        let found = self.security.iter().find(|security| security.protocol() == *name);
        found.ok_or_else(|| {
            Cause::Negotiation(NegotiationError::Unsupported { proposed: vec![name.clone()] })
        })
    }

    /// With one multiplexer to propose, its first frames ride along, and the answer is checked
    /// when it comes.
    async fn propose_muxer(
        &self,
        line: &mut SealedLine,
    ) -> Result<(ProtocolId, Option<Prelude>), Cause> {
        let mut negotiation = Initiator::new(self.muxer_names())?;
        negotiation.advance(&mut line.plain, &mut line.reply)?;
        line.seal_reply()?;
        if let [only] = self.muxers.as_slice() {
            let mut nothing = BytesMut::new();
            let prelude = move |plain: &mut BytesMut| {
                let agreed = negotiation.advance(plain, &mut nothing).map_err(|e| e.to_string())?;
                Ok(agreed.is_some())
            };
            return Ok((only.protocol(), Some(Box::new(prelude))));
        }
        loop {
            line.exchange().await?;
            if let Some(agreed) = negotiation.advance(&mut line.plain, &mut line.reply)? {
                return Ok((agreed, None));
            }
        }
    }

    /// The last answer is left to go out with the multiplexer's first frames.
    async fn answer_muxer(&self, line: &mut SealedLine) -> Result<ProtocolId, Cause> {
        let mut negotiation = Responder::new();
        let mut supports = |name: &str| self.muxers.iter().any(|m| m.protocol().as_str() == name);
        line.open_records()?;
        loop {
            let (plain, reply) = (&mut line.plain, &mut line.reply);
            if let Some(agreed) = negotiation.advance(plain, reply, &mut supports)? {
                line.seal_reply()?;
                return Ok(agreed);
            }
            line.exchange().await?;
        }
    }
}

impl fmt::Debug for Upgrader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgrader").field("own", &self.own).finish_non_exhaustive()
    }
}

impl From<NegotiationError> for Cause {
    fn from(error: NegotiationError) -> Self {
        Self::Negotiation(error)
    }
}

/// A raw pipe, the connection's one read buffer, and what is to be written.
struct Line {
    pipe: Pipe,
    wire: BytesMut,
    out: BytesMut,
}

impl Line {
    fn new(pipe: Pipe) -> Self {
        Self { pipe, wire: BytesMut::with_capacity(WIRE_LEN), out: BytesMut::new() }
    }

    /// Writes what is to be written, in one go, then reads once.
    async fn exchange(&mut self) -> Result<(), Cause> {
        let failed = |error: std::io::Error| {
            let closed = [std::io::ErrorKind::ConnectionReset, std::io::ErrorKind::BrokenPipe];
            if closed.contains(&error.kind()) { Cause::Closed } else { Cause::Io(error.into()) }
        };
        if !self.out.is_empty() {
            self.pipe.write.write_all(&self.out).await.map_err(failed)?;
            self.pipe.write.flush().await.map_err(failed)?;
            self.out.clear();
        }
        self.wire.reserve(WIRE_LEN);
        match self.pipe.read.read_buf(&mut self.wire).await.map_err(failed)? {
            0 => Err(Cause::Closed),
            _ => Ok(()),
        }
    }

    /// Runs a handshake to its end. Its last message is left in `out`, to go out with what
    /// follows.
    async fn shake_hands(&mut self, mut handshake: Box<dyn Handshake>) -> Result<Session, Cause> {
        loop {
            if let Some(session) = handshake.advance(&mut self.wire, &mut self.out)? {
                return Ok(session);
            }
            if self.wire.len() > HANDSHAKE_WIRE_LEN_MAX {
                let text = format!("it does not take more than {HANDSHAKE_WIRE_LEN_MAX} bytes");
                return Err(SecurityError::Malformed(text).into());
            }
            self.exchange().await?;
        }
    }
}

/// A line whose bytes are sealed.
struct SealedLine {
    line: Line,
    seal: Box<dyn Seal>,
    open: Box<dyn Open>,
    plain: BytesMut,
    reply: BytesMut,
}

impl SealedLine {
    fn new(line: Line, seal: Box<dyn Seal>, open: Box<dyn Open>) -> Self {
        Self { line, seal, open, plain: BytesMut::new(), reply: BytesMut::new() }
    }

    fn seal_reply(&mut self) -> Result<(), Cause> {
        Ok(self.seal.seal(&mut self.reply, &mut self.line.out)?)
    }

    async fn exchange(&mut self) -> Result<(), Cause> {
        self.seal_reply()?;
        self.line.exchange().await?;
        self.open_records()
    }

    fn open_records(&mut self) -> Result<(), Cause> {
        while let Opened::Record(record) = self.open.open(&mut self.line.wire)? {
            self.plain.extend_from_slice(&record);
        }
        Ok(())
    }

    fn into_setup(self, core: Box<dyn p2p_core::MuxCore>, prelude: Option<Prelude>) -> Setup {
        let setup = Setup::new(self.line.pipe, core)
            .sealed(self.seal, self.open)
            .with_received(self.line.wire, self.plain)
            .with_unsent(self.line.out);
        match prelude {
            Some(prelude) => setup.with_prelude(prelude),
            None => setup,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A handshake that waits for a message that is never whole.
    struct Insatiable;

    impl Handshake for Insatiable {
        fn advance(
            &mut self,
            _: &mut BytesMut,
            _: &mut BytesMut,
        ) -> Result<Option<Session>, SecurityError> {
            Ok(None)
        }
    }

    #[tokio::test]
    async fn a_handshake_that_takes_nothing_holds_32_kib_at_most() {
        let mut line = Line::new(Pipe::new(tokio::io::repeat(7), tokio::io::sink()));
        let ended = line.shake_hands(Box::new(Insatiable)).await;
        assert!(matches!(ended, Err(Cause::Security(SecurityError::Malformed(_)))), "{ended:?}");
        assert!(line.wire.len() > HANDSHAKE_WIRE_LEN_MAX);
        assert!(line.wire.capacity() <= 32 << 10, "{}", line.wire.capacity());
    }
}
