//! What the benchmarks share: moving bytes over streams and checking that they arrived.
//!
//! They are run with `cargo bench -p p2p-benches`; figures are compared with others' in one run
//! only, since machines differ.

use std::io;

use bytes::BytesMut;
use p2p::{
    Keypair,
    core::{Handshake, Role, Security, Session},
    noise::{Noise, cipher::Cipher},
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Every cipher that a Noise channel can have; OpenSSL's with the feature `openssl`.
pub const CIPHERS: [Cipher; if cfg!(feature = "openssl") { 4 } else { 3 }] = [
    Cipher::RUST_CRYPTO,
    Cipher::RING,
    Cipher::AWS_LC,
    #[cfg(feature = "openssl")]
    Cipher::OPENSSL,
];

/// Runs a handshake between two sides, without any I/O; gives the initiator's session first.
///
/// # Panics
/// When it fails.
#[must_use]
pub fn handshake(initiator: &Noise, responder: &Noise) -> (Session, Session) {
    let start = |noise: &Noise, role| noise.start(role, None, &[]).expect("two honest sides");
    let mut initiator: Box<dyn Handshake> = start(initiator, Role::Initiator);
    let mut responder: Box<dyn Handshake> = start(responder, Role::Responder);
    let (mut forth, mut back) = (BytesMut::new(), BytesMut::new());
    let mut ours = None;
    loop {
        if ours.is_none() {
            ours = initiator.advance(&mut back, &mut forth).expect("two honest sides");
        }
        if let Some(theirs) = responder.advance(&mut forth, &mut back).expect("two honest sides") {
            return (ours.expect("the initiator is done first"), theirs);
        }
    }
}

/// Two sides that have `cipher`, the initiator first.
///
/// # Panics
/// When the system gives no randomness.
#[must_use]
pub fn noise_pair(cipher: Cipher) -> (Noise, Noise) {
    let make = || {
        Noise::new(&Keypair::generate().expect("randomness"))
            .expect("randomness")
            .with_cipher(cipher)
    };
    (make(), make())
}

/// How much is written at once, in bytes.
pub const CHUNK_LEN: usize = 64 << 10;

/// Sends `total` bytes, ends this side, and waits for the byte that confirms them.
///
/// # Errors
/// Those of the stream.
///
/// # Cancel safety
/// Not cancel safe: what was sent until then is on its way.
pub async fn upload(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    total: usize,
) -> io::Result<()> {
    let chunk = [7; CHUNK_LEN];
    let mut left = total;
    while left > 0 {
        let count = left.min(CHUNK_LEN);
        stream.write_all(&chunk[..count]).await?;
        left -= count;
    }
    stream.shutdown().await?;
    let received = stream.read_u64().await?;
    if usize::try_from(received).ok() != Some(total) {
        return Err(io::Error::other(format!("sent {total} bytes, {received} arrived")));
    }
    Ok(())
}

/// The other side of [`upload`].
///
/// # Errors
/// Those of the stream.
///
/// # Cancel safety
/// Not cancel safe: what was read until then is lost.
pub async fn drain(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_LEN];
    let mut total = 0u64;
    loop {
        match stream.read(&mut buffer).await? {
            0 => break,
            count => total += u64::try_from(count).map_err(io::Error::other)?,
        }
    }
    stream.write_u64(total).await?;
    stream.shutdown().await
}

/// The other side of a 32-byte request and response.
///
/// # Errors
/// Those of the stream.
///
/// # Cancel safety
/// Not cancel safe: what was read until then is lost.
pub async fn echo(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
    let mut buffer = [0; 32];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return stream.shutdown().await,
            count => stream.write_all(&buffer[..count]).await?,
        }
    }
}
