//! The README's echo, as somebody who has found this project today tries it.

use std::{env, fs, path::Path, process::Command};

/// Copied into a new crate, with `p2p` as its only dependency of libp2p, it compiles and runs.
#[test]
fn the_echo_of_the_readme_runs_in_a_new_crate() {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let readme = fs::read_to_string(root.join("README.md")).expect("the README");
    let (_, echo) = readme.split_once("## Echo").expect("the chapter");
    let (_, code) = echo.split_once("```rust\n").expect("code");
    let (code, _) = code.split_once("```").expect("its end");

    // It keeps what was compiled for the next time.
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("new-crate");
    fs::create_dir_all(dir.join("src")).expect("a folder");
    let manifest = format!(
        r#"
        [package]
        name = "new-crate"
        edition = "2024"

        [dependencies]
        p2p = {{ path = {:?} }}
        tokio = {{ version = "1", features = ["full"] }}

        [profile.dev]
        debug = 0

        [workspace]
        "#,
        root.join("crates/p2p").canonicalize().expect("the crate")
    );
    fs::write(dir.join("Cargo.toml"), manifest).expect("written");
    fs::write(dir.join("src/main.rs"), code).expect("written");
    // The versions that are here already, so that nothing has to be downloaded.
    fs::copy(root.join("Cargo.lock"), dir.join("Cargo.lock")).expect("copied");

    let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut run = Command::new(cargo);
    run.args(["run", "--quiet", "--offline"]).current_dir(&dir);
    run.env("CARGO_TARGET_DIR", dir.join("target"));
    let output = run.output().expect("cargo");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(stdout.starts_with("hello from 12D3KooW"), "{stdout}{stderr}");
}
