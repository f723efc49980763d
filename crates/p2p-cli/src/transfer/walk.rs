//! What is to be sent: files and folders one after the other, in no order but that a folder comes
//! before what is in it. Of the list nothing is held but the folders that are open.

use std::{
    collections::VecDeque,
    ffi::OsStr,
    fs::{self, Metadata, ReadDir},
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::names::{DEPTH_MAX, PATH_LEN_MAX};
use crate::failure::Failure;

/// A thing to send.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Where it is here.
    pub(super) local: PathBuf,
    /// Its path on the wire.
    pub(super) path: String,
    pub(super) what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    Folder,
    File(State),
    /// A symbolic link, a device, a socket: it is not sent.
    Other,
}

/// What a file that has changed has another of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) size: u64,
    pub(super) executable: bool,
    modified: Option<SystemTime>,
}

impl State {
    pub(super) fn of(metadata: &Metadata) -> Self {
        #[cfg(unix)]
        let executable =
            std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o111 != 0;
        #[cfg(not(unix))]
        let executable = false;
        Self { size: metadata.len(), executable, modified: metadata.modified().ok() }
    }
}

/// What a user named, and the name that it gets at the other side.
#[derive(Clone, Debug)]
pub(super) struct Root {
    path: PathBuf,
    name: String,
}

impl Root {
    /// Looks at what the user named.
    pub(super) fn all(paths: &[PathBuf]) -> Result<Vec<Self>, Failure> {
        let mut roots: Vec<Self> = Vec::with_capacity(paths.len());
        for path in paths {
            let shown = path.display();
            let unreadable = |error: io::Error| {
                Failure::new(format!("cannot send {shown}: {error}"))
                    .next("give a file or folder that exists and that you may read")
            };
            let metadata = fs::metadata(path).map_err(unreadable)?;
            if !metadata.is_file() && !metadata.is_dir() {
                return Err(Failure::new(format!(
                    "cannot send {shown}: it is neither a file nor a folder"
                )));
            }
            // `.` and `..` have names too.
            let name = match path.file_name() {
                Some(name) => name.to_owned(),
                None => {
                    let whole = fs::canonicalize(path).map_err(unreadable)?;
                    whole.file_name().map(OsStr::to_owned).ok_or_else(|| {
                        Failure::new(format!("cannot send {shown}: it has no name"))
                            .next("give what is in it")
                    })?
                }
            };
            let name = utf8(&name, path)?;
            if let Some(other) = roots.iter().find(|root| root.name == name) {
                return Err(Failure::new(format!("two things are called {name}"))
                    .tried(format!("{} and {shown}", other.path.display()))
                    .next("send them one after the other, or the folders they are in"));
            }
            roots.push(Self { path: path.clone(), name });
        }
        Ok(roots)
    }
}

fn utf8(name: &OsStr, path: &Path) -> Result<String, Failure> {
    name.to_str().map(ToOwned::to_owned).ok_or_else(|| {
        Failure::new(format!("cannot send {}: its name is not UTF-8", path.display()))
            .next("rename it")
    })
}

/// Goes through all that is to be sent. Its calls read folders, and wait for that.
#[derive(Debug)]
pub(super) struct Walk {
    roots: VecDeque<Root>,
    /// The folders that are open, each with its path on the wire.
    open: Vec<(ReadDir, PathBuf, String)>,
}

impl Walk {
    pub(super) fn new(roots: &[Root]) -> Self {
        Self { roots: roots.iter().cloned().collect(), open: Vec::new() }
    }

    /// The next thing; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, Failure> {
        while let Some((folder, local, path)) = self.open.last_mut() {
            let unreadable = |error: io::Error| {
                Failure::new(format!("cannot read the folder {}: {error}", local.display()))
            };
            let Some(found) = folder.next() else {
                self.open.pop();
                continue;
            };
            let found = found.map_err(unreadable)?;
            let name = utf8(&found.file_name(), &found.path())?;
            let path = format!("{path}/{name}");
            let metadata = match fs::symlink_metadata(found.path()) {
                // It went while the folder was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                metadata => metadata.map_err(unreadable)?,
            };
            return self.enter(found.path(), path, &metadata).map(Some);
        }
        let Some(Root { path, name }) = self.roots.pop_front() else { return Ok(None) };
        let metadata = fs::metadata(&path)
            .map_err(|error| Failure::new(format!("cannot send {}: {error}", path.display())))?;
        self.enter(path, name, &metadata).map(Some)
    }

    fn enter(
        &mut self,
        local: PathBuf,
        path: String,
        metadata: &Metadata,
    ) -> Result<Entry, Failure> {
        if path.len() > PATH_LEN_MAX || path.split('/').count() > DEPTH_MAX {
            return Err(Failure::new(format!(
                "cannot send {}: a path is of at most {PATH_LEN_MAX} bytes and {DEPTH_MAX} folders",
                local.display()
            ))
            .next("send the inner folders by themselves"));
        }
        let what = if metadata.is_dir() {
            let folder = fs::read_dir(&local).map_err(|error| {
                Failure::new(format!("cannot read the folder {}: {error}", local.display()))
                    .next("get the right to read it, or send only what is beside it")
            })?;
            self.open.push((folder, local.clone(), path.clone()));
            What::Folder
        } else if metadata.is_file() {
            What::File(State::of(metadata))
        } else {
            What::Other
        };
        Ok(Entry { local, path, what })
    }
}

/// How much there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) files: u64,
    pub(super) folders: u64,
    pub(super) bytes: u64,
    /// What is neither file nor folder.
    pub(super) others: u64,
}

impl Totals {
    pub(super) fn of(mut walk: Walk) -> Result<Self, Failure> {
        let mut totals = Self::default();
        while let Some(entry) = walk.next()? {
            totals.add(&entry.what);
        }
        Ok(totals)
    }

    pub(super) fn add(&mut self, what: &What) {
        match what {
            What::Folder => self.folders = self.folders.saturating_add(1),
            What::File(state) => {
                self.files = self.files.saturating_add(1);
                self.bytes = self.bytes.saturating_add(state.size);
            }
            What::Other => self.others = self.others.saturating_add(1),
        }
    }

    /// Whether there is not more of anything than in `other`.
    pub(super) fn within(&self, other: &Self) -> bool {
        self.files <= other.files && self.folders <= other.folders && self.bytes <= other.bytes
    }
}
