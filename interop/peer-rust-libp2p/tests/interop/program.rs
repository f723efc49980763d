//! The `p2p` program.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use serde_json::Value;

use crate::{
    limited,
    ours::{ECHO, IDENTIFY, PING},
    process::{Process, texts},
    theirs::{self, Listener},
};

/// Where the program is: what `P2P_BIN` names, or else built here, once.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| std::env::var_os("P2P_BIN").map_or_else(build, PathBuf::from))
}

fn build() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.toml");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let built = Command::new(cargo)
        .args(["build", "--release", "-p", "p2p-cli", "--bin", "p2p"])
        .args(["--message-format", "json-render-diagnostics", "--manifest-path"])
        .arg(manifest)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "p2p-cli does not build:\n{errors}");
    let messages = String::from_utf8(built.stdout).unwrap();
    let executable = messages.lines().find_map(|line| {
        let message: Value = serde_json::from_str(line).unwrap();
        let ours = message["reason"] == "compiler-artifact" && message["target"]["name"] == "p2p";
        message["executable"].as_str().filter(|_| ours).map(PathBuf::from)
    });
    executable.unwrap_or_else(|| panic!("cargo names no executable p2p:\n{errors}"))
}

/// Our program as a node, and its address.
async fn listen() -> (Process, String) {
    let mut process =
        Process::start(program(), &["listen", "--json", "--listen", "/ip4/127.0.0.1/tcp/0"]);
    let addr = process.event("listening").await["addr"].as_str().unwrap().to_owned();
    (process, addr)
}

#[tokio::test]
async fn the_program_pings_their_listener() {
    let program = program();
    limited(async {
        let listener = Listener::start().await;
        let ended =
            Process::start(program, &["ping", &listener.addr, "-c", "3", "--json"]).end().await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let pings = ended.lines.iter().filter(|line| line["event"] == "ping");
        assert_eq!(pings.count(), 3, "{ended:?}");
    })
    .await;
}

#[tokio::test]
async fn the_program_identifies_their_listener() {
    let program = program();
    limited(async {
        let listener = Listener::start().await;
        let info =
            Process::start(program, &["identify", &listener.addr, "--json"]).end().await.success();
        assert_eq!(info["peer"], listener.peer().to_string(), "{info}");
        assert_eq!(info["agent"], theirs::AGENT, "{info}");
        assert_eq!(texts(&info["listen_addrs"]), [listener.bare_addr().to_string()]);
        for protocol in [ECHO, IDENTIFY, PING] {
            assert!(texts(&info["protocols"]).contains(&protocol), "{info}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_program_fails_when_their_listener_is_gone() {
    let program = program();
    limited(async {
        let mut listener = Listener::start().await;
        listener.process.kill().await;
        for args in [vec!["ping", "-c", "1"], vec!["identify"]] {
            let args = [&args[..], &[&listener.addr, "--json"]].concat();
            let ended = Process::start(program, &args).end().await;
            assert_eq!(ended.code, Some(1), "{ended:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn their_dialer_pings_the_program() {
    program();
    limited(async {
        let (_node, addr) = listen().await;
        let ended = theirs::command(&["ping", &addr, "-c", "3"]).end().await;
        assert_eq!((ended.code, ended.lines.len()), (Some(0), 3), "{ended:?}");
    })
    .await;
}

#[tokio::test]
async fn their_dialer_identifies_the_program() {
    program();
    limited(async {
        let (_node, addr) = listen().await;
        let info = theirs::command(&["identify", &addr]).end().await.success();
        let (bare, id) = addr.split_once("/p2p/").unwrap();
        assert_eq!(info["peer"], id);
        assert_eq!(texts(&info["listen_addrs"]), [bare]);
        for protocol in [ECHO, IDENTIFY, PING] {
            assert!(texts(&info["protocols"]).contains(&protocol), "{info}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_program_echoes_10_mib_and_64_streams_of_theirs() {
    program();
    limited(async {
        let (_node, addr) = listen().await;
        theirs::command(&["echo", &addr, "--bytes", "10485760"]).end().await.success();
        let load = ["echo", &addr, "--bytes", "102400", "--streams", "64"];
        theirs::command(&load).end().await.success();
    })
    .await;
}
