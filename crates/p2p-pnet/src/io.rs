use std::{
    fmt,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use p2p_core::{Pipe, PipeRead};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    PreSharedKey,
    cipher::{GREETING, Receiving, Sending},
};

/// Puts the pre-shared key around `io`.
///
/// Sends this side's nonce, 24 bytes, and returns as soon as `io` has taken it. The peer's is not
/// waited for: it is read before the first byte, and may come as late as the peer's own first
/// byte (CONN-14). So no round trip is added, and it does not matter which side speaks first, nor
/// whether the other waits for the nonce before it speaks, as rust-libp2p does.
///
/// `io` must be able to hold the nonce; one that takes fewer bytes at once works when the other
/// side reads meanwhile. The time is not limited here.
///
/// The layer keeps strangers out and authenticates nothing: what comes out under another key is
/// garbage, which the protocol above must notice. Put a secure channel inside, as libp2p does.
///
/// # Errors
/// The system's, when it gives no randomness; `io`'s own; and what reading may fail with, when
/// the peer is at fault before `io` has taken the nonce: [`LinkError`](crate::LinkError).
///
/// # Cancel safety
/// Not cancel safe: dropping the future drops `io` in the middle of the nonce.
///
/// # Specification
/// libp2p/specs `pnet/Private-Networks-PSK-V1.md`, "Algorithm".
pub async fn protect<S>(mut io: S, psk: &PreSharedKey) -> io::Result<PrivateStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut read, mut write) = tokio::io::split(&mut io);
    let (sending, receiving) = begin(&mut read, &mut write, psk, &[]).await?;
    Ok(PrivateStream { io, sending, receiving })
}

/// The same for a pipe that will carry a libp2p connection, whose first bytes are known.
pub(crate) async fn protect_pipe(pipe: Pipe, psk: &PreSharedKey) -> io::Result<Pipe> {
    let Pipe { mut read, mut write, local, .. } = pipe;
    let (sending, receiving) = begin(&mut read, &mut write, psk, GREETING).await?;
    let pipe = Pipe::direct(Reader { io: read, receiving }, Writer { io: write, sending });
    Ok(match local {
        Some(local) => pipe.with_local(local),
        None => pipe,
    })
}

/// Sends the nonce. It does not wait to ride along with the first write: a side that reads first
/// would keep it, and the two halves would have to share the writing one.
async fn begin(
    read: &mut (impl AsyncRead + Unpin),
    write: &mut (impl AsyncWrite + Unpin),
    psk: &PreSharedKey,
    greeting: &'static [u8],
) -> io::Result<(Sending, Receiving)> {
    let (mut sending, mut receiving) = (Sending::new(psk)?, Receiving::new(psk, greeting));
    poll_fn(|cx| {
        let sent = sending.poll_flush(write, cx);
        if sent.is_pending() {
            let _: Poll<bool> = receiving.poll_nonce(read, cx)?;
        }
        sent
    })
    .await?;
    Ok((sending, receiving))
}

/// A stream with a pre-shared key around it; made by [`protect()`].
///
/// Writing encrypts up to [`WRITE_LEN_MAX`](crate::WRITE_LEN_MAX) bytes at once into a buffer,
/// which is all that it ever holds, and nothing at rest. What was written is on its way for
/// certain only after `flush`. Reading decrypts in place.
pub struct PrivateStream<S> {
    io: S,
    sending: Sending,
    receiving: Receiving,
}

impl<S: AsyncRead + Unpin> AsyncRead for PrivateStream<S> {
    /// Reads and decrypts, the peer's nonce first.
    ///
    /// # Errors
    /// Those of the stream below, and [`LinkError`](crate::LinkError), after which every read
    /// fails. A peer that ends the stream before its nonce has sent nothing: that is an end, and
    /// no error.
    ///
    /// # Cancel safety
    /// Nothing is lost before `Ready`.
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.receiving.poll_read(&mut this.io, cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PrivateStream<S> {
    /// Encrypts the front of `buf`, once all that was written before is sent, and begins to send
    /// it.
    ///
    /// # Errors
    /// Those of the stream below, and [`LinkError::Exhausted`](crate::LinkError::Exhausted).
    ///
    /// # Cancel safety
    /// Nothing of `buf` is taken before `Ready`.
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.sending.poll_write(&mut this.io, cx, buf)
    }

    /// Sends everything that was written, and flushes the stream below.
    ///
    /// # Cancel safety
    /// Cancel safe.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.sending.poll_flush(&mut this.io, cx)
    }

    /// Sends everything that was written, and shuts the stream below down. Reading goes on.
    ///
    /// # Cancel safety
    /// Cancel safe.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.sending.poll_shutdown(&mut this.io, cx)
    }
}

impl<S> fmt::Debug for PrivateStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateStream").finish_non_exhaustive()
    }
}

/// The half of a pipe in which the peer sends.
struct Reader {
    io: Box<dyn PipeRead>,
    receiving: Receiving,
}

impl AsyncRead for Reader {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.receiving.poll_read(&mut this.io, cx, buf)
    }
}

impl PipeRead for Reader {
    fn try_read(&mut self, buf: &mut [u8]) -> Option<io::Result<usize>> {
        let mut io = Asked { io: self.io.as_mut(), can: true };
        let mut buf = ReadBuf::new(buf);
        let read =
            self.receiving.poll_read(&mut io, &mut Context::from_waker(Waker::noop()), &mut buf);
        match read {
            Poll::Pending if !io.can => None,
            Poll::Pending => Some(Err(io::ErrorKind::WouldBlock.into())),
            Poll::Ready(result) => Some(result.map(|()| buf.filled().len())),
        }
    }
}

/// A half that is asked directly, where it can be.
struct Asked<'a> {
    io: &'a mut dyn PipeRead,
    can: bool,
}

impl AsyncRead for Asked<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = buf.remaining();
        match self.io.try_read(buf.initialize_unfilled()) {
            None => {
                self.can = false;
                Poll::Pending
            }
            Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            Some(Ok(count)) if count > room => {
                let broken = "the pipe claims to have read more than there was room for";
                Poll::Ready(Err(io::Error::other(broken)))
            }
            Some(result) => Poll::Ready(result.map(|count| buf.advance(count))),
        }
    }
}

/// The half of a pipe in which this side sends.
struct Writer<W> {
    io: W,
    sending: Sending,
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Writer<W> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.sending.poll_write(&mut this.io, cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.sending.poll_flush(&mut this.io, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.sending.poll_shutdown(&mut this.io, cx)
    }
}

#[cfg(test)]
mod tests {
    use std::{future::Future, time::Duration};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
        time::timeout,
    };

    use super::*;
    use crate::{LinkError, cipher::NONCE_LEN};

    fn psk(byte: u8) -> PreSharedKey {
        PreSharedKey::from_bytes([byte; 32])
    }

    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|i| u8::try_from(i % 251).expect("small")).collect()
    }

    /// Sends `len` bytes, and reads to the end meanwhile.
    async fn exchange(io: DuplexStream, len: usize) -> Vec<u8> {
        let mut stream = protect(io, &psk(1)).await.expect("taken");
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

    #[tokio::test(start_paused = true)]
    async fn conn_13_both_ways_through_links_of_any_length_with_half_close() {
        for len in [1, 7, 23, 24, 25, 1_000, 1_000_000] {
            let (a, b) = duplex(len);
            let (less, more) = ((len * 100).min(30_000), (len * 1_000).min(200_000));
            let both = async { tokio::join!(exchange(a, less), exchange(b, more)) };
            let (from_b, from_a) = timeout(Duration::from_secs(1), both).await.expect("no halt");
            assert!(from_a == pattern(less) && from_b == pattern(more), "{len}");
        }
    }

    /// A peer that waits for the nonce before it says anything, as rust-libp2p does, gets it from
    /// a side that has only read so far; and one that keeps its own until it writes, as go-libp2p
    /// does, holds nobody up.
    #[tokio::test]
    async fn conn_14_the_nonce_goes_out_first_and_none_is_waited_for() {
        let (io, mut peer) = duplex(1_000);
        let psk = psk(1);
        let mut stream = protect(io, &psk).await.expect("nothing is waited for");
        let mut buf = [0; 5];
        let read = stream.read(&mut buf);
        tokio::pin!(read);
        let waits = std::future::poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx).is_pending()));
        assert!(waits.await);
        let mut nonce = [0; NONCE_LEN];
        peer.read_exact(&mut nonce).await.expect("sent");
        let mut theirs = protect(peer, &psk).await.expect("room");
        theirs.write_all(b"hello").await.expect("room");
        assert_eq!(read.await.expect("theirs"), 5);
        assert_eq!(&buf, b"hello");
        stream.write_all(b"world").await.expect("room");
    }

    #[tokio::test]
    async fn conn_13_each_direction_of_each_link_has_a_nonce_of_its_own() {
        let mut nonces = std::collections::HashSet::new();
        for _ in 0..4 {
            let (io, mut peer) = duplex(1_000);
            protect(io, &psk(1)).await.expect("room");
            let mut nonce = [0; NONCE_LEN];
            peer.read_exact(&mut nonce).await.expect("sent");
            assert!(nonces.insert(nonce) && nonce != [0; NONCE_LEN]);
        }
    }

    #[tokio::test]
    async fn conn_13_another_key_gives_garbage() {
        let (a, b) = duplex(1_000);
        let (ours, theirs) = (psk(1), psk(2));
        let (a, b) = tokio::join!(protect(a, &ours), protect(b, &theirs));
        let (mut a, mut b) = (a.expect("room"), b.expect("room"));
        a.write_all(&[0; 64]).await.expect("room");
        let mut heard = [0; 64];
        b.read_exact(&mut heard).await.expect("garbage, but whole");
        assert_ne!(heard, [0; 64]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_goes_before_the_nonce_is_taken_is_not_waited_for() {
        let (io, mut peer) = duplex(8);
        let gone = async {
            peer.write_all(b"five.").await.expect("room");
            peer.shutdown().await.expect("open");
            std::future::pending::<()>().await;
        };
        let psk = psk(1);
        let error = tokio::select! {
            () = gone => unreachable!("pending"),
            result = timeout(Duration::from_secs(1), protect(io, &psk)) => {
                result.expect("no halt").expect_err("cut")
            }
        };
        let cause = error.get_ref().and_then(|e| e.downcast_ref::<LinkError>());
        assert_eq!(cause, Some(&LinkError::NonceCut { len: 5 }));
        drop(peer);
    }

    /// A half that says what it was given when it is asked, and never else.
    struct OnlyAsked(Option<Vec<u8>>);

    impl AsyncRead for OnlyAsked {
        fn poll_read(
            self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            _buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl PipeRead for OnlyAsked {
        fn try_read(&mut self, buf: &mut [u8]) -> Option<io::Result<usize>> {
            let given = self.0.as_mut()?;
            if given.is_empty() {
                return Some(Err(io::ErrorKind::WouldBlock.into()));
            }
            let len = buf.len().min(given.len());
            buf[..len].copy_from_slice(&given[..len]);
            given.drain(..len);
            Some(Ok(len))
        }
    }

    /// One that says that it has given more than it was asked for.
    struct Boasting;

    impl AsyncRead for Boasting {
        fn poll_read(
            self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            _buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl PipeRead for Boasting {
        fn try_read(&mut self, buf: &mut [u8]) -> Option<io::Result<usize>> {
            Some(Ok(buf.len() + 1))
        }
    }

    #[tokio::test]
    async fn a_pipe_that_can_be_asked_still_can_and_another_one_cannot() {
        let (io, mut sent) = duplex(1_000);
        let mut theirs = protect(io, &psk(1)).await.expect("room");
        theirs.write_all(b"hello").await.expect("room");
        theirs.flush().await.expect("room");
        let mut wire = vec![0; NONCE_LEN + 5];
        sent.read_exact(&mut wire).await.expect("sent");
        let receiving = || Receiving::new(&psk(1), &[]);
        let mut read = Reader { io: Box::new(OnlyAsked(Some(wire))), receiving: receiving() };
        let mut buf = [0; 8];
        assert_eq!(read.try_read(&mut buf).expect("it can").expect("it has"), 5);
        assert_eq!(&buf[..5], b"hello");
        let nothing = read.try_read(&mut buf).expect("it can").expect_err("nothing more");
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        let mut broken = Reader { io: Box::new(Boasting), receiving: receiving() };
        let error = broken.try_read(&mut buf).expect("it can").expect_err("it is none");
        assert!(error.to_string().contains("more than there was room for"), "{error}");
        let mut deaf = Reader { io: Box::new(OnlyAsked(None)), receiving: receiving() };
        assert!(deaf.try_read(&mut buf).is_none());
    }

    #[test]
    fn debug_shows_nothing() {
        let stream = PrivateStream {
            io: (),
            sending: Sending::new(&psk(1)).expect("randomness"),
            receiving: Receiving::new(&psk(1), &[]),
        };
        assert_eq!(format!("{stream:?}"), "PrivateStream { .. }");
    }
}
