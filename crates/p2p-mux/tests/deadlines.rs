//! Deadlines of streams: what waits ends with them, and nothing is lost by that. Time is paused:
//! a sleep moves it on, and waits for nothing.
#![cfg(feature = "yamux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{io::ErrorKind, sync::Arc, time::Duration};

use common::{pair, settle, soon};
use p2p_core::{ConnectionInfo, Keypair, Role, Stream, StreamError};
use p2p_mux::{Mux, MuxStream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};

fn in_ms(ms: u64) -> Option<std::time::Instant> {
    Some((Instant::now() + Duration::from_millis(ms)).into_std())
}

/// A stream and the peer's side of it, with the connections that carry them.
async fn streams() -> (MuxStream, MuxStream, [Mux; 2]) {
    let (client, _, mut server, _) = pair(1 << 16);
    let mut near = client.open().await.unwrap();
    near.write_all(b"first").await.unwrap();
    let mut far = soon(server.accept()).await.unwrap();
    let mut first = [0; 5];
    far.read_exact(&mut first).await.unwrap();
    (near, far, [client, server])
}

#[tokio::test(start_paused = true)]
async fn a_read_that_waits_ends_at_its_deadline_and_loses_nothing() {
    let (mut near, mut far, _kept) = streams().await;
    let begun = Instant::now();
    near.set_read_deadline(in_ms(50));
    let error = near.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert_eq!(error.to_string(), "the stream's deadline passed");
    assert_eq!(begun.elapsed(), Duration::from_millis(50));
    // It stays in force.
    assert_eq!(near.read_u8().await.unwrap_err().kind(), ErrorKind::TimedOut);
    // What has come in is given out even then.
    far.write_all(b"late").await.unwrap();
    settle().await;
    let mut late = [0; 4];
    near.read_exact(&mut late).await.unwrap();
    assert_eq!(&late, b"late");
    // And another deadline makes it wait again.
    near.set_read_deadline(in_ms(1000));
    let (read, ()) = tokio::join!(near.read_u8(), async {
        // Of paused time: just before the deadline.
        tokio::time::sleep(Duration::from_millis(999)).await;
        far.write_all(b"!").await.unwrap();
    });
    assert_eq!(read.unwrap(), b'!');
    near.set_read_deadline(None);
    let (read, ()) = tokio::join!(near.read_u8(), async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        far.write_all(b"?").await.unwrap();
    });
    assert_eq!(read.unwrap(), b'?');
}

#[tokio::test(start_paused = true)]
async fn a_write_that_waits_for_credit_ends_at_its_deadline_and_loses_nothing() {
    let (mut near, mut far, _kept) = streams().await;
    let text = vec![7; 4 << 20];
    let mut sent = 0;
    near.set_write_deadline(in_ms(50));
    let error = loop {
        match near.write(&text[sent..]).await {
            Ok(count) => sent += count,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(sent > 0 && sent < text.len(), "{sent}");
    // Ending it never waits, and what was taken before arrives whole.
    near.shutdown().await.unwrap();
    let mut got = Vec::new();
    soon(far.read_to_end(&mut got)).await.unwrap();
    assert!(got == text[..sent], "{} of {sent}", got.len());
}

#[tokio::test(start_paused = true)]
async fn a_deadline_leaves_what_a_stream_holds_alone() {
    let (client, _, mut server, _) = pair(1 << 16);
    let peer = Keypair::from_ed25519_seed(&[1; 32]).public();
    let info = ConnectionInfo::new(Role::Initiator, peer, None, "/memory/1".parse().unwrap());
    let muxed = client.into_muxed(info);
    let mut opener = muxed.connection.opener();
    let stream = std::future::poll_fn(|cx| opener.poll_open(cx)).await.unwrap();
    let held = Arc::new(());
    let mut stream: Stream = stream.holding(Arc::<()>::clone(&held));
    stream.write_all(b"x").await.unwrap();
    let mut far = soon(server.accept()).await.unwrap();
    stream.set_read_deadline(in_ms(5));
    let error = stream.chunk(10).await.unwrap_err();
    assert!(matches!(error, StreamError::DeadlinePassed), "{error}");
    assert_eq!(stream.read_u8().await.unwrap_err().kind(), ErrorKind::TimedOut);
    assert_eq!(Arc::strong_count(&held), 2, "both halves are still at work");
    far.write_all(b"y").await.unwrap();
    stream.set_read_deadline(None);
    assert_eq!(stream.read_u8().await.unwrap(), b'y');
    far.shutdown().await.unwrap();
    assert_eq!(stream.chunk(10).await.unwrap(), None);
    assert_eq!(Arc::strong_count(&held), 2, "one half is still at work");
    stream.shutdown().await.unwrap();
    assert_eq!(Arc::strong_count(&held), 1, "the end of the other half lets go");
}
