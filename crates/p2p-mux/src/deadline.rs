use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use p2p_core::StreamError;
use tokio::time::{Instant as TokioInstant, Sleep};

/// Until when a half's calls may wait: one word where there is none, as mostly.
#[derive(Default)]
pub(crate) struct Deadline(Option<Box<Limit>>);

struct Limit {
    at: Instant,
    /// Made by the first call that waits.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    pub(crate) fn set(&mut self, at: Option<Instant>) {
        self.0 = at.map(|at| Box::new(Limit { at, sleep: None }));
    }

    /// What `call` gives, or that the time is up where it would wait.
    pub(crate) fn limit<T>(
        &mut self,
        cx: &mut Context<'_>,
        call: Poll<Result<T, StreamError>>,
    ) -> Poll<Result<T, StreamError>> {
        if let Some(limit) = &mut self.0
            && call.is_pending()
        {
            let at = TokioInstant::from_std(limit.at);
            let sleep = limit.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
            return sleep.as_mut().poll(cx).map(|()| Err(StreamError::DeadlinePassed));
        }
        call
    }
}
