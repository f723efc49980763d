//! Two tasks talk over an encrypted TCP connection on this machine.
//!
//! ```text
//! cargo run -p p2p-security-noise --example sealed_pipe
//! ```

use std::{error::Error, time::Duration};

use p2p_security_noise::{Keypair, Noise, Role, handshake};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// Noise has no clock: the caller limits how long a peer may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let bob = Keypair::generate()?;
    let bob_id = bob.public().peer_id();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    let serving =
        tokio::spawn(async move { serve(listener, bob).await.map_err(|e| e.to_string()) });

    let noise = Noise::new(&Keypair::generate()?)?;
    let socket = TcpStream::connect(addr).await?;
    let shaking = handshake(socket, &noise, Role::Initiator, Some(&bob_id));
    let (mut stream, peer) = timeout(HANDSHAKE_TIMEOUT, shaking).await??;
    eprintln!("dialed {}", peer.peer_id());

    stream.write_all(b"is anybody listening?").await?;
    stream.shutdown().await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    eprintln!("heard {answer:?}");
    serving.await??;
    Ok(())
}

/// Sends back in capitals what one peer has to say.
async fn serve(listener: TcpListener, keypair: Keypair) -> Result<(), Box<dyn Error>> {
    let noise = Noise::new(&keypair)?;
    let (socket, _) = listener.accept().await?;
    let shaking = handshake(socket, &noise, Role::Responder, None);
    let (mut stream, peer) = timeout(HANDSHAKE_TIMEOUT, shaking).await??;
    eprintln!("accepted {}", peer.peer_id());

    let mut question = String::new();
    stream.read_to_string(&mut question).await?;
    stream.write_all(question.to_uppercase().as_bytes()).await?;
    stream.shutdown().await?;
    Ok(())
}
