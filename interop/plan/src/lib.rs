//! The interface of libp2p's transport interoperability tests, and the scenarios beyond its ping.
//!
//! A program under test implements [`Peer`] and hands itself to [`run`]. What it is to do comes
//! from environment variables ([`Settings`]); a listener pushes its address onto a Redis list, a
//! dialer takes it from there, runs the scenario and prints one line of JSON on standard output.
//! Logs go to standard error.

use std::{
    error::Error,
    io::{self, Write as _},
    pin::Pin,
    process::ExitCode,
    sync::Arc,
};

use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tracing_subscriber::EnvFilter;

mod pattern;
mod redis;
mod scenario;
mod serve;
mod settings;

pub use pattern::Pattern;
pub use scenario::{Scenario, exercise, ping_once};
pub use serve::{ECHO, KNOWN, LATE, PERF, answer_echo, answer_known, answer_perf};
pub use settings::{Muxer, Settings};

/// Why a program under test has failed; for people.
pub type Failure = Box<dyn Error + Send + Sync>;

/// What opening a stream gives.
pub type Opened<S> = Pin<Box<dyn Future<Output = Result<S, Failure>> + Send>>;

/// Opens a stream for a protocol on the one connection of a [`Peer`].
pub type Opener<S> = Arc<dyn Fn(&'static str) -> Opened<S> + Send + Sync>;

/// An implementation as the dialer of a scenario.
pub trait Peer: Sized {
    /// A stream of its.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// How many streams it may have open at once without breaking its own connection.
    const STREAMS_AT_ONCE: usize;

    /// Connects to a full address.
    fn dial(settings: &Settings, addr: &str) -> impl Future<Output = Result<Self, Failure>>;

    /// Pings once on the connection made by [`Peer::dial`], and fails if that is gone.
    fn ping(&mut self) -> impl Future<Output = Result<std::time::Duration, Failure>>;

    /// What the other side says of itself: the keys `agent`, `protocolVersion`, `protocols`,
    /// `listenAddrs` and `observedAddr`.
    fn identify(&mut self) -> impl Future<Output = Result<Value, Failure>>;

    /// Begins to serve [`LATE`], and tells the other side by identify push.
    fn serve_late(&mut self) -> impl Future<Output = Result<(), Failure>>;

    /// Opens streams from any task.
    fn opener(&self) -> Opener<Self::Stream>;

    /// Ends the connection in order.
    fn close(self) -> impl Future<Output = ()>;
}

/// Does what the environment asks for. `listen` listens and serves echo, perf, ping, identify
/// and, with identify push, [`KNOWN`] until it is dropped, after it has handed its full address to the function it is given.
pub async fn run<P, L, F>(listen: L) -> ExitCode
where
    P: Peer,
    L: FnOnce(Settings, Announce) -> F,
    F: Future<Output = Result<(), Failure>>,
{
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(io::stderr)
        .init();
    match within_limit::<P, L, F>(listen).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tracing::error!("{}", chain(failure.as_ref()));
            ExitCode::FAILURE
        }
    }
}

async fn within_limit<P, L, F>(listen: L) -> Result<(), Failure>
where
    P: Peer,
    L: FnOnce(Settings, Announce) -> F,
    F: Future<Output = Result<(), Failure>>,
{
    let settings = Settings::from_env(|name| std::env::var(name).ok())?;
    if !settings.is_dialer {
        let announce = Announce { redis: settings.redis.clone() };
        return listen(settings, announce).await;
    }
    let limit = settings.time_limit;
    match timeout(limit, dial::<P>(&settings)).await {
        Ok(done) => done,
        Err(_) => Err(format!("not finished after {} s", limit.as_secs()).into()),
    }
}

async fn dial<P: Peer>(settings: &Settings) -> Result<(), Failure> {
    let addr = redis::pop(&settings.redis, settings.time_limit).await?;
    let result = scenario::run::<P>(settings, &addr).await?;
    let mut out = io::stdout().lock();
    writeln!(out, "{result}")?;
    Ok(out.flush()?)
}

/// Tells dialers where a listener is.
#[derive(Debug)]
pub struct Announce {
    redis: String,
}

impl Announce {
    /// Tells one of `addrs`: one that is not a loopback address, where there is one.
    ///
    /// # Errors
    /// When there is no address, or Redis cannot be reached.
    pub async fn tell(&self, addrs: &[String]) -> Result<(), Failure> {
        let global = addrs.iter().find(|addr| !addr.starts_with("/ip4/127."));
        let addr = global.or_else(|| addrs.first()).ok_or("there is no address to tell")?;
        redis::push(&self.redis, addr).await
    }
}

/// Joins an error and its causes into one line, leaving out causes already quoted.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = inner.source();
    }
    text
}
