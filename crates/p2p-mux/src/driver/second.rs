//! The second task of a connection: it has the writing side while both directions are saturated.
//!
//! ```text
//!             lent: both directions are saturated
//!  with the ────────────────────────────────────────► on the ◄──── a turn ends ────┐  in a turn of
//!   driver  ◄──────────────────────────────────────── desk  ───── a turn begins ──►┘ the second task
//!             taken back: the load is low, an error, the end
//! ```
//!
//! The desk's lock is held for moves of a pointer only.

use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use p2p_core::ConnectionError;

use super::{now, writer::Writer};
use crate::shared::{Task, set_waker};

/// Where the writing side changes hands.
#[derive(Default)]
pub(super) struct Desk {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    writer: Option<Box<Writer>>,
    /// The driver wants it, or the second task can do no more with it.
    recalled: bool,
    failed: Option<ConnectionError>,
    /// All bytes that the writing side had written when it was last put here.
    written: u64,
    driver: Option<Waker>,
    second: Option<Waker>,
    driver_gone: bool,
    second_gone: bool,
}

/// What the driver finds.
pub(super) enum Found {
    /// The writing side, and why it failed if it did.
    Writer(Box<Writer>, Option<ConnectionError>),
    /// It is with the second task.
    Away,
    /// The second task has panicked with it.
    Lost,
}

impl Desk {
    /// Hands the writing side to the second task; gives it back where there is none.
    pub(super) fn lend(&self, writer: Box<Writer>) -> Option<Box<Writer>> {
        let mut state = self.lock();
        if state.second_gone {
            return Some(writer);
        }
        state.written = writer.written;
        state.writer = Some(writer);
        state.recalled = false;
        let second = state.second.take();
        drop(state);
        second.into_iter().for_each(Waker::wake);
        None
    }

    /// Takes the writing side back where the second task can do no more with it, or where it is
    /// recalled and not in a turn. Else wakes the driver at the end of that turn.
    pub(super) fn take_back(&self, recall: bool, cx: &Context<'_>) -> Found {
        let mut state = self.lock();
        state.recalled |= recall || state.second_gone;
        if state.recalled {
            match state.writer.take() {
                Some(writer) => return Found::Writer(writer, state.failed.take()),
                None if state.second_gone => return Found::Lost,
                None => {}
            }
        }
        set_waker(&mut state.driver, cx);
        Found::Away
    }

    pub(super) fn written(&self) -> u64 {
        self.lock().written
    }

    /// The driver is gone, and the second task ends.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.driver_gone = true;
        let (writer, second) = (state.writer.take(), state.second.take());
        drop(state);
        drop(writer);
        second.into_iter().for_each(Waker::wake);
    }

    /// Ready with nothing once the driver is gone.
    fn poll_take(&self, cx: &Context<'_>) -> Poll<Option<Box<Writer>>> {
        let mut state = self.lock();
        if state.driver_gone {
            return Poll::Ready(None);
        }
        set_waker(&mut state.second, cx);
        if state.recalled {
            return Poll::Pending;
        }
        state.writer.take().map_or(Poll::Pending, |writer| Poll::Ready(Some(writer)))
    }

    /// Puts the writing side back after a turn; `done` says that it must go to the driver.
    fn put(&self, writer: Box<Writer>, done: bool, failed: Option<ConnectionError>) {
        let mut state = self.lock();
        if state.driver_gone {
            drop(state);
            return drop(writer);
        }
        state.written = writer.written;
        state.writer = Some(writer);
        state.failed = failed;
        state.recalled |= done;
        let driver = state.recalled.then(|| state.driver.take()).flatten();
        drop(state);
        driver.into_iter().for_each(Waker::wake);
    }

    #[cfg(all(test, feature = "yamux"))]
    pub(super) fn holds_writer(&self) -> bool {
        self.lock().writer.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Seals and writes what a connection sends while both of its directions are saturated, so that
/// they are on two cores: a future for a task of its own, beside that of its
/// [`Driver`](super::Driver).
///
/// It does nothing, and wakes nobody, until then, and from when the load is low again. It ends with
/// the driver. Dropped before, it leaves all of the connection to the driver.
///
/// # Cancel safety
/// Cancel safe: nothing is lost when it is dropped between two polls.
pub struct WriteTask {
    desk: Arc<Desk>,
}

impl WriteTask {
    pub(super) fn new(desk: &Arc<Desk>) -> Self {
        Self { desk: Arc::clone(desk) }
    }
}

impl Future for WriteTask {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut writer = match self.desk.poll_take(cx) {
            Poll::Ready(Some(writer)) => writer,
            Poll::Ready(None) => return Poll::Ready(()),
            Poll::Pending => return Poll::Pending,
        };
        writer.register(cx);
        let turn = writer.poll_turn(cx, Task::Second, now());
        if !writer.resting {
            cx.waker().wake_by_ref();
        }
        match turn {
            Ok(ended) => self.desk.put(writer, ended.is_some(), None),
            Err(error) => self.desk.put(writer, true, Some(error)),
        }
        Poll::Pending
    }
}

impl Drop for WriteTask {
    fn drop(&mut self) {
        let mut state = self.desk.lock();
        state.second_gone = true;
        let driver = mem::take(&mut state.driver);
        drop(state);
        driver.into_iter().for_each(Waker::wake);
    }
}

impl fmt::Debug for WriteTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteTask").finish_non_exhaustive()
    }
}
