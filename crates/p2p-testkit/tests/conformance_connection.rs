//! That each check of a connection can fail: yamux with one flaw for each.
#![expect(clippy::wildcard_enum_match_arm, reason = "every other flaw is meant")]

use std::{
    future::Future,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Instant,
};

use bytes::Bytes;
use p2p_core::{
    AcceptStream, Connection, ConnectionError, ConnectionInfo, ErrorCode, Keypair, Multiaddr,
    Muxed, Muxer, OpenStream, Pipe, RecvHalf, RecvStream, Role, SendHalf, SendStream, Stream,
    StreamError,
};
use p2p_mux::{Setup, Yamux};
use p2p_testkit::conformance;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is wrong with a connection or its streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    LosesAByte,
    ReadsHoldUpWrites,
    WritesAfterShutdown,
    GivesUpOpening,
    AcceptWakesTheFirst,
    WakesTheFirst,
    TakesEverything,
    ResetLooksComplete,
    HasNoDeadline,
    CloseGoesUnnoticed,
}

#[derive(Debug)]
struct FlawedConnection {
    connection: Arc<dyn Connection>,
    flaw: Flaw,
}

impl Connection for FlawedConnection {
    fn info(&self) -> &Arc<ConnectionInfo> {
        self.connection.info()
    }

    fn opener(&self) -> Box<dyn OpenStream> {
        let (opener, flaw) = (self.connection.opener(), self.flaw);
        Box::new(FlawedOpener { opener, flaw, waited: false })
    }

    fn close(&self, code: ErrorCode, reason: &str) {
        if self.flaw != Flaw::CloseGoesUnnoticed {
            self.connection.close(code, reason);
        }
    }
}

struct FlawedOpener {
    opener: Box<dyn OpenStream>,
    flaw: Flaw,
    waited: bool,
}

impl Drop for FlawedOpener {
    fn drop(&mut self) {
        // Nobody gets its turn.
        if self.waited && self.flaw == Flaw::GivesUpOpening {
            let never: Box<dyn OpenStream> = Box::new(Never);
            std::mem::forget(std::mem::replace(&mut self.opener, never));
        }
    }
}

struct Never;

impl OpenStream for Never {
    fn poll_open(&mut self, _: &mut Context<'_>) -> Poll<Result<Stream, ConnectionError>> {
        Poll::Pending
    }
}

impl OpenStream for FlawedOpener {
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Result<Stream, ConnectionError>> {
        let opened = self.opener.poll_open(cx);
        self.waited |= opened.is_pending();
        if self.flaw == Flaw::GivesUpOpening && self.waited {
            return Poll::Pending;
        }
        opened.map_ok(|stream| flawed_stream(stream, self.flaw))
    }
}

struct FlawedAccept {
    accept: Box<dyn AcceptStream>,
    flaw: Flaw,
    first: Option<Waker>,
}

impl AcceptStream for FlawedAccept {
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<Stream, ConnectionError>> {
        let mut waker = cx.waker().clone();
        if self.flaw == Flaw::AcceptWakesTheFirst {
            waker.clone_from(self.first.get_or_insert_with(|| cx.waker().clone()));
        }
        let accepted = ready!(self.accept.poll_accept(&mut Context::from_waker(&waker)));
        self.first = None;
        Poll::Ready(accepted.map(|stream| flawed_stream(stream, self.flaw)))
    }
}

fn flawed_stream(stream: Stream, flaw: Flaw) -> Stream {
    let info = Arc::clone(stream.connection());
    let (send, recv) = stream.into_halves();
    let reading = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let send = FlawedSend { send, flaw, reading: Arc::clone(&reading), shut: false };
    let recv = FlawedRecv { recv, flaw, reading, first: None, count: 0 };
    Stream::new(info, send, recv)
}

struct FlawedSend {
    send: SendStream,
    flaw: Flaw,
    reading: Arc<std::sync::atomic::AtomicBool>,
    shut: bool,
}

impl AsyncWrite for FlawedSend {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let all = Poll::Ready(Ok(buf.len()));
        match self.flaw {
            Flaw::ReadsHoldUpWrites if self.reading.load(std::sync::atomic::Ordering::Relaxed) => {
                Poll::Pending
            }
            Flaw::WritesAfterShutdown if self.shut => all,
            _ => match Pin::new(&mut self.send).poll_write(cx, buf) {
                Poll::Pending if self.flaw == Flaw::TakesEverything => all,
                written => written,
            },
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shut = true;
        Pin::new(&mut self.send).poll_shutdown(cx)
    }
}

impl SendHalf for FlawedSend {
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        data: &mut Bytes,
    ) -> Poll<Result<(), StreamError>> {
        let written = ready!(Pin::new(self).poll_write(cx, data));
        let count = written.map_err(|_| StreamError::ResetLocally(ErrorCode::NONE))?;
        drop(data.split_to(count));
        Poll::Ready(Ok(()))
    }

    fn set_deadline(&mut self, at: Option<Instant>) {
        self.send.set_deadline(at);
    }

    fn reset(&mut self, code: ErrorCode) {
        self.send.reset(code);
    }

    fn poll_stopped(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        pin!(self.send.stopped()).poll(cx)
    }
}

struct FlawedRecv {
    recv: RecvStream,
    flaw: Flaw,
    reading: Arc<std::sync::atomic::AtomicBool>,
    first: Option<Waker>,
    count: usize,
}

impl AsyncRead for FlawedRecv {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let chunk = ready!(self.poll_chunk(cx, buf.remaining()))?;
        buf.put_slice(&chunk.unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl RecvHalf for FlawedRecv {
    fn poll_chunk(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
    ) -> Poll<Result<Option<Bytes>, StreamError>> {
        let mut waker = cx.waker().clone();
        if self.flaw == Flaw::WakesTheFirst {
            waker.clone_from(self.first.get_or_insert_with(|| cx.waker().clone()));
        }
        let polled = pin!(self.recv.chunk(max)).poll(&mut Context::from_waker(&waker));
        self.reading.store(polled.is_pending(), std::sync::atomic::Ordering::Relaxed);
        let chunk = ready!(polled);
        self.first = None;
        match (chunk, self.flaw) {
            (Err(StreamError::Reset(_)), Flaw::ResetLooksComplete) => Poll::Ready(Ok(None)),
            (Ok(Some(chunk)), Flaw::LosesAByte) if chunk.len() > 100 => {
                self.count += 1;
                let lost = usize::from(self.count == 3);
                Poll::Ready(Ok(Some(chunk.slice(lost..))))
            }
            (chunk, _) => Poll::Ready(chunk),
        }
    }

    fn set_deadline(&mut self, at: Option<Instant>) {
        if self.flaw != Flaw::HasNoDeadline {
            self.recv.set_deadline(at);
        }
    }

    fn stop(&mut self, code: ErrorCode) {
        self.recv.stop(code);
    }

    fn reset(&mut self, code: ErrorCode) {
        self.recv.stop(code);
    }
}

/// Both ends of a yamux connection with a flaw.
fn pair(flaw: Flaw) -> (Muxed, Muxed) {
    let end = |role, io: tokio::io::DuplexStream| {
        let (read, write) = tokio::io::split(io);
        let now = tokio::time::Instant::now().into_std();
        let setup = Setup::new(Pipe::new(read, write), Yamux::default().start(role, now));
        let key = Keypair::from_ed25519_seed(&[1; 32]).public();
        let (muxed, driver) =
            setup.start_with(ConnectionInfo::new(role, key, None, Multiaddr::empty()));
        drop(tokio::spawn(driver));
        let Muxed { connection, accept, .. } = muxed;
        let accept = FlawedAccept { accept, flaw, first: None };
        Muxed::new(Arc::new(FlawedConnection { connection, flaw }), Box::new(accept))
    };
    let (ours, theirs) = tokio::io::duplex(4096);
    (end(Role::Initiator, ours), end(Role::Responder, theirs))
}

#[tokio::test(start_paused = true)]
async fn each_check_of_a_connection_finds_its_flaw() {
    for (flaw, check) in [
        (Flaw::None, None),
        (Flaw::LosesAByte, Some("stream data")),
        (Flaw::ReadsHoldUpWrites, Some("stream data")),
        (Flaw::WritesAfterShutdown, Some("stream half-close")),
        (Flaw::GivesUpOpening, Some("cancelled open")),
        (Flaw::AcceptWakesTheFirst, Some("cancelled accept")),
        (Flaw::WakesTheFirst, Some("stream last waker")),
        (Flaw::TakesEverything, Some("stream data")),
        (Flaw::ResetLooksComplete, Some("stream reset")),
        (Flaw::HasNoDeadline, Some("stream deadline")),
        (Flaw::CloseGoesUnnoticed, Some("connection close")),
    ] {
        let violation = conformance::connection(async || Ok(pair(flaw))).await.err();
        let found = violation.as_ref().map(conformance::Violation::check);
        assert_eq!(found, check, "{flaw:?}: {violation:?}");
    }
}
