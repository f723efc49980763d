//! What the workspace claims of itself, read from cargo.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{fs, path::PathBuf, process::Command};

use serde_json::Value;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn cargo(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).args(args).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn metadata() -> Value {
    let version = cargo(&["-vV"]);
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let args = ["metadata", "--locked", "--format-version", "1", "--filter-platform", host];
    serde_json::from_str(&cargo(&args)).unwrap()
}

fn packages(metadata: &Value) -> Vec<&Value> {
    metadata["packages"].as_array().unwrap().iter().collect()
}

fn name(package: &Value) -> &str {
    package["name"].as_str().unwrap()
}

/// The crates of ours that a crate may depend on, outside of its tests.
const INWARD: [(&str, &[&str]); 12] = [
    ("p2p-core", &[]),
    ("p2p-multistream", &["p2p-core"]),
    ("p2p-security-noise", &["p2p-core"]),
    ("p2p-security-plaintext", &["p2p-core"]),
    ("p2p-mux", &["p2p-core"]),
    ("p2p-transport-tcp", &["p2p-core"]),
    ("p2p-dns", &["p2p-core"]),
    ("p2p-pnet", &["p2p-core"]),
    ("p2p-store-redb", &["p2p-core"]),
    ("p2p-host", &["p2p-core", "p2p-multistream", "p2p-mux"]),
    (
        "p2p",
        &[
            "p2p-core",
            "p2p-dns",
            "p2p-host",
            "p2p-multistream",
            "p2p-mux",
            "p2p-pnet",
            "p2p-security-noise",
            "p2p-security-plaintext",
            "p2p-store-redb",
            "p2p-transport-tcp",
        ],
    ),
    ("p2p-cli", &["p2p"]),
];

/// What nobody depends on, and what may depend on all.
const OUTSIDE: [&str; 4] = ["p2p-benches", "p2p-examples", "p2p-fuzz-targets", "p2p-testkit"];

#[test]
fn dependencies_point_inward() {
    let metadata = metadata();
    for package in packages(&metadata) {
        if !package["source"].is_null() || OUTSIDE.contains(&name(package)) {
            continue;
        }
        let (_, allowed) = INWARD.iter().find(|(krate, _)| *krate == name(package)).unwrap();
        for dependency in package["dependencies"].as_array().unwrap() {
            let ours = dependency["path"].is_string() && dependency["kind"].is_null();
            let to = name(dependency);
            assert!(!ours || allowed.contains(&to), "{} depends on {to}", name(package));
        }
    }
}

/// The host is given its transports, ciphers, multiplexers and resolver as values. Of `p2p-mux` it has the
/// driver alone.
#[test]
fn the_host_names_no_transport_cipher_muxer_or_resolver() {
    let metadata = metadata();
    let all = packages(&metadata);
    let host = all.iter().find(|package| name(package) == "p2p-host").unwrap();
    let dependencies = host["dependencies"].as_array().unwrap();
    let normal = dependencies.iter().filter(|dependency| dependency["kind"].is_null());
    for dependency in normal {
        let to = name(dependency);
        let concrete = ["transport", "security", "dns", "hickory", "store", "redb"];
        assert!(!concrete.iter().any(|word| to.contains(word)), "depends on {to}");
        if to == "p2p-mux" {
            assert_eq!(dependency["uses_default_features"], false);
            assert_eq!(dependency["features"].as_array().unwrap().len(), 0);
        }
    }
    let sources = root().join("crates/p2p-host/src");
    for entry in fs::read_dir(sources).unwrap() {
        let path = entry.unwrap().path();
        // Its documentation may name some, as an example, and its tests.
        let text = fs::read_to_string(&path).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let code = lines.collect::<Vec<_>>().join("\n");
        for word in
            ["Yamux", "yamux::", "Noise::", "Tcp::", "p2p_security", "p2p_transport", "p2p_dns"]
        {
            assert!(!code.contains(word), "{} names {word}", path.display());
        }
    }
}

#[test]
fn no_dependency_needs_a_newer_rust_than_the_workspace_states() {
    fn version(text: &str) -> Vec<u64> {
        text.split('.').map(|part| part.parse().unwrap()).chain([0, 0]).take(3).collect()
    }
    let metadata = metadata();
    let all = packages(&metadata);
    let of = |package: &Value| version(package["rust_version"].as_str().unwrap_or("1.0.0"));
    let ours = all.iter().filter(|package| package["source"].is_null());
    let stated = ours.map(|package| of(package)).min().unwrap();
    for package in &all {
        // Behind a feature of its own, which says so.
        if ["p2p-store-redb", "redb"].contains(&name(package)) {
            assert!(of(package) <= version("1.90"), "{} needs more", name(package));
            continue;
        }
        assert!(of(package) <= stated, "{} needs Rust {:?}", name(package), of(package));
    }
}

#[test]
fn the_default_features_bring_at_most_110_crates() {
    let tree = cargo(&["tree", "--locked", "-p", "p2p", "-e", "normal", "--prefix", "none"]);
    let mut crates: Vec<&str> =
        tree.lines().filter_map(|line| line.split(' ').next()).filter(|n| !n.is_empty()).collect();
    crates.sort_unstable();
    crates.dedup();
    assert!(crates.len() <= 110, "{}: {crates:?}", crates.len());
    assert!(crates.contains(&"p2p-transport-tcp"), "the count is of the whole stack");
}

#[test]
fn without_the_feature_ring_no_c_compiler_is_needed() {
    let tree = |features: &[&str]| {
        let args = ["tree", "--locked", "-p", "p2p", "-e", "normal,build", "--prefix", "none"];
        cargo(&[&args[..], features].concat())
    };
    let needs_c = |tree: &str| tree.lines().any(|line| line.starts_with("cc "));
    assert!(needs_c(&tree(&[])));
    assert!(!needs_c(&tree(&["--no-default-features", "--features", "tcp,noise,yamux"])));
}

#[test]
fn the_generated_code_is_what_the_proto_files_say() {
    for (proto, kept) in [
        ("envelope", "p2p-core/src/envelope_proto.rs"),
        ("noise", "p2p-security-noise/src/proto.rs"),
        ("plaintext", "p2p-security-plaintext/src/proto.rs"),
        ("identify", "p2p-host/src/proto.rs"),
        ("peer_entry", "p2p-host/src/entry_proto.rs"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let descriptors = protox::compile([format!("{proto}.proto")], [root().join("proto")]);
        let mut config = prost_build::Config::new();
        config.out_dir(folder.path()).compile_fds(descriptors.unwrap()).unwrap();
        let made = fs::read_to_string(folder.path().join(format!("p2p.{proto}.rs"))).unwrap();
        let kept = root().join("crates").join(kept);
        if std::env::var_os("UPDATE_PROTO").is_some() {
            fs::write(&kept, &made).unwrap();
        }
        assert!(
            fs::read_to_string(&kept).unwrap() == made,
            "{} differs from proto/{proto}.proto: run this test with UPDATE_PROTO=1",
            kept.display()
        );
    }
}
