//! What the tests of the driver share.
#![allow(dead_code, reason = "each test file uses a part")]

pub(crate) mod mask;
pub(crate) mod random;

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use p2p_core::{ConnectionError, Role};
use p2p_mux::{Mux, MuxStream, Yamux, connect};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    task::JoinHandle,
};

pub(crate) const GO_AWAY: [u8; 12] = [0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
pub(crate) const GO_AWAY_PROTOCOL_ERROR: [u8; 12] = [0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
pub(crate) const PING: [u8; 12] = [0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1];

pub(crate) type Served = JoinHandle<ConnectionError>;

/// Two connections over a pipe that holds `size` bytes each way.
pub(crate) fn pair(size: usize) -> (Mux, Served, Mux, Served) {
    let (ours, theirs) = duplex(size);
    let (client, driver) = connect(ours, &Yamux::default(), Role::Initiator);
    let client_task = tokio::spawn(driver);
    let (server, driver) = connect(theirs, &Yamux::default(), Role::Responder);
    (client, client_task, server, tokio::spawn(driver))
}

/// A server whose peer is the test, byte by byte.
pub(crate) fn raw(size: usize) -> (Mux, Served, DuplexStream) {
    let (ours, theirs) = duplex(size);
    let (mux, driver) = connect(ours, &Yamux::default(), Role::Responder);
    (mux, tokio::spawn(driver), theirs)
}

pub(crate) async fn echo(mut server: Mux) -> ConnectionError {
    loop {
        match server.accept().await {
            Ok(stream) => drop(tokio::spawn(echo_stream(stream))),
            Err(error) => return error,
        }
    }
}

pub(crate) async fn echo_stream(stream: MuxStream) -> std::io::Result<u64> {
    let (mut read, mut write) = tokio::io::split(stream);
    let count = tokio::io::copy(&mut read, &mut write).await?;
    write.shutdown().await?;
    Ok(count)
}

/// `len` bytes that tell where they belong.
pub(crate) fn pattern(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| (i.wrapping_mul(31) ^ (i >> 8) ^ seed).to_le_bytes()[0]).collect()
}

pub(crate) async fn read_exact(pipe: &mut DuplexStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    pipe.read_exact(&mut bytes).await.unwrap();
    bytes
}

/// Fails instead of hanging.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(300), future).await.expect("hangs")
}

/// Lets every other task run until all of them wait.
pub(crate) async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

/// Counts how often a future is polled.
pub(crate) struct Counted<F> {
    future: Pin<Box<F>>,
    polls: Arc<AtomicUsize>,
}

impl<F: Future> Counted<F> {
    pub(crate) fn new(future: F) -> (Self, Arc<AtomicUsize>) {
        let polls = Arc::new(AtomicUsize::new(0));
        (Self { future: Box::pin(future), polls: Arc::clone(&polls) }, polls)
    }
}

impl<F: Future> Future for Counted<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.polls.fetch_add(1, Ordering::Relaxed);
        self.future.as_mut().poll(cx)
    }
}

/// A waker that counts its calls.
#[derive(Default)]
pub(crate) struct Calls(AtomicUsize);

impl Wake for Calls {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Calls {
    pub(crate) fn waker() -> (Arc<Self>, Waker) {
        let calls = Arc::new(Self::default());
        (Arc::clone(&calls), Waker::from(calls))
    }

    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}
