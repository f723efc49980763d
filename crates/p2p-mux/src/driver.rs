//! The task of one connection: moves bytes between a pipe and the multiplexer's state machine.
//!
//! ```text
//!            goodbye given out, or the connection failed           flushed, peer's end seen,
//!  Running ───────────────────────────────────────────► Ending ───────── or time is up ─────► Done
//! ```

mod busy_poll;
mod former;
mod reader;
#[cfg(all(test, feature = "yamux"))]
mod tests;
mod writer;

use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use busy_poll::BusyPoll;
use bytes::BytesMut;
use p2p_core::{Clear, ConnectionError, ConnectionInfo, MuxCore, Muxed, Open, Pipe, Seal};
use reader::{READ_LEN_MAX, Reader};
use tokio::time::{Instant as TokioInstant, Sleep};
use writer::WRITE_STALL_MAX;
pub(crate) use writer::Writer;

use crate::{
    handle::Mux,
    shared::{Shared, Task},
};

/// What is received before those who read have their turn: more would be copied out of the receive
/// buffers meanwhile, and fall out of the processor's cache.
const READ_TURN_LEN: usize = 2 * READ_LEN_MAX;
/// Reads, and writes, of one turn; then the other direction has its turn.
const TURN_MAX: usize = 4;
/// Turns after which the task lets others run.
const TURNS_MAX: usize = 16;
/// How long nothing is read since those who read hold all former buffers. One that does not let go of
/// them then costs a copy of all that comes after.
const READERS_MAX: Duration = Duration::from_millis(1);
/// How long the end of a connection may take: the rest of the data and the goodbye must be taken
/// by the pipe.
const CLOSE_MAX: Duration = Duration::from_secs(5);
/// How long the end of a connection that failed may take.
const FAIL_MAX: Duration = Duration::from_secs(1);
/// How long this side waits for the peer's end after its own goodbye: a socket that is closed
/// with unread data resets the connection, and the goodbye with it.
const DRAIN_MAX: Duration = Duration::from_secs(1);
/// Buffers are released when nothing has moved for so long.
const IDLE_AFTER: Duration = Duration::from_secs(2);

/// A negotiation whose answer is still under way when the multiplexer begins: takes its own bytes
/// from the front of what the peer sends, and says whether it is complete, or what failed.
pub type Prelude = Box<dyn FnMut(&mut BytesMut) -> Result<bool, String> + Send>;

/// What a connection is made of; see [`Setup::start`].
pub struct Setup {
    pipe: Pipe,
    core: Box<dyn MuxCore>,
    seal: Option<Box<dyn Seal>>,
    open: Box<dyn Open>,
    wire: BytesMut,
    plain: BytesMut,
    unsent: BytesMut,
    prelude: Option<Prelude>,
    busy_poll: Duration,
}

impl Setup {
    /// Begins with a pipe that is used as it is, and a multiplexer's state machine.
    #[must_use]
    pub fn new(pipe: Pipe, core: Box<dyn MuxCore>) -> Self {
        Self {
            pipe,
            core,
            seal: None,
            open: Box::new(Clear),
            wire: BytesMut::new(),
            plain: BytesMut::new(),
            unsent: BytesMut::new(),
            prelude: None,
            busy_poll: Duration::ZERO,
        }
    }

    /// Puts a secure channel between the two.
    #[must_use]
    pub fn sealed(mut self, seal: Box<dyn Seal>, open: Box<dyn Open>) -> Self {
        self.seal = Some(seal);
        self.open = open;
        self
    }

    /// Hands in what has been read from the pipe already: `wire` as it came, `plain` opened.
    #[must_use]
    pub fn with_received(mut self, wire: BytesMut, plain: BytesMut) -> Self {
        self.wire = wire;
        self.plain = plain;
        self
    }

    /// Hands in sealed bytes that are still to be written, ahead of the multiplexer's.
    #[must_use]
    pub fn with_unsent(mut self, unsent: BytesMut) -> Self {
        self.unsent = unsent;
        self
    }

    /// Hands in a negotiation whose answer comes before the multiplexer's first frame.
    #[must_use]
    pub fn with_prelude(mut self, prelude: Prelude) -> Self {
        self.prelude = Some(prelude);
        self
    }

    /// Keeps the runtime from sleeping for up to `most` after something little was sent, as long as
    /// answers come that soon; [`Duration::ZERO`], the default, for never. Meanwhile the runtime runs every
    /// other task and looks at all sockets. Eight answers in time pay for one wait in vain.
    ///
    /// A pipe that can be asked ([`PipeRead::try_read`](p2p_core::PipeRead::try_read)) is first asked for
    /// the answer, where answers come within 20 µs and no other connection of the process has read
    /// meanwhile: for up to 50 µs, or 20 where the runtime has one thread, in which that thread does
    /// nothing else.
    #[must_use]
    pub fn with_busy_poll(mut self, most: Duration) -> Self {
        self.busy_poll = most;
        self
    }

    /// Gives the connection and the future that serves it.
    #[must_use]
    pub fn start(self) -> (Mux, Driver) {
        let shared = Shared::new(self.core);
        let writer = Writer::new(Arc::clone(&shared), self.pipe.write, self.seal, self.unsent);
        let driver = Driver {
            shared: Arc::clone(&shared),
            phase: Phase::Running,
            reader: Reader::new(self.pipe.read, self.open, self.wire, self.plain, self.prelude),
            writer: Some(Box::new(writer)),
            broken: None,
            failed: None,
            close_by: None,
            moved_at: now(),
            written: 0,
            readers_by: None,
            patient: true,
            busy_poll: BusyPoll::new(self.busy_poll),
            sleep: None,
            first: true,
        };
        (Mux::new(shared), driver)
    }

    /// The same, in the form that hosts use.
    #[must_use]
    pub fn start_with(self, info: ConnectionInfo) -> (Muxed, Driver) {
        let (mux, driver) = self.start();
        (mux.into_muxed(info), driver)
    }
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup").finish_non_exhaustive()
    }
}

/// Serves one connection: a future to be spawned, which gives the cause of the connection's end.
///
/// Dropped early, it ends the connection without a goodbye; every handle then gives
/// [`ConnectionError::Dropped`].
pub struct Driver {
    shared: Arc<Shared>,
    phase: Phase,
    reader: Reader,
    /// `None` while it is left to those who write to streams.
    writer: Option<Box<Writer>>,
    /// Why and since when nothing can be written. What the peer has sent before it left, and its
    /// goodbye, can still be read then.
    broken: Option<(ConnectionError, Instant)>,
    /// Why the connection ends, as soon as the writing side is here.
    failed: Option<ConnectionError>,
    /// Until when the goodbye of a connection that is being closed must be out.
    close_by: Option<Instant>,
    moved_at: Instant,
    /// What the writing side had written at the end of the last turn.
    written: u64,
    /// Until when those who read are waited for, if they are.
    readers_by: Option<Instant>,
    /// None of them was waited for in vain, since all former buffers were let go.
    patient: bool,
    busy_poll: Option<BusyPoll>,
    sleep: Option<Pin<Box<Sleep>>>,
    first: bool,
}

enum Phase {
    Running,
    Ending { cause: ConnectionError, by: Instant, shut: bool },
    Done,
}

/// Whether a turn may have left something to move.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Moved {
    Something,
    Nothing,
}

impl Future for Driver {
    type Output = ConnectionError;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<ConnectionError> {
        let this = &mut *self;
        this.shared.with_driver(|state| state.register_driver(cx));
        if std::mem::take(&mut this.first)
            && let Err(error) = this.handle_early()
        {
            this.failed = Some(error);
        }
        let mut read_len = 0;
        for _ in 0..TURNS_MAX {
            if this.failed.is_some() {
                ready!(this.poll_fail());
            }
            let moved = match &this.phase {
                Phase::Running => match this.turn(cx, &mut read_len) {
                    Ok(moved) => moved,
                    Err(error) => {
                        this.failed = Some(error);
                        Moved::Something
                    }
                },
                Phase::Ending { .. } => {
                    let cause = ready!(this.poll_ending(cx));
                    this.phase = Phase::Done;
                    return Poll::Ready(cause);
                }
                Phase::Done => return Poll::Ready(ConnectionError::Dropped),
            };
            if moved == Moved::Nothing && this.poll_sleep(cx).is_pending() {
                this.leave_writer();
                this.busy_poll.iter_mut().for_each(|busy| busy.rest(cx));
                return Poll::Pending;
            }
            if read_len >= READ_TURN_LEN {
                break;
            }
        }
        this.leave_writer();
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Driver {
    /// Takes the writing side, where no other task is in a turn with it.
    fn take_writer(&mut self, now: Instant, read: bool) -> Result<(), ConnectionError> {
        if self.writer.is_some() {
            return Ok(());
        }
        let (writer, failed) = self.shared.with_driver(|state| state.desk.take(read));
        self.writer = writer;
        failed.map_or(Ok(()), |error| self.handle_write_error(error, now))
    }

    /// Leaves the writing side to those who write, until this task has its next turn with it.
    fn leave_writer(&mut self) {
        let running = self.broken.is_none() && matches!(self.phase, Phase::Running);
        if let Some(writer) = self.writer.take_if(|_| running) {
            self.shared.with_driver(|state| state.desk.put(writer));
        }
    }

    /// Handles what had been received before the multiplexer began.
    fn handle_early(&mut self) -> Result<(), ConnectionError> {
        let plain = std::mem::take(&mut self.reader.plain).freeze();
        if !plain.is_empty() {
            self.reader.records.push(plain);
        }
        let opened = self.reader.open_records();
        self.handle_records(false)?;
        opened
    }

    /// One look at the clock, some writes, some reads.
    fn turn(
        &mut self,
        cx: &mut Context<'_>,
        read_len: &mut usize,
    ) -> Result<Moved, ConnectionError> {
        let now = now();
        self.handle_time(now)?;
        self.take_writer(now, false)?;
        let mut wrote = self.poll_write_side(cx, now)?;
        if let Phase::Ending { .. } = self.phase {
            return Ok(Moved::Something);
        }
        // After the attempt: a task that was not run for long has not been stalled by the peer.
        if self.writer.as_ref().is_some_and(|writer| writer.is_stalled(now)) {
            return Err(ConnectionError::WriteStalled(WRITE_STALL_MAX));
        }
        let resting = self.writer.as_ref().is_none_or(|writer| writer.resting);
        // Those who write go on meanwhile.
        self.leave_writer();
        let read = self.poll_read_side(cx, read_len, now, &mut wrote)?;
        self.take_writer(now, read > 0)?;
        if let Some((error, at)) = &self.broken
            && (read == 0 || *at + FAIL_MAX <= now)
        {
            return Err(error.clone());
        }
        if wrote > 0 || read > 0 {
            self.moved_at = now;
            self.busy_poll.iter_mut().for_each(|busy| busy.note(wrote, read));
        }
        self.release_idle(now);
        // Another look would find nothing.
        Ok(if read == 0 && resting { Moved::Nothing } else { Moved::Something })
    }

    fn handle_time(&mut self, now: Instant) -> Result<(), ConnectionError> {
        let closing = self.shared.with_driver(|state| {
            if state.core.poll_timeout().is_some_and(|due| due <= now) {
                state.core.handle_timeout(now).map_err(ConnectionError::Mux)?;
            }
            Ok::<_, ConnectionError>(state.over())
        })?;
        if let Some(cause) = closing {
            let by = *self.close_by.get_or_insert(now + CLOSE_MAX);
            if by <= now {
                return Err(cause);
            }
        }
        Ok(())
    }

    /// Gives the number of bytes that were written.
    fn poll_write_side(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Result<u64, ConnectionError> {
        let Some(writer) = self.writer.as_mut().filter(|_| self.broken.is_none()) else {
            return Ok(0);
        };
        let turn = writer.poll_turn(cx, Task::Driver, now);
        // With what others have written in its name.
        let wrote = writer.written - self.written;
        self.written = writer.written;
        match turn {
            Ok(None) => {}
            Ok(Some(cause)) => self.begin_ending(cause, now),
            Err(error) => self.handle_write_error(error, now)?,
        }
        Ok(wrote)
    }

    fn handle_write_error(
        &mut self,
        error: ConnectionError,
        now: Instant,
    ) -> Result<(), ConnectionError> {
        if let ConnectionError::Io(_) = error {
            self.broken = Some((error, now));
            return Ok(());
        }
        Err(error)
    }

    /// Gives the number of bytes that were read, in a turn that `wrote` so many.
    fn poll_read_side(
        &mut self,
        cx: &mut Context<'_>,
        read_len: &mut usize,
        now: Instant,
        wrote: &mut u64,
    ) -> Result<usize, ConnectionError> {
        let before = *read_len;
        for _ in 0..TURN_MAX {
            if self.awaits_readers(now) {
                break;
            }
            let mut read = self.reader.poll_read(cx);
            // Not in a poll that has called others for what they wait for.
            if read.is_pending() && *read_len == 0 {
                read = self.ask_pipe(wrote);
            }
            match read {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => return Err(self.end_of_pipe()),
                Poll::Ready(Ok(count)) => {
                    tracing::trace!(len = count, "read");
                    *read_len += count;
                    // What came before a broken record is still good.
                    let opened = self.reader.open_records();
                    let keep = self.reader.may_be_kept();
                    self.handle_records(keep)?;
                    opened?;
                    if *read_len >= READ_TURN_LEN {
                        break;
                    }
                }
                Poll::Ready(Err(error)) => return Err(ConnectionError::Io(error.into())),
            }
        }
        Ok(*read_len - before)
    }

    /// Waits for an answer without giving way, where one is likely to come that soon.
    fn ask_pipe(&mut self, wrote: &mut u64) -> Poll<io::Result<usize>> {
        let Some(busy) = &mut self.busy_poll else { return Poll::Pending };
        busy.note(std::mem::take(wrote), 0);
        let several = || self.shared.with_driver(|state| state.take_called_several());
        let Some(until) = busy.ask_until(several) else { return Poll::Pending };
        let answer = self.reader.ask(until, || self.shared.has_called_driver());
        busy.note_asked(answer.as_ref().map(Poll::is_ready));
        answer.unwrap_or(Poll::Pending)
    }

    /// Whether the next read is to wait until those who read have let go of a buffer; one that finds
    /// nothing more, or waits to write, calls this task. It saves a copy, to memory that is not in the
    /// processor's cache.
    fn awaits_readers(&mut self, now: Instant) -> bool {
        if self.broken.is_some() || !self.reader.must_copy() {
            self.readers_by = None;
            self.patient = self.patient || self.reader.all_let_go();
            return false;
        }
        if !self.patient {
            return false;
        }
        if *self.readers_by.get_or_insert(now + READERS_MAX) <= now {
            self.readers_by = None;
            self.patient = false;
            return false;
        }
        // And once more: one that came just before has called nobody.
        self.shared.with_driver(|state| state.await_readers()) && self.reader.must_copy()
    }

    /// Hands on what was opened; `keep` says whether it may be kept by reference.
    fn handle_records(&mut self, mut keep: bool) -> Result<(), ConnectionError> {
        let Reader { records, plain, prelude, .. } = &mut self.reader;
        if let Some(negotiation) = prelude {
            for record in records.drain(..) {
                plain.extend_from_slice(&record);
            }
            if !negotiation(plain).map_err(ConnectionError::Negotiation)? {
                return Ok(());
            }
            *prelude = None;
            records.push(std::mem::take(plain).freeze());
            keep = false;
        }
        if records.is_empty() {
            return Ok(());
        }
        let now = now();
        self.shared.with_driver(|state| {
            for record in records.drain(..) {
                let handled = if keep {
                    state.core.handle_data(record, now)
                } else {
                    state.core.handle_lent(record, now)
                };
                handled.map_err(ConnectionError::Mux)?;
            }
            match state.core.goodbye() {
                // Two goodbyes that cross: this side's handles have its own cause already.
                Some(code) => {
                    Err(state.closed_here().unwrap_or(ConnectionError::ClosedByPeer { code }))
                }
                None => Ok(()),
            }
        })
    }

    /// The peer has ended the pipe without a goodbye: an ordinary end when nothing was owed.
    fn end_of_pipe(&self) -> ConnectionError {
        let owed = self.shared.with_driver(|state| state.core.stream_count() > 0);
        if owed || self.reader.is_amid() {
            return ConnectionError::Truncated;
        }
        ConnectionError::ClosedByPeer { code: p2p_core::ErrorCode::NONE }
    }

    /// Ends the connection because something has failed, with the multiplexer's last word where it
    /// has one. Pending while another task is in a turn with the writing side.
    fn poll_fail(&mut self) -> Poll<()> {
        let now = now();
        // One that could not be given back is lost, and the connection fails for that.
        if self.take_writer(now, false).is_ok()
            && self.writer.is_none()
            && self.shared.with_driver(|state| state.desk.want())
        {
            return Poll::Pending;
        }
        let Some(error) = self.failed.take() else { return Poll::Ready(()) };
        if let (ConnectionError::Mux(_), Some(writer)) = (&error, &mut self.writer)
            && writer.fill_last_word(now).is_err()
        {
            tracing::debug!("the channel is used up: ending without a goodbye");
        }
        self.begin_ending(error, now);
        Poll::Ready(())
    }

    /// From here on nothing is received for streams; what is in `out` is still written.
    fn begin_ending(&mut self, cause: ConnectionError, now: Instant) {
        tracing::debug!(%cause, "connection ends");
        self.shared.with_driver(|state| state.end(&cause));
        let polite = matches!(cause, ConnectionError::Closed { .. });
        let by = match self.close_by {
            Some(by) if polite => by,
            None if polite => now + CLOSE_MAX,
            Some(_) | None => now + FAIL_MAX,
        };
        self.phase = Phase::Ending { cause, by, shut: false };
    }

    /// Writes what is left, ends this side's half of the pipe, and waits a moment for the peer's.
    /// It reads all the while: the peer may be at the same point, and reads no more than it can
    /// write.
    fn poll_ending(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionError> {
        let Phase::Ending { cause, by, shut } = &mut self.phase else {
            return Poll::Ready(ConnectionError::Dropped);
        };
        let now = now();
        let said = matches!(cause, ConnectionError::Closed { .. } | ConnectionError::Mux(_));
        let drained = !said || self.reader.poll_drain(cx).is_ready();
        if !*shut {
            let end = self.writer.as_mut().map(|writer| writer.poll_end(cx, now));
            match end.unwrap_or(Poll::Ready(Ok(()))) {
                Poll::Ready(Ok(())) => {
                    *shut = true;
                    *by = (*by).min(now + DRAIN_MAX);
                }
                Poll::Ready(Err(_)) => return Poll::Ready(cause.clone()),
                Poll::Pending => {}
            }
        }
        if *shut && drained {
            return Poll::Ready(cause.clone());
        }
        let (cause, by) = (cause.clone(), *by);
        ready!(self.poll_until(cx, by));
        Poll::Ready(cause)
    }

    /// Sleeps until the next thing is due. Ready when something is due now.
    fn poll_sleep(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let stall = self.writer.as_ref().and_then(|writer| writer.stalls_at());
        let idle = self.holds_buffers().then(|| self.moved_at + IDLE_AFTER);
        let due = self.shared.with_driver(|state| {
            let due = [state.poll_timeout(), stall, idle, self.close_by, self.readers_by];
            let due = due.into_iter().flatten().min();
            state.desk.set_look(due);
            due
        });
        match due {
            Some(due) => self.poll_until(cx, due),
            None => Poll::Pending,
        }
    }

    fn poll_until(&mut self, cx: &mut Context<'_>, due: Instant) -> Poll<()> {
        let due = TokioInstant::from_std(due);
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        // One that fires too early is set anew then: most are never reached.
        if sleep.deadline() > due || sleep.is_elapsed() {
            sleep.as_mut().reset(due);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() >= due {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(due);
        }
    }

    fn holds_buffers(&self) -> bool {
        self.reader.holds_buffers()
            || self.writer.as_ref().is_some_and(|writer| writer.holds_buffers())
    }

    fn release_idle(&mut self, now: Instant) {
        if self.moved_at + IDLE_AFTER <= now && self.holds_buffers() {
            self.shared.with_driver(|state| state.release_idle());
            self.reader.release_buffers();
            self.writer.iter_mut().for_each(|writer| writer.release_buffers());
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let writer = self.shared.with_driver(|state| {
            state.end(&ConnectionError::Dropped);
            state.desk.close()
        });
        // Its pipe ends here, outside of the lock.
        drop(writer);
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}

pub(crate) fn now() -> Instant {
    TokioInstant::now().into_std()
}
