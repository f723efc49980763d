//! Two people chat over an encrypted TCP connection, a line at a time: this crate, tokio's sockets
//! and nothing else of `p2p`.
//!
//! ```text
//! cargo run -p p2p-security-noise --example chat -- listen 127.0.0.1:4001
//! cargo run -p p2p-security-noise --example chat -- dial 127.0.0.1:4001 <the id that it prints>
//! cargo run -p p2p-security-noise --example chat          # both of them, with a line each
//! ```

use std::{env, error::Error, time::Duration};

use p2p_security_noise::{Keypair, Noise, NoiseStream, PeerId, Role, handshake};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, stdin},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// Noise has no clock: the caller limits how long a peer may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let keypair = Keypair::generate()?;
    let args: Vec<String> = env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["listen", addr] => {
            let listener = TcpListener::bind(addr).await?;
            eprintln!("listening as {}", keypair.public().peer_id());
            let (socket, _) = listener.accept().await?;
            chat(secure(socket, &keypair, Role::Responder, None).await?, stdin()).await
        }
        ["dial", addr, id] => {
            let socket = TcpStream::connect(addr).await?;
            let id: PeerId = id.parse()?;
            chat(secure(socket, &keypair, Role::Initiator, Some(&id)).await?, stdin()).await
        }
        [] => {
            let (other, id) = (Keypair::generate()?, keypair.public().peer_id());
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let addr = listener.local_addr()?;
            let listening = async {
                let (socket, _) = listener.accept().await?;
                let stream = secure(socket, &keypair, Role::Responder, None).await?;
                chat(stream, &b"what do you hear?\n"[..]).await
            };
            let dialing = async {
                let socket = TcpStream::connect(addr).await?;
                let stream = secure(socket, &other, Role::Initiator, Some(&id)).await?;
                chat(stream, &b"is anybody listening?\n"[..]).await
            };
            tokio::try_join!(listening, dialing)?;
            Ok(())
        }
        _ => Err("usage: chat [listen ADDR | dial ADDR ID]".into()),
    }
}

async fn secure(
    socket: TcpStream,
    keypair: &Keypair,
    role: Role,
    expected: Option<&PeerId>,
) -> Result<NoiseStream<TcpStream>, Box<dyn Error>> {
    let noise = Noise::new(keypair)?;
    let shaking = handshake(socket, &noise, role, expected);
    let (stream, peer) = timeout(HANDSHAKE_TIMEOUT, shaking).await??;
    eprintln!("{role:?}: the other side is {}", peer.peer_id());
    Ok(stream)
}

/// Sends the lines of `input`, and shows those of the peer, until both have ended.
async fn chat<S: AsyncRead + AsyncWrite + Unpin>(
    stream: NoiseStream<S>,
    input: impl AsyncRead + Unpin,
) -> Result<(), Box<dyn Error>> {
    let (read, mut write) = tokio::io::split(stream);
    let send = async {
        let mut lines = BufReader::new(input).lines();
        while let Some(line) = lines.next_line().await? {
            write.write_all(format!("{line}\n").as_bytes()).await?;
            write.flush().await?;
        }
        write.shutdown().await
    };
    let show = async {
        let mut lines = BufReader::new(read).lines();
        while let Some(line) = lines.next_line().await? {
            eprintln!("> {line}");
        }
        Ok(())
    };
    tokio::try_join!(send, show)?;
    Ok(())
}
