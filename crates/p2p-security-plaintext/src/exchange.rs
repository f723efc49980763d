use std::mem;

use bytes::{Buf, Bytes, BytesMut};
use p2p_core::{Clear, Handshake, PeerId, PublicKey, SecurityError, Session, varint};
use prost::Message;

use crate::proto;

/// The longest message that is taken, in bytes without its length: room for the id and the
/// largest key of libp2p, RSA's of 8192 bits with 1.1 KB, three times over.
pub const MESSAGE_LEN_MAX: usize = 4096;

/// One exchange, without I/O.
pub(crate) struct Exchange {
    state: State,
    expected: Option<PeerId>,
}

/// ```text
///   Begin ──send──► Await ──receive, check, give the session──► Over
///                     └───────────── any failure ────────────────▲
/// ```
enum State {
    Begin(Bytes),
    Await,
    Over,
}

impl Exchange {
    pub(crate) fn new(message: Bytes, expected: Option<PeerId>) -> Self {
        Self { state: State::Begin(message), expected }
    }

    /// How many bytes may be read, behind those of `wire`, without reading past the peer's
    /// message.
    pub(crate) fn wanted(wire: &[u8]) -> usize {
        let end = match message_end(wire) {
            Ok(Some((_, end))) => end,
            // One more byte of the length, or for the next `advance` to say what is wrong.
            Ok(None) | Err(_) => 0,
        };
        end.saturating_sub(wire.len()).max(1)
    }

    fn receive(&self, wire: &mut BytesMut) -> Result<Option<PublicKey>, SecurityError> {
        let Some((start, end)) = message_end(wire)? else { return Ok(None) };
        let Some(message) = wire.get(start..end) else { return Ok(None) };
        let peer = verify(message, self.expected)?;
        wire.advance(end);
        Ok(Some(peer))
    }
}

impl Handshake for Exchange {
    fn advance(
        &mut self,
        wire: &mut BytesMut,
        out: &mut BytesMut,
    ) -> Result<Option<Session>, SecurityError> {
        match mem::replace(&mut self.state, State::Over) {
            State::Begin(message) => out.extend_from_slice(&message),
            State::Await => {}
            State::Over => {
                return Err(SecurityError::IllegalMove { state: "Over", event: "advance" });
            }
        }
        let Some(peer) = self.receive(wire)? else {
            self.state = State::Await;
            return Ok(None);
        };
        Ok(Some(Session::new(peer, None, Box::new(Clear), Box::new(Clear))))
    }
}

/// Where the message at the front of `wire` begins and ends; `None` while its length is not whole.
fn message_end(wire: &[u8]) -> Result<Option<(usize, usize)>, SecurityError> {
    let malformed = |text: String| SecurityError::Malformed(text);
    let decoded = varint::decode(wire).map_err(|e| malformed(format!("its length: {e}")))?;
    let Some((len, start)) = decoded else { return Ok(None) };
    match usize::try_from(len) {
        Ok(len @ 0..=MESSAGE_LEN_MAX) => Ok(Some((start, start.saturating_add(len)))),
        Ok(_) | Err(_) => Err(malformed(format!(
            "it announces a message of {len} bytes, more than {MESSAGE_LEN_MAX}"
        ))),
    }
}

/// Checks that the id is the key's, and the one that is expected.
fn verify(message: &[u8], expected: Option<PeerId>) -> Result<PublicKey, SecurityError> {
    let message =
        proto::Exchange::decode(message).map_err(|e| SecurityError::Malformed(e.to_string()))?;
    let id = present(message.id)
        .ok_or_else(|| SecurityError::Malformed("field 1 (id) is missing".into()))?;
    let claimed = PeerId::from_bytes(&id)
        .map_err(|e| SecurityError::Malformed(format!("field 1 (id): {e}")))?;
    let key = present(message.pubkey)
        .ok_or_else(|| SecurityError::IdentityKey("field 2 (pubkey) is missing".into()))?;
    let key = PublicKey::from_protobuf(&key)
        .map_err(|e| SecurityError::IdentityKey(format!("field 2 (pubkey): {e}")))?;
    let actual = key.peer_id();
    if claimed != actual {
        return Err(SecurityError::IdentityKey(format!(
            "the peer says that it is {claimed}, but the key is that of {actual}"
        )));
    }
    match expected {
        Some(expected) if expected != actual => Err(SecurityError::WrongPeer { expected, actual }),
        Some(_) | None => Ok(key),
    }
}

/// An empty field counts as a missing one: that is what it would be in proto3.
fn present(field: Option<Vec<u8>>) -> Option<Vec<u8>> {
    field.filter(|bytes| !bytes.is_empty())
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;
    use p2p_core::{Keypair, Opened, Role, Security};

    use super::*;
    use crate::Plaintext;

    fn keypair(seed: u8) -> Keypair {
        Keypair::from_ed25519_seed(&[seed; 32])
    }

    fn side(seed: u8, expected: Option<PeerId>) -> Exchange {
        Plaintext::dangerous_new(&keypair(seed)).start_exchange(expected.as_ref())
    }

    /// What a side sends, whole.
    fn sent(seed: u8) -> BytesMut {
        let mut out = BytesMut::new();
        assert!(side(seed, None).advance(&mut BytesMut::new(), &mut out).expect("begun").is_none());
        out
    }

    fn framed(message: &[u8]) -> BytesMut {
        let mut wire = BytesMut::new();
        varint::encode(message.len() as u64, &mut wire);
        wire.put_slice(message);
        wire
    }

    fn good() -> proto::Exchange {
        let key = keypair(2).public();
        proto::Exchange {
            id: Some(key.peer_id().as_bytes().to_vec()),
            pubkey: Some(key.to_protobuf()),
        }
    }

    fn failure_of(expected: Option<PeerId>, mut wire: BytesMut) -> SecurityError {
        let (mut side, mut out) = (side(1, expected), BytesMut::new());
        let error = side.advance(&mut wire, &mut out).expect_err("a failure");
        assert_eq!(
            side.advance(&mut wire, &mut out).err(),
            Some(SecurityError::IllegalMove { state: "Over", event: "advance" })
        );
        error
    }

    fn failure(message: &proto::Exchange) -> SecurityError {
        failure_of(None, framed(&message.encode_to_vec()))
    }

    #[test]
    fn conn_12_the_message_on_the_wire() {
        let key = keypair(1).public();
        let mut expected = vec![78, 0x0a, 38];
        expected.extend(key.peer_id().as_bytes());
        expected.extend([0x12, 36]);
        expected.extend(key.to_protobuf());
        assert_eq!(sent(1), expected);
    }

    #[test]
    fn conn_12_either_role_sends_at_once_and_bytes_behind_the_message_stay() {
        for role in [Role::Initiator, Role::Responder] {
            let plaintext = Plaintext::dangerous_new(&keypair(1));
            let expected = keypair(2).public().peer_id();
            let mut handshake = plaintext.start(role, Some(&expected), &[]).expect("begun");
            let mut out = BytesMut::new();
            assert!(handshake.advance(&mut BytesMut::new(), &mut out).expect("begun").is_none());
            assert_eq!(out.split(), sent(1));
            let mut wire = sent(2);
            wire.put_slice(b"first bytes");
            let session = handshake.advance(&mut wire, &mut out).expect("good").expect("whole");
            assert!(out.is_empty() && session.muxer.is_none());
            assert_eq!(session.peer, keypair(2).public());
            assert_eq!(wire, b"first bytes"[..]);
            assert_eq!(
                handshake.advance(&mut wire, &mut out).err(),
                Some(SecurityError::IllegalMove { state: "Over", event: "advance" })
            );
        }
    }

    #[test]
    fn the_session_passes_bytes_through_and_opens_without_a_copy() {
        let mut wire = sent(2);
        let session = side(1, None).advance(&mut wire, &mut BytesMut::new()).expect("good");
        let mut session = session.expect("whole");
        let mut out = BytesMut::new();
        session.seal.seal(&mut &b"as it is"[..], &mut out).expect("no limit");
        assert_eq!(out, b"as it is"[..]);
        let at = out.as_ptr();
        let Opened::Record(plain) = session.open.open(&mut out).expect("no check") else {
            panic!("there are bytes");
        };
        assert_eq!(plain, b"as it is"[..]);
        assert_eq!(plain.as_ptr(), at);
        assert!(matches!(session.open.open(&mut out), Ok(Opened::Incomplete(1))));
    }

    #[test]
    fn conn_12_a_message_cut_at_any_byte_is_waited_for() {
        let whole = sent(2);
        let mut side = side(1, None);
        let (mut wire, mut out) = (BytesMut::new(), BytesMut::new());
        for byte in &whole[..whole.len() - 1] {
            wire.put_u8(*byte);
            let missing = if wire.len() == 1 { 78 } else { whole.len() - wire.len() };
            assert_eq!(Exchange::wanted(&wire), missing);
            assert!(side.advance(&mut wire, &mut out).expect("not wrong so far").is_none());
        }
        assert_eq!(out, sent(1), "sent once");
        wire.put_u8(whole[whole.len() - 1]);
        assert!(side.advance(&mut wire, &mut out).expect("good").is_some());
    }

    #[test]
    fn conn_12_a_missing_or_empty_field_is_named() {
        for nothing in [None, Some(Vec::new())] {
            let error = failure(&proto::Exchange { id: nothing.clone(), ..good() });
            assert_eq!(error, SecurityError::Malformed("field 1 (id) is missing".into()));
            let error = failure(&proto::Exchange { pubkey: nothing, ..good() });
            assert_eq!(error, SecurityError::IdentityKey("field 2 (pubkey) is missing".into()));
        }
        let error = failure_of(None, framed(&[]));
        assert_eq!(error, SecurityError::Malformed("field 1 (id) is missing".into()));
    }

    #[test]
    fn conn_12_the_id_must_be_the_keys() {
        let other = keypair(3).public();
        let error = failure(&proto::Exchange { pubkey: Some(other.to_protobuf()), ..good() });
        let SecurityError::IdentityKey(text) = error else { panic!("{error:?}") };
        assert!(text.contains(&other.peer_id().to_string()), "{text}");
        assert!(text.contains(&keypair(2).public().peer_id().to_string()), "{text}");
    }

    #[test]
    fn conn_12_a_peer_that_is_not_expected_is_refused_in_either_role() {
        let (expected, actual) = (keypair(3).public().peer_id(), keypair(2).public().peer_id());
        let error = failure_of(Some(expected), sent(2));
        assert_eq!(error, SecurityError::WrongPeer { expected, actual });
    }

    #[test]
    fn a_malformed_id_key_or_message_is_an_error() {
        for id in [vec![0x12], vec![0x13, 1, 0], vec![0; 200]] {
            let error = failure(&proto::Exchange { id: Some(id), ..good() });
            assert!(matches!(error, SecurityError::Malformed(text) if text.contains("(id)")));
        }
        for key in [vec![8, 1, 0x12, 1, 7], vec![8, 9, 0x12, 0], vec![0xff; 36]] {
            let error = failure(&proto::Exchange { pubkey: Some(key), ..good() });
            assert!(matches!(error, SecurityError::IdentityKey(text) if text.contains("(pubkey)")));
        }
        assert!(matches!(failure_of(None, framed(&[0x0b; 9])), SecurityError::Malformed(_)));
    }

    #[test]
    fn a_length_above_the_limit_is_refused_before_a_byte_of_the_message() {
        let mut wire = BytesMut::new();
        varint::encode(4096, &mut wire);
        assert_eq!(Exchange::wanted(&wire), MESSAGE_LEN_MAX);
        assert!(side(1, None).advance(&mut wire, &mut BytesMut::new()).expect("waits").is_none());
        for len in [4097, u64::MAX >> 1] {
            let mut wire = BytesMut::new();
            varint::encode(len, &mut wire);
            assert_eq!(Exchange::wanted(&wire), 1);
            assert!(matches!(failure_of(None, wire), SecurityError::Malformed(_)));
        }
        // VAR-02, VAR-03: nine bytes that go on, and a longer form than needed.
        for wire in [&[0xff; 9][..], &[0x80, 0]] {
            assert!(matches!(failure_of(None, wire.into()), SecurityError::Malformed(_)));
        }
    }
}
