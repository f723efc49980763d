//! What the fuzzers have found, run again: each input as it is, cut at every length, and changed.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::BTreeSet,
    fs,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
};

use p2p_fuzz_targets::TARGETS;

/// How many cut and how many changed inputs a target is given, in all.
const VARIANTS: usize = 1000;
/// The same where one run takes long.
const VARIANTS_SLOW: usize = 60;
const SLOW: [&str; 13] = [
    "connection",
    "envelope",
    "key_file",
    "mplex_pair",
    "mplex_session",
    "multistream_pair",
    "noise_handshake",
    "noise_record",
    "pnet_stream",
    "private_key",
    "private_key_pem",
    "yamux_pair",
    "yamux_session",
];

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let name = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
    let mut names: Vec<String> = entries.map(|entry| name(entry.unwrap())).collect();
    names.sort();
    names
}

/// The target's corpus and regressions, with their paths.
fn inputs(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let mut inputs = Vec::new();
    for kind in ["corpus", "regressions"] {
        let folder = fuzz().join(kind).join(target);
        for path in names(&folder).iter().map(|name| folder.join(name)) {
            let data = fs::read(&path).unwrap();
            inputs.push((path, data));
        }
    }
    inputs
}

fn run(target: fn(&[u8]), data: &[u8], what: &dyn std::fmt::Display) {
    let result = panic::catch_unwind(AssertUnwindSafe(|| target(data)));
    assert!(result.is_ok(), "failed with {what}: {}", data.escape_ascii());
}

fn variants(target: &str) -> usize {
    if SLOW.contains(&target) { VARIANTS_SLOW } else { VARIANTS }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % end as u64).unwrap()
    }
}

#[test]
fn every_target_has_a_corpus_a_fuzzer_and_a_name_of_its_own() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(targets.len(), TARGETS.len());
    let corpora: BTreeSet<String> = names(&fuzz().join("corpus")).into_iter().collect();
    assert_eq!(targets, corpora);
    for folder in names(&fuzz().join("regressions")) {
        assert!(targets.contains(&folder), "regressions of {folder}, which is no target");
    }
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    for target in &targets {
        assert!(!names(&fuzz().join("corpus").join(target)).is_empty(), "{target} has no corpus");
        let path = format!("fuzz_targets/{target}.rs");
        let source = fs::read_to_string(fuzz().join(&path)).unwrap();
        assert!(source.contains(&format!("p2p_fuzz_targets::{target}(data)")), "{path}");
        assert!(manifest.contains(&format!("path = \"{path}\"")), "fuzz/Cargo.toml lacks {target}");
    }
}

#[test]
fn every_input_that_was_found_runs() {
    for (name, target) in TARGETS {
        run(*target, &[], name);
        for (path, data) in inputs(name) {
            run(*target, &data, &path.display());
        }
    }
}

#[test]
fn inputs_cut_at_every_length_run() {
    for (name, target) in TARGETS {
        let inputs = inputs(name);
        let cuts: usize = inputs.iter().map(|(_, data)| data.len()).sum();
        // All of them, or as many as there is time for, at even distances.
        let stride = cuts.div_ceil(variants(name)).max(1);
        let all =
            inputs.iter().flat_map(|(path, data)| (0..data.len()).map(move |n| (path, &data[..n])));
        for (path, cut) in all.step_by(stride) {
            run(*target, cut, &path.display());
        }
    }
}

#[test]
fn inputs_with_seeded_changes_run() {
    for (name, target) in TARGETS {
        let inputs = inputs(name);
        let mut random = Random(inputs.len() as u64);
        for _ in 0..variants(name) {
            let (path, data) = &inputs[random.below(inputs.len())];
            let mut data = data.clone();
            for _ in 0..1 + random.below(4) {
                let at = random.below(data.len() + 1);
                let byte = random.below(256).to_le_bytes()[0];
                match random.below(4) {
                    0 => data.insert(at, byte),
                    1 if at < data.len() => drop(data.remove(at)),
                    2 if at < data.len() => data[at] ^= 1 << (byte & 7),
                    _ if at < data.len() => data[at] = byte,
                    _ => data.push(byte),
                }
            }
            run(*target, &data, &path.display());
        }
    }
}
