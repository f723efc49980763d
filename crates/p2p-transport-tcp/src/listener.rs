use std::{future::ready, net::SocketAddr};

use async_trait::async_trait;
use p2p_core::{Incoming, ListenEvent, Listener, Multiaddr, TransportError};
use tokio::net::{TcpListener, TcpStream};

use crate::{Tcp, accept_errors::AcceptErrors, addr};

/// A bound socket. Nothing ends it but being dropped.
#[derive(Debug)]
pub(crate) struct Accepting {
    tcp: Tcp,
    socket: TcpListener,
    bound: SocketAddr,
    errors: AcceptErrors,
}

impl Accepting {
    pub(crate) fn new(tcp: Tcp, socket: TcpListener, bound: SocketAddr) -> Self {
        Self { tcp, socket, bound, errors: AcceptErrors::default() }
    }

    fn incoming(&self, stream: TcpStream, remote: SocketAddr) -> Incoming {
        let local = stream.local_addr().unwrap_or(self.bound);
        let link = ready(Ok(self.tcp.link(stream)));
        Incoming::new(addr::from_socket(local), addr::from_socket(remote), link)
    }
}

#[async_trait]
impl Listener for Accepting {
    /// A wildcard gives the addresses that the interfaces have at the time of the call.
    fn addrs(&self) -> Vec<Multiaddr> {
        addr::reachable(self.bound).into_iter().map(addr::from_socket).collect()
    }

    /// Cancel safe: a pause is kept in `self`, and nothing is awaited once a socket is accepted.
    async fn next(&mut self) -> Result<ListenEvent, TransportError> {
        loop {
            if let Some(source) = self.errors.paused().await {
                let addr = addr::from_socket(self.bound);
                return Ok(ListenEvent::Failed(TransportError::Accept { addr, source }));
            }
            match self.socket.accept().await {
                Ok((stream, remote)) => {
                    self.errors.handle_success();
                    return Ok(ListenEvent::Incoming(self.incoming(stream, remote)));
                }
                Err(error) => self.errors.handle_error(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io, time::Duration};

    use p2p_core::{DialTarget, Transport};
    use tokio::time::{Instant, timeout};

    use super::*;

    /// The failure is put in by hand: running out of descriptors for real would hit other tests.
    #[tokio::test(start_paused = true)]
    async fn a_failed_accept_is_reported_after_a_pause_and_the_listener_goes_on() {
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let bound = socket.local_addr().expect("bound");
        let mut listener = Accepting::new(Tcp::new(), socket, bound);
        let addr = listener.addrs().remove(0);

        let start = Instant::now();
        listener.errors.handle_error(io::ErrorKind::OutOfMemory.into());
        for _ in 0..4 {
            assert!(timeout(Duration::from_millis(20), listener.next()).await.is_err());
        }
        let event = listener.next().await.expect("goes on");
        assert!(start.elapsed() >= Duration::from_millis(100), "{:?}", start.elapsed());
        assert!(start.elapsed() < Duration::from_millis(110), "{:?}", start.elapsed());
        let ListenEvent::Failed(error) = event else { panic!("{event:?}") };
        assert!(error.to_string().starts_with(&format!("cannot accept on {addr}: ")), "{error}");

        let tcp = Tcp::new();
        let dial = tcp.dial(DialTarget::new(addr, None));
        let (dialed, event) = tokio::join!(dial, listener.next());
        dialed.expect("connected");
        assert!(matches!(event, Ok(ListenEvent::Incoming(_))));
    }
}
