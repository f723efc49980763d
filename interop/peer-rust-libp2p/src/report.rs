//! The JSON lines on standard output.

use std::{
    error::Error,
    fmt::{self, Display},
    io::{self, Write as _},
    time::Duration,
};

use libp2p::{PeerId, identify};
use serde_json::{Value, json};

/// The reason a command did not succeed.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl Failure {
    /// Wraps a message for the reader of the output.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    /// Says what was being done when `error` came, with every cause `error` names.
    pub(crate) fn during(what: &str, error: &dyn Error) -> Self {
        Self(format!("{what}: {}", chain(error)))
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::during("i/o", &error)
    }
}

/// Joins an error and its causes into one line, leaving out causes already quoted.
pub(crate) fn chain(error: &dyn Error) -> String {
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

/// Writes one value as a line and flushes it, so that a reading test never waits for a full buffer.
pub(crate) fn line(value: &Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{value}")?;
    out.flush()
}

/// Writes the line that goes with a failing exit code.
pub(crate) fn error(failure: &Failure) -> io::Result<()> {
    line(&json!({"event": "error", "message": failure.to_string()}))
}

/// The microseconds of a duration as a JSON number.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// What the client command `identify` prints.
pub(crate) fn identify(peer: &PeerId, info: &identify::Info) -> Value {
    json!({
        "event": "identify",
        "peer": peer.to_string(),
        "public_key_peer": info.public_key.to_peer_id().to_string(),
        "agent": info.agent_version,
        "protocol_version": info.protocol_version,
        "protocols": texts(&info.protocols),
        "listen_addrs": texts(&info.listen_addrs),
        "observed_addr": info.observed_addr.to_string(),
    })
}

/// What a listening node prints once it has identified a peer.
pub(crate) fn identified(peer: &PeerId, info: &identify::Info) -> Value {
    json!({
        "event": "identified",
        "peer": peer.to_string(),
        "agent": info.agent_version,
        "protocols": texts(&info.protocols),
        "listen_addrs": texts(&info.listen_addrs),
        "observed_addr": info.observed_addr.to_string(),
    })
}

/// The text forms of a list.
fn texts<T: Display>(items: &[T]) -> Vec<String> {
    items.iter().map(T::to_string).collect()
}
