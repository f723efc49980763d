use std::{
    io::{Error, ErrorKind},
    time::Duration,
};

use p2p_core::IoCause;
use tokio::time::{Instant, sleep_until};

/// How often in a row `accept` is tried again at once when it fails for a single connection. It
/// bounds the work of a listener that fails for good in such a way.
const RETRIES_MAX: u32 = 16;
/// The pause after the first failure that concerns more than a single connection.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// The pause after each one that follows without a connection accepted in between: what is used
/// up, such as file descriptors, comes back slowly, and trying costs a wakeup each time.
const PAUSE_REPEATED: Duration = Duration::from_secs(1);

/// What a listener does about a failing `accept`: it tries again, and never gives up.
#[derive(Debug, Default)]
pub(crate) struct AcceptErrors {
    retries: u32,
    repeated: bool,
    pause: Option<Pause>,
}

#[derive(Debug)]
struct Pause {
    until: Instant,
    cause: IoCause,
}

impl AcceptErrors {
    pub(crate) fn handle_success(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn handle_error(&mut self, error: Error) {
        if concerns_one_connection(error.kind()) && self.retries < RETRIES_MAX {
            self.retries += 1;
            return;
        }
        let length = if self.repeated { PAUSE_REPEATED } else { PAUSE_FIRST };
        self.repeated = true;
        self.pause = Some(Pause { until: Instant::now() + length, cause: error.into() });
    }

    /// Waits for the end of the pause and gives its cause; `None` when there is none.
    ///
    /// # Cancel safety
    /// Cancel safe: the next call waits for the rest.
    pub(crate) async fn paused(&mut self) -> Option<IoCause> {
        sleep_until(self.pause.as_ref()?.until).await;
        self.pause.take().map(|pause| pause.cause)
    }
}

/// Whether only the connection that was to be accepted is lost. Linux reports what happened on
/// the network before as an error of `accept`.
fn concerns_one_connection(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::HostUnreachable
            | ErrorKind::Interrupted
            | ErrorKind::NetworkDown
            | ErrorKind::NetworkUnreachable
            | ErrorKind::TimedOut
    )
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    /// What the system gives without file descriptors (EMFILE has no kind of its own).
    fn no_descriptors() -> Error {
        Error::from_raw_os_error(24)
    }

    /// How long the pause is and what it is about; `None` when there is none.
    async fn pause_of(errors: &mut AcceptErrors) -> Option<(Duration, ErrorKind)> {
        let start = Instant::now();
        let cause = errors.paused().await?;
        Some((start.elapsed(), cause.kind()))
    }

    #[tokio::test(start_paused = true)]
    async fn no_descriptors_pause_short_first_and_long_when_repeated() {
        let mut errors = AcceptErrors::default();
        let kind = no_descriptors().kind();
        for length in [PAUSE_FIRST, PAUSE_REPEATED, PAUSE_REPEATED] {
            errors.handle_error(no_descriptors());
            assert_pause(pause_of(&mut errors).await, length, kind);
        }
        errors.handle_success();
        errors.handle_error(no_descriptors());
        assert_pause(pause_of(&mut errors).await, PAUSE_FIRST, kind);
        assert!(pause_of(&mut errors).await.is_none(), "each failure pauses once");
    }

    /// tokio's timer counts whole milliseconds, and may be late by one.
    fn assert_pause(pause: Option<(Duration, ErrorKind)>, length: Duration, kind: ErrorKind) {
        let (found, found_kind) = pause.expect("a pause");
        assert!((length..=length + Duration::from_millis(1)).contains(&found), "{found:?}");
        assert_eq!(found_kind, kind);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_connection_is_passed_over_at_once() {
        let mut errors = AcceptErrors::default();
        for _ in 0..RETRIES_MAX {
            errors.handle_error(ErrorKind::ConnectionAborted.into());
            assert!(pause_of(&mut errors).await.is_none());
        }
        errors.handle_success();
        for _ in 0..RETRIES_MAX {
            errors.handle_error(ErrorKind::ConnectionReset.into());
            assert!(pause_of(&mut errors).await.is_none());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn too_many_lost_connections_in_a_row_pause() {
        let mut errors = AcceptErrors::default();
        for _ in 0..RETRIES_MAX {
            errors.handle_error(ErrorKind::Interrupted.into());
            assert!(pause_of(&mut errors).await.is_none());
        }
        for length in [PAUSE_FIRST, PAUSE_REPEATED] {
            errors.handle_error(ErrorKind::Interrupted.into());
            assert_pause(pause_of(&mut errors).await, length, ErrorKind::Interrupted);
        }
    }

    /// A listener is polled beside other things: the pause neither starts again nor is lost.
    #[tokio::test(start_paused = true)]
    async fn a_pause_goes_on_when_waiting_for_it_was_cancelled() {
        let mut errors = AcceptErrors::default();
        let start = Instant::now();
        errors.handle_error(no_descriptors());
        let mut cancelled = 0;
        while timeout(Duration::from_millis(30), errors.paused()).await.is_err() {
            cancelled += 1;
        }
        assert_eq!(cancelled, 3);
        let length = start.elapsed();
        assert_pause(Some((length, ErrorKind::Other)), PAUSE_FIRST, ErrorKind::Other);
        assert!(errors.paused().await.is_none(), "it was reported");
    }
}
