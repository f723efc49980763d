//! Suites that check what the traits of `p2p-core` ask of an implementation.
//!
//! | suite | checks |
//! |---|---|
//! | [`transport()`] | a [`Transport`](p2p_core::Transport), its listener and its links |
//! | [`security()`], [`protection()`] | a [`Security`](p2p_core::Security): its contract, and that it protects |
//! | [`muxer()`] | a [`Muxer`](p2p_core::Muxer), alone and under this project's driver |
//! | [`connection()`] | two ends of a [`Muxed`](p2p_core::Muxed) link, however it came to be |
//!
//! Each gives the first [`Violation`] that it finds: the name of the check, and what was seen.
//! They need a tokio runtime with time. With the time paused they take none; otherwise a few
//! seconds at most, and [`PATIENCE`] where something hangs.
//!
//! ```
//! use p2p_core::Keypair;
//! use p2p_testkit::conformance;
//!
//! # fn main() -> Result<(), conformance::Violation> {
//! conformance::security(p2p_security_noise::Noise::new)?;
//! conformance::protection(p2p_security_noise::Noise::new)?;
//! # Ok(())
//! # }
//! ```

mod connection;
mod muxer;
mod security;
mod transport;

use std::{
    fmt,
    future::{Future, poll_fn},
    task::Poll,
    time::Duration,
};

pub use connection::connection;
pub use muxer::muxer;
pub use security::{protection, security};
pub use transport::transport;

/// How long anything may take that must come by itself.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// After so long without progress, something waits and not just takes its time.
const STILL: Duration = Duration::from_millis(200);
/// What no pipe or stream takes in, in bytes, when nobody reads at its other end.
const UNREAD_MAX: usize = 64 << 20;

/// A part of a contract that an implementation does not keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    check: &'static str,
    seen: String,
}

impl Violation {
    /// The name of the check.
    #[must_use]
    pub fn check(&self) -> &'static str {
        self.check
    }

    /// What was seen instead of what was expected.
    #[must_use]
    pub fn seen(&self) -> &str {
        &self.seen
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.check, self.seen)
    }
}

impl std::error::Error for Violation {}

/// A check by its name.
#[derive(Clone, Copy)]
struct Check(&'static str);

impl Check {
    fn seen(self, seen: impl Into<String>) -> Violation {
        Violation { check: self.0, seen: seen.into() }
    }

    fn that(self, holds: bool, seen: impl FnOnce() -> String) -> Result<(), Violation> {
        if holds { Ok(()) } else { Err(self.seen(seen())) }
    }

    /// Turns an error, of `what`, into a violation.
    fn ok<T, E: fmt::Display>(self, what: &str, result: Result<T, E>) -> Result<T, Violation> {
        result.map_err(|error| self.seen(format!("{what} fails: {error}")))
    }

    /// Waits for what must come.
    async fn soon<T>(self, what: &str, future: impl Future<Output = T>) -> Result<T, Violation> {
        tokio::select! {
            biased;
            // What is found only because the time has run out was not told of.
            () = tokio::time::sleep(PATIENCE) => {
                Err(self.seen(format!("{what} is not there after {PATIENCE:?}")))
            }
            output = future => Ok(output),
        }
    }

    /// The same for what must come and succeed.
    async fn succeeds<T, E: fmt::Display>(
        self,
        what: &str,
        future: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Violation> {
        let result = self.soon(what, future).await?;
        self.ok(what, result)
    }
}

/// Bytes in which a gap, a double or an exchange shows.
fn pattern(len: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..len).map(step).collect()
}

/// Says where two runs of bytes differ.
fn difference(sent: &[u8], received: &[u8]) -> String {
    let at = sent.iter().zip(received).take_while(|(a, b)| a == b).count();
    format!(
        "{} bytes were sent and {} received, which differ from byte {at} on",
        sent.len(),
        received.len()
    )
}

/// Polls once, with the waker of a task of its own that is then gone.
async fn poll_from_elsewhere<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    poll_fn(|_| {
        let mut elsewhere = std::task::Context::from_waker(std::task::Waker::noop());
        Poll::Ready(match std::pin::Pin::new(&mut *future).poll(&mut elsewhere) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        })
    })
    .await
}
