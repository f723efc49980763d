//! The network as a transport of hosts.

use std::{
    future::poll_fn,
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr},
    task::Poll,
    time::Duration,
};

use async_trait::async_trait;
use p2p_core::{
    DialTarget, Incoming, Link, ListenEvent, Listener, Multiaddr, Transport, TransportError,
    multiaddr::Protocol,
};
use tokio::time::{Instant, sleep};

use super::{
    Network,
    pipe::link,
    state::{Answer, Arrived, MachineId, Turn},
};

/// How long a dialer asks an address that does not answer.
const CONNECT_MAX: Duration = Duration::from_secs(60);
/// How long until it asks again, at first; twice as long each time.
const CONNECT_AGAIN: Duration = Duration::from_secs(1);

/// A machine's access to its network, from [`Machine::transport`](super::Machine::transport). It
/// takes `/ip4/…/tcp/…` and `/ip6/…/tcp/…`, and does nothing more once the machine has crashed.
#[derive(Clone, Debug)]
pub struct SimTransport {
    network: Network,
    machine: MachineId,
    life: u64,
}

impl SimTransport {
    pub(super) fn new(network: Network, machine: MachineId) -> Self {
        let life = network.with(|state, _| state.life(machine));
        Self { network, machine, life }
    }

    fn check_alive(&self) -> io::Result<()> {
        let life = self.network.with(|state, _| state.life(self.machine));
        if life == self.life { Ok(()) } else { Err(crashed()) }
    }

    async fn connect(&self, to: SocketAddr) -> io::Result<Link> {
        let until = Instant::now() + CONNECT_MAX;
        let mut again = CONNECT_AGAIN;
        loop {
            sleep(self.network.with(|state, _| state.latency_to(self.machine, to.ip()))).await;
            self.check_alive()?;
            match self.network.with(|state, now| state.connect(self.machine, to, now)) {
                Answer::Open(arrived) => return self.handshake(arrived, until).await,
                Answer::Refused => {
                    self.hear(to.ip(), until).await?;
                    return Err(ErrorKind::ConnectionRefused.into());
                }
                Answer::Nothing if Instant::now() + again > until => {
                    return Err(ErrorKind::TimedOut.into());
                }
                Answer::Nothing => sleep(again).await,
            }
            again *= 2;
        }
    }

    /// Waits for the other side's yes; a link that is dropped meanwhile is closed.
    async fn handshake(&self, arrived: Arrived, until: Instant) -> io::Result<Link> {
        let link = link(&self.network, arrived);
        self.hear(arrived.remote.ip(), until).await?;
        Ok(link)
    }

    async fn hear(&self, from: IpAddr, until: Instant) -> io::Result<()> {
        let mut again = CONNECT_AGAIN;
        sleep(self.network.with(|state, _| state.latency_from(from, self.machine))).await;
        while !self.network.with(|state, _| state.hears(self.machine, from)) {
            if Instant::now() + again > until {
                return Err(ErrorKind::TimedOut.into());
            }
            sleep(again).await;
            again *= 2;
        }
        self.check_alive()
    }
}

#[async_trait]
impl Transport for SimTransport {
    fn supports(&self, addr: &Multiaddr) -> bool {
        to_socket(addr).is_some()
    }

    async fn dial(&self, target: DialTarget) -> Result<Link, TransportError> {
        let DialTarget { addr, .. } = target;
        let Some(to) = to_socket(&addr) else { return Err(TransportError::Unsupported { addr }) };
        let connected = self.connect(to).await;
        connected.map_err(|source| TransportError::Dial { addr, source: source.into() })
    }

    async fn listen(&self, addr: Multiaddr) -> Result<Box<dyn Listener>, TransportError> {
        let Some(socket) = to_socket(&addr) else {
            return Err(TransportError::Unsupported { addr });
        };
        let listen = || self.network.with(|state, _| state.listen(self.machine, socket));
        match self.check_alive().and_then(|()| listen()) {
            Ok(local) => Ok(Box::new(SimListener { transport: self.clone(), local })),
            Err(error) => Err(TransportError::Listen { addr, source: error.into() }),
        }
    }
}

struct SimListener {
    transport: SimTransport,
    local: SocketAddr,
}

#[async_trait]
impl Listener for SimListener {
    fn addrs(&self) -> Vec<Multiaddr> {
        vec![to_multiaddr(self.local)]
    }

    async fn next(&mut self) -> Result<ListenEvent, TransportError> {
        let SimTransport { network, machine, .. } = &self.transport;
        let port = self.local.port();
        let arrived = poll_fn(|cx| {
            if self.transport.check_alive().is_err() {
                return Poll::Ready(None);
            }
            match network.with(|state, _| state.accept(*machine, port, cx.waker())) {
                Turn::Done(arrived) => Poll::Ready(arrived),
                Turn::Wait(_) => Poll::Pending,
            }
        });
        let Some(arrived) = arrived.await else {
            let (addr, source) = (to_multiaddr(self.local), crashed().into());
            return Err(TransportError::Accept { addr, source });
        };
        let (local, remote) = (to_multiaddr(arrived.local), to_multiaddr(arrived.remote));
        let link = link(network, arrived);
        Ok(ListenEvent::Incoming(Incoming::new(local, remote, async move { Ok(link) })))
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        if self.transport.check_alive().is_ok() {
            let (machine, port) = (self.transport.machine, self.local.port());
            self.transport.network.with(|state, now| state.unlisten(machine, port, now));
        }
    }
}

fn crashed() -> io::Error {
    io::Error::new(ErrorKind::ConnectionAborted, "the machine has crashed")
}

pub(super) fn to_multiaddr(addr: SocketAddr) -> Multiaddr {
    Multiaddr::from(addr.ip()).with(Protocol::Tcp(addr.port()))
}

fn to_socket(addr: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = addr.iter();
    match (parts.next()?, parts.next()?, parts.next()) {
        (Protocol::Ip4(ip), Protocol::Tcp(port), None) => Some((ip, port).into()),
        (Protocol::Ip6(ip), Protocol::Tcp(port), None) => Some((ip, port).into()),
        _ => None,
    }
}
