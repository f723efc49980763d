use bytes::{BufMut, BytesMut};
use p2p_core::ProtocolId;

use crate::{
    ClosedAt, NegotiationError,
    message::{self, HEADER, HEADER_TEXT, NA},
};

/// How many proposals a [`Responder`] answers, each with at most 1026 bytes; one more is an
/// error. The specification sets no bound (MSS-17); honest peers propose a handful.
pub const PROPOSALS_MAX: usize = 64;

/// The simultaneous-open extension is deprecated: its proposal is refused (MSS-32).
const SIMULTANEOUS_CONNECT: &str = "/libp2p/simultaneous-connect";

/// The side that was connected to: it confirms the first proposal that it supports.
///
/// Refused with `na`, and counted as a proposal, is whatever is a message but not the name of a
/// protocol: `ls` (MSS-31), a text that does not begin with `/` (MSS-08), a second header (as go
/// does; the first one is enough, and no protocol has its name).
///
/// ```
/// use bytes::BytesMut;
/// use p2p_multistream::Responder;
///
/// let mut responder = Responder::new();
/// let mut wire = BytesMut::from("\x13/multistream/1.0.0\n\x07/noise\nand more");
/// let mut out = BytesMut::new();
/// let agreed = responder.advance(&mut wire, &mut out, &mut |name| name == "/noise")?;
/// assert_eq!(agreed.expect("a whole proposal").as_str(), "/noise");
/// assert_eq!(out, "\x13/multistream/1.0.0\n\x07/noise\n");
/// assert_eq!(wire, "and more");
/// # Ok::<(), p2p_multistream::NegotiationError>(())
/// ```
#[derive(Debug, Default)]
pub struct Responder {
    state: State,
    refused: usize,
}

/// ```text
/// AwaitHeader ──header──► AwaitProposal ──supported──► Over(agreed)
///        sends header       │        ▲    sends echo
///                           └─other──┘
///                            sends na
/// ```
/// A malformed message or one proposal too many leads to `Over` with an error.
#[derive(Debug, Default)]
enum State {
    #[default]
    AwaitHeader,
    AwaitProposal,
    Over(Result<ProtocolId, NegotiationError>),
}

impl Responder {
    /// Makes the machine.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the peer's messages from the front of `wire`, and nothing that follows the agreement;
    /// appends what is to be sent to `out`; returns the protocol that was agreed on.
    ///
    /// `supports` is asked for each proposal that is a valid name, until it says yes. The name
    /// confirmed is the one proposed, also where `supports` matches loosely (MSS-16).
    ///
    /// The header goes out once the initiator's is there: in one with the first answer when the
    /// proposal came along, alone otherwise, since py-libp2p waits for it (MSS-12). What `out`
    /// holds is to be sent before the next call, and flushed. When that fails although a protocol
    /// is returned, the stream is to be handed on all the same: its initiator may have closed the
    /// other direction (MSS-26). Calls after the end give the same result again.
    ///
    /// # Errors
    /// [`NegotiationError`]; the stream is to be reset without sending what `out` holds.
    pub fn advance(
        &mut self,
        wire: &mut BytesMut,
        out: &mut BytesMut,
        supports: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Option<ProtocolId>, NegotiationError> {
        if let State::Over(end) = &self.state {
            return end.clone().map(Some);
        }
        let end = self.proceed(wire, out, supports).transpose();
        if let Some(end) = &end {
            self.state = State::Over(end.clone());
        }
        end.transpose()
    }

    fn proceed(
        &mut self,
        wire: &mut BytesMut,
        out: &mut BytesMut,
        supports: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Option<ProtocolId>, NegotiationError> {
        if matches!(self.state, State::AwaitHeader) {
            if !message::take_header(wire)? {
                return Ok(None);
            }
            out.put_slice(HEADER);
            self.state = State::AwaitProposal;
        }
        while let Some(proposal) = message::take(wire)? {
            if self.refused == PROPOSALS_MAX {
                return Err(NegotiationError::TooManyProposals(PROPOSALS_MAX));
            }
            if let Some(protocol) = valid(&proposal).filter(|name| supports(name.as_str())) {
                message::put(protocol.as_str(), out);
                return Ok(Some(protocol));
            }
            message::put(NA, out);
            self.refused = self.refused.saturating_add(1);
        }
        Ok(None)
    }

    /// How many bytes may be read next, behind those that `advance` left in `wire` (`buffered`),
    /// without reading past the end of the negotiation: at least 1 until it is over, then 0.
    #[must_use]
    pub fn wanted(&self, buffered: &[u8]) -> usize {
        match self.state {
            State::AwaitHeader => message::wanted_header(buffered),
            State::AwaitProposal => message::wanted(buffered),
            State::Over(_) => 0,
        }
    }

    /// What it means that the peer has ended the stream now.
    #[must_use]
    pub fn handle_end(&self) -> NegotiationError {
        NegotiationError::Closed(match self.state {
            State::AwaitHeader => ClosedAt::Header,
            State::AwaitProposal | State::Over(_) => ClosedAt::Refused(self.refused),
        })
    }
}

/// The protocol that a proposal names, if it can be one.
fn valid(proposal: &str) -> Option<ProtocolId> {
    if matches!(proposal, HEADER_TEXT | SIMULTANEOUS_CONNECT) {
        return None;
    }
    ProtocolId::new(proposal).ok()
}
