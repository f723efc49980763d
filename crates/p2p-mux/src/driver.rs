//! The task of one connection: moves bytes between a pipe and the multiplexer's state machine.
//!
//! ```text
//!            goodbye given out, or the connection failed           flushed, peer's end seen,
//!  Running ───────────────────────────────────────────► Ending ───────── or time is up ─────► Done
//! ```

use std::{
    fmt,
    future::Future,
    io::{self, IoSlice},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use p2p_core::{
    Clear, ConnectionError, ConnectionInfo, Gather, MuxCore, Muxed, Open, Opened, Pipe, Seal,
    SecurityError,
};
use tokio::{
    io::{AsyncReadExt, AsyncWrite},
    time::{Instant as TokioInstant, Sleep},
};

use crate::{blocks::Blocks, handle::Mux, shared::Shared};

/// What is received at once when little comes in, in bytes.
const READ_LEN_MIN: usize = 4 << 10;
/// What is received at once under load: two records of Noise's largest size, so that a sender
/// that fills its records leaves no part of one at the end of the buffer.
const READ_LEN_MAX: usize = 2 * 65_537;
/// What is received before those who read have their turn: more would be copied out of the receive
/// buffers meanwhile, and fall out of the processor's cache.
const READ_TURN_LEN: usize = 2 * READ_LEN_MAX;
/// Plain bytes that are taken from the multiplexer at once: two whole Noise records. The actual
/// amount exceeds it by less than one frame.
const TRANSMIT_LEN: usize = 2 * 65_519;
/// Pieces that are written at once where nothing is sealed.
const PIECES_MAX: usize = 64;
/// Received buffers that are kept to be used again, besides the one that is filled.
const READ_BLOCKS_MAX: usize = 3;
/// Reads, and writes, of one turn; then the other direction has its turn.
const TURN_MAX: usize = 4;
/// Turns after which the task lets others run.
const TURNS_MAX: usize = 16;
/// The connection ends when the peer has taken nothing for so long.
const WRITE_STALL_MAX: Duration = Duration::from_secs(10);
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

    /// Gives the connection and the future that serves it.
    #[must_use]
    pub fn start(self) -> (Mux, Driver) {
        let shared = Shared::new(self.core);
        let driver = Driver {
            shared: Arc::clone(&shared),
            phase: Phase::Running,
            reader: Reader {
                pipe: self.pipe.read,
                open: self.open,
                wire: self.wire,
                blocks: Blocks::new(READ_BLOCKS_MAX),
                plain: self.plain,
                prelude: self.prelude,
                read_len: READ_LEN_MIN,
                missing: 1,
                records: Vec::new(),
                ended: false,
            },
            writer: Writer {
                pipe: self.pipe.write,
                seal: self.seal,
                frames: Gather::new(),
                out: self.unsent,
                flushed: true,
                broken: None,
                stalled_at: None,
            },
            close_by: None,
            moved_at: now(),
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
    writer: Writer,
    /// Until when the goodbye of a connection that is being closed must be out.
    close_by: Option<Instant>,
    moved_at: Instant,
    sleep: Option<Pin<Box<Sleep>>>,
    first: bool,
}

enum Phase {
    Running,
    Ending { cause: ConnectionError, by: Instant, shut: bool },
    Done,
}

/// Whether a step moved anything.
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
            this.fail(error);
        }
        let mut read_len = 0;
        for _ in 0..TURNS_MAX {
            let moved = match &this.phase {
                Phase::Running => match this.turn(cx, &mut read_len) {
                    Ok(moved) => moved,
                    Err(error) => {
                        this.fail(error);
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
                return Poll::Pending;
            }
            if read_len >= READ_TURN_LEN {
                break;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Driver {
    /// Handles what had been received before the multiplexer began.
    fn handle_early(&mut self) -> Result<(), ConnectionError> {
        let plain = self.reader.plain.split().freeze();
        if !plain.is_empty() {
            self.reader.records.push(plain);
        }
        let opened = self.reader.open_records();
        self.handle_records()?;
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
        let wrote = match self.poll_write_side(cx, now) {
            Err(error @ ConnectionError::Io(_)) => {
                self.writer.broken = Some((error, now));
                Moved::Nothing
            }
            other => other?,
        };
        if let Phase::Ending { .. } = self.phase {
            return Ok(Moved::Something);
        }
        // After the attempt: a task that was not run for long has not been stalled by the peer.
        if self.writer.stalled_at.is_some_and(|at| at + WRITE_STALL_MAX <= now) {
            return Err(ConnectionError::WriteStalled(WRITE_STALL_MAX));
        }
        let read = self.poll_read_side(cx, read_len)?;
        if let Some((error, at)) = &self.writer.broken
            && (read == Moved::Nothing || *at + FAIL_MAX <= now)
        {
            return Err(error.clone());
        }
        if wrote == Moved::Nothing && read == Moved::Nothing {
            self.release_idle(now);
            return Ok(Moved::Nothing);
        }
        self.moved_at = now;
        Ok(Moved::Something)
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

    fn poll_write_side(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Result<Moved, ConnectionError> {
        let mut moved = Moved::Nothing;
        if self.writer.broken.is_some() {
            return Ok(moved);
        }
        for _ in 0..TURN_MAX {
            if self.writer.is_empty() && !self.fill(now)? {
                break;
            }
            match self.writer.poll_write(cx, now)? {
                Poll::Ready(()) => moved = Moved::Something,
                Poll::Pending => {
                    self.shared.with_driver(|state| state.driver_is_blocked());
                    break;
                }
            }
        }
        if self.writer.is_empty() {
            self.writer.poll_flush(cx, now)?;
        }
        Ok(moved)
    }

    /// Takes frames from the multiplexer and seals them. False when there are none.
    fn fill(&mut self, now: Instant) -> Result<bool, ConnectionError> {
        let frames = &mut self.writer.frames;
        let closed = self.shared.with_driver(|state| {
            state.driver_is_ready();
            if state.core.has_transmit() {
                state.core.poll_transmit(TRANSMIT_LEN, frames, now);
            }
            state.over().filter(|_| state.core.is_closed())
        });
        self.writer.seal_frames().map_err(ConnectionError::Security)?;
        if let Some(cause) = closed {
            self.begin_ending(cause, now);
            return Ok(false);
        }
        Ok(!self.writer.is_empty())
    }

    fn poll_read_side(
        &mut self,
        cx: &mut Context<'_>,
        read_len: &mut usize,
    ) -> Result<Moved, ConnectionError> {
        let mut moved = Moved::Nothing;
        for _ in 0..TURN_MAX {
            match self.reader.poll_read(cx) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => return Err(self.end_of_pipe()),
                Poll::Ready(Ok(count)) => {
                    moved = Moved::Something;
                    *read_len += count;
                    // What came before a broken record is still good.
                    let opened = self.reader.open_records();
                    self.handle_records()?;
                    opened?;
                    if *read_len >= READ_TURN_LEN {
                        break;
                    }
                }
                Poll::Ready(Err(error)) => return Err(ConnectionError::Io(error.into())),
            }
        }
        Ok(moved)
    }

    fn handle_records(&mut self) -> Result<(), ConnectionError> {
        let Reader { records, plain, prelude, .. } = &mut self.reader;
        if let Some(negotiation) = prelude {
            for record in records.drain(..) {
                plain.extend_from_slice(&record);
            }
            if !negotiation(plain).map_err(ConnectionError::Negotiation)? {
                return Ok(());
            }
            *prelude = None;
            records.push(plain.split().freeze());
        }
        if records.is_empty() {
            return Ok(());
        }
        let now = now();
        self.shared.with_driver(|state| {
            for record in records.drain(..) {
                state.core.handle_data(record, now).map_err(ConnectionError::Mux)?;
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
        if owed || !self.reader.wire.is_empty() || self.reader.prelude.is_some() {
            return ConnectionError::Truncated;
        }
        ConnectionError::ClosedByPeer { code: p2p_core::ErrorCode::NONE }
    }

    /// Ends the connection because of `error`, with the multiplexer's last word where it has one.
    fn fail(&mut self, error: ConnectionError) {
        let now = now();
        if let ConnectionError::Mux(_) = error {
            let frames = &mut self.writer.frames;
            self.shared.with_driver(|state| state.core.poll_transmit(0, frames, now));
            if self.writer.seal_frames().is_err() {
                tracing::debug!("the channel is used up: ending without a goodbye");
            }
        }
        self.begin_ending(error, now);
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
            match self.writer.poll_end(cx, now) {
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
        let core = self.shared.with_driver(|state| state.poll_timeout());
        let stall = self.writer.stalled_at.map(|at| at + WRITE_STALL_MAX);
        let idle = self.holds_buffers().then(|| self.moved_at + IDLE_AFTER);
        match [core, stall, idle, self.close_by].into_iter().flatten().min() {
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
        self.reader.wire.capacity() > 0 && self.reader.wire.is_empty()
            || !self.reader.blocks.is_empty()
            || self.writer.out.capacity() > 0 && self.writer.out.is_empty()
    }

    fn release_idle(&mut self, now: Instant) {
        if self.moved_at + IDLE_AFTER <= now {
            self.reader.blocks.clear();
            if self.reader.wire.is_empty() {
                self.reader.wire = BytesMut::new();
                self.reader.read_len = READ_LEN_MIN;
                self.reader.missing = 1;
            }
            if self.writer.out.is_empty() {
                self.writer.out = BytesMut::new();
            }
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.shared.with_driver(|state| state.end(&ConnectionError::Dropped));
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}

struct Reader {
    pipe: Box<dyn tokio::io::AsyncRead + Unpin + Send>,
    open: Box<dyn Open>,
    /// The one read buffer of the connection's life.
    wire: BytesMut,
    /// Former read buffers, whose bytes may still wait for their readers.
    blocks: Blocks,
    /// Opened bytes of a negotiation that is not complete.
    plain: BytesMut,
    prelude: Option<Prelude>,
    read_len: usize,
    /// How many bytes the record at the front of `wire` still needs.
    missing: usize,
    records: Vec<Bytes>,
    ended: bool,
}

impl Reader {
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.make_room();
        let spare = self.wire.capacity() - self.wire.len();
        let count = ready!(pin!(self.pipe.read_buf(&mut self.wire)).poll(cx))?;
        if count == spare {
            self.read_len = (self.read_len * 4).min(READ_LEN_MAX);
        }
        Poll::Ready(Ok(count))
    }

    /// Makes room for what the next record needs, in another buffer where this one's bytes are
    /// still referred to.
    fn make_room(&mut self) {
        let wanted = self.read_len.max(self.missing);
        let spare = self.wire.capacity() - self.wire.len();
        if spare >= self.missing || self.wire.try_reclaim(wanted) {
            return;
        }
        let mut block = self.blocks.take(self.wire.len() + wanted);
        block.extend_from_slice(&self.wire);
        self.blocks.retire(std::mem::replace(&mut self.wire, block));
    }

    /// Opens every whole record that has come in.
    fn open_records(&mut self) -> Result<(), ConnectionError> {
        loop {
            match self.open.open(&mut self.wire).map_err(ConnectionError::Security)? {
                Opened::Record(record) if record.is_empty() => {}
                Opened::Record(record) => self.records.push(record),
                Opened::Incomplete(missing) => {
                    self.missing = missing.max(1);
                    return Ok(());
                }
                _ => return Ok(()),
            }
        }
    }

    /// Reads and forgets until the peer's end.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..TURNS_MAX {
            if self.ended {
                return Poll::Ready(());
            }
            self.wire.clear();
            self.wire.reserve(READ_LEN_MIN);
            let count = ready!(pin!(self.pipe.read_buf(&mut self.wire)).poll(cx));
            self.ended = !matches!(count, Ok(1..));
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

struct Writer {
    pipe: Box<dyn AsyncWrite + Unpin + Send>,
    /// None where the pipe is used as it is.
    seal: Option<Box<dyn Seal>>,
    /// What is still to be sealed; or to be written as it is, once `out` is empty.
    frames: Gather,
    /// Sealed bytes on their way to the pipe.
    out: BytesMut,
    flushed: bool,
    /// Why and since when nothing can be written. What the peer has sent before it left, and its
    /// goodbye, can still be read then.
    broken: Option<(ConnectionError, Instant)>,
    /// Since when the pipe takes nothing.
    stalled_at: Option<Instant>,
}

impl Writer {
    /// Whether there is nothing to write.
    fn is_empty(&self) -> bool {
        self.out.is_empty() && self.frames.is_empty()
    }

    /// Seals what was taken from the multiplexer. Without a secure channel it is copied only where
    /// the pipe does not take the pieces.
    fn seal_frames(&mut self) -> Result<(), SecurityError> {
        if self.frames.is_empty() {
            return Ok(());
        }
        match &mut self.seal {
            Some(seal) => seal.seal(&mut self.frames, &mut self.out),
            None if self.pipe.is_write_vectored() => Ok(()),
            None => {
                self.out.put(&mut self.frames);
                Ok(())
            }
        }
    }

    /// Writes once. Pending when the pipe takes nothing now.
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Result<Poll<()>, ConnectionError> {
        let pipe = Pin::new(&mut self.pipe);
        let (written, given) = if self.out.is_empty() {
            let mut pieces = [IoSlice::new(&[]); PIECES_MAX];
            let count = self.frames.chunks_vectored(&mut pieces);
            let pieces = pieces.get(..count).unwrap_or_default();
            let given = pieces.iter().map(|piece| piece.len()).sum();
            (pipe.poll_write_vectored(cx, pieces), given)
        } else {
            (pipe.poll_write(cx, &self.out), self.out.len())
        };
        match written {
            Poll::Ready(Ok(0)) => {
                Err(ConnectionError::Io(io::Error::from(io::ErrorKind::WriteZero).into()))
            }
            Poll::Ready(Ok(count)) if count > given => {
                let broken =
                    io::Error::other("the pipe claims to have written more than it was given");
                Err(ConnectionError::Io(broken.into()))
            }
            Poll::Ready(Ok(count)) => {
                self.stalled_at = None;
                self.flushed = false;
                if self.out.is_empty() {
                    self.frames.advance(count);
                } else {
                    self.out.advance(count);
                }
                Ok(Poll::Ready(()))
            }
            Poll::Ready(Err(error)) => Err(ConnectionError::Io(error.into())),
            Poll::Pending => {
                self.stalled_at.get_or_insert(now);
                Ok(Poll::Pending)
            }
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<(), ConnectionError> {
        if self.flushed {
            return Ok(());
        }
        match Pin::new(&mut self.pipe).poll_flush(cx) {
            Poll::Ready(result) => {
                result.map_err(|error| ConnectionError::Io(error.into()))?;
                self.flushed = true;
                self.stalled_at = None;
            }
            Poll::Pending => {
                self.stalled_at.get_or_insert(now);
            }
        }
        Ok(())
    }

    /// Writes all that is left and ends this side's half of the pipe.
    fn poll_end(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Poll<Result<(), ConnectionError>> {
        while !self.is_empty() {
            ready!(self.poll_write(cx, now)?);
        }
        Pin::new(&mut self.pipe)
            .poll_shutdown(cx)
            .map_err(|error| ConnectionError::Io(error.into()))
    }
}

fn now() -> Instant {
    TokioInstant::now().into_std()
}
