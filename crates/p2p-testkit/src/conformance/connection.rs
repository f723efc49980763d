use std::{future::poll_fn, pin::pin, sync::Arc};

use bytes::Bytes;
use p2p_core::{AcceptStream, Connection, ConnectionError, ErrorCode, Muxed, Stream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::{Check, STILL, UNREAD_MAX, Violation, difference, pattern, poll_from_elsewhere};

/// How much is sent where bytes are compared.
const SENT_LEN: usize = 1_000_000;

/// Checks connections that are multiplexed, and their streams. `make` gives both ends of a new
/// one; what serves it is running.
///
/// # Errors
/// The first [`Violation`].
///
/// # Cancel safety
/// Dropped, it leaves tasks that end with their connections.
pub async fn connection(
    make: impl AsyncFn() -> Result<(Muxed, Muxed), Violation>,
) -> Result<(), Violation> {
    let pair = async |check| {
        let (ours, theirs) = make().await?;
        Ok::<_, Violation>(Pair { check, ours, theirs })
    };
    pair(Check("stream data")).await?.stream_data().await?;
    pair(Check("stream halves")).await?.stream_halves().await?;
    pair(Check("stream half-close")).await?.half_close().await?;
    pair(Check("cancelled open")).await?.cancelled_open().await?;
    pair(Check("cancelled accept")).await?.cancelled_accept().await?;
    pair(Check("stream last waker")).await?.last_waker().await?;
    pair(Check("stream back-pressure")).await?.back_pressure().await?;
    pair(Check("stream reset")).await?.reset().await?;
    pair(Check("stream deadline")).await?.deadline().await?;
    pair(Check("connection close")).await?.close().await
}

struct Pair {
    check: Check,
    ours: Muxed,
    theirs: Muxed,
}

impl Pair {
    /// Both ends of a new stream.
    async fn stream(&mut self) -> Result<(Stream, Stream), Violation> {
        let check = self.check;
        let mut opener = self.ours.connection.opener();
        let opening = poll_fn(|cx| opener.poll_open(cx));
        let mut ours = check.succeeds("opening a stream", opening).await?;
        // A stream may be told of with its first data alone.
        check.succeeds("a first write", ours.write_all(b"?")).await?;
        let accepting = poll_fn(|cx| self.theirs.accept.poll_accept(cx));
        let mut theirs = check.succeeds("accepting a stream", accepting).await?;
        check.succeeds("a first read", theirs.read_u8()).await?;
        Ok((ours, theirs))
    }

    /// Every byte arrives once and in order, by all four ways of reading and writing.
    async fn stream_data(mut self) -> Result<(), Violation> {
        let check = self.check;
        let sent = pattern(SENT_LEN);
        for by_reference in [false, true] {
            let (ours, theirs) = self.stream().await?;
            let exchange = async |stream: Stream| {
                let (mut send, mut recv) = stream.into_halves();
                let write = async {
                    if by_reference {
                        let mut data = Bytes::copy_from_slice(&sent);
                        send.send(&mut data).await?;
                    } else {
                        send.write_all(&sent).await?;
                    }
                    send.shutdown().await
                };
                let read = async {
                    let mut received = Vec::new();
                    if by_reference {
                        while let Some(chunk) = recv.chunk(5_000).await? {
                            received.extend_from_slice(&chunk);
                        }
                    } else {
                        recv.read_to_end(&mut received).await?;
                    }
                    Ok::<_, std::io::Error>(received)
                };
                tokio::try_join!(write, read).map(|((), received)| received)
            };
            let both = async { tokio::try_join!(exchange(ours), exchange(theirs)) };
            let (ours, theirs) = check.succeeds("an exchange", both).await?;
            for received in [ours, theirs] {
                check.that(received == sent, || difference(&sent, &received))?;
            }
        }
        Ok(())
    }

    /// A half that waits holds up neither the other half nor another stream.
    async fn stream_halves(mut self) -> Result<(), Violation> {
        let check = self.check;
        let (ours, mut theirs) = self.stream().await?;
        let (mut send, mut recv) = ours.into_halves();
        let reader = tokio::spawn(async move { recv.read_u8().await.map(|_| recv) });
        tokio::task::yield_now().await;
        check.succeeds("a write while a read waits", send.write_all(b"x")).await?;
        check.succeeds("what was written while a read waits", theirs.read_u8()).await?;
        check.succeeds("a write", theirs.write_all(b"y")).await?;
        let read = check.soon("a read that waited", reader).await?;
        let read = check.ok("a task", read)?;
        let mut recv = check.ok("a read", read)?;
        while let Ok(written) = timeout(STILL, send.write(&[7; 4096])).await {
            // One that has no flow control may end the stream instead.
            if written.is_err() {
                break;
            }
        }
        let (mut other, mut its_end) = self.stream().await?;
        check.succeeds("a write to another stream", other.write_all(b"z")).await?;
        check.succeeds("a read of another stream", its_end.read_u8()).await?;
        if theirs.write_all(b"z").await.is_ok() {
            let read = check.soon("a read while a write waits", recv.read_u8()).await?;
            drop(read);
        }
        Ok(())
    }

    /// `shutdown` ends one direction; the other goes on.
    async fn half_close(mut self) -> Result<(), Violation> {
        let check = self.check;
        let (mut ours, mut theirs) = self.stream().await?;
        check.succeeds("a write", ours.write_all(b"question")).await?;
        check.succeeds("a shutdown", ours.shutdown()).await?;
        let late = check.soon("a write after shutdown", ours.write(b"x")).await?;
        check.that(late.is_err(), || "a write after shutdown succeeds".into())?;
        let mut heard = Vec::new();
        check.succeeds("the end of the question", theirs.read_to_end(&mut heard)).await?;
        check.that(heard == b"question", || difference(b"question", &heard))?;
        check.succeeds("a write", theirs.write_all(b"answer")).await?;
        check.succeeds("a shutdown", theirs.shutdown()).await?;
        let mut heard = Vec::new();
        check.succeeds("the end of the answer", ours.read_to_end(&mut heard)).await?;
        check.that(heard == b"answer", || difference(b"answer", &heard))
    }

    /// An `open` that is given up opens nothing.
    async fn cancelled_open(mut self) -> Result<(), Violation> {
        let check = self.check;
        for _ in 0..3 {
            let mut opener = self.ours.connection.opener();
            let mut opened = Vec::new();
            // Until it waits, if it ever does.
            while opened.len() < 2_000 {
                let Some(stream) =
                    poll_from_elsewhere(&mut poll_fn(|cx| opener.poll_open(cx))).await
                else {
                    break;
                };
                opened.push(check.ok("opening", stream)?);
            }
            drop(opener);
            for mut stream in opened {
                stream.reset(ErrorCode::NONE);
            }
        }
        // What was reset may have come to the other side, or not.
        let mut opener = self.ours.connection.opener();
        let opening = poll_fn(|cx| opener.poll_open(cx));
        let accept = &mut self.theirs.accept;
        let drain = async { while poll_fn(|cx| accept.poll_accept(cx)).await.is_ok() {} };
        let opened = async {
            let mut drain = pin!(drain);
            tokio::select! {
                biased;
                opened = opening => opened,
                () = &mut drain => Err(ConnectionError::Dropped),
            }
        };
        check.succeeds("opening after opens that were given up", opened).await.map(drop)
    }

    /// An accept that is given up takes nothing.
    async fn cancelled_accept(mut self) -> Result<(), Violation> {
        let check = self.check;
        for _ in 0..3 {
            let accept = &mut self.theirs.accept;
            let early = poll_from_elsewhere(&mut poll_fn(|cx| accept.poll_accept(cx))).await;
            check.that(early.is_none(), || "a stream that nobody has opened".into())?;
            self.stream().await?;
        }
        Ok(())
    }

    /// Of several tasks that have waited, it is the last that is woken.
    async fn last_waker(mut self) -> Result<(), Violation> {
        let check = self.check;
        let (ours, mut theirs) = self.stream().await?;
        let (send, mut recv) = ours.into_halves();
        poll_from_elsewhere(&mut pin!(recv.read_u8())).await;
        let reader = tokio::spawn(async move { recv.read_u8().await });
        tokio::task::yield_now().await;
        check.succeeds("a write", theirs.write_all(b"x")).await?;
        let read = check.soon("a read that another task had begun and given up", reader).await?;
        let read = check.ok("a task", read)?;
        check.ok("a read", read)?;
        drop(send);
        Ok(())
    }

    /// A writer waits for a reader that is slow, or loses its stream.
    async fn back_pressure(mut self) -> Result<(), Violation> {
        let check = self.check;
        let (mut ours, mut theirs) = self.stream().await?;
        let sent = pattern(1 << 16);
        let mut written = 0;
        while let Ok(result) =
            timeout(STILL, ours.write(sent.get(written % sent.len()..).unwrap_or(&sent))).await
        {
            let Ok(count) = result else { return Ok(()) };
            written += count;
            check.that(written < 4 * UNREAD_MAX, || {
                format!("it takes {written} bytes that nobody reads")
            })?;
        }
        check.succeeds("a shutdown behind what waits", ours.shutdown()).await?;
        let mut received = 0_usize;
        let drain = async {
            while let Some(chunk) = theirs.chunk(1 << 16).await? {
                let good = chunk
                    .iter()
                    .enumerate()
                    .all(|(i, byte)| Some(byte) == sent.get((received + i) % sent.len()));
                if !good {
                    return Ok(false);
                }
                received += chunk.len();
            }
            Ok::<_, p2p_core::StreamError>(true)
        };
        let good = check.succeeds("the rest of what was written", drain).await?;
        check.that(good && received == written, || {
            format!("{written} bytes were written, and {received} received")
        })
    }

    /// A stream that is reset, or dropped unfinished, is an error for its peer, and no other
    /// stream's business.
    async fn reset(mut self) -> Result<(), Violation> {
        let check = self.check;
        let (mut other, mut its_end) = self.stream().await?;
        for dropped in [false, true] {
            let (mut ours, mut theirs) = self.stream().await?;
            check.succeeds("a write", ours.write_all(b"the beginning of something")).await?;
            if !dropped {
                ours.reset(ErrorCode::new(7));
            }
            drop(ours);
            let mut heard = Vec::new();
            let end = theirs.read_to_end(&mut heard);
            let end = check.soon("the end of a stream that was reset", end).await?;
            check.that(end.is_err(), || "data that were cut look complete".into())?;
            let refused = async {
                while theirs.write(b"x").await.is_ok() {
                    tokio::task::yield_now().await
                }
            };
            check.soon("the refusal of a write to a stream that was reset", refused).await?;
        }
        check.succeeds("a write to another stream", other.write_all(b"x")).await?;
        check.succeeds("a read of another stream", its_end.read_u8()).await.map(drop)
    }

    /// A deadline ends what waits, and loses nothing.
    async fn deadline(mut self) -> Result<(), Violation> {
        let check = self.check;
        let (mut ours, mut theirs) = self.stream().await?;
        let soon = || Some((tokio::time::Instant::now() + STILL).into_std());
        ours.set_read_deadline(soon());
        let late = check.soon("a read with a deadline", ours.read_u8()).await?;
        let kind = late.err().map(|error| error.kind());
        check.that(kind == Some(std::io::ErrorKind::TimedOut), || {
            format!("{kind:?} after a deadline")
        })?;
        ours.set_read_deadline(None);
        check.succeeds("a write", theirs.write_all(b"x")).await?;
        check.succeeds("a read after a deadline", ours.read_u8()).await.map(drop)
    }

    /// Closing ends both sides; everything that waits is told; what was finished has arrived.
    async fn close(mut self) -> Result<(), Violation> {
        let check = self.check;
        let (mut finished, mut its_end) = self.stream().await?;
        let (ours, mut theirs) = self.stream().await?;
        let (mut send, mut recv) = ours.into_halves();
        check.succeeds("a write", finished.write_all(b"all")).await?;
        check.succeeds("a shutdown", finished.shutdown()).await?;
        let Pair { ours: Muxed { connection, accept, .. }, theirs: far, .. } = self;
        let reader = tokio::spawn(async move { recv.read_u8().await });
        let acceptor = tokio::spawn(accepted(accept));
        tokio::task::yield_now().await;
        connection.close(ErrorCode::NONE, "the suite is done");
        connection.close(ErrorCode::NONE, "twice");
        let mut heard = Vec::new();
        check.succeeds("what was finished before a close", its_end.read_to_end(&mut heard)).await?;
        check.that(heard == b"all", || difference(b"all", &heard))?;
        let read = check.soon("a read that waits at a close", reader).await?;
        check.that(matches!(read, Ok(Err(_))), || "a read succeeds after a close".into())?;
        let first = check.soon("an accept that waits at a close", acceptor).await?;
        let (mut accept, first) = check.ok("a task", first)?;
        let again =
            check.soon("an accept after a close", poll_fn(|cx| accept.poll_accept(cx))).await?;
        let again = again.err().map(|error| error.to_string());
        check.that(first.is_some() && first == again, || {
            format!("accepting gives {first:?}, then {again:?}")
        })?;
        opens_nothing(check, &connection).await?;
        let writing = async {
            while send.write(b"x").await.is_ok() {
                tokio::task::yield_now().await
            }
        };
        check.soon("the refusal of a write after a close", writing).await?;
        let end = check
            .soon("the peer's read of what was not finished", theirs.read_to_end(&mut Vec::new()))
            .await?;
        check.that(end.is_err(), || "data that were cut by a close look complete".into())?;
        let told = check.soon("the peer's notice of a close", accepted(far.accept)).await?;
        check.that(told.1.is_some(), || "the peer accepts a stream after a close".into())?;
        opens_nothing(check, &far.connection).await
    }
}

/// Accepts until that fails, and gives the error's text.
async fn accepted(mut accept: Box<dyn AcceptStream>) -> (Box<dyn AcceptStream>, Option<String>) {
    loop {
        if let Err(error) = poll_fn(|cx| accept.poll_accept(cx)).await {
            return (accept, Some(error.to_string()));
        }
    }
}

async fn opens_nothing(check: Check, connection: &Arc<dyn Connection>) -> Result<(), Violation> {
    let mut opener = connection.opener();
    let opened = check.soon("an open after a close", poll_fn(|cx| opener.poll_open(cx))).await?;
    check.that(opened.is_err(), || "a stream is opened after a close".into())
}
