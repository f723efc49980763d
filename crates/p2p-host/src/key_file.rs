//! A host's identity in a file: the libp2p protobuf form of the private key (KEY-06).

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use p2p_core::{KeyError, Keypair};
use zeroize::Zeroizing;

/// The largest file that is looked at, in bytes.
const FILE_LEN_MAX: u64 = 64 << 10;

/// Why a key file could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// The file cannot be read.
    #[error("cannot read the key file {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file cannot be created; an existing one is never overwritten.
    #[error("cannot create the key file {path}: {source}", path = path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file's content is not a private key.
    #[error("the key file {path} is damaged: {source}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: KeyError,
    },
    /// No key could be made.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Reads the key pair in `path`.
///
/// # Errors
/// [`KeyFileError`] names the file and what is wrong.
pub fn load(path: &Path) -> Result<Keypair, KeyFileError> {
    let read_error = |source| KeyFileError::Read { path: path.to_owned(), source };
    let mut bytes = Zeroizing::new(Vec::new());
    let file = File::open(path).map_err(read_error)?;
    file.take(FILE_LEN_MAX).read_to_end(&mut bytes).map_err(read_error)?;
    Keypair::from_protobuf(&bytes)
        .map_err(|source| KeyFileError::Damaged { path: path.to_owned(), source })
}

/// Makes a new key pair and writes it to `path`, which must not exist, readable by its owner
/// alone.
///
/// # Errors
/// [`KeyFileError`] names the file and what is wrong; no part of a file is left behind.
pub fn create(path: &Path) -> Result<Keypair, KeyFileError> {
    let create_error = |source| KeyFileError::Create { path: path.to_owned(), source };
    let key = Keypair::generate()?;
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).map_err(create_error)?;
    let written = file.write_all(&key.to_protobuf()).and_then(|()| file.sync_all());
    if let Err(source) = written {
        if let Err(error) = fs::remove_file(path) {
            tracing::warn!(path = %path.display(), %error, "half a key file is left behind");
        }
        return Err(create_error(source));
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_created_file_is_private_loads_and_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let key = create(&path).unwrap();
        assert_eq!(load(&path).unwrap().public(), key.public());
        #[cfg(unix)]
        {
            let mode = std::os::unix::fs::PermissionsExt::mode(
                &fs::metadata(&path).unwrap().permissions(),
            );
            assert_eq!(mode & 0o777, 0o600);
        }
        let text = create(&path).unwrap_err().to_string();
        assert!(text.contains(path.to_str().unwrap()), "{text}");
        assert_eq!(load(&path).unwrap().public(), key.public());
    }

    #[test]
    fn missing_and_damaged_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        assert!(matches!(load(&path), Err(KeyFileError::Read { .. })));
        let key = create(&path).unwrap();
        let whole = key.to_protobuf();
        for len in 0..whole.len() {
            fs::write(&path, &whole[..len]).unwrap();
            let error = load(&path).unwrap_err();
            assert!(matches!(error, KeyFileError::Damaged { .. }), "{len}: {error}");
        }
        let mut changed = whole.to_vec();
        changed[40] ^= 1;
        fs::write(&path, &changed).unwrap();
        assert!(matches!(
            load(&path),
            Err(KeyFileError::Damaged { source: KeyError::Mismatch, .. })
        ));
    }
}
