//! An echo of one message with rust-libp2p, as the guide quotes it.
#![expect(clippy::print_stdout, reason = "a program")]

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt, io::copy};
use libp2p::{
    StreamProtocol, Swarm, SwarmBuilder, multiaddr::Protocol, noise, swarm::SwarmEvent, tcp, yamux,
};

const ECHO: StreamProtocol = StreamProtocol::new("/echo/1.0.0");

fn swarm() -> Result<Swarm<libp2p_stream::Behaviour>, Box<dyn std::error::Error>> {
    Ok(SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)?
        .with_behaviour(|_| libp2p_stream::Behaviour::new())?
        .build())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut host = swarm()?;
    let mut incoming = host.behaviour().new_control().accept(ECHO)?;
    tokio::spawn(async move {
        while let Some((_, stream)) = incoming.next().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                copy(&mut read, &mut write).await?;
                write.close().await
            });
        }
    });
    host.listen_on("/ip4/127.0.0.1/tcp/0".parse()?)?;
    let addr = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = host.select_next_some().await {
            break address.with(Protocol::P2p(*host.local_peer_id()));
        }
    };
    let peer = *host.local_peer_id();
    tokio::spawn(async move { while host.next().await.is_some() {} });

    let mut other = swarm()?;
    let mut control = other.behaviour().new_control();
    other.dial(addr)?;
    loop {
        match other.select_next_some().await {
            SwarmEvent::ConnectionEstablished { .. } => break,
            SwarmEvent::OutgoingConnectionError { error, .. } => return Err(error.into()),
            _ => {}
        }
    }
    tokio::spawn(async move { while other.next().await.is_some() {} });
    let mut stream = control.open_stream(peer, ECHO).await?;
    stream.write_all(b"hello").await?;
    stream.close().await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    println!("{answer}");
    Ok(())
}
