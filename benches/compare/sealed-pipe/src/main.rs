use std::process::ExitCode;

fn main() -> ExitCode {
    compare_peer::main::<sealed_pipe::Peer>(None)
}
