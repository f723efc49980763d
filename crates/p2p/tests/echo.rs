//! Two hosts over loopback TCP, as a user writes them.
#![expect(clippy::unwrap_used, reason = "tests")]

use p2p::{Host, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn echo_host() -> Host {
    let host = p2p::builder().listen("/ip4/127.0.0.1/tcp/0").spawn().await.unwrap();
    host.handle("/echo/1.0.0", |s: Stream| async move {
        let (mut r, mut w) = tokio::io::split(s);
        tokio::io::copy(&mut r, &mut w).await?;
        w.shutdown().await
    })
    .unwrap();
    host
}

#[tokio::test]
async fn one_connection_carries_many_protocols_and_streams() {
    let host = echo_host().await;
    let other = p2p::builder().spawn().await.unwrap();
    let addr = host.addrs().remove(0);
    let mut s = other.open(&addr, "/echo/1.0.0").await.unwrap();
    s.write_all(b"hi").await.unwrap();
    s.shutdown().await.unwrap();
    let mut text = String::new();
    s.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "hi");
    let rtt = other.ping(&addr).await.unwrap();
    assert!(rtt.as_nanos() > 0);
    let info = other.identify(&addr).await.unwrap();
    assert!(info.protocols.iter().any(|p| p.as_str() == "/echo/1.0.0"), "{info:?}");
    assert_eq!(other.connections(&host.peer_id()).len(), 1);
    other.close().await;
    host.close().await;
}
