use std::{collections::VecDeque, future::ready, net::SocketAddr, time::Duration};

use async_trait::async_trait;
use p2p_core::{Incoming, ListenEvent, Listener, Multiaddr, TransportError};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{Instant, sleep_until},
};

use crate::{Tcp, accept_errors::AcceptErrors, addr, ports::Port};

/// How often the interfaces are looked at where a wildcard is listened on.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// A bound socket. Nothing ends it but being dropped.
#[derive(Debug)]
pub(crate) struct Accepting {
    tcp: Tcp,
    socket: TcpListener,
    bound: SocketAddr,
    errors: AcceptErrors,
    /// The addresses that were told.
    addrs: Vec<SocketAddr>,
    /// What has changed and is to be told: an address, and whether it is new.
    changes: VecDeque<(SocketAddr, bool)>,
    /// When to look at the interfaces again; `None` where they do not matter.
    look_at: Option<Instant>,
    /// Gives the addresses under which the socket can be reached, from what it is bound to.
    reachable: fn(SocketAddr) -> Vec<SocketAddr>,
    _port: Port,
}

impl Accepting {
    pub(crate) fn new(tcp: Tcp, socket: TcpListener, bound: SocketAddr, port: Port) -> Self {
        Self {
            tcp,
            socket,
            bound,
            errors: AcceptErrors::default(),
            addrs: addr::reachable(bound),
            changes: VecDeque::new(),
            look_at: bound.ip().is_unspecified().then(|| Instant::now() + LOOK_EVERY),
            reachable: addr::reachable,
            _port: port,
        }
    }

    /// Compares the addresses of the interfaces with those that were told.
    fn look(&mut self) {
        self.look_at = Some(Instant::now() + LOOK_EVERY);
        let now = (self.reachable)(self.bound);
        let gone = self.addrs.iter().filter(|addr| !now.contains(addr));
        let new = now.iter().filter(|addr| !self.addrs.contains(addr));
        let changes = gone.map(|addr| (*addr, false)).chain(new.map(|addr| (*addr, true)));
        self.changes.extend(changes);
    }

    fn tell_change(&mut self) -> Option<ListenEvent> {
        let (changed, new) = self.changes.pop_front()?;
        let addr = addr::from_socket(changed);
        if new {
            self.addrs.push(changed);
            return Some(ListenEvent::AddrAdded(addr));
        }
        self.addrs.retain(|addr| *addr != changed);
        Some(ListenEvent::AddrRemoved(addr))
    }

    fn incoming(&self, stream: TcpStream, remote: SocketAddr) -> Incoming {
        let local = stream.local_addr().unwrap_or(self.bound);
        let link = ready(Ok(self.tcp.link(stream)));
        Incoming::new(addr::from_socket(local), addr::from_socket(remote), link)
    }
}

#[async_trait]
impl Listener for Accepting {
    /// A wildcard gives the addresses that the interfaces had at the last look, at most 10 s ago.
    fn addrs(&self) -> Vec<Multiaddr> {
        self.addrs.iter().copied().map(addr::from_socket).collect()
    }

    /// Cancel safe: pauses and changes are kept in `self`, and nothing is awaited once a socket is
    /// accepted.
    async fn next(&mut self) -> Result<ListenEvent, TransportError> {
        loop {
            if let Some(change) = self.tell_change() {
                return Ok(change);
            }
            if let Some(source) = self.errors.paused().await {
                let addr = addr::from_socket(self.bound);
                return Ok(ListenEvent::Failed(TransportError::Accept { addr, source }));
            }
            let look_at = self.look_at.unwrap_or_else(Instant::now);
            tokio::select! {
                biased;
                () = sleep_until(look_at), if self.look_at.is_some() => self.look(),
                accepted = self.socket.accept() => match accepted {
                    Ok((stream, remote)) => {
                        self.errors.handle_success();
                        return Ok(ListenEvent::Incoming(self.incoming(stream, remote)));
                    }
                    Err(error) => self.errors.handle_error(error),
                }
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
        let mut listener = Accepting::new(Tcp::new(), socket, bound, Port::default());
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

    thread_local! {
        static INTERFACES: std::cell::RefCell<Vec<SocketAddr>> = const { std::cell::RefCell::new(Vec::new()) };
    }

    fn set_interfaces(addrs: &[&str]) {
        let addrs = addrs.iter().map(|addr| addr.parse().expect("an address")).collect();
        INTERFACES.set(addrs);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wildcard_tells_within_ten_seconds_when_the_interfaces_change() {
        let socket = TcpListener::bind("0.0.0.0:0").await.expect("a port");
        let bound = socket.local_addr().expect("bound");
        let mut listener = Accepting::new(Tcp::new(), socket, bound, Port::default());
        listener.reachable = |_| INTERFACES.with_borrow(Clone::clone);
        listener.addrs = vec!["127.0.0.1:1".parse().expect("an address")];
        set_interfaces(&["127.0.0.1:1"]);
        assert!(timeout(Duration::from_secs(60), listener.next()).await.is_err(), "nothing is new");

        set_interfaces(&["127.0.0.1:1", "192.0.2.1:1"]);
        let changed = Instant::now();
        let event = listener.next().await.expect("goes on");
        let ListenEvent::AddrAdded(added) = event else { panic!("{event:?}") };
        assert_eq!(added.to_string(), "/ip4/192.0.2.1/tcp/1");
        assert!(changed.elapsed() <= LOOK_EVERY + Duration::from_millis(1));
        assert_eq!(listener.addrs().len(), 2);

        set_interfaces(&["192.0.2.2:1"]);
        let mut told = Vec::new();
        for _ in 0..3 {
            let event = listener.next().await.expect("goes on");
            told.push(if let ListenEvent::AddrAdded(addr) = &event {
                format!("+{addr}")
            } else if let ListenEvent::AddrRemoved(addr) = &event {
                format!("-{addr}")
            } else {
                panic!("{event:?}")
            });
        }
        told.sort();
        let expected = ["+/ip4/192.0.2.2/tcp/1", "-/ip4/127.0.0.1/tcp/1", "-/ip4/192.0.2.1/tcp/1"];
        assert_eq!(told, expected);
        assert_eq!(listener.addrs()[0].to_string(), "/ip4/192.0.2.2/tcp/1");
    }
}
