//! A host's identity in a file: the libp2p protobuf form of the private key (KEY-06), or PEM with
//! the feature `pem`.
//!
//! Whoever reads the file can be this peer for ever, since libp2p has no way to take an identity
//! back. So a file that others may read is refused, as ssh does, and not just warned about: by the
//! time that somebody reads the warning, the key may be copied.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use p2p_core::{KeyError, Keypair};
use zeroize::Zeroizing;

/// The longest file that is looked at, in bytes.
const FILE_LEN_MAX: usize = 64 << 10;
/// What every PEM text has, and no protobuf form but by an accident of 2^-88.
const PEM_START: &[u8] = b"-----BEGIN ";

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
    /// There is something else than a file at the path, such as a folder or a pipe.
    #[error("the key file {path} is not a file", path = path.display())]
    NotAFile {
        /// What was given.
        path: PathBuf,
    },
    /// Others than its owner may read or change the file.
    #[error(
        "the key file {path} is open to others (mode {mode:04o}), and who reads it can be this \
         peer: `chmod 600` it, or make a new key if somebody may have read it",
        path = path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is longer than any key.
    #[error("the key file {path} is longer than {max} bytes, and not a key", path = path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The longest that is looked at, in bytes.
        max: usize,
    },
    /// The file is in PEM form, which this build lacks.
    #[error("the key file {path} is in PEM form: enable the feature `pem`", path = path.display())]
    PemUnsupported {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be created; an existing one is never overwritten.
    #[error("cannot create the key file {path}: {source}", path = path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file's content is not a private key that can be used.
    #[error("the key file {path} is damaged: {source}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: KeyError,
    },
    /// The file holds a key of a kind that this build, or this library, cannot use.
    #[error("the key file {path} cannot be used: {source}", path = path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What it would take.
        source: KeyError,
    },
    /// No key could be made.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Reads the key pair in `path`: the libp2p protobuf form, or PEM with the feature `pem`. At most
/// 64 KiB are read.
///
/// On Unix the file must be closed to others: mode 0600 or less. A file of root's may be readable
/// by its group, which is how Kubernetes gives secrets to programs that do not run as root.
/// Elsewhere permissions are not looked at.
///
/// # Errors
/// [`KeyFileError`] names the file and what is wrong.
pub fn load(path: &Path) -> Result<Keypair, KeyFileError> {
    let bytes = read(path)?;
    let key = if bytes.is_empty() {
        Err(KeyError::Encoding("the file is empty"))
    } else if bytes.windows(PEM_START.len()).any(|window| window == PEM_START) {
        from_pem(&bytes).ok_or_else(|| KeyFileError::PemUnsupported { path: path.to_owned() })?
    } else {
        Keypair::from_protobuf(&bytes)
    };
    key.map_err(|source| {
        let path = path.to_owned();
        if matches!(source, KeyError::UnsupportedType(_) | KeyError::Encrypted) {
            KeyFileError::Unusable { path, source }
        } else {
            KeyFileError::Damaged { path, source }
        }
    })
}

#[cfg(feature = "pem")]
fn from_pem(bytes: &[u8]) -> Option<Result<Keypair, KeyError>> {
    let text = std::str::from_utf8(bytes);
    Some(text.map_err(|error| KeyError::Pem(error.to_string())).and_then(Keypair::from_pem))
}

#[cfg(not(feature = "pem"))]
fn from_pem(_: &[u8]) -> Option<Result<Keypair, KeyError>> {
    None
}

/// Reads a whole file into a buffer that does not grow: no copy of a secret is left behind.
fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    let read_error = |source| KeyFileError::Read { path: path.to_owned(), source };
    // To open a pipe would wait for its other end.
    if !fs::metadata(path).map_err(read_error)?.is_file() {
        return Err(KeyFileError::NotAFile { path: path.to_owned() });
    }
    let file = File::open(path).map_err(read_error)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let metadata = file.metadata().map_err(read_error)?;
        let mode = metadata.mode() & 0o777;
        if is_exposed(mode, metadata.uid()) {
            return Err(KeyFileError::Exposed { path: path.to_owned(), mode });
        }
    }
    // Room for one read more than the limit, which finds the end of the file.
    let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_LEN_MAX + 64));
    let limit = FILE_LEN_MAX as u64 + 1;
    file.take(limit).read_to_end(&mut bytes).map_err(read_error)?;
    if bytes.len() > FILE_LEN_MAX {
        return Err(KeyFileError::TooLong { path: path.to_owned(), max: FILE_LEN_MAX });
    }
    Ok(bytes)
}

#[cfg(unix)]
fn is_exposed(mode: u32, owner: u32) -> bool {
    const ROOT: u32 = 0;
    let allowed = if owner == ROOT { 0o740 } else { 0o700 };
    mode & !allowed != 0
}

/// Makes a new Ed25519 key pair and writes it to `path` as [`save`] does.
///
/// # Errors
/// [`KeyFileError`] names the file and what is wrong; no part of a file is left behind.
pub fn create(path: &Path) -> Result<Keypair, KeyFileError> {
    let key = Keypair::generate()?;
    save(path, &key)?;
    Ok(key)
}

/// Writes a key pair in the libp2p protobuf form to `path`, which must not exist. It is readable
/// by its owner alone from the first moment.
///
/// # Errors
/// [`KeyFileError::Create`] names the file and what is wrong; no part of a file is left behind,
/// unless the machine stops in the middle: then [`load`] refuses what is there.
pub fn save(path: &Path, key: &Keypair) -> Result<(), KeyFileError> {
    write(path, &key.to_protobuf())
}

/// Writes a key pair as [`save`] does, but as PKCS#8 in PEM, for other programs.
///
/// # Errors
/// As [`save`].
#[cfg(feature = "pem")]
pub fn save_pem(path: &Path, key: &Keypair) -> Result<(), KeyFileError> {
    write(path, key.to_pem().as_bytes())
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), KeyFileError> {
    let create_error = |source| KeyFileError::Create { path: path.to_owned(), source };
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).map_err(create_error)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if let Err(source) = written {
        if let Err(error) = fs::remove_file(path) {
            tracing::warn!(path = %path.display(), %error, "half a key file is left behind");
        }
        return Err(create_error(source));
    }
    Ok(())
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

    fn error_of(path: &Path) -> KeyFileError {
        let error = load(path).unwrap_err();
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        error
    }

    /// A file of mode 0600 with this content.
    fn file_of(folder: &tempfile::TempDir, content: &[u8]) -> PathBuf {
        let path = folder.path().join("key");
        drop(fs::remove_file(&path));
        write(&path, content).unwrap();
        path
    }

    #[test]
    fn an_empty_a_long_and_no_file_say_so() {
        let folder = tempfile::tempdir().unwrap();
        let empty = error_of(&file_of(&folder, b""));
        assert!(empty.to_string().contains("empty"), "{empty}");
        let longest = error_of(&file_of(&folder, &vec![8; FILE_LEN_MAX]));
        let damaged = KeyError::TooLong { len: FILE_LEN_MAX, max: 8192 };
        assert!(matches!(longest, KeyFileError::Damaged { source, .. } if source == damaged));
        let long = error_of(&file_of(&folder, &vec![8; FILE_LEN_MAX + 1]));
        assert!(matches!(long, KeyFileError::TooLong { max: FILE_LEN_MAX, .. }), "{long}");
        assert!(matches!(error_of(folder.path()), KeyFileError::NotAFile { .. }));
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_is_refused_and_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        assert!(matches!(error_of(&path), KeyFileError::NotAFile { .. }));
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        create(&path).unwrap();
        for mode in [0o644, 0o604, 0o660, 0o602, 0o601, 0o666] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = error_of(&path);
            assert!(matches!(error, KeyFileError::Exposed { mode: m, .. } if m == mode), "{error}");
            assert!(error.to_string().contains(&format!("{mode:04o}")), "{error}");
        }
        for mode in [0o600, 0o400, 0o700] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            load(&path).unwrap();
        }
        assert!(is_exposed(0o640, 1_000) && is_exposed(0o440, 1_000));
        assert!(!is_exposed(0o640, 0) && !is_exposed(0o440, 0) && is_exposed(0o644, 0));
    }

    #[test]
    fn a_key_of_a_type_that_this_build_lacks_is_not_called_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let path = file_of(&folder, &[8, 0, 0x12, 0]);
        let error = error_of(&path);
        if cfg!(feature = "rsa") {
            assert!(matches!(error, KeyFileError::Damaged { .. }), "{error}");
        } else {
            assert!(matches!(error, KeyFileError::Unusable { .. }), "{error}");
            assert!(error.to_string().contains("`rsa`"), "{error}");
        }
    }

    #[cfg(feature = "pem")]
    #[test]
    fn pem_is_read_and_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        let key = Keypair::generate().unwrap();
        save_pem(&path, &key).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("-----BEGIN PRIVATE KEY-----\n"), "{text}");
        assert_eq!(load(&path).unwrap().public(), key.public());
        assert!(matches!(save_pem(&path, &key), Err(KeyFileError::Create { .. })));

        let label = "-----BEGIN ENCRYPTED PRIVATE KEY-----\n";
        let encrypted = error_of(&file_of(&folder, label.as_bytes()));
        assert!(matches!(encrypted, KeyFileError::Unusable { source: KeyError::Encrypted, .. }));
        let not_text = error_of(&file_of(&folder, &[PEM_START, &[0xff]].concat()));
        assert!(matches!(not_text, KeyFileError::Damaged { source: KeyError::Pem(_), .. }));
    }

    #[cfg(not(feature = "pem"))]
    #[test]
    fn pem_names_the_feature_that_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let error = error_of(&file_of(&folder, b"-----BEGIN PRIVATE KEY-----\n"));
        assert!(error.to_string().contains("`pem`"), "{error}");
    }
}
