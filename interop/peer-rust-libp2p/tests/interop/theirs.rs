use std::{ffi::OsStr, path::Path};

use p2p::{AddrExt as _, Multiaddr, PeerId};

use crate::process::Process;

/// The agent that the peer's identify names.
pub(crate) const AGENT: &str = "rust-libp2p/0.57";

/// A rust-libp2p node that answers ping, identify and echo.
pub(crate) struct Listener {
    pub(crate) process: Process,
    /// Its address, which ends in `/p2p/ID`.
    pub(crate) addr: String,
}

impl Listener {
    pub(crate) async fn start() -> Self {
        let mut process = command(&["listen", "--listen", "/ip4/127.0.0.1/tcp/0"]);
        let addr = process.event("listening").await["addr"].as_str().unwrap().to_owned();
        Self { process, addr }
    }

    pub(crate) fn bare_addr(&self) -> Multiaddr {
        self.split_addr().0
    }

    pub(crate) fn peer(&self) -> PeerId {
        self.split_addr().1
    }

    fn split_addr(&self) -> (Multiaddr, PeerId) {
        let addr: Multiaddr = self.addr.parse().unwrap();
        let (bare, peer) = addr.split_peer().unwrap();
        (bare, peer.unwrap())
    }
}

/// Runs a command of the rust-libp2p program.
pub(crate) fn command<S: AsRef<OsStr>>(args: &[S]) -> Process {
    Process::start(Path::new(env!("CARGO_BIN_EXE_peer-rust-libp2p")), args)
}
