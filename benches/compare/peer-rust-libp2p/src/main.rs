use std::process::ExitCode;

fn main() -> ExitCode {
    compare_peer::main::<peer_rust_libp2p::Peer>(None)
}
