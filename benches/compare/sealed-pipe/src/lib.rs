//! TCP with sealed records of Noise's largest size and no multiplexer: what a peer can reach at
//! most. It protects nothing, since its key is known.
//!
//! `--cipher ring|rustcrypto|aws-lc-rs|openssl|none`; `openssl` with the feature of that name, and
//! with `none` it is plain TCP. A further stream of a connection is a TCP connection of its own.

use std::{io, net::SocketAddr, time::Duration};

use compare_peer::{
    Args, Buffer, Failure, Node, Plain, Protocol, Stream, check, pattern::Pattern, serve_stream,
};
use p2p_core::Keypair;
use p2p_security_noise::cipher::{Cipher, CipherKey, NONCE_LEN, TAG_LEN};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Mutex,
};

/// What a record carries at most, in bytes.
const PLAIN_LEN: usize = 65_519;
/// Before each record, in bytes: its length.
const HEADER_LEN: usize = 2;
const RECORD_LEN: usize = HEADER_LEN + PLAIN_LEN + TAG_LEN;
/// Records that are written with one call.
const WRITE_RECORDS: usize = 2;
/// Records that are read with one call.
const READ_RECORDS: usize = 4;

#[derive(Debug)]
pub struct Peer(Option<Cipher>);

#[derive(Debug)]
pub struct Connection {
    addr: SocketAddr,
    first: Mutex<Option<TcpStream>>,
}

fn cipher(args: &Args) -> Result<Option<Cipher>, Failure> {
    Ok(match args.tuned("cipher", "ring") {
        "ring" => Some(Cipher::RING),
        "rustcrypto" => Some(Cipher::RUST_CRYPTO),
        "aws-lc-rs" => Some(Cipher::AWS_LC),
        #[cfg(feature = "openssl")]
        "openssl" => Some(Cipher::OPENSSL),
        "none" => None,
        other => return Err(format!("no cipher {other}").into()),
    })
}

/// `/ip4/…/tcp/…`, and anything behind it.
fn socket_addr(text: &str) -> Result<SocketAddr, Failure> {
    let parts: Vec<&str> = text.split('/').collect();
    match parts.as_slice() {
        ["", "ip4", ip, "tcp", port, ..] => Ok(SocketAddr::new(ip.parse()?, port.parse()?)),
        _ => Err(format!("not an IPv4 address with a TCP port: {text}").into()),
    }
}

async fn dial(addr: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::connect(addr).await?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

impl Node for Peer {
    const NAME: &'static str = "sealed-pipe";
    type Stream = Pipe;
    type Connection = Connection;

    async fn start(args: &Args) -> Result<Self, Failure> {
        Ok(Self(cipher(args)?))
    }

    async fn serve(args: &Args, tell: impl FnOnce(&str) + Send) -> Result<(), Failure> {
        let cipher = cipher(args)?;
        let listener = TcpListener::bind(socket_addr(&args.listen)?).await?;
        let addr = listener.local_addr()?;
        let peer = Keypair::from_ed25519_seed(&[0; 32]).public().peer_id();
        tell(&format!("/ip4/{}/tcp/{}/p2p/{peer}", addr.ip(), addr.port()));
        loop {
            let (socket, _) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    eprintln!("accept: {error}");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                }
            };
            tokio::spawn(async move {
                if let Ok((protocol, pipe)) = accept(socket, cipher).await {
                    serve_stream(protocol, pipe).await;
                }
            });
        }
    }

    async fn connect(&self, addr: &str) -> Result<Connection, Failure> {
        let addr = socket_addr(addr)?;
        Ok(Connection { addr, first: Mutex::new(Some(dial(addr).await?)) })
    }

    async fn open(&self, connection: &Connection, protocol: Protocol) -> Result<Pipe, Failure> {
        let first = connection.first.lock().await.take();
        let socket = match first {
            Some(socket) => socket,
            None => dial(connection.addr).await?,
        };
        let mut pipe = Pipe::new(socket, self.0)?;
        let number = Protocol::ALL.iter().position(|other| *other == protocol);
        pipe.say(&[number.and_then(|number| u8::try_from(number).ok()).ok_or("no number")?])
            .await?;
        Ok(pipe)
    }

    async fn close(&self, _: Connection) -> Result<(), Failure> {
        Ok(())
    }
}

async fn accept(socket: TcpStream, cipher: Option<Cipher>) -> Result<(Protocol, Pipe), Failure> {
    socket.set_nodelay(true)?;
    let mut pipe = Pipe::new(socket, cipher)?;
    let mut number = [0];
    pipe.read_exact(&mut number).await?;
    let protocol = Protocol::ALL.get(usize::from(number[0])).ok_or("no such protocol")?;
    Ok((*protocol, pipe))
}

/// A socket, sealed or not.
pub enum Pipe {
    Clear(Plain<TcpStream>),
    Sealed(Box<Sealed>),
}

impl Pipe {
    fn new(socket: TcpStream, cipher: Option<Cipher>) -> Result<Self, Failure> {
        let Some(cipher) = cipher else { return Ok(Self::Clear(Plain(socket))) };
        let key = [7; 32];
        Ok(Self::Sealed(Box::new(Sealed {
            socket,
            seal: Half { key: cipher.key(&key)?, nonce: 0 },
            open: Half { key: cipher.key(&key)?, nonce: 0 },
            out: Vec::new(),
            begun: None,
            received: Vec::new(),
            start: 0,
            plain: 0..0,
        })))
    }
}

struct Half {
    key: Box<dyn CipherKey>,
    nonce: u64,
}

impl Half {
    fn next(&mut self) -> [u8; NONCE_LEN] {
        let mut nonce = [0; NONCE_LEN];
        nonce[4..].copy_from_slice(&self.nonce.to_le_bytes());
        self.nonce += 1;
        nonce
    }
}

pub struct Sealed {
    socket: TcpStream,
    seal: Half,
    open: Half,
    /// Sealed records, and behind them perhaps one that is being filled.
    out: Vec<u8>,
    /// Where that one begins.
    begun: Option<usize>,
    /// Received bytes from `start` on.
    received: Vec<u8>,
    start: usize,
    /// What of the opened record is still to be read.
    plain: std::ops::Range<usize>,
}

impl Sealed {
    fn seal_record(&mut self) -> io::Result<()> {
        let Some(begun) = self.begun.take() else { return Ok(()) };
        let nonce = self.seal.next();
        let text = &mut self.out[begun + HEADER_LEN..];
        let tag = self.seal.key.seal(&nonce, &[], text).map_err(io::Error::other)?;
        self.out.extend_from_slice(&tag);
        let len = (self.out.len() - begun - HEADER_LEN) as u16;
        self.out[begun..begun + HEADER_LEN].copy_from_slice(&len.to_be_bytes());
        Ok(())
    }

    async fn write(&mut self) -> io::Result<()> {
        self.socket.write_all(&self.out).await?;
        self.out.clear();
        Ok(())
    }

    async fn send(&mut self, mut piece: &[u8]) -> io::Result<()> {
        while !piece.is_empty() {
            let begun = match self.begun {
                Some(begun) => begun,
                None => {
                    let begun = self.out.len();
                    self.out.reserve_exact(RECORD_LEN * WRITE_RECORDS - begun);
                    self.out.extend_from_slice(&[0; HEADER_LEN]);
                    *self.begun.insert(begun)
                }
            };
            let room = PLAIN_LEN - (self.out.len() - begun - HEADER_LEN);
            let (now, later) = piece.split_at(room.min(piece.len()));
            self.out.extend_from_slice(now);
            piece = later;
            if now.len() == room {
                self.seal_record()?;
                if self.out.len() >= RECORD_LEN * WRITE_RECORDS {
                    self.write().await?;
                }
            }
        }
        Ok(())
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.seal_record()?;
        self.write().await
    }

    /// Has something to be read in `plain`; false at the end.
    async fn fill(&mut self) -> io::Result<bool> {
        while self.plain.is_empty() {
            let there = self.received.get(self.start..).unwrap_or_default();
            let whole = there
                .first_chunk()
                .map(|len| HEADER_LEN + usize::from(u16::from_be_bytes(*len)))
                .filter(|len| *len <= there.len());
            if let Some(len) = whole {
                let nonce = self.open.next();
                let text = self.start + HEADER_LEN..self.start + len;
                self.open
                    .key
                    .open(&nonce, &[], &mut self.received[text.clone()])
                    .map_err(io::Error::other)?;
                self.start += len;
                self.plain = text.start..text.end - TAG_LEN;
                continue;
            }
            if self.start == self.received.len() {
                self.received.clear();
                self.start = 0;
            } else if self.received.capacity() - self.received.len() < RECORD_LEN {
                self.received.drain(..self.start);
                self.start = 0;
            }
            if self.received.capacity() == 0 {
                self.received.reserve_exact(RECORD_LEN * READ_RECORDS);
            }
            if self.socket.read_buf(&mut self.received).await? == 0 {
                return match self.received.is_empty() {
                    true => Ok(false),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
        }
        Ok(true)
    }
}

impl Stream for Pipe {
    async fn send(&mut self, piece: &'static [u8]) -> io::Result<()> {
        match self {
            Self::Clear(socket) => socket.send(piece).await,
            Self::Sealed(sealed) => sealed.send(piece).await,
        }
    }

    async fn say(&mut self, message: &[u8]) -> io::Result<()> {
        match self {
            Self::Clear(socket) => socket.say(message).await,
            Self::Sealed(sealed) => {
                sealed.send(message).await?;
                sealed.flush().await
            }
        }
    }

    async fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Clear(socket) => socket.read(into).await,
            Self::Sealed(sealed) => {
                if !sealed.fill().await? {
                    return Ok(0);
                }
                let len = sealed.plain.len().min(into.len());
                let from = sealed.plain.start;
                into[..len].copy_from_slice(&sealed.received[from..from + len]);
                sealed.plain.start += len;
                Ok(len)
            }
        }
    }

    async fn take(&mut self, pattern: &mut Pattern, buffer: &mut Buffer) -> io::Result<usize> {
        match self {
            Self::Clear(socket) => socket.take(pattern, buffer).await,
            Self::Sealed(sealed) => {
                if !sealed.fill().await? {
                    return Ok(0);
                }
                let plain = std::mem::take(&mut sealed.plain);
                check(pattern, &sealed.received[plain])
            }
        }
    }

    async fn finish(&mut self) -> io::Result<()> {
        match self {
            Self::Clear(socket) => socket.finish().await,
            Self::Sealed(sealed) => {
                sealed.flush().await?;
                sealed.socket.shutdown().await
            }
        }
    }
}
