//! A behaviour for streams: any number is opened at once, and inbound ones are served in tasks.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll},
};

use compare_peer::{Failure, Plain, Protocol, serve_stream};
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol,
    core::{
        Endpoint,
        transport::PortUse,
        upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo},
    },
    swarm::{
        self, ConnectionDenied, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
        SubstreamProtocol, THandlerInEvent, ToSwarm,
        handler::{
            ConnectionEvent, ConnectionHandler, FullyNegotiatedInbound, FullyNegotiatedOutbound,
        },
    },
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::compat::FuturesAsyncReadCompatExt as _;

/// Streams that wait for their turn to be opened.
const OPENING_MAX: usize = 1024;

fn name(protocol: Protocol) -> StreamProtocol {
    StreamProtocol::new(protocol.name())
}

/// Opens streams of one connection.
#[derive(Clone)]
pub(crate) struct Opener(mpsc::Sender<(Protocol, oneshot::Sender<Stream>)>);

impl Opener {
    pub(crate) async fn open(&self, protocol: Protocol) -> Result<Stream, Failure> {
        let (reply, opened) = oneshot::channel();
        self.0.send((protocol, reply)).await.map_err(|_| "the connection has ended")?;
        Ok(opened.await.map_err(|_| format!("{protocol:?} was not opened"))?)
    }
}

#[derive(Default)]
pub(crate) struct Behaviour {
    /// Of the newest outbound connection.
    opener: Option<Opener>,
}

impl Behaviour {
    pub(crate) fn take_opener(&mut self) -> Option<Opener> {
        self.opener.take()
    }

    fn handler(&mut self) -> Handler {
        let (opener, opening) = mpsc::channel(OPENING_MAX);
        self.opener = Some(Opener(opener));
        Handler { opening }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(self.handler())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(self.handler())
    }

    fn on_swarm_event(&mut self, _: FromSwarm) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: Infallible) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

pub(crate) struct Handler {
    opening: mpsc::Receiver<(Protocol, oneshot::Sender<Stream>)>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = Inbound;
    type OutboundProtocol = Outbound;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Inbound> {
        SubstreamProtocol::new(Inbound, ())
    }

    fn connection_keep_alive(&self) -> bool {
        true
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Outbound, (), Infallible>> {
        match self.opening.poll_recv(cx) {
            Poll::Ready(Some((protocol, reply))) => {
                let protocol = SubstreamProtocol::new(Outbound { protocol, reply }, ());
                Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol })
            }
            _ => Poll::Pending,
        }
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<Inbound, Outbound>) {
        match event {
            swarm::handler::ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (stream, protocol),
                ..
            }) => {
                tokio::spawn(serve_stream(protocol, Plain(stream.compat())));
            }
            swarm::handler::ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: (stream, reply),
                ..
            }) => {
                reply.send(stream).ok();
            }
            // Of a stream that was not opened, the reply is dropped.
            _ => {}
        }
    }
}

pub(crate) struct Inbound;

impl UpgradeInfo for Inbound {
    type Info = StreamProtocol;
    type InfoIter = Vec<StreamProtocol>;

    fn protocol_info(&self) -> Vec<StreamProtocol> {
        Protocol::ALL.into_iter().map(name).collect()
    }
}

impl InboundUpgrade<Stream> for Inbound {
    type Output = (Stream, Protocol);
    type Error = Failure;
    type Future = Ready<Result<Self::Output, Failure>>;

    fn upgrade_inbound(self, stream: Stream, agreed: StreamProtocol) -> Self::Future {
        let found = Protocol::ALL.into_iter().find(|protocol| name(*protocol) == agreed);
        ready(found.map(|protocol| (stream, protocol)).ok_or_else(|| "unknown".into()))
    }
}

pub(crate) struct Outbound {
    protocol: Protocol,
    reply: oneshot::Sender<Stream>,
}

impl UpgradeInfo for Outbound {
    type Info = StreamProtocol;
    type InfoIter = [StreamProtocol; 1];

    fn protocol_info(&self) -> [StreamProtocol; 1] {
        [name(self.protocol)]
    }
}

impl OutboundUpgrade<Stream> for Outbound {
    type Output = (Stream, oneshot::Sender<Stream>);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, _: StreamProtocol) -> Self::Future {
        ready(Ok((stream, self.reply)))
    }
}
