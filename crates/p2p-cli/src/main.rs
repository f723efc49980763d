//! The `p2p` program: libp2p from the command line.
//!
//! ```text
//!   args ──► run ──┬─► demo | listen | ping | pipe | … ──► Output (stdout: text or JSON)
//!                  └─► Stop ◄── Ctrl-C, SIGTERM, nobody reads stdout
//! ```
//!
//! `pipe` and `forward --stdio` have data on stdout, and their events on stderr.
//!
//! Every command gives its exit code or a [`Failure`]; only this file ends the program. Logs go
//! to stderr, so that stdout holds nothing but the command's own events.

mod args;
mod carry;
mod demo;
mod doctor;
mod failure;
mod forward;
mod identify;
mod key;
mod listen;
mod output;
mod peer;
mod perf;
mod ping;
mod pipe;
mod progress;
mod redact;
mod round_trips;
mod serve_tcp;
mod socket;
mod stop;
mod transfer;

use std::{io::IsTerminal, process::ExitCode};

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::{
    args::{Args, Command},
    failure::Failure,
    output::Output,
    stop::Stop,
};

/// Exit code of wrong use; clap uses the same.
const WRONG_USE: u8 = 2;

fn main() -> ExitCode {
    let args = Args::parse();
    if let Err(error) = args.check() {
        error.exit();
    }
    let stop = Stop::default();
    let out = Output::new(args.json, args.command.has_data_on_stdout(), stop.clone());
    if let Err(failure) = log(args.verbose) {
        out.failure(&failure);
        return ExitCode::from(WRONG_USE);
    }
    let code = run(&args.command, &out, &stop).unwrap_or_else(|failure| {
        out.failure(&failure);
        1
    });
    ExitCode::from(out.finish(code))
}

fn run(command: &Command, out: &Output, stop: &Stop) -> Result<u8, Failure> {
    match command {
        Command::Demo { file } => with_runtime(out, stop, demo::run(file.as_deref(), out, stop)),
        Command::Listen { listen, perf } => {
            with_runtime(out, stop, listen::run(listen, *perf, out, stop))
        }
        Command::Ping(ping) => with_runtime(out, stop, ping::run(ping, out, stop)),
        Command::Identify(peer) => with_runtime(out, stop, identify::run(peer, out, stop)),
        Command::Pipe { command } => with_runtime(out, stop, pipe::run(command, out, stop)),
        Command::Forward(forward) => with_runtime(out, stop, forward::run(forward, out, stop)),
        Command::ServeTcp(serve) => with_runtime(out, stop, serve_tcp::run(serve, out, stop)),
        Command::Send(send) => with_runtime(out, stop, transfer::send(send, out, stop)),
        Command::Recv(recv) => with_runtime(out, stop, transfer::recv(recv, out, stop)),
        Command::Perf(perf) => with_runtime(out, stop, perf::run(perf, out, stop)),
        Command::Doctor { addr, timeout } => {
            with_runtime(out, stop, doctor::run(addr.as_ref(), *timeout, out, stop))
        }
        Command::Completions { shell } => completions(*shell, out),
        Command::Key { command } => key::run(command, out),
    }
}

/// Runs a command that uses the network, until its end or until `stop` has made it end.
fn with_runtime(
    out: &Output,
    stop: &Stop,
    command: impl Future<Output = Result<u8, Failure>>,
) -> Result<u8, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("cannot start the runtime: {error}")))?;
    stop::on_signals(stop.clone())
        .map_err(|error| Failure::new(format!("cannot watch for signals: {error}")))?;
    let result = runtime.block_on(async {
        if out.is_on_stderr() {
            // Whoever reads the data is gone when it cannot be written.
            return command.await;
        }
        let watch = tokio::spawn(output::stop_without_reader(stop.clone()));
        let result = command.await;
        watch.abort();
        result
    });
    // A read of a file that hangs must not keep the program.
    runtime.shutdown_background();
    result
}

/// Says the script itself, and nothing else.
fn completions(shell: clap_complete::Shell, out: &Output) -> Result<u8, Failure> {
    let mut script = Vec::new();
    let mut command = <Args as clap::CommandFactory>::command();
    clap_complete::generate(shell, &mut command, "p2p", &mut script);
    let script = String::from_utf8_lossy(&script);
    let fields = [("shell", shell.to_string().into()), ("script", script.as_ref().into())];
    out.event("completions", &fields, script.trim_end());
    Ok(0)
}

fn log(verbose: bool) -> Result<(), Failure> {
    let directives = match std::env::var("RUST_LOG") {
        _ if verbose => "debug".into(),
        Ok(directives) if !directives.trim().is_empty() => directives,
        _ => "warn".into(),
    };
    let filter = EnvFilter::try_new(&directives).map_err(|error| {
        Failure::new(format!("RUST_LOG is not a log filter: {error}"))
            .tried(format!("{directives:?}"))
            .next("write for example RUST_LOG=info or RUST_LOG=p2p_host=debug")
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        // It would panic where stderr is closed.
        .log_internal_errors(false)
        .init();
    Ok(())
}
