//! Busy polling: for a moment after it has said something little, the driver keeps the runtime from
//! sleeping, as long as answers have come that soon. Waking a processor that sleeps, and the thread on it,
//! takes longer than most such answers.
//!
//! ```text
//!  written ──► asks its pipe itself ──► gives way, again and again ──► sleeps
//!              ▲    a few µs                up to `most`
//!              └─ answers have come that soon, and none of the process's other connections has read since
//! ```
//!
//! Where it gives way, the runtime runs every other task and looks at all sockets between two looks: nobody
//! waits for it. But each time a thread of tokio's finds it, that thread calls another one, which has nothing to
//! do, goes to sleep where sockets are looked at, and from then on wakes for each packet. So a runtime of
//! several threads is left alone after the pipe was asked in vain: another thread is there for the others.
//!
//! What is spent in vain is bounded by what came in time, as with the adaptive halt polling of hypervisors.

use std::{
    future::Future,
    pin::pin,
    sync::atomic::{AtomicUsize, Ordering},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::{
    runtime::{Handle, RuntimeFlavor},
    task::{coop, yield_now},
};

/// Answers in time that pay for one wait in vain.
const PRICE: u8 = 8;
/// Answers in time that are counted.
const CREDIT_MAX: u8 = 4 * PRICE;
/// What a question or an answer is: a turn that has moved more has moved data, which come in bulk.
const LEN_MAX: u64 = 16 << 10;
/// How long a pipe is asked without giving way, where the runtime has other threads for the others.
const ASK_MAX: Duration = Duration::from_micros(50);
/// The same where they wait for it: no longer than for a turn with a whole record.
const ASK_ALONE_MAX: Duration = Duration::from_micros(20);

/// The connection of this process, of those that poll busily, that has read last. Where there is another one, its thread has more to do
/// than to wait for this one's answer.
static READ_LAST: AtomicUsize = AtomicUsize::new(0);
/// How many of them have been numbered.
static NUMBERED: AtomicUsize = AtomicUsize::new(0);

/// Tells time by the system's clock: one that stands still, in a test, would be waited for without end.
#[derive(Debug)]
pub(super) struct BusyPoll {
    most: Duration,
    /// When something little was written that has not been answered.
    written_at: Option<Instant>,
    /// It was waited for in vain.
    given_up: bool,
    credit: Credit,
    /// The pipe was asked for the answer that is awaited.
    asked: bool,
    /// It had one in this poll.
    answered: bool,
    /// Of answers that have come while it would have been asked.
    ask_credit: Credit,
    /// The pipe cannot be asked.
    deaf: bool,
    /// The connection's number, and that of the one that has read last.
    number: usize,
    read_last: &'static AtomicUsize,
}

impl BusyPoll {
    /// Waits for up to `most`; none is needed where that is no time.
    pub(super) fn new(most: Duration) -> Option<Self> {
        (!most.is_zero()).then(|| Self {
            most,
            written_at: None,
            given_up: false,
            credit: Credit::default(),
            asked: false,
            answered: false,
            ask_credit: Credit::default(),
            deaf: false,
            number: NUMBERED.fetch_add(1, Ordering::Relaxed) + 1,
            read_last: &READ_LAST,
        })
    }

    /// Takes note of what a turn has moved, in bytes.
    pub(super) fn note(&mut self, wrote: u64, read: usize) {
        if read > 0 {
            self.read_last.store(self.number, Ordering::Relaxed);
        }
        if read as u64 > LEN_MAX {
            self.credit = Credit::default();
            self.ask_credit = Credit::default();
        }
        if read > 0
            && let Some(at) = self.written_at.take()
        {
            let after = at.elapsed();
            // One that slept meanwhile has come later, by what it takes to wake on both sides.
            if after <= 2 * self.most {
                self.credit.earn();
            } else if !self.given_up {
                self.credit.spend();
            }
            if after <= ASK_ALONE_MAX {
                self.ask_credit.earn();
            }
        }
        if wrote > 0 {
            self.written_at = (wrote <= LEN_MAX).then(Instant::now);
            self.given_up = false;
            self.asked = false;
        }
    }

    /// Until when the pipe is to be asked for the answer without giving way, once for each; `None` for not
    /// at all. `several` says that what was read last was for several tasks: those who ask at the same time
    /// are better served by an answer for all of them.
    pub(super) fn ask_until(&mut self, several: impl FnOnce() -> bool) -> Option<Instant> {
        let at = self.written_at.filter(|_| self.ask_credit.suffices() && !self.deaf)?;
        if several() {
            self.ask_credit.spend();
        }
        let alone = self.read_last.load(Ordering::Relaxed) == self.number;
        let likely = alone && self.ask_credit.suffices();
        let asks = likely && !std::mem::replace(&mut self.asked, true);
        let most = if has_threads() { ASK_MAX } else { ASK_ALONE_MAX };
        asks.then(|| at + most.min(self.most))
    }

    /// Takes note of what the pipe said: whether there was an answer; `None` where it cannot be asked.
    pub(super) fn note_asked(&mut self, answered: Option<bool>) {
        match answered {
            Some(true) => self.answered = true,
            Some(false) => self.ask_credit.spend(),
            None => {
                self.deaf = true;
                self.asked = false;
            }
        }
    }

    /// The task has nothing to do for now.
    pub(super) fn rest(&mut self, cx: &mut Context<'_>) {
        self.poll_again(cx);
        if std::mem::take(&mut self.answered) {
            end_turn_of_thread(cx);
        }
    }

    /// Has the task polled again as soon as the runtime has run the others and looked at its sockets,
    /// while an answer is likely.
    fn poll_again(&mut self, cx: &mut Context<'_>) {
        let Some(at) = self.written_at else { return };
        if self.given_up || !self.credit.suffices() || self.asked && has_threads() {
            return;
        }
        if at.elapsed() < self.most {
            // All that its first poll does is to have the task woken.
            let first = pin!(yield_now()).poll(cx);
            debug_assert!(first.is_pending());
        } else {
            self.given_up = true;
            self.credit.spend();
        }
    }
}

/// What answers in time have paid for.
#[derive(Clone, Copy, Debug, Default)]
struct Credit(u8);

impl Credit {
    fn earn(&mut self) {
        self.0 = (self.0 + 1).min(CREDIT_MAX);
    }

    fn spend(&mut self) {
        self.0 = self.0.saturating_sub(PRICE);
    }

    fn suffices(self) -> bool {
        self.0 >= PRICE
    }
}

/// Lets whom this task has called have a turn of its thread of its own. tokio's threads run one that was
/// called in the turn of who called it, three in a row: for the fourth they call another thread, as above. A
/// turn ends where its budget does.
fn end_turn_of_thread(cx: &mut Context<'_>) {
    if !has_threads() {
        return;
    }
    while coop::has_budget_remaining()
        && let Poll::Ready(step) = coop::poll_proceed(cx)
    {
        step.made_progress();
    }
}

/// Whether this is a thread of a runtime of several.
fn has_threads() -> bool {
    let flavor = Handle::try_current().map(|runtime| runtime.runtime_flavor());
    matches!(flavor, Ok(RuntimeFlavor::MultiThread))
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

    /// One of a process of its own.
    fn new() -> BusyPoll {
        let mut busy = BusyPoll::new(LONG).expect("it has a time");
        busy.read_last = Box::leak(Box::default());
        busy
    }

    /// One that has been answered at once, so many times.
    fn answered(times: u8) -> BusyPoll {
        let mut busy = new();
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
        let mut busy = new();
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

    /// One whose pipe would be asked for the answer to the next message, on whatever machine this is.
    fn asking() -> BusyPoll {
        let mut busy = answered(PRICE);
        for _ in 0..CREDIT_MAX {
            busy.ask_credit.earn();
        }
        busy.note(30, 0);
        busy
    }

    #[test]
    fn a_pipe_is_asked_once_for_each_answer() {
        let mut busy = asking();
        assert!(busy.ask_until(|| false).is_some());
        assert!(busy.ask_until(|| false).is_none(), "it was asked");
        busy.note(0, 30);
        assert!(busy.ask_until(|| false).is_none(), "nothing is awaited");
        busy.note(30, 0);
        assert!(busy.ask_until(|| false).is_some());
    }

    #[test]
    fn asking_in_vain_and_answers_for_several_have_their_price() {
        for several in [false, true] {
            let mut busy = asking();
            for _ in 0..CREDIT_MAX / PRICE - 1 {
                assert!(busy.ask_until(|| several).is_some());
                busy.note_asked(Some(several));
                busy.note(30, 0);
            }
            assert!(busy.ask_until(|| several).is_none() == several);
            busy.note_asked(Some(several));
            busy.note(30, 0);
            assert!(busy.ask_until(|| several).is_none());
        }
    }

    #[test]
    fn who_reads_between_is_not_held_up() {
        let mut busy = asking();
        busy.read_last.store(busy.number + 1, Ordering::Relaxed);
        assert!(busy.ask_until(|| false).is_none());
    }

    #[tokio::test]
    async fn a_pipe_that_cannot_be_asked_is_asked_no_more() {
        let mut busy = asking();
        assert!(busy.ask_until(|| false).is_some());
        busy.note_asked(None);
        busy.note(30, 0);
        assert!(busy.ask_until(|| false).is_none());
        assert!(is_awake(&mut busy).await);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn one_of_several_threads_is_not_kept_awake_after_a_pipe_was_asked() {
        let asked = async {
            let mut busy = asking();
            assert!(busy.ask_until(|| false).is_some());
            !is_awake(&mut busy).await
        };
        assert!(tokio::spawn(asked).await.expect("no panic"));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn one_that_was_answered_ends_its_threads_turn() {
        for answered in [false, true] {
            let mut busy = asking();
            busy.note_asked(Some(answered));
            busy.note(0, 30);
            let left = std::future::poll_fn(move |cx| {
                busy.rest(cx);
                Poll::Ready(coop::has_budget_remaining())
            });
            assert_eq!(tokio::spawn(left).await.expect("no panic"), !answered);
        }
    }
}
