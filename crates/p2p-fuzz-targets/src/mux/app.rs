use std::{
    sync::LazyLock,
    task::Poll,
    time::{Duration, Instant},
};

use bytes::Bytes;
use p2p_core::{ErrorCode, MuxCore, MuxError, MuxEvent, Muxer, Role, StreamError, StreamId};

use crate::input::Input;

/// The longest write or read, in bytes.
pub(super) const LEN_MAX: usize = 300_000;
/// After so many bytes what a stream sends repeats.
const PERIOD: usize = 65_537;

static TEXT: LazyLock<Bytes> = LazyLock::new(|| {
    (0..PERIOD + LEN_MAX).map(|i| i % PERIOD).map(|i| (i / 251 + i * 7).to_le_bytes()[0]).collect()
});

/// `len` bytes at `offset` of what `role` sends on a stream.
pub(super) fn text(role: Role, id: StreamId, offset: usize, len: usize) -> Bytes {
    let by_role = match role {
        Role::Initiator => 0,
        Role::Responder => 7919,
    };
    let start = (offset + id.value() as usize % 1000 * 1009 + by_role) % PERIOD;
    TEXT.slice(start..start + len)
}

/// A stream as an application holds it.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) id: StreamId,
    pub(super) send: bool,
    pub(super) recv: bool,
    pub(super) written: usize,
    pub(super) finished: bool,
    pub(super) read: usize,
    /// `read` has given the end, or an error.
    pub(super) read_over: bool,
    /// It was an error.
    read_failed: bool,
    pub(super) broken: bool,
    /// A call was `Pending`, and no event has come since.
    pub(super) read_waits: bool,
    pub(super) write_waits: bool,
}

/// What a command has led to.
#[derive(Debug)]
pub(super) enum Done {
    Nothing,
    Opened(StreamId),
    Accepted(StreamId),
    Wrote(StreamId, Bytes),
    Finished(StreamId),
    Read(StreamId, Bytes),
    ReadEnd(StreamId),
}

/// An application on one multiplexed connection, in virtual time. It checks what holds whatever the
/// peer does.
pub(super) struct App {
    pub(super) core: Box<dyn MuxCore>,
    pub(super) role: Role,
    pub(super) now: Instant,
    pub(super) held: Vec<Held>,
    open_waits: bool,
    accept_waits: bool,
}

impl App {
    pub(super) fn new(muxer: &impl Muxer, role: Role, now: Instant) -> Self {
        let core = muxer.start(role, now);
        Self { core, role, now, held: Vec::new(), open_waits: false, accept_waits: false }
    }

    /// One of all things that an application can do with streams.
    pub(super) fn command(&mut self, input: &mut Input) -> Done {
        match input.below(16) {
            0 | 1 => self.open(),
            2 | 3 => self.accept(),
            4..=7 => self.on_held(input, Self::write),
            8..=11 => self.on_held(input, Self::read),
            12 => self.on_held(input, Self::finish),
            13 | 14 => self.on_held(input, Self::end),
            _ => self.no_stream(input),
        }
    }

    fn on_held(
        &mut self,
        input: &mut Input,
        command: fn(&mut Self, usize, &mut Input) -> Done,
    ) -> Done {
        if self.held.is_empty() {
            return Done::Nothing;
        }
        let at = input.below(self.held.len());
        let done = command(self, at, input);
        self.held.retain(|held| held.send || held.recv);
        done
    }

    fn open(&mut self) -> Done {
        match self.core.open() {
            Poll::Ready(Ok(id)) => {
                assert!(!self.open_waits, "an opener was not told");
                self.hold(id);
                Done::Opened(id)
            }
            Poll::Ready(Err(error)) => panic!("{error}"),
            Poll::Pending => {
                self.open_waits = true;
                Done::Nothing
            }
        }
    }

    pub(super) fn accept(&mut self) -> Done {
        let Some(id) = self.core.accept() else {
            self.accept_waits = true;
            return Done::Nothing;
        };
        assert!(!self.accept_waits, "an accepter was not told");
        self.hold(id);
        Done::Accepted(id)
    }

    fn hold(&mut self, id: StreamId) {
        assert!(self.held.iter().all(|held| held.id != id), "{id:?} was given twice");
        self.held.push(Held {
            id,
            send: true,
            recv: true,
            written: 0,
            finished: false,
            read: 0,
            read_over: false,
            read_failed: false,
            broken: false,
            read_waits: false,
            write_waits: false,
        });
    }

    fn write(&mut self, at: usize, input: &mut Input) -> Done {
        let held = &mut self.held[at];
        if !held.send {
            return Done::Nothing;
        }
        let mut text = text(self.role, held.id, held.written, input.len(LEN_MAX));
        let result = if input.flag() {
            self.core.write_slice(held.id, &text)
        } else {
            let mut left = text.clone();
            let result = self.core.write(held.id, &mut left);
            let taken = text.len() - left.len();
            assert!(taken == 0 || matches!(result, Poll::Ready(Ok(()))));
            result.map_ok(|()| taken)
        };
        match result {
            Poll::Ready(Ok(count)) => {
                assert!(!held.finished && !held.broken && count > 0);
                text.truncate(count);
                held.written += count;
                held.write_waits = false;
                return Done::Wrote(held.id, text);
            }
            Poll::Ready(Err(StreamError::Finished)) => assert!(held.finished),
            Poll::Ready(Err(_)) => {
                assert!(!held.write_waits, "a writer was not told of the end");
                held.broken = true;
            }
            Poll::Pending => held.write_waits = true,
        }
        Done::Nothing
    }

    fn read(&mut self, at: usize, input: &mut Input) -> Done {
        let most = input.len(LEN_MAX);
        self.read_some(at, most)
    }

    pub(super) fn read_some(&mut self, at: usize, most: usize) -> Done {
        let held = &mut self.held[at];
        if !held.recv {
            return Done::Nothing;
        }
        let result = self.core.read(held.id, most);
        assert!(!held.read_waits || result.is_pending(), "a reader was not told");
        match result {
            Poll::Ready(Ok(Some(chunk))) => {
                assert!(!held.read_over, "bytes after the end");
                assert!((1..=most).contains(&chunk.len()));
                held.read += chunk.len();
                Done::Read(held.id, chunk)
            }
            Poll::Ready(Ok(None)) => {
                assert!(!held.read_failed, "an end after an error");
                held.read_over = true;
                Done::ReadEnd(held.id)
            }
            Poll::Ready(Err(_)) => {
                assert!(!held.read_over || held.read_failed, "an error after the end");
                held.read_over = true;
                held.read_failed = true;
                held.broken = true;
                Done::Nothing
            }
            Poll::Pending => {
                assert!(!held.read_over, "waits after the end");
                held.read_waits = true;
                Done::Nothing
            }
        }
    }

    fn finish(&mut self, at: usize, _: &mut Input) -> Done {
        self.finish_at(at)
    }

    pub(super) fn finish_at(&mut self, at: usize) -> Done {
        let held = &mut self.held[at];
        if held.send && self.core.finish(held.id).is_ok() {
            held.finished = true;
            return Done::Finished(held.id);
        }
        Done::Nothing
    }

    /// Ends a stream early, or lets go of a half of it.
    fn end(&mut self, at: usize, input: &mut Input) -> Done {
        let held = &mut self.held[at];
        let code = ErrorCode::new(input.byte().into());
        match input.below(6) {
            0 => self.core.reset(held.id, code),
            // What it gives to a reader that goes on is not looked at.
            1 if held.recv => {
                self.core.stop(held.id, code);
                self.core.release_recv(held.id);
                held.recv = false;
            }
            2 | 3 if held.send => {
                self.core.release_send(held.id);
                held.send = false;
            }
            4 | 5 if held.recv => {
                self.core.release_recv(held.id);
                held.recv = false;
            }
            _ => {
                if let Poll::Ready(error) = self.core.stopped(held.id) {
                    assert!(!error.to_string().is_empty());
                }
            }
        }
        Done::Nothing
    }

    /// Commands on a stream that never was do nothing.
    fn no_stream(&mut self, input: &mut Input) -> Done {
        let id = StreamId::new(u64::MAX - u64::from(input.byte()));
        let count = self.core.stream_count();
        assert!(matches!(self.core.read(id, 1), Poll::Ready(Err(_))));
        assert!(matches!(self.core.write_slice(id, b"x"), Poll::Ready(Err(_))));
        assert!(self.core.finish(id).is_err());
        self.core.reset(id, ErrorCode::NONE);
        self.core.stop(id, ErrorCode::NONE);
        assert!(self.core.stopped(id).is_ready());
        self.core.release_send(id);
        self.core.release_recv(id);
        assert_eq!(self.core.stream_count(), count);
        Done::Nothing
    }

    /// Tells those who wait, as a driver does; gives the number of events.
    pub(super) fn tell(&mut self) -> usize {
        let mut count = 0;
        while let Some(event) = self.core.poll_event() {
            count += 1;
            let (MuxEvent::Readable(id) | MuxEvent::Writable(id) | MuxEvent::Ended(id)) = event
            else {
                self.open_waits &= event != MuxEvent::Openable;
                self.accept_waits &= event != MuxEvent::Acceptable;
                continue;
            };
            for held in self.held.iter_mut().filter(|held| held.id == id) {
                held.read_waits &= matches!(event, MuxEvent::Writable(_));
                held.write_waits &= matches!(event, MuxEvent::Readable(_));
            }
        }
        count
    }

    /// Lets time pass, stopping at every timeout on the way; what is due is done when its time has
    /// come, so that a driver never spins.
    pub(super) fn pass(&mut self, time: Duration) -> Result<(), MuxError> {
        let end = self.now + time;
        let mut repeated = 0;
        while let Some(due) = self.core.poll_timeout().filter(|due| *due <= end) {
            repeated = if due > self.now { 0 } else { repeated + 1 };
            assert!(repeated < 4, "the timeout does not move");
            self.now = self.now.max(due);
            self.core.handle_timeout(self.now)?;
        }
        self.now = end;
        Ok(())
    }
}
