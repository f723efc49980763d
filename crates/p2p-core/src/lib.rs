//! Types and traits of the `p2p` libp2p implementation.
//!
//! This crate is the centre that every other crate of the project depends on, and that depends
//! on none of them. It holds
//!
//! - what names things: [`PeerId`], [`PublicKey`], [`Keypair`], [`Multiaddr`], [`ProtocolId`],
//!   [`ErrorCode`];
//! - what a peer signs: [`Envelope`], [`PeerRecord`];
//! - the contracts of the layers: [`Transport`], [`Security`], [`Muxer`], and what they produce:
//!   [`Pipe`], [`Session`], [`Connection`], [`Stream`]; [`Resolve`], for names in addresses, and
//!   [`Store`], for what is known of peers;
//! - the errors that cross those contracts.
//!
//! It deliberately has no socket, clock, task or lock, and no implementation of any layer.
//!
//! ```text
//!   Transport ──► Pipe ──► Security (Handshake ► Session{Seal, Open}) ──► Muxer (MuxCore) ──► Stream
//!        └──────► Muxed (a link that is born multiplexed, as QUIC is) ───────────────────────► Stream
//! ```
//!
//! ```
//! use p2p_core::{Keypair, PeerId};
//!
//! let key = Keypair::generate()?;
//! let id: PeerId = key.public().peer_id();
//! assert_eq!(id.to_string().parse::<PeerId>()?, id);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Features
//!
//! None is on by default: Ed25519 keys are always there, and every peer has them. Without a
//! feature, the keys that it brings are refused by an error that names it.
//!
//! | feature | brings | extra crates |
//! |---|---|---|
//! | `rsa` | RSA keys of 2048 to 8192 bits; needs a C compiler | 5 |
//! | `secp256k1` | secp256k1 keys | 18 |
//! | `ecdsa` | ECDSA keys over P-256 | 18 |
//! | `pem` | private keys as PEM text | 5 |

mod addr;
mod connection;
mod envelope;
#[rustfmt::skip]
#[allow(unnameable_types, unreachable_pub, reason = "generated from proto/envelope.proto")]
#[allow(clippy::exhaustive_structs, reason = "generated from proto/envelope.proto")]
mod envelope_proto;
mod error;
mod gather;
mod key;
mod muxer;
mod peer_id;
mod peer_record;
mod protocol;
mod resolve;
mod security;
mod store;
mod stream;
#[cfg(test)]
mod testing;
mod transport;
pub mod varint;

pub use addr::{
    AddrError, AddrExt, AddrPeerError, AddrProblem, Reach, addrs_for, decode_multiaddr,
    parse_multiaddr,
};
pub use connection::{AcceptStream, Connection, ConnectionInfo, Muxed, OpenStream, Role};
pub use envelope::{Envelope, EnvelopeError};
pub use error::{
    ConnectionError, ErrorCode, IoCause, MuxError, SecurityError, StreamError, TransportError,
};
pub use gather::Gather;
pub use key::{KeyError, KeyType, Keypair, PublicKey};
pub use multiaddr::{self, Multiaddr};
pub use muxer::{MuxCore, MuxEvent, Muxer, StreamId};
pub use peer_id::{PeerId, PeerIdError};
pub use peer_record::{PeerRecord, PeerRecordError, RecordSeq, StaleRecord};
pub use protocol::{ProtocolId, ProtocolIdError};
pub use resolve::{Resolve, ResolveError};
pub use security::{Clear, Handshake, Open, Opened, Seal, Security, Session};
pub use store::{STORE_ENTRY_LEN_MAX, STORE_ENTRY_VERSION, Store, StoreError};
pub use stream::{RecvHalf, RecvStream, SendHalf, SendStream, Stream};
pub use transport::{DialTarget, Incoming, Link, ListenEvent, Listener, Pipe, PipeRead, Transport};
