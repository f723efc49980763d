//! Files that are damaged, held, closed or something else; and disks that are full.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use bytes::Bytes;
use common::{Chance, Ended, child, load, part, peer, tell};
use p2p_core::{PeerId, STORE_ENTRY_VERSION, Store, StoreError};
use p2p_store_redb::Redb;
use redb::{Database, ReadableDatabase as _, TableDefinition};
use tempfile::TempDir;

const PEERS: u64 = 100;

fn entries() -> &'static [(PeerId, Bytes)] {
    static ENTRIES: OnceLock<Vec<(PeerId, Bytes)>> = OnceLock::new();
    ENTRIES.get_or_init(|| {
        let mut chance = Chance(7);
        let entry = |number| {
            let len = chance.below(800) + 1;
            (peer(number), (0..len).map(|_| chance.next() as u8).collect())
        };
        let mut entries: Vec<(PeerId, Bytes)> = (0..PEERS).map(entry).collect();
        entries.sort_unstable_by_key(|(peer, _)| *peer);
        entries
    })
}

/// A folder with a store in it that has all the entries, written in several transactions.
fn written() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("peers.redb");
    let mut store = Redb::new(&path);
    assert_eq!(store.load().unwrap(), []);
    for some in entries().chunks(30) {
        let changes: Vec<_> =
            some.iter().map(|(peer, entry)| (*peer, Some(entry.clone()))).collect();
        store.write(&changes).unwrap();
    }
    (folder, path)
}

/// What cannot be opened is an error that names the file and has nothing of it changed; with the
/// file moved aside, a new one takes its place.
#[track_caller]
fn is_damaged(path: &Path, what: &str) {
    let error = load(Redb::new(path)).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{what}: {error}");
    assert!(error.to_string().contains(path.to_str().unwrap()), "{what}: {error}");
    begins_anew(path, what);
}

#[track_caller]
fn begins_anew(path: &Path, what: &str) {
    let aside = path.with_extension("redb.damaged");
    drop(fs::remove_file(&aside));
    let mut store = Redb::new(path).move_damaged_aside();
    assert_eq!(store.load().unwrap(), [], "{what}");
    assert!(aside.exists(), "{what}");
    let (peer, entry) = entries()[0].clone();
    store.write(&[(peer, Some(entry.clone()))]).unwrap();
    drop(store);
    assert_eq!(load(Redb::new(path)).unwrap(), [(peer, entry)], "{what}");
}

#[test]
fn what_is_written_is_there_when_it_is_opened_again() {
    let (_folder, path) = written();
    assert_eq!(load(Redb::new(&path)).unwrap(), entries());
    let mut store = Redb::new(&path);
    let gone: Vec<_> = entries().iter().take(40).map(|(peer, _)| (*peer, None)).collect();
    store.write(&gone).unwrap();
    drop(store);
    assert_eq!(load(Redb::new(&path)).unwrap(), entries()[40..]);
    let names = fs::read_dir(path.parent().unwrap()).unwrap().count();
    assert_eq!(names, 1, "nothing is left beside it");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

/// Whatever bit is flipped, a wrong entry never comes out, and no panic.
#[test]
fn a_flipped_bit_is_an_error_or_changes_nothing() {
    let (_folder, path) = written();
    let whole = fs::read(&path).unwrap();
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap();
    let mut chance = Chance(1);
    let header = (0..320).step_by(3);
    let anywhere = (0..150).map(|_| usize::try_from(chance.below(used as u64)).unwrap());
    let (mut refused, mut older) = (0, 0);
    for at in header.chain(anywhere.collect::<Vec<_>>()) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(&path, &bytes).unwrap();
        let what = format!("byte {at}");
        match load(Redb::new(&path)) {
            Ok(found) => {
                assert!(found.iter().all(|entry| entries().contains(entry)), "{what}");
                older += usize::from(found.len() < entries().len());
            }
            Err(StoreError::Foreign { .. }) => refused += 1,
            Err(error) => {
                assert!(matches!(error, StoreError::Damaged { .. }), "{what}: {error}");
                assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
                refused += 1;
                fs::write(&path, &bytes).unwrap();
                begins_anew(&path, &what);
            }
        }
    }
    eprintln!("{refused} of 257 refused, {older} as they were some writes ago");
    assert!(refused > 20, "{refused}");
}

#[test]
fn many_flipped_bytes_are_an_error_or_change_nothing() {
    let (_folder, path) = written();
    let whole = fs::read(&path).unwrap();
    for seed in 0..60 {
        let mut chance = Chance(1000 + seed);
        let mut bytes = whole.clone();
        for _ in 0..chance.below(2000) + 1 {
            let at = usize::try_from(chance.below(bytes.len() as u64)).unwrap();
            bytes[at] = chance.next() as u8;
        }
        fs::write(&path, &bytes).unwrap();
        if let Ok(found) = load(Redb::new(&path)) {
            assert!(found.iter().all(|entry| entries().contains(entry)), "seed {seed}");
        }
    }
}

#[test]
fn a_file_that_is_cut_off_or_never_was_a_store_is_an_error_or_moved_aside() {
    let (_folder, path) = written();
    let whole = fs::read(&path).unwrap();
    let mut chance = Chance(2);
    for _ in 0..20 {
        let len = usize::try_from(chance.below(whole.len() as u64)).unwrap();
        fs::write(&path, &whole[..len]).unwrap();
        is_damaged(&path, &format!("{len} bytes"));
    }
    let noise: Vec<u8> = (0..100_000).map(|_| chance.next() as u8).collect();
    let header = [&b"redb\x1a\x0a\xa9\x0d\x0a"[..], &noise].concat();
    let contents =
        [&b""[..], b"r", b"redb", b"dear diary", &[0; 4096], &noise, &header, &whole[..9]];
    for content in contents {
        fs::write(&path, content).unwrap();
        let what = format!("{:?}", content.get(..4));
        let error = load(Redb::new(&path)).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{what}: {error}");
        assert_eq!(fs::read(&path).unwrap(), content, "{what} is changed");
        begins_anew(&path, &what);
        assert_eq!(fs::read(path.with_extension("redb.damaged")).unwrap(), content, "{what}");
    }
    fs::write(&path, b"").unwrap();
    let error = load(Redb::new(&path)).unwrap_err().to_string();
    assert_eq!(error, format!("the peer store {} is damaged: it is empty", path.display()));
}

/// A host writes 16 MiB at most, 4 MiB at a time.
#[test]
fn a_file_does_not_grow_with_what_is_written_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("peers.redb");
    let mut store = Redb::new(&path);
    store.load().unwrap();
    let peers: Vec<PeerId> = (0..4096).map(peer).collect();
    let mut longest = 0;
    for round in 0..6 {
        for batch in peers.chunks(1024) {
            let set = |peer: &PeerId| (*peer, Some(vec![round; 4096].into()));
            store.write(&batch.iter().map(set).collect::<Vec<_>>()).unwrap();
            longest = fs::metadata(&path).unwrap().len().max(longest);
        }
    }
    eprintln!("16 MiB of entries took a file of {} MiB at most", longest >> 20);
    assert!(longest <= 80 << 20, "{longest}");
    drop(store);
    assert_eq!(load(Redb::new(&path)).unwrap().len(), 4096);
}

#[test]
fn what_is_something_else_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.redb");
    let left_alone = |path: &Path| {
        let error = load(Redb::new(path).move_damaged_aside()).unwrap_err();
        assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
        assert!(error.to_string().starts_with(path.to_str().unwrap()), "{error}");
    };
    left_alone(folder.path());
    // Another program's tables.
    let table: TableDefinition<'_, &str, u64> = TableDefinition::new("recipes");
    let other = Database::create(&path).unwrap();
    let change = other.begin_write().unwrap();
    change.open_table(table).unwrap().insert("eggs", 3).unwrap();
    change.commit().unwrap();
    drop(other);
    left_alone(&path);
    let other = Database::open(&path).unwrap();
    let kept = other.begin_read().unwrap().open_table(table).unwrap().get("eggs").unwrap();
    assert_eq!(kept.unwrap().value(), 3);
    // Longer than any store.
    let long = folder.path().join("long.redb");
    let file = fs::File::create(&long).unwrap();
    file.set_len(p2p_store_redb::FILE_LEN_MAX + 1).unwrap();
    left_alone(&long);
}

#[test]
fn a_file_of_a_newer_version_is_an_error_that_names_both_and_loses_nothing() {
    let format: TableDefinition<'_, &str, u64> = TableDefinition::new("format");
    let (_folder, path) = written();
    let set = |key, number| {
        let db = Database::open(&path).unwrap();
        let change = db.begin_write().unwrap();
        change.open_table(format).unwrap().insert(key, number).unwrap();
        change.commit().unwrap();
    };
    for (key, what, known) in
        [("layout", "file's layout", 1), ("entries", "entries' form", STORE_ENTRY_VERSION)]
    {
        set(key, 7);
        let error = load(Redb::new(&path).move_damaged_aside()).unwrap_err();
        assert!(matches!(error, StoreError::Newer { found: 7, .. }), "{error}");
        let expected = format!(
            "the peer store {} was written by a newer version: its {what} has number 7, and this \
             one knows {known}; its content is unchanged",
            path.display()
        );
        assert_eq!(error.to_string(), expected);
        set(key, known.into());
        assert_eq!(load(Redb::new(&path)).unwrap(), entries());
    }
}

#[test]
fn a_file_that_another_process_has_open_is_in_use() {
    if let Some(path) = part() {
        let mut store = Redb::new(path);
        store.load().unwrap();
        tell("open");
        // Until the other end is gone.
        std::io::stdin().lines().next();
        return;
    }
    let (_folder, path) = written();
    let test = "a_file_that_another_process_has_open_is_in_use";
    let mut other = Ended(child(&[], test, path.to_str().unwrap()).spawn().unwrap());
    let mut lines = BufReader::new(other.0.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().ends_with("open")));
    let error = load(Redb::new(&path).move_damaged_aside()).unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    let text = "is open already, in this process or another";
    assert_eq!(error.to_string(), format!("the peer store {} {text}", path.display()));
    drop(other.0.stdin.take());
    assert!(other.0.wait().unwrap().success());
    let mut store = Redb::new(&path);
    assert_eq!(store.load().unwrap().len(), entries().len());
    // Nor does this process open it twice.
    assert!(matches!(load(Redb::new(&path)), Err(StoreError::InUse { .. })));
}

#[cfg(unix)]
#[test]
fn a_file_that_may_not_be_read_or_made_is_an_error_of_the_system() {
    use std::os::unix::fs::PermissionsExt as _;

    let test = "a_file_that_may_not_be_read_or_made_is_an_error_of_the_system";
    if let Some(path) = part() {
        let path = Path::new(&path);
        for (path, action) in [(path.to_owned(), "opened"), (path.with_extension("x"), "created")] {
            let error = load(Redb::new(&path).move_damaged_aside()).unwrap_err();
            let StoreError::Io { cause, .. } = &error else { panic!("{error}") };
            assert_eq!(cause.kind(), std::io::ErrorKind::PermissionDenied);
            let text = format!("the peer store {} cannot be {action}: ", path.display());
            assert!(error.to_string().starts_with(&text), "{error}");
        }
        return;
    }
    let (folder, path) = written();
    let missing = folder.path().join("no/such/folder");
    let error = load(Redb::new(&missing)).unwrap_err();
    assert!(error.to_string().contains("cannot be created: "), "{error}");
    let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
    set(&path, 0o000).unwrap();
    set(folder.path(), 0o555).unwrap();
    // Root may read everything; nobody may not.
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let before = if fs::File::open(&path).is_ok() { &nobody[..] } else { &[] };
    let ended = child(before, test, path.to_str().unwrap()).output();
    set(folder.path(), 0o755).unwrap();
    match ended {
        Ok(output) if output.status.success() => {}
        Ok(output) if String::from_utf8_lossy(&output.stdout).contains("test result") => {
            panic!("{}", String::from_utf8_lossy(&output.stdout));
        }
        other => eprintln!("SKIPPED: this machine has no `setpriv` that works: {other:?}"),
    }
}
