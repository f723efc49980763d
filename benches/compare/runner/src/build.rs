//! Building the peers, and measuring clean builds.

use std::{fs, path::Path, process::Command, time::Instant};

use compare_peer::Failure;
use serde_json::{Map, Value, json};

use crate::{
    options::{self, Options},
    plan::OF_OPENSSL,
};

const PEERS: [&str; 4] = ["peer-p2p", "peer-rust-libp2p", "sealed-pipe", "peer-litep2p"];

/// A program that depends on one implementation and nothing else: TCP, Noise, Yamux, ping and
/// identify.
const DEPENDENCIES: [(&str, &str); 4] = [
    ("p2p", "p2p = { path = \"REPOSITORY/crates/p2p\" }"),
    (
        "p2p without ring",
        "p2p = { path = \"REPOSITORY/crates/p2p\", default-features = false, \
         features = [\"noise\", \"tcp\", \"yamux\"] }",
    ),
    (
        "rust-libp2p",
        "libp2p = { version = \"0.57.1\", features = [\"ed25519\", \"identify\", \"macros\", \
         \"noise\", \"ping\", \"tcp\", \"tokio\", \"yamux\"] }",
    ),
    ("litep2p", "litep2p = { version = \"0.16.0\", default-features = false }"),
];

fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Those that have the feature `openssl`.
const WITH_OPENSSL: [&str; 2] = ["peer-p2p", "sealed-pipe"];

/// Builds the peers; gives those that cannot be built, and the contenders that they then cannot be.
pub fn peers() -> Result<Vec<String>, Failure> {
    let mut missing = Vec::new();
    let openssl = has_openssl();
    if !openssl {
        eprintln!(
            "\n!!! WITHOUT {}: no OpenSSL of version 3 or later with its headers, or no \
             pkg-config (Debian: libssl-dev, pkg-config) !!!\n",
            OF_OPENSSL.join(" AND ")
        );
        missing.extend(OF_OPENSSL.map(str::to_owned));
    }
    for peer in PEERS {
        eprintln!("building {peer}");
        let status = cargo()
            .args(["build", "--release", "--quiet", "--package", peer, "--manifest-path"])
            .arg(options::workspace().join("Cargo.toml"))
            .arg("--target-dir")
            .arg(options::target_folder()?)
            .args((openssl && WITH_OPENSSL.contains(&peer)).then_some("--features=openssl"))
            .status()?;
        if !status.success() {
            eprintln!("\n!!! WITHOUT {peer}: it could not be built (litep2p needs protoc) !!!\n");
            missing.push(peer.to_owned());
        }
    }
    Ok(missing)
}

fn has_openssl() -> bool {
    let found = Command::new("pkg-config").args(["--exists", "openssl >= 3"]).status();
    found.is_ok_and(|status| status.success())
}

/// Clean debug builds: wall and processor time, and how many crates there are. What is measured is
/// written after each.
pub fn times(options: &Options) -> Result<(), Failure> {
    let rounds = options.rounds.unwrap_or(1);
    let folder = options::target_folder()?.join("compare-builds");
    let mut report: Map<String, Value> = Map::new();
    for (name, dependency) in DEPENDENCIES {
        let project = folder.join(name.replace(' ', "-"));
        prepare(&project, dependency)?;
        let tree = cargo()
            .args(["tree", "--edges", "normal", "--prefix", "none"])
            .current_dir(&project)
            .output()?;
        if !tree.status.success() {
            eprintln!("{name}: {}", String::from_utf8_lossy(&tree.stderr));
            continue;
        }
        let text = String::from_utf8_lossy(&tree.stdout);
        let mut crates: Vec<&str> =
            text.lines().filter_map(|line| line.split(' ').next()).collect();
        crates.sort_unstable();
        crates.dedup();
        let fetched = cargo().arg("fetch").current_dir(&project).status()?;
        let (mut wall, mut cpu) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            eprintln!("clean build of {name}, {} of {rounds}", round + 1);
            let target = project.join("target");
            drop(fs::remove_dir_all(&target));
            let (begun, before) = (Instant::now(), children_cpu()?);
            let built = cargo()
                .args(["build", "--quiet", "--target-dir"])
                .arg(&target)
                .current_dir(&project)
                .status()?;
            if !(fetched.success() && built.success()) {
                eprintln!("!!! {name} could not be built !!!");
                break;
            }
            wall.push(begun.elapsed().as_secs_f64());
            cpu.push(children_cpu()? - before);
            fs::remove_dir_all(&target)?;
        }
        // Itself is one of them.
        let crates = crates.len().saturating_sub(1);
        report.insert(name.into(), json!({ "crates": crates, "wall_s": wall, "cpu_s": cpu }));
        let text = serde_json::to_string_pretty(&report)?;
        fs::write(options.out_folder()?.join("build.json"), text + "\n")?;
    }
    Ok(())
}

fn prepare(project: &Path, dependency: &str) -> Result<(), Failure> {
    fs::create_dir_all(project.join("src"))?;
    let repository = options::repository().display().to_string();
    let manifest = format!(
        "[workspace]\n\n[package]\nname = \"like\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n\
         [dependencies]\n{}\n",
        dependency.replace("REPOSITORY", &repository)
    );
    fs::write(project.join("Cargo.toml"), manifest)?;
    fs::write(project.join("src/main.rs"), "fn main() {}\n")?;
    // The versions that were compared.
    fs::copy(options::workspace().join("Cargo.lock"), project.join("Cargo.lock"))?;
    Ok(())
}

/// Processor time of all ended children and theirs, in seconds.
fn children_cpu() -> Result<f64, Failure> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let after_name = stat.rsplit(") ").next().ok_or("no stat")?;
    let fields: Vec<&str> = after_name.split(' ').collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok());
    // The 16th and 17th of all, in hundredths of a second on every Linux there is.
    Ok(ticks(13).zip(ticks(14)).map(|(user, system)| user + system).ok_or("no times")? / 100.0)
}
