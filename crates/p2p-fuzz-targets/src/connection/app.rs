//! What the two sides say to each other on a stream.
//!
//! ```text
//!   opener:  number (4) | length (4) | manner (1) | that many bytes, or fewer and no end
//!   other:   what its manner says
//! ```

use std::{io, time::Duration};

use p2p_core::{ErrorCode, PeerId, RecvStream, Stream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::sleep,
};

use super::KEYS;

const HEADER_LEN: usize = 9;
/// The length that is told where the end is never said.
const NO_END: u32 = u32::MAX;
/// How long one waits who takes a while.
const WHILE: Duration = Duration::from_secs(20);

/// What the side that accepts does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    Echo,
    EchoLate,
    /// Echoes half and lets go without an end.
    EchoHalf,
    /// Says nothing and ends, and reads to the end.
    EndFirst,
}

impl Manner {
    pub(super) const ALL: [Self; 4] = [Self::Echo, Self::EchoLate, Self::EchoHalf, Self::EndFirst];
}

/// What the side that opens does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Sends and reads at the same time, both to the end.
    Whole,
    /// Sends, waits, ends, and reads to the end.
    Late,
    /// Sends to the end, reads half, and lets go.
    ReadHalf,
    /// Sends and resets.
    Reset,
    /// Sends and lets go.
    Drop,
}

impl Way {
    pub(super) const ALL: [Self; 5] =
        [Self::Whole, Self::Late, Self::ReadHalf, Self::Reset, Self::Drop];
}

/// One stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exchange {
    /// In bytes.
    pub(super) len: usize,
    pub(super) way: Way,
    pub(super) manner: Manner,
    pub(super) optimistic: bool,
}

impl Exchange {
    pub(super) async fn run(&self, mut stream: Stream, number: u32) -> io::Result<()> {
        check_peer(stream.peer(), stream.connection().public_key().peer_id());
        let data = text(number, 0, self.len);
        let ends = !matches!(self.way, Way::Reset | Way::Drop);
        let told = if ends { u32::try_from(self.len).expect("capped") } else { NO_END };
        let mut header = Vec::with_capacity(HEADER_LEN);
        header.extend(number.to_be_bytes());
        header.extend(told.to_be_bytes());
        header.push(self.manner as u8);
        if !ends {
            stream.write_all(&header).await?;
            stream.write_all(&data).await?;
            if self.way == Way::Reset {
                stream.reset(ErrorCode::new(7));
            }
            return Ok(());
        }
        let (mut send, recv) = stream.into_halves();
        let write = async move {
            send.write_all(&header).await?;
            send.write_all(&data).await?;
            if self.way == Way::Late {
                sleep(WHILE).await;
            }
            send.shutdown().await
        };
        let (written, read) = tokio::join!(write, self.read(recv, number));
        written.and(read)
    }

    async fn read(&self, mut recv: RecvStream, number: u32) -> io::Result<()> {
        if self.way == Way::ReadHalf {
            let mut half = vec![0; self.len / 2];
            recv.read_exact(&mut half).await?;
            assert!(half == text(number, 0, half.len()), "not what was sent");
            return Ok(());
        }
        let mut back = Vec::new();
        let ended = recv.read_to_end(&mut back).await;
        assert!(text(number, 0, self.len).starts_with(&back), "not what was sent");
        if ended.is_ok() {
            match self.manner {
                Manner::Echo | Manner::EchoLate => {
                    assert_eq!(back.len(), self.len, "an end before all data");
                }
                Manner::EchoHalf => panic!("an end that was not sent"),
                Manner::EndFirst => assert!(back.is_empty(), "more than was sent"),
            }
        }
        ended.map(drop)
    }
}

/// Serves a stream.
pub(super) async fn answer(mut stream: Stream) -> io::Result<()> {
    check_peer(stream.peer(), stream.connection().public_key().peer_id());
    let mut header = [0; HEADER_LEN];
    stream.read_exact(&mut header).await?;
    let [n0, n1, n2, n3, l0, l1, l2, l3, manner] = header;
    let number = u32::from_be_bytes([n0, n1, n2, n3]);
    let len = u32::from_be_bytes([l0, l1, l2, l3]);
    let manner = Manner::ALL[usize::from(manner)];
    match manner {
        Manner::Echo | Manner::EchoHalf => {}
        Manner::EchoLate => sleep(WHILE).await,
        Manner::EndFirst => stream.shutdown().await?,
    }
    let mut piece = vec![0; 4096];
    let mut read = 0;
    loop {
        let count = stream.read(&mut piece).await?;
        if count == 0 {
            assert_eq!(u32::try_from(read), Ok(len), "an end before all data");
            break;
        }
        assert!(piece[..count] == text(number, read, count), "not what was sent");
        read += count;
        match manner {
            Manner::Echo | Manner::EchoLate => stream.write_all(&piece[..count]).await?,
            Manner::EchoHalf => {
                stream.write_all(&piece[..count / 2]).await?;
                return Ok(());
            }
            Manner::EndFirst => {}
        }
    }
    if matches!(manner, Manner::Echo | Manner::EchoLate) {
        stream.shutdown().await?;
    }
    Ok(())
}

fn check_peer(peer: PeerId, of_key: PeerId) {
    assert_eq!(peer, of_key);
    assert!(KEYS[..2].iter().any(|key| key.public().peer_id() == peer), "a peer that is not there");
}

/// `len` bytes of what a stream carries, after so many.
fn text(number: u32, before: usize, len: usize) -> Vec<u8> {
    let begin = number as usize * 31 + before;
    (begin..begin + len).map(|n| (n ^ n >> 8).to_le_bytes()[0]).collect()
}
