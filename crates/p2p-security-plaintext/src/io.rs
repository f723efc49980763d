use std::io;

use bytes::{BufMut, BytesMut};
use p2p_core::{Handshake, PeerId, PublicKey, SecurityError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::{Plaintext, exchange::Exchange};

/// Why [`handshake()`] did not end in an exchange.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The peer says that it is somebody else, or broke the protocol.
    #[error("the exchange failed: {0}")]
    Security(#[from] SecurityError),
    /// The stream failed.
    #[error("the stream failed during the exchange: {0}")]
    Io(#[from] io::Error),
    /// The peer closed the stream before its message was whole.
    #[error("the peer closed the stream before its message was whole")]
    Closed,
}

/// Runs the exchange over `io`, and gives `io` back with the identity that the peer **claims** to
/// have; see [the crate's page](crate) for what that is worth.
///
/// It is the same for both sides. Not one byte is read past the peer's message, so what is read
/// next from the `io` returned is the peer's first byte behind it. With `expected`, a peer that
/// claims to be another is an error.
///
/// The time is not limited here: put `tokio::time::timeout` around it. The bytes are, by
/// [`MESSAGE_LEN_MAX`](crate::MESSAGE_LEN_MAX).
///
/// # Errors
/// [`HandshakeError`]; `io` is dropped, which for a socket closes it.
///
/// # Cancel safety
/// Not cancel safe: dropping the future drops `io` in the middle of the exchange.
///
/// # Specification
/// libp2p/specs `plaintext/README.md`, "Exchange".
pub async fn handshake<S>(
    mut io: S,
    plaintext: &Plaintext,
    expected: Option<&PeerId>,
) -> Result<(S, PublicKey), HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut exchange = plaintext.start_exchange(expected);
    let (mut wire, mut out) = (BytesMut::new(), BytesMut::new());
    exchange.advance(&mut wire, &mut out)?;
    let (mut read, mut write) = tokio::io::split(&mut io);
    let send = async {
        write.write_all_buf(&mut out).await?;
        Ok(write.flush().await?)
    };
    // Both at a time: a pipe that holds less than a message would stop two sides that both
    // write first.
    let ((), peer) = tokio::try_join!(send, receive(&mut read, &mut exchange, &mut wire))?;
    Ok((io, peer))
}

async fn receive(
    io: &mut (impl AsyncRead + Unpin),
    exchange: &mut Exchange,
    wire: &mut BytesMut,
) -> Result<PublicKey, HandshakeError> {
    loop {
        let wanted = Exchange::wanted(wire);
        wire.reserve(wanted);
        if io.read_buf(&mut (&mut *wire).limit(wanted)).await? == 0 {
            return Err(HandshakeError::Closed);
        }
        if let Some(session) = exchange.advance(wire, &mut BytesMut::new())? {
            return Ok(session.peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use p2p_core::Keypair;
    use tokio::io::{duplex, join, sink};

    use super::*;

    fn plaintext(seed: u8) -> Plaintext {
        Plaintext::dangerous_new(&Keypair::from_ed25519_seed(&[seed; 32]))
    }

    fn key(seed: u8) -> PublicKey {
        Keypair::from_ed25519_seed(&[seed; 32]).public()
    }

    #[tokio::test]
    async fn conn_12_two_sides_agree_over_pipes_of_any_length_and_use_them_as_they_are() {
        for len in [1, 7, 78, 79, 1_000] {
            let (a, b) = duplex(len);
            let (plain_a, plain_b, expected) = (plaintext(1), plaintext(2), key(2).peer_id());
            let (a, b) = tokio::join!(
                handshake(a, &plain_a, Some(&expected)),
                handshake(b, &plain_b, None),
            );
            let ((mut a, b_key), (mut b, a_key)) = (a.expect("good"), b.expect("good"));
            assert_eq!((a_key, b_key), (key(1), key(2)));
            let mut heard = [0; 5];
            let (sent, read) = tokio::join!(a.write_all(b"hello"), b.read_exact(&mut heard));
            sent.expect("open");
            read.expect("open");
            assert_eq!(&heard, b"hello");
        }
    }

    #[tokio::test]
    async fn what_comes_with_the_message_is_left_to_be_read() {
        let mut wire = BytesMut::new();
        plaintext(2).start_exchange(None).advance(&mut BytesMut::new(), &mut wire).expect("begun");
        wire.put_slice(b"first bytes");
        let io = join(&wire[..], sink());
        let (mut io, _) = handshake(io, &plaintext(1), None).await.expect("good");
        let mut rest = String::new();
        io.read_to_string(&mut rest).await.expect("in memory");
        assert_eq!(rest, "first bytes");
    }

    #[tokio::test]
    async fn a_peer_that_closes_at_any_byte_is_reported() {
        let mut wire = BytesMut::new();
        plaintext(2).start_exchange(None).advance(&mut BytesMut::new(), &mut wire).expect("begun");
        for len in 0..wire.len() {
            let error = handshake(join(&wire[..len], sink()), &plaintext(1), None).await;
            assert!(matches!(error, Err(HandshakeError::Closed)), "{len}");
        }
    }

    #[tokio::test]
    async fn the_wrong_peer_is_an_error_although_this_side_has_said_who_it_is() {
        let (a, b) = duplex(1_000);
        let (expected, actual) = (key(3).peer_id(), key(2).peer_id());
        let (plain_a, plain_b) = (plaintext(1), plaintext(2));
        let (a, b) =
            tokio::join!(handshake(a, &plain_a, Some(&expected)), handshake(b, &plain_b, None),);
        let wrong = SecurityError::WrongPeer { expected, actual };
        assert!(matches!(a, Err(HandshakeError::Security(error)) if error == wrong));
        assert_eq!(b.expect("good").1, key(1));
    }
}
