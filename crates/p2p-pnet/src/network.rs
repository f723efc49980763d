use std::{fmt, io};

use async_trait::async_trait;
use p2p_core::{
    DialTarget, Incoming, Link, ListenEvent, Listener, Multiaddr, Transport, TransportError,
    multiaddr::Protocol,
};

use crate::{LinkError, PreSharedKey, io::protect_pipe};

/// A transport whose links are those of one private network.
///
/// Wrap **every** transport of a host in one: the layer protects the links that go through it,
/// and no others. The host itself, the secure channel and the multiplexer stay as they are.
///
/// A link that is born multiplexed is refused, and an address of QUIC, WebTransport or WebRTC
/// before it is dialed or listened on (CONN-15): such links cannot be wrapped, and would be open
/// to the public. What a link carries must begin with multistream-select, as a host's does:
/// anything else is taken for the garbage of another key, [`LinkError::OtherKey`].
pub struct PrivateNetwork<T> {
    psk: PreSharedKey,
    transport: T,
}

impl<T: Transport> PrivateNetwork<T> {
    /// Puts the private network of `psk` around `transport`.
    #[must_use]
    pub fn new(psk: PreSharedKey, transport: T) -> Self {
        Self { psk, transport }
    }
}

#[async_trait]
impl<T: Transport> Transport for PrivateNetwork<T> {
    /// What the transport inside does.
    fn supports(&self, addr: &Multiaddr) -> bool {
        self.transport.supports(addr)
    }

    /// Connects, and sends this side's nonce. A [`LinkError`] may be inside the error.
    async fn dial(&self, target: DialTarget) -> Result<Link, TransportError> {
        let addr = target.addr.clone();
        let failed = |error: io::Error| TransportError::Dial { addr, source: error.into() };
        if is_multiplexed(&target.addr) {
            return Err(failed(LinkError::Multiplexed.into()));
        }
        protect_link(self.transport.dial(target).await?, &self.psk).await.map_err(failed)
    }

    async fn listen(&self, addr: Multiaddr) -> Result<Box<dyn Listener>, TransportError> {
        if is_multiplexed(&addr) {
            let source = io::Error::from(LinkError::Multiplexed).into();
            return Err(TransportError::Listen { addr, source });
        }
        let listener = self.transport.listen(addr).await?;
        Ok(Box::new(PrivateListener { psk: self.psk.clone(), listener }))
    }
}

impl<T: fmt::Debug> fmt::Debug for PrivateNetwork<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateNetwork")
            .field("psk", &self.psk)
            .field("transport", &self.transport)
            .finish()
    }
}

struct PrivateListener {
    psk: PreSharedKey,
    listener: Box<dyn Listener>,
}

#[async_trait]
impl Listener for PrivateListener {
    fn addrs(&self) -> Vec<Multiaddr> {
        self.listener.addrs()
    }

    /// As cancel safe and prompt as the listener inside: the nonce is sent by the link.
    async fn next(&mut self) -> Result<ListenEvent, TransportError> {
        let event = self.listener.next().await?;
        let ListenEvent::Incoming(incoming) = event else { return Ok(event) };
        let (psk, addr) = (self.psk.clone(), incoming.local.clone());
        let (local, remote) = (incoming.local.clone(), incoming.remote.clone());
        let link = async move {
            let link = protect_link(incoming.link().await?, &psk).await;
            link.map_err(|error| TransportError::Accept { addr, source: error.into() })
        };
        Ok(ListenEvent::Incoming(Incoming::new(local, remote, link)))
    }
}

async fn protect_link(link: Link, psk: &PreSharedKey) -> io::Result<Link> {
    match link {
        Link::Pipe(pipe) => protect_pipe(pipe, psk).await.map(Link::Pipe),
        // Whatever comes to be besides: what is not known to be protected is refused.
        Link::Muxed(_) | _ => Err(LinkError::Multiplexed.into()),
    }
}

fn is_multiplexed(addr: &Multiaddr) -> bool {
    addr.iter().any(|part| {
        matches!(
            part,
            Protocol::Quic
                | Protocol::QuicV1
                | Protocol::WebTransport
                | Protocol::WebRTC
                | Protocol::WebRTCDirect
        )
    })
}
