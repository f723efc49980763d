//! Peers, entries, chance, and processes that run one test of this program.
#![allow(dead_code, unreachable_pub, reason = "shared by several test programs")]
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    io::Write,
    process::{Child, Command, Stdio},
};

use bytes::Bytes;
use p2p_core::{Keypair, PeerId, Store, StoreError};
use p2p_store_redb::Redb;

/// What a child process of a test is told its part by.
const PART: &str = "P2P_STORE_TEST_PART";

/// Numbers that are the same for each seed (splitmix64).
pub struct Chance(pub u64);

impl Chance {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

pub fn peer(number: u64) -> PeerId {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&number.to_be_bytes());
    Keypair::from_ed25519_seed(&seed).public().peer_id()
}

pub fn load(store: Redb) -> Result<Vec<(PeerId, Bytes)>, StoreError> {
    let mut store = store;
    let mut entries = store.load()?;
    entries.sort_unstable_by_key(|(peer, _)| *peer);
    Ok(entries)
}

/// The part of this process, if it is a child.
pub fn part() -> Option<String> {
    std::env::var(PART).ok()
}

/// Says a line to the parent. The test's name may stand before the first one.
pub fn tell(line: &str) {
    let mut out = std::io::stdout();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}

/// A child process that runs `test` of this program with `part`. `before` are a program and its
/// arguments that are to run it.
pub fn child(before: &[&str], test: &str, part: &str) -> Command {
    let own = std::env::current_exe().unwrap();
    let mut command = match before {
        [] => Command::new(own),
        [program, args @ ..] => {
            let mut command = Command::new(program);
            command.args(args).arg(own);
            command
        }
    };
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(PART, part);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

/// A child that is ended with the test.
pub struct Ended(pub Child);

impl Drop for Ended {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
