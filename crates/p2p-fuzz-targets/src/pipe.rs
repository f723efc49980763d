//! A pipe between two sides that are polled by hand.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// One direction.
#[derive(Debug, Default)]
pub(crate) struct Direction {
    /// On its way.
    pub(crate) bytes: VecDeque<u8>,
    /// How many bytes the pipe still takes, and gives, before it is not ready.
    pub(crate) takes: usize,
    pub(crate) gives: usize,
    /// The most at once.
    pub(crate) step: usize,
    pub(crate) ended: bool,
    /// Ended by somebody on the way: what is sent is lost.
    pub(crate) cut: bool,
    /// All bytes that were ever put in.
    pub(crate) wire: Vec<u8>,
}

#[derive(Debug, Default)]
pub(crate) struct Both {
    pub(crate) directions: [Direction; 2],
    /// Whether a call was told to wait.
    waits: bool,
}

/// The pipe; what side 0 sends is direction 0.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wire(Arc<Mutex<Both>>);

impl Wire {
    pub(crate) fn both(&self) -> MutexGuard<'_, Both> {
        self.0.lock().expect("no panic that goes on")
    }

    pub(crate) fn end(&self, side: usize) -> End {
        End { wire: self.clone(), side }
    }

    /// Calls something that polls. What waits has been told to by the pipe, which will wake it.
    pub(crate) fn poll<T>(&self, call: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        self.both().waits = false;
        let result = call(&mut Context::from_waker(Waker::noop()));
        assert!(result.is_ready() || self.both().waits, "waits for nothing");
        result
    }
}

/// One side's end of the pipe.
#[derive(Clone, Debug)]
pub(crate) struct End {
    wire: Wire,
    side: usize,
}

impl AsyncRead for End {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut both = self.wire.both();
        let from = &mut both.directions[1 - self.side];
        if from.bytes.is_empty() && from.ended {
            return Poll::Ready(Ok(()));
        }
        let most = from.gives.min(from.step).min(from.bytes.len());
        if most == 0 {
            both.waits = true;
            return Poll::Pending;
        }
        let taken: Vec<u8> = from.bytes.drain(..most.min(buf.remaining())).collect();
        from.gives -= taken.len();
        buf.put_slice(&taken);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for End {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut both = self.wire.both();
        let to = &mut both.directions[self.side];
        if to.cut {
            return Poll::Ready(Ok(buf.len()));
        }
        assert!(!to.ended, "writes after the end");
        let count = buf.len().min(to.takes).min(to.step);
        if count == 0 {
            both.waits = true;
            return Poll::Pending;
        }
        to.takes -= count;
        to.bytes.extend(&buf[..count]);
        to.wire.extend(&buf[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.both().directions[self.side].ended = true;
        Poll::Ready(Ok(()))
    }
}
