//! A rust-libp2p node driven from the command line: the foreign peer of interoperability tests.
//!
//! Standard output carries one JSON object per line and nothing else; logs go to standard error.

mod cli;
mod client;
mod echo;
mod listen;
mod node;
mod report;
mod serve;
mod under_test;

use std::{process::ExitCode, time::Duration};

use clap::Parser as _;
use tokio::time::timeout;
use tracing_subscriber::EnvFilter;

use crate::{
    cli::{Cli, Command, Target},
    client::Client,
    report::Failure,
};

#[tokio::main]
async fn main() -> ExitCode {
    if std::env::args_os().len() == 1 && std::env::var_os("is_dialer").is_some() {
        return under_test::main().await;
    }
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    match run(cli.command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // A closed standard output leaves nobody to tell; the exit code still says it.
            let _ = report::error(&failure);
            ExitCode::FAILURE
        }
    }
}

/// Runs one command to its end.
async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Listen { listen, identity } => listen::run(listen, &identity).await,
        Command::Ping { target, count, interval_ms } => {
            let interval = Duration::from_millis(interval_ms);
            within(&target, client::ping(&target, count, interval)).await
        }
        Command::Identify { target } => within(&target, client::identify(&target)).await,
        Command::Echo { target, load } => within(&target, client::echo(&target, &load)).await,
    }
}

/// Bounds a client command by the target's overall time limit, then closes its connection.
async fn within(
    target: &Target,
    work: impl Future<Output = Result<Client, Failure>>,
) -> Result<(), Failure> {
    let limit = target.time_limit();
    match timeout(limit, work).await {
        Ok(done) => {
            done?.close().await;
            Ok(())
        }
        Err(_) => Err(Failure::new(format!("not finished after {} s", limit.as_secs()))),
    }
}
