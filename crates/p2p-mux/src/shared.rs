//! What a connection's driver and its handles share: the state machine and who waits for it.

use std::{
    collections::{HashMap, VecDeque},
    future::Future,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
    time::Instant,
};

use p2p_core::{ConnectionError, ErrorCode, MuxCore, MuxEvent, StreamError, StreamId};
use tokio::task::yield_now;

use crate::{desk::Desk, ids::IdHashes};

/// The shared part of one connection. The lock is held for moves of memory only: never across
/// cryptography, I/O or the call of a waker.
pub(crate) struct Shared {
    state: Mutex<State>,
}

pub(crate) struct State {
    pub(crate) core: Box<dyn MuxCore>,
    waiting: Waiting,
    openers: VecDeque<Waiter>,
    opener_next: u64,
    /// An opener that lets those ahead of it go first, once.
    yielding: Option<Waker>,
    acceptor: Option<Waker>,
    pub(crate) driver: Option<Waker>,
    /// The driver has been woken, and has not come.
    driver_called: bool,
    /// It needs no call for what is queued: it has been woken, or cannot write now and will look
    /// again by itself.
    writer_called: bool,
    pub(crate) desk: Desk,
    /// When the driver will call `handle_timeout` by itself.
    driver_due: Option<Instant>,
    /// Handles through which streams can be opened or accepted.
    handles: usize,
    closing: Option<(ErrorCode, Arc<str>)>,
    ended: Option<ConnectionError>,
    wake_all_openers: bool,
    wake_acceptor: bool,
    wake_driver: bool,
    /// The driver reads on when one that reads has taken all that it was given, or one waits to write.
    readers_awaited: bool,
    /// The driver has called several tasks at once.
    called_several: bool,
}

/// One that serves the connection, and so needs no call for what it does itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    Driver,
    /// One that writes to a stream, and has the writing side for a turn.
    Helper,
}

/// The tasks that wait at streams. A stream at which nobody waits takes no place.
#[derive(Default)]
struct Waiting {
    readers: HashMap<StreamId, Waker, IdHashes>,
    writers: HashMap<StreamId, Waker, IdHashes>,
    watchers: HashMap<StreamId, Waker, IdHashes>,
}

impl Waiting {
    fn of(&mut self, interest: Interest) -> &mut HashMap<StreamId, Waker, IdHashes> {
        match interest {
            Interest::Read => &mut self.readers,
            Interest::Write => &mut self.writers,
            Interest::Stopped => &mut self.watchers,
        }
    }
}

/// A task that waits to open a stream.
struct Waiter {
    opener: u64,
    waker: Waker,
    turn: Turn,
}

/// How far a waiter's turn is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// There was nothing to open when it looked.
    Waiting,
    /// It was woken since, and has not come back.
    Called,
    /// It has come back, and let those ahead of it go first. If they do not come, it goes.
    Yielded,
}

/// What a task waits for at a stream.
#[derive(Clone, Copy)]
pub(crate) enum Interest {
    Read,
    Write,
    Stopped,
}

impl Shared {
    pub(crate) fn new(core: Box<dyn MuxCore>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                core,
                waiting: Waiting::default(),
                openers: VecDeque::new(),
                opener_next: 0,
                yielding: None,
                acceptor: None,
                driver: None,
                driver_called: true,
                writer_called: true,
                desk: Desk::default(),
                driver_due: None,
                handles: 0,
                closing: None,
                ended: None,
                wake_all_openers: false,
                wake_acceptor: false,
                wake_driver: false,
                readers_awaited: false,
                called_several: false,
            }),
        })
    }

    /// Runs `work` under the lock, then wakes everybody whom it concerns, outside of it.
    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut State) -> R) -> R {
        self.run(None, work)
    }

    /// The same for the driver.
    pub(crate) fn with_driver<R>(&self, work: impl FnOnce(&mut State) -> R) -> R {
        self.run(Some(Task::Driver), work)
    }

    /// The same for one of the tasks that serve the connection.
    pub(crate) fn with_task<R>(&self, task: Task, work: impl FnOnce(&mut State) -> R) -> R {
        self.run(Some(task), work)
    }

    fn run<R>(&self, task: Option<Task>, work: impl FnOnce(&mut State) -> R) -> R {
        let mut wakers = Wakers::default();
        let result = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let result = work(&mut state);
            state.close_if_unused();
            state.collect(&mut wakers);
            state.call_tasks(task, &mut wakers);
            state.called_several |= task == Some(Task::Driver) && !wakers.others.is_empty();
            result
        };
        wakers.wake();
        result
    }

    /// Whether somebody has had something for the driver to do since it came.
    pub(crate) fn has_called_driver(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).driver_called
    }

    /// Lets a task wait for `interest` when `poll` says that there is nothing yet.
    pub(crate) fn poll<R>(
        &self,
        cx: &mut Context<'_>,
        id: StreamId,
        interest: Interest,
        poll: impl FnOnce(&mut dyn MuxCore) -> Poll<R>,
    ) -> Poll<R> {
        self.with(|state| {
            let result = poll(state.core.as_mut());
            if result.is_pending() {
                state.wait(cx, id, interest);
            }
            result
        })
    }
}

impl State {
    /// Has a task called when there is what it waits for at a stream.
    pub(crate) fn wait(&mut self, cx: &mut Context<'_>, id: StreamId, interest: Interest) {
        self.waiting
            .of(interest)
            .entry(id)
            .and_modify(|waker| waker.clone_from(cx.waker()))
            .or_insert_with(|| cx.waker().clone());
        let reads_on = matches!(interest, Interest::Read | Interest::Write);
        if reads_on && std::mem::take(&mut self.readers_awaited) {
            self.call_driver();
        }
    }

    /// Tells the driver's waker, and that handles must call it from now on.
    pub(crate) fn register_driver(&mut self, cx: &Context<'_>) {
        set_waker(&mut self.driver, cx);
        self.driver_called = false;
        self.writer_called = false;
        self.readers_awaited = false;
    }

    /// There is room for frames, and a task is about to look for some: what handles queue after that
    /// must wake the driver, even when it could not write before in the same turn; unless it is on its
    /// way already.
    pub(crate) fn writer_is_ready(&mut self) {
        self.writer_called = self.desk.is_helping() && self.driver_called;
    }

    /// When the driver must call `handle_timeout`; handles call it when that moves ahead.
    pub(crate) fn poll_timeout(&mut self) -> Option<Instant> {
        self.driver_due = self.core.poll_timeout();
        self.driver_due
    }

    /// Nothing can be written now: what handles queue need not wake the task.
    pub(crate) fn writer_is_blocked(&mut self) {
        self.writer_called = true;
    }

    /// Whether somebody waits for the peer's data.
    pub(crate) fn is_awaited(&self) -> bool {
        !self.waiting.readers.is_empty()
    }

    /// Has the driver called by the next one that reads and finds nothing more. False where one waits to
    /// write: what comes in may be what it waits for, and it may be one that reads.
    pub(crate) fn await_readers(&mut self) -> bool {
        self.readers_awaited = self.waiting.writers.is_empty();
        self.readers_awaited
    }

    /// Whether the driver has called several tasks at once since it was last asked so.
    pub(crate) fn take_called_several(&mut self) -> bool {
        std::mem::take(&mut self.called_several)
    }

    /// Has the driver called in any case.
    pub(crate) fn call_driver(&mut self) {
        self.wake_driver = true;
    }

    /// Gives back memory that is kept for later.
    pub(crate) fn release_idle(&mut self) {
        for interest in [Interest::Read, Interest::Write, Interest::Stopped] {
            self.waiting.of(interest).shrink_to_fit();
        }
        self.core.handle_idle();
    }

    pub(crate) fn add_handle(&mut self) {
        self.handles += 1;
    }

    pub(crate) fn remove_handle(&mut self) {
        self.handles -= 1;
    }

    pub(crate) fn release_send(&mut self, id: StreamId) {
        self.core.release_send(id);
        self.waiting.writers.remove(&id);
        self.waiting.watchers.remove(&id);
    }

    pub(crate) fn release_recv(&mut self, id: StreamId) {
        self.core.release_recv(id);
        self.waiting.readers.remove(&id);
    }

    /// Why nothing can be opened any more.
    pub(crate) fn over(&self) -> Option<ConnectionError> {
        self.ended.clone().or_else(|| self.closed_here())
    }

    /// That this side has closed the connection, if it has.
    pub(crate) fn closed_here(&self) -> Option<ConnectionError> {
        self.closing.as_ref().map(|(code, reason)| ConnectionError::Closed {
            code: *code,
            reason: Arc::clone(reason),
        })
    }

    pub(crate) fn new_opener(&mut self) -> u64 {
        self.handles += 1;
        self.opener_next += 1;
        self.opener_next
    }

    /// Opens a stream for `opener`, in the order in which openers began to wait. One that was called
    /// and does not come back, since nobody polls it, loses its turn to those who do.
    pub(crate) fn poll_open(
        &mut self,
        cx: &mut Context<'_>,
        opener: u64,
    ) -> Poll<Result<StreamId, ConnectionError>> {
        if let Some(error) = self.over() {
            self.remove_opener(opener);
            return Poll::Ready(Err(error));
        }
        let place = self.openers.iter().position(|waiter| waiter.opener == opener);
        let before = place.and_then(|place| self.openers.get(place)).map(|waiter| waiter.turn);
        let ahead = || self.openers.iter().take(place.unwrap_or(usize::MAX));
        let turn = if ahead().any(|waiter| waiter.turn == Turn::Waiting) {
            Turn::Waiting
        } else if before != Some(Turn::Yielded) && ahead().next().is_some() {
            self.yielding = Some(cx.waker().clone());
            Turn::Yielded
        } else if let Poll::Ready(result) = self.core.open() {
            self.remove_opener(opener);
            return Poll::Ready(result.map_err(ConnectionError::Mux));
        } else {
            Turn::Waiting
        };
        match place.and_then(|place| self.openers.get_mut(place)) {
            Some(waiter) => {
                waiter.waker.clone_from(cx.waker());
                waiter.turn = turn;
            }
            None => self.openers.push_back(Waiter { opener, waker: cx.waker().clone(), turn }),
        }
        Poll::Pending
    }

    pub(crate) fn drop_opener(&mut self, opener: u64) {
        self.handles -= 1;
        self.remove_opener(opener);
    }

    fn remove_opener(&mut self, opener: u64) {
        self.openers.retain(|waiter| waiter.opener != opener);
    }

    pub(crate) fn poll_accept(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<StreamId, ConnectionError>> {
        // What came before the end can still be read.
        if let Some(id) = self.core.accept() {
            return Poll::Ready(Ok(id));
        }
        if let Some(error) = &self.ended {
            return Poll::Ready(Err(error.clone()));
        }
        set_waker(&mut self.acceptor, cx);
        Poll::Pending
    }

    pub(crate) fn close(&mut self, code: ErrorCode, reason: &str) {
        if self.closing.is_none() && self.ended.is_none() {
            self.closing = Some((code, reason.into()));
            self.core.close(code);
            self.wake_all_openers = true;
            // Even one that cannot write now: the time for the goodbye runs from here.
            self.wake_driver = true;
        }
    }

    /// Ends everything: every handle gives `error` from now on.
    pub(crate) fn end(&mut self, error: &ConnectionError) {
        if self.ended.is_none() {
            self.ended = Some(error.clone());
            self.core.handle_end(&StreamError::Connection(error.clone()));
            self.wake_all_openers = true;
            self.wake_acceptor = true;
        }
    }

    /// Nobody can open or accept: once no stream is left, the connection has no use any more.
    fn close_if_unused(&mut self) {
        if self.handles > 0 || self.closing.is_some() || self.ended.is_some() {
            return;
        }
        self.core.refuse_inbound();
        if self.core.stream_count() == 0 {
            self.close(ErrorCode::NONE, "no handle is left");
        }
    }

    /// Calls the tasks that serve the connection, as far as they have something to do that `task`
    /// does not do itself.
    fn call_tasks(&mut self, task: Option<Task>, wakers: &mut Wakers) {
        let writes = task.is_some() || self.desk.is_helping();
        let send = !writes && !self.writer_called && self.core.has_transmit();
        self.writer_called |= send;
        let knows = self.driver_called || task == Some(Task::Driver);
        if self.wake_driver || send || !knows && self.is_due_earlier() {
            self.driver_called = true;
            let urgent =
                std::mem::take(&mut self.wake_driver) || !self.desk.is_used_up(self.is_awaited());
            if urgent {
                wakers.push(self.driver.clone());
            } else {
                self.desk.note_last();
                wakers.later = self.driver.clone();
            }
        }
    }

    /// Whether the driver would call `handle_timeout` too late.
    fn is_due_earlier(&self) -> bool {
        let due = self.core.poll_timeout();
        due.is_some_and(|due| self.driver_due.is_none_or(|planned| due < planned))
    }

    /// Turns the state machine's events into the wakers of those who wait.
    fn collect(&mut self, wakers: &mut Wakers) {
        while let Some(event) = self.core.poll_event() {
            match event {
                MuxEvent::Readable(id) => wakers.push(self.waiting.readers.remove(&id)),
                MuxEvent::Writable(id) => wakers.push(self.waiting.writers.remove(&id)),
                MuxEvent::Ended(id) => {
                    for interest in [Interest::Read, Interest::Write, Interest::Stopped] {
                        wakers.push(self.waiting.of(interest).remove(&id));
                    }
                }
                MuxEvent::Acceptable => wakers.push(self.acceptor.take()),
                MuxEvent::Openable => {
                    for waiter in &mut self.openers {
                        if waiter.turn == Turn::Waiting {
                            waiter.turn = Turn::Called;
                            wakers.push(Some(waiter.waker.clone()));
                        }
                    }
                }
                other => tracing::debug!(?other, "an event that this driver does not know"),
            }
        }
        wakers.push(self.yielding.take());
        if std::mem::take(&mut self.wake_all_openers) {
            for waiter in &self.openers {
                wakers.push(Some(waiter.waker.clone()));
            }
        }
        if std::mem::take(&mut self.wake_acceptor) {
            wakers.push(self.acceptor.take());
        }
    }
}

/// Those who are to be woken once the lock is released: mostly one, which needs no memory.
#[derive(Default)]
struct Wakers {
    first: Option<Waker>,
    others: Vec<Waker>,
    /// To be woken when nobody else is ready, and the runtime has looked at its sockets: two tasks that
    /// wake each other would keep it from that for long.
    later: Option<Waker>,
}

impl Wakers {
    fn push(&mut self, waker: Option<Waker>) {
        match (&self.first, waker) {
            (_, None) => {}
            (None, waker) => self.first = waker,
            (Some(_), Some(waker)) => self.others.push(waker),
        }
    }

    fn wake(self) {
        for waker in self.first.into_iter().chain(self.others) {
            waker.wake();
        }
        if let Some(waker) = self.later {
            // All that its first poll does is to have that waker woken.
            let first = pin!(yield_now()).poll(&mut Context::from_waker(&waker));
            debug_assert!(first.is_pending());
        }
    }
}

pub(crate) fn set_waker(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}
