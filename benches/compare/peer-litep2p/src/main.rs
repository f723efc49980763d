use std::process::ExitCode;

fn main() -> ExitCode {
    compare_peer::main::<peer_litep2p::Peer>(None)
}
