use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use p2p_core::StreamError;
use tokio::time::{Instant as TokioInstant, Sleep};

/// Until when a half's calls may wait. Its timer is made by the first call that does.
#[derive(Default)]
pub(crate) struct Deadline {
    at: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    pub(crate) fn set(&mut self, at: Option<Instant>) {
        self.at = at;
        self.sleep = None;
    }

    /// What `call` gives, or that the time is up where it would wait.
    pub(crate) fn limit<T>(
        &mut self,
        cx: &mut Context<'_>,
        call: Poll<Result<T, StreamError>>,
    ) -> Poll<Result<T, StreamError>> {
        if let Some(at) = self.at
            && call.is_pending()
        {
            let due = || Box::pin(tokio::time::sleep_until(TokioInstant::from_std(at)));
            let sleep = self.sleep.get_or_insert_with(due);
            return sleep.as_mut().poll(cx).map(|()| Err(StreamError::DeadlinePassed));
        }
        call
    }
}
