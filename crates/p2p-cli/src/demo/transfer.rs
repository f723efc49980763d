//! `/p2p/demo/file/1.0.0`: the opener sends the content and ends its side; the other side answers
//! with a receipt (the length as 8 bytes, big-endian, and the SHA-256) and ends its own.

use std::{fmt, io};

use p2p::{ProtocolId, Stream};
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::{STEP_MAX, content::Content};
use crate::failure::{Failure, within};

pub(super) const PROTOCOL: ProtocolId = ProtocolId::from_static("/p2p/demo/file/1.0.0");

/// What is read or sent at a time, in bytes: all that is ever in memory of the content.
const CHUNK_LEN: usize = 128 << 10;

/// Length of a digest, and of a receipt, in bytes.
const DIGEST_LEN: usize = 32;
const RECEIPT_LEN: usize = 8 + DIGEST_LEN;

/// What one side has seen of the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Receipt {
    pub(super) len: u64,
    pub(super) sha256: Digest,
}

/// A SHA-256 digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Digest([u8; DIGEST_LEN]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Receipt {
    fn to_bytes(self) -> [u8; RECEIPT_LEN] {
        let mut bytes = [0; RECEIPT_LEN];
        bytes[..8].copy_from_slice(&self.len.to_be_bytes());
        bytes[8..].copy_from_slice(&self.sha256.0);
        bytes
    }

    fn from_bytes(bytes: &[u8; RECEIPT_LEN]) -> Self {
        let (mut len, mut sha256) = ([0; 8], [0; DIGEST_LEN]);
        len.copy_from_slice(&bytes[..8]);
        sha256.copy_from_slice(&bytes[8..]);
        Self { len: u64::from_be_bytes(len), sha256: Digest(sha256) }
    }
}

/// Counts and hashes what goes by.
#[derive(Default)]
struct Tally {
    len: u64,
    hash: Sha256,
}

impl Tally {
    fn add(&mut self, bytes: &[u8]) {
        self.len += bytes.len() as u64;
        self.hash.update(bytes);
    }

    fn receipt(self) -> Receipt {
        Receipt { len: self.len, sha256: Digest(self.hash.finalize().into()) }
    }
}

/// Sends the content; gives what was sent, and what the other side says it received.
pub(super) async fn send(
    mut stream: Stream,
    mut content: Content,
) -> Result<(Receipt, Receipt), Failure> {
    let name = content.name;
    let unreadable = |error: io::Error| Failure::new(format!("cannot read {name}: {error}"));
    let unsent = |error: io::Error| Failure::new(format!("sending {name} failed: {error}"));
    let mut tally = Tally::default();
    let mut buffer = vec![0; CHUNK_LEN];
    loop {
        let reading = async { content.read.read(&mut buffer).await.map_err(unreadable) };
        let len = within(STEP_MAX, "reading the file", reading).await?;
        if len == 0 {
            break;
        }
        tally.add(&buffer[..len]);
        let writing = async { stream.write_all(&buffer[..len]).await.map_err(unsent) };
        within(STEP_MAX, "sending a piece of the file", writing).await?;
    }
    let answer = async {
        stream.shutdown().await.map_err(unsent)?;
        let mut receipt = [0; RECEIPT_LEN];
        stream.read_exact(&mut receipt).await.map_err(unsent)?;
        match stream.read(&mut [0]).await.map_err(unsent)? {
            0 => Ok(Receipt::from_bytes(&receipt)),
            _ => Err(Failure::new("the receipt is longer than a receipt")),
        }
    };
    let received = within(STEP_MAX, "the receipt for the file", answer).await?;
    Ok((tally.receipt(), received))
}

/// Serves the protocol; the content is hashed and forgotten as it comes.
pub(super) async fn receive(mut stream: Stream) -> io::Result<()> {
    let mut tally = Tally::default();
    while let Some(chunk) = timeout(STEP_MAX, stream.chunk(CHUNK_LEN)).await?? {
        tally.add(&chunk);
    }
    stream.write_all(&tally.receipt().to_bytes()).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_survives_the_wire() {
        let mut tally = Tally::default();
        tally.add(b"ab");
        tally.add(b"c");
        let receipt = tally.receipt();
        assert_eq!(Receipt::from_bytes(&receipt.to_bytes()), receipt);
        assert_eq!(receipt.len, 3);
        // FIPS 180-2, appendix B.1.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(receipt.sha256.to_string(), abc);
    }
}
