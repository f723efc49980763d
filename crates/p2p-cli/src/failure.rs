//! Why a command failed, told to a person: the cause, what was tried, what to do next.

use std::{fmt, io, time::Duration};

use p2p::{
    BuildError, Cause, DialAttempt, DialError, HandleError, ListenError, OpenError, Stage,
    core::{SecurityError, TransportError},
    ping::PingError,
};

use crate::output::printable;

/// Why a command failed.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    cause: String,
    stage: Option<Stage>,
    tried: Option<String>,
    next: Option<String>,
}

impl Failure {
    pub(crate) fn new(cause: impl Into<String>) -> Self {
        Self { cause: cause.into(), stage: None, tried: None, next: None }
    }

    pub(crate) fn at(mut self, stage: Stage) -> Self {
        self.stage = Some(stage);
        self
    }

    /// What was tried, where the cause does not say it.
    pub(crate) fn tried(mut self, what: impl Into<String>) -> Self {
        self.tried = Some(what.into());
        self
    }

    /// What to do about it.
    pub(crate) fn next(mut self, what: impl Into<String>) -> Self {
        self.next = Some(what.into());
        self
    }

    /// The same with each of its texts changed.
    pub(crate) fn map(mut self, change: impl Fn(&str) -> String) -> Self {
        self.cause = change(&self.cause);
        self.tried = self.tried.map(|text| change(&text));
        self.next = self.next.map(|text| change(&text));
        self
    }

    /// What it means and what to do, where nothing better is known.
    pub(crate) fn or_next(mut self, what: impl Into<String>) -> Self {
        self.next.get_or_insert_with(|| what.into());
        self
    }

    pub(crate) fn stage(&self) -> Option<Stage> {
        self.stage
    }

    pub(crate) fn one_line(&self) -> String {
        self.parts().join("; ")
    }

    /// A cause may quote what a peer or a file holds.
    fn parts(&self) -> Vec<String> {
        let mut parts = vec![printable(&self.cause)];
        parts.extend(self.tried.as_ref().map(|what| format!("tried: {}", printable(what))));
        parts.extend(self.next.as_ref().map(|what| format!("next: {}", printable(what))));
        parts
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.parts().join("\n  "))
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        if let OpenError::Dial(error) = error {
            return error.into();
        }
        if let OpenError::Stream { peer, protocol, stage, cause } = &error {
            let tried = format!("to open {protocol} to {peer} (stage {stage})");
            return of_cause(cause).at(*stage).tried(tried);
        }
        Self::new(error.to_string())
    }
}

impl From<DialError> for Failure {
    fn from(error: DialError) -> Self {
        if let DialError::Attempts(attempts) | DialError::TimedOut(_, attempts) = &error
            && let Some(last) = attempts.last()
        {
            let tried: Vec<String> = attempts.iter().map(describe).collect();
            return of_cause(&last.cause).at(last.stage).tried(tried.join(", "));
        }
        Self::new(error.to_string())
    }
}

fn describe(attempt: &DialAttempt) -> String {
    let DialAttempt { addr, stage, elapsed, .. } = attempt;
    format!("{addr} (stage {stage}, {elapsed:.1?})")
}

/// The cause, and what to do about it.
fn of_cause(cause: &Cause) -> Failure {
    let failure = Failure::new(cause.to_string());
    match cause {
        Cause::Transport(TransportError::Dial { source, .. })
            if source.kind() == io::ErrorKind::ConnectionRefused =>
        {
            failure.next("nothing listens there: start `p2p listen` there, or correct the port")
        }
        Cause::Transport(_) => failure.next("check the address, and the network between"),
        Cause::TimedOut(_) => failure.next(
            "check that a libp2p node listens there and that no firewall drops packets, or give a \
             longer --timeout",
        ),
        Cause::Security(SecurityError::WrongPeer { actual, .. }) => failure.next(format!(
            "ask the peer for its present address; only if you trust who answers there, end the \
             address in /p2p/{actual}"
        )),
        Cause::Io(_) | Cause::Closed | Cause::Negotiation(_) | Cause::Security(_) => {
            failure.next("check that a libp2p node that speaks Noise and yamux listens there")
        }
        Cause::NoTransport => failure.next(
            "this program speaks TCP to IP addresses: give one like /ip4/192.0.2.7/tcp/4001 or \
             /ip6/2001:db8::7/tcp/4001",
        ),
        Cause::Stream(_) | Cause::Connection(_) => {
            failure.next("try again; if it happens each time, look at the peer's log")
        }
        Cause::SelfDial | Cause::Limit(_) | _ => failure,
    }
}

impl From<PingError> for Failure {
    fn from(error: PingError) -> Self {
        if let PingError::Open(error) = error {
            return error.into();
        }
        Self::new(error.to_string())
    }
}

impl From<HandleError> for Failure {
    fn from(error: HandleError) -> Self {
        Self::new(error.to_string())
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        if let BuildError::Listen(error) = error {
            return error.into();
        }
        Self::new(error.to_string())
    }
}

impl From<ListenError> for Failure {
    fn from(error: ListenError) -> Self {
        let failure = Self::new(error.to_string());
        if let ListenError::NoTransport(_) = error {
            return failure.next(
                "this program speaks TCP on IP addresses: give one like /ip4/0.0.0.0/tcp/4001",
            );
        }
        match refusal(&error) {
            Some(io::ErrorKind::AddrInUse) => failure.next(
                "end the program that has the port, or listen on another; tcp/0 takes one that is \
                 free",
            ),
            Some(io::ErrorKind::AddrNotAvailable) => failure
                .next("give an address that this machine has; /ip4/0.0.0.0 stands for all of them"),
            Some(io::ErrorKind::PermissionDenied) => failure.next("choose a port from 1024 on"),
            _ => failure,
        }
    }
}

/// What the system said, where it was the system.
fn refusal(error: &ListenError) -> Option<io::ErrorKind> {
    let ListenError::Transport(TransportError::Listen { source, .. }) = error else { return None };
    Some(source.kind())
}

/// Runs a step under a time limit.
pub(crate) async fn within<T>(
    limit: Duration,
    step: &str,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let too_slow = |_| Failure::new(format!("{step} was not done within the limit of {limit:?}"));
    tokio::time::timeout(limit, work).await.map_err(too_slow)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_cause_attempt_and_remedy_in_this_order() {
        let failure = Failure::new("no").tried("a\u{1b}[2J").next("b");
        assert_eq!(failure.one_line(), r"no; tried: a\u{1b}[2J; next: b");
        assert_eq!(failure.to_string(), "no\n  tried: a\\u{1b}[2J\n  next: b");
    }
}
