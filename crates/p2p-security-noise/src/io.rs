use std::{
    fmt,
    future::Future,
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use p2p_core::{Handshake, Open, Opened, PeerId, PublicKey, Role, Seal, SecurityError, Session};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::{
    Noise,
    limits::{
        HANDSHAKE_RECEIVED_LEN_MAX, RECEIVE_BUFFER_LEN, RECORD_PLAIN_LEN_MAX, SEND_BUFFER_LEN,
    },
};

/// Why [`handshake()`] gave no channel.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The peer is not who it should be, broke the protocol, or was interfered with.
    #[error("the handshake failed: {0}")]
    Security(#[from] SecurityError),
    /// The stream below failed.
    #[error("the stream failed during the handshake: {0}")]
    Io(#[from] io::Error),
    /// The peer closed the stream. A peer that refuses this side's identity, or that wanted to
    /// reach another, does so in place of its message.
    #[error("the peer closed the stream before message {message} of 3 was whole")]
    Closed {
        /// The number of the message that was awaited: 1 or 3 as responder, 2 as initiator.
        message: u8,
    },
}

/// Runs the handshake over `io`, and gives the encrypted stream and the identity that the peer
/// has proven.
///
/// The two sides must be of different [`Role`]s. With `expected`, any other peer is an error; an
/// initiator should give it whenever it knows whom it dials. No multiplexer is offered inside
/// the handshake; for that, use [`Security::start`](p2p_core::Security::start).
///
/// The time is not limited here: put `tokio::time::timeout` around it. The bytes are: until the
/// peer has proven its identity, it can make this side hold
/// [`HANDSHAKE_RECEIVED_LEN_MAX`] of them.
///
/// # Errors
/// [`HandshakeError`]; `io` is dropped, which for a socket closes it. Nothing is sent to the peer
/// that would tell it why (NOISE-23).
///
/// # Cancel safety
/// Not cancel safe: dropping the future drops `io` in the middle of the handshake, and what was
/// read from it is lost.
///
/// # Specification
/// libp2p/specs `noise/README.md`, "The Noise handshake".
pub async fn handshake<S>(
    mut io: S,
    noise: &Noise,
    role: Role,
    expected: Option<&PeerId>,
) -> Result<(NoiseStream<S>, PublicKey), HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut handshake = noise.start_handshake(role, expected, &[])?;
    let mut wire = BytesMut::with_capacity(HANDSHAKE_RECEIVED_LEN_MAX);
    let mut out = BytesMut::new();
    loop {
        let session = handshake.advance(&mut wire, &mut out)?;
        io.write_all_buf(&mut out).await?;
        io.flush().await?;
        if let Some(session) = session {
            return Ok(NoiseStream::new(io, session, &wire));
        }
        let message = handshake.awaits()?;
        if io.read_buf(&mut wire).await? == 0 {
            return Err(HandshakeError::Closed { message });
        }
    }
}

/// An encrypted stream over another stream; made by [`handshake()`].
///
/// Writing seals what one call brings into one record of at most
/// [`RECORD_PLAIN_LEN_MAX`] bytes, so few large writes are cheaper than many small ones: each
/// record costs 18 bytes and a pass of the cipher. What was written is on its way for certain
/// only after `flush`.
///
/// Reading ends cleanly only between records. Noise has no goodbye, so even then the end may
/// have been made by somebody else than the peer: a protocol that must know whether it has
/// everything says so in its own data.
///
/// It holds up to [`RECEIVE_BUFFER_LEN`] and [`SEND_BUFFER_LEN`] bytes.
pub struct NoiseStream<S> {
    io: S,
    seal: Box<dyn Seal>,
    open: Box<dyn Open>,
    /// Received and not opened. With `plain` used up it is alone in its allocation, so that
    /// `reserve` moves the start of a record to the front instead of growing it.
    wire: BytesMut,
    /// Opened and not read.
    plain: Bytes,
    /// Sealed and not sent: at most one record.
    out: BytesMut,
}

impl<S> NoiseStream<S> {
    /// `received` is what came behind the handshake.
    fn new(io: S, session: Session, received: &[u8]) -> (Self, PublicKey) {
        let Session { peer, seal, open, .. } = session;
        let mut wire = BytesMut::with_capacity(RECEIVE_BUFFER_LEN);
        wire.extend_from_slice(received);
        let out = BytesMut::with_capacity(SEND_BUFFER_LEN);
        (Self { io, seal, open, wire, plain: Bytes::new(), out }, peer)
    }
}

impl<S: AsyncWrite + Unpin> NoiseStream<S> {
    /// Sends what is sealed.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let sent = ready!(Pin::new(&mut self.io).poll_write(cx, &self.out))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(sent);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> NoiseStream<S> {
    /// Waits for the next plaintext that is not empty; `false` is the end between two records.
    fn poll_plain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        loop {
            match self.open.open(&mut self.wire).map_err(invalid_data)? {
                Opened::Record(plain) if plain.is_empty() => {}
                Opened::Record(plain) => {
                    self.plain = plain;
                    return Poll::Ready(Ok(true));
                }
                Opened::Incomplete(missing) => {
                    let room = if self.wire.is_empty() { RECEIVE_BUFFER_LEN } else { missing };
                    self.wire.reserve(room);
                    if ready!(pin!(self.io.read_buf(&mut self.wire)).poll(cx))? == 0 {
                        return Poll::Ready(self.end());
                    }
                }
                _ => {
                    return Poll::Ready(Err(io::Error::other(
                        "neither a record nor a part of one",
                    )));
                }
            }
        }
    }

    fn end(&self) -> io::Result<bool> {
        if self.wire.is_empty() {
            return Ok(false);
        }
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the stream ended inside a record"))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for NoiseStream<S> {
    /// Reads plaintext, of one record at a time.
    ///
    /// # Errors
    /// `UnexpectedEof` when the stream below ends inside a record. `InvalidData` around a
    /// [`SecurityError`] when a record is not the peer's; every later read fails as well.
    ///
    /// # Cancel safety
    /// Nothing is lost before `Ready`.
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if this.plain.is_empty() && !ready!(this.poll_plain(cx))? {
            return Poll::Ready(Ok(()));
        }
        let taken = this.plain.split_to(this.plain.len().min(buf.remaining()));
        buf.put_slice(&taken);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for NoiseStream<S> {
    /// Seals the front of `buf` into one record, once all that was sealed before is sent, and
    /// begins to send it.
    ///
    /// # Errors
    /// The stream below's, and [`SecurityError::NoncesExhausted`] after 2^64 - 1 records.
    ///
    /// # Cancel safety
    /// Nothing of `buf` is taken before `Ready`.
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        let len = buf.len().min(RECORD_PLAIN_LEN_MAX);
        this.seal.seal(&mut Buf::take(buf, len), &mut this.out).map_err(io::Error::other)?;
        // Without this, a caller that forgets to flush would wait for an answer for ever. What
        // the stream below does not take now is sent by the next call.
        if let Poll::Ready(Err(error)) = this.poll_drain(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(len))
    }

    /// Sends everything that was written, and flushes the stream below.
    ///
    /// # Errors
    /// The stream below's.
    ///
    /// # Cancel safety
    /// Cancel safe.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    /// Sends everything that was written, and shuts the stream below down. Reading goes on.
    ///
    /// # Errors
    /// The stream below's.
    ///
    /// # Cancel safety
    /// Cancel safe.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

impl<S> fmt::Debug for NoiseStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NoiseStream").finish_non_exhaustive()
    }
}

fn invalid_data(error: SecurityError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;
    use p2p_core::{Keypair, Security};
    use tokio::io::{DuplexStream, duplex, join, sink};

    use super::*;
    use crate::{
        cipher::Cipher,
        limits::{HANDSHAKE_MESSAGE_LEN_MAX, MESSAGE_LEN_MAX},
        record::{Opener, PREFIX_LEN, Sealer},
        symmetric::CipherState,
    };

    fn keypair(seed: u8) -> Keypair {
        Keypair::from_ed25519_seed(&[seed; 32])
    }

    fn noise(seed: u8) -> Noise {
        Noise::new(&keypair(seed)).expect("randomness")
    }

    /// Two ends after a handshake over a pipe that holds `len` bytes.
    async fn pair(len: usize) -> (NoiseStream<DuplexStream>, NoiseStream<DuplexStream>) {
        let (a, b) = duplex(len);
        let (noise_a, noise_b) = (noise(1), noise(2));
        let (a, b) = tokio::join!(
            handshake(a, &noise_a, Role::Initiator, None),
            handshake(b, &noise_b, Role::Responder, None),
        );
        let ((a, b_key), (b, a_key)) = (a.expect("good"), b.expect("good"));
        assert_eq!((a_key, b_key), (keypair(1).public(), keypair(2).public()));
        (a, b)
    }

    /// A stream whose keys are known, so that its peer can be played by hand.
    fn stream<S>(io: S) -> NoiseStream<S> {
        let session = Session::new(
            keypair(1).public(),
            None,
            Box::new(Sealer::new(cipher())),
            Box::new(Opener::new(cipher())),
        );
        NoiseStream::new(io, session, &[]).0
    }

    fn cipher() -> CipherState {
        CipherState::with_counter(Cipher::RUST_CRYPTO, [4; 32], 0)
    }

    fn put_record(cipher: &mut CipherState, plain: &[u8], wire: &mut BytesMut) {
        wire.put_u16(u16::try_from(plain.len() + 16).expect("a short record"));
        let start = wire.len();
        wire.extend_from_slice(plain);
        cipher.encrypt(&[], wire, start).expect("nonces left");
    }

    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|i| u8::try_from(i % 251).expect("small")).collect()
    }

    /// Sends `len` bytes, then reads to the end: the other side's data outlive our shutdown.
    async fn exchange(mut stream: NoiseStream<DuplexStream>, len: usize) -> Vec<u8> {
        let mut received = Vec::new();
        let (mut read, mut write) = tokio::io::split(&mut stream);
        let send = async {
            write.write_all(&pattern(len)).await?;
            write.shutdown().await
        };
        let (sent, read) = tokio::join!(send, read.read_to_end(&mut received));
        sent.expect("sent");
        read.expect("a clean end");
        received
    }

    #[tokio::test]
    async fn noise_14_round_trip_through_tiny_buffers_both_ways_with_half_close() {
        for pipe_len in [1, 7, 1_000, 1_000_000] {
            let (a, b) = pair(pipe_len).await;
            let (from_b, from_a) = tokio::join!(exchange(a, 70_000), exchange(b, 200_000));
            assert!(from_a == pattern(70_000) && from_b == pattern(200_000), "{pipe_len}");
        }
    }

    #[tokio::test]
    async fn half_close_ends_one_direction_only() {
        let (mut a, mut b) = pair(64).await;
        a.shutdown().await.expect("open");
        assert_eq!(b.read(&mut [0; 9]).await.expect("a clean end"), 0);
        b.write_all(b"still here").await.expect("open");
        b.shutdown().await.expect("open");
        let mut heard = String::new();
        a.read_to_string(&mut heard).await.expect("a clean end");
        assert_eq!(heard, "still here");
        assert!(a.write_all(b"too late").await.is_err());
    }

    #[tokio::test]
    async fn noise_18_empty_records_do_not_look_like_the_end() {
        let (io, mut peer) = duplex(1_000);
        let (mut wire, mut sender) = (BytesMut::new(), cipher());
        for plain in ["", "", "hello", "", "world", ""] {
            put_record(&mut sender, plain.as_bytes(), &mut wire);
        }
        peer.write_all(&wire).await.expect("room");
        let mut stream = stream(io);
        let mut buf = [0; 99];
        assert_eq!(stream.read(&mut buf).await.expect("a record"), 5);
        assert_eq!(stream.read(&mut buf).await.expect("a record"), 5);
        assert_eq!(&buf[..5], b"world");
        drop(peer);
        assert_eq!(stream.read(&mut buf).await.expect("a clean end"), 0);
    }

    #[tokio::test]
    async fn noise_18_a_flood_of_empty_records_is_an_error() {
        let (mut wire, mut sender) = (BytesMut::new(), cipher());
        for _ in 0..=crate::limits::EMPTY_RECORDS_MAX {
            put_record(&mut sender, &[], &mut wire);
        }
        let mut stream = stream(join(&wire[..], sink()));
        let error = stream.read_u8().await.expect_err("a flood");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn noise_24_the_end_inside_a_record_is_an_error() {
        let mut wire = BytesMut::new();
        put_record(&mut cipher(), b"hello", &mut wire);
        for len in 1..wire.len() {
            let mut stream = stream(join(&wire[..len], sink()));
            for _ in 0..2 {
                let error = stream.read_u8().await.expect_err("truncated");
                assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{len}");
                assert!(error.to_string().contains("inside a record"), "{len}");
            }
        }
    }

    #[tokio::test]
    async fn noise_23_a_forged_record_is_invalid_data_for_ever() {
        let (mut wire, mut sender) = (BytesMut::new(), cipher());
        put_record(&mut sender, b"hello", &mut wire);
        put_record(&mut sender, b"world", &mut wire);
        wire[4] ^= 1;
        let mut stream = stream(join(&wire[..], sink()));
        for _ in 0..3 {
            let error = stream.read_u8().await.expect_err("forged");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            let cause = error.get_ref().and_then(|e| e.downcast_ref::<SecurityError>());
            assert_eq!(cause, Some(&SecurityError::Decrypt));
        }
    }

    #[tokio::test]
    async fn noise_22_writing_fails_when_the_nonces_are_used_up() {
        let mut stream = stream(sink_and_nothing());
        stream.seal = Box::new(Sealer::new(CipherState::with_counter(
            Cipher::RUST_CRYPTO,
            [4; 32],
            u64::MAX,
        )));
        let error = stream.write(b"x").await.expect_err("no nonce left");
        let cause = error.get_ref().and_then(|e| e.downcast_ref::<SecurityError>());
        assert_eq!(cause, Some(&SecurityError::NoncesExhausted));
        assert!(stream.out.is_empty());
    }

    fn sink_and_nothing() -> impl AsyncRead + AsyncWrite + Unpin {
        join(tokio::io::empty(), sink())
    }

    #[tokio::test]
    async fn noise_15_a_write_takes_one_record_and_nothing_takes_none() {
        let mut stream = stream(sink_and_nothing());
        let taken = stream.write(&pattern(200_000)).await.expect("a sink");
        assert_eq!(taken, RECORD_PLAIN_LEN_MAX);
        assert_eq!(stream.write(&[]).await.expect("a sink"), 0);
    }

    #[tokio::test]
    async fn noise_20_a_write_is_sent_without_a_flush_where_there_is_room() {
        let (mut a, mut b) = pair(1_000).await;
        a.write_all(b"hello").await.expect("room");
        let mut heard = [0; 5];
        b.read_exact(&mut heard).await.expect("sent");
        assert_eq!(&heard, b"hello");
    }

    #[tokio::test]
    async fn both_buffers_stay_within_their_limits() {
        let (a, b) = duplex(200_000);
        let (mut a, mut b) = (stream(a), stream(b));
        let mut received = vec![0; 50_000];
        for round in 0..60 {
            // Sizes that leave records in part at every place of the buffer.
            let len = 1 + round * 7_919 % RECORD_PLAIN_LEN_MAX;
            a.write_all(&pattern(len)).await.expect("room");
            a.flush().await.expect("room");
            let mut left = len;
            while left > 0 {
                let want = received.len().min(left);
                left -= b.read(&mut received[..want]).await.expect("authentic");
                assert!(b.wire.capacity() <= RECEIVE_BUFFER_LEN, "{}", b.wire.capacity());
            }
            assert!(a.out.capacity() <= SEND_BUFFER_LEN, "{}", a.out.capacity());
        }
    }

    #[tokio::test]
    async fn noise_18_the_receive_buffer_holds_the_longest_records_wherever_they_begin() {
        let (mut wire, mut sender) = (BytesMut::new(), Sealer::new(cipher()));
        for len in [10, RECORD_PLAIN_LEN_MAX, 65_000, RECORD_PLAIN_LEN_MAX, 1, 65_519 * 5] {
            sender.seal(&mut &pattern(len)[..], &mut wire).expect("nonces left");
        }
        let total = 10 + RECORD_PLAIN_LEN_MAX * 2 + 65_001 + 65_519 * 5;
        for piece_len in [9_973, 65_537, 131_074, 200_000] {
            let (mut feed, io) = duplex(piece_len);
            let all = wire.clone();
            let feeding = tokio::spawn(async move { feed.write_all(&all).await });
            let mut stream = stream(io);
            let mut received = 0;
            while received < total {
                received += stream.read(&mut [0; 33_333]).await.expect("authentic");
                assert!(stream.wire.capacity() <= RECEIVE_BUFFER_LEN);
            }
            feeding.await.expect("no panic").expect("taken");
        }
        assert_eq!(RECEIVE_BUFFER_LEN, 2 * (PREFIX_LEN + MESSAGE_LEN_MAX));
    }

    #[tokio::test]
    async fn noise_21_what_comes_with_message_3_is_read() {
        let (mut peer, io) = duplex(4_096);
        let by_hand = async {
            let mut side = noise(1).start(Role::Initiator, None, &[]).expect("randomness");
            let (mut wire, mut out) = (BytesMut::new(), BytesMut::new());
            loop {
                if let Some(mut session) = side.advance(&mut wire, &mut out).expect("good") {
                    session.seal.seal(&mut &b"hello"[..], &mut out).expect("nonces left");
                    return peer.write_all(&out).await.expect("room");
                }
                peer.write_all_buf(&mut out).await.expect("room");
                peer.read_buf(&mut wire).await.expect("an answer");
            }
        };
        let noise_b = noise(2);
        let ((), result) = tokio::join!(by_hand, handshake(io, &noise_b, Role::Responder, None));
        let mut heard = [0; 5];
        result.expect("good").0.read_exact(&mut heard).await.expect("sent");
        assert_eq!(&heard, b"hello");
    }

    #[tokio::test]
    async fn noise_10_wrong_peer_tells_the_caller_and_closes_before_message_3() {
        let (a, b) = duplex(4_096);
        let (noise_a, noise_b) = (noise(1), noise(2));
        let (expected, actual) = (keypair(3).public().peer_id(), keypair(2).public().peer_id());
        let (a, b) = tokio::join!(
            handshake(a, &noise_a, Role::Initiator, Some(&expected)),
            handshake(b, &noise_b, Role::Responder, None),
        );
        let wrong = SecurityError::WrongPeer { expected, actual };
        assert!(matches!(a, Err(HandshakeError::Security(error)) if error == wrong));
        assert!(matches!(b, Err(HandshakeError::Closed { message: 3 })));
    }

    #[tokio::test]
    async fn a_peer_that_closes_is_reported_with_the_message_that_was_awaited() {
        for (role, awaited) in [(Role::Initiator, 2), (Role::Responder, 1)] {
            let nothing = sink_and_nothing();
            let error = handshake(nothing, &noise(1), role, None).await.expect_err("closed");
            assert!(matches!(error, HandshakeError::Closed { message } if message == awaited));
        }
        let error = HandshakeError::Closed { message: 2 };
        assert_eq!(error.to_string(), "the peer closed the stream before message 2 of 3 was whole");
    }

    #[tokio::test]
    async fn noise_03_two_initiators_fail() {
        let (a, b) = duplex(4_096);
        let (noise_a, noise_b) = (noise(1), noise(2));
        let (a, b) = tokio::join!(
            handshake(a, &noise_a, Role::Initiator, None),
            handshake(b, &noise_b, Role::Initiator, None),
        );
        for outcome in [a, b] {
            let Err(HandshakeError::Security(error)) = outcome else { panic!("{outcome:?}") };
            let max = HANDSHAKE_MESSAGE_LEN_MAX;
            let expected = SecurityError::HandshakeLen { message: 2, len: 32, min: 96, max };
            assert_eq!(error, expected);
        }
    }

    /// What the two sides of a handshake send: messages 1 and 3, and message 2.
    fn conversation() -> (BytesMut, BytesMut) {
        let start = |seed, role| noise(seed).start(role, None, &[]).expect("randomness");
        let (mut a, mut b) = (start(1, Role::Initiator), start(2, Role::Responder));
        let (mut forth, mut back) = (BytesMut::new(), BytesMut::new());
        a.advance(&mut BytesMut::new(), &mut forth).expect("good");
        b.advance(&mut forth.clone(), &mut back).expect("good");
        a.advance(&mut back.clone(), &mut forth).expect("good");
        (forth, back)
    }

    /// The initiator's own message 1 differs, so its last byte too is waited for in vain.
    #[tokio::test]
    async fn noise_24_the_end_inside_any_message_of_the_handshake_is_an_error() {
        let (forth, back) = conversation();
        for (role, theirs, first) in
            [(Role::Responder, &forth, Some(34)), (Role::Initiator, &back, None)]
        {
            let noise = noise(2);
            for len in 0..theirs.len() {
                let outcome = handshake(join(&theirs[..len], sink()), &noise, role, None).await;
                let awaited = match (role, first) {
                    (Role::Responder, Some(first)) if len >= first => 3,
                    (Role::Responder, _) => 1,
                    (Role::Initiator, _) => 2,
                };
                let error = outcome.expect_err("truncated");
                assert!(
                    matches!(error, HandshakeError::Closed { message } if message == awaited),
                    "{role:?} after {len} bytes: {error}"
                );
            }
        }
    }

    /// A peer that sends as much as is taken of it, without having proven anything.
    #[test]
    fn noise_14_an_unproven_peer_makes_a_handshake_hold_at_most_18_kib() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let max = u16::try_from(HANDSHAKE_MESSAGE_LEN_MAX).expect("it fits the prefix");
        let mut flood = vec![9; 200_000];
        flood[..2].copy_from_slice(&max.to_be_bytes());
        let (forth, _) = conversation();
        let after_first = [&forth[..34], &flood].concat();
        for (role, theirs) in [(Role::Initiator, &flood), (Role::Responder, &after_first)] {
            let noise = noise(1);
            for piece_len in [1, 100, 1_024, 200_000] {
                let io = join(Pieces { rest: theirs, len: piece_len }, sink());
                let mut outcome = None;
                let held = allocation_counter::measure(|| {
                    outcome = Some(runtime.block_on(handshake(io, &noise, role, None)));
                });
                let outcome = outcome.expect("it ran");
                let decrypt = HandshakeError::Security(SecurityError::Decrypt).to_string();
                assert_eq!(outcome.expect_err("not sealed").to_string(), decrypt, "{role:?}");
                let most = 18 * 1024 + 100;
                assert!(held.bytes_max <= most, "{role:?}, {piece_len}: {held:?}");
            }
        }
    }

    /// Gives its bytes a piece at a time.
    struct Pieces<'a> {
        rest: &'a [u8],
        len: usize,
    }

    impl AsyncRead for Pieces<'_> {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let len = self.len.min(self.rest.len()).min(buf.remaining());
            let (piece, rest) = self.rest.split_at(len);
            buf.put_slice(piece);
            self.rest = rest;
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", stream(())), "NoiseStream { .. }");
    }
}
