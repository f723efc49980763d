use bytes::{Buf, BytesMut};
use p2p_core::{
    Handshake, Keypair, Opened, ProtocolId, PublicKey, Role, Security, SecurityError, Session,
};

use super::{Check, Violation, difference, pattern};

/// Lengths of what is sealed at once: nothing, little, and around the records of Noise.
const LENS: [usize; 7] = [0, 1, 100, 65_518, 65_519, 65_520, 200_000];
const MUXERS: [ProtocolId; 2] =
    [ProtocolId::from_static("/one/1.0.0"), ProtocolId::from_static("/two/1.0.0")];
/// Stands in a buffer that something is appended to, and must stay.
const BEFORE: &[u8] = b"before";

/// Checks the contract of a secure channel: handshake, records, roles, errors. `make` gives the
/// provider of the host that has a key pair.
///
/// # Errors
/// The first [`Violation`].
pub fn security<S: Security>(
    make: impl Fn(&Keypair) -> Result<S, SecurityError>,
) -> Result<(), Violation> {
    let suite = Suite::new(Check("providers"), make)?;
    suite.identities()?;
    suite.fragments()?;
    suite.left_over()?;
    suite.wrong_peer()?;
    suite.muxers()?;
    suite.records()?;
    suite.appending()?;
    suite.record_fragments()?;
    suite.directions()
}

/// Checks that a secure channel protects: what is changed, replayed, exchanged or left out on the
/// way does not arrive, and nobody on the way can read it.
///
/// # Errors
/// The first [`Violation`].
pub fn protection<S: Security>(
    make: impl Fn(&Keypair) -> Result<S, SecurityError>,
) -> Result<(), Violation> {
    let suite = Suite::new(Check("providers"), make)?;
    suite.secrecy()?;
    suite.changed_handshake()?;
    suite.changed_records()?;
    suite.replays()?;
    suite.fresh_keys()
}

struct Suite<S> {
    dialer: S,
    listener: S,
    keys: [Keypair; 3],
}

/// Both ends of a channel, and what passed between them: the dialer's messages are the first.
struct Channel {
    dialer: Session,
    listener: Session,
    wires: [BytesMut; 2],
}

/// What one side of a handshake starts with.
#[derive(Clone, Copy, Default)]
struct Offer<'a> {
    expected: Option<&'a PublicKey>,
    muxers: &'a [ProtocolId],
}

/// One side of a handshake.
struct Side {
    handshake: Box<dyn Handshake>,
    wire: BytesMut,
    session: Option<Session>,
    /// It has sealed its first record.
    sealed: bool,
}

impl Side {
    /// Hands in `bytes`, and gives what is to be sent.
    fn hear(&mut self, bytes: &[u8]) -> Result<Vec<u8>, SecurityError> {
        self.wire.extend_from_slice(bytes);
        let mut out = BytesMut::new();
        if self.session.is_none() {
            self.session = self.handshake.advance(&mut self.wire, &mut out)?;
        }
        Ok(out.to_vec())
    }
}

impl<S: Security> Suite<S> {
    fn new(
        check: Check,
        make: impl Fn(&Keypair) -> Result<S, SecurityError>,
    ) -> Result<Self, Violation> {
        let keys = [1, 2, 3].map(|seed| Keypair::from_ed25519_seed(&[seed; 32]));
        let [dialer, listener, _] = &keys;
        let dialer = check.ok("making a provider", make(dialer))?;
        let listener = check.ok("making a provider", make(listener))?;
        check.that(dialer.protocol() == listener.protocol(), || {
            format!(
                "the name is {} for one host and {} for another",
                dialer.protocol(),
                listener.protocol()
            )
        })?;
        Ok(Self { dialer, listener, keys })
    }

    fn start(&self, check: Check, role: Role, offer: Offer<'_>) -> Result<Side, Violation> {
        let provider = match role {
            Role::Initiator => &self.dialer,
            Role::Responder => &self.listener,
        };
        let expected = offer.expected.map(PublicKey::peer_id);
        let handshake = provider.start(role, expected.as_ref(), offer.muxers);
        let handshake = check.ok("starting a handshake", handshake)?;
        Ok(Side { handshake, wire: BytesMut::new(), session: None, sealed: false })
    }

    /// Runs a handshake whose messages arrive in pieces of at most `step` bytes.
    fn shake(
        &self,
        check: Check,
        step: usize,
        ours: Offer<'_>,
        theirs: Offer<'_>,
    ) -> Result<Result<Channel, SecurityError>, Violation> {
        let mut dialer = self.start(check, Role::Initiator, ours)?;
        let mut listener = self.start(check, Role::Responder, theirs)?;
        let (mut to_listener, mut to_dialer) = (Vec::new(), Vec::new());
        let mut begun = false;
        loop {
            let done = dialer.session.is_some() && listener.session.is_some();
            let idle = begun && to_listener.is_empty() && to_dialer.is_empty();
            if done && idle {
                break;
            }
            check.that(!idle, || "both sides wait for the other".into())?;
            begun = true;
            let heard = hear_in_pieces(&mut dialer, &std::mem::take(&mut to_dialer), step);
            let answered = heard.and_then(|said| {
                to_listener.extend(said);
                hear_in_pieces(&mut listener, &std::mem::take(&mut to_listener), step)
            });
            match answered {
                Ok(said) => to_dialer = said,
                Err(error) => return Ok(Err(error)),
            }
        }
        let Side { wire: to_dialer, session: dialer, .. } = dialer;
        let Side { wire: to_listener, session: listener, .. } = listener;
        match (dialer, listener) {
            (Some(dialer), Some(listener)) => {
                Ok(Ok(Channel { dialer, listener, wires: [to_listener, to_dialer] }))
            }
            _ => Err(check.seen("a handshake ends without a session")),
        }
    }

    fn channel(&self, check: Check) -> Result<Channel, Violation> {
        let shaken = self.shake(check, usize::MAX, Offer::default(), Offer::default())?;
        check.ok("a handshake", shaken)
    }

    fn public(&self, of: usize) -> PublicKey {
        let [dialer, listener, stranger] = &self.keys;
        [dialer, listener, stranger].get(of).map_or_else(|| stranger.public(), |key| key.public())
    }

    /// Each side learns the other's key.
    fn identities(&self) -> Result<(), Violation> {
        let check = Check("identities");
        let expecting = Offer { expected: Some(&self.public(1)), ..Offer::default() };
        let shaken = self.shake(check, usize::MAX, expecting, Offer::default())?;
        let channel = check.ok("a handshake with the peer that is expected", shaken)?;
        for (session, peer) in
            [(&channel.dialer, self.public(1)), (&channel.listener, self.public(0))]
        {
            check.that(session.peer == peer, || {
                format!("the session is with {}, not {}", session.peer.peer_id(), peer.peer_id())
            })?;
        }
        Ok(())
    }

    /// Messages may arrive in any pieces.
    fn fragments(&self) -> Result<(), Violation> {
        let check = Check("fragments");
        for step in [1, 2, 3, 7, 100] {
            let shaken = self.shake(check, step, Offer::default(), Offer::default())?;
            check.ok(&format!("a handshake in pieces of {step} bytes"), shaken)?;
        }
        Ok(())
    }

    /// Bytes behind a side's last message stay in the buffer: they are records.
    fn left_over(&self) -> Result<(), Violation> {
        let check = Check("left over");
        let mut dialer = self.start(check, Role::Initiator, Offer::default())?;
        let mut listener = self.start(check, Role::Responder, Offer::default())?;
        let mut to_listener = check.ok("a handshake", dialer.hear(&[]))?;
        for _ in 0..100 {
            let mut to_dialer = check.ok("a handshake", listener.hear(&to_listener))?;
            to_listener.clear();
            seal_behind(check, &mut listener, &mut to_dialer)?;
            to_listener = check.ok("a handshake", dialer.hear(&to_dialer))?;
            seal_behind(check, &mut dialer, &mut to_listener)?;
            if to_listener.is_empty() {
                break;
            }
        }
        for side in [&mut dialer, &mut listener] {
            let session = side.session.as_mut().ok_or_else(|| check.seen("no session"))?;
            let first = open(check, session, &mut side.wire)?;
            check.that(first == *b"first", || difference(b"first", &first))?;
        }
        Ok(())
    }

    /// A peer that is not the one expected is refused.
    fn wrong_peer(&self) -> Result<(), Violation> {
        let check = Check("wrong peer");
        let stranger = self.public(2);
        let expecting = Offer { expected: Some(&stranger), ..Offer::default() };
        for (ours, theirs) in [(expecting, Offer::default()), (Offer::default(), expecting)] {
            let shaken = self.shake(check, usize::MAX, ours, theirs)?;
            check.that(shaken.is_err(), || "a session with a peer that was not expected".into())?;
        }
        Ok(())
    }

    /// A multiplexer is agreed on by both sides or by none, and is one that both offer.
    fn muxers(&self) -> Result<(), Violation> {
        let check = Check("muxers");
        let [one, two] = MUXERS;
        let offers: [(&[ProtocolId], &[ProtocolId]); 5] = [
            (&[], &[]),
            (&MUXERS, &[]),
            (&[], &MUXERS),
            (&MUXERS, std::slice::from_ref(&two)),
            (std::slice::from_ref(&one), &MUXERS),
        ];
        for (ours, theirs) in offers {
            let offer = |muxers| Offer { expected: None, muxers };
            let shaken = self.shake(check, usize::MAX, offer(ours), offer(theirs))?;
            let channel = check.ok("a handshake with multiplexers", shaken)?;
            let (ours_agreed, theirs_agreed) = (&channel.dialer.muxer, &channel.listener.muxer);
            check.that(ours_agreed == theirs_agreed, || {
                format!("the dialer has {ours_agreed:?}, the listener {theirs_agreed:?}")
            })?;
            if let Some(agreed) = ours_agreed {
                check.that(ours.contains(agreed) && theirs.contains(agreed), || {
                    format!("{agreed} is agreed on, of {ours:?} and {theirs:?}")
                })?;
            }
        }
        Ok(())
    }

    /// What is sealed is opened, of any length, and all of it is taken.
    fn records(&self) -> Result<(), Violation> {
        let check = Check("records");
        let mut channel = self.channel(check)?;
        for len in LENS {
            let plain = pattern(len);
            let Channel { dialer, listener, wires: [to_listener, to_dialer] } = &mut channel;
            pass(check, &plain, dialer, listener, to_listener)?;
            pass(check, &plain, listener, dialer, to_dialer)?;
        }
        Ok(())
    }

    /// What stands in a buffer stays there.
    fn appending(&self) -> Result<(), Violation> {
        let check = Check("appending");
        let mut out = BytesMut::from(BEFORE);
        let mut first = self.start(check, Role::Initiator, Offer::default())?;
        check.ok("a handshake", first.handshake.advance(&mut BytesMut::new(), &mut out))?;
        check
            .that(out.starts_with(BEFORE), || "a handshake writes over what is in `out`".into())?;
        let mut channel = self.channel(check)?;
        let mut out = BytesMut::from(BEFORE);
        check.ok("sealing", channel.dialer.seal.seal(&mut &b"x"[..], &mut out))?;
        check.that(out.starts_with(BEFORE), || "sealing writes over what is in `out`".into())?;
        out.advance(BEFORE.len());
        let opened = open(check, &mut channel.listener, &mut out)?;
        check.that(opened == *b"x", || difference(b"x", &opened))
    }

    /// A record in part is not given, and no more bytes are asked for than belong to it.
    fn record_fragments(&self) -> Result<(), Violation> {
        let check = Check("record fragments");
        for step in [1, 5, 1000] {
            let mut channel = self.channel(check)?;
            let plain = pattern(3_000);
            let mut sealed = BytesMut::new();
            check.ok("sealing", channel.dialer.seal.seal(&mut &plain[..], &mut sealed))?;
            let (mut wire, mut opened) = (BytesMut::new(), Vec::new());
            loop {
                match check.ok("opening", channel.listener.open.open(&mut wire))? {
                    Opened::Record(record) => opened.extend_from_slice(&record),
                    Opened::Incomplete(missing) if !sealed.is_empty() => {
                        check.that((1..=sealed.len()).contains(&missing), || {
                            format!(
                                "{missing} more bytes are asked for, where {} belong to the record",
                                sealed.len()
                            )
                        })?;
                        wire.extend_from_slice(&sealed.split_to(sealed.len().min(step)));
                    }
                    Opened::Incomplete(_) | _ => break,
                }
            }
            check.that(opened == plain, || difference(&plain, &opened))?;
        }
        Ok(())
    }

    /// The two directions share nothing.
    fn directions(&self) -> Result<(), Violation> {
        let check = Check("directions");
        let Channel { dialer, listener, .. } = self.channel(check)?;
        let (mut seal, mut open) = (dialer.seal, listener.open);
        drop((dialer.open, listener.seal));
        let mut wire = BytesMut::new();
        for _ in 0..100 {
            check
                .ok("sealing without the other direction", seal.seal(&mut &b"x"[..], &mut wire))?;
            match check.ok("opening without the other direction", open.open(&mut wire))? {
                Opened::Record(plain) => {
                    check.that(*plain == *b"x", || difference(b"x", &plain))?
                }
                Opened::Incomplete(_) | _ => {
                    return Err(check.seen("nothing is opened of a whole record"));
                }
            }
        }
        Ok(())
    }

    /// What is sealed cannot be read on the way.
    fn secrecy(&self) -> Result<(), Violation> {
        let check = Check("secrecy");
        let mut channel = self.channel(check)?;
        let plain = pattern(1_000);
        let mut wire = BytesMut::new();
        check.ok("sealing", channel.dialer.seal.seal(&mut &plain[..], &mut wire))?;
        let shows = plain.windows(16).any(|part| wire.windows(16).any(|sent| sent == part));
        check.that(!shows, || "the plain bytes are on the wire".into())
    }

    /// A handshake in which any byte was changed gives no two sides that understand each other.
    fn changed_handshake(&self) -> Result<(), Violation> {
        let check = Check("changed handshake");
        let mut at = 0;
        loop {
            let mut passed = 0;
            let mut dialer = self.start(check, Role::Initiator, Offer::default())?;
            let mut listener = self.start(check, Role::Responder, Offer::default())?;
            let mut changed = false;
            let mut change = |mut message: Vec<u8>| {
                if let Some(byte) =
                    message.get_mut(at - passed.min(at)).filter(|_| !changed && at >= passed)
                {
                    *byte ^= 1;
                    changed = true;
                }
                passed += message.len();
                message
            };
            let mut failed = false;
            let mut to_listener = match dialer.hear(&[]) {
                Ok(first) => change(first),
                Err(_) => return Err(check.seen("a handshake fails before anything was changed")),
            };
            while !to_listener.is_empty() && !failed {
                let Ok(answer) = listener.hear(&to_listener) else {
                    failed = true;
                    break;
                };
                let answer = change(answer);
                let Ok(more) = dialer.hear(&answer) else {
                    failed = true;
                    break;
                };
                to_listener = change(more);
            }
            if !changed {
                return check.that(at > 0, || "a handshake says nothing".into());
            }
            if let (false, Some(ours), Some(theirs)) =
                (failed, &mut dialer.session, &mut listener.session)
            {
                let understood = understands(ours, theirs) && understands(theirs, ours);
                check.that(!understood, || format!("byte {at} of the handshake may be changed"))?;
            }
            at += 1;
        }
    }

    /// A record in which any byte was changed is not opened, and nothing behind it is.
    fn changed_records(&self) -> Result<(), Violation> {
        let check = Check("changed records");
        let mut channel = self.channel(check)?;
        let mut sealed = BytesMut::new();
        check
            .ok("sealing", channel.dialer.seal.seal(&mut &b"sixteen bytes ok"[..], &mut sealed))?;
        for at in 0..sealed.len() {
            let mut channel = self.channel(check)?;
            let mut wire = BytesMut::new();
            for _ in 0..2 {
                check.ok(
                    "sealing",
                    channel.dialer.seal.seal(&mut &b"sixteen bytes ok"[..], &mut wire),
                )?;
            }
            if let Some(byte) = wire.get_mut(at) {
                *byte ^= 1;
            }
            for _ in 0..3 {
                let opened = channel.listener.open.open(&mut wire);
                check.that(!matches!(opened, Ok(Opened::Record(_))), || {
                    format!("a record is opened although byte {at} was changed")
                })?;
            }
        }
        Ok(())
    }

    /// A record is opened once, and in its turn.
    fn replays(&self) -> Result<(), Violation> {
        let check = Check("replays");
        let record = |channel: &mut Channel, text: &[u8]| {
            let mut out = BytesMut::new();
            let sealed = channel.dialer.seal.seal(&mut &text[..], &mut out);
            check.ok("sealing", sealed).map(|()| out)
        };
        let mut channel = self.channel(check)?;
        let once = record(&mut channel, b"once")?;
        let first = open(check, &mut channel.listener, &mut once.clone())?;
        check.that(first == *b"once", || difference(b"once", &first))?;
        let again = channel.listener.open.open(&mut once.clone());
        check
            .that(!matches!(again, Ok(Opened::Record(_))), || "a record is opened twice".into())?;
        let mut channel = self.channel(check)?;
        let _first = record(&mut channel, b"first")?;
        let mut second = record(&mut channel, b"second")?;
        let early = channel.listener.open.open(&mut second);
        check.that(!matches!(early, Ok(Opened::Record(_))), || {
            "a record is opened although the one before it was left out".into()
        })?;
        let mut channel = self.channel(check)?;
        let mut mirrored = record(&mut channel, b"mirror")?;
        let back = channel.dialer.open.open(&mut mirrored);
        check.that(!matches!(back, Ok(Opened::Record(_))), || {
            "a record is opened by the side that has sealed it".into()
        })
    }

    /// Two channels between the same hosts have nothing in common.
    fn fresh_keys(&self) -> Result<(), Violation> {
        let check = Check("fresh keys");
        let mut wires = Vec::new();
        for _ in 0..2 {
            let mut channel = self.channel(check)?;
            let mut wire = BytesMut::new();
            check.ok("sealing", channel.dialer.seal.seal(&mut &b"the same"[..], &mut wire))?;
            wires.push(wire);
        }
        let same = wires.first() == wires.last();
        check.that(!same, || "the same bytes in two channels are the same on the wire".into())
    }
}

/// Once a side has its session, seals its first record behind its last message.
fn seal_behind(check: Check, side: &mut Side, out: &mut Vec<u8>) -> Result<(), Violation> {
    let Some(session) = side.session.as_mut().filter(|_| !side.sealed) else { return Ok(()) };
    side.sealed = true;
    let mut record = BytesMut::new();
    check.ok("sealing", session.seal.seal(&mut &b"first"[..], &mut record))?;
    out.extend_from_slice(&record);
    Ok(())
}

/// Hands in `bytes` in pieces, or nothing at all, and gives what is to be sent.
fn hear_in_pieces(side: &mut Side, bytes: &[u8], step: usize) -> Result<Vec<u8>, SecurityError> {
    let mut said = side.hear(&[])?;
    for piece in bytes.chunks(step) {
        said.extend(side.hear(piece)?);
    }
    Ok(said)
}

/// Seals on one side and opens on the other.
fn pass(
    check: Check,
    plain: &[u8],
    from: &mut Session,
    to: &mut Session,
    wire: &mut BytesMut,
) -> Result<(), Violation> {
    let mut rest = plain;
    check.ok("sealing", from.seal.seal(&mut rest, wire))?;
    check.that(rest.is_empty(), || {
        format!("{} of {} bytes are not sealed", rest.len(), plain.len())
    })?;
    let opened = open(check, to, wire)?;
    check.that(opened == plain, || difference(plain, &opened))
}

/// Opens everything that is in `wire`.
fn open(check: Check, session: &mut Session, wire: &mut BytesMut) -> Result<Vec<u8>, Violation> {
    let mut opened = Vec::new();
    while let Opened::Record(record) = check.ok("opening", session.open.open(wire))? {
        opened.extend_from_slice(&record);
    }
    Ok(opened)
}

/// Whether what one side seals arrives at the other.
fn understands(from: &mut Session, to: &mut Session) -> bool {
    let mut wire = BytesMut::new();
    from.seal.seal(&mut &b"hello"[..], &mut wire).is_ok()
        && matches!(to.open.open(&mut wire), Ok(Opened::Record(plain)) if *plain == *b"hello")
}
