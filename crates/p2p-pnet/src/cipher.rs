//! The two directions: each begins with a nonce, and shares nothing with the other.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use salsa20::{XSalsa20, cipher::StreamCipher};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{LinkError, PreSharedKey};

/// Length of the nonce that begins each direction, in bytes.
pub(crate) const NONCE_LEN: usize = 24;

/// The most bytes of one write that are encrypted, and held until the link has taken them: two
/// times what Noise makes of a record, which is what the connection's task writes at once.
pub const WRITE_LEN_MAX: usize = 2 * 65_537;

/// How every libp2p connection begins, inside the private network or outside of one (CONN-01):
/// the header of multistream-select.
pub(crate) const GREETING: &[u8] = b"\x13/multistream/1.0.0\n";

/// What this side sends.
pub(crate) struct Sending {
    cipher: XSalsa20,
    /// Accepted, encrypted and not sent. The nonce is in it from the start, so that nothing can
    /// go before it. Nothing is encrypted while it holds anything: a byte of the cipher's stream
    /// is used once.
    out: BytesMut,
}

impl Sending {
    pub(crate) fn new(psk: &PreSharedKey) -> io::Result<Self> {
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).map_err(io::Error::other)?;
        Ok(Self::with_nonce(psk, &nonce))
    }

    fn with_nonce(psk: &PreSharedKey, nonce: &[u8; NONCE_LEN]) -> Self {
        Self { cipher: psk.cipher(nonce), out: BytesMut::from(&nonce[..]) }
    }

    /// Sends what is encrypted.
    pub(crate) fn poll_drain<W: AsyncWrite + Unpin>(
        &mut self,
        io: &mut W,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let sent = ready!(Pin::new(&mut *io).poll_write(cx, &self.out))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(sent);
        }
        // A link at rest holds no buffer.
        self.out = BytesMut::new();
        Poll::Ready(Ok(()))
    }

    pub(crate) fn poll_write<W: AsyncWrite + Unpin>(
        &mut self,
        io: &mut W,
        cx: &mut Context<'_>,
        plain: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_drain(io, cx))?;
        let plain = plain.get(..WRITE_LEN_MAX).unwrap_or(plain);
        let mut out = BytesMut::from(plain);
        self.cipher.try_apply_keystream(&mut out).map_err(|_| LinkError::Exhausted)?;
        self.out = out;
        // Without this, a caller that forgets to flush would wait for an answer for ever. What
        // the link does not take now is sent by the next call.
        if let Poll::Ready(Err(error)) = self.poll_drain(io, cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(plain.len()))
    }

    pub(crate) fn poll_flush<W: AsyncWrite + Unpin>(
        &mut self,
        io: &mut W,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(io, cx))?;
        Pin::new(io).poll_flush(cx)
    }

    pub(crate) fn poll_shutdown<W: AsyncWrite + Unpin>(
        &mut self,
        io: &mut W,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(io, cx))?;
        Pin::new(io).poll_shutdown(cx)
    }
}

/// What the peer sends.
pub(crate) struct Receiving {
    psk: PreSharedKey,
    state: State,
    /// What the peer must say first, as far as it has not yet; empty where that is not known.
    greeting: &'static [u8],
}

/// ```text
///   Nonce ──24 bytes──► Open ──another greeting──► Failed
///     └──cut, or in the clear────────────────────────▲
/// ```
/// Nothing is handed out after a failure.
enum State {
    Nonce { bytes: [u8; NONCE_LEN], len: usize },
    Open(Box<XSalsa20>),
    Failed(LinkError),
}

impl Receiving {
    /// With `greeting`, a peer whose first bytes are others is an error.
    pub(crate) fn new(psk: &PreSharedKey, greeting: &'static [u8]) -> Self {
        let state = State::Nonce { bytes: [0; NONCE_LEN], len: 0 };
        Self { psk: psk.clone(), state, greeting }
    }

    /// Reads the nonce; `false` is the end of a direction in which nothing was sent.
    pub(crate) fn poll_nonce<R: AsyncRead + Unpin>(
        &mut self,
        io: &mut R,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<bool>> {
        while let State::Nonce { bytes, len } = &mut self.state {
            let mut rest = ReadBuf::new(bytes.get_mut(*len..).unwrap_or_default());
            let read = ready!(Pin::new(&mut *io).poll_read(cx, &mut rest));
            let count = rest.filled().len();
            if let Err(error) = read {
                return Poll::Ready(Err(self.on_error(error)));
            }
            if count == 0 {
                return Poll::Ready(self.on_end().map(|()| false));
            }
            *len = len.saturating_add(count);
            if bytes.starts_with(GREETING) {
                return Poll::Ready(Err(self.fail(LinkError::Public)));
            }
            if *len == NONCE_LEN {
                self.state = State::Open(Box::new(self.psk.cipher(bytes)));
            }
        }
        Poll::Ready(Ok(true))
    }

    pub(crate) fn poll_read<R: AsyncRead + Unpin>(
        &mut self,
        io: &mut R,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 || !ready!(self.poll_nonce(io, cx))? {
            return Poll::Ready(Ok(()));
        }
        let cipher = match &mut self.state {
            State::Open(cipher) => cipher,
            State::Failed(error) => return Poll::Ready(Err(error.clone().into())),
            State::Nonce { .. } => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
        };
        let before = buf.filled().len();
        if let Err(error) = ready!(Pin::new(io).poll_read(cx, buf)) {
            return Poll::Ready(Err(self.on_error(error)));
        }
        let received = buf.filled_mut().get_mut(before..).unwrap_or_default();
        if received.is_empty() {
            return Poll::Ready(self.on_end());
        }
        let opened = cipher.try_apply_keystream(received).map_err(|_| LinkError::Exhausted);
        if let Err(error) = opened.and_then(|()| self.check_greeting(received)) {
            buf.set_filled(before);
            return Poll::Ready(Err(self.fail(error)));
        }
        Poll::Ready(Ok(()))
    }

    fn check_greeting(&mut self, received: &[u8]) -> Result<(), LinkError> {
        let len = self.greeting.len().min(received.len());
        if self.greeting.get(..len) != received.get(..len) {
            return Err(LinkError::OtherKey { ours: self.psk.fingerprint() });
        }
        self.greeting = self.greeting.get(len..).unwrap_or_default();
        Ok(())
    }

    fn on_end(&mut self) -> io::Result<()> {
        match self.state {
            State::Nonce { len: len @ 1.., .. } => Err(self.fail(LinkError::NonceCut { len })),
            State::Nonce { .. } | State::Open(_) | State::Failed(_) if self.greeting.is_empty() => {
                Ok(())
            }
            State::Nonce { .. } | State::Open(_) | State::Failed(_) => Err(self.silent()),
        }
    }

    /// A socket that is closed with unread bytes is reset: also so ends a peer that cannot make
    /// sense of what it got.
    fn on_error(&mut self, error: io::Error) -> io::Error {
        let reset = error.kind() == io::ErrorKind::ConnectionReset;
        if reset && !self.greeting.is_empty() { self.silent() } else { error }
    }

    fn silent(&mut self) -> io::Error {
        self.fail(LinkError::Silent { ours: self.psk.fingerprint() })
    }

    fn fail(&mut self, error: LinkError) -> io::Error {
        self.state = State::Failed(error.clone());
        error.into()
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn count_from<const LEN: usize>(first: u8) -> [u8; LEN] {
        std::array::from_fn(|i| first + u8::try_from(i).expect("small"))
    }

    fn psk() -> PreSharedKey {
        PreSharedKey::from_bytes(count_from(0))
    }

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len() / 2)
            .map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).expect("hex"))
            .collect()
    }

    /// What the catalogue's vector encrypts, and its bytes on the wire.
    const PLAIN: &[u8] = b"\x13/multistream/1.0.0\n\x07/noise\n";
    const WIRE: &str = "000102030405060708090a0b0c0d0e0f1011121314151617\
                        6f990ddab1eaaf35fb25b80c491cc81a18d3b2c774a9ab287357bda7";

    /// A link that takes and gives `step` bytes at a time, and is not ready every other time.
    struct Slow<'a> {
        received: &'a [u8],
        sent: Vec<u8>,
        step: usize,
        ready: bool,
    }

    impl<'a> Slow<'a> {
        fn new(received: &'a [u8], step: usize) -> Self {
            Self { received, sent: Vec::new(), step, ready: false }
        }

        fn turn(&mut self, cx: &Context<'_>) -> bool {
            self.ready = !self.ready;
            cx.waker().wake_by_ref();
            !self.ready
        }
    }

    impl AsyncRead for Slow<'_> {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if self.turn(cx) {
                return Poll::Pending;
            }
            let len = self.step.min(buf.remaining()).min(self.received.len());
            let (front, rest) = self.received.split_at(len);
            buf.put_slice(front);
            self.received = rest;
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Slow<'_> {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            if self.turn(cx) {
                return Poll::Pending;
            }
            let len = self.step.min(buf.len());
            self.sent.extend_from_slice(&buf[..len]);
            Poll::Ready(Ok(len))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// One direction each, as the stream and the halves of a pipe use them.
    struct Both<S> {
        io: S,
        sending: Sending,
        receiving: Receiving,
    }

    impl<S> Both<S> {
        fn new(io: S, greeting: &'static [u8]) -> Self {
            let sending = Sending::with_nonce(&psk(), &count_from(0));
            Self { io, sending, receiving: Receiving::new(&psk(), greeting) }
        }
    }

    impl<S: AsyncRead + Unpin> AsyncRead for Both<S> {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let this = &mut *self;
            this.receiving.poll_read(&mut this.io, cx, buf)
        }
    }

    fn link_error(error: &io::Error) -> Option<&LinkError> {
        error.get_ref()?.downcast_ref()
    }

    /// Reads to the end, and what stopped it.
    async fn read(wire: &[u8], step: usize, greeting: &'static [u8]) -> (Vec<u8>, io::Result<()>) {
        let mut both = Both::new(Slow::new(wire, step), greeting);
        let mut plain = Vec::new();
        let read = both.read_to_end(&mut plain).await.map(|_| ());
        if let Err(error) = &read {
            let again = both.read_u8().await.expect_err("for ever");
            assert_eq!(link_error(&again), link_error(error));
        }
        (plain, read)
    }

    #[tokio::test]
    async fn conn_13_the_catalogues_vector_is_read_in_pieces_of_any_length() {
        for greeting in [&b""[..], GREETING] {
            for step in 1..=60 {
                let (plain, end) = read(&hex(WIRE), step, greeting).await;
                assert_eq!(plain, PLAIN, "{step}");
                end.expect("a clean end");
            }
        }
    }

    /// Each byte that is accepted is kept until the link takes it, and encrypted once.
    #[tokio::test]
    async fn conn_13_the_catalogues_vector_is_written_in_pieces_of_any_length() {
        for piece in 1..=PLAIN.len() {
            for step in 1..=60 {
                let mut both = Both::new(Slow::new(&[], step), &[]);
                for mut piece in PLAIN.chunks(piece) {
                    while !piece.is_empty() {
                        let Both { io, sending, .. } = &mut both;
                        let write = |cx: &mut Context<'_>| sending.poll_write(io, cx, piece);
                        let taken = std::future::poll_fn(write).await.expect("in memory");
                        piece = &piece[taken..];
                    }
                }
                let Both { io, sending, .. } = &mut both;
                std::future::poll_fn(|cx| sending.poll_flush(io, cx)).await.expect("in memory");
                assert_eq!(io.sent, hex(WIRE), "{piece}, {step}");
                assert!(!sending.out.try_reclaim(1), "a buffer is held at rest");
            }
        }
    }

    /// Of NaCl's test of its stream cipher.
    #[tokio::test]
    async fn conn_13_nacls_vector() {
        let key = hex("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389");
        let psk = PreSharedKey::from_bytes(key.try_into().expect("32 bytes"));
        let nonce = hex("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37");
        let nonce: [u8; NONCE_LEN] = nonce.try_into().expect("24 bytes");
        let (mut sending, mut io) = (Sending::with_nonce(&psk, &nonce), Vec::new());
        let write = |cx: &mut Context<'_>| sending.poll_write(&mut io, cx, &[0; 32]);
        assert_eq!(std::future::poll_fn(write).await.expect("in memory"), 32);
        assert_eq!(io[..NONCE_LEN], nonce);
        let stream = hex("eea6a7251c1e72916d11c2cb214d3c252539121d8e234e652d651fa4c8cff880");
        assert_eq!(io[NONCE_LEN..], stream);
    }

    #[test]
    fn a_write_that_is_not_taken_takes_nothing_and_a_taken_one_is_not_lost() {
        let mut cx = Context::from_waker(Waker::noop());
        let (mut sending, mut io) =
            (Sending::with_nonce(&psk(), &count_from(0)), Slow::new(&[], 24));
        // Not ready: the nonce waits, and nothing is taken behind it.
        io.ready = true;
        assert!(sending.poll_write(&mut io, &mut cx, PLAIN).is_pending());
        assert_eq!(sending.out.len(), NONCE_LEN);
        // Ready for the nonce; then the data are taken, and wait.
        let taken = sending.poll_write(&mut io, &mut cx, PLAIN);
        assert!(matches!(taken, Poll::Ready(Ok(len)) if len == PLAIN.len()));
        assert_eq!(io.sent, hex(WIRE)[..NONCE_LEN]);
        assert_eq!(sending.out, hex(WIRE)[NONCE_LEN..]);
        io.step = 100;
        while sending.poll_flush(&mut io, &mut cx).is_pending() {}
        assert_eq!(io.sent, hex(WIRE));
    }

    #[tokio::test]
    async fn a_write_is_of_limited_length_and_an_empty_one_of_none() {
        let (mut sending, mut io) = (Sending::with_nonce(&psk(), &count_from(0)), Vec::new());
        let plain = vec![0; WRITE_LEN_MAX + 1];
        for (plain, taken) in [(&plain[..], WRITE_LEN_MAX), (&[], 0)] {
            let write = |cx: &mut Context<'_>| sending.poll_write(&mut io, cx, plain);
            assert_eq!(std::future::poll_fn(write).await.expect("in memory"), taken);
        }
        assert_eq!(io.len(), NONCE_LEN + WRITE_LEN_MAX);
    }

    #[tokio::test]
    async fn a_link_that_takes_nothing_is_an_error() {
        let (mut sending, mut full) = (Sending::with_nonce(&psk(), &count_from(0)), [0; 3]);
        let mut io = std::io::Cursor::new(&mut full[..]);
        let flush = |cx: &mut Context<'_>| sending.poll_flush(&mut io, cx);
        let error = std::future::poll_fn(flush).await.expect_err("full");
        assert_eq!(error.kind(), io::ErrorKind::WriteZero);
    }

    #[tokio::test]
    async fn conn_13_the_end_inside_the_nonce_is_an_error_at_every_byte() {
        for greeting in [&b""[..], GREETING] {
            for len in 1..NONCE_LEN {
                for step in [1, 60] {
                    let (plain, end) = read(&hex(WIRE)[..len], step, greeting).await;
                    let error = end.expect_err("cut");
                    assert!(plain.is_empty());
                    assert_eq!(link_error(&error), Some(&LinkError::NonceCut { len }));
                    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
                }
            }
        }
    }

    #[tokio::test]
    async fn the_end_before_the_nonce_is_an_end_where_nothing_is_expected() {
        let (plain, end) = read(&[], 1, &[]).await;
        assert!(plain.is_empty());
        end.expect("nothing was sent");
    }

    #[tokio::test]
    async fn the_end_before_the_greeting_hints_at_another_key() {
        let ours = psk().fingerprint();
        for len in [0, NONCE_LEN, NONCE_LEN + 1, NONCE_LEN + GREETING.len() - 1] {
            let (_, end) = read(&hex(WIRE)[..len], 60, GREETING).await;
            let error = end.expect_err("silent");
            assert_eq!(link_error(&error), Some(&LinkError::Silent { ours }), "{len}");
            assert!(error.to_string().contains("pre-shared key"), "{error}");
        }
        let (_, end) = read(&hex(WIRE)[..NONCE_LEN + GREETING.len()], 60, GREETING).await;
        end.expect("whole");
    }

    #[tokio::test]
    async fn a_reset_before_the_greeting_hints_at_another_key_and_later_is_itself() {
        struct Reset<'a>(&'a [u8]);
        impl AsyncRead for Reset<'_> {
            fn poll_read(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                if self.0.is_empty() {
                    return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
                }
                Pin::new(&mut self.0).poll_read(cx, buf)
            }
        }
        let wire = hex(WIRE);
        let hints = |len, greeting| {
            let mut both = Both::new(Reset(&wire[..len]), greeting);
            async move {
                let error = both.read_to_end(&mut Vec::new()).await.expect_err("reset");
                let hint = matches!(link_error(&error), Some(LinkError::Silent { .. }));
                assert!(hint || error.kind() == io::ErrorKind::ConnectionReset);
                hint
            }
        };
        for len in [0, 5, NONCE_LEN, NONCE_LEN + GREETING.len() - 1] {
            assert!(hints(len, GREETING).await, "{len}");
            assert!(!hints(len, &[]).await, "{len}");
        }
        assert!(!hints(wire.len(), GREETING).await);
    }

    #[tokio::test]
    async fn a_greeting_with_another_byte_anywhere_is_another_key_and_is_not_handed_out() {
        let ours = psk().fingerprint();
        for at in 0..GREETING.len() {
            let mut wire = hex(WIRE);
            wire[NONCE_LEN + at] ^= 1;
            for (step, before) in [(1, at), (60, 0)] {
                let (plain, end) = read(&wire, step, GREETING).await;
                assert_eq!(plain, PLAIN[..before], "{at}");
                assert_eq!(
                    link_error(&end.expect_err("garbage")),
                    Some(&LinkError::OtherKey { ours })
                );
            }
            let (plain, end) = read(&wire, 60, &[]).await;
            assert_eq!(plain.len(), PLAIN.len(), "nothing is known of what a stream carries");
            end.expect("a clean end");
        }
        // Behind the greeting, nothing is looked at.
        let mut wire = hex(WIRE);
        wire[NONCE_LEN + GREETING.len()] ^= 1;
        read(&wire, 60, GREETING).await.1.expect("a clean end");
    }

    #[tokio::test]
    async fn a_peer_in_the_clear_is_told_from_one_with_a_nonce() {
        for greeting in [&b""[..], GREETING] {
            for len in [GREETING.len(), PLAIN.len()] {
                for step in [1, 60] {
                    let (plain, end) = read(&PLAIN[..len], step, greeting).await;
                    let error = end.expect_err("in the clear");
                    assert!(plain.is_empty());
                    assert_eq!(link_error(&error), Some(&LinkError::Public));
                }
            }
        }
    }

    #[tokio::test]
    async fn two_writes_use_two_parts_of_the_ciphers_stream() {
        let (mut sending, mut io) = (Sending::with_nonce(&psk(), &count_from(0)), Vec::new());
        for _ in 0..2 {
            let write = |cx: &mut Context<'_>| sending.poll_write(&mut io, cx, &[0; 64]);
            std::future::poll_fn(write).await.expect("in memory");
        }
        io.flush().await.expect("in memory");
        assert_ne!(io[NONCE_LEN..NONCE_LEN + 64], io[NONCE_LEN + 64..]);
    }
}
