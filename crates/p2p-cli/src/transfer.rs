//! `p2p send` and `p2p recv`: files and folders over `/p2p-send/1.0.0`, which
//! `docs/protocols/send.md` describes.
//!
//! ```text
//!   send                                                       recv
//!   walk ─► read and hash ─► frames ════ stream ════► frames ─► hash and write ─► rename
//!     (blocking threads)                                (blocking threads)
//! ```
//!
//! Nothing is held of the list of files but what is on its way, so folders may be of any size.

mod names;
mod recv;
mod send;
pub(crate) mod ticket;
mod walk;
mod wire;

use std::{
    io::{self, Read},
    time::Duration,
};

use p2p::ProtocolId;
use sha2::{Digest as _, Sha256};

pub(crate) use self::{recv::run as recv, send::run as send};

const PROTOCOL: ProtocolId = ProtocolId::from_static("/p2p-send/1.0.0");

/// How long the other side may neither send nor take anything. While it hashes it says so.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// How often a side that hashes says so.
const BUSY_EVERY: Duration = Duration::from_secs(5);

/// Files that are told of ahead of their content, and the size from which a file is not.
const AHEAD_MAX: usize = 64;
const AHEAD_SIZE_MAX: u64 = 1 << 20;

/// What is read, hashed and written at a time, in bytes, and how many of these are on their way
/// between two threads.
const PIECE_LEN: usize = 128 << 10;
const PIECES_MAX: usize = 16;

/// Length of a digest in bytes.
const DIGEST_LEN: usize = 32;

/// Hashes the first `len` bytes of a file; fails with `UnexpectedEof` when there are fewer.
fn hash_prefix(file: &mut std::fs::File, len: u64) -> io::Result<Sha256> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; PIECE_LEN];
    let mut left = len;
    while left > 0 {
        let want = usize::try_from(left).unwrap_or(PIECE_LEN).min(PIECE_LEN);
        let (piece, _) = buffer.split_at_mut(want);
        file.read_exact(piece)?;
        hash.update(&*piece);
        left = left.saturating_sub(want as u64);
    }
    Ok(hash)
}
