//! One request, one answer, and everything that can go wrong with them.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::{
    future::IntoFuture,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use common::{Network, builder};
use p2p::{
    Cause, ErrorCode, Host, OpenError, StreamError,
    request::{Request, RequestError, Responding},
};
use tokio::{io::AsyncWriteExt, time::Instant};

const REVERSE: &str = "/reverse/1";

async fn reverse(request: Request) -> io::Result<Bytes> {
    Ok(request.body.iter().rev().copied().collect())
}

async fn pair() -> (Host, Host, String) {
    let network = Network::default();
    let server = builder(&network, None).listen("/memory/7").spawn().await.unwrap();
    let client = builder(&network, None).spawn().await.unwrap();
    let addr = server.addrs().remove(0);
    (client, server, addr)
}

/// The code of the reset that ended a request, while it was opened or later.
fn reset_code(error: &RequestError) -> ErrorCode {
    let cause = if let RequestError::Open(OpenError::Stream { cause, .. }) = error {
        let Cause::Stream(cause) = cause else { panic!("{error:?}") };
        cause
    } else {
        let RequestError::Stream(cause) = error else { panic!("{error:?}") };
        cause.stream_error().unwrap()
    };
    let StreamError::Reset(code) = cause else { panic!("{cause:?}") };
    *code
}

#[tokio::test(start_paused = true)]
async fn requests_of_every_length_are_answered() {
    let (client, server, addr) = pair().await;
    server.respond(REVERSE, Responding::default(), reverse).unwrap();
    for len in [0, 1, 255, 65_519, 65_520, 300_000, 1 << 20] {
        let body: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
        let answer = client.request(&addr, REVERSE, body.clone()).await.unwrap();
        assert!(answer.iter().eq(body.iter().rev()), "{len}");
    }
    assert_eq!(client.request(&addr, REVERSE, "abc").optimistic().await.unwrap(), "cba");
    assert_eq!(client.connections(&server.peer_id()).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_knows_who_asks() {
    let (client, server, addr) = pair().await;
    let own = client.peer_id();
    let check = move |request: Request| async move {
        Ok::<_, io::Error>(Bytes::from(if request.peer == own { "you" } else { "who?" }))
    };
    server.respond("/who/1", Responding::default(), check).unwrap();
    assert_eq!(client.request(&addr, "/who/1", "").await.unwrap(), "you");
}

#[tokio::test(start_paused = true)]
async fn lengths_are_limited_on_both_sides_to_the_byte() {
    let (client, server, addr) = pair().await;
    server.respond(REVERSE, Responding::default().request_max(1000), reverse).unwrap();
    let ask = |len: usize| client.request(&addr, REVERSE, vec![7; len]);
    assert_eq!(ask(1000).answer_max(1000).await.unwrap().len(), 1000);
    assert_eq!(reset_code(&ask(1001).await.unwrap_err()), ErrorCode::STREAM_RESOURCE_LIMIT);
    let error = ask(1000).answer_max(999).await.unwrap_err();
    assert!(matches!(error, RequestError::TooLong(999)), "{error:?}");
    assert!(error.to_string().contains("answer_max"), "{error}");
    assert_eq!(ask(1).await.unwrap().len(), 1, "the connection goes on");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_come_has_its_time_on_both_sides() {
    let (client, server, addr) = pair().await;
    let never = |_: Request| std::future::pending::<io::Result<Bytes>>();
    server
        .respond("/never/1", Responding::default().timeout(Duration::from_secs(3)), never)
        .unwrap();
    client.connect(&addr).await.unwrap();
    let begun = Instant::now();
    let error =
        client.request(&addr, "/never/1", "").timeout(Duration::from_secs(2)).await.unwrap_err();
    assert!(matches!(error, RequestError::TimedOut(limit) if limit.as_secs() == 2), "{error:?}");
    assert_eq!(begun.elapsed().as_secs(), 2);
    let begun = Instant::now();
    let error = client.request(&addr, "/never/1", "").await.unwrap_err();
    assert!(matches!(error, RequestError::Stream(_)), "reset by the responder: {error:?}");
    assert_eq!(begun.elapsed().as_secs(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_fails_or_panics_ends_its_request_alone() {
    let (client, server, addr) = pair().await;
    let fail = |request: Request| async move {
        assert!(request.body != "panic");
        Err::<Bytes, _>(io::Error::other("no"))
    };
    server.respond("/fail/1", Responding::default(), fail).unwrap();
    server.respond(REVERSE, Responding::default(), reverse).unwrap();
    for body in ["fail", "panic"] {
        let error = client.request(&addr, "/fail/1", body).await.unwrap_err();
        assert!(matches!(error, RequestError::Stream(_)), "{error:?}");
        assert_eq!(client.request(&addr, REVERSE, "ab").await.unwrap(), "ba");
    }
    let error = client.request(&addr, "/absent/1", "").await.unwrap_err();
    assert!(error.to_string().contains("/absent/1"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn requests_of_a_peer_at_a_time_are_limited() {
    let (client, server, addr) = pair().await;
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let wait = {
        let gate = Arc::clone(&gate);
        move |_: Request| {
            let gate = Arc::clone(&gate);
            async move {
                gate.acquire().await.map(drop)?;
                Ok::<_, tokio::sync::AcquireError>(Bytes::new())
            }
        }
    };
    let limits = Responding::default().of_peer_max(2);
    server.respond("/wait/1", limits, wait).unwrap();
    let asking: Vec<_> =
        (0..2).map(|_| tokio::spawn(client.request(&addr, "/wait/1", "").into_future())).collect();
    // Time only moves on when both wait at the gate.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let error = client.request(&addr, "/wait/1", "").await.unwrap_err();
    assert_eq!(reset_code(&error), ErrorCode::STREAM_RESOURCE_LIMIT);
    gate.add_permits(10);
    for asked in asking {
        asked.await.unwrap().unwrap();
    }
    client.request(&addr, "/wait/1", "").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_given_up_is_never_handled() {
    let (client, server, addr) = pair().await;
    let handled = Arc::new(AtomicUsize::new(0));
    let count = {
        let handled = Arc::clone(&handled);
        move |request: Request| {
            handled.fetch_add(1, Ordering::Relaxed);
            reverse(request)
        }
    };
    server.respond(REVERSE, Responding::default(), count).unwrap();
    // Half a request: the stream is dropped before its end.
    let mut stream = client.open(&addr, REVERSE).await.unwrap();
    stream.write_all(b"half").await.unwrap();
    drop(stream);
    assert_eq!(client.request(&addr, REVERSE, "ab").await.unwrap(), "ba");
    assert_eq!(handled.load(Ordering::Relaxed), 1, "a truncated request never looks complete");
}

#[cfg(feature = "json")]
#[tokio::test(start_paused = true)]
async fn values_in_json_make_the_round_trip_and_others_are_named() {
    use p2p::request::json;
    let (client, server, addr) = pair().await;
    let add = |request: Request| async move {
        let numbers: Vec<u32> = json::decode(&request.body)?;
        json::encode(&numbers.iter().sum::<u32>())
    };
    server.respond("/add/1", Responding::default(), add).unwrap();
    let numbers = json::encode(&[1, 2, 39]).unwrap();
    let answer = client.request(&addr, "/add/1", numbers).await.unwrap();
    assert_eq!(json::decode::<u32>(&answer).unwrap(), 42);
    let error = json::decode::<u32>(b"[1").unwrap_err().to_string();
    assert!(error.starts_with("JSON:") && error.contains("line 1"), "{error}");
    assert!(client.request(&addr, "/add/1", "nonsense").await.is_err());
}
