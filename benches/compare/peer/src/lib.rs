//! What every benchmark peer shares: its command line, its scenarios, statistics, and what the
//! system says of a process.
//!
//! A peer implements [`Node`] and [`Stream`], and calls [`main`]. Every byte that arrives is
//! compared with the [`pattern`], at the same cost in every peer.

pub mod args;
pub mod delay;
pub mod pattern;
pub mod process;
mod scenario;
mod serve;
pub mod stats;
mod stream;

use std::{future::Future, process::ExitCode};

pub use args::{Args, Runtime};
pub use serve::{Protocol, serve_stream};
pub use stream::{Buffer, Plain, Stream, check};

/// What went wrong, in words.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A node of one implementation.
pub trait Node: Sized + Send + Sync + 'static {
    /// What the implementation is called in reports.
    const NAME: &'static str;
    type Stream: Stream;
    /// One connection to a server.
    type Connection: Send + Sync + 'static;

    /// A node that dials. Of several in one process each has an identity of its own.
    fn start(args: &Args) -> impl Future<Output = Result<Self, Failure>> + Send;

    /// Serves the protocols for ever, once `tell` was given the full address.
    fn serve(
        args: &Args,
        tell: impl FnOnce(&str) + Send,
    ) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Dials, secures and multiplexes; the node has one connection at a time.
    fn connect(&self, addr: &str)
    -> impl Future<Output = Result<Self::Connection, Failure>> + Send;

    /// Opens a stream, and negotiates its protocol.
    fn open(
        &self,
        connection: &Self::Connection,
        protocol: Protocol,
    ) -> impl Future<Output = Result<Self::Stream, Failure>> + Send;

    /// Closes the connection; returns as soon as the next can be dialed.
    fn close(
        &self,
        connection: Self::Connection,
    ) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// Does what the command line says. `allocations` tells how many there were in this process, where
/// they are counted.
pub fn main<N: Node>(allocations: Option<fn() -> u64>) -> ExitCode {
    let args = match Args::parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    serve::count_allocations(allocations);
    process::raise_files_max();
    let runtime = args.runtime.build(args.threads);
    let done = runtime.block_on(async {
        // In a task, as everything else.
        let task = async move {
            if args.server {
                N::serve(&args, |addr| println!("{addr}")).await
            } else {
                scenario::run::<N>(&args).await.map(|line| println!("{line}"))
            }
        };
        tokio::spawn(task).await?
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", N::NAME);
            ExitCode::FAILURE
        }
    }
}
