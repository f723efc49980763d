//! The driver asks its pipe itself for answers that come at once, and only then.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard},
    task::Waker,
};

use p2p_core::PipeRead;
use tokio::io::{AsyncRead, ReadBuf};

use super::*;

const ANSWER: [u8; 13] = [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, b'!'];
/// Rounds in which eight answers in a row come at once on any machine.
const ROUNDS: usize = 10_000;

/// What a pipe says when it is asked while it has an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    Answer,
    End,
    Failed,
    TooMuch,
    /// It cannot be asked.
    Nothing,
}

/// Both halves of a pipe whose peer answers every byte at once. The runtime is told of that a moment later.
#[derive(Clone)]
struct Answering(Arc<Mutex<State>>);

struct State {
    says: Says,
    incoming: VecDeque<u8>,
    told: bool,
    waits: Option<Waker>,
    /// Answers that it was asked for.
    asked: usize,
}

impl Answering {
    fn start(says: Says) -> (Self, Mux, JoinHandle<ConnectionError>) {
        let state = State { says, incoming: CREDIT.into(), told: true, waits: None, asked: 0 };
        let pipe = Self(Arc::new(Mutex::new(state)));
        let setup = Setup::new(Pipe::direct(pipe.clone(), pipe.clone()), client_core());
        let (mux, driver) = setup.with_busy_poll(Duration::from_secs(100)).start();
        (pipe, mux, tokio::spawn(driver))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn asked(&self) -> usize {
        self.state().asked
    }
}

impl AsyncRead for Answering {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.state();
        if !state.incoming.is_empty() && state.told {
            let len = buf.remaining().min(state.incoming.len());
            buf.put_slice(&state.incoming.drain(..len).collect::<Vec<_>>());
            return Poll::Ready(Ok(()));
        }
        if state.incoming.is_empty() {
            state.told = false;
            state.waits = Some(cx.waker().clone());
        } else {
            state.told = true;
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl PipeRead for Answering {
    fn try_read(&mut self, buf: &mut [u8]) -> Option<io::Result<usize>> {
        let mut state = self.state();
        if state.says == Says::Nothing {
            return None;
        }
        if state.incoming.is_empty() {
            return Some(Err(io::ErrorKind::WouldBlock.into()));
        }
        state.asked += 1;
        match state.says {
            Says::End => return Some(Ok(0)),
            Says::Failed => return Some(Err(io::ErrorKind::ConnectionReset.into())),
            Says::TooMuch => return Some(Ok(buf.len() + 1)),
            Says::Answer | Says::Nothing => {}
        }
        let len = buf.len().min(state.incoming.len());
        for (place, byte) in buf.iter_mut().zip(state.incoming.drain(..len)) {
            *place = byte;
        }
        Some(Ok(len))
    }
}

impl AsyncWrite for Answering {
    fn poll_write(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.state();
        for _ in bodies(buf) {
            state.incoming.extend(ANSWER);
            state.waits.take().into_iter().for_each(Waker::wake);
        }
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

async fn request(stream: &mut MuxStream) -> io::Result<()> {
    stream.write_all(b"?").await?;
    assert_eq!(stream.read_u8().await?, b'!');
    Ok(())
}

/// Requests, until the pipe was asked for an answer.
async fn request_until_asked(pipe: &Answering, stream: &mut MuxStream) -> io::Result<()> {
    for _ in 0..ROUNDS {
        request(stream).await?;
        if pipe.asked() > 0 {
            return Ok(());
        }
    }
    panic!("it was never asked");
}

#[tokio::test(start_paused = true)]
async fn a_pipe_is_asked_for_answers_that_come_at_once() {
    let (pipe, mux, _driver) = Answering::start(Says::Answer);
    let mut stream = mux.open().await.unwrap();
    for _ in 0..8 {
        assert_eq!(pipe.asked(), 0, "eight have not come yet");
        request(&mut stream).await.unwrap();
    }
    request_until_asked(&pipe, &mut stream).await.unwrap();
    for _ in 0..100 {
        request(&mut stream).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipe_is_asked_on_a_thread_of_several() {
    let (pipe, mux, _driver) = Answering::start(Says::Answer);
    let requests = async move {
        let mut stream = mux.open().await.unwrap();
        request_until_asked(&pipe, &mut stream).await.unwrap();
        for _ in 0..1000 {
            request(&mut stream).await.unwrap();
        }
    };
    soon(tokio::spawn(requests)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_pipe_is_not_asked_while_another_connection_reads() {
    let (first, one, _driver) = Answering::start(Says::Answer);
    let (second, other, _other_driver) = Answering::start(Says::Answer);
    let (mut one, mut other) = (one.open().await.unwrap(), other.open().await.unwrap());
    for _ in 0..100 {
        request(&mut one).await.unwrap();
        request(&mut other).await.unwrap();
    }
    assert_eq!((first.asked(), second.asked()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn one_that_cannot_be_asked_is_waited_for_as_ever() {
    let (_pipe, mux, _driver) = Answering::start(Says::Nothing);
    let mut stream = mux.open().await.unwrap();
    for _ in 0..100 {
        request(&mut stream).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_asked_pipe_says_besides_ends_the_connection() {
    let cut = ConnectionError::Truncated.to_string();
    for (says, what) in [
        (Says::End, cut.as_str()),
        (Says::Failed, "reset"),
        (Says::TooMuch, "more than there was room for"),
    ] {
        let (pipe, mux, driver) = Answering::start(says);
        let mut stream = mux.open().await.unwrap();
        request_until_asked(&pipe, &mut stream).await.unwrap_err();
        let cause = soon(driver).await.unwrap().to_string();
        assert!(cause.contains(what), "{cause}");
    }
}
