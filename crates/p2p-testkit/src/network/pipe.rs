//! The halves of a connection as the application has them.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use p2p_core::{Link, Pipe};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use super::{
    Network,
    state::{Arrived, EndId, Turn},
    transport::to_multiaddr,
};

/// One half of an end, and its timer.
struct Half {
    network: Network,
    id: EndId,
    is_writer: bool,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Half {
    /// Tries `call` until it is done or has to wait for a waker.
    fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut call: impl FnMut(&Network, EndId, &mut Context<'_>) -> io::Result<Turn<T>>,
    ) -> Poll<io::Result<T>> {
        loop {
            match call(&self.network, self.id, cx)? {
                Turn::Done(done) => return Poll::Ready(Ok(done)),
                Turn::Wait(None) => return Poll::Pending,
                Turn::Wait(Some(at)) => {
                    if self.poll_sleep(cx, at).is_pending() {
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    fn poll_sleep(&mut self, cx: &mut Context<'_>, at: Instant) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if sleep.deadline() != at {
            sleep.as_mut().reset(at);
        }
        sleep.as_mut().poll(cx)
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        let (id, is_writer) = (self.id, self.is_writer);
        self.network.with(|state, now| state.drop_half(id, is_writer, now));
    }
}

struct ReadHalf(Half);

struct WriteHalf(Half);

/// Makes the link that a host gets of an end.
pub(super) fn link(network: &Network, arrived: Arrived) -> Link {
    let half =
        |is_writer| Half { network: network.clone(), id: arrived.end, is_writer, sleep: None };
    let pipe = Pipe::new(ReadHalf(half(false)), WriteHalf(half(true)));
    Link::Pipe(pipe.with_local(to_multiaddr(arrived.local)))
}

impl AsyncRead for ReadHalf {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.poll(cx, |network, id, cx| {
            network.with(|state, now| state.read(id, buf, cx.waker(), now))
        })
    }
}

impl AsyncWrite for WriteHalf {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.poll(cx, |network, id, cx| {
            network.with(|state, now| state.write(id, data, cx.waker(), now))
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.network.with(|state, now| state.finish(self.0.id, now));
        Poll::Ready(Ok(()))
    }
}
