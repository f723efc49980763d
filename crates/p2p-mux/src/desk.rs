//! Where the writing side of a connection lies while its driver has no turn with it.
//!
//! ```text
//!               a turn begins                         there is no room, or much was written
//!  with the  ◄───────────────── on the desk ──────────────────────────────────────► with one that
//!   driver   ─────────────────►             ◄────────────────────────────────────── writes to a stream
//!                a turn ends                   the pipe takes no more, or all is sent
//! ```
//!
//! One that writes seals and sends what is queued itself, in the driver's name and with its waker,
//! instead of waking it and waiting: that would be two switches between tasks for each record, and
//! perhaps between threads. So sealing and opening are on two cores where there are two, and on one
//! without a switch where the application is on one.

use std::{
    task::{Context, Poll, Waker},
    time::Instant,
};

use p2p_core::{ConnectionError, MuxCore, StreamId};
use tokio::task::coop;

use crate::{
    driver::{Writer, now},
    shared::{Interest, Shared, State, Task},
};

/// Turns of those who write until the runtime has looked at its sockets, and the driver has read: where
/// there is one thread, both wait for them.
const HELP_MAX: usize = 32;
/// The same while somebody waits for what the peer has to say.
const HELP_AWAITED_MAX: usize = 2;
/// Who writes so many bytes at once will write more: they are sent at once. It is a record, nearly.
pub(crate) const BULK_LEN: usize = 60 << 10;

#[derive(Default)]
pub(crate) struct Desk {
    writer: Option<Box<Writer>>,
    /// One that writes to a stream is in a turn with it.
    helping: bool,
    /// Turns of such since the driver has read, or was called behind all others.
    helped: usize,
    /// It was called so.
    called_last: bool,
    /// Why the last of them failed.
    failed: Option<ConnectionError>,
    /// The driver is to be called at the end of such a turn.
    wanted: bool,
    /// When the driver looks whether the pipe has stalled, and whether buffers can be released.
    looks: Option<Instant>,
    driver_gone: bool,
}

impl Desk {
    /// Gives the driver the writing side, unless another task has it, and why it failed there. `read`
    /// says that the driver has just received something.
    pub(crate) fn take(&mut self, read: bool) -> (Option<Box<Writer>>, Option<ConnectionError>) {
        if std::mem::take(&mut self.called_last) || read {
            self.helped = 0;
        }
        (self.writer.take(), self.failed.take())
    }

    /// Lays it down until the driver's next turn.
    pub(crate) fn put(&mut self, writer: Box<Writer>) {
        self.writer = Some(writer);
    }

    /// Has the driver called once no other task has the writing side; false where none has it.
    pub(crate) fn want(&mut self) -> bool {
        self.wanted = self.helping;
        self.helping
    }

    pub(crate) fn set_look(&mut self, at: Option<Instant>) {
        self.looks = at;
    }

    /// The driver is gone, and takes it no more.
    pub(crate) fn close(&mut self) -> Option<Box<Writer>> {
        self.driver_gone = true;
        self.writer.take()
    }

    /// Whether those who write have had all their turns: then the driver is to be called behind all
    /// others, and they have new ones. `awaited` says that somebody waits for the peer's data.
    pub(crate) fn is_used_up(&self, awaited: bool) -> bool {
        self.helped >= if awaited { HELP_AWAITED_MAX } else { HELP_MAX }
    }

    pub(crate) fn note_last(&mut self) {
        self.called_last = true;
    }

    /// Whether one that writes is in a turn: it sends what others queue meanwhile.
    pub(crate) fn is_helping(&self) -> bool {
        self.helping
    }

    /// Gives the writing side to one that writes, where it would get rid of something.
    fn take_to_help(&mut self, core: &dyn MuxCore, awaited: bool) -> Option<Box<Writer>> {
        let writer = self.writer.as_ref()?;
        let may = !self.is_used_up(awaited) && self.failed.is_none() && core.has_transmit();
        if !may || writer.is_blocked() {
            return None;
        }
        self.helping = true;
        self.writer.take()
    }
}

impl Shared {
    /// Lets a task wait for room when `write` finds none; where that helps it sends for itself first,
    /// and also where `write` says that it has written much, and is likely to go on.
    pub(crate) fn poll_write<R>(
        &self,
        cx: &mut Context<'_>,
        id: StreamId,
        mut write: impl FnMut(&mut dyn MuxCore) -> (Poll<R>, bool),
    ) -> Poll<R> {
        let mut helps = true;
        loop {
            let mut turn = None;
            let written = self.with(|state| {
                let (written, much) = write(state.core.as_mut());
                if helps && (written.is_pending() || much) {
                    turn = state.begin_help(cx);
                }
                if turn.is_none() && written.is_pending() {
                    state.wait(cx, id, Interest::Write);
                }
                written
            });
            let Some((writer, driver)) = turn else { return written };
            // Where nothing moves, there is no more room than before.
            helps = self.help(writer, &driver);
            if written.is_ready() {
                return written;
            }
        }
    }

    /// A turn of writing, in the driver's name. Says whether something moved.
    fn help(&self, mut writer: Box<Writer>, driver: &Waker) -> bool {
        // As it is if the turn panics: the writing side is lost.
        let failed = Some(ConnectionError::Dropped);
        let mut turn = Help { shared: self, now: now(), writer: None, failed, left: true };
        let before = writer.written;
        let result = writer.poll_turn(&mut Context::from_waker(driver), Task::Helper, turn.now);
        let moved = writer.written > before;
        turn.left = !writer.resting || matches!(result, Ok(Some(_)));
        turn.failed = result.err();
        turn.writer = Some(writer);
        moved
    }
}

impl State {
    fn begin_help(&mut self, cx: &mut Context<'_>) -> Option<(Box<Writer>, Waker)> {
        // Such a task must let others run, as one that writes to a socket of its own.
        if !coop::has_budget_remaining() {
            return None;
        }
        let driver = self.driver.clone()?;
        let awaited = self.is_awaited();
        let writer = self.desk.take_to_help(self.core.as_ref(), awaited)?;
        if let Poll::Ready(step) = coop::poll_proceed(cx) {
            step.made_progress();
        }
        Some((writer, driver))
    }
}

/// A turn of one that writes: lays the writing side down at its end, and calls the driver where
/// something is left to it.
struct Help<'a> {
    shared: &'a Shared,
    now: Instant,
    /// None in the turn.
    writer: Option<Box<Writer>>,
    failed: Option<ConnectionError>,
    /// There is more to write, or the driver has to see to the end.
    left: bool,
}

impl Drop for Help<'_> {
    fn drop(&mut self) {
        let mut writer = self.writer.take();
        self.shared.with(|state| {
            let desk = &mut state.desk;
            desk.helping = false;
            desk.helped += 1;
            let due = writer.as_ref().and_then(|writer| writer.due(self.now));
            let unseen = due.is_some_and(|due| desk.looks.is_none_or(|looks| due < looks));
            let wanted = std::mem::take(&mut desk.wanted) || self.failed.is_some();
            if !desk.driver_gone {
                desk.writer = writer.take();
                desk.failed = self.failed.take();
            }
            if wanted || self.left || unseen {
                state.call_driver();
            }
        });
    }
}
