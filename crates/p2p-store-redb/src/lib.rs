//! A file for what a host of the `p2p` libp2p implementation knows of peers: [`Redb`] is the
//! [`Store`] of a host that is to know them again after a restart.
//!
//! ```no_run
//! # async fn example(builder: p2p_host::Builder) -> Result<(), p2p_host::BuildError> {
//! let host = builder.store(p2p_store_redb::Redb::new("peers.redb")).spawn().await?;
//! # Ok(())
//! # }
//! ```
//!
//! ```text
//!   a host's memory ── what changed, once a second ──► Redb ──► peers.redb
//!                   ◄────────── all, at the start ────       (format │ peers)
//! ```
//!
//! It is a [redb](https://www.redb.org) database with two tables: `peers`, from peer ids to
//! entries, which are the host's own, and `format`, with the numbers of the layout and of the
//! entries' form. Every write is one transaction in two phases: it is there as a whole or not at
//! all, whenever the program or the machine dies.
//!
//! It deliberately does not repair: a file whose checksums do not hold is an error that names it,
//! or is moved aside ([`Redb::move_damaged_aside`]), and then what was known of peers is lost.
//! Peers are met again; a wrong entry is worse than none.
//!
//! # Limits
//!
//! A file of more than [`FILE_LEN_MAX`] is not opened. The cache of a store is 4 MiB. Opening reads
//! the whole file and verifies its checksums.
//!
//! # Panics in redb
//!
//! A file that is damaged with intent, or a bug, may make redb panic. That is caught and becomes an
//! error, but in programs that are built with `panic = "abort"`; the panic's message is printed
//! as any other.

use std::{
    ffi::OsString,
    fmt, fs,
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Read},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use p2p_core::{IoCause, PeerId, STORE_ENTRY_LEN_MAX, STORE_ENTRY_VERSION, Store, StoreError};
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition, TableError};

/// The largest file that is opened, in bytes. A host's entries are 16 MiB at most, and a file is
/// some times as long as what is in it.
pub const FILE_LEN_MAX: u64 = 256 << 20;

/// The number of the file's layout.
const LAYOUT_VERSION: u64 = 1;
/// How much of the file is kept in memory, in bytes.
const CACHE_LEN: usize = 4 << 20;
/// What every redb file begins with.
const MAGIC: [u8; 4] = *b"redb";

const FORMAT: TableDefinition<'_, &str, u64> = TableDefinition::new("format");
const PEERS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("peers");
/// The numbers in the table `format`.
const VERSIONS: [(&str, &str, u64); 2] = [
    ("layout", "file's layout", LAYOUT_VERSION),
    ("entries", "entries' form", STORE_ENTRY_VERSION as u64),
];

/// What is known of peers, in one file. The file is opened by [`Builder::spawn`] and closed when
/// the host has ended; meanwhile no other host can open it.
///
/// On Unix it is made with mode 0600: it tells whom the host has met.
///
/// [`Builder::spawn`]: https://docs.rs/p2p-host/latest/p2p_host/struct.Builder.html#method.spawn
pub struct Redb {
    path: PathBuf,
    move_aside: bool,
    db: Option<Database>,
}

impl Redb {
    /// Keeps what is known in `path`. A file that is not there is made, in a folder that is.
    ///
    /// While it is being made it is called `path` with `.new` at its end.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), move_aside: false, db: None }
    }

    /// Has the host begin anew where the file is damaged: it is renamed, with `.damaged` at the end
    /// of its name, and replaces what had that name before. Default: an error.
    ///
    /// What has no redb file's first bytes counts as damaged; another program's redb file, one that
    /// a newer version has written and one that cannot be read do not.
    #[must_use]
    pub fn move_damaged_aside(mut self) -> Self {
        self.move_aside = true;
        self
    }

    fn open_or_create(&self) -> Result<Database, StoreError> {
        match fs::metadata(&self.path) {
            Ok(found) => {
                self.check_file(&found)?;
                self.open()
            }
            Err(error) if error.kind() == ErrorKind::NotFound => self.create(),
            Err(error) => Err(self.io("opened", error)),
        }
    }

    /// Looks at what is there before redb does, which does not take all of it well.
    fn check_file(&self, found: &fs::Metadata) -> Result<(), StoreError> {
        if !found.is_file() {
            return Err(self.foreign("it is not a file".into()));
        }
        if found.len() > FILE_LEN_MAX {
            let text = format!("its {} bytes are more than {FILE_LEN_MAX}", found.len());
            return Err(self.foreign(text));
        }
        if found.len() == 0 {
            return Err(self.damaged("it is empty".into()));
        }
        let mut begin = [0; MAGIC.len()];
        let read = File::open(&self.path).and_then(|mut file| file.read_exact(&mut begin));
        match read {
            Ok(()) if begin == MAGIC => Ok(()),
            Err(error) if error.kind() != ErrorKind::UnexpectedEof => Err(self.io("opened", error)),
            Ok(()) | Err(_) => Err(self.damaged("it is not a redb file".into())),
        }
    }

    fn open(&self) -> Result<Database, StoreError> {
        let mut db = settings().open(&self.path).map_err(|e| self.database("opened", e))?;
        // Reading alone verifies nothing.
        if !db.check_integrity().map_err(|e| self.database("read", e))? {
            tracing::warn!(store = self.name(), "the peer store had to be repaired");
        }
        self.check_versions(&db)?;
        Ok(db)
    }

    fn check_versions(&self, db: &Database) -> Result<(), StoreError> {
        let read = || -> Result<_, redb::Error> {
            let table = match db.begin_read()?.open_table(FORMAT) {
                Ok(table) => table,
                Err(TableError::Storage(error)) => return Err(error.into()),
                Err(_) => return Ok(None),
            };
            let mut found = Vec::new();
            for (key, what, known) in VERSIONS {
                let Some(number) = table.get(key)? else { return Ok(None) };
                found.push((what, number.value(), known));
            }
            Ok(Some(found))
        };
        let Some(versions) = read().map_err(|e| self.redb("read", e))? else {
            return Err(self.foreign("it is another program's redb file".into()));
        };
        for (what, found, known) in versions {
            if found > known {
                return Err(StoreError::Newer { store: self.name(), what, found, known });
            }
        }
        Ok(())
    }

    /// Makes the file under another name, so that a crash leaves a whole one or none.
    fn create(&self) -> Result<Database, StoreError> {
        let new = self.with_ending(".new");
        match fs::remove_file(&new) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(self.io("created", error));
            }
            Ok(()) | Err(_) => {}
        }
        let file = create_private(&new).map_err(|e| self.io("created", e))?;
        let db = settings().create_file(file).map_err(|e| self.database("created", e))?;
        let format = || -> Result<(), redb::Error> {
            let mut change = db.begin_write()?;
            change.set_two_phase_commit(true);
            {
                let mut table = change.open_table(FORMAT)?;
                for (key, _, number) in VERSIONS {
                    table.insert(key, number)?;
                }
                change.open_table(PEERS)?;
            }
            Ok(change.commit()?)
        };
        format().map_err(|e| self.redb("created", e))?;
        drop(db);
        let named = fs::rename(&new, &self.path).and_then(|()| sync_folder(&self.path));
        named.map_err(|e| self.io("created", e))?;
        self.open()
    }

    fn read_all(&self, db: &Database) -> Result<Vec<(PeerId, Bytes)>, redb::Error> {
        let mut entries = Vec::new();
        for row in db.begin_read()?.open_table(PEERS)?.iter()? {
            let (peer, entry) = row?;
            // A key that is no peer id, and an entry that is too long, are not the host's.
            if let Ok(peer) = PeerId::from_bytes(peer.value())
                && entry.value().len() <= STORE_ENTRY_LEN_MAX
            {
                entries.push((peer, Bytes::copy_from_slice(entry.value())));
            }
        }
        Ok(entries)
    }

    fn load_once(&mut self) -> Result<Vec<(PeerId, Bytes)>, StoreError> {
        let db = match self.db.take() {
            Some(db) => db,
            None => self.open_or_create()?,
        };
        let entries = self.read_all(&db).map_err(|e| self.redb("read", e))?;
        self.db = Some(db);
        Ok(entries)
    }

    /// After an error redb takes nothing more: the file is opened anew by the next call.
    fn write_once(&mut self, changes: &[(PeerId, Option<Bytes>)]) -> Result<(), StoreError> {
        let db = match self.db.take() {
            Some(db) => db,
            None => self.open_or_create()?,
        };
        write_all(&db, changes).map_err(|e| self.redb("written", e))?;
        self.db = Some(db);
        Ok(())
    }

    /// Has a panic of redb be an error; what it had open is dropped where it is caught.
    fn contain<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match catch_unwind(AssertUnwindSafe(|| work(self))) {
            Ok(done) => done,
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| Some((*panic.downcast_ref::<&str>()?).to_owned()));
                let text = text.unwrap_or_else(|| "no message".into());
                Err(self.damaged(format!("redb panicked on it: {text}")))
            }
        }
    }

    fn move_aside(&self, reason: &StoreError) -> Result<(), StoreError> {
        let aside = self.with_ending(".damaged");
        tracing::warn!(%reason, to = %aside.display(), "the peer store is moved aside");
        let moved = fs::rename(&self.path, aside).and_then(|()| sync_folder(&self.path));
        moved.map_err(|e| self.io("moved aside", e))
    }

    fn with_ending(&self, ending: &str) -> PathBuf {
        let mut path = OsString::from(&self.path);
        path.push(ending);
        path.into()
    }

    fn damaged(&self, reason: String) -> StoreError {
        StoreError::Damaged { store: self.name(), reason }
    }

    fn foreign(&self, reason: String) -> StoreError {
        StoreError::Foreign { store: self.name(), reason }
    }

    fn io(&self, action: &'static str, error: io::Error) -> StoreError {
        StoreError::Io { store: self.name(), action, cause: IoCause::from(error) }
    }

    fn database(&self, action: &'static str, error: DatabaseError) -> StoreError {
        self.redb(action, error.into())
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the rest has no meaning of its own")]
    fn redb(&self, action: &'static str, error: redb::Error) -> StoreError {
        match error {
            redb::Error::DatabaseAlreadyOpen => StoreError::InUse { store: self.name() },
            redb::Error::Io(error)
                if matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) =>
            {
                self.damaged(error.to_string())
            }
            redb::Error::Io(error) => self.io(action, error),
            redb::Error::UpgradeRequired(_) => self.foreign(error.to_string()),
            other => self.damaged(other.to_string()),
        }
    }
}

impl Store for Redb {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn load(&mut self) -> Result<Vec<(PeerId, Bytes)>, StoreError> {
        match self.contain(Self::load_once) {
            Err(error @ StoreError::Damaged { .. }) if self.move_aside => {
                self.move_aside(&error)?;
                self.contain(Self::load_once)
            }
            loaded => loaded,
        }
    }

    fn write(&mut self, changes: &[(PeerId, Option<Bytes>)]) -> Result<(), StoreError> {
        self.contain(|this| this.write_once(changes))
    }
}

impl Drop for Redb {
    fn drop(&mut self) {
        let closed = self.contain(|this| {
            drop(this.db.take());
            Ok(())
        });
        if let Err(error) = closed {
            tracing::warn!(%error, "closing the peer store");
        }
    }
}

impl fmt::Debug for Redb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redb")
            .field("path", &self.path)
            .field("move_aside", &self.move_aside)
            .field("open", &self.db.is_some())
            .finish()
    }
}

fn settings() -> redb::Builder {
    let mut settings = Database::builder();
    settings.set_cache_size(CACHE_LEN);
    settings
}

fn write_all(db: &Database, changes: &[(PeerId, Option<Bytes>)]) -> Result<(), redb::Error> {
    let mut change = db.begin_write()?;
    change.set_two_phase_commit(true);
    {
        let mut table = change.open_table(PEERS)?;
        for (peer, entry) in changes {
            match entry {
                Some(entry) => table.insert(peer.as_bytes(), &entry[..])?,
                None => table.remove(peer.as_bytes())?,
            };
        }
    }
    Ok(change.commit()?)
}

fn create_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Has the name of a file survive a crash of the machine.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    };
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}
