//! Perf, both sides, and peers that keep to nothing.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::Duration;

use common::{Network, builder, tasks};
use p2p::{
    Host, Stream,
    perf::{self, PerfError},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PERF: &str = "/perf/1.0.0";

async fn pair(serve: bool) -> (Host, Host, String) {
    let network = Network::default();
    let server = builder(&network, None).listen("/memory/7").spawn().await.unwrap();
    if serve {
        perf::serve(&server).unwrap();
    }
    let client = builder(&network, None).spawn().await.unwrap();
    let addr = server.addrs().remove(0);
    (client, server, addr)
}

#[tokio::test(start_paused = true)]
async fn perf_01_02_03_uploads_and_downloads_are_counted() {
    let (client, _server, addr) = pair(true).await;
    for (up, down) in [(0, 0), (1, 0), (0, 1), (3 << 20, 0), (0, 3 << 20), (1 << 20, 2 << 20)] {
        let stream = client.open(&addr, PERF).await.unwrap();
        let mut last = perf::Progress::default();
        perf::measure(stream, up, down, |progress| last = progress).await.unwrap();
        assert_eq!((last.uploaded, last.downloaded), (up, down));
    }
    client.perf(&addr, 10, 10).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn perf_01_02_the_wire_of_a_client_and_a_server() {
    let (client, server, addr) = pair(true).await;
    // Our server: nothing comes before the upload has ended.
    let mut stream = client.open(&addr, PERF).await.unwrap();
    stream.write_all(&5u64.to_be_bytes()).await.unwrap();
    stream.write_all(b"upload").await.unwrap();
    let early = tokio::time::timeout(Duration::from_secs(5), stream.read_u8()).await;
    assert!(early.is_err(), "it must not send while it receives");
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer.len(), 5);
    // Our client.
    assert!(server.unhandle(PERF));
    let mut streams = server.accept(PERF).unwrap();
    let measuring = tokio::spawn(async move { client.perf(&addr, 3, 2).await });
    let mut stream = streams.next().await.unwrap();
    let mut said = Vec::new();
    stream.read_to_end(&mut said).await.unwrap();
    assert_eq!(said[..8], 2u64.to_be_bytes());
    assert_eq!(said.len(), 8 + 3);
    stream.write_all(b"xy").await.unwrap();
    stream.shutdown().await.unwrap();
    measuring.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn perf_03_05_a_client_that_wants_everything_and_leaves_stops_the_server() {
    let (client, server, addr) = pair(true).await;
    let mut stream = client.open(&addr, PERF).await.unwrap();
    stream.write_all(&u64::MAX.to_be_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut some = vec![0; 1 << 20];
    stream.read_exact(&mut some).await.unwrap();
    drop(stream);
    let serving = tasks();
    while tasks() >= serving {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(server.peers().len(), 1, "the connection stays");
    client.perf(&addr, 1, 1).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn perf_04_it_is_off_until_it_is_served() {
    let (client, server, addr) = pair(false).await;
    let error = client.perf(&addr, 1, 1).await.unwrap_err();
    assert!(error.to_string().contains(PERF), "{error}");
    perf::serve(&server).unwrap();
    assert!(perf::serve(&server).is_err());
    client.perf(&addr, 1, 1).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_server_that_sends_too_little_too_much_or_nothing_is_named() {
    for (sends, text) in [(1, "1 bytes"), (3, "3 bytes")] {
        let (client, server, addr) = pair(false).await;
        server
            .handle(PERF, move |mut stream: Stream| async move {
                stream.read_to_end(&mut Vec::new()).await?;
                stream.write_all(&[0; 8][..sends]).await?;
                stream.shutdown().await
            })
            .unwrap();
        let error = client.perf(&addr, 1, 2).await.unwrap_err();
        assert!(matches!(error, PerfError::Len { wanted: 2, .. }), "{error:?}");
        assert!(error.to_string().contains(text), "{error}");
    }
    let (client, server, addr) = pair(false).await;
    let mut streams = server.accept(PERF).unwrap();
    let (error, stream) = tokio::join!(client.perf(&addr, 1, 2), streams.next());
    assert!(error.unwrap_err().to_string().contains("deadline"));
    drop(stream);
}
