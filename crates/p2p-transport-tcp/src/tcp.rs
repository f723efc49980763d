use std::{
    io,
    net::{SocketAddr, TcpListener as StdListener},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use p2p_core::{DialTarget, Link, Listener, Multiaddr, Pipe, Transport, TransportError};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::{addr, listener::Accepting, ports::Ports, read_half::ReadHalf};

/// A socket takes no more while it holds so many bytes that are not sent: what a message on a quiet
/// stream waits behind. Without it that is megabytes of the streams that send in bulk: an echo of
/// 32 B beside 63 of them took 137 ms over a hop of 31 MB/s, and takes 13 ms; over loopback bulk is
/// as fast as without.
#[cfg(any(target_os = "android", target_os = "linux"))]
const UNSENT_LEN: u32 = 128 << 10;

/// The TCP transport. Its clones know of each other's listeners, for
/// [`Tcp::with_port_reuse`].
#[derive(Clone, Debug)]
pub struct Tcp {
    nodelay: bool,
    backlog: u32,
    keepalive: Option<Duration>,
    port_reuse: bool,
    listening: Arc<Ports>,
}

impl Default for Tcp {
    fn default() -> Self {
        Self {
            nodelay: true,
            backlog: 1024,
            keepalive: Some(Duration::from_secs(30)),
            port_reuse: false,
            listening: Arc::default(),
        }
    }
}

impl Tcp {
    /// Makes the transport with its defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether segments are sent at once instead of being gathered while an acknowledgement is
    /// outstanding (`TCP_NODELAY`); true by default. Multiplexers gather by themselves; without
    /// it each small answer can be delayed by 40 ms.
    #[must_use]
    pub fn with_nodelay(mut self, nodelay: bool) -> Self {
        self.nodelay = nodelay;
        self
    }

    /// How many connections the system completes for a listener before they are taken from it;
    /// 1024 by default, as in rust-libp2p. The system may cap it (`net.core.somaxconn` on Linux).
    /// Each costs kernel memory; more than that and connecting peers have to retry.
    #[must_use]
    pub fn with_backlog(mut self, connections: u32) -> Self {
        self.backlog = connections;
        self
    }

    /// After how long without data the system probes whether the peer is still there
    /// (`SO_KEEPALIVE`), in whole seconds, at least 1; 30 seconds by default, `None` for never.
    /// It keeps mappings in NATs alive, for one empty segment each way; how soon a silent peer
    /// is given up is the system's setting.
    #[must_use]
    pub fn with_keepalive(mut self, idle: Option<Duration>) -> Self {
        self.keepalive = idle;
        self
    }

    /// Whether dials come from a port that the transport listens on (`SO_REUSEPORT`); false by
    /// default, when each comes from a port of its own. Peers then see an address that can be
    /// dialed, as long as no router changes it, and holes can be punched through those that keep
    /// the port (CONN-39).
    ///
    /// A dial goes out from a listener of its IP family: for a loopback address from one that
    /// listens there, for others from one that does not. It takes a port of its own where there is
    /// no such listener, or where there is a connection between the two ports already.
    ///
    /// Another program of the same user may then bind the same port, and takes part of what comes
    /// in. On systems without the option (Windows, Solaris) a port of its own is taken instead.
    #[must_use]
    pub fn with_port_reuse(mut self, reuse: bool) -> Self {
        self.port_reuse = reuse;
        self
    }

    /// Makes a link of a connected socket. An option that cannot be set costs speed, or was to be
    /// set on a connection that is gone already: neither is a reason to drop it here.
    pub(crate) fn link(&self, stream: TcpStream) -> Link {
        if let Err(error) = self.set_options(&stream) {
            tracing::debug!(%error, "a TCP option could not be set");
        }
        let local = stream.local_addr();
        let (read, write) = stream.into_split();
        let pipe = Pipe::direct(ReadHalf(read), write);
        Link::Pipe(match local {
            Ok(local) => pipe.with_local(addr::from_socket(local)),
            Err(_) => pipe,
        })
    }

    fn set_options(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(self.nodelay)?;
        #[cfg(any(target_os = "android", target_os = "linux"))]
        SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_LEN)?;
        let Some(idle) = self.keepalive else { return Ok(()) };
        let idle = idle.max(Duration::from_secs(1));
        SockRef::from(stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(idle))
    }

    fn bind(&self, addr: SocketAddr) -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        if addr.is_ipv6() {
            // So that `::` and `0.0.0.0` can be bound on one port, and peers have one form.
            socket.set_only_v6(true)?;
        }
        // A port whose last connections are in TIME_WAIT can be bound again. Windows allows that
        // without, and takes the option for leave to steal a port that is in use.
        #[cfg(unix)]
        socket.set_reuse_address(true)?;
        #[cfg(all(unix, not(any(target_os = "solaris", target_os = "illumos"))))]
        socket.set_reuse_port(self.port_reuse)?;
        socket.bind(&addr.into())?;
        socket.listen(i32::try_from(self.backlog).unwrap_or(i32::MAX))?;
        socket.set_nonblocking(true)?;
        TcpListener::from_std(StdListener::from(socket))
    }

    /// Connects from a port that is listened on where that is wanted and can be, else from any.
    async fn connect(&self, remote: SocketAddr) -> io::Result<TcpStream> {
        if let Some(local) = self.listening.to_dial(remote).filter(|_| self.port_reuse) {
            match connect_from(local, remote).await {
                Err(error) if is_taken(&error) => {
                    tracing::debug!(%error, "the listening port is not used for this dial");
                }
                connected => return connected,
            }
        }
        TcpStream::connect(remote).await
    }
}

/// Connects from one address, which others may use as well.
async fn connect_from(local: SocketAddr, remote: SocketAddr) -> io::Result<TcpStream> {
    let socket = if local.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    #[cfg(all(unix, not(any(target_os = "solaris", target_os = "illumos"))))]
    socket.set_reuseport(true)?;
    socket.bind(local)?;
    socket.connect(remote).await
}

/// Whether a connection cannot be made from this port, though perhaps from another.
fn is_taken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable)
}

#[async_trait]
impl Transport for Tcp {
    /// Exactly `/ip4/…/tcp/…` and `/ip6/…/tcp/…`, with nothing before or after.
    fn supports(&self, addr: &Multiaddr) -> bool {
        addr::to_socket(addr).is_some()
    }

    async fn dial(&self, target: DialTarget) -> Result<Link, TransportError> {
        let addr = target.addr;
        let Some(socket_addr) = addr::to_socket(&addr) else {
            return Err(TransportError::Unsupported { addr });
        };
        match self.connect(socket_addr).await {
            Ok(stream) => Ok(self.link(stream)),
            Err(error) => Err(TransportError::Dial { addr, source: error.into() }),
        }
    }

    async fn listen(&self, addr: Multiaddr) -> Result<Box<dyn Listener>, TransportError> {
        let Some(socket_addr) = addr::to_socket(&addr) else {
            return Err(TransportError::Unsupported { addr });
        };
        let bound = self.bind(socket_addr).and_then(|socket| Ok((socket.local_addr()?, socket)));
        match bound {
            Ok((local, socket)) => {
                let port = Ports::add(&self.listening, local);
                Ok(Box::new(Accepting::new(self.clone(), socket, local, port)))
            }
            Err(error) => Err(TransportError::Listen { addr, source: error.into() }),
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    async fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let addr = listener.local_addr().expect("bound");
        let (ours, theirs) = tokio::join!(TcpStream::connect(addr), listener.accept());
        (ours.expect("connected"), theirs.expect("accepted").0)
    }

    fn options_of(stream: &TcpStream) -> (bool, Option<Duration>) {
        let socket = SockRef::from(stream);
        let keepalive = socket.keepalive().expect("an open socket");
        let idle = keepalive.then(|| socket.tcp_keepalive_time().expect("an open socket"));
        (stream.nodelay().expect("an open socket"), idle)
    }

    #[tokio::test]
    async fn options_are_set_as_configured() {
        let (ours, theirs) = connected().await;
        Tcp::new().set_options(&ours).expect("set");
        assert_eq!(options_of(&ours), (true, Some(Duration::from_secs(30))));
        let plain = Tcp::new().with_nodelay(false).with_keepalive(None);
        plain.set_options(&theirs).expect("set");
        assert_eq!(options_of(&theirs), (false, None));
    }

    #[tokio::test]
    async fn what_is_not_sent_is_bounded() {
        let (ours, _theirs) = connected().await;
        Tcp::new().set_options(&ours).expect("set");
        assert_eq!(SockRef::from(&ours).tcp_notsent_lowat().expect("an open socket"), UNSENT_LEN);
    }

    #[tokio::test]
    async fn a_keepalive_below_one_second_is_one_second() {
        let (ours, _theirs) = connected().await;
        Tcp::new().with_keepalive(Some(Duration::ZERO)).set_options(&ours).expect("set");
        assert_eq!(options_of(&ours), (true, Some(Duration::from_secs(1))));
    }

    #[tokio::test]
    async fn an_option_that_cannot_be_set_does_not_drop_the_connection() {
        let (ours, _theirs) = connected().await;
        // The system refuses more than 32767 seconds.
        let tcp = Tcp::new().with_keepalive(Some(Duration::from_secs(1 << 20)));
        assert!(tcp.set_options(&ours).is_err());
        assert!(matches!(tcp.link(ours), Link::Pipe(_)));
    }
}
