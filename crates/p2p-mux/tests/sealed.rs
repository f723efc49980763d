//! The driver with a secure channel, and with what a handshake hands over.
#![cfg(feature = "yamux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use common::{
    GO_AWAY, GO_AWAY_PROTOCOL_ERROR, PING, echo,
    mask::{Mask, mask, sealed},
    pattern, read_exact, settle, soon,
};
use p2p_core::{ConnectionError, ErrorCode, MuxError, Muxer, Pipe, Role, SecurityError};
use p2p_mux::{Driver, Mux, Setup, Yamux};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    time::Instant,
};

fn setup(io: DuplexStream, role: Role) -> Setup {
    let (read, write) = tokio::io::split(io);
    let now = Instant::now().into_std();
    Setup::new(Pipe::new(read, write), Yamux::default().start(role, now))
}

fn start(io: DuplexStream, role: Role, most: usize) -> (Mux, Driver) {
    setup(io, role).sealed(mask(most), mask(most)).start()
}

/// A frame that opens stream 1 with `hi`.
const HI: [u8; 14] = [0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2, b'h', b'i'];

#[tokio::test]
async fn records_and_pipes_of_any_size() {
    for size in [1, 3, 7, 100, 65_536] {
        for most in [1, 5, 1000, 65_000] {
            let (ours, theirs) = duplex(size);
            let (client, driver) = start(ours, Role::Initiator, most);
            tokio::spawn(driver);
            let (server, driver) = start(theirs, Role::Responder, most);
            tokio::spawn(driver);
            tokio::spawn(echo(server));
            let text = pattern(size ^ most, 8000);
            let mut stream = client.open().await.unwrap();
            stream.write_all(&text).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut echoed = Vec::new();
            soon(stream.read_to_end(&mut echoed)).await.unwrap();
            assert!(echoed == text, "pipe of {size}, records of {most}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_cut_anywhere_is_opened_whole() {
    let record = sealed(&HI, 1000);
    for cut in 0..=record.len() {
        let (ours, mut theirs) = duplex(1024);
        let (mut mux, driver) = start(ours, Role::Responder, 1000);
        tokio::spawn(driver);
        theirs.write_all(&record[..cut]).await.unwrap();
        settle().await;
        theirs.write_all(&record[cut..]).await.unwrap();
        let mut text = [0; 2];
        soon(mux.accept()).await.unwrap().read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"hi");
    }
}

#[tokio::test(start_paused = true)]
async fn what_came_before_a_broken_record_is_delivered() {
    let (ours, mut theirs) = duplex(1024);
    let (mut mux, driver) = start(ours, Role::Responder, 1000);
    tokio::spawn(driver);
    theirs.write_all(&sealed(&HI, 1000)).await.unwrap();
    let mut stream = soon(mux.accept()).await.unwrap();
    let more = [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, b'!'];
    theirs.write_all(&[sealed(&more, 1000), vec![0, 1, 0, 0]].concat()).await.unwrap();
    assert!(matches!(soon(mux.accept()).await, Err(ConnectionError::Security(_))));
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await.unwrap_err();
    assert_eq!(text, b"hi!");
    let mut said = Vec::new();
    soon(theirs.read_to_end(&mut said)).await.unwrap();
    assert_eq!(said, sealed(&PING, 1000), "no goodbye over a channel that is not trusted");
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_is_used_up_ends_the_connection() {
    let (ours, _theirs) = duplex(1024);
    let seal = Box::new(Mask { most: 1000, left: 1 });
    let (mux, driver) = setup(ours, Role::Responder).sealed(seal, mask(1000)).start();
    let served = tokio::spawn(driver);
    settle().await;
    let _stream = mux.open().await.unwrap();
    let error = soon(served).await.unwrap();
    assert!(matches!(error, ConnectionError::Security(SecurityError::NoncesExhausted)));
}

/// A handshake that has read the first records, and cut the next one.
#[tokio::test(start_paused = true)]
async fn received_records_are_handed_in_at_any_cut() {
    let first = sealed(&HI[..5], 1000);
    let second = sealed(&HI[5..], 1000);
    for cut in 0..=first.len() + second.len() {
        let wire = [first.clone(), second.clone()].concat();
        let (ours, mut theirs) = duplex(1024);
        let (mut mux, driver) = setup(ours, Role::Responder)
            .sealed(mask(1000), mask(1000))
            .with_received(wire[..cut].into(), BytesMut::new())
            .with_unsent(b"last message"[..].into())
            .start();
        tokio::spawn(driver);
        theirs.write_all(&wire[cut..]).await.unwrap();
        let mut text = [0; 2];
        soon(mux.accept()).await.unwrap().read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"hi");
        assert_eq!(read_exact(&mut theirs, 12).await, b"last message");
        assert_eq!(read_exact(&mut theirs, 15).await, sealed(&PING, 1000));
    }
}

/// Waits for `"ok\n"` and fails on anything else; notes how often it was asked.
fn prelude(asked: &Arc<Mutex<usize>>) -> p2p_mux::Prelude {
    let asked = Arc::clone(asked);
    Box::new(move |plain| {
        *asked.lock().unwrap() += 1;
        if !b"ok\n".starts_with(&plain[..plain.len().min(3)]) {
            return Err("no muxer in common".into());
        }
        if plain.len() < 3 {
            return Ok(false);
        }
        plain.advance(3);
        Ok(true)
    })
}

#[tokio::test(start_paused = true)]
async fn a_negotiation_that_is_answered_late_and_byte_by_byte() {
    let wire = [b"ok\n".as_slice(), &HI].concat();
    // So many bytes come with the handshake, the others one by one.
    for early in 0..wire.len() {
        let asked = Arc::default();
        let (ours, mut theirs) = duplex(1024);
        let (mut mux, driver) = setup(ours, Role::Responder)
            .with_received(BytesMut::new(), wire[..early].into())
            .with_prelude(prelude(&asked))
            .start();
        tokio::spawn(driver);
        assert_eq!(read_exact(&mut theirs, 12).await, PING, "sending does not wait");
        for byte in &wire[early..] {
            theirs.write_all(&[*byte]).await.unwrap();
            settle().await;
        }
        let mut text = [0; 2];
        soon(mux.accept()).await.unwrap().read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"hi");
        assert!(*asked.lock().unwrap() <= 4, "not asked any more once it is complete");
    }
}

#[tokio::test(start_paused = true)]
async fn a_negotiation_that_fails_ends_the_connection() {
    for (early, late) in [("na\n", ""), ("", "na\n"), ("o", "n")] {
        let (ours, mut theirs) = duplex(1024);
        let (mut mux, driver) = setup(ours, Role::Initiator)
            .with_received(BytesMut::new(), early.as_bytes().into())
            .with_prelude(prelude(&Arc::default()))
            .start();
        let served = tokio::spawn(driver);
        theirs.write_all(late.as_bytes()).await.unwrap();
        let error = soon(mux.accept()).await.unwrap_err();
        assert!(matches!(&error, ConnectionError::Negotiation(why) if why == "no muxer in common"));
        assert!(matches!(soon(served).await, Ok(ConnectionError::Negotiation(_))));
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_leaves_before_its_answer_owes_it() {
    let (ours, theirs) = duplex(1024);
    let (_mux, driver) =
        setup(ours, Role::Initiator).with_prelude(prelude(&Arc::default())).start();
    drop(theirs);
    assert!(matches!(soon(driver).await, ConnectionError::Truncated));
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_cut_by_the_end_of_the_pipe_is_a_truncation() {
    let (ours, mut theirs) = duplex(1024);
    let (_mux, driver) = start(ours, Role::Responder, 1000);
    theirs.write_all(&[0, 14]).await.unwrap();
    drop(theirs);
    assert!(matches!(soon(driver).await, ConnectionError::Truncated));
}

#[tokio::test(start_paused = true)]
async fn goodbyes_are_sealed_too() {
    for garbage in [false, true] {
        let (ours, mut theirs) = duplex(1024);
        let (mux, driver) = start(ours, Role::Responder, 1000);
        let served = tokio::spawn(driver);
        let mut said = sealed(&PING, 1000);
        assert_eq!(read_exact(&mut theirs, 15).await, said);
        if garbage {
            theirs.write_all(&sealed(&[9; 12], 1000)).await.unwrap();
            said = sealed(&GO_AWAY_PROTOCOL_ERROR, 1000);
        } else {
            mux.close(ErrorCode::NONE, "bye");
            said = sealed(&GO_AWAY, 1000);
        }
        let mut rest = Vec::new();
        soon(theirs.read_to_end(&mut rest)).await.unwrap();
        assert_eq!(rest, said);
        drop(theirs);
        let error = soon(served).await.unwrap();
        assert_eq!(matches!(error, ConnectionError::Mux(MuxError::Version(9))), garbage);
        assert_eq!(matches!(error, ConnectionError::Closed { .. }), !garbage);
    }
}

/// What a connection that moves nothing holds: no buffer, and what it was given is gone.
#[tokio::test(start_paused = true)]
async fn a_connection_goes_on_after_its_buffers_were_released() {
    let (ours, theirs) = duplex(1024);
    let (client, driver) = start(ours, Role::Initiator, 1000);
    tokio::spawn(driver);
    let (server, driver) = start(theirs, Role::Responder, 1000);
    tokio::spawn(driver);
    tokio::spawn(echo(server));
    for _ in 0..5 {
        let mut stream = client.open().await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut text = String::new();
        soon(stream.read_to_string(&mut text)).await.unwrap();
        assert_eq!(text, "hello");
        tokio::time::sleep(Duration::from_secs(1000)).await;
    }
}
