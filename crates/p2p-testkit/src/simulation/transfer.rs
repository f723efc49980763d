//! The protocol of a simulation: a request and an answer, each of bytes that can be checked.

use std::{error::Error, future::IntoFuture, sync::Arc, time::Duration};

use p2p_core::{ErrorCode, PeerId, ProtocolId, RecvStream, SendStream, Stream};
use p2p_host::{Host, IntoTarget};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::sleep,
};

use super::{
    content::Content,
    world::{Live, World},
};
use crate::network::Random;

pub(super) const PROTOCOL: ProtocolId = ProtocolId::from_static("/simulation/transfer/1");

/// Number, length of the request, length of the answer: 8, 4 and 4 bytes, then what the handler
/// does.
const HEADER_LEN: usize = 17;
const CHUNK_LEN: usize = 16 << 10;
/// A dial of 30 s and a stream of 10 s, and both once more when the first connection has just
/// ended.
const OPEN_MAX: Duration = Duration::from_secs(2 * (30 + 10));

type BoxError = Box<dyn Error + Send + Sync>;

/// What one transfer is to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transfer {
    pub(super) number: u64,
    pub(super) request: u32,
    pub(super) answer: u32,
    pub(super) manner: Manner,
}

/// What the two sides do to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    Well,
    /// The handler reads slowly.
    Slow,
    /// The opener drops its stream before the request's end.
    OpenerLeaves,
    /// The opener resets its stream.
    OpenerResets,
    /// The handler returns before the answer's end.
    HandlerLeaves,
    /// The handler does not wait for the request.
    BothAtOnce,
}

const MANNERS: [Manner; 6] = [
    Manner::Well,
    Manner::Slow,
    Manner::OpenerLeaves,
    Manner::OpenerResets,
    Manner::HandlerLeaves,
    Manner::BothAtOnce,
];

impl Transfer {
    pub(super) fn draw(number: u64, random: &mut Random) -> Self {
        let mut len = || {
            // Few are larger than the first window of a stream.
            let most = match random.below(16) {
                0 => 600_000,
                1..4 => 20_000,
                4..8 => 4_000,
                8..14 => 1_000,
                _ => 1,
            };
            u32::try_from(random.below(most)).unwrap_or(0)
        };
        let (request, answer) = (len(), len());
        let manner = match random.below(4) {
            0 => *random.pick(&MANNERS).unwrap_or(&Manner::Well),
            _ => Manner::Well,
        };
        Self { number, request, answer, manner }
    }

    /// One that must succeed.
    pub(super) fn plain(number: u64) -> Self {
        Self { number, request: 5_000, answer: 5_000, manner: Manner::Well }
    }

    fn header(&self) -> [u8; HEADER_LEN] {
        let mut header = [0; HEADER_LEN];
        let manner = MANNERS.iter().position(|manner| *manner == self.manner).unwrap_or(0);
        let parts = self.number.to_be_bytes().into_iter();
        let parts = parts.chain(self.request.to_be_bytes()).chain(self.answer.to_be_bytes());
        let parts = parts.chain(u8::try_from(manner));
        header.iter_mut().zip(parts).for_each(|(to, from)| *to = from);
        header
    }

    async fn read_header(stream: &mut Stream) -> Result<Self, BoxError> {
        let (number, request) = (stream.read_u64().await?, stream.read_u32().await?);
        let (answer, manner) = (stream.read_u32().await?, stream.read_u8().await?);
        let manner = *MANNERS.get(usize::from(manner)).ok_or("not a manner")?;
        Ok(Self { number, request, answer, manner })
    }
}

/// Runs one transfer, and says whether it ended well.
pub(super) async fn open(
    world: &Arc<World>,
    host: &Host,
    target: impl IntoTarget,
    peer: PeerId,
    transfer: Transfer,
) -> Result<bool, BoxError> {
    let opening = host.open(target, PROTOCOL);
    let stream = world.within("opening a stream", OPEN_MAX, opening.into_future()).await?;
    if peer != stream.peer() {
        world.wrong("a stream leads to another peer than the one that was named");
    }
    let _live = Live::new(world, stream.connection());
    let Transfer { number, request, answer, manner } = transfer;
    let content = Content::new(number, false);
    let (mut send, mut recv) = stream.into_halves();
    send.write_all(&transfer.header()).await?;
    if matches!(manner, Manner::OpenerLeaves | Manner::OpenerResets) {
        world.book(|book| book.abandoned.insert(number));
        write(&mut send, content, request / 2).await?;
        if manner == Manner::OpenerResets {
            send.reset(ErrorCode::NONE);
        }
        return Ok(false);
    }
    let sending = async {
        write(&mut send, content, request).await?;
        send.shutdown().await?;
        Ok::<_, BoxError>(())
    };
    let receiving = receive(world, &mut recv, Content::new(number, true), answer, false);
    let (sent, received) = tokio::join!(sending, receiving);
    received?;
    // What came to its end is whole whether or not the other direction failed.
    world.book(|book| {
        if book.abandoned.contains(&number) {
            book.wrong.push(format!("transfer {number} looks complete, and was abandoned"));
        }
    });
    sent?;
    if manner != Manner::BothAtOnce && !world.book(|book| book.received.contains(&number)) {
        world.wrong(format!("transfer {number} was answered, and its request never came"));
    }
    Ok(true)
}

/// The handler.
pub(super) async fn serve(world: Arc<World>, mut stream: Stream) -> Result<(), BoxError> {
    let _live = Live::new(&world, stream.connection());
    let Transfer { number, request, answer, manner } = Transfer::read_header(&mut stream).await?;
    let (mut send, mut recv) = stream.into_halves();
    let content = Content::new(number, true);
    let is_slow = manner == Manner::Slow;
    let receiving = receive(&world, &mut recv, Content::new(number, false), request, is_slow);
    if manner == Manner::BothAtOnce {
        let sending = async {
            write(&mut send, content, answer).await?;
            Ok::<_, BoxError>(send.shutdown().await?)
        };
        let (received, sent) = tokio::join!(receiving, sending);
        return received.and(sent);
    }
    receiving.await?;
    let is_new = world.book(|book| book.received.insert(number));
    if !is_new {
        world.wrong(format!("the request of transfer {number} came twice"));
    }
    if world.book(|book| book.abandoned.contains(&number)) {
        world.wrong(format!("the request of transfer {number} looks complete, and was abandoned"));
    }
    if manner == Manner::HandlerLeaves {
        world.book(|book| book.abandoned.insert(number));
        write(&mut send, content, answer / 2).await?;
        return Ok(());
    }
    write(&mut send, content, answer).await?;
    send.shutdown().await?;
    Ok(())
}

async fn write(send: &mut SendStream, content: Content, len: u32) -> Result<(), BoxError> {
    let mut chunk = [0; CHUNK_LEN];
    let (mut offset, end) = (0, u64::from(len));
    while offset < end {
        let left = usize::try_from(end - offset)?.min(CHUNK_LEN);
        let (piece, _) = chunk.split_at_mut(left);
        content.fill(offset, piece);
        send.write_all(piece).await?;
        offset += u64::try_from(left)?;
    }
    Ok(())
}

/// Reads to the end, which has to come after `len` bytes or not at all.
async fn receive(
    world: &World,
    recv: &mut RecvStream,
    content: Content,
    len: u32,
    is_slow: bool,
) -> Result<(), BoxError> {
    let mut offset = 0;
    while let Some(piece) = recv.chunk(CHUNK_LEN).await? {
        if let Some(at) = content.differs(offset, &piece) {
            world.wrong(format!("byte {at} is not the one that was sent"));
            return Err("wrong bytes".into());
        }
        offset += u64::try_from(piece.len())?;
        if is_slow {
            sleep(Duration::from_millis(20)).await;
        }
    }
    world.book(|book| book.report.bytes += offset);
    if offset != u64::from(len) {
        world.wrong(format!("{offset} bytes look complete, and {len} were to come"));
    }
    Ok(())
}
