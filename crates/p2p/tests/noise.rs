//! What follows the Noise handshake on the wire of a whole host, with a peer played by hand.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use bytes::{Bytes, BytesMut};
use common::{Network, builder};
use p2p::{
    Keypair, ProtocolId,
    core::{
        DialTarget, Handshake, Link, ListenEvent, Opened, Pipe, Role, Security, Session, Transport,
    },
    multistream::{Initiator, Responder},
    noise::Noise,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const YAMUX: ProtocolId = ProtocolId::from_static("/yamux/1.0.0");
/// The multistream header as a message.
const HEADER: &[u8] = b"\x13/multistream/1.0.0\n";

/// A peer of a host: its raw pipe, what it has read, and what it will send.
struct Peer {
    pipe: Pipe,
    wire: BytesMut,
    out: BytesMut,
}

impl Peer {
    fn new(pipe: Pipe) -> Self {
        Self { pipe, wire: BytesMut::new(), out: BytesMut::new() }
    }

    async fn exchange(&mut self) {
        self.pipe.write.write_all_buf(&mut self.out).await.unwrap();
        self.pipe.write.flush().await.unwrap();
        assert_ne!(self.pipe.read.read_buf(&mut self.wire).await.unwrap(), 0, "the host ended it");
    }

    async fn propose_noise(&mut self) {
        let mut negotiation = Initiator::new([ProtocolId::from_static("/noise")]).unwrap();
        while negotiation.advance(&mut self.wire, &mut self.out).unwrap().is_none() {
            self.exchange().await;
        }
    }

    async fn accept_noise(&mut self) {
        let mut negotiation = Responder::new();
        let mut supports = |name: &str| name == "/noise";
        while negotiation.advance(&mut self.wire, &mut self.out, &mut supports).unwrap().is_none() {
            self.exchange().await;
        }
    }

    async fn shake_hands(&mut self, role: Role, muxers: &[ProtocolId]) -> Session {
        let noise = Noise::new(&Keypair::generate().unwrap()).unwrap();
        let mut handshake: Box<dyn Handshake> = noise.start(role, None, muxers).unwrap();
        loop {
            if let Some(session) = handshake.advance(&mut self.wire, &mut self.out).unwrap() {
                self.pipe.write.write_all_buf(&mut self.out).await.unwrap();
                return session;
            }
            self.exchange().await;
        }
    }

    /// The first bytes that the host says through the channel.
    async fn heard(&mut self, session: &mut Session) -> Bytes {
        loop {
            match session.open.open(&mut self.wire).unwrap() {
                Opened::Record(plain) => return plain,
                Opened::Incomplete(_) | _ => self.exchange().await,
            }
        }
    }
}

/// A host that accepts, and a peer that has dialed it.
async fn dialed(network: &Network) -> (p2p::Host, Peer) {
    let host = builder(network, None).listen("/memory/1").spawn().await.unwrap();
    let target = DialTarget::new("/memory/1".parse().unwrap(), None);
    let Ok(Link::Pipe(pipe)) = network.transport(None).dial(target).await else {
        panic!("links are pipes");
    };
    (host, Peer::new(pipe))
}

/// A host that dials, and the peer that has accepted it.
async fn accepted(network: &Network) -> (p2p::Host, Peer) {
    let mut listener = network.transport(None).listen("/memory/2".parse().unwrap()).await.unwrap();
    let host = builder(network, None).spawn().await.unwrap();
    let dialing = host.clone();
    tokio::spawn(async move { dialing.connect("/memory/2").await });
    let Ok(ListenEvent::Incoming(incoming)) = listener.next().await else {
        panic!("the host dials");
    };
    let Ok(Link::Pipe(pipe)) = incoming.link().await else {
        panic!("links are pipes");
    };
    (host, Peer::new(pipe))
}

#[tokio::test]
async fn noise_32_an_agreed_muxer_begins_with_its_frames_in_both_roles() {
    let network = Network::default();
    let (_host, mut peer) = dialed(&network).await;
    peer.propose_noise().await;
    let mut session = peer.shake_hands(Role::Initiator, &[YAMUX]).await;
    assert_eq!(session.muxer, Some(YAMUX));
    assert_yamux_frame(&peer.heard(&mut session).await);

    let (_host, mut peer) = accepted(&network).await;
    peer.accept_noise().await;
    let mut session = peer.shake_hands(Role::Responder, &[YAMUX]).await;
    assert_eq!(session.muxer, Some(YAMUX));
    assert_yamux_frame(&peer.heard(&mut session).await);
}

/// Version 0, one of the four types, and at least a whole header.
fn assert_yamux_frame(plain: &[u8]) {
    assert!(plain.len() >= 12 && plain[0] == 0 && plain[1] < 4, "{plain:02x?}");
}

#[tokio::test]
async fn noise_29_34_without_a_list_of_the_peers_the_muxer_is_negotiated_in_both_roles() {
    let network = Network::default();
    let (_host, mut peer) = dialed(&network).await;
    peer.propose_noise().await;
    let mut session = peer.shake_hands(Role::Initiator, &[]).await;
    assert_eq!(session.muxer, None);
    session.seal.seal(&mut &HEADER[..], &mut peer.out).unwrap();
    peer.pipe.write.write_all_buf(&mut peer.out).await.unwrap();
    assert!(peer.heard(&mut session).await.starts_with(HEADER));

    let (_host, mut peer) = accepted(&network).await;
    peer.accept_noise().await;
    let mut session = peer.shake_hands(Role::Responder, &[]).await;
    assert_eq!(session.muxer, None);
    assert!(peer.heard(&mut session).await.starts_with(HEADER));
}
