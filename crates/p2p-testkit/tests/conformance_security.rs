//! That each check of the security suites can fail: a Noise with one flaw for each.
#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "tests; every other flaw is meant"
)]

use std::sync::{Arc, Weak};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use p2p_core::{
    Handshake, Keypair, Open, Opened, PeerId, ProtocolId, Role, Seal, Security, SecurityError,
    Session,
};
use p2p_security_noise::Noise;
use p2p_testkit::conformance;

/// What is wrong with a secure channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    NameDependsOnTheHost,
    NamesItselfAsPeer,
    WantsWholeMessages,
    TakesTheFirstRecords,
    TakesAnyPeer,
    AgreesAlone,
    SealsOneRecordOnly,
    WritesOver,
    AsksForTooMuch,
    HangsTogether,
    SealsNothing,
    IgnoresAByte,
    OpensWhatWasChanged,
    OpensTwice,
    HasOneKey,
}

struct Flawed {
    noise: Noise,
    own: Keypair,
    flaw: Flaw,
}

impl Security for Flawed {
    fn protocol(&self) -> ProtocolId {
        match self.flaw {
            Flaw::NameDependsOnTheHost => {
                ProtocolId::new(&format!("/noise/{}", self.own.public().peer_id())).unwrap()
            }
            _ => self.noise.protocol(),
        }
    }

    fn start(
        &self,
        role: Role,
        expected: Option<&PeerId>,
        muxers: &[ProtocolId],
    ) -> Result<Box<dyn Handshake>, SecurityError> {
        let expected = expected.filter(|_| self.flaw != Flaw::TakesAnyPeer);
        let handshake = self.noise.start(role, expected, muxers)?;
        let (own, flaw) = (self.own.clone(), self.flaw);
        let muxer = muxers.first().cloned();
        Ok(Box::new(FlawedHandshake { handshake, own, role, muxer, flaw, begun: false }))
    }
}

struct FlawedHandshake {
    handshake: Box<dyn Handshake>,
    own: Keypair,
    role: Role,
    muxer: Option<ProtocolId>,
    flaw: Flaw,
    begun: bool,
}

impl Handshake for FlawedHandshake {
    fn advance(
        &mut self,
        wire: &mut BytesMut,
        out: &mut BytesMut,
    ) -> Result<Option<Session>, SecurityError> {
        match self.flaw {
            Flaw::WantsWholeMessages if (1..30).contains(&wire.len()) => {
                return Err(SecurityError::Malformed("a message in part".into()));
            }
            Flaw::WritesOver => out.clear(),
            Flaw::IgnoresAByte if !self.begun && self.role == Role::Initiator => {
                self.begun = true;
                out.put_u8(0);
            }
            Flaw::IgnoresAByte if !self.begun && !wire.is_empty() => {
                self.begun = true;
                wire.advance(1);
            }
            _ => {}
        }
        let Some(mut session) = self.handshake.advance(wire, out)? else { return Ok(None) };
        match self.flaw {
            Flaw::NamesItselfAsPeer => session.peer = self.own.public(),
            Flaw::TakesTheFirstRecords => wire.clear(),
            Flaw::AgreesAlone if self.role == Role::Initiator => {
                session.muxer.clone_from(&self.muxer);
            }
            Flaw::HasOneKey => {
                let theirs =
                    if self.role == Role::Initiator { Role::Responder } else { Role::Initiator };
                session.seal = Box::new(OneKey::new(self.role));
                session.open = Box::new(OneKey::new(theirs));
            }
            _ => {}
        }
        let (seal, open) = (session.seal, session.open);
        let other_half = Arc::new(());
        let seen = Arc::downgrade(&other_half);
        session.seal = Box::new(FlawedSeal { seal, flaw: self.flaw, _other_half: other_half });
        session.open = Box::new(FlawedOpen { open, flaw: self.flaw, last: None, other_half: seen });
        Ok(Some(session))
    }
}

struct FlawedSeal {
    seal: Box<dyn Seal>,
    flaw: Flaw,
    _other_half: Arc<()>,
}

impl Seal for FlawedSeal {
    fn seal(&mut self, plain: &mut dyn Buf, out: &mut BytesMut) -> Result<(), SecurityError> {
        match self.flaw {
            Flaw::SealsOneRecordOnly => {
                let len = plain.remaining().min(65_519);
                self.seal.seal(&mut plain.take(len), out)
            }
            Flaw::SealsNothing => {
                out.put_u32(u32::try_from(plain.remaining()).unwrap());
                out.put(plain);
                Ok(())
            }
            _ => self.seal.seal(plain, out),
        }
    }
}

struct FlawedOpen {
    open: Box<dyn Open>,
    flaw: Flaw,
    last: Option<(Bytes, Bytes)>,
    other_half: Weak<()>,
}

impl Open for FlawedOpen {
    fn open(&mut self, wire: &mut BytesMut) -> Result<Opened, SecurityError> {
        let before = Bytes::copy_from_slice(wire);
        match self.flaw {
            Flaw::SealsNothing => return Ok(take_counted(wire, 0)),
            Flaw::HangsTogether if self.other_half.strong_count() == 0 => {
                return Err(SecurityError::Decrypt);
            }
            Flaw::OpensTwice => {
                if let Some((sealed, plain)) = &self.last
                    && wire.starts_with(sealed)
                {
                    wire.advance(sealed.len());
                    return Ok(Opened::Record(plain.clone()));
                }
            }
            _ => {}
        }
        let opened = self.open.open(wire);
        match (&opened, self.flaw) {
            (Ok(Opened::Record(plain)), _) => {
                self.last = Some((before.slice(..before.len() - wire.len()), plain.clone()));
                opened
            }
            (Ok(Opened::Incomplete(missing)), Flaw::AsksForTooMuch) => {
                Ok(Opened::Incomplete(missing + 1))
            }
            (Err(_), Flaw::OpensWhatWasChanged) => Ok(Opened::Record(Bytes::from_static(b"?"))),
            _ => opened,
        }
    }
}

/// A length of four bytes, then so many and `more`.
fn take_counted(wire: &mut BytesMut, more: usize) -> Opened {
    let Some(len) = wire.first_chunk().map(|len| u32::from_be_bytes(*len)) else {
        return Opened::Incomplete(4 - wire.len());
    };
    let len = len as usize + 4 + more;
    match len.checked_sub(wire.len()) {
        Some(missing @ 1..) => Opened::Incomplete(missing),
        _ => Opened::Record(wire.split_to(len).freeze().slice(4..)),
    }
}

/// A cipher whose key is always the same: bytes that are masked, and a sum over them.
struct OneKey {
    from: Role,
    count: u64,
    dead: bool,
}

impl OneKey {
    fn new(from: Role) -> Self {
        Self { from, count: 0, dead: false }
    }

    fn sum(&mut self, plain: &[u8]) -> u64 {
        self.count += 1;
        let seed = self.count * 2 + u64::from(self.from == Role::Initiator);
        plain.iter().fold(seed, |sum, byte| {
            (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3).rotate_left(7)
        })
    }
}

impl Seal for OneKey {
    fn seal(&mut self, plain: &mut dyn Buf, out: &mut BytesMut) -> Result<(), SecurityError> {
        let plain = plain.copy_to_bytes(plain.remaining());
        out.put_u32(u32::try_from(plain.len()).unwrap());
        out.extend(plain.iter().map(|byte| byte ^ 0x55));
        out.put_u64(self.sum(&plain));
        Ok(())
    }
}

impl Open for OneKey {
    fn open(&mut self, wire: &mut BytesMut) -> Result<Opened, SecurityError> {
        if self.dead {
            return Err(SecurityError::Decrypt);
        }
        // No record is longer than the ones that are sealed here.
        let len = wire.first_chunk().map(|len| u32::from_be_bytes(*len));
        self.dead = len.is_some_and(|len| len > 1 << 20);
        let Opened::Record(record) = take_counted(wire, 8) else {
            return Ok(Opened::Incomplete(1));
        };
        let (masked, sum) = record.split_at(record.len() - 8);
        let plain: Vec<u8> = masked.iter().map(|byte| byte ^ 0x55).collect();
        self.dead |= self.sum(&plain).to_be_bytes() != sum;
        if self.dead { Err(SecurityError::Decrypt) } else { Ok(Opened::Record(plain.into())) }
    }
}

/// The check that the suites name for a channel with `flaw`; none where all is well.
fn verdict(flaw: Flaw) -> Option<conformance::Violation> {
    let make = |key: &Keypair| Ok(Flawed { noise: Noise::new(key)?, own: key.clone(), flaw });
    conformance::security(make).and_then(|()| conformance::protection(make)).err()
}

#[test]
fn each_check_of_a_secure_channel_finds_its_flaw() {
    assert_eq!(verdict(Flaw::None), None);
    for (flaw, check) in [
        (Flaw::NameDependsOnTheHost, "providers"),
        (Flaw::NamesItselfAsPeer, "identities"),
        (Flaw::WantsWholeMessages, "fragments"),
        (Flaw::TakesTheFirstRecords, "left over"),
        (Flaw::TakesAnyPeer, "wrong peer"),
        (Flaw::AgreesAlone, "muxers"),
        (Flaw::SealsOneRecordOnly, "records"),
        (Flaw::WritesOver, "appending"),
        (Flaw::AsksForTooMuch, "record fragments"),
        (Flaw::HangsTogether, "directions"),
        (Flaw::SealsNothing, "secrecy"),
        (Flaw::IgnoresAByte, "changed handshake"),
        (Flaw::OpensWhatWasChanged, "changed records"),
        (Flaw::OpensTwice, "replays"),
        (Flaw::HasOneKey, "fresh keys"),
    ] {
        let violation = verdict(flaw);
        let found = violation.as_ref().map(conformance::Violation::check);
        assert_eq!(found, Some(check), "{flaw:?}: {violation:?}");
    }
}
