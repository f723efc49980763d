//! How connections end.

use std::time::Duration;

use p2p::{ConnectionError, OpenError, Stream};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::mpsc,
};

use crate::{
    limited,
    ours::{self, ECHO, disconnected, exchange},
    theirs::{self, Listener},
};

/// More than any transfer of these tests gets to.
const ENDLESS: &str = "1000000000000";

#[tokio::test]
async fn a_listener_that_is_killed_in_a_transfer_is_an_error_on_both_halves() {
    limited(async {
        let mut listener = Listener::start().await;
        let host = ours::builder().spawn().await.unwrap();
        let mut events = host.events();
        let stream = host.open(&listener.addr, ECHO).await.unwrap();
        let (mut send, mut recv) = stream.into_halves();
        let writer = tokio::spawn(async move {
            loop {
                if let Err(error) = send.write_all(&[7; 16 << 10]).await {
                    return error;
                }
            }
        });
        recv.read_exact(&mut vec![0; 1 << 20]).await.unwrap();
        listener.process.kill().await;
        let mut rest = Vec::new();
        let read_error = recv.read_to_end(&mut rest).await.unwrap_err();
        let write_error = writer.await.unwrap();
        for error in [read_error, write_error] {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionAborted, "{error}");
        }
        let cause = disconnected(&mut events).await;
        assert!(matches!(cause, ConnectionError::Truncated | ConnectionError::Io(_)), "{cause}");
        assert!(host.peers().is_empty());

        let error = host.open(&listener.addr, ECHO).await.unwrap_err();
        assert!(matches!(error, OpenError::Dial(_)), "{error}");
        let other = Listener::start().await;
        exchange(host.open(&other.addr, ECHO).await.unwrap(), 1, 1000).await;
        host.close().await;
    })
    .await;
}

#[tokio::test]
async fn our_listener_survives_dialers_that_vanish_in_a_transfer() {
    limited(async {
        let host = ours::builder().spawn().await.unwrap();
        let (underway, mut echoed) = mpsc::channel(16);
        let echo = move |mut stream: Stream| {
            let underway = underway.clone();
            async move {
                let mut first = vec![0; 64 << 10];
                stream.read_exact(&mut first).await?;
                stream.write_all(&first).await?;
                underway.send(()).await.map_err(std::io::Error::other)?;
                let (mut r, mut w) = tokio::io::split(stream);
                tokio::io::copy(&mut r, &mut w).await?;
                w.shutdown().await
            }
        };
        host.handle(ECHO, echo).unwrap();
        let addr = ours::addr(&host);
        let mut events = host.events();
        let dial = || theirs::command(&["echo", &addr, "--bytes", ENDLESS]);
        let mut dialers = [dial(), dial(), dial(), dial()];
        for _ in &dialers {
            echoed.recv().await.unwrap();
        }
        for dialer in &mut dialers {
            dialer.kill().await;
        }
        for _ in &dialers {
            let cause = disconnected(&mut events).await;
            let rough = matches!(cause, ConnectionError::Truncated | ConnectionError::Io(_));
            assert!(rough, "{cause}");
        }
        assert!(host.peers().is_empty());
        theirs::command(&["echo", &addr, "--bytes", "1000000"]).end().await.success();
        host.close().await;
    })
    .await;
}

#[tokio::test]
async fn their_listener_sees_the_end_of_our_host() {
    limited(async {
        let mut listener = Listener::start().await;
        let host = ours::builder().spawn().await.unwrap();
        exchange(host.open(&listener.addr, ECHO).await.unwrap(), 1, 1000).await;
        let id = host.peer_id().to_string();
        host.close().await;
        let end = listener.process.event("disconnected").await;
        assert_eq!(end["peer"], id);
        assert_orderly(end["cause"].as_str().unwrap());
    })
    .await;
}

#[tokio::test]
async fn their_listener_sees_the_end_of_a_connection_that_idles() {
    limited(async {
        let mut listener = Listener::start().await;
        let idle = Duration::from_millis(200);
        let host = ours::builder().idle_timeout(idle).spawn().await.unwrap();
        let mut events = host.events();
        host.identify(&listener.addr).await.unwrap();
        let cause = disconnected(&mut events).await;
        assert!(matches!(cause, ConnectionError::Closed { .. }), "{cause}");
        let end = listener.process.event("disconnected").await;
        assert_orderly(end["cause"].as_str().unwrap());
        host.close().await;
    })
    .await;
}

#[tokio::test]
async fn their_dialer_sees_the_end_of_our_host() {
    limited(async {
        let host = ours::builder().spawn().await.unwrap();
        let mut dialer = theirs::command(&["ping", &ours::addr(&host), "-c", "1000000"]);
        dialer.event("ping").await;
        host.close().await;
        let message = dialer.end().await.failure();
        assert!(message.starts_with("connection lost"), "{message}");
        assert_orderly(&message);
    })
    .await;
}

#[tokio::test]
async fn our_listener_sees_their_goodbye() {
    limited(async {
        let host = ours::echo_host().await;
        let addr = ours::addr(&host);
        for args in [["ping", &addr, "-c", "1"], ["echo", &addr, "--bytes", "1000"]] {
            let mut events = host.events();
            assert_eq!(theirs::command(&args).end().await.code, Some(0));
            let cause = disconnected(&mut events).await;
            assert!(matches!(cause, ConnectionError::ClosedByPeer { .. }), "{cause}");
            assert!(host.peers().is_empty());
        }
        host.close().await;
    })
    .await;
}

#[tokio::test]
async fn our_disconnect_ends_the_connection_and_the_next_stream_dials_anew() {
    limited(async {
        let mut listener = Listener::start().await;
        let host = ours::builder().spawn().await.unwrap();
        let mut events = host.events();
        for seed in 0..3 {
            exchange(host.open(&listener.addr, ECHO).await.unwrap(), seed, 1000).await;
            host.disconnect(&listener.peer());
            let cause = disconnected(&mut events).await;
            assert!(matches!(cause, ConnectionError::Closed { .. }), "{cause}");
            let end = listener.process.event("disconnected").await;
            assert_orderly(end["cause"].as_str().unwrap());
        }
        host.close().await;
    })
    .await;
}

/// rust-libp2p reports a goodbye and the plain end of a link alike; a reset, or the end of a link
/// in the middle of a record, has another text.
fn assert_orderly(cause: &str) {
    assert!(cause.ends_with("connection is closed"), "{cause}");
}
