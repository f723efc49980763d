use std::time::Duration;

use bytes::Bytes;

use crate::{IoCause, PeerId};

/// The number of the form that hosts of this version give to the entries of a [`Store`].
pub const STORE_ENTRY_VERSION: u32 = 1;

/// The longest entry of a [`Store`], in bytes.
pub const STORE_ENTRY_LEN_MAX: usize = 256 << 10;

/// Keeps what a host knows of peers over its restarts, as a value that a host is configured with.
///
/// It is a map from peer ids to entries: bytes that the host alone understands, and checks when it
/// reads them, at most [`STORE_ENTRY_LEN_MAX`] long. A store keeps [`STORE_ENTRY_VERSION`] beside
/// them.
///
/// Its methods block; they are called on threads made for that, one call at a time. What has
/// failed may be called again. Dropping a store frees what it has open.
pub trait Store: Send + 'static {
    /// What it is called in errors, such as the path of its file.
    fn name(&self) -> String;

    /// All that is kept, in any order. A host calls it once, before it writes, and takes what its
    /// own limits allow.
    ///
    /// # Errors
    /// [`StoreError`]; then what is kept stays as it is. [`StoreError::Newer`] where the entries
    /// are of a form with a higher number than [`STORE_ENTRY_VERSION`].
    fn load(&mut self) -> Result<Vec<(PeerId, Bytes)>, StoreError>;

    /// Sets entries, and removes those that are `None`: all of them, or none where it fails. What
    /// is written when it returns survives a crash of the program and of the machine.
    ///
    /// # Errors
    /// [`StoreError`]. The host goes on with what it knows, and tries again later.
    fn write(&mut self, changes: &[(PeerId, Option<Bytes>)]) -> Result<(), StoreError>;
}

/// Why a [`Store`] could not be read or written.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process has it open, or another host of this one.
    #[error("the peer store {store} is open already, in this process or another")]
    InUse {
        /// The store's name.
        store: String,
    },
    /// Its content is not what was written.
    #[error("the peer store {store} is damaged: {reason}")]
    Damaged {
        /// The store's name.
        store: String,
        /// What is wrong with it.
        reason: String,
    },
    /// What has its name is something else.
    #[error("{store} is not a peer store: {reason}")]
    Foreign {
        /// The store's name.
        store: String,
        /// What is there.
        reason: String,
    },
    /// A newer version of the library has written it.
    #[error(
        "the peer store {store} was written by a newer version: its {what} has number {found}, and \
         this one knows {known}; its content is unchanged"
    )]
    Newer {
        /// The store's name.
        store: String,
        /// What has a number: the layout of the file, or the form of its entries.
        what: &'static str,
        /// The number that was found.
        found: u64,
        /// The highest that this version knows.
        known: u64,
    },
    /// The system did not do what it had to: the disk is full, say, or access is denied.
    #[error("the peer store {store} cannot be {action}: {cause}")]
    Io {
        /// The store's name.
        store: String,
        /// What was tried: `opened`, `created`, `read`, `written`.
        action: &'static str,
        /// What the system said.
        cause: IoCause,
    },
    /// It did not return in time.
    #[error("the peer store {store} has not returned within {limit:?}")]
    TimedOut {
        /// The store's name.
        store: String,
        /// The time that it had.
        limit: Duration,
    },
    /// A bug in the store, which the host has survived.
    #[error("the peer store {store} has failed: {reason}")]
    Failed {
        /// The store's name.
        store: String,
        /// How it has failed.
        reason: String,
    },
}
