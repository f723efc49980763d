//! Busy polling: for a moment after it has said something little, the driver keeps the runtime from
//! sleeping, as long as answers have come that soon. Waking a processor that sleeps, and the thread on it,
//! takes longer than most such answers.
//!
//! Between two looks the runtime runs every other task and looks at all sockets: nobody waits for it. What
//! is spent in vain is bounded by what came in time, as with the adaptive halt polling of hypervisors.

use std::{
    future::Future,
    pin::pin,
    task::Context,
    time::{Duration, Instant},
};

use tokio::task::yield_now;

/// Answers in time that pay for one wait in vain.
const PRICE: u8 = 8;
/// Answers in time that are counted.
const CREDIT_MAX: u8 = 4 * PRICE;
/// What a question or an answer is: a turn that has moved more has moved data, which come in bulk.
const LEN_MAX: u64 = 16 << 10;

/// Tells time by the system's clock: one that stands still, in a test, would be waited for without end.
#[derive(Debug)]
pub(super) struct BusyPoll {
    most: Duration,
    /// When something little was written that has not been answered.
    written_at: Option<Instant>,
    /// It was waited for in vain.
    given_up: bool,
    credit: u8,
}

impl BusyPoll {
    /// Waits for up to `most`; none is needed where that is no time.
    pub(super) fn new(most: Duration) -> Option<Self> {
        (!most.is_zero()).then_some(Self { most, written_at: None, given_up: false, credit: 0 })
    }

    /// Takes note of what a turn has moved, in bytes.
    pub(super) fn note(&mut self, wrote: u64, read: usize) {
        if read as u64 > LEN_MAX {
            self.credit = 0;
        }
        if read > 0
            && let Some(at) = self.written_at.take()
        {
            // One that slept meanwhile has come later, by what it takes to wake on both sides.
            if at.elapsed() <= 2 * self.most {
                self.credit = (self.credit + 1).min(CREDIT_MAX);
            } else if !self.given_up {
                self.credit = self.credit.saturating_sub(PRICE);
            }
        }
        if wrote > 0 {
            self.written_at = (wrote <= LEN_MAX).then(Instant::now);
            self.given_up = false;
        }
    }

    /// Has the task polled again as soon as the runtime has run the others and looked at its sockets,
    /// while an answer is likely.
    pub(super) fn poll_again(&mut self, cx: &mut Context<'_>) {
        let Some(at) = self.written_at else { return };
        if self.given_up || self.credit < PRICE {
            return;
        }
        if at.elapsed() < self.most {
            // All that its first poll does is to have the task woken.
            let first = pin!(yield_now()).poll(cx);
            debug_assert!(first.is_pending());
        } else {
            self.given_up = true;
            self.credit -= PRICE;
        }
    }
}

#[cfg(all(test, feature = "yamux"))]
mod tests {
    use super::*;

    /// Whether one that has just written something little waits for the answer awake.
    async fn is_awake(busy: &mut BusyPoll) -> bool {
        let (calls, waker) = crate::common::Calls::waker();
        busy.poll_again(&mut Context::from_waker(&waker));
        tokio::task::yield_now().await;
        calls.count() > 0
    }

    const LONG: Duration = Duration::from_secs(100);

    /// One that has been answered at once, so many times.
    fn answered(times: u8) -> BusyPoll {
        let mut busy = BusyPoll::new(LONG).expect("it has a time");
        for _ in 0..times {
            busy.note(30, 0);
            busy.note(0, 30);
        }
        busy
    }

    #[test]
    fn none_is_made_without_a_time() {
        assert!(BusyPoll::new(Duration::ZERO).is_none());
    }

    #[tokio::test]
    async fn answers_in_time_pay_for_waits_in_vain() {
        let mut busy = BusyPoll::new(LONG).expect("it has a time");
        for _ in 0..PRICE {
            busy.note(30, 0);
            assert!(!is_awake(&mut busy).await, "no answer has come so soon yet");
            busy.note(0, 30);
        }
        assert!(!is_awake(&mut busy).await, "nothing was asked");
        busy.note(30, 0);
        assert!(is_awake(&mut busy).await);
        busy.most = Duration::ZERO;
        assert!(!is_awake(&mut busy).await, "time is up");
        busy.most = LONG;
        assert!(!is_awake(&mut busy).await, "it was waited for in vain");
        busy.note(0, 30);
        busy.note(30, 0);
        assert!(!is_awake(&mut busy).await, "what was in vain has its price");
    }

    #[tokio::test]
    async fn data_are_not_waited_for() {
        let mut busy = answered(PRICE);
        busy.note(LEN_MAX + 1, 0);
        assert!(!is_awake(&mut busy).await, "much was written");
        busy.note(30, 0);
        assert!(is_awake(&mut busy).await);
        for _ in 0..2 * PRICE {
            busy.note(0, 100_000);
            busy.note(30, 0);
            assert!(!is_awake(&mut busy).await, "what is credited for data is no question");
        }
    }

    #[tokio::test]
    async fn late_answers_end_it() {
        let mut busy = answered(CREDIT_MAX);
        busy.most = Duration::ZERO;
        for _ in 0..CREDIT_MAX / PRICE {
            busy.note(30, 0);
            busy.note(0, 30);
        }
        busy.most = LONG;
        busy.note(30, 0);
        assert!(!is_awake(&mut busy).await);
    }
}
