//! What a host says first, seen by a peer that speaks for itself, byte by byte.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use bytes::BytesMut;
use common::{Network, builder, echo_host};
use p2p::{
    Keypair, ProtocolId, Stream,
    core::{DialTarget, Link, ListenEvent, Opened, Pipe, Role, Security, Session, Transport as _},
    noise::Noise,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The header of multistream-select, and the proposal of Noise.
const HEADER: &[u8] = b"\x13/multistream/1.0.0\n";
const NOISE: &[u8] = b"\x07/noise\n";
const YAMUX: ProtocolId = ProtocolId::from_static("/yamux/1.0.0");

async fn dial(network: &Network) -> Pipe {
    let target = DialTarget::new("/memory/7".parse().unwrap(), None);
    let link = network.transport(None).dial(target).await.unwrap();
    let Link::Pipe(pipe) = link else { panic!("{link:?}") };
    pipe
}

async fn read_exact(pipe: &mut Pipe, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    pipe.read.read_exact(&mut bytes).await.unwrap();
    bytes
}

/// Upgrades a dialed pipe up to the multiplexer, offering `muxers` in the handshake, and hands
/// back what has come in behind it.
async fn secure(pipe: &mut Pipe, muxers: &[ProtocolId]) -> (Session, BytesMut) {
    pipe.write.write_all(&[HEADER, NOISE].concat()).await.unwrap();
    assert_eq!(read_exact(pipe, HEADER.len() + NOISE.len()).await, [HEADER, NOISE].concat());
    let noise = Noise::new(&Keypair::generate().unwrap()).unwrap();
    let mut handshake = noise.start(Role::Initiator, None, muxers).unwrap();
    let (mut wire, mut out) = (BytesMut::new(), BytesMut::new());
    loop {
        let session = handshake.advance(&mut wire, &mut out).unwrap();
        pipe.write.write_all(&out.split()).await.unwrap();
        if let Some(session) = session {
            return (session, wire);
        }
        pipe.read.read_buf(&mut wire).await.unwrap();
    }
}

/// The next plaintext that is not empty.
async fn record(pipe: &mut Pipe, session: &mut Session, wire: &mut BytesMut) -> Vec<u8> {
    loop {
        match session.open.open(wire).unwrap() {
            Opened::Record(plain) if !plain.is_empty() => return plain.to_vec(),
            Opened::Incomplete(_) => assert!(pipe.read.read_buf(wire).await.unwrap() > 0),
            Opened::Record(_) | _ => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn conn_01_03_07_a_dialer_proposes_security_first_and_is_its_initiator() {
    let network = Network::default();
    let mut listener = network.transport(None).listen("/memory/7".parse().unwrap()).await.unwrap();
    let dialer = builder(&network, None).spawn().await.unwrap();
    let dialing = tokio::spawn(async move { dialer.connect("/memory/7").await });
    let ListenEvent::Incoming(incoming) = listener.next().await.unwrap() else { panic!() };
    let Link::Pipe(mut pipe) = incoming.link().await.unwrap() else { panic!() };
    // Header, proposal, and message 1: the length of an ephemeral key, and the key.
    let said = read_exact(&mut pipe, HEADER.len() + NOISE.len() + 2).await;
    assert_eq!(said, [HEADER, NOISE, &[0, 32]].concat());
    drop(pipe);
    assert!(dialing.await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn mss_37_noise_32_conn_03_a_muxer_agreed_in_the_handshake_speaks_at_once() {
    let network = Network::default();
    let _listener = echo_host(&network, "/memory/7").await;
    let mut pipe = dial(&network).await;
    let (mut session, mut wire) = secure(&mut pipe, &[YAMUX]).await;
    assert_eq!(session.muxer, Some(YAMUX));
    // A frame of yamux in the first record, and no header.
    let frame = record(&mut pipe, &mut session, &mut wire).await;
    assert!(frame.len() >= 12 && frame[0] == 0 && frame[1] <= 3, "{frame:x?}");
    // And one is understood: a ping, whose answer has the same value.
    let mut sealed = BytesMut::new();
    session.seal.seal(&mut &[0, 2, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4][..], &mut sealed).unwrap();
    pipe.write.write_all(&sealed).await.unwrap();
    let pong = [0, 2, 0, 2, 0, 0, 0, 0, 1, 2, 3, 4];
    let mut plain = frame;
    while !plain.windows(12).any(|frame| frame == pong) {
        plain.extend(record(&mut pipe, &mut session, &mut wire).await);
    }
}

#[tokio::test(start_paused = true)]
async fn noise_29_conn_03_without_a_list_the_muxer_is_negotiated_inside_of_the_channel() {
    let network = Network::default();
    let _listener = echo_host(&network, "/memory/7").await;
    let mut pipe = dial(&network).await;
    let (mut session, mut wire) = secure(&mut pipe, &[]).await;
    assert_eq!(session.muxer, None);
    let proposal = [HEADER, b"\x0d/yamux/1.0.0\n"].concat();
    let mut sealed = BytesMut::new();
    session.seal.seal(&mut &proposal[..], &mut sealed).unwrap();
    pipe.write.write_all(&sealed).await.unwrap();
    let mut plain = Vec::new();
    while plain.len() < proposal.len() {
        plain.extend(record(&mut pipe, &mut session, &mut wire).await);
    }
    assert_eq!(plain[..proposal.len()], proposal);
}

#[tokio::test(start_paused = true)]
async fn mss_09_who_opens_a_stream_proposes_whoever_has_dialed() {
    let network = Network::default();
    let listener = echo_host(&network, "/memory/7").await;
    let dialer = builder(&network, None).spawn().await.unwrap();
    dialer.handle("/echo/1.0.0", common::echo).unwrap();
    dialer.connect(listener.addrs().remove(0)).await.unwrap();
    let mut stream = listener.open(dialer.peer_id(), "/echo/1.0.0").await.unwrap();
    stream.write_all(b"x").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'x');
    assert_eq!(stream.connection().role(), Role::Responder);
}

#[tokio::test(start_paused = true)]
async fn mss_23_an_optimistic_stream_that_only_reads_has_made_its_proposal() {
    let network = Network::default();
    let listener = echo_host(&network, "/memory/7").await;
    let greet = |mut stream: Stream| async move {
        stream.write_all(b"hello").await?;
        stream.shutdown().await
    };
    listener.handle("/greet/1.0.0", greet).unwrap();
    let dialer = builder(&network, None).spawn().await.unwrap();
    let addr = listener.addrs().remove(0);
    let mut stream = dialer.open(&addr, "/greet/1.0.0").optimistic().await.unwrap();
    let mut heard = String::new();
    stream.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "hello");
}
