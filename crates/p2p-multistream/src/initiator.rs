use std::{mem, vec};

use bytes::{BufMut, BytesMut};
use p2p_core::ProtocolId;

use crate::{
    ClosedAt, NegotiationError,
    message::{self, HEADER, NA},
};

/// The side that opened the connection or stream: it proposes names, best first, until one is
/// confirmed.
///
/// It can be used optimistically (MSS-20): with one name, application data may follow what the
/// first [`advance`](Self::advance) gives at once, and the answer is looked at when it is there.
/// When the answer is `na`, that data is lost (MSS-24). With more names, a refusal makes the next
/// `advance` propose again, behind data that the peer cannot understand: do not do that.
///
/// ```
/// use bytes::BytesMut;
/// use p2p_core::ProtocolId;
/// use p2p_multistream::Initiator;
///
/// let mut initiator = Initiator::new([ProtocolId::from_static("/noise")])?;
/// let (mut wire, mut out) = (BytesMut::new(), BytesMut::new());
/// assert!(initiator.advance(&mut wire, &mut out)?.is_none());
/// assert_eq!(out, "\x13/multistream/1.0.0\n\x07/noise\n");
///
/// wire.extend_from_slice(b"\x13/multistream/1.0.0\n\x07/noise\nand more");
/// assert!(initiator.advance(&mut wire, &mut out)?.is_some());
/// assert_eq!(wire, "and more");
/// # Ok::<(), p2p_multistream::NegotiationError>(())
/// ```
#[derive(Debug)]
pub struct Initiator {
    state: State,
    /// What waits for an answer, or will be proposed first.
    proposal: ProtocolId,
    refused: Vec<ProtocolId>,
    left: vec::IntoIter<ProtocolId>,
}

/// ```text
/// Start ──► AwaitHeader ──header──► AwaitAnswer ──echo──► Over(agreed)
///   └ sends header and                │      ▲ │
///     first proposal                  └──na──┘ └──na, no name left──► Over(Unsupported)
///                             sends next proposal
/// ```
/// Anything else leads to `Over` with an error.
#[derive(Debug)]
enum State {
    Start,
    AwaitHeader,
    AwaitAnswer,
    Over(Result<ProtocolId, NegotiationError>),
}

impl Initiator {
    /// Makes the machine of the names to propose, best first. A [`Responder`](crate::Responder)
    /// answers no more than the first [`PROPOSALS_MAX`](crate::PROPOSALS_MAX).
    ///
    /// # Errors
    /// [`NegotiationError::NoProtocols`] when there are none.
    pub fn new(protocols: impl IntoIterator<Item = ProtocolId>) -> Result<Self, NegotiationError> {
        let mut left = protocols.into_iter().collect::<Vec<_>>().into_iter();
        let proposal = left.next().ok_or(NegotiationError::NoProtocols)?;
        Ok(Self { state: State::Start, proposal, refused: Vec::new(), left })
    }

    /// Takes the peer's messages from the front of `wire`, and nothing that follows them; appends
    /// what is to be sent to `out`; returns the protocol once the peer has confirmed it.
    ///
    /// The first call appends the header and the first proposal in one (MSS-12), and needs
    /// nothing in `wire`. What `out` holds is to be sent before the next call, and flushed. Calls
    /// after the end give the same result again.
    ///
    /// # Errors
    /// [`NegotiationError`]; the stream is to be reset without sending what `out` holds.
    pub fn advance(
        &mut self,
        wire: &mut BytesMut,
        out: &mut BytesMut,
    ) -> Result<Option<ProtocolId>, NegotiationError> {
        if let State::Over(end) = &self.state {
            return end.clone().map(Some);
        }
        let end = self.proceed(wire, out).transpose();
        if let Some(end) = &end {
            self.state = State::Over(end.clone());
        }
        end.transpose()
    }

    fn proceed(
        &mut self,
        wire: &mut BytesMut,
        out: &mut BytesMut,
    ) -> Result<Option<ProtocolId>, NegotiationError> {
        if matches!(self.state, State::Start) {
            out.put_slice(HEADER);
            message::put(self.proposal.as_str(), out);
            self.state = State::AwaitHeader;
        }
        if matches!(self.state, State::AwaitHeader) {
            if !message::take_header(wire)? {
                return Ok(None);
            }
            self.state = State::AwaitAnswer;
        }
        while let Some(answer) = message::take(wire)? {
            if answer == self.proposal.as_str() {
                return Ok(Some(self.proposal.clone()));
            }
            if answer != NA {
                let got = message::shorten(&answer);
                return Err(NegotiationError::UnexpectedAnswer {
                    expected: self.proposal.clone(),
                    got,
                });
            }
            self.handle_refusal(out)?;
        }
        Ok(None)
    }

    /// The next name goes out alone, without a second header (MSS-14).
    fn handle_refusal(&mut self, out: &mut BytesMut) -> Result<(), NegotiationError> {
        let Some(next) = self.left.next() else {
            let mut proposed = mem::take(&mut self.refused);
            proposed.push(self.proposal.clone());
            return Err(NegotiationError::Unsupported { proposed });
        };
        message::put(next.as_str(), out);
        self.refused.push(mem::replace(&mut self.proposal, next));
        Ok(())
    }

    /// How many bytes may be read next, behind those that `advance` left in `wire` (`buffered`),
    /// without reading past the end of the negotiation: at least 1 until it is over, then 0.
    #[must_use]
    pub fn wanted(&self, buffered: &[u8]) -> usize {
        match self.state {
            State::Start | State::AwaitHeader => message::wanted_header(buffered),
            State::AwaitAnswer => message::wanted(buffered),
            State::Over(_) => 0,
        }
    }

    /// What it means that the peer has ended the stream now.
    #[must_use]
    pub fn handle_end(&self) -> NegotiationError {
        NegotiationError::Closed(match self.state {
            State::Start | State::AwaitHeader => ClosedAt::Header,
            State::AwaitAnswer | State::Over(_) => ClosedAt::Refused(self.refused.len()),
        })
    }
}
