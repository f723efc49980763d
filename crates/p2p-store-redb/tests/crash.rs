//! A process that writes without pause is killed, over and over.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::Path,
};

use bytes::Bytes;
use common::{Chance, Ended, child, load, part, peer, tell};
use p2p_core::{PeerId, Store};
use p2p_store_redb::Redb;

const TEST: &str = "a_process_that_is_killed_leaves_what_was_confirmed_and_nothing_by_halves";
const PEERS: u64 = 200;

/// The changes of one write: some entries set, some removed.
fn changes(number: u64) -> Vec<(PeerId, Option<Bytes>)> {
    let mut chance = Chance(number);
    (0..chance.below(30) + 1)
        .map(|_| {
            let peer = peer(chance.below(PEERS));
            let len = usize::try_from(chance.below(6000)).unwrap();
            let entry = (chance.below(4) > 0).then(|| vec![number as u8; len].into());
            (peer, entry)
        })
        .collect()
}

/// Writes from number `first` on, and tells of each write when it is done.
fn write_for_ever(path: &Path, first: u64) {
    let mut store = Redb::new(path);
    store.load().unwrap();
    tell("open");
    for number in first.. {
        store.write(&changes(number)).unwrap();
        tell(&format!("done {number}"));
    }
}

fn apply(model: &mut BTreeMap<PeerId, Bytes>, number: u64) {
    for (peer, entry) in changes(number) {
        match entry {
            Some(entry) => model.insert(peer, entry),
            None => model.remove(&peer),
        };
    }
}

/// Each time the store holds exactly what it held after some write, which is the last one that was
/// confirmed, or the one after it.
#[test]
fn a_process_that_is_killed_leaves_what_was_confirmed_and_nothing_by_halves() {
    if let Some(part) = part() {
        let (first, path) = part.split_once(' ').unwrap();
        return write_for_ever(Path::new(path), first.parse().unwrap());
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("peers.redb");
    let (mut model, mut next, mut unconfirmed) = (BTreeMap::new(), 0, 0);
    for seed in 0..60 {
        let mut chance = Chance(seed);
        // Every third time, it is killed as it makes the file, or soon after.
        let begins = seed % 3 == 0;
        if begins {
            drop(std::fs::remove_file(&path));
            (model, next) = (BTreeMap::new(), 0);
        }
        let part = format!("{next} {}", path.display());
        let mut process = Ended(child(&[], TEST, &part).spawn().unwrap());
        let mut lines = BufReader::new(process.0.stdout.take().unwrap()).lines();
        let mut done = |line: String| {
            let Some(number) = line.strip_prefix("done ") else { return false };
            assert_eq!(number.parse::<u64>().unwrap(), next, "seed {seed}");
            apply(&mut model, next);
            next += 1;
            true
        };
        let wanted = if begins { chance.below(2) } else { chance.below(12) + 1 };
        let mut count = 0;
        while count < wanted {
            count += u64::from(done(lines.next().unwrap().unwrap()));
        }
        for _ in 0..chance.below(3_000_000) {
            std::hint::spin_loop();
        }
        process.0.kill().unwrap();
        process.0.wait().unwrap();
        // What it had told before it died is confirmed as well. A line may be cut off.
        for line in lines.map_while(Result::ok) {
            done(line);
        }
        let entries = load(Redb::new(&path)).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let found: BTreeMap<PeerId, Bytes> = entries.into_iter().collect();
        if found != model {
            apply(&mut model, next);
            next += 1;
            unconfirmed += 1;
        }
        assert!(found == model, "seed {seed}: what was confirmed up to {next} is not there");
    }
    eprintln!("{unconfirmed} of 60 times one more write was there than was confirmed");
}
