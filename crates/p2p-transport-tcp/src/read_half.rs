//! The half of a connection in which the peer sends.

use std::{
    io::{self, Read},
    pin::Pin,
    task::{Context, Poll},
};

use p2p_core::PipeRead;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, ReadBuf},
    net::tcp::OwnedReadHalf,
};

pub(crate) struct ReadHalf(pub(crate) OwnedReadHalf);

impl AsyncRead for ReadHalf {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl PipeRead for ReadHalf {
    fn try_read(&mut self, buf: &mut [u8]) -> Option<io::Result<usize>> {
        let socket = SockRef::from(self.0.as_ref());
        // What the runtime is told later of these bytes costs it one look in vain.
        Some((&*socket).read(buf))
    }
}
