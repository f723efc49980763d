//! Many streams on one connection.

use std::time::Duration;

use p2p::{Cause, OpenError, Stage};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinSet,
};

use crate::{
    limited,
    ours::{self, ECHO, assert_kept, exchange, only_connection},
    theirs::{self, Listener},
};

/// Our default limit of streams that this side has open on one connection.
const OUTBOUND_MAX: usize = 256;

#[tokio::test]
async fn we_open_64_streams_at_once_with_100_kib_each_way() {
    limited(async {
        let listener = Listener::start().await;
        let host = ours::builder().spawn().await.unwrap();
        let mut streams = JoinSet::new();
        for seed in 0..64 {
            let opening = host.open(&listener.addr, ECHO);
            streams.spawn(async move { exchange(opening.await.unwrap(), seed, 100 << 10).await });
        }
        streams.join_all().await;
        only_connection(&host, &listener.peer());
        host.close().await;
    })
    .await;
}

#[tokio::test]
async fn they_open_64_streams_at_once_with_100_kib_each_way() {
    limited(async {
        let host = ours::echo_host().await;
        let addr = ours::addr(&host);
        let load = ["echo", &addr, "--bytes", "102400", "--streams", "64"];
        theirs::command(&load).end().await.success();
        host.close().await;
    })
    .await;
}

#[tokio::test]
async fn we_open_300_streams_one_after_the_other_on_one_connection() {
    limited(async {
        let listener = Listener::start().await;
        let host = ours::builder().spawn().await.unwrap();
        host.connect(&listener.addr).await.unwrap();
        let connection = only_connection(&host, &listener.peer());
        for seed in 0..300 {
            exchange(host.open(&listener.addr, ECHO).await.unwrap(), seed, 100).await;
        }
        assert_kept(&host, &connection);
        host.close().await;
    })
    .await;
}

#[tokio::test]
async fn they_open_300_streams_one_after_the_other_on_one_connection() {
    limited(async {
        let host = ours::echo_host().await;
        let addr = ours::addr(&host);
        let load = ["echo", &addr, "--bytes", "100", "--rounds", "300"];
        theirs::command(&load).end().await.success();
        host.close().await;
    })
    .await;
}

#[tokio::test]
async fn we_open_256_streams_at_once_and_the_next_waits_for_one_to_end() {
    limited(async {
        let listener = Listener::start().await;
        let host = ours::builder().spawn().await.unwrap();
        host.identify(&listener.addr).await.unwrap();
        let connection = only_connection(&host, &listener.peer());
        let mut opening = JoinSet::new();
        for _ in 0..OUTBOUND_MAX {
            let opened = host.open(&listener.addr, ECHO);
            opening.spawn(async move { opened.await.unwrap() });
        }
        let mut streams = opening.join_all().await;
        let error = host.open(&listener.addr, ECHO).timeout(Duration::from_millis(200));
        match error.await.unwrap_err() {
            OpenError::Stream { stage: Stage::Stream, cause: Cause::TimedOut(_), .. } => {}
            other => panic!("{other}"),
        }

        for (stream, index) in streams.iter_mut().zip(0u32..) {
            stream.write_all(&index.to_be_bytes()).await.unwrap();
        }
        for (stream, index) in streams.iter_mut().zip(0u32..) {
            assert_eq!(stream.read_u32().await.unwrap(), index);
        }
        let waiting = tokio::spawn(host.open(&listener.addr, ECHO).into_future());
        let mut last = streams.pop().unwrap();
        last.shutdown().await.unwrap();
        assert_eq!(last.read(&mut [0]).await.unwrap(), 0);
        drop(last);
        exchange(waiting.await.unwrap().unwrap(), 1, 1000).await;
        assert_kept(&host, &connection);
        drop(streams);
        exchange(host.open(&listener.addr, ECHO).await.unwrap(), 2, 1000).await;
        assert_kept(&host, &connection);
        host.close().await;
    })
    .await;
}

#[tokio::test]
async fn they_open_256_streams_at_once() {
    limited(async {
        let host = ours::echo_host().await;
        let addr = ours::addr(&host);
        let load = ["echo", &addr, "--bytes", "1000", "--streams", "256"];
        theirs::command(&load).end().await.success();
        host.close().await;
    })
    .await;
}
