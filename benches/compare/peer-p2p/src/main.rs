use std::process::ExitCode;

fn main() -> ExitCode {
    compare_peer::main::<peer_p2p::Peer>(None)
}
